//! Slots that are kept for the urgent, on the small world of the lane's tests.

use super::*;
use crate::model::{NamedLane, SlotReserve, WaitReason};

const fn kept(priority: u32, slots: u16) -> SlotReserve {
    SlotReserve { priority, slots }
}

fn world(slots: u16, reserve: &[SlotReserve]) -> World {
    let mut settings = Settings::default();
    settings.lane.rules.max_concurrency = slots;
    settings.lane.rules.reserve = reserve.to_vec();
    settings.lane.quarantine_after = 1_000;
    World::with(settings)
}

impl World {
    fn come(&mut self, priority: i32) -> JobId {
        let id = self.submit(priority);
        self.ack_all();
        id
    }

    /// The calls that GLM sees of jobs below this priority.
    fn open_below(&self, priority: i32) -> usize {
        let calls = self.callers.values().flatten();
        calls.filter(|call| call.job.priority < priority).count()
    }

    fn why(&self, id: JobId) -> WaitReason {
        let job = crate::model::Waiting::of(&self.disk.jobs[&id]);
        let job = job.expect("it waits by its row");
        self.lane.wait_reasons(&[job]).remove(0)
    }
}

#[test]
fn slots_are_kept_for_the_urgent_and_the_others_are_told_so() {
    let mut world = world(3, &[kept(50, 1)]);
    let low: Vec<JobId> = (0..5).map(|_| world.come(0)).collect();
    assert_eq!(world.running(), low[..2]);
    let reserved = WaitReason::Reserved {
        priority: 50,
        lane: DEFAULT_LANE.to_owned(),
    };
    for id in &low[2..] {
        assert_eq!(world.why(*id), reserved);
    }
    let counts = world.lane.wait_counts();
    assert_eq!(
        (counts["reserved"], counts["stage"], counts["behind"]),
        (3, 0, 0)
    );
    let almost = world.come(49);
    assert_eq!(world.why(almost), reserved);
    let urgent = world.come(50);
    assert!(world.running().contains(&urgent), "it goes at once");
    assert_ne!(world.why(almost), reserved, "no slot is free");
    world.end_of(low[0], &answered());
    assert!(world.running().contains(&almost));
    // The urgent may have every slot, and leave the one that is kept to the next of them.
    world.end_of(urgent, &answered());
    assert_eq!((world.running().len(), world.open_below(50)), (2, 2));
    world.finish();
    assert_eq!(world.disk.completions.len(), 7);
}

#[test]
fn reserves_add_up_and_each_is_for_its_priority_and_above() {
    let mut world = world(4, &[kept(100, 1), kept(50, 1)]);
    for _ in 0..4 {
        world.come(0);
    }
    assert_eq!(world.running().len(), 2);
    let middle = [world.come(60), world.come(60)];
    assert!(world.running().contains(&middle[0]));
    let kept_for_more_urgent = WaitReason::Reserved {
        priority: 100,
        lane: DEFAULT_LANE.to_owned(),
    };
    assert_eq!(world.why(middle[1]), kept_for_more_urgent);
    let urgent = world.come(100);
    assert!(world.running().contains(&urgent));
    world.finish();
}

#[test]
fn one_slot_is_for_all_also_after_a_throttle() {
    let mut world = world(2, &[kept(50, 1)]);
    for _ in 0..3 {
        world.come(0);
    }
    assert_eq!(world.running().len(), 1);
    let throttle = Failure::new(FailureClass::Throttle, "1302", "GLM's words");
    world.call_ends(&failed_with(throttle));
    assert!(throttle_level(world.lane.state()) > 0);
    for _ in 0..3 {
        world.pass(600_000);
        assert_eq!(world.running().len(), 1, "the one that is left");
        world.call_ends(&answered());
    }
    assert_eq!(world.disk.completions.len(), 3);
}

#[test]
fn a_job_that_has_risen_to_a_priority_may_have_its_slots() {
    let mut world = world(2, &[kept(3, 1)]);
    world.configure(|settings| settings.lane.rules.order.ageing_ms = 1_000);
    let now = world.now;
    let [first, second] = [(); 2].map(|()| world.submit_as(|job| job.created_at = now));
    world.ack_all();
    assert_eq!(world.running(), [first]);
    world.pass(2_000);
    assert_eq!(world.running(), [first]);
    let at = world.lane.next_change().expect("it rises by itself");
    assert!(at.since(world.now) <= 1_000, "{at}");
    world.pass(at.since(world.now));
    assert_eq!(world.running(), [first, second]);
    world.finish();
}

#[test]
fn a_reserve_is_in_force_when_it_is_set_and_gone_when_it_is_not() {
    let mut world = world(2, &[]);
    let jobs: Vec<JobId> = (0..6).map(|_| world.come(0)).collect();
    world.configure(|settings| settings.lane.rules.reserve = vec![kept(1, 1)]);
    world.end_of(jobs[0], &answered());
    assert_eq!(world.running(), [jobs[1]]);
    world.crash();
    world.ack_all();
    assert_eq!(world.running().len(), 1);
    world.configure(|settings| settings.lane.rules.reserve.clear());
    assert_eq!(world.running().len(), 2);
    world.finish();
    assert_eq!(world.disk.completions.len(), 6);
}

const OWN: &str = "glm-5";
const LED: &str = "glm-4.5-air";

impl World {
    fn comes_for(&mut self, model: &str, priority: i32) -> JobId {
        let now = self.now;
        let id = self.submit_as(|job| {
            job.model = model.to_owned();
            job.priority = priority;
            job.created_at = now;
        });
        self.ack_all();
        id
    }
}

/// A lane of two slots, one of them kept for priority 5, whose own jobs age so, serves those of another, which rise by one
/// in 18 s. One of these is there, and has the slot that is not kept.
fn led_to_a_lane_that_keeps_a_slot(ageing_ms: u64) -> (World, JobId) {
    let mut world = world(1, &[]);
    world.configure(|settings| {
        settings.lane.rules.order.ageing_ms = 18_000;
        let mut rules = settings.lane.rules.clone();
        rules.max_concurrency = 2;
        rules.order.ageing_ms = ageing_ms;
        rules.reserve = vec![kept(5, 1)];
        let models = vec![OWN.to_owned()];
        let five = NamedLane { models, rules };
        settings.lanes.insert("five".to_owned(), five);
        let chain = (LED.to_owned(), vec![OWN.to_owned()]);
        settings.glm.fallbacks.extend([chain]);
    });
    let overloaded = world.comes_for(LED, 0);
    world.end_of(overloaded, &failed(FailureClass::Overload));
    world.runs([overloaded], "it is led to the other lane");
    (world, overloaded)
}

#[test]
fn a_job_that_is_led_to_a_lane_rises_as_those_of_its_own() {
    let (mut world, overloaded) = led_to_a_lane_that_keeps_a_slot(0);
    let rising = world.comes_for(LED, 4);
    world.runs([overloaded], "the slot is kept from it");
    let at = world.lane.next_change().expect("it rises by itself");
    assert!(at.since(world.now) <= 18_000, "{at}");
    world.pass(at.since(world.now));
    world.runs([overloaded, rising], "it has risen to 5");
    world.finish();
}

/// One that may not have the slot, of a lane that ages more slowly, is staged before them.
#[test]
fn the_first_staged_job_that_may_have_a_kept_slot_takes_it() {
    let (mut world, overloaded) = led_to_a_lane_that_keeps_a_slot(30_000);
    let urgent = world.comes_for(OWN, 9);
    let low = world.comes_for(OWN, 0);
    let led = world.comes_for(LED, 8);
    let less = world.comes_for(LED, 5);
    assert_eq!(world.lane.snapshot().staged, 3);
    assert_eq!(world.why(low), WaitReason::Stage, "no slot is free");
    world.end_of(urgent, &answered());
    world.runs([overloaded, led], "the slot is kept from the first");
    world.end_of(led, &answered());
    world.runs([overloaded, less], "as it is now");
    world.end_of(less, &answered());
    world.runs([overloaded], "the last is for the urgent");
    let reserved = WaitReason::Reserved {
        priority: 5,
        lane: "five".to_owned(),
    };
    assert_eq!(world.why(low), reserved);
    world.finish();
}

#[test]
fn a_staged_job_is_told_that_a_slot_is_kept_from_it_while_the_next_waits_for_the_pace() {
    let (mut world, _) = led_to_a_lane_that_keeps_a_slot(30_000);
    let urgent = world.comes_for(OWN, 9);
    let low = world.comes_for(OWN, 0);
    let led = world.comes_for(LED, 8);
    world.configure(|settings| {
        let five = settings.lanes.get_mut("five").unwrap();
        five.rules.pace.min_spacing_ms = 10_000;
    });
    world.end_of(urgent, &answered());
    let kept = WaitReason::Reserved {
        priority: 5,
        lane: "five".to_owned(),
    };
    assert_eq!(world.why(low), kept);
    let paced = world.why(led);
    assert!(matches!(paced, WaitReason::Pace { .. }), "{paced:?}");
    let counts = world.lane.wait_counts();
    assert_eq!(
        (counts["reserved"], counts["pace"], counts["stage"]),
        (1, 1, 0)
    );
    world.finish();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes, ends, is given up or crashes: the less urgent never have more than is left to them, one slot is
    /// never kept from all, and everything is done in the end.
    #[test]
    fn the_less_urgent_never_have_the_slots_of_the_urgent(
        slots in 2_u16..6,
        kept_slots in 1_u16..4,
        steps in prop::collection::vec((0_u8..7, 0_u8..8), 1..60),
    ) {
        let kept_slots = kept_slots.min(slots - 1);
        let mut world = world(slots, &[kept(5, kept_slots)]);
        let mut known = Vec::new();
        for (what, with) in steps {
            match what {
                0..=2 => known.push(world.come(i32::from(with))),
                3 | 4 => {
                    if let Some(slot) = world.busy_slot(with.into()) {
                        world.end(slot, &answered());
                    }
                }
                5 => {
                    if let Some(id) = known.get(usize::from(with)) {
                        world.cancel(*id);
                    }
                }
                _ if with == 0 => world.crash(),
                _ => { world.ack(); }
            }
            prop_assert!(world.open_below(5) <= usize::from(slots - kept_slots));
        }
        world.finish();
        for id in known {
            prop_assert!(world.status_of(id).is_terminal());
        }
    }
}
