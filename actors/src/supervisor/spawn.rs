//! Starts actors, each linked to the supervisor, and shows them to the facade.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ractor::{Actor, ActorRef, SpawnErr};

use super::{Row, SupervisorState};
use crate::breaker::{BreakerArgs, CircuitBreakerActor};
use crate::caller::{CallerArgs, GlmCallerActor};
use crate::cost::{CostActor, CostArgs};
use crate::protocol::SupervisorMsg;
use crate::queue::{QueueActor, QueueArgs};
use crate::runtime::Refs;
use crate::store::{StoreActor, StoreArgs};
use onelane_core::model::SlotId;

impl SupervisorState {
    pub(super) async fn spawn_callers(
        &mut self,
        myself: &ActorRef<SupervisorMsg>,
        slots: &[SlotId],
    ) -> Result<(), SpawnErr> {
        for slot in slots {
            let args = CallerArgs {
                slot: *slot,
                ports: self.args.ports.clone(),
                runtime: self.args.runtime.subscribe(),
                next_up: self.next_up.clone(),
            };
            let (caller, task) =
                Actor::spawn_linked(None, GlmCallerActor, args, myself.get_cell()).await?;
            self.keep(task);
            self.callers.insert(*slot, caller);
        }
        Ok(())
    }

    /// Spawns the missing actors from `first` on and shows them.
    pub(super) async fn spawn_from(
        &mut self,
        myself: &ActorRef<SupervisorMsg>,
        first: Row,
    ) -> Result<(), SpawnErr> {
        let parent = myself.get_cell();
        let ports = self.args.ports.clone();
        if first <= Row::Store || self.store.is_none() {
            let args = StoreArgs {
                ports: ports.clone(),
                epoch: self.epoch.clone(),
                own_thread: self.args.own_thread,
                calls_out: self.calls_out.clone(),
            };
            let (store, task) = Actor::spawn_linked(None, StoreActor, args, parent.clone()).await?;
            self.keep(task);
            self.store = Some(store);
        }
        if first <= Row::Breaker || self.breaker.is_none() {
            let args = BreakerArgs {
                settings: ports.settings.borrow().breaker,
                ports: ports.clone(),
                watch: self.args.breaker.clone(),
            };
            let (breaker, task) =
                Actor::spawn_linked(None, CircuitBreakerActor, args, parent.clone()).await?;
            self.keep(task);
            self.breaker = Some(breaker);
        }
        if first <= Row::Cost || self.cost.is_none() {
            let args = CostArgs {
                ports: ports.clone(),
                watch: self.args.totals.clone(),
            };
            let (cost, task) = Actor::spawn_linked(None, CostActor, args, parent.clone()).await?;
            self.keep(task);
            self.cost = Some(cost);
        }
        let (Some(store), Some(breaker), Some(cost)) = (&self.store, &self.breaker, &self.cost)
        else {
            return Err(SpawnErr::StartupFailed("an actor is missing".into()));
        };
        let is_idle = Arc::new(AtomicBool::new(false));
        let args = QueueArgs {
            ports,
            generation: self.generation,
            supervisor: myself.clone(),
            store: store.clone(),
            breaker: breaker.clone(),
            cost: cost.clone(),
            callers: self.callers.clone(),
            aborts: self.aborts.clone(),
            next_up: self.next_up.clone(),
            calls_out: self.calls_out.clone(),
            watch: self.args.lane.clone(),
            is_idle: Arc::clone(&is_idle),
            is_stopping: Arc::clone(&self.is_stopping),
        };
        let refs = (store.clone(), breaker.clone(), cost.clone());
        let (queue, task) = Actor::spawn_linked(None, QueueActor, args, parent).await?;
        self.keep(task);
        self.queue = Some(queue.clone());
        let (store, breaker, cost) = refs;
        let generation = self.generation;
        self.args.runtime.send_modify(|runtime| {
            runtime.generation = generation;
            runtime.refs = Some(Refs {
                store,
                breaker,
                cost,
                queue,
                is_idle,
            });
        });
        Ok(())
    }
}
