//! Which deliveries are over and may go.

use super::is_over;
use crate::model::{Delivery, DeliveryId, DeliveryStatus, Timestamp};

/// What of the deliveries may go, as far as one step has looked.
#[derive(Debug, Clone, Default)]
pub struct DeliveriesOver {
    /// May be forgotten.
    pub ended: Vec<DeliveryId>,
    /// Pending although their retries have ended.
    pub lapsed: Vec<Delivery>,
    /// Pending, and their delay began later than now: the clock was set back.
    pub set_back: Vec<DeliveryId>,
    /// What is left of [`OverQuery::excess`].
    pub excess: u64,
    /// Where the next step begins; `None`: all have been looked at.
    pub next: Option<DeliveryId>,
}

/// Which deliveries may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverQuery {
    /// Where this step begins.
    pub from: DeliveryId,
    /// Those that ended before this moment...
    pub ended_before: Timestamp,
    /// ...and so many of those that arrived, the oldest.
    pub excess: u64,
    /// Those that were put on their way before this moment and are pending have lapsed.
    pub lapsed_before: Timestamp,
    /// Now.
    pub now: Timestamp,
    /// How many are looked at.
    pub look_at: usize,
}

impl OverQuery {
    /// Notes what becomes of the next delivery in order.
    pub fn look(&mut self, delivery: Delivery, over: &mut DeliveriesOver) {
        let wait = delivery.next_try_at;
        if wait.is_some_and(|wait| wait.end(self.now) < wait.until) {
            over.set_back.push(delivery.id);
        }
        if is_over(&delivery, self.ended_before, &mut self.excess) {
            over.ended.push(delivery.id);
        } else if delivery.status == DeliveryStatus::Pending && delivery.since < self.lapsed_before
        {
            over.lapsed.push(delivery);
        }
        over.excess = self.excess;
    }
}
