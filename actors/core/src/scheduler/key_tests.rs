//! The calls of client keys: their caps and their weights, on the small world of the lane's tests.

use super::*;
use crate::model::{ClientKey, KeyForm, KeyId, KeyRights, KeySecret, NamedLane, WaitReason};

const A: KeyId = KeyId::new(1);
const B: KeyId = KeyId::new(2);

fn key(id: KeyId, rights: KeyRights) -> ClientKey {
    let (secret, _) = KeySecret::make(id, &[1; 32], KeyForm::Plain);
    ClientKey {
        rights,
        ..ClientKey::new(id, "k", secret, Timestamp::default())
    }
}

fn capped(id: KeyId, calls: u16) -> ClientKey {
    let rights = KeyRights {
        calls_in_flight: Some(calls),
        ..KeyRights::default()
    };
    key(id, rights)
}

fn shared(id: KeyId, share: u32) -> ClientKey {
    let rights = KeyRights {
        share,
        ..KeyRights::default()
    };
    key(id, rights)
}

fn world(slots: u16, keys: impl IntoIterator<Item = ClientKey>) -> World {
    let mut settings = Settings::default();
    settings.lane.rules.max_concurrency = slots;
    settings.lane.quarantine_after = 1_000;
    settings.keys = Arc::new(keys.into_iter().collect());
    World::with(settings)
}

impl World {
    fn hand_in(&mut self, key: KeyId, priority: i32) -> JobId {
        let id = self.submit_as(|job| {
            job.key_id = Some(key);
            job.priority = priority;
        });
        self.ack_all();
        id
    }

    /// The calls of a key that GLM sees.
    fn open_by(&self, key: KeyId) -> usize {
        let calls = self.callers.values().flatten();
        calls.filter(|call| call.job.key_id == Some(key)).count()
    }

    fn reason_of(&self, id: JobId) -> WaitReason {
        let job = crate::model::Waiting::of(&self.disk.jobs[&id]);
        let job = job.expect("it waits by its row");
        self.lane.wait_reasons(&[job]).remove(0)
    }
}

#[test]
fn a_key_has_no_more_calls_open_than_it_may_and_those_behind_it_go() {
    let mut world = world(4, [capped(A, 2)]);
    let first: Vec<JobId> = (0..6).map(|_| world.hand_in(A, 9)).collect();
    let others: Vec<JobId> = (0..4).map(|_| world.hand_in(B, 0)).collect();
    assert_eq!((world.open_by(A), world.open_by(B)), (2, 2));
    assert_eq!(world.reason_of(first[3]), WaitReason::KeyBusy { key: A });
    let counts = world.lane.wait_counts();
    assert_eq!((counts["keyBusy"], counts["blocked"]), (4, 0));
    let answer = answered();
    for ended in &first[..3] {
        world.end_of(*ended, &answer);
        assert_eq!(world.open_by(A), 2, "the next of the key goes");
    }
    world.end_of(others[0], &answer);
    assert_eq!((world.open_by(A), world.open_by(B)), (2, 2));
    world.finish();
    assert_eq!(world.disk.completions.len(), 10);
}

#[test]
fn a_more_urgent_job_of_a_key_takes_the_place_of_one_that_is_on_record() {
    // One call is open and one is on record: the key has what it may.
    let mut world = world(3, [capped(A, 2)]);
    world.configure(|settings| settings.lane.rules.max_concurrency = 3);
    let block: Vec<JobId> = (0..3).map(|_| world.hand_in(B, 99)).collect();
    let low = world.hand_in(A, 0);
    let other = world.hand_in(A, 0);
    let high = world.hand_in(A, 5);
    for id in block {
        world.end_of(id, &answered());
    }
    let running = world.running();
    assert!(running.contains(&high), "{running:?}");
    assert_eq!(world.open_by(A), 2);
    world.end_of(high, &answered());
    assert_eq!(world.open_by(A), 2);
    world.finish();
    for id in [low, other, high] {
        assert_eq!(world.status_of(id), JobStatus::Completed);
    }
}

/// One that is on record in a lane that ages faster can't be told more or less urgent.
#[test]
fn the_job_that_makes_room_for_a_more_urgent_one_of_its_key_is_one_that_it_outranks() {
    const SLOW: &str = "glm-5";
    let mut world = world(1, [capped(A, 2)]);
    world.configure(|settings| {
        settings.lane.rules.order.ageing_ms = 18_000;
        let mut rules = settings.lane.rules.clone();
        rules.max_concurrency = 2;
        rules.order.ageing_ms = 30_000;
        let models = vec![SLOW.to_owned()];
        let lane = NamedLane { models, rules };
        settings.lanes.insert("slow".to_owned(), lane);
    });
    let now = world.now;
    let comes = |world: &mut World, key, model: &str, priority| {
        let id = world.submit_as(|job| {
            job.key_id = Some(key);
            job.model = model.to_owned();
            job.priority = priority;
            job.created_at = now;
        });
        world.ack_all();
        id
    };
    for model in ["glm-4.7", SLOW, SLOW] {
        comes(&mut world, B, model, 99);
    }
    let fast = comes(&mut world, A, "glm-4.7", 0);
    let low = comes(&mut world, A, SLOW, 1);
    assert_eq!(world.reason_of(low), WaitReason::Stage);
    let high = comes(&mut world, A, SLOW, 5);
    let reasons = [fast, low, high].map(|id| world.reason_of(id));
    let busy = WaitReason::KeyBusy { key: A };
    assert_eq!(reasons, [WaitReason::Stage, busy, WaitReason::Stage]);
    world.finish();
}

#[test]
fn jobs_that_wait_for_their_key_wake_when_the_key_is_bound_no_more() {
    let mut world = world(4, [capped(A, 1)]);
    let jobs: Vec<JobId> = (0..4).map(|_| world.hand_in(A, 0)).collect();
    assert_eq!(world.open_by(A), 1);
    assert_eq!(world.cancel(jobs[3]), CancelPath::Commit);
    world.ack_all();
    assert_eq!(world.status_of(jobs[3]), JobStatus::Cancelled);
    world.configure(|settings| settings.keys = Arc::default());
    assert_eq!(world.open_by(A), 3);
    world.finish();
}

#[test]
fn a_crash_leaves_a_key_no_more_calls_than_it_may_have() {
    let mut world = world(4, [capped(A, 2)]);
    for _ in 0..8 {
        world.hand_in(A, 0);
        world.hand_in(B, 0);
    }
    for _ in 0..4 {
        world.crash();
        world.ack_all();
        assert!(world.open_by(A) <= 2, "{}", world.open_by(A));
        world.call_ends(&answered());
        assert!(world.open_by(A) <= 2, "{}", world.open_by(A));
    }
    world.finish();
    assert_eq!(world.disk.completions.len(), 16);
}

#[test]
fn keys_take_turns_by_their_weights_and_a_flood_of_one_keeps_nobody_waiting() {
    let mut world = world(1, [shared(A, 3), shared(B, 1)]);
    world.configure(|settings| settings.lane.rules.order.fair_quantum_tokens = 100);
    let flood = KeyId::new(3);
    for _ in 0..60 {
        world.hand_in(flood, 0);
    }
    for _ in 0..30 {
        world.hand_in(A, 0);
        world.hand_in(B, 0);
    }
    let before = world.sent.len();
    for _ in 0..50 {
        world.call_ends(&answered());
    }
    let served = world.sent[before..].iter();
    let mut counts: BTreeMap<KeyId, u32> = BTreeMap::new();
    for (id, _) in served {
        let key = world.disk.jobs[id].key_id.unwrap();
        *counts.entry(key).or_default() += 1;
    }
    assert!((28..=32).contains(&counts[&A]), "{counts:?}");
    assert!((9..=11).contains(&counts[&B]), "{counts:?}");
    assert!((9..=11).contains(&counts[&flood]), "{counts:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes, ends, is given up or crashes: no key is above its cap, and everything is done in the end.
    #[test]
    fn no_key_is_ever_above_its_cap(
        slots in 1_u16..5,
        caps in (1_u16..4, 1_u16..4),
        steps in prop::collection::vec((0_u8..6, 0_u8..8), 1..60),
    ) {
        let mut world = world(slots, [capped(A, caps.0), capped(B, caps.1)]);
        let mut known = Vec::new();
        for (what, with) in steps {
            match what {
                0 | 1 => known.push(world.hand_in(if with % 2 == 0 { A } else { B }, i32::from(with) / 3)),
                2 => known.push(world.submit(1)),
                3 => {
                    if let Some(slot) = world.busy_slot(with.into()) {
                        world.end(slot, &answered());
                    }
                }
                4 => {
                    if let Some(id) = known.get(usize::from(with)) {
                        world.cancel(*id);
                    }
                }
                _ if with == 0 => world.crash(),
                _ => { world.ack(); }
            }
            prop_assert!(world.open_by(A) <= usize::from(caps.0));
            prop_assert!(world.open_by(B) <= usize::from(caps.1));
        }
        world.finish();
        for id in known {
            prop_assert!(world.status_of(id).is_terminal());
        }
    }
}
