//! GLM's asynchronous API: a call is handed over as a task and its answer is fetched later, so that a
//! crash between the two costs no second purchase.
//!
//! Looking at a task buys nothing, therefore whatever may pass is borne and looked at again. What ends
//! a fetch without an answer is maybe billed: GLM had taken the task.

use bytes::Bytes;
use onelane_actors::ports::{Glm, GlmCall, GlmOutcome, TaskOutcome};
use onelane_core::model::{Failure, FailureClass, Timeouts, Usage, code, limits};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::classify::{Reader, classify, classify_json, states_error};
use super::decode::{decode, invalid, is_page, page, with_received};
use super::exchange::span;
use super::http::{HttpGlm, Sent, failed, post, request};
use super::{layers, usage};
use crate::bounded;

/// GLM's code for a task that it does not know, or that another account's key made.
const TASK_UNKNOWN: &str = "1233";

impl HttpGlm {
    /// Hands `call` over as a task.
    pub(super) async fn submit(&self, call: &GlmCall, abort: &CancellationToken) -> TaskOutcome {
        let url = self.url(&self.task_url(&call.endpoint));
        let request = post(url, call);
        let accepted = match self.send(request, call, call.timeouts, abort, None).await {
            Sent::Whole(response) => {
                let reader = self.reader(call);
                accepted(response.status, &response.headers, &response.body, &reader).map_err(
                    |failure| with_received(failure, &response.headers, &response.body, &reader),
                )
            }
            Sent::Failed(failure) => Err(failure),
            Sent::Aborted => return TaskOutcome::Aborted,
            Sent::Nothing => return TaskOutcome::NotSent,
        };
        match accepted {
            Ok(id) => TaskOutcome::Accepted(id),
            Err(failure) => TaskOutcome::Failed(failure, Usage::default()),
        }
    }

    /// Looks at a task until it is done or the call's total time is over.
    pub(super) async fn fetch(
        &self,
        call: &GlmCall,
        task_id: &str,
        abort: &CancellationToken,
    ) -> GlmOutcome {
        if !is_task_id(task_id) {
            return failed(unknown("its id is none that GLM gives", None));
        }
        let url = format!("{}/async-result/{task_id}", call.endpoint.base_url);
        let until = Instant::now() + span(call.timeouts.total_ms);
        loop {
            let seen = match self.look(&url, call, until, abort).await {
                Look::Ended(outcome) => return outcome,
                Look::Again(seen) => seen,
            };
            let next = until.min(Instant::now() + span(call.poll_ms));
            tokio::select! {
                biased;
                () = abort.cancelled() => return GlmOutcome::Aborted,
                () = tokio::time::sleep_until(next) => {}
            }
            if next == until {
                return failed(not_done(task_id, call.timeouts.total_ms, &seen));
            }
        }
    }

    /// Looks at a task once.
    async fn look(
        &self,
        url: &str,
        call: &GlmCall,
        until: Instant,
        abort: &CancellationToken,
    ) -> Look {
        let left = until.saturating_duration_since(Instant::now()).as_millis();
        let timeouts = Timeouts {
            // Rounded up: a part of a millisecond is some time, too.
            total_ms: u64::try_from(left).unwrap_or(u64::MAX).saturating_add(1),
            ..call.timeouts
        };
        let request = request(Method::GET, self.url(url), call);
        match self.send(request, call, timeouts, abort, None).await {
            Sent::Whole(response) => {
                let reader = self.reader(call);
                let (headers, body) = (&response.headers, response.body.clone());
                match seen(response.status, headers, response.body, &reader) {
                    Look::Ended(GlmOutcome::Failed(failure, usage)) => {
                        let failure = with_received(failure, headers, &body, &reader);
                        Look::Ended(GlmOutcome::Failed(failure, usage))
                    }
                    other => other,
                }
            }
            Sent::Failed(failure) => refused(failure),
            Sent::Aborted | Sent::Nothing => Look::Ended(GlmOutcome::Aborted),
        }
    }
}

/// The result of a look at a task.
pub(super) enum Look {
    /// The task, or the looking, is over.
    Ended(GlmOutcome),
    /// Not yet; this was seen.
    Again(String),
}

/// The id of the task that a submission was made, or why there is none.
pub(super) fn accepted(
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
    reader: &Reader<'_>,
) -> Result<String, Failure> {
    if !(200..300).contains(&status) {
        return Err(classify(status, headers, body, reader));
    }
    let text = layers::text(body);
    let json = document(&text).map_err(|e| match is_page(headers, &text) {
        true => page(status),
        false => invalid(status, &e.to_string()),
    })?;
    if task_status(&json).is_none() && states_error(&json) {
        return Err(classify_json(status, headers, &json, reader));
    }
    json.get("id")
        .and_then(Value::as_str)
        .filter(|id| is_task_id(id))
        .map(str::to_owned)
        .ok_or_else(|| invalid(status, "it has no id of a task"))
}

/// Reads the response to a look.
pub(super) fn seen(status: u16, headers: &HeaderMap, body: Bytes, reader: &Reader<'_>) -> Look {
    if !(200..300).contains(&status) {
        return refused(classify(status, headers, &body, reader));
    }
    let json = match document(&layers::text(&body)) {
        Ok(json) => json,
        // A page of something between; the task is as it was.
        Err(e) => return Look::Again(format!("the response was no JSON ({e})")),
    };
    let says = task_status(&json);
    if says.is_some_and(|says| says.eq_ignore_ascii_case("FAIL")) {
        // GLM bills the tokens, answer or not.
        let usage = usage::of(&json, &usage::CHAT);
        let mut failure = task_failed(status, headers, &json, reader);
        failure.maybe_billed &= !usage.is_reported();
        return Look::Ended(GlmOutcome::Failed(failure, usage));
    }
    let is_done = says.map_or_else(
        || json.get("choices").is_some_and(Value::is_array),
        |says| says.eq_ignore_ascii_case("SUCCESS"),
    );
    if is_done {
        return Look::Ended(decode(status, headers, body, reader));
    }
    match says {
        Some(says) => Look::Again(format!("it was {}", reader.shown(says, 32))),
        None if states_error(&json) => refused(classify_json(status, headers, &json, reader)),
        None => Look::Again("the response did not say how it stands".to_owned()),
    }
}

/// A look that failed: either it passes, or it ends the fetch.
fn refused(failure: Failure) -> Look {
    if failure.code == TASK_UNKNOWN {
        return Look::Ended(failed(unknown(&failure.message, failure.status_code)));
    }
    let passes = match failure.class {
        // Too large a response is so at every look.
        FailureClass::ServerTransient => failure.code != code::BODY_TOO_LARGE,
        FailureClass::Throttle
        | FailureClass::Overload
        | FailureClass::QuotaWindow
        | FailureClass::ForeignAnswer
        | FailureClass::Unreachable => true,
        FailureClass::OperatorFatal
        | FailureClass::RequestFatal
        | FailureClass::Unattributed
        | FailureClass::DuplicateRequest => false,
    };
    if passes {
        return Look::Again(failure.to_string());
    }
    Look::Ended(failed(Failure {
        maybe_billed: true,
        ..failure
    }))
}

/// A task that can't be fetched by anybody here. Not the job's fault, as 1233 would be by the table:
/// the job is called anew. Another account may have been billed for it.
fn unknown(why: &str, status_code: Option<u16>) -> Failure {
    Failure {
        status_code,
        maybe_billed: true,
        ..Failure::new(
            FailureClass::ServerTransient,
            TASK_UNKNOWN,
            bounded(format!("GLM does not know the task for this key: {why}")),
        )
    }
}

/// A task that ended with FAIL. A code says what of, as in a refusal; without one nobody knows what
/// was done and billed.
fn task_failed(status: u16, headers: &HeaderMap, json: &Value, reader: &Reader<'_>) -> Failure {
    if states_error(json) {
        return classify_json(status, headers, json, reader);
    }
    Failure {
        status_code: Some(status),
        maybe_billed: true,
        ..Failure::new(
            FailureClass::ServerTransient,
            code::TASK_FAILED,
            "the task failed (task_status FAIL) and GLM does not say why",
        )
    }
}

fn not_done(task_id: &str, total_ms: u64, seen: &str) -> Failure {
    Failure {
        maybe_billed: true,
        ..Failure::new(
            FailureClass::ServerTransient,
            code::TIMEOUT_TOTAL,
            bounded(format!(
                "task {task_id} was not done within {total_ms} ms; at the last look {seen}"
            )),
        )
    }
}

fn bounded(message: String) -> String {
    match message
        .char_indices()
        .nth(limits::FAILURE_MESSAGE_CHARS_MAX)
    {
        Some((end, _)) => message.get(..end).unwrap_or_default().to_owned(),
        None => message,
    }
}

/// What a response says, without what a relay wrapped around it: the envelope of GLM's older API among that.
fn document(text: &str) -> serde_json::Result<Value> {
    let first = layers::documents(text).and_then(|all| all.into_iter().next());
    let json = bounded::excerpt(first.as_deref().unwrap_or(text))?;
    let says_something = task_status(&json).is_some()
        || ["id", "choices"]
            .iter()
            .any(|name| json.get(*name).is_some())
        || states_error(&json);
    Ok(match json.get("data") {
        Some(data @ Value::Object(_)) if !says_something => data.clone(),
        _ => json,
    })
}

fn task_status(json: &Value) -> Option<&str> {
    json.get("task_status").and_then(Value::as_str)
}

/// Whether an id may stand in a path: nothing in it leads elsewhere.
pub(super) fn is_task_id(id: &str) -> bool {
    (1..=limits::TASK_ID_CHARS_MAX).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}
