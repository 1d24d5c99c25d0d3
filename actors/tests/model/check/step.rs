//! What may happen next in a world.

use onelane_core::model::{GlmOutcome, SlotId};

use super::bugs::Bug;
use super::plan::{self, Fault, Plan};
use super::seen::Broken;
use super::world::World;

/// How a call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum End {
    Answered,
    Failed(Fault),
    /// It was closed.
    Aborted,
    /// It was cancelled before it was sent.
    NotSent,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// A job is handed in, to the store; or again, by a submitter who got no answer.
    Submit(u8),
    /// A job is handed in to the queue, since that is idle.
    SubmitAtOnce(u8),
    /// The next commit is on disk, and whoever asked for it is told.
    Tell,
    /// What a faulty store has told before is on disk.
    Pay,
    /// A call ends, and where no actor can fail the queue hears of it: before that only a crash could tell.
    Ends(SlotId, End),
    /// A call ends, and its caller goes on with what lies ready.
    EndsAndGoesOn(SlotId),
    /// The queue hears what a caller has said.
    Hear(SlotId),
    /// `kill -9` when so many of the commits under way are on disk, and a start.
    Crash(usize),
    /// The queue fails, or with it the store, which has written so many commits of those under way.
    Restart(usize),
    /// Somebody gives a job up.
    Cancel(u8),
    /// The clock is set on.
    ClockOn,
    /// The clock is set back.
    ClockBack,
    /// Time passes until a timer fires.
    Tick,
    /// An operator pauses the lane.
    Pause,
    /// An operator resumes it.
    Resume,
}

impl World {
    /// Every step that may come next. The first is the one that brings a world to its end that is left alone; a world
    /// without any has ended.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let mut steps = self.progress();
        let may_go_on = !steps.is_empty();
        if self.waits() && !self.is_done() && self.went_on().is_none() {
            match may_go_on {
                false => steps.push(Step::Tick),
                true if self.left.early_ticks > 0 => steps.push(Step::Tick),
                true => {}
            }
        }
        if steps.is_empty() || self.is_done() && self.disk.is_quiet() && !may_go_on {
            return Vec::new();
        }
        self.faults(&mut steps);
        steps
    }

    /// What brings jobs to their ends.
    fn progress(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let went_on = self.went_on();
        let plan = &self.plan;
        if self.is_paused() && went_on.is_none() {
            steps.push(Step::Resume);
        }
        let may_tell = match plan.has(Bug::AnswersBeforeDisk) {
            true => self.disk.may_promise(),
            false => !self.disk.is_quiet(),
        };
        if self.disk.owes() {
            steps.push(Step::Pay);
        }
        if may_tell && went_on.is_none() {
            steps.push(Step::Tell);
        }
        for slot in self.slots_with_mail() {
            if went_on.is_none_or(|first| first == slot) {
                steps.push(Step::Hear(slot));
            }
        }
        for (slot, call) in self.calls() {
            if self.hears_at_once() && went_on.is_some() {
                break;
            }
            if !call.is_sent {
                steps.push(Step::Ends(slot, End::NotSent));
                continue;
            }
            if call.is_closing {
                steps.push(Step::Ends(slot, End::Aborted));
            }
            if self.next_up(slot).is_some() {
                steps.push(Step::EndsAndGoesOn(slot));
            }
            steps.push(Step::Ends(slot, End::Answered));
        }
        let first =
            (1..=plan.jobs).find(|job| !self.seen.acknowledged.contains(&Plan::job_id(*job)));
        if let Some(job) = first
            && !self.disk.has_submission(job)
        {
            steps.push(Step::Submit(job));
            if went_on.is_none() && self.is_idle() {
                steps.push(Step::SubmitAtOnce(job));
            }
        }
        steps
    }

    /// Between the end of a call and the queue's hearing of it everything else may happen. Only to an actor's failure
    /// does it make a difference, or to a caller that goes on: else it might as well have happened before.
    fn hears_at_once(&self) -> bool {
        self.plan.restarts == 0
    }

    fn faults(&self, steps: &mut Vec<Step>) {
        let (left, plan) = (self.left, &self.plan);
        if left.failures > 0 && !(self.hears_at_once() && self.went_on().is_some()) {
            let sent = self.calls().filter(|(_, call)| call.is_sent);
            for (slot, _) in sent {
                let ends = plan.faults.iter().map(|fault| End::Failed(*fault));
                steps.extend(ends.map(|end| Step::Ends(slot, end)));
            }
        }
        if left.crashes > 0 {
            steps.extend((0..=self.disk.unwritten()).map(Step::Crash));
        }
        if left.restarts > 0 {
            steps.extend((0..=self.disk.unwritten()).map(Step::Restart));
        }
        if left.clock_steps > 0 {
            steps.push(Step::ClockOn);
            // Back over midnight a day begins again, with calls under way that belong to the next one: a budget can't hold
            // that, and does not promise it.
            if !plan.has_budget {
                steps.push(Step::ClockBack);
            }
        }
        if self.went_on().is_some() {
            return;
        }
        if left.cancels > 0 {
            let known = |job: &u8| {
                let id = Plan::job_id(*job);
                self.seen.acknowledged.contains(&id) && !self.seen.told.contains_key(&id)
            };
            steps.extend((1..=plan.jobs).filter(known).map(Step::Cancel));
        }
        if left.pauses > 0 && !self.is_paused() {
            steps.push(Step::Pause);
        }
    }

    /// Takes a step, and looks whether every promise still holds.
    pub(crate) fn take(&mut self, step: Step) -> Result<(), Broken> {
        let left = &mut self.left;
        match step {
            Step::Submit(job) => self.submits(job, false),
            Step::SubmitAtOnce(job) => self.submits(job, true),
            Step::Pay => {
                self.pays();
                Ok(())
            }
            Step::Tell => self.tells(),
            Step::Hear(slot) => self.hears(slot),
            Step::Ends(slot, end) => {
                let outcome = match end {
                    End::Answered => plan::answered(),
                    End::Aborted => GlmOutcome::Aborted,
                    End::NotSent => GlmOutcome::NotSent,
                    End::Failed(fault) => {
                        left.failures -= 1;
                        plan::failed(fault)
                    }
                };
                let ended = self.ends(slot, outcome, false);
                match self.hears_at_once() {
                    true => ended.and_then(|()| self.hears(slot)),
                    false => ended,
                }
            }
            Step::EndsAndGoesOn(slot) => self.ends(slot, plan::answered(), true),
            Step::Crash(written) => {
                left.crashes -= 1;
                self.crashes(written)
            }
            Step::Restart(written) => {
                left.restarts -= 1;
                self.restarts(written)
            }
            Step::Cancel(job) => {
                left.cancels -= 1;
                self.cancels(job)
            }
            Step::ClockOn | Step::ClockBack => {
                left.clock_steps -= 1;
                self.sets_clock(step == Step::ClockOn)
            }
            Step::Tick => {
                left.early_ticks = left.early_ticks.saturating_sub(1);
                self.ticks()
            }
            Step::Pause => {
                left.pauses -= 1;
                self.pauses()
            }
            Step::Resume => self.resumes(),
        }?;
        self.check()
    }
}
