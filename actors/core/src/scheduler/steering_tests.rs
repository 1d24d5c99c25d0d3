//! Several lanes, fallbacks, holds of models, probes, pace, learnt limits, and tasks that outlive a
//! crash: what the lanes decide, on the small world of the lane's tests.

use super::*;
use crate::model::{
    AsyncTask, AutoSettings, LaneRule, OnInterrupted, PaceSettings, PolicyOverride,
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
        lanes: BTreeMap::from([("big".to_owned(), lane_for(BIG))]),
        ..Settings::default()
    }
}

impl World {
    /// The models that calls are open to, in the order of their slots.
    fn open_to(&self) -> Vec<&str> {
        let open = self.callers.values().flatten();
        open.map(|dispatch| dispatch.job.sent_to()).collect()
    }

    #[track_caller]
    fn serves<const N: usize>(&self, want: [&str; N], why: &str) {
        assert_eq!(self.open_to(), want, "{why}");
    }

    fn holds(&self) -> Vec<(HoldScope, HoldKind)> {
        let holds = self.disk.lane.holds();
        holds.map(|(scope, hold)| (scope, hold.kind)).collect()
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
    let seen = world.lane.snapshot().lanes;
    let seen = seen.iter().map(|l| (l.name.as_str(), l.in_flight));
    assert!(seen.eq([("default", 2), ("big", 1)]));
    world.finish();
}

#[test]
fn after_a_throttle_one_call_finds_out_whether_it_is_over() {
    let mut world = World::new(2);
    let [first, second, ..] = world.submit_all([0, 0, 0, 0]);
    world.end_of(first, &failed(FailureClass::Throttle));
    world.end_of(second, &failed(FailureClass::Throttle));
    world.pass(120_000);
    assert_eq!(world.open_to().len(), 1);
    world.call_ends(&answered());
    assert_eq!(world.open_to().len(), 2, "it is");
}

#[test]
fn after_a_restart_each_lane_estimates_by_its_own_calls() {
    let mut lane = World::with(two_lanes()).lane;
    let call = |model: &str, response_time_ms| CallRecord {
        model: model.to_owned(),
        response_time_ms,
        ..crate::testing::sample::call(1, 1, CallOutcome::Completed)
    };
    let calls = [call(BIG, 100), call(SMALL, 900)];
    lane.restore_pace(&calls, Timestamp::default());
    for (name, call) in ["big", DEFAULT_LANE].into_iter().zip(&calls) {
        let mut own = crate::scheduler::wait::Recent::default();
        own.add(call);
        assert_eq!(lane.tracks[name].recent, own, "{name}");
    }
}

#[test]
fn a_call_that_a_crash_cut_off_counts_for_the_pace_from_when_it_was_recorded() {
    let restored = |outcome, started, ended| {
        let mut settings = Settings::default();
        settings.lane.rules.pace.min_spacing_ms = 10_000;
        let mut lane = World::with(settings).lane;
        let call = CallRecord {
            started_at: Timestamp::from_millis(started),
            ended_at: Timestamp::from_millis(ended),
            ..crate::testing::sample::call(1, 1, outcome)
        };
        lane.restore_pace(&[call], Timestamp::from_millis(6_000));
        format!("{:?}", lane.tracks[DEFAULT_LANE].pace)
    };
    let late = restored(CallOutcome::Completed, 5_000, 5_000);
    assert_eq!(restored(CallOutcome::Interrupted, 1_000, 5_000), late);
    assert_ne!(restored(CallOutcome::Completed, 1_000, 5_000), late);
}

#[test]
fn a_call_that_a_restart_finds_open_counts_for_the_pace_as_if_it_had_just_been_sent() {
    let mut settings = Settings::default();
    settings.lane.rules.pace.min_spacing_ms = 10_000;
    let mut world = World::with(settings);
    let [_open] = world.submit_all([0]);
    assert_eq!(world.running().len(), 1);
    // The disk may have kept it waiting for all that time.
    world.now = world.now.plus_ms(60_000);
    let recovered = world.disk.recovered();
    let settings = Arc::clone(&world.settings);
    let mut lane = Scheduler::recover(recovered, settings, [SlotId(0)], 2, world.now);
    lane.restore_pace(&[], world.now);
    let pace = &lane.tracks[DEFAULT_LANE].pace;
    assert_eq!(pace.earliest(1, world.now), world.now.plus_ms(10_000));
}

#[test]
fn no_call_is_decided_beside_one_that_a_slow_disk_keeps_from_going_out() {
    let mut settings = Settings::default();
    settings.lane.rules = rules(2);
    settings.lane.rules.pace.min_spacing_ms = 1_000;
    let mut world = World::with(settings);
    let first = world.submit(0);
    let second = world.submit(0);
    world.now = world.now.plus_ms(5_000);
    world.tell(Scheduler::tick);
    // Both could go by the moments at which they were decided.
    world.ack_all();
    assert_eq!(world.running(), [first]);
    world.pass(999);
    assert_eq!(world.running(), [first]);
    world.pass(1);
    assert_eq!(world.running(), [first, second]);
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
    world.serves([SMALL, SMALL], "the other lane goes on");
    let open: Vec<JobId> = world.running();
    world.end_of(open[0], &failed(FailureClass::QuotaWindow));
    world.end_of(open[1], &answered());
    world.serves([], "the quota is the account's");
    world.pass(3_600_000);
    // Both holds have ended by themselves.
    assert_eq!(world.open_to().len(), 2);
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
    world.call_ends(&answered());
    assert!(world.open_to().is_empty());
    let first = world.lane.next_change().unwrap().since(world.now);
    assert!((24_000..=30_000).contains(&first), "{first}");
    world.crash();
    world.pass(30_000);
    world.serves([BIG], "its hold outlives a crash and ends by itself");
    world.end_of(big, &failed(FailureClass::Overload));
    let second = world.lane.next_change().unwrap().since(world.now);
    assert!((48_000..=60_000).contains(&second), "{second}");
    world.pass(60_000);
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
    // In the lane of the fallback.
    let lanes = world.lane.snapshot().lanes;
    assert_eq!((lanes[0].in_flight, lanes[1].in_flight), (1, 0));
    world.end_of(big, &failed(FailureClass::Overload));
    world.serves(["glm-4.5"], "and so on along the chain");
    world.end_of(big, &answered());
    let job = &world.disk.jobs[&big];
    assert_eq!(job.status, JobStatus::Completed);
    assert_eq!(job.served_by.as_deref(), Some("glm-4.5"));
    world.advance(60_000);
    let next = world.ask(BIG);
    world.ack_all();
    world.serves([BIG], "held no more, it serves itself");
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
    world.end_of(big, &failed_with(refused));
    assert_eq!(world.holds(), [(model(BIG), HoldKind::Operator)]);
    assert_eq!(world.open_to(), [SMALL]);
    world.call_ends(&answered());
    world.advance(86_400_000);
    assert!(world.open_to().is_empty());
    assert!(world.release(&model(BIG)));
    assert_eq!(world.open_to(), [BIG]);
    assert_eq!(world.disk.jobs[&big].retry_count, 0);
    world.finish();
}

#[test]
fn a_code_that_means_something_else_from_now_on_holds_nothing() {
    let mut world = World::new(1);
    world.submit_all([0]);
    let refused = Failure::new(FailureClass::OperatorFatal, "1220", "no permission");
    world.call_ends(&failed_with(refused));
    assert!(world.running().is_empty());
    world.configure(|settings| settings.lane.rules.max_concurrency = 2);
    world.runs([], "a change that has nothing to do with it");
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
    world.submit_all([0; 6]);
    for slot in 0..3 {
        world.end(SlotId(slot), &failed(FailureClass::OperatorFatal));
        world.ack_all();
    }
    assert_eq!(world.sent.len(), 3);
    for probe in 1..=2 {
        world.pass(600_000);
        assert_eq!(world.sent.len(), 3 + probe, "one probe");
        world.call_ends(&failed(FailureClass::OperatorFatal));
    }
    world.crash();
    world.pass(600_000);
    world.call_ends(&answered());
    assert_eq!(world.running().len(), 3, "an answer ends the probing");
    world.finish();
}

#[test]
fn a_new_key_ends_what_was_held_and_learnt_of_the_old_account() {
    let mut world = World::new(1);
    world.submit_all([0]);
    world.call_ends(&used_up_until(world.now.plus_ms(86_400_000)));
    assert!(world.running().is_empty());
    world.configure(|settings| settings.glm.api_key = Some(Secret::new("another")));
    world.runs([id(1)], "another account has a quota of its own");
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
    world.submit_all([0; 3]);
    let begun = world.now;
    let mut starts = vec![0];
    while world.sent.len() < 3 {
        if let Some(slot) = world.busy_slot(0) {
            world.end(slot, &answered());
            world.ack_all();
        }
        let next = world.lane.next_change().expect("a moment to wake up for");
        world.pass(next.since(world.now));
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
    world.submit_all([0; 200]);
    assert_eq!(world.running().len(), 1);
    for _ in 0..80 {
        world.end(world.busy_slot(0).unwrap(), &answered());
        world.pass(1_000);
    }
    let high = world.lane.snapshot().lanes[0].limit;
    assert!(high >= 4, "{high}");
    assert!(world.running().len() <= usize::from(high));
    world.call_ends(&failed(FailureClass::Throttle));
    let low = world.lane.snapshot().lanes[0].limit;
    assert_eq!(low, high.div_ceil(2).min(high / 2).max(1));
    assert!(throttle_level(world.lane.state()) <= 1);
    world.crash();
    // What was learnt outlives a crash.
    assert_eq!(world.lane.snapshot().lanes[0].limit, low);
    world.finish();
}

#[test]
fn a_job_that_is_set_aside_waits_for_somebody_and_blocks_nobody() {
    let mut world = World::new(1);
    let careful = world.submit_as(|job| job.on_interrupted = Some(OnInterrupted::Park));
    let [other] = world.submit_all([0]);
    world.crash();
    assert!(world.disk.jobs[&careful].parked.is_some());
    assert_eq!(world.running(), [other]);
    assert_eq!(world.lane.snapshot().dormant, 1);
    world.crash();
    // Another crash does not change that.
    assert_eq!(world.lane.snapshot().dormant, 1);
    world.step(|lane, now| lane.requeue(careful, now));
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

/// A lane that a crash cut off while GLM held one of its two jobs as a task. Its one caller is ready.
fn after_a_crash_with_a_task() -> (World, JobId) {
    let mut world = World::new(1);
    let [job, ..] = world.submit_all([0, 0]);
    note_task(&mut world, job);
    world.in_work.clear();
    for caller in world.callers.values_mut() {
        *caller = None;
    }
    world.last.clear();
    world.recover();
    world.announce(SlotId(0));
    (world, job)
}

/// It is bought already.
#[test]
fn a_task_whose_fetching_comes_to_disk_behind_a_pause_is_fetched() {
    let (mut world, job) = after_a_crash_with_a_task();
    world.tell(|lane, now| lane.pause(None, now));
    world.ack_all();
    world.runs([job], "paused or not");
    world.end_of(job, &answered());
    assert_eq!(world.status_of(job), JobStatus::Completed);
    world.runs([], "nothing is bought");
    world.step(|lane, now| lane.resume(now));
    world.finish();
}

#[test]
fn a_task_is_fetched_after_a_crash_and_not_bought_again() {
    let (mut world, job) = after_a_crash_with_a_task();
    world.ack_all();
    world.runs([job], "before any other");
    // The same attempt.
    assert_eq!(world.disk.jobs[&job].attempts, AttemptNo(1));
    world.end_of(job, &answered());
    assert_eq!(world.disk.jobs[&job].status, JobStatus::Completed);
    assert_eq!(world.sent.iter().filter(|(id, _)| *id == job).count(), 1);
    world.finish();
}

#[test]
fn a_task_of_another_account_is_closed_as_interrupted() {
    let mut world = World::new(1);
    let [job] = world.submit_all([0]);
    note_task(&mut world, job);
    Arc::make_mut(&mut world.settings).glm.api_key = Some(Secret::new("another"));
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
    let [job] = world.submit_all([0]);
    note_task(&mut world, job);
    world.tell(|lane, now| lane.drain(now));
    world.callers.insert(SlotId(0), None);
    let left = LeftOpen {
        job_id: job,
        attempt: AttemptNo(1),
        task: world.disk.jobs[&job].task.clone().unwrap(),
    };
    world.step(|lane, now| lane.left_open(SlotId(0), left, now));
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
    world.submit_all([0]);
    world.call_ends(&failed(FailureClass::OperatorFatal));
    let deadline = world.now.plus_ms(1_000);
    let late = world.submit_as(|job| job.deadline = Some(deadline));
    world.pass(1_000);
    let failure = world.disk.jobs[&late].error.as_ref().unwrap();
    assert_eq!(failure.code, code::DEADLINE);
    let part = "until an operator acts: x: words";
    assert!(failure.message.contains(part), "{failure}");
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
    world.serves([BIG, BIG], "the default lane has two slots");
    world.finish();
}

#[test]
fn calls_of_a_lane_that_is_taken_away_leave_the_others_no_more_slots_than_there_are() {
    let lanes = ["two", "three"].map(|model| (model.to_owned(), lane_for(model)));
    let mut world = World::with(Settings {
        lanes: lanes.into(),
        ..Settings::default()
    });
    let open = [world.ask("one"), world.ask("two")];
    let waits = world.ask("four");
    world.ack_all();
    assert_eq!(world.running().len(), 2);
    // The call of the lane that is gone is one of the default lane's now, and a third slot is none any more.
    world.configure(|settings| settings.lanes = [("four".to_owned(), lane_for("four"))].into());
    assert_eq!(world.running().len(), 2);
    for id in open {
        world.end_of(id, &answered());
    }
    assert!(world.running().contains(&waits));
    world.finish();
}

#[test]
fn a_lane_that_has_more_calls_open_than_its_new_settings_allow_leaves_fewer_to_the_others() {
    let mut world = World::with(Settings {
        lane: rules(3).into(),
        lanes: [("big".to_owned(), lane_for(BIG))].into(),
        ..Settings::default()
    });
    let own = ["one", "two", "three"].map(|model| world.ask(model));
    let big = world.ask(BIG);
    world.ack_all();
    assert_eq!(world.running().len(), 4);
    world.configure(|settings| settings.lane = rules(1).into());
    world.end_of(big, &answered());
    let waits = world.ask(BIG);
    world.ack_all();
    for (ended, id) in own.into_iter().enumerate() {
        // Two calls are open at most from now on, of all lanes together.
        let open = world.running();
        assert_eq!(open.contains(&waits), ended == 2, "{open:?}");
        world.end_of(id, &answered());
    }
    assert!(world.running().contains(&waits));
    world.finish();
}

#[test]
fn what_is_in_doubt_in_one_lane_keeps_no_other_waiting() {
    let mut world = World::with(Settings {
        lane: rules(1).into(),
        lanes: [("big".to_owned(), lane_for(BIG))].into(),
        ..Settings::default()
    });
    let open = world.ask("one");
    let staged = world.ask("one");
    world.ack_all();
    assert_eq!(world.running(), [open]);
    assert!(world.disk.released.contains(&staged));
    // The queue is made anew, and the caller goes on with its call.
    world.recover();
    let free = world.callers.iter().find(|(_, call)| call.is_none());
    let free = *free.expect("one of two").0;
    world.announce(free);
    world.ack_all();
    let big = world.ask(BIG);
    world.ack_all();
    assert!(world.running().contains(&big));
}
