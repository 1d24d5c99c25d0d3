//! The circuit breaker actor: owns the breaker, shows it on a watch, and wakes the queue when an
//! open breaker lets a probe through.

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::Ports;
use crate::model::{BreakerSettings, BreakerSnapshot, BreakerState, Timestamp, limits};
use crate::policy::breaker::Breaker;
use crate::queue::QueueMsg;

/// The breaker's protocol.
#[derive(Debug)]
pub enum BreakerMsg {
    /// Report changes to this queue, and take over the state that was stored, unless calls have
    /// been recorded since.
    Attach {
        /// The queue.
        queue: ActorRef<QueueMsg>,
        /// The breaker as the store has it.
        stored: Option<BreakerSnapshot>,
    },
    /// A call brought an answer.
    Succeeded {
        /// The breaker after it; `None`: the sender does not wait.
        reply: Option<RpcReplyPort<BreakerSnapshot>>,
    },
    /// A call failed in a way that says something of the service.
    Failed {
        /// The failure in short.
        reason: String,
        /// The breaker after it.
        reply: RpcReplyPort<BreakerSnapshot>,
    },
    /// An operator closes it.
    Reset {
        /// The breaker after it.
        reply: RpcReplyPort<BreakerSnapshot>,
    },
    /// An operator opens it: no call goes out until an operator resets it.
    Open {
        /// What the operator says.
        reason: String,
        /// When it lets a probe through by itself; `None`: only an operator ends it.
        until: Option<Timestamp>,
        /// The breaker after it.
        reply: RpcReplyPort<BreakerSnapshot>,
    },
    /// The settings changed.
    Configure(BreakerSettings),
    /// The cool-down of the opening with this number may be over.
    Probe {
        /// The opening.
        opening: u32,
    },
}

pub(crate) struct BreakerArgs {
    pub(crate) ports: Ports,
    pub(crate) settings: BreakerSettings,
    pub(crate) watch: watch::Sender<BreakerSnapshot>,
}

pub(crate) struct BreakerActorState {
    ports: Ports,
    breaker: Breaker,
    pristine: bool,
    queue: Option<ActorRef<QueueMsg>>,
    watch: watch::Sender<BreakerSnapshot>,
    timer: Option<AbortHandle>,
}

pub(crate) struct CircuitBreakerActor;

impl Actor for CircuitBreakerActor {
    type Msg = BreakerMsg;
    type State = BreakerActorState;
    type Arguments = BreakerArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<BreakerMsg>,
        args: BreakerArgs,
    ) -> Result<BreakerActorState, ActorProcessingErr> {
        let now = args.ports.clock.now();
        Ok(BreakerActorState {
            breaker: Breaker::new(args.settings, now),
            ports: args.ports,
            pristine: true,
            queue: None,
            watch: args.watch,
            timer: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<BreakerMsg>,
        message: BreakerMsg,
        state: &mut BreakerActorState,
    ) -> Result<(), ActorProcessingErr> {
        state.ports.faults.point("breaker");
        let now = state.ports.clock.now();
        let before = state.breaker.state();
        let mut answer = None;
        let mut tell_queue = false;
        match message {
            BreakerMsg::Attach { queue, stored } => {
                state.queue = Some(queue);
                if let Some(snapshot) = stored
                    && state.pristine
                {
                    state.breaker.restore(snapshot);
                }
                // The queue took the stored state; tell it what is so.
                state.publish(true);
                state.arm(&myself);
                return Ok(());
            }
            BreakerMsg::Succeeded { reply } => {
                state.pristine = false;
                state.breaker.succeeded(now);
                answer = reply;
            }
            BreakerMsg::Failed { reason, reply } => {
                state.pristine = false;
                state.breaker.failed(&reason, now);
                answer = Some(reply);
            }
            BreakerMsg::Reset { reply } => {
                state.breaker.reset(now);
                answer = Some(reply);
                tell_queue = true;
            }
            BreakerMsg::Open {
                reason,
                until,
                reply,
            } => {
                state.breaker.force_open(&reason, until, now);
                answer = Some(reply);
                tell_queue = true;
            }
            BreakerMsg::Configure(settings) => state.breaker.configure(settings),
            BreakerMsg::Probe { opening } => {
                if state.breaker.snapshot().openings == opening {
                    state.breaker.tick(now);
                    state.arm(&myself);
                    tell_queue = true;
                }
            }
        }
        let changed = state.breaker.state() != before;
        if changed && state.breaker.state() == BreakerState::Open {
            state.arm(&myself);
        }
        if let Some(reply) = answer {
            let _ = reply.send(state.breaker.snapshot());
        }
        state.publish(tell_queue && changed);
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<BreakerMsg>,
        state: &mut BreakerActorState,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(timer) = state.timer.take() {
            timer.abort();
        }
        Ok(())
    }
}

impl BreakerActorState {
    /// Shows the breaker on the watch, and to the queue when it did not ask for it itself.
    fn publish(&self, tell_queue: bool) {
        let snapshot = self.breaker.snapshot();
        if let Some(queue) = self.queue.as_ref().filter(|_| tell_queue) {
            let _ = queue.cast(QueueMsg::Breaker(snapshot.clone()));
        }
        self.watch.send_if_modified(|shown| {
            let changed = *shown != snapshot;
            if changed {
                *shown = snapshot;
            }
            changed
        });
    }

    /// Sets the timer of an open breaker. The wall clock may jump: it sleeps in short pieces.
    fn arm(&mut self, myself: &ActorRef<BreakerMsg>) {
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
        let Some(at) = self.breaker.probe_at() else {
            return;
        };
        let opening = self.breaker.snapshot().openings;
        let ms = at.since(self.ports.clock.now()).min(limits::TICK_MS_MAX);
        let myself = myself.clone();
        let sleeper = tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
            let _ = myself.cast(BreakerMsg::Probe { opening });
        });
        self.timer = Some(sleeper.abort_handle());
    }
}
