//! Guards: a job that runs before one that it was to run after, or after one that failed; a waiter of
//! a dependent that is left without an answer; a chain that a crash, a retry or its length breaks.

use onelane::error::Error;
use onelane::model::{Event, JobId, JobStatus, Timestamp};
use onelane::orchestrator::{Events, Orchestrator, Selection};
use onelane::ports::Clock as _;
use onelane::simulator::{Fault, Rule};
use onelane::system::SystemClock;
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::http::{
    BLOCKER, HttpLane, calling, completed, configure, ended, next_event, prompt, served, started,
    submit, submit_all, until, until_dormant, waiting,
};
use crate::support::shows;

/// A moment so many milliseconds from now.
fn in_ms(ms: u64) -> Timestamp {
    SystemClock.now().plus_ms(ms)
}

fn id_of(text: &str) -> JobId {
    text.parse().unwrap()
}

/// The jobs that these events are about, as far as they are of this name, up to the `count`th.
async fn told(events: &mut Events, name: &str, count: usize) -> Vec<String> {
    let mut jobs = Vec::new();
    while jobs.len() < count {
        let job = next_event(events, |event| {
            let job = event.job_id().filter(|_| event.name() == name)?;
            Some(job.to_string())
        });
        jobs.push(job.await);
    }
    jobs
}

async fn status_of(lane: &Orchestrator, id: JobId) -> JobStatus {
    lane.job(id).await.unwrap().record.job.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_runs_in_its_order_whatever_its_priorities_say() {
    let (world, lane, api) = served().await;
    let blocker = world.block(&lane).await;
    let mut events = lane.subscribe();
    let first = api.submit(json!({"prompt": "first", "priority": -9})).await;
    let second = json!({"prompt": "second", "priority": 1, "after": [first]});
    let second = api.submit(second).await;
    // Named twice is named.
    let third = json!({"prompt": "third", "priority": 9, "after": [second, first, second]});
    let third = api.submit(third).await;
    let other = api.submit(json!({"prompt": "other"})).await;

    let job = api.job(&third).await;
    let mut after = [first.clone(), second.clone()];
    after.sort_unstable();
    shows!(job, {"after": after, "waitsFor": after, "status": "pending"});
    let metrics = api.metrics().await;
    assert_eq!(metrics["lane"]["dormant"], 2);
    assert_eq!(metrics["queueLength"], 4);

    lane.cancel(blocker).await.unwrap();
    for id in [&first, &second, &third, &other] {
        assert_eq!(api.ended(id).await["status"], "completed");
    }
    assert_eq!(world.prompts()[1..], ["other", "first", "second", "third"]);
    assert_eq!(
        told(&mut events, "job.unblocked", 2).await,
        [second, third.clone()]
    );
    let job = api.job(&third).await;
    assert_eq!(job["after"], json!(after));
    assert_eq!(job.get("waitsFor"), None);
    assert_eq!(api.metrics().await["lane"]["dormant"], 0);

    // What is done need not be waited for.
    let late = api.ask_after("late", &[&first, &third]).await;
    assert_eq!(api.job(&late).await.get("waitsFor"), None);
    api.completed(&late).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_job_takes_its_chain_along_and_every_waiter_hears_of_it() {
    let world = HttpLane::new();
    world.rule(Rule::for_prompt("doomed", Fault::error("1210")));
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let blocker = world.block(&lane).await;
    let mut events = lane.subscribe();
    let doomed = api.submit(json!({"prompt": "doomed"})).await;
    let second = api.ask_after("second", &[&doomed]).await;
    let third = api.ask_after("third", &[&second]).await;

    let called = calling(&lane, prompt("called").after([id_of(&second)]));
    let waiting = waiting(&lane, id_of(&third));
    until_dormant(&lane, 3).await;
    let (ended, ()) = tokio::join!(api.ended(&third), async {
        lane.cancel(blocker).await.unwrap();
    });
    assert_eq!(ended["status"], "failed");
    assert_eq!(ended["error"]["code"], "dependency");
    assert_eq!(
        ended["errorMessage"],
        format!("job {second}, which it was to run after, failed")
    );
    let record = waiting.await.unwrap().unwrap();
    assert_eq!(record.job.status, JobStatus::Failed);
    let Err(Error::JobFailed { job_id, failure }) = called.await.unwrap() else {
        panic!("the call was answered otherwise")
    };
    assert_eq!(failure.code, "dependency");
    let mut failed = told(&mut events, "job.failed", 4).await;
    assert_eq!(failed[0], doomed, "the cause first");
    failed.sort_unstable();
    let mut all = [
        doomed.clone(),
        second.clone(),
        third.clone(),
        job_id.to_string(),
    ];
    all.sort_unstable();
    assert_eq!(failed, all);
    assert_eq!(world.prompts(), [BLOCKER, "doomed"]);
    assert_eq!(lane.queue_status().await.unwrap().failed, 4);
    assert_eq!(lane.lane().await.unwrap().dormant, 0);

    // From its beginning it can be brought back, from its middle not.
    let retry = async |id: &str| api.post_bare(&format!("/api/admin/glm/retry/{id}")).await;
    for (id, before) in [(&second, &doomed), (&third, &second)] {
        let refused = retry(id).await.expect(409);
        assert_eq!(refused["type"], "urn:onelane:problem:dependency-ended");
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains(before.as_str()), "{detail}");
        let part = "is failed; retry that one first";
        assert!(detail.ends_with(part), "{detail}");
    }
    world.sim.clear_script();
    lane.pause(None).await.unwrap();
    for id in [&doomed, &second, &third] {
        retry(id).await.expect(200);
    }
    assert_eq!(api.job(&third).await["waitsFor"], json!([second]));
    assert_eq!(status_of(&lane, job_id).await, JobStatus::Failed);
    lane.resume().await.unwrap();
    api.completed(&third).await;
    assert_eq!(world.prompts()[2..], ["doomed", "second", "third"]);
    // Its predecessor is done by now.
    retry(&job_id.to_string()).await.expect(200);
    assert_eq!(api.ended(&job_id.to_string()).await["status"], "completed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_job_takes_its_chain_along_even_while_it_runs() {
    let (world, lane, api) = served().await;
    let blocker = world.block(&lane).await;
    let mut events = lane.subscribe();
    let second = lane
        .submit(prompt("second").after([blocker]))
        .await
        .unwrap();
    let called = calling(&lane, prompt("third").after([second.job_id]));
    until_dormant(&lane, 2).await;
    api.delete(&format!("/api/glm/jobs/{blocker}"))
        .await
        .expect(200);
    let Err(Error::JobCancelled(third)) = called.await.unwrap() else {
        panic!("the call was answered otherwise")
    };
    let cancelled = told(&mut events, "job.cancelled", 3).await;
    let all = [blocker, second.job_id, third];
    assert_eq!(cancelled, all.map(|id| id.to_string()));
    assert_eq!(world.prompts(), [BLOCKER]);
    // Cancelled again is fine; the middle alone can't be retried.
    lane.cancel(third).await.unwrap();
    let refused = lane.retry(third).await;
    assert!(
        matches!(
            refused,
            Err(Error::DependencyEnded { job_id, status: JobStatus::Cancelled }) if job_id == second.job_id
        ),
        "{refused:?}"
    );

    // One in the middle takes those behind it along and leaves those before it.
    world.sim.clear_script();
    let head = lane
        .submit(prompt("head").run_at(in_ms(3_600_000)))
        .await
        .unwrap();
    let middle = lane
        .submit(prompt("middle").after([head.job_id]))
        .await
        .unwrap();
    let tail = lane
        .submit(prompt("tail").after([middle.job_id]))
        .await
        .unwrap();
    lane.cancel(middle.job_id).await.unwrap();
    assert_eq!(status_of(&lane, head.job_id).await, JobStatus::Pending);
    assert_eq!(status_of(&lane, tail.job_id).await, JobStatus::Cancelled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_come_after_is_refused_with_the_reason() {
    let world = HttpLane::new();
    world.rule(Rule::for_prompt("doomed", Fault::error("1210")));
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let jobs = "/api/glm/jobs";
    let submit = async |job: Value| api.post(jobs, job.to_string()).await;
    let doomed = api.submit(json!({"prompt": "doomed"})).await;
    api.ended(&doomed).await;

    let nobody = "0199a000-0000-7000-8000-000000000001";
    let unknown = submit(json!({"prompt": "x", "after": [nobody]}))
        .await
        .expect(422);
    assert_eq!(unknown["type"], "urn:onelane:problem:unknown-dependency");
    assert_eq!(
        unknown["detail"],
        format!(
            "after: there is no job {nobody} to run after; name jobs that were submitted before"
        )
    );
    let ended = submit(json!({"prompt": "x", "after": [doomed]})).await;
    assert_eq!(ended.headers["x-should-retry"], "false");
    let ended = ended.expect(409);
    assert_eq!(ended["type"], "urn:onelane:problem:dependency-ended");

    let too_many: Vec<_> = (0..101).map(|_| nobody).collect();
    for (after, problem) in [
        (json!("x"), "after: must be a list"),
        (json!([7]), "after[0]: "),
        (json!(["7"]), "after[0]: must be a UUID"),
        (json!(too_many), "after: "),
    ] {
        let refused = submit(json!({"prompt": "x", "after": after}))
            .await
            .expect(400);
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.starts_with(problem), "{detail}");
    }

    // In a list each job has its own answer.
    let list = json!([
        {"prompt": "fine"},
        {"prompt": "x", "after": [nobody]},
        {"prompt": "x", "after": [doomed]},
    ]);
    let answer = submit(list).await.expect(202);
    shows!(answer, {"accepted": 1, "refused": 2});
    assert_eq!(answer["jobs"][1]["error"]["status"], 422);
    assert_eq!(answer["jobs"][2]["error"]["status"], 409);
    let counts = lane.queue_status().await.unwrap();
    assert_eq!(
        counts.total(),
        2,
        "nothing of what was refused is left: {counts:?}"
    );

    // Who asks again for what was taken is answered, whatever became of what it runs after.
    let keyed = json!({"prompt": "keyed", "idempotencyKey": "k"});
    let taken = submit(keyed.clone()).await.expect(202);
    let mut again = keyed;
    again["after"] = json!([doomed]);
    assert_eq!(submit(again).await.expect(202)["id"], taken["id"]);
}

/// Starts the lane as soon as the one before has let go of its file.
async fn until_free(world: &HttpLane) -> Orchestrator {
    let mut started = None;
    until("the file is free", async || {
        started = world.try_start().await.ok();
        started.is_some()
    })
    .await;
    started.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dependent_keeps_the_time_that_it_asked_for() {
    let (world, lane) = started().await;
    // All are there before the first of them is done.
    let blocker = world.block(&lane).await;
    let mut events = lane.subscribe();
    let first = submit(&lane, prompt("first")).await;
    let begun = in_ms(0);
    let run_at = begun.plus_ms(400);
    let later = prompt("later").after([first]).run_at(run_at);
    let later = submit(&lane, later).await;
    // Its time comes while it still waits for another.
    let blocked = prompt("blocked").after([later]).run_at(begun.plus_ms(1));
    let blocked = submit(&lane, blocked).await;
    lane.cancel(blocker).await.unwrap();
    lane.wait(first).await.unwrap();
    assert_eq!(
        told(&mut events, "job.unblocked", 1).await,
        [later.to_string()]
    );
    let record = lane.wait(later).await.unwrap();
    assert!(record.job.processed_at.unwrap() >= run_at);
    completed(&lane, blocked).await;
    assert_eq!(world.prompts()[1..], ["first", "later", "blocked"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_passes_for_a_job_that_waits_for_others_and_for_its_chain() {
    let (world, lane) = started().await;
    let blocker = world.block(&lane).await;
    let late = prompt("late").after([blocker]).deadline(in_ms(800));
    let late = submit(&lane, late).await;
    let next = lane.submit(prompt("next").after([late])).await.unwrap();
    let record = lane.wait(next.job_id).await.unwrap();
    assert_eq!(record.job.error.unwrap().code, "dependency");
    let failure = lane.wait(late).await.unwrap().job.error.unwrap();
    assert_eq!(failure.code, "deadline");
    assert_eq!(
        failure.message,
        "the job's deadline passed before it was done; waits for other jobs"
    );
    assert_eq!(status_of(&lane, blocker).await, JobStatus::Processing);
    // Retried, it waits for the same job, and for no deadline.
    lane.retry(late).await.unwrap();
    world.sim.clear_script();
    lane.cancel(blocker).await.unwrap();
    ended(&lane, late, JobStatus::Cancelled).await;
    assert_eq!(world.prompts(), [BLOCKER]);
}

/// A chain of so many jobs: first the blocker, whose call is open, then `1`, `2` and so on.
async fn chain(world: &HttpLane, lane: &Orchestrator, jobs: usize) -> Vec<JobId> {
    let mut chain = vec![world.block(lane).await];
    for n in 1..jobs {
        let next = prompt(format!("{n}")).after([chain[n - 1]]);
        chain.push(submit(lane, next).await);
    }
    assert_eq!(lane.lane().await.unwrap().dormant as usize, jobs - 1);
    chain
}

/// Its prompts in its order.
fn links(jobs: usize) -> Vec<String> {
    let head = std::iter::once(BLOCKER.to_owned());
    head.chain((1..jobs).map(|n| n.to_string())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_a_thousand_runs_link_by_link() {
    const JOBS: usize = 1_000;
    let (world, lane) = started().await;
    let chain = chain(&world, &lane, JOBS).await;
    world.sim.clear_script();
    drop(lane);
    let lane = until_free(&world).await;
    completed(&lane, chain[JOBS - 1]).await;
    assert_eq!(world.prompts()[1..], links(JOBS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_chain_ends_as_one_and_is_brought_back_as_one() {
    const JOBS: usize = 300;
    let (world, lane) = started().await;
    let chain = chain(&world, &lane, JOBS).await;
    lane.cancel(chain[0]).await.unwrap();
    let counts = lane.queue_status().await.unwrap();
    assert_eq!(counts.cancelled as usize, JOBS, "all with the first");
    assert_eq!(lane.lane().await.unwrap().dormant, 0);

    world.sim.clear_script();
    // While the first of them run already: each waits for the one before it.
    let brought_back = lane.retry_all(Selection::All, false).await.unwrap();
    assert_eq!(brought_back as usize, JOBS);
    completed(&lane, chain[JOBS - 1]).await;
    assert_eq!(world.prompts()[1..], links(JOBS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_waits_for_many_runs_once_after_the_last() {
    let (world, lane) = started().await;
    configure(&lane, json!({"maxConcurrency": 4})).await;
    lane.pause(None).await.unwrap();
    let mut events = lane.subscribe();
    let many = (0..100).map(|n| prompt(format!("{n}")));
    let many = submit_all(&lane, many).await;
    let last = prompt("last").priority(9).after(many.iter().copied());
    let last = submit(&lane, last).await;
    lane.resume().await.unwrap();
    lane.wait(last).await.unwrap();
    let prompts = world.prompts();
    assert_eq!((prompts.len(), prompts[100].as_str()), (101, "last"));
    let arrivals = world.sim.arrivals();
    let ended = arrivals[..100].iter().map(|a| a.end_us.unwrap()).max();
    assert!(ended.unwrap() <= arrivals[100].at_us);
    assert_eq!(
        told(&mut events, "job.unblocked", 1).await,
        [last.to_string()]
    );
    let done = next_event(&mut events, |event| match event {
        Event::JobUnblocked { job_id } => panic!("told twice: {job_id}"),
        Event::JobCompleted { job_id, .. } => (*job_id == last).then_some(()),
        _ => None,
    });
    done.await;
}
