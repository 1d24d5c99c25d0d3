//! `GLMCallLog`: one attempt as clients see it.

use onelane_actors::model::{CallOutcome, CallRecord, Currency, JobId, Request, Timestamp, Usage};
use onelane_actors::ports::JobRecord;
use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::value::RawValue;

use super::billing::BillingView;
use super::excerpt::{answer_text, cut, prompt_text};
use super::job::FailureView;
use super::{decimal, rfc3339};
use crate::api::fields::Object;
use crate::api::limits;

/// The parameters of a chat body that the call log shows; its messages and tools are the job's.
const PARAMETERS: [&str; 11] = [
    "do_sample",
    "temperature",
    "top_p",
    "max_tokens",
    "stream",
    "tool_choice",
    "stop",
    "response_format",
    "thinking",
    "reasoning_effort",
    "seed",
];

/// One row of the call log. Prompt and answer are previews; the job has them whole.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CallView<'a> {
    /// The `request_id` that GLM saw.
    id: &'a str,
    /// The job.
    request_id: JobId,
    attempt: u32,
    user_id: &'a str,
    endpoint: &'a str,
    model: &'a str,
    request: RequestView<'a>,
    response: ResponseView<'a>,
    /// `null` when nothing was billed or the price is unknown.
    cost: Option<Box<RawValue>>,
    currency: Option<Currency>,
    retry_count: u32,
    #[serde(serialize_with = "rfc3339")]
    timestamp: Timestamp,
    #[serde(serialize_with = "rfc3339")]
    ended_at: Timestamp,
    outcome: CallOutcome,
    maybe_billed: bool,
    /// What somebody found out about an attempt that was maybe billed.
    #[serde(skip_serializing_if = "Option::is_none")]
    billing: Option<BillingView>,
}

#[derive(Debug, Serialize)]
struct RequestView<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
    parameters: Parameters<'a>,
}

/// The model as called, and what of [`PARAMETERS`] the request carried, verbatim.
#[derive(Debug)]
struct Parameters<'a> {
    model: &'a str,
    given: Object,
}

impl Serialize for Parameters<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("model", self.model)?;
        for name in PARAMETERS {
            let value = self.given.get(name);
            if let Some(value) = value.filter(|v| v.get().len() <= limits::PARAMETER_BYTES_SHOWN) {
                map.serialize_entry(name, value)?;
            }
        }
        map.end()
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ResponseView<'a> {
    success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<FailureView<'a>>,
    status_code: Option<u16>,
    response_time: u64,
    tokens_used: u64,
    usage: UsageView,
}

/// Tokens.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UsageView {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    cached_tokens: u64,
    reasoning_tokens: u64,
}

impl UsageView {
    pub(super) const fn new(usage: &Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.total_tokens,
            cached_tokens: usage.cached_tokens,
            reasoning_tokens: usage.reasoning_tokens,
        }
    }
}

impl<'a> CallView<'a> {
    /// The view of an attempt. `record` is its job, if that is still there; of its prompt and
    /// answer so many characters are shown.
    pub(crate) fn new(
        call: &'a CallRecord,
        record: Option<&JobRecord>,
        preview_chars: usize,
    ) -> Self {
        let success = call.outcome == CallOutcome::Completed;
        let prompt = record.and_then(|record| prompt_text(record.request.as_deref()?));
        // The one attempt that succeeded brought the answer that the job has.
        let answer = record
            .filter(|_| success)
            .and_then(|record| answer_text(record.response.as_deref()?));
        Self {
            id: call.request_id.as_str(),
            request_id: call.job_id,
            attempt: call.attempt.0,
            user_id: &call.user_id,
            endpoint: &call.endpoint,
            model: &call.model,
            request: RequestView {
                prompt: prompt.and_then(|text| cut(&text, preview_chars)),
                parameters: Parameters {
                    model: &call.model,
                    given: record.map(chat_fields).unwrap_or_default(),
                },
            },
            response: ResponseView {
                success,
                data: answer.and_then(|text| cut(&text, preview_chars)),
                error: call.failure.as_ref().map(FailureView::new),
                status_code: call.status_code,
                response_time: call.response_time_ms,
                tokens_used: call.usage.total_tokens,
                usage: UsageView::new(&call.usage),
            },
            cost: call.cost.map(decimal),
            currency: call.cost.map(|cost| cost.currency),
            retry_count: call.retry_count,
            timestamp: call.started_at,
            ended_at: call.ended_at,
            outcome: call.outcome,
            maybe_billed: call.maybe_billed,
            billing: call.billing.as_ref().map(BillingView::new),
        }
    }
}

fn chat_fields(record: &JobRecord) -> Object {
    match record.request.as_deref() {
        None | Some(Request::Prompt(_)) => Object::default(),
        Some(Request::Chat(raw)) => Object::read(raw).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::tests::sample;

    #[test]
    fn a_call_shows_request_response_and_exact_cost() {
        let body = r#"{"messages":[{"role":"user","content":"prompt 1"}],"top_p":0.90,
            "thinking":{"type":"disabled"},"tools":[{"type":"function"}],"seed":null}"#;
        let mut record = sample::completed(1);
        record.request = Some(std::sync::Arc::new(Request::chat(body).unwrap()));
        let call = sample::call(&record);
        let view = CallView::new(&call, Some(&record), 6);
        let text = serde_json::to_string(&view).unwrap();
        assert!(
            text.contains(r#""cost":0.000000001,"currency":"CNY""#),
            "{text}"
        );
        let view = serde_json::to_value(&view).unwrap();
        assert_eq!(
            view["request"],
            json!({"prompt": "prompt…", "parameters":
                {"model": "glm-4.7", "top_p": 0.9, "thinking": {"type": "disabled"}}})
        );
        assert_eq!(
            view["response"],
            json!({"success": true, "data": "answer…", "statusCode": 200, "responseTime": 1_500,
                "tokensUsed": 30, "usage": {"promptTokens": 10, "completionTokens": 20,
                "totalTokens": 30, "cachedTokens": 4, "reasoningTokens": 0}})
        );
        assert_eq!(view["requestId"], sample::id(1).to_string());
        assert_eq!(view["timestamp"], "2026-11-23T08:00:00.500Z");
        assert_eq!(view["outcome"], "completed");
    }

    #[test]
    fn a_call_of_a_pruned_job_with_an_unknown_price_is_shown_too() {
        let mut call = sample::call(&sample::completed(1));
        call.cost = None;
        let view = serde_json::to_value(CallView::new(&call, None, 200)).unwrap();
        assert_eq!(view["cost"], json!(null));
        assert_eq!(view["currency"], json!(null));
        assert_eq!(view["request"], json!({"parameters": {"model": "glm-4.7"}}));
    }
}
