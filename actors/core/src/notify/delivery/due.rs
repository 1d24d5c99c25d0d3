//! Which deliveries are sent next: each line's oldest, as many as its receiver may have. A line that may
//! have none is passed over in one step, however long it is.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Delivery, DeliveryId, DestinationId, DuePlace, Timestamp, Wait, limits};

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DueQuery {
    /// Now.
    pub now: Timestamp,
    /// Under way already.
    pub except: BTreeSet<DeliveryId>,
    /// How many are wanted of a line. Of another endpoint's none is: nobody knows where it is.
    pub room: BTreeMap<DestinationId, usize>,
    /// How many are wanted of the line of any other host.
    pub each_host: usize,
    /// How many are wanted of all hosts together.
    pub hosts: usize,
    /// How many are wanted of all.
    pub limit: usize,
    /// The host after which the look begins, so that each of many has its turn.
    pub after: Option<DestinationId>,
}

/// What is to be delivered.
#[derive(Debug, Clone, Default)]
pub struct DueDeliveries {
    /// Deliveries that are due.
    pub due: Vec<Delivery>,
    /// When the first of those is due that were passed over for no other reason; `None`: there is none.
    pub next: Option<Timestamp>,
    /// The last host that was looked at.
    pub host: Option<DestinationId>,
}

/// The pending deliveries of a store, in the order of their places.
pub trait DueIndex {
    /// Why they can't be read.
    type Error;

    /// The first at this place or after it.
    fn from(&mut self, place: DuePlace) -> Result<Option<DuePlace>, Self::Error>;

    /// The delivery of a place.
    fn delivery(&mut self, id: DeliveryId) -> Result<Delivery, Self::Error>;
}

/// Finds what is due.
pub fn find<I: DueIndex>(index: &mut I, query: &DueQuery) -> Result<DueDeliveries, I::Error> {
    let mut look = Look {
        index,
        query,
        found: DueDeliveries {
            host: query.after,
            ..DueDeliveries::default()
        },
        hosts_left: query.hosts,
    };
    let hosts = DestinationId::first_host();
    let begin = query.after.and_then(DestinationId::next).unwrap_or(hosts);
    look.walk(DestinationId::default(), |destination| {
        !destination.is_host()
    })?;
    if look.hosts_left > 0 && look.walk(begin, |_| true)? {
        look.walk(hosts, |destination| destination < begin)?;
    }
    Ok(look.found)
}

struct Look<'l, I> {
    index: &'l mut I,
    query: &'l DueQuery,
    found: DueDeliveries,
    hosts_left: usize,
}

impl<I: DueIndex> Look<'_, I> {
    /// Goes from line to line while they are `within`. Answers whether it came to the end.
    fn walk(
        &mut self,
        from: DestinationId,
        within: impl Fn(DestinationId) -> bool,
    ) -> Result<bool, I::Error> {
        let mut from = from;
        for _ in 0..limits::OUTLETS_LOOKED_AT_MAX {
            let Some(first) = self.index.from(DuePlace::first_of(from))? else {
                return Ok(true);
            };
            if !within(first.destination) {
                return Ok(true);
            }
            if self.left(first.destination) == 0 {
                return Ok(false);
            }
            self.take(first)?;
            match first.destination.next() {
                Some(next) => from = next,
                None => return Ok(true),
            }
        }
        // The rest has its turn in a moment.
        self.wait_until(self.query.now.plus_ms(limits::OUTLETS_AGAIN_MS));
        Ok(false)
    }

    /// How many more may be taken of lines like this one.
    fn left(&self, destination: DestinationId) -> usize {
        let left = self.query.limit.saturating_sub(self.found.due.len());
        match destination.is_host() {
            true => left.min(self.hosts_left),
            false => left,
        }
    }

    fn room(&self, destination: DestinationId) -> usize {
        let room = self.query.room.get(&destination).copied();
        let other = match destination.is_host() {
            true => self.query.each_host,
            false => 0,
        };
        room.unwrap_or(other).min(self.left(destination))
    }

    /// Takes of one line what is due and has room.
    fn take(&mut self, first: DuePlace) -> Result<(), I::Error> {
        let destination = first.destination;
        if destination.is_host() {
            self.found.host = Some(destination);
        }
        let mut room = self.room(destination);
        let mut place = first;
        while room > 0 {
            if !self.query.except.contains(&place.id) {
                let mut delivery = None;
                if place.due > self.query.now {
                    let waits = self.index.delivery(place.id)?;
                    // One whose delay began in the future met a clock that was set back a moment ago: it goes now
                    // rather than wait for longer than it was to.
                    let begun = |wait: Wait| wait.end(self.query.now) == wait.until;
                    if waits.next_try_at.is_none_or(begun) {
                        self.wait_until(place.due);
                        return Ok(());
                    }
                    delivery = Some(waits);
                }
                self.found.due.push(match delivery {
                    Some(delivery) => delivery,
                    None => self.index.delivery(place.id)?,
                });
                room -= 1;
                self.hosts_left -= usize::from(destination.is_host());
            }
            let after = DuePlace {
                id: DeliveryId(place.id.0.saturating_add(1)),
                ..place
            };
            match self.index.from(after)? {
                Some(next) if next.destination == destination => place = next,
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    fn wait_until(&mut self, at: Timestamp) {
        let next = self.found.next.unwrap_or(at);
        self.found.next = Some(next.min(at));
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::model::{CallbackUrl, Notice, Receiver, Target};
    use crate::notify::delivery::made;
    use crate::testing::sample::START;

    /// Deliveries in memory, which counts how often it was asked for a place.
    #[derive(Default)]
    struct Index {
        rows: BTreeMap<DuePlace, Delivery>,
        asked: usize,
    }

    impl DueIndex for Index {
        type Error = Infallible;

        fn from(&mut self, place: DuePlace) -> Result<Option<DuePlace>, Infallible> {
            self.asked += 1;
            Ok(self.rows.range(place..).next().map(|(place, _)| *place))
        }

        fn delivery(&mut self, id: DeliveryId) -> Result<Delivery, Infallible> {
            let row = self.rows.values().find(|row| row.id == id);
            Ok(row.unwrap().clone())
        }
    }

    impl Index {
        /// Adds `count` deliveries to this host.
        fn with_host(mut self, host: &str, count: u64) -> Self {
            for _ in 0..count {
                let target =
                    Target::Callback(CallbackUrl(format!("https://{host}/{}", self.rows.len())));
                self.add(target, START);
            }
            self
        }

        fn add(&mut self, target: Target, at: Timestamp) {
            let id = DeliveryId(self.rows.len() as u64 + 1);
            let mut row = made(id, "s", Notice::Test, target, at);
            row.by_hand = false;
            row.since = START;
            row.next_try_at = Some(Wait::between(START, at));
            self.rows.insert(row.place().unwrap(), row);
        }
    }

    fn query() -> DueQuery {
        DueQuery {
            now: START,
            each_host: 2,
            hosts: 6,
            limit: 8,
            ..DueQuery::default()
        }
    }

    fn targets(found: &DueDeliveries) -> Vec<String> {
        let name = |row: &Delivery| match row.target.receiver() {
            Receiver::Endpoint(name) | Receiver::Host(name) => name,
        };
        found.due.iter().map(name).collect()
    }

    fn found(index: &mut Index, query: &DueQuery) -> DueDeliveries {
        let Ok(found) = find(index, query);
        found
    }

    #[test]
    fn a_line_without_room_is_passed_over_however_long_it_is() {
        let mut index = Index::default()
            .with_host("hangs.test", 5_000)
            .with_host("well.test", 3);
        let hangs = Receiver::Host("hangs.test".to_owned()).destination();
        let mut query = query();
        query.room.insert(hangs, 0);
        let due = found(&mut index, &query);
        assert_eq!(targets(&due), ["well.test", "well.test"]);
        assert!(index.asked < 10, "{}", index.asked);
        assert_eq!(due.next, None);
    }

    #[test]
    fn an_endpoint_that_nobody_knows_waits_and_hosts_leave_room_for_the_others() {
        let mut index = Index::default();
        for host in 0..20 {
            index = index.with_host(&format!("h{host}.test"), 9);
        }
        let endpoint = |name: &str| Target::Endpoint(name.to_owned());
        index.add(endpoint("ops"), START);
        index.add(endpoint("gone"), START);
        let mut query = query();
        query
            .room
            .insert(endpoint("ops").receiver().destination(), 4);
        let due = found(&mut index, &query);
        let names = targets(&due);
        assert_eq!(names[0], "ops");
        assert_eq!(names.len(), 7, "one, and six of hosts: {names:?}");
        assert!(!names.contains(&"gone".to_owned()));
    }

    #[test]
    fn every_host_has_its_turn_although_others_never_end() {
        let mut index = Index::default();
        for host in 0..20 {
            index = index.with_host(&format!("h{host}.test"), 1_000);
        }
        let mut query = query();
        let mut seen = BTreeSet::new();
        for _ in 0..10 {
            let due = found(&mut index, &query);
            assert_eq!(due.due.len(), 6);
            seen.extend(targets(&due));
            query.after = due.host;
        }
        assert_eq!(seen.len(), 20);
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_delivery_wait_for_longer() {
        let mut index = Index::default().with_host("a.test", 1);
        let back = DueQuery {
            now: START.minus_ms(3_600_000),
            ..query()
        };
        assert_eq!(targets(&found(&mut index, &back)), ["a.test"]);
        // Its retry began before the clock was set back, too.
        let mut row = index.rows.pop_first().unwrap().1;
        row.next_try_at = Some(Wait::from(START, 5_000));
        index.rows.insert(row.place().unwrap(), row);
        assert_eq!(targets(&found(&mut index, &back)), ["a.test"]);
        let due = found(&mut index, &query());
        assert_eq!(
            (targets(&due).len(), due.next),
            (0, Some(START.plus_ms(5_000)))
        );
    }

    #[test]
    fn the_next_moment_is_that_of_what_would_be_sent_then() {
        let mut index = Index::default().with_host("a.test", 1);
        let later = |ms| START.plus_ms(ms);
        let callback = |host: &str| Target::Callback(CallbackUrl(format!("https://{host}/")));
        index.add(callback("b.test"), later(70));
        index.add(callback("full.test"), later(50));
        index.add(Target::Endpoint("gone".to_owned()), later(40));
        let mut query = query();
        query
            .room
            .insert(callback("full.test").receiver().destination(), 0);
        let due = found(&mut index, &query);
        assert_eq!(targets(&due), vec!["a.test".to_owned()]);
        assert_eq!(due.next, Some(later(70)));
        query.except.insert(DeliveryId(1));
        assert_eq!(found(&mut index, &query).due.len(), 0);
    }
}
