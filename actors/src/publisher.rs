//! Tells facts that are on disk: events to the broadcast, spending to the cost actor.

use std::collections::BTreeMap;

use ractor::ActorRef;

use crate::Events;
use crate::meters::Meters;
use crate::protocol::CostMsg;
use onelane_core::model::{
    Applied, BreakerSnapshot, BreakerState, CallOutcome, Event, Hold, HoldScope, Job, JobEntry,
    JobId, JobStatus, Next, Pause, Phase, Refusal, SchedulerState, Settlement, Timestamp,
    Transition,
};
use onelane_core::money::budget::BudgetNews;

/// Turns stored changes into events.
pub(crate) struct Publisher {
    events: Events,
    cost: ActorRef<CostMsg>,
    meters: Meters,
    /// The lane's state as it was last told, to tell changes from repetitions.
    lane: SchedulerState,
}

impl Publisher {
    pub(crate) const fn new(
        events: Events,
        cost: ActorRef<CostMsg>,
        meters: Meters,
        lane: SchedulerState,
    ) -> Self {
        Self {
            events,
            cost,
            meters,
            lane,
        }
    }

    pub(crate) fn submitted(&self, entries: &[JobEntry], now: Timestamp) {
        self.meters.submitted(entries.len());
        for entry in entries {
            self.events.send_of(entry.key, now, || Event::JobSubmitted {
                job_id: entry.id,
                priority: entry.priority,
            });
        }
    }

    /// Tells of one change that the store made; of one that it refused there is nothing to tell.
    pub(crate) fn tell(
        &mut self,
        transition: &Transition,
        decision: &Result<Applied, Refusal>,
        now: Timestamp,
    ) {
        let applied = match decision {
            Ok(applied) => applied,
            Err(refusal) => {
                if let Transition::Settle(settlement) = transition {
                    tracing::warn!(
                        job_id = %settlement.job_id,
                        attempt = %settlement.attempt,
                        reason = %refusal,
                        "an outcome was refused by the store"
                    );
                }
                return;
            }
        };
        match transition {
            Transition::Start { job_id, .. } => {
                if let Applied::Dispatch(dispatch) = applied {
                    let key = dispatch.job.key_id;
                    self.events.send_of(key, now, || Event::JobStarted {
                        job_id: *job_id,
                        attempt: onelane_core::scheduler::slot::attempt_of(dispatch),
                    });
                }
            }
            Transition::Settle(settlement) => {
                self.cost_of(settlement);
                self.settled(settlement, job_of(applied), now);
            }
            Transition::Fail {
                job_id, failure, ..
            } => {
                if let Applied::Job(job) | Applied::Chain { job, .. } = applied {
                    self.meters.ended(JobStatus::Failed);
                    let code = failure.code.as_str();
                    let content_id = job.content_id.as_deref();
                    let reason = failure.message.as_str();
                    tracing::warn!(%job_id, content_id, error_code = code, reason, "a job failed while it waited");
                    self.events.send_of(job.key_id, now, || Event::JobFailed {
                        job_id: *job_id,
                        attempt: job.attempts,
                        failure: failure.clone(),
                    });
                }
            }
            Transition::Cancel { job_id, .. } => {
                self.meters.ended(JobStatus::Cancelled);
                let key = job_of(applied).and_then(|job| job.key_id);
                self.events
                    .send_of(key, now, || Event::JobCancelled { job_id: *job_id });
            }
            Transition::Requeue { job_id } => {
                let key = job_of(applied).and_then(|job| job.key_id);
                self.events
                    .send_of(key, now, || Event::JobRequeued { job_id: *job_id });
            }
            Transition::Lane(state) => self.lane_changed(state, now),
            Transition::Breaker(snapshot) => self.breaker_changed(snapshot, now),
            Transition::Insert(_)
            | Transition::Stage { .. }
            | Transition::Unstage { .. }
            | Transition::Release(_)
            | Transition::Resume { .. }
            | Transition::Task { .. }
            | Transition::Billing { .. }
            | Transition::Reprioritise { .. }
            | Transition::Alerts { .. }
            | Transition::Delivery(_)
            | Transition::OpenBatch(_)
            | Transition::Batch { .. }
            | Transition::Input(_)
            | Transition::File(_)
            | Transition::Adopt { .. }
            | Transition::Forget { .. }
            | Transition::Audit(_)
            | Transition::InsertKey(_)
            | Transition::Key { .. }
            | Transition::Prune(_)
            | Transition::Config(_)
            | Transition::Clock(_) => {}
        }
        if let Applied::Chain { job, others } = applied {
            self.followed(job.id, others, now);
        }
    }

    fn cost_of(&self, settlement: &Settlement) {
        let call = &settlement.call;
        let _ = self.cost.cast(CostMsg::Settled {
            usage: call.usage,
            cost: call.cost,
            unpriced: call.is_unpriced().then(|| call.model.clone()),
            substituted: call
                .substitution
                .zip(call.answered_by.clone())
                .map(|(what, other)| (call.model.clone(), other, what)),
        });
    }

    fn settled(&mut self, settlement: &Settlement, job: Option<&Job>, now: Timestamp) {
        let (job_id, attempt) = (settlement.job_id, settlement.attempt);
        let call = &settlement.call;
        let content_id = job.and_then(|job| job.content_id.as_deref());
        let key = job.and_then(|job| job.key_id);
        self.meters.settled(call, job);
        self.count_next(&settlement.next);
        if call.outcome == CallOutcome::Interrupted && call.maybe_billed {
            tracing::warn!(%job_id, %attempt, content_id, "an attempt was interrupted; maybe billed");
            self.events
                .send_of(key, now, || Event::AttemptInterrupted { job_id, attempt });
        }
        match &settlement.next {
            Next::Completed { .. } => self.events.send_of(key, now, || Event::JobCompleted {
                job_id,
                attempt,
                usage: call.usage,
                cost: call.cost,
            }),
            Next::Retry { failure, at, .. } => {
                tracing::info!(
                    %job_id, %attempt, content_id,
                    error_class = failure.class.name(),
                    error_code = failure.code,
                    reason = failure.message,
                    "an attempt failed; the job goes back in line"
                );
                self.events.send_of(key, now, || Event::JobRetrying {
                    job_id,
                    attempt,
                    next_retry_at: at.map(|wait| wait.until),
                    failure: failure.clone(),
                });
            }
            Next::Parked { .. } => {
                tracing::warn!(%job_id, %attempt, content_id, "the job is parked until an operator decides");
                self.events
                    .send_of(key, now, || Event::JobSetAside { job_id, attempt });
            }
            Next::Failed { failure } => {
                tracing::warn!(
                    %job_id, %attempt, content_id,
                    error_class = failure.class.name(),
                    error_code = failure.code,
                    reason = failure.message,
                    "a job failed"
                );
                self.events.send_of(key, now, || Event::JobFailed {
                    job_id,
                    attempt,
                    failure: failure.clone(),
                });
            }
            Next::Cancelled => self
                .events
                .send_of(key, now, || Event::JobCancelled { job_id }),
        }
        if let Some(state) = &settlement.lane {
            self.lane_changed(state, now);
        }
        if let Some(snapshot) = &settlement.breaker {
            self.breaker_changed(snapshot, now);
        }
    }

    /// Counts what becomes of a job.
    fn count_next(&self, next: &Next) {
        match next {
            Next::Completed { .. } => self.meters.ended(JobStatus::Completed),
            Next::Failed { .. } => self.meters.ended(JobStatus::Failed),
            Next::Cancelled => self.meters.ended(JobStatus::Cancelled),
            Next::Retry { failure, .. } => self.meters.retried(failure.class),
            Next::Parked { .. } => {}
        }
    }

    fn breaker_changed(&self, snapshot: &BreakerSnapshot, now: Timestamp) {
        if snapshot.state == BreakerState::Open {
            self.meters.breaker_opened();
            tracing::warn!(
                reason = snapshot.reason,
                probe_at = snapshot.probe_at.map(|wait| wait.until.to_rfc3339()),
                forced = snapshot.forced,
                "the breaker is open"
            );
        } else {
            tracing::info!(state = snapshot.state.name(), "the breaker changed");
        }
        self.events.send(now, || Event::BreakerChanged {
            breaker: snapshot.clone(),
        });
    }

    fn lane_changed(&mut self, state: &SchedulerState, now: Timestamp) {
        let before: BTreeMap<HoldScope, &Hold> = self.lane.holds().collect();
        let after: BTreeMap<HoldScope, &Hold> = state.holds().collect();
        for (scope, hold) in &after {
            if before.get(scope) == Some(hold) {
                continue;
            }
            self.meters.held(scope, hold);
            tracing::warn!(
                scope = %scope,
                kind = hold.kind.name(),
                error_code = hold.code,
                reason = hold.message,
                until = hold.until.map(|wait| wait.until.to_rfc3339()),
                "held"
            );
            self.events.send(now, || Event::LaneHeld {
                scope: scope.clone(),
                hold: (*hold).clone(),
            });
        }
        for (scope, hold) in &before {
            if !after.contains_key(scope) {
                tracing::info!(scope = %scope, kind = hold.kind.name(), "released");
                self.events.send(now, || Event::LaneReleased {
                    scope: scope.clone(),
                    kind: hold.kind,
                });
            }
        }
        let reason = |order: &Pause| order.reason.clone();
        match (&state.paused, &self.lane.paused) {
            (Some(pause), None) => {
                tracing::warn!(reason = reason(pause), "the lane is paused");
                self.events.send(now, || Event::LanePaused {
                    pause: pause.clone(),
                });
            }
            (None, Some(_)) => {
                tracing::info!("the lane is resumed");
                self.events.send(now, || Event::LaneResumed);
            }
            _ => {}
        }
        match (&state.draining, &self.lane.draining) {
            (Some(closed), None) => {
                tracing::warn!(reason = reason(closed), "the intake is closed");
                self.events.send(now, || Event::IntakeClosed {
                    closed: closed.clone(),
                });
            }
            (None, Some(_)) => {
                tracing::info!("the intake is open");
                self.events.send(now, || Event::IntakeOpened);
            }
            _ => {}
        }
        self.lane = state.clone();
    }

    /// Budgets that were reached, or are about to be.
    pub(crate) fn budgets(&self, news: Vec<BudgetNews>, now: Timestamp) {
        for BudgetNews { status, used_up } in news {
            let account = &status.account;
            tracing::warn!(
                budget = %account.budget,
                user_id = account.user.as_deref(),
                model = account.model.as_deref(),
                spent = %status.spent,
                reserved = %status.reserved,
                allowed = %status.limit,
                "{}",
                if used_up { "a budget has no room for a call before its next period" } else { "a budget is nearly used up" }
            );
            self.events.send(now, || {
                if used_up {
                    Event::BudgetUsedUp { status }
                } else {
                    Event::BudgetWarned { status }
                }
            });
        }
    }

    /// The ends of the jobs that were to run after one that ended.
    fn followed(&self, before: JobId, others: &[Job], now: Timestamp) {
        let ended = others.iter().filter(|job| job.status.is_terminal());
        let ended = ended.count();
        if ended > 0 {
            tracing::warn!(job_id = %before, jobs = ended, "jobs that were to run after one ended with it");
        }
        for job in others {
            let job_id = job.id;
            if job.status.is_terminal() {
                self.meters.ended(job.status);
            }
            match (job.status, &job.error) {
                (JobStatus::Failed, Some(failure)) => {
                    self.events.send_of(job.key_id, now, || Event::JobFailed {
                        job_id,
                        attempt: job.attempts,
                        failure: failure.clone(),
                    })
                }
                (JobStatus::Cancelled, _) => {
                    self.events
                        .send_of(job.key_id, now, || Event::JobCancelled { job_id });
                }
                _ if job.phase() == Phase::Waiting => {
                    self.events
                        .send_of(job.key_id, now, || Event::JobUnblocked { job_id });
                }
                _ => {}
            }
        }
    }
}

/// The job that a change was of, as it is now.
fn job_of(applied: &Applied) -> Option<&Job> {
    match applied {
        Applied::Job(job) | Applied::Chain { job, .. } => Some(job),
        _ => None,
    }
}
