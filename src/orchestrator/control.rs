//! An operator's words to a running lane: pause, drain, resume, holds, the breaker.

use onelane_actors::protocol::{BreakerMsg, QueueMsg};
use onelane_core::model::{BreakerSnapshot, BudgetStatuses, HoldScope, Refusal, Timestamp, limits};

use super::Orchestrator;
use crate::error::Error;

impl Orchestrator {
    /// Stops the lane before its next call; stored, so that it outlives a restart.
    pub async fn pause(&self, reason: Option<String>) -> Result<(), Error> {
        self.ask(|refs, reply| {
            let reason = reason.clone();
            refs.queue.cast(QueueMsg::Pause { reason, reply })
        })
        .await?
        .map_err(unexpected)
    }

    /// Closes the intake: what waits is worked off, and submissions are refused as `Draining` until
    /// [`Orchestrator::resume`]; stored, so that it outlives a restart. [`super::SchedulerSnapshot::drained`]
    /// tells when nothing is left. A submission that was under way may still be taken; dead letters may
    /// still be retried.
    pub async fn close_intake(&self, reason: Option<String>) -> Result<(), Error> {
        self.ask(|refs, reply| {
            let reason = reason.clone();
            refs.queue.cast(QueueMsg::CloseIntake { reason, reply })
        })
        .await?
        .map_err(unexpected)
    }

    /// Ends a pause, every hold, a closed intake, and an open breaker's wait: an operator says that
    /// things are well. The key may be among them, so that its file is read again; one that can't be used is
    /// told in the log, and the key stays.
    pub async fn resume(&self) -> Result<(), Error> {
        match self.reload_key().await {
            Ok(true) => tracing::info!("glm.api_key_file was read again: the key has changed"),
            Ok(false) => {}
            Err(error @ Error::Invalid { .. }) => {
                tracing::warn!(%error, "the key stays as it is");
            }
            Err(error) => return Err(error),
        }
        self.breaker_reset().await?;
        self.ask(|refs, reply| refs.queue.cast(QueueMsg::Resume { reply }))
            .await?
            .map_err(unexpected)
    }

    /// Ends one hold and nothing else; `NoSuchHold` if nothing holds there.
    pub async fn release_hold(&self, scope: HoldScope) -> Result<(), Error> {
        let held = self.lane().await?.holds;
        if !held.iter().any(|held| held.scope == scope) {
            return Err(Error::NoSuchHold(scope));
        }
        let released = self
            .ask(|refs, reply| {
                let scope = scope.clone();
                refs.queue.cast(QueueMsg::Release { scope, reply })
            })
            .await?;
        match released {
            // It has ended meanwhile, or this was asked again after a lost reply.
            Err(Refusal::NotFound) => Ok(()),
            other => other.map_err(unexpected),
        }
    }

    /// How the budgets stand: every account that something was spent from or reserved in, and every budget that is for all
    /// together. Of more than a thousand those that are nearest to their limits.
    pub async fn budgets(&self) -> Result<BudgetStatuses, Error> {
        self.nearest_budgets(limits::PAGE_ROWS_MAX).await
    }

    /// The same of so many accounts at most.
    pub async fn nearest_budgets(&self, most: usize) -> Result<BudgetStatuses, Error> {
        self.ask(|refs, reply| refs.queue.cast(QueueMsg::Budgets { most, reply }))
            .await
    }

    /// The breaker as it is.
    #[must_use]
    pub fn breaker(&self) -> BreakerSnapshot {
        let now = self.inner.ports.clock.now();
        let shown = self.inner.breaker.borrow().clone();
        BreakerSnapshot {
            probe_at: shown.probe_at.map(|wait| wait.as_told(now)),
            ..shown
        }
    }

    /// Closes the breaker, whatever opened it; its counts start afresh. Answers it as it is then, once
    /// that is on disk.
    pub async fn breaker_reset(&self) -> Result<BreakerSnapshot, Error> {
        self.ask(|refs, reply| refs.breaker.cast(BreakerMsg::Reset { reply }))
            .await
    }

    /// Opens the breaker: no call goes out, jobs wait, until `until`, when a probe may go out, or,
    /// without it, until [`Orchestrator::breaker_reset`]. Answers it as it is then, once that is on disk.
    pub async fn breaker_open(
        &self,
        reason: String,
        until: Option<Timestamp>,
    ) -> Result<BreakerSnapshot, Error> {
        self.ask(|refs, reply| {
            let reason = reason.clone();
            refs.breaker.cast(BreakerMsg::Open {
                reason,
                until,
                reply,
            })
        })
        .await
    }
}

/// The store has no reason to refuse a state of the lane.
fn unexpected(refusal: Refusal) -> Error {
    Error::Stopped(refusal.to_string())
}
