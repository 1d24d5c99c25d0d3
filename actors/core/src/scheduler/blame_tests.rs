//! Guards: a wrong base URL that fails jobs one by one; a job of its own fault that stops everybody.

use super::*;
use crate::model::WaitReason;

fn refusal(code: &str) -> GlmOutcome {
    failed_with(Failure {
        status_code: Some(404),
        ..Failure::new(FailureClass::Unattributed, code, "Not Found")
    })
}

/// A lane of one slot, with so many jobs.
fn world_of(jobs: usize) -> (World, Vec<JobId>) {
    let mut world = World::new(1);
    let ids = (0..jobs).map(|_| world.submit(0)).collect();
    world.ack_all();
    (world, ids)
}

impl World {
    fn ends_with(&mut self, outcome: &GlmOutcome) {
        self.now = self.now.plus_ms(1);
        self.end(SlotId(0), outcome);
        self.ack_all();
        self.now = self.now.plus_ms(1);
    }

    fn status(&self, id: JobId) -> JobStatus {
        self.disk.jobs[&id].status
    }

    /// Time passes until the next job goes.
    fn next_goes(&mut self) {
        for _ in 0..10 {
            if !self.running().is_empty() {
                return;
            }
            self.now = self.now.plus_ms(10_000);
            self.step(|lane, now| lane.tick(now));
        }
        panic!("nothing goes");
    }
}

#[test]
fn what_three_distinct_requests_meet_is_the_operators_and_fails_no_job() {
    let (mut world, jobs) = world_of(8);
    for job in &jobs[..3] {
        assert_eq!(
            world.running(),
            [*job],
            "the next different one is the probe"
        );
        world.ends_with(&refusal("http_404"));
    }
    assert_eq!(world.running(), []);
    let hold = world.lane.state().hold.clone().unwrap();
    assert_eq!(
        (hold.kind, hold.code.as_str()),
        (HoldKind::Operator, "http_404")
    );
    for id in &jobs {
        let job = &world.disk.jobs[id];
        assert_eq!((job.status, job.retry_count), (JobStatus::Pending, 0));
    }
    // After a resume, or a crash before it, others go before those that tripped the hold.
    world.crash();
    world.step(|lane, now| lane.resume(now));
    assert_eq!(world.running(), [jobs[3]]);
    world.ends_with(&answered());
    assert_eq!(
        world.running(),
        [jobs[0]],
        "an answer lets them try again, in their order"
    );
    for _ in 0..7 {
        world.ends_with(&answered());
    }
    assert!(
        jobs.iter()
            .all(|id| world.status(*id) == JobStatus::Completed)
    );
    assert!(
        world
            .lane
            .state()
            .unattributed
            .jobs
            .iter()
            .all(|job| job.place == crate::model::RefusedPlace::Back)
            || world.lane.state().unattributed.is_empty()
    );
}

#[test]
fn refusals_of_more_codes_than_are_told_apart_are_not_remembered() {
    let (mut world, _) = world_of(limits::REFUSAL_CODES_MAX + 5);
    for n in 0..limits::REFUSAL_CODES_MAX + 2 {
        world.next_goes();
        world.ends_with(&refusal(&format!("http_{n}")));
    }
    let met = &world.lane.state().unattributed.met;
    assert_eq!(met.len(), limits::REFUSAL_CODES_MAX);
}

#[test]
fn where_nobody_else_could_find_out_a_refused_job_tries_again_itself() {
    let (mut world, jobs) = world_of(1);
    world.ends_with(&refusal("http_404"));
    let job = &world.disk.jobs[&jobs[0]];
    assert_eq!((job.status, job.retry_count), (JobStatus::Pending, 1));
}

#[test]
fn what_one_job_meets_while_others_pass_is_its_own() {
    let (mut world, jobs) = world_of(4);
    world.ends_with(&answered());
    assert_eq!(world.running(), [jobs[1]]);
    world.ends_with(&refusal("http_403"));
    assert_eq!(world.running(), [jobs[2]]);
    assert_eq!(
        world.status(jobs[1]),
        JobStatus::Pending,
        "nobody knows yet"
    );
    assert_eq!(
        world.lane.wait_counts()["aside"] + world.lane.wait_counts()["probe"],
        1
    );
    world.ends_with(&answered());
    assert_eq!(world.status(jobs[1]), JobStatus::Failed);
    let failure = world.disk.jobs[&jobs[1]].error.clone().unwrap();
    assert_eq!(
        (failure.code.as_str(), failure.status_code),
        ("http_403", Some(404))
    );
    assert_eq!(failure.class, FailureClass::RequestFatal);
    world.ends_with(&answered());
    assert_eq!(world.status(jobs[3]), JobStatus::Completed);
    assert!(world.lane.state().unattributed.is_empty());
    assert_eq!(world.lane.state().hold, None);
}

#[test]
fn refusals_of_one_request_and_refusals_with_answers_between_hold_nobody() {
    let mut world = World::new(1);
    let same = |job: &mut Job| job.content_id = Some("DROP TABLE".to_owned());
    let blocked: Vec<JobId> = (0..5).map(|_| world.submit_as(same)).collect();
    let other = world.submit(0);
    world.ack_all();
    for _ in &blocked {
        world.ends_with(&refusal("http_403"));
    }
    assert_eq!(world.lane.state().hold, None, "one request is no three");
    assert_eq!(world.running(), [other]);
    world.ends_with(&answered());
    assert!(
        blocked
            .iter()
            .all(|id| world.status(*id) == JobStatus::Failed)
    );

    let (mut world, jobs) = world_of(12);
    for _ in 0..6 {
        world.ends_with(&refusal("http_302"));
        world.ends_with(&answered());
    }
    assert_eq!(world.lane.state().hold, None);
    let ended = |status| {
        jobs.iter()
            .filter(|id| world.status(**id) == status)
            .count()
    };
    assert_eq!(
        (ended(JobStatus::Failed), ended(JobStatus::Completed)),
        (6, 6)
    );
}

#[test]
fn where_too_few_wait_to_decide_they_retry_and_then_fail_with_their_status() {
    for count in [1, 2] {
        let (mut world, jobs) = world_of(count);
        let mut calls = 0;
        while jobs.iter().any(|id| world.status(*id) != JobStatus::Failed) {
            world.next_goes();
            world.ends_with(&refusal("http_404"));
            calls += 1;
            assert!(calls <= 5 * count, "they fail in the end");
        }
        assert_eq!(world.lane.state().hold, None);
        for id in jobs {
            let job = &world.disk.jobs[&id];
            assert_eq!(job.retry_count, job.max_retries);
            assert_eq!(job.error.as_ref().unwrap().code, "http_404");
        }
    }
}

#[test]
fn a_job_that_trips_a_hold_again_after_others_passed_is_at_fault_itself() {
    let (mut world, jobs) = world_of(6);
    for _ in 0..3 {
        world.ends_with(&refusal("http_403"));
    }
    world.step(|lane, now| lane.resume(now));
    world.ends_with(&answered());
    for id in &jobs[..3] {
        assert_eq!(world.running(), [*id]);
        world.ends_with(&refusal("http_403"));
        assert_eq!(world.status(*id), JobStatus::Failed);
    }
    assert_eq!(world.lane.state().hold, None);
    assert_eq!(world.running(), [jobs[4]]);
}

#[test]
fn a_page_holds_at_once_and_the_job_that_met_it_does_not_go_first_afterwards() {
    let mut settings = Settings::default();
    let aside = crate::model::PolicyOverride {
        job: Some(crate::model::JobRule::StepAside),
        ..Default::default()
    };
    settings.policy.insert(code::HTML_PAGE.to_owned(), aside);
    let mut world = World::with(settings);
    let jobs = world.submit_all([0, 0]);
    let page = failed_with(Failure::new(
        FailureClass::OperatorFatal,
        code::HTML_PAGE,
        "page",
    ));
    world.ends_with(&page);
    assert_eq!(
        world.lane.state().hold.as_ref().unwrap().code,
        code::HTML_PAGE
    );
    world.step(|lane, now| lane.resume(now));
    assert_eq!(world.running(), [jobs[1]]);
    world.ends_with(&answered());
    assert_eq!(world.running(), [jobs[0]]);
    world.ends_with(&page);
    assert_eq!(world.status(jobs[0]), JobStatus::Failed, "others passed");
    assert_eq!(world.lane.state().hold, None);
}

#[test]
fn a_single_stray_refusal_halts_nobody_and_a_job_that_is_given_up_aside_is_gone() {
    let (mut world, jobs) = world_of(3);
    world.ends_with(&refusal("http_302"));
    let waiting = crate::model::Waiting::of(&world.disk.jobs[&jobs[0]]).unwrap();
    let reasons = world.lane.wait_reasons(&[waiting]);
    assert!(
        matches!(&reasons[..], [WaitReason::Aside { code, .. }] if code == "http_302"),
        "{reasons:?}"
    );
    world.cancel(jobs[0]);
    world.ack_all();
    world.ends_with(&answered());
    world.ends_with(&answered());
    assert_eq!(world.status(jobs[0]), JobStatus::Cancelled);
    assert_eq!(world.status(jobs[2]), JobStatus::Completed);

    let (mut world, jobs) = world_of(2);
    world.ends_with(&refusal("http_302"));
    world.configure(|settings| settings.glm.api_key = Some(Secret::new("another")));
    world.ends_with(&answered());
    world.next_goes();
    world.ends_with(&answered());
    assert!(
        jobs.iter()
            .all(|id| world.status(*id) == JobStatus::Completed),
        "another account"
    );
}

#[test]
fn calls_that_are_open_show_whose_fault_it_is_as_those_that_wait_do() {
    // A job in each slot, and none that waits: without retries none of them may fail before the third is refused.
    let mut world = World::new(3);
    let jobs: Vec<JobId> = (0..3)
        .map(|_| world.submit_as(|job| job.max_retries = 0))
        .collect();
    world.ack_all();
    assert_eq!(world.running().len(), 3);
    for slot in 0..3 {
        world.now = world.now.plus_ms(1);
        world.end(SlotId(slot), &refusal("http_404"));
        world.ack_all();
    }
    let hold = world.lane.state().hold.clone().unwrap();
    assert_eq!(hold.kind, HoldKind::Operator);
    for id in jobs {
        assert_eq!(world.status(id), JobStatus::Pending);
    }
}

#[test]
fn a_job_that_stepped_aside_can_be_tried_now_by_somebodys_word() {
    let (mut world, jobs) = world_of(3);
    world.ends_with(&refusal("http_403"));
    assert_eq!(world.running(), [jobs[1]]);
    world.step(|lane, now| lane.requeue(jobs[0], now));
    world.ends_with(&answered());
    assert_eq!(world.running(), [jobs[0]], "at its place");
}
