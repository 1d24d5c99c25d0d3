//! What the kills left in doubt, by what the processes had written: the one allowance for a second call.

use std::collections::BTreeSet;

use onelane::model::{AttemptNo, CallOutcome, JobId, Phase};
use onelane::ports::Store as _;

use crate::common::{Left, Place};

pub(crate) const STORE: &str = "onelane.redb";

#[derive(Default)]
pub(crate) struct Doubts {
    /// The attempts of which the store could not say that they were never sent.
    allowed: BTreeSet<(JobId, AttemptNo)>,
    /// How many there were after each kill.
    each: Vec<usize>,
    /// How many more were staged, and surely not sent.
    spared: usize,
}

impl Doubts {
    /// Looks at what a process left: its open calls, and those that the last commit allowed to be sent before their
    /// starts are stored. It looks at a copy, for the next process has to find what the one before left.
    pub(crate) fn look(&mut self, place: &Place) {
        let copy = Place::new();
        for (name, path) in place.files() {
            if name.starts_with(STORE) {
                std::fs::copy(path, copy.path(&name)).unwrap();
            }
        }
        if !copy.has(STORE) {
            return;
        }
        let found = copy.store(STORE).0.recover().unwrap();
        let released: BTreeSet<JobId> = found.released.iter().copied().collect();
        let was_sent = |phase| phase == Phase::Running;
        let doubted = found.lane.in_doubt || found.open.iter().any(|job| was_sent(job.phase()));
        let before = self.allowed.len();
        for job in &found.open {
            let no = job.open.expect("its attempt is open").no;
            if doubted && (was_sent(job.phase()) || released.contains(&job.id)) {
                self.allowed.insert((job.id, no));
            } else {
                self.spared += 1;
            }
        }
        // One that a process was killed too soon to book is counted once.
        self.each.push(self.allowed.len() - before);
    }

    /// No attempt is on record as interrupted but those.
    pub(crate) fn are_all_there_are(&self, left: &Left) -> Doubted {
        let mut booked = 0;
        for call in left.calls() {
            if call.outcome == CallOutcome::Interrupted {
                let key = (call.job_id, call.attempt);
                assert!(
                    self.allowed.contains(&key),
                    "nobody allowed to send {call:?}"
                );
                booked += 1;
            }
        }
        Doubted {
            possible: self.allowed.len() as u64,
            most: self.each.iter().copied().max().unwrap_or(0) as u64,
            booked,
            spared: self.spared as u64,
        }
    }
}

/// How many attempts are in doubt.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Doubted {
    /// Those that a kill left so.
    pub(crate) possible: u64,
    /// The most that one kill left.
    pub(crate) most: u64,
    /// Those that are on record as interrupted.
    pub(crate) booked: u64,
    /// Those that were staged, and for certain not sent.
    pub(crate) spared: u64,
}
