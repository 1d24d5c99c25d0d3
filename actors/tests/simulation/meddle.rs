//! What people do with a lane while it runs, and what goes wrong meanwhile: each event of the script by its own dice.

use std::sync::Arc;
use std::time::Duration;

use onelane_actors::ports::Store as _;
use onelane_actors::testing::Dice;
use onelane_core::model::{HoldScope, JobId, KeyId, Phase, Settings};

use crate::client::Client;
use crate::draw::{self, MODELS};
use crate::faults::{Fate, PLACES, Place};
use crate::keys::{self, KEYS};
use crate::orders::{self, MovedBatch};
use crate::script::{PER_STEP, chosen, dice_of};
use crate::sim::{BATCHES, Sim, number_of, short};

/// Those who submit and meddle.
#[derive(Debug, Default)]
pub(crate) struct Meddler {
    /// How often the account was changed.
    account: u32,
    /// Batches that were moved.
    moves: u64,
}

/// What a process is killed at, in words.
pub(crate) fn killed(place: Place, chances: u64) -> String {
    let place = match place {
        Place::BeforeCommit => "before a commit is on disk",
        Place::AfterCommit => "when a commit is on disk and nobody has heard of it",
        Place::CallBegun => "when a call has begun",
        Place::CallEnded => "when a call has ended and nobody has heard of it",
        Place::Message => "when an actor takes a message",
    };
    format!(
        "the process will be killed {place}, at the {}th time",
        chances + 1
    )
}

/// Something will go wrong.
pub(crate) fn plan_a_fault(number: u32, sim: &Sim, dice: &mut Dice) {
    let chances = *dice.pick(&[0, 0, 1, 3, 10]);
    let mut state = sim.lock();
    match dice.below(4) {
        0 | 1 => {
            let place = *dice.pick(&PLACES);
            state.plans.kill = Some((place, chances));
            state.happens(number, || killed(place, chances));
        }
        2 => {
            let actor = *dice.pick(&["queue", "store", "breaker", "cost", "caller"]);
            state.plans.panic = Some((actor, chances));
            state.happens(number, || {
                format!(
                    "the actor {actor} will fail at its {}th message",
                    chances + 1
                )
            });
        }
        _ => {
            let fate = *dice.pick(&[Fate::Lost, Fate::Kept]);
            state.plans.disk = Some((fate, chances));
            state.happens(number, || {
                let what = format!("the {}th commit will fail with an I/O error", chances + 1);
                match fate {
                    Fate::Lost => format!("{what}, and is lost"),
                    Fate::Kept => format!("{what}, and is on disk"),
                }
            });
        }
    }
}

/// Somebody sets the wall clock, forth or back, by seconds, hours or days.
pub(crate) fn set_the_clock(number: u32, sim: &Sim, dice: &mut Dice) {
    const DAY_MS: u64 = 86_400_000;
    let ms = match dice.below(4) {
        0 => dice.between(1, 5_000),
        1 => dice.between(1_000, 600_000),
        2 => dice.between(600_000, DAY_MS),
        _ => dice.between(DAY_MS, 5 * DAY_MS),
    };
    let ms = ms.cast_signed();
    let ms = if dice.one_in(2) { -ms } else { ms };
    let mut state = sim.lock();
    state.happens(number, || format!("the clock is set by {ms} ms"));
    state.step_the_clock(ms);
}

fn some_job(sim: &Sim, dice: &mut Dice, which: impl Fn(Phase) -> bool) -> Option<JobId> {
    let state = sim.lock();
    let jobs = state.ledger.jobs.values();
    let jobs = jobs.filter(|known| which(known.job.phase()));
    chosen(
        dice,
        jobs.map(|known| (number_of(&known.job), known.job.id)),
    )
}

impl Meddler {
    /// The lane has another account from now on.
    pub(crate) fn another_account(&mut self, settings: &mut Settings) {
        self.account += 1;
        draw::set_account(settings, self.account);
    }

    /// Other settings, among them the account.
    pub(crate) fn changed(&mut self, before: &Settings, dice: &mut Dice) -> Settings {
        let mut settings = if dice.one_in(3) {
            before.clone()
        } else {
            draw::change(before, dice)
        };
        if settings == *before {
            self.another_account(&mut settings);
        }
        settings
    }

    /// One thing happens. What is asked of the lane is not waited for, so that many things are under
    /// way at once.
    pub(crate) async fn step(&mut self, number: u32, client: &Client, dice: &mut Dice) {
        let sim = &client.sim;
        let kind = dice.below(64);
        if kind < 18 {
            return self.submit(number, client, dice);
        }
        if !sim.lock().script.has(number) {
            return;
        }
        let happens = |words: &str| sim.lock().happens(number, || words.to_owned());
        let about = |what: &str, job: JobId| happens(&format!("{what} job {}", short(job)));
        let to = client.clone();
        match kind {
            18 | 19 => {
                if let Some(order) = orders::again(sim, dice) {
                    happens(&format!("'{}' is asked for again", order.promise.shown()));
                    tokio::spawn(async move {
                        let early = false;
                        if let Some(job) = to.submit(order).await {
                            to.is_told(job, early).await;
                        }
                    });
                }
            }
            20..23 => {
                if let Some(job) = some_job(sim, dice, |phase| phase <= Phase::Running) {
                    about("somebody cancels", job);
                    tokio::spawn(async move { to.cancel(job).await });
                }
            }
            23..25 => {
                let ended =
                    |phase| matches!(phase, Phase::Failed | Phase::Cancelled | Phase::Parked);
                if let Some(job) = some_job(sim, dice, ended) {
                    about("somebody puts back", job);
                    tokio::spawn(async move { to.requeue(job).await });
                }
            }
            25..27 => {
                if let Some(job) = some_job(sim, dice, |phase| phase <= Phase::Staged) {
                    let priority = dice.below(10) as i32;
                    about(&format!("priority {priority} for"), job);
                    tokio::spawn(async move { to.reprioritise(job, priority).await });
                }
            }
            27 => {
                if let Some(job) = some_job(sim, dice, |_| true) {
                    about("somebody waits for", job);
                    tokio::spawn(async move { to.wait(job).await });
                }
            }
            28..31 => {
                let streams = {
                    let state = sim.lock();
                    let promises = state.promises.iter();
                    let streams = promises.filter(|(_, promise)| promise.streams);
                    chosen(dice, streams.map(|(id, of)| (u64::from(of.number), *id)))
                };
                if let Some(job) = streams {
                    about("somebody reads the stream of", job);
                    tokio::spawn(to.read(job, dice.clone()));
                }
            }
            31 => {
                happens("the lane is paused");
                client.pause().await;
            }
            32 | 33 => {
                happens("the lane is resumed");
                client.resume().await;
            }
            34 => {
                happens("the intake is closed");
                client.close_intake().await;
            }
            35 | 36 => self.release(number, client, dice).await,
            37..40 => {
                let before = Arc::clone(sim.lock().history.latest());
                let settings = self.changed(&before, dice);
                happens(&format!(
                    "settings: {}",
                    draw::difference(&before, &settings)
                ));
                client.configure(settings).await;
            }
            40 => {
                happens("the breaker is reset");
                client.reset_breaker().await;
            }
            41 => {
                let ms = dice.between(1_000, 60_000);
                let ms = (!dice.one_in(4)).then_some(ms);
                happens(&format!("the breaker is opened for {ms:?} ms"));
                client.open_breaker(ms).await;
            }
            42 => {
                set_the_clock(number, sim, dice);
                tokio::spawn(to.follows_the_clock());
            }
            43 | 44 => self.move_a_batch(number, client, dice),
            45 | 46 => {
                let ms = match dice.below(3) {
                    0 => dice.between(100, 5_000),
                    1 => dice.between(2_000, 60_000),
                    _ => dice.between(10_000, 600_000),
                };
                happens(&format!("the process is frozen for {ms} ms"));
                sim.lock().freeze(ms);
                // Nothing else runs meanwhile; then everything that was due does, in its order.
                tokio::time::advance(Duration::from_millis(ms)).await;
                tokio::spawn(to.follows_the_clock());
            }
            47 | 48 => {
                let key = {
                    let now = sim.lock().clock();
                    let made = dice.between(1, KEYS);
                    keys::drawn(made, dice, onelane_actors::ports::Clock::now(&now))
                };
                happens(&format!("client key {} is made: {:?}", key.id, key.rights));
                tokio::spawn(to.make_key(key));
            }
            49 => {
                let id = KeyId::new(dice.between(1, KEYS));
                let keys = sim.store.client_keys().unwrap_or_default();
                if keys.iter().any(|key| key.id == id) {
                    happens(&format!("client key {id} is revoked"));
                    tokio::spawn(to.revoke_key(id));
                }
            }
            50 | 51 => {
                let ms = match dice.below(3) {
                    0 => dice.between(50, 2_000),
                    1 => dice.between(1_000, 30_000),
                    _ => dice.between(10_000, 300_000),
                };
                let fate = *dice.pick(&[Fate::Lost, Fate::Lost, Fate::Lost, Fate::Kept]);
                let kept = match fate {
                    Fate::Lost => "",
                    Fate::Kept => ", and a commit that finds no room is on disk all the same",
                };
                happens(&format!("the disk is full for {ms} ms{kept}"));
                sim.lock().fill(ms, fate);
            }
            52 => {
                happens("the file of the store is taken away");
                let mut state = sim.lock();
                let now = state.now();
                state.gone.get_or_insert(now);
                state.tally.files_gone += 1;
                drop(state);
                tokio::spawn(to.finds_it_gone());
            }
            _ => {
                let key = format!("key-{}", self.account);
                let mut state = sim.lock();
                let now = state.times().glm;
                let what = state.server.turn(&MODELS, &key, now, dice);
                state.happens(number, || format!("GLM: {what}"));
            }
        }
    }

    /// Some jobs are handed in at once, an event each.
    fn submit(&mut self, number: u32, client: &Client, dice: &mut Dice) {
        let seed = dice.draw();
        for n in 0..dice.between(1, 5) as u32 {
            let number = number + n;
            if number / PER_STEP != (number - n) / PER_STEP || !client.sim.lock().script.has(number)
            {
                continue;
            }
            let mut dice = dice_of(seed, number);
            let order = orders::drawn(number, &client.sim, &mut dice);
            client.sim.lock().happens(number, || order.shown());
            let to = client.clone();
            tokio::spawn(async move {
                if order.is_attended {
                    to.attend(order, dice).await;
                } else {
                    to.submit(order).await;
                }
            });
        }
    }

    async fn release(&mut self, number: u32, client: &Client, dice: &mut Dice) {
        let scopes: Vec<HoldScope> = {
            let state = client.sim.lock();
            state.ledger.lane.holds().map(|(scope, _)| scope).collect()
        };
        if scopes.is_empty() {
            return;
        }
        let scope = dice.pick(&scopes).clone();
        client
            .sim
            .lock()
            .happens(number, || format!("{scope} is released"));
        client.release(scope).await;
    }

    fn move_a_batch(&mut self, number: u32, client: &Client, dice: &mut Dice) {
        self.moves += 1;
        let moves = self.moves;
        let Some(moved) = orders::moved_batch(&client.sim, moves, dice) else {
            return;
        };
        let MovedBatch { batch, id, jobs } = moved;
        client
            .sim
            .lock()
            .happens(number, || format!("batch {batch} goes on as batch {id}"));
        let to = client.clone();
        tokio::spawn(async move {
            if to.move_batch(id, jobs).await {
                to.sim.lock().batches[batch] = BATCHES + moves;
            }
        });
    }
}
