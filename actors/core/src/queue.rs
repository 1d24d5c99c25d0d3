//! The line of waiting jobs: those that are due, in order; those that wait for their time; those that
//! wait for other jobs or for somebody's word. One line for all lanes: a lane picks from it among the
//! models that may go there now.
//!
//! The order is priority, then the persisted sequence, never the wall clock; a lane may add ageing
//! ([`Place`]) and turns between users ([`OrderSettings`](crate::model::OrderSettings)). Which of the
//! two hold for a job is up to the lane that its own model belongs to, wherever it is served.

mod affinity;
mod classes;
#[cfg(any(test, feature = "testing"))]
mod imprint;
mod index;
mod place;
mod priorities;
mod ready;
mod service;
mod turns;
mod users;
mod whole;

#[cfg(test)]
mod affinity_tests;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::{
    BatchId, Due, JobEntry, JobId, KeyId, PriorityClass, Scope, Seq, Settings, Timestamp,
    WaitingJobs,
};

use affinity::Runs;
use classes::Classes;
use index::{Front, Index};
use place::{Class, Rules};
use priorities::Priorities;
use turns::{Head, Turns};
use users::Users;

pub use place::Place;
pub use service::ServiceOrder;

/// Classes whose turns are remembered although none of their jobs waits, at least.
const IDLE_TURNS_KEPT: usize = 64;

/// The waiting jobs. Sorted sets instead of an array heap: a job leaves from anywhere (cancel,
/// re-prioritise) as cheaply as from the front. What a job is stands in `entries` alone; all the rest names it by its
/// place.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    rules: Rules,
    entries: WaitingJobs,
    priorities: Priorities,
    ready: Index,
    /// How many of each class of priorities there are, and how long the oldest waits.
    classes: Classes,
    due: BTreeSet<(Timestamp, Seq)>,
    deadlines: BTreeSet<(Timestamp, Seq)>,
    dormant: usize,
    /// How many of the dormant ones wait for an operator's decision.
    parked: usize,
    /// How many of the dormant ones are not of the batch that the lane runs.
    out_of_scope: usize,
    /// Those whose client key has as many calls open as it may, the most urgent of each first.
    capped: BTreeMap<KeyId, BTreeSet<(Reverse<i32>, Seq)>>,
    scope: Scope,
    /// The weights of client keys among those who take turns, where they are not 1.
    shares: HashMap<KeyId, u32>,
    /// How many of those that wait for their time wait for the start that was asked for.
    scheduled: usize,
    users: Users,
    /// Whose turn it is, in each class of each lane that takes turns.
    turns: BTreeMap<(u32, Class), Turns>,
    /// The sessions that ran last, where their calls are kept together.
    runs: Runs,
    /// How many of them there may be before those without jobs are dropped.
    turns_max: usize,
    /// The latest moment that anybody told: only where lanes that age differently meet does it decide.
    now: Timestamp,
}

impl Queue {
    /// An empty line, in strict order.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A line of many jobs at once, as after a restart. Built whole, not job by job.
    #[must_use]
    pub fn from_entries(entries: WaitingJobs, settings: &Settings, now: Timestamp) -> Self {
        let mut line = Self::new();
        line.now = now;
        line.rules.configure(settings);
        line.scope = settings.scope;
        line.shares = shares(settings);
        line.entries = entries;
        whole::fill(&mut line);
        line
    }

    /// The settings may have changed. Jobs whose class or turns are decided otherwise now take new
    /// places.
    pub fn configure(&mut self, settings: &Settings) {
        self.rules.configure(settings);
        self.look_at(settings.scope);
        let (entries, users) = (&self.entries, &self.users);
        let changed = self.ready.configure(&self.rules, |seq| {
            let entry = entries.at(seq)?;
            let number = users.number(&entry);
            Some((entry, number))
        });
        let shares = shares(settings);
        if changed || shares != self.shares {
            self.shares = shares;
            self.turns.clear();
            self.runs.clear();
        }
    }

    /// Puts a job in line. One that is there already stays as it is.
    pub fn insert(&mut self, mut entry: JobEntry, now: Timestamp) {
        self.hear(now);
        if self.entries.has(entry.id) {
            return;
        }
        entry.out_of_scope = !self.scope.has(entry.batch_id);
        entry.mind_the_clock(now);
        self.ready.enter(&mut entry.model, 1, &self.rules);
        let user = self.users.enter(&mut entry.user_id, entry.key, 1);
        self.entries.insert(&entry);
        match waits(&entry, now) {
            Waits::ForAWord => self.falls_asleep(&entry),
            Waits::Until(at) => {
                self.scheduled += usize::from(entry.is_scheduled());
                self.due.insert((at, entry.seq));
            }
            Waits::ForASlot => self.is_ready(&entry, user),
        }
        if let Some(deadline) = entry.deadline {
            self.deadlines.insert((deadline, entry.seq));
        }
        self.classes.enter(entry.priority);
        self.priorities.came(entry.priority, 1);
    }

    /// A job in line is due.
    fn is_ready(&mut self, entry: &JobEntry, user: u64) {
        self.classes.is_ready(entry, &self.entries);
        self.entries.set_ready(entry.seq, true);
        self.ready.add(entry, user);
    }

    /// Puts back a job that was taken and did not run. Where turns are taken its user gets back what
    /// it counted for: as if it had never been taken.
    pub fn put_back(&mut self, place: Place, entry: JobEntry, now: Timestamp) {
        if self.entries.has(entry.id) {
            return;
        }
        let (seq, tokens) = (entry.seq, entry.tokens);
        let was_ahead = self.runs.gave_back(seq);
        self.insert(entry, now);
        if let Some(turns) = place.turns().and_then(|key| self.turns.get_mut(&key))
            && let Some(entry) = self.entries.at(seq)
        {
            let rule = self.ready.rule(entry.model).unwrap_or_default();
            let user = rule.turn_of(&entry, self.users.number(&entry));
            let share = share_of(&self.shares, &entry);
            if was_ahead {
                turns.discharge(user, tokens, share);
            } else {
                turns.give_back(user, tokens, share);
            }
        }
    }

    /// Takes a job out of line, wherever it is.
    pub fn remove(&mut self, id: JobId) -> Option<JobEntry> {
        let (entry, was_ready) = self.entries.remove(id)?;
        self.left(&entry, was_ready);
        Some(entry)
    }

    /// The same of the job of a place.
    fn remove_at(&mut self, seq: Seq) -> Option<JobEntry> {
        let (entry, was_ready) = self.entries.remove_at(seq)?;
        self.left(&entry, was_ready);
        Some(entry)
    }

    /// A job is not in line any more.
    fn left(&mut self, entry: &JobEntry, was_ready: bool) {
        let seq = entry.seq;
        self.priorities.left(entry.priority);
        let user = self.users.number(entry);
        self.ready.leave(entry, user);
        self.users.leave(entry);
        self.classes.leave(entry);
        if entry.sleeps() {
            self.dormant = self.dormant.saturating_sub(1);
            if entry.out_of_scope {
                self.out_of_scope = self.out_of_scope.saturating_sub(1);
            } else if let Some(key) = entry.capped_key() {
                if let Some(jobs) = self.capped.get_mut(&key) {
                    jobs.remove(&(Reverse(entry.priority), seq));
                    if jobs.is_empty() {
                        self.capped.remove(&key);
                    }
                }
            } else {
                self.parked = self.parked.saturating_sub(usize::from(entry.parked));
            }
        } else if was_ready {
            self.classes.no_longer_ready(entry, &self.entries);
        } else if let Some(at) = entry.due_at() {
            self.due.remove(&(at, seq));
            self.no_longer_due(entry.is_scheduled());
        }
        if let Some(deadline) = entry.deadline {
            self.deadlines.remove(&(deadline, seq));
        }
    }

    /// Another batch is the one that runs: jobs take the places that follow from it.
    fn look_at(&mut self, scope: Scope) {
        if self.scope == scope {
            return;
        }
        self.scope = scope;
        let now = self.now;
        let moves = |entry: &JobEntry<_>| entry.out_of_scope == scope.has(entry.batch_id);
        let moved = self.entries.iter().filter(moves).map(|entry| entry.seq);
        for seq in moved.collect::<Vec<_>>() {
            if let Some(entry) = self.remove_at(seq) {
                self.insert(entry, now);
            }
        }
    }

    /// A job that was taken sleeps until its client key has fewer calls open: [`Queue::uncap`] wakes it.
    pub fn cap(&mut self, place: Place, entry: JobEntry, now: Timestamp) {
        let capped = entry.key.is_some();
        self.put_back(place, JobEntry { capped, ..entry }, now);
    }

    /// The client keys of which jobs sleep so.
    pub fn capped_keys(&self) -> impl Iterator<Item = KeyId> {
        self.capped.keys().copied()
    }

    /// Wakes so many jobs of a client key, the most urgent first.
    pub fn uncap(&mut self, key: KeyId, most: usize, now: Timestamp) {
        let jobs = self.capped.get(&key).into_iter().flatten();
        let first: Vec<Seq> = jobs.take(most).map(|(_, seq)| *seq).collect();
        for seq in first {
            if let Some(entry) = self.remove_at(seq) {
                let capped = false;
                self.insert(JobEntry { capped, ..entry }, now);
            }
        }
    }

    /// How many sleep so.
    #[must_use]
    pub fn capped_len(&self) -> usize {
        self.capped.values().map(BTreeSet::len).sum()
    }

    fn falls_asleep<N>(&mut self, entry: &JobEntry<N>) {
        self.dormant += 1;
        if entry.out_of_scope {
            self.out_of_scope += 1;
        } else if let Some(key) = entry.capped_key() {
            let place = (Reverse(entry.priority), entry.seq);
            self.capped.entry(key).or_default().insert(place);
        } else {
            self.parked += usize::from(entry.parked);
        }
    }

    const fn no_longer_due(&mut self, scheduled: bool) {
        if scheduled {
            self.scheduled = self.scheduled.saturating_sub(1);
        }
    }

    /// How many jobs are in line at each priority, the most urgent first.
    pub fn priorities(&self) -> impl Iterator<Item = (i32, u64)> {
        self.priorities.counts()
    }

    /// Since when the oldest of the due jobs could have run.
    #[must_use]
    pub fn oldest_ready(&self) -> Option<Timestamp> {
        let oldest = PriorityClass::ALL.into_iter();
        oldest.filter_map(|class| self.classes.oldest(class)).min()
    }

    /// How many jobs of a class of priorities wait, for whatever reason, and since when the oldest of those that are due
    /// could have run.
    #[must_use]
    pub fn of_class(&self, class: PriorityClass) -> (usize, Option<Timestamp>) {
        (self.classes.len(class), self.classes.oldest(class))
    }

    /// The jobs that end with the connection of their submitters.
    pub fn bound(&self) -> impl Iterator<Item = JobId> {
        self.entries.bound().map(|(id, _)| id)
    }

    /// The job, if it is in line.
    #[must_use]
    pub fn get(&self, id: JobId) -> Option<JobEntry> {
        self.entries.get(id)
    }

    /// Whether the job is in line.
    #[must_use]
    pub fn has(&self, id: JobId) -> bool {
        self.entries.has(id)
    }

    /// Changes a job's priority, and nothing else of it. Tells whether it is in line.
    pub fn reprioritise(&mut self, id: JobId, priority: i32, now: Timestamp) -> bool {
        let Some(mut entry) = self.remove(id) else {
            return false;
        };
        entry.priority = priority;
        self.insert(entry, now);
        true
    }

    /// A job belongs to another batch now; nothing else of it changes.
    pub fn adopt(&mut self, id: JobId, batch: Option<BatchId>, now: Timestamp) {
        if let Some(mut entry) = self.remove(id) {
            entry.batch_id = batch;
            self.insert(entry, now);
        }
    }

    /// What a dormant job waited for is there: `entry`, which is not dormant any more, takes its place,
    /// be it due or not. One that is not in line is put there.
    pub fn release(&mut self, entry: JobEntry, now: Timestamp) {
        self.remove(entry.id);
        self.insert(entry, now);
    }

    /// The place that a job has in its own lane, or would have if it were due.
    #[must_use]
    pub fn place_of(&self, entry: &JobEntry) -> Place {
        let rule = self.ready.rule(&entry.model);
        rule.unwrap_or_else(|| self.rules.of(&entry.model))
            .place(entry)
    }

    /// The priority that the job of a place has risen to.
    #[must_use]
    pub const fn urgency(&self, place: Place) -> i64 {
        place.urgency(self.now)
    }

    /// When the priorities rise next that rise once in so many milliseconds; `None`: never.
    #[must_use]
    pub fn next_interval(&self, ageing_ms: u64) -> Option<Timestamp> {
        place::next_interval(self.now, ageing_ms)
    }

    /// The place of the most urgent job that is due, among these models: what [`Queue::pop`] would
    /// answer.
    #[must_use]
    pub fn peek(&self, lane: &str, models: &BTreeSet<Arc<str>>) -> Option<Place> {
        let front = self.ready.front(models, self.now)?;
        Some(front.place(self.rules.number(lane)))
    }

    /// Takes the most urgent job that is due, among these models, for a lane. Where turns are taken,
    /// it is the lane's turn that is used up.
    pub fn pop(&mut self, lane: &str, models: &BTreeSet<Arc<str>>) -> Option<(Place, JobEntry)> {
        let front = self.ready.front(models, self.now)?;
        let lane = self.rules.number(lane);
        let together = self.take_together(lane, front, models);
        let seq = match (together, front.quantum) {
            (Some(seq), _) => seq,
            (None, None) => front.seq,
            (None, Some(quantum)) => self.take_turn(lane, front.class, quantum, models)?,
        };
        let entry = self.remove_at(seq)?;
        if self.rules.keep_together() {
            self.runs.took(lane, &entry, together.is_some());
        }
        Some((front.place(lane), entry))
    }

    /// The job of the front class that goes first since it is of the session that ran last in a lane, if there is one.
    /// Where turns are taken it uses up its user's.
    fn take_together(
        &mut self,
        lane: u32,
        front: Front,
        models: &BTreeSet<Arc<str>>,
    ) -> Option<Seq> {
        let run = self.runs.of(lane).filter(|_| front.keeps_together);
        let seq = self
            .ready
            .next_of(models, front.class, run, |_| Seq(0), |_| true)?;
        if let Some(quantum) = front.quantum {
            let entry = self.entries.at(seq)?;
            let rule = self.ready.rule(entry.model).unwrap_or_default();
            let user = rule.turn_of(&entry, self.users.number(&entry));
            let (tokens, share) = (entry.tokens, share_of(&self.shares, &entry));
            let turns = self.turns_of(lane, front.class);
            turns.charge(quantum, user, tokens, share);
        }
        Some(seq)
    }

    /// The turns of a class in a lane; those of classes without jobs are forgotten when there are many.
    fn turns_of(&mut self, lane: u32, class: Class) -> &mut Turns {
        let key = (lane, class);
        if !self.turns.contains_key(&key) && self.turns.len() >= self.turns_max {
            let ready = &self.ready;
            self.turns.retain(|(_, class), _| ready.has(*class));
            self.turns_max = (self.turns.len() * 2).max(IDLE_TURNS_KEPT);
        }
        let newest = self.users.newest();
        self.turns.entry(key).or_insert_with(|| Turns::new(newest))
    }

    /// The job of a class whose turn it is in a lane.
    fn take_turn(
        &mut self,
        lane: u32,
        class: Class,
        quantum: u32,
        models: &BTreeSet<Arc<str>>,
    ) -> Option<Seq> {
        self.turns_of(lane, class);
        let newest = self.users.newest();
        let turns = self.turns.get_mut(&(lane, class))?;
        turns.take(quantum, newest, |from| {
            let (user, seq) = self.ready.head_from(models, class, from)?;
            let entry = self.entries.at(seq)?;
            Some(Head {
                user,
                seq,
                tokens: entry.tokens,
                share: share_of(&self.shares, &entry),
            })
        })
    }

    /// The models of which jobs are in line, due or not, and some of which jobs were.
    pub fn models(&self) -> impl Iterator<Item = &Arc<str>> {
        self.ready.models()
    }

    /// Rises when a model comes to [`Queue::models`].
    #[must_use]
    pub const fn models_version(&self) -> u64 {
        self.ready.version()
    }

    /// Moves the jobs whose time has come to their places.
    pub fn wake(&mut self, now: Timestamp) {
        self.hear(now);
        while let Some((at, seq)) = self.due.first().copied() {
            if at > now {
                break;
            }
            self.due.pop_first();
            let Some(entry) = self.entries.at(seq) else {
                continue;
            };
            if entry.is_scheduled() {
                self.scheduled = self.scheduled.saturating_sub(1);
            }
            self.classes.is_ready(&entry, &self.entries);
            self.ready.add(&entry, self.users.number(&entry));
            self.entries.set_due(seq, None);
            self.entries.set_ready(seq, true);
        }
    }

    /// Somebody tells what time it is.
    fn hear(&mut self, now: Timestamp) {
        if now < self.now {
            self.mind_the_clock(now);
        }
        self.now = now;
    }

    /// The clock was set back: delays are not longer for it. A start that was asked for is a moment of the wall
    /// clock, and stays.
    fn mind_the_clock(&mut self, now: Timestamp) {
        let due = std::mem::take(&mut self.due);
        let due = due.into_iter().map(|(at, seq)| {
            let mut due = self.entries.at(seq).and_then(|entry| entry.due);
            if let Some(due) = &mut due {
                due.mind_the_clock(now);
                self.entries.set_due(seq, Some(*due));
            }
            (due.map_or(at, Due::moment), seq)
        });
        self.due = due.collect();
    }

    /// Takes out the jobs whose deadline has passed, dormant ones, too.
    pub fn expire(&mut self, now: Timestamp) -> Vec<JobEntry> {
        let mut expired = Vec::new();
        while let Some((deadline, seq)) = self.deadlines.first().copied() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            expired.extend(self.remove_at(seq));
        }
        expired
    }

    /// When the line changes by itself next: a job falls due or its deadline passes.
    #[must_use]
    pub fn next_change(&self) -> Option<Timestamp> {
        let due = self.due.first().map(|(at, _)| *at);
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        match (due, deadline) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// How many are due.
    #[must_use]
    pub fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// How many wait for their time.
    #[must_use]
    pub fn due_len(&self) -> usize {
        self.due.len()
    }

    /// How many of those wait for the start that was asked for; the others wait for a retry.
    #[must_use]
    pub const fn scheduled_len(&self) -> usize {
        self.scheduled
    }

    /// The jobs that wait for their time, the first that falls due first.
    pub fn by_time(&self) -> impl Iterator<Item = JobEntry<&Arc<str>>> {
        self.due.iter().filter_map(|(_, seq)| self.entries.at(*seq))
    }

    /// Whether a job in line waits for its time, and until when.
    #[must_use]
    pub fn due_later<N>(&self, entry: &JobEntry<N>) -> Option<Timestamp> {
        entry
            .due_at()
            .filter(|at| !entry.sleeps() && self.due.contains(&(*at, entry.seq)))
    }

    /// How many jobs of each model are due.
    pub fn ready_by_model(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        self.ready.ready_by_model().filter(|(_, jobs)| *jobs > 0)
    }

    /// How many of the dormant ones wait for an operator's decision.
    #[must_use]
    pub const fn parked_len(&self) -> usize {
        self.parked
    }

    /// How many of the dormant ones are not of the batch that the lane runs.
    #[must_use]
    pub const fn out_of_scope_len(&self) -> usize {
        self.out_of_scope
    }

    /// How many wait for other jobs, for room in a budget, for an operator's decision, or for a run of their own.
    #[must_use]
    pub const fn dormant_len(&self) -> usize {
        self.dormant
    }

    /// All of them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The weights of the client keys that have another than 1.
fn shares(settings: &Settings) -> HashMap<KeyId, u32> {
    let keys = settings.keys.iter().map(|key| (key.id, key.rights.share));
    keys.filter(|(_, share)| *share != 1).collect()
}

/// The weight of who takes turns for a job.
fn share_of<N>(shares: &HashMap<KeyId, u32>, entry: &JobEntry<N>) -> u32 {
    let share = entry.key.and_then(|key| shares.get(&key));
    share.copied().unwrap_or(1)
}

/// What a job in line waits for.
enum Waits {
    /// Nothing but its turn.
    ForASlot,
    /// This moment.
    Until(Timestamp),
    /// Other jobs, or somebody's word.
    ForAWord,
}

fn waits<N>(entry: &JobEntry<N>, now: Timestamp) -> Waits {
    match entry.due_at() {
        _ if entry.sleeps() => Waits::ForAWord,
        Some(at) if at > now => Waits::Until(at),
        _ => Waits::ForASlot,
    }
}
