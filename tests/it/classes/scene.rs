//! One class of failure, looked at from everywhere: while it lasts, and after an operator has ended it.

use onelane::model::{CallOutcome, Event, FailureClass, HoldKind, JobId, Timestamp};
use onelane::orchestrator::{Events, Feed, Orchestrator};
use onelane::simulator::{Fault, Rule};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Fate, GRACE_MS, LONG_MS, MODEL, OTHER, RESET_MS, Row, Scope, Until, moment};
use crate::support::api::{Api, Reply};
use crate::support::http::{HttpLane, calls_of, prompt, until};
use crate::support::shows;

/// Lets the first call meet the row's answer, and asserts of everything there is to see that it tells what the row says.
pub(super) async fn assert_told(row: &Row) {
    let mut world = HttpLane::new();
    let retry = &mut world.config.retry;
    (retry.throttle.base_ms, retry.throttle.max_ms) = (LONG_MS, LONG_MS);
    (retry.overload.base_ms, retry.overload.max_ms) = (LONG_MS, LONG_MS);
    (retry.delays.base_delay_ms, retry.delays.max_delay_ms) = (LONG_MS, LONG_MS);
    if matches!(row.fault, Fault::Hang) {
        world.config.glm.timeouts.total_ms = 1_000;
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
            lane.in_flight == 0 && (lane.ready as u64 == stay || scope.is_none())
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
        shows!(response, {"success": false, "statusCode": row.status});
        assert_eq!(response["error"]["class"], row.class.name(), "{row:?}");
        assert_eq!(response["error"]["code"], row.code, "{row:?}");
        shows!(call, {"outcome": "failed", "attempt": 1, "retryCount": 0});

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
        shows!(hold, {"kind": kind.name(), "code": row.code});
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
