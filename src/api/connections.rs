//! How many connections and requests there may be at once, so that operators always get in: some connections are
//! reserved for them, and at the bound one makes way that has long been without whole headers. Whoever only just came is
//! heard, in a burst too: its request is answered, if only with a refusal.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::intake::{Intake, Share};
use super::limits;
use crate::config::ServerSection;

/// The bounds of the API, with what is in use of them.
#[derive(Debug)]
pub(super) struct Bounds {
    connections_max: usize,
    requests_max: usize,
    body_memory_bytes: usize,
    open: Mutex<Open>,
    /// A place has become free.
    freed: Notify,
    requests: Arc<Semaphore>,
    body_memory: Arc<Semaphore>,
    /// Answers that are read from the store part by part.
    exports: Arc<Semaphore>,
    /// Bodies of some size that are read at once: each takes a processor and some memory.
    pub(super) readers: Arc<Semaphore>,
    /// How fast bodies come in.
    intake: Arc<Intake>,
    refused: AtomicU64,
    closed: AtomicU64,
    untaken: AtomicU64,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    all: BTreeMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    kind: Door,
    /// Since when it waits for whole headers; `None` while it has a request.
    waits_since: Option<Instant>,
    /// Requests that it has at once, over HTTP/2.
    streams: usize,
    /// Since when it has its request, or is there.
    since: Instant,
    /// Ends its task, once there is one.
    task: Option<AbortHandle>,
}

/// For whom a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// For everybody.
    Common,
    /// For operators and for whoever asks whether the daemon answers.
    Reserved,
}

/// The API's bounds and what is in use of them.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServerFigures {
    /// Connections that are open, and how many may be; beyond them some are reserved for operators.
    pub(super) connections: usize,
    pub(super) connections_max: usize,
    pub(super) connections_reserved: usize,
    /// Connections that made way, since they had waited longest without whole headers.
    pub(super) connections_made_way: u64,
    /// Requests for work in progress, and how many may be.
    pub(super) requests: usize,
    pub(super) requests_max: usize,
    /// Requests that were refused with 503, since there were too many or their bodies too large together.
    pub(super) requests_refused: u64,
    /// Answers that were given up, since nobody took them.
    pub(super) answers_untaken: u64,
    /// Bytes of request bodies that are in memory, and how many may be.
    pub(super) body_memory_bytes: usize,
    pub(super) body_memory_bytes_max: usize,
    /// Log lines that were dropped, since nobody took them.
    pub(super) log_lines_dropped: u64,
}

/// How many units a semaphore has lent.
fn lent(all: usize, of: &Semaphore) -> usize {
    all.saturating_sub(of.available_permits())
}

impl Bounds {
    pub(super) fn new(config: &ServerSection) -> Arc<Self> {
        let connections_max = config.connections_max.min(files_allow());
        if connections_max < config.connections_max {
            tracing::warn!(
                connections_max,
                "the system lets this process have fewer open files than server.connections_max; see `ulimit -n`"
            );
        }
        Arc::new(Self {
            connections_max,
            requests_max: config.requests_max,
            body_memory_bytes: config.body_memory_bytes,
            open: Mutex::default(),
            freed: Notify::new(),
            requests: Arc::new(Semaphore::new(config.requests_max)),
            body_memory: Arc::new(Semaphore::new(units(config.body_memory_bytes))),
            exports: Arc::new(Semaphore::new(limits::EXPORTS_MAX)),
            readers: Arc::new(Semaphore::new(readers())),
            intake: Intake::new(),
            refused: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            untaken: AtomicU64::new(0),
        })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection that was accepted, as soon as there is one: until then it has not been read, and those
    /// behind it wait where the system keeps them.
    pub(super) async fn place(self: &Arc<Self>) -> Arc<Place> {
        const LOOK_EVERY: Duration = Duration::from_millis(50);
        loop {
            if let Some(place) = self.place_now() {
                return place;
            }
            // Those that wait grow older without a word.
            let _ = tokio::time::timeout(LOOK_EVERY, self.freed.notified()).await;
        }
    }

    /// A place for a connection, for which another one may have to make way.
    fn place_now(self: &Arc<Self>) -> Option<Arc<Place>> {
        let all = self.connections_max + limits::CONNECTIONS_RESERVED;
        let mut open = self.open();
        if open.all.len() >= self.connections_max {
            let made_way = open.makes_way(open.all.len() >= all);
            if let Some(connection) = made_way.and_then(|id| open.all.remove(&id)) {
                self.closed.fetch_add(1, Ordering::Relaxed);
                if let Some(task) = connection.task {
                    task.abort();
                }
            }
        }
        if open.all.len() >= all {
            return None;
        }
        let door = match open.all.len() < self.connections_max {
            true => Door::Common,
            false => Door::Reserved,
        };
        let id = open.next;
        open.next += 1;
        let now = Instant::now();
        let connection = Connection {
            kind: door,
            waits_since: Some(now),
            streams: 0,
            since: now,
            task: None,
        };
        open.all.insert(id, connection);
        Some(Arc::new(Place {
            bounds: Arc::clone(self),
            id,
            door,
            has_answered: AtomicBool::new(false),
            has_begun: AtomicBool::new(false),
            is_shared: AtomicBool::new(false),
            leave: Notify::new(),
        }))
    }

    /// The right to have a request for work in progress; `None`: there are too many.
    pub(super) fn request(&self) -> Option<OwnedSemaphorePermit> {
        self.lend(&self.requests, 1)
    }

    /// The right to send an answer of any length.
    pub(super) fn export(&self) -> Option<OwnedSemaphorePermit> {
        self.lend(&self.exports, 1)
    }

    /// The right to keep so many bytes of a body in memory.
    pub(super) fn memory(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.lend(&self.body_memory, units(bytes))
    }

    /// The share of another body of what is taken in.
    pub(super) fn share(&self) -> Share {
        Share::of(Arc::clone(&self.intake))
    }

    fn lend(&self, of: &Arc<Semaphore>, units: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let lent = Arc::clone(of).try_acquire_many_owned(units).ok();
        lent.or_else(|| self.refuse())
    }

    /// Counts a request that gets no right.
    pub(super) fn refuse(&self) -> Option<OwnedSemaphorePermit> {
        self.refused.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Counts an answer that was given up since nobody took it.
    pub(super) fn count_untaken(&self) {
        self.untaken.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn figures(&self, log_lines_dropped: u64) -> ServerFigures {
        let in_memory = lent(units(self.body_memory_bytes), &self.body_memory);
        ServerFigures {
            connections: self.open().all.len(),
            connections_max: self.connections_max,
            connections_reserved: limits::CONNECTIONS_RESERVED,
            connections_made_way: self.closed.load(Ordering::Relaxed),
            requests: lent(self.requests_max, &self.requests),
            requests_max: self.requests_max,
            requests_refused: self.refused.load(Ordering::Relaxed),
            answers_untaken: self.untaken.load(Ordering::Relaxed),
            body_memory_bytes: in_memory * limits::BODY_MEMORY_UNIT_BYTES,
            body_memory_bytes_max: self.body_memory_bytes,
            log_lines_dropped,
        }
    }
}

impl Open {
    /// Who makes way for another connection: whoever has waited longest without whole headers, or, when the
    /// reserved ones are used up, too, the oldest of these. Nobody who has not been there for a while.
    fn makes_way(&self, is_full: bool) -> Option<u64> {
        let now = Instant::now();
        let long = |(since, id): (Instant, u64)| {
            let waited = now.saturating_duration_since(since);
            (waited >= Duration::from_millis(limits::MAKES_WAY_AFTER_MS)).then_some(id)
        };
        let waiting = self.all.iter();
        let waiting = waiting.filter_map(|(id, c)| Some((c.waits_since?, *id)));
        if let Some(id) = waiting.min().and_then(long) {
            return Some(id);
        }
        let reserved = self.all.iter().filter(|(_, c)| c.kind == Door::Reserved);
        let oldest = reserved.map(|(id, c)| (c.since, *id)).min();
        oldest.filter(|_| is_full).and_then(long)
    }
}

/// Memory is lent in pieces, since a semaphore counts no further than to some hundred millions on every system.
const fn units(bytes: usize) -> usize {
    bytes.div_ceil(limits::BODY_MEMORY_UNIT_BYTES)
}

/// How many bodies of some size may be worked on at once: the lane keeps half of the processors.
fn readers() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (processors / 2).clamp(1, limits::LARGE_BODY_READERS_MAX)
}

/// How many connections the system's bound on open files leaves room for.
fn files_allow() -> usize {
    let text = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3)?.parse::<usize>().ok());
    let others = limits::CONNECTIONS_RESERVED + limits::OTHER_FILES;
    soft.map_or(usize::MAX, |soft| soft.saturating_sub(others).max(1))
}

/// The place of one connection. Dropped, it is free.
#[derive(Debug)]
pub(super) struct Place {
    bounds: Arc<Bounds>,
    id: u64,
    pub(super) door: Door,
    /// Whether its request was answered, so that what is read next belongs to another one.
    has_answered: AtomicBool,
    /// Whether something of a request was read whose headers are not all here.
    has_begun: AtomicBool,
    /// Whether it has several requests at once.
    is_shared: AtomicBool,
    leave: Notify,
}

/// A request on a connection that has several at once. Dropped, it is over, with its answer.
#[derive(Debug)]
pub(super) struct Stream {
    place: Arc<Place>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.place.change(|connection| {
            connection.streams = connection.streams.saturating_sub(1);
            if connection.streams == 0 {
                connection.waits_since = Some(Instant::now());
            }
        });
    }
}

impl Place {
    /// The headers of a request are here, on a connection that has several at once.
    pub(super) fn stream(self: &Arc<Self>) -> Stream {
        self.is_shared.store(true, Ordering::Release);
        self.change(|connection| {
            connection.streams += 1;
            connection.waits_since = None;
            connection.since = Instant::now();
        });
        Stream {
            place: Arc::clone(self),
        }
    }

    /// No further request shall come on this connection.
    pub(super) fn leave(&self) {
        self.leave.notify_one();
    }

    fn waits_since(&self) -> Option<Instant> {
        self.bounds.open().all.get(&self.id)?.waits_since
    }

    /// Resolves when no further request shall come, or none has come for so long.
    pub(super) async fn is_left(&self, idle: Duration) {
        loop {
            let until = self.waits_since().unwrap_or_else(Instant::now) + idle;
            if until <= Instant::now() {
                return;
            }
            tokio::select! {
                () = self.leave.notified() => return,
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// Resolves when it has had time to end and is without a request.
    pub(super) async fn stays_without_request(&self, time: Duration) {
        loop {
            tokio::time::sleep(time).await;
            if self.waits_since().is_some() {
                return;
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut Connection)) {
        if let Some(connection) = self.bounds.open().all.get_mut(&self.id) {
            change(connection);
        }
    }

    /// The task that ends the connection.
    pub(super) fn ends_with(&self, task: AbortHandle) {
        // It may have made way before its task began.
        let mut open = self.bounds.open();
        match open.all.get_mut(&self.id) {
            Some(connection) => connection.task = Some(task),
            None => task.abort(),
        }
    }

    /// A request's headers are here.
    pub(super) fn has_headers(&self) {
        self.has_begun.store(false, Ordering::Release);
        self.has_answered.store(false, Ordering::Release);
        self.change(|connection| {
            connection.waits_since = None;
            connection.since = Instant::now();
        });
    }

    /// The request was answered.
    pub(super) fn has_answered(&self) {
        self.has_answered.store(true, Ordering::Release);
    }

    /// Something is to be read: after an answer, another request.
    pub(super) fn reads(&self) {
        if self.has_answered.swap(false, Ordering::AcqRel) {
            self.has_begun.store(false, Ordering::Release);
            self.change(|connection| connection.waits_since = Some(Instant::now()));
        }
    }

    /// The share of what is thrown away of its client.
    pub(super) fn waste(&self) -> Share {
        Share::of_waste(Arc::clone(&self.bounds.intake))
    }

    /// It is about to end, and has waited for some time for its client to see that: it may make way for others.
    pub(super) fn lingers(&self) {
        self.change(|connection| {
            connection.waits_since.get_or_insert_with(Instant::now);
        });
    }

    /// Something was read.
    pub(super) fn has_read(&self) {
        self.has_begun.store(true, Ordering::Release);
    }

    /// Whether a request of HTTP/1 has begun, and its headers are not all here.
    pub(super) fn waits_for_headers(&self) -> bool {
        let is_shared = self.is_shared.load(Ordering::Acquire);
        !is_shared && self.has_begun.load(Ordering::Acquire) && self.waits_since().is_some()
    }

    /// Whether no request of HTTP/1 is open, but for the rest of its answer.
    pub(super) fn is_between_requests(&self) -> bool {
        let is_shared = self.is_shared.load(Ordering::Acquire);
        let has_answered = self.has_answered.load(Ordering::Acquire);
        !is_shared && (has_answered || self.waits_since().is_some())
    }

    /// Whether it has been without whole headers for so long.
    pub(super) fn is_idle_for(&self, time: Duration) -> bool {
        let since = self.waits_since();
        since.is_some_and(|since| since.elapsed() >= time)
    }

    /// An answer was given up since nobody took it.
    pub(super) fn count_untaken(&self) {
        self.bounds.count_untaken();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.bounds.open().all.remove(&self.id);
        self.bounds.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(connections_max: usize) -> Arc<Bounds> {
        Bounds::new(&ServerSection {
            connections_max,
            ..ServerSection::default()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waited_longest_without_whole_headers_makes_way() {
        let bounds = bounds(3);
        let mut places = Vec::new();
        for _ in 0..3 {
            places.push(bounds.place().await);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        places[0].has_headers();
        places[1].has_headers();
        places[1].has_answered();
        // Its next request is waited for later than the third's first one.
        places[1].reads();
        let fourth = bounds.place().await;
        assert_eq!(fourth.door, Door::Common);
        let open = |place: &Place| bounds.open().all.contains_key(&place.id);
        assert_eq!(
            places.iter().map(|p| open(p)).collect::<Vec<_>>(),
            [true, true, false]
        );
        assert_eq!(bounds.figures(0).connections_made_way, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_who_only_just_came_makes_way_for_others() {
        let bounds = bounds(2);
        let all = 2 + limits::CONNECTIONS_RESERVED;
        let mut places = Vec::new();
        for _ in 0..all {
            places.push(bounds.place().await);
        }
        let most = Duration::from_millis(limits::MAKES_WAY_AFTER_MS);
        let open = |place: &Place| bounds.open().all.contains_key(&place.id);
        // One more waits for a place; those that are there keep theirs.
        let early = tokio::time::timeout(most / 2, bounds.place()).await;
        assert!(early.is_err());
        assert!(places.iter().all(|place| open(place)));
        // Somebody leaves.
        drop(places.pop());
        let began = Instant::now();
        places.push(bounds.place().await);
        assert_eq!(began.elapsed(), Duration::ZERO);
        // What has its request only since now is not cut off, however long it has been there.
        places[0].has_headers();
        // Somebody has been there for long.
        let one_more = bounds.place().await;
        assert_eq!(began.elapsed(), most / 2);
        assert_eq!(one_more.door, Door::Reserved);
        assert_eq!(places.iter().filter(|place| !open(place)).count(), 1);
        assert!(!open(&places[1]));
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_work_some_places_are_left_for_operators() {
        let bounds = bounds(2);
        let mut all = Vec::new();
        for _ in 0..2 + limits::CONNECTIONS_RESERVED {
            let place = bounds.place().await;
            place.has_headers();
            all.push(place);
        }
        let reserved = all.iter().filter(|p| p.door == Door::Reserved).count();
        assert_eq!(reserved, limits::CONNECTIONS_RESERVED);
        // Even those are used up: the oldest of them makes way after a while, and none of the others.
        let one_more = bounds.place().await;
        assert_eq!(one_more.door, Door::Reserved);
        let open = |place: &Place| bounds.open().all.contains_key(&place.id);
        let gone: Vec<_> = all.iter().filter(|p| !open(p)).map(|p| p.id).collect();
        assert_eq!(gone, [2]);
        drop(all);
        assert_eq!(bounds.place().await.door, Door::Common);
    }
}
