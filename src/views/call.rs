//! `GLMCallLog`: one attempt as clients see it.

use std::borrow::Cow;

use onelane_core::model::{
    Billing, CallOutcome, CallRecord, Currency, Failure, JobId, Nanos, Parts, PassedHeaders,
    PriceUsed, SessionId, Substitution, Timestamp, Usage, amount,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::value::RawValue;

use super::excerpt::Excerpt;

/// One row of the call log. Prompt and answer are previews; the job has them whole.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "GLMCallLog")]
#[serde(rename_all = "camelCase")]
pub(crate) struct CallView {
    /// The `request_id` that GLM saw.
    id: String,
    /// The job.
    request_id: JobId,
    attempt: u32,
    user_id: String,
    /// The session that it was a call of.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<SessionId>,
    endpoint: String,
    model: String,
    /// The model that answered, as the answer names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    answered_by: Option<String>,
    /// The headers by which GLM names the call, for whoever asks about it there.
    #[serde(skip_serializing_if = "PassedHeaders::is_empty")]
    call_ids: PassedHeaders,
    /// Another model answered than the one that was called, and what that means for the cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    substitution: Option<Substitution>,
    request: RequestView,
    response: ResponseView,
    /// Where its time went, in milliseconds, as far as that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    parts: Option<PartsView>,
    /// `null` when nothing was billed or the cost is unknown.
    #[serde(serialize_with = "amount::optional")]
    #[schemars(with = "Option<f64>")]
    cost: Option<Nanos>,
    currency: Option<Currency>,
    /// GLM billed it at a cost that is not known: the model has no price, or no usage was reported.
    unpriced: bool,
    /// The prices that the cost was worked out by.
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<PriceUsed>,
    retry_count: u32,
    timestamp: Timestamp,
    ended_at: Timestamp,
    outcome: CallOutcome,
    maybe_billed: bool,
    /// What somebody found out about an attempt that was maybe billed.
    #[serde(skip_serializing_if = "Option::is_none")]
    billing: Option<Billing>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "CallRequest")]
struct RequestView {
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
    parameters: Parameters,
}

/// The model as called, and what the request carried beside its messages.
#[derive(Debug)]
struct Parameters {
    model: String,
    given: Vec<(&'static str, Box<RawValue>)>,
}

impl JsonSchema for Parameters {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Parameters".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "properties": {"model": {"type": "string"}},
            "required": ["model"],
        })
    }
}

impl Serialize for Parameters {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("model", &self.model)?;
        for (name, value) in &self.given {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "CallResponse")]
#[serde(rename_all = "camelCase")]
struct ResponseView {
    success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
    status_code: Option<u16>,
    response_time: u64,
    tokens_used: u64,
    usage: Usage,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "CallParts")]
struct PartsView {
    #[serde(flatten)]
    parts: Parts,
    /// From the first token to the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    decode: Option<u64>,
}

impl CallView {
    /// The view of an attempt. `excerpt` is of its job, if that is still there.
    pub(crate) fn new(call: CallRecord, excerpt: Option<&Excerpt>) -> Self {
        let unpriced = call.is_unpriced();
        let parts = (!call.parts.is_nothing()).then(|| PartsView {
            parts: call.parts,
            decode: call.decode_ms(),
        });
        let model = call.model.clone();
        let success = call.outcome == CallOutcome::Completed;
        // The one attempt that succeeded brought the answer that the job has.
        let answer = excerpt.filter(|_| success);
        Self {
            id: call.request_id.to_string(),
            request_id: call.job_id,
            attempt: call.attempt.0,
            user_id: call.user_id,
            session: call.session,
            endpoint: call.endpoint,
            model: call.model,
            answered_by: call.answered_by,
            call_ids: call.call_ids,
            substitution: call.substitution,
            request: RequestView {
                prompt: excerpt.and_then(|excerpt| excerpt.prompt.clone()),
                parameters: Parameters {
                    model,
                    given: excerpt.map_or_else(Vec::new, |excerpt| excerpt.parameters.clone()),
                },
            },
            response: ResponseView {
                success,
                data: answer.and_then(|excerpt| excerpt.answer.clone()),
                error: call.failure,
                status_code: call.status_code,
                response_time: call.response_time_ms,
                tokens_used: call.usage.total_tokens,
                usage: call.usage,
            },
            parts,
            cost: call.cost.map(|cost| cost.nanos),
            currency: call.cost.map(|cost| cost.currency),
            unpriced,
            price: call.price,
            retry_count: call.retry_count,
            timestamp: call.started_at,
            ended_at: call.ended_at,
            outcome: call.outcome,
            maybe_billed: call.maybe_billed,
            billing: call.billing,
        }
    }
}

#[cfg(test)]
mod tests {
    use onelane_core::model::Request;
    use serde_json::json;

    use super::*;
    use crate::views::tests::sample;

    #[test]
    fn a_call_shows_request_response_and_exact_cost() {
        let body = r#"{"messages":[{"role":"user","content":"prompt 1"}],"top_p":0.90,
            "thinking":{"type":"disabled"},"tools":[{"type":"function"}],"seed":null}"#;
        let mut record = sample::completed(1);
        record.request = Some(std::sync::Arc::new(Request::chat(body).unwrap()));
        let mut call = sample::call(&record);
        call.price = Some(sample::price());
        let excerpt = Excerpt::of(&record, 6);
        let view = CallView::new(call, Some(&excerpt));
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
        assert_eq!(
            view["price"],
            json!({"table": "2026-11-23", "promptFrom": 0, "completionFrom": 200, "input": 3,
                "cachedInput": 0.6, "output": 14, "currency": "CNY"})
        );
        assert_eq!(view["unpriced"], json!(false));
        assert_eq!(view["requestId"], sample::id(1).to_string());
        assert_eq!(view["timestamp"], "2026-11-23T08:00:00.500Z");
        assert_eq!(view["outcome"], "completed");
    }

    #[test]
    fn a_call_of_a_pruned_job_with_an_unknown_price_is_shown_too() {
        let mut call = sample::call(&sample::completed(1));
        call.cost = None;
        let view = serde_json::to_value(CallView::new(call, None)).unwrap();
        assert_eq!(view["cost"], json!(null));
        assert_eq!(view["currency"], json!(null));
        assert_eq!(view["unpriced"], json!(true));
        assert_eq!(view.get("price"), None);
        assert_eq!(view["request"], json!({"parameters": {"model": "glm-4.7"}}));
    }
}
