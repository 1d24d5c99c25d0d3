//! Jobs that wait for room in a budget. They stay in the queue, dormant: deadlines, cancels and new priorities
//! find them there; this knows what each waits for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::model::{BudgetKey, JobEntry, JobId, Seq};

/// The order among those who wait for the same room: priority, then submission.
type Rank = (Reverse<i32>, Seq);

const fn rank(entry: &JobEntry) -> Rank {
    (Reverse(entry.priority), entry.seq)
}

/// What a job waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Need {
    /// That open calls of this account end.
    Calls(BudgetKey),
    /// Another period of this account, or another budget.
    Period(BudgetKey),
}

impl Need {
    /// The account that has no room.
    pub(super) const fn account(&self) -> &BudgetKey {
        match self {
            Self::Calls(account) | Self::Period(account) => account,
        }
    }
}

#[derive(Debug, Clone)]
struct Spot {
    rank: Rank,
    need: Need,
    /// It was to go to another model than its own, and may do otherwise when the routes change.
    diverted: bool,
}

/// The jobs, by what they wait for.
#[derive(Debug, Clone, Default)]
pub(super) struct Parked {
    spots: BTreeMap<JobId, Spot>,
    order: BTreeMap<Rank, JobId>,
    calls: BTreeMap<BudgetKey, BTreeMap<Rank, JobId>>,
    diverted: BTreeSet<JobId>,
    /// Some are to be looked at again.
    look: BTreeSet<JobId>,
    /// All are, the most urgent first: those behind this place, or from the first.
    sweep: Option<Option<Rank>>,
}

impl Parked {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.spots.len()
    }

    /// They, the most urgent first.
    pub(super) fn jobs(&self) -> impl Iterator<Item = JobId> {
        self.order.values().copied()
    }

    /// What a job waits for.
    pub(super) fn need(&self, id: JobId) -> Option<&Need> {
        Some(&self.spots.get(&id)?.need)
    }

    /// What each waits for.
    #[cfg(test)]
    pub(super) fn needs(&self) -> impl Iterator<Item = (JobId, &Need)> {
        self.spots.iter().map(|(id, spot)| (*id, &spot.need))
    }

    /// Puts a job on it, or to another place of it.
    pub(super) fn put(&mut self, entry: &JobEntry, need: Need, diverted: bool) {
        self.take(entry.id);
        let rank = rank(entry);
        match &need {
            Need::Calls(account) => {
                let waiting = self.calls.entry(account.clone()).or_default();
                waiting.insert(rank, entry.id);
            }
            Need::Period(_) => {}
        }
        if diverted {
            self.diverted.insert(entry.id);
        }
        let spot = Spot {
            rank,
            need,
            diverted,
        };
        self.order.insert(rank, entry.id);
        self.spots.insert(entry.id, spot);
    }

    /// Takes a job from it, with what it waited for.
    pub(super) fn take(&mut self, id: JobId) -> Option<Need> {
        let spot = self.spots.remove(&id)?;
        self.order.remove(&spot.rank);
        match &spot.need {
            Need::Calls(account) => {
                if let Some(waiting) = self.calls.get_mut(account) {
                    waiting.remove(&spot.rank);
                    if waiting.is_empty() {
                        self.calls.remove(account);
                    }
                }
            }
            Need::Period(_) => {}
        }
        self.look.remove(&id);
        if spot.diverted {
            self.diverted.remove(&id);
        }
        Some(spot.need)
    }

    /// The first of those who wait for open calls of an account.
    pub(super) fn first(&self, account: &BudgetKey) -> Option<JobId> {
        let (_, id) = self.calls.get(account)?.first_key_value()?;
        Some(*id)
    }

    /// Whether somebody before this job waits for open calls of an account.
    pub(super) fn is_behind(&self, entry: &JobEntry, account: &BudgetKey) -> bool {
        let first = self.calls.get(account).and_then(BTreeMap::first_key_value);
        first.is_some_and(|(first, _)| *first < rank(entry))
    }

    /// All of them are to be looked at again.
    pub(super) const fn look_at_all(&mut self) {
        self.sweep = Some(None);
    }

    /// Those that were to go to another model than their own are to be looked at again.
    pub(super) fn look_at_diverted(&mut self) {
        self.look.extend(&self.diverted);
    }

    /// Takes the next of those that are to be looked at again.
    pub(super) fn next_to_look_at(&mut self) -> Option<JobId> {
        if let Some(id) = self.look.pop_first() {
            return Some(id);
        }
        let after = match self.sweep? {
            Some(last) => Bound::Excluded(last),
            None => Bound::Unbounded,
        };
        let next = self.order.range((after, Bound::Unbounded)).next();
        let (rank, id) = next.map(|(rank, id)| (*rank, *id)).unzip();
        self.sweep = rank.map(Some);
        id
    }
}
