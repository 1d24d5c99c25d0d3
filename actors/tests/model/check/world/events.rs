//! What happens to a world.

use onelane_core::model::{Applied, HoldScope, Refusal, Transition};
use onelane_core::scheduler::{Decision, Scheduler};

use super::{Caller, LOOK_MS, Ready, Timer, World};
use crate::check::bugs::Bug;
use crate::check::disk::Asker;
use crate::check::plan::{Plan, STEP_MS};
use crate::check::seen::Broken;

impl World {
    /// Somebody hands a job in. `at_once`: to an idle lane.
    pub(crate) fn submits(&mut self, number: u8, at_once: bool) -> Result<(), Broken> {
        let mut new = Some(self.plan.new_job(number));
        if at_once {
            self.tell(|lane, now| match new.take() {
                None => Vec::new(),
                Some(job) => lane
                    .start_at_once(job, now)
                    .unwrap_or_else(|(job, effects)| {
                        new = Some(job);
                        effects
                    }),
            })?;
        }
        if let Some(new) = new {
            let changes = vec![Transition::Insert(new)];
            self.disk.ask(Asker::Submitter(number), changes);
        }
        Ok(())
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.lane.is_idle()
    }

    /// A store that has answered already writes.
    pub(crate) fn pays(&mut self) {
        self.disk.pay(&self.plan);
    }

    /// The next commit is on disk.
    pub(super) fn writes(&mut self) -> Result<(), Broken> {
        let Some(said) = self.disk.write(&self.plan) else {
            return Ok(());
        };
        let callers = &self.callers;
        let is_open = |attempt| {
            let mut calls = callers.values().filter_map(|caller| caller.call.as_ref());
            calls.any(|call| call.is_sent && call.attempt() == attempt)
        };
        let seen = &self.seen;
        self.disk
            .store()
            .look(|written| seen.written(&said, is_open, written))?;
        self.check()
    }

    /// The next commit is on disk, and whoever asked for it is told.
    pub(crate) fn tells(&mut self) -> Result<(), Broken> {
        let told = match self.plan.has(Bug::AnswersBeforeDisk) {
            true => self.disk.promise(&self.plan),
            false => {
                if !self.disk.has_news() {
                    self.writes()?;
                }
                self.disk.tell()
            }
        };
        let Some((asker, said)) = told else {
            return Ok(());
        };
        self.acknowledges(asker, &said);
        let inserted = said.iter().find_map(|(_, decision)| match decision {
            Ok(Applied::Inserted(job)) => Some(job.entry()),
            _ => None,
        });
        let came_in = inserted.is_some();
        if let Some(entry) = inserted {
            self.tell(|lane, now| lane.submitted([entry], now))?;
        }
        let Some(ticket) = asker.ticket() else {
            return Ok(());
        };
        for (change, decision) in &*said {
            if let (Transition::Start { job_id, .. }, Err(_)) = (change, decision) {
                self.promised.remove(job_id);
            }
        }
        self.tell(|lane, now| lane.committed(ticket, &said, now))?;
        self.seen.hears(&said);
        let turned_away = asker.submission().filter(|_| !came_in);
        let turned_away = turned_away.map(Plan::job_id);
        let mut asked = said
            .iter()
            .filter(|(change, _)| turned_away.is_none() || change.job_id() != turned_away);
        match asked.find(|(change, decision)| !agrees(change, decision)) {
            None => Ok(()),
            Some((change, decision)) => Err(format!(
                "lane and store disagree: {change:?} is answered by {decision:?}"
            )),
        }
    }

    pub(super) fn acknowledges(&mut self, asker: Asker, said: &[Decision]) {
        let first = said.first().map(|(_, decision)| decision);
        let is_in = matches!(first, Some(Ok(Applied::Inserted(_) | Applied::Existing(_))));
        let job = asker.submission().filter(|_| is_in);
        self.seen.acknowledged.extend(job.map(Plan::job_id));
    }

    /// The process is killed, when so many of the commits under way are written, and starts again.
    pub(crate) fn crashes(&mut self, written: usize) -> Result<(), Broken> {
        for _ in 0..written {
            self.writes()?;
        }
        self.disk.lose(&self.plan);
        let seen = &mut self.seen;
        self.disk.store().look(|written| seen.dies(written));
        for caller in self.callers.values_mut() {
            *caller = Caller::default();
        }
        self.begin(true)?;
        self.all_ready();
        Ok(())
    }

    /// The queue fails, or the store and the queue with it: of the commits under way so many are written, and whoever
    /// asked for one is told so by a store that lives on.
    pub(crate) fn restarts(&mut self, written: usize) -> Result<(), Broken> {
        let store_fails = written < self.disk.unwritten();
        for _ in 0..written {
            self.writes()?;
        }
        while !store_fails && let Some((asker, said)) = self.disk.tell() {
            self.acknowledges(asker, &said);
        }
        self.disk.lose(&self.plan);
        let seen = &mut self.seen;
        self.disk.store().look(|written| seen.dies(written));
        let is_hasty = self.plan.has(Bug::ReadyWhileBusy);
        for caller in self.callers.values_mut() {
            caller.mail.clear();
            caller.is_awaited = caller.call.is_some() && !is_hasty;
            if !caller.is_awaited {
                caller.mail.push_back(Ready {
                    last: caller.last.clone(),
                    before: caller.before.clone(),
                    went_on_with: None,
                });
            }
        }
        self.begin(store_fails)
    }

    pub(crate) fn cancels(&mut self, number: u8) -> Result<(), Broken> {
        self.tell(|lane, now| lane.cancel(Plan::job_id(number), now).1)
    }

    pub(crate) fn pauses(&mut self) -> Result<(), Broken> {
        self.tell(|lane, now| lane.pause(None, now))?;
        self.is_paused = true;
        Ok(())
    }

    pub(crate) fn resumes(&mut self) -> Result<(), Broken> {
        self.is_paused = false;
        self.held_until_ms = 0;
        self.tell(Scheduler::resume)
    }

    pub(crate) const fn is_paused(&self) -> bool {
        self.lane.state().paused.is_some()
    }

    /// The wall clock is set. Nobody is told.
    pub(crate) fn sets_clock(&mut self, on: bool) -> Result<(), Broken> {
        if on {
            self.wall = self.wall.plus_ms(STEP_MS);
            // Holds end by the wall clock.
            self.held_until_ms = 0;
        } else {
            self.wall = self.wall.minus_ms(STEP_MS);
        }
        let look_at_ms = self.uptime_ms + LOOK_MS;
        let by_the_wall = !on && self.plan.has(Bug::SleepsByTheWall);
        for timer in [&mut self.timer, &mut self.probe] {
            if let Some((_, fires_at)) = &mut timer.0 {
                *fires_at = match by_the_wall {
                    true => *fires_at + STEP_MS,
                    false => (*fires_at).min(look_at_ms),
                };
            }
        }
        if !on && self.plan.has(Bug::ClockEndsHolds) {
            let holds = self.lane.state().holds();
            let scopes: Vec<HoldScope> = holds.map(|(scope, _)| scope).collect();
            for scope in scopes {
                self.tell(|lane, now| lane.release(&scope, now).1)?;
            }
        }
        Ok(())
    }

    /// Whether a timer is set.
    pub(crate) fn waits(&self) -> bool {
        self.timer.0.is_some() || self.probe.0.is_some()
    }

    /// Time passes until the first timer fires.
    pub(crate) fn ticks(&mut self) -> Result<(), Broken> {
        let (tick, probe) = (self.timer.fires_at(), self.probe.fires_at());
        let Some(at_ms) = [tick, probe].into_iter().flatten().min() else {
            return Ok(());
        };
        let passed_ms = at_ms.saturating_sub(self.uptime_ms);
        if passed_ms > self.plan.longest_wait_ms() {
            return Err(format!("the lane waits for {passed_ms} ms"));
        }
        self.uptime_ms += passed_ms;
        self.wall = self.wall.plus_ms(passed_ms);
        if probe == Some(at_ms) {
            self.probe = Timer::default();
            let before = self.breaker.summary();
            self.breaker.tick(self.wall);
            self.arm_probe();
            if self.breaker.summary() != before {
                self.tell_breaker()?;
            }
            return self.is_patient(self.probe);
        }
        self.timer = Timer::default();
        self.tell(Scheduler::tick)?;
        self.is_patient(self.timer)
    }

    /// Whoever has just looked at the clock waits for no longer than any delay is.
    pub(super) fn is_patient(&self, timer: Timer) -> Result<(), Broken> {
        let wait_ms = timer.0.map_or(0, |(at, _)| at.since(self.wall));
        match wait_ms > self.plan.longest_wait_ms() {
            true => Err(format!("the lane goes on waiting, for {wait_ms} ms")),
            false => Ok(()),
        }
    }
}

/// As the queue actor sees it: the store has no reason to refuse these.
fn agrees(change: &Transition, decision: &Result<Applied, Refusal>) -> bool {
    match change {
        Transition::Stage { .. } | Transition::Start { .. } | Transition::Resume { .. } => {
            matches!(decision, Ok(Applied::Dispatch(_)))
        }
        Transition::Unstage { .. } | Transition::Settle(_) => decision.is_ok(),
        _ => true,
    }
}
