//! How many tries are under way, and to whom: one receiver that is slow must not hold up the others, nor
//! callbacks what operators are to be told.

use std::collections::{BTreeMap, BTreeSet};

use onelane_core::model::{Delivery, DeliveryId, DestinationId, Receiver, Timestamp};
use onelane_core::notify::delivery::DueQuery;

/// Receivers that are remembered for having been silent.
const SILENT_MAX: usize = 1_024;

/// What is under way.
#[derive(Debug)]
pub(super) struct Limiter {
    max: usize,
    under_way: BTreeMap<DeliveryId, Receiver>,
    /// Those that gave no answer when they were last asked.
    silent: BTreeSet<Receiver>,
    host: Option<DestinationId>,
}

impl Limiter {
    /// At most `max` at once. A receiver has half of them, and one while it is silent; silent ones
    /// together have half; and a quarter is kept for endpoints.
    pub(super) const fn new(max: usize) -> Self {
        Self {
            max,
            under_way: BTreeMap::new(),
            silent: BTreeSet::new(),
            host: None,
        }
    }

    /// What may be sent now. `endpoints` are those that are configured, each with whether it is on;
    /// `callbacks` says whether callbacks have a way.
    pub(super) fn query(
        &self,
        now: Timestamp,
        endpoints: impl Iterator<Item = (Receiver, bool)>,
        callbacks: bool,
    ) -> DueQuery {
        let mut room = BTreeMap::new();
        for (receiver, is_on) in endpoints {
            let wanted = self.room(&receiver);
            room.insert(receiver.destination_by_hand(), wanted);
            room.insert(receiver.destination(), if is_on { wanted } else { 0 });
        }
        let busy = self.under_way.values().chain(&self.silent);
        for host in busy.filter(|receiver| is_host(receiver)) {
            room.insert(host.destination(), self.room(host));
        }
        DueQuery {
            now,
            except: self.under_way.keys().copied().collect(),
            room,
            each_host: self.half(),
            hosts: if callbacks { self.hosts_left() } else { 0 },
            limit: self.max.saturating_sub(self.under_way.len()),
            after: self.host,
        }
    }

    /// Notes the last host that was looked at: the next look begins after it.
    pub(super) const fn looked_at(&mut self, host: Option<DestinationId>) {
        self.host = host;
    }

    /// Begins a try, unless its receiver has enough.
    pub(super) fn begin(&mut self, delivery: &Delivery) -> bool {
        let receiver = delivery.target.receiver();
        let begins = self.under_way.len() < self.max && self.room(&receiver) > 0;
        if begins {
            self.under_way.insert(delivery.id, receiver);
        }
        begins
    }

    /// A try has ended; `heard` says whether there was an answer, whatever it was.
    pub(super) fn end(&mut self, id: DeliveryId, heard: bool) {
        let Some(receiver) = self.under_way.remove(&id) else {
            return;
        };
        if heard {
            self.silent.remove(&receiver);
        } else {
            if self.silent.len() >= SILENT_MAX {
                self.silent.pop_first();
            }
            self.silent.insert(receiver);
        }
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    fn room(&self, receiver: &Receiver) -> usize {
        let of = |wanted: &Receiver| self.under_way.values().filter(|r| *r == wanted).count();
        if !self.silent.contains(receiver) {
            return self.half().saturating_sub(of(receiver));
        }
        let silent = self.under_way.values();
        let silent = silent.filter(|receiver| self.silent.contains(*receiver));
        let left = self.half().saturating_sub(silent.count());
        left.min(1_usize.saturating_sub(of(receiver)))
    }

    fn half(&self) -> usize {
        self.max.div_ceil(2)
    }

    fn hosts_left(&self) -> usize {
        let kept = (self.max / 4).max(1);
        let max = self.max.saturating_sub(kept).max(1);
        let hosts = self.under_way.values().filter(|receiver| is_host(receiver));
        max.saturating_sub(hosts.count())
    }
}

const fn is_host(receiver: &Receiver) -> bool {
    matches!(receiver, Receiver::Host(_))
}

#[cfg(test)]
mod tests {
    use onelane_core::model::{CallbackUrl, Notice, Target};
    use onelane_core::notify::delivery::made;
    use onelane_core::testing::sample::START;

    use super::*;

    fn delivery(id: u64, target: Target) -> Delivery {
        made(DeliveryId(id), "s", Notice::Test, target, START)
    }

    fn to_host(id: u64, host: &str) -> Delivery {
        delivery(
            id,
            Target::Callback(CallbackUrl(format!("https://{host}/"))),
        )
    }

    fn to_ops(id: u64) -> Delivery {
        delivery(id, Target::Endpoint("ops".to_owned()))
    }

    /// Begins as many as it may, of these, and tells how many.
    fn begin(limiter: &mut Limiter, some: impl Iterator<Item = Delivery>) -> usize {
        some.filter(|delivery| limiter.begin(delivery)).count()
    }

    #[test]
    fn a_receiver_has_half_and_one_while_it_is_silent() {
        let mut limiter = Limiter::new(8);
        let many = |from: u64| (from..from + 9).map(|id| to_host(id, "a.test"));
        assert_eq!(begin(&mut limiter, many(0)), 4);
        for id in 0..4 {
            limiter.end(DeliveryId(id), id > 0);
        }
        assert_eq!(begin(&mut limiter, many(10)), 4, "the last one was heard");
        (10..14).for_each(|id| limiter.end(DeliveryId(id), false));
        assert_eq!(begin(&mut limiter, many(20)), 1);
        limiter.end(DeliveryId(20), true);
        assert_eq!(begin(&mut limiter, many(30)), 4);
    }

    #[test]
    fn the_silent_leave_room_for_the_others_and_callbacks_for_endpoints() {
        let mut limiter = Limiter::new(8);
        for n in 0..20 {
            limiter.begin(&to_host(n, &format!("h{n}.test")));
            limiter.end(DeliveryId(n), false);
        }
        let silent = (0..20).map(|n| to_host(n, &format!("h{n}.test")));
        assert_eq!(begin(&mut limiter, silent), 4);
        let none = std::iter::empty();
        let query = limiter.query(START, none, true);
        assert_eq!((query.hosts, query.limit), (2, 4));
        let others = (50..52).map(|n| to_host(n, &format!("other{n}.test")));
        assert_eq!(begin(&mut limiter, others), 2);
        assert_eq!(limiter.query(START, std::iter::empty(), true).hosts, 0);
        let ops = Receiver::Endpoint("ops".to_owned());
        let query = limiter.query(START, [(ops.clone(), true)].into_iter(), true);
        assert_eq!(query.room[&ops.destination()], 4);
        assert_eq!(begin(&mut limiter, (60..70).map(to_ops)), 2);
    }

    #[test]
    fn what_is_off_has_room_for_what_somebody_asks_for_alone() {
        let limiter = Limiter::new(8);
        let ops = Receiver::Endpoint("ops".to_owned());
        let query = limiter.query(START, [(ops.clone(), false)].into_iter(), false);
        assert_eq!(query.room[&ops.destination()], 0);
        assert_eq!(query.room[&ops.destination_by_hand()], 4);
        assert_eq!(query.hosts, 0, "nothing to sign callbacks with");
    }

    #[test]
    fn the_smallest_bound_lets_everybody_through_in_turn() {
        let mut limiter = Limiter::new(1);
        assert!(limiter.begin(&to_host(1, "a.test")));
        assert!(!limiter.begin(&to_ops(2)));
        limiter.end(DeliveryId(1), false);
        assert!(limiter.begin(&to_ops(2)));
        limiter.end(DeliveryId(2), true);
        assert!(limiter.begin(&to_host(1, "a.test")));
    }
}
