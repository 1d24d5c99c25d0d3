//! Why a job waits, in each state that the lanes bring it into; on the small world of the lane's tests.

use super::budgets::{each, with, worst_case};
use super::*;
use crate::model::{Amount, BatchId, OnInterrupted, PaceSettings, Scope, WaitReason, Waiting};

impl World {
    /// Why a job waits, by its row and the lanes.
    fn reason(&self, id: JobId) -> WaitReason {
        let waiting = Waiting::of(&self.disk.jobs[&id]).expect("it waits");
        self.lane.wait_reasons(&[waiting]).remove(0)
    }

    fn name_of(&self, id: JobId) -> &'static str {
        self.reason(id).name()
    }

    /// How many jobs wait for what, without zeros.
    fn counts(&self) -> Vec<(&'static str, u64)> {
        let counts = self.lane.wait_counts();
        let names = WaitReason::NAMES.iter().map(|name| (*name, counts[name]));
        names.filter(|(_, jobs)| *jobs > 0).collect()
    }

    fn stands_still_for(&self) -> Option<&'static str> {
        self.lane.standstill().map(|reason| reason.name())
    }

    fn fail_with(&mut self, class: FailureClass, code: &str) {
        let failure = Failure::new(class, code, "GLM's words");
        self.call_ends(&failed_with(failure));
    }
}

/// A lane with one call open, one job staged behind it and these many in the queue.
fn busy(waiting: usize) -> (World, Vec<JobId>) {
    let mut world = World::new(1);
    let jobs = (0..waiting + 2).map(|_| world.submit(0)).collect();
    world.ack_all();
    (world, jobs)
}

#[test]
fn a_job_behind_others_knows_its_place_and_an_estimate_once_there_is_one() {
    let (mut world, jobs) = busy(3);
    let place = |world: &World, n: usize| match world.reason(jobs[n]) {
        WaitReason::Behind {
            position,
            more_than: None,
            estimate_ms,
        } => (position.unwrap(), estimate_ms),
        other => panic!("{other}"),
    };
    assert_eq!(world.name_of(jobs[1]), "stage");
    assert_eq!(place(&world, 2), (2, None));
    assert_eq!(place(&world, 4), (4, None));
    assert_eq!(world.counts(), [("behind", 3), ("stage", 1)]);
    assert_eq!(world.stands_still_for(), None);
    let [urgent] = world.submit_all([5]);
    assert_eq!(world.name_of(urgent), "stage", "it took the place");
    assert_eq!(place(&world, 1), (2, None));
    // A call takes a millisecond in this world.
    world.call_ends(&answered());
    assert_eq!(place(&world, 4), (4, Some(4)));
}

#[test]
fn what_waits_is_told_by_class_and_priority_with_what_is_staged() {
    let mut world = World::new(1);
    world.submit_all([0]);
    world.submit_all([5, 5, 0, 0, 0, -3]);
    let told = world.lane.snapshot();
    let of_class = |name: &str| {
        let class = &told.priority_classes[name];
        (class.jobs, class.oldest_ready)
    };
    let since = Some(Timestamp::default());
    assert_eq!(of_class("urgent"), (0, None));
    assert_eq!(of_class("high"), (2, since), "one is staged");
    assert_eq!(of_class("normal"), (3, since));
    assert_eq!(of_class("low"), (1, since));
    let at = told.priorities.iter().map(|at| (at.priority, at.jobs));
    assert_eq!(at.collect::<Vec<_>>(), [(5, 2), (0, 3), (-3, 1)]);
}

#[test]
fn the_order_of_service_is_that_in_which_jobs_go() {
    let (mut world, _) = busy(4);
    let urgent = world.submit(2);
    let scheduled = world.submit_as(|job| job.run_at = Some(Timestamp::from_millis(50_000)));
    world.ack_all();
    let told = world.lane.in_service_order(100);
    assert_eq!((told[0], told.last()), (urgent, Some(&scheduled)));
    assert_eq!(world.lane.in_service_order(3), told[..3]);
    let mut went = Vec::new();
    while let Some(slot) = world.busy_slot(0) {
        world.end(slot, &answered());
        world.ack_all();
        went.extend(world.running());
    }
    assert_eq!(went, told[..told.len() - 1]);
}

#[test]
fn a_place_is_exact_up_to_a_thousand() {
    let (world, jobs) = busy(1_001);
    let position = |n: usize| match world.reason(jobs[n]) {
        WaitReason::Behind {
            position,
            more_than,
            ..
        } => (position, more_than),
        other => panic!("{other}"),
    };
    // One call is open and one job is staged.
    assert_eq!(position(1_000), (Some(1_000), None));
    assert_eq!(position(1_001), (Some(1_001), None), "a thousand are ahead");
    assert_eq!(position(1_002), (None, Some(1_000)));
}

#[test]
fn a_job_that_waits_for_its_time_says_whose_wish_that_was() {
    let mut world = World::new(1);
    let at = Timestamp::from_millis(50_000);
    let scheduled = world.submit_as(|job| job.run_at = Some(at));
    let delayed = world.submit_as(|job| job.max_retries = 3);
    world.ack_all();
    world.fail_with(FailureClass::ServerTransient, "http_500");
    let until = world.disk.jobs[&delayed].next_retry_at.unwrap().until;
    assert_eq!(world.reason(delayed), WaitReason::Delayed { until });
    assert_eq!(world.reason(scheduled), WaitReason::Scheduled { until: at });
    assert_eq!(world.counts(), [("delayed", 1), ("scheduled", 1)]);
    assert_eq!(world.stands_still_for(), Some("delayed"), "it is the first");
}

#[test]
fn a_pace_keeps_the_next_job_and_the_others_are_behind_it() {
    let mut world = World::new(2);
    world.configure(|settings| {
        settings.lane.rules.pace = PaceSettings {
            min_spacing_ms: 10_000,
            ..PaceSettings::default()
        };
    });
    let [.., last] = world.submit_all([0, 0, 0]);
    let until = world.now.plus_ms(10_000);
    let next = world.lane.in_service_order(1)[0];
    let lane = DEFAULT_LANE.to_owned();
    assert_eq!(world.reason(next), WaitReason::Pace { until, lane });
    assert_eq!(world.name_of(last), "behind");
    assert_eq!(world.counts(), [("behind", 1), ("pace", 1)]);
    world.call_ends(&answered());
    assert_eq!(world.stands_still_for(), Some("pace"));
}

#[test]
fn what_stops_every_job_is_the_reason_of_each_and_of_the_lane() {
    let check = |world: &World, jobs: &[JobId], name: &'static str| {
        for id in jobs {
            assert_eq!(world.name_of(*id), name);
        }
        assert_eq!(world.stands_still_for(), Some(name));
        assert_eq!(world.counts(), [(name, jobs.len() as u64)]);
        let lane = &world.lane.snapshot().lanes[0];
        assert_eq!(lane.wait_reason.as_ref().map(WaitReason::name), Some(name));
    };
    let (mut world, jobs) = busy(2);
    world.fail_with(FailureClass::OperatorFatal, "1113");
    check(&world, &jobs, "hold");
    assert_eq!(
        world.reason(jobs[3]).to_string(),
        "GLM takes nothing until an operator acts: 1113: GLM's words"
    );
    world.step(|lane, now| lane.resume(now));
    let rest = &jobs[1..];

    let breaker = |world: &mut World, state| {
        let snapshot = BreakerSnapshot {
            state,
            ..BreakerSnapshot::default()
        };
        world.step(|lane, now| lane.breaker_changed(&snapshot, false, now));
    };
    breaker(&mut world, BreakerState::Open);
    check(&world, rest, "breaker");
    breaker(&mut world, BreakerState::HalfOpen);
    check(&world, rest, "probe");
    breaker(&mut world, BreakerState::Closed);

    world.step(|lane, now| lane.pause(Some("lunch".to_owned()), now));
    check(&world, rest, "paused");
    assert!(world.reason(jobs[3]).to_string().contains("lunch"));
    world.configure(|settings| settings.glm.is_active = false);
    check(&world, rest, "inactive");
    world.step(|lane, now| lane.drain(now));
    check(&world, rest, "stopping");
}

#[test]
fn a_hold_of_a_part_is_the_reason_of_its_jobs_alone() {
    let mut settings = Settings::default();
    let air = lane_for("glm-4.5-air");
    settings.lanes.insert("air".to_owned(), air);
    let mut world = World::with(settings);
    let held = world.ask("glm-5");
    world.ack_all();
    world.fail_with(FailureClass::Overload, "1305");
    assert!(matches!(
        world.reason(held),
        WaitReason::Hold(hold) if hold.model.as_deref() == Some("glm-5")
    ));
    assert_eq!(world.stands_still_for(), Some("hold"));
    let cooling = world.ask("glm-4.5-air");
    world.ack_all();
    assert_eq!(world.stands_still_for(), None, "the other model goes on");
    world.fail_with(FailureClass::Throttle, "1302");
    assert!(matches!(
        world.reason(cooling),
        WaitReason::Hold(hold) if hold.lane.as_deref() == Some("air")
    ));
    assert_eq!(world.counts(), [("hold", 2)]);
}

#[test]
fn a_model_that_is_probed_keeps_its_other_jobs_waiting() {
    let mut world = World::new(2);
    let [first] = world.submit_all([0]);
    let models = &mut world.lane.state.models;
    models.entry("glm-5".to_owned()).or_default().probing = true;
    world.lane.routes.forget();
    let [second] = world.submit_all([0]);
    assert_eq!(world.running(), [first]);
    assert_eq!(world.reason(second), WaitReason::Probe);
    assert_eq!(world.counts(), [("probe", 1)]);
}

#[test]
fn a_budget_without_room_tells_its_figures() {
    let mut world = with(1, vec![each(100)]);
    let id = world.submit_as(|job| job.worst = worst_case(150));
    world.ack_all();
    let WaitReason::Budget(budget) = world.reason(id) else {
        panic!("{}", world.reason(id))
    };
    assert_eq!(&*budget.status.account.budget, "each");
    assert_eq!(budget.needed, Amount::Tokens(150));
    assert!(budget.too_large);
    assert_eq!(world.stands_still_for(), Some("budget"));
    assert_eq!(world.counts(), [("budget", 1)]);
}

#[test]
fn a_chain_names_the_jobs_before_and_a_parked_job_its_attempt() {
    let mut world = World::new(1);
    let careful = world.submit_as(|job| job.on_interrupted = Some(OnInterrupted::Park));
    world.ack_all();
    world.crash();
    let after = world.submit_as(|job| {
        job.after = vec![careful];
        job.waits_for = vec![careful];
    });
    world.ack_all();
    let by = vec![careful];
    assert_eq!(world.reason(after), WaitReason::Blocked { by });
    assert!(matches!(
        world.reason(careful),
        WaitReason::Parked {
            since: Some(_),
            attempt: Some(AttemptNo(1))
        }
    ));
    assert_eq!(world.counts(), [("blocked", 1), ("parked", 1)]);
    assert_eq!(world.stands_still_for(), Some("parked"));
}

#[test]
fn jobs_of_another_batch_wait_until_it_is_theirs_that_runs() {
    let (one, two) = (BatchId::new(1), BatchId::new(2));
    let scoped = |batch| Settings {
        scope: Scope::Batch(batch),
        ..Settings::default()
    };
    let mut world = World::with(scoped(one));
    let other = world.submit_as(|job| job.batch_id = Some(two));
    let loose = world.submit_as(|_| ());
    world.ack_all();
    assert_eq!(world.running(), []);
    assert_eq!(world.reason(other), WaitReason::OtherBatch);
    assert_eq!(world.counts(), [("otherBatch", 2)]);
    assert_eq!(world.stands_still_for(), Some("otherBatch"));
    let own = world.submit_as(|job| job.batch_id = Some(one));
    world.ack_all();
    assert_eq!(world.running(), [own]);
    // The settings change: the other's turn has come.
    world.step(|lane, now| lane.configure(scoped(two).into(), now));
    assert_eq!(world.reason(loose), WaitReason::OtherBatch);
    assert!(!matches!(world.reason(other), WaitReason::OtherBatch));
    world.step(|lane, now| lane.configure(Settings::default().into(), now));
    assert_eq!(world.counts(), [("behind", 1), ("stage", 1)]);
}

#[test]
fn outcomes_that_wait_for_the_disk_and_rows_that_are_not_read_are_reasons() {
    let (mut world, jobs) = busy(1);
    world.lane.unsettled = vec![id(9); limits::UNSETTLED_MAX];
    assert_eq!(world.name_of(jobs[2]), "diskBehind");
    world.lane.unsettled = Vec::new();
    let unread = job(1_000, 0);
    let waiting = Waiting::of(&unread).unwrap();
    assert_eq!(world.lane.wait_reasons(&[waiting]), [WaitReason::Reading]);
}

#[test]
fn a_lane_without_jobs_stands_still_only_for_a_closed_intake() {
    let mut world = World::new(1);
    assert_eq!(world.stands_still_for(), None);
    world.step(|lane, now| lane.close_intake(Some("move".to_owned()), now));
    assert_eq!(world.stands_still_for(), Some("draining"));
    world.submit_all([0]);
    assert_eq!(world.stands_still_for(), None, "what waits is worked off");
}
