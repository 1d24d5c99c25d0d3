//! Guards: a client key that sees, or uses, the files and batches of another; a batch whose jobs may more than the key
//! that made it; a key that fills the disk with files.

use onelane::config::ServerSection;
use onelane::model::{BatchId, Face, JobStatus, KeyId, KeyRights, Secret};
use onelane::orchestrator::{NewKey, Orchestrator};
use onelane::simulator::{SimulatorConfig, Span};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::batches_http::{ENDPOINT, form_of, line, lines};
use crate::support::api::{Api, Reply};
use crate::support::http::{HttpLane, stop, until};
use crate::support::shows;

const ADMIN: &str = "open-sesame-of-the-operator";

/// A program with a key, or an operator with the token.
struct Client<'a> {
    api: &'a Api,
    key: String,
    id: Option<KeyId>,
}

impl<'a> Client<'a> {
    async fn with(api: &'a Api, lane: &Orchestrator, rights: KeyRights) -> Self {
        let new = NewKey {
            rights,
            ..NewKey::named("agent")
        };
        let made = lane.create_key(new).await.unwrap();
        Self {
            api,
            key: made.text.expose().to_owned(),
            id: Some(made.known.id),
        }
    }

    async fn new(api: &'a Api, lane: &Orchestrator) -> Self {
        Self::with(api, lane, KeyRights::default()).await
    }

    fn operator(api: &'a Api) -> Self {
        Self {
            api,
            key: ADMIN.to_owned(),
            id: None,
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.api.request(method, path).bearer_auth(&self.key)
    }

    async fn get(&self, path: &str) -> Reply {
        Api::send(self.request(Method::GET, path)).await
    }

    async fn try_upload(&self, content: &str) -> Reply {
        let (form, media) = form_of(content);
        let request = self.request(Method::POST, "/v1/files");
        Api::send(request.header("content-type", media).body(form)).await
    }

    async fn upload(&self, content: &str) -> String {
        let file = self.try_upload(content).await.expect(200);
        file["id"].as_str().unwrap().to_owned()
    }

    async fn try_create(&self, file: &str, headers: &[(&str, &str)]) -> Reply {
        let mut request = self.request(Method::POST, "/v1/batches");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let new = json!({"input_file_id": file, "endpoint": ENDPOINT});
        let request = request.header("content-type", "application/json");
        Api::send(request.body(new.to_string())).await
    }

    async fn create(&self, file: &str) -> Value {
        self.try_create(file, &[]).await.expect(200)
    }

    async fn look(&self, batch: &Value) -> Value {
        let path = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
        self.get(&path).await.expect(200)
    }

    async fn becomes(&self, batch: &Value, status: &str) -> Value {
        until(status, async || self.look(batch).await["status"] == status).await;
        self.look(batch).await
    }

    async fn results(&self, file: &Value) -> Vec<Value> {
        let path = format!("/v1/files/{}/content", file.as_str().unwrap());
        let reply = self.get(&path).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let lines = reply.text.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The ids of a list.
    async fn listed(&self, path: &str) -> Vec<Value> {
        let list = self.get(path).await.expect(200);
        let data = list["data"].as_array().unwrap();
        data.iter().map(|one| one["id"].clone()).collect()
    }
}

async fn serve(world: &HttpLane, lane: &Orchestrator) -> Api {
    let config = ServerSection {
        listen: "127.0.0.1:0".to_owned(),
        admin_token: Some(Secret::new(ADMIN)),
        ..world.config.server.clone()
    };
    Api::serve_as(lane, config).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_uses_its_own_files_and_batches_and_those_of_others_are_not_there() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = serve(&world, &lane).await;
    let one = Client::new(&api, &lane).await;
    let two = Client::new(&api, &lane).await;
    let operator = Client::operator(&api);
    let file = one.upload(&lines(2)).await;
    let keyed = [("Idempotency-Key", "k")];
    let batch = one.try_create(&file, &keyed).await.expect(200);
    let batch = one.becomes(&batch, "completed").await;
    let answers = &batch["output_file_id"];
    assert_eq!(one.results(answers).await.len(), 2);
    for client in [&one, &operator] {
        assert_eq!(client.listed("/v1/files").await, [json!(file)]);
        assert_eq!(client.listed("/v1/batches").await, [batch["id"].clone()]);
    }
    assert_eq!(two.listed("/api/paas/v4/files").await, [] as [Value; 0]);
    assert_eq!(two.listed("/api/paas/v4/batches").await, [] as [Value; 0]);

    // In the words of what was never there.
    let (batch_id, answers) = (batch["id"].as_str().unwrap(), answers.as_str().unwrap());
    let refused = async |method: &Method, path: &str, name: &str, none: &str| {
        for base in ["/v1", "/api/paas/v4"] {
            let path = |name: &str| format!("{base}{}", path.replace("{id}", name));
            let theirs = Api::send(two.request(method.clone(), &path(name))).await;
            let nothing = Api::send(two.request(method.clone(), &path(none))).await;
            theirs.expect(404);
            assert_eq!(theirs.text.replace(name, none), nothing.text);
        }
    };
    let none = "file-0192f0c0ffee7000800000c0ffee0000";
    for path in ["/files/{id}", "/files/{id}/content"] {
        refused(&Method::GET, path, &file, none).await;
        let none = "file-output-batch_00c0ffee00c0ffee";
        refused(&Method::GET, path, answers, none).await;
    }
    refused(&Method::DELETE, "/files/{id}", &file, none).await;
    let none = "batch_00c0ffee00c0ffee";
    refused(&Method::GET, "/batches/{id}", batch_id, none).await;
    refused(&Method::POST, "/batches/{id}/cancel", batch_id, none).await;
    two.try_create(&file, &[]).await.expect(404);

    // A key of a batch is the client's own, and so are its jobs.
    let other = two.upload(&lines(1)).await;
    let other = two.try_create(&other, &keyed).await.expect(200);
    assert_ne!(other["id"], batch["id"]);
    two.becomes(&other, "completed").await;
    assert_eq!(operator.listed("/v1/batches").await.len(), 2);
    let id: BatchId = batch_id.parse().unwrap();
    let (jobs, _) = lane.batch_jobs(id, None).await.unwrap();
    assert!(jobs.iter().all(|job| job.key_id == one.id), "{jobs:?}");
    let deleted = one.request(Method::DELETE, &format!("/v1/files/{file}"));
    Api::send(deleted).await.expect(200);
    assert_eq!(one.listed("/v1/files").await, [] as [Value; 0]);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_revoked_reads_no_file_to_its_end() {
    // More than the system keeps on the way.
    const BYTES: usize = 32 * 1024 * 1024;
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = serve(&world, &lane).await;
    let one = Client::new(&api, &lane).await;
    let file = one.upload(&"x".repeat(BYTES)).await;
    let path = format!("/v1/files/{file}/content");
    let whole = one.get(&path).await;
    assert_eq!((whole.status, whole.text.len()), (200, BYTES));

    let mut content = one.request(Method::GET, &path).send().await.unwrap();
    let mut read = content.chunk().await.unwrap().expect("some of it").len();
    lane.revoke_key(one.id.unwrap()).await.unwrap();
    // It breaks off, and does not end as if that were all.
    let broken = loop {
        match content.chunk().await {
            Ok(Some(more)) => read += more.len(),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(broken && read < BYTES, "{read}");
    let operator = Client::operator(&api);
    assert_eq!(operator.get(&path).await.text.len(), BYTES);
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lines_of_a_batch_have_the_rights_of_the_key_that_made_it() {
    let mut world = HttpLane::with(SimulatorConfig {
        latency_ms: Span::Fixed(20),
        ..SimulatorConfig::default()
    });
    world.config.lane.rules.max_concurrency = 3;
    let lane = world.start().await;
    let api = serve(&world, &lane).await;
    let narrow = KeyRights {
        user_id: Some("ada".into()),
        default_priority: 4,
        max_priority: Some(5),
        models: vec!["glm-4.7".into()],
        faces: vec![Face::Chat],
        calls_in_flight: Some(1),
        ..KeyRights::default()
    };
    let client = Client::with(&api, &lane, narrow).await;
    let whole = client.upload(&lines(6)).await;
    let refused = async |header: (&str, &str), words: &str| {
        let told = client.try_create(&whole, &[header]).await.expect(403);
        let message = told["error"]["message"].as_str().unwrap();
        assert!(message.contains(words), "{told}");
    };
    refused(("x-onelane-priority", "6"), "priority 6 is above 5").await;
    refused(("x-onelane-user", "bob"), "user ada alone").await;
    let good = line("good", "hi");
    for (bad, words) in [
        (good.replace("glm-4.7", "glm-5"), "may ask for glm-4.7"),
        (
            good.replace("\"messages\"", "\"user\":\"bob\",\"messages\""),
            "user ada alone",
        ),
    ] {
        let bad = bad.replace("\"good\"", "\"bad\"");
        let file = client.upload(&format!("{good}\n{bad}\n")).await;
        let batch = client.create(&file).await;
        let failed = client.becomes(&batch, "failed").await;
        let fault = &failed["errors"]["data"][0];
        shows!(fault, {"line": 2, "code": "beyond_rights"});
        assert!(
            fault["message"].as_str().unwrap().contains(words),
            "{fault}"
        );
    }
    assert_eq!(world.sim.stats().calls, 0);

    let batch = client.create(&whole).await;
    let any = Client::new(&api, &lane).await;
    let theirs = any.upload(&lines(9).replace("glm-4.7", "glm-5")).await;
    let urgent = [("x-onelane-priority", "7"), ("x-onelane-user", "bob")];
    let theirs = any.try_create(&theirs, &urgent).await.expect(200);
    client.becomes(&batch, "completed").await;
    any.becomes(&theirs, "completed").await;
    assert_eq!(world.sim.peak_since(0, Some("glm-4.7")), 1);
    let jobs = async |batch: &Value| {
        let id: BatchId = batch["id"].as_str().unwrap().parse().unwrap();
        lane.batch_jobs(id, None).await.unwrap().0
    };
    for job in jobs(&batch).await {
        assert_eq!((job.user_id.as_str(), job.priority), ("ada", -96));
    }
    for job in jobs(&theirs).await {
        assert_eq!((job.user_id.as_str(), job.priority), ("bob", 7));
    }
    let chatless = KeyRights {
        faces: vec![Face::Messages],
        ..KeyRights::default()
    };
    let chatless = Client::with(&api, &lane, chatless).await;
    let file = chatless.upload(&good).await;
    let told = chatless.try_create(&file, &[]).await.expect(403);
    let message = told["error"]["message"].as_str().unwrap();
    assert!(message.contains("the face chat"), "{told}");
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_ends_with_its_key_and_says_so_of_every_line() {
    let mut world = HttpLane::new();
    world.config.lane.max_queue_jobs = 10;
    let lane = world.start().await;
    let api = serve(&world, &lane).await;
    let client = Client::new(&api, &lane).await;
    let operator = Client::operator(&api);
    let blocker = world.block(&lane).await;
    let file = client.upload(&lines(40)).await;
    let batch = client.create(&file).await;
    until("the queue is full", async || {
        lane.queue_status().await.unwrap().pending >= 10
    })
    .await;
    let id = client.id.unwrap();
    lane.revoke_key(id).await.unwrap();
    until("no more lines become jobs", async || {
        operator.look(&batch).await["errors"].is_object()
    })
    .await;
    // What was handed in before goes on.
    lane.cancel(blocker).await.unwrap();
    let ended = operator.becomes(&batch, "failed").await;
    let counts = &ended["request_counts"];
    let completed = counts["completed"].as_u64().unwrap();
    assert!((9..40).contains(&completed), "{counts}");
    shows!(counts, {"total": 40, "failed": 40 - completed});
    let why = format!("client key {id} was revoked at");
    let fault = &ended["errors"]["data"][0];
    shows!(fault, {"code": "key_ended", "line": Value::Null});
    assert!(fault["message"].as_str().unwrap().starts_with(&why));
    let answers = operator.results(&ended["output_file_id"]).await;
    let errors = operator.results(&ended["error_file_id"]).await;
    assert_eq!(
        (answers.len() + errors.len(), errors.len()),
        (40, 40 - completed as usize)
    );
    for error in &errors {
        shows!(error["error"], {"code": "key_ended"});
        assert!(
            error["error"]["message"]
                .as_str()
                .unwrap()
                .starts_with(&why)
        );
    }
    assert_eq!(client.get("/v1/batches").await.status, 401);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_files_of_a_key_are_bounded_so_that_it_can_not_fill_the_disk() {
    let mut world = HttpLane::new();
    world.config.server.batches.file_bytes_max = 2_048;
    world.config.server.batches.files_key_bytes_max = 4_096;
    let lane = world.start().await;
    let api = serve(&world, &lane).await;
    let client = Client::new(&api, &lane).await;
    let content = "x".repeat(1_500);
    let first = client.upload(&content).await;
    client.upload(&content).await;
    let refused = |told: &Value| {
        let message = told["error"]["message"].as_str().unwrap();
        assert!(message.contains("delete some"), "{told}");
    };
    let told = client.try_upload(&content).await.expect(413);
    refused(&told);
    let named = format!("of client key {} 2 files of 3000 bytes", client.id.unwrap());
    assert!(
        told["error"]["message"]
            .as_str()
            .unwrap()
            .starts_with(&named),
        "{told}"
    );
    // One that does not say how large it is has what is left.
    let (form, media) = form_of(&content);
    let pieces = futures_util::stream::iter([Ok::<_, std::io::Error>(form)]);
    let request = client.request(Method::POST, "/v1/files");
    let request = request.header("content-type", media);
    let body = reqwest::Body::wrap_stream(pieces);
    refused(&Api::send(request.body(body)).await.expect(413));
    let other = Client::new(&api, &lane).await;
    other.upload(&content).await;
    let deleted = client.request(Method::DELETE, &format!("/v1/files/{first}"));
    Api::send(deleted).await.expect(200);
    client.upload(&content).await;
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_of_a_batch_count_among_the_requests_of_a_minute_and_leave_half_of_them() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = serve(&world, &lane).await;
    let rights = KeyRights {
        requests_per_minute: Some(6),
        ..KeyRights::default()
    };
    let client = Client::with(&api, &lane, rights).await;
    let file = client.upload(&lines(9)).await;
    let batch = client.create(&file).await;
    until("half of the minute's are lines", async || {
        client.look(&batch).await["request_counts"]["completed"] == 3
    })
    .await;
    let submit = async || {
        let request = client.request(Method::POST, "/api/glm/jobs");
        let request = request.header("content-type", "application/json");
        Api::send(request.body(r#"{"prompt":"hi"}"#)).await
    };
    for _ in 0..3 {
        submit().await.expect(202);
    }
    let refused = submit().await;
    let after = refused.headers["retry-after"].to_str().unwrap();
    assert!((1..=60).contains(&after.parse::<u32>().unwrap()), "{after}");
    refused.expect(429);
    let counts = lane.queue_status().await.unwrap();
    assert_eq!(counts.pending + counts.processing + counts.completed, 6);
    let id: BatchId = batch["id"].as_str().unwrap().parse().unwrap();
    let (jobs, _) = lane.batch_jobs(id, None).await.unwrap();
    assert!(jobs.iter().all(|job| job.status == JobStatus::Completed));
    stop(lane, 1_000).await;
}
