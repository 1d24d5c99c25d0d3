//! How many jobs of each class of priorities wait, and since when those could have run that are due.

use std::collections::BTreeSet;

use crate::model::{JobEntry, PriorityClass, Timestamp, WaitingJobs};

/// The waiting jobs of a class.
#[derive(Debug, Clone, Default)]
struct Waiting {
    jobs: usize,
    /// Since when the oldest of those could have run that are due, of each block of neighbours in line: the first tells
    /// how long the oldest of all waits.
    ready_since: BTreeSet<(Timestamp, u64)>,
}

/// Counters that are kept as jobs come and go.
#[derive(Debug, Clone, Default)]
pub(super) struct Classes {
    urgent: Waiting,
    high: Waiting,
    normal: Waiting,
    low: Waiting,
}

impl Classes {
    const fn of(&self, class: PriorityClass) -> &Waiting {
        match class {
            PriorityClass::Urgent => &self.urgent,
            PriorityClass::High => &self.high,
            PriorityClass::Normal => &self.normal,
            PriorityClass::Low => &self.low,
        }
    }

    const fn of_mut(&mut self, class: PriorityClass) -> &mut Waiting {
        match class {
            PriorityClass::Urgent => &mut self.urgent,
            PriorityClass::High => &mut self.high,
            PriorityClass::Normal => &mut self.normal,
            PriorityClass::Low => &mut self.low,
        }
    }

    /// A job comes in line.
    pub(super) const fn enter(&mut self, priority: i32) {
        self.of_mut(PriorityClass::of(priority)).jobs += 1;
    }

    /// A job left the line.
    pub(super) fn leave(&mut self, entry: &JobEntry) {
        let waiting = self.of_mut(PriorityClass::of(entry.priority));
        waiting.jobs = waiting.jobs.saturating_sub(1);
    }

    /// A job is due. `others`: those in line, be it among them already or not yet.
    pub(super) fn is_ready<N>(&mut self, entry: &JobEntry<N>, others: &WaitingJobs) {
        self.change(entry, others, |waiting, place, beside| {
            if let Some(beside) = beside {
                waiting.ready_since.remove(&beside);
            }
            waiting.ready_since.insert(place);
        });
    }

    /// A job that was due left the line. `others`: those in line, be it among them still or not any more.
    pub(super) fn no_longer_ready<N>(&mut self, entry: &JobEntry<N>, others: &WaitingJobs) {
        self.change(entry, others, |waiting, place, beside| {
            waiting.ready_since.remove(&place);
            waiting.ready_since.extend(beside);
        });
    }

    /// Has a change made if a job is the oldest of its block, or one of the oldest: to its place and that of the oldest
    /// beside it.
    fn change<N>(
        &mut self,
        entry: &JobEntry<N>,
        others: &WaitingJobs,
        make: impl FnOnce(&mut Waiting, (Timestamp, u64), Option<(Timestamp, u64)>),
    ) {
        let class = PriorityClass::of(entry.priority);
        let beside = others.oldest_beside(entry.seq, class);
        if beside.is_none_or(|beside| entry.since < beside) {
            let block = WaitingJobs::block_of(entry.seq);
            let beside = beside.map(|since| (since, block));
            make(self.of_mut(class), (entry.since, block), beside);
        }
    }

    /// Jobs of a class that are due are the oldest of their blocks, all that there are: built whole.
    pub(super) fn fill(&mut self, class: PriorityClass, ready_since: Vec<(Timestamp, u64)>) {
        self.of_mut(class).ready_since = ready_since.into_iter().collect();
    }

    /// How many jobs of a class wait, for whatever reason.
    pub(super) const fn len(&self, class: PriorityClass) -> usize {
        self.of(class).jobs
    }

    /// Since when the oldest of those of a class that are due could have run.
    pub(super) fn oldest(&self, class: PriorityClass) -> Option<Timestamp> {
        let first = self.of(class).ready_since.first();
        first.map(|(since, _)| *since)
    }
}
