//! Guards: GLM's cache, which finds the beginning of a prompt where the calls of a conversation name one session: so
//! what a client names reaches GLM, one is made where that is wished for, and no client key meets another's.

use std::sync::{Arc, Mutex};

use onelane::model::{BatchId, JobId, JobStatus, KeyRights, SessionId, Sessions, Submission};
use onelane::orchestrator::{NewKey, Orchestrator};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::batches_http::{ENDPOINT, form_of, line};
use crate::support::api::{Api, Reply};
use crate::support::http::{HttpLane, ended, prompt, submit, until, until_completed};
use crate::support::shows;
use crate::support::upstream::{Arrived, Upstream};

const JOBS: &str = "/api/glm/jobs";
const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";

/// The server refuses the first call of it.
const AGAIN: &str = "again";

/// A lane, and the sessions that GLM was told, call by call.
struct World {
    _lane: HttpLane,
    lane: Orchestrator,
    api: Api,
    told: Arc<Mutex<Vec<Option<String>>>>,
}

impl World {
    async fn new(sessions: Sessions) -> Self {
        let told = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&told);
        let upstream = Upstream::start(move |call: Arrived<'_>| {
            let session = call.header("x-session-id").map(str::to_owned);
            hears.lock().unwrap().push(session);
            answer(call);
        });
        let mut world = HttpLane::new();
        world.config.glm.base_url = upstream.base_url();
        world.config.gateway.sessions = sessions;
        let lane = world.start().await;
        let api = Api::serve(&lane).await;
        Self {
            _lane: world,
            lane,
            api,
            told,
        }
    }

    async fn key(&self, name: &str, rights: KeyRights) -> String {
        let new = NewKey {
            rights,
            ..NewKey::named(name)
        };
        let made = self.lane.create_key(new).await.unwrap();
        made.text.expose().to_owned()
    }

    /// What GLM was told since the last look.
    fn told(&self) -> Vec<Option<String>> {
        std::mem::take(&mut self.told.lock().unwrap())
    }

    /// The same of one call.
    fn told_once(&self) -> Option<String> {
        let mut told = self.told();
        assert_eq!(told.len(), 1, "{told:?}");
        told.remove(0)
    }

    fn asking(&self, path: &str, body: &Value) -> RequestBuilder {
        self.api.posting(path, body.to_string())
    }

    /// Asks, and answers what GLM was told of it.
    async fn told_of(&self, path: &str, body: Value) -> Option<String> {
        Api::send(self.asking(path, &body)).await.expect(200);
        self.told_once()
    }
}

/// Each face's answer, with an id of its own.
fn answer(mut call: Arrived<'_>) {
    let json = "content-type: application/json\r\n";
    let usage = json!({"input_tokens": 4, "output_tokens": 5, "total_tokens": 9});
    if call.no == 0 && call.prompt() == AGAIN {
        return call.answer(500, json, r#"{"error":{"code":"500","message":"busy"}}"#);
    }
    let body = if call.head.contains("/responses ") {
        json!({"object": "response", "id": format!("g-{}", call.no), "status": "completed", "output": [
            {"type": "message", "content": [{"type": "output_text", "text": "A"}]}], "usage": usage})
    } else if call.head.contains("/messages ") {
        json!({"type": "message", "id": "msg_1", "role": "assistant", "stop_reason": "end_turn",
            "content": [{"type": "text", "text": "A"}], "usage": usage})
    } else {
        call.completion("A")
    };
    call.answer(200, json, body.to_string());
}

fn chat(prompt: &str) -> Value {
    json!({"model": "glm-4.7", "messages": [{"role": "user", "content": prompt}]})
}

fn job_of(reply: &Reply) -> JobId {
    let id = reply.headers["x-onelane-job"].to_str().unwrap();
    id.parse().expect("an id")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_a_client_names_reaches_glm_to_the_byte_with_each_attempt_and_is_shown() {
    let world = World::new(Sessions::Pass).await;
    const NAMED: &str = "Agent:Main/7;a=\"b\",#";
    let request = world.asking(CHAT, &chat(AGAIN));
    let reply = Api::send(request.header("X-Session-Id", NAMED)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let named = Some(NAMED.to_owned());
    assert_eq!(world.told(), [named.clone(), named]);
    let shown = world.api.job(&job_of(&reply).to_string()).await;
    assert_eq!(shown["session"], NAMED);
    assert_eq!(shown["attempts"][1]["session"], NAMED);
    assert_eq!(shown.get("toldSession"), None);

    // By every other door, too.
    let submission = Submission::prompt("hi").unwrap();
    let submission = submission.session("rust".parse::<SessionId>().unwrap());
    let submitted = world.lane.submit(submission).await.unwrap();
    ended(&world.lane, submitted.job_id, JobStatus::Completed).await;
    assert_eq!(world.told_once().as_deref(), Some("rust"));
    let field = world
        .api
        .submit(json!({"prompt": "hi", "session": "field"}))
        .await;
    world.api.completed(&field).await;
    assert_eq!(world.told_once().as_deref(), Some("field"));
    let list = json!([{"prompt": "a"}, {"prompt": "b", "session": "own"}]);
    let request = world
        .asking(JOBS, &list)
        .header("x-onelane-session", "header");
    let taken = Api::send(request).await.expect(202);
    for job in taken["jobs"].as_array().unwrap() {
        world.api.completed(job["id"].as_str().unwrap()).await;
    }
    let told = world.told();
    assert_eq!(told, [Some("header".to_owned()), Some("own".to_owned())]);
    assert_eq!(world.told_of(CHAT, chat("hi")).await, None);

    // Lists are narrowed by it.
    for (path, list) in [(JOBS, "jobs"), ("/api/admin/glm/queue", "queue")] {
        let found = world.api.get(&format!("{path}?session=field")).await;
        let found = found.expect(200);
        assert_eq!(found["total"], 1);
        assert_eq!(found[list][0]["id"], json!(field));
    }
    let calls = world
        .api
        .get("/api/admin/glm/calls?session=own")
        .await
        .expect(200);
    assert_eq!(calls["calls"].as_array().unwrap().len(), 1, "{calls}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_client_keys_that_name_the_same_session_mean_two_and_a_key_may_be_kept_from_naming_any()
{
    let world = World::new(Sessions::Pass).await;
    let one = world.key("one", KeyRights::default()).await;
    let two = world.key("two", KeyRights::default()).await;
    let ask = async |key: &str, header: &str| {
        let request = world.asking(CHAT, &chat("hi")).bearer_auth(key);
        Api::send(request.header(header, "shared"))
            .await
            .expect(200);
        world.told_once().expect("a session")
    };
    let told = ask(&one, "x-onelane-session").await;
    assert_eq!(
        ask(&one, "x-onelane-session").await,
        told,
        "of one conversation"
    );
    assert_ne!(ask(&two, "x-onelane-session").await, told);
    assert!(!told.contains("shared"), "{told}");
    // GLM's own header is the client's word to GLM.
    assert_eq!(ask(&one, "x-session-id").await, "shared");
    assert_eq!(ask(&two, "x-session-id").await, "shared");

    let none = KeyRights {
        names_sessions: false,
        ..KeyRights::default()
    };
    let none = world.key("none", none).await;
    let refused = async |path: &str, body: Value, header: Option<&'static str>| {
        let request = world.asking(path, &body).bearer_auth(&none);
        let request = match header {
            Some(header) => request.header(header, "s"),
            None => request,
        };
        let reply = Api::send(request).await;
        assert_eq!(reply.status, 403, "{reply:?}");
        assert!(
            reply.text.contains("may not say of which session"),
            "{reply:?}"
        );
    };
    refused(CHAT, chat("hi"), Some("x-session-id")).await;
    refused(CHAT, chat("hi"), Some("x-onelane-session")).await;
    refused(JOBS, json!({"prompt": "hi", "session": "s"}), None).await;
    assert_eq!(world.told(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_session_is_refused_at_every_door_in_words() {
    let world = World::new(Sessions::Pass).await;
    let check = async |request: RequestBuilder, words: &str| {
        let reply = Api::send(request).await;
        assert_eq!(reply.status, 400, "{reply:?}");
        assert!(reply.text.contains(words), "{words}: {reply:?}");
    };
    let long = "x".repeat(257);
    for header in ["x-session-id", "x-onelane-session"] {
        for bad in ["", "a b", "\u{e9}", &long] {
            let value = reqwest::header::HeaderValue::from_bytes(bad.as_bytes()).unwrap();
            let request = world.asking(CHAT, &chat("hi")).header(header, value);
            check(request, "1 to 256 characters").await;
        }
        let twice = world.asking(CHAT, &chat("hi"));
        let twice = twice.header(header, "a").header(header, "b");
        check(twice, "names two sessions").await;
    }
    let differing = world.asking(CHAT, &chat("hi"));
    let differing = differing.header("x-session-id", "a");
    check(
        differing.header("x-onelane-session", "b"),
        "differs from x-session-id",
    )
    .await;
    let field = world.asking(JOBS, &json!({"prompt": "hi", "session": "a b"}));
    check(field, "session: must be").await;
    let filter = world.api.get(&format!("{JOBS}?session=a%20b")).await;
    assert_eq!(filter.status, 400);
    assert_eq!(world.told(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_that_names_no_session_has_one_at_glm_where_that_is_wished_for() {
    let world = World::new(Sessions::Derive).await;
    let told = async |path: &str, body: Value| world.told_of(path, body).await.expect("a session");
    let user = |text: &str| json!({"role": "user", "content": text});
    let answer = json!({"role": "assistant", "content": "A"});
    for (path, system) in [(CHAT, json!(null)), (MESSAGES, json!("Be brief."))] {
        let turn = |messages: Value| json!({"model": "glm-4.7", "max_tokens": 9, "system": system, "messages": messages});
        let first = told(path, turn(json!([user("Name a secret river.")]))).await;
        assert!(first.starts_with("auto-") && first.len() < 40, "{first}");
        let next = turn(json!([
            user("Name a secret river."),
            answer,
            user("Another.")
        ]));
        assert_eq!(told(path, next).await, first);
        assert_ne!(told(path, turn(json!([user("Name a lake.")]))).await, first);
    }

    // Responses, by their input and by what they go on from: GLM's id, which it told last, or one of ours.
    let first = told(RESPONSES, json!({"input": "Name a river."})).await;
    let list = json!({"input": [user("Name a river."), answer, user("Another.")]});
    let reply = Api::send(world.asking(RESPONSES, &list)).await.expect(200);
    assert_eq!(world.told_once(), Some(first.clone()));
    let next = json!({"input": "Another.", "previous_response_id": reply["id"]});
    assert_eq!(told(RESPONSES, next).await, first);
    let strange = json!({"input": "Another.", "previous_response_id": "g-of-nobody"});
    assert_ne!(told(RESPONSES, strange).await, first);
    let later = json!({"input": "Name a river.", "background": true});
    let begun = Api::send(world.asking(RESPONSES, &later)).await;
    ended(&world.lane, job_of(&begun), JobStatus::Completed).await;
    assert_eq!(world.told_once(), Some(first.clone()));
    let next = json!({"input": "Another.", "previous_response_id": begun.json()["id"]});
    assert_eq!(told(RESPONSES, next).await, first);

    // What a client names counts, and keys have conversations of their own.
    let named = world
        .asking(CHAT, &chat("hi"))
        .header("x-session-id", "mine");
    Api::send(named).await.expect(200);
    assert_eq!(world.told_once().as_deref(), Some("mine"));
    let mut of_keys = Vec::new();
    for name in ["one", "two"] {
        let key = world.key(name, KeyRights::default()).await;
        let request = world.asking(CHAT, &chat("hi")).bearer_auth(key);
        Api::send(request).await.expect(200);
        of_keys.push(world.told_once().expect("a session"));
    }
    assert_ne!(of_keys[0], of_keys[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lines_of_a_batch_are_of_its_session_or_of_the_one_that_they_name() {
    let world = World::new(Sessions::Pass).await;
    let mut own: Value = serde_json::from_str(&line("own", "hi")).unwrap();
    own["session"] = json!("of-the-line");
    let (form, media) = form_of(&format!("{}\n{own}\n", line("none", "hi")));
    let upload = |key: &str| {
        let request = world.api.request(reqwest::Method::POST, "/v1/files");
        let request = request.bearer_auth(key).header("content-type", &media);
        Api::send(request.body(form.clone()))
    };
    let create = |key: &str, file: &Value, (header, session): (&str, &str)| {
        let new = json!({"input_file_id": file, "endpoint": ENDPOINT});
        let request = world.asking("/v1/batches", &new).bearer_auth(key);
        Api::send(request.header(header, session))
    };
    let key = world.key("any", KeyRights::default()).await;
    let file = upload(&key).await.expect(200)["id"].clone();
    for header in ["x-onelane-session", "x-session-id"] {
        let batch = create(&key, &file, (header, "of-the-batch")).await;
        let id: BatchId = batch.expect(200)["id"].as_str().unwrap().parse().unwrap();
        until("both are answered", async || {
            world.told.lock().unwrap().len() == 2
        })
        .await;
        let (jobs, _) = world.lane.batch_jobs(id, None).await.unwrap();
        let named = |name: &str| {
            let mut jobs = jobs.iter();
            let job = jobs
                .find(|job| job.content_id.as_deref() == Some(name))
                .unwrap();
            job.session.clone().unwrap().to_string()
        };
        assert_eq!(
            (&*named("none"), &*named("own")),
            ("of-the-batch", "of-the-line")
        );
        // As of any job: GLM is told to the byte what is its own header, and else a name that is this key's alone.
        let told = world.told();
        let verbatim = told.contains(&Some("of-the-batch".to_owned()));
        assert_eq!(verbatim, header == "x-session-id", "{told:?}");
        assert!(!told.contains(&Some("of-the-line".to_owned())), "{told:?}");
    }

    let quiet = KeyRights {
        names_sessions: false,
        ..KeyRights::default()
    };
    let quiet = world.key("quiet", quiet).await;
    let file = upload(&quiet).await.expect(200)["id"].clone();
    let refused = create(&quiet, &file, ("x-session-id", "s"))
        .await
        .expect(403);
    let words = refused["error"]["message"].as_str().unwrap();
    assert!(words.contains("of which session"), "{words}");
    let batch = create(&quiet, &file, ("x-nothing", "s")).await.expect(200);
    let path = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
    let look = async || {
        let request = world.api.request(reqwest::Method::GET, &path);
        Api::send(request.bearer_auth(&quiet)).await.expect(200)
    };
    until("a line is wrong", async || {
        look().await["status"] == "failed"
    })
    .await;
    let fault = look().await["errors"]["data"][0].clone();
    shows!(fault, {"line": 2, "code": "beyond_rights", "param": "session"});
    assert_eq!(world.told(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn glm_is_told_of_no_session_where_that_is_off_and_of_those_again_once_it_is_on() {
    let world = World::new(Sessions::Off).await;
    let ask = async || {
        let request = world.asking(CHAT, &chat("hi")).header("x-session-id", "s");
        let reply = Api::send(request).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let job = world.api.job(&job_of(&reply).to_string()).await;
        assert_eq!(job["session"], "s", "it is noted all the same");
        world.told_once()
    };
    assert_eq!(ask().await, None);
    let change = json!({"gateway": {"sessions": "pass"}});
    let config = world.api.configure(change).await;
    assert_eq!(config["gateway"]["sessions"], "pass");
    assert_eq!(ask().await.as_deref(), Some("s"));
    let wrong = json!({"gateway": {"sessions": "on"}}).to_string();
    let refused = world.api.put("/api/admin/glm/config", wrong).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text.contains("derive"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_keeps_the_calls_of_a_session_together_also_after_a_restart() {
    let mut world = HttpLane::new();
    world.config.lane.rules.order.affinity = 2;
    let lane = world.start().await;
    lane.pause(None).await.unwrap();
    let jobs = [
        ("a1", "a"),
        ("b1", "b"),
        ("a2", "a"),
        ("b2", "b"),
        ("a3", "a"),
        ("a4", "a"),
    ];
    for (text, session) in jobs {
        let session: SessionId = session.parse().unwrap();
        submit(&lane, prompt(text).session(session)).await;
    }
    let urgent: SessionId = "c".parse().unwrap();
    submit(&lane, prompt("urgent").session(urgent).priority(1)).await;
    let want = ["urgent", "a1", "a2", "a3", "b1", "b2", "a4"];

    // What is told of the order is what comes of it.
    let lane = world.restart(lane).await;
    let api = Api::serve(&lane).await;
    let told = api
        .get("/api/admin/glm/queue?order=service")
        .await
        .expect(200);
    let told = told["queue"].as_array().unwrap().iter();
    let told: Vec<&str> = told.map(|job| job["prompt"].as_str().unwrap()).collect();
    assert_eq!(told, want);
    lane.resume().await.unwrap();
    until_completed(&lane, 7).await;
    assert_eq!(world.prompts(), want);
}

/// A chat's answer of which GLM had nine in ten tokens in its cache where the call named a session.
fn cached(mut call: Arrived<'_>) {
    let has_session = call.header("x-session-id").is_some();
    let mut body = call.completion("A");
    body["usage"] = json!({"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105,
        "prompt_tokens_details": {"cached_tokens": if has_session { 90 } else { 0 }}});
    call.answer(200, "content-type: application/json\r\n", body.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_share_of_prompts_from_the_cache_is_told_by_user_and_by_session() {
    let upstream = Upstream::start(cached);
    let mut world = HttpLane::new();
    world.config.glm.base_url = upstream.base_url();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    for (user, session) in [
        ("ada", Some("a")),
        ("ada", None),
        ("ada", Some("a")),
        ("bob", Some("b")),
    ] {
        let job = json!({"prompt": "hi", "userId": user, "session": session});
        api.completed(&api.submit(job).await).await;
    }
    let path = "/api/admin/glm/statistics?groupBy=";
    let told = async |query: &str| {
        let told = api.get(&format!("{path}{query}")).await.expect(200);
        let rows = told["statistics"].as_array().unwrap().iter();
        let share = |row: &Value| {
            (
                row["id"].as_str().unwrap().to_owned(),
                row["cachedShare"].clone(),
            )
        };
        let rows: Vec<(String, Value)> = rows.map(share).collect();
        (rows, told["callsNotInLog"].clone())
    };
    let row = |id: &str, share: f64| (id.to_owned(), json!(share));
    assert_eq!(
        told("user").await,
        (vec![row("ada", 0.6), row("bob", 0.9)], json!(null))
    );
    let by_session = vec![row("all", 0.0), row("a", 0.9), row("b", 0.9)];
    assert_eq!(told("session").await, (by_session, json!(0)));
    assert_eq!(told("user&session=b").await.0, [row("bob:b", 0.9)]);
    let table = api
        .get(&format!("{path}session&userId=ada&format=csv"))
        .await;
    let lines: Vec<&str> = table.text.split_terminator("\r\n").collect();
    assert_eq!(lines.len(), 3, "{table:?}");
    assert!(lines[2].starts_with(",,ada,,a,2,2,0,"), "{}", lines[2]);
    let bad = api.get(&format!("{path}session&session=a%20b")).await;
    assert_eq!(bad.status, 400);
}
