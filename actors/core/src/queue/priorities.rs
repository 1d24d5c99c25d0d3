//! How many jobs wait at each priority, counted as they come and go.

use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Jobs by priority, the most urgent first.
#[derive(Debug, Clone, Default)]
pub(super) struct Priorities(BTreeMap<Reverse<i32>, u64>);

impl Priorities {
    /// So many jobs of this priority came.
    pub(super) fn came(&mut self, priority: i32, jobs: u64) {
        *self.0.entry(Reverse(priority)).or_default() += jobs;
    }

    /// A job of this priority is gone.
    pub(super) fn left(&mut self, priority: i32) {
        if let Some(jobs) = self.0.get_mut(&Reverse(priority)) {
            *jobs = jobs.saturating_sub(1);
            if *jobs == 0 {
                self.0.remove(&Reverse(priority));
            }
        }
    }

    /// Priorities and their jobs, the most urgent first.
    pub(super) fn counts(&self) -> impl Iterator<Item = (i32, u64)> {
        self.0
            .iter()
            .map(|(Reverse(priority), jobs)| (*priority, *jobs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_counted_by_priority_as_they_come_and_go() {
        let mut priorities = Priorities::default();
        for priority in [0, 50, 0, -3, 50] {
            priorities.came(priority, 1);
        }
        priorities.left(-3);
        priorities.left(0);
        priorities.left(7);
        assert_eq!(priorities.counts().collect::<Vec<_>>(), [(50, 2), (0, 1)]);
    }
}
