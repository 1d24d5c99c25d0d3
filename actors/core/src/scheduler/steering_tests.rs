//! Several lanes, fallbacks, holds of models, probes, pace, learnt limits, and tasks that outlive a
//! crash: what the lanes decide, on the small world of the lane's tests.

use super::*;
use crate::model::{
    AsyncTask, AutoSettings, HoldScope, LaneRule, NamedLane, OnInterrupted, PaceSettings,
    PolicyOverride, Secret,
};

const BIG: &str = "glm-5";
const SMALL: &str = "glm-4.7";

fn rules(max_concurrency: u16) -> LaneRules {
    LaneRules {
        max_concurrency,
        ..LaneRules::default()
    }
}

/// `big` takes glm-5 with one call at a time, the default lane the rest with two.
fn two_lanes() -> Settings {
    Settings {
        lane: rules(2).into(),
        lanes: BTreeMap::from([(
            "big".to_owned(),
            NamedLane {
                models: vec![BIG.to_owned()],
                rules: rules(1),
            },
        )]),
        ..Settings::default()
    }
}

impl World {
    fn ask(&mut self, model: &str) -> JobId {
        self.submit_as(|job| job.model = model.to_owned())
    }

    /// The models that calls are open to, in the order of their slots.
    fn open_to(&self) -> Vec<&str> {
        self.callers
            .values()
            .flatten()
            .map(|d| d.job.sent_to())
            .collect()
    }

    fn slot_of(&self, id: JobId) -> SlotId {
        let has = |call: &&Option<Arc<Dispatch>>| call.as_ref().is_some_and(|d| d.job.id == id);
        let found = self.callers.iter().find(|(_, call)| has(call));
        *found.expect("the job has a call").0
    }

    fn end_of(&mut self, id: JobId, outcome: &GlmOutcome) {
        self.end(self.slot_of(id), outcome);
        self.ack_all();
    }

    fn configure(&mut self, change: impl FnOnce(&mut Settings)) {
        let mut settings = (*self.settings).clone();
        change(&mut settings);
        self.settings = Arc::new(settings);
        let effects = self.lane.configure(Arc::clone(&self.settings), self.now);
        self.carry_out(effects);
        for slot in self.lane.missing_callers() {
            self.callers.insert(slot, None);
            self.lane.caller_added(slot);
            self.announce(slot);
        }
        self.ack_all();
    }

    fn holds(&self) -> Vec<(HoldScope, HoldKind)> {
        self.disk
            .lane
            .holds()
            .map(|(scope, hold)| (scope, hold.kind))
            .collect()
    }
}

fn model(name: &str) -> HoldScope {
    HoldScope::Model(name.to_owned())
}

#[test]
fn every_lane_has_its_own_bound() {
    let mut world = World::with(two_lanes());
    for name in [BIG, BIG, BIG, SMALL, SMALL, SMALL, "glm-4.6"] {
        world.ask(name);
    }
    world.ack_all();
    let mut open = world.open_to();
    open.sort_unstable();
    assert_eq!(open, [SMALL, SMALL, BIG]);
    let lanes = world.lane.snapshot().lanes;
    let seen: Vec<_> = lanes
        .iter()
        .map(|l| (l.name.as_str(), l.in_flight))
        .collect();
    assert_eq!(seen, [("default", 2), ("big", 1)]);
    world.finish();
}

#[test]
fn a_throttle_cools_its_own_lane_and_a_used_up_quota_holds_them_all() {
    let mut world = World::with(two_lanes());
    let big = world.ask(BIG);
    let small = world.ask(SMALL);
    world.ask(BIG);
    world.ask(SMALL);
    world.ask(SMALL);
    world.ack_all();
    world.end_of(big, &failed(FailureClass::Throttle));
    assert_eq!(
        world.holds(),
        [(HoldScope::Lane("big".to_owned()), HoldKind::Throttle)]
    );
    assert_eq!(world.open_to(), [SMALL, SMALL]);
    world.end_of(small, &answered());
    assert_eq!(world.open_to(), [SMALL, SMALL], "the other lane goes on");
    let open: Vec<JobId> = world.running();
    world.end_of(open[0], &failed(FailureClass::QuotaWindow));
    world.end_of(open[1], &answered());
    assert_eq!(
        world.open_to(),
        Vec::<&str>::new(),
        "the quota is the account's"
    );
    world.advance(3_600_000);
    world.ack_all();
    assert_eq!(
        world.open_to().len(),
        2,
        "both holds have ended by themselves"
    );
    world.finish();
}

#[test]
fn a_model_without_capacity_stops_only_its_own_jobs_and_longer_each_time() {
    let mut world = World::new(1);
    let big = world.ask(BIG);
    world.ask(SMALL);
    world.ack_all();
    world.end_of(big, &failed(FailureClass::Overload));
    assert_eq!(world.holds(), [(model(BIG), HoldKind::Overload)]);
    assert_eq!(world.open_to(), [SMALL]);
    world.end(world.busy_slot(0).unwrap(), &answered());
    world.ack_all();
    assert_eq!(world.open_to(), Vec::<&str>::new());
    let first = world.lane.next_change().unwrap().since(world.now);
    assert!((24_000..=30_000).contains(&first), "{first}");
    world.crash();
    world.advance(30_000);
    world.ack_all();
    assert_eq!(
        world.open_to(),
        [BIG],
        "its hold outlives a crash and ends by itself"
    );
    world.end_of(big, &failed(FailureClass::Overload));
    let second = world.lane.next_change().unwrap().since(world.now);
    assert!((48_000..=60_000).contains(&second), "{second}");
    world.advance(60_000);
    world.ack_all();
    world.end_of(big, &answered());
    assert_eq!(world.disk.lane.models.len(), 0, "an answer ends the series");
    world.finish();
}

#[test]
fn while_a_model_is_held_its_fallback_serves_and_is_said_to() {
    let mut settings = two_lanes();
    settings
        .glm
        .fallbacks
        .insert(BIG.to_owned(), vec![SMALL.to_owned(), "glm-4.5".to_owned()]);
    let mut world = World::with(settings);
    let big = world.ask(BIG);
    world.ack_all();
    world.end_of(big, &failed(FailureClass::Overload));
    assert_eq!(world.open_to(), [SMALL]);
    let lanes = world.lane.snapshot().lanes;
    assert_eq!(
        (lanes[0].in_flight, lanes[1].in_flight),
        (1, 0),
        "in the lane of the fallback"
    );
    world.end_of(big, &failed(FailureClass::Overload));
    assert_eq!(world.open_to(), ["glm-4.5"], "and so on along the chain");
    world.end_of(big, &answered());
    let job = &world.disk.jobs[&big];
    assert_eq!(
        (job.status, job.served_by.as_deref()),
        (JobStatus::Completed, Some("glm-4.5"))
    );
    world.advance(60_000);
    let next = world.ask(BIG);
    world.ack_all();
    assert_eq!(world.open_to(), [BIG], "held no more, it serves itself");
    world.end_of(next, &answered());
    assert_eq!(world.disk.jobs[&next].served_by, None);
    world.finish();
}

#[test]
fn what_was_staged_for_a_model_that_is_held_makes_way() {
    let mut world = World::new(1);
    let first = world.ask(BIG);
    world.ask(BIG);
    let small = world.ask(SMALL);
    world.ack_all();
    assert_eq!(world.lane.snapshot().staged, 1);
    world.end_of(first, &failed(FailureClass::Overload));
    assert_eq!(world.running(), [small]);
    world.finish();
}

#[test]
fn a_model_that_the_plan_does_not_have_waits_for_an_operator_and_the_others_go_on() {
    let mut settings = Settings::default();
    let word = PolicyOverride {
        lane: Some(LaneRule::HoldModelForOperator),
        ..PolicyOverride::default()
    };
    settings.policy.insert("1311".to_owned(), word);
    let mut world = World::with(settings);
    let big = world.ask(BIG);
    world.ask(SMALL);
    world.ack_all();
    let refused = Failure::new(FailureClass::OperatorFatal, "1311", "not in your plan");
    world.end_of(big, &GlmOutcome::Failed(refused, Usage::default()));
    assert_eq!(world.holds(), [(model(BIG), HoldKind::Operator)]);
    assert_eq!(world.open_to(), [SMALL]);
    world.end(world.busy_slot(0).unwrap(), &answered());
    world.ack_all();
    world.advance(86_400_000);
    assert_eq!(world.open_to(), Vec::<&str>::new());
    let (was, effects) = world.lane.release(&model(BIG), world.now);
    world.carry_out(effects);
    world.ack_all();
    assert!(was);
    assert_eq!(world.open_to(), [BIG]);
    assert_eq!(world.disk.jobs[&big].retry_count, 0);
    world.finish();
}

#[test]
fn a_code_that_means_something_else_from_now_on_holds_nothing() {
    let mut world = World::new(1);
    world.submit(0);
    world.ack_all();
    let refused = Failure::new(FailureClass::OperatorFatal, "1220", "no permission");
    world.end(SlotId(0), &GlmOutcome::Failed(refused, Usage::default()));
    world.ack_all();
    assert!(world.running().is_empty());
    world.configure(|settings| settings.lane.rules.max_concurrency = 2);
    assert!(
        world.running().is_empty(),
        "a change that has nothing to do with it"
    );
    world.configure(|settings| {
        let word = FailureClass::RequestFatal.into();
        settings.policy.insert("1220".to_owned(), word);
    });
    assert_eq!(world.running(), [id(1)]);
    world.finish();
}

#[test]
fn an_operator_hold_that_is_probed_spends_one_call_a_time() {
    let mut settings = Settings {
        lane: rules(3).into(),
        ..Settings::default()
    };
    settings.lane.operator_probe_ms = 600_000;
    let mut world = World::with(settings);
    for _ in 0..6 {
        world.submit(0);
    }
    world.ack_all();
    for slot in 0..3 {
        world.end(SlotId(slot), &failed(FailureClass::OperatorFatal));
        world.ack_all();
    }
    assert_eq!(world.sent.len(), 3);
    for probe in 1..=2 {
        world.advance(600_000);
        world.ack_all();
        assert_eq!(world.sent.len(), 3 + probe, "one probe");
        world.end(
            world.busy_slot(0).unwrap(),
            &failed(FailureClass::OperatorFatal),
        );
        world.ack_all();
    }
    world.crash();
    world.advance(600_000);
    world.ack_all();
    world.end(world.busy_slot(0).unwrap(), &answered());
    world.ack_all();
    assert_eq!(world.running().len(), 3, "an answer ends the probing");
    world.finish();
}

#[test]
fn a_new_key_ends_what_was_held_and_learnt_of_the_old_account() {
    let mut world = World::new(1);
    world.submit(0);
    world.ack_all();
    let mut failure = Failure::new(FailureClass::QuotaWindow, "1308", "words");
    failure.reset_at = Some(world.now.plus_ms(86_400_000));
    world.end(SlotId(0), &GlmOutcome::Failed(failure, Usage::default()));
    world.ack_all();
    assert!(world.running().is_empty());
    world.configure(|settings| settings.glm.api_key = Some(Secret::new("another")));
    assert_eq!(
        world.running(),
        [id(1)],
        "another account has a quota of its own"
    );
    world.finish();
}

#[test]
fn a_paced_lane_spreads_its_calls_and_wakes_for_the_next() {
    let mut settings = Settings::default();
    settings.lane.rules.pace = PaceSettings {
        requests_per_minute: 6,
        ..PaceSettings::default()
    };
    let mut world = World::with(settings);
    for _ in 0..3 {
        world.submit(0);
    }
    world.ack_all();
    let begun = world.now;
    let mut starts = vec![0];
    while world.sent.len() < 3 {
        if let Some(slot) = world.busy_slot(0) {
            world.end(slot, &answered());
            world.ack_all();
        }
        let next = world.lane.next_change().expect("a moment to wake up for");
        world.advance(next.since(world.now));
        world.ack_all();
        starts.push(world.now.since(begun));
    }
    assert_eq!(starts, [0, 10_000, 20_000]);
    world.finish();
}

#[test]
fn automatic_concurrency_begins_low_goes_up_with_answers_and_down_with_a_throttle() {
    let mut settings = Settings::default();
    settings.lane.rules.max_concurrency = 8;
    settings.lane.rules.auto = AutoSettings {
        on: true,
        min: 1,
        trial_ms: 1_000,
    };
    let mut world = World::with(settings);
    for _ in 0..200 {
        world.submit(0);
    }
    world.ack_all();
    assert_eq!(world.running().len(), 1);
    for _ in 0..80 {
        world.end(world.busy_slot(0).unwrap(), &answered());
        world.advance(1_000);
        world.ack_all();
    }
    let high = world.lane.snapshot().lanes[0].limit;
    assert!(high >= 4, "{high}");
    assert!(world.running().len() <= usize::from(high));
    world.end(world.busy_slot(0).unwrap(), &failed(FailureClass::Throttle));
    world.ack_all();
    let low = world.lane.snapshot().lanes[0].limit;
    assert_eq!(low, high.div_ceil(2).min(high / 2).max(1));
    assert!(throttle_level(world.lane.state()) <= 1);
    world.crash();
    assert_eq!(
        world.lane.snapshot().lanes[0].limit,
        low,
        "what was learnt outlives a crash"
    );
    world.finish();
}

#[test]
fn a_job_that_is_set_aside_waits_for_somebody_and_blocks_nobody() {
    let mut world = World::new(1);
    let careful = world.submit_as(|job| job.on_interrupted = Some(OnInterrupted::Park));
    let other = world.submit(0);
    world.ack_all();
    world.crash();
    assert!(world.disk.jobs[&careful].parked.is_some());
    assert_eq!(world.running(), [other]);
    assert_eq!(world.lane.snapshot().dormant, 1);
    world.crash();
    assert_eq!(
        world.lane.snapshot().dormant,
        1,
        "another crash does not change that"
    );
    let effects = world.lane.requeue(careful, world.now);
    world.carry_out(effects);
    world.ack_all();
    assert_eq!(world.lane.snapshot().dormant, 0);
    world.finish();
}

fn note_task(world: &mut World, id: JobId) {
    let attempt = world.disk.jobs[&id].attempts;
    let task = AsyncTask {
        id: "t1".to_owned(),
        left_open: false,
        account: world.settings.glm.endpoint().digest(),
    };
    let note = Transition::Task {
        job_id: id,
        attempt,
        task,
    };
    world.disk.apply(&note).unwrap();
}

#[test]
fn a_task_is_fetched_after_a_crash_and_not_bought_again() {
    let mut world = World::new(1);
    let job = world.submit(0);
    world.submit(0);
    world.ack_all();
    note_task(&mut world, job);
    world.in_work.clear();
    for caller in world.callers.values_mut() {
        *caller = None;
    }
    world.last.clear();
    world.recover();
    world.announce(SlotId(0));
    world.ack_all();
    assert_eq!(world.running(), [job], "before any other");
    assert_eq!(
        world.disk.jobs[&job].attempts,
        AttemptNo(1),
        "the same attempt"
    );
    world.end_of(job, &answered());
    assert_eq!(world.disk.jobs[&job].status, JobStatus::Completed);
    assert_eq!(world.sent.iter().filter(|(id, _)| *id == job).count(), 1);
    world.finish();
}

#[test]
fn a_task_of_another_account_is_closed_as_interrupted() {
    let mut world = World::new(1);
    let job = world.submit(0);
    world.ack_all();
    note_task(&mut world, job);
    let mut settings = (*world.settings).clone();
    settings.glm.api_key = Some(Secret::new("another"));
    world.settings = Arc::new(settings);
    world.crash();
    assert_eq!(
        world.disk.closed[&(job, AttemptNo(1))],
        CallOutcome::Interrupted
    );
    world.finish();
}

#[test]
fn a_shutdown_leaves_a_task_open_for_the_next_start() {
    let mut world = World::new(1);
    let job = world.submit(0);
    world.ack_all();
    note_task(&mut world, job);
    let effects = world.lane.drain(world.now);
    world.carry_out(effects);
    world.callers.insert(SlotId(0), None);
    let left = LeftOpen {
        job_id: job,
        attempt: AttemptNo(1),
        task: world.disk.jobs[&job].task.clone().unwrap(),
    };
    let effects = world.lane.left_open(SlotId(0), left, world.now);
    world.carry_out(effects);
    world.ack_all();
    assert!(world.lane.is_drained());
    assert_eq!(world.disk.jobs[&job].status, JobStatus::Processing);
    world.last.clear();
    world.recover();
    world.announce(SlotId(0));
    world.ack_all();
    assert_eq!(world.running(), [job]);
    world.finish();
}

#[test]
fn a_deadline_that_passes_says_what_stood_in_the_way() {
    let mut world = World::new(1);
    world.submit(0);
    world.ack_all();
    world.end(SlotId(0), &failed(FailureClass::OperatorFatal));
    world.ack_all();
    let deadline = world.now.plus_ms(1_000);
    let late = world.submit_as(|job| job.deadline = Some(deadline));
    world.advance(1_000);
    world.ack_all();
    let failure = world.disk.jobs[&late].error.as_ref().unwrap();
    assert_eq!(failure.code, code::DEADLINE);
    assert!(
        failure.message.contains("until an operator acts: x: words"),
        "{failure}"
    );
    world.finish();
}

#[test]
fn a_lane_that_is_gone_gives_its_jobs_back() {
    let mut world = World::with(two_lanes());
    for _ in 0..3 {
        world.ask(BIG);
    }
    world.ack_all();
    assert_eq!(world.open_to(), [BIG]);
    world.configure(|settings| settings.lanes.clear());
    assert_eq!(
        world.open_to(),
        [BIG, BIG],
        "the default lane has two slots"
    );
    world.finish();
}
