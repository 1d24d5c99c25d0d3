//! The order that lies ready for a busy caller: after an answer that changes nothing it goes on with it at once, without
//! asking the queue. The queue takes it back before it hears anything else, so that a cancel, a pause or a more urgent
//! job comes first; which of the two has it is decided by one lock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use onelane_core::model::SlotId;
use onelane_core::scheduler::slot::attempt_of;

use crate::aborts::Aborts;
use crate::protocol::RunOrder;

/// The orders that lie ready, by slot. Supervisor, queues and callers share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct NextUp {
    orders: Arc<Mutex<BTreeMap<SlotId, Box<RunOrder>>>>,
    aborts: Aborts,
}

impl NextUp {
    pub(crate) fn new(aborts: Aborts) -> Self {
        Self {
            orders: Arc::default(),
            aborts,
        }
    }

    /// Lays an order ready.
    pub(crate) fn lay(&self, slot: SlotId, order: Box<RunOrder>) {
        self.lock().insert(slot, order);
    }

    /// Takes the order of a slot back. `None`: its caller has gone on with it.
    pub(crate) fn take_back(&self, slot: SlotId) -> Option<Box<RunOrder>> {
        self.lock().remove(&slot)
    }

    /// The caller of a slot goes on with what lies ready for it, if something does. From now on the call can be closed.
    pub(crate) fn take(&self, slot: SlotId) -> Option<Box<RunOrder>> {
        let mut orders = self.lock();
        let order = orders.remove(&slot)?;
        // Under the lock: whoever does not find the order finds its call.
        let (job, attempt) = (order.dispatch.job.id, attempt_of(&order.dispatch));
        self.aborts.put(slot, job, attempt, order.abort.clone());
        Some(order)
    }

    /// Nothing lies ready any more: the queue that laid it is gone.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SlotId, Box<RunOrder>>> {
        // The map is whole at every moment: a panic elsewhere can't have left it half changed.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
