//! The order that lies ready for a busy caller: after an answer that changes nothing it goes on with it at once, without
//! asking the queue. The queue takes it back before it hears anything else, so that a cancel, a pause or a more urgent
//! job comes first; which of the two has it is decided by one lock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use onelane_core::model::{SlotId, Timestamp};
use onelane_core::scheduler::slot::attempt_of;

use crate::aborts::Aborts;
use crate::protocol::RunOrder;

/// The orders that lie ready, by slot. Supervisor, queues and callers share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct NextUp {
    orders: Arc<Mutex<BTreeMap<SlotId, Laid>>>,
    aborts: Aborts,
}

/// An order that lies ready.
#[derive(Debug)]
struct Laid {
    order: Box<RunOrder>,
    until: Option<Moment>,
}

/// A moment by the uptime and by the wall clock: of a process that was frozen or a machine that slept, one of them tells.
pub(crate) type Moment = (Instant, Timestamp);

impl NextUp {
    pub(crate) fn new(aborts: Aborts) -> Self {
        Self {
            orders: Arc::default(),
            aborts,
        }
    }

    /// Lays an order ready until something else is due: the queue may hear of that later than the caller of its answer.
    pub(crate) fn lay(&self, slot: SlotId, order: Box<RunOrder>, until: Option<Moment>) {
        self.lock().insert(slot, Laid { order, until });
    }

    /// Takes the order of a slot back. `None`: its caller has gone on with it.
    pub(crate) fn take_back(&self, slot: SlotId) -> Option<Box<RunOrder>> {
        self.lock().remove(&slot).map(|laid| laid.order)
    }

    /// The caller of a slot goes on with what lies ready for it, if something does. From now on the call can be closed.
    pub(crate) fn take(&self, slot: SlotId, now: Moment) -> Option<Box<RunOrder>> {
        let mut orders = self.lock();
        let until = orders.get(&slot)?.until;
        if until.is_some_and(|until| until.0 <= now.0 || until.1 <= now.1) {
            return None;
        }
        let order = orders.remove(&slot)?.order;
        // Under the lock: whoever does not find the order finds its call.
        let (job, attempt) = (order.dispatch.job.id, attempt_of(&order.dispatch));
        self.aborts.put(slot, job, attempt, order.abort.clone());
        Some(order)
    }

    /// Nothing lies ready any more: the queue that laid it is gone.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SlotId, Laid>> {
        // The map is whole at every moment: a panic elsewhere can't have left it half changed.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::calls_out::CallsOut;
    use crate::testing::sample;
    use onelane_core::model::{Dispatch, Settings};

    #[test]
    fn an_order_that_lies_ready_is_the_queues_again_once_something_else_is_due() {
        let new = sample::new_job(1);
        let dispatch = Dispatch {
            job: new.job,
            request: Arc::new(new.request),
        };
        let order = RunOrder {
            dispatch: Arc::new(dispatch),
            settings: Arc::new(Settings::default()),
            abort: CancellationToken::new(),
            ready: None,
            out: CallsOut::default().one_more(),
        };
        let (next_up, slot) = (NextUp::default(), SlotId(0));
        let begun = Instant::now();
        let at = |up_ms, wall_ms| {
            let uptime = begun + Duration::from_millis(up_ms);
            (uptime, sample::START.plus_ms(wall_ms))
        };
        next_up.lay(slot, Box::new(order), Some(at(10, 10)));
        // The wall clock set back, a machine that slept, and time that passed for both.
        for late in [at(10, 0), at(0, 10), at(11, 12)] {
            assert!(next_up.take(slot, late).is_none());
        }
        let order = next_up.take_back(slot).expect("it lies there");
        next_up.lay(slot, order, Some(at(10, 10)));
        let order = next_up.take(slot, at(9, 9)).expect("in time");
        next_up.lay(slot, order, None);
        assert!(next_up.take(slot, at(99, 99)).is_some());
    }
}
