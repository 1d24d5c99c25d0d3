//! The store in memory and the store on disk are one store: whatever is asked of both, in whatever
//! order, they answer alike.

use onelane_core::model::{
    Admission, AlertBook, AlertKey, AsyncTask, AttemptNo, Billing, BreakerSnapshot, BreakerState,
    CallOutcome, Cutoff, DeliveryChange, FailureClass, LaneCondition, Next, PruneCursor, Reserve,
    SchedulerState, SlotId, Timestamp, TryOutcome, Wait,
};
use std::collections::BTreeSet;

use onelane_actors::ports::MoreFilter;
use onelane_actors::testing::{MemoryStore, sample};
use onelane_core::notify::delivery::DueQuery;
use proptest::prelude::*;

use super::disk::Disk;
use super::*;

/// One change, of one of a few jobs, so that changes meet.
#[derive(Debug, Clone)]
enum Step {
    Insert {
        n: u64,
        key: Option<u8>,
        user: bool,
        model: bool,
        limit: u64,
        after: Vec<u64>,
    },
    Stage(u64),
    Unstage(u64),
    /// Sent to a fallback model, or not.
    Start(u64, bool),
    Resume(u64),
    Task(u64, Attempt),
    Complete(u64, Attempt),
    /// The next is due, and whether the call was maybe billed.
    Retry(u64, Attempt, Option<u32>, bool),
    Parked(u64, Attempt),
    /// Whether it was billed.
    Billing(u64, Attempt, bool),
    FailCall(u64, Attempt),
    CancelCall(u64, Attempt),
    Fail(u64),
    Cancel(u64),
    Requeue(u64),
    Reprioritise(u64, i32),
    Lane(u32),
    Breaker(u32),
    Config(u8),
    Clock(u8),
    /// Which kinds of ends two endpoints ask for.
    Endpoints(bool, bool),
    Test(bool),
    /// Which delivery, which try, how it ended, and when the next is due.
    Tried(u64, u32, u8, Option<u32>),
    Redeliver(u64, u32),
    ClockSetBack(u64, u32),
    Forget(u64),
    Alerts(u8),
    /// Which calls, jobs, failed jobs and bodies go: by age in days, by number; how many rows a step looks at.
    Prune(Cutoffs, Cutoffs, Cutoffs, Option<u64>, usize),
}

/// By age in days, and by number.
type Cutoffs = (Option<u64>, Option<u64>);

/// One more than the highest job.
const JOBS: u64 = 8;

/// Which attempt an outcome claims to be of.
#[derive(Debug, Clone, Copy)]
enum Attempt {
    /// The latest before the batch, plus this.
    Latest(u32),
    Number(u32),
}

fn attempt() -> impl Strategy<Value = Attempt> {
    prop_oneof![
        6 => (0..=1_u32).prop_map(Attempt::Latest),
        1 => (1..4_u32).prop_map(Attempt::Number),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let n = || 1..JOBS;
    prop_oneof![
        4 => (n(), prop::option::of(0..3_u8), any::<bool>(), any::<bool>(), 2..12_u64)
            .prop_map(|(n, key, user, model, limit)| {
                Step::Insert { n, key, user, model, limit, after: Vec::new() }
            }),
        6 => (n(), prop::collection::vec(n(), 1..4)).prop_map(|(n, after)| {
            Step::Insert { n, key: None, user: true, model: true, limit: 12, after }
        }),
        3 => n().prop_map(Step::Stage),
        1 => n().prop_map(Step::Unstage),
        5 => (n(), any::<bool>()).prop_map(|(n, fallback)| Step::Start(n, fallback)),
        1 => n().prop_map(Step::Resume),
        1 => (n(), attempt()).prop_map(|(n, a)| Step::Task(n, a)),
        2 => (n(), attempt()).prop_map(|(n, a)| Step::Parked(n, a)),
        2 => (n(), attempt(), any::<bool>()).prop_map(|(n, a, b)| Step::Billing(n, a, b)),
        3 => (n(), attempt()).prop_map(|(n, a)| Step::Complete(n, a)),
        2 => (n(), attempt(), any::<Option<u32>>(), any::<bool>())
            .prop_map(|(n, a, due, doubt)| Step::Retry(n, a, due, doubt)),
        2 => (n(), attempt()).prop_map(|(n, a)| Step::FailCall(n, a)),
        1 => (n(), attempt()).prop_map(|(n, a)| Step::CancelCall(n, a)),
        1 => n().prop_map(Step::Fail),
        1 => n().prop_map(Step::Cancel),
        3 => n().prop_map(Step::Requeue),
        1 => (n(), any::<i32>()).prop_map(|(n, p)| Step::Reprioritise(n, p)),
        1 => any::<u32>().prop_map(Step::Lane),
        1 => any::<u32>().prop_map(Step::Breaker),
        1 => any::<u8>().prop_map(Step::Config),
        1 => any::<u8>().prop_map(Step::Clock),
        1 => (0..6_u64, any::<u32>()).prop_map(|(id, ms)| Step::ClockSetBack(id, ms)),
        2 => (any::<bool>(), any::<bool>()).prop_map(|(a, b)| Step::Endpoints(a, b)),
        1 => any::<bool>().prop_map(Step::Test),
        4 => (1..12_u64, 1..3_u32, 0..3_u8, any::<Option<u32>>())
            .prop_map(|(id, no, outcome, next)| Step::Tried(id, no, outcome, next)),
        1 => (1..12_u64, any::<u32>()).prop_map(|(id, at)| Step::Redeliver(id, at)),
        1 => (1..12_u64).prop_map(Step::Forget),
        1 => any::<u8>().prop_map(Step::Alerts),
        3 => (cuts(), cuts(), cuts(), prop::option::of(0..4_u64), 1..8_usize)
            .prop_map(|(calls, jobs, failed, bodies, rows)| {
                Step::Prune(calls, jobs, failed, bodies, rows)
            }),
    ]
}

fn cuts() -> impl Strategy<Value = Cutoffs> {
    let age = prop::option::of(0..4_u64);
    (age, prop::option::weighted(0.3, 0..6_u64))
}

/// A step alone, or some that go together: an attempt from its start to its end, and what may follow.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let latest = Attempt::Latest(1);
    let end = prop_oneof![
        3 => Just(Step::Complete as fn(u64, Attempt) -> Step),
        2 => Just(Step::FailCall as fn(u64, Attempt) -> Step),
        1 => Just(Step::CancelCall as fn(u64, Attempt) -> Step),
        1 => Just(Step::Parked as fn(u64, Attempt) -> Step),
    ];
    prop_oneof![
        6 => step().prop_map(|step| vec![step]),
        3 => (1..JOBS, end).prop_map(move |(n, end)| vec![Step::Start(n, false), end(n, latest)]),
        1 => (1..JOBS, any::<bool>()).prop_map(move |(n, billed)| vec![
            Step::Start(n, true),
            Step::Retry(n, latest, None, true),
            Step::Billing(n, latest, billed),
        ]),
    ]
}

/// Where each case begins: two jobs, and a chain of two after them.
fn beginning() -> Vec<Step> {
    let insert = |n, after: &[u64]| Step::Insert {
        n,
        key: None,
        user: true,
        model: true,
        limit: 12,
        after: after.to_vec(),
    };
    vec![
        insert(1, &[]),
        insert(2, &[]),
        insert(3, &[1, 2]),
        insert(4, &[3]),
    ]
}

impl Step {
    fn transition(&self, store: &MemoryStore) -> Transition {
        let number = |n: u64, attempt: Attempt| match attempt {
            Attempt::Number(number) => number,
            Attempt::Latest(plus) => {
                let job = store.job(job_id(n)).unwrap();
                plus + job.map_or(0, |record| record.job.attempts.0)
            }
        };
        let settle = |n, attempt, next: Next, maybe_billed| {
            let mut settlement = sample::settle(n, number(n, attempt), next);
            let day = 86_400_000 * (n % 3);
            settlement.call.ended_at = sample::START.plus_ms(day);
            settlement.call.model = format!("glm-{}", n % 2);
            settlement.call.maybe_billed = maybe_billed;
            settlement.lane = (n % 2 == 0).then(|| lane(n as u32));
            settlement.breaker = (n % 3 == 0).then(|| breaker(n as u32));
            Transition::Settle(Box::new(settlement))
        };
        let failure = sample::failure();
        match *self {
            Self::Insert {
                n,
                key,
                user,
                model,
                limit,
                ref after,
            } => sample::insert_with(n, |new| {
                new.job.after = after.iter().map(|n| job_id(*n)).collect();
                new.job.callback_url = (n % 4 == 1).then(|| format!("https://example.com/{n}"));
                new.job.priority = n as i32 % 3;
                new.job.content_id = (n % 2 == 0).then(|| "content".to_owned());
                new.job.session = (n % 2 == 1).then(|| "session".parse().unwrap());
                new.job.idempotency_key = key.map(|key| format!("key {key}"));
                new.job.user_id = if user { "ada" } else { "bob" }.to_owned();
                new.job.model = if model { "glm-5" } else { "glm-4.7" }.to_owned();
                new.request = crate::model::Request::Prompt(format!("prompt {}", n % 2));
                new.admission = Admission::Open {
                    max_queue_jobs: limit,
                };
            }),
            Self::Stage(n) => sample::stage(n),
            Self::Unstage(n) => Transition::Unstage { job_id: job_id(n) },
            Self::Start(n, fallback) => Transition::Start {
                job_id: job_id(n),
                slot: SlotId(n as u16),
                at: sample::START,
                served_by: fallback.then(|| "glm-4.6".to_owned()),
                reserve: (n % 3 == 0).then_some(Reserve {
                    tokens: n,
                    cost: None,
                }),
            },
            Self::Resume(n) => Transition::Resume {
                crashed: n % 2 == 0,
                job_id: job_id(n),
                slot: SlotId(9),
            },
            Self::Task(n, attempt) => Transition::Task {
                job_id: job_id(n),
                attempt: AttemptNo(number(n, attempt)),
                task: AsyncTask {
                    left_open: n % 2 == 0,
                    id: format!("task {n}"),
                    account: "d1".to_owned(),
                },
            },
            Self::Billing(n, attempt, billed) => {
                let billing = Billing {
                    billed,
                    ..sample::billed(n)
                };
                sample::resolve(n, number(n, attempt), billing)
            }
            Self::Complete(n, attempt) => {
                let response = sample::answer(n);
                settle(n, attempt, Next::Completed { response }, false)
            }
            Self::Retry(n, attempt, due, doubt) => settle(
                n,
                attempt,
                Next::Retry {
                    failure,
                    at: due.map(|ms| Wait::from(Timestamp::from_millis(i64::from(ms)), 7)),
                    counted: n % 2 == 0,
                    throttled: n % 5 == 0,
                    interruptions: u32::from(n % 3 == 0),
                },
                doubt,
            ),
            Self::Parked(n, attempt) => {
                let interruptions = 1;
                let next = Next::Parked {
                    failure,
                    interruptions,
                };
                settle(n, attempt, next, true)
            }
            Self::FailCall(n, attempt) => settle(n, attempt, Next::Failed { failure }, false),
            Self::CancelCall(n, attempt) => settle(n, attempt, Next::Cancelled, true),
            Self::Fail(n) => Transition::Fail {
                job_id: job_id(n),
                failure,
                at: sample::START,
            },
            Self::Cancel(n) => sample::cancel(n, sample::START),
            Self::Requeue(n) => Transition::Requeue { job_id: job_id(n) },
            Self::Reprioritise(n, priority) => Transition::Reprioritise {
                job_id: job_id(n),
                priority,
            },
            Self::Lane(level) => Transition::Lane(lane(level)),
            Self::Breaker(openings) => Transition::Breaker(breaker(openings)),
            Self::Clock(n) => Transition::Clock(Timestamp::from_millis(i64::from(n))),
            Self::Config(n) => Transition::Config(format!(r#"{{"n":{n}}}"#)),
            Self::ClockSetBack(id, ms) => notice(DeliveryChange::ClockSetBack {
                ids: vec![DeliveryId(id), DeliveryId(id + 1)],
                now: Timestamp::from_millis(i64::from(ms)),
            }),
            Self::Endpoints(completed, failed) => notice(endpoints(completed, failed)),
            Self::Test(first) => notice(DeliveryChange::Test {
                source: "t".to_owned(),
                endpoint: if first { "a" } else { "b" }.to_owned(),
                at: sample::START,
            }),
            Self::Tried(id, try_no, outcome, next) => notice(DeliveryChange::Tried {
                id: DeliveryId(id),
                try_no,
                outcome: match outcome {
                    0 => TryOutcome::Delivered { status_code: 200 },
                    1 => TryOutcome::Gone,
                    _ => TryOutcome::Failed {
                        status_code: None,
                        error: "refused".to_owned(),
                    },
                },
                at: sample::START,
                waited_ms: u64::from(try_no),
                next: next.map(|ms| Wait::from(Timestamp::from_millis(i64::from(ms)), 7)),
            }),
            Self::Redeliver(id, at) => notice(DeliveryChange::Redeliver {
                id: DeliveryId(id),
                at: Timestamp::from_millis(i64::from(at)),
            }),
            Self::Forget(id) => notice(DeliveryChange::Forget {
                ids: vec![DeliveryId(id), DeliveryId(id + 1)],
            }),
            Self::Alerts(n) => {
                let mut book = AlertBook::default();
                book.raise(sample::alert(AlertKey::about("budget", format!("{n}"))));
                Transition::Alerts {
                    book: Box::new(book),
                    source: "s".to_owned(),
                }
            }
            Self::Prune(calls, jobs, failed, bodies, rows_max) => {
                let day = |days: u64| sample::START.plus_ms(days * 86_400_000);
                let cut = |(age, most): Cutoffs| Cutoff {
                    before: age.map(day),
                    most,
                    settled: day(2),
                    now: day(3),
                };
                Transition::Prune(Box::new(Prune {
                    calls: cut(calls),
                    jobs: cut(jobs),
                    failed: cut(failed),
                    bodies_before: bodies.map(day),
                    rows_max,
                    bytes_max: u64::MAX,
                    from: PruneCursor::default(),
                }))
            }
        }
    }
}

fn notice(change: DeliveryChange) -> Transition {
    Transition::Delivery(Box::new(change))
}

fn endpoints(completed: bool, failed: bool) -> DeliveryChange {
    let endpoint = |(name, event, _): (&str, &str, bool)| {
        let events = [event, "job.cancelled", "alert.raised"].map(str::to_owned);
        HookEndpoint::new(name, &format!("https://{completed}.test/"), &events)
    };
    let asked = [
        ("a", "job.completed", completed),
        ("b", "job.failed", failed),
    ];
    let asked = asked.into_iter().filter(|(.., is_on)| *is_on);
    DeliveryChange::Endpoints {
        endpoints: asked.map(endpoint).collect(),
        at: sample::START,
        // Those that are not named any more are remembered, or not.
        forget_before: sample::START.plus_ms(u64::from(completed)),
    }
}

/// The steps as changes. No id is given twice: that of a job that was pruned, while its calls are still in
/// the log, is not used again.
fn batch_of(steps: &[Step], store: &MemoryStore) -> Vec<Transition> {
    let mut pruned = false;
    let mut batch = Vec::new();
    for step in steps {
        pruned |= matches!(step, Step::Prune(..));
        if let Step::Insert { n, .. } = step {
            let of_job = CallFilter {
                job_id: Some(job_id(*n)),
                ..CallFilter::default()
            };
            let had_calls = !store.calls(&of_job, None, 1).unwrap().calls.is_empty();
            if pruned || (had_calls && store.job(job_id(*n)).unwrap().is_none()) {
                continue;
            }
        }
        batch.push(step.transition(store));
    }
    batch
}

fn lane(throttle_level: u32) -> SchedulerState {
    SchedulerState {
        in_doubt: throttle_level % 2 == 1,
        lanes: [(
            "default".to_owned(),
            LaneCondition {
                throttle_level,
                ..LaneCondition::default()
            },
        )]
        .into(),
        ..SchedulerState::default()
    }
}

fn breaker(openings: u32) -> BreakerSnapshot {
    BreakerSnapshot {
        state: BreakerState::HalfOpen,
        openings,
        ..BreakerSnapshot::default()
    }
}

fn all_more() -> [MoreFilter; 7] {
    let any = MoreFilter::default;
    [
        MoreFilter {
            ids: Some([3, 1, 5, 3, 99].map(job_id).to_vec()),
            ..any()
        },
        MoreFilter {
            content_id: Some("content".to_owned()),
            ..any()
        },
        MoreFilter {
            session: Some("session".parse().unwrap()),
            ..any()
        },
        MoreFilter {
            error_class: Some(FailureClass::RequestFatal),
            ..any()
        },
        MoreFilter {
            parked: Some(true),
            ..any()
        },
        MoreFilter {
            parked: Some(false),
            priority_min: Some(1),
            ..any()
        },
        MoreFilter {
            error_code: Some(sample::failure().code),
            priority_max: Some(1),
            ..any()
        },
    ]
}

/// All that a store tells, by every filter and in pages, as text.
fn all_of(store: &impl Store) -> String {
    let mut told = Vec::new();
    let mut tell = |what: &dyn std::fmt::Debug| told.push(format!("{what:?}"));
    tell(&store.recover().unwrap());
    tell(&store.counts().unwrap());
    tell(&store.config().unwrap());
    let statuses = JobStatus::ALL.into_iter().map(Some).chain([None]);
    for status in statuses {
        for user_id in [None, Some("bob".to_owned())] {
            for model in [None, Some("glm-5".to_owned())] {
                let user_id = user_id.clone();
                let filter = JobFilter {
                    status,
                    user_id,
                    model,
                    ..JobFilter::default()
                };
                let first = store.jobs(&filter, None, 2).unwrap();
                tell(&first);
                tell(&store.jobs(&filter, first.cursor, 2).unwrap());
                tell(&store.jobs(&filter, Some(3), 2).unwrap());
            }
        }
    }
    for more in all_more() {
        for status in [None, Some(JobStatus::Pending)] {
            let filter = JobFilter {
                status,
                more: more.clone(),
                ..JobFilter::default()
            };
            let first = store.jobs(&filter, None, 2).unwrap();
            tell(&first);
            tell(&store.jobs(&filter, first.cursor, 2).unwrap());
        }
    }
    for job in [None, Some(job_id(1)), Some(job_id(2))] {
        for outcome in [None, Some(CallOutcome::Completed)] {
            for billing_open in [false, true] {
                let filter = CallFilter {
                    job_id: job,
                    outcome,
                    billing_open,
                    ..CallFilter::default()
                };
                let first = store.calls(&filter, None, 2).unwrap();
                tell(&first);
                tell(&store.calls(&filter, first.cursor, 2).unwrap());
            }
        }
    }
    tell(&store.calls_since(sample::START.plus_ms(1), 3).unwrap());
    for (start, end) in [(Day(i32::MIN), Day(i32::MAX)), (Day(20_781), Day(20_781))] {
        for model in [None, Some("glm-1".to_owned())] {
            let filter = UsageFilter {
                start,
                end,
                model,
                user_id: None,
            };
            tell(&store.usage(&filter).unwrap());
        }
    }
    for status in [
        None,
        Some(DeliveryStatus::Pending),
        Some(DeliveryStatus::Failed),
    ] {
        for job in [None, Some(job_id(1))] {
            let filter = DeliveryFilter {
                status,
                job_id: job,
                ..DeliveryFilter::default()
            };
            let first = store.deliveries(&filter, None, 2).unwrap();
            tell(&first);
            tell(&store.deliveries(&filter, first.cursor, 2).unwrap());
        }
    }
    for now in [Timestamp::default(), sample::START] {
        let query = DueQuery {
            now,
            except: BTreeSet::from([DeliveryId(2)]),
            limit: 3,
            ..everything_due(store)
        };
        tell(&store.deliveries_due(&query).unwrap());
        let over = OverQuery {
            from: DeliveryId(2),
            ended_before: now.plus_ms(1),
            excess: 1,
            lapsed_before: now.plus_ms(1),
            now,
            look_at: 4,
        };
        tell(&store.deliveries_over(over).unwrap());
    }
    tell(&store.delivery_counts().unwrap());
    tell(&store.endpoints().unwrap());
    tell(&store.alerts().unwrap());
    told.join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_disk_answer_alike(
        batches in prop::collection::vec(prop::collection::vec(steps(), 1..10), 1..24),
    ) {
        let memory = MemoryStore::new();
        let disk = Disk::default();
        let mut redb = disk.open().unwrap();
        let batches = batches.into_iter().map(|steps| steps.concat());
        for (i, steps) in std::iter::once(beginning()).chain(batches).enumerate() {
            let batch = batch_of(&steps, &memory);
            let told = format!("{:?}", memory.commit(&batch).unwrap());
            prop_assert_eq!(told, format!("{:?}", redb.commit(&batch).unwrap()));
            if i % 5 == 4 {
                drop(redb);
                redb = disk.open().unwrap();
            }
        }
        prop_assert_eq!(all_of(&memory), all_of(&redb));
        assert_consistent(&redb);
    }
    #[test]
    fn pruning_takes_nothing_from_the_sums(
        rounds in prop::collection::vec(
            (
                prop::collection::vec(steps(), 1..10),
                (cuts(), cuts(), cuts()),
                prop::option::of(0..4_u64),
            ),
            1..12,
        ),
    ) {
        let disk = Disk::default();
        let redb = disk.open().unwrap();
        // What the steps refer to is looked up here.
        let memory = MemoryStore::new();
        let commit = |batch: &[Transition]| {
            memory.commit(batch).unwrap();
            redb.commit(batch).unwrap()
        };
        let any_day = UsageFilter::default();
        for (steps, (calls, jobs, failed), bodies) in rounds {
            let steps = [beginning(), steps.concat()].concat();
            let batch = batch_of(&steps, &memory);
            commit(&batch);
            let before = redb.usage(&any_day).unwrap();
            let waiting = format!("{:?}", redb.recover().unwrap());
            commit(&[Step::Prune(calls, jobs, failed, bodies, 100).transition(&memory)]);
            prop_assert_eq!(redb.usage(&any_day).unwrap(), before);
            prop_assert_eq!(format!("{:?}", redb.recover().unwrap()), waiting);
        }
        assert_consistent(&redb);
    }
}
