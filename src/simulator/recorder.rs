//! Records requests and connections of the simulator, as they come and go.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::config::Operation;
use super::stats::{Arrival, Gaps, Stats};

/// Arrivals, gaps, request ids and prompts that are remembered.
const REMEMBERED_MAX: usize = 200_000;
/// Characters of a prompt that an arrival keeps.
const PROMPT_CHARS_MAX: usize = 120;

#[derive(Debug)]
struct Seen {
    epoch: Instant,
    /// The counters. The other members of it are filled in when it is asked for.
    stats: Stats,
    by_work: HashMap<u64, u32>,
    in_flight_by_model: BTreeMap<String, u64>,
    by_request_id: HashMap<String, u32>,
    by_prompt: HashMap<u64, u32>,
    /// The end of the last response, while nothing is in flight.
    idle_since: Option<u64>,
    gaps_us: VecDeque<u64>,
    arrivals: VecDeque<Arrival>,
    /// The number of the first of `arrivals`.
    first_arrival: u64,
}

impl Seen {
    fn new(stats: Stats) -> Self {
        Self {
            epoch: Instant::now(),
            stats,
            by_work: HashMap::new(),
            in_flight_by_model: BTreeMap::new(),
            by_request_id: HashMap::new(),
            by_prompt: HashMap::new(),
            idle_since: None,
            gaps_us: VecDeque::new(),
            arrivals: VecDeque::new(),
            first_arrival: 0,
        }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A request for work, or the task it became, is over.
    fn leave(&mut self, model: Option<&str>) {
        self.stats.in_flight = self.stats.in_flight.saturating_sub(1);
        let Some(model) = model else {
            return;
        };
        if let Some(in_flight) = self.in_flight_by_model.get_mut(model) {
            *in_flight = in_flight.saturating_sub(1);
            if *in_flight == 0 {
                self.in_flight_by_model.remove(model);
            }
        }
    }

    /// The arrival with this number, unless it is forgotten or from before a reset.
    fn arrival_mut(&mut self, no: u64) -> Option<&mut Arrival> {
        let at = no.checked_sub(self.first_arrival)?;
        self.arrivals.get_mut(usize::try_from(at).ok()?)
    }
}

fn remember<T>(memory: &mut VecDeque<T>, item: T) -> bool {
    let full = memory.len() >= REMEMBERED_MAX;
    if full {
        memory.pop_front();
    }
    memory.push_back(item);
    full
}

/// Counts one; a new key only while there is room.
fn count<K: Hash + Eq>(counts: &mut HashMap<K, u32>, key: K) -> u32 {
    if counts.len() >= REMEMBERED_MAX && !counts.contains_key(&key) {
        return 1;
    }
    let n = counts.entry(key).or_default();
    *n = n.saturating_add(1);
    *n
}

/// Prompts may be megabytes: they are counted by a digest.
fn digest(prompt: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    prompt.hash(&mut hasher);
    hasher.finish()
}

/// Records requests and connections. Shared by the server's tasks and the handle.
#[derive(Debug)]
pub(crate) struct Recorder(Mutex<Seen>);

impl Recorder {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Seen::new(Stats::default())))
    }

    /// Counters stay counters after a panic elsewhere.
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection was accepted; gives its number.
    pub(crate) fn connected(&self) -> u64 {
        let mut seen = self.seen();
        seen.stats.connections += 1;
        seen.stats.open_connections += 1;
        seen.stats.connections
    }

    pub(crate) fn disconnected(&self) {
        let mut seen = self.seen();
        seen.stats.open_connections = seen.stats.open_connections.saturating_sub(1);
    }

    /// A request arrived. It is in flight until the returned guard is dropped.
    pub(crate) fn arrive(self: &Arc<Self>, connection: u64, operation: Operation) -> InFlight {
        let mut seen = self.seen();
        let at_us = seen.now_us();
        let is_work = operation != Operation::FetchTask;
        if is_work {
            if let Some(idle_since) = seen.idle_since.take() {
                remember(&mut seen.gaps_us, at_us.saturating_sub(idle_since));
            }
            seen.stats.calls += 1;
            seen.stats.in_flight += 1;
            seen.stats.peak_in_flight = seen.stats.peak_in_flight.max(seen.stats.in_flight);
        }
        match operation {
            Operation::Chat => {}
            Operation::SubmitTask => seen.stats.task_submissions += 1,
            Operation::FetchTask => seen.stats.task_looks += 1,
        }
        let arrival = Arrival {
            operation,
            at_us,
            connection,
            in_flight: if is_work { seen.stats.in_flight } else { 0 },
            ..Arrival::default()
        };
        let no = seen.first_arrival + seen.arrivals.len() as u64;
        if remember(&mut seen.arrivals, arrival) {
            seen.first_arrival += 1;
        }
        drop(seen);
        InFlight {
            recorder: Arc::clone(self),
            no,
            is_work,
            has_place: is_work,
            model: None,
            status: None,
            handed_over: false,
        }
    }

    /// The work of a prompt is done, or begun for certain: it is billed.
    pub(crate) fn bought(&self, prompt: &str) {
        let mut seen = self.seen();
        seen.stats.bought += 1;
        count(&mut seen.by_work, digest(prompt));
    }

    /// Microseconds on the clock of arrivals.
    pub(crate) fn now_us(&self) -> u64 {
        self.seen().now_us()
    }

    /// See [`super::Simulator::peak_since`].
    pub(crate) fn peak_since(&self, at_us: u64, model: Option<&str>) -> u64 {
        let seen = self.seen();
        let later = seen.arrivals.iter().filter(|a| a.at_us >= at_us);
        let in_flight = later.map(|a| match model {
            None => a.in_flight,
            Some(model) if a.model == model => a.in_flight_of_model,
            Some(_) => 0,
        });
        in_flight.max().unwrap_or(0)
    }

    /// Starts the count anew. Requests in flight and open connections stay so; their arrival is forgotten.
    pub(crate) fn reset(&self) {
        let mut seen = self.seen();
        let first_arrival = seen.first_arrival + seen.arrivals.len() as u64;
        let stats = Stats {
            open_connections: seen.stats.open_connections,
            connections: seen.stats.open_connections,
            in_flight: seen.stats.in_flight,
            peak_in_flight: seen.stats.in_flight,
            peak_by_model: seen.in_flight_by_model.clone(),
            ..Stats::default()
        };
        *seen = Seen {
            in_flight_by_model: std::mem::take(&mut seen.in_flight_by_model),
            first_arrival,
            ..Seen::new(stats)
        };
    }

    pub(crate) fn stats(&self, script_left: u64) -> Stats {
        let seen = self.seen();
        let mut gaps: Vec<u64> = seen.gaps_us.iter().copied().collect();
        gaps.sort_unstable();
        let rank = |percent: usize| {
            let at = (gaps.len() * percent).div_ceil(100).saturating_sub(1);
            gaps.get(at).copied().unwrap_or(0)
        };
        Stats {
            uptime_us: seen.now_us(),
            works_bought: seen.by_work.len() as u64,
            request_ids: seen.by_request_id.len() as u64,
            gaps: Gaps {
                count: gaps.len() as u64,
                p50_us: rank(50),
                p99_us: rank(99),
                max_us: rank(100),
            },
            script_left,
            ..seen.stats.clone()
        }
    }

    /// The last `n` arrivals, in the order they came.
    pub(crate) fn arrivals(&self, n: usize) -> Vec<Arrival> {
        let seen = self.seen();
        let skip = seen.arrivals.len().saturating_sub(n);
        seen.arrivals.iter().skip(skip).cloned().collect()
    }

    pub(crate) fn calls_of_prompt(&self, prompt: &str) -> u32 {
        let digest = digest(prompt);
        self.seen().by_prompt.get(&digest).copied().unwrap_or(0)
    }

    pub(crate) fn purchases_of_prompt(&self, prompt: &str) -> u32 {
        let digest = digest(prompt);
        self.seen().by_work.get(&digest).copied().unwrap_or(0)
    }

    pub(crate) fn calls_of_request_id(&self, id: &str) -> u32 {
        self.seen().by_request_id.get(id).copied().unwrap_or(0)
    }
}

/// A request's own data.
pub(crate) struct Identity<'a> {
    pub(crate) model: &'a str,
    pub(crate) prompt: &'a str,
    pub(crate) request_id: Option<&'a str>,
    pub(crate) priority: Option<i32>,
}

/// How often things were seen, this time included.
pub(crate) struct Sightings {
    /// Requests with this `request_id`.
    pub(crate) request_id: u32,
    /// Requests in flight for this model.
    pub(crate) model_in_flight: u64,
}

/// A request in flight: from its arrival until this is dropped, which is when its response was handed
/// over, or when hyper drops the handler or the body because the client is gone.
#[derive(Debug)]
pub(crate) struct InFlight {
    recorder: Arc<Recorder>,
    no: u64,
    /// Whether it asks for work: a look at a task does not.
    is_work: bool,
    /// Whether it takes a place of the limit, which a task takes over from it.
    has_place: bool,
    model: Option<String>,
    status: Option<u16>,
    handed_over: bool,
}

impl InFlight {
    /// Its body has been read: says whose request it is.
    pub(crate) fn identify(&mut self, identity: &Identity<'_>) -> Sightings {
        self.model = Some(identity.model.to_owned());
        let mut seen = self.recorder.seen();
        let model_in_flight = seen
            .in_flight_by_model
            .entry(identity.model.to_owned())
            .or_default();
        *model_in_flight += 1;
        let model_in_flight = *model_in_flight;
        let peak = seen
            .stats
            .peak_by_model
            .entry(identity.model.to_owned())
            .or_default();
        *peak = model_in_flight.max(*peak);
        let request_id = identity
            .request_id
            .map_or(0, |id| count(&mut seen.by_request_id, id.to_owned()));
        if request_id > 1 {
            seen.stats.duplicate_request_ids += 1;
        }
        count(&mut seen.by_prompt, digest(identity.prompt));
        if let Some(arrival) = seen.arrival_mut(self.no) {
            arrival.model = identity.model.to_owned();
            arrival.prompt = identity.prompt.chars().take(PROMPT_CHARS_MAX).collect();
            arrival.request_id = identity.request_id.unwrap_or_default().to_owned();
            arrival.in_flight_of_model = model_in_flight;
            arrival.priority = identity.priority;
        }
        Sightings {
            request_id,
            model_in_flight,
        }
    }

    /// It is about this task.
    pub(crate) fn about_task(&mut self, task_id: &str) {
        if let Some(arrival) = self.recorder.seen().arrival_mut(self.no) {
            arrival.task_id = task_id.to_owned();
        }
    }

    /// Its place is the task's from now on, until the guard is dropped.
    pub(crate) fn give_place(&mut self) -> Place {
        self.has_place = false;
        Place {
            recorder: Arc::clone(&self.recorder),
            model: self.model.clone(),
        }
    }

    /// A response begins, with this status and GLM's code.
    pub(crate) fn respond(&mut self, status: u16, code: Option<&str>) {
        self.status = Some(status);
        let mut seen = self.recorder.seen();
        *seen.stats.by_status.entry(status).or_default() += 1;
        if let Some(code) = code {
            *seen.stats.by_code.entry(code.to_owned()).or_default() += 1;
        }
        if let Some(arrival) = seen.arrival_mut(self.no) {
            arrival.status = Some(status);
            arrival.code = code.map(str::to_owned);
        }
    }

    /// All that this request gets has been given: its whole response, or a cut on purpose.
    pub(crate) fn hand_over(&mut self) {
        self.handed_over = true;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut seen = self.recorder.seen();
        let now_us = seen.now_us();
        if self.has_place {
            seen.leave(self.model.as_deref());
        }
        let left = !self.handed_over;
        if left {
            seen.stats.clients_left += 1;
        } else if self.is_work {
            if self.status.is_some_and(|status| status < 400) {
                seen.stats.answered += 1;
            }
            if seen.stats.in_flight == 0 {
                seen.idle_since = Some(now_us);
            }
        }
        if let Some(arrival) = seen.arrival_mut(self.no) {
            arrival.end_us = Some(now_us);
            arrival.client_left = left;
        }
    }
}

/// The place that an unfinished task takes of the limit, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    recorder: Arc<Recorder>,
    model: Option<String>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.recorder.seen().leave(self.model.as_deref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(model: &'static str, request_id: &'static str) -> Identity<'static> {
        Identity {
            model,
            prompt: "你好",
            request_id: Some(request_id),
            priority: Some(3),
        }
    }

    #[test]
    fn requests_are_in_flight_until_they_are_dropped() {
        let recorder = Arc::new(Recorder::new());
        let mut a = recorder.arrive(1, Operation::Chat);
        let mut b = recorder.arrive(2, Operation::Chat);
        assert_eq!(a.identify(&identity("glm-5", "id-1")).model_in_flight, 1);
        let seen = b.identify(&identity("glm-5", "id-1"));
        assert_eq!((seen.model_in_flight, seen.request_id), (2, 2));
        a.respond(200, None);
        a.hand_over();
        drop(a);
        drop(b);
        let mut c = recorder.arrive(1, Operation::Chat);
        c.respond(429, Some("1302"));
        c.hand_over();
        drop(c);

        let stats = recorder.stats(0);
        assert_eq!((stats.calls, stats.answered, stats.clients_left), (3, 1, 1));
        assert_eq!((stats.in_flight, stats.peak_in_flight), (0, 2));
        assert_eq!(stats.peak_by_model["glm-5"], 2);
        assert_eq!(stats.by_status, BTreeMap::from([(200, 1), (429, 1)]));
        assert_eq!(stats.by_code["1302"], 1);
        assert_eq!((stats.request_ids, stats.duplicate_request_ids), (1, 1));
        assert_eq!(recorder.calls_of_prompt("你好"), 2);
        assert_eq!(recorder.calls_of_request_id("id-1"), 2);
        let arrivals = recorder.arrivals(2);
        assert!(arrivals[0].client_left && arrivals[0].status.is_none());
        assert_eq!(arrivals[0].priority, Some(3));
        assert_eq!(arrivals[1].status, Some(429));
    }

    #[test]
    fn a_gap_is_from_a_response_to_the_next_request_with_nothing_between() {
        let recorder = Arc::new(Recorder::new());
        let finish = |mut request: InFlight| {
            request.respond(200, None);
            request.hand_over();
        };
        finish(recorder.arrive(1, Operation::Chat));
        finish(recorder.arrive(1, Operation::Chat));
        let a = recorder.arrive(1, Operation::Chat);
        let b = recorder.arrive(2, Operation::Chat);
        finish(a);
        finish(b);
        // A client that left says nothing of how long the lane takes to go on.
        drop(recorder.arrive(1, Operation::Chat));
        drop(recorder.arrive(1, Operation::Chat));
        assert_eq!(recorder.stats(0).gaps.count, 3);
    }

    #[test]
    fn a_task_keeps_the_place_of_its_submission_and_a_look_takes_none() {
        let recorder = Arc::new(Recorder::new());
        let mut submission = recorder.arrive(1, Operation::SubmitTask);
        submission.identify(&identity("glm-5", "id-1"));
        let place = submission.give_place();
        submission.respond(200, None);
        submission.hand_over();
        drop(submission);
        let lowered_us = recorder.now_us();
        drop(recorder.arrive(2, Operation::FetchTask));
        assert_eq!(recorder.peak_since(lowered_us, None), 0);
        let mut second = recorder.arrive(1, Operation::Chat);
        assert_eq!(
            second.identify(&identity("glm-5", "id-2")).model_in_flight,
            2
        );
        drop(second);
        assert_eq!(recorder.stats(0).in_flight, 1);
        drop(place);
        let mut third = recorder.arrive(1, Operation::Chat);
        third.identify(&identity("glm-4.7", "id-3"));
        drop(third);

        let stats = recorder.stats(0);
        assert_eq!(stats.calls, 3);
        assert_eq!(stats.in_flight, 0);
        assert_eq!(stats.peak_in_flight, 2);
        assert_eq!((stats.task_submissions, stats.task_looks), (1, 1));
        let peaks = [None, Some("glm-5"), Some("glm-4.7"), Some("glm-9")]
            .map(|model| recorder.peak_since(lowered_us, model));
        assert_eq!(peaks, [2, 2, 1, 0]);
    }

    #[test]
    fn what_is_bought_again_is_seen() {
        let recorder = Recorder::new();
        for prompt in ["a", "b", "a"] {
            recorder.bought(prompt);
        }
        let stats = recorder.stats(0);
        assert_eq!((stats.bought, stats.works_bought), (3, 2));
        assert_eq!(recorder.purchases_of_prompt("a"), 2);
        assert_eq!(recorder.purchases_of_prompt("c"), 0);
    }

    #[test]
    fn a_reset_keeps_what_is_open() {
        let recorder = Arc::new(Recorder::new());
        recorder.connected();
        let mut open = recorder.arrive(1, Operation::Chat);
        open.identify(&identity("glm-5", "id-1"));
        recorder.reset();
        let stats = recorder.stats(0);
        assert_eq!((stats.calls, stats.in_flight, stats.connections), (0, 1, 1));
        drop(recorder.arrive(1, Operation::Chat));
        drop(open);
        let stats = recorder.stats(0);
        assert_eq!(stats.calls, 1);
        assert_eq!(stats.in_flight, 0);
        assert_eq!(stats.peak_in_flight, 2);
        assert!(recorder.arrivals(9).iter().all(|a| a.model.is_empty()));
    }
}
