//! The service manager that started us, if one did: told when we are ready, how we are, that we still work, and that we
//! stop. Where nobody listens (`NOTIFY_SOCKET` is not set), nothing is told.

use std::time::Duration;

use onelane::orchestrator::{Orchestrator, SchedulerSnapshot};

/// How often the status line is told where no watchdog asks more often.
const STATUS_EVERY: Duration = Duration::from_secs(15);

/// How long queue and store may take for the watchdog's round trip, whatever its period.
const ROUND_TRIP: Duration = Duration::from_secs(30);

/// What is told.
#[derive(Debug, Clone)]
pub(super) enum Told {
    /// The API listens.
    Ready(String),
    /// The configuration is being read anew; `Ready` follows.
    Reloading,
    /// The lane ends.
    Stopping,
    /// The round trip works; how things stand, and whether the watchdog is fed.
    Alive { status: String, feeds: bool },
}

/// Tells the manager. It is a datagram to a socket, off the threads that others wait for; what it can't be told is no reason to stop.
pub(super) async fn tell(told: Told) {
    let telling = tokio::task::spawn_blocking(move || send(&told));
    if let Ok(Err(error)) = telling.await {
        tracing::warn!(%error, "the service manager can't be told");
    }
}

#[cfg(unix)]
fn send(told: &Told) -> std::io::Result<()> {
    use sd_notify::{NotifyState, notify};
    match told {
        Told::Ready(status) => notify(&[NotifyState::Ready, NotifyState::Status(status)]),
        Told::Reloading => {
            let now = NotifyState::monotonic_usec_now()?;
            notify(&[NotifyState::Reloading, now])
        }
        Told::Stopping => {
            let status = "stopping: open calls may finish";
            notify(&[NotifyState::Stopping, NotifyState::Status(status)])
        }
        Told::Alive { status, feeds } => {
            let status = NotifyState::Status(status);
            match feeds {
                true => notify(&[NotifyState::Watchdog, status]),
                false => notify(&[status]),
            }
        }
    }
}

#[cfg(not(unix))]
fn send(_: &Told) -> std::io::Result<()> {
    Ok(())
}

/// Within which time the manager wants to hear that we work.
#[cfg(unix)]
fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

#[cfg(not(unix))]
fn watchdog() -> Option<Duration> {
    None
}

/// Whether a manager listens.
fn listens() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Tells how things stand, and feeds the watchdog while the round trip through queue and store works. Never ends.
pub(super) async fn attend(lane: Orchestrator) {
    if !listens() {
        return std::future::pending().await;
    }
    let watchdog = watchdog();
    // Twice within its time, so that one that is late is no end.
    let every = watchdog.map_or(STATUS_EVERY, |time| (time / 2).min(STATUS_EVERY));
    loop {
        match lane.round_trip(every.min(ROUND_TRIP)).await {
            Ok(snapshot) => {
                let (status, feeds) = (status(&snapshot), watchdog.is_some());
                tell(Told::Alive { status, feeds }).await;
            }
            Err(error) => tracing::error!(%error, "the round trip through queue and store fails"),
        }
        tokio::time::sleep(every).await;
    }
}

/// How things stand, in a line.
pub(super) fn status(lane: &SchedulerSnapshot) -> String {
    let waiting: usize = lane.priority_classes.values().map(|class| class.jobs).sum();
    let calls = format!("{} of {} calls open", lane.in_flight, lane.max_concurrency);
    let lasts =
        |reason: &&onelane::model::WaitReason| reason.stops_all() || reason.waits_for_operator();
    match lane.wait_reason.as_ref().filter(lasts) {
        Some(reason) => format!("{waiting} jobs wait, {calls}; {reason}"),
        None => format!("{waiting} jobs wait, {calls}"),
    }
}
