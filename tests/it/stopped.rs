//! Guards: an operator who cancels a stream ends it for its client in the stream's own form, closes its call, and frees its
//! slot; what was delivered is booked.

use std::sync::Arc;

use onelane::model::{CallOutcome, JobStatus};
use onelane::orchestrator::Orchestrator;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::streams::{CHAT, DONE, chat, job_of, open, read, rest};
use crate::support::api::Api;
use crate::support::http::{HttpLane, ended, served, stop, until};
use crate::support::shows;

/// A prompt whose answer comes in so many pieces that somebody can say stop.
const LONG: &str = "long [[sim pieces=1000 piece_ms=100]]";

async fn ask(api: &Api, path: &str, body: &Value) -> Response {
    let sent = api.posting(path, body.to_string()).send().await;
    let response = sent.expect("an answer");
    assert_eq!(response.status(), 200, "{path}");
    response
}

/// The data of the last event, and the lines before it that belong to it.
fn last_event(told: &str) -> (&str, Value) {
    let event = told.trim_end().rsplit("\n\n").next().unwrap();
    let (head, data) = event.split_once("data: ").expect("data");
    (head.trim(), serde_json::from_str(data).expect("JSON"))
}

/// What is on record of a job that somebody stopped: its end, and what of its answer was delivered, by our own count.
async fn is_booked_as_delivered(lane: &Orchestrator, response: &Response) {
    let id = job_of(response);
    ended(lane, id, JobStatus::Cancelled).await;
    let attempts = lane.job(id).await.unwrap().attempts;
    assert_eq!(attempts.len(), 1, "it is not made again");
    assert_eq!(attempts[0].outcome, CallOutcome::Cancelled);
    let usage = attempts[0].usage;
    assert!(
        usage.estimated && usage.prompt_tokens > 0 && usage.completion_tokens > 0,
        "{usage:?}"
    );
    assert!(attempts[0].cost.is_some() && !attempts[0].maybe_billed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_an_operator_cancels_ends_in_its_own_form_and_its_slot_is_free() {
    let (world, lane, api) = served().await;
    let message = json!({"max_tokens": 4_000, "stream": true,
        "messages": [{"role": "user", "content": LONG}]});
    let response = json!({"input": LONG, "stream": true});
    for (path, body) in [
        (CHAT, chat(LONG)),
        ("/v1/messages", message),
        ("/v1/responses", response),
    ] {
        let mut client = ask(&api, path, &body).await;
        let id = job_of(&client);
        // Until some of the answer itself has come.
        let mut begun = String::new();
        while begun.matches("delta").count() < 5 {
            let piece = client.chunk().await.unwrap().expect("a piece");
            begun.push_str(std::str::from_utf8(&piece).expect("UTF-8"));
        }
        let follows = api.request(Method::GET, &format!("/api/glm/jobs/{id}/stream"));
        let mut follower = follows.send().await.unwrap();
        let followed = read(&mut follower, "\n\n").await;

        let cancel = format!("/api/admin/glm/cancel/{id}");
        api.post_bare(&cancel).await.expect(200);
        for (who, told) in [
            ("client", {
                is_booked_as_delivered(&lane, &client).await;
                begun + &rest(client).await
            }),
            ("follower", followed + &rest(follower).await),
        ] {
            assert!(!told.contains("[DONE]"), "{path}, {who}: {told}");
            let (head, event) = last_event(&told);
            let error = match path {
                CHAT => {
                    assert!(!head.contains("event:"), "{path}, {who}: {told}");
                    &event["error"]
                }
                "/v1/messages" => {
                    assert!(head.contains("event: error"), "{path}, {who}: {told}");
                    assert_eq!(event["type"], "error");
                    assert_eq!(event["error"]["type"], "invalid_request_error");
                    &event["error"]
                }
                _ => {
                    assert!(head.contains("event: error"), "{path}, {who}: {told}");
                    assert_eq!(event["type"], "error");
                    // OpenAI's SDKs raise what is told in an `error` of its own.
                    let inside = json!({"type": "invalid_request_error", "code": event["code"],
                        "message": event["message"], "param": null});
                    assert_eq!(event["error"], inside);
                    let before = told.rsplit("\n\n").find_map(|event| {
                        let data: Value =
                            serde_json::from_str(event.split_once("data: ")?.1).ok()?;
                        (data["type"] != "error").then(|| data["sequence_number"].as_u64())?
                    });
                    let next = before.expect("events come before it") + 1;
                    assert_eq!(event["sequence_number"], next, "{who}: {told}");
                    &event
                }
            };
            assert_eq!(error["code"], "409", "{path}, {who}: {told}");
            let said = error["message"].as_str().unwrap();
            assert!(said.contains("cancelled"), "{path}, {who}: {said}");
        }
        world.until_in_flight(0).await;
        // The slot is the next one's.
        let next = open(&api, &chat("next")).await;
        assert!(rest(next).await.ends_with(DONE));
        let audit = api.get("/api/admin/glm/audit").await.expect(200);
        assert!(audit.to_string().contains(&id.to_string()), "{audit}");
    }
    assert_eq!(world.sim.calls_of_prompt(LONG), 3);
    drop(api);
    stop(lane, 1_000).await;
}

/// The id of the job that waits, once it does.
async fn waiting(api: &Api) -> String {
    let pending = async || {
        let page = api.get("/api/glm/jobs?status=pending").await.expect(200);
        page["jobs"][0]["id"].as_str().map(str::to_owned)
    };
    until("it waits", async || pending().await.is_some()).await;
    pending().await.unwrap()
}

/// Cancels what waits, and tells what became of it.
async fn cancel_what_waits(lane: &Orchestrator, api: &Api) {
    let id = waiting(api).await.parse().unwrap();
    let order = json!({"filter": {"status": "pending"}});
    let done = api.post("/api/admin/glm/cancel", order.to_string()).await;
    shows!(done.expect(200), {"count": 1});
    ended(lane, id, JobStatus::Cancelled).await;
    let attempts = lane.job(id).await.unwrap().attempts;
    assert!(attempts.is_empty(), "it was never sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_an_operator_cancels_before_its_first_piece_is_refused_or_told_so_behind_a_comment()
 {
    const COMMENT: &str = ": keep-alive\n\n";
    for keepalive_ms in [0, 20] {
        let mut world = HttpLane::new();
        world.config.gateway.keepalive_ms = keepalive_ms;
        let lane = world.start().await;
        let api = Arc::new(Api::serve(&lane).await);
        let blocker = world.block(&lane).await;
        let asking = Arc::clone(&api);
        let client = tokio::spawn(async move { open(&asking, &chat("waits")).await });
        let error = if keepalive_ms == 0 {
            cancel_what_waits(&lane, &api).await;
            let refused = client.await.unwrap();
            assert_eq!(refused.status(), 409);
            assert_eq!(refused.headers()["x-should-retry"], "false");
            serde_json::from_str(&rest(refused).await).unwrap()
        } else {
            let mut begun = client.await.unwrap();
            assert_eq!(begun.status(), 200);
            read(&mut begun, COMMENT).await;
            cancel_what_waits(&lane, &api).await;
            let told = rest(begun).await;
            last_event(&told.replace(COMMENT, "")).1
        };
        shows!(error["error"], {"code": "409"});
        lane.cancel(blocker).await.unwrap();
        assert_eq!(world.sim.calls_of_prompt("waits"), 0);
        drop(api);
        stop(lane, 1_000).await;
    }
}
