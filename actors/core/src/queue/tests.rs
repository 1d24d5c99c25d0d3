//! Guards: the order of dispatch against naive models, and that no job is lost, doubled, or run when
//! it must not be.

use std::cmp::Reverse;
use std::iter::from_fn;
use std::num::NonZeroU32;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::model::{
    ClientKey, DEFAULT_LANE, Due, Job, KeyForm, KeyRights, KeySecret, LaneRules, NamedLane,
    OrderSettings, SessionTag, Wait,
};

const NOW: Timestamp = Timestamp::from_millis(1_000_000);

fn entry(seq: u64, priority: i32) -> JobEntry {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&seq.to_be_bytes());
    let job = Job {
        seq: Seq(seq),
        priority,
        estimated_tokens: 1,
        ..Job::new(JobId::from_bytes(bytes), "u", "m", NOW)
    };
    job.entry()
}

fn entry_with(seq: u64, priority: i32, change: impl FnOnce(&mut JobEntry)) -> JobEntry {
    let mut entry = entry(seq, priority);
    change(&mut entry);
    entry
}

fn order(fair_quantum_tokens: u32, ageing_ms: u64) -> OrderSettings {
    OrderSettings {
        fair_quantum_tokens,
        ageing_ms,
        affinity: 0,
    }
}

fn lane(order: OrderSettings) -> LaneRules {
    LaneRules {
        order,
        ..LaneRules::default()
    }
}

/// The default lane, and a lane `other` for the model `guest`.
fn settings(default: OrderSettings, other: Option<OrderSettings>) -> Settings {
    let other = other.map(|order| NamedLane {
        models: vec!["guest".to_owned()],
        rules: lane(order),
    });
    let lanes = other.map(|lane| ("other".to_owned(), lane));
    Settings {
        lane: lane(default).into(),
        lanes: lanes.into_iter().collect(),
        ..Settings::default()
    }
}

fn line(default: OrderSettings) -> Queue {
    Queue::from_entries(WaitingJobs::new(), &settings(default, None), NOW)
}

fn models(names: &[&str]) -> BTreeSet<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

/// Pops among all models for the default lane, checking that a look ahead tells the same.
fn pop(line: &mut Queue) -> Option<JobEntry> {
    let all: BTreeSet<Arc<str>> = line.models().cloned().collect();
    let looked = line.peek(DEFAULT_LANE, &all);
    let popped = line.pop(DEFAULT_LANE, &all);
    assert_eq!(looked, popped.as_ref().map(|(place, _)| *place));
    popped.map(|(_, entry)| entry)
}

fn drain(line: &mut Queue) -> Vec<(i32, u64)> {
    from_fn(|| pop(line))
        .map(|e| (e.priority, e.seq.0))
        .collect()
}

/// Settings with client keys of these weights, numbered from 1.
fn with_keys(settings: Settings, shares: &[u32]) -> Settings {
    let key = |(number, share): (u64, &u32)| {
        let id = KeyId::new(number);
        let (secret, _) = KeySecret::make(id, &[1; 32], KeyForm::Plain);
        let rights = KeyRights {
            share: *share,
            ..KeyRights::default()
        };
        ClientKey {
            rights,
            ..ClientKey::new(id, "k", secret, NOW)
        }
    };
    settings.with_keys(Arc::new((1..).zip(shares).map(key).collect()))
}

fn of_key(seq: u64, key: u64, tokens: u32) -> JobEntry {
    entry_with(seq, 0, |job| {
        job.key = (key > 0).then(|| KeyId::new(key));
        job.tokens = tokens;
    })
}

#[test]
fn keys_take_turns_where_users_do_not_and_those_without_a_key_are_one_among_them() {
    let keyed = with_keys(settings(order(0, 0), None), &[1, 2]);
    let mut line = Queue::from_entries(WaitingJobs::new(), &keyed, NOW);
    for (seq, key) in [1, 1, 1, 0, 0, 0, 2, 2, 2, 2].into_iter().enumerate() {
        line.insert(of_key(seq as u64, key, 1_000), NOW);
    }
    let urgent = JobEntry {
        priority: 1,
        ..of_key(99, 1, 1)
    };
    line.insert(urgent, NOW);
    let served: Vec<u64> = drain(&mut line).iter().map(|(_, seq)| *seq).collect();
    // Users keep the order of their submissions, as one, and the second key has two jobs a round.
    assert_eq!(served, [99, 3, 0, 6, 7, 4, 1, 8, 9, 5, 2]);
}

#[test]
fn the_first_key_of_a_lane_gives_turns_to_jobs_that_wait_already() {
    let plain = settings(order(0, 0), None);
    let mut line = Queue::from_entries(WaitingJobs::new(), &plain, NOW);
    for (seq, key) in [0, 0, 0, 1, 2].into_iter().enumerate() {
        line.insert(of_key(seq as u64, key, 1), NOW);
    }
    line.configure(&with_keys(plain, &[1, 1]));
    let served: Vec<u64> = drain(&mut line).iter().map(|(_, seq)| *seq).collect();
    assert_eq!(served, [0, 3, 4, 1, 2]);
}

#[test]
fn beside_keys_users_take_turns_from_the_change_on_that_says_so() {
    let turns = |tokens| with_keys(settings(order(tokens, 0), None), &[1]);
    let job = |seq, user: &str| entry_with(seq, 0, |job| job.user_id = user.into());
    for (before, after, want) in [(1, 0, [1, 2, 3]), (0, 1, [1, 3, 2])] {
        let jobs = [job(1, "u"), job(2, "u"), job(3, "v")];
        let mut line = Queue::from_entries(jobs.iter().collect(), &turns(before), NOW);
        line.configure(&turns(after));
        let order = drain(&mut line).into_iter().map(|(_, seq)| seq);
        assert_eq!(order.collect::<Vec<_>>(), want, "{before} {after}");
    }
}

#[test]
fn a_waiting_retry_holds_nobody_up_and_comes_back_to_its_place() {
    let mut line = Queue::new();
    let late = entry_with(1, 5, |job| job.due = Some(Due::At(NOW.plus_ms(500))));
    line.insert(late.clone(), NOW);
    line.insert(entry(2, 5), NOW);
    line.insert(entry(3, 5), NOW);
    assert_eq!(line.next_change(), late.due_at());
    assert_eq!(pop(&mut line).map(|e| e.seq), Some(Seq(2)));
    line.wake(NOW.plus_ms(499));
    assert_eq!((line.ready_len(), line.due_len()), (1, 1));
    line.wake(NOW.plus_ms(500));
    assert_eq!(drain(&mut line), [(5, 1), (5, 3)]);
}

#[test]
fn a_changed_priority_changes_the_place_and_not_the_sequence() {
    let mut line = Queue::new();
    for seq in 1..=3 {
        line.insert(entry(seq, 0), NOW);
    }
    assert!(line.reprioritise(entry(3, 0).id, 9, NOW));
    assert!(!line.reprioritise(entry(4, 0).id, 9, NOW));
    assert_eq!(drain(&mut line), [(9, 3), (0, 1), (0, 2)]);
}

#[test]
fn a_place_is_the_one_that_a_look_ahead_tells() {
    for (turns, ageing) in [(0, 0), (0, 1_000), (100, 0), (100, 1_000)] {
        let mut line = line(order(turns, ageing));
        let job = entry(7, 3);
        let place = line.place_of(&job);
        line.insert(job.clone(), NOW);
        assert_eq!(line.peek(DEFAULT_LANE, &models(&["m"])), Some(place));
        assert_eq!(line.place_of(&job), place);
    }
}

#[test]
fn only_what_is_more_urgent_outranks_a_job_that_was_taken() {
    let check = |order: OrderSettings, waiting: &JobEntry, want: bool| {
        let mut line = line(order);
        line.insert(entry(5, 0), NOW);
        let (taken, _) = line.pop(DEFAULT_LANE, &models(&["m"])).unwrap();
        line.insert(waiting.clone(), NOW);
        let place = line.peek(DEFAULT_LANE, &models(&["m"])).unwrap();
        assert_eq!(place.outranks(taken), want, "{order:?} {waiting:?}");
    };
    let old = entry_with(6, 0, |job| job.since = NOW.minus_ms(1_000));
    for turns in [0, 100] {
        check(order(turns, 0), &entry(6, 1), true);
        check(order(turns, 0), &entry(6, 0), false);
        check(order(turns, 0), &entry(4, -1), false);
        check(order(turns, 0), &old, false);
        check(order(turns, 1_000), &old, true);
        // Whose turn it is has been decided.
        check(order(turns, 0), &entry(4, 0), turns == 0);
    }
}

#[test]
fn jobs_that_age_alike_keep_their_order_and_none_outranks_those_of_another_ageing() {
    let settings = settings(order(0, 1_000), Some(order(0, 0)));
    let mut line = Queue::from_entries(WaitingJobs::new(), &settings, NOW);
    let guest = entry_with(1, 2, |job| job.model = "guest".into());
    line.insert(entry(2, 0), NOW);
    line.insert(guest, NOW);
    let both = models(&["guest", "m"]);
    // After three intervals the lane's own job has risen above the other lane's.
    line.wake(NOW.plus_ms(3_000));
    let (own, job) = line.pop(DEFAULT_LANE, &both).unwrap();
    assert_eq!(job.seq, Seq(2));
    let other = line.peek(DEFAULT_LANE, &both).unwrap();
    assert!(!other.outranks(own) && !own.outranks(other));
}

#[test]
fn a_new_model_is_told_once() {
    let mut line = Queue::new();
    let start = line.models_version();
    line.insert(entry(1, 0), NOW);
    let first = line.models_version();
    assert!(first > start);
    line.insert(entry(2, 0), NOW);
    drain(&mut line);
    line.insert(entry(3, 0), NOW);
    assert_eq!(line.models_version(), first);
    assert_eq!(line.models().count(), 1);
    for n in 0..1_000 {
        let model = format!("model {n}").into();
        line.insert(entry_with(10 + n, 0, |job| job.model = model), NOW);
        assert!(line.remove(entry(10 + n, 0).id).is_some());
    }
    assert!(line.models().count() < 100, "{}", line.models().count());
    assert_eq!(drain(&mut line), [(0, 3)]);
}

#[test]
fn an_interval_longer_than_any_time_lifts_nobody() {
    let mut line = line(order(0, u64::MAX));
    line.insert(entry(1, 3), NOW);
    let place = line.peek(DEFAULT_LANE, &models(&["m"])).unwrap();
    assert_eq!(line.urgency(place), 3);
    line.wake(NOW.plus_ms(1 << 62));
    assert_eq!(line.urgency(place), 3);
}

#[test]
fn lines_that_go_on_differently_are_written_differently() {
    let written = |change: fn(&mut Queue)| {
        let mut line = line(order(0, 0));
        line.insert(entry(1, 0), NOW);
        change(&mut line);
        let mut written = String::new();
        line.imprint(&mut written).unwrap();
        written
    };
    let before = written(|_| {});
    assert_eq!(written(|_| {}), before);
    for change in [
        |line: &mut Queue| line.insert(entry(2, 0), NOW),
        |line: &mut Queue| line.wake(NOW.plus_ms(1)),
        |line: &mut Queue| {
            line.reprioritise(entry(1, 0).id, 1, NOW);
        },
    ] {
        assert_ne!(written(change), before);
    }
}

#[test]
fn equal_names_share_one_string() {
    let fresh = |seq| JobEntry {
        model: "model".into(),
        user_id: "user".into(),
        ..entry(seq, 0)
    };
    let mut line = Queue::from_entries(
        [&fresh(1), &fresh(2)].into_iter().collect(),
        &Settings::default(),
        NOW,
    );
    line.insert(fresh(3), NOW);
    let [a, b, c] = [1, 2, 3].map(|seq| line.get(entry(seq, 0).id).unwrap());
    for other in [b, c] {
        assert!(Arc::ptr_eq(&a.model, &other.model));
        assert!(Arc::ptr_eq(&a.user_id, &other.user_id));
    }
}

#[test]
fn with_ageing_nothing_starves() {
    let interval_ms: u64 = 10_000;
    for lead in 0..5 {
        let mut line = line(order(0, interval_ms));
        line.insert(entry(1, 0), NOW);
        // Every 100 ms a more urgent job comes, and one is served.
        let mut served_ms = None;
        for n in 0..1_000 {
            let now = NOW.plus_ms(n * 100);
            line.insert(entry_with(2 + n, lead, |job| job.since = now), now);
            if pop(&mut line).map(|job| job.seq) == Some(Seq(1)) {
                served_ms = Some(n * 100);
                break;
            }
        }
        let lead = u64::try_from(lead).unwrap();
        let bound_ms = lead * interval_ms;
        assert!(served_ms.is_some_and(|ms| ms <= bound_ms), "{served_ms:?}");
    }
}

#[test]
fn with_turns_a_user_who_submits_one_job_at_a_time_gets_no_more_than_his_share() {
    let mut line = line(order(100, 0));
    let job = |seq, user: &str| JobEntry {
        user_id: user.into(),
        tokens: 100,
        ..entry(seq, 0)
    };
    // The first to come would be the first of every round.
    line.insert(job(1_000, "nimble"), NOW);
    for seq in 1..=100 {
        line.insert(job(seq, "steady"), NOW);
    }
    let mut nimble = 0;
    for n in 0..100 {
        let served = pop(&mut line).unwrap();
        if &*served.user_id == "nimble" {
            nimble += 1;
            line.insert(job(1_001 + n, "nimble"), NOW);
        }
    }
    assert_eq!(nimble, 50);
}

#[test]
fn turns_of_classes_without_jobs_are_forgotten_some_day() {
    let mut line = line(order(100, 1_000));
    for n in 0..1_000 {
        let since = NOW.plus_ms(n * 1_000);
        line.insert(entry_with(n, 0, |job| job.since = since), since);
        assert!(pop(&mut line).is_some());
    }
    assert!(line.turns.len() <= IDLE_TURNS_KEPT, "{}", line.turns.len());
}

// ---- whatever happens ----------------------------------------------------------------------------

const MODELS: [&str; 3] = ["a", "b", "guest"];
const USERS: [&str; 4] = ["u", "v", "w", "x"];

prop_compose! {
    fn job()(
        priority in -2_i32..3,
        age_ms in 0_i64..20_000,
        due_ms in prop_oneof![3 => Just(None), 1 => (0_u64..5_000).prop_map(Some)],
        deadline_ms in prop_oneof![3 => Just(None), 1 => (0_u64..9_000).prop_map(Some)],
        model in 0..MODELS.len(),
        user in 0..USERS.len(),
        tokens in 0_u32..50,
        dormant in proptest::bool::weighted(0.2),
        session in 0_u32..4,
    ) -> JobEntry {
        JobEntry {
            due: due_ms.map(|ms| match age_ms % 2 {
                0 => Due::At(NOW.plus_ms(ms)),
                _ => Due::After(Wait::from(NOW, ms)),
            }),
            deadline: deadline_ms.map(|ms| NOW.plus_ms(ms)),
            since: match due_ms {
                // Scheduled, and not delayed.
                Some(ms) if age_ms % 2 == 0 => NOW.plus_ms(ms),
                _ => Timestamp::from_millis(NOW.as_millis() - age_ms),
            },
            model: MODELS[model].into(),
            user_id: USERS[user].into(),
            tokens,
            dormant,
            session: NonZeroU32::new(session).map(SessionTag::new),
            parked: dormant && tokens % 2 == 0,
            ..entry(0, priority)
        }
    }
}

fn jobs(most: usize) -> impl Strategy<Value = Vec<JobEntry>> {
    let numbered = |jobs: Vec<JobEntry>| {
        let number = |(n, job): (usize, JobEntry)| {
            let JobEntry { id, seq, .. } = entry(n as u64 + 1, 0);
            JobEntry { id, seq, ..job }
        };
        jobs.into_iter().enumerate().map(number).collect::<Vec<_>>()
    };
    vec(job(), 0..most).prop_map(numbered).prop_shuffle()
}

fn any_order() -> impl Strategy<Value = OrderSettings> {
    let quantum = prop_oneof![Just(0), 1_u32..60];
    let affinity = prop_oneof![Just(0), 1_u32..4];
    (quantum, any_ageing(), affinity).prop_map(|(quantum, ageing, affinity)| OrderSettings {
        affinity,
        ..order(quantum, ageing)
    })
}

fn any_ageing() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1_000), 1_000_u64..7_000]
}

fn some_models() -> impl Strategy<Value = BTreeSet<Arc<str>>> {
    proptest::sample::subsequence(MODELS.to_vec(), 0..=MODELS.len())
        .prop_map(|names| models(&names))
}

#[derive(Debug, Clone)]
enum Op {
    Insert(usize),
    Remove(usize),
    Pop(BTreeSet<Arc<str>>),
    PutBack(usize),
    Reprioritise(usize, i32),
    Release(usize),
    Pass(u64),
    Configure(OrderSettings, Option<OrderSettings>),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0_usize..40).prop_map(Op::Insert),
        1 => (0_usize..40).prop_map(Op::Remove),
        4 => some_models().prop_map(Op::Pop),
        2 => (0_usize..8).prop_map(Op::PutBack),
        1 => (0_usize..40, -3_i32..4).prop_map(|(n, p)| Op::Reprioritise(n, p)),
        1 => (0_usize..40).prop_map(Op::Release),
        2 => (0_u64..3_000).prop_map(Op::Pass),
        1 => (any_order(), proptest::option::of(any_order())).prop_map(|(a, b)| Op::Configure(a, b)),
    ]
}

/// What must be so of a line whose jobs are these.
fn check_books(line: &Queue, jobs: &BTreeMap<JobId, JobEntry>, now: Timestamp) {
    assert_eq!(line.len(), jobs.len());
    assert_eq!(line.is_empty(), jobs.is_empty());
    let dormant = jobs.values().filter(|job| job.dormant).count();
    let waits = |job: &&JobEntry| !job.dormant && job.due_at().is_some_and(|at| at > now);
    let due = jobs.values().filter(waits).count();
    assert_eq!((line.dormant_len(), line.due_len()), (dormant, due));
    let parked = jobs.values().filter(|job| job.dormant && job.parked);
    assert_eq!(line.parked_len(), parked.count());
    let scheduled = line.by_time().filter(|job| job.is_scheduled()).count();
    assert_eq!(line.scheduled_len(), scheduled);
    assert_eq!(line.ready_len(), jobs.len() - dormant - due);
    let due_at = jobs.values().filter(waits).filter_map(JobEntry::due_at);
    let deadlines = jobs.values().filter_map(|job| job.deadline);
    assert_eq!(line.next_change(), due_at.chain(deadlines).min());
    for (id, job) in jobs {
        let kept = line.get(*id).unwrap();
        assert_eq!((kept.seq, kept.priority), (job.seq, job.priority));
    }
}

proptest! {
    #[test]
    fn whatever_happens_no_job_is_lost_doubled_or_run_when_it_must_not_be(
        pool in jobs(40),
        rules in (any_order(), proptest::option::of(any_order())),
        ops in vec(op(), 0..150),
    ) {
        let mut now = NOW;
        let mut line = Queue::from_entries(WaitingJobs::new(), &settings(rules.0, rules.1), now);
        let mut waiting: BTreeMap<JobId, JobEntry> = BTreeMap::new();
        let mut taken: Vec<(Place, JobEntry)> = Vec::new();
        for op in ops {
            match op {
                Op::Insert(n) => {
                    if let Some(job) = pool.get(n)
                        && taken.iter().all(|(_, other)| other.id != job.id)
                    {
                        line.insert(job.clone(), now);
                        waiting.entry(job.id).or_insert_with(|| job.clone());
                    }
                }
                Op::Remove(n) => {
                    if let Some(job) = pool.get(n) {
                        let removed = line.remove(job.id).map(|job| job.id);
                        prop_assert_eq!(removed, waiting.remove(&job.id).map(|job| job.id));
                    }
                }
                Op::Pop(models) => {
                    let may_run = |job: &JobEntry| {
                        !job.dormant
                            && job.due_at().is_none_or(|at| at <= now)
                            && models.contains(&job.model)
                    };
                    let looked = line.peek(DEFAULT_LANE, &models);
                    let popped = line.pop(DEFAULT_LANE, &models);
                    prop_assert_eq!(looked, popped.as_ref().map(|(place, _)| *place));
                    prop_assert_eq!(popped.is_some(), waiting.values().any(may_run));
                    if let Some((place, job)) = popped {
                        let kept = waiting.remove(&job.id);
                        prop_assert!(kept.is_some_and(|kept| may_run(&kept)));
                        taken.push((place, job));
                    }
                }
                Op::PutBack(n) => {
                    if n < taken.len() {
                        let (place, mut job) = taken.swap_remove(n);
                        job.due = None;
                        waiting.insert(job.id, job.clone());
                        line.put_back(place, job, now);
                    }
                }
                Op::Reprioritise(n, priority) => {
                    if let Some(job) = pool.get(n) {
                        let there = waiting.get_mut(&job.id).map(|job| job.priority = priority);
                        prop_assert_eq!(line.reprioritise(job.id, priority, now), there.is_some());
                    }
                }
                Op::Release(n) => {
                    if let Some(job) = pool.get(n)
                        && taken.iter().all(|(_, other)| other.id != job.id)
                    {
                        let free = JobEntry { dormant: false, ..job.clone() };
                        waiting.insert(job.id, free.clone());
                        line.release(free, now);
                    }
                }
                Op::Pass(ms) => {
                    now = now.plus_ms(ms);
                    line.wake(now);
                    let mut expired: Vec<JobId> = line.expire(now).iter().map(|j| j.id).collect();
                    let over = |job: &JobEntry| job.deadline.is_some_and(|at| at <= now);
                    let mut want: Vec<JobId> =
                        waiting.values().filter(|j| over(j)).map(|j| j.id).collect();
                    waiting.retain(|_, job| !over(job));
                    expired.sort_unstable();
                    want.sort_unstable();
                    prop_assert_eq!(expired, want);
                }
                Op::Configure(default, other) => line.configure(&settings(default, other)),
            }
            check_books(&line, &waiting, now);
        }
        // What is left can all be had, in strict order, by whoever waits long enough.
        line.configure(&settings(order(0, 0), None));
        let mut want: Vec<(Reverse<i32>, Seq)> = waiting
            .values()
            .filter(|job| !job.dormant)
            .map(|job| (Reverse(job.priority), job.seq))
            .collect();
        want.sort_unstable();
        line.wake(NOW.plus_ms(1_000_000));
        let rest: Vec<_> = from_fn(|| pop(&mut line))
            .map(|job| (Reverse(job.priority), job.seq))
            .collect();
        prop_assert_eq!(rest, want);
    }

    #[test]
    fn the_order_is_effective_priority_then_submission_at_every_moment(
        jobs in jobs(60),
        ageing in (any_ageing(), any_ageing()),
        steps in vec((0_u64..5_000, 0_usize..3, some_models()), 60),
    ) {
        let rules = settings(order(0, ageing.0), Some(order(0, ageing.1)));
        let mut line = Queue::from_entries(WaitingJobs::new(), &rules, NOW);
        let mut waiting: Vec<JobEntry> = Vec::new();
        let mut arriving = jobs.into_iter().map(|job| JobEntry {
            dormant: false,
            parked: false,
            deadline: None,
            due: None,
            ..job
        });
        let mut now = NOW;
        for (ms, arrivals, models) in steps {
            now = now.plus_ms(ms);
            line.wake(now);
            for job in arriving.by_ref().take(arrivals) {
                line.insert(job.clone(), now);
                waiting.push(job);
            }
            let effective = |job: &JobEntry| {
                let ms = if &*job.model == "guest" { ageing.1 } else { ageing.0 };
                let steps = |at: Timestamp| match ms {
                    0 => 0,
                    ms => at.as_millis().div_euclid(ms as i64),
                };
                i64::from(job.priority) + steps(now) - steps(job.since)
            };
            let want = waiting
                .iter()
                .filter(|job| models.contains(&job.model))
                .min_by_key(|job| (Reverse(effective(job)), job.seq))
                .map(|job| job.seq);
            let popped = line.pop(DEFAULT_LANE, &models).map(|(_, job)| job.seq);
            prop_assert_eq!(popped, want);
            waiting.retain(|job| Some(job.seq) != popped);
        }
    }

    #[test]
    fn the_order_that_is_told_is_the_order_in_which_jobs_are_taken(
        jobs in jobs(60),
        rules in (any_order(), any_order()),
        ageing in any_ageing(),
        taken in 0_usize..20,
        models in some_models(),
    ) {
        let ageing_alike = |rules| OrderSettings { ageing_ms: ageing, ..rules };
        let rules = settings(ageing_alike(rules.0), Some(ageing_alike(rules.1)));
        let mut line = Queue::from_entries(jobs.iter().collect(), &rules, NOW);
        for _ in 0..taken {
            line.pop(DEFAULT_LANE, &models);
        }
        let told = line.service_order(DEFAULT_LANE, models.clone());
        let told: Vec<Seq> = told.map(|job| job.seq).collect();
        let popped: Vec<Seq> =
            from_fn(|| line.pop(DEFAULT_LANE, &models).map(|(_, job)| job.seq)).collect();
        prop_assert_eq!(told, popped);
    }

    #[test]
    fn a_line_built_whole_is_one_built_job_by_job(
        jobs in jobs(60),
        rules in (any_order(), proptest::option::of(any_order())),
    ) {
        let settings = settings(rules.0, rules.1);
        let twice = jobs.iter().chain(&jobs).collect();
        let mut whole = Queue::from_entries(twice, &settings, NOW);
        let mut one_by_one = Queue::from_entries(WaitingJobs::new(), &settings, NOW);
        for job in &jobs {
            one_by_one.insert(job.clone(), NOW);
        }
        prop_assert!(whole.entries.iter().eq(one_by_one.entries.iter()));
        prop_assert_eq!(whole.next_change(), one_by_one.next_change());
        prop_assert_eq!(whole.dormant_len(), one_by_one.dormant_len());
        prop_assert_eq!(drain(&mut whole), drain(&mut one_by_one));
        for line in [&mut whole, &mut one_by_one] {
            line.wake(NOW.plus_ms(10_000));
        }
        prop_assert_eq!(drain(&mut whole), drain(&mut one_by_one));
        prop_assert_eq!(whole.len(), one_by_one.len());
    }

    #[test]
    fn a_changed_order_is_that_of_a_new_line(
        jobs in jobs(60),
        before in (any_order(), proptest::option::of(any_order())),
        after in (any_order(), proptest::option::of(any_order())),
        taken in 0_usize..10,
    ) {
        let mut line = Queue::from_entries(jobs.iter().collect(), &settings(before.0, before.1), NOW);
        for _ in 0..taken {
            pop(&mut line);
        }
        line.configure(&settings(after.0, after.1));
        // Turns that were under way end with a change; with the same rules they go on.
        line.turns.clear();
        line.runs.clear();
        let mut entries: Vec<JobEntry> = line.entries.iter().map(JobEntry::owned).collect();
        // Users keep their numbers: the order in which they first came.
        entries.sort_by_key(|job| line.users.number(job));
        let mut new = Queue::from_entries(entries.iter().collect(), &settings(after.0, after.1), NOW);
        prop_assert_eq!(drain(&mut line), drain(&mut new));
    }

    #[test]
    fn a_job_that_is_put_back_is_the_next_one_again(
        jobs in jobs(40),
        rules in (any_order(), proptest::option::of(any_order())),
        before in 0_usize..30,
        again in 1_usize..4,
    ) {
        let settings = settings(rules.0, rules.1);
        let mut line = Queue::from_entries(jobs.iter().collect(), &settings, NOW);
        let mut untouched = Queue::from_entries(jobs.iter().collect(), &settings, NOW);
        for _ in 0..before {
            pop(&mut line);
            pop(&mut untouched);
        }
        let all = models(&MODELS);
        for _ in 0..again {
            let Some((place, job)) = line.pop(DEFAULT_LANE, &all) else { break };
            line.put_back(place, job, NOW);
        }
        prop_assert_eq!(drain(&mut line), drain(&mut untouched));
    }

    #[test]
    fn what_two_users_with_a_backlog_get_differs_by_less_than_a_quantum_and_two_jobs(
        sizes in vec((0_usize..USERS.len(), 0_usize..2, 1_u32..300), 1..150),
        quantum in 1_u32..400,
        // After how many pops so many of the latest are put back.
        put_back in vec((1_usize..6, 0_usize..4), 0..20),
    ) {
        let mut line = line(order(quantum, 0));
        let mut left: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        for (n, (user, model, tokens)) in sizes.iter().enumerate() {
            let job = JobEntry {
                user_id: USERS[*user].into(),
                model: MODELS[*model].into(),
                tokens: *tokens,
                ..entry(n as u64 + 1, 0)
            };
            *left.entry(Arc::clone(&job.user_id)).or_default() += 1;
            line.insert(job, NOW);
        }
        let largest = sizes.iter().map(|(_, _, tokens)| i64::from(*tokens)).max().unwrap();
        let bound = i64::from(quantum) + 2 * largest;
        let all = models(&MODELS);
        let mut pauses = put_back.into_iter();
        let mut pause = pauses.next();
        // What each was served in total, after each pop, while all of them still waited.
        let mut served: BTreeMap<Arc<str>, i64> = left.keys().cloned().map(|u| (u, 0)).collect();
        let mut history = vec![served.clone()];
        let mut latest: Vec<(Place, JobEntry)> = Vec::new();
        while let Some((place, job)) = line.pop(DEFAULT_LANE, &all) {
            *served.get_mut(&job.user_id).unwrap() += i64::from(job.tokens);
            *left.get_mut(&job.user_id).unwrap() -= 1;
            if left[&job.user_id] == 0 {
                break;
            }
            latest.push((place, job));
            match &mut pause {
                Some((0, n)) => {
                    for _ in 0..*n {
                        let Some((place, job)) = latest.pop() else { break };
                        *served.get_mut(&job.user_id).unwrap() -= i64::from(job.tokens);
                        *left.get_mut(&job.user_id).unwrap() += 1;
                        line.put_back(place, job, NOW);
                    }
                    latest.clear();
                    pause = pauses.next();
                }
                Some((wait, _)) => *wait -= 1,
                None => {}
            }
            history.push(served.clone());
        }
        for u in served.keys() {
            for v in served.keys() {
                let ahead = history.iter().map(|at| at[u] - at[v]);
                let most = ahead.clone().max().unwrap_or(0);
                let least = ahead.min().unwrap_or(0);
                prop_assert!(most - least < bound, "{u} {v}: {most} {least}, {bound}");
            }
        }
    }

    /// At every moment keys with a backlog have had turns by their weights, to within one round.
    #[test]
    fn keys_with_a_backlog_get_turns_by_their_shares(
        shares in vec(1_u32..6, 2..6),
        sizes in vec(0_u32..5_000, 1..8),
        ageing_ms in any_ageing(),
    ) {
        let keyed = with_keys(settings(order(0, ageing_ms), None), &shares);
        let mut line = Queue::from_entries(WaitingJobs::new(), &keyed, NOW);
        let mut seq = 0;
        for _ in 0..60 {
            for key in 1..=shares.len() as u64 {
                seq += 1;
                let size = sizes[seq as usize % sizes.len()];
                line.insert(of_key(seq, key, size), NOW);
            }
        }
        let sum: u32 = shares.iter().sum();
        let mut got = vec![0_u32; shares.len()];
        for _ in 0..sum * 8 {
            let job = pop(&mut line).unwrap();
            got[job.key.unwrap().number() as usize - 1] += 1;
            for (a, share_a) in got.iter().zip(&shares) {
                for (b, share_b) in got.iter().zip(&shares) {
                    let ahead = f64::from(*a) / f64::from(*share_a) - f64::from(*b) / f64::from(*share_b);
                    prop_assert!(ahead <= 1.0 + 1e-9, "{got:?} of {shares:?}");
                }
            }
        }
        prop_assert_eq!(got, shares.iter().map(|share| share * 8).collect::<Vec<_>>());
    }

    #[test]
    fn each_user_is_served_in_the_order_of_submission(jobs in jobs(60), quantum in 1_u32..60) {
        let mut line = line(order(quantum, 0));
        for job in jobs {
            line.insert(job, NOW);
        }
        let mut last: BTreeMap<(i32, Arc<str>), Seq> = BTreeMap::new();
        while let Some(job) = pop(&mut line) {
            let key = (job.priority, job.user_id);
            prop_assert!(last.insert(key, job.seq).is_none_or(|seq| seq < job.seq));
        }
    }
}

#[test]
fn the_oldest_that_is_due_is_known_whatever_waits_before_it() {
    let since = |seq, ms| entry_with(seq, 0, |job| job.since = NOW.plus_ms(ms));
    let mut line = Queue::new();
    for seq in 0..2_000 {
        let dormant = seq % 2 == 0;
        let due = (!dormant).then(|| Due::At(NOW.plus_ms(50)));
        let waits = JobEntry {
            dormant,
            due,
            ..since(seq, 0)
        };
        line.insert(waits, NOW);
    }
    assert_eq!(line.oldest_ready(), None);
    line.insert(since(3_000, 9), NOW);
    line.insert(since(3_001, 7), NOW);
    assert_eq!(line.oldest_ready(), Some(NOW.plus_ms(7)));
    line.remove(entry(3_001, 0).id);
    assert_eq!(line.oldest_ready(), Some(NOW.plus_ms(9)));
    line.wake(NOW.plus_ms(50));
    assert_eq!(line.oldest_ready(), Some(NOW));
    while let Some((_, taken)) = line.pop("default", &BTreeSet::from(["m".into()])) {
        assert!(!taken.dormant);
    }
    assert_eq!((line.ready_len(), line.oldest_ready()), (0, None));
}

#[test]
fn a_clock_that_is_set_back_makes_no_retry_longer_and_moves_no_start_that_was_asked_for() {
    let retry = entry_with(1, 0, |job| {
        job.due = Some(Due::After(Wait::from(NOW, 1_000)));
    });
    let asked_for = entry_with(2, 0, |job| job.due = Some(Due::At(NOW.plus_ms(5_000))));
    let entries = vec![retry, asked_for];
    let mut running = Queue::new();
    for entry in &entries {
        running.insert(entry.clone(), NOW);
    }
    let back = NOW.minus_ms(900_000);
    running.wake(back);
    let restarted = Queue::from_entries(entries.iter().collect(), &Settings::default(), back);
    for mut queue in [running, restarted] {
        assert_eq!(queue.next_change(), Some(back.plus_ms(1_000)));
        queue.wake(back.plus_ms(999));
        assert_eq!(queue.ready_len(), 0);
        // Set back again and again it waits from then on, and no longer.
        let again = back.minus_ms(7_000);
        queue.wake(again);
        queue.wake(again.plus_ms(1_000));
        assert_eq!(queue.ready_len(), 1);
        assert_eq!(queue.next_change(), Some(NOW.plus_ms(5_000)));
        queue.wake(NOW.plus_ms(5_000));
        assert_eq!(queue.ready_len(), 2);
    }
}
