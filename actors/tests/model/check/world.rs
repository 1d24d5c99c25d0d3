//! One world: the shipped machine, and around it a disk, callers, clocks and timers as the actors have them. Everything
//! that the machine hears it hears here as it does from its actor (`src/queue/`, `src/breaker.rs`, `src/caller.rs`).

mod callers;
mod events;
mod queue;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::{self, Write};
use std::sync::Arc;

use onelane_core::judge::breaker::Breaker;
use onelane_core::judge::conclude::Finished;
use onelane_core::model::{Dispatch, GlmOutcome, JobId, Settings, SlotId, Timestamp};
use onelane_core::scheduler::Scheduler;
use onelane_core::scheduler::slot::attempt_of;

use super::disk::Disk;
use super::plan::Plan;
use super::seen::{Attempt, Broken, Seen};

/// From a set clock to the next look at it: [`onelane_core::model::limits::TICK_MS_MAX`].
const LOOK_MS: u64 = onelane_core::model::limits::TICK_MS_MAX;

/// A call of a caller's.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    dispatch: Arc<Dispatch>,
    /// When it went out.
    begun: Timestamp,
    /// Whether it went out: one that was cancelled before does not.
    pub(crate) is_sent: bool,
    /// Whether it is being closed.
    pub(crate) is_closing: bool,
}

impl Call {
    pub(crate) fn attempt(&self) -> Attempt {
        (self.dispatch.job.id, attempt_of(&self.dispatch))
    }
}

/// What a caller has said and its queue has not heard.
#[derive(Debug, Clone)]
struct Ready {
    last: Option<Finished>,
    before: Option<Finished>,
    went_on_with: Option<JobId>,
}

#[derive(Debug, Clone, Default)]
struct Caller {
    call: Option<Call>,
    last: Option<Finished>,
    before: Option<Finished>,
    mail: VecDeque<Ready>,
    /// A new queue waits for it to be ready.
    is_awaited: bool,
}

/// As the actors' timer: a message at a moment of the wall clock, by a sleep that does not know of it.
#[derive(Debug, Clone, Copy, Default)]
struct Timer(Option<(Timestamp, u64)>);

impl Timer {
    /// `longest_ms`: of a longer wait it is known that it is cut into short ones; others are not, for the sake of the
    /// number of states: between two looks at the clock nothing would happen.
    fn set(&mut self, at: Option<Timestamp>, wall: Timestamp, uptime_ms: u64, longest_ms: u64) {
        if at.is_some() && at == self.0.map(|(at, _)| at) {
            return;
        }
        let sleep_ms = |at: Timestamp| match at.since(wall) {
            long if long > longest_ms => LOOK_MS,
            short => short,
        };
        self.0 = at.map(|at| (at, uptime_ms + sleep_ms(at)));
    }

    fn fires_at(self) -> Option<u64> {
        self.0.map(|(_, uptime_ms)| uptime_ms)
    }
}

/// How often something may still happen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Left {
    pub(crate) crashes: u8,
    pub(crate) restarts: u8,
    pub(crate) cancels: u8,
    pub(crate) failures: u8,
    pub(crate) clock_steps: u8,
    pub(crate) pauses: u8,
    pub(crate) early_ticks: u8,
}

#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) plan: Arc<Plan>,
    settings: Arc<Settings>,
    lane: Scheduler,
    breaker: Breaker,
    pub(crate) disk: Disk,
    callers: BTreeMap<SlotId, Caller>,
    wall: Timestamp,
    uptime_ms: u64,
    /// When the queue began, by uptime.
    begun_ms: u64,
    timer: Timer,
    probe: Timer,
    generation: u64,
    pub(crate) left: Left,
    pub(crate) seen: Seen,
    /// Jobs whose starts are on their way to the disk, and whose calls begin then.
    promised: BTreeSet<JobId>,
    /// Nothing is to be sent before this uptime: a hold that is on disk or in memory.
    held_until_ms: u64,
    /// Whether an operator paused the lane.
    is_paused: bool,
}

impl World {
    pub(crate) fn new(plan: Plan) -> Result<Self, Broken> {
        let plan = Arc::new(plan);
        let settings = plan.settings();
        let wall = plan.begins_at();
        let slots = (0..settings.slots()).map(SlotId);
        let callers = slots.map(|slot| (slot, Caller::default())).collect();
        let disk = Disk::default();
        let nobody = Scheduler::recover(disk.recovered(&plan), Arc::clone(&settings), [], 0, wall);
        let mut world = Self {
            lane: nobody,
            breaker: Breaker::new(settings.breaker, wall),
            disk,
            callers,
            wall,
            uptime_ms: 0,
            begun_ms: 0,
            timer: Timer::default(),
            probe: Timer::default(),
            generation: 0,
            left: Left {
                crashes: plan.crashes,
                restarts: plan.restarts,
                cancels: plan.cancels,
                failures: plan.failures,
                clock_steps: plan.clock_steps,
                pauses: plan.pauses,
                early_ticks: plan.early_ticks,
            },
            seen: Seen::default(),
            promised: BTreeSet::new(),
            held_until_ms: 0,
            is_paused: false,
            settings,
            plan,
        };
        world.begin(true)?;
        world.all_ready();
        let slots: Vec<SlotId> = world.slots_with_mail().collect();
        for slot in slots {
            world.hears(slot)?;
        }
        Ok(world)
    }

    /// What holds at every moment.
    pub(crate) fn check(&self) -> Result<(), Broken> {
        self.disk.store().look(|written| self.seen.check(written))
    }

    /// What holds when nothing is left to be done.
    pub(crate) fn check_end(&self) -> Result<(), Broken> {
        if !self.lane.is_drained() || !self.disk.is_quiet() {
            return Err("nothing is left to be done, and the lane waits for something".to_owned());
        }
        let (seen, plan) = (&self.seen, &self.plan);
        self.disk
            .store()
            .look(|written| seen.check_end(plan, written))
    }

    /// Whether every job has ended, as the disk says.
    pub(crate) fn is_done(&self) -> bool {
        let jobs = usize::from(self.plan.jobs);
        let is_over = self.disk.store().look(|written| {
            let mut records = written.jobs.values();
            written.jobs.len() == jobs && records.all(|record| record.job.status.is_terminal())
        });
        is_over && self.seen.acknowledged.len() == jobs
    }

    /// Writes all that decides what may happen next.
    pub(crate) fn imprint(&self, to: &mut impl Write) -> fmt::Result {
        let newest = self.lane.newest_ticket();
        self.lane.imprint(to)?;
        write!(to, "{:?}", self.breaker)?;
        self.disk.imprint(newest, to)?;
        for caller in self.callers.values() {
            let Caller {
                call,
                last,
                before,
                mail,
                is_awaited,
            } = caller;
            write!(to, "{call:?}{is_awaited}")?;
            // Only a new queue asks for these.
            if self.left.restarts > 0 {
                told(last.as_ref(), to)?;
                told(before.as_ref(), to)?;
            }
            for ready in mail {
                told(ready.last.as_ref(), to)?;
                told(ready.before.as_ref(), to)?;
                write!(to, "{:?};", ready.went_on_with)?;
            }
        }
        write!(to, "{:?}{}", self.wall, self.uptime_ms - self.begun_ms)?;
        for timer in [self.timer, self.probe] {
            let left = timer
                .0
                .map(|(at, fires_at)| (at, fires_at.saturating_sub(self.uptime_ms)));
            write!(to, "{left:?}")?;
        }
        let held_ms = self.held_until_ms.saturating_sub(self.uptime_ms);
        write!(to, "{:?}{:?}{:?}", self.left, self.seen, self.promised)?;
        write!(to, "{held_ms}{}", self.is_paused)
    }
}

fn told(finished: Option<&Finished>, to: &mut impl Write) -> fmt::Result {
    match finished {
        None => to.write_str("-"),
        Some(finished) => {
            let of = (finished.job_id, finished.attempt, finished.started_at);
            let failure = match &*finished.outcome {
                GlmOutcome::Failed(failure, _) => Some(&failure.code),
                _ => None,
            };
            let how = std::mem::discriminant(&*finished.outcome);
            write!(to, "{of:?}{failure:?}{how:?}")
        }
    }
}
