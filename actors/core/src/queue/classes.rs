//! How many jobs of each class of priorities wait, and since when those could have run that are due.

use std::collections::BTreeMap;

use crate::model::{JobEntry, PriorityClass, Timestamp};

/// The waiting jobs of a class.
#[derive(Debug, Clone, Default)]
struct Waiting {
    jobs: usize,
    /// How many of those that are due could have run since each moment: the first tells how long the oldest waits.
    ready_since: BTreeMap<Timestamp, u32>,
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

    const fn of_mut(&mut self, entry: &JobEntry) -> &mut Waiting {
        match PriorityClass::of(entry.priority) {
            PriorityClass::Urgent => &mut self.urgent,
            PriorityClass::High => &mut self.high,
            PriorityClass::Normal => &mut self.normal,
            PriorityClass::Low => &mut self.low,
        }
    }

    /// A job comes in line.
    pub(super) fn enter(&mut self, entry: &JobEntry) {
        self.of_mut(entry).jobs += 1;
    }

    /// A job left the line.
    pub(super) fn leave(&mut self, entry: &JobEntry) {
        let waiting = self.of_mut(entry);
        waiting.jobs = waiting.jobs.saturating_sub(1);
    }

    /// A job in line is due.
    pub(super) fn is_ready(&mut self, entry: &JobEntry) {
        let since = self.of_mut(entry).ready_since.entry(entry.since);
        *since.or_default() += 1;
    }

    /// A job that was due left the line.
    pub(super) fn no_longer_ready(&mut self, entry: &JobEntry) {
        let since = self.of_mut(entry).ready_since.entry(entry.since);
        if let std::collections::btree_map::Entry::Occupied(mut jobs) = since {
            *jobs.get_mut() -= 1;
            if *jobs.get() == 0 {
                jobs.remove();
            }
        }
    }

    /// How many jobs of a class wait, for whatever reason.
    pub(super) const fn len(&self, class: PriorityClass) -> usize {
        self.of(class).jobs
    }

    /// Since when the oldest of those of a class that are due could have run.
    pub(super) fn oldest(&self, class: PriorityClass) -> Option<Timestamp> {
        self.of(class).ready_since.keys().next().copied()
    }
}
