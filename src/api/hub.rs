//! The latest events, numbered, and those who listen to them. The latest are kept for clients that come back; who comes
//! later than they last is told how many were missed. A client key is told of its own jobs alone, and its events have
//! numbers of their own: they tell nothing of what others do.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use onelane_core::model::{Event, JobId, KeyId, Timestamp, limits};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::orchestrator::{Feed, Orchestrator};

/// An event that is kept.
struct Kept {
    feed: Feed,
    /// The client key whose job it is about.
    key: Option<KeyId>,
    /// Its number among those of this key.
    of_key: u64,
}

/// The latest events, numbered.
struct Ring {
    /// The number of the first that is kept.
    first: u64,
    kept: VecDeque<Kept>,
    /// How many each client key had.
    of_keys: BTreeMap<KeyId, u64>,
    has_ended: bool,
}

impl Ring {
    /// The number that the next event gets.
    fn next(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    /// How many events a client key had.
    fn had(&self, key: KeyId) -> u64 {
        self.of_keys.get(&key).copied().unwrap_or_default()
    }

    /// The number of the first event of a client key that is kept, or of its next one.
    fn first_of(&self, key: KeyId) -> u64 {
        let mut own = self.kept.iter().filter(|kept| kept.key == Some(key));
        own.next().map_or(self.had(key) + 1, |kept| kept.of_key)
    }
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
            kept: VecDeque::new(),
            of_keys: BTreeMap::new(),
            has_ended: false,
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

    /// From now on all events are heard.
    pub(super) fn begin(self: &Arc<Self>, lane: &Orchestrator) {
        if self.begun.swap(true, Ordering::AcqRel) {
            return;
        }
        let (mut events, lane) = (lane.subscribe(), lane.clone());
        let hub = Arc::downgrade(self);
        let task = tokio::spawn(async move {
            loop {
                let heard = tokio::select! {
                    biased;
                    heard = events.next_with_key() => heard,
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

    /// Ends whoever listens, and lets go of the lane.
    pub(super) async fn end(&self) {
        self.keep(None);
        let Some(task) = self.task.get() else { return };
        task.abort();
        while !task.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    fn keep(&self, heard: Option<(Feed, Option<KeyId>)>) {
        let mut ring = self.ring();
        match heard {
            Some((feed, key)) => {
                if ring.kept.len() >= limits::EVENTS_BUFFERED_MAX {
                    ring.kept.pop_front();
                    ring.first += 1;
                }
                let of_key = key.map_or(0, |key| {
                    let had = ring.of_keys.entry(key).or_default();
                    *had += 1;
                    *had
                });
                ring.kept.push_back(Kept { feed, key, of_key });
            }
            None => ring.has_ended = true,
        }
        drop(ring);
        self.heard.send_replace(());
    }

    /// One who listens from now on or, with the id of the event that it had last, from there on.
    pub(super) fn listen(self: &Arc<Self>, view: Scope, last: Option<Had>) -> Listener {
        let heard = self.heard.subscribe();
        let ring = self.ring();
        let had = |key| ring.had(key);
        let newest = view.key.map_or(ring.next() - 1, had);
        let number = last
            .filter(|had| had.process == self.process && had.number <= newest)
            .map(|had| had.number);
        let (next, own, missed) = match (number, view.key) {
            (Some(number), None) => (number + 1, 0, None),
            // Where it stands among all events is found by looking.
            (Some(number), Some(_)) => (0, number + 1, None),
            (None, _) => {
                let missed = last.map(|_| Missed { count: None });
                (ring.next(), newest + 1, missed)
            }
        };
        drop(ring);
        Listener {
            hub: Arc::clone(self),
            heard,
            view,
            next,
            own,
            missed,
            is_over: false,
        }
    }
}

/// The event that somebody who comes back had last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Had {
    process: u64,
    number: u64,
}

impl fmt::Display for Had {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.process, self.number)
    }
}

impl Had {
    /// As its id says it; `None`: no event has such an id.
    pub(super) fn parse(id: &str) -> Option<Self> {
        let (process, number) = id.split_once('-')?;
        let had = Self {
            process: u64::from_str_radix(process, 16).ok()?,
            number: number.parse().ok()?,
        };
        (had.to_string() == id).then_some(had)
    }
}

/// Which events somebody is told.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Scope {
    /// Those of the jobs of this client key; `None`: all.
    pub(super) key: Option<KeyId>,
    /// Those of this job, up to its end.
    pub(super) job: Option<JobId>,
}

/// That there were events which are not told.
#[derive(Debug, Clone, Copy, Serialize)]
struct Missed {
    /// How many; `null`: nobody knows, since the process was another one, or which jobs they were of is forgotten.
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
pub(super) struct Listener {
    hub: Arc<Hub>,
    /// Changes when there is more.
    pub(super) heard: watch::Receiver<()>,
    view: Scope,
    /// The number of the next event to look at.
    next: u64,
    /// The number that the next event has among those of the client key.
    own: u64,
    missed: Option<Missed>,
    /// The job's end was told.
    pub(super) is_over: bool,
}

impl Listener {
    /// What is told next, of what is known by now.
    pub(super) fn told(&mut self) -> Option<String> {
        if let Some(missed) = self.missed.take() {
            return Some(event(None, "missed", &missed));
        }
        let hub = Arc::clone(&self.hub);
        let ring = hub.ring();
        if let Some(missed) = self.catch_up(&ring) {
            return Some(event(None, "missed", &missed));
        }
        loop {
            let at = usize::try_from(self.next - ring.first).unwrap_or(usize::MAX);
            let Kept { feed, key, of_key } = ring.kept.get(at)?;
            let number = self.next;
            self.next += 1;
            let (of, timestamp) = match feed {
                Feed::Missed(_) if self.view.key.is_some() || self.view.job.is_some() => {
                    return Some(event(None, "missed", &Missed { count: None }));
                }
                Feed::Missed(count) => {
                    let id = hub.id(number);
                    let count = Some(*count);
                    return Some(event(Some(&id), "missed", &Missed { count }));
                }
                Feed::Event(timestamp, of) => (of, timestamp),
            };
            let id = match self.view.key {
                None => hub.id(number),
                Some(own) if *key == Some(own) && *of_key >= self.own => {
                    self.own = of_key + 1;
                    hub.id(*of_key)
                }
                Some(_) => continue,
            };
            if self.view.job.is_some() && of.job_id() != self.view.job {
                continue;
            }
            self.is_over = self.view.job.is_some() && ends(of);
            let told = Told {
                name: of.name(),
                timestamp: *timestamp,
                data: of,
            };
            return Some(event(Some(&id), of.name(), &told));
        }
    }

    /// Goes on with the first event that is kept, and tells how many before it were for this one.
    fn catch_up(&mut self, ring: &Ring) -> Option<Missed> {
        if self.next >= ring.first {
            return None;
        }
        let lost = match self.view.key {
            None => ring.first - self.next,
            Some(key) => {
                let first = ring.first_of(key);
                let lost = first.saturating_sub(self.own);
                self.own = self.own.max(first);
                lost
            }
        };
        self.next = ring.first;
        let of_job = self.view.job.is_some();
        (lost > 0).then_some(Missed {
            count: (!of_job).then_some(lost),
        })
    }

    /// The id of what stands before the next event: whoever had that goes on from here.
    pub(super) fn place(&self) -> String {
        let next = match self.view.key {
            None => self.next,
            Some(_) => self.own,
        };
        self.hub.id(next.saturating_sub(1))
    }

    /// Whether nothing more comes.
    pub(super) fn has_ended(&self) -> bool {
        self.hub.ring().has_ended
    }
}

impl Hub {
    fn id(&self, number: u64) -> String {
        let process = self.process;
        Had { process, number }.to_string()
    }
}

/// Whether nothing follows by itself.
const fn ends(event: &Event) -> bool {
    matches!(
        event,
        Event::JobCompleted { .. } | Event::JobFailed { .. } | Event::JobCancelled { .. }
    )
}

/// One server-sent event.
pub(super) fn event(id: Option<&str>, name: &str, data: &impl Serialize) -> String {
    let mut text = String::new();
    if let Some(id) = id {
        let _ = writeln!(text, "id: {id}");
    }
    // Plain data: writing it can't fail.
    let data = serde_json::to_string(data).unwrap_or_default();
    let _ = write!(text, "event: {name}\ndata: {data}\n\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Option<KeyId> = Some(KeyId::new(1));
    const TWO: Option<KeyId> = Some(KeyId::new(2));
    const ALL: Scope = Scope {
        key: None,
        job: None,
    };
    const OF_ONE: Scope = Scope { key: ONE, ..ALL };

    fn job(n: u8) -> JobId {
        JobId::from_bytes([n; 16])
    }

    fn of(n: u8, key: Option<KeyId>) -> Option<(Feed, Option<KeyId>)> {
        let event = Event::JobCancelled { job_id: job(n) };
        let feed = Feed::Event(Timestamp::from_millis(0), Arc::new(event));
        Some((feed, key))
    }

    fn hub() -> Arc<Hub> {
        Arc::new(Hub::new(7))
    }

    fn id(number: u64) -> String {
        format!("{:016x}-{number}", 7)
    }

    fn had(number: u64) -> Option<Had> {
        Had::parse(&id(number))
    }

    #[test]
    fn an_id_that_no_event_has_is_known_as_none() {
        assert_eq!(had(3).map(|had| had.to_string()), Some(id(3)));
        for odd in [
            "",
            "x",
            "7",
            "7-3",
            "0000000000000007-",
            "0000000000000007-03",
            "0000000000000007--3",
            "000000000000000G-3",
            "0000000000000007-99999999999999999999",
        ] {
            assert_eq!(Had::parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn who_had_the_place_of_a_listener_is_told_what_comes_behind_it() {
        let hub = hub();
        for key in [ONE, TWO, ONE] {
            hub.keep(of(1, key));
        }
        for (view, behind) in [(ALL, 4), (OF_ONE, 4)] {
            let place = hub.listen(view, None).place();
            hub.keep(of(1, ONE));
            let mut again = hub.listen(view, Had::parse(&place));
            assert_eq!(ids(&mut again)[0], id(behind), "{place}");
            let last = Had::parse(&place);
            assert_eq!(hub.listen(view, last).place(), place);
        }
    }

    fn ids(listener: &mut Listener) -> Vec<String> {
        let told = std::iter::from_fn(|| listener.told());
        told.map(|told| {
            let id = told.lines().find_map(|line| line.strip_prefix("id: "));
            id.unwrap_or(&told).to_owned()
        })
        .collect()
    }

    fn missed(count: &str) -> String {
        format!("event: missed\ndata: {{\"count\":{count}}}\n\n")
    }

    #[test]
    fn a_listener_that_comes_back_goes_on_and_is_told_what_it_missed() {
        let hub = hub();
        let most = limits::EVENTS_BUFFERED_MAX as u64;
        for n in 0..most + 10 {
            hub.keep(of(u8::try_from(n % 3).unwrap(), None));
        }
        let told = hub.listen(ALL, had(2)).told().unwrap();
        assert_eq!(told, missed("8"));
        let mut recent = hub.listen(ALL, had(most + 8));
        let first = recent.told().unwrap();
        assert!(
            first.starts_with(&format!("id: {}\n", id(most + 9))),
            "{first}"
        );
        assert!(first.contains("event: job.cancelled\n"), "{first}");
        assert!(recent.told().is_some());
        assert_eq!(recent.told(), None, "nothing more has happened");
        hub.keep(Some((Feed::Missed(4), None)));
        assert!(recent.told().unwrap().contains("{\"count\":4}"));
        for other in ["0000000000000001-7", &id(most + 99)] {
            let had = Had::parse(other);
            assert!(had.is_some());
            assert_eq!(hub.listen(ALL, had).told().unwrap(), missed("null"));
        }
    }

    #[test]
    fn a_job_s_listener_hears_of_its_job_alone_and_ends_with_it() {
        let hub = hub();
        for n in [1, 2, 1] {
            hub.keep(of(n, None));
        }
        let view = Scope {
            job: Some(job(2)),
            ..ALL
        };
        let mut listener = hub.listen(view, had(0));
        let told = listener.told().unwrap();
        assert!(told.starts_with(&format!("id: {}\n", id(2))), "{told}");
        assert!(listener.is_over);
    }

    #[test]
    fn a_key_hears_of_its_own_jobs_alone_by_numbers_of_its_own() {
        let hub = hub();
        let mut own = hub.listen(OF_ONE, None);
        for key in [TWO, ONE, None, TWO, ONE] {
            hub.keep(of(1, key));
        }
        assert_eq!(ids(&mut own), [id(1), id(2)]);
        hub.keep(of(1, TWO));
        hub.keep(of(1, ONE));
        assert_eq!(ids(&mut own), [id(3)]);
        assert_eq!(ids(&mut hub.listen(OF_ONE, had(1))), [id(2), id(3)]);
        assert_eq!(ids(&mut hub.listen(OF_ONE, had(3))), [] as [String; 0]);
        assert_eq!(
            ids(&mut hub.listen(OF_ONE, had(4))),
            [missed("null")],
            "it never had that one"
        );
        hub.keep(Some((Feed::Missed(4), None)));
        assert_eq!(
            ids(&mut own),
            [missed("null")],
            "nobody knows whose they were"
        );
        let one_job = Scope {
            job: Some(job(9)),
            ..OF_ONE
        };
        hub.keep(of(9, ONE));
        assert_eq!(
            ids(&mut hub.listen(one_job, had(3))),
            [missed("null"), id(4)]
        );
    }

    #[test]
    fn a_key_is_told_how_many_of_its_own_events_it_missed() {
        let hub = hub();
        for _ in 0..5 {
            hub.keep(of(1, ONE));
        }
        let mut slow = hub.listen(OF_ONE, had(1));
        for n in 0..limits::EVENTS_BUFFERED_MAX {
            hub.keep(of(1, if n == 100 { ONE } else { TWO }));
        }
        let want = [missed("4"), id(6)];
        assert_eq!(ids(&mut slow), want);
        assert_eq!(ids(&mut hub.listen(OF_ONE, had(1))), want);
        assert_eq!(ids(&mut hub.listen(OF_ONE, had(5))), [id(6)]);
        let one_job = Scope {
            job: Some(job(1)),
            ..OF_ONE
        };
        let mut of_job = hub.listen(one_job, had(1));
        assert_eq!(
            of_job.told(),
            Some(missed("null")),
            "of which job is forgotten"
        );
        for _ in 0..limits::EVENTS_BUFFERED_MAX {
            hub.keep(of(1, TWO));
        }
        assert_eq!(ids(&mut hub.listen(OF_ONE, had(4))), [missed("2")]);
        assert_eq!(ids(&mut slow), [] as [String; 0]);
    }
}
