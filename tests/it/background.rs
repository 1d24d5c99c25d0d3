//! Guards: a response in the background is streamed to whoever asks for it, as often as they lose it; it is listed by what
//! it was asked, and gone when it is deleted.

use onelane::model::JobId;
use onelane::orchestrator::NewKey;
use onelane::simulator::{Fault, Rule};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::batches_http::form_of;
use crate::support::api::Api;
use crate::support::http::{served, stop, until};
use crate::support::shows;

const RESPONSES: &str = "/v1/responses";

fn asked(text: &str) -> Value {
    json!({"input": text, "background": true, "stream": true})
}

async fn begin(api: &Api, text: &str) -> Response {
    let sent = api.posting(RESPONSES, asked(text).to_string()).send();
    let response = sent.await.expect("an answer");
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    response
}

async fn told(api: &Api, id: &str, query: &str) -> String {
    let reply = api
        .get(&format!("{RESPONSES}/{id}?stream=true{query}"))
        .await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.text
}

/// The events of a stream, as they stand in it; what has not ended is left out.
fn whole_events(text: &str) -> Vec<&str> {
    let events = text.split_inclusive("\n\n");
    events.filter(|event| event.ends_with("\n\n")).collect()
}

fn data(event: &str) -> Value {
    let data = event.lines().find_map(|line| line.strip_prefix("data: "));
    serde_json::from_str(data.expect("data")).expect("JSON")
}

async fn until_status(api: &Api, id: &str, status: &str) {
    let path = format!("{RESPONSES}/{id}");
    until(status, async || {
        api.get(&path).await.expect(200)["status"] == status
    })
    .await;
}

/// Reads the first events, and goes away.
async fn id_of(mut response: Response) -> String {
    let mut text = String::new();
    while whole_events(&text).len() < 2 {
        let piece = response.chunk().await.expect("a piece").expect("an event");
        text.push_str(std::str::from_utf8(&piece).expect("UTF-8"));
    }
    let created = data(whole_events(&text)[0]);
    shows!(created, {"type": "response.created", "sequence_number": 0});
    shows!(created["response"], {"status": "queued", "background": true});
    shows!(data(whole_events(&text)[1]), {"type": "response.queued", "sequence_number": 1});
    created["response"]["id"]
        .as_str()
        .expect("an id")
        .to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_in_the_background_is_streamed_under_our_id_and_gone_on_with_by_number() {
    let (world, lane, api) = served().await;
    let blocker = world.block(&lane).await;
    // While it waits, its client goes away.
    let id = id_of(begin(&api, "later [[sim pieces=40 piece_ms=2]]").await).await;
    lane.cancel(blocker).await.unwrap();
    let first = told(&api, &id, "").await;
    until_status(&api, &id, "completed").await;
    assert_eq!(
        told(&api, &id, "").await,
        first,
        "while it comes and afterwards"
    );
    let events = whole_events(&first);
    assert!(events.len() > 20, "{first}");
    for (n, event) in events.iter().enumerate() {
        let event = data(event);
        assert_eq!(event["sequence_number"], n, "{event}");
        if let Some(response) = event.get("response") {
            shows!(response, {"id": id, "background": true});
        }
    }
    let kinds: Vec<String> = events
        .iter()
        .map(|event| data(event)["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds[2], "response.in_progress");
    assert_eq!(
        kinds
            .iter()
            .filter(|kind| *kind == "response.created")
            .count(),
        1
    );
    assert_eq!(kinds.last().unwrap(), "response.completed");
    for had in 0..events.len() {
        let rest = told(&api, &id, &format!("&starting_after={had}")).await;
        assert_eq!(rest, events[had + 1..].concat(), "{had}");
    }
    // It is what it would have been in one piece.
    let whole = api.get(&format!("{RESPONSES}/{id}")).await;
    assert_eq!(whole.headers["x-onelane-attempts"], "1");
    let whole = whole.expect(200);
    assert_eq!(data(events[events.len() - 1])["response"], whole);
    assert_eq!(
        world
            .sim
            .calls_of_prompt("later [[sim pieces=40 piece_ms=2]]"),
        1
    );

    // A restart keeps the answer, not its pieces: who had some gets the last event, which has all of it.
    api.stop().await;
    let lane = world.restart(lane).await;
    let api = Api::serve(&lane).await;
    let anew = told(&api, &id, "").await;
    let numbers = whole_events(&anew)
        .into_iter()
        .map(|event| data(event)["sequence_number"].as_u64().unwrap());
    assert!(numbers.eq(0..whole_events(&anew).len() as u64), "{anew}");
    let last = told(&api, &id, "&starting_after=17").await;
    let last = whole_events(&last);
    assert_eq!(last.len(), 1);
    shows!(data(last[0]), {"type": "response.completed", "sequence_number": 18, "response": whole});
    api.stop().await;
    stop(lane, 1_000).await;
}

async fn create_batch(api: &Api, lines: &[Value]) -> String {
    let lines: Vec<String> = lines
        .iter()
        .enumerate()
        .map(|(n, body)| {
            json!({"custom_id": format!("line-{n}"), "method": "POST", "url": RESPONSES, "body": body})
                .to_string()
        })
        .collect();
    let (form, media) = form_of(&lines.join("\n"));
    let request = api.request(Method::POST, "/v1/files");
    let file = Api::send(request.header("content-type", media).body(form)).await;
    let new = json!({"input_file_id": file.expect(200)["id"], "endpoint": RESPONSES});
    let batch = api.post("/v1/batches", new.to_string()).await.expect(200);
    format!("/v1/batches/{}", batch["id"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_goes_on_from_one_of_ours_whichever_way_it_is_handed_in() {
    let (world, lane, api) = served().await;
    let begin = async |body: Value| api.post(RESPONSES, body.to_string()).await.expect(200);
    let begun = begin(json!({"input": "one", "background": true})).await;
    let id = begun["id"].as_str().unwrap();
    until_status(&api, id, "completed").await;
    let job: JobId = id.strip_prefix("resp_").unwrap().parse().unwrap();
    let stored = lane.job(job).await.unwrap().record.response.unwrap();
    let stored: Value = serde_json::from_str(stored.get()).unwrap();
    // The simulator tells which one it was asked to go on from.
    let glms = &stored["id"];
    assert_ne!(glms, id);
    let next = |id: &str| json!({"model": "glm-4.7", "input": "two", "previous_response_id": id});

    // Jobs, alone and in a list, and lines of a file.
    let one = json!({"face": "responses", "request": next(id)});
    let done = api.completed(&api.submit(one.clone()).await).await;
    assert_eq!(&done["result"]["previous_response_id"], glms, "{done}");
    let blocker = world.block(&lane).await;
    let waiting = begin(json!({"input": "later", "background": true})).await;
    let waiting = waiting["id"].as_str().unwrap().to_owned();
    let early = json!({"face": "responses", "request": next(&waiting)});
    let list = json!([one, early]).to_string();
    let answer = api.post("/api/glm/jobs", list).await.expect(202);
    shows!(answer["jobs"][1]["error"]["errors"][0], {"field": "[1].previous_response_id"});
    let of_list = answer["jobs"][0]["id"].as_str().unwrap().to_owned();
    let failing = create_batch(&api, &[next(id), next(&waiting)]).await;
    until("a line is wrong", async || {
        api.get(&failing).await.expect(200)["status"] == "failed"
    })
    .await;
    let fault = api.get(&failing).await.expect(200)["errors"]["data"][0].clone();
    shows!(fault, {"line": 2, "code": "invalid_request"});
    let words = fault["message"].as_str().unwrap();
    assert!(
        words.contains(&waiting) && words.contains("queued"),
        "{words}"
    );
    lane.cancel(blocker).await.unwrap();
    let done = api.completed(&of_list).await;
    assert_eq!(&done["result"]["previous_response_id"], glms, "{done}");
    let batch = create_batch(&api, &[next(id)]).await;
    until("it is completed", async || {
        api.get(&batch).await.expect(200)["status"] == "completed"
    })
    .await;
    let output = api.get(&batch).await.expect(200)["output_file_id"].clone();
    let path = format!("/v1/files/{}/content", output.as_str().unwrap());
    let line: Value = serde_json::from_str(&api.get(&path).await.text).unwrap();
    assert_eq!(
        &line["response"]["body"]["previous_response_id"], glms,
        "{line}"
    );

    // In the background it is told under our id of both, also in its events, while it waits and afterwards.
    let blocker = world.block(&lane).await;
    let mut asked = next(id);
    asked["background"] = json!(true);
    asked["stream"] = json!(true);
    let later = id_of(
        api.posting(RESPONSES, asked.to_string())
            .send()
            .await
            .unwrap(),
    )
    .await;
    let ours = json!({"id": later, "previous_response_id": id});
    let shown = api.get(&format!("{RESPONSES}/{later}")).await.expect(200);
    shows!(shown, {"id": ours["id"], "previous_response_id": ours["previous_response_id"]});
    lane.cancel(blocker).await.unwrap();
    until_status(&api, &later, "completed").await;
    let shown = api.get(&format!("{RESPONSES}/{later}")).await.expect(200);
    shows!(shown, {"id": ours["id"], "previous_response_id": ours["previous_response_id"]});
    let text = told(&api, &later, "").await;
    let responses: Vec<Value> = whole_events(&text)
        .into_iter()
        .filter_map(|event| data(event).get("response").cloned())
        .collect();
    assert!(responses.len() >= 3, "{text}");
    for response in responses {
        shows!(response, {"id": ours["id"], "previous_response_id": ours["previous_response_id"]});
    }
    assert!(!text.contains(glms.as_str().unwrap()), "{text}");

    // That of another client key is none of hers.
    let made = lane.create_key(NewKey::named("other")).await.unwrap();
    let request = api.posting(RESPONSES, next(id).to_string());
    let strange = Api::send(request.bearer_auth(made.text.expose())).await;
    assert_eq!(strange.expect(200)["previous_response_id"], id);
    api.stop().await;
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_in_the_background_that_fails_or_is_given_up_says_so_in_its_stream() {
    let (world, lane, api) = served().await;
    world.rule(Rule::for_prompt("bad", Fault::error("1210")));
    let mut response = begin(&api, "bad").await;
    let mut text = String::new();
    while let Some(piece) = response.chunk().await.unwrap() {
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    let events = whole_events(&text);
    assert_eq!(events.len(), 3, "{text}");
    let failed = data(events[2]);
    shows!(failed, {"type": "response.failed", "sequence_number": 2});
    shows!(failed["response"], {"status": "failed"});
    shows!(failed["response"]["error"], {"code": "1210"});

    let blocker = world.block(&lane).await;
    let id = id_of(begin(&api, "never").await).await;
    let cancel = format!("{RESPONSES}/{id}/cancel");
    api.post_bare(&cancel).await.expect(200);
    let rest = told(&api, &id, "&starting_after=1").await;
    let last = data(whole_events(&rest)[0]);
    shows!(last["response"], {"id": id, "status": "cancelled"});
    lane.cancel(blocker).await.unwrap();

    let plain = json!({"input": "plain", "background": true});
    let plain = api.post(RESPONSES, plain.to_string()).await.expect(200);
    let path = format!("{RESPONSES}/{}?stream=true", plain["id"].as_str().unwrap());
    let refused = api.get(&path).await.expect(400);
    shows!(refused["error"], {"param": "stream"});
    api.stop().await;
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_is_deleted_with_what_it_was_asked_and_its_cost_stays() {
    let (world, lane, api) = served().await;
    let asked = json!({"background": true, "input": [{"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"}, {"role": "user", "content": "three"}]});
    let begun = api.post(RESPONSES, asked.to_string()).await.expect(200);
    let id = begun["id"].as_str().unwrap().to_owned();
    until_status(&api, &id, "completed").await;
    let path = format!("{RESPONSES}/{id}");
    let items = api.get(&format!("{path}/input_items")).await.expect(200);
    shows!(items, {"object": "list", "has_more": false});
    let texts = |items: &Value| {
        let items = items["data"].as_array().unwrap().iter();
        let texts = items.map(|item| item["content"][0]["text"].as_str().unwrap().to_owned());
        texts.collect::<Vec<_>>()
    };
    assert_eq!(texts(&items), ["three", "two", "one"]);
    let page = api
        .get(&format!("{path}/input_items?order=asc&limit=2"))
        .await
        .expect(200);
    shows!(page, {"has_more": true});
    assert_eq!(texts(&page), ["one", "two"]);
    let after = page["last_id"].as_str().unwrap();
    let page = api
        .get(&format!("{path}/input_items?order=asc&after={after}"))
        .await;
    assert_eq!(texts(&page.expect(200)), ["three"]);
    api.get(&format!("{path}/input_items?limit=0"))
        .await
        .expect(400);

    let deleted = api.delete(&path).await.expect(200);
    assert_eq!(
        deleted,
        json!({"id": id, "object": "response", "deleted": true})
    );
    let gone = api.get(&path).await.expect(404);
    assert!(
        gone["error"]["message"]
            .as_str()
            .unwrap()
            .contains("deleted"),
        "{gone}"
    );
    api.get(&format!("{path}/input_items")).await.expect(404);
    api.delete(&path).await.expect(404);
    let log = api.get("/api/admin/glm/calls").await.expect(200);
    assert!(
        log["calls"][0]["cost"]
            .as_f64()
            .is_some_and(|cost| cost > 0.0),
        "{log}"
    );

    // One that runs is given up first.
    let mut asked = asked;
    asked["input"] = json!("long [[sim pieces=1000 piece_ms=50]]");
    asked["stream"] = json!(true);
    let sent = api
        .posting(RESPONSES, asked.to_string())
        .send()
        .await
        .unwrap();
    let id = id_of(sent).await;
    world.until_in_flight(1).await;
    let reply = api
        .request(Method::DELETE, &format!("{RESPONSES}/{id}"))
        .send();
    assert_eq!(reply.await.unwrap().status(), 200);
    world.until_in_flight(0).await;
    api.get(&format!("{RESPONSES}/{id}")).await.expect(404);
    api.stop().await;
    stop(lane, 1_000).await;
}
