//! Guards: whoever has a program on an OpenAI, Anthropic or GLM SDK changes its base URL and nothing else: each face of
//! GLM is queued, stored, accounted and streamed as a chat is, and comes back as GLM sent it.

use std::sync::{Arc, Mutex};

use onelane::model::{CallOutcome, JobId, JobStatus};
use onelane::orchestrator::Orchestrator;
use onelane::simulator::{Fault, Rule};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::api::{Api, Reply};
use crate::support::http::{BLOCKER, HttpLane, KEY, ended, served, stop, until};
use crate::support::upstream::{Arrived, Upstream};

const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";
const EMBEDDINGS: &str = "/v1/embeddings";

/// Where each face is asked for, where it is upstream, what asks, and what answers, spelled as no serialiser would.
const FACES: [(&str, &str, &str, &str); 4] = [
    (
        "/api/coding/paas/v4/chat/completions",
        "/api/paas/v4/chat/completions",
        r#""messages":[ {"role":"user","content":"h\u0069"} ]"#,
        r#"{ "choices":[{"index":0,"finish_reason":"stop","message":{"content":"A"}}],"x":1.50,"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}"#,
    ),
    (
        RESPONSES,
        "/api/v1/responses",
        r#""input":"h\u0069","store":false,"previous_response_id":null"#,
        r#"{ "object":"response","id":"g-1","status":"completed","error":null,"output":[{"type":"message","content":[{"type":"output_text","text":"A"}]}],"x":1.50,"usage":{"input_tokens":10,"output_tokens":5,"total_tokens":15,"output_tokens_details":{"reasoning_tokens":2}}}"#,
    ),
    (
        MESSAGES,
        "/api/anthropic/v1/messages",
        r#""max_tokens":50,"messages":[{"role":"user","content":[{"type":"text","text":"h\u0069"}]}]"#,
        r#"{ "type":"message","id":"msg_1","role":"assistant","content":[{"type":"text","text":"A"}],"stop_reason":"end_turn","x":1.50,"usage":{"input_tokens":4,"cache_read_input_tokens":6,"output_tokens":5}}"#,
    ),
    (
        EMBEDDINGS,
        "/api/paas/v4/embeddings",
        r#""input":["h\u0069"]"#,
        r#"{ "object":"list","data":[{"object":"embedding","index":0,"embedding":[0.10,1e-3]}],"x":1.50,"usage":{"prompt_tokens":15,"total_tokens":15}}"#,
    ),
];

/// Fields that nobody here knows, in every spelling.
const ODD: &str = r#""zeta":1.50,"e":1E+2,"big":123456789012345678901234567890,"n":null,"esc":"\u4e2d\/\n","dup":1,"dup":2,"o":{"b":1,"a":[ ],"b":2},"𝄞":"😀""#;

async fn lane_to(upstream: &Upstream) -> (HttpLane, Orchestrator, Api) {
    let mut world = HttpLane::new();
    world.config.glm.base_url = upstream.base_url();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    (world, lane, api)
}

fn job_of(reply: &Reply) -> JobId {
    let id = reply.headers["x-onelane-job"].to_str().unwrap();
    id.parse().expect("an id")
}

fn event_kinds(text: &str) -> Vec<&str> {
    text.lines()
        .filter_map(|line| line.strip_prefix("event: "))
        .collect()
}

/// The data of the events of a stream.
fn events(text: &str) -> Vec<Value> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter_map(|data| serde_json::from_str(data).ok())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_body_of_each_face_arrives_at_its_place_to_the_byte_and_its_answer_comes_back_so() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    let upstream = Upstream::start(move |mut call: Arrived<'_>| {
        hears
            .lock()
            .unwrap()
            .push((call.head.clone(), call.bytes.clone()));
        let found = FACES
            .iter()
            .find(|(_, place, ..)| call.head.contains(&format!("post {place} ")));
        let (.., answer) = found.expect("a place of GLM's");
        call.answer(200, "content-type: application/json\r\n", answer);
    });
    let (_world, lane, api) = lane_to(&upstream).await;
    for (path, place, subject, answer) in FACES {
        let own = format!(r#"{{"model":" GLM-4.7",{ODD},{subject}}}"#);
        let reply = api.post(path, own.as_str()).await;
        assert_eq!((reply.status, reply.text.as_str()), (200, answer), "{path}");
        let job = job_of(&reply);
        let (head, sent) = heard.lock().unwrap().pop().expect("a call");
        let chat = place.ends_with("/chat/completions");
        let id = match chat {
            true => format!(r#","request_id":"{}-1""#, job.to_string().replace('-', "")),
            false => String::new(),
        };
        let want = format!("{}{id}}}", own.strip_suffix('}').unwrap());
        assert_eq!(sent, want, "{path}");
        match path == MESSAGES {
            true => {
                assert!(
                    head.contains(&format!("x-api-key: {}", KEY.to_lowercase())),
                    "{head}"
                );
                assert!(
                    head.contains("anthropic-version: 2023-06-01")
                        && !head.contains("authorization")
                );
            }
            false => assert!(
                head.contains("authorization: bearer 0123456789abcdef."),
                "{head}"
            ),
        }

        // What each used is on record under one set of names.
        let detail = lane.job(job).await.unwrap();
        let usage = &detail.attempts[0].usage;
        let completion = if path == EMBEDDINGS { 0 } else { 5 };
        assert_eq!(
            (
                usage.total_tokens,
                usage.completion_tokens,
                usage.contradictory
            ),
            (15, completion, false),
            "{path}"
        );
        assert!(detail.attempts[0].endpoint.ends_with(place));
        let text = detail.record.text();
        assert_eq!(
            text.as_deref(),
            (path != EMBEDDINGS).then_some("A"),
            "{path}"
        );
        assert_eq!(detail.record.request.unwrap().text().as_deref(), Some("hi"));
    }
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_each_face_comes_back_as_glm_sent_it() {
    let cases = [
        (
            MESSAGES,
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","code":"1214","message":"[1214][no][id]"}, "request_id":"g"}"#,
        ),
        (
            MESSAGES,
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: too large"}}"#,
        ),
        (
            RESPONSES,
            400,
            r#"{"error":{"code":"context_length_exceeded","message":"m","type":"invalid_request_error", "param":null}}"#,
        ),
        (
            EMBEDDINGS,
            400,
            r#"{"error":{"code":"1210","message":"m"} }"#,
        ),
    ];
    let upstream = Upstream::start(move |mut call: Arrived<'_>| {
        let n = call.body["n"].as_u64().unwrap() as usize;
        let (_, status, body) = cases[n];
        call.answer(status, "content-type: application/json\r\n", body);
    });
    let (_world, lane, api) = lane_to(&upstream).await;
    for (n, (path, status, body)) in cases.into_iter().enumerate() {
        let asked = json!({"n": n, "input": "hi", "messages": [{"role": "user", "content": "hi"}]});
        let reply = api.post(path, asked.to_string()).await;
        assert_eq!((reply.status, reply.text.as_str()), (status, body));
        assert_eq!(reply.headers["x-should-retry"], "false");
        assert!(!reply.headers["x-onelane-meaning"].is_empty());
    }
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_face_is_served_whole_in_pieces_and_with_tools() {
    let (_world, lane, api) = served().await;
    let tool = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let ask = async |path: &str, body: Value| api.post(path, body.to_string()).await;

    // Messages.
    let hi = json!([{"role": "user", "content": "hi"}]);
    let whole = ask(
        MESSAGES,
        json!({"model": "glm-4.7", "max_tokens": 100, "messages": hi}),
    )
    .await;
    let message = whole.expect(200);
    assert_eq!(message["stop_reason"], "end_turn");
    let text = message["content"][0]["text"].as_str().unwrap().to_owned();
    let asked = json!({"max_tokens": 100, "messages": hi, "stream": true});
    let reply = ask("/api/anthropic/v1/messages/", asked).await;
    assert_eq!(reply.headers["content-type"], "text/event-stream");
    let kinds = event_kinds(&reply.text);
    assert_eq!(
        (kinds.first(), kinds.last()),
        (Some(&"message_start"), Some(&"message_stop"))
    );
    let told = events(&reply.text);
    let pieces = told
        .iter()
        .filter_map(|event| event["delta"]["text"].as_str());
    assert_eq!(pieces.collect::<String>(), text);
    let record = ended(&lane, job_of(&reply), JobStatus::Completed).await;
    assert_eq!(
        record.text().as_deref(),
        Some(text.as_str()),
        "stored as one that came whole"
    );
    let used = lane.job(record.job.id).await.unwrap().attempts[0].usage;
    assert!(
        used.prompt_tokens > 0 && used.completion_tokens > 0,
        "{used:?}"
    );
    let tools = json!([{"name": "weather", "input_schema": tool}]);
    let asked = json!({"max_tokens": 100, "messages": hi, "tools": tools});
    let message = ask(MESSAGES, asked.clone()).await.expect(200);
    assert_eq!(message["stop_reason"], "tool_use");
    let mut asked = asked;
    asked["stream"] = json!(true);
    let reply = ask(MESSAGES, asked).await;
    let record = ended(&lane, job_of(&reply), JobStatus::Completed).await;
    let stored: Value = serde_json::from_str(record.response.unwrap().get()).unwrap();
    let called = |message: &Value| {
        let call = &message["content"][0];
        (call["name"].clone(), call["input"].clone())
    };
    assert_eq!(called(&stored), called(&message), "a tool is called alike");

    // Responses.
    let response = ask(RESPONSES, json!({"input": "hi"})).await.expect(200);
    assert_eq!(response["status"], "completed");
    let reply = ask("//v1//responses", json!({"input": "hi", "stream": true})).await;
    let kinds = event_kinds(&reply.text);
    assert_eq!(
        (kinds.first(), kinds.last()),
        (Some(&"response.created"), Some(&"response.completed"))
    );
    let record = ended(&lane, job_of(&reply), JobStatus::Completed).await;
    assert_eq!(
        record.text().as_deref(),
        response["output"][0]["content"][0]["text"].as_str()
    );
    let tools = json!([{"type": "function", "name": "weather", "parameters": tool}]);
    let asked = json!({"input": "hi", "tools": tools, "stream": true});
    let reply = ask(RESPONSES, asked).await;
    let record = ended(&lane, job_of(&reply), JobStatus::Completed).await;
    let stored: Value = serde_json::from_str(record.response.unwrap().get()).unwrap();
    assert_eq!(stored["output"][0]["type"], "function_call");

    // Embeddings.
    let asked = json!({"model": "embedding-3", "input": ["a", "b"], "dimensions": 4});
    let reply = ask(EMBEDDINGS, asked).await;
    let embedded = reply.expect(200);
    assert_eq!(embedded["data"].as_array().map(Vec::len), Some(2));
    assert_eq!(reply.headers["x-onelane-model"], "embedding-3");
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_says_in_headers_which_job_attempt_and_model_it_is_how_long_it_waited_and_what_it_cost()
 {
    let (world, lane, api) = served().await;
    world.rule(Rule {
        times: Some(1),
        ..Rule::for_prompt("again", Fault::error("1302"))
    });
    for (path, body) in [
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": "again"}]}),
        ),
        (RESPONSES, json!({"input": "hi"})),
        (
            MESSAGES,
            json!({"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}),
        ),
        (EMBEDDINGS, json!({"model": "embedding-3", "input": "hi"})),
    ] {
        let reply = api.post(path, body.to_string()).await;
        reply.expect(200);
        let header = |name: &str| reply.headers[name].to_str().unwrap();
        let attempts = if path.ends_with("completions") {
            "2"
        } else {
            "1"
        };
        assert_eq!(header("x-onelane-attempts"), attempts, "{path}");
        assert!(header("x-onelane-wait-ms").parse::<u64>().is_ok(), "{path}");
        let cost = header("x-onelane-cost");
        assert!(cost.ends_with(" CNY"), "{path}: {cost}");
        assert!(!header("x-onelane-model").is_empty());
        ended(&lane, job_of(&reply), JobStatus::Completed).await;
    }
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_face_fails_in_its_own_words_and_is_tried_again_where_that_helps() {
    let (world, lane, api) = served().await;
    for prompt in ["busy message", "busy response"] {
        world.rule(Rule {
            times: Some(1),
            ..Rule::for_prompt(prompt, Fault::error("1305"))
        });
    }
    for prompt in ["long message", "long response"] {
        world.rule(Rule::for_prompt(prompt, Fault::error("1261")));
    }
    let message =
        |text: &str| json!({"max_tokens": 9, "messages": [{"role": "user", "content": text}]});
    let response = |text: &str| json!({"input": text});
    for (path, body) in [
        (MESSAGES, message("busy message")),
        (RESPONSES, response("busy response")),
    ] {
        let reply = api.post(path, body.to_string()).await;
        reply.expect(200);
        let attempts = lane.job(job_of(&reply)).await.unwrap().attempts;
        let first = attempts[0].failure.as_ref().expect("a failure");
        assert_eq!(
            first.class,
            onelane::model::FailureClass::Overload,
            "{first}"
        );
        assert_eq!(
            (attempts.len(), attempts[1].outcome),
            (2, CallOutcome::Completed)
        );
    }
    let told = api
        .post(MESSAGES, message("long message").to_string())
        .await;
    let told = told.expect(400);
    assert_eq!(
        (&told["type"], &told["error"]["code"]),
        (&json!("error"), &json!("1261"))
    );
    let told = api
        .post(RESPONSES, response("long response").to_string())
        .await;
    assert_eq!(told.expect(400)["error"]["code"], "context_length_exceeded");
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_we_refuse_ourselves_is_told_in_the_envelope_of_the_face() {
    let (_world, lane, api) = served().await;
    let anthropic = |told: Value, kind: &str| {
        assert_eq!(told["type"], "error", "{told}");
        assert_eq!(told["error"]["type"], kind, "{told}");
        assert!(!told["error"]["message"].as_str().unwrap().is_empty());
    };
    for path in [MESSAGES, "//v1//messages/", "/api/anthropic/v1/messages"] {
        anthropic(
            api.post(path, "{}").await.expect(400),
            "invalid_request_error",
        );
        anthropic(
            api.post(path, "{").await.expect(400),
            "invalid_request_error",
        );
        anthropic(api.get(path).await.expect(405), "invalid_request_error");
    }
    anthropic(
        api.get("/v1/messages/batches").await.expect(404),
        "not_found_error",
    );
    anthropic(
        api.get("/api/anthropic/v1/nothing").await.expect(404),
        "not_found_error",
    );
    for path in [
        RESPONSES,
        "/v1/embeddings/",
        "/api/coding/paas/v4/chat/completions",
    ] {
        let told = api.post(path, "[]").await.expect(400);
        assert_eq!(told["error"]["code"], "1210", "{path}");
        let told = api
            .request(Method::PUT, path)
            .send()
            .await
            .expect("an answer");
        assert_eq!(told.status(), 405);
    }
    assert_eq!(
        api.post(EMBEDDINGS, "{}").await.expect(400)["error"]["param"],
        "input"
    );
    assert_eq!(
        api.get("/v1/responses/resp_x").await.expect(404)["error"]["code"],
        "1214"
    );
    assert_eq!(
        api.get("/api/coding/paas/v4/nothing").await.expect(404)["error"]["code"],
        "1222"
    );
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_cut_is_told_in_the_form_of_its_face() {
    const HEAD: &str =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    let upstream = Upstream::start(move |mut call: Arrived<'_>| {
        call.say(HEAD);
        let begun = match call.head.contains("/messages ") {
            true => {
                "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"content\":[]}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\n"
            }
            false => {
                "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{}}\n\nevent: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"a\"}\n\n"
            }
        };
        call.say(begun);
        let _ = call.stream.shutdown(std::net::Shutdown::Both);
    });
    let (_world, lane, api) = lane_to(&upstream).await;
    let asked =
        json!({"messages": [{"role": "user", "content": "hi"}], "stream": true, "max_tokens": 9});
    let reply = api.post(MESSAGES, asked.to_string()).await;
    let last = events(&reply.text).pop().expect("an event");
    assert_eq!(
        (&last["type"], event_kinds(&reply.text).last()),
        (&json!("error"), Some(&"error"))
    );
    assert!(
        !last["error"]["message"].as_str().unwrap().is_empty(),
        "{last}"
    );
    let reply = api
        .post(
            RESPONSES,
            json!({"input": "hi", "stream": true}).to_string(),
        )
        .await;
    let last = events(&reply.text).pop().expect("an event");
    assert_eq!(last["type"], "error");
    assert!(!last["message"].as_str().unwrap().is_empty(), "{last}");
    assert_eq!(last["error"]["message"], last["message"]);
    assert_eq!(last["error"]["type"], "api_error");
    assert_eq!(
        upstream.seen().len(),
        2,
        "what was begun is not bought again"
    );
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_has_ended_is_made_anew_of_the_stored_answer() {
    let (world, lane, api) = served().await;
    for (path, asked, last) in [
        (
            MESSAGES,
            json!({"max_tokens": 99, "messages": [{"role": "user", "content": "once"}]}),
            "message_stop",
        ),
        (RESPONSES, json!({"input": "once"}), "response.completed"),
    ] {
        let mut asked = asked;
        asked["stream"] = json!(true);
        let ask = async || {
            let request = api.posting(path, asked.to_string());
            Api::send(request.header("idempotency-key", path)).await
        };
        let calls = world.sim.stats().calls;
        let first = ask().await;
        ended(&lane, job_of(&first), JobStatus::Completed).await;
        let again = ask().await;
        assert_eq!(again.headers["content-type"], "text/event-stream");
        assert_eq!(world.sim.stats().calls, calls + 1, "one call");
        assert_eq!(event_kinds(&again.text).last(), Some(&last));
        let text = |reply: &Reply| -> String {
            let pieces = events(&reply.text).into_iter().filter_map(|event| {
                let delta = event.get("delta")?;
                let text = delta.get("text").unwrap_or(delta);
                text.as_str().map(str::to_owned)
            });
            pieces.collect()
        };
        assert_eq!(text(&again), text(&first));
        assert!(!text(&again).is_empty());
    }
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_in_the_background_is_served_by_the_queue_under_an_id_of_ours() {
    let (world, lane, api) = served().await;
    let ask = async |body: Value| api.post(RESPONSES, body.to_string()).await;
    // Something is before it.
    let blocker = world.block(&lane).await;
    let begun = ask(json!({"input": "hi", "background": true, "metadata": {"a": "b"}})).await;
    let begun = begun.expect(200);
    let id = begun["id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("resp_"), "{id}");
    assert_eq!(
        (&begun["status"], &begun["metadata"]),
        (&json!("queued"), &json!({"a": "b"}))
    );
    assert_eq!(begun["object"], "response");

    // One that goes on from what has no answer yet is told so.
    let path = format!("{RESPONSES}/{id}");
    let early = ask(json!({"input": "and?", "previous_response_id": id})).await;
    assert_eq!(early.expect(400)["error"]["param"], "previous_response_id");

    lane.cancel(blocker).await.expect("given up");
    until("it is completed", async || {
        api.get(&path).await.expect(200)["status"] == "completed"
    })
    .await;
    let told = api.get(&path).await.expect(200);
    assert_eq!(
        (&told["id"], &told["background"]),
        (&json!(id), &json!(true))
    );
    assert!(told["output"][0]["content"][0]["text"].as_str().is_some());
    // GLM was asked for the answer itself, and its own id is what a later one goes on from.
    let job: JobId = id.strip_prefix("resp_").unwrap().parse().unwrap();
    let record = lane.job(job).await.unwrap().record;
    let stored: Value = serde_json::from_str(record.response.unwrap().get()).unwrap();
    assert_eq!(stored["background"], false, "as the simulator was asked");
    let glms = stored["id"].as_str().unwrap();
    assert_ne!(glms, id);
    let next = ask(json!({"input": "and?", "previous_response_id": id}))
        .await
        .expect(200);
    assert_eq!(next["previous_response_id"], glms);
    let strange = ask(json!({"input": "and?", "previous_response_id": "resp_of_glms"})).await;
    assert_eq!(strange.expect(200)["previous_response_id"], "resp_of_glms");

    // One that is given up.
    let begun = ask(json!({"input": BLOCKER, "background": true}))
        .await
        .expect(200);
    let path = format!("{RESPONSES}/{}", begun["id"].as_str().unwrap());
    until("it is in progress", async || {
        api.get(&path).await.expect(200)["status"] == "in_progress"
    })
    .await;
    let gone = api.post_bare(&format!("{path}/cancel")).await;
    assert!(matches!(
        gone.expect(200)["status"].as_str(),
        Some("cancelled" | "in_progress")
    ));
    until("it is cancelled", async || {
        api.get(&path).await.expect(200)["status"] == "cancelled"
    })
    .await;
    let again = api.post_bare(&format!("{path}/cancel/")).await;
    assert_eq!(again.expect(200)["status"], "cancelled", "as it was");

    // Jobs of other faces are no responses.
    let chat = api.submit(json!({"prompt": "hi"})).await;
    let other = format!("{RESPONSES}/resp_{}", chat.replace('-', ""));
    api.get(&other).await.expect(404);
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_in_the_background_outlives_the_process_that_took_it() {
    let (world, lane, api) = served().await;
    let blocker = world.block(&lane).await;
    let asked = json!({"input": "later", "background": true, "n": 1.50});
    let begun = api.post(RESPONSES, asked.to_string()).await.expect(200);
    lane.cancel(blocker).await.expect("given up");
    api.stop().await;
    let lane = world.restart(lane).await;
    let api = Api::serve(&lane).await;
    let path = format!("{RESPONSES}/{}", begun["id"].as_str().unwrap());
    until("it is completed", async || {
        api.get(&path).await.expect(200)["status"] == "completed"
    })
    .await;
    assert_eq!(world.sim.calls_of_prompt("later"), 1);
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_url_of_another_layout_names_each_face_or_refuses_it_in_words() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    let upstream = Upstream::start(move |mut call: Arrived<'_>| {
        hears.lock().unwrap().push(call.head.clone());
        call.answer(200, "", FACES[2].3);
    });
    let mut world = HttpLane::new();
    let site = upstream.base_url().replace("/api/paas/v4", "");
    world.config.glm.base_url = format!("{site}/relay/v1");
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let asked =
        json!({"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}).to_string();
    let refused = api.post(MESSAGES, asked.as_str()).await.expect(400);
    let words = refused["error"]["message"].as_str().unwrap();
    assert!(words.contains("set glm.faces.messages"), "{words}");
    assert!(upstream.seen().is_empty());
    let url = format!("{site}/relay/v1/messages");
    api.configure(json!({"faces": {"messages": url}})).await;
    api.post(MESSAGES, asked).await.expect(200);
    assert!(heard.lock().unwrap()[0].starts_with("post /relay/v1/messages "));
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tokens_of_a_message_are_counted_here() {
    let (world, lane, api) = served().await;
    let count = async |text: &str| {
        let asked = json!({"model": "glm-4.7", "system": "be kind", "messages": [{"role": "user", "content": text}]});
        let path = "/v1/messages/count_tokens";
        let counted = api.post(path, asked.to_string()).await.expect(200);
        counted["input_tokens"].as_u64().expect("a number")
    };
    let (short, long) = (count("hi").await, count(&"river ".repeat(100)).await);
    assert!((5..30).contains(&short), "{short}");
    assert!((100..140).contains(&long), "{long}");
    let told = api
        .post("/api/anthropic/v1/messages/count_tokens", "{}")
        .await;
    assert_eq!(told.expect(400)["type"], "error");
    assert_eq!(world.sim.stats().calls, 0, "GLM was not asked");
    drop(api);
    stop(lane, 1_000).await;
}
