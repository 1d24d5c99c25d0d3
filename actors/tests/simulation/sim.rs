//! The world of one seed: everything that outlives a process, behind one lock. Whatever happens is
//! checked here at the moment at which it happens.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use onelane_actors::ports::{GlmCall, Store as _};
use onelane_actors::testing::{Dice, MemoryStore, SimClock, sample};
use onelane_core::model::{Batch, BatchId, Job, JobId, KeyId, Timestamp, Transition};
use tokio::sync::Notify;

use crate::clocks::{Clocks, Heard, Now};
use crate::draw;
use crate::faults::{Fate, Place, Plans, Planted};
use crate::gate;
use crate::history::History;
use crate::ledger::Ledger;
use crate::script::{Happened, Script};
use crate::server::{Kind, Plan, Server};
use crate::tally::Tally;

/// How much room is on the disk.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// There is none before this moment of GLM's clock, and whether what finds none is on disk all the same.
    pub(crate) full_until: Option<(Timestamp, Fate)>,
    /// Since when a lane knows, by the time awake.
    pub(crate) told: Option<Timestamp>,
    /// Since when every commit fails, by the same.
    pub(crate) failing: Option<Timestamp>,
}

/// What somebody was told, and must remain true.
#[derive(Debug, Clone)]
pub(crate) struct Promise {
    /// Of the event that brought it.
    pub(crate) number: u32,
    pub(crate) user: String,
    /// Its idempotency key.
    pub(crate) key: Option<String>,
    pub(crate) prompt: String,
    pub(crate) model: &'static str,
    pub(crate) streams: bool,
    /// The client key that hands it in.
    pub(crate) by: Option<KeyId>,
}

/// The state of the world.
pub(crate) struct State {
    pub(crate) clocks: Clocks,
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
    /// The answers that somebody was told, of jobs that were completed.
    pub(crate) answers: BTreeMap<JobId, String>,
    /// Jobs whose streams somebody reads.
    pub(crate) read: BTreeSet<JobId>,
    /// Client keys that are known to be revoked.
    pub(crate) revoked: BTreeSet<KeyId>,
    /// What tells the process that runs from those before it.
    pub(crate) instance: u64,
    pub(crate) room: Room,
    /// Nothing is meddled with any more.
    pub(crate) is_healed: bool,
    /// Since when the file of the process that runs is gone, by the time awake.
    pub(crate) gone: Option<Timestamp>,
    pub(crate) script: Script,
    pub(crate) happened: Vec<Happened>,
    pub(crate) planted: Planted,
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
    pub(crate) fn new(seed: u64, script: &Script, planted: Planted, verbose: bool) -> Arc<Self> {
        let mut history = History::default();
        let mut happened = Vec::new();
        let settings = draw::settings(seed, |number, words| {
            let has = script.has(number);
            if has {
                happened.push(Happened::new(number, sample::START, sample::START, words));
            }
            has
        });
        history.set(Arc::new(settings), sample::START);
        Arc::new(Self {
            store: with_batches(),
            over: Notify::new(),
            state: Mutex::new(State {
                clocks: Clocks::starting_at(sample::START),
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
                answers: BTreeMap::new(),
                read: BTreeSet::new(),
                revoked: BTreeSet::new(),
                instance: 0,
                room: Room::default(),
                is_healed: false,
                gone: None,
                script: script.clone(),
                happened,
                planted,
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
        state.tally.panics += 1;
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
        self.clocks.boot();
        self.process += 1;
        self.alive = true;
        self.tally.processes += 1;
        // Somebody has put it back.
        self.gone = None;
        self.room.told = None;
    }

    /// The process has ended, `down_ms` before the next begins. Call it on its runtime. Tells whether
    /// a change of the settings may not have come to its disk.
    pub(crate) fn end_process(&mut self, down_ms: u64) -> bool {
        let (now, at_glm) = (self.now(), self.clocks.at_glm());
        self.knows_of_room();
        for since in [self.gone, self.room.failing.take()].into_iter().flatten() {
            self.history.had_no_room(since, now);
        }
        let changing = self.history.may_lack_a_change(now);
        self.alive = false;
        self.server.cut_all(at_glm);
        self.history.process_over(now);
        self.plans = Plans::default();
        self.read.clear();
        self.clocks.rest(down_ms);
        self.tally.virtual_ms = self.clocks.at_glm().since(sample::START);
        changing
    }

    pub(crate) fn clock(&self) -> SimClock {
        self.clocks.wall_clock()
    }

    /// As long as the processes were awake.
    pub(crate) fn now(&self) -> Timestamp {
        self.clocks.now()
    }

    pub(crate) fn wall(&self) -> Timestamp {
        self.clocks.wall()
    }

    pub(crate) fn times(&self) -> Now {
        self.clocks.times()
    }

    pub(crate) fn heard(&self) -> Heard<'_> {
        self.clocks.heard()
    }

    /// A queue begins with what the disk holds.
    pub(crate) fn recovers(&mut self) {
        let now = self.now();
        self.tally.recoveries += 1;
        self.ledger.recovers(now);
        self.history.recovered(now);
        self.clocks.recovers();
    }

    /// The wall clock is set.
    pub(crate) fn step_the_clock(&mut self, ms: i64) {
        self.tally.clock_steps += 1;
        self.clocks.step(ms);
    }

    /// The wall clock tells no moment any more that it did not tell before.
    pub(crate) fn put_the_clock_right(&mut self) {
        let back_ms = self.clocks.behind_ms();
        if back_ms > 0 {
            self.step_the_clock(i64::try_from(back_ms).unwrap_or(i64::MAX));
        }
    }

    /// Nothing of the process runs for so long, from now on: whoever says so lets the time pass at once.
    pub(crate) fn freeze(&mut self, ms: u64) {
        let thaw = self.clocks.freeze(ms);
        self.tally.freezes += 1;
        self.tally.thawed_answers += self.server.answers_until(thaw);
    }

    /// An event of the script happens.
    pub(crate) fn happens(&mut self, number: u32, words: impl FnOnce() -> String) {
        let words = words();
        let at = self.clocks.at_glm();
        self.note(|| format!("event {number}: {words}"));
        let happened = Happened::new(number, sample::START, at, words);
        self.happened.push(happened);
    }

    /// Whether this process may still do anything to the world.
    pub(crate) fn is_alive(&self, process: u64) -> bool {
        self.alive && self.process == process
    }

    /// Remembers a step.
    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        let at = self.clocks.at_glm().since(sample::START);
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
        self.tally.kills += 1;
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
        let known = self.ledger.jobs.get(&call.job_id);
        if let Some(key) = known.and_then(|known| known.job.key_id) {
            self.tally.by_key += 1;
            self.tally.by_dead_key += u64::from(self.revoked.contains(&key));
            let key = self.history.latest().keys.get(key);
            let rights = key.map(|key| &key.rights);
            let is_bound =
                rights.is_some_and(|of| of.budget.is_some() || of.calls_in_flight.is_some());
            self.tally.key_bounded += u64::from(is_bound);
        }
        Ok((number, plan))
    }
}

/// The part of a job's id that tells it from the others.
pub(crate) fn short(job: JobId) -> String {
    let number = job.as_bytes()[10..14].iter();
    let number = number.fold(0_u32, |n, byte| (n << 8) | u32::from(*byte));
    format!("#{number}")
}

/// The number of the event that brought a job.
pub(crate) fn number_of(job: &Job) -> u64 {
    let number = job.content_id.as_deref().and_then(|id| id.parse().ok());
    number.unwrap_or_default()
}
