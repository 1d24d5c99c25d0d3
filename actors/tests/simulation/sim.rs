//! The world of one seed: everything that outlives a process, behind one lock. Whatever happens is
//! checked here at the moment at which it happens.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use onelane_actors::ports::{Clock, GlmCall, Store as _};
use onelane_actors::testing::{Dice, MemoryStore, SimClock, sample};
use onelane_core::model::{Batch, BatchId, JobId, Settings, Timestamp, Transition};
use tokio::sync::Notify;

use crate::gate;
use crate::history::{Act, History};
use crate::ledger::Ledger;
use crate::server::{Kind, Plan, Server};

/// Where a process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Before a transaction is on disk.
    BeforeCommit,
    /// After it is, before anybody hears of it.
    AfterCommit,
    /// When a call has just begun.
    CallBegun,
    /// When a call has just ended, before anybody hears of it.
    CallEnded,
    /// When an actor takes a message.
    Message,
}

pub(crate) const PLACES: [Place; 5] = [
    Place::BeforeCommit,
    Place::AfterCommit,
    Place::CallBegun,
    Place::CallEnded,
    Place::Message,
];

/// What is on disk after a commit that reports an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Lost,
    Kept,
}

/// What will go wrong, each after so many chances.
#[derive(Debug, Default)]
pub(crate) struct Plans {
    pub(crate) kill: Option<(Place, u64)>,
    pub(crate) panic: Option<(&'static str, u64)>,
    pub(crate) disk: Option<(Fate, u64)>,
}

/// The moment by all clocks of a world.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// As long as the processes were awake: what they do has its time by this clock.
    pub(crate) awake: Timestamp,
    /// GLM's, which goes on while a process is frozen.
    pub(crate) glm: Timestamp,
    /// The wall clock of the processes, which may be set.
    pub(crate) wall: Timestamp,
    /// The latest that it ever told.
    pub(crate) latest_wall: Timestamp,
    /// When a process was last frozen or the wall clock set, by the first clock.
    pub(crate) disturbed: Timestamp,
    /// When the wall clock was last set back, by the first clock.
    pub(crate) set_back: Option<Timestamp>,
    /// When a pace could last not be kept, by the second: a call was frozen on its way, or a queue had to read in the
    /// call log when calls began, by a clock that was set since.
    pub(crate) unpaced: Timestamp,
}

/// By how much the wall clock was ahead of the time awake, from which moment of that on.
#[derive(Debug)]
pub(crate) struct Marks(Vec<(Timestamp, i64)>);

/// The moment, and what the wall clock meant before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard<'a> {
    pub(crate) now: Now,
    pub(crate) marks: &'a Marks,
}

impl Heard<'_> {
    /// When it was last so late by the wall clock, by the time awake.
    pub(crate) fn awake_at(&self, wall: Timestamp) -> Timestamp {
        let mut until = self.now.awake;
        for (from, ahead_ms) in self.marks.0.iter().rev() {
            let at = shifted(wall, -ahead_ms);
            if (*from..=until).contains(&at) {
                return at;
            }
            until = *from;
        }
        self.now.awake
    }

    /// Whether a process was frozen or the clock set since this moment, by the time awake.
    pub(crate) fn is_disturbed_since(&self, awake: Timestamp) -> bool {
        self.now.disturbed >= awake
    }

    /// Whether the clock was set back since this moment, by the time awake.
    pub(crate) fn is_set_back_since(&self, awake: Timestamp) -> bool {
        self.now.set_back.is_some_and(|at| at >= awake)
    }
}

fn shifted(at: Timestamp, ms: i64) -> Timestamp {
    Timestamp::from_millis(at.as_millis().saturating_add(ms))
}

/// What somebody was told, and must remain true.
#[derive(Debug, Clone)]
pub(crate) struct Promise {
    pub(crate) user: String,
    pub(crate) key: Option<String>,
    pub(crate) prompt: String,
    pub(crate) model: &'static str,
}

/// How much happened, to see that a simulation is worth its time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) virtual_ms: u64,
    pub(crate) processes: u64,
    pub(crate) recoveries: u64,
    pub(crate) commits: u64,
    pub(crate) jobs: u64,
    pub(crate) calls: u64,
    pub(crate) fetches: u64,
    pub(crate) interrupted: u64,
    pub(crate) holds: u64,
    pub(crate) breaker: u64,
    pub(crate) fallbacks: u64,
    pub(crate) quarantined: u64,
    pub(crate) clock_steps: u64,
    pub(crate) freezes: u64,
    pub(crate) thawed_answers: u64,
    pub(crate) budget_waits: u64,
    pub(crate) adoptions: u64,
}

impl Tally {
    /// Adds another world's.
    pub(crate) fn add(&mut self, other: &Self) {
        let sums: [(&mut u64, u64); 17] = [
            (&mut self.virtual_ms, other.virtual_ms),
            (&mut self.processes, other.processes),
            (&mut self.recoveries, other.recoveries),
            (&mut self.commits, other.commits),
            (&mut self.jobs, other.jobs),
            (&mut self.calls, other.calls),
            (&mut self.fetches, other.fetches),
            (&mut self.interrupted, other.interrupted),
            (&mut self.holds, other.holds),
            (&mut self.breaker, other.breaker),
            (&mut self.fallbacks, other.fallbacks),
            (&mut self.quarantined, other.quarantined),
            (&mut self.clock_steps, other.clock_steps),
            (&mut self.freezes, other.freezes),
            (&mut self.thawed_answers, other.thawed_answers),
            (&mut self.budget_waits, other.budget_waits),
            (&mut self.adoptions, other.adoptions),
        ];
        for (sum, of) in sums {
            *sum += of;
        }
    }

    /// A simulation in which nothing happens proves nothing.
    pub(crate) fn assert_it_was_worth_it(&self, worlds: u64) {
        let least = [
            ("jobs", self.jobs, 10),
            ("calls", self.calls, 20),
            ("processes", self.processes, 2),
            ("recoveries", self.recoveries, 2),
            ("holds", self.holds, 3),
            ("openings and closings of the breaker", self.breaker, 2),
        ];
        for (what, seen, each) in least {
            assert!(seen >= worlds * each, "{seen} {what} in {worlds} worlds");
        }
        // Looked at only after the clock was set.
        let waits = self.budget_waits;
        assert!(worlds < 1_000 || waits > 5, "{waits} waits for a budget");
        let some = [
            ("tasks fetched", self.fetches),
            ("calls interrupted", self.interrupted),
            ("fallbacks", self.fallbacks),
            ("steps of the clock", self.clock_steps),
            ("freezes", self.freezes),
            ("jobs that went to another batch", self.adoptions),
            (
                "answers that came while nobody could take them",
                self.thawed_answers,
            ),
        ];
        for (what, seen) in some {
            assert!(
                worlds < 1_000 || seen > 50,
                "{seen} {what} in {worlds} worlds"
            );
        }
    }
}

/// The state of the world.
pub(crate) struct State {
    /// The process's wall clock.
    clock: Option<SimClock>,
    /// GLM's time while no process runs.
    last: Timestamp,
    frozen_ms: u64,
    /// By how much the wall clock is ahead of GLM's.
    ahead_ms: i64,
    latest_wall: Timestamp,
    disturbed: Timestamp,
    set_back: Option<Timestamp>,
    unpaced: Timestamp,
    /// When the wall clock was last set, by GLM's.
    stepped: Option<Timestamp>,
    pub(crate) marks: Marks,
    /// The latest moment, and how many messages came at it.
    moment: (Timestamp, u64),
    pub(crate) alive: bool,
    pub(crate) process: u64,
    pub(crate) plans: Plans,
    pub(crate) disk_dice: Dice,
    pub(crate) server: Server,
    pub(crate) ledger: Ledger,
    pub(crate) history: History,
    /// The id that each batch goes by now; the first is of jobs of none.
    pub(crate) batches: [u64; BATCHES as usize + 1],
    /// Jobs that were asked for again: under the key that they had then.
    pub(crate) asked_again: BTreeSet<JobId>,
    pub(crate) promises: BTreeMap<JobId, Promise>,
    pub(crate) tally: Tally,
    pub(crate) violation: Option<String>,
    trace: VecDeque<String>,
    keep: usize,
    verbose: bool,
}

/// The world, shared by its parts. All run on one thread.
pub(crate) struct Sim {
    pub(crate) store: MemoryStore,
    /// Notified when the process has to die, be it killed or found wrong.
    pub(crate) over: Notify,
    state: Mutex<State>,
}

/// Messages at one moment, in one millisecond of a world of some dozens of jobs.
const MESSAGES_MAX: u64 = 20_000;
/// Steps that a failure shows.
const STEPS_SHOWN: usize = 40;

/// Calls that began longer ago matter to no minute any more, in milliseconds.
const LOGGED_MS: u64 = 120_000;

/// How many batches a world has, beside the jobs of none.
pub(crate) const BATCHES: u64 = 3;

/// A disk on which the world's batches were begun.
fn with_batches() -> MemoryStore {
    let store = MemoryStore::new();
    for number in 1..=BATCHES {
        let batch = Batch::new(
            BatchId::new(number),
            format!("batch {number}"),
            sample::START,
        );
        let begun = store.commit(&[Transition::OpenBatch(Box::new(batch))]);
        assert!(begun.is_ok());
    }
    store
}

impl Sim {
    pub(crate) fn new(seed: u64, settings: Settings, verbose: bool) -> Arc<Self> {
        let mut history = History::default();
        history.set(Arc::new(settings), sample::START);
        Arc::new(Self {
            store: with_batches(),
            over: Notify::new(),
            state: Mutex::new(State {
                clock: None,
                last: sample::START,
                frozen_ms: 0,
                ahead_ms: 0,
                latest_wall: sample::START,
                disturbed: sample::START,
                set_back: None,
                unpaced: sample::START,
                stepped: None,
                marks: Marks(vec![(sample::START, 0)]),
                moment: (sample::START, 0),
                alive: false,
                process: 0,
                plans: Plans::default(),
                disk_dice: Dice::new(seed, "disk"),
                server: Server::new(seed),
                ledger: Ledger::default(),
                history,
                batches: std::array::from_fn(|number| number as u64),
                asked_again: BTreeSet::new(),
                promises: BTreeMap::new(),
                tally: Tally::default(),
                violation: None,
                trace: VecDeque::new(),
                keep: if verbose { usize::MAX } else { STEPS_SHOWN },
                verbose,
            }),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A broken promise: the world ends here.
    pub(crate) fn violated(&self, what: impl Into<String>) {
        self.lock().violated(what);
        self.over.notify_one();
    }

    /// A chance to be killed here.
    pub(crate) fn at(&self, place: Place) {
        if self.lock().strikes(place) {
            self.over.notify_one();
        }
    }

    /// How long the disk takes.
    pub(crate) fn disk_time(&self) -> Duration {
        let dice = &mut self.lock().disk_dice;
        let ms = match dice.below(20) {
            0..10 => 0,
            10..19 => dice.between(1, 20),
            _ => dice.between(20, gate::DISK_MS_MAX),
        };
        Duration::from_millis(ms)
    }

    /// An actor takes a message: it may panic, or the process be killed.
    pub(crate) fn message(&self, actor: &'static str) {
        self.at(Place::Message);
        let mut state = self.lock();
        if state.stands_still() {
            state.violated("the actors talk without end, and time does not pass");
            self.over.notify_one();
            return;
        }
        let Some((who, left)) = &mut state.plans.panic else {
            return;
        };
        if *who != actor {
            return;
        }
        if *left > 0 {
            *left -= 1;
            return;
        }
        if !state.disk_dice.one_in(4) {
            state.plans.panic = None;
        }
        state.note(|| format!("{actor} panics"));
        drop(state);
        // Without the hook, which would print it.
        std::panic::resume_unwind(Box::new("simulated"));
    }

    /// A call begins at GLM. `None`: the process is dead.
    pub(crate) fn begin(&self, process: u64, call: &GlmCall, kind: Kind) -> Option<(usize, Plan)> {
        let mut state = self.lock();
        if !state.is_alive(process) {
            return None;
        }
        let begun = state.begin(call, kind);
        drop(state);
        match begun {
            Ok(begun) => {
                self.at(Place::CallBegun);
                Some(begun)
            }
            Err(what) => {
                self.violated(what);
                None
            }
        }
    }
}

impl State {
    /// A process begins. Call it on its runtime.
    pub(crate) fn boot(&mut self) {
        self.clock = Some(SimClock::starting_at(shifted(self.last, self.ahead_ms)));
        self.process += 1;
        self.alive = true;
        self.tally.processes += 1;
    }

    /// The process has ended, `down_ms` before the next begins. Call it on its runtime. Tells whether
    /// a change of the settings may not have come to its disk.
    pub(crate) fn end_process(&mut self, down_ms: u64) -> bool {
        let (now, at_glm) = (self.now(), self.times().glm);
        let is_change = |act: &Act| *act == Act::Configure;
        let changing = self.history.is_done_by_hand(is_change, now);
        self.alive = false;
        self.server.cut_all(at_glm);
        self.history.process_over(now);
        self.plans = Plans::default();
        self.last = at_glm.plus_ms(down_ms);
        self.clock = None;
        self.tally.virtual_ms = self.last.since(sample::START);
        changing
    }

    pub(crate) fn clock(&self) -> SimClock {
        self.clock.clone().expect("a process runs")
    }

    /// As long as the processes were awake.
    pub(crate) fn now(&self) -> Timestamp {
        self.at_glm().minus_ms(self.frozen_ms)
    }

    fn at_glm(&self) -> Timestamp {
        let wall = self.clock.as_ref().map(Clock::now);
        wall.map_or(self.last, |wall| shifted(wall, -self.ahead_ms))
    }

    pub(crate) fn wall(&self) -> Timestamp {
        shifted(self.at_glm(), self.ahead_ms)
    }

    pub(crate) fn times(&self) -> Now {
        let wall = self.wall();
        Now {
            awake: self.now(),
            glm: self.at_glm(),
            wall,
            latest_wall: self.latest_wall.max(wall),
            disturbed: self.disturbed,
            set_back: self.set_back,
            unpaced: self.unpaced,
        }
    }

    /// A queue begins with what the disk holds.
    pub(crate) fn recovers(&mut self) {
        let (now, at_glm) = (self.now(), self.at_glm());
        self.tally.recoveries += 1;
        self.ledger.recovered = now;
        self.history.recovered(now);
        if self.stepped.is_some_and(|at| at_glm.since(at) < LOGGED_MS) {
            self.unpaced = at_glm;
        }
    }

    pub(crate) fn heard(&self) -> Heard<'_> {
        Heard {
            now: self.times(),
            marks: &self.marks,
        }
    }

    /// The wall clock is set.
    pub(crate) fn step_the_clock(&mut self, ms: i64) {
        self.latest_wall = self.times().latest_wall;
        self.ahead_ms += ms;
        if let Some(clock) = &self.clock {
            clock.step(ms);
        }
        if ms < 0 {
            self.set_back = Some(self.now());
        }
        self.tally.clock_steps += 1;
        self.note(|| format!("the clock is set by {ms} ms"));
        self.disturbed = self.now();
        self.stepped = Some(self.at_glm());
        self.mark(self.now());
    }

    /// The wall clock tells no moment any more that it did not tell before.
    pub(crate) fn put_the_clock_right(&mut self) {
        let now = self.times();
        let back_ms = now.latest_wall.since(now.wall);
        if back_ms > 0 {
            self.step_the_clock(i64::try_from(back_ms).unwrap_or(i64::MAX));
        }
    }

    /// Nothing of the process runs for so long, from now on: whoever says so lets the time pass at once.
    pub(crate) fn freeze(&mut self, ms: u64) {
        let thaw = self.at_glm().plus_ms(ms);
        self.tally.freezes += 1;
        self.tally.thawed_answers += self.server.answers_until(thaw);
        self.frozen_ms += ms;
        self.note(|| format!("the process is frozen for {ms} ms"));
        // The time of the thaw.
        let awake = self.now().plus_ms(ms);
        self.disturbed = awake;
        self.unpaced = thaw;
        self.mark(awake);
    }

    fn mark(&mut self, awake: Timestamp) {
        let ahead_ms = self.ahead_ms + self.frozen_ms.cast_signed();
        self.marks.0.push((awake, ahead_ms));
    }

    /// Whether this process may still do anything to the world.
    pub(crate) fn is_alive(&self, process: u64) -> bool {
        self.alive && self.process == process
    }

    /// Remembers a step.
    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        let at = self.at_glm().since(sample::START);
        if self.trace.len() >= self.keep {
            self.trace.pop_front();
        }
        let line = format!("{:>9}.{:03} s  {}", at / 1_000, at % 1_000, what());
        self.trace.push_back(line);
    }

    /// Remembers a detail, for who looks at this world alone.
    pub(crate) fn detail(&mut self, what: impl FnOnce() -> String) {
        if self.verbose {
            self.note(what);
        }
    }

    pub(crate) fn steps(&self) -> impl Iterator<Item = &str> {
        self.trace.iter().map(String::as_str)
    }

    pub(crate) fn violated(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.note(|| format!("VIOLATION: {what}"));
        self.violation.get_or_insert(what);
        self.alive = false;
    }

    /// Whether more messages came at one moment than anything is worth.
    fn stands_still(&mut self) -> bool {
        let now = self.now();
        if self.moment.0 != now {
            self.moment = (now, 0);
        }
        self.moment.1 += 1;
        self.moment.1 == MESSAGES_MAX
    }

    fn strikes(&mut self, place: Place) -> bool {
        let Some((at, left)) = &mut self.plans.kill else {
            return false;
        };
        if *at != place {
            return false;
        }
        if *left > 0 {
            *left -= 1;
            return false;
        }
        self.plans.kill = None;
        self.alive = false;
        self.note(|| format!("killed: {place:?}"));
        true
    }

    fn begin(&mut self, call: &GlmCall, kind: Kind) -> Result<(usize, Plan), String> {
        let now = self.times();
        let who = || format!("attempt {} of job {}", call.attempt, short(call.job_id));
        gate::may_begin(call, self).map_err(|why| format!("{} went to GLM: {why}", who()))?;
        let Some(number) = self.server.begin(call, kind, now.glm) else {
            return Err(format!("{} was sent twice", who()));
        };
        let plan = self.server.plan_of(number);
        self.detail(|| {
            format!(
                "glm: {} begins on {}, {:?} after {} ms",
                who(),
                call.model,
                plan.end,
                plan.after_ms
            )
        });
        self.tally.calls += 1;
        Ok((number, plan))
    }
}

/// The part of a job's id that tells it from the others.
pub(crate) fn short(job: JobId) -> String {
    let number = job.as_bytes()[10..14].iter();
    let number = number.fold(0_u32, |n, byte| (n << 8) | u32::from(*byte));
    format!("#{number}")
}
