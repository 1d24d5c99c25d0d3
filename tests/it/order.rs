//! Guards: a less urgent job before a more urgent one, a retry that keeps the slot or loses its place,
//! an urgent job that waits behind one that was only prepared.

use onelane::error::Error;
use onelane::model::{JobStatus, Timestamp};
use onelane::orchestrator::Orchestrator;
use onelane::ports::Clock as _;
use onelane::simulator::{Fault, Rule, SimulatorConfig};
use onelane::system::SystemClock;

use crate::support::dice::Dice;
use crate::support::http::{BLOCKER, HttpLane, prompt, until};

/// Waits until `n` jobs have completed.
async fn completed(lane: &Orchestrator, n: u64) {
    until("all jobs are completed", async || {
        lane.queue_status().await.unwrap().completed == n
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dispatch_is_by_priority_then_by_submission() {
    let dice = Dice::new();
    let world = HttpLane::new();
    let lane = world.start().await;
    let blocker = world.block(&lane).await;
    let mut want = Vec::new();
    for n in 0..60 {
        let priority = i32::try_from(dice.below(7)).unwrap() - 3;
        let text = format!("job {n}");
        lane.submit(prompt(text.as_str()).priority(priority))
            .await
            .unwrap();
        want.push((priority, text));
    }
    lane.cancel(blocker).await.unwrap();
    completed(&lane, 60).await;
    // Stable: equal priorities stay in the order of their submission.
    want.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
    let want: Vec<String> = want.into_iter().map(|(_, text)| text).collect();
    assert_eq!(world.prompts()[1..], want, "seed {}", dice.seed());
    assert_eq!(world.sim.stats().peak_in_flight, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_outlives_a_restart() {
    let dice = Dice::new();
    let world = HttpLane::new();
    let lane = world.start().await;
    lane.pause(None).await.unwrap();
    let mut want = Vec::new();
    for n in 0..40 {
        let priority = i32::try_from(dice.below(5)).unwrap();
        let text = format!("job {n}");
        lane.submit(prompt(text.as_str()).priority(priority))
            .await
            .unwrap();
        want.push((priority, text));
    }
    let lane = world.restart(lane).await;
    lane.resume().await.unwrap();
    completed(&lane, 40).await;
    want.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
    let want: Vec<String> = want.into_iter().map(|(_, text)| text).collect();
    assert_eq!(world.prompts(), want, "seed {}", dice.seed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_retry_holds_no_slot_and_comes_back_to_its_place() {
    let mut world = HttpLane::with(SimulatorConfig {
        rules: vec![Rule {
            times: Some(1),
            ..Rule::for_prompt("first", Fault::error("1234"))
        }],
        ..SimulatorConfig::default()
    });
    world.config.retry.base_delay_ms = 300;
    world.config.retry.max_delay_ms = 300;
    world.config.retry.jitter = 0.0;
    let lane = world.start().await;
    let blocker = world.block(&lane).await;
    let mut jobs = Vec::new();
    for text in ["first", "blocker in between", "third", "fourth"] {
        jobs.push(lane.submit(prompt(text)).await.unwrap().job_id);
    }
    lane.cancel(blocker).await.unwrap();
    // The next one has the slot although the first waits for its retry...
    until("the job behind has the slot", async || {
        world.sim.calls_of_prompt("blocker in between") == 1
    })
    .await;
    // ...which falls due while the slot is taken...
    until("the retry is due", async || {
        let lane = lane.lane().await.unwrap();
        (lane.waiting, lane.ready) == (0, 3)
    })
    .await;
    let first = lane.job(jobs[0]).await.unwrap();
    assert_eq!(first.record.job.retry_count, 1);
    assert_eq!(first.record.job.error.as_ref().unwrap().code, "1234");
    lane.cancel(jobs[1]).await.unwrap();
    completed(&lane, 3).await;
    // ...and goes before those that were submitted after it.
    assert_eq!(
        world.prompts(),
        [
            BLOCKER,
            "first",
            "blocker in between",
            "first",
            "third",
            "fourth"
        ]
    );
    assert_eq!(world.sim.stats().peak_in_flight, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_urgent_job_that_arrives_during_a_call_is_the_very_next_one() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let blocker = world.block(&lane).await;
    let mut jobs = Vec::new();
    for n in 0..5 {
        let job = lane.submit(prompt(format!("job {n}"))).await.unwrap();
        jobs.push(job.job_id);
    }
    // Its attempt is on record ahead of the slot: the urgent one takes its place.
    until("the next job is staged", async || {
        let job = lane.job(jobs[0]).await.unwrap().record.job;
        (job.status, job.attempts.0) == (JobStatus::Pending, 1)
    })
    .await;
    lane.submit(prompt("urgent").priority(9)).await.unwrap();
    lane.cancel(blocker).await.unwrap();
    completed(&lane, 6).await;
    assert_eq!(
        world.prompts(),
        [
            BLOCKER, "urgent", "job 0", "job 1", "job 2", "job 3", "job 4"
        ]
    );
    // The attempt that was taken back was not a call.
    assert_eq!(world.sim.stats().calls, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_priority_changes_the_place() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let blocker = world.block(&lane).await;
    let mut jobs = Vec::new();
    for text in ["a", "b", "c", "d"] {
        jobs.push(lane.submit(prompt(text)).await.unwrap().job_id);
    }
    lane.reprioritise(jobs[3], 5).await.unwrap();
    // The one that is staged for the slot too.
    lane.reprioritise(jobs[0], -5).await.unwrap();
    assert!(matches!(
        lane.reprioritise(blocker, 1).await,
        Err(Error::WrongStatus {
            status: JobStatus::Processing,
            ..
        })
    ));
    lane.cancel(blocker).await.unwrap();
    completed(&lane, 4).await;
    assert_eq!(world.prompts(), [BLOCKER, "d", "b", "c", "a"]);
    let job = lane.job(jobs[3]).await.unwrap().record.job;
    assert_eq!(job.priority, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_for_later_is_not_sent_before_its_time_and_holds_nobody_up() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let run_at = SystemClock.now().plus_ms(400);
    let mut later = prompt("later").priority(9);
    later.run_at = Some(run_at);
    let later = lane.submit(later).await.unwrap().job_id;
    lane.call(prompt("now")).await.unwrap();
    let waiting = lane.job(later).await.unwrap().record.job;
    assert_eq!(
        (waiting.status, waiting.run_at),
        (JobStatus::Pending, Some(run_at))
    );
    lane.wait(later).await.unwrap();
    assert_eq!(world.prompts(), ["now", "later"]);
    let sent: Timestamp = lane.job(later).await.unwrap().attempts[0].started_at;
    assert!(sent >= run_at, "{sent} is before {run_at}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_deadline_passes_in_line_fails_without_a_call() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let blocker = world.block(&lane).await;
    let late = prompt("late").deadline(SystemClock.now().plus_ms(100));
    let late = lane.submit(late).await.unwrap().job_id;
    let record = lane.wait(late).await.unwrap();
    assert_eq!(record.job.status, JobStatus::Failed);
    assert_eq!(record.job.error.unwrap().code, "deadline");
    lane.cancel(blocker).await.unwrap();
    assert_eq!(world.prompts(), [BLOCKER]);
}
