//! Live events over HTTP: server-sent events with ids, from which a client that comes back goes on. The latest are kept
//! for that; who comes later than they last is told how many were missed.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use onelane_core::model::{Event, JobId, Timestamp, limits};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::Api;
use super::admin::JobPath;
use super::answer::{Answer, EVENT_STREAM, Pieces, Reply, Shapes};
use super::input::{Ignored, Input, Nothing};
use super::problem::Problem;
use super::submission::header_text;
use crate::orchestrator::{Feed, Orchestrator};

/// Where a client that comes back says what it had last.
pub(super) const LAST_EVENT_ID: &str = "Last-Event-ID";

/// A client that is told nothing for so long is shown that its connection stands.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The latest events, numbered.
#[derive(Default)]
struct Ring {
    /// The number of the first that is kept.
    first: u64,
    kept: VecDeque<Feed>,
    has_ended: bool,
}

/// Hears all events from the first request on that asks for them.
pub(super) struct Hub {
    /// Numbers of one process mean nothing in the next.
    process: u64,
    ring: Mutex<Ring>,
    heard: watch::Sender<()>,
    begun: AtomicBool,
    task: OnceLock<AbortHandle>,
}

/// Its task holds the lane.
impl Drop for Hub {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl Hub {
    pub(super) fn new(process: u64) -> Self {
        let ring = Ring {
            first: 1,
            ..Ring::default()
        };
        Self {
            process,
            ring: Mutex::new(ring),
            heard: watch::Sender::new(()),
            begun: AtomicBool::new(false),
            task: OnceLock::new(),
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number that the next event gets. From now on all are heard.
    fn next(self: &Arc<Self>, lane: &Orchestrator) -> u64 {
        if !self.begun.swap(true, Ordering::AcqRel) {
            let (mut events, lane) = (lane.subscribe(), lane.clone());
            let hub = Arc::downgrade(self);
            let task = tokio::spawn(async move {
                loop {
                    let heard = tokio::select! {
                        biased;
                        heard = events.next() => heard,
                        _ = lane.stopped() => None,
                    };
                    let Some(hub) = hub.upgrade() else { return };
                    let has_ended = heard.is_none();
                    hub.keep(heard);
                    if has_ended {
                        return;
                    }
                }
            });
            // The first to ask is the only one.
            let _ = self.task.set(task.abort_handle());
        }
        let ring = self.ring();
        ring.first + ring.kept.len() as u64
    }

    /// Ends whoever listens, and lets go of the lane.
    pub(super) async fn end(&self) {
        self.keep(None);
        let Some(task) = self.task.get() else { return };
        task.abort();
        while !task.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    fn keep(&self, heard: Option<Feed>) {
        let mut ring = self.ring();
        match heard {
            Some(feed) => {
                if ring.kept.len() >= limits::EVENTS_BUFFERED_MAX {
                    ring.kept.pop_front();
                    ring.first += 1;
                }
                ring.kept.push_back(feed);
            }
            None => ring.has_ended = true,
        }
        drop(ring);
        self.heard.send_replace(());
    }

    /// Where a client goes on that had this event last, and how many it missed for certain.
    fn after(self: &Arc<Self>, lane: &Orchestrator, last: &str) -> (u64, Option<Missed>) {
        let next = self.next(lane);
        let number = last
            .strip_prefix(&format!("{:016x}-", self.process))
            .and_then(|number| number.parse::<u64>().ok());
        match number {
            Some(number) if number < next => (number + 1, None),
            _ => (next, Some(Missed { count: None })),
        }
    }
}

/// That there were events which are not told.
#[derive(Debug, Clone, Copy, Serialize)]
struct Missed {
    /// How many; `null`: nobody knows, since the process was another one.
    count: Option<u64>,
}

#[derive(Serialize)]
struct Told<'a> {
    #[serde(rename = "type")]
    name: &'static str,
    timestamp: Timestamp,
    data: &'a Event,
}

/// Who listens, and to what.
struct Listener {
    hub: Arc<Hub>,
    heard: watch::Receiver<()>,
    next: u64,
    missed: Option<Missed>,
    /// Of this job alone.
    job: Option<JobId>,
    /// The job's end was told.
    is_over: bool,
}

impl Listener {
    /// What is told next, of what is known by now.
    fn told(&mut self) -> Option<String> {
        let missed = self.missed.take();
        if let Some(missed) = missed {
            return Some(event(None, "missed", &missed));
        }
        let hub = Arc::clone(&self.hub);
        let ring = hub.ring();
        if self.next < ring.first {
            let count = Some(ring.first - self.next);
            self.next = ring.first;
            return Some(event(None, "missed", &Missed { count }));
        }
        loop {
            let at = usize::try_from(self.next - ring.first).unwrap_or(usize::MAX);
            let feed = ring.kept.get(at)?;
            let id = format!("{:016x}-{}", hub.process, self.next);
            self.next += 1;
            match feed {
                Feed::Missed(count) => {
                    let count = Some(*count);
                    return Some(event(Some(&id), "missed", &Missed { count }));
                }
                Feed::Event(timestamp, of) => {
                    if self.job.is_some() && of.job_id() != self.job {
                        continue;
                    }
                    self.is_over = self.job.is_some() && ends(of);
                    let told = Told {
                        name: of.name(),
                        timestamp: *timestamp,
                        data: of,
                    };
                    return Some(event(Some(&id), of.name(), &told));
                }
            }
        }
    }

    fn has_ended(&self) -> bool {
        self.hub.ring().has_ended
    }

    fn pieces(self) -> Pieces {
        let next = |listener: Option<Self>| async {
            let mut listener = listener?;
            loop {
                listener.heard.mark_unchanged();
                if let Some(told) = listener.told() {
                    let rest = (!listener.is_over).then_some(listener);
                    return Some((Ok(Bytes::from(told)), rest));
                }
                if listener.has_ended() {
                    return None;
                }
                match timeout(KEEP_ALIVE, listener.heard.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return None,
                    Err(_) => {
                        let comment = Bytes::from_static(b": keep-alive\n\n");
                        return Some((Ok(comment), Some(listener)));
                    }
                }
            }
        };
        Box::pin(stream::unfold(Some(self), next))
    }
}

/// Whether nothing follows by itself.
const fn ends(event: &Event) -> bool {
    matches!(
        event,
        Event::JobCompleted { .. } | Event::JobFailed { .. } | Event::JobCancelled { .. }
    )
}

fn event(id: Option<&str>, name: &str, data: &impl Serialize) -> String {
    let mut text = String::new();
    if let Some(id) = id {
        let _ = writeln!(text, "id: {id}");
    }
    // Plain data: writing it can't fail.
    let data = serde_json::to_string(data).unwrap_or_default();
    let _ = write!(text, "event: {name}\ndata: {data}\n\n");
    text
}

/// Events as they come.
pub(super) struct Live {
    /// What is told first, and perhaps all.
    first: Option<String>,
    listener: Option<Listener>,
}

impl Answer for Live {
    fn reply(self) -> Reply {
        use futures_util::StreamExt as _;
        let first = self
            .first
            .map(|first| Ok::<_, Infallible>(Bytes::from(first)));
        let first = stream::iter(first);
        let pieces: Pieces = match self.listener {
            Some(listener) => Box::pin(first.chain(listener.pieces())),
            None => Box::pin(first),
        };
        Reply::live(EVENT_STREAM.to_owned(), pieces)
    }

    fn describe(shapes: &mut Shapes<'_>) {
        let about = "Server-sent events, named as `type` says, each with an id; `missed` says how many were not told. \
                     Comments show that the connection stands.";
        shapes.events("200", about);
    }
}

fn listener(
    api: &Arc<Api>,
    headers: &warp::http::HeaderMap,
    job: Option<JobId>,
) -> Result<Listener, Problem> {
    let last = header_text(headers, LAST_EVENT_ID, 64)?;
    let heard = api.events.heard.subscribe();
    let (next, missed) = match &last {
        None => (api.events.next(&api.lane), None),
        Some(last) => api.events.after(&api.lane, last),
    };
    Ok(Listener {
        hub: Arc::clone(&api.events),
        heard,
        next,
        missed,
        job,
        is_over: false,
    })
}

/// `GET events`: all of them.
pub(super) async fn all(api: Arc<Api>, input: Input<Nothing, Ignored>) -> Result<Live, Problem> {
    Ok(Live {
        first: None,
        listener: Some(listener(&api, &input.headers, None)?),
    })
}

/// `GET jobs/{id}/events`: how the job stands, then its events up to its end.
pub(super) async fn of_job(api: Arc<Api>, input: Input<JobPath, Ignored>) -> Result<Live, Problem> {
    #[derive(Serialize)]
    struct State<'a> {
        status: &'a str,
    }
    let id = input.path.id;
    api.check_own(&input.principal, id).await?;
    // What happens while the job is read is told, too.
    let listener = listener(&api, &input.headers, Some(id))?;
    let job = api.lane.job(id).await?.record.job;
    let status = job.status.name();
    Ok(Live {
        first: Some(event(None, "job.status", &State { status })),
        listener: (!job.status.is_terminal()).then_some(listener),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(job: u8) -> Feed {
        let event = Event::JobCancelled {
            job_id: JobId::from_bytes([job; 16]),
        };
        Feed::Event(Timestamp::from_millis(0), Arc::new(event))
    }

    fn listening(hub: &Arc<Hub>, next: u64, job: Option<u8>) -> Listener {
        Listener {
            hub: Arc::clone(hub),
            heard: hub.heard.subscribe(),
            next,
            missed: None,
            job: job.map(|job| JobId::from_bytes([job; 16])),
            is_over: false,
        }
    }

    #[test]
    fn a_listener_that_comes_back_goes_on_and_is_told_what_it_missed() {
        let hub = Arc::new(Hub::new(7));
        let most = limits::EVENTS_BUFFERED_MAX as u64;
        for n in 0..most + 10 {
            hub.keep(Some(of(u8::try_from(n % 3).unwrap())));
        }
        let told = listening(&hub, 3, None).told().unwrap();
        assert_eq!(told, "event: missed\ndata: {\"count\":8}\n\n");
        let mut recent = listening(&hub, most + 9, None);
        let first = recent.told().unwrap();
        assert!(
            first.starts_with(&format!("id: {:016x}-{}\n", 7, most + 9)),
            "{first}"
        );
        assert!(first.contains("event: job.cancelled\n"), "{first}");
        assert!(recent.told().is_some());
        assert_eq!(recent.told(), None, "nothing more has happened");
        hub.keep(Some(Feed::Missed(4)));
        assert!(recent.told().unwrap().contains("{\"count\":4}"));
    }

    #[test]
    fn a_job_s_listener_hears_of_its_job_alone_and_ends_with_it() {
        let hub = Arc::new(Hub::new(7));
        for job in [1, 2, 1] {
            hub.keep(Some(of(job)));
        }
        let mut listener = listening(&hub, 1, Some(2));
        let told = listener.told().unwrap();
        assert!(told.starts_with(&format!("id: {:016x}-2\n", 7)), "{told}");
        assert!(listener.is_over);
    }
}
