//! What is told to others: made with the fact, found when it is due, forgotten in the end.

use std::collections::BTreeSet;

use super::*;
use crate::model::{
    Alert, AlertBook, AlertKey, Delivery, DeliveryId, DeliveryStatus, HookEndpoint, Notice, Target,
};
use crate::policy::delivery::{DeliveryChange, TryOutcome};
use crate::testing::sample::START;

const URL: &str = "https://example.com/hook";

fn change(change: DeliveryChange) -> Transition {
    Transition::Delivery(Box::new(change))
}

fn endpoints(asked: &[(&str, &str)]) -> Transition {
    let endpoint = |(name, event): &(&str, &str)| HookEndpoint {
        name: (*name).to_owned(),
        url_digest: "d".to_owned(),
        events: vec![(*event).to_owned()],
        off_since: None,
    };
    change(DeliveryChange::Endpoints(
        asked.iter().map(endpoint).collect(),
    ))
}

fn insert_with_callback(n: u64) -> Transition {
    let mut new = new_job(n);
    new.job.callback_url = Some(URL.to_owned());
    Transition::Insert(Box::new(new))
}

fn tried(id: u64, try_no: u32, outcome: TryOutcome, next: Option<Timestamp>) -> Transition {
    change(DeliveryChange::Tried {
        id: DeliveryId(id),
        try_no,
        outcome,
        at: START.plus_ms(10),
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

fn test_notice(only: Option<&str>) -> Transition {
    change(DeliveryChange::Tell {
        source: "t".to_owned(),
        notice: Box::new(Notice::Test),
        only: only.map(str::to_owned),
        at: START,
    })
}

fn all(store: &impl Store) -> Vec<Delivery> {
    let filter = DeliveryFilter::default();
    store.deliveries(&filter, None, 1_000).unwrap().deliveries
}

fn due(store: &impl Store, now: Timestamp) -> (Vec<u64>, Option<Timestamp>) {
    let found = store.deliveries_due(now, &BTreeSet::new(), 10).unwrap();
    (found.due.iter().map(|row| row.id.0).collect(), found.next)
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
            insert_with_callback(1),
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
    let callback = Target::Callback(URL.to_owned());
    let want = [(callback, "job.completed"), (to("done"), "job.completed")];
    assert_eq!(told(&store), want);
    let rows = all(&store);
    let ids: BTreeSet<&str> = rows.iter().map(|row| row.message_id.as_str()).collect();
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
    let at = START;
    let job_id = job_id(1);
    done(
        &store,
        &[
            sample::insert_after(2, &[1]),
            Transition::Cancel { job_id, at },
        ],
    );
    let cancelled = (to("all"), "job.cancelled");
    assert_eq!(told(&store), [cancelled.clone(), cancelled.clone()]);
    // Each end is told: a job that goes back in line may end again.
    done(
        &store,
        &[
            Transition::Requeue { job_id },
            Transition::Cancel { job_id, at },
        ],
    );
    assert_eq!(told(&store).len(), 3);
}

/// A delivery is found when it is due, until it has ended, and again when somebody wants it.
pub fn a_delivery_comes_when_it_is_due_and_leaves_when_it_ended<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[endpoints(&[("a", "x"), ("b", "x")])]);
    let made = done(&store, &[test_notice(Some("a")), test_notice(Some("b"))]);
    assert!(matches!(&made[1], Applied::Deliveries(ids) if ids == &[DeliveryId(2)]));
    let refusal = refused(&store, test_notice(Some("c")));
    assert_eq!(refusal, Refusal::NoSuchEndpoint("c".to_owned()));
    assert_eq!(due(&store, START.minus_ms(1)), (vec![], Some(START)));
    assert_eq!(due(&store, START), (vec![1, 2], None));
    let first = store.deliveries_due(START, &BTreeSet::new(), 1).unwrap();
    assert_eq!((first.due.len(), first.next), (1, Some(START)));
    let under_way = BTreeSet::from([DeliveryId(1)]);
    let other = store.deliveries_due(START, &under_way, 10).unwrap();
    assert_eq!(other.due[0].id, DeliveryId(2));

    let later = START.plus_ms(5_000);
    done(
        &store,
        &[tried(1, 1, failed(), Some(later)), tried(2, 1, TAKEN, None)],
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

/// An endpoint that answered 410 is off, also after a restart, until it takes something again.
pub fn an_endpoint_that_is_gone_is_told_nothing_more<S: Store>(open: Open<'_, S>) {
    let store = open();
    let asked = || endpoints(&[("a", "job.cancelled")]);
    let off = |store: &S| store.endpoints().unwrap()[0].off_since;
    done(&store, &[asked(), test_notice(Some("a"))]);
    done(&store, &[tried(1, 1, TryOutcome::Gone, Some(START))]);
    assert_eq!(off(&store), Some(START.plus_ms(10)));
    assert_eq!(due(&store, START.plus_ms(99)), (vec![], None));
    // The same endpoint, configured again at a restart, is still gone.
    drop(store);
    let store = open();
    done(&store, &[asked(), sample::insert(1)]);
    let job_id = job_id(1);
    done(&store, &[Transition::Cancel { job_id, at: START }]);
    assert_eq!(all(&store).len(), 1);
    // Somebody tries it, and it is there again.
    done(&store, &[test_notice(Some("a")), tried(2, 1, TAKEN, None)]);
    assert_eq!(off(&store), None);
}

/// What has ended may be forgotten, what is pending is kept.
pub fn deliveries_are_forgotten_by_age_and_number<S: Store>(open: Open<'_, S>) {
    let store = open();
    done(&store, &[endpoints(&[("a", "x")])]);
    done(&store, &vec![test_notice(Some("a")); 6]);
    let ended = [2, 3, 4, 6].map(|id| tried(id, 1, TAKEN, None));
    done(&store, &ended);
    let over = |before, keep, limit| {
        let over = store.deliveries_over(before, keep, limit).unwrap();
        over.iter().map(|id| id.0).collect::<Vec<_>>()
    };
    const NONE: [u64; 0] = [];
    let never = Timestamp::default();
    assert_eq!(over(never, 6, 9), NONE);
    assert_eq!(over(never, 4, 9), [2, 3]);
    assert_eq!(over(START.plus_ms(10), 6, 9), NONE);
    assert_eq!(over(START.plus_ms(11), 6, 9), [2, 3, 4, 6]);
    assert_eq!(over(START.plus_ms(11), 6, 1), [2]);
    let ids = [1, 2, 3, 99].map(DeliveryId).to_vec();
    done(&store, &[change(DeliveryChange::Forget { ids })]);
    let left: Vec<u64> = all(&store).iter().map(|row| row.id.0).collect();
    assert_eq!(left, [6, 5, 4, 1], "what has not ended is kept");
    // A number is not given twice.
    done(&store, &[test_notice(Some("a"))]);
    assert_eq!(all(&store)[0].id, DeliveryId(7));
}

/// Alerts are kept as they were.
pub fn alerts_outlive_the_process<S: Store>(open: Open<'_, S>) {
    let store = open();
    assert_eq!(store.alerts().unwrap(), AlertBook::default());
    let mut book = AlertBook::default();
    for key in [
        AlertKey::Budget("day".to_owned()),
        AlertKey::Hold(HoldKind::Quota),
    ] {
        book.raise(Alert {
            key,
            raised_at: START,
            level: 1,
            threshold: 1,
        });
    }
    book.clear(&AlertKey::Hold(HoldKind::Quota), START.plus_ms(1));
    done(&store, &[Transition::Alerts(Box::new(book.clone()))]);
    drop(store);
    assert_eq!(open().alerts().unwrap(), book);
}

/// The wait of the oldest job that is due, not of one that waits for its time or for others.
pub fn the_oldest_job_that_is_due_is_found<S: Store>(open: Open<'_, S>) {
    let store = open();
    assert_eq!(store.oldest_due(START).unwrap(), None);
    let mut later = new_job(1);
    later.job.run_at = Some(START.plus_ms(100));
    done(
        &store,
        &[
            Transition::Insert(Box::new(later)),
            sample::insert_after(2, &[1]),
        ],
    );
    assert_eq!(store.oldest_due(START).unwrap(), None);
    done(&store, &[sample::insert(3)]);
    assert_eq!(store.oldest_due(START.plus_ms(99)).unwrap(), Some(START));
    done(&store, &[sample::start(3), sample::complete(3, 1)]);
    assert_eq!(store.oldest_due(START.plus_ms(99)).unwrap(), None);
    let due = START.plus_ms(100);
    assert_eq!(store.oldest_due(due).unwrap(), Some(due));
}
