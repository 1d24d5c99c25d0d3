//! Guards: whoever comes to a streamed answer later, or lost it on the way, goes on where it was: nothing twice, nothing
//! missing, no second call.

use onelane::model::{JobId, JobStatus};
use onelane::orchestrator::{NewKey, Orchestrator};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::streams::{
    DONE, chat, job_of, lane_to, last, open_keyed, piece, read, rest, text_of, told_by_the_test,
};
use crate::support::api::Api;
use crate::support::http::{BLOCKER, HttpLane, ended, served, stop, until};
use crate::support::shows;

fn path_of(id: JobId) -> String {
    format!("/api/glm/jobs/{id}/stream")
}

async fn follow(api: &Api, id: JobId, had: Option<&str>) -> Response {
    let mut request = api.request(Method::GET, &path_of(id));
    if let Some(had) = had {
        request = request.header("Last-Event-ID", had);
    }
    request.send().await.expect("an answer")
}

/// What was told, without the ids; and these.
fn without_ids(told: &str) -> (String, Vec<String>) {
    let mut ids = Vec::new();
    let mut rest = String::new();
    for line in told.split_inclusive('\n') {
        match line.strip_prefix("id: ") {
            Some(id) => ids.push(id.trim().to_owned()),
            None => rest.push_str(line),
        }
    }
    (rest, ids)
}

/// Reads until the event of this id has come.
async fn read_to(response: &mut Response, id: &str) -> String {
    let mut all = String::new();
    let begins = format!("id: {id}\n");
    loop {
        if let Some((_, event)) = all.split_once(&begins)
            && event.contains("\n\r\n")
        {
            return all;
        }
        let piece = response.chunk().await.expect("a piece").expect("an event");
        all.push_str(std::str::from_utf8(&piece).expect("UTF-8"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_gone_on_with_behind_any_of_its_events_to_the_byte() {
    let (upstream, tell) = told_by_the_test();
    let (_world, lane, api) = lane_to(&upstream).await;
    let asked = chat("hi");
    let (mut client, ()) = tokio::join!(open_keyed(&api, &asked, "k"), async {
        tell.send(piece("a")).unwrap();
    });
    let id = job_of(&client);
    let mut begun = read(&mut client, &piece("a")).await;
    let mut follower = follow(&api, id, None).await;
    assert_eq!(follower.status(), 200);
    assert_eq!(follower.headers()["content-type"], "text/event-stream");
    assert_eq!(job_of(&follower), id);
    for text in ["b", "c", "d"] {
        // Torn in the middle of an event.
        let event = piece(text);
        let (head, tail) = event.split_at(9);
        tell.send(head.to_owned()).unwrap();
        tell.send(tail.to_owned()).unwrap();
        begun += &read(&mut client, &event).await;
    }
    let told = read_to(&mut follower, "1-4").await;
    let (told, ids) = without_ids(&told);
    assert_eq!(told, begun, "what the client gets");
    assert_eq!(ids, ["1-1", "1-2", "1-3", "1-4"]);

    // It loses its connection in the middle, and goes on while the call is open.
    drop(follower);
    let mut follower = follow(&api, id, Some("1-2")).await;
    let told = read_to(&mut follower, "1-4").await;
    let (told, ids) = without_ids(&told);
    assert_eq!(told, format!("{}{}", piece("c"), piece("d")));
    assert_eq!(ids, ["1-3", "1-4"]);
    tell.send(format!("{}{DONE}", last())).unwrap();
    tell.send(String::new()).unwrap();
    let whole = format!("{begun}{}", rest(client).await);
    let (end, ids) = without_ids(&rest(follower).await);
    assert_eq!(end, format!("{}{DONE}", last()));
    assert_eq!(ids, ["1-5", "1-6"]);

    // And after its end, behind each of them.
    ended(&lane, id, JobStatus::Completed).await;
    let (told, ids) = without_ids(&rest(follow(&api, id, None).await).await);
    assert_eq!((told, ids.len()), (whole.clone(), 6));
    let events: Vec<&str> = whole.split_inclusive("\n\r\n").collect();
    for had in 1..4 {
        let told = rest(follow(&api, id, Some(&format!("1-{had}"))).await).await;
        assert_eq!(without_ids(&told).0, events[had..].concat(), "{had}");
    }
    let told = rest(follow(&api, id, Some("1-6")).await).await;
    assert_eq!(told, "", "all of it was had");
    assert_eq!(upstream.seen().len(), 1);
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_of_a_job_that_waits_begins_with_its_call_and_ends_with_it() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = std::sync::Arc::new(Api::serve(&lane).await);
    let blocker = world.block(&lane).await;
    let asking = std::sync::Arc::clone(&api);
    let client = tokio::spawn(async move {
        let asked = chat("later [[sim pieces=20 piece_ms=1]]");
        rest(open_keyed(&asking, &asked, "k").await).await
    });
    let waiting = async || {
        let page = api.get("/api/glm/jobs?status=pending").await.expect(200);
        page["jobs"][0]["id"].as_str().map(str::to_owned)
    };
    until("it waits", async || waiting().await.is_some()).await;
    let id: JobId = waiting().await.unwrap().parse().unwrap();
    let following = {
        let api = std::sync::Arc::clone(&api);
        tokio::spawn(async move { rest(follow(&api, id, None).await).await })
    };
    lane.cancel(blocker).await.unwrap();
    let (told, ids) = without_ids(&following.await.unwrap());
    assert_eq!(told, client.await.unwrap());
    assert!(ids.len() > 5 && told.ends_with(DONE), "{told}");
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_pieces_are_gone_is_made_anew_and_says_so_to_whoever_had_some() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let response = open_keyed(&api, &chat("long [[sim pieces=30]]"), "k").await;
    let id = job_of(&response);
    let whole = rest(response).await;
    ended(&lane, id, JobStatus::Completed).await;
    api.stop().await;
    let lane = world.restart(lane).await;
    let api = Api::serve(&lane).await;
    let anew = follow(&api, id, None).await;
    assert_eq!(anew.headers()["x-onelane-attempts"], "1");
    let (anew, ids) = without_ids(&rest(anew).await);
    assert_eq!(text_of(&anew), text_of(&whole));
    assert_eq!(ids[0], "anew-1");
    let told = rest(follow(&api, id, Some("1-4")).await).await;
    let (restarted, told) = told.split_once("\n\n").unwrap();
    assert!(
        restarted.starts_with("event: restarted\ndata: {\"reason\":"),
        "{restarted}"
    );
    assert_eq!(without_ids(told).0, anew, "from its first event");
    let told = rest(follow(&api, id, Some("anew-1")).await).await;
    let (told, rest_of_ids) = without_ids(&told);
    assert!(anew.ends_with(&told) && told.len() < anew.len(), "{told}");
    assert_eq!(rest_of_ids, ids[1..]);
    assert_eq!(world.sim.stats().calls, 1);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_not_there_is_refused_in_words() {
    let (world, lane, api) = served().await;
    let refused = async |id: JobId, status: u16, kind: &str| {
        let reply = api.get(&path_of(id)).await.expect(status);
        let kind = format!("urn:onelane:problem:{kind}");
        shows!(reply, {"type": kind});
        reply["detail"].as_str().unwrap().to_owned()
    };
    refused(JobId::from_bytes([9; 16]), 404, "unknown-job").await;
    let plain: JobId = api.ask("plain", "glm-4.7").await.parse().unwrap();
    let why = refused(plain, 409, "no-stream").await;
    assert!(
        why.contains("did not ask for its answer in pieces"),
        "{why}"
    );
    // One that ends before its first piece, while somebody waits for that.
    let blocker = world.block(&lane).await;
    let mut asked = chat("never");
    asked["model"] = json!("glm-4.7");
    let never = api.posting("/v1/chat/completions", asked.to_string());
    let never = tokio::spawn(never.header("idempotency-key", "k").send());
    let pending = async || {
        let page = api.get("/api/glm/jobs?status=pending").await.expect(200);
        page["jobs"][0]["id"].as_str().map(str::to_owned)
    };
    until("it waits", async || pending().await.is_some()).await;
    let id: JobId = pending().await.unwrap().parse().unwrap();
    let (why, ()) = tokio::join!(refused(id, 409, "no-stream"), async {
        lane.cancel(id).await.unwrap();
    });
    assert!(why.contains("cancelled"), "{why}");
    never.await.unwrap().unwrap();
    let odd = follow(&api, id, Some("seven")).await;
    assert_eq!(odd.status(), 400);
    let odd: Value = serde_json::from_str(&rest(odd).await).unwrap();
    assert!(
        odd["detail"].as_str().unwrap().contains("Last-Event-ID"),
        "{odd}"
    );
    lane.cancel(blocker).await.unwrap();
    assert_eq!(world.sim.calls_of_prompt(BLOCKER), 1);
    drop(api);
    stop(lane, 1_000).await;
}

async fn a_key(lane: &Orchestrator, name: &str) -> String {
    let made = lane.create_key(NewKey::named(name)).await.unwrap();
    made.text.expose().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_key_follows_its_own_streams_and_no_others() {
    let (_world, lane, api) = served().await;
    let (own, other) = (a_key(&lane, "own").await, a_key(&lane, "other").await);
    let asked = api.posting("/v1/chat/completions", chat("hi").to_string());
    let asked = asked.bearer_auth(&own).header("idempotency-key", "k");
    let client = asked.send().await.unwrap();
    let id = job_of(&client);
    let whole = rest(client).await;
    let by = |key: &str| api.request(Method::GET, &path_of(id)).bearer_auth(key);
    let told = rest(by(&own).send().await.unwrap()).await;
    assert_eq!(without_ids(&told).0, whole);
    Api::send(by(&other)).await.expect(404);
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_revoked_reads_no_further_although_nothing_comes() {
    let (upstream, tell) = told_by_the_test();
    let (_world, lane, api) = lane_to(&upstream).await;
    let made = lane.create_key(NewKey::named("reader")).await.unwrap();
    let (key, text) = (made.known.id, made.text.expose().to_owned());
    let by_key = |request: reqwest::RequestBuilder| request.bearer_auth(&text).send();
    let asked = api.posting("/v1/chat/completions", chat("hi").to_string());
    let asked = by_key(asked.header("idempotency-key", "k"));
    let (client, ()) = tokio::join!(asked, async {
        tell.send(piece("a")).unwrap();
    });
    let client = client.unwrap();
    let id = job_of(&client);
    let get = async |path: &str| {
        let response = by_key(api.request(Method::GET, path)).await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        response
    };
    let mut stream = get(&path_of(id)).await;
    let begun = read(&mut stream, &piece("a")).await;
    let mut of_job = get(&format!("/api/glm/jobs/{id}/events")).await;
    let all = get("/api/glm/events").await;
    let waits = json!({"input": "later", "background": true, "stream": true});
    let waits = by_key(api.posting("/v1/responses", waits.to_string()));
    let mut waits = waits.await.unwrap();
    let stands = read(&mut of_job, "\n\n").await;
    assert!(stands.contains("event: job.status\n"), "{stands}");
    let queued = read(&mut waits, "\n\n").await;

    lane.revoke_key(key).await.unwrap();
    let told = rest(stream).await;
    assert!(
        told.starts_with("\n\ndata: ") && told.contains("was revoked at"),
        "{begun}{told}"
    );
    let told = rest(waits).await;
    assert!(
        told.contains("event: error\n") && told.contains("was revoked at"),
        "{queued}{told}"
    );
    assert!(!rest(of_job).await.contains("job.completed"));
    rest(all).await;
    // What it handed in goes on, and so does whoever waits for it on the connection of its call.
    tell.send(format!("{}{DONE}", last())).unwrap();
    tell.send(String::new()).unwrap();
    assert!(rest(client).await.ends_with(DONE));
    drop((tell, api));
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_revoked_waits_for_no_job_any_more() {
    let (world, lane, api) = served().await;
    let blocker = world.block(&lane).await;
    let made = lane.create_key(NewKey::named("waits")).await.unwrap();
    let (key, text) = (made.known.id, made.text.expose().to_owned());
    let job = json!({"prompt": "secret"}).to_string();
    let job = api.posting("/api/glm/jobs", job).bearer_auth(&text);
    let id = Api::send(job).await.expect(202)["id"].clone();
    let path = format!("/api/glm/jobs/{}?wait=5m", id.as_str().unwrap());
    let waits = Api::send(api.request(Method::GET, &path).bearer_auth(&text));
    let (refused, ()) = tokio::join!(waits, async {
        until("somebody waits", async || {
            api.metrics().await["server"]["requests"] == 1
        })
        .await;
        lane.revoke_key(key).await.unwrap();
    });
    let why = refused.expect(401)["detail"].as_str().unwrap().to_owned();
    assert!(why.contains("was revoked at"), "{why}");
    // What it handed in goes on.
    lane.cancel(blocker).await.unwrap();
    let id = id.as_str().unwrap().parse().unwrap();
    ended(&lane, id, JobStatus::Completed).await;
    drop(api);
    stop(lane, 1_000).await;
}
