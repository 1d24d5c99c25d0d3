//! Guards: a filter that means other jobs than it says, a count that is not what was changed, a change
//! of many that a running lane gets in the way of.

use onelane::model::JobStatus;
use onelane::orchestrator::Orchestrator;
use onelane::simulator::{Fault, Rule};
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::http::{
    BLOCKER, HttpLane, configure, prompt, started, stop, until, until_completed,
};

const RETRY: &str = "/api/admin/glm/retry";
const CANCEL: &str = "/api/admin/glm/cancel";
const REPRIORITISE: &str = "/api/admin/glm/reprioritise";

/// Changes all that the filter leaves; answers how many.
async fn change(api: &Api, path: &str, mut body: Value, dry_run: bool) -> u64 {
    body["dryRun"] = json!(dry_run);
    if path == REPRIORITISE {
        body["priority"] = json!(3);
    }
    let answer = api.post(path, body.to_string()).await.expect(200);
    assert_eq!(answer["dryRun"], dry_run);
    answer["count"].as_u64().unwrap()
}

/// The change finds so many jobs.
async fn finds(api: &Api, path: &str, filter: &Value, dry_run: bool, jobs: u64) {
    let found = change(api, path, filter.clone(), dry_run).await;
    assert_eq!(found, jobs, "{path} {filter}");
}

/// What can be told of each job that a change may touch, by prompt.
async fn all(api: &Api) -> Vec<(String, String, i64)> {
    let list = api.get("/api/admin/glm/queue?limit=1000").await.expect(200);
    let jobs = list["queue"].as_array().unwrap().iter().map(|job| {
        let text = |name: &str| job[name].as_str().unwrap().to_owned();
        let priority = job["priority"].as_i64().unwrap();
        (text("prompt"), text("status"), priority)
    });
    let mut jobs: Vec<_> = jobs.collect();
    jobs.sort_unstable();
    jobs
}

/// The prompts of those with this status.
async fn prompts_of(api: &Api, status: &str) -> Vec<String> {
    let jobs = all(api).await.into_iter();
    let of_status = jobs.filter(|(_, of_job, _)| of_job == status);
    of_status.map(|(prompt, ..)| prompt).collect()
}

/// How many jobs the list of the queue has for the same words; ids are for changes alone.
async fn listed(api: &Api, filter: &Value) -> u64 {
    if let Some(ids) = filter["ids"].as_array() {
        let ids: std::collections::BTreeSet<_> = ids.iter().map(Value::to_string).collect();
        return ids.len() as u64;
    }
    let words = filter.as_object().unwrap().iter().map(|(name, value)| {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        format!("{name}={text}")
    });
    let query = words.collect::<Vec<_>>().join("&");
    let path = format!("/api/admin/glm/queue?status=pending&{query}");
    api.get(&path).await.expect(200)["total"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_of_a_filter_finds_its_jobs_and_no_other() {
    let (world, lane) = started().await;
    lane.pause(None).await.unwrap();
    let api = Api::serve(&lane).await;
    let mut ids = Vec::new();
    for job in [
        json!({"prompt": "plain"}),
        json!({"prompt": "of ada", "userId": "ada"}),
        json!({"prompt": "for glm-5", "model": "glm-5"}),
        json!({"prompt": "about c", "contentId": "c"}),
        json!({"prompt": "urgent", "priority": 7}),
        json!({"prompt": "idle", "priority": -7}),
    ] {
        ids.push(api.submit(job).await);
    }
    // The newest is younger than all others by the clock, too.
    let last = api.job(&ids[5]).await["createdAt"].clone();
    let newest = loop {
        let id = api.submit(json!({"prompt": "newest"})).await;
        let created = api.job(&id).await["createdAt"].clone();
        if created != last {
            break created;
        }
        api.delete(&format!("/api/glm/jobs/{id}")).await.expect(200);
    };
    let old = ["about c", "for glm-5", "idle", "of ada", "plain", "urgent"];
    for (filter, found) in [
        (json!({"userId": "ada"}), &["of ada"][..]),
        (json!({"model": "glm-5"}), &["for glm-5"]),
        (json!({"contentId": "c"}), &["about c"]),
        (
            json!({"ids": [ids[0], ids[4], ids[0]]}),
            &["plain", "urgent"],
        ),
        (json!({"priorityMin": 7}), &["urgent"]),
        (json!({"priorityMax": -7}), &["idle"]),
        (json!({"priorityMin": 1, "priorityMax": 6}), &[]),
        (json!({"createdFrom": newest}), &["newest"]),
        (json!({"createdBefore": newest}), &old),
        (json!({"userId": "ada", "model": "glm-5"}), &[]),
        (json!({"userId": "nobody"}), &[]),
        (json!({"ids": []}), &[]),
        (json!({"parked": true}), &[]),
        (json!({"errorCode": "1210"}), &[]),
    ] {
        let filter = json!({"filter": filter});
        let before = all(&api).await;
        let count = found.len() as u64;
        assert_eq!(listed(&api, &filter["filter"]).await, count, "{filter}");
        for path in [CANCEL, REPRIORITISE] {
            finds(&api, path, &filter, true, count).await;
        }
        // A dry run changes nothing.
        assert_eq!(all(&api).await, before, "{filter}");
        finds(&api, CANCEL, &filter, false, count).await;
        assert_eq!(prompts_of(&api, "cancelled").await, found, "{filter}");
        // They are found by the same words when they are to be brought back.
        finds(&api, RETRY, &filter, true, count).await;
        finds(&api, RETRY, &filter, false, count).await;
        assert_eq!(all(&api).await, before, "{filter}");
    }
    let old_of_ada = json!({"filter": {"createdBefore": newest, "userId": "ada"}});
    assert_eq!(change(&api, REPRIORITISE, old_of_ada, false).await, 1);
    let changed = all(&api).await.into_iter().filter(|job| job.2 == 3);
    assert_eq!(
        changed.collect::<Vec<_>>(),
        [("of ada".to_owned(), "pending".to_owned(), 3)]
    );
    assert_eq!(world.sim.stats().calls, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_failed_is_found_by_its_failure_and_what_is_set_aside_by_that() {
    let world = HttpLane::new();
    for (text, code) in [("bad", "1210"), ("unsafe", "1301"), ("unlucky", "1234")] {
        world.rule(Rule::for_prompt(text, Fault::error(code)));
    }
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    for text in ["bad", "unsafe", "unlucky"] {
        let id = api.submit(json!({"prompt": text, "maxRetries": 0})).await;
        api.ended(&id).await;
    }
    let mut aside = prompt(BLOCKER);
    aside.on_interrupted = Some(onelane::model::OnInterrupted::Park);
    lane.submit(aside).await.unwrap();
    until("the blocker's call is open", async || {
        world.sim.calls_of_prompt(BLOCKER) == 1
    })
    .await;
    lane.submit(prompt("waits")).await.unwrap();
    lane.pause(None).await.unwrap();
    api.stop().await;
    stop(lane, 1).await;
    world.sim.clear_script();

    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let unlucky = json!({"errorClass": "server_transient", "status": "failed"});
    for (filter, count) in [
        (json!({"errorCode": "1210"}), 1),
        (json!({"errorClass": "request_fatal"}), 2),
        (unlucky, 1),
        (json!({"errorClass": "overload"}), 0),
        (json!({"status": "failed"}), 3),
        (json!({"status": "pending"}), 1),
        (json!({"status": "completed"}), 0),
        (json!({"parked": true}), 1),
        (json!({"parked": false}), 3),
        (json!({"parked": false, "errorCode": "1301"}), 1),
    ] {
        let filter = json!({"filter": filter});
        finds(&api, RETRY, &filter, true, count).await;
    }
    assert_eq!(change(&api, RETRY, json!({"all": true}), true).await, 4);
    // Each is changed once, by the first filter that finds it.
    for (filter, changed) in [
        (json!({"errorCode": "1210"}), "bad"),
        (json!({"parked": true}), BLOCKER),
        (json!({"errorClass": "request_fatal"}), "unsafe"),
        (json!({"status": "failed"}), "unlucky"),
    ] {
        let mut expected = waiting(&api).await;
        expected.push(changed.to_owned());
        expected.sort_unstable();
        let filter = json!({"filter": filter});
        finds(&api, RETRY, &filter, false, 1).await;
        assert_eq!(waiting(&api).await, expected, "{filter}");
        finds(&api, RETRY, &filter, false, 0).await;
    }
    assert_eq!(change(&api, RETRY, json!({"all": true}), true).await, 0);
    lane.resume().await.unwrap();
    until_completed(&lane, 5).await;
}

/// The prompts of the jobs that wait and are not set aside.
async fn waiting(api: &Api) -> Vec<String> {
    let list = api
        .get("/api/admin/glm/queue?limit=1000&status=pending&parked=false")
        .await
        .expect(200);
    let jobs = list["queue"].as_array().unwrap().iter();
    let mut prompts: Vec<_> = jobs
        .map(|job| job["prompt"].as_str().unwrap().to_owned())
        .collect();
    prompts.sort_unstable();
    prompts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_job_is_meant_by_mistake() {
    let (_world, lane) = started().await;
    lane.pause(None).await.unwrap();
    let api = Api::serve(&lane).await;
    api.submit(json!({"prompt": "mine"})).await;
    for path in [RETRY, CANCEL, REPRIORITISE] {
        for (body, problem) in [
            (
                "{}",
                "filter: is missing; to mean every job say {\"all\": true}",
            ),
            (r#"{"filter": {}}"#, "filter: is empty; to mean every job"),
            (r#"{"filter": {"user": "x"}}"#, "filter.user: is unknown"),
            (
                r#"{"filter": {"priorityMin": "high"}}"#,
                "filter.priorityMin: must be",
            ),
            (
                r#"{"filter": {"createdFrom": "today"}}"#,
                "filter.createdFrom: must be",
            ),
            (r#"{"all": false}"#, "filter: is missing"),
            ("[]", "the body: must be a JSON object"),
            ("", "the body is "),
        ] {
            let mut body = body.to_owned();
            if path == REPRIORITISE && body.starts_with('{') {
                let comma = if body == "{}" { "" } else { "," };
                body.insert_str(1, &format!("\"priority\": 1{comma}"));
            }
            let refused = api.post(path, body.clone()).await.expect(400);
            let detail = refused["detail"].as_str().unwrap();
            assert!(detail.starts_with(problem), "{path} {body}: {detail}");
        }
    }
    let none = api.post(REPRIORITISE, r#"{"all": true}"#).await.expect(400);
    assert_eq!(none["detail"], "priority: is missing");
    assert_eq!(waiting(&api).await, ["mine"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_jobs_are_changed_while_the_lane_runs() {
    const JOBS: u64 = 5_000;
    let (world, lane) = started().await;
    configure(&lane, json!({"maxConcurrency": 2})).await;
    let api = Api::serve(&lane).await;
    let jobs: Vec<_> = (0..JOBS)
        .map(|n| {
            let user = if n % 2 == 0 { "ada" } else { "bob" };
            json!({"prompt": n.to_string(), "userId": user})
        })
        .collect();
    let taken = api.post("/api/glm/jobs", json!(jobs).to_string()).await;
    assert_eq!(taken.expect(202)["accepted"], JOBS);
    until("it is at work", async || world.sim.stats().calls > 20).await;

    let of_bob = json!({"filter": {"userId": "bob"}});
    let urgent = change(&api, REPRIORITISE, of_bob.clone(), false).await;
    assert!((1..=JOBS / 2).contains(&urgent), "{urgent}");
    let raised = api
        .get("/api/admin/glm/queue?userId=bob&priorityMin=3&limit=1")
        .await;
    // Those that were counted.
    assert_eq!(raised.expect(200)["total"], urgent);

    let cancelled = change(&api, CANCEL, of_bob.clone(), false).await;
    let counts = lane.queue_status().await.unwrap();
    assert_eq!(counts.cancelled, cancelled);
    assert_eq!(counts.total(), JOBS);
    let of_ada = api
        .get("/api/admin/glm/queue?userId=ada&status=cancelled")
        .await;
    assert_eq!(of_ada.expect(200)["total"], 0);

    let calls = world.sim.stats().calls;
    until("the lane goes on", async || world.sim.stats().calls > calls).await;
    assert_eq!(change(&api, RETRY, of_bob, false).await, cancelled);
    let dropped = change(&api, CANCEL, json!({"all": true}), false).await;
    let counts = settled(&lane).await;
    assert_eq!(counts.cancelled, dropped);
    assert_eq!(counts.completed, JOBS - dropped);
    assert!(world.sim.stats().peak_in_flight <= 2);
    // What was done was done once: only a call that was closed may have been made again.
    let stats = world.sim.stats();
    assert!(
        stats.calls <= counts.completed + stats.clients_left + dropped,
        "{stats:?}"
    );
    assert_eq!(stats.duplicate_request_ids, 0);
}

/// The counts once nothing waits or runs any more.
async fn settled(lane: &Orchestrator) -> onelane::ports::StatusCounts {
    until("nothing is left", async || {
        let counts = lane.queue_status().await.unwrap();
        counts.of(JobStatus::Pending) + counts.of(JobStatus::Processing) == 0
    })
    .await;
    lane.queue_status().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_tree_is_brought_back_in_its_order() {
    let world = HttpLane::new();
    world.rule(Rule::for_prompt("root", Fault::error("1210")).times(1));
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let blocker = world.block(&lane).await;
    let root = api.submit(json!({"prompt": "root"})).await;
    let left = api.ask_after("left", &[&root]).await;
    let right = json!({"prompt": "right", "priority": 5, "after": [root]});
    let right = api.submit(right).await;
    let tip = json!({"prompt": "tip", "after": [left, right]});
    let tip = api.submit(tip).await;
    lane.cancel(blocker).await.unwrap();
    assert_eq!(api.ended(&tip).await["status"], "failed");
    // The tip alone, or with one of its branches, has nothing to wait for.
    let some = json!({"filter": {"ids": [tip, left]}});
    assert_eq!(change(&api, RETRY, some, false).await, 0);
    let by_code = json!({"filter": {"errorCode": "dependency"}});
    assert_eq!(change(&api, RETRY, by_code.clone(), true).await, 0);
    assert_eq!(change(&api, RETRY, by_code, false).await, 0);
    let all = json!({"filter": {"status": "failed"}});
    assert_eq!(change(&api, RETRY, all, false).await, 4);
    api.completed(&tip).await;
    assert_eq!(world.prompts()[2..], ["root", "right", "left", "tip"]);

    // Dead letters are kept with what was tried.
    let letters = api.get("/api/admin/glm/dead-letters").await.expect(200);
    assert_eq!(letters["total"], 0);
}
