//! Jobs that come to an idle lane: inserted and started in one commit, or inserted as others are.

use super::*;
use crate::model::{Admission, NewJob, NotAdmitted, Pause};

fn new(seq: u64, change: impl FnOnce(&mut Job)) -> Arc<NewJob> {
    let mut job = Job {
        seq: Seq::default(),
        ..job(seq, 0)
    };
    change(&mut job);
    Arc::new(NewJob {
        job,
        request: Request::Prompt("p".to_owned()),
        fingerprint: None,
        admission: Admission::Open {
            max_queue_jobs: 1_000,
        },
    })
}

impl World {
    /// Whether a job that comes now is sent with the commit that inserts it.
    fn comes(&mut self, new: Arc<NewJob>) -> bool {
        let id = new.job.id;
        let was_known = self.lane.knows(id);
        match self.lane.start_at_once(new, self.now) {
            Ok(effects) => {
                let commits = effects.iter().filter_map(|effect| match effect {
                    Effect::Commit { transitions, .. } => Some(transitions),
                    _ => None,
                });
                let commits: Vec<_> = commits.collect();
                assert_eq!(commits.len(), 1, "one commit");
                assert!(matches!(&commits[0][0], Transition::Insert(new) if new.job.id == id));
                let starts = |change: &Transition| matches!(change, Transition::Start { job_id, .. } if *job_id == id);
                assert!(commits[0].iter().any(starts), "{commits:?}");
                assert!(self.lane.knows(id));
                self.carry_out(effects);
                true
            }
            Err((new, effects)) => {
                let is_known = self.lane.knows(new.job.id);
                assert_eq!(is_known, was_known, "the lane keeps nothing of it");
                self.carry_out(effects);
                false
            }
        }
    }
}

#[test]
fn what_comes_to_an_idle_lane_is_inserted_and_started_in_one_commit() {
    let mut world = World::new(1);
    assert!(world.lane.is_idle());
    assert!(world.comes(new(1, |_| {})));
    assert!(!world.lane.is_idle());
    world.runs([], "nothing is sent before it is on disk");
    world.ack_all();
    world.runs([id(1)], "then it is");
    assert_eq!(world.disk.jobs[&id(1)].seq, Seq(1));
    world.call_ends(&answered());
    assert_eq!(world.status_of(id(1)), JobStatus::Completed);
    assert!(world.lane.is_idle());
    world.finish();
}

#[test]
fn what_would_have_to_wait_is_not_started_at_once() {
    let mut world = World::new(1);
    let later = world.now.plus_ms(1_000);
    assert!(!world.comes(new(1, |job| job.run_at = Some(later))));
    assert!(!world.comes(new(1, |job| job.after = vec![id(9)])));
    let over = world.now;
    assert!(!world.comes(new(1, |job| job.deadline = Some(over))));
    let mut refused = new(1, |_| {});
    Arc::make_mut(&mut refused).admission = Admission::Refused(NotAdmitted::Closed(Pause {
        since: world.now,
        reason: None,
    }));
    assert!(!world.comes(refused));
    world.step(|lane, now| lane.pause(None, now));
    assert!(!world.lane.is_idle());
    assert!(!world.comes(new(1, |_| {})));
    world.step(Scheduler::resume);
    let [busy] = world.submit_all([0]);
    world.runs([busy], "it came as others do");
    assert!(!world.comes(new(2, |job| job.priority = 9)));
    world.call_ends(&answered());
    // Twice the same, as who heard no answer asks again.
    assert!(world.comes(new(3, |_| {})));
    assert!(!world.comes(new(3, |_| {})));
    world.ack_all();
    world.runs([id(3)], "once");
    world.call_ends(&answered());
    world.finish();
}

#[test]
fn what_waits_goes_before_what_comes() {
    let mut world = World::new(1);
    let mut settings = Settings::clone(&world.settings);
    settings.lane.rules.pace.requests_per_minute = 1;
    world.configure(|now| *now = settings);
    assert!(world.comes(new(1, |_| {})));
    world.ack_all();
    world.call_ends(&answered());
    // The pace lets nothing go now; the second waits, and the third does not pass it when it may.
    assert!(!world.comes(new(2, |_| {})));
    world.seqs = 1;
    let second = world.submit(0);
    world.ack_all();
    world.now = world.now.plus_ms(60_000);
    assert!(!world.comes(new(3, |_| {})));
    world.step(Scheduler::tick);
    world.runs([second], "its turn");
    world.call_ends(&answered());
    world.finish();
}

#[test]
fn what_the_store_does_not_let_in_is_not_started() {
    let mut world = World::new(1);
    // It is on disk, and the lane does not know: whoever asks again has heard of nothing.
    let there = new(1, |_| {});
    let mut ended = there.job.clone();
    ended.status = JobStatus::Completed;
    world.disk.jobs.insert(id(1), ended);
    assert!(world.comes(there), "the store alone knows better");
    world.ack_all();
    world.runs([], "there was nothing to start");
    assert!(world.lane.is_idle() && !world.lane.knows(id(1)));
    assert!(world.comes(new(3, |_| {})), "and the slot is free");
    world.ack_all();
    world.call_ends(&answered());
    world.disk.jobs.remove(&id(1));
    world.finish();
}

#[test]
fn what_may_be_there_already_costs_no_pace_and_no_turn() {
    let mut world = World::new(1);
    assert!(!world.comes(new(1, |job| job.idempotency_key = Some("k".to_owned()))));
    world.finish();
}

#[test]
fn what_is_given_up_before_it_is_on_disk_is_not_sent() {
    let mut world = World::new(1);
    assert!(world.comes(new(1, |_| {})));
    assert_eq!(world.cancel(id(1)), CancelPath::Settlement);
    world.ack_all();
    assert!(world.sent.is_empty());
    assert_eq!(world.status_of(id(1)), JobStatus::Cancelled);
    world.finish();
}

#[test]
fn nothing_is_started_at_once_before_what_is_due_by_now_although_no_timer_has_told() {
    let mut world = World::new(1);
    let due = world.now.plus_ms(60_000);
    let first = world.submit_as(|job| job.run_at = Some(due));
    world.ack_all();
    // The process was frozen, and hears of a new job before its timer fires.
    world.now = due.plus_ms(240_000);
    assert!(!world.comes(new(2, |_| {})));
    world.pass(0);
    assert_eq!(world.running(), [first]);
    world.finish();
}
