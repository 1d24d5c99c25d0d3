//! Retention at work: a task beside the actors that lets the store prune in small steps. It owns nothing,
//! so that it keeps no store open; a step that is lost is made again with the next pruning.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use onelane_actors::ports::{CallFilter, Clock, JobFilter, Store, StoreError};
use onelane_actors::protocol::{CommitReply, CommitRequest, StoreMsg};
use onelane_actors::runtime::Runtime;
use onelane_core::model::{
    Applied, Prune, Pruned, Settings, Timestamp, Transition, Unreadable, limits,
};
use onelane_core::retention::trust::ClockTrust;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// A step is followed by a rest of so many times its own length: the lane's transactions have the store
/// for the larger part, however much there is to prune.
const REST_FACTOR: u32 = 5;
/// Rows that can't be read and are named in the log, each once.
const UNREADABLE_TOLD_MAX: usize = 100;
/// The rest is never shorter.
const REST_MIN: Duration = Duration::from_millis(2);

/// The latest moment that a store knows of: when its last call ended, or its last job came.
pub(super) fn last_known(store: &dyn Store) -> Result<Option<Timestamp>, StoreError> {
    let calls = store.calls(&CallFilter::default(), None, 1)?;
    let jobs = store.jobs(&JobFilter::default(), None, 1)?;
    let ended = calls.calls.first().map(|call| call.ended_at);
    let came = jobs.jobs.first().map(|record| record.job.created_at);
    Ok(ended.max(came))
}

/// What the task needs.
pub(super) struct Maintenance {
    pub(super) settings: watch::Receiver<Arc<Settings>>,
    pub(super) runtime: watch::Receiver<Runtime>,
    pub(super) clock: Arc<dyn Clock>,
    /// Whether the clock is believed, as of the start.
    pub(super) trust: ClockTrust,
}

impl Maintenance {
    /// Prunes now and then, and when the settings change, until the lane is gone.
    pub(super) async fn run(mut self) {
        let mut told = BTreeSet::new();
        let begun = Instant::now();
        loop {
            while let Some(rest) = self.trust.look(self.clock.now(), whole_ms(begun.elapsed())) {
                let stopped = self.runtime.wait_for(|runtime| runtime.stopped.is_some());
                let rest = Duration::from_millis(rest);
                if tokio::time::timeout(rest, stopped).await.is_ok() {
                    return;
                }
            }
            let retention = self.settings.borrow_and_update().retention;
            let step = Prune::of(&retention, self.clock.now());
            if let Some(step) = step {
                self.prune(step, &mut told).await;
            }
            let changed = self.settings.changed();
            let goes_on = match step {
                // Nobody to be waited for but the settings: no timer runs.
                None => changed.await.is_ok(),
                Some(_) => {
                    let pause = Duration::from_millis(limits::PRUNE_EVERY_MS);
                    match tokio::time::timeout(pause, changed).await {
                        Ok(changed) => changed.is_ok(),
                        Err(_) => true,
                    }
                }
            };
            if !goes_on || self.runtime.borrow().stopped.is_some() {
                return;
            }
        }
    }

    /// Makes step after step until nothing more is to go, or something else is asked for.
    async fn prune(&mut self, mut step: Prune, told: &mut BTreeSet<Unreadable>) {
        let mut sum = Pruned::default();
        let mut unreadable = BTreeSet::new();
        loop {
            let begun = Instant::now();
            let Some(pruned) = self.commit(step).await else {
                break;
            };
            sum.jobs += pruned.jobs;
            sum.bodies += pruned.bodies;
            sum.calls += pruned.calls;
            unreadable.extend(pruned.unreadable);
            let Some(next) = pruned.next else { break };
            step.from = next;
            let rest = begun.elapsed().saturating_mul(REST_FACTOR).max(REST_MIN);
            tokio::time::sleep(rest).await;
            // An error tells that the lane is gone.
            if self.settings.has_changed().unwrap_or(true) {
                break;
            }
        }
        let first = unreadable.difference(told).next().copied();
        if let Some(first) = first.filter(|_| told.len() < UNREADABLE_TOLD_MAX) {
            tracing::warn!(
                rows = unreadable.len(),
                %first,
                "rows can't be read and are not pruned; `onelane db check` names them"
            );
            told.extend(unreadable.into_iter().take(UNREADABLE_TOLD_MAX));
        }
        if !sum.is_nothing() {
            let Pruned {
                jobs,
                bodies,
                calls,
                ..
            } = sum;
            tracing::info!(
                jobs,
                bodies,
                calls,
                "pruned what is older than retention keeps"
            );
        }
    }

    /// Makes one step; `None` when its reply was lost or the store failed, which others tell of.
    async fn commit(&mut self, step: Prune) -> Option<Pruned> {
        let runtime = self
            .runtime
            .wait_for(|runtime| runtime.refs.is_some() || runtime.stopped.is_some());
        let store = runtime.await.ok()?.refs.as_ref()?.store.clone();
        let (port, answer) = oneshot::channel();
        let request = CommitRequest {
            transitions: vec![Transition::Prune(Box::new(step))],
            reply: CommitReply::Port(port.into()),
        };
        store.cast(StoreMsg::Commit(request)).ok()?;
        match answer.await.ok()?.ok()?.pop()? {
            Ok(Applied::Pruned(pruned)) => Some(pruned),
            _ => None,
        }
    }
}

fn whole_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
