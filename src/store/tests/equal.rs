//! The store in memory and the store on disk are one store: whatever is asked of both, in whatever
//! order, they answer alike.

use onelane_actors::model::{
    BreakerSnapshot, BreakerState, CallOutcome, LaneCondition, LaneState, Timestamp,
};
use onelane_actors::policy::transition::Next;
use onelane_actors::testing::{MemoryStore, sample};
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
    },
    Stage(u64),
    Unstage(u64),
    Start(u64),
    Complete(u64, Attempt),
    Retry(u64, Attempt, Option<u32>),
    FailCall(u64, Attempt),
    CancelCall(u64, Attempt),
    Fail(u64),
    Cancel(u64),
    Requeue(u64),
    Reprioritise(u64, i32),
    Lane(u32),
    Breaker(u32),
    Config(u8),
}

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
    let n = || 1..7_u64;
    prop_oneof![
        4 => (n(), prop::option::of(0..3_u8), any::<bool>(), any::<bool>(), 2..9_u64)
            .prop_map(|(n, key, user, model, limit)| Step::Insert { n, key, user, model, limit }),
        3 => n().prop_map(Step::Stage),
        1 => n().prop_map(Step::Unstage),
        5 => n().prop_map(Step::Start),
        3 => (n(), attempt()).prop_map(|(n, a)| Step::Complete(n, a)),
        2 => (n(), attempt(), any::<Option<u32>>()).prop_map(|(n, a, due)| Step::Retry(n, a, due)),
        2 => (n(), attempt()).prop_map(|(n, a)| Step::FailCall(n, a)),
        1 => (n(), attempt()).prop_map(|(n, a)| Step::CancelCall(n, a)),
        1 => n().prop_map(Step::Fail),
        1 => n().prop_map(Step::Cancel),
        3 => n().prop_map(Step::Requeue),
        1 => (n(), any::<i32>()).prop_map(|(n, p)| Step::Reprioritise(n, p)),
        1 => any::<u32>().prop_map(Step::Lane),
        1 => any::<u32>().prop_map(Step::Breaker),
        1 => any::<u8>().prop_map(Step::Config),
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
        let settle = |n, attempt, next: Next| {
            let mut settlement = sample::settle(n, number(n, attempt), next);
            let day = 86_400_000 * (n % 3);
            settlement.call.ended_at = sample::START.plus_ms(day);
            settlement.call.model = format!("glm-{}", n % 2);
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
            } => {
                let mut new = sample::new_job(n);
                new.job.idempotency_key = key.map(|key| format!("key {key}"));
                new.job.user_id = if user { "ada" } else { "bob" }.to_owned();
                new.job.model = if model { "glm-5" } else { "glm-4.7" }.to_owned();
                new.request = crate::model::Request::Prompt(format!("prompt {}", n % 2));
                new.max_queue_jobs = limit;
                Transition::Insert(Box::new(new))
            }
            Self::Stage(n) => sample::stage(n),
            Self::Unstage(n) => Transition::Unstage { job_id: job_id(n) },
            Self::Start(n) => sample::start(n),
            Self::Complete(n, attempt) => {
                let response = sample::answer(n);
                settle(n, attempt, Next::Completed { response })
            }
            Self::Retry(n, attempt, due) => settle(
                n,
                attempt,
                Next::Retry {
                    failure,
                    at: due.map(|ms| Timestamp::from_millis(i64::from(ms))),
                    counted: n % 2 == 0,
                    throttled: n % 5 == 0,
                    interruptions: u32::from(n % 3 == 0),
                },
            ),
            Self::FailCall(n, attempt) => settle(n, attempt, Next::Failed { failure }),
            Self::CancelCall(n, attempt) => settle(n, attempt, Next::Cancelled),
            Self::Fail(n) => Transition::Fail {
                job_id: job_id(n),
                failure,
                at: sample::START,
            },
            Self::Cancel(n) => Transition::Cancel {
                job_id: job_id(n),
                at: sample::START,
            },
            Self::Requeue(n) => Transition::Requeue { job_id: job_id(n) },
            Self::Reprioritise(n, priority) => Transition::Reprioritise {
                job_id: job_id(n),
                priority,
            },
            Self::Lane(level) => Transition::Lane(lane(level)),
            Self::Breaker(openings) => Transition::Breaker(breaker(openings)),
            Self::Config(n) => Transition::Config(format!(r#"{{"n":{n}}}"#)),
        }
    }
}

fn lane(throttle_level: u32) -> LaneState {
    LaneState {
        in_doubt: throttle_level % 2 == 1,
        lanes: [(
            "default".to_owned(),
            LaneCondition {
                throttle_level,
                ..LaneCondition::default()
            },
        )]
        .into(),
        ..LaneState::default()
    }
}

fn breaker(openings: u32) -> BreakerSnapshot {
    BreakerSnapshot {
        state: BreakerState::HalfOpen,
        openings,
        ..BreakerSnapshot::default()
    }
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
    for job in [None, Some(job_id(1)), Some(job_id(2))] {
        for outcome in [None, Some(CallOutcome::Completed)] {
            let filter = CallFilter {
                job_id: job,
                outcome,
                ..CallFilter::default()
            };
            let first = store.calls(&filter, None, 2).unwrap();
            tell(&first);
            tell(&store.calls(&filter, first.cursor, 2).unwrap());
        }
    }
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
    told.join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_disk_answer_alike(
        batches in prop::collection::vec(prop::collection::vec(step(), 1..8), 1..20),
    ) {
        let memory = MemoryStore::new();
        let disk = Disk::default();
        let mut redb = disk.open(true).unwrap();
        for (i, steps) in batches.iter().enumerate() {
            let batch: Vec<Transition> = steps.iter().map(|s| s.transition(&memory)).collect();
            let told = format!("{:?}", memory.commit(&batch).unwrap());
            prop_assert_eq!(told, format!("{:?}", redb.commit(&batch).unwrap()));
            if i % 5 == 4 {
                drop(redb);
                redb = disk.open(true).unwrap();
            }
        }
        prop_assert_eq!(all_of(&memory), all_of(&redb));
        assert_consistent(&redb);
    }
}
