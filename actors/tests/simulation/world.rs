//! The life of a world: processes come and go on what the ones before left on disk; meanwhile people
//! submit and operators meddle. In the end all is healed and has to come to its end.

use std::sync::Arc;
use std::time::Duration;

use onelane_actors::testing::{Dice, SeededIds};
use onelane_core::model::{JobId, Phase};
use tokio::runtime::Builder;
use tokio::time::sleep;

use crate::books;
use crate::client::{self, Client};
use crate::draw;
use crate::faults::{PLACES, Planted};
use crate::gate;
use crate::history::Act;
use crate::meddle::{self, Meddler};
use crate::panics;
use crate::script::{AROUND, Happened, PER_STEP, Script, dice_of};
use crate::sim::{Sim, short};
use crate::tally::Tally;

/// How a process ended.
enum End {
    /// Killed, or stopped by itself: another follows.
    Another,
    /// All is done.
    Done,
}

/// What went wrong in a world.
pub(crate) struct Broken {
    /// The promise that is broken, and by what.
    pub(crate) what: String,
    /// The events of its script, in their order.
    pub(crate) happened: Vec<Happened>,
    /// Its settings and its last steps.
    pub(crate) around: String,
}

/// Lives the world of a seed by a script.
pub(crate) fn lives(
    seed: u64,
    script: &Script,
    planted: Planted,
    verbose: bool,
) -> Result<Tally, Broken> {
    let _listens = panics::listen();
    let lived = std::panic::catch_unwind(|| lives_or_panics(seed, script, planted, verbose));
    lived.unwrap_or_else(|_| {
        Err(Broken {
            what: format!(
                "the world itself breaks: {}",
                panics::take().unwrap_or_default()
            ),
            happened: Vec::new(),
            around: String::new(),
        })
    })
}

fn lives_or_panics(
    seed: u64,
    script: &Script,
    planted: Planted,
    verbose: bool,
) -> Result<Tally, Broken> {
    let (sim, lived) = go(seed, script, planted, verbose);
    let state = sim.lock();
    if verbose {
        state.steps().for_each(|step| println!("{step}"));
    }
    lived.map(|()| state.tally).map_err(|what| {
        let steps: Vec<&str> = state.steps().collect();
        let settings = format!("{:#?}", state.history.latest());
        let settings = draw::without_prices(&settings);
        Broken {
            what,
            happened: state.happened.clone(),
            around: format!(
                "its settings in the end: {settings}\n\nits last steps:\n{}",
                steps.join("\n")
            ),
        }
    })
}

/// Everything that happens in the world of a seed.
pub(crate) fn story(seed: u64) -> Vec<String> {
    let (sim, _) = go(seed, &Script::All, Planted::Nothing, true);
    let state = sim.lock();
    state.steps().map(str::to_owned).collect()
}

fn go(
    seed: u64,
    script: &Script,
    planted: Planted,
    verbose: bool,
) -> (Arc<Sim>, Result<(), String>) {
    let sim = Sim::new(seed, script, planted, verbose);
    let mut driver = Driver::new(seed);
    loop {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let end = runtime.block_on(driver.process(&sim));
        drop(runtime);
        if let Some(words) = panics::take() {
            sim.violated(format!("somebody panics: {words}"));
        }
        let violation = sim.lock().violation.clone();
        if let Some(what) = violation {
            return (sim, Err(what));
        }
        let right = match end {
            End::Done => books::close(&sim),
            End::Another => books::agree(&sim),
        };
        if right.is_err() || matches!(end, End::Done) {
            return (sim, right);
        }
    }
}

/// Processes after which a world is given up: faults have long ended by then.
const PROCESSES_MAX: u64 = 200;

/// Goes through the script of a world.
struct Driver {
    seed: u64,
    ids: Arc<SeededIds>,
    meddler: Meddler,
    /// The next step, and how many there are.
    step: u32,
    steps: u32,
    /// Out of so many steps one is a fault.
    faults: u64,
    healing: bool,
    changed_meanwhile: bool,
}

impl Driver {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed, "driver");
        Self {
            seed,
            ids: Arc::new(SeededIds::new(seed)),
            meddler: Meddler::default(),
            step: 1,
            steps: dice.between(15, 60) as u32,
            faults: *dice.pick(&[3, 6, 12, 1_000]),
            healing: false,
            changed_meanwhile: false,
        }
    }

    /// Whether an event around this process happens, and what it draws from.
    fn around(&self, sim: &Sim, process: u32, which: u32, one_in: u64) -> Option<(u32, Dice)> {
        let number = AROUND + process * PER_STEP + which;
        let mut dice = dice_of(self.seed, number);
        let is_drawn = !self.healing && dice.one_in(one_in);
        (is_drawn && sim.lock().script.has(number)).then_some((number, dice))
    }

    /// One process, from its start to its end.
    async fn process(&mut self, sim: &Arc<Sim>) -> End {
        sim.lock().boot();
        let process = sim.lock().process;
        if process > PROCESSES_MAX {
            sim.violated("it never comes to its end");
        }
        let process = process as u32;
        if let Some((number, mut dice)) = self.around(sim, process, 0, self.faults) {
            // Again, while it still finds out what the crash before left.
            let (chances, place) = (dice.below(5), *dice.pick(&PLACES));
            let mut state = sim.lock();
            state.plans.kill = Some((place, chances));
            state.happens(number, || meddle::killed(place, chances));
        }
        let end = tokio::select! {
            biased;
            () = sim.over.notified() => End::Another,
            end = self.use_it(sim) => end,
        };
        let mut dice = Dice::new(self.seed, &format!("after process {process}"));
        let down_ms = match dice.below(4) {
            0 => 0,
            1..3 => dice.between(1, 3_000),
            _ => dice.between(1_000, 180_000),
        };
        self.changed_meanwhile |= sim.lock().end_process(down_ms);
        if let Some((number, mut dice)) = self.around(sim, process, 1, 12) {
            meddle::set_the_clock(number, sim, &mut dice);
        }
        // An operator may change the settings while nothing runs.
        if let Some((number, mut dice)) = self.around(sim, process, 2, 6) {
            let before = Arc::clone(sim.lock().history.latest());
            let settings = self.meddler.changed(&before, &mut dice);
            self.changed_meanwhile = true;
            let mut state = sim.lock();
            let what = draw::difference(&before, &settings);
            state.happens(number, || format!("settings, while nothing runs: {what}"));
            let now = state.now();
            state.history.set(Arc::new(settings), now);
            state.history.confirmed(now);
        }
        end
    }

    async fn use_it(&mut self, sim: &Arc<Sim>) -> End {
        let changed = std::mem::take(&mut self.changed_meanwhile);
        let act = changed.then(|| sim.lock().history.acts(Act::Configure));
        let Some((client, ended)) = client::start(sim, &self.ids).await else {
            if sim.lock().gone.is_none() {
                sim.violated("the lane does not start");
            }
            return End::Another;
        };
        sim.lock().note(|| "a process runs".to_owned());
        if let Some(act) = act {
            // What was held for other settings has ended once the lane has told the disk so.
            sleep(Duration::from_millis(3 * gate::DISK_MS_MAX)).await;
            let mut state = sim.lock();
            let now = state.now();
            state.history.acted(act, now);
        }
        while self.step <= self.steps {
            if client.has_stopped() {
                sim.lock().note(|| "the lane has stopped".to_owned());
                let _ = ended.await;
                return End::Another;
            }
            let number = self.step * PER_STEP;
            self.step += 1;
            let mut dice = dice_of(self.seed, number);
            let pause = pause(&mut dice);
            if dice.one_in(25) {
                let within = Duration::from_millis(dice.between(0, 20_000));
                if sim.lock().script.has(number) {
                    let words = || format!("the lane is shut down, within {within:?}");
                    sim.lock().happens(number, words);
                    let drained = client.shut_down(within).await;
                    let _ = ended.await;
                    if drained {
                        left_by_a_shutdown(sim);
                    }
                    return End::Another;
                }
            } else if dice.one_in(self.faults) {
                if sim.lock().script.has(number) {
                    meddle::plan_a_fault(number, sim, &mut dice);
                }
            } else {
                self.meddler.step(number, &client, &mut dice).await;
            }
            sleep(pause).await;
            let overdue = {
                let state = sim.lock();
                match state.takes_nothing() {
                    true => Ok(()),
                    false => state.ledger.overdue(state.heard()),
                }
            };
            if let Err(what) = overdue
                && !client.has_stopped()
            {
                sim.violated(what);
            }
        }
        if !self.healing {
            self.healing = true;
            sim.lock().note(|| "all is healed".to_owned());
        }
        self.heal(&client).await;
        if !self.all_ends(&client).await {
            return End::Another;
        }
        let drained = client.shut_down(Duration::from_secs(60)).await;
        if !drained {
            sim.violated("nothing is open, and a shutdown does not come to its end");
        }
        let _ = ended.await;
        End::Done
    }

    /// GLM works, and operators do what is theirs to do.
    async fn heal(&mut self, client: &Client) {
        {
            let mut state = client.sim.lock();
            let now = state.times().glm;
            state.is_healed = true;
            state.plans = Default::default();
            state.server.heal(now);
            state.make_room();
            state.put_the_clock_right();
        }
        let mut settings = (**client.sim.lock().history.latest()).clone();
        self.meddler.another_account(&mut settings);
        settings.glm.is_active = true;
        settings.budgets.clear();
        client.configure(settings).await;
        client.resume().await;
        client.reset_breaker().await;
        let held: Vec<JobId> = {
            let state = client.sim.lock();
            let jobs = state.ledger.jobs.values();
            jobs.filter(|known| known.job.phase() == Phase::Parked)
                .map(|known| known.job.id)
                .collect()
        };
        for job in held {
            if Dice::new(self.seed, &format!("again {job}")).one_in(2) {
                client.requeue(job).await;
            }
        }
    }

    /// Waits until every job has come to its end, or waits for a stated reason. `false`: the lane has
    /// stopped before.
    async fn all_ends(&self, client: &Client) -> bool {
        /// Longer than anything takes that is left, in seconds.
        const LOOKS: u64 = 4 * 3_600 / LOOK_S;
        const LOOK_S: u64 = 10;
        let (mut differed, mut was_done) = (false, false);
        for _ in 0..LOOKS {
            if client.has_stopped() {
                return false;
            }
            let open = {
                let state = client.sim.lock();
                let mut jobs = state.ledger.jobs.values();
                jobs.any(|known| {
                    matches!(
                        known.job.phase(),
                        Phase::Waiting | Phase::Staged | Phase::Running
                    )
                })
            };
            if !open {
                let Some(seen) = client.snapshot().await else {
                    return false;
                };
                if seen.in_flight + seen.ready + seen.waiting + seen.unsettled == 0 {
                    // Somebody may be putting a job back just now.
                    if std::mem::replace(&mut was_done, true) {
                        return true;
                    }
                    sleep(Duration::from_secs(LOOK_S)).await;
                    continue;
                }
                // What comes just now may be on its way to disk, with its start.
                if std::mem::replace(&mut differed, true) {
                    client.sim.violated(format!(
                        "nothing is open on disk, and the lane has {seen:?}"
                    ));
                    return true;
                }
            } else {
                differed = false;
            }
            was_done = false;
            sleep(Duration::from_secs(LOOK_S)).await;
        }
        let seen = client.snapshot().await;
        let state = client.sim.lock();
        let left: Vec<String> = state
            .ledger
            .jobs
            .values()
            .filter(|known| known.job.phase() <= Phase::Running)
            .map(|known| {
                format!(
                    "{} {:?} {:?}",
                    short(known.job.id),
                    known.job.phase(),
                    known.job
                )
            })
            .collect();
        drop(state);
        client.sim.violated(format!(
            "hours after all was healed these are left: {left:#?}\n{seen:#?}"
        ));
        false
    }
}

/// How long nobody does anything.
fn pause(dice: &mut Dice) -> Duration {
    let ms = match dice.below(10) {
        0..3 => dice.below(50),
        3..7 => dice.below(5_000),
        7..9 => dice.between(2_000, 30_000),
        _ => dice.between(10_000, 180_000),
    };
    Duration::from_millis(ms)
}

/// After a shutdown that came to its end no call is on record as open, but for tasks that GLM holds.
fn left_by_a_shutdown(sim: &Sim) {
    let state = sim.lock();
    let left = state.ledger.running().find(|job| job.task.is_none());
    let left = left.map(|job| short(job.id));
    drop(state);
    if let Some(job) = left {
        sim.violated(format!("job {job} was left open by an orderly shutdown"));
    }
}
