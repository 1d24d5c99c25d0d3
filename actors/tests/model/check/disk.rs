//! The store and what is on its way there: commits are written in their order, and told in it.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::Arc;

use onelane_actors::ports::{Store as _, StoreError};
use onelane_actors::testing::MemoryStore;
use onelane_core::model::{CallFilter, Recovered, Timestamp, Transition, UsageFilter};
use onelane_core::money::budget::{Budgets, Ledger};
use onelane_core::scheduler::Decision;

use super::bugs::Bug;
use super::plan::Plan;

/// A store in memory fails only where it is told to, and nobody tells it here.
fn sure<T: Default>(answer: Result<T, StoreError>) -> T {
    answer.unwrap_or_default()
}

/// Who asked for a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// The lane, under this ticket.
    Lane(u64),
    /// The lane, with the submission of this job among its changes.
    AtOnce(u64, u8),
    /// The submitter of this job.
    Submitter(u8),
}

impl Asker {
    pub(crate) const fn submission(self) -> Option<u8> {
        match self {
            Self::Lane(_) => None,
            Self::AtOnce(_, job) | Self::Submitter(job) => Some(job),
        }
    }

    pub(crate) const fn ticket(self) -> Option<u64> {
        match self {
            Self::Lane(ticket) | Self::AtOnce(ticket, _) => Some(ticket),
            Self::Submitter(_) => None,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Commit {
    pub(crate) asker: Asker,
    changes: Arc<[Transition]>,
    /// What the store said; `None`: it is not on disk.
    said: Option<Arc<[Decision]>>,
    /// Whether it is there although the store said so before.
    is_owed: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    /// Copied before it is written to: worlds share it.
    store: MemoryStore,
    commits: VecDeque<Commit>,
}

impl Disk {
    pub(crate) const fn store(&self) -> &MemoryStore {
        &self.store
    }

    pub(crate) fn ask(&mut self, asker: Asker, changes: Vec<Transition>) {
        self.commits.push_back(Commit {
            asker,
            changes: changes.into(),
            said: None,
            is_owed: false,
        });
    }

    /// Whether a submission of this job is under way.
    pub(crate) fn has_submission(&self, job: u8) -> bool {
        let mut askers = self.commits.iter().map(|commit| commit.asker);
        askers.any(|asker| asker.submission() == Some(job))
    }

    pub(crate) fn unwritten(&self) -> usize {
        let unwritten = |commit: &&Commit| commit.said.is_none();
        self.commits.iter().filter(unwritten).count()
    }

    /// Whether a commit is on disk of which nobody has heard.
    pub(crate) fn has_news(&self) -> bool {
        self.commits
            .front()
            .is_some_and(|first| first.said.is_some())
    }

    fn apply(&mut self, changes: &[Transition], plan: &Plan) -> Vec<Decision> {
        let mut changes: Vec<Transition> = changes.to_vec();
        let asked = changes.clone();
        if plan.has(Bug::ForgetsDoubt) {
            for change in &mut changes {
                match change {
                    Transition::Lane(state) => state.in_doubt = false,
                    Transition::Settle(settlement) => {
                        if let Some(state) = &mut settlement.lane {
                            state.in_doubt = false;
                        }
                    }
                    _ => {}
                }
            }
        }
        if plan.has(Bug::ForgetsReleases) {
            for change in &mut changes {
                if let Transition::Release(jobs) = change {
                    jobs.clear();
                }
            }
        }
        self.store = self.store.copied();
        let mut said = Vec::with_capacity(changes.len());
        if plan.has(Bug::CancelsInWords) {
            // Decided by a disk that nobody keeps.
            let other = self.store.copied();
            let decisions = sure(other.commit(&changes));
            said.extend(asked.into_iter().zip(decisions));
            changes.retain(|change| !matches!(change, Transition::Cancel { .. }));
            sure(self.store.commit(&changes));
            return said;
        }
        let decisions = sure(self.store.commit(&changes));
        said.extend(asked.into_iter().zip(decisions));
        said
    }

    /// Puts the oldest commit that is not there on disk. Tells what the store said.
    pub(crate) fn write(&mut self, plan: &Plan) -> Option<Arc<[Decision]>> {
        let at = self
            .commits
            .iter()
            .position(|commit| commit.said.is_none())?;
        let changes = Arc::clone(&self.commits.get(at)?.changes);
        let said: Arc<[Decision]> = self.apply(&changes, plan).into();
        self.commits.get_mut(at)?.said = Some(Arc::clone(&said));
        Some(said)
    }

    /// Takes the oldest commit that is on disk, with what the store said.
    pub(crate) fn tell(&mut self) -> Option<(Asker, Arc<[Decision]>)> {
        let said = self.commits.front()?.said.clone()?;
        let commit = self.commits.pop_front()?;
        Some((commit.asker, said))
    }

    /// What a store says of the oldest commit before it is there.
    pub(crate) fn promise(&mut self, plan: &Plan) -> Option<(Asker, Arc<[Decision]>)> {
        let at = self.commits.iter().position(|commit| !commit.is_owed)?;
        // Said by a disk that has all that came before it, and that nobody keeps.
        let mut other = self.clone();
        let mut said = None;
        for commit in self.commits.iter().take(at + 1) {
            said = Some(other.apply(&commit.changes, plan));
        }
        let commit = self.commits.get_mut(at)?;
        commit.is_owed = true;
        Some((commit.asker, said?.into()))
    }

    /// Those that were told before are written now.
    pub(crate) fn pay(&mut self, plan: &Plan) {
        if let Some(commit) = self.commits.pop_front() {
            self.apply(&commit.changes, plan);
        }
    }

    pub(crate) fn owes(&self) -> bool {
        self.commits.front().is_some_and(|first| first.is_owed)
    }

    pub(crate) fn may_promise(&self) -> bool {
        self.commits.iter().any(|commit| !commit.is_owed)
    }

    /// Whoever has commits under way is gone, and so are those that are not on disk.
    pub(crate) fn lose(&mut self, plan: &Plan) {
        let unwritten = self.commits.iter().find(|commit| commit.said.is_none());
        let torn = unwritten.filter(|_| plan.has(Bug::TearsCommits));
        let first = torn.and_then(|commit| commit.changes.first().cloned());
        if let Some(first) = first {
            self.apply(&[first], plan);
        }
        self.commits.clear();
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.commits.is_empty()
    }

    /// What a start finds.
    pub(crate) fn recovered(&self, plan: &Plan) -> Recovered {
        let mut recovered = sure(self.store.recover());
        recovered.instance = Some(1);
        if plan.has(Bug::OverlooksAttempt) {
            recovered.open.pop();
        }
        recovered
    }

    /// The sums that budgets start from, as the store actor makes them.
    pub(crate) fn ledger(&self, plan: &Plan, now: Timestamp) -> Ledger {
        let settings = plan.settings();
        let usage = UsageFilter {
            start: Budgets::since(&settings.calendar, now),
            ..UsageFilter::default()
        };
        let open = CallFilter {
            billing_open: true,
            ..CallFilter::default()
        };
        let calls = self.store.calls(&open, None, 1_000);
        let mut doubt = sure(calls).calls;
        if plan.has(Bug::DoubtIsFree) {
            doubt.clear();
        }
        Ledger {
            usage: sure(self.store.usage(&usage)),
            doubt,
        }
    }

    /// Writes what is there and under way; commits by how long ago they were asked for.
    pub(crate) fn imprint(&self, newest: u64, to: &mut impl Write) -> fmt::Result {
        for commit in &self.commits {
            let Commit {
                asker,
                changes,
                said,
                is_owed,
            } = commit;
            let age = asker.ticket().map(|ticket| newest.saturating_sub(ticket));
            write!(to, "{age:?}{:?}{changes:?}", asker.submission())?;
            match said {
                Some(said) => {
                    let said: Vec<_> = said.iter().map(|(_, decision)| decision).collect();
                    write!(to, "{said:?}{is_owed}")?;
                }
                None => write!(to, "-{is_owed}")?,
            }
        }
        self.store.look(|written| {
            for record in written.jobs.values() {
                write!(to, "{:?}", record.job)?;
            }
            let mut calls: Vec<_> = written.calls.values().collect();
            calls.sort_by_key(|call| (call.job_id, call.attempt));
            for call in calls {
                let what = (
                    call.job_id,
                    call.attempt,
                    call.outcome,
                    call.usage.total_tokens,
                );
                let when = (
                    call.started_at,
                    call.booked_on,
                    call.reserved,
                    call.maybe_billed,
                );
                write!(to, "{what:?}{when:?}")?;
            }
            let (released, lane, breaker) = (written.released, written.lane, written.breaker);
            write!(to, "{released:?}{lane:?}{breaker:?}")
        })
    }
}
