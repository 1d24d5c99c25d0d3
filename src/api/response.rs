//! A job as the response that it is: under an id of ours, with GLM's answer or with how far it is.

use onelane_actors::ports::JobRecord;
use onelane_core::model::{Job, JobStatus, Request, ResponseId};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use warp::http::StatusCode;

use super::answer::{JSON, Reply};
use super::edit::{Edit, edited, place};
use super::ended::{stated, told_by_glm};
use crate::object::Object;

/// What of a response is ours wherever GLM tells of it.
pub(super) struct Ours {
    /// Its id.
    id: ResponseId,
    /// That of the response that it goes on from, where that is one of ours.
    previous: Option<ResponseId>,
}

impl Ours {
    pub(super) fn of(job: &Job) -> Self {
        Self {
            id: ResponseId(job.id),
            previous: job.previous.map(ResponseId),
        }
    }

    /// The id of the response.
    #[cfg(test)]
    pub(super) const fn id(&self) -> ResponseId {
        self.id
    }

    /// GLM's answer with our ids, and as one of the background; the rest of it to the byte.
    pub(super) fn on(&self, answer: &RawValue) -> Option<String> {
        Some(edited(answer.get(), self.edits(answer.get(), answer)?))
    }

    /// What is to stand in place of GLM's in an answer, which is a part of this text.
    pub(super) fn edits(&self, text: &str, answer: &RawValue) -> Option<Vec<Edit>> {
        let fields: Object<'_> = serde_json::from_str(answer.get()).ok()?;
        let quoted = |id: ResponseId| format!("\"{id}\"");
        let own = [
            ("id", Some(quoted(self.id))),
            ("background", Some("true".to_owned())),
            ("previous_response_id", self.previous.map(quoted)),
        ];
        let own: Vec<_> = own
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        let missing = own.iter().filter(|(name, _)| fields.get(name).is_none());
        let missing: Vec<String> = missing
            .map(|(name, value)| format!("\"{name}\":{value}"))
            .collect();
        let mut edits = Vec::new();
        if !missing.is_empty() {
            let begin = place(answer.get(), text)?.start + 1;
            let comma = match fields.iter().next() {
                Some(_) => ",",
                None => "",
            };
            edits.push(Edit {
                at: begin..begin,
                text: missing.join(",") + comma,
            });
        }
        for (name, value) in fields.iter() {
            if let Some((_, own)) = own.iter().find(|(known, _)| *known == name) {
                edits.push(Edit {
                    at: place(value.get(), text)?,
                    text: own.clone(),
                });
            }
        }
        Some(edits)
    }
}

/// A job as the response that it is: GLM's answer under our id, or how far it is.
pub(super) fn shown(record: &JobRecord) -> Reply {
    let job = &record.job;
    let body = told_by_glm(record).and_then(|answer| Ours::of(job).on(answer));
    if let Some(body) = body {
        return Reply::text(StatusCode::OK, JSON, body.into_bytes());
    }
    Reply::json(StatusCode::OK, &object(record, job.status.of_response()))
}

/// A job as a response without an answer, that stands as this word says.
pub(super) fn object(record: &JobRecord, status: &str) -> Value {
    let job = &record.job;
    let failure = job
        .error
        .as_ref()
        .filter(|_| job.status == JobStatus::Failed);
    let error = failure.map(|failure| {
        let code = stated(failure).code;
        json!({"code": code, "message": failure.message})
    });
    let asked = record.request.as_deref().and_then(|request| match request {
        Request::Body(_, raw) => serde_json::from_str::<Object<'_>>(raw.get()).ok(),
        Request::Prompt(_) => None,
    });
    let asked = asked.unwrap_or_default();
    // As the client said it, whatever it is.
    let echoed = |name: &str, otherwise: Value| {
        let value = asked.get(name);
        let value = value.and_then(|value| serde_json::from_str(value.get()).ok());
        value.unwrap_or(otherwise)
    };
    let previous = match job.previous {
        Some(previous) => json!(ResponseId(previous).to_string()),
        None => echoed("previous_response_id", Value::Null),
    };
    json!({
        "id": ResponseId(job.id).to_string(),
        "object": "response",
        "created_at": job.created_at.as_millis() / 1_000,
        "status": status,
        "background": true,
        "error": error,
        "incomplete_details": null,
        "instructions": echoed("instructions", Value::Null),
        "max_output_tokens": echoed("max_output_tokens", Value::Null),
        "metadata": echoed("metadata", json!({})),
        "model": job.spelled.as_deref().unwrap_or(&job.model),
        "output": [],
        "parallel_tool_calls": echoed("parallel_tool_calls", Value::Bool(true)),
        "previous_response_id": previous,
        "temperature": echoed("temperature", Value::Null),
        "tool_choice": echoed("tool_choice", json!("auto")),
        "tools": echoed("tools", json!([])),
        "top_p": echoed("top_p", Value::Null),
        "usage": null,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use onelane_core::model::{Face, Failure, FailureClass, Received};

    use super::*;
    use crate::views::tests::sample;

    #[test]
    fn an_answer_that_says_that_it_failed_is_shown_as_glm_told_it() {
        let body =
            r#"{"object":"response","status":"failed","error":{"code":"x"},"output":[{"id":"m"}]}"#;
        let mut record = sample::completed(1);
        record.job.face = Face::Responses;
        record.job.status = JobStatus::Failed;
        record.job.error = Some(Failure {
            status_code: Some(200),
            ..Failure::new(FailureClass::ServerTransient, "x", "m")
        });
        record.response = None;
        record.refusal = Some(Arc::new(Received::new(body.as_bytes(), None)));
        let told = String::from_utf8(shown(&record).into_bytes()).unwrap();
        assert!(told.contains(r#""output":[{"id":"m"}]"#), "{told}");
        let id = ResponseId(record.job.id).to_string();
        assert!(told.contains(&id), "{told}");
    }

    #[test]
    fn glms_answer_is_shown_under_our_ids_and_else_to_the_byte() {
        let raw = |json: &str| RawValue::from_string(json.to_owned()).unwrap();
        let mut ours = Ours {
            id: ResponseId(sample::id(1)),
            previous: None,
        };
        let id = ours.id.to_string();
        let shown = ours.on(&raw(
            r#"{"object":"response","id":"g","x":1.50,"background":false,"previous_response_id":"h"}"#,
        ));
        let want = format!(
            r#"{{"object":"response","id":"{id}","x":1.50,"background":true,"previous_response_id":"h"}}"#
        );
        assert_eq!(shown.unwrap(), want);
        let shown = ours.on(&raw(r#"{"output":[]}"#)).unwrap();
        assert_eq!(
            shown,
            format!(r#"{{"id":"{id}","background":true,"output":[]}}"#)
        );
        let before = ResponseId(sample::id(2));
        // Whatever stands between its fields.
        let shown = ours.on(&raw(
            "{ \"id\" :\n\"g\",\t\"background\":true, \"x\": [ 1 ] }",
        ));
        let want = format!("{{ \"id\" :\n\"{id}\",\t\"background\":true, \"x\": [ 1 ] }}");
        assert_eq!(shown.unwrap(), want);
        let shown = ours.on(&raw("{}")).unwrap();
        assert_eq!(shown, format!(r#"{{"id":"{id}","background":true}}"#));
        ours.previous = Some(before);
        let shown = ours.on(&raw(
            r#"{"id":"g","background":true,"previous_response_id":"h"}"#,
        ));
        let want =
            format!(r#"{{"id":"{id}","background":true,"previous_response_id":"{before}"}}"#);
        assert_eq!(shown.unwrap(), want);
    }
}
