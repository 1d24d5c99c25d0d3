//! The line of waiting jobs: the priority heap of those that are due, and the set of those that
//! wait for their time. Order: priority, then the persisted sequence; never the wall clock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::model::{JobEntry, JobId, Seq, Timestamp};

/// A place in the order of dispatch: smaller is earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(Reverse<i32>, Seq);

impl Place {
    /// The place of a job.
    #[must_use]
    pub const fn of(entry: &JobEntry) -> Self {
        Self(Reverse(entry.priority), entry.seq)
    }
}

/// The waiting jobs. Sorted sets instead of an array heap: a job leaves from anywhere (cancel,
/// re-prioritise) as cheaply as from the front.
#[derive(Debug, Default)]
pub struct Line {
    entries: BTreeMap<Seq, JobEntry>,
    // Looked up by key only, never iterated: the order of a hash map must not decide anything.
    seq_of: HashMap<JobId, Seq>,
    ready: BTreeSet<Place>,
    due: BTreeSet<(Timestamp, Seq)>,
    deadlines: BTreeSet<(Timestamp, Seq)>,
}

impl Line {
    /// An empty line.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A line of many jobs at once, as after a restart. Built whole, not job by job: sorted sets
    /// that are filled in order one at a time stay half empty.
    #[must_use]
    pub fn from_entries(entries: Vec<JobEntry>, now: Timestamp) -> Self {
        let waits = |entry: &JobEntry| entry.due_at.filter(|at| *at > now);
        Self {
            seq_of: entries.iter().map(|entry| (entry.id, entry.seq)).collect(),
            ready: entries
                .iter()
                .filter(|entry| waits(entry).is_none())
                .map(Place::of)
                .collect(),
            due: entries
                .iter()
                .filter_map(|entry| Some((waits(entry)?, entry.seq)))
                .collect(),
            deadlines: entries
                .iter()
                .filter_map(|entry| Some((entry.deadline?, entry.seq)))
                .collect(),
            entries: entries
                .into_iter()
                .map(|entry| (entry.seq, entry))
                .collect(),
        }
    }

    /// Puts a job in line. One that is there already stays as it is.
    pub fn insert(&mut self, entry: JobEntry, now: Timestamp) {
        if self.seq_of.insert(entry.id, entry.seq).is_some() {
            return;
        }
        match entry.due_at {
            Some(at) if at > now => {
                self.due.insert((at, entry.seq));
            }
            _ => {
                self.ready.insert(Place::of(&entry));
            }
        }
        if let Some(deadline) = entry.deadline {
            self.deadlines.insert((deadline, entry.seq));
        }
        self.entries.insert(entry.seq, entry);
    }

    /// Takes a job out of line, wherever it is.
    pub fn remove(&mut self, id: JobId) -> Option<JobEntry> {
        let seq = self.seq_of.remove(&id)?;
        let entry = self.entries.remove(&seq)?;
        self.ready.remove(&Place::of(&entry));
        if let Some(at) = entry.due_at {
            self.due.remove(&(at, seq));
        }
        if let Some(deadline) = entry.deadline {
            self.deadlines.remove(&(deadline, seq));
        }
        Some(entry)
    }

    /// The job, if it is in line.
    #[must_use]
    pub fn get(&self, id: JobId) -> Option<&JobEntry> {
        self.entries.get(self.seq_of.get(&id)?)
    }

    /// Changes a job's priority. Tells whether it is in line.
    pub fn reprioritise(&mut self, id: JobId, priority: i32, now: Timestamp) -> bool {
        let Some(mut entry) = self.remove(id) else {
            return false;
        };
        entry.priority = priority;
        self.insert(entry, now);
        true
    }

    /// The most urgent job that is due.
    #[must_use]
    pub fn first(&self) -> Option<&JobEntry> {
        let Place(_, seq) = self.ready.first()?;
        self.entries.get(seq)
    }

    /// Takes the most urgent job that is due.
    pub fn pop(&mut self) -> Option<JobEntry> {
        let id = self.first()?.id;
        self.remove(id)
    }

    /// Moves the jobs whose time has come to their places.
    pub fn wake(&mut self, now: Timestamp) {
        while let Some((at, seq)) = self.due.first().copied() {
            if at > now {
                break;
            }
            self.due.pop_first();
            if let Some(entry) = self.entries.get_mut(&seq) {
                entry.due_at = None;
                self.ready.insert(Place::of(entry));
            }
        }
    }

    /// Takes out the jobs whose deadline has passed.
    pub fn expire(&mut self, now: Timestamp) -> Vec<JobEntry> {
        let mut expired = Vec::new();
        while let Some((deadline, seq)) = self.deadlines.first().copied() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            if let Some(id) = self.entries.get(&seq).map(|entry| entry.id) {
                expired.extend(self.remove(id));
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(seq: u64, priority: i32) -> JobEntry {
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&seq.to_be_bytes());
        JobEntry {
            id: JobId::from_bytes(bytes),
            seq: Seq(seq),
            priority,
            due_at: None,
            deadline: None,
            since: NOW,
            model: "m".into(),
            user_id: "u".into(),
            tokens: 1,
            parked: false,
        }
    }

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    fn drain(line: &mut Line) -> Vec<(i32, u64)> {
        std::iter::from_fn(|| line.pop())
            .map(|e| (e.priority, e.seq.0))
            .collect()
    }

    #[test]
    fn a_waiting_retry_holds_nobody_up_and_comes_back_to_its_place() {
        let mut line = Line::new();
        let late = JobEntry {
            due_at: Some(NOW.plus_ms(500)),
            ..entry(1, 5)
        };
        line.insert(late.clone(), NOW);
        line.insert(entry(2, 5), NOW);
        line.insert(entry(3, 5), NOW);
        assert_eq!(line.next_change(), late.due_at);
        assert_eq!(line.pop().map(|e| e.seq), Some(Seq(2)));
        line.wake(NOW.plus_ms(499));
        assert_eq!(line.first().map(|e| e.seq), Some(Seq(3)));
        line.wake(NOW.plus_ms(500));
        assert_eq!(drain(&mut line), [(5, 1), (5, 3)]);
    }

    #[test]
    fn a_changed_priority_changes_the_place_and_not_the_sequence() {
        let mut line = Line::new();
        for seq in 1..=3 {
            line.insert(entry(seq, 0), NOW);
        }
        assert!(line.reprioritise(entry(3, 0).id, 9, NOW));
        assert!(!line.reprioritise(entry(4, 0).id, 9, NOW));
        assert_eq!(drain(&mut line), [(9, 3), (0, 1), (0, 2)]);
    }

    #[test]
    fn a_job_whose_deadline_passed_is_taken_out() {
        let mut line = Line::new();
        line.insert(
            JobEntry {
                deadline: Some(NOW.plus_ms(10)),
                ..entry(1, 0)
            },
            NOW,
        );
        assert!(line.expire(NOW.plus_ms(9)).is_empty());
        assert_eq!(line.expire(NOW.plus_ms(10)).len(), 1);
        assert!(line.is_empty() && line.first().is_none());
    }

    proptest! {
        #[test]
        fn the_order_is_priority_then_submission_whatever_happened_before(
            jobs in proptest::collection::vec((-3_i32..3, 0_u64..3, proptest::bool::ANY), 0..60)
        ) {
            let mut line = Line::new();
            let mut want = Vec::new();
            for (n, (priority, delay, removed)) in jobs.into_iter().enumerate() {
                let job = JobEntry {
                    due_at: Some(NOW.plus_ms(delay)),
                    ..entry(n as u64, priority)
                };
                line.insert(job.clone(), NOW);
                if removed {
                    prop_assert_eq!(line.remove(job.id).map(|e| e.seq), Some(job.seq));
                } else {
                    want.push((priority, job.seq.0));
                }
            }
            let whole = Line::from_entries(line.entries.values().cloned().collect(), NOW);
            prop_assert_eq!(&whole.ready, &line.ready);
            prop_assert_eq!(&whole.due, &line.due);
            prop_assert_eq!(&whole.entries, &line.entries);
            line.wake(NOW.plus_ms(3));
            want.sort_by_key(|(priority, seq)| (Reverse(*priority), *seq));
            prop_assert_eq!(line.len(), want.len());
            prop_assert_eq!(drain(&mut line), want);
            prop_assert_eq!(line.due_len(), 0);
        }
    }
}
