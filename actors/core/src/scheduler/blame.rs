//! Whose fault is a refusal without a code of GLM's? What every job meets is the operator's (a wrong base URL), what
//! one job meets while others pass is its own (a firewall that dislikes a prompt). So the job steps aside, and the
//! next different one goes as a probe: the same refusal of [`limits::REFUSALS_HELD_AT`] distinct requests without an
//! answer between holds the account, an answer fails those that stepped aside.

use super::Scheduler;
use crate::judge::Blame;
use crate::judge::conclude::Concluded;
use crate::model::{
    Failure, FailureClass, HoldKind, Job, JobId, JobRule, LaneRule, Met, Next, Refused,
    RefusedPlace, SlotId, Timestamp, limits,
};
use crate::scheduler::slot::Slot;

impl Scheduler {
    /// Who is to blame for a refusal of the slot's call for `job`, as far as is known.
    #[must_use]
    pub fn blame(&self, slot: SlotId, job: &Job, failure: &Failure) -> Blame {
        let (_, rule) = self.settings.decide(failure);
        if rule.job != JobRule::StepAside {
            return Blame::Unknown;
        }
        let known = self.state.unattributed.of(job.id);
        let same = known.filter(|known| known.failure.code == failure.code);
        if same.is_some_and(|known| known.passed) {
            return Blame::Job;
        }
        let held = self.state.hold.as_ref();
        let held =
            held.is_some_and(|held| held.kind == HoldKind::Operator && held.code == failure.code);
        if rule.lane == LaneRule::HoldForOperator || held || self.state.probing {
            return Blame::Operator;
        }
        let request = self.request_of(slot, job.id);
        let met = self.state.unattributed.met.get(&failure.code);
        let others = met.map_or(0, |met| {
            met.requests.iter().filter(|met| **met != request).count()
        });
        if others + 1 >= limits::REFUSALS_HELD_AT {
            return Blame::Operator;
        }
        let has_room = self.state.unattributed.jobs.len() < limits::REFUSED_JOBS_MAX;
        let others = self.others_can_go() || self.others_are_called(slot);
        if known.is_none() && has_room && others {
            return Blame::AskOthers;
        }
        Blame::Unknown
    }

    /// What tells one request from another.
    fn request_of(&self, slot: SlotId, id: JobId) -> String {
        match self.slots.get(&slot) {
            Some(Slot::Busy { dispatch, .. }) if dispatch.job.id == id => {
                dispatch.request.fingerprint(&dispatch.job.model).short()
            }
            // An attempt that an earlier generation began.
            _ => id.to_string(),
        }
    }

    /// Notes what a refusal of the slot's call tells. Tells whether the lanes' state has changed.
    pub(super) fn note_blame(
        &mut self,
        slot: SlotId,
        concluded: &Concluded,
        now: Timestamp,
    ) -> bool {
        let settlement = &concluded.settlement;
        let id = settlement.job_id;
        let (Some(blame), Some(failure)) = (concluded.blame, &settlement.call.failure) else {
            return self.forget_refused(id, !matches!(settlement.next, Next::Retry { .. }));
        };
        let request = self.request_of(slot, id);
        // Another base URL or key answers the question, too.
        self.state.endpoint_digest = Some(self.endpoint_digest.clone());
        let known = &mut self.state.unattributed;
        if blame != Blame::Job {
            let has_room = known.met.len() < limits::REFUSAL_CODES_MAX;
            if has_room || known.met.contains_key(&failure.code) {
                let met: &mut Met = known.met.entry(failure.code.clone()).or_default();
                met.at = now;
                if !met.requests.contains(&request) {
                    met.requests.push(request);
                }
            }
        }
        let place = match blame {
            Blame::AskOthers => RefusedPlace::Aside,
            Blame::Operator => {
                // All of these jobs met what an operator has to mend: none of them goes first afterwards.
                known.met.remove(&failure.code);
                for other in &mut known.jobs {
                    if other.failure.code == failure.code {
                        other.passed = false;
                        if other.place == RefusedPlace::Aside {
                            other.place = RefusedPlace::Behind;
                        }
                    }
                }
                RefusedPlace::Behind
            }
            Blame::Job | Blame::Unknown => {
                let has_ended = !matches!(settlement.next, Next::Retry { .. });
                self.forget_refused(id, has_ended);
                return true;
            }
        };
        known.jobs.retain(|other| other.job_id != id);
        if !matches!(settlement.next, Next::Cancelled) {
            known.jobs.push(Refused {
                job_id: id,
                failure: failure.clone(),
                at: now,
                place,
                passed: false,
            });
        }
        true
    }

    /// A job has ended, or is about to.
    pub(super) fn forget_refused(&mut self, id: JobId, ended: bool) -> bool {
        let jobs = &mut self.state.unattributed.jobs;
        let before = jobs.len();
        if ended {
            jobs.retain(|refused| refused.job_id != id);
        }
        jobs.len() != before
    }

    /// A job that stepped aside goes back into the queue by somebody's word.
    pub(super) fn is_back(&mut self, id: JobId) {
        let mut jobs = self.state.unattributed.jobs.iter_mut();
        if let Some(refused) = jobs.find(|refused| refused.job_id == id) {
            refused.place = RefusedPlace::Back;
        }
    }

    /// A call that was sent at `sent_at` was answered: what was refused before is the fault of those jobs. Tells
    /// whether the lanes' state has changed.
    pub(super) fn others_pass(&mut self, sent_at: Timestamp, now: Timestamp) -> bool {
        if self.state.unattributed.is_empty() {
            return false;
        }
        // An answer to a call that was sent before the refusal says nothing of it. One of the future met a clock that
        // was set back.
        let says_something = |at: Timestamp| sent_at >= at || at > now;
        let known = &mut self.state.unattributed;
        let before = known.clone();
        known.met.retain(|_, met| !says_something(met.at));
        let (mut failed, mut back) = (Vec::new(), Vec::new());
        for refused in &mut known.jobs {
            if !says_something(refused.at) {
                continue;
            }
            match refused.place {
                RefusedPlace::Aside => failed.push(refused.clone()),
                RefusedPlace::Behind => {
                    refused.place = RefusedPlace::Back;
                    refused.passed = true;
                    back.push(refused.job_id);
                }
                RefusedPlace::Back => refused.passed = true,
            }
        }
        for refused in failed {
            let id = refused.job_id;
            self.forget_refused(id, true);
            self.line.remove(id);
            let failure = Failure {
                class: FailureClass::RequestFatal,
                ..refused.failure
            };
            self.fails(id, failure, now);
        }
        self.put_back_in_line(&back, now);
        self.state.unattributed != before
    }

    /// Whether calls for other jobs are open or about to be: they, too, will show whose fault it is.
    fn others_are_called(&self, own: SlotId) -> bool {
        let mut others = self.slots.iter().filter(|(slot, _)| **slot != own);
        others.any(|(_, slot)| slot.is_taken())
    }

    /// Whether another job is there that would go, now or after a wait that ends by itself.
    fn others_can_go(&self) -> bool {
        let staged = self.tracks.values().any(|track| !track.stage.is_empty());
        let goes = |model: &str| {
            self.model_stopped(model)
                .is_none_or(|reason| reason.ends_by_itself())
        };
        staged || self.line.ready_by_model().any(|(model, _)| goes(model))
    }

    /// Where nobody is left to find out for them, those that stepped aside try again.
    pub(super) fn call_back_refused(&mut self, now: Timestamp) {
        if self.state.unattributed.kept_out_len() == 0
            || self.in_flight() > 0
            || self.stopped().is_some()
            || self.others_can_go()
        {
            return;
        }
        self.all_back(now);
        self.state_changed();
    }

    /// All that stepped aside go back into the queue.
    pub(super) fn all_back(&mut self, now: Timestamp) {
        let mut back = Vec::new();
        for refused in &mut self.state.unattributed.jobs {
            if refused.place != RefusedPlace::Back {
                refused.place = RefusedPlace::Back;
                back.push(refused.job_id);
            }
        }
        self.put_back_in_line(&back, now);
    }

    fn put_back_in_line(&mut self, ids: &[JobId], now: Timestamp) {
        for id in ids {
            if let Some(mut entry) = self.line.remove(*id) {
                entry.dormant = false;
                self.line.insert(entry, now);
            }
        }
    }
}
