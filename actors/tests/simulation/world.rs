//! The life of a world: processes come and go on what the ones before left on disk; meanwhile people
//! submit and operators meddle. In the end all is healed and has to come to its end.

use std::sync::Arc;
use std::time::Duration;

use onelane_actors::testing::{Dice, SeededIds};
use onelane_core::model::{
    BatchId, HoldScope, JobId, OnInterrupted, Phase, SessionId, Settings, Submission,
};
use tokio::runtime::Builder;
use tokio::time::sleep;

use crate::books;
use crate::client::{self, Client, Order};
use crate::draw::{self, MODELS};
use crate::gate;
use crate::history::Act;
use crate::sim::{BATCHES, Fate, PLACES, Promise, Sim, Tally, short};

/// How a process ended.
enum End {
    /// Killed, or stopped by itself: another follows.
    Another,
    /// All is done.
    Done,
}

/// Those who submit and meddle.
struct Driver {
    dice: Dice,
    ids: Arc<SeededIds>,
    steps: u64,
    key: u32,
    submitted: u64,
    /// Batches that were moved.
    moves: u64,
    /// Out of so many steps one is a fault.
    faults: u64,
    healing: bool,
    changed_meanwhile: bool,
}

/// Lives the world of a seed; the error is the report of what went wrong.
pub(crate) fn live(seed: u64, verbose: bool) -> Result<Tally, String> {
    let (sim, lived) = go(seed, verbose);
    let state = sim.lock();
    if verbose {
        state.steps().for_each(|step| println!("{step}"));
    }
    match lived {
        Ok(()) => Ok(state.tally),
        Err(what) => {
            let steps: Vec<&str> = state.steps().collect();
            let settings = format!("{:#?}", state.history.latest());
            let settings = draw::without_prices(&settings);
            Err(format!(
                "{what}\n\nits settings in the end: {settings}\n\nits last steps:\n{}",
                steps.join("\n")
            ))
        }
    }
}

/// Everything that happens in the world of a seed.
pub(crate) fn story(seed: u64) -> Vec<String> {
    let (sim, _) = go(seed, true);
    let state = sim.lock();
    state.steps().map(str::to_owned).collect()
}

fn go(seed: u64, verbose: bool) -> (Arc<Sim>, Result<(), String>) {
    let mut dice = Dice::new(seed, "settings");
    let sim = Sim::new(seed, draw::settings(&mut dice), verbose);
    let mut driver = Driver::new(seed);
    loop {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let end = runtime.block_on(driver.process(&sim));
        drop(runtime);
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

impl Driver {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed, "driver");
        Self {
            ids: Arc::new(SeededIds::new(seed)),
            steps: dice.between(15, 60),
            faults: *dice.pick(&[3, 6, 12, 1_000]),
            dice,
            key: 0,
            submitted: 0,
            moves: 0,
            healing: false,
            changed_meanwhile: false,
        }
    }

    /// One process, from its start to its end.
    async fn process(&mut self, sim: &Arc<Sim>) -> End {
        sim.lock().boot();
        if sim.lock().tally.processes > PROCESSES_MAX {
            sim.violated("it never comes to its end");
        }
        if !self.healing && self.dice.one_in(self.faults) {
            // Again, while it still finds out what the crash before left.
            let chances = self.dice.below(5);
            let place = *self.dice.pick(&PLACES);
            sim.lock().plans.kill = Some((place, chances));
        }
        let end = tokio::select! {
            biased;
            () = sim.over.notified() => End::Another,
            end = self.use_it(sim) => end,
        };
        let down_ms = match self.dice.below(4) {
            0 => 0,
            1..3 => self.dice.between(1, 3_000),
            _ => self.dice.between(1_000, 180_000),
        };
        self.changed_meanwhile |= sim.lock().end_process(down_ms);
        if self.dice.one_in(12) {
            self.set_the_clock(sim);
        }
        // An operator may change the settings while nothing runs.
        if self.dice.one_in(6) {
            let before = Arc::clone(sim.lock().history.latest());
            let settings = self.changed(&before);
            self.changed_meanwhile = true;
            let mut state = sim.lock();
            let what = draw::difference(&before, &settings);
            state.note(|| format!("settings while nothing runs: {what}"));
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
            sim.violated("the lane does not start");
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
        while self.steps > 0 {
            if client.has_stopped() {
                sim.lock().note(|| "the lane has stopped".to_owned());
                let _ = ended.await;
                return End::Another;
            }
            self.steps -= 1;
            if self.dice.one_in(25) {
                let retry_policy = Duration::from_millis(self.dice.between(0, 20_000));
                sim.lock()
                    .note(|| format!("shut down within {retry_policy:?}"));
                let drained = client.shut_down(retry_policy).await;
                let _ = ended.await;
                if drained {
                    left_by_a_shutdown(sim);
                }
                return End::Another;
            }
            self.step(&client).await;
            self.pause_between_steps().await;
            let overdue = {
                let state = sim.lock();
                state.ledger.overdue(state.heard())
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

    async fn pause_between_steps(&mut self) {
        let ms = match self.dice.below(10) {
            0..3 => self.dice.below(50),
            3..7 => self.dice.below(5_000),
            7..9 => self.dice.between(2_000, 30_000),
            _ => self.dice.between(10_000, 180_000),
        };
        sleep(Duration::from_millis(ms)).await;
    }

    /// One thing happens. What is asked of the lane is not waited for, so that many things are under
    /// way at once.
    async fn step(&mut self, client: &Client) {
        let sim = Arc::clone(&client.sim);
        if self.dice.one_in(self.faults) {
            self.plan_a_fault(&sim);
            return;
        }
        let to = client.clone();
        match self.dice.below(49) {
            0..16 => {
                for _ in 0..self.dice.between(1, 5) {
                    let order = self.order(&sim);
                    let to = client.clone();
                    tokio::spawn(async move { to.submit(order).await });
                }
            }
            16 => {
                if let Some(order) = self.order_again(&sim) {
                    tokio::spawn(async move { to.submit(order).await });
                }
            }
            17..20 => {
                if let Some(job) = self.some_job(&sim, |phase| phase <= Phase::Running) {
                    tokio::spawn(async move { to.cancel(job).await });
                }
            }
            20..22 => {
                let ended =
                    |phase| matches!(phase, Phase::Failed | Phase::Cancelled | Phase::Parked);
                if let Some(job) = self.some_job(&sim, ended) {
                    tokio::spawn(async move { to.requeue(job).await });
                }
            }
            22..24 => {
                if let Some(job) = self.some_job(&sim, |phase| phase <= Phase::Staged) {
                    let priority = self.dice.below(10) as i32;
                    tokio::spawn(async move { to.reprioritise(job, priority).await });
                }
            }
            24 => {
                if let Some(job) = self.some_job(&sim, |_| true) {
                    tokio::spawn(async move { to.wait(job).await });
                }
            }
            25 => client.pause().await,
            26 | 27 => client.resume().await,
            28 => client.close_intake().await,
            29 | 30 => {
                let scopes: Vec<HoldScope> = {
                    let state = sim.lock();
                    state.ledger.lane.holds().map(|(scope, _)| scope).collect()
                };
                if !scopes.is_empty() {
                    let scope = self.dice.pick(&scopes).clone();
                    client.release(scope).await;
                }
            }
            31..34 => {
                let before = Arc::clone(sim.lock().history.latest());
                let settings = self.changed(&before);
                let what = draw::difference(&before, &settings);
                sim.lock().note(|| format!("settings: {what}"));
                client.configure(settings).await;
            }
            34 => client.reset_breaker().await,
            35 => {
                let ms = self.dice.between(1_000, 60_000);
                let ms = (!self.dice.one_in(4)).then_some(ms);
                client.open_breaker(ms).await;
            }
            44 => {
                self.set_the_clock(&sim);
                tokio::spawn(to.follows_the_clock());
            }
            47 | 48 => {
                if let Some(moved) = self.moved_batch(&sim) {
                    let MovedBatch { number, id, jobs } = moved;
                    let moves = self.moves;
                    tokio::spawn(async move {
                        if to.move_batch(id, jobs).await {
                            to.sim.lock().batches[number] = BATCHES + moves;
                        }
                    });
                }
            }
            45 | 46 => {
                let ms = match self.dice.below(3) {
                    0 => self.dice.between(100, 5_000),
                    1 => self.dice.between(2_000, 60_000),
                    _ => self.dice.between(10_000, 600_000),
                };
                sim.lock().freeze(ms);
                // Nothing else runs meanwhile; then everything that was due does, in its order.
                tokio::time::advance(Duration::from_millis(ms)).await;
                tokio::spawn(to.follows_the_clock());
            }
            _ => {
                let key = format!("key-{}", self.key);
                let mut state = sim.lock();
                let now = state.times().glm;
                let what = state.server.turn(&MODELS, &key, now);
                state.note(|| format!("GLM: {what}"));
            }
        }
    }

    /// Somebody sets the wall clock, forth or back, by seconds, hours or days.
    fn set_the_clock(&mut self, sim: &Sim) {
        const DAY_MS: u64 = 86_400_000;
        let dice = &mut self.dice;
        let ms = match dice.below(4) {
            0 => dice.between(1, 5_000),
            1 => dice.between(1_000, 600_000),
            2 => dice.between(600_000, DAY_MS),
            _ => dice.between(DAY_MS, 5 * DAY_MS),
        };
        let ms = ms.cast_signed();
        let back = dice.one_in(2);
        sim.lock().step_the_clock(if back { -ms } else { ms });
    }

    fn plan_a_fault(&mut self, sim: &Sim) {
        let dice = &mut self.dice;
        let chances = *dice.pick(&[0, 0, 1, 3, 10]);
        let mut state = sim.lock();
        match dice.below(4) {
            0 | 1 => {
                let place = *dice.pick(&PLACES);
                state.plans.kill = Some((place, chances));
            }
            2 => {
                let actor = *dice.pick(&["queue", "store", "breaker", "cost", "caller"]);
                state.plans.panic = Some((actor, chances));
            }
            _ => {
                let fate = *dice.pick(&[Fate::Lost, Fate::Kept]);
                state.plans.disk = Some((fate, chances));
            }
        }
        let plans = format!("planned: {:?}", state.plans);
        state.note(|| plans);
    }

    /// Other settings, among them the key.
    fn changed(&mut self, before: &Settings) -> Settings {
        let mut settings = if self.dice.one_in(3) {
            before.clone()
        } else {
            draw::change(before, &mut self.dice)
        };
        if settings == *before {
            self.key += 1;
            draw::set_account(&mut settings, self.key);
        }
        settings
    }

    fn some_job(&mut self, sim: &Sim, which: impl Fn(Phase) -> bool) -> Option<JobId> {
        let state = sim.lock();
        let jobs: Vec<JobId> = state
            .ledger
            .jobs
            .values()
            .filter(|known| which(known.job.phase()))
            .map(|known| known.job.id)
            .collect();
        (!jobs.is_empty()).then(|| *self.dice.pick(&jobs))
    }

    fn order(&mut self, sim: &Sim) -> Order {
        self.submitted += 1;
        let dice = &mut self.dice;
        let kind = if dice.one_in(15) { "poison" } else { "prompt" };
        let length = dice.between(0, 400) as usize;
        let promise = Promise {
            user: (*dice.pick(&["ada", "bob", "cyd"])).to_owned(),
            key: dice.one_in(2).then(|| format!("key {}", self.submitted)),
            prompt: format!("{kind} {} {}", self.submitted, "x".repeat(length)),
            model: MODELS[dice.below(MODELS.len() as u64) as usize],
        };
        let mut submission = said(&promise, sim);
        let dice = &mut self.dice;
        submission.priority = Some(*dice.pick(&[0, 0, 0, 1, 5, 9]));
        let now = sim.lock().wall();
        if dice.one_in(6) {
            submission.run_at = Some(now.plus_ms(dice.between(0, 120_000)));
        }
        if dice.one_in(8) {
            submission.deadline = Some(now.plus_ms(dice.between(1, 120_000)).into());
        }
        if dice.one_in(8) {
            submission.timeout_ms = Some(dice.between(50, 30_000));
        }
        if dice.one_in(4) {
            let of = [
                OnInterrupted::Retry,
                OnInterrupted::Park,
                OnInterrupted::Fail,
            ];
            submission.on_interrupted = Some(*dice.pick(&of));
        }
        if self.dice.one_in(5) {
            for _ in 0..self.dice.between(1, 3) {
                submission
                    .after
                    .extend(self.some_job(sim, |phase| phase <= Phase::Completed));
            }
        }
        Order {
            submission,
            promise,
            plainly: self.dice.one_in(3),
            expected: None,
        }
    }

    /// A submission that was acknowledged is made again.
    fn order_again(&mut self, sim: &Sim) -> Option<Order> {
        let state = sim.lock();
        let keyed: Vec<(JobId, Promise)> = state
            .promises
            .iter()
            .filter(|(_, promise)| promise.key.is_some())
            .map(|(id, promise)| (*id, promise.clone()))
            .collect();
        drop(state);
        if keyed.is_empty() {
            return None;
        }
        let (job, promise) = self.dice.pick(&keyed).clone();
        sim.lock().asked_again.insert(job);
        Some(Order {
            submission: said(&promise, sim),
            promise,
            plainly: self.dice.one_in(2),
            expected: Some(job),
        })
    }

    /// A batch that moves: which, under what id it goes on, and the keys that its jobs have there. One that was asked
    /// for again keeps its key: the question may still be on its way.
    fn moved_batch(&mut self, sim: &Sim) -> Option<MovedBatch> {
        self.moves += 1;
        let number = self.dice.between(1, BATCHES) as usize;
        let mut state = sim.lock();
        let of = BatchId::new(state.batches[number]);
        let keyed: Vec<(JobId, String)> = state
            .ledger
            .jobs
            .values()
            .filter(|known| known.job.batch_id == Some(of))
            .filter_map(|known| Some((known.job.id, known.job.idempotency_key.clone()?)))
            .collect();
        if keyed.is_empty() {
            return None;
        }
        let mut jobs = Vec::new();
        for (id, key) in keyed {
            let is_free = !state.asked_again.contains(&id);
            match state.promises.get_mut(&id).filter(|_| is_free) {
                // Nobody asks for it by a key that is just being changed.
                Some(promise) if self.dice.one_in(2) => {
                    promise.key = None;
                    jobs.push((id, format!("{key} of {}", self.moves)));
                }
                Some(_) => jobs.push((id, key)),
                None if !is_free => jobs.push((id, key)),
                // Who submitted it does not know yet that it is there.
                None => {}
            }
        }
        Some(MovedBatch {
            number,
            id: BatchId::new(BATCHES + self.moves),
            jobs,
        })
    }

    /// GLM works, and operators do what is theirs to do.
    async fn heal(&mut self, client: &Client) {
        {
            let mut state = client.sim.lock();
            let now = state.times().glm;
            state.plans = Default::default();
            state.server.heal(now);
            state.put_the_clock_right();
        }
        self.key += 1;
        let mut settings = (**client.sim.lock().history.latest()).clone();
        draw::set_account(&mut settings, self.key);
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
            if self.dice.one_in(2) {
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
                if seen.in_flight + seen.ready + seen.waiting + seen.unsettled > 0 {
                    client.sim.violated(format!(
                        "nothing is open on disk, and the lane has {seen:?}"
                    ));
                }
                return true;
            }
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

/// A batch that goes on under another id.
struct MovedBatch {
    number: usize,
    id: BatchId,
    jobs: Vec<(JobId, String)>,
}

fn said(promise: &Promise, sim: &Sim) -> Submission {
    let mut submission = Submission::prompt(promise.prompt.clone())
        .expect("a prompt")
        .model(promise.model)
        .user(promise.user.clone());
    submission.idempotency_key.clone_from(&promise.key);
    // The same job is of the same batch whenever it is asked for.
    let drawn: u64 = promise.prompt.bytes().map(u64::from).sum();
    submission.batch_id = match sim.lock().batches[(drawn % (BATCHES + 1)) as usize] {
        0 => None,
        id => Some(BatchId::new(id)),
    };
    submission.session = match drawn / (BATCHES + 1) % 4 {
        0 => None,
        number => Some(
            format!("session-{number}")
                .parse::<SessionId>()
                .expect("visible")
                .into(),
        ),
    };
    submission
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
