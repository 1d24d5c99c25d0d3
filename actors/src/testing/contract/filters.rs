//! Lists narrowed by what is in a job's own row alone, and the recent calls.

use super::*;
use crate::ports::MoreFilter;
use onelane_core::model::{Failure, FailureClass, SessionId, limits};

fn narrowed(more: MoreFilter) -> JobFilter {
    JobFilter {
        more,
        ..JobFilter::default()
    }
}

fn session(n: u64) -> SessionId {
    format!("session-{n}").parse().unwrap()
}

/// Eight jobs that differ in all that can be asked for.
fn a_varied_store(store: &impl Store) {
    for n in 1..=8 {
        let mut new = new_job(n);
        new.job.priority = i32::try_from(n).unwrap() - 4;
        new.job.created_at = sample::START.plus_ms(n * 10);
        new.job.content_id = (n % 2 == 0).then(|| format!("content {}", n % 4));
        new.job.session = (n % 3 == 0).then(|| session(n % 2));
        if n > 6 {
            new.job.user_id = "bob".to_owned();
        }
        done(store, &[submit(new)]);
    }
    done(store, &[sample::start(1), sample::fail(1, 1)]);
    done(store, &[sample::start(2), sample::retry(2, 1, None)]);
    done(store, &[sample::start(3), sample::parked(3, 1)]);
    let refused = Failure::new(FailureClass::RequestFatal, "1301", "no");
    let next = Next::Failed { failure: refused };
    let settlement = sample::settle(4, 1, next);
    done(
        store,
        &[sample::start(4), Transition::Settle(Box::new(settlement))],
    );
    done(store, &[sample::start(5), sample::complete(5, 1)]);
    done(store, &[sample::start(6), cancel(8)]);
}

/// Checks that a list shows exactly these jobs, whole and in pages, and counts them.
fn check(store: &impl Store, filter: &JobFilter, want: &[u64]) {
    for limit in [1, 2, 100] {
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let page = store.jobs(filter, cursor, limit).unwrap();
            assert_eq!(page.total, want.len() as u64, "{filter:?}");
            assert!(page.jobs.len() <= limit, "{filter:?}");
            for record in &page.jobs {
                let twin = store.job(record.job.id).unwrap();
                assert_eq!(
                    format!("{:?}", Some(record)),
                    format!("{:?}", twin.as_ref())
                );
            }
            seen.extend(ids(&page));
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, want, "{filter:?} by {limit}");
        let (mut places, mut cursor) = (Vec::new(), None);
        loop {
            let found = store.job_places(filter, cursor, limit).unwrap();
            assert!(found.places.len() <= limit, "{filter:?}");
            places.extend(found.places.iter().map(|(_, id)| *id));
            cursor = found.cursor;
            if cursor.is_none() {
                break;
            }
        }
        let want: Vec<_> = want.iter().map(|n| job_id(*n)).collect();
        assert_eq!(places, want, "the places of {filter:?} by {limit}");
    }
}

/// Every further field narrows a list, alone and with others, and the count with it.
pub fn a_list_of_jobs_is_narrowed_by_every_field<S: Store>(open: Open<'_, S>) {
    let store = open();
    a_varied_store(&store);
    let any = MoreFilter::default;
    let at = |n: u64| Some(sample::START.plus_ms(n * 10));
    let check = |more: MoreFilter, want: &[u64]| check(&store, &narrowed(more), want);
    let content_id = Some("content 0".to_owned());
    check(
        MoreFilter {
            content_id: content_id.clone(),
            ..any()
        },
        &[8, 4],
    );
    let content = |name: &str| MoreFilter {
        content_id: Some(name.to_owned()),
        ..any()
    };
    check(content("content"), &[]);
    let of_session = |n| MoreFilter {
        session: Some(session(n)),
        ..any()
    };
    check(of_session(0), &[6]);
    check(of_session(1), &[3]);
    check(of_session(2), &[]);
    let code = |code: &str| MoreFilter {
        error_code: Some(code.to_owned()),
        ..any()
    };
    check(code("1301"), &[4]);
    check(code("conn"), &[3, 2, 1]);
    check(code("130"), &[]);
    let class = |class| MoreFilter {
        error_class: Some(class),
        ..any()
    };
    check(class(FailureClass::RequestFatal), &[4]);
    check(class(FailureClass::ServerTransient), &[3, 2, 1]);
    check(class(FailureClass::Throttle), &[]);
    let aside = |aside| MoreFilter {
        parked: Some(aside),
        ..any()
    };
    check(aside(true), &[3]);
    check(aside(false), &[8, 7, 6, 5, 4, 2, 1]);
    let created = |from, before| MoreFilter {
        created_from: from,
        created_before: before,
        ..any()
    };
    check(created(at(6), None), &[8, 7, 6]);
    check(created(None, at(3)), &[2, 1]);
    check(created(at(3), at(5)), &[4, 3]);
    check(created(at(5), at(5)), &[]);
    let priority = |min, max| MoreFilter {
        priority_min: min,
        priority_max: max,
        ..any()
    };
    check(priority(Some(2), None), &[8, 7, 6]);
    check(priority(None, Some(-2)), &[2, 1]);
    check(priority(Some(0), Some(0)), &[4]);
    check(priority(Some(1), Some(0)), &[]);
    check(
        MoreFilter {
            content_id,
            priority_min: Some(1),
            ..any()
        },
        &[8],
    );
}

/// Further fields and the others narrow together; named jobs are shown once, unknown ones not.
pub fn a_list_of_jobs_by_id_is_as_any_other<S: Store>(open: Open<'_, S>) {
    let store = open();
    a_varied_store(&store);
    let by_id = |wanted: &[u64]| MoreFilter {
        ids: Some(wanted.iter().map(|n| job_id(*n)).collect()),
        ..MoreFilter::default()
    };
    check(&store, &narrowed(by_id(&[])), &[]);
    check(&store, &narrowed(by_id(&[99])), &[]);
    check(&store, &narrowed(by_id(&[2, 8, 99, 2, 5])), &[8, 5, 2]);
    let of = |status, user_id: Option<&str>, more: MoreFilter| JobFilter {
        status,
        user_id: user_id.map(str::to_owned),
        model: Some("glm-4.7".to_owned()),
        more,
    };
    let all = [1, 2, 3, 4, 5, 6, 7, 8];
    let pending = Some(JobStatus::Pending);
    check(&store, &of(pending, None, by_id(&all)), &[7, 3, 2]);
    check(&store, &of(None, Some("bob"), by_id(&all)), &[8, 7]);
    check(&store, &of(pending, Some("bob"), by_id(&[1, 8])), &[]);
    let failed = MoreFilter {
        error_class: Some(FailureClass::ServerTransient),
        ..by_id(&[1, 4, 5])
    };
    check(&store, &of(None, None, failed), &[1]);
    let waiting = MoreFilter {
        parked: Some(false),
        ..MoreFilter::default()
    };
    check(&store, &of(pending, None, waiting.clone()), &[7, 2]);
    check(&store, &of(pending, Some("bob"), waiting), &[7]);
}

/// The calls that ended since a moment, newest first, up to a number, across pages of the log.
pub fn the_recent_calls_are_told<S: Store>(open: Open<'_, S>) {
    const CALLS: u64 = 230;
    let store = open();
    assert!(store.calls_since(sample::START, 10).unwrap().is_empty());
    let ended = |n| sample::START.plus_ms(n * 10);
    let life = |n| {
        let next = Next::Completed {
            response: sample::answer(n),
        };
        let mut settlement = sample::settle(n, 1, next);
        settlement.call.ended_at = ended(n);
        let settlement = Transition::Settle(Box::new(settlement));
        [sample::insert(n), sample::start(n), settlement]
    };
    let batch: Vec<_> = (1..=CALLS).flat_map(life).collect();
    done(&store, &batch);
    let check = |since, limit, want: std::ops::RangeInclusive<u64>| {
        let calls = store.calls_since(since, limit).unwrap();
        let got: Vec<_> = calls.iter().map(|c| c.job_id).collect();
        let want: Vec<_> = want.rev().map(job_id).collect();
        assert_eq!(got, want, "{limit} since {since}");
    };
    check(sample::START, usize::MAX, 1..=CALLS);
    check(ended(5), usize::MAX, 5..=CALLS);
    check(ended(228), usize::MAX, 228..=CALLS);
    check(ended(5), 3, 228..=CALLS);
    check(ended(1), 150, 81..=CALLS);
    assert!(store.calls_since(ended(231), 10).unwrap().is_empty());
    assert!(store.calls_since(ended(1), 0).unwrap().is_empty());
}

/// A page is bounded in bytes, too: the next begins where it ended.
pub fn a_page_of_large_jobs_ends_early<S: Store>(open: Open<'_, S>) {
    let store = open();
    for n in 1..=4 {
        let mut new = new_job(n);
        if matches!(n, 2 | 3) {
            // With two of them the bound is reached.
            new.request = Request::Prompt("x".repeat(limits::PAGE_BODY_BYTES_MAX / 2));
        }
        done(&store, &[submit(new)]);
    }
    let every = [1, 2, 3, 4].map(job_id).to_vec();
    let by_id = narrowed(MoreFilter {
        ids: Some(every),
        ..MoreFilter::default()
    });
    for filter in [JobFilter::default(), by_id] {
        let first = store.jobs(&filter, None, 100).unwrap();
        assert_eq!((first.total, ids(&first)), (4, vec![4, 3, 2]));
        let rest = store.jobs(&filter, first.cursor, 100).unwrap();
        assert_eq!((ids(&rest), rest.cursor), (vec![1], None));
    }
}
