//! What is handed in: jobs that are drawn, asked for again, and moved with their batch.

use onelane_actors::testing::Dice;
use onelane_core::model::{BatchId, JobId, KeyId, OnInterrupted, Phase, SessionId, Submission};

use crate::client::Order;
use crate::draw::MODELS;
use crate::keys::KEYS;
use crate::script::chosen;
use crate::sim::{BATCHES, Promise, Sim, number_of};

impl Promise {
    /// What is asked, in short.
    pub(crate) fn shown(&self) -> &str {
        self.prompt.trim_end_matches('x').trim_end()
    }
}

impl Order {
    /// The event in words.
    pub(crate) fn shown(&self) -> String {
        let (promise, job) = (&self.promise, &self.submission);
        let mut words = format!(
            "{} submits '{}' for {}",
            promise.user,
            promise.shown(),
            promise.model
        );
        let mut with = |what: &str| {
            words.push_str(", ");
            words.push_str(what);
        };
        if promise.streams {
            with("in pieces");
        }
        if self.is_attended {
            with("and waits");
        }
        if let Some(key) = promise.by {
            with(&format!("by client key {key}"));
        }
        if promise.key.is_some() {
            with("with an idempotency key");
        }
        if let Some(priority) = job.priority.filter(|priority| *priority != 0) {
            with(&format!("priority {priority}"));
        }
        if job.run_at.is_some() {
            with("for later");
        }
        if job.deadline.is_some() {
            with("with a deadline");
        }
        if !job.after.is_empty() {
            with(&format!("after {} others", job.after.len()));
        }
        words
    }
}

/// A job that somebody hands in.
pub(crate) fn drawn(number: u32, sim: &Sim, dice: &mut Dice) -> Order {
    let kind = if dice.one_in(15) { "poison" } else { "prompt" };
    let length = dice.between(0, 400) as usize;
    let promise = Promise {
        number,
        user: (*dice.pick(&["ada", "bob", "cyd"])).to_owned(),
        key: dice.one_in(2).then(|| format!("key {number}")),
        prompt: format!("{kind} {number} {}", "x".repeat(length)),
        model: MODELS[dice.below(MODELS.len() as u64) as usize],
        streams: dice.one_in(3),
        by: dice.one_in(3).then(|| KeyId::new(dice.between(1, KEYS))),
    };
    // A key that was never made opens nothing.
    let keys = std::sync::Arc::clone(&sim.lock().history.latest().keys);
    let promise = Promise {
        by: promise.by.filter(|key| keys.get(*key).is_some()),
        ..promise
    };
    let is_attended = dice.one_in(3);
    let mut submission = said(&promise, sim);
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
    if dice.one_in(5) {
        for _ in 0..dice.between(1, 3) {
            submission.after.extend(completing(sim, promise.by, dice));
        }
    }
    Order {
        submission,
        // Asked for again without a key it may be another job, which nobody gives up.
        plainly: dice.one_in(3) && !(is_attended && promise.key.is_none()),
        promise,
        expected: None,
        is_attended,
    }
}

/// A job that may be completed yet. A client key knows its own alone.
fn completing(sim: &Sim, by: Option<KeyId>, dice: &mut Dice) -> Option<JobId> {
    let state = sim.lock();
    let jobs = state.ledger.jobs.values();
    let jobs = jobs.filter(|known| known.job.phase() <= Phase::Completed);
    let jobs = jobs.filter(|known| by.is_none() || known.job.key_id == by);
    chosen(
        dice,
        jobs.map(|known| (number_of(&known.job), known.job.id)),
    )
}

/// A submission that was acknowledged is made again.
pub(crate) fn again(sim: &Sim, dice: &mut Dice) -> Option<Order> {
    let found = {
        let state = sim.lock();
        let promises = state.promises.iter();
        let keyed = promises.filter(|(_, promise)| promise.key.is_some());
        let keyed = keyed.map(|(id, of)| (u64::from(of.number), (*id, of.clone())));
        chosen(dice, keyed)
    };
    let (job, promise) = found?;
    sim.lock().asked_again.insert(job);
    Some(Order {
        submission: said(&promise, sim),
        promise,
        plainly: dice.one_in(2),
        expected: Some(job),
        is_attended: false,
    })
}

/// A batch that goes on under another id.
pub(crate) struct MovedBatch {
    pub(crate) batch: usize,
    pub(crate) id: BatchId,
    pub(crate) jobs: Vec<(JobId, String)>,
}

/// A batch that moves: which, under what id it goes on, and the keys that its jobs have there. One that was asked
/// for again keeps its key: the question may still be on its way.
pub(crate) fn moved_batch(sim: &Sim, moves: u64, dice: &mut Dice) -> Option<MovedBatch> {
    let batch = dice.between(1, BATCHES) as usize;
    let mut state = sim.lock();
    let of = BatchId::new(state.batches[batch]);
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
            Some(promise) if dice.one_in(2) => {
                promise.key = None;
                jobs.push((id, format!("{key} of {moves}")));
            }
            Some(_) => jobs.push((id, key)),
            None if !is_free => jobs.push((id, key)),
            // Who submitted it does not know yet that it is there.
            None => {}
        }
    }
    Some(MovedBatch {
        batch,
        id: BatchId::new(BATCHES + moves),
        jobs,
    })
}

fn said(promise: &Promise, sim: &Sim) -> Submission {
    let submission = match promise.streams {
        false => Submission::prompt(promise.prompt.clone()),
        true => Submission::chat(&format!(
            r#"{{"model":"{}","stream":true,"messages":[{{"role":"user","content":"{}"}}]}}"#,
            promise.model, promise.prompt
        )),
    };
    let mut submission = submission
        .expect("a request")
        .model(promise.model)
        .user(promise.user.clone())
        .content_id(promise.number.to_string());
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
