//! One day in the life of a lane, told through its API: every answer becomes a golden file. When it is over, so
//! do the bodies of webhooks and the rows of the file, and the command line looks into what is left.

use std::collections::BTreeMap;
use std::sync::Arc;

use onelane::config::ServerSection;
use onelane::model::Secret;
use onelane::orchestrator::Orchestrator;
use redb::{
    Key, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableHandle as _, Value,
};
use reqwest::{Method, RequestBuilder};
use serde_json::value::RawValue;

use super::world::{World, until, until_timers};
use super::{Golden, check, cli, covering, list, pretty, table};
use crate::batches_http::{ENDPOINT, form_of, lines};
use crate::support::api::{Api, Reply};
use crate::support::http::PATIENCE;
use crate::support::tables::tables_of;

const ADMIN: &str = "/api/admin/glm";
const DAY_MS: u64 = 86_400_000;
/// Headers that say something of ours.
const HEADERS: [&str; 9] = [
    "allow",
    "content-type",
    "location",
    "retry-after",
    "www-authenticate",
    "x-next-cursor",
    "x-onelane-job",
    "x-onelane-model",
    "x-should-retry",
];
/// A job with everything that a submitter can say.
const WHOLE: &str = r#"{"prompt":"answered whole","model":"glm-4.7","userId":"alice","contentId":"page 3",
    "priority":5,"maxRetries":2,"runAt":"2026-11-24T16:00:00+08:00","deadline":"2026-11-26T00:00:00Z",
    "timeout":5000,"onInterrupted":"park","callbackUrl":"https://receiver.example/hook?token=hidden",
    "idempotencyKey":"key-1","metadata":{"n":1.50}}"#;

/// What is asked when the day is over.
const EVENING: &str = include_str!("../../golden/evening.txt");

/// What is told so far.
struct Story {
    api: Api,
    wire: Golden,
    errors: BTreeMap<String, String>,
    /// The rows of each table, as they were whenever a lane had ended.
    rows: BTreeMap<String, Vec<String>>,
}

/// A request and its answer as one JSON text.
fn told(asked: &str, body: &str, reply: &Reply) -> String {
    let headers = HEADERS.iter().filter_map(|name| {
        let value = reply.headers.get(*name)?.to_str().unwrap();
        Some(format!("{name:?}: {value:?}"))
    });
    let headers: Vec<String> = headers.collect();
    let quoted = |text: &str| match serde_json::from_str::<&RawValue>(text) {
        Ok(_) => text.to_owned(),
        Err(_) => serde_json::to_string(text).unwrap(),
    };
    let (body, answer) = (quoted(body), quoted(&reply.text));
    let headers = headers.join(",");
    let status = reply.status;
    format!(
        r#"{{"1 asked":{asked:?},"2 body":{body},"3 status":{status},"4 headers":{{{headers}}},"5 answer":{answer}}}"#
    )
}

/// With a name that its answer tells.
fn named(request: RequestBuilder) -> RequestBuilder {
    request.header("x-request-id", "of-the-story")
}

impl Story {
    async fn asking(&self, method: &str, path: &str, body: &str) -> Reply {
        let request = named(self.api.request(method.parse().unwrap(), path));
        Api::send(match body {
            "" => request,
            _ => request
                .header("content-type", "application/json")
                .body(body.to_owned()),
        })
        .await
    }

    /// Asks, and makes a golden file of the answer.
    async fn tell(&mut self, name: &str, method: &str, path: &str, body: &str) -> Reply {
        let reply = self.asking(method, path, body).await;
        assert!(reply.status < 300, "{name}: {reply:?}");
        self.told().await;
        self.note(name, &format!("{method} {path}"), body, &reply);
        reply
    }

    fn note(&mut self, name: &str, asked: &str, body: &str, reply: &Reply) {
        if name.contains('.') {
            self.wire.put(name, reply.text.clone());
        } else {
            let text = pretty(&told(asked, body, reply));
            self.wire
                .put(&format!("{name}.json"), of_any_machine(&text));
        }
    }

    async fn post(&mut self, name: &str, path: &str, body: &str) -> Reply {
        self.tell(name, "POST", &format!("{ADMIN}/{path}"), body)
            .await
    }

    async fn get(&mut self, name: &str, path: &str) -> Reply {
        self.tell(name, "GET", &format!("{ADMIN}/{path}"), "").await
    }

    /// Asks for what is refused; all refusals are one golden file.
    async fn refused(&mut self, name: &str, method: &str, path: &str, body: &str) {
        let reply = self.asking(method, path, body).await;
        self.note_refusal(name, &format!("{method} {path}"), body, &reply);
    }

    fn note_refusal(&mut self, name: &str, asked: &str, body: &str, reply: &Reply) {
        assert!(reply.status >= 400, "{name}: {reply:?}");
        let before = self
            .errors
            .insert(name.to_owned(), told(asked, body, reply));
        assert!(before.is_none(), "two refusals are called {name}");
    }

    async fn refused_as(&mut self, name: &str, asked: &str, request: RequestBuilder) {
        let reply = Api::send(named(request)).await;
        self.note_refusal(name, asked, "", &reply);
    }

    async fn submit(&self, job: &str) -> String {
        self.api.submit(serde_json::from_str(job).unwrap()).await
    }

    /// Submits a job and waits for its end.
    async fn done(&self, job: &str) -> String {
        let id = self.submit(job).await;
        self.api.ended(&id).await;
        self.told().await;
        id
    }

    /// Waits until the job, as an operator sees it, is so.
    async fn until_job(&self, id: &str, field: &str) {
        until(field, async || self.api.job(id).await.get(field).is_some()).await;
    }

    /// Waits until a job waits for this reason.
    async fn until_job_waits(&self, id: &str, name: &str) {
        until(name, async || {
            self.api.job(id).await["waitReason"]["name"] == name
        })
        .await;
    }

    /// Waits until all that is to be told is told: before the clock goes on.
    async fn told(&self) {
        until("all is told", async || {
            self.api.metrics().await["deliveries"]["pending"] == 0
        })
        .await;
    }

    /// Waits until so many alerts are active, and told.
    async fn until_alerts(&self, wanted: usize) {
        until_timers(&format!("{wanted} alerts"), async || {
            let metrics = self.api.metrics().await;
            metrics["activeAlerts"].as_array().unwrap().len() == wanted
        })
        .await;
        self.told().await;
    }

    /// Waits until the account is held, and what holds it is on disk.
    async fn until_held(&self) {
        until("the account is held", async || {
            let metrics = self.api.metrics().await;
            let holds = metrics["lane"]["holds"].as_array().unwrap();
            let account = holds.iter().any(|hold| hold["scope"] == "account");
            account && metrics["jobs"]["processing"] == 0
        })
        .await;
    }

    /// What submitters and operators say and hear while all goes well, and what fails.
    async fn morning(&mut self, pruned: &str, given_up: &str) {
        until_timers("the bodies are pruned", async || {
            let pruned =
                [pruned, given_up].map(async |id| self.api.job(id).await["bodiesPruned"] == true);
            let [one, other] = pruned;
            one.await && other.await
        })
        .await;
        let again = format!("{ADMIN}/retry/{given_up}");
        self.refused("request_pruned", "POST", &again, "").await;
        self.get("job_pruned", &format!("queue/{pruned}")).await;
        self.tell("health", "GET", "/healthz", "").await;

        let submitted = self.tell("submit", "POST", "/api/glm/jobs", WHOLE).await;
        let whole = submitted.json()["id"].as_str().unwrap().to_owned();
        self.api.ended(&whole).await;
        self.told().await;
        self.tell("submit_again", "POST", "/api/glm/jobs", WHOLE)
            .await;
        let two = format!(
            "[{{\"prompt\":\"answered, one of two\"}},{}]",
            WHOLE.replace("whole", "other")
        );
        self.tell("submit_many", "POST", "/api/glm/jobs", &two)
            .await;
        until("both are done", async || {
            self.api.metrics().await["jobs"]["pending"] == 0
        })
        .await;
        self.tell("job", "GET", &format!("/api/glm/jobs/{whole}?wait=30s"), "")
            .await;
        self.get("job_admin", &format!("queue/{whole}")).await;
        self.refused(
            "wrong_status",
            "POST",
            &format!("{ADMIN}/retry/{whole}"),
            "",
        )
        .await;

        let chat = |model: &str, words: &str, more: &str| {
            format!(
                r#"{{"model":"{model}","messages":[{{"role":"user","content":"{words}"}}]{more}}}"#
            )
        };
        let asked = chat(
            "glm-4.7",
            "answered chat",
            r#","user":"bob","temperature":0.20"#,
        );
        self.tell("chat", "POST", "/v1/chat/completions", &asked)
            .await;
        let asked = chat("glm-4.7", "refused", r#","user":"bob""#);
        self.refused("job_failed_of_glm", "POST", "/v1/chat/completions", &asked)
            .await;
        self.told().await;
        self.done(r#"{"prompt":"overloaded","model":"glm-5","userId":"carol"}"#)
            .await;
        let asked = chat("glm-5", "answered by a fallback", r#","max_tokens":100"#);
        self.tell("chat_by_fallback", "POST", "/v1/chat/completions", &asked)
            .await;
        self.done(r#"{"prompt":"answered by an unknown model","model":"glm-house"}"#)
            .await;
        self.done(r#"{"prompt":"answered as a task","model":"glm-4-long"}"#)
            .await;

        let lost = self
            .done(r#"{"prompt":"lost","maxRetries":0,"userId":"bob"}"#)
            .await;
        let gone = self
            .done(r#"{"prompt":"gone","maxRetries":0,"userId":"bob"}"#)
            .await;
        self.get("maybe_billed_two", "maybe-billed?userId=bob")
            .await;
        let by_cost = r#"{"billed":true,"usage":{"promptTokens":600,"completionTokens":400},"cost":0.0123,"currency":"CNY"}"#;
        self.post("settle_by_cost", &format!("maybe-billed/{lost}/1"), by_cost)
            .await;
        let by_usage = r#"{"billed":true,"usage":{"promptTokens":600,"completionTokens":400,"cachedTokens":100}}"#;
        self.post(
            "settle_by_usage",
            &format!("maybe-billed/{gone}/1"),
            by_usage,
        )
        .await;
        let again = format!("{ADMIN}/maybe-billed/{lost}/1");
        self.refused("billing_settled", "POST", &again, r#"{"billed":false}"#)
            .await;
        let none = format!("{ADMIN}/maybe-billed/{lost}/9");
        self.refused("unknown_attempt", "POST", &none, r#"{"billed":false}"#)
            .await;
        let late = format!(r#"{{"prompt":"x","after":["{lost}"]}}"#);
        self.refused("dependency_ended", "POST", "/api/glm/jobs", &late)
            .await;
        self.post(
            "estimate",
            "estimate",
            r#"[{"prompt":"hello"},{"prompt":"hello","model":"glm-house"}]"#,
        )
        .await;
        self.told().await;
    }

    /// What waits, and why.
    async fn noon(&mut self) {
        let throttled = self
            .submit(r#"{"prompt":"throttled","userId":"alice"}"#)
            .await;
        self.until_job(&throttled, "throttles").await;
        self.get("holds", "holds").await;
        self.tell(
            "release_hold",
            "DELETE",
            &format!("{ADMIN}/holds/lane/default"),
            "",
        )
        .await;
        self.api.ended(&throttled).await;
        self.told().await;

        let flaky = self.submit(r#"{"prompt":"flaky","userId":"dave"}"#).await;
        self.until_job(&flaky, "nextRetryAt").await;
        let follows = self
            .submit(&format!(r#"{{"prompt":"follows","after":["{flaky}"]}}"#))
            .await;
        self.get("job_blocked", &format!("queue/{follows}")).await;
        let guest = |tokens: u32| {
            format!(
                r#"{{"userId":"guest","request":{{"model":"glm-4.6","max_tokens":{tokens},"messages":[{{"role":"user","content":"answered guest"}}]}}}}"#
            )
        };
        self.done(&guest(100)).await;
        let poor = self.submit(&guest(19_500)).await;
        self.until_job_waits(&poor, "budget").await;
        self.until_alerts(1).await;
        self.get("job_over_budget", &format!("queue/{poor}")).await;
        self.get("budgets_used", "budgets").await;
        self.done(r#"{"prompt":"answered, strict","userId":"strict"}"#)
            .await;
        self.refused(
            "over_budget",
            "POST",
            "/api/glm/jobs",
            r#"{"prompt":"x","userId":"strict"}"#,
        )
        .await;

        let later = self
            .submit(r#"{"prompt":"later","runAt":"2026-12-24T00:00:00Z"}"#)
            .await;
        self.post(
            "reprioritise",
            &format!("reprioritise/{later}"),
            r#"{"priority":9}"#,
        )
        .await;
        self.post("cancel", &format!("cancel/{later}"), "").await;
        self.post("retry_dry", "retry", r#"{"all":true,"dryRun":true}"#)
            .await;
        self.post(
            "cancel_dry",
            "cancel",
            r#"{"filter":{"userId":"guest"},"dryRun":true}"#,
        )
        .await;
        self.post(
            "reprioritise_many",
            "reprioritise",
            r#"{"filter":{"userId":"guest"},"priority":3}"#,
        )
        .await;
    }

    /// What stops the lane, and what an operator does about it.
    async fn afternoon(&mut self, world: &World) {
        let unpaid = self.submit(r#"{"prompt":"unpaid"}"#).await;
        self.until_held().await;
        self.until_alerts(2).await;
        self.get("metrics_held", "metrics").await;
        self.get("alerts_raised", "alerts").await;
        self.post("resume", "resume", "").await;
        self.api.ended(&unpaid).await;
        self.until_alerts(1).await;
        let used_up = self.submit(r#"{"prompt":"used up"}"#).await;
        self.until_held().await;
        self.until_alerts(2).await;
        self.get("holds_quota", "holds").await;
        self.api
            .post_bare("/api/admin/glm/resume")
            .await
            .expect(200);
        self.api.ended(&used_up).await;
        self.until_alerts(1).await;

        self.post("pause", "pause", r#"{"reason":"prices"}"#).await;
        self.post("drain", "drain", r#"{"reason":"moving house"}"#)
            .await;
        self.post(
            "breaker_open",
            "breaker/open",
            r#"{"reason":"maintenance","forMs":60000}"#,
        )
        .await;
        self.get("metrics_stopped", "metrics").await;
        self.refused("draining", "POST", "/api/glm/jobs", r#"{"prompt":"x"}"#)
            .await;
        self.refused(
            "draining_of_glm",
            "POST",
            "/v1/chat/completions",
            r#"{"messages":[{"role":"user","content":"x"}]}"#,
        )
        .await;
        self.post("breaker_reset", "breaker/reset", "").await;
        self.api
            .post_bare("/api/admin/glm/resume")
            .await
            .expect(200);

        self.post("webhooks_test", "webhooks/test", r#"{"endpoint":"ops"}"#)
            .await;
        self.post("redeliver", "webhooks/deliveries/1/redeliver", "")
            .await;
        self.post(
            "redeliver_many",
            "webhooks/redeliver",
            r#"{"filter":{"status":"delivered"},"dryRun":true}"#,
        )
        .await;

        let chat = r#"{"messages":[{"role":"user","content":"hangs"}]}"#;
        let waits = self.asking("POST", "/v1/chat/completions", chat);
        let gives_up = async {
            until("it is called", async || world.glm.in_flight() == 1).await;
            let open = self.api.get("/api/admin/glm/queue?status=processing").await;
            let id = open.json()["queue"][0]["id"].as_str().unwrap().to_owned();
            self.api.post_bare(&format!("{ADMIN}/cancel/{id}")).await;
        };
        let (cancelled, ()) = tokio::join!(waits, gives_up);
        self.note_refusal(
            "job_cancelled_of_glm",
            "POST /v1/chat/completions",
            chat,
            &cancelled,
        );
    }

    /// A file is handed in, and a batch is made of it.
    async fn batch(&mut self) {
        let (form, media) = form_of(&lines(1));
        let uploading = self.api.request(Method::POST, "/v1/files");
        let uploading = uploading.header("content-type", media).body(form);
        let uploaded = Api::send(named(uploading)).await;
        let asked = "POST /v1/files (a form with lines.jsonl)";
        self.note("file_upload", asked, "", &uploaded);
        let file = uploaded.json()["id"].as_str().unwrap().to_owned();
        let new = format!(
            r#"{{"input_file_id":"{file}","endpoint":"{ENDPOINT}","completion_window":"24h","metadata":{{"night":"1"}}}}"#
        );
        let made = self.tell("batch_create", "POST", "/v1/batches", &new).await;
        let path = format!("/v1/batches/{}", made.json()["id"].as_str().unwrap());
        until("the batch is done", async || {
            self.api.get(&path).await.json()["status"] == "completed"
        })
        .await;
        let done = self.tell("batch", "GET", &path, "").await.json();
        self.tell("batches", "GET", "/v1/batches", "").await;
        self.tell("file", "GET", &format!("/v1/files/{file}"), "")
            .await;
        self.tell("files", "GET", "/v1/files", "").await;
        let results = done["output_file_id"].as_str().unwrap();
        let results = format!("/v1/files/{results}/content");
        self.tell("batch_results.jsonl", "GET", &results, "").await;
        self.refused("batch_ended", "POST", &format!("{path}/cancel"), "")
            .await;
        self.refused("unknown_file", "GET", "/v1/files/file-none", "")
            .await;
        self.refused("unknown_batch", "GET", "/v1/batches/batch_none", "")
            .await;
    }

    /// Everything there is to read and to refuse, once the day is over.
    async fn evening(&mut self) {
        for line in table(EVENING) {
            let (name, rest) = line.split_once(' ').unwrap();
            let mut rest = rest.trim_start().splitn(3, ' ');
            let mut next = || rest.next().unwrap_or_default();
            let (method, path, body) = (next(), next(), next());
            let reply = self.asking(method, path, body).await;
            if reply.status < 300 {
                self.note(name, &format!("{method} {path}"), body, &reply);
            } else {
                self.note_refusal(name, &format!("{method} {path}"), body, &reply);
            }
        }
        let change = r#"{"model":"glm-4.6","maxTokens":77,"maxQueueJobs":1,"unpriced":"refuse"}"#;
        self.tell("config_change", "PUT", &format!("{ADMIN}/config"), change)
            .await;
        self.refused("queue_full", "POST", "/api/glm/jobs", r#"{"prompt":"x"}"#)
            .await;
        self.refused(
            "unpriced_model",
            "POST",
            "/api/glm/jobs",
            r#"{"prompt":"x","model":"glm-house"}"#,
        )
        .await;
        let jobs = "/api/glm/jobs";
        let plain = self
            .api
            .request(Method::POST, jobs)
            .header("content-type", "text/plain");
        self.refused_as(
            "unsupported_media_type",
            "POST /api/glm/jobs (text/plain)",
            plain.body("x"),
        )
        .await;
        let keyed = self
            .api
            .posting(jobs, "[{\"prompt\":\"x\"}]")
            .header("idempotency-key", "k");
        self.refused_as(
            "invalid_header",
            "POST /api/glm/jobs (a list with an Idempotency-Key)",
            keyed,
        )
        .await;
        let page = self.api.request(Method::GET, "/api/admin/glm/metrics");
        let page = page.header("origin", "https://elsewhere.example");
        self.refused_as(
            "forbidden",
            "GET /api/admin/glm/metrics (from a web page)",
            page,
        )
        .await;
    }

    /// What an API with a token and a bound on bodies refuses.
    async fn strict_door(&mut self, lane: &Orchestrator) {
        let config = ServerSection {
            admin_token: Some(Secret::new("a-long-random-text")),
            max_body_bytes: 16,
            ..open_door()
        };
        let open = std::mem::replace(&mut self.api, Api::serve_as(lane, config).await);
        self.refused("unauthorized", "GET", "/api/admin/glm/metrics", "")
            .await;
        self.refused("unauthorized_of_glm", "POST", "/v1/chat/completions", "{}")
            .await;
        let large = self
            .api
            .posting("/api/glm/jobs", "{\"prompt\":\"more than that\"}");
        let large = large.bearer_auth("a-long-random-text");
        self.refused_as(
            "body_too_large",
            "POST /api/glm/jobs (more than maxBodyBytes)",
            large,
        )
        .await;
        std::mem::replace(&mut self.api, open).stop().await;
    }
}

/// An API on any free port.
fn open_door() -> ServerSection {
    ServerSection {
        listen: "127.0.0.1:0".to_owned(),
        ..ServerSection::default()
    }
}

async fn serve(lane: &Orchestrator, world: &World) -> Api {
    Api::serve_at(lane, open_door(), Arc::new(world.clock.clone())).await
}

#[tokio::test(start_paused = true)]
async fn what_goes_over_the_wire_and_into_the_file_is_as_the_golden_files_say() {
    let world = World::new();
    let lane = world.start().await;
    let mut story = Story {
        api: serve(&lane, &world).await,
        wire: Golden::of("wire"),
        errors: BTreeMap::new(),
        rows: BTreeMap::new(),
    };
    let given_up = story
        .submit(r#"{"prompt":"for Christmas","runAt":"2026-12-24T00:00:00Z"}"#)
        .await;
    story
        .asking("POST", &format!("{ADMIN}/cancel/{given_up}"), "")
        .await;
    let pruned = story
        .done(r#"{"prompt":"answered yesterday","userId":"alice"}"#)
        .await;
    lane.shutdown(PATIENCE).await;
    let lane = story.begin_again(&world, lane, 2 * DAY_MS).await;
    story.morning(&pruned, &given_up).await;
    story.noon().await;
    story.afternoon(&world).await;
    story.batch().await;

    let hangs = story
        .submit(r#"{"prompt":"hangs","onInterrupted":"park","userId":"erin"}"#)
        .await;
    until("it is called", async || world.glm.in_flight() == 1).await;
    let task = story
        .submit(r#"{"prompt":"hangs as a task","model":"glm-5-long","userId":"erin"}"#)
        .await;
    until("both are called", async || world.glm.in_flight() == 2).await;
    story.until_job(&hangs, "startedAt").await;
    story.get("job_processing", &format!("queue/{hangs}")).await;
    let lane = story.begin_again(&world, lane, 1_000).await;
    until("the task is fetched", async || world.glm.in_flight() == 1).await;
    story.until_job(&hangs, "parked").await;
    story.until_alerts(1).await;
    story.get("job_set_aside", &format!("queue/{hangs}")).await;
    story.evening().await;
    story.strict_door(&lane).await;
    let shapes = story.shapes().await;
    story.client_keys().await;
    story
        .asking("POST", &format!("{ADMIN}/cancel/{task}"), "")
        .await;
    crate::fixtures::note(&std::fs::read(world.file()).unwrap());
    lane.shutdown(PATIENCE).await;
    story
        .refused("stopped", "POST", "/api/admin/glm/pause", "{}")
        .await;
    story.api.end().await;
    drop(lane);
    note_rows(&world, &mut story.rows).await;
    let Story {
        mut wire,
        errors,
        rows,
        ..
    } = story;

    let errors: Vec<String> = errors
        .iter()
        .map(|(name, told)| format!("{name:?}:{told}"))
        .collect();
    wire.put("errors.json", pretty(&format!("{{{}}}", errors.join(","))));
    let mut bodies: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for body in world.receiver.bodies() {
        let event = serde_json::from_str::<serde_json::Value>(&body).unwrap();
        let event = event["type"].as_str().unwrap().to_owned();
        bodies.entry(event).or_default().push(body);
    }
    for (event, mut bodies) in bodies {
        // Several are under way at once.
        bodies.sort();
        wire.put(&format!("webhook_{event}.json"), list(&covering(bodies)));
    }
    let mut in_file = Golden::of("rows");
    let tables: Vec<&str> = rows.keys().map(String::as_str).collect();
    in_file.put("tables.txt", tables.join("\n"));
    for (table, rows) in rows {
        in_file.put(&format!("{table}.json"), list(&covering(rows)));
    }
    check([wire, shapes, in_file, cli::looks_into(world.directory())]);
}

impl Story {
    /// An operator makes a key: from then on work is handed in by one.
    async fn client_keys(&mut self) {
        let wanted = r#"{"name":"agent","userId":"ada","defaultPriority":1,"maxPriority":5,"models":["GLM-5"],
            "faces":["chat"],"callsInFlight":2,"requestsPerMinute":60,"share":3,"onDisconnect":"drain:30",
            "budget":{"cost":"12.50","currency":"CNY","period":"day","over":"refuse"},
            "expiresAt":"2027-11-25T00:00:00Z"}"#;
        self.post("key_create", "keys", wanted).await;
        let id = "ol-0000000000000007";
        self.post(
            "key_rotate",
            &format!("keys/{id}/rotate"),
            r#"{"overlapMs":60000}"#,
        )
        .await;
        self.get("keys", "keys").await;
        let hi = r#"{"prompt":"x"}"#;
        self.refused("client_key_needed", "POST", "/api/glm/jobs", hi)
            .await;
        let nobody = format!("{ADMIN}/keys/ol-00000000000000ff");
        self.refused("unknown_key", "GET", &nobody, "").await;
        self.post("key_revoke", &format!("keys/{id}/revoke"), "")
            .await;
        let dead = format!("{ADMIN}/keys/{id}/rotate");
        self.refused("dead_key", "POST", &dead, "").await;
    }

    /// Ends the lane as a crash would, and starts the next one on the same file, later.
    async fn begin_again(
        &mut self,
        world: &World,
        lane: Orchestrator,
        later_ms: u64,
    ) -> Orchestrator {
        self.api.end().await;
        drop(lane);
        note_rows(world, &mut self.rows).await;
        let lane = world.start().await;
        // In steps of less than a day, each looked at: a clock that is further ahead is not believed by what prunes.
        const STEP_MS: u64 = 20 * 3_600_000;
        let mut left_ms = later_ms;
        while left_ms > 0 {
            let step_ms = left_ms.min(STEP_MS);
            world.clock.step(step_ms);
            lane.metrics().await.unwrap();
            left_ms -= step_ms;
        }
        self.api = serve(&lane, world).await;
        lane
    }

    /// The four shapes with set field names, with every field that the day has brought.
    async fn shapes(&self) -> Golden {
        let mut golden = Golden::of("shapes");
        let get = async |path: &str| {
            let reply = self.api.get(&format!("{ADMIN}/{path}")).await;
            let answer: BTreeMap<String, Box<RawValue>> =
                serde_json::from_str(&reply.text).unwrap();
            answer
        };
        let rows = |json: &RawValue| -> Vec<String> {
            let rows: Vec<&RawValue> = serde_json::from_str(json.get()).unwrap();
            rows.iter().map(|row| row.get().to_owned()).collect()
        };
        golden.put(
            "GLMConfig.json",
            pretty(get("config").await["config"].get()),
        );
        let listed = rows(&get("queue?limit=100").await["queue"]);
        let mut whole = Vec::new();
        for job in &listed {
            let job: serde_json::Value = serde_json::from_str(job).unwrap();
            let path = format!("queue/{}", job["id"].as_str().unwrap());
            whole.push(get(&path).await["job"].get().to_owned());
        }
        golden.put("GLMRequestQueue.json", list(&covering(whole)));
        golden.put("GLMRequestQueue_in_lists.json", list(&covering(listed)));
        golden.put(
            "GLMCallLog.json",
            list(&covering(rows(&get("calls?limit=100").await["calls"]))),
        );
        let days = "statistics?startDate=2026-11-23&endDate=2026-11-25&groupBy=day,model,user";
        golden.put(
            "GLMUsageStats.json",
            list(&covering(rows(&get(days).await["statistics"]))),
        );
        golden
    }
}

/// Adds the rows of every table of a file that no lane has open any more.
async fn note_rows(world: &World, all: &mut BTreeMap<String, Vec<String>>) {
    let mut opened = None;
    until_timers("the file is free", async || {
        opened = tables_of(&world.file());
        opened.is_some()
    })
    .await;
    let database = opened.unwrap();
    let read = database.begin_read().unwrap();
    let tables: Vec<String> = read
        .list_tables()
        .unwrap()
        .map(|table| table.name().to_owned())
        .collect();
    for name in tables {
        // The table's Rust types are a part of the file.
        let rows = dump::<&str, &[u8]>(&read, &name)
            .or_else(|| dump::<u64, &[u8]>(&read, &name))
            .or_else(|| dump::<u64, ()>(&read, &name))
            .or_else(|| dump::<(), u64>(&read, &name).map(of_any_commits))
            .or_else(|| dump::<&[u8; 9], &[u8]>(&read, &name))
            .or_else(|| dump::<&[u8; 16], &[u8]>(&read, &name))
            .or_else(|| dump::<&[u8; 17], &[u8; 16]>(&read, &name))
            .or_else(|| dump::<&[u8; 20], &[u8]>(&read, &name))
            .or_else(|| dump::<&[u8; 20], u64>(&read, &name))
            .or_else(|| dump::<&[u8; 24], ()>(&read, &name))
            .or_else(|| dump::<&[u8; 32], &[u8]>(&read, &name))
            .or_else(|| dump::<&[u8; 32], ()>(&read, &name))
            .unwrap_or_else(|| panic!("table {name} has other types"));
        all.entry(name).or_default().extend(rows);
    }
}

/// The rows of a table with these types, each as a JSON text: its key, and its bytes as text where they are JSON.
fn dump<K: Key + 'static, V: Value + 'static>(
    read: &redb::ReadTransaction,
    name: &str,
) -> Option<Vec<String>> {
    let table = read.open_table(TableDefinition::<K, V>::new(name)).ok()?;
    let rows = table.iter().unwrap().map(|row| {
        let (key, value) = row.unwrap();
        let (key, value) = (key.value(), value.value());
        let (key, value) = (K::as_bytes(&key), V::as_bytes(&value));
        format!(
            r#"{{"key":{},"row":{}}}"#,
            shown(key.as_ref()),
            shown(value.as_ref())
        )
    });
    Some(rows.collect())
}

/// How many commits it took is up to the machine: what comes while one is under way goes into the next together.
fn of_any_commits(settled: Vec<String>) -> Vec<String> {
    let rows = settled.into_iter();
    rows.map(|row| {
        let row: serde_json::Value = serde_json::from_str(&row).unwrap();
        assert!(row["row"].as_str().is_some_and(|hex| hex.len() == 16));
        r#"{"key":"","row":"COMMITS"}"#.to_owned()
    })
    .collect()
}

/// How many connections are open, and may be, is up to the machine.
fn of_any_machine(text: &str) -> String {
    let of_line = |line: &str| match line.split_once(": ") {
        Some((name, _)) if matches!(name.trim(), "\"connections\"" | "\"connectionsMax\"") => {
            format!("{name}: 0,")
        }
        _ => line.to_owned(),
    };
    let lines: Vec<String> = text.lines().map(of_line).collect();
    lines.join("\n") + if text.ends_with('\n') { "\n" } else { "" }
}

/// Bytes as JSON: as they are if they are JSON, as text if they are letters, else in hexadecimal digits.
fn shown(bytes: &[u8]) -> String {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    if serde_json::from_str::<&RawValue>(text).is_ok() {
        return text.to_owned();
    }
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic()) {
        return format!("{text:?}");
    }
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{digits:?}")
}
