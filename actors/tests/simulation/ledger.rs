//! What is on disk, change by change: every one is checked against the table, against what was in
//! force when it was decided, and against what is known of the job.

use std::collections::BTreeMap;

use onelane_actors::ports::Store;
use onelane_actors::testing::MemoryStore;
use onelane_core::life::{Happening, next_phase};
use onelane_core::model::{
    Applied, AttemptNo, BreakerSnapshot, CallOutcome, CallRecord, HoldScope, Job, JobId, JobStatus,
    Next, NotAdmitted, Phase, Refusal, Reserve, SchedulerState, Settlement, Timestamp, Transition,
    UsageKey, UsageRow, Wait, code,
};

use crate::clocks::Heard;
use crate::history::{Act, History};
use crate::order;
use crate::server::Call;
use crate::sim::short;
use crate::tally::Tally;

/// A job as it is on disk, and when it came to be so.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) job: Job,
    pub(crate) changed: Timestamp,
    /// The priority that it had before its last one, and until when.
    pub(crate) was: Option<(i32, Timestamp)>,
}

/// The disk, as far as it is looked at.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) jobs: BTreeMap<JobId, Known>,
    pub(crate) lane: SchedulerState,
    pub(crate) breaker: BreakerSnapshot,
    pub(crate) calls: BTreeMap<(JobId, AttemptNo), CallRecord>,
    pub(crate) usage: BTreeMap<UsageKey, UsageRow>,
    /// The holds in force, and since when nothing has changed about their ends.
    pub(crate) held: BTreeMap<HoldScope, (Option<Wait>, Timestamp)>,
    /// Since when the breaker is as it is.
    pub(crate) breaker_since: Timestamp,
    /// The last job that was submitted and not inserted.
    turned_away: Option<JobId>,
    /// When it was last read whole.
    pub(crate) recovered: Timestamp,
    /// When there was room again after it was full.
    had_room: Timestamp,
    /// A commit that found no room is on disk all the same: what the lane says again is refused.
    pub(crate) is_in_doubt: bool,
    /// It was full since it was read: who submitted a job that was to be started at once was refused.
    pub(crate) was_full: bool,
}

/// Whether something is as it should be, and if not what is wrong.
pub(crate) type Checked = Result<(), String>;

impl Ledger {
    pub(crate) fn status_of(&self, job: JobId) -> Option<JobStatus> {
        Some(self.jobs.get(&job)?.job.status)
    }

    pub(crate) fn estimate_of(&self, job: JobId) -> u64 {
        let known = self.jobs.get(&job);
        known.map_or(0, |known| u64::from(known.job.estimated_tokens))
    }

    /// It is read whole.
    pub(crate) fn recovers(&mut self, now: Timestamp) {
        self.recovered = now;
        self.is_in_doubt = false;
        self.was_full = false;
    }

    /// There is room on it again.
    pub(crate) fn had_room(&mut self, now: Timestamp) {
        self.had_room = now;
    }

    /// Since when all that the lane has to say comes to disk.
    pub(crate) fn calm(&self) -> Timestamp {
        self.recovered.max(self.had_room)
    }

    /// The tokens of a call that is on record.
    pub(crate) fn tokens_of(&self, call: &Call) -> Option<u64> {
        let row = self.calls.get(&(call.job, call.attempt))?;
        Some(row.usage.total_tokens)
    }

    /// Jobs whose call is on record as open.
    pub(crate) fn running(&self) -> impl Iterator<Item = &Job> {
        let jobs = self.jobs.values().map(|known| &known.job);
        jobs.filter(|job| job.status == JobStatus::Processing)
    }

    /// One change was made, or refused.
    pub(crate) fn apply(
        &mut self,
        change: &Transition,
        decision: &Result<Applied, Refusal>,
        store: &MemoryStore,
        history: &History,
        tally: &mut Tally,
        heard: Heard<'_>,
    ) -> Checked {
        let now = heard.now.awake;
        if let Transition::Insert(new) = change {
            let came_in = matches!(decision, Ok(Applied::Inserted(_)));
            self.turned_away = (!came_in).then_some(new.job.id);
        }
        let applied = match decision {
            Ok(applied) => applied,
            Err(refusal) => return self.refused(change, refusal),
        };
        match change {
            Transition::Start {
                job_id,
                at,
                served_by,
                reserve,
                ..
            } => {
                let model = served_by.as_deref();
                order::may_start(self, *job_id, model, *at, history, heard)
                    .map_err(|why| format!("job {} was started: {why}", short(*job_id)))?;
                self.is_affordable(*job_id, *reserve, *at, history, heard)
                    .map_err(|why| format!("job {} was started: {why}", short(*job_id)))?;
                tally.fallbacks += u64::from(served_by.is_some());
            }
            Transition::Lane(state) => self.lane_becomes(state, history, tally, heard)?,
            Transition::Breaker(breaker) => self.breaker_becomes(breaker, tally, now),
            Transition::Settle(settlement) => self.settled(settlement, history, tally, heard)?,
            _ => {}
        }
        if let Some(id) = change.job_id() {
            self.moved(id, happening(change), store, now)?;
        }
        if let Applied::Inserted(job) = applied {
            tally.jobs += 1;
            let job = (**job).clone();
            if self.jobs.contains_key(&job.id) {
                return Err(format!("job {} was inserted twice", short(job.id)));
            }
            let known = Known {
                job,
                changed: now,
                was: None,
            };
            self.jobs.insert(known.job.id, known);
        }
        if let Applied::Chain { others, .. } = applied {
            for other in others {
                let to = other.phase();
                let happening = match to {
                    Phase::Failed => Happening::Fail,
                    Phase::Cancelled => Happening::Cancel,
                    _ => Happening::Unblock,
                };
                self.moved(other.id, Some(happening), store, now)?;
            }
        }
        Ok(())
    }

    /// Whether a call fits into the budgets of the day that the wall clock tells.
    fn is_affordable(
        &self,
        id: JobId,
        reserve: Option<Reserve>,
        at: Timestamp,
        history: &History,
        heard: Heard<'_>,
    ) -> Checked {
        /// What was reserved before a disturbance has been sent by then.
        const CALM_MS: u64 = 60_000;
        let awake = heard.awake_at(at);
        let Some(settings) = history.steady_since(awake.minus_ms(CALM_MS)) else {
            return Ok(());
        };
        if heard.is_disturbed_since(awake.minus_ms(CALM_MS)) {
            return Ok(());
        }
        let (Some(known), Some(reserve)) = (self.jobs.get(&id), reserve) else {
            return match settings.budgets.is_empty() {
                true => Ok(()),
                false => Err("nothing is reserved for it".to_owned()),
            };
        };
        let today = settings.calendar.day(at);
        for budget in &settings.budgets {
            if budget.key.is_some() && budget.key != known.job.key_id {
                continue;
            }
            let counted = budget.users.counted_as(&known.job.user_id);
            let rows = self.usage.iter().filter(|(key, _)| {
                key.day == today
                    && budget.users.counted_as(&key.user_id) == counted
                    && (budget.key.is_none() || budget.key == key.key_id)
            });
            let spent: u64 = rows.map(|(_, row)| row.budgeted_tokens()).sum();
            let limit = budget.limit.number();
            if spent + reserve.tokens > limit {
                return Err(format!(
                    "{spent} of {limit} tokens are spent, and it may take {}",
                    reserve.tokens
                ));
            }
        }
        Ok(())
    }

    /// Whether a hold stands since before this moment.
    pub(crate) fn is_held_since_before(&self, scope: &HoldScope, moment: Timestamp) -> bool {
        let held = self.held.get(scope);
        held.is_some_and(|(_, since)| *since < moment)
    }

    fn pending(&self) -> u64 {
        let jobs = self.jobs.values();
        jobs.filter(|known| known.job.status == JobStatus::Pending)
            .count() as u64
    }

    /// A change that was refused: the lane's own steps never are.
    fn refused(&self, change: &Transition, refusal: &Refusal) -> Checked {
        match change {
            _ if self.is_in_doubt => Ok(()),
            // It was to be inserted and started in one.
            Transition::Start { job_id, .. }
                if self.turned_away == Some(*job_id)
                    || (self.was_full && !self.jobs.contains_key(job_id)) =>
            {
                Ok(())
            }
            Transition::Stage { job_id, .. }
            | Transition::Unstage { job_id }
            | Transition::Start { job_id, .. }
            | Transition::Resume { job_id, .. } => Err(format!(
                "the lane and the disk disagree about job {}: {refusal}, {change:?}",
                short(*job_id)
            )),
            Transition::Settle(settlement) => Err(format!(
                "the end of attempt {} of job {} was refused: {refusal}",
                settlement.attempt,
                short(settlement.job_id)
            )),
            Transition::Insert(_) => match refusal {
                Refusal::NotAdmitted(NotAdmitted::QueueFull { limit })
                    if self.pending() < *limit =>
                {
                    Err(format!("refused for {limit} that are not waiting"))
                }
                Refusal::NotFound | Refusal::WrongStatus(_) | Refusal::NoSuchDependency(_) => {
                    Err(format!("an insertion was refused: {refusal}"))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// A job is as the store has it now: it got there by the table, and its attempts only grew.
    fn moved(
        &mut self,
        id: JobId,
        happening: Option<Happening>,
        store: &MemoryStore,
        now: Timestamp,
    ) -> Checked {
        let Some(known) = self.jobs.get_mut(&id) else {
            return Ok(());
        };
        let record = store.job(id).map_err(|error| error.to_string())?;
        let Some(after) = record.map(|record| record.job) else {
            return Err(format!("job {} is gone from disk", short(id)));
        };
        let (from, to) = (known.job.phase(), after.phase());
        if let Some(happening) = happening {
            let legal = next_phase(from, happening) == Some(to)
                // The jobs that it runs after may not be completed (all of them).
                || (matches!(happening, Happening::Requeue | Happening::Unblock)
                    && to == Phase::Blocked);
            if !legal {
                return Err(format!(
                    "job {} went from {from:?} to {to:?} by {happening:?}",
                    short(id)
                ));
            }
        }
        if after.attempts < known.job.attempts {
            return Err(format!("the attempts of job {} went back", short(id)));
        }
        let blocked = after
            .waits_for
            .iter()
            .any(|other| *other == id || !after.after.contains(other));
        if blocked {
            return Err(format!("job {} waits for what it did not ask", short(id)));
        }
        let was = match after.priority == known.job.priority {
            true => known.was,
            false => Some((known.job.priority, now)),
        };
        *known = Known {
            job: after,
            changed: now,
            was,
        };
        Ok(())
    }

    /// An attempt ended: its row is the only one, says what it should, and stops what it should.
    fn settled(
        &mut self,
        settlement: &Settlement,
        history: &History,
        tally: &mut Tally,
        heard: Heard<'_>,
    ) -> Checked {
        let now = heard.now.awake;
        let call = &settlement.call;
        let who = format!("attempt {} of job {}", call.attempt, short(call.job_id));
        let Some(job) = self.jobs.get(&call.job_id).map(|known| &known.job) else {
            return Err(format!("{who} ended, and the job is not on disk"));
        };
        if (call.job_id, call.attempt) != (settlement.job_id, settlement.attempt) {
            return Err(format!("{who} has the row of another"));
        }
        if call.model != job.sent_to() && job.phase() == Phase::Running {
            return Err(format!("{who} is on record for {}", call.model));
        }
        if call.outcome == CallOutcome::Interrupted {
            tally.interrupted += 1;
            let ours = |account: &str| {
                let mut at = history.between(now, now);
                at.all(|settings| settings.glm.endpoint().digest() == account)
            };
            if job.task.as_ref().is_some_and(|task| ours(&task.account))
                && !matches!(settlement.next, Next::Cancelled)
                && !is_quarantined(&settlement.next)
                // Whoever gives a job up lets go of its task, also where the store fails meanwhile.
                && !history.is_done_by_hand(|act| *act == Act::Cancel(call.job_id), now)
            {
                return Err(format!("{who} is given up although GLM holds it as a task"));
            }
        }
        if let Next::Failed { failure } = &settlement.next {
            tally.quarantined += u64::from(failure.code == code::QUARANTINED);
        }
        let key = (call.job_id, call.attempt);
        if self.calls.insert(key, call.clone()).is_some() {
            return Err(format!("{who} is in the call log twice"));
        }
        let row = self.usage.entry(UsageKey::of(call));
        row.or_insert_with_key(|key| UsageRow::empty(key.clone()))
            .add(call);
        if let Some(state) = &settlement.lane {
            self.lane_becomes(state, history, tally, heard)?;
        }
        if let Some(breaker) = &settlement.breaker {
            self.breaker_becomes(breaker, tally, now);
        }
        if call.outcome == CallOutcome::Failed {
            self.stopped(call, history, heard)
                .map_err(|why| format!("{who}: {why}"))?;
        }
        Ok(())
    }
}

/// Whether the answer of a task has brought the process down too often.
fn is_quarantined(next: &Next) -> bool {
    matches!(next, Next::Failed { failure } if failure.code == code::QUARANTINED)
}

/// What a change means for its job.
fn happening(change: &Transition) -> Option<Happening> {
    Some(match change {
        Transition::Stage { .. } => Happening::Stage,
        Transition::Unstage { .. } => Happening::Unstage,
        Transition::Start { .. } => Happening::Start,
        Transition::Resume { .. } => Happening::Resume,
        Transition::Fail { .. } => Happening::Fail,
        Transition::Cancel { .. } => Happening::Cancel,
        Transition::Requeue { .. } => Happening::Requeue,
        Transition::Reprioritise { .. } => Happening::Reprioritise,
        Transition::Settle(settlement) => match settlement.next {
            Next::Completed { .. } => Happening::Complete,
            Next::Retry { .. } => Happening::Retry,
            Next::Parked { .. } => Happening::Park,
            Next::Failed { .. } => Happening::Fail,
            Next::Cancelled => Happening::Cancel,
        },
        Transition::Insert(_)
        | Transition::Task { .. }
        | Transition::Release(_)
        | Transition::Lane(_)
        | Transition::Breaker(_)
        | Transition::Config(_)
        | Transition::Clock(_)
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
        | Transition::Billing { .. } => return None,
    })
}
