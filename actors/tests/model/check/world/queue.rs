//! The queue actor and the breaker actor, as far as the machine hears of them.

use std::sync::Arc;

use onelane_core::judge::BreakerEffect;
use onelane_core::judge::breaker::Breaker;
use onelane_core::judge::conclude::Concluded;
use onelane_core::model::{BreakerSnapshot, BreakerState, JobId, SlotId, Timestamp, Transition};
use onelane_core::scheduler::{Effect, Scheduler};

use super::{Timer, World};
use crate::check::bugs::Bug;
use crate::check::disk::Asker;
use crate::check::plan::Plan;
use crate::check::seen::Broken;

impl World {
    /// A queue begins. `anew`: the breaker does, too.
    pub(super) fn begin(&mut self, anew: bool) -> Result<(), Broken> {
        let found = self.disk.recovered(&self.plan);
        let (settings, wall) = (Arc::clone(&self.settings), self.wall);
        let stored = found.breaker.clone();
        self.generation += 1;
        self.begun_ms = self.uptime_ms;
        let slots: Vec<SlotId> = self.callers.keys().copied().collect();
        let paused = found.lane.paused.is_some();
        let held = found.lane.holds().any(|(_, hold)| hold.until.is_some());
        self.lane = Scheduler::recover(found, settings, slots, self.generation, wall);
        self.lane.hear(wall, 0);
        self.load_budgets();
        self.timer = Timer::default();
        self.promised.clear();
        self.is_paused = paused;
        if !held {
            self.held_until_ms = 0;
        }
        if anew {
            self.breaker = Breaker::new(self.settings.breaker, wall);
            if let Some(stored) = stored {
                self.breaker.restore(stored);
            }
            self.probe = Timer::default();
        }
        let effects = self.lane.start(wall);
        self.carry_out(effects)?;
        self.arm_probe();
        self.tell_breaker()?;
        self.arm();
        Ok(())
    }

    pub(super) fn load_budgets(&mut self) {
        if self.plan.has_budget {
            let ledger = self.disk.ledger(&self.plan, self.wall);
            let (settings, wall) = (Arc::clone(&self.settings), self.wall);
            self.lane.load_budgets(&ledger, &settings, wall);
        }
    }

    /// Says something to the lane, and does what it says.
    pub(super) fn tell(
        &mut self,
        what: impl FnOnce(&mut Scheduler, Timestamp) -> Vec<Effect>,
    ) -> Result<(), Broken> {
        self.hear_the_clock()?;
        let effects = what(&mut self.lane, self.wall);
        self.carry_out(effects)?;
        if self.lane.needs_ledger() {
            // It is asked for behind all that is under way.
            while self.disk.unwritten() > 0 {
                self.writes()?;
            }
            self.load_budgets();
            let effects = self.lane.tick(self.wall);
            self.carry_out(effects)?;
        }
        let _ = self.lane.take_budget_news();
        self.arm();
        Ok(())
    }

    pub(super) fn hear_the_clock(&mut self) -> Result<(), Broken> {
        let uptime_ms = self.uptime_ms - self.begun_ms;
        if self.lane.hear(self.wall, uptime_ms) {
            let effects = self.lane.tick(self.wall);
            self.carry_out(effects)?;
        }
        Ok(())
    }

    pub(super) fn arm(&mut self) {
        let at = self.lane.next_change();
        let at = at.filter(|_| !self.plan.has(Bug::NeverWakes));
        let longest_ms = self.plan.longest_wait_ms();
        self.timer.set(at, self.wall, self.uptime_ms, longest_ms);
    }

    pub(super) fn carry_out(&mut self, effects: Vec<Effect>) -> Result<(), Broken> {
        for effect in &effects {
            if let Effect::Commit { transitions, .. } = effect {
                self.sets_out(transitions)?;
            }
        }
        for effect in effects {
            match effect {
                Effect::Run {
                    slot,
                    dispatch,
                    stopped,
                } => self.runs(slot, dispatch, stopped)?,
                Effect::Abort {
                    slot,
                    job_id,
                    attempt,
                } => self.aborts(slot, (job_id, attempt)),
                Effect::Retire { slot } => return Err(format!("{slot:?} is not needed")),
                Effect::Commit {
                    ticket,
                    transitions,
                } => {
                    let job = transitions.first().and_then(|first| match first {
                        Transition::Insert(new) => Some(new.job.id),
                        _ => None,
                    });
                    let number = job.and_then(|id| self.number_of(id));
                    let asker =
                        number.map_or(Asker::Lane(ticket), |job| Asker::AtOnce(ticket, job));
                    self.disk.ask(asker, transitions);
                }
            }
        }
        Ok(())
    }

    pub(super) fn number_of(&self, id: JobId) -> Option<u8> {
        (1..=self.plan.jobs).find(|number| Plan::job_id(*number) == id)
    }

    /// The lane decides that calls are to be made.
    pub(super) fn sets_out(&mut self, changes: &[Transition]) -> Result<(), Broken> {
        for change in changes {
            let Transition::Start { job_id, .. } = change else {
                continue;
            };
            if self.is_paused {
                return Err(format!("a paused lane sends {job_id}"));
            }
            if self.uptime_ms < self.held_until_ms {
                return Err(format!("a held lane sends {job_id}"));
            }
            match self.breaker.state() {
                BreakerState::Closed => {}
                BreakerState::Open => return Err(format!("an open breaker lets {job_id} through")),
                BreakerState::HalfOpen => {
                    let open = self
                        .callers
                        .values()
                        .filter_map(|caller| caller.call.as_ref());
                    let mut others = open
                        .map(|call| call.dispatch.job.id)
                        .chain(self.promised.iter().copied());
                    if let Some(other) = others.find(|other| other != job_id) {
                        return Err(format!(
                            "a half-open breaker lets {job_id} through beside {other}"
                        ));
                    }
                }
            }
            self.promised.insert(*job_id);
        }
        Ok(())
    }

    // ---- the breaker actor -------------------------------------------------------------------

    pub(super) fn ask_breaker(&mut self, concluded: &Concluded) -> Option<BreakerSnapshot> {
        let before = self.lane.breaker();
        let failure = concluded.settlement.call.failure.as_ref();
        let reason = failure.map(ToString::to_string).unwrap_or_default();
        match concluded.breaker {
            BreakerEffect::Ignore => return None,
            BreakerEffect::Success => self.breaker.succeeded(self.wall),
            BreakerEffect::Failure { at_once: true } => self.breaker.trip(&reason, self.wall),
            BreakerEffect::Failure { at_once: false } => self.breaker.failed(&reason, self.wall),
        }
        self.arm_probe();
        let after = self.told_of_breaker();
        (after.state != before).then_some(after)
    }

    pub(super) fn told_of_breaker(&self) -> BreakerSnapshot {
        let mut snapshot = self.breaker.snapshot();
        if self.plan.has(Bug::ManyProbes) && snapshot.state == BreakerState::HalfOpen {
            snapshot.state = BreakerState::Closed;
        }
        snapshot
    }

    pub(super) fn tell_breaker(&mut self) -> Result<(), Broken> {
        let snapshot = self.told_of_breaker();
        let changed = self.lane.breaker() != snapshot.state;
        self.tell(|lane, now| lane.breaker_changed(&snapshot, changed, now))
    }

    pub(super) fn arm_probe(&mut self) {
        let at = self.breaker.probe_at();
        let at = at.filter(|_| !self.plan.has(Bug::NeverWakes));
        let longest_ms = self.plan.longest_wait_ms();
        self.probe.set(at, self.wall, self.uptime_ms, longest_ms);
    }
}
