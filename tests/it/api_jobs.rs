//! Guards: programs that submit over HTTP, by jobs or by their OpenAI or GLM SDK: nothing of a request is
//! lost on its way, nothing runs for nobody, errors come in the words that SDKs read.

use onelane::model::{JobId, JobStatus};
use onelane::orchestrator::Orchestrator;
use onelane::simulator::{ErrorFault, Fault, Rule};
use serde_json::{Value, json};

use crate::support::api::{Api, Reply};
use crate::support::http::{BLOCKER, HttpLane, until};
use crate::support::ms;
use crate::support::tap::Tap;

const JOBS: &str = "/api/glm/jobs";
/// Where OpenAI's SDKs go, and where GLM's go.
const CHATS: [&str; 2] = ["/v1/chat/completions", "/api/paas/v4/chat/completions"];

fn chat(content: &str) -> String {
    json!({"model": "glm-4.7", "messages": [{"role": "user", "content": content}]}).to_string()
}

fn job_of(reply: &Reply) -> JobId {
    let id = reply.headers["x-onelane-job"].to_str().unwrap();
    id.parse().unwrap()
}

/// The only job there is, once it is there.
/// The newest of so many jobs.
async fn newest_of(lane: &Orchestrator, jobs: usize) -> JobId {
    let page = async || lane.jobs(Default::default(), None, 3).await.unwrap().jobs;
    until("the job is there", async || page().await.len() == jobs).await;
    page().await[0].job.id
}

async fn status_of(lane: &Orchestrator, id: JobId) -> JobStatus {
    lane.job(id).await.unwrap().record.job.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_accepted_once_durable_and_fetched_when_it_is_done() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let blocker = world.block(&lane).await;
    let body = r#"{"prompt": "hi", "model": "glm-5", "userId": "alice", "priority": 3}"#;
    let reply = api.post(JOBS, body).await;
    let accepted = reply.expect(202);
    let id = accepted["id"].as_str().unwrap();
    assert_eq!(
        (&accepted["status"], &accepted["created"]),
        (&json!("pending"), &json!(true))
    );
    assert_eq!(reply.headers["location"], format!("{JOBS}/{id}"));
    let path = format!("{JOBS}/{id}");
    let waiting = api.get(&path).await.expect(202);
    assert_eq!(waiting["status"], "pending");
    let waiting = api.get(&format!("{path}?wait=50ms")).await.expect(202);
    assert_eq!(waiting["status"], "pending");
    // Somebody waits already when it ends.
    let long = format!("{path}?wait=30s");
    let (done, ()) = tokio::join!(api.get(&long), async {
        tokio::time::sleep(ms(50)).await;
        lane.cancel(blocker).await.unwrap();
    });
    let done = done.expect(200);
    assert_eq!(done["status"], "completed");
    assert_eq!(done["result"]["model"], "glm-5");
    assert_eq!(api.get(&path).await.expect(200), done);
    for wait in ["30", "1h", "-1s", "6m", ""] {
        let reply = api.get(&format!("{path}?wait={wait}")).await;
        assert_eq!(reply.status, 400, "{wait}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_jobs_is_taken_whole_or_each_refusal_has_its_place() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let wrong = r#"[{"prompt": "a"}, {"prompt": ""}, {"priority": 1}]"#;
    let problem = api.post(JOBS, wrong).await.expect(400);
    assert_eq!(problem["errors"][0]["field"], "[1].prompt");
    assert_eq!(problem["errors"][1]["field"], "[2].prompt");
    assert_eq!(lane.queue_status().await.unwrap().total(), 0);

    let list = json!([
        {"prompt": "a", "idempotencyKey": "k"},
        {"messages": [{"role": "user", "content": "b"}], "parameters": {"top_p": 0.5}},
        {"prompt": "not a", "idempotencyKey": "k"},
        {"request": {"messages": [{"role": "user", "content": "c"}]}},
    ]);
    let body = api.post(JOBS, list.to_string()).await.expect(202);
    assert_eq!(
        (&body["accepted"], &body["refused"]),
        (&json!(3), &json!(1))
    );
    let jobs = body["jobs"].as_array().unwrap();
    assert_eq!(jobs[2]["error"]["status"], 409);
    for at in [0, 1, 3] {
        let id = jobs[at]["id"].as_str().unwrap();
        let done = api.get(&format!("{JOBS}/{id}?wait=30s")).await.expect(200);
        assert_eq!(done["status"], "completed");
    }
    assert_eq!(world.prompts(), ["a", "b", "c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_cancelled_by_its_submitter() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let blocker = world.block(&lane).await;
    let path = format!("{JOBS}/{blocker}");
    let request = api.request(reqwest::Method::DELETE, &path);
    assert_eq!(
        Api::send(request).await.expect(200),
        json!({"success": true})
    );
    assert_eq!(api.get(&path).await.expect(200)["status"], "cancelled");
    assert!(world.arrivals_of(BLOCKER)[0].client_left);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_of_an_sdk_reaches_glm_verbatim_and_the_answer_comes_back_verbatim() {
    // As the SDKs write it: every parameter, most of them null.
    let body = r#"{"messages":[{"role":"system","content":"be kind"},{"content":[{"type":"text","text":"你好"}],"role":"user","name":null}],"model":"glm-4.7","frequency_penalty":null,"logit_bias":null,"max_tokens":null,"n":1,"response_format":{"type":"json_object"},"seed":null,"stop":null,"stream":false,"temperature":0.70,"tool_choice":null,"tools":null,"top_p":1e0,"user":"alice","thinking":{"type":"disabled"},"extra":{"b":[],"a":null}}"#;
    let answer = r#"{"id":"2026","created":1795420800,"model":"glm-4.7","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"hi","reasoning_content":null}}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4},"web_search":null}"#;
    for path in CHATS {
        let mut world = HttpLane::new();
        let tap = Tap::to(world.sim.addr()).await;
        world.config.glm.base_url = tap.base_url();
        world.sim.push_fault(Fault::Custom {
            status: 200,
            headers: Default::default(),
            body: answer.to_owned(),
        });
        let lane = world.start().await;
        let api = Api::serve(&lane).await;
        // The SDK's key is not the lane's: it is not sent on.
        let request = api.posting(path, body).bearer_auth("sdk-key");
        let reply = Api::send(request).await;
        assert_eq!((reply.status, reply.text.as_str()), (200, answer), "{path}");
        let id = job_of(&reply);
        let [sent] = tap.bodies().try_into().unwrap();
        let request_id = format!("{}-1", id.to_string().replace('-', ""));
        let want = format!(
            r#"{},"request_id":"{request_id}"}}"#,
            body.strip_suffix('}').unwrap()
        );
        assert_eq!(sent, want, "{path}");
        let job = lane.job(id).await.unwrap().record.job;
        assert_eq!(
            (job.status, job.user_id.as_str()),
            (JobStatus::Completed, "alice")
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_of_a_job_reach_glm_as_they_are_spelled() {
    let mut world = HttpLane::new();
    let tap = Tap::to(world.sim.addr()).await;
    world.config.glm.base_url = tap.base_url();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let body = r#"{"messages":[{"role":"user","content":"h\u0069"}],"model":"glm-5","parameters":{"top_p":0.90,"stop":null,"tools":[ ]}}"#;
    let id = api.post(JOBS, body).await.expect(202);
    let id = id["id"].as_str().unwrap();
    api.get(&format!("{JOBS}/{id}?wait=30s")).await.expect(200);
    let [sent] = tap.bodies().try_into().unwrap();
    let verbatim = r#"{"messages":[{"role":"user","content":"h\u0069"}],"top_p":0.90,"stop":null,"tools":[ ],"model":"glm-5","#;
    assert!(sent.starts_with(verbatim), "{sent}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_of_glm_comes_back_with_its_status_and_code() {
    for path in CHATS {
        let world = HttpLane::new();
        let lane = world.start().await;
        let api = Api::serve(&lane).await;
        for (code, status) in [("1210", 400), ("1261", 400), ("1301", 400)] {
            world.sim.push_fault(Fault::Error(ErrorFault {
                status: Some(status),
                ..ErrorFault::of(code)
            }));
            let reply = api.post(path, chat("hi")).await;
            let error = &reply.expect(status)["error"];
            assert_eq!(error["code"], code);
            assert!(!error["message"].as_str().unwrap().is_empty());
            assert_eq!(reply.headers["x-should-retry"], "false");
            assert_eq!(status_of(&lane, job_of(&reply)).await, JobStatus::Failed);
        }
        assert_eq!(world.sim.stats().calls, 3, "each was called once");
        let wrong = api.post(path, r#"{"messages": []}"#).await.expect(400);
        assert_eq!(wrong["error"]["code"], "1213");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_worth_a_retry_is_retried_and_the_sdk_sees_one_answer() {
    let world = HttpLane::new();
    world.sim.push_fault(Fault::error("1302"));
    world.sim.push_fault(Fault::error("1234"));
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let reply = api.post(CHATS[0], chat("hi")).await;
    assert_eq!(reply.expect(200)["choices"][0]["finish_reason"], "stop");
    assert_eq!(world.sim.stats().calls, 3);

    world.sim.add_rule(Rule::always(Fault::error("1234")));
    lane.set_config(&json!({"maxRetries": 1})).await.unwrap();
    let reply = api.post(CHATS[0], chat("ho")).await;
    assert_eq!(reply.expect(500)["error"]["code"], "1234");
    assert_eq!(reply.headers["x-should-retry"], "false");
}

/// Asks in a task of its own, that can be ended to hang up.
fn ask_in_the_background(
    api: &Api,
    body: String,
    key: Option<&str>,
) -> tokio::task::JoinHandle<()> {
    let mut request = api.posting(CHATS[0], body);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    tokio::spawn(async move { drop(request.send().await) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_hangs_up_while_its_job_waits_gives_it_up() {
    let mut world = HttpLane::new();
    world.config.gateway.reattach_ms = 0;
    let lane = world.start().await;
    let blocker = world.block(&lane).await;
    let api = Api::serve(&lane).await;
    let client = ask_in_the_background(&api, chat("nobody waits"), None);
    let id = newest_of(&lane, 2).await;
    client.abort();
    until("the job is cancelled", async || {
        status_of(&lane, id).await == JobStatus::Cancelled
    })
    .await;
    lane.cancel(blocker).await.unwrap();
    tokio::time::sleep(ms(50)).await;
    assert_eq!(world.prompts(), [BLOCKER]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_hangs_up_while_its_job_runs_closes_the_call() {
    let mut world = HttpLane::new();
    world.config.gateway.reattach_ms = 0;
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let client = ask_in_the_background(&api, chat(BLOCKER), None);
    until("the call is open", async || {
        world.sim.stats().in_flight == 1
    })
    .await;
    let id = newest_of(&lane, 1).await;
    client.abort();
    until("the job is cancelled", async || {
        status_of(&lane, id).await == JobStatus::Cancelled
    })
    .await;
    assert_eq!(world.sim.stats().clients_left, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_an_idempotency_key_a_client_may_hang_up_and_come_back() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let blocker = world.block(&lane).await;
    let api = Api::serve(&lane).await;
    let client = ask_in_the_background(&api, chat("keep it"), Some("key"));
    let id = newest_of(&lane, 2).await;
    client.abort();
    assert!(client.await.is_err(), "it hung up");
    lane.cancel(blocker).await.unwrap();
    lane.wait(id).await.unwrap();
    let again = async |content: &str| {
        let request = api.posting(CHATS[0], chat(content));
        Api::send(request.header("idempotency-key", "key")).await
    };
    let reply = again("keep it").await;
    let answer: Value = reply.expect(200);
    assert!(answer["choices"][0]["message"]["content"].is_string());
    assert_eq!(job_of(&reply), id);
    let conflict = again("something else").await;
    assert_eq!(conflict.expect(409)["error"]["code"], "1231");
    assert_eq!(world.prompts(), [BLOCKER, "keep it"]);
    // By the jobs' route it is the same job of the same user.
    let request = json!({"request": serde_json::from_str::<Value>(&chat("keep it")).unwrap()});
    let reply = api.posting(JOBS, request.to_string());
    let reply = Api::send(reply.header("idempotency-key", "key")).await;
    let accepted = reply.expect(202);
    assert_eq!(accepted["id"], id.to_string());
    assert_eq!(
        (&accepted["created"], &accepted["status"]),
        (&json!(false), &json!("completed"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_at_once_are_served_one_call_at_a_time() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let clients: Vec<_> = (0..50)
        .map(|n| {
            let path = CHATS[n % 2];
            let request = api.posting(path, chat(&format!("client {n}")));
            tokio::spawn(Api::send(request))
        })
        .collect();
    for (n, client) in clients.into_iter().enumerate() {
        let answer = client.await.unwrap().expect(200);
        let content = &answer["choices"][0]["message"]["content"];
        let mine = content.as_str().unwrap();
        assert!(mine.contains(&format!("client {n}.")), "{mine}");
    }
    let stats = world.sim.stats();
    assert_eq!((stats.calls, stats.peak_in_flight), (50, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_and_a_stopped_lane_say_so() {
    let mut world = HttpLane::new();
    world.config.lane.max_queue_jobs = 1;
    let lane = world.start().await;
    lane.pause(None).await.unwrap();
    let api = Api::serve(&lane).await;
    api.post(JOBS, r#"{"prompt": "a"}"#).await.expect(202);
    let full = api.post(JOBS, r#"{"prompt": "b"}"#).await;
    full.expect(429);
    assert!(full.headers.contains_key("retry-after"));
    let full = api.post(CHATS[0], chat("c")).await;
    assert_eq!(full.expect(429)["error"]["code"], "1302");
    lane.shutdown(ms(1_000)).await;
    api.post(JOBS, r#"{"prompt": "d"}"#).await.expect(503);
    let stopped = api.post(CHATS[0], chat("e")).await;
    assert_eq!(stopped.expect(503)["error"]["code"], "503");
    assert_eq!(world.sim.stats().calls, 0);
}
