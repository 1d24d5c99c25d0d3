//! Guards: a client that gives up on silence sees that its connection stands, and what it reads is the stream all the same.

use onelane::model::JobStatus;
use onelane::simulator::{Fault, Rule};
use serde_json::Value;

use crate::streams::{DONE, chat, last, open, open_keyed, piece, read, rest, told_by_the_test};
use crate::support::api::Api;
use crate::support::http::{HttpLane, completed, ended, stop};

const COMMENT: &str = ": keep-alive\n\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_with_comments_is_the_stream_and_nothing_of_them_is_kept() {
    let (upstream, tell) = told_by_the_test();
    let mut world = HttpLane::new();
    world.config.glm.base_url = upstream.base_url();
    world.config.gateway.keepalive_ms = 20;
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let asked = chat("hi");
    // GLM says nothing for long.
    let mut client = open_keyed(&api, &asked, "k").await;
    assert_eq!(client.status(), 200);
    assert_eq!(client.headers()["content-type"], "text/event-stream");
    let mut told = read(&mut client, &COMMENT.repeat(2)).await;
    assert_eq!(told.replace(COMMENT, ""), "");
    tell.send(piece("a")).unwrap();
    // However many of them come at once.
    while !told.contains(&format!("{}{COMMENT}", piece("a"))) {
        let more = client.chunk().await.unwrap().expect("it goes on");
        told.push_str(std::str::from_utf8(&more).expect("UTF-8"));
    }
    tell.send(format!("{}{}{DONE}", piece("b"), last()))
        .unwrap();
    tell.send(String::new()).unwrap();
    told += &rest(client).await;
    let whole = format!("{}{}{}{DONE}", piece("a"), piece("b"), last());
    assert_eq!(told.replace(COMMENT, ""), whole);

    // Nothing of them is stored, and whoever comes back gets the stream.
    let page = api.get("/api/glm/jobs").await.expect(200);
    let id = page["jobs"][0]["id"].as_str().unwrap().parse().unwrap();
    let record = completed(&lane, id).await;
    assert_eq!(record.text().as_deref(), Some("ab"));
    let back = rest(open_keyed(&api, &asked, "k").await).await;
    assert_eq!(back.replace(COMMENT, ""), whole);
    assert_eq!(upstream.seen().len(), 1);
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_behind_a_comment_is_told_in_the_stream_and_one_before_it_with_its_status() {
    let mut world = HttpLane::new();
    world.config.gateway.keepalive_ms = 300;
    world.rule(Rule::for_prompt("bad", Fault::error("1210")));
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let blocker = world.block(&lane).await;
    let mut late = open(&api, &chat("bad")).await;
    let begun = read(&mut late, COMMENT).await;
    lane.cancel(blocker).await.unwrap();
    let told = begun + &rest(late).await;
    let told = told.replace(COMMENT, "");
    let error = told.strip_prefix("data: ").expect("an event");
    let error: Value = serde_json::from_str(error.trim_end()).unwrap();
    assert_eq!(error["error"]["code"], "1210");
    let mut odd = chat("bad");
    odd["stream"] = "yes".into();
    assert_eq!(open(&api, &odd).await.status(), 400);
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_while_it_is_kept_alive_is_gone() {
    let mut world = HttpLane::new();
    world.config.gateway.keepalive_ms = 10;
    world.config.gateway.reattach_ms = 0;
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let mut client = open(&api, &chat(crate::support::http::BLOCKER)).await;
    read(&mut client, COMMENT).await;
    world.until_in_flight(1).await;
    drop(client);
    world.until_in_flight(0).await;
    let page = api.get("/api/glm/jobs").await.expect(200);
    let id = page["jobs"][0]["id"].as_str().unwrap().parse().unwrap();
    ended(&lane, id, JobStatus::Cancelled).await;
    drop(api);
    stop(lane, 1_000).await;
}
