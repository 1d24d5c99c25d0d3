//! Those who run a lane: they give jobs up and put them back, stop and resume, change settings, and look.

use std::sync::Arc;
use std::time::Duration;

use onelane_actors::protocol::{BreakerMsg, CommitReply, CommitRequest, QueueMsg, StoreMsg};
use onelane_actors::runtime::Refs;
use onelane_core::model::{
    Batch, BatchId, HoldScope, JobId, JobStatus, Refusal, Settings, Timestamp, Transition,
    WaitReason, Waiting,
};

use crate::client::Client;
use crate::gate::SENDING_MS;
use crate::history::Act;
use crate::sim::short;

impl Client {
    /// Gives a job up.
    pub(crate) async fn cancel(&self, job_id: JobId) {
        let message = |reply| QueueMsg::Cancel { job_id, reply };
        let asked = self.ask_queue("a cancellation", message);
        if let Some(answer) = self.act(Act::Cancel(job_id), asked).await {
            self.note(|| format!("job {} cancelled: {answer:?}", short(job_id)));
            let status = self.sim.lock().ledger.status_of(job_id);
            let ended = status.is_some_and(JobStatus::is_terminal);
            // Somebody may have put it back in line since, but only if it had ended.
            if answer.is_ok() && !ended {
                self.note(|| format!("job {} is {status:?} again", short(job_id)));
            }
        }
    }

    /// Puts a job back in line.
    pub(crate) async fn requeue(&self, job_id: JobId) {
        let message = |reply| QueueMsg::Requeue { job_id, reply };
        if let Some(answer) = self.ask_queue("a requeue", message).await {
            self.note(|| format!("job {} requeued: {answer:?}", short(job_id)));
        }
    }

    /// Changes a job's priority.
    pub(crate) async fn reprioritise(&self, job_id: JobId, priority: i32) {
        let message = |reply| QueueMsg::Reprioritise {
            job_id,
            priority,
            reply,
        };
        if let Some(answer) = self.ask_queue("a new priority", message).await {
            self.note(|| format!("job {} to {priority}: {answer:?}", short(job_id)));
        }
    }

    /// Pauses.
    pub(crate) async fn pause(&self) {
        let reason = Some("a look".to_owned());
        let message = |reply| QueueMsg::Pause {
            reason: reason.clone(),
            reply,
        };
        if self.ask_queue("a pause", message).await.is_some() {
            self.note(|| "paused".to_owned());
        }
    }

    /// Closes the intake.
    pub(crate) async fn close_intake(&self) {
        let message = |reply| QueueMsg::CloseIntake {
            reason: None,
            reply,
        };
        if self.ask_queue("a closing", message).await.is_some() {
            self.note(|| "the intake is closed".to_owned());
        }
    }

    /// Does something that ends holds, or a job.
    async fn act<T>(&self, act: Act, what: impl Future<Output = Option<T>>) -> Option<T> {
        let number = self.sim.lock().history.acts(act);
        let answer = what.await;
        let mut state = self.sim.lock();
        let now = state.now();
        if answer.is_some() {
            state.history.acted(number, now);
        }
        answer
    }

    /// Resumes everything.
    pub(crate) async fn resume(&self) {
        let asked = self.ask_queue("a resume", |reply| QueueMsg::Resume { reply });
        if self.act(Act::Resume, asked).await.is_some() {
            self.note(|| "resumed".to_owned());
        }
    }

    /// Releases a hold.
    pub(crate) async fn release(&self, scope: HoldScope) {
        let message = |reply| QueueMsg::Release {
            scope: scope.clone(),
            reply,
        };
        let asked = self.ask_queue("a release", message);
        if let Some(answer) = self.act(Act::Release(scope.clone()), asked).await {
            self.note(|| format!("{scope} is released: {answer:?}"));
        }
    }

    /// Changes the settings. Another key ends what was held for the old one.
    pub(crate) async fn configure(&self, settings: Settings) {
        let settings = Arc::new(settings);
        let begun;
        {
            let mut state = self.sim.lock();
            let now = state.now();
            let before = &state.history.latest().glm.endpoint();
            begun = (*before != settings.glm.endpoint()).then_some(now);
            state.history.set(Arc::clone(&settings), now);
        }
        self.put_in_force(settings);
        let asked = self.ask_queue("a change", |reply| QueueMsg::Configure { reply });
        if self.act(Act::Configure, asked).await.is_some() {
            let mut state = self.sim.lock();
            let now = state.now();
            state.history.confirmed(now);
            drop(state);
            if let Some(begun) = begun {
                tokio::spawn(self.clone().sees_another_account(begun));
            }
        }
    }

    /// Some time after the key was changed nothing is held for the old one any more.
    async fn sees_another_account(self, begun: Timestamp) {
        tokio::time::sleep(Duration::from_millis(2 * SENDING_MS)).await;
        let mut state = self.sim.lock();
        let old = state
            .ledger
            .lane
            .holds()
            .find(|(scope, _)| state.ledger.is_held_since_before(scope, begun));
        if let Some((scope, hold)) = old
            // Where the disk failed meanwhile it takes longer.
            && state.ledger.calm() < begun
            && !state.takes_nothing()
            && state.room.failing.is_none()
            // Asleep it does nothing.
            && state.times().disturbed < begun
        {
            let what = format!("{scope} is still held for another account: {hold:?}");
            state.violated(what);
            self.sim.over.notify_one();
        }
    }

    /// Closes the breaker.
    pub(crate) async fn reset_breaker(&self) {
        let send = |refs: &Refs, reply| {
            let _ = refs.breaker.cast(BreakerMsg::Reset { reply });
        };
        if self.ask("a reset", send).await.is_some() {
            self.note(|| "the breaker is reset".to_owned());
        }
    }

    /// Opens the breaker for so long.
    pub(crate) async fn open_breaker(&self, ms: Option<u64>) {
        let until = ms.map(|ms| self.sim.lock().wall().plus_ms(ms));
        let send = |refs: &Refs, reply| {
            let reason = "by hand".to_owned();
            let _ = refs.breaker.cast(BreakerMsg::Open {
                reason,
                until,
                reply,
            });
        };
        if self.ask("an opening", send).await.is_some() {
            self.note(|| format!("the breaker is open for {ms:?} ms"));
        }
    }

    /// Some time after the clock was set, or a process was frozen, budgets are those of the day that the clock tells, and
    /// no retry waits for longer than it was put off.
    pub(crate) async fn follows_the_clock(self) {
        let since = self.sim.lock().times().disturbed;
        // A tick, and a look at the disk.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        let Some(budgets) = self
            .ask_queue("the budgets", |reply| QueueMsg::Budgets {
                most: usize::MAX,
                reply,
            })
            .await
        else {
            return;
        };
        let jobs: Vec<(Waiting, u64)> = {
            let state = self.sim.lock();
            let known = state.ledger.jobs.values();
            known
                .filter_map(|known| {
                    let wait = known.job.next_retry_at?;
                    Some((Waiting::of(&known.job)?, wait.length_ms))
                })
                .collect()
        };
        let asked: Vec<Waiting> = jobs.iter().map(|(waiting, _)| waiting.clone()).collect();
        let message = |reply| QueueMsg::WaitReasons {
            jobs: asked.clone(),
            reply,
        };
        let Some(reasons) = self.ask_queue("reasons", message).await else {
            return;
        };
        let mut state = self.sim.lock();
        let now = state.times();
        let is_calm = now.awake.since(state.ledger.calm()) >= 2_500 && !state.takes_nothing();
        if now.disturbed != since || !is_calm {
            return;
        }
        let mut wrong = Vec::new();
        for status in budgets.budgets {
            let calendar = &state.history.latest().calendar;
            let ends = |at| status.period.end(calendar, calendar.day(at));
            // At the very moment at which a day begins the answer may have come before the tick.
            let may_end = [ends(now.wall), ends(now.wall.minus_ms(1))];
            if !may_end.contains(&status.until) {
                wrong.push(format!("at {} the budget is {status:?}", now.wall));
            }
        }
        for ((waiting, length_ms), reason) in jobs.iter().zip(reasons) {
            // One that was staged may have gone out since, and have failed again.
            if let WaitReason::Delayed { until } = reason
                && !waiting.staged
                && until.since(now.wall) > *length_ms
            {
                let id = short(waiting.id);
                wrong.push(format!(
                    "job {id} waits until {until}, more than its {length_ms} ms, at {}",
                    now.wall
                ));
            }
            state.tally.budget_waits += u64::from(matches!(reason, WaitReason::Budget(_)));
        }
        if let Some(what) = wrong.into_iter().next() {
            state.violated(what);
            self.sim.over.notify_one();
        }
    }

    /// A batch goes on under another name, as a file does that was moved: its jobs are adopted, under these keys.
    /// Tells whether that is known to be done.
    pub(crate) async fn move_batch(&self, to: BatchId, jobs: Vec<(JobId, String)>) -> bool {
        let now = self.sim.lock().wall();
        let batch = Batch::new(to, format!("batch {to}"), now);
        let adopted = jobs.iter().map(|(job_id, key)| Transition::Adopt {
            job_id: *job_id,
            batch: to,
            key: key.clone(),
        });
        let opened = std::iter::once(Transition::OpenBatch(Box::new(batch)));
        let transitions: Vec<Transition> = opened.chain(adopted).collect();
        let send = |refs: &Refs, port| {
            let _ = refs.store.cast(StoreMsg::Commit(CommitRequest {
                transitions: transitions.clone(),
                reply: CommitReply::Port(port),
            }));
        };
        let Some(Ok(decisions)) = self.ask("a batch that moves", send).await else {
            return false;
        };
        for ((id, key), decision) in jobs.into_iter().zip(decisions.into_iter().skip(1)) {
            match decision {
                Ok(_) => {
                    let mut state = self.sim.lock();
                    state.tally.adoptions += 1;
                    if let Some(promise) = state.promises.get_mut(&id) {
                        promise.key = Some(key);
                    }
                }
                // Asked again, somebody may have taken the last of its jobs elsewhere meanwhile.
                Err(Refusal::BatchClosed(_) | Refusal::NoSuchBatch(_)) => {}
                Err(refusal) => {
                    let id = short(id);
                    let what = format!("job {id} is not adopted by batch {to}: {refusal}");
                    self.sim.violated(what);
                }
            }
        }
        self.note(|| format!("a batch is batch {to} now"));
        true
    }
}
