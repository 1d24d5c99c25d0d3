//! `onelane serve`: the daemon. Starts the lane and its API, and ends on a signal, when the lane breaks
//! down, or, with `--once`, when no job waits any more.

mod found;
mod manager;
mod reload;

use std::sync::Arc;
use std::time::Duration;

use onelane::error::Error;
use onelane::model::{Scope, Settings, WaitReason};
use onelane::orchestrator::{Orchestrator, StopReason};
use onelane::ports::StatusCounts;
use onelane::system::SystemClock;
use serde_json::json;
use tokio::sync::oneshot;

use super::args::{Common, ServeArgs};
use super::exit::{CliError, Exit};
use super::remote;
use super::run::{Ends, HeldUp, release, stuck};
use super::start::{self, Plan};
use crate::telemetry::{self, Signal, Signals};
use manager::Told;

/// How often `--once` looks whether anything is left.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long those whose calls were cut have to be told so.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Runs the daemon.
pub(crate) async fn serve(args: ServeArgs, json: bool) -> Result<Exit, CliError> {
    let mut signals = Signals::install().map_err(start::no_signals)?;
    let plan = start::plan(&args.common, &args.simulated)?;
    let config = plan.config();
    let lines = telemetry::init(config, &config.log.filter, telemetry::stderr())?;
    start::allow_files();
    let listening = start::listen(&plan)
        .await?
        .telling_of(lines)
        .with_pages(onelane::desk::pages());
    let Some(lane) = start::lane(&plan, &mut signals).await? else {
        return Ok(Exit::Done);
    };
    // Before a start with `--once` releases what it finds.
    found::tell_found(&lane.orchestrator).await?;
    // Without `--once` an operator is there to release it over HTTP.
    let released = if args.once {
        release(&lane.orchestrator, Ends::Holds).await?
    } else {
        None
    };
    if let Some(was) = &released {
        tracing::warn!("resuming; {was}");
    }
    let server = listening.serve(lane.orchestrator.clone(), Arc::new(SystemClock));
    if plan.is_simulated() && !json {
        super::note(start::SIMULATION);
    }
    let _posted = remote::post(&plan.config().store.path, &server.reached_at());
    // The log says it, too: no reason not to serve.
    if let Err(error) = announce(
        &plan,
        &lane.orchestrator.settings(),
        &server.reached_at(),
        json,
    ) {
        tracing::warn!(%error, "the start line can't be written");
    }
    warn_of_closed_intake(&lane.orchestrator).await?;
    // A hold that was released just now may be back already: the end tells.
    if released.is_none() {
        warn_of_waits(&lane.orchestrator).await?;
    }

    let (close, closed) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.run(
        async {
            // A sender that is gone closes just as well.
            let _ = closed.await;
        },
        plan.drain(),
    ));
    let status = manager::status(&lane.orchestrator.lane().await?);
    manager::tell(Told::Ready(status)).await;
    let end = tokio::select! {
        end = end(&lane.orchestrator, &args, &mut signals) => end,
        () = manager::attend(lane.orchestrator.clone()) => Ok(Exit::Done),
    };
    manager::tell(Told::Stopping).await;
    // The lane stops first: while it drains, the API still tells how things stand.
    let drained = lane.drain(&mut signals).await;
    drop(close);
    // Whoever still waits is told how it ended, also where calls had to be cut.
    let telling = async {
        if serving.await.is_err() {
            tracing::error!("the server broke down");
        }
    };
    match drained {
        true => telling.await,
        false => drop(tokio::time::timeout(LAST_ANSWERS, telling).await),
    }
    found::tell_left(&lane.orchestrator).await;
    match end? {
        Exit::Done if !drained => Ok(Exit::JobsFailed),
        exit => Ok(exit),
    }
}

/// Tells of a lane that takes no jobs.
async fn warn_of_closed_intake(lane: &Orchestrator) -> Result<(), CliError> {
    if let Some(closed) = lane.lane().await?.draining {
        let since = closed.since;
        tracing::warn!(%since, "the intake is closed until POST /api/admin/glm/resume");
    }
    Ok(())
}

/// Tells of a lane that takes jobs but calls nothing.
async fn warn_of_waits(lane: &Orchestrator) -> Result<(), CliError> {
    let status = lane.lane().await?;
    let lasts = |reason: &&WaitReason| reason.stops_all() || reason.waits_for_operator();
    if let Some(reason) = status.wait_reason.as_ref().filter(lasts) {
        match reason.help() {
            Some(help) => tracing::warn!(help, "{reason}"),
            None => tracing::warn!("{reason}"),
        }
    }
    Ok(())
}

/// The start line. It tells what may be changed while running as it is in force: a stored change wins over what
/// the plan was made from.
fn announce(
    plan: &Plan,
    settings: &Settings,
    reached_at: &[String],
    json: bool,
) -> Result<(), CliError> {
    let mode = if plan.is_simulated() {
        "simulated"
    } else {
        "real"
    };
    let (store, base_url) = (&plan.config().store.path, &settings.glm.base_url);
    let (model, slots) = (&settings.glm.model, settings.slots());
    let mut answer = json!({
        "listening": reached_at.first(),
        "store": store,
        "baseUrl": base_url,
        "model": model,
        "maxConcurrency": slots,
        "mode": mode,
    });
    // A second place, where there is one.
    if let (Some(socket), Some(answer)) = (reached_at.get(1), answer.as_object_mut()) {
        answer.insert("socket".to_owned(), socket.as_str().into());
    }
    let places = reached_at.join(" and ");
    super::answer(json, &answer, |_| {
        format!(
            "onelane {} on {places}: store {store}, GLM {base_url} ({mode}), model {model}, {slots} in flight at most",
            env!("CARGO_PKG_VERSION"),
        )
    })
}

/// Waits for the reason to end, and says with which code.
async fn end(
    lane: &Orchestrator,
    args: &ServeArgs,
    signals: &mut Signals,
) -> Result<Exit, CliError> {
    tokio::select! {
        signal = told_to_stop(lane, &args.common, signals) => {
            tracing::info!(%signal, "draining: the open call may finish, a second signal stops at once");
            Ok(Exit::Done)
        }
        reason = lane.stopped() => match reason {
            StopReason::Shutdown => Ok(Exit::Done),
            reason => Err(reason.into()),
        },
        left = nothing_left(lane), if args.once => left,
    }
}

async fn told_to_stop(lane: &Orchestrator, common: &Common, signals: &mut Signals) -> Signal {
    loop {
        match signals.next().await {
            Signal::Hangup => reload::reload(lane, common).await,
            signal => return signal,
        }
    }
}

/// Resolves when no job waits or runs any more, or when none can go on without an operator.
async fn nothing_left(lane: &Orchestrator) -> Result<Exit, CliError> {
    let failed_before = match lane.queue_status().await {
        Ok(counts) => counts.failed,
        Err(error) => return trouble(error).await,
    };
    loop {
        let (counts, status) = match (lane.queue_status().await, lane.lane().await) {
            (Ok(counts), Ok(status)) => (counts, status),
            (Err(error), _) | (_, Err(error)) => return trouble(error).await,
        };
        if let Some(exit) = once_exit(&counts, failed_before) {
            return Ok(exit);
        }
        let held = match HeldUp::of(&status) {
            None => stuck(lane, &status, Scope::All).await,
            held => Ok(held),
        };
        match held {
            Ok(Some(HeldUp { reason, help })) if status.in_flight == 0 => {
                return Err(CliError::new(Exit::Held, reason).help(help));
            }
            Ok(_) => {}
            Err(error) => return trouble(error).await,
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A lane that stopped tells its reason elsewhere.
async fn trouble(error: Error) -> Result<Exit, CliError> {
    match error {
        Error::Stopped(_) => std::future::pending().await,
        error => Err(error.into()),
    }
}

/// How `--once` ends with these jobs; `None` while some are left.
fn once_exit(counts: &StatusCounts, failed_before: u64) -> Option<Exit> {
    if counts.pending + counts.processing > 0 {
        None
    } else if counts.failed > failed_before {
        Some(Exit::JobsFailed)
    } else {
        Some(Exit::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_ends_when_nothing_waits_and_tells_of_new_failures_only() {
        let counts = |pending, processing, failed| StatusCounts {
            pending,
            processing,
            failed,
            ..StatusCounts::default()
        };
        assert_eq!(once_exit(&counts(1, 0, 0), 0), None);
        assert_eq!(once_exit(&counts(0, 1, 0), 0), None);
        assert_eq!(once_exit(&counts(0, 0, 0), 0), Some(Exit::Done));
        assert_eq!(once_exit(&counts(0, 0, 2), 2), Some(Exit::Done));
        assert_eq!(once_exit(&counts(0, 0, 3), 2), Some(Exit::JobsFailed));
    }
}
