//! The GLM caller: makes one call at a time and reports its outcome. It reports to the supervisor alone.
//!
//! Capacity 1 is a credit: the caller announces [`QueueMsg::Ready`], the queue spends that credit
//! on exactly one [`CallerMsg::Run`]. While a call is open one more order may lie ready ([`NextUp`]): after an answer
//! that changes nothing the caller goes on with it, and reports both then. A busy caller reads no mailbox, so cancellation travels
//! through [`crate::aborts::Aborts`], and a queue that was restarted meanwhile hears of the outcome when the
//! caller, ready again, reads the [`CallerMsg::Attach`] that has been waiting for it.

use std::future::{Future, poll_fn, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Ports;
use crate::call::{CallMaker, Ended};
use crate::next_up::{Moment, NextUp};
use crate::ports::GlmOutcome;
use crate::protocol::{CallerMsg, CostMsg, QueueMsg, Report, RunOrder, Sample};
use crate::runtime::Runtime;
use onelane_core::judge::conclude::Finished;
use onelane_core::model::{Dispatch, JobId, SlotId};
use onelane_core::scheduler::slot::attempt_of;

/// A caller's parts.
pub(crate) struct CallerArgs {
    pub(crate) slot: SlotId,
    pub(crate) ports: Ports,
    /// Where the store of the moment is found.
    pub(crate) runtime: watch::Receiver<Runtime>,
    pub(crate) next_up: NextUp,
}

pub(crate) struct CallerState {
    slot: SlotId,
    maker: Arc<CallMaker>,
    next_up: NextUp,
    generation: u64,
    queue: Option<ActorRef<QueueMsg>>,
    last: Option<Finished>,
    /// The outcome before the last: the queue that was told may have ended before it was stored.
    before: Option<Finished>,
    /// When its last call ended.
    idle_since: Option<Moment>,
}

/// A call under way.
struct UnderWay {
    dispatch: Arc<Dispatch>,
    begun: Instant,
    call: Pin<Box<dyn Future<Output = Ended> + Send>>,
}

impl UnderWay {
    fn of(order: RunOrder, maker: &Arc<CallMaker>) -> Self {
        let maker = Arc::clone(maker);
        Self {
            dispatch: Arc::clone(&order.dispatch),
            begun: Instant::now(),
            call: Box::pin(async move { maker.run(order).await }),
        }
    }

    /// Has it go as far as it goes now: its request is handed to the connection.
    async fn set_out(&mut self) {
        let early = poll_fn(|cx| Poll::Ready(self.call.as_mut().poll(cx))).await;
        if let Poll::Ready(ended) = early {
            self.call = Box::pin(ready(ended));
        }
    }
}

pub(crate) struct GlmCallerActor;

impl Actor for GlmCallerActor {
    type Msg = CallerMsg;
    type State = CallerState;
    type Arguments = CallerArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<CallerMsg>,
        args: CallerArgs,
    ) -> Result<CallerState, ActorProcessingErr> {
        let maker = CallMaker {
            ports: args.ports,
            runtime: args.runtime,
        };
        Ok(CallerState {
            slot: args.slot,
            maker: Arc::new(maker),
            next_up: args.next_up,
            generation: 0,
            queue: None,
            last: None,
            before: None,
            idle_since: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<CallerMsg>,
        message: CallerMsg,
        state: &mut CallerState,
    ) -> Result<(), ActorProcessingErr> {
        state.maker.ports.fault_points.point("caller");
        match message {
            CallerMsg::Attach { generation, queue } => {
                state.generation = generation;
                state.queue = Some(queue);
                let last = state.last.clone();
                state.announce(last.map(|last| Report {
                    last,
                    before: state.before.clone(),
                    went_on_with: None,
                }));
            }
            CallerMsg::Run(order) => state.make_calls(*order).await,
            CallerMsg::Retire => myself.stop(None),
        }
        Ok(())
    }
}

impl CallerState {
    /// Makes a call, and behind it those that lie ready, as long as each ends in an answer that changes nothing.
    async fn make_calls(&mut self, order: RunOrder) {
        let mut under_way = UnderWay::of(order, &self.maker);
        loop {
            let ended = under_way.call.as_mut().await;
            let at = (Instant::now(), self.maker.ports.clock.now());
            let Some(order) = self.next_after(&ended, at) else {
                let finished = self.maker.finish(ended);
                let outcome = Arc::clone(&finished.outcome);
                self.report(finished, None);
                // The queue says what goes next before this thread turns to the books.
                tokio::task::yield_now().await;
                return self.note(&under_way, &outcome, at);
            };
            let mut next = UnderWay::of(*order, &self.maker);
            next.set_out().await;
            // The runtime would poll whom this tells before the connection that has to write the request.
            tokio::task::yield_now().await;
            let finished = self.maker.finish(ended);
            let outcome = Arc::clone(&finished.outcome);
            self.report(finished, Some(next.dispatch.job.id));
            let made = std::mem::replace(&mut under_way, next);
            self.note(&made, &outcome, at);
        }
    }

    /// What lies ready to go on with, if nothing has to be decided first.
    fn next_after(&self, ended: &Ended, now: Moment) -> Option<Box<RunOrder>> {
        if !ended.is_plain_success() {
            return None;
        }
        let order = self.next_up.take(self.slot, now)?;
        self.maker.ports.fault_points.point("caller");
        Some(order)
    }

    /// Tells the queue how a call has ended, and what is under way since.
    fn report(&mut self, finished: Finished, went_on_with: Option<JobId>) {
        self.before = self.last.replace(finished.clone());
        self.announce(Some(Report {
            last: finished,
            before: None,
            went_on_with,
        }));
    }

    /// A queue that is gone does not hear it; the next one attaches itself and does.
    fn announce(&self, report: Option<Report>) {
        if let Some(queue) = &self.queue {
            let _ = queue.cast(QueueMsg::Ready {
                slot: self.slot,
                generation: self.generation,
                report: report.map(Box::new),
            });
        }
    }

    /// What a call leaves to be counted: nothing that anybody waits for.
    fn note(&mut self, made: &UnderWay, outcome: &GlmOutcome, ended: Moment) {
        self.count(made, ended);
        self.sample(&made.dispatch, outcome);
    }

    /// Counts how long the slot was idle before a call.
    fn count(&mut self, made: &UnderWay, ended: Moment) {
        let job = &made.dispatch.job;
        if let Some((since, at)) = self.idle_since {
            let due = job
                .run_at
                .map_or(job.created_at, |at| at.max(job.created_at));
            // One that comes back after a pause of its own was not kept waiting by the slot.
            if due <= at && attempt_of(&made.dispatch).0 == 1 {
                let gap = made.begun.saturating_duration_since(since);
                self.maker.ports.meters.slot_gap(gap);
            }
        }
        self.idle_since = Some(ended);
    }

    /// Has the prompt counted again, if GLM said how long it was.
    fn sample(&self, dispatch: &Dispatch, outcome: &GlmOutcome) {
        let counted_tokens = match outcome {
            GlmOutcome::Answered(answer) => answer.usage.prompt_tokens,
            GlmOutcome::Failed(_, usage) => usage.prompt_tokens,
            GlmOutcome::Aborted | GlmOutcome::NotSent => 0,
        };
        if counted_tokens == 0 || self.maker.ports.tokens.is_none() {
            return;
        }
        // While the supervisor restarts the actors no queue hears of it; it is one sample less.
        if let Some(refs) = &self.maker.runtime.borrow().refs {
            let _ = refs.cost.cast(CostMsg::Answered(Sample {
                model: dispatch.job.sent_to().to_owned(),
                request: Arc::clone(&dispatch.request),
                counted_tokens,
            }));
        }
    }
}
