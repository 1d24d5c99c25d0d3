//! Guards: a client that waits is told at once when it waits in vain, and one that goes away and comes back is served by
//! one call.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use onelane::model::{JobId, JobStatus, KeyRights, OnDisconnect};
use onelane::orchestrator::{NewKey, Orchestrator};
use onelane::simulator::{ErrorFault, Fault, Rule};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::api::{Api, Reply};
use crate::support::http::{
    BLOCKER, HttpLane, PATIENCE, configure, ended, prompt, stop, until, until_held,
};
use crate::support::shows;
use crate::support::upstream::{Arrived, Upstream};

const CHAT: &str = "/v1/chat/completions";

fn chat(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}]})
}

async fn world(change: impl FnOnce(&mut HttpLane)) -> (HttpLane, Orchestrator, Api) {
    let mut world = HttpLane::new();
    change(&mut world);
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    (world, lane, api)
}

async fn count(lane: &Orchestrator, status: JobStatus) -> u64 {
    lane.queue_status().await.expect("figures").of(status)
}

/// A request on a connection of its own, which closes when it is dropped.
async fn ask(api: &Api, body: &Value) -> TcpStream {
    ask_with(api, body, "").await
}

/// The same, with more headers.
async fn ask_with(api: &Api, body: &Value, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(api.address).await.expect("a connection");
    let body = body.to_string();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n",
        api.address,
        body.len()
    );
    let request = head + &body;
    stream
        .write_all(request.as_bytes())
        .await
        .expect("it is sent");
    stream
}

async fn answer(mut stream: TcpStream) -> String {
    let mut all = Vec::new();
    let mut some = [0; 4096];
    while !all.ends_with(b"}") {
        let n = stream.read(&mut some).await.expect("an answer");
        assert!(n > 0, "{}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&some[..n]);
    }
    String::from_utf8(all).expect("UTF-8")
}

async fn until_waiting(lane: &Orchestrator, jobs: u64) {
    until("jobs wait", async || {
        count(lane, JobStatus::Pending).await == jobs
    })
    .await;
}

/// Keeps the slot busy until the job is cancelled.
async fn block(world: &HttpLane, lane: &Orchestrator) -> JobId {
    let blocker = lane.submit(prompt(BLOCKER)).await.expect("it is taken");
    world.until_in_flight(1).await;
    blocker.job_id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_again_after_his_own_timeout_is_served_by_one_call() {
    let (world, lane, api) = world(|_| {}).await;
    let job = block(&world, &lane).await;
    drop(ask(&api, &chat("mine")).await);
    until_waiting(&lane, 1).await;
    // Comes back at once, three times, behind another one that is there.
    let other = ask(&api, &chat("other")).await;
    until_waiting(&lane, 2).await;
    for _ in 0..2 {
        let again = ask(&api, &chat("mine")).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(again);
        // As SDKs do before they ask again.
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    let last = ask(&api, &chat("mine")).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(count(&lane, JobStatus::Pending).await, 2);
    lane.cancel(job).await.unwrap();
    assert!(answer(last).await.contains("\"choices\""));
    assert!(answer(other).await.contains("\"choices\""));
    assert_eq!(world.prompts(), [BLOCKER, "mine", "other"]);
    // The seat was taken once: the next one is a job of its own.
    assert!(
        answer(ask(&api, &chat("mine")).await)
            .await
            .contains("\"choices\"")
    );
    assert_eq!(world.arrivals_of("mine").len(), 2);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_up_its_own_job_takes_no_place_in_the_minute_of_its_key() {
    let (world, lane, api) = world(|_| {}).await;
    let rights = KeyRights {
        requests_per_minute: Some(2),
        ..KeyRights::default()
    };
    let made = lane.create_key(NewKey {
        rights,
        ..NewKey::named("agent")
    });
    let key = made.await.unwrap().text;
    let key = key.expose();
    let bearer = format!("authorization: Bearer {key}\r\n");
    let job = block(&world, &lane).await;
    drop(ask_with(&api, &chat("mine"), &bearer).await);
    until_waiting(&lane, 1).await;
    // Its own timeout, again and again: more often than the key may hand in.
    for _ in 0..3 {
        let again = ask_with(&api, &chat("mine"), &bearer).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(again);
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    let keyed = |name: &str| {
        let request = api.posting("/api/glm/jobs", json!({"prompt": name}).to_string());
        request.bearer_auth(key).header("idempotency-key", name)
    };
    let second = Api::send(keyed("second")).await.expect(202);
    shows!(second, {"created": true});
    // The minute is full: what is there is answered and taken up, what would be new is not taken.
    let last = ask_with(&api, &chat("mine"), &bearer).await;
    for _ in 0..3 {
        let again = Api::send(keyed("second")).await.expect(202);
        shows!(again, {"created": false, "id": second["id"]});
    }
    let refused = Api::send(keyed("third")).await;
    assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
    refused.expect(429);
    let list = json!([{"prompt": "second", "idempotencyKey": "second"}, {"prompt": "new"}]);
    let list = api
        .posting("/api/glm/jobs", list.to_string())
        .bearer_auth(key);
    let told = Api::send(list).await.expect(202);
    shows!(told, {"accepted": 1, "refused": 1});
    shows!(told["jobs"][1]["error"], {"status": 429});
    let other = answer(ask_with(&api, &chat("other"), &bearer).await).await;
    assert!(
        other.contains("429 ") && other.contains("\"1302\""),
        "{other}"
    );
    lane.cancel(job).await.unwrap();
    assert!(answer(last).await.contains("\"choices\""));
    ended(
        &lane,
        second["id"].as_str().unwrap().parse().unwrap(),
        JobStatus::Completed,
    )
    .await;
    assert_eq!(world.prompts(), [BLOCKER, "mine", "second"]);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_closes_and_asks_again_at_once_is_served_by_one_call() {
    let (tell, told) = channel();
    let told = Mutex::new(told);
    let upstream = Upstream::start(move |mut call: Arrived<'_>| {
        let _ = told.lock().unwrap().recv();
        let answer = call.completion("A").to_string();
        call.answer(200, "content-type: application/json\r\n", answer);
    });
    let (_world, lane, api) = world(|world| world.config.glm.base_url = upstream.base_url()).await;
    for n in 0..200 {
        let asked = chat(&format!("round {n}"));
        let first = ask(&api, &asked).await;
        until("it is called", async || upstream.seen().len() == n + 1).await;
        // Faster than anybody can be told of it.
        drop(first);
        let second = ask(&api, &asked).await;
        tell.send(()).unwrap();
        let told = tokio::time::timeout(PATIENCE, answer(second)).await;
        let told = told.unwrap_or_else(|_| panic!("a second job in round {n}"));
        assert!(told.contains("HTTP/1.1 200 "), "{told}");
        assert_eq!(upstream.seen().len(), n + 1, "round {n}");
    }
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_came_meanwhile_waits_for_whoever_comes_back() {
    let (world, lane, api) = world(|_| {}).await;
    drop(ask(&api, &chat("quick [[sim latency_ms=100]]")).await);
    until("it is answered", async || {
        count(&lane, JobStatus::Completed).await == 1
    })
    .await;
    let again = answer(ask(&api, &chat("quick [[sim latency_ms=100]]")).await).await;
    assert!(again.contains("\"choices\""), "{again}");
    assert_eq!(world.sim.stats().calls, 1);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_as_its_answer_is_sent_and_asks_again_is_served_by_one_call() {
    let upstream = Upstream::start(|mut call: Arrived<'_>| {
        let answer = call.completion("A").to_string();
        call.answer(200, "content-type: application/json\r\n", answer);
    });
    let (_world, lane, api) = world(|world| world.config.glm.base_url = upstream.base_url()).await;
    for n in 0..100 {
        let asked = chat(&format!("round {n}"));
        let headers = ["", "connection: close\r\n"][n / 2 % 2];
        let mut first = ask_with(&api, &asked, headers).await;
        // Its answer is there, and its own time is over before it has read all of it.
        let mut some = [0; 1];
        first.peek(&mut some).await.unwrap();
        if n % 2 == 0 {
            first.read_exact(&mut some).await.unwrap();
        }
        drop(first);
        let told = answer(ask(&api, &asked).await).await;
        assert!(told.contains("HTTP/1.1 200 "), "{told}");
        assert_eq!(upstream.seen().len(), n + 1, "round {n}");
    }
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_has_read_its_answer_and_asks_the_same_gets_another_one() {
    let (world, lane, api) = world(|_| {}).await;
    for n in 1..=20 {
        // On a connection of its own, which it closes.
        let told = answer(ask(&api, &chat("same")).await).await;
        assert!(told.contains("\"choices\""), "{told}");
        assert_eq!(world.sim.stats().calls, 2 * n - 1);
        // On one that it keeps.
        api.post(CHAT, chat("same").to_string()).await.expect(200);
        assert_eq!(world.sim.stats().calls, 2 * n);
    }
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_closed_its_own_direction_gets_its_answer_and_nothing_before_it() {
    let (world, lane, api) = world(|_| {}).await;
    for _ in 0..2 {
        let mut client = ask(&api, &chat("all said [[sim latency_ms=300]]")).await;
        client.shutdown().await.unwrap();
        let told = answer(client).await;
        assert!(told.starts_with("HTTP/1.1 200 OK\r\n"), "{told}");
    }
    assert_eq!(world.sim.stats().calls, 2, "each asked for one of its own");
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_begins_when_its_client_has_just_left_waits_for_whoever_comes_back() {
    let (world, lane, api) = world(|_| {}).await;
    let blocker = block(&world, &lane).await;
    let body = json!({"messages": [{"role": "user", "content": "mine"}], "stream": true});
    let first = ask(&api, &body).await;
    until_waiting(&lane, 1).await;
    drop(first);
    lane.cancel(blocker).await.unwrap();
    until("it is answered", async || {
        count(&lane, JobStatus::Completed).await == 1
    })
    .await;
    // As SDKs do before they ask again.
    tokio::time::sleep(Duration::from_millis(400)).await;
    let again = api.post(CHAT, body.to_string()).await;
    assert_eq!(again.status, 200);
    assert!(again.text.ends_with("data: [DONE]\n\n"), "{again:?}");
    assert_eq!(world.arrivals_of("mine").len(), 1);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_another_user_is_not_the_one_who_comes_back() {
    let (world, lane, api) = world(|_| {}).await;
    let blocker = block(&world, &lane).await;
    let first = ask_with(&api, &chat("same"), "x-onelane-user: ada\r\n").await;
    until_waiting(&lane, 1).await;
    drop(first);
    let other = ask_with(&api, &chat("same"), "x-onelane-user: bob\r\n").await;
    until_waiting(&lane, 2).await;
    lane.cancel(blocker).await.unwrap();
    assert!(answer(other).await.contains("\"choices\""));
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clients_that_are_there_and_ask_the_same_are_two() {
    let (world, lane, api) = world(|_| {}).await;
    let blocker = block(&world, &lane).await;
    let first = ask(&api, &chat("same")).await;
    until_waiting(&lane, 1).await;
    let begun = Instant::now();
    let second = ask(&api, &chat("same")).await;
    until_waiting(&lane, 2).await;
    assert!(begun.elapsed() < Duration::from_secs(2));
    // One that has said all it wants is there, too.
    let mut third = ask(&api, &chat("same")).await;
    until_waiting(&lane, 3).await;
    third.shutdown().await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let fourth = ask(&api, &chat("same")).await;
    until_waiting(&lane, 4).await;
    lane.cancel(blocker).await.unwrap();
    for client in [first, second, third, fourth] {
        assert!(answer(client).await.contains("\"choices\""));
    }
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_comes_back_for_is_given_up_when_the_operator_said() {
    let gone = [
        (OnDisconnect::Abort, JobStatus::Cancelled),
        (OnDisconnect::Keep, JobStatus::Completed),
        (OnDisconnect::Drain { seconds: 1 }, JobStatus::Cancelled),
        (OnDisconnect::Drain { seconds: 60 }, JobStatus::Completed),
    ];
    for (on_disconnect, ends) in gone {
        let (world, lane, api) = world(|world| {
            world.config.gateway.on_disconnect = on_disconnect;
            world.config.gateway.reattach_ms = 100;
        })
        .await;
        drop(ask(&api, &chat("long [[sim latency_ms=4000]]")).await);
        world.until_in_flight(1).await;
        until("it has ended", async || count(&lane, ends).await == 1).await;
        world.until_in_flight(0).await;
        assert_eq!(world.sim.stats().calls, 1);
        stop(lane, 1_000).await;
    }
}

/// What a client of a gateway reads that is told at once.
async fn told_at_once(api: &Api, body: &Value) -> Reply {
    let begun = Instant::now();
    let reply = api.post(CHAT, body.to_string()).await;
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(reply.headers["x-should-retry"], "false");
    reply
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_would_wait_for_an_operator_is_told_at_once() {
    let (world, lane, api) = world(|_| {}).await;
    api.order("pause", json!({"reason": "moving house"})).await;
    for body in [
        chat("hi"),
        json!({"messages": [{"role": "user", "content": "hi"}], "stream": true}),
    ] {
        let reply = told_at_once(&api, &body).await;
        let error = reply.expect(503);
        let words = error["error"]["message"].as_str().unwrap();
        assert!(words.contains("moving house"), "{words}");
    }
    until("nothing of it is kept", async || {
        count(&lane, JobStatus::Cancelled).await == 2
    })
    .await;
    // One that waits already is told when it happens.
    api.order("resume", json!({})).await;
    let blocker = block(&world, &lane).await;
    let waits = ask(&api, &chat("waits")).await;
    until_waiting(&lane, 1).await;
    api.order("pause", json!({})).await;
    assert!(answer(waits).await.starts_with("HTTP/1.1 503"));
    lane.cancel(blocker).await.unwrap();
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn glms_own_reason_is_told_with_its_code_and_its_end() {
    let (world, lane, api) = world(|_| {}).await;
    let quota = ErrorFault {
        reset_in_ms: Some(3 * 3_600_000),
        ..ErrorFault::of("1308")
    };
    world.rule(Rule {
        times: Some(1),
        ..Rule::for_prompt("quota", Fault::Error(quota))
    });
    let reply = told_at_once(&api, &chat("quota")).await;
    shows!(reply.expect(429)["error"], {"code": "1308"});
    let after: u64 = reply.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((10_700..=10_900).contains(&after), "{after}");
    api.release("account").await;

    world.rule(Rule::for_prompt("balance", Fault::error("1113")));
    let reply = told_at_once(&api, &chat("balance")).await;
    let error = reply.expect(503);
    shows!(error["error"], {"code": "1113"});
    until_held(&lane).await;
    // With a key the request is kept, and says so.
    let request = api.posting(CHAT, chat("later").to_string());
    let reply = Api::send(request.header("idempotency-key", "k")).await;
    let words = reply.expect(503)["error"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(words.contains("same Idempotency-Key"), "{words}");
    assert_eq!(count(&lane, JobStatus::Pending).await, 1);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_waits_no_longer_than_the_setting_and_a_call_that_has_begun_goes_on() {
    let (world, lane, api) = world(|world| world.config.gateway.max_wait_ms = 1_000).await;
    let running = ask(&api, &chat("runs [[sim latency_ms=2500]]")).await;
    world.until_in_flight(1).await;
    let reply = api.post(CHAT, chat("waits").to_string()).await;
    let error = reply.expect(503);
    let words = error["error"]["message"].as_str().unwrap();
    assert!(words.contains("within 1 s"), "{words}");
    assert!(answer(running).await.contains("\"choices\""));
    assert_eq!(world.sim.stats().calls, 1);
    // The setting is in force at once.
    configure(&lane, json!({"gateway": {"maxWait": 60_000}})).await;
    api.post(CHAT, chat("again").to_string()).await.expect(200);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_can_come_back_a_client_that_closes_frees_its_slot_at_once() {
    let (world, lane, api) = world(|world| world.config.gateway.reattach_ms = 0).await;
    for behind in ["", "\r\n", "\r\n\r\n"] {
        let before = count(&lane, JobStatus::Cancelled).await;
        let mut client = ask(&api, &chat(BLOCKER)).await;
        world.until_in_flight(1).await;
        client.write_all(behind.as_bytes()).await.unwrap();
        // What it said is read, before it leaves.
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(client);
        let left = std::time::Instant::now();
        until("its job is given up", async || {
            count(&lane, JobStatus::Cancelled).await == before + 1
        })
        .await;
        // It took more than two seconds when it was asked as late as others are.
        assert!(left.elapsed() < Duration::from_millis(1_500), "{behind:?}");
    }
    stop(lane, 1_000).await;
}
