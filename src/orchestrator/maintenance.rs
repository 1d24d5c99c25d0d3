//! Retention at work: a task beside the actors that lets the store prune in small steps. It owns nothing,
//! so that it keeps no store open; a step that is lost is made again with the next pruning.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use onelane_actors::ports::{Clock, Store, StoreError};
use onelane_actors::protocol::{CommitReply, CommitRequest, StoreMsg};
use onelane_actors::runtime::Runtime;
use onelane_core::model::{
    Applied, Prune, Pruned, Retention, Settings, Timestamp, Transition, Unreadable, limits,
};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::trust::Trust;

/// A step is followed by a rest of so many times its own length: the lane's transactions have the store
/// for the larger part, however much there is to prune.
const REST_FACTOR: u32 = 5;
/// Rows that can't be read and are named in the log, each once.
const UNREADABLE_TOLD_MAX: usize = 100;
/// The rest is never shorter.
const REST_MIN: Duration = Duration::from_millis(2);

/// Whether the clock is believed at a start. Called before any actor writes.
pub(super) fn trust(store: &dyn Store, clock: Arc<dyn Clock>) -> Result<Trust, StoreError> {
    let trust = Trust::new(clock, store.clock()?);
    if let Some(believed) = trust.to_store()
        && let Err(error) = store.commit(&[Transition::Clock(believed)])
    {
        // A disk that is full is waited out; what else is wrong is told by the recovery that follows.
        tracing::warn!(%error, "that the clock is believed was not stored");
    }
    Ok(trust)
}

/// What the task needs.
pub(super) struct Maintenance {
    pub(super) settings: watch::Receiver<Arc<Settings>>,
    pub(super) runtime: watch::Receiver<Runtime>,
    pub(super) trust: Arc<Trust>,
}

impl Maintenance {
    /// Prunes now and then, and when the settings change, until the lane is gone.
    pub(super) async fn run(mut self) {
        let mut told = BTreeSet::new();
        loop {
            let Some(now) = self.believed().await else {
                return;
            };
            if let Some(believed) = self.trust.to_store() {
                self.commit(Transition::Clock(believed)).await;
            }
            let retention = self.settings.borrow_and_update().retention;
            let step = Prune::of(&retention, now);
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

    /// Waits until the clock is believed, and tells what it says. `None`: the lane is gone.
    async fn believed(&mut self) -> Option<Timestamp> {
        let mut told = false;
        loop {
            let rest = match self.trust.look() {
                Ok(now) => {
                    if told {
                        tracing::info!("the clock has kept step, and is believed: pruning goes on");
                    }
                    return Some(now);
                }
                Err(rest) => rest,
            };
            let retention = self.settings.borrow().retention;
            if !told && retention != Retention::default() {
                told = true;
                tracing::warn!(
                    "the clock is a day or more ahead of where it was last believed: nothing is pruned until it has \
                     kept step with ten minutes of uptime"
                );
            }
            let stopped = self.runtime.wait_for(|runtime| runtime.stopped.is_some());
            if tokio::time::timeout(Duration::from_millis(rest), stopped)
                .await
                .is_ok()
            {
                return None;
            }
        }
    }

    /// Makes step after step until nothing more is to go, or something else is asked for.
    async fn prune(&mut self, mut step: Prune, told: &mut BTreeSet<Unreadable>) {
        let mut sum = Pruned::default();
        let mut unreadable = BTreeSet::new();
        loop {
            let begun = Instant::now();
            let step_made = self.commit(Transition::Prune(Box::new(step))).await;
            let Some(Applied::Pruned(pruned)) = step_made else {
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

    /// Makes one change; `None` when its reply was lost or the store failed, which others tell of.
    async fn commit(&mut self, change: Transition) -> Option<Applied> {
        let runtime = self
            .runtime
            .wait_for(|runtime| runtime.refs.is_some() || runtime.stopped.is_some());
        let store = runtime.await.ok()?.refs.as_ref()?.store.clone();
        let (port, answer) = oneshot::channel();
        let request = CommitRequest {
            transitions: vec![change],
            reply: CommitReply::Port(port.into()),
        };
        store.cast(StoreMsg::Commit(request)).ok()?;
        answer.await.ok()?.ok()?.pop()?.ok()
    }
}
