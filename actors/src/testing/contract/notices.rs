//! What is told to others: made with the fact, found when it is due, forgotten in the end.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::ports::OverQuery;
use onelane_core::model::{
    AlertBook, AlertKey, CallbackUrl, Delivery, DeliveryChange, DeliveryCounts, DeliveryId,
    DeliveryStatus, HookEndpoint, Notice, Receiver, Target, TryOutcome, Wait,
};
use onelane_core::notify::delivery::{DueDeliveries, DueQuery};
use onelane_core::testing::sample::START;

const URL: &str = "https://example.com/hook";

fn change(change: DeliveryChange) -> Transition {
    Transition::Delivery(Box::new(change))
}

fn endpoints(asked: &[(&str, &str)]) -> Transition {
    let endpoint = |(name, event): &(&str, &str)| {
        HookEndpoint::new(name, "https://example.com/", &[(*event).to_owned()])
    };
    change(DeliveryChange::Endpoints {
        endpoints: asked.iter().map(endpoint).collect(),
        at: START,
        forget_before: START,
    })
}

fn insert_with_callback(n: u64, url: &str) -> Transition {
    sample::insert_with(n, |new| new.job.callback_url = Some(url.to_owned()))
}

fn tried(id: u64, try_no: u32, outcome: TryOutcome, next: Option<Wait>) -> Transition {
    change(DeliveryChange::Tried {
        id: DeliveryId(id),
        try_no,
        outcome,
        at: START.plus_ms(10),
        waited_ms: 3,
        next,
    })
}

fn failed() -> TryOutcome {
    TryOutcome::Failed {
        status_code: Some(500),
        error: "status 500".to_owned(),
    }
}

const TAKEN: TryOutcome = TryOutcome::Delivered { status_code: 200 };

fn test_notice(endpoint: &str) -> Transition {
    change(DeliveryChange::Test {
        source: "t".to_owned(),
        endpoint: endpoint.to_owned(),
        at: START,
    })
}

fn all(store: &impl Store) -> Vec<Delivery> {
    let filter = DeliveryFilter::default();
    store.deliveries(&filter, None, 1_000).unwrap().deliveries
}

/// Asks for what is due to the endpoints `a` and `b`, by hand or not, and to two of any host.
fn query(now: Timestamp) -> DueQuery {
    let lines = ["a", "b"].map(|name| {
        let receiver = Receiver::Endpoint(name.to_owned());
        [receiver.destination(), receiver.destination_by_hand()]
    });
    let lines = lines.into_iter().flatten();
    DueQuery {
        now,
        room: lines.map(|destination| (destination, 10)).collect(),
        each_host: 2,
        hosts: 10,
        limit: 10,
        ..DueQuery::default()
    }
}

fn ids(found: &DueDeliveries) -> Vec<u64> {
    let mut ids: Vec<u64> = found.due.iter().map(|row| row.id.0).collect();
    ids.sort_unstable();
    ids
}

fn due(store: &impl Store, now: Timestamp) -> (Vec<u64>, Option<Timestamp>) {
    let found = store.deliveries_due(&query(now)).unwrap();
    (ids(&found), found.next)
}

/// To whom and what, the oldest first.
fn told(store: &impl Store) -> Vec<(Target, &'static str)> {
    let mut rows = all(store);
    rows.reverse();
    let told = |row: &Delivery| (row.target.clone(), row.notice.event());
    rows.iter().map(told).collect()
}

fn to(name: &str) -> Target {
    Target::Endpoint(name.to_owned())
}

/// A job's end and what is told of it are in one transaction; a refused outcome tells nobody.
pub fn the_end_of_a_job_and_its_notice_are_one<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(
        &store,
        &[
            endpoints(&[("done", "job.completed"), ("bad", "job.failed")]),
            insert_with_callback(1, URL),
            sample::start(1),
        ],
    );
    assert_eq!(told(&store), []);
    // An outcome that is refused tells nobody.
    refused(&store, sample::complete(1, 2));
    assert_eq!(told(&store), []);
    done(&store, &[sample::complete(1, 1)]);
    drop(store);
    let store = open();
    let callback = Target::Callback(CallbackUrl(URL.to_owned()));
    let want = [(callback, "job.completed"), (to("done"), "job.completed")];
    assert_eq!(told(&store), want);
    let rows = all(&store);
    let ids: BTreeSet<&str> = rows.iter().map(|row| row.webhook_id.as_str()).collect();
    assert_eq!(ids.len(), 2, "each has an id of its own");
    let Notice::JobEnded(ended) = &rows[0].notice else {
        panic!("a job's end")
    };
    assert_eq!(ended.id, job_id(1));
    assert_eq!(ended.status, JobStatus::Completed);
    assert_eq!(rows[0].created_at, ended.processed_at.unwrap());
}

/// Without a callback or an endpoint that asked, no delivery is made.
pub fn a_job_that_nobody_asked_about_is_told_to_nobody<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(
        &store,
        &[
            endpoints(&[("bad", "job.failed")]),
            sample::insert(1),
            sample::start(1),
        ],
    );
    done(&store, &[sample::complete(1, 1)]);
    assert_eq!(told(&store), []);
}

/// Jobs that end with another one are told like it.
pub fn whoever_ends_with_a_job_is_told_too<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(
        &store,
        &[endpoints(&[("all", "job.cancelled")]), sample::insert(1)],
    );
    done(&store, &[sample::insert_after(2, &[1]), cancel(1)]);
    let cancelled = (to("all"), "job.cancelled");
    assert_eq!(told(&store), [cancelled.clone(), cancelled.clone()]);
    // Each end is told: a job that goes back in line may end again.
    done(&store, &[requeue(1), cancel(1)]);
    assert_eq!(told(&store).len(), 3);
}

/// A delivery is found when it is due, until it has ended, and again when somebody wants it.
pub fn a_delivery_comes_when_it_is_due_and_leaves_when_it_ended<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[endpoints(&[("a", "x"), ("b", "x")])]);
    let made = done(&store, &[test_notice("a"), test_notice("b")]);
    assert!(matches!(&made[1], Applied::Deliveries(ids) if ids == &[DeliveryId(2)]));
    let refusal = refused(&store, test_notice("c"));
    assert_eq!(refusal, Refusal::NoSuchEndpoint("c".to_owned()));
    // A clock that was set back delays none.
    assert_eq!(due(&store, START.minus_ms(1)), (vec![1, 2], None));
    assert_eq!(due(&store, START), (vec![1, 2], None));
    let one = DueQuery {
        limit: 1,
        ..query(START)
    };
    assert_eq!(store.deliveries_due(&one).unwrap().due.len(), 1);
    let other = DueQuery {
        except: BTreeSet::from([DeliveryId(1)]),
        ..query(START)
    };
    assert_eq!(ids(&store.deliveries_due(&other).unwrap()), [2]);

    let later = START.plus_ms(5_000);
    done(
        &store,
        &[
            tried(
                1,
                1,
                failed(),
                Some(Wait::between(START.plus_ms(10), later)),
            ),
            tried(2, 1, TAKEN, None),
        ],
    );
    drop(store);
    let store = open();
    assert_eq!(due(&store, START.plus_ms(10)), (vec![], Some(later)));
    assert_eq!(due(&store, later), (vec![1], None));
    // A try that was told twice counts once.
    let stale = Refusal::StaleTry { id: DeliveryId(1) };
    assert_eq!(refused(&store, tried(1, 1, TAKEN, None)), stale);
    done(&store, &[tried(1, 2, failed(), None)]);
    assert_eq!(due(&store, later), (vec![], None));
    let with = |status| {
        let filter = DeliveryFilter {
            status: Some(status),
            ..DeliveryFilter::default()
        };
        let page = store.deliveries(&filter, None, 9).unwrap();
        page.deliveries
            .iter()
            .map(|row| row.id.0)
            .collect::<Vec<_>>()
    };
    assert_eq!(with(DeliveryStatus::Failed), [1]);
    assert_eq!(with(DeliveryStatus::Delivered), [2]);

    let again = |id| {
        let id = DeliveryId(id);
        change(DeliveryChange::Redeliver { id, at: later })
    };
    let unknown = Refusal::NoSuchDelivery(DeliveryId(9));
    assert_eq!(refused(&store, again(9)), unknown);
    done(&store, &[again(1), again(2)]);
    assert_eq!(due(&store, later), (vec![1, 2], None));
    let page = store
        .deliveries(&DeliveryFilter::default(), None, 1)
        .unwrap();
    assert_eq!((page.deliveries[0].id.0, page.cursor), (2, Some(1)));
}

/// One that waits behind others begins its delay again, too, where the clock was set back.
pub fn a_delivery_behind_others_waits_no_longer_for_a_clock_that_is_set_back<S: Store>(
    open: Open<'_, S>,
) {
    const DAY_MS: u64 = 86_400_000;
    let store = open();
    done(&store, &[endpoints(&[("a", "x")])]);
    done(&store, &[test_notice("a"), test_notice("a")]);
    // The clock was a day ahead when the second failed.
    let ahead = Some(Wait::from(START.plus_ms(DAY_MS), 7_000));
    let usual = Some(Wait::from(START, 5_000));
    done(
        &store,
        &[tried(1, 1, failed(), usual), tried(2, 1, failed(), ahead)],
    );
    assert_eq!(due(&store, START), (vec![], Some(START.plus_ms(5_000))));
    let now = START.plus_ms(10);
    let set_back = || {
        let over = store.deliveries_over(OverQuery {
            from: DeliveryId(0),
            ended_before: Timestamp::default(),
            excess: 0,
            lapsed_before: Timestamp::default(),
            now,
            look_at: 9,
        });
        over.unwrap().set_back
    };
    let ids = set_back();
    assert_eq!(ids, [DeliveryId(2)]);
    done(&store, &[change(DeliveryChange::ClockSetBack { ids, now })]);
    assert_eq!(set_back(), []);
    let later = START.plus_ms(7_010);
    let first = (vec![1], Some(later));
    assert_eq!(due(&store, START.plus_ms(5_000)), first);
    assert_eq!(due(&store, later), (vec![1, 2], None));
}

/// However many wait for one receiver, each line answers as many as it has room for.
pub fn a_long_line_hides_no_other<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[endpoints(&[("a", "job.cancelled")])]);
    let mut batch = Vec::new();
    for n in 1..=12 {
        batch.push(match n {
            12 => insert_with_callback(n, "https://other.example.com/"),
            n => insert_with_callback(n, URL),
        });
    }
    done(&store, &batch);
    done(&store, &(1..=12).map(cancel).collect::<Vec<_>>());
    let hosts = |query: &DueQuery| {
        let found = store.deliveries_due(query).unwrap();
        let target = |row: &Delivery| row.target.receiver();
        let mut targets: Vec<Receiver> = found.due.iter().map(target).collect();
        targets.sort();
        targets
    };
    let host = |name: &str| Receiver::Host(name.to_owned());
    let mut query = query(START);
    query.room = BTreeMap::from([(Receiver::Endpoint("a".to_owned()).destination(), 1)]);
    let endpoint = Receiver::Endpoint("a".to_owned());
    let (first, second) = (host("example.com"), host("other.example.com"));
    let all = [
        endpoint.clone(),
        first.clone(),
        first.clone(),
        second.clone(),
    ];
    assert_eq!(hosts(&query), all);
    query.room.insert(first.destination(), 0);
    assert_eq!(hosts(&query), [endpoint.clone(), second]);
    query.hosts = 0;
    assert_eq!(hosts(&query), [endpoint]);
}

/// An endpoint that answered 410 is off, also after a restart, until it takes something again; what it is
/// to be told is kept.
pub fn what_is_for_an_endpoint_that_is_gone_waits<S: Store>(open: Open<'_, S>) {
    let store = open();
    let asked = || endpoints(&[("a", "job.cancelled")]);
    let off = |store: &S| store.endpoints().unwrap()[0].off_since;
    done(&store, &[asked(), test_notice("a")]);
    done(
        &store,
        &[tried(1, 1, TryOutcome::Gone, Some(Wait::from(START, 0)))],
    );
    assert_eq!(off(&store), Some(START.plus_ms(10)));
    assert_eq!(
        due(&store, START.plus_ms(99)),
        (vec![], None),
        "a test ends"
    );
    // The same endpoint, configured again at a restart, is still gone.
    drop(store);
    let store = open();
    done(&store, &[asked(), sample::insert(1)]);
    done(&store, &[cancel(1)]);
    assert_eq!(due(&store, START.plus_ms(99)), (vec![2], None));
    done(
        &store,
        &[tried(2, 1, TryOutcome::Gone, Some(Wait::from(START, 20)))],
    );
    assert_eq!(off(&store), Some(START.plus_ms(10)), "as before");
    assert_eq!(all(&store)[0].status, DeliveryStatus::Pending);
    // Somebody tries it, and it is there again.
    done(&store, &[test_notice("a"), tried(3, 1, TAKEN, None)]);
    assert_eq!(off(&store), None);
    assert_eq!(due(&store, START.plus_ms(99)), (vec![2], None));
}

/// An endpoint that is not configured any more is told for a while: it may come back.
pub fn an_endpoint_that_is_missing_is_remembered_for_a_while<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[endpoints(&[("a", "job.cancelled")])]);
    let none = |at: u64, forget_before: u64| {
        change(DeliveryChange::Endpoints {
            endpoints: Vec::new(),
            at: START.plus_ms(at),
            forget_before: START.plus_ms(forget_before),
        })
    };
    done(&store, &[none(10, 0), sample::insert(1)]);
    done(&store, &[cancel(1)]);
    assert_eq!(told(&store), [(to("a"), "job.cancelled")]);
    drop(store);
    let store = open();
    let missing = store.endpoints().unwrap();
    assert_eq!(missing[0].missing_since, Some(START.plus_ms(10)));
    let refusal = refused(&store, test_notice("a"));
    assert_eq!(refusal, Refusal::NoSuchEndpoint("a".to_owned()));
    done(&store, &[none(30, 10)]);
    assert_eq!(store.endpoints().unwrap(), missing);
    done(&store, &[none(30, 11)]);
    assert_eq!(store.endpoints().unwrap(), []);
}

/// What has ended may be forgotten; what is pending is kept, and what was given up longer than what
/// arrived.
pub fn deliveries_are_forgotten_by_age_and_number<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[endpoints(&[("a", "x")])]);
    done(&store, &vec![test_notice("a"); 6]);
    let mut ended = [2, 3, 6].map(|id| tried(id, 1, TAKEN, None)).to_vec();
    ended.push(tried(4, 1, failed(), None));
    done(&store, &ended);
    let counts = DeliveryCounts {
        pending: 2,
        delivered: 3,
        failed: 1,
    };
    assert_eq!(store.delivery_counts().unwrap(), counts);
    let over = |ended_before, excess, from, look_at| {
        let over = store.deliveries_over(OverQuery {
            from: DeliveryId(from),
            ended_before,
            excess,
            lapsed_before: START,
            now: START.plus_ms(60_000),
            look_at,
        });
        let over = over.unwrap();
        let ids: Vec<u64> = over.ended.iter().map(|id| id.0).collect();
        (ids, over.lapsed.len(), over.next.map(|id| id.0))
    };
    let never = Timestamp::default();
    assert_eq!(over(never, 0, 0, 9), (vec![], 0, None));
    assert_eq!(over(never, 2, 0, 9), (vec![2, 3], 0, None));
    assert_eq!(
        over(never, 9, 0, 9),
        (vec![2, 3, 6], 0, None),
        "not the dead letter"
    );
    assert_eq!(over(START.plus_ms(10), 0, 0, 9), (vec![], 0, None));
    assert_eq!(
        over(START.plus_ms(11), 0, 0, 9),
        (vec![2, 3, 4, 6], 0, None)
    );
    assert_eq!(over(START.plus_ms(11), 0, 0, 3), (vec![2, 3], 0, Some(4)));
    assert_eq!(over(START.plus_ms(11), 0, 4, 3), (vec![4, 6], 0, None));
    let lapsed = OverQuery {
        from: DeliveryId(0),
        ended_before: never,
        excess: 0,
        lapsed_before: START.plus_ms(1),
        now: START.plus_ms(60_000),
        look_at: 9,
    };
    let lapsed = store.deliveries_over(lapsed).unwrap().lapsed;
    let lapsed: Vec<u64> = lapsed.iter().map(|row| row.id.0).collect();
    assert_eq!(lapsed, [1, 5]);
    let ids = [1, 2, 3, 99].map(DeliveryId).to_vec();
    done(&store, &[change(DeliveryChange::Forget { ids })]);
    let left: Vec<u64> = all(&store).iter().map(|row| row.id.0).collect();
    assert_eq!(left, [6, 5, 4, 1], "what has not ended is kept");
    assert_eq!(store.delivery_counts().unwrap().delivered, 1);
    // A number is not given twice.
    done(&store, &[test_notice("a")]);
    assert_eq!(all(&store)[0].id, DeliveryId(7));
}

/// Alerts are kept as they were, and told with the book: once, however often it is stored.
pub fn alerts_outlive_the_process_and_are_told_once<S: Store>(open: Open<'_, S>) {
    let store = open();
    assert_eq!(store.alerts().unwrap(), AlertBook::default());
    done(
        &store,
        &[endpoints(&[("a", "alert.raised"), ("b", "alert.cleared")])],
    );
    let hold = AlertKey::about("hold", "quota of model m");
    let mut book = AlertBook::default();
    for key in [AlertKey::about("budget", "day"), hold.clone()] {
        book.raise(sample::alert(key));
    }
    let stored = |book: &AlertBook| Transition::Alerts {
        book: Box::new(book.clone()),
        source: "s".to_owned(),
    };
    done(&store, &[stored(&book)]);
    let raised = (to("a"), "alert.raised");
    assert_eq!(told(&store), [raised.clone(), raised.clone()]);
    book.clear(&hold, START.plus_ms(1));
    // Asked again, as when the answer was lost.
    done(&store, &[stored(&book), stored(&book)]);
    done(&store, &[stored(&book)]);
    drop(store);
    let store = open();
    assert_eq!(store.alerts().unwrap(), book);
    let cleared = (to("b"), "alert.cleared");
    assert_eq!(told(&store), [raised.clone(), raised, cleared]);
}

/// A key that was used with one callback is not used with another: nobody would be told there.
pub fn a_key_with_another_callback_is_a_conflict<S: Store>(open: Open<'_, S>) {
    let store = open();
    let keyed = |n: u64, url: Option<&str>| {
        sample::insert_with(n, |new| {
            new.job.idempotency_key = Some("k".to_owned());
            new.job.callback_url = url.map(str::to_owned);
            new.request = new_job(1).request;
        })
    };
    done(&store, &[keyed(1, Some(URL))]);
    for again in [Some(URL), None] {
        let same = done(&store, &[keyed(2, again)]);
        assert!(matches!(&same[0], Applied::Existing(job) if job.id == job_id(1)));
    }
    let other = keyed(2, Some("https://example.com/other"));
    let conflict = Refusal::IdempotencyConflict(job_id(1));
    assert_eq!(refused(&store, other), conflict);
}
