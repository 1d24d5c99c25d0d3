//! How a queue begins: from what the store holds, attached to the breaker and to the callers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ractor::{ActorProcessingErr, ActorRef};
use tokio::time::Instant;

use super::waiters::Waiters;
use super::{QueueArgs, QueueState};
use crate::Ports;
use crate::protocol::{BreakerMsg, CallerMsg, QueueMsg, StoreMsg};
use crate::publisher::Publisher;
use crate::timer::Timer;
use onelane_core::model::{CallRecord, Settings, Timestamp, limits};
use onelane_core::money::budget::{Budgets, Ledger};
use onelane_core::scheduler::Scheduler;

impl QueueState {
    /// The queue as the store remembers it.
    pub(super) async fn recover(
        myself: &ActorRef<QueueMsg>,
        args: QueueArgs,
    ) -> Result<Self, ActorProcessingErr> {
        let queue = myself.clone();
        let mut recovered = args
            .store
            .call(|reply| StoreMsg::Recover { queue, reply }, None)
            .await?
            .success_or("the store actor ended before it answered")??;
        let settings = Arc::clone(&args.ports.settings.borrow());
        let (begun, now) = (Instant::now(), args.ports.clock.now());
        recovered.instance = Some(args.ports.instance);
        let stored_breaker = recovered.breaker.clone();
        args.watch.send_replace(recovered.lane.clone());
        let publisher = Publisher::new(
            args.ports.events.clone(),
            args.cost.clone(),
            args.ports.meters.clone(),
            recovered.lane.clone(),
        );
        let mut scheduler = Scheduler::recover(
            recovered,
            Arc::clone(&settings),
            args.callers.keys().copied(),
            args.generation,
            now,
        );
        scheduler.hear(now, 0);
        if !settings.budgets.is_empty() {
            let ledger = ledger(&args.store, &settings, now).await?;
            scheduler.load_budgets(&ledger, &settings, now);
        }
        if scheduler.has_pace() {
            let since = scheduler.pace_goes_back_to(now);
            scheduler.restore_pace(&calls_since(&args.ports, since).await?, now);
        }
        let mut state = Self {
            ports: args.ports,
            generation: args.generation,
            supervisor: args.supervisor,
            store: args.store,
            breaker: args.breaker,
            callers: args.callers,
            aborts: args.aborts,
            next_up: args.next_up,
            calls_out: args.calls_out,
            to_come: None,
            laid: None,
            spare: None,
            deferred: VecDeque::new(),
            settings,
            scheduler,
            watch: args.watch,
            publisher,
            waiters: Waiters::default(),
            asked_for: BTreeSet::new(),
            inserting: BTreeMap::new(),
            timer: Timer::default(),
            begun,
            is_idle: args.is_idle,
            is_stopping: args.is_stopping,
        };
        // Until it is attached its state is not yet the true one. One that fails here is being restarted, and
        // this queue after it.
        let attached = state.breaker.call(
            |reply| BreakerMsg::Attach {
                queue: myself.clone(),
                stored: stored_breaker,
                reply,
            },
            None,
        );
        let _ = attached.await;
        let configure = BreakerMsg::Configure(state.settings.breaker);
        let _ = state.breaker.cast(configure);
        for caller in state.callers.values() {
            state.attach(caller, myself);
        }
        if state.is_stopping.load(Ordering::Relaxed) {
            state.scheduler.shuts_down();
        }
        state.step(|scheduler| scheduler.start(now))?;
        state.ask_for_callers();
        state.arm(myself);
        Ok(state)
    }

    /// Has a caller report to this queue. A caller that is gone is about to be restarted, and this queue
    /// after it.
    pub(super) fn attach(&self, caller: &ActorRef<CallerMsg>, myself: &ActorRef<QueueMsg>) {
        let _ = caller.cast(CallerMsg::Attach {
            generation: self.generation,
            queue: myself.clone(),
        });
    }

    /// Reckons the budgets anew, by these settings.
    pub(super) async fn load_budgets(
        &mut self,
        settings: &Settings,
        now: Timestamp,
    ) -> Result<(), ActorProcessingErr> {
        let ledger = ledger(&self.store, settings, now).await?;
        self.scheduler.load_budgets(&ledger, settings, now);
        Ok(())
    }
}

/// The sums that budgets start from, with everything that this queue has asked the store to write.
async fn ledger(
    store: &ActorRef<StoreMsg>,
    settings: &Settings,
    now: Timestamp,
) -> Result<Ledger, ActorProcessingErr> {
    let month = Budgets::since(&settings.calendar, now);
    let ledger = store
        .call(|reply| StoreMsg::Ledger { month, reply }, None)
        .await?
        .success_or("the store actor ended before it answered")??;
    Ok(ledger)
}

/// The calls that the lanes' pace goes on from.
async fn calls_since(
    ports: &Ports,
    since: Timestamp,
) -> Result<Vec<CallRecord>, ActorProcessingErr> {
    let store = Arc::clone(&ports.store);
    let read = move || store.calls_since(since, limits::PACE_LOG_STARTS_MAX);
    Ok(ports.fault_points.off_the_workers(read).await??)
}
