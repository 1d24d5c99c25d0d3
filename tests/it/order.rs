//! Guards: a less urgent job before a more urgent one, a retry that keeps the slot or loses its place,
//! an urgent job that waits behind one that was only prepared.

use onelane::error::Error;
use onelane::model::{JobStatus, Timestamp};
use onelane::ports::Clock as _;
use onelane::system::SystemClock;

use crate::support::dice::Dice;
use crate::support::http::{BLOCKER, prompt, started, submit, until_completed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_outlives_a_restart() {
    let dice = Dice::new();
    let (world, lane) = started().await;
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
    until_completed(&lane, 40).await;
    want.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
    let want: Vec<String> = want.into_iter().map(|(_, text)| text).collect();
    assert_eq!(world.prompts(), want, "seed {}", dice.seed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_priority_changes_the_place() {
    let (world, lane) = started().await;
    let blocker = world.block(&lane).await;
    let mut jobs = Vec::new();
    for text in ["a", "b", "c", "d"] {
        jobs.push(submit(&lane, prompt(text)).await);
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
    until_completed(&lane, 4).await;
    assert_eq!(world.prompts(), [BLOCKER, "d", "b", "c", "a"]);
    let job = lane.job(jobs[3]).await.unwrap().record.job;
    assert_eq!(job.priority, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_for_later_is_not_sent_before_its_time_and_holds_nobody_up() {
    let (world, lane) = started().await;
    let run_at = SystemClock.now().plus_ms(400);
    let mut later = prompt("later").priority(9);
    later.run_at = Some(run_at);
    let later = submit(&lane, later).await;
    lane.call(prompt("now")).await.unwrap();
    let waiting = lane.job(later).await.unwrap().record.job;
    assert_eq!(waiting.status, JobStatus::Pending);
    assert_eq!(waiting.run_at, Some(run_at));
    lane.wait(later).await.unwrap();
    assert_eq!(world.prompts(), ["now", "later"]);
    let sent: Timestamp = lane.job(later).await.unwrap().attempts[0].started_at;
    assert!(sent >= run_at, "{sent} is before {run_at}");
}
