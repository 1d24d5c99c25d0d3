//! Guards: the calls of a session that go together: against a naive model, and what they may never cost the others.

use std::cmp::Reverse;
use std::iter::from_fn;
use std::num::NonZeroU32;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::model::{DEFAULT_LANE, Job, LaneRules, NamedLane, OrderSettings, SessionTag};

const NOW: Timestamp = Timestamp::from_millis(1_000_000);
const MODEL: &str = "m";

fn tag(session: u32) -> Option<SessionTag> {
    NonZeroU32::new(session).map(SessionTag::new)
}

/// A job of this session; 0: of none.
fn job(seq: u64, session: u32) -> JobEntry {
    let job = Job {
        seq: Seq(seq),
        estimated_tokens: 1,
        ..Job::new(
            JobId::from_bytes(u128::from(seq).to_be_bytes()),
            "u",
            MODEL,
            NOW,
        )
    };
    JobEntry {
        session: tag(session),
        ..job.entry()
    }
}

fn line(affinity: u32, fair_quantum_tokens: u32, ageing_ms: u64) -> Queue {
    let order = OrderSettings {
        fair_quantum_tokens,
        ageing_ms,
        affinity,
    };
    let lane = LaneRules {
        order,
        ..LaneRules::default()
    };
    let settings = Settings {
        lane: lane.into(),
        ..Settings::default()
    };
    Queue::from_entries(WaitingJobs::new(), &settings, NOW)
}

fn pop(line: &mut Queue) -> Option<(Place, JobEntry)> {
    line.pop(DEFAULT_LANE, &BTreeSet::from([Arc::from(MODEL)]))
}

fn drain(line: &mut Queue) -> Vec<u64> {
    from_fn(|| pop(line)).map(|(_, job)| job.seq.0).collect()
}

/// The order of jobs that were submitted in this one, by the number of each.
fn order_of(affinity: u32, sessions: &[u32]) -> Vec<u64> {
    let mut line = line(affinity, 0, 0);
    for (seq, session) in (1..).zip(sessions) {
        line.insert(job(seq, *session), NOW);
    }
    drain(&mut line)
}

#[test]
fn the_calls_of_a_session_go_together_so_often_in_a_row_at_most() {
    let sessions = [1, 2, 1, 2, 1, 2, 1, 2];
    assert_eq!(order_of(0, &sessions), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(order_of(1, &sessions), [1, 3, 2, 4, 5, 7, 6, 8]);
    assert_eq!(order_of(2, &sessions), [1, 3, 5, 2, 4, 6, 7, 8]);
    assert_eq!(order_of(9, &sessions), [1, 3, 5, 7, 2, 4, 6, 8]);
    // What is of no session has none in common with anything.
    assert_eq!(order_of(9, &[0, 1, 0, 1, 0]), [1, 2, 4, 3, 5]);
}

#[test]
fn a_job_that_waits_for_its_time_or_for_others_is_not_drawn_ahead() {
    let mut line = line(9, 0, 0);
    line.insert(job(1, 1), NOW);
    line.insert(job(2, 2), NOW);
    let dormant = JobEntry {
        dormant: true,
        ..job(3, 1)
    };
    line.insert(dormant.clone(), NOW);
    assert_eq!(pop(&mut line).unwrap().1.seq, Seq(1));
    assert_eq!(pop(&mut line).unwrap().1.seq, Seq(2));
    // It is completed what the next turn of the first session waited for; the second session runs on before it.
    line.insert(job(4, 2), NOW);
    line.release(job(3, 1), NOW);
    assert_eq!(drain(&mut line), [4, 3]);
}

#[test]
fn a_restart_begins_anew_and_a_lane_that_is_told_so_stops() {
    let mut first = line(9, 0, 0);
    for (seq, session) in [(1, 1), (2, 2), (3, 1), (4, 2)] {
        first.insert(job(seq, session), NOW);
    }
    assert_eq!(pop(&mut first).unwrap().1.seq, Seq(1));
    let settings = |affinity| {
        let mut settings = Settings::default();
        settings.lane.rules.order.affinity = affinity;
        settings
    };
    let left: Vec<JobEntry> = first.entries.iter().map(JobEntry::owned).collect();
    let mut again = Queue::from_entries(left.iter().collect(), &settings(9), NOW);
    assert_eq!(drain(&mut again), [2, 4, 3]);
    first.configure(&settings(0));
    assert_eq!(drain(&mut first), [2, 3, 4]);
}

#[test]
fn a_guest_that_may_run_on_for_longer_hides_no_job_of_its_session_in_the_order_that_is_told() {
    let order = |affinity| LaneRules {
        order: OrderSettings {
            affinity,
            ..OrderSettings::default()
        },
        ..LaneRules::default()
    };
    let long = NamedLane {
        models: vec!["guest".to_owned()],
        rules: order(2),
    };
    let settings = Settings {
        lane: order(1).into(),
        lanes: BTreeMap::from([("long".to_owned(), long)]),
        ..Settings::default()
    };
    // The guest's job goes ahead of two of its session that may not go yet; the second of them goes on after the first.
    let models = BTreeSet::from([MODEL, "guest"].map(Arc::from));
    let sessions = [
        (1, MODEL),
        (1, MODEL),
        (1, MODEL),
        (1, MODEL),
        (1, "guest"),
        (2, MODEL),
        (1, MODEL),
    ];
    let jobs = (1..).zip(sessions);
    let jobs = jobs.map(|(seq, (session, model))| JobEntry {
        model: model.into(),
        ..job(seq, session)
    });
    let mut line = Queue::from_entries(jobs.collect::<Vec<_>>().iter().collect(), &settings, NOW);
    let told = line.service_order(DEFAULT_LANE, models.clone());
    let told: Vec<u64> = told.map(|job| job.seq.0).collect();
    let popped = from_fn(|| line.pop(DEFAULT_LANE, &models));
    let popped: Vec<u64> = popped.map(|(_, job)| job.seq.0).collect();
    assert_eq!(told, popped);
    assert_eq!(popped, [1, 2, 5, 3, 4, 6, 7]);
}

#[test]
fn a_waiting_job_is_no_larger_for_its_session() {
    const fn size<T>(_: &T) -> usize {
        size_of::<T>()
    }
    // A new field does not compile until it is named here.
    let JobEntry {
        id,
        seq,
        priority,
        due,
        deadline,
        since,
        model,
        user_id,
        tokens,
        worst,
        batch_id,
        dormant,
        parked,
        out_of_scope,
        capped,
        bound_to,
        key,
        session: _,
    } = job(1, 1);
    let of_order = size(&seq) + size(&priority) + size(&due) + size(&deadline) + size(&since);
    let of_names = size(&id) + size(&model) + size(&user_id) + size(&batch_id) + size(&key);
    let of_size = size(&tokens) + size(&worst);
    let marks = size(&dormant) + size(&parked) + size(&out_of_scope) + size(&capped);
    let without = of_order + of_names + of_size + marks + size(&bound_to);
    let rounded = without.next_multiple_of(align_of::<JobEntry>());
    assert_eq!(
        size_of::<JobEntry>(),
        rounded,
        "alignment leaves room for it"
    );
}

proptest! {
    /// The naive model: of the most urgent, the first of the session that ran last, else the first.
    #[test]
    fn the_calls_of_a_session_go_together_and_never_past_a_more_urgent_one(
        jobs in vec((0_u32..4, -2_i32..3, 0_i64..9_000), 1..60),
        affinity in 0_u32..4,
        ageing in prop_oneof![Just(0_u64), 1_000_u64..7_000],
        steps in vec((0_u64..2_000, 0_usize..4), 80),
    ) {
        let mut line = line(affinity, 0, ageing);
        let mut arriving = (1..).zip(&jobs).map(|(seq, (session, priority, age_ms))| JobEntry {
            priority: *priority,
            since: Timestamp::from_millis(NOW.as_millis() - age_ms),
            ..job(seq, *session)
        });
        let mut waiting: Vec<JobEntry> = Vec::new();
        let (mut now, mut last, mut times) = (NOW, None, 0);
        for (ms, arrivals) in steps {
            now = now.plus_ms(ms);
            line.wake(now);
            for job in arriving.by_ref().take(arrivals) {
                line.insert(job.clone(), now);
                waiting.push(job);
            }
            let steps = |at: Timestamp| match ageing {
                0 => 0,
                ms => at.as_millis().div_euclid(ms as i64),
            };
            let effective = |job: &JobEntry| i64::from(job.priority) + steps(now) - steps(job.since);
            let most = waiting.iter().map(effective).max();
            let urgent = waiting.iter().filter(|job| Some(effective(job)) == most);
            let runs_on = |job: &JobEntry| last.is_some() && job.session == last && times < affinity;
            let want = urgent.min_by_key(|job| (Reverse(runs_on(job)), job.seq)).cloned();
            let popped = pop(&mut line).map(|(_, job)| job);
            prop_assert_eq!(&popped, &want);
            if let Some(job) = popped {
                waiting.retain(|other| other.seq != job.seq);
                times = if runs_on(&job) { times + 1 } else { 0 };
                last = job.session;
            }
        }
    }

    /// A user gets ahead by as many calls as may go in a row, and pays for them with the next turns: over any stretch of
    /// time two of them each do.
    #[test]
    fn with_turns_a_session_makes_its_user_no_more_than_its_calls_in_a_row_ahead(
        jobs in vec((0_u64..3, 0_u32..3, 1_u32..300), 1..150),
        quantum in 1_u32..400,
        affinity in 0_u32..5,
        put_back in vec((1_usize..6, 0_usize..4), 0..20),
    ) {
        let mut line = line(affinity, quantum, 0);
        let mut left = [0_usize; 3];
        for (seq, (user, session, tokens)) in (1..).zip(&jobs) {
            left[*user as usize] += 1;
            // A session is of one of those who take turns.
            let session = if *session == 0 { 0 } else { *session + 10 * *user as u32 };
            line.insert(JobEntry {
                user_id: user.to_string().into(),
                tokens: *tokens,
                ..job(seq, session)
            }, NOW);
        }
        let largest = jobs.iter().map(|(.., tokens)| i64::from(*tokens)).max().unwrap();
        let bound = i64::from(quantum) + 2 * (1 + i64::from(affinity)) * largest;
        let user_of = |job: &JobEntry| job.user_id.parse::<usize>().unwrap();
        let present: Vec<usize> = (0..3).filter(|user| left[*user] > 0).collect();
        let mut served = [0_i64; 3];
        let mut history = vec![served];
        let mut latest: Vec<(Place, JobEntry)> = Vec::new();
        let mut pauses = put_back.into_iter();
        let mut pause = pauses.next();
        while let Some((place, job)) = pop(&mut line) {
            let user = user_of(&job);
            served[user] += i64::from(job.tokens);
            left[user] -= 1;
            if left[user] == 0 {
                break;
            }
            latest.push((place, job));
            match &mut pause {
                Some((0, n)) => {
                    for _ in 0..*n {
                        let Some((place, job)) = latest.pop() else { break };
                        served[user_of(&job)] -= i64::from(job.tokens);
                        left[user_of(&job)] += 1;
                        line.put_back(place, job, NOW);
                    }
                    latest.clear();
                    pause = pauses.next();
                }
                Some((wait, _)) => *wait -= 1,
                None => {}
            }
            history.push(served);
        }
        for u in &present {
            for v in &present {
                let ahead = history.iter().map(|at| at[*u] - at[*v]);
                let most = ahead.clone().max().unwrap_or(0);
                let least = ahead.min().unwrap_or(0);
                prop_assert!(most - least < bound, "{u} {v}: {most} {least}, {bound}");
            }
        }
    }
}
