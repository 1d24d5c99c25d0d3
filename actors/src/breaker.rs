//! The circuit breaker actor: owns the breaker, shows it on a watch, and wakes the queue when an
//! open breaker lets a probe through.

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::watch;

use crate::Ports;
use crate::protocol::{BreakerMsg, QueueMsg};
use crate::timer::Timer;
use onelane_core::judge::breaker::Breaker;
use onelane_core::model::{BreakerSettings, BreakerSnapshot};

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
    timer: Timer,
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
            timer: Timer::default(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<BreakerMsg>,
        message: BreakerMsg,
        state: &mut BreakerActorState,
    ) -> Result<(), ActorProcessingErr> {
        state.ports.fault_points.point("breaker");
        let now = state.ports.clock.now();
        let before = state.breaker.summary();
        let mut answer = None;
        let mut ordered = None;
        let mut tell_queue = false;
        match message {
            BreakerMsg::Attach {
                queue,
                stored,
                reply,
            } => {
                state.queue = Some(queue);
                if let Some(snapshot) = stored
                    && state.pristine
                {
                    state.breaker.restore(snapshot);
                }
                state.pristine = false;
                // The queue took the stored state; tell it the true one.
                state.tell_queue(None);
                state.show();
                state.arm(&myself);
                let _ = reply.send(());
                return Ok(());
            }
            BreakerMsg::Succeeded { reply } => {
                state.breaker.succeeded(now);
                answer = reply;
            }
            BreakerMsg::Failed {
                reason,
                at_once,
                reply,
            } => {
                if at_once {
                    state.breaker.trip(&reason, now);
                } else {
                    state.breaker.failed(&reason, now);
                }
                answer = Some(reply);
            }
            BreakerMsg::Reset { reply } => {
                state.breaker.reset(now);
                ordered = Some(reply);
            }
            BreakerMsg::Open {
                reason,
                until,
                reply,
            } => {
                state.breaker.force_open(&reason, until, now);
                ordered = Some(reply);
            }
            BreakerMsg::Configure(settings) => {
                state.breaker.configure(settings);
                return Ok(());
            }
            BreakerMsg::Probe => {
                state.timer.cancel();
                state.breaker.tick(now);
                state.arm(&myself);
                tell_queue = true;
            }
        }
        state.pristine = false;
        let changed = state.breaker.summary() != before;
        if changed {
            state.arm(&myself);
        }
        state.show();
        if let Some(reply) = answer {
            let _ = reply.send(state.breaker.snapshot());
        }
        // An operator's word is obeyed and on disk when it is answered: the queue answers it.
        if ordered.is_some() || (tell_queue && changed) {
            state.tell_queue(ordered);
        }
        Ok(())
    }
}

impl BreakerActorState {
    /// Tells the queue of the breaker, when it did not ask for it itself. A queue that is gone drops the
    /// reply, and its sender asks again.
    fn tell_queue(&self, reply: Option<RpcReplyPort<BreakerSnapshot>>) {
        if let Some(queue) = &self.queue {
            let snapshot = self.breaker.snapshot();
            let _ = queue.cast(QueueMsg::Breaker { snapshot, reply });
        }
    }

    /// Shows the breaker on the watch.
    fn show(&self) {
        let snapshot = self.breaker.snapshot();
        self.watch.send_if_modified(|shown| {
            let changed = *shown != snapshot;
            if changed {
                *shown = snapshot;
            }
            changed
        });
    }

    /// Sets the timer of an open breaker.
    fn arm(&mut self, myself: &ActorRef<BreakerMsg>) {
        let now = self.ports.clock.now();
        self.timer
            .set(self.breaker.probe_at(), now, myself, BreakerMsg::Probe);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use ractor::call;
    use tokio::sync::mpsc;

    use super::*;
    use crate::conversations::Conversations;
    use crate::meters::Meters;
    use crate::ports::Clock;
    use crate::relay::Relays;
    use crate::testing::{MemoryStore, ScriptedGlm, SeededIds, SimClock, sample};
    use crate::{Events, FaultPoints};
    use onelane_core::model::{BreakerState, Settings, Wait};

    /// A queue that only listens.
    struct Listener(mpsc::UnboundedSender<BreakerSnapshot>);

    impl Actor for Listener {
        type Msg = QueueMsg;
        type State = ();
        type Arguments = ();

        async fn pre_start(
            &self,
            _myself: ActorRef<QueueMsg>,
            _args: (),
        ) -> Result<(), ActorProcessingErr> {
            Ok(())
        }

        async fn handle(
            &self,
            _myself: ActorRef<QueueMsg>,
            message: QueueMsg,
            _state: &mut (),
        ) -> Result<(), ActorProcessingErr> {
            if let QueueMsg::Breaker { snapshot, reply } = message {
                self.0.send(snapshot.clone())?;
                if let Some(reply) = reply {
                    reply.send(snapshot)?;
                }
            }
            Ok(())
        }
    }

    struct World {
        breaker: ActorRef<BreakerMsg>,
        queue: ActorRef<QueueMsg>,
        told: mpsc::UnboundedReceiver<BreakerSnapshot>,
        shown: watch::Receiver<BreakerSnapshot>,
        clock: SimClock,
    }

    impl World {
        async fn new() -> Self {
            let (watch, shown) = watch::channel(BreakerSnapshot::default());
            let clock = SimClock::starting_at(sample::START);
            let ports = Ports {
                instance: 1,
                store: Arc::new(MemoryStore::new()),
                glm: Arc::new(ScriptedGlm::answering(Duration::ZERO)),
                clock: Arc::new(clock.clone()),
                ids: Arc::new(SeededIds::new(1)),
                settings: watch::channel(Arc::new(Settings::default())).1,
                events: Events::new(1),
                relays: Relays::default(),
                conversations: Conversations::default(),
                tokens: None,
                meters: Meters::default(),
                fault_points: FaultPoints::default(),
            };
            let args = BreakerArgs {
                ports,
                settings: BreakerSettings::default(),
                watch,
            };
            let (breaker, _) = Actor::spawn(None, CircuitBreakerActor, args).await.unwrap();
            let (tell, told) = mpsc::unbounded_channel();
            let (queue, _) = Actor::spawn(None, Listener(tell), ()).await.unwrap();
            Self {
                breaker,
                queue,
                told,
                shown,
                clock,
            }
        }

        /// Attaches a queue that brings what is stored, and answers what it is told.
        async fn attach(&mut self, stored: Option<BreakerSnapshot>) -> BreakerSnapshot {
            let queue = self.queue.clone();
            call!(self.breaker, |reply| BreakerMsg::Attach {
                queue,
                stored,
                reply,
            })
            .unwrap();
            self.told.recv().await.unwrap()
        }

        async fn open(&mut self, for_ms: Option<u64>) -> BreakerSnapshot {
            let until = for_ms.map(|ms| self.clock.now().plus_ms(ms));
            let opened = call!(self.breaker, |reply| BreakerMsg::Open {
                reason: "maintenance".to_owned(),
                until,
                reply,
            })
            .unwrap();
            assert_eq!(self.told.recv().await.as_ref(), Some(&opened));
            opened
        }

        async fn fail(&self, at_once: bool) -> BreakerSnapshot {
            call!(self.breaker, |reply| BreakerMsg::Failed {
                reason: "502".to_owned(),
                at_once,
                reply,
            })
            .unwrap()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn opened_for_a_time_it_wakes_by_itself_and_not_before() {
        let mut world = World::new().await;
        world.attach(None).await;
        let opened = world.open(Some(90_500)).await;
        assert!(opened.forced);
        let woken = world.told.recv().await.unwrap();
        assert_eq!(woken.state, BreakerState::HalfOpen);
        assert_eq!(world.clock.now(), opened.probe_at.unwrap().until);
        assert_eq!(*world.shown.borrow(), woken);
    }

    #[tokio::test(start_paused = true)]
    async fn an_operator_outdoes_an_open_breaker_and_its_timer() {
        let mut world = World::new().await;
        world.attach(None).await;
        assert_eq!(world.fail(true).await.state, BreakerState::Open);
        let opened = world.open(None).await;
        tokio::time::sleep(Duration::from_secs(86_400)).await;
        assert_eq!(*world.shown.borrow(), opened);
        assert!(world.told.is_empty());
        let closed = call!(world.breaker, |reply| BreakerMsg::Reset { reply }).unwrap();
        assert_eq!(closed.state, BreakerState::Closed);
        assert_eq!(world.told.recv().await, Some(closed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_forced_breaker_comes_back_from_the_store_and_ends_in_time() {
        let mut world = World::new().await;
        world.attach(None).await;
        let stored = world.open(Some(10_000)).await;
        let mut restarted = World::new().await;
        assert_eq!(restarted.attach(Some(stored.clone())).await, stored);
        let woken = restarted.told.recv().await.unwrap();
        assert_eq!(woken.state, BreakerState::HalfOpen);
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_that_starts_anew_does_not_undo_what_happened_meanwhile() {
        let mut world = World::new().await;
        let stored = BreakerSnapshot {
            state: BreakerState::Open,
            probe_at: Some(Wait::from(sample::START, 3_600_000)),
            ..BreakerSnapshot::default()
        };
        world.attach(Some(stored.clone())).await;
        call!(world.breaker, |reply| BreakerMsg::Reset { reply }).unwrap();
        world.told.recv().await.unwrap();
        assert_eq!(world.attach(Some(stored)).await.state, BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn outcomes_are_shown_and_told_to_nobody_who_did_not_ask() {
        let mut world = World::new().await;
        world.attach(None).await;
        assert_eq!(world.fail(false).await.state, BreakerState::Closed);
        world
            .breaker
            .cast(BreakerMsg::Succeeded { reply: None })
            .unwrap();
        let after = world.fail(false).await;
        assert_eq!((after.window_calls, after.window_failures), (3, 2));
        assert_eq!(after.consecutive_failures, 1);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(*world.shown.borrow(), after);
        assert!(world.told.is_empty());
    }
}
