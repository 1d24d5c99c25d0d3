//! Clients that wait for their answers: they leave and come back, and are told the same then.

use std::time::Duration;

use onelane_actors::ports::Store;
use onelane_actors::protocol::{QueueMsg, Waited};
use onelane_actors::testing::Dice;
use onelane_core::model::{AnswerBody, JobId};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::client::{Client, Order};
use crate::sim::short;

impl Client {
    /// Waits for a job's end.
    pub(crate) async fn wait(&self, job_id: JobId) {
        let message = |reply| QueueMsg::Wait {
            job_id,
            early: false,
            reply,
        };
        let refs = self.refs().await;
        let Some(refs) = refs else { return };
        let (port, answer) = oneshot::channel();
        let _ = refs.queue.cast(message(port.into()));
        // It may take for ever; an answer must be true.
        if let Ok(Waited::Ended(_)) = answer.await {
            let state = self.sim.lock();
            let known = state.ledger.jobs.get(&job_id);
            let ended = known.is_some_and(|known| {
                known.job.status.is_terminal() || known.changed == state.now()
            });
            drop(state);
            if !ended {
                let id = short(job_id);
                self.sim
                    .violated(format!("job {id} was said to have ended and has not"));
            }
        }
    }

    /// Hands a job in and waits for its answer, as long as he has the patience. What he leaves is given up, unless it has a
    /// key: then he comes back with that.
    pub(crate) async fn attend(self, mut order: Order, mut dice: Dice) {
        let Some(job) = self.submit(order.clone()).await else {
            return;
        };
        self.sim.lock().tally.attended += 1;
        if order.promise.streams {
            let reader = Dice::new(dice.draw(), "reader");
            tokio::spawn(self.clone().read(job, reader));
        }
        order.expected = Some(job);
        for _ in 0..3 {
            let early = dice.one_in(3);
            let stays_ms = match dice.one_in(2) {
                true => dice.between(50, 20_000),
                false => 3_600_000,
            };
            let told = timeout(Duration::from_millis(stays_ms), self.is_told(job, early));
            if told.await.is_ok() {
                // He may have lost it, and asks again.
                if !dice.one_in(3) {
                    return;
                }
            } else if order.promise.key.is_none() {
                if !dice.one_in(4) {
                    self.note(|| format!("the client of job {} has left", short(job)));
                    self.sim.lock().tally.given_up += 1;
                    self.cancel(job).await;
                }
                return;
            }
            sleep(Duration::from_millis(dice.between(10, 60_000))).await;
            if order.promise.key.is_some() {
                if self.submit(order.clone()).await != Some(job) {
                    return;
                }
                self.sim.lock().tally.clients_back += 1;
            }
        }
    }

    /// Waits for the answer, and is told it.
    pub(crate) async fn is_told(&self, job_id: JobId, early: bool) {
        loop {
            let Some(refs) = self.refs().await else {
                // Nobody tells him anything any more.
                return std::future::pending().await;
            };
            let (port, answer) = oneshot::channel();
            let _ = refs.queue.cast(QueueMsg::Wait {
                job_id,
                early,
                reply: port.into(),
            });
            let on_disk = |sim: &crate::sim::Sim| {
                let record = sim.store.job(job_id).ok().flatten();
                record.and_then(|record| record.response)
            };
            match answer.await {
                Ok(Waited::Ended(Some(ending))) => {
                    if let Some(answer) = &ending.response {
                        self.is_true(job_id, answer, early);
                        let stored = on_disk(&self.sim);
                        let differs = stored.is_some_and(|stored| stored.text() != answer.text());
                        if differs || (!early && on_disk(&self.sim).is_none()) {
                            let who = short(job_id);
                            self.sim.violated(format!(
                                "the client of job {who}: he is told what is not on disk"
                            ));
                        }
                    }
                    return;
                }
                Ok(Waited::Ended(None) | Waited::NotHere) => {
                    if let Some(answer) = on_disk(&self.sim) {
                        self.is_true(job_id, &answer, false);
                    }
                    return;
                }
                Err(_) => sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// An answer is that of a call of the job, and the one that was told before.
    fn is_true(&self, job: JobId, answer: &AnswerBody, early: bool) {
        let mut state = self.sim.lock();
        let text = answer.text().into_owned();
        let number = text
            .split("\"id\":\"a")
            .nth(1)
            .and_then(|rest| rest.split('"').next());
        let call = number.and_then(|number| state.server.calls.get(number.parse::<usize>().ok()?));
        if call.is_none_or(|call| call.job != job) {
            let who = short(job);
            state.violated(format!(
                "the client of job {who}: he is told the answer to another's call"
            ));
            self.sim.over.notify_one();
            return;
        }
        // One that is told before it is on disk may be lost with the process.
        if early {
            return;
        }
        match state.answers.insert(job, text.clone()) {
            Some(before) if before != text => {
                let who = short(job);
                state.violated(format!(
                    "the client of job {who}: he is told another answer than before"
                ));
                self.sim.over.notify_one();
            }
            Some(_) => state.tally.told_again += 1,
            None => {}
        }
    }
}
