//! Guards: a failure that stops too much, too little, or until the wrong moment; a job that is burned or
//! failed for what is not its fault; a stop that metrics, holds, breaker or queue do not show while it
//! lasts. Here a class is looked at while it lasts, in `costs` until its end.

mod costs;

use onelane::model::{CallOutcome, Event, FailureClass, HoldKind, JobId, Timestamp};
use onelane::orchestrator::{Events, Feed, Orchestrator};
use onelane::simulator::{ErrorFault, Fault, ResetWording, Rule, Shape};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::api::{Api, Reply};
use crate::support::http::{HttpLane, calls_of, prompt, until};

/// The model of jobs that name none.
const MODEL: &str = "glm-4.7";
/// A model of the same lane.
const OTHER: &str = "glm-4.5-air";
/// How long everything takes that ends by itself: nothing ends while a test looks.
const LONG_MS: u64 = 600_000;
/// How far ahead a stated reset is.
const RESET_MS: u64 = 3 * 60 * 60 * 1_000;
/// What the lane adds to a stated reset, since clocks differ.
const GRACE_MS: u64 = 3_000;
/// How long a used-up quota holds of which nothing is said.
const QUOTA_UNKNOWN_MS: u64 = 15 * 60 * 1_000;

/// What is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Lane,
    Model,
    Account,
}

/// When the stop ends by itself.
#[derive(Debug, Clone, Copy)]
enum Until {
    /// Never.
    Operator,
    /// So many milliseconds after it began: at least, at most.
    After(u64, u64),
    /// At the moment that the message states in Beijing time, and a grace.
    Stated,
    /// At the next midnight in Beijing, and a grace.
    Midnight,
}

/// What becomes of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It goes back to its place and has lost nothing.
    Kept,
    /// It goes back to its place and has lost a retry.
    Retried,
    /// It waits for its time and has lost a retry.
    BacksOff,
    /// It fails.
    Failed,
}

/// One answer of the server to one call, and what must follow.
#[derive(Debug, Clone)]
struct Row {
    fault: Fault,
    class: FailureClass,
    code: &'static str,
    status: Option<u16>,
    fate: Fate,
    stop: Option<(Scope, HoldKind, Until)>,
    maybe_billed: bool,
}

/// A refusal of GLM's, in its usual shape and with its usual status.
fn refusal(code: &'static str, class: FailureClass, status: u16) -> Row {
    let fault = Fault::error(code);
    answer(fault, code, class, Some(status))
}

fn answer(fault: Fault, code: &'static str, class: FailureClass, status: Option<u16>) -> Row {
    let cooling = Until::After(LONG_MS * 8 / 10, LONG_MS);
    let (fate, stop) = match class {
        FailureClass::Throttle => (Fate::Kept, Some((Scope::Lane, HoldKind::Throttle, cooling))),
        FailureClass::Overload => (
            Fate::Retried,
            Some((Scope::Model, HoldKind::Overload, cooling)),
        ),
        FailureClass::QuotaWindow => (
            Fate::Kept,
            Some((Scope::Account, HoldKind::Quota, Until::Stated)),
        ),
        FailureClass::OperatorFatal => (
            Fate::Kept,
            Some((Scope::Account, HoldKind::Operator, Until::Operator)),
        ),
        FailureClass::RequestFatal => (Fate::Failed, None),
        FailureClass::ServerTransient => (Fate::BacksOff, None),
        FailureClass::DuplicateRequest => (Fate::Retried, None),
    };
    Row {
        fault,
        class,
        code,
        status,
        fate,
        stop,
        maybe_billed: false,
    }
}

impl Row {
    /// The stop ends at another moment.
    fn until(mut self, until: Until) -> Self {
        self.stop = self.stop.map(|(scope, kind, _)| (scope, kind, until));
        self
    }

    /// It stops the model only.
    fn of_the_model(mut self) -> Self {
        self.stop = self
            .stop
            .map(|(_, kind, until)| (Scope::Model, kind, until));
        self
    }

    /// The refusal comes in another way.
    fn sent(mut self, change: impl FnOnce(&mut ErrorFault)) -> Self {
        if let Fault::Error(fault) = &mut self.fault {
            change(fault);
        }
        self
    }

    const fn maybe_billed(mut self) -> Self {
        self.maybe_billed = true;
        self
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttle_stops_its_lane_and_costs_the_job_nothing() {
    let class = FailureClass::Throttle;
    look_at(&refusal("1302", class, 429)).await;
    look_at(&refusal("1303", class, 429)).await;
    let longer = |fault: &mut ErrorFault| fault.retry_after = Some("3600".to_owned());
    let hour = Until::After(3_600_000, 3_600_000);
    look_at(&refusal("1302", class, 429).sent(longer).until(hour)).await;
    let nameless = Fault::EmptyBody { status: 429 };
    look_at(&answer(nameless, "http_429", class, Some(429))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overload_stops_its_model_and_costs_the_job_a_retry() {
    let class = FailureClass::Overload;
    look_at(&refusal("1305", class, 429)).await;
    look_at(&refusal("1312", class, 429)).await;
    let nameless = Fault::EmptyBody { status: 529 };
    look_at(&answer(nameless, "http_529", class, Some(529))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_used_up_quota_stops_everything_until_the_stated_moment_to_the_second() {
    let class = FailureClass::QuotaWindow;
    for (code, wording, shape) in [
        ("1308", ResetWording::Mainland, Shape::Nested),
        ("1310", ResetWording::English, Shape::Bracketed),
        ("1316", ResetWording::MainlandContinue, Shape::FlatNumber),
    ] {
        let stamped = refusal(code, class, 429).sent(|fault| {
            (fault.wording, fault.shape) = (wording, shape);
            fault.reset_in_ms = Some(RESET_MS);
            // The stamp counts before it.
            fault.retry_after = Some("60".to_owned());
        });
        look_at(&stamped).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_used_up_quota_without_a_stamp_stops_everything_for_as_long_as_is_likely() {
    let class = FailureClass::QuotaWindow;
    let told = |fault: &mut ErrorFault| fault.retry_after = Some("7200".to_owned());
    let two_hours = Until::After(7_200_000, 7_200_000);
    look_at(&refusal("1308", class, 429).sent(told).until(two_hours)).await;
    let a_while = Until::After(QUOTA_UNKNOWN_MS, QUOTA_UNKNOWN_MS);
    look_at(&refusal("1308", class, 429).until(a_while)).await;
    look_at(&refusal("1310", class, 429).until(a_while)).await;
    look_at(&refusal("1304", class, 429).until(Until::Midnight)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_an_operator_can_mend_stops_everything_without_an_end() {
    let class = FailureClass::OperatorFatal;
    look_at(&refusal("1113", class, 429)).await;
    look_at(&refusal("1000", class, 401)).await;
    look_at(&refusal("1309", class, 429)).await;
    let nameless = Fault::EmptyBody { status: 401 };
    look_at(&answer(nameless, "http_401", class, Some(401))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_account_may_not_use_stops_its_model_without_an_end() {
    let class = FailureClass::OperatorFatal;
    look_at(&refusal("1311", class, 429).of_the_model()).await;
    look_at(&refusal("1220", class, 403).of_the_model()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jobs_own_fault_stops_nothing() {
    let class = FailureClass::RequestFatal;
    look_at(&refusal("1210", class, 400)).await;
    look_at(&refusal("1301", class, 400)).await;
    let nameless = Fault::EmptyBody { status: 413 };
    look_at(&answer(nameless, "http_413", class, Some(413))).await;
    let cut = Fault::finish_reason("sensitive");
    look_at(&answer(cut, "finish:sensitive", class, Some(200))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transient_failure_stops_nothing_and_the_breaker_counts_it() {
    let class = FailureClass::ServerTransient;
    look_at(&refusal("1234", class, 500)).await;
    look_at(&refusal("500", class, 500)).await;
    let empty = Fault::EmptyBody { status: 503 };
    look_at(&answer(empty, "http_503", class, Some(503))).await;
    let page = Fault::HtmlPage { status: 502 };
    look_at(&answer(page, "http_502", class, Some(502))).await;
    look_at(&answer(Fault::Reset, "conn", class, None).maybe_billed()).await;
    look_at(&answer(Fault::CutBody, "conn", class, Some(200)).maybe_billed()).await;
    look_at(&answer(Fault::Hang, "timeout_first_byte", class, None).maybe_billed()).await;
    look_at(&answer(Fault::StallBody, "timeout_idle", class, Some(200)).maybe_billed()).await;
}

/// Lets the first call meet the row's answer and looks at everything there is to see: while it lasts, and
/// after an operator has ended it.
async fn look_at(row: &Row) {
    let mut world = HttpLane::new();
    let retry = &mut world.config.retry;
    (retry.throttle_base_ms, retry.throttle_max_ms) = (LONG_MS, LONG_MS);
    (retry.overload_base_ms, retry.overload_max_ms) = (LONG_MS, LONG_MS);
    (retry.base_delay_ms, retry.max_delay_ms) = (LONG_MS, LONG_MS);
    if matches!(row.fault, Fault::Hang) {
        world.config.glm.timeouts.first_byte_ms = 1_000;
    }
    if matches!(row.fault, Fault::StallBody) {
        world.config.glm.timeouts.idle_ms = 1_000;
    }
    let once = Rule::for_prompt("first", row.fault.clone()).times(1);
    world.sim.add_rule(once);
    let lane = world.start().await;
    let scene = Scene {
        api: Api::serve(&lane).await,
        events: lane.subscribe(),
        world,
        lane,
    };
    scene.play(row).await;
}

struct Scene {
    world: HttpLane,
    lane: Orchestrator,
    api: Api,
    events: Events,
}

impl Scene {
    async fn play(mut self, row: &Row) {
        let first = self.lane.submit(prompt("first")).await.unwrap().job_id;
        until("the outcome is on disk", async || {
            calls_of(&self.lane).await.len() == 1
        })
        .await;
        self.shows_the_failure(row).await;
        self.shows_the_job(row).await;

        // Of two more jobs those go out that the stop does not mean.
        let other = prompt("other").model(OTHER);
        let other = self.lane.submit(other).await.unwrap().job_id;
        let same = self.lane.submit(prompt("same")).await.unwrap().job_id;
        let scope = row.stop.map(|(scope, ..)| scope);
        let mut goes_out = Vec::new();
        goes_out.extend((scope.is_none() || scope == Some(Scope::Model)).then_some(other));
        goes_out.extend(scope.is_none().then_some(same));
        for id in &goes_out {
            let job = self.lane.wait(*id).await.unwrap().job;
            assert_eq!(job.status.name(), "completed", "{row:?}");
        }
        // The lane knows of those that stay, and nothing is on its way.
        let stay = if scope.is_some() { 3 } else { 2 } - goes_out.len() as u64;
        until("the lane has taken in those that stay", async || {
            let lane = self.lane.lane().await.unwrap();
            lane.in_flight == 0 && (lane.ready == stay || scope.is_none())
        })
        .await;
        let called = 1 + goes_out.len() as u64;
        assert_eq!(self.world.sim.stats().calls, called, "{row:?}");
        if scope.is_none() {
            // What waits for its time waits for long; what failed has failed.
            return;
        }

        self.end(row).await;
        for id in [first, other, same] {
            let job = self.lane.wait(id).await.unwrap().job;
            let retries = u32::from(id == first && row.fate == Fate::Retried);
            let got = (job.status.name(), job.retry_count, job.error);
            assert_eq!(got, ("completed", retries, None), "{row:?}");
        }
        let stats = self.world.sim.stats();
        assert_eq!((stats.calls, stats.peak_in_flight), (4, 1), "{row:?}");
        let attempts = self.lane.job(first).await.unwrap().attempts;
        let outcomes: Vec<_> = attempts.iter().map(|c| (c.attempt.0, c.outcome)).collect();
        let want = [(1, CallOutcome::Failed), (2, CallOutcome::Completed)];
        assert_eq!(outcomes, want, "{row:?}");

        let metrics = self.metrics().await;
        assert_eq!(metrics["errorRate"], 0.25, "{row:?}");
        assert_eq!(metrics["jobs"]["completed"], 3);
        assert_eq!(metrics["lane"]["holds"], json!([]), "{row:?}");
        assert_eq!(metrics["lane"]["lanes"][0]["throttleLevel"], 0, "{row:?}");
        assert_eq!(metrics["lane"]["models"], json!([]), "{row:?}");
        self.told_once(row).await;
    }

    async fn metrics(&self) -> Value {
        self.api.get("/api/admin/glm/metrics").await.expect(200)
    }

    /// Metrics, holds and breaker agree, and say what the row says.
    async fn shows_the_failure(&self, row: &Row) {
        let metrics = self.metrics().await;
        let is = |class| u32::from(row.class == class);
        assert_eq!(metrics["errorRate"], 1.0, "{row:?}");
        assert_eq!(metrics["throttles"], is(FailureClass::Throttle), "{row:?}");
        assert_eq!(
            metrics["maybeBilled"],
            u32::from(row.maybe_billed),
            "{row:?}"
        );
        assert_eq!(metrics["currentConcurrency"], 0, "{row:?}");
        let [call] = metrics["recentCalls"].as_array().unwrap().as_slice() else {
            panic!("{metrics}")
        };
        let response = &call["response"];
        assert_eq!(response["success"], false, "{row:?}");
        assert_eq!(response["statusCode"], json!(row.status), "{row:?}");
        assert_eq!(response["error"]["class"], row.class.name(), "{row:?}");
        assert_eq!(response["error"]["code"], row.code, "{row:?}");
        assert_eq!(call["outcome"], "failed");
        assert_eq!(
            (&call["attempt"], &call["retryCount"]),
            (&json!(1), &json!(0))
        );

        let lane = &metrics["lane"];
        let breaker = self.api.get("/api/admin/glm/breaker").await.expect(200);
        assert_eq!(breaker["breaker"], lane["breaker"], "{row:?}");
        assert_eq!(lane["breaker"]["state"], "closed", "{row:?}");
        let counted = is(FailureClass::ServerTransient);
        assert_eq!(lane["breaker"]["consecutiveFailures"], counted, "{row:?}");
        let holds = self.api.get("/api/admin/glm/holds").await.expect(200);
        assert_eq!(holds["holds"], lane["holds"], "{row:?}");
        assert_eq!(
            lane["lanes"][0]["throttleLevel"],
            is(FailureClass::Throttle)
        );
        let stopped = lane["models"].as_array().unwrap();
        let Some((scope, kind, until)) = row.stop else {
            assert_eq!(holds["holds"], json!([]), "{row:?}");
            assert_eq!(lane["hold"], json!(null), "{row:?}");
            assert!(stopped.is_empty(), "{row:?}");
            return;
        };
        let [hold] = lane["holds"].as_array().unwrap().as_slice() else {
            panic!("{row:?}: {lane}")
        };
        let (name, place) = match scope {
            Scope::Account => (json!(["account", null]), &lane["hold"]),
            Scope::Lane => (json!(["lane", "default"]), &lane["lanes"][0]["hold"]),
            Scope::Model => (json!(["model", MODEL]), &lane["models"][0]["hold"]),
        };
        assert_eq!(json!([hold["scope"], hold["name"]]), name, "{row:?}");
        assert_eq!(
            (&hold["kind"], &hold["code"]),
            (&json!(kind.name()), &json!(row.code))
        );
        for field in ["kind", "code", "message", "since", "until"] {
            assert_eq!(hold[field], place[field], "{row:?}");
            assert_eq!(hold[field], lane["hold"][field], "{row:?}");
        }
        assert_eq!(stopped.len(), usize::from(scope == Scope::Model), "{row:?}");
        if scope == Scope::Model {
            assert_eq!(
                stopped[0]["overloads"],
                is(FailureClass::Overload),
                "{row:?}"
            );
        }
        ends_at(until, hold, call);
    }

    /// The queue and the job show what became of it.
    async fn shows_the_job(&self, row: &Row) {
        let queue = self.api.get("/api/admin/glm/queue").await.expect(200);
        assert_eq!(queue["total"], 1, "{row:?}");
        let job = &queue["queue"][0];
        let retried = matches!(row.fate, Fate::Retried | Fate::BacksOff);
        let status = if row.fate == Fate::Failed {
            "failed"
        } else {
            "pending"
        };
        assert_eq!(job["status"], status, "{row:?}");
        assert_eq!(job["retryCount"], u32::from(retried), "{row:?}");
        assert_eq!(job["attemptCount"], 1, "{row:?}");
        let throttles = (row.class == FailureClass::Throttle).then_some(1);
        assert_eq!(job["throttles"], json!(throttles), "{row:?}");
        assert_eq!(job["error"]["code"], row.code, "{row:?}");
        assert_eq!(job["error"]["class"], row.class.name(), "{row:?}");
        assert_eq!(job["errorMessage"], job["error"]["message"], "{row:?}");
        let is_due_later = job["nextRetryAt"].is_string();
        assert_eq!(is_due_later, row.fate == Fate::BacksOff, "{row:?}");
        let metrics = self.metrics().await;
        let pending = u32::from(row.fate != Fate::Failed);
        assert_eq!(metrics["jobs"]["pending"], pending, "{row:?}");
        assert_eq!(metrics["jobs"]["failed"], 1 - pending, "{row:?}");
        assert_eq!(metrics["queueLength"], pending, "{row:?}");
        let waits = u32::from(row.fate == Fate::BacksOff);
        assert_eq!(metrics["lane"]["waiting"], waits, "{row:?}");
        assert_eq!(metrics["lane"]["ready"], pending - waits, "{row:?}");
        if row.fate == Fate::BacksOff {
            let due = moment(&job["nextRetryAt"]);
            let ended = moment(&metrics["recentCalls"][0]["endedAt"]);
            let wait = LONG_MS * 8 / 10..=LONG_MS;
            assert!(wait.contains(&due.since(ended)), "{row:?}: {job}");
        }
    }

    /// An operator does what ends the stop: gives another key, or says that it is over.
    async fn end(&self, row: &Row) {
        let (scope, kind, _) = row.stop.unwrap();
        if kind == HoldKind::Operator {
            let patch = json!({"apiKey": "fedcba9876543210.the-second-secret"});
            let put = self.api.put("/api/admin/glm/config", patch.to_string());
            put.await.expect(200);
            return;
        }
        let path = match scope {
            Scope::Account => "account".to_owned(),
            Scope::Lane => "lane/default".to_owned(),
            Scope::Model => format!("model/{MODEL}"),
        };
        let path = format!("/api/admin/glm/holds/{path}");
        let released: Reply = Api::send(self.api.request(Method::DELETE, &path)).await;
        released.expect(200);
    }

    /// The stop was told once, and its end once.
    async fn told_once(&mut self, row: &Row) {
        let last = self.lane.submit(prompt("last")).await.unwrap().job_id;
        let mut told = Vec::new();
        while !self.next_event_ends(last, &mut told).await {}
        let kind = row.stop.map(|(_, kind, _)| kind.name()).unwrap();
        assert_eq!(told, [("held", kind), ("released", kind)], "{row:?}");
    }

    /// Writes down what the next event says of a stop. Tells whether it is the end of this job.
    async fn next_event_ends(
        &mut self,
        job: JobId,
        told: &mut Vec<(&'static str, &'static str)>,
    ) -> bool {
        let Some(Feed::Event(_, event)) = self.events.next().await else {
            panic!("events were missed or ended")
        };
        match &*event {
            Event::LaneHeld { hold, .. } => told.push(("held", hold.kind.name())),
            Event::LaneReleased { kind, .. } => told.push(("released", kind.name())),
            Event::BreakerChanged { .. } => told.push(("breaker", "changed")),
            Event::JobCompleted { job_id, .. } => return *job_id == job,
            _ => {}
        }
        false
    }
}

fn moment(json: &Value) -> Timestamp {
    let text = json.as_str().unwrap();
    Timestamp::parse_rfc3339(text).unwrap()
}

/// A hold ends when it should, counted from its beginning or from what its call was told.
fn ends_at(until: Until, hold: &Value, call: &Value) {
    let since = moment(&hold["since"]);
    match until {
        Until::Operator => assert_eq!(hold["until"], json!(null), "{hold}"),
        Until::After(least_ms, most_ms) => {
            let lasts_ms = moment(&hold["until"]).since(since);
            assert!((least_ms..=most_ms).contains(&lasts_ms), "{hold}");
        }
        Until::Stated => {
            let stamp = stamp_in(hold["message"].as_str().unwrap());
            assert_eq!(moment(&hold["until"]), stamp.plus_ms(GRACE_MS), "{hold}");
            // It was stated while the call was open, and in whole seconds.
            let opened = moment(&call["timestamp"]).plus_ms(RESET_MS);
            let closed = moment(&call["endedAt"]).plus_ms(RESET_MS + 999);
            assert!((opened..=closed).contains(&stamp), "{hold}");
        }
        Until::Midnight => {
            let until = moment(&hold["until"]);
            assert!(until.since(since) <= 86_400_000 + GRACE_MS, "{hold}");
            let text = until.to_rfc3339();
            assert!(text.ends_with("T16:00:03.000Z"), "{text}");
        }
    }
}

/// The moment in the words of a refusal: `YYYY-MM-DD HH:MM:SS`, in Beijing.
fn stamp_in(message: &str) -> Timestamp {
    let dashes = message.find("20").expect("a year");
    let text = message[dashes..dashes + 19].replace(' ', "T");
    Timestamp::parse_rfc3339(&format!("{text}+08:00")).expect("a stamp")
}
