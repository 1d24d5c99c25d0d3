//! `GLMRequestQueue`: a job with what its bodies, its waiting and its attempts add to it.

use std::sync::Arc;

use onelane_actors::ports::JobRecord;
use onelane_core::model::{
    AnswerBody, AttemptPhase, Job, OpenAttempt, Received, Request, Timestamp, ToldWait, WaitReason,
};
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::CallView;
use super::excerpt::Excerpt;

/// Who looks at a job. What its submitter keeps to themselves is not for everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Who runs the lane, and the submitter: idempotency key and metadata, too.
    Owner,
    /// Who may look, and sees nothing that is the submitter's own.
    Viewer,
}

/// A job. Fields that a job does not have are left out.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "GLMRequestQueue")]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobView {
    #[serde(flatten)]
    job: Job,
    /// The prompt, or what the user said last in a chat; in lists its beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
    /// A chat body verbatim; only in the whole job.
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<ChatBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<String>,
    /// GLM's answer verbatim; only in the whole job, `null` there once it was pruned.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Arc<RawValue>>,
    /// What GLM sent instead of an answer, verbatim, and as a text where it is no JSON; only in the whole job, of one
    /// that failed with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<Arc<RawValue>>,
    /// The beginning of the answer's text; only in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    result_preview: Option<String>,
    /// When the call that is open was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
    /// Why it is not running now; of a job that waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    wait_reason: Option<ToldWait>,
    /// Where its end is told; only in the whole job, and not for viewers.
    #[serde(skip_serializing_if = "Option::is_none")]
    callback_url: Option<String>,
    /// Not for viewers.
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
    /// The submitter's own JSON, as it came; not for viewers.
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Box<RawValue>>,
    /// The call log of the job; only where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<Vec<CallView>>,
}

/// What came instead of an answer, as JSON.
fn told(came: &Received) -> Option<Arc<RawValue>> {
    let told = match came.json() {
        None if came.bytes().is_empty() => return None,
        Some(json) => json.to_owned(),
        None => serde_json::value::to_raw_value(&came.text()).ok()?,
    };
    Some(told.into())
}

impl JobView {
    /// For its owner, with all of prompt and answer, verbatim.
    pub(crate) fn whole(record: JobRecord) -> Self {
        let JobRecord {
            job,
            request,
            response,
            refusal,
        } = record;
        let callback_url = job.callback_url.clone();
        let view = Self::of(job, Audience::Owner);
        let (prompt, request, result) = match view.job.bodies_pruned {
            true => (None, None, Some(RawValue::NULL.to_owned().into())),
            false => (
                request.as_deref().and_then(Request::text),
                request.and_then(ChatBody::of),
                response.map(AnswerBody::into_json),
            ),
        };
        Self {
            prompt,
            request,
            result,
            refusal: refusal.and_then(|came| told(&came)),
            callback_url,
            ..view
        }
    }

    /// With the beginnings of prompt and answer.
    pub(crate) fn preview(job: Job, excerpt: &Excerpt, audience: Audience) -> Self {
        Self {
            prompt: excerpt.prompt.clone(),
            result_preview: excerpt.answer.clone(),
            ..Self::of(job, audience)
        }
    }

    /// Without prompt and answer.
    fn of(mut job: Job, audience: Audience) -> Self {
        let sent = |open: &OpenAttempt| open.phase == AttemptPhase::Started;
        let (key, metadata) = (job.idempotency_key.take(), job.metadata.take());
        let (idempotency_key, metadata) = match audience {
            Audience::Owner => (key, metadata),
            Audience::Viewer => (None, None),
        };
        Self {
            prompt: None,
            request: None,
            error_message: job.error.as_ref().map(|failure| failure.message.clone()),
            result: None,
            refusal: None,
            result_preview: None,
            started_at: job.open.filter(sent).map(|open| open.at),
            wait_reason: None,
            callback_url: None,
            idempotency_key,
            metadata,
            attempts: None,
            job,
        }
    }

    /// With its call log.
    pub(crate) fn with_attempts(mut self, attempts: Vec<CallView>) -> Self {
        self.attempts = Some(attempts);
        self
    }

    /// With the reason for which it waits.
    pub(crate) fn with_wait(mut self, reason: Option<WaitReason>) -> Self {
        self.wait_reason = reason.map(ToldWait::from);
        self
    }
}

/// The body of a face, verbatim.
#[derive(Debug, JsonSchema)]
#[schemars(inline)]
struct ChatBody(#[schemars(with = "serde_json::Map<String, serde_json::Value>")] Arc<Request>);

impl ChatBody {
    fn of(request: Arc<Request>) -> Option<Self> {
        matches!(*request, Request::Body(..)).then_some(Self(request))
    }
}

impl Serialize for ChatBody {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &*self.0 {
            Request::Body(_, raw) => raw.serialize(serializer),
            Request::Prompt(text) => text.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use onelane_core::model::{OnInterrupted, Parked};

    use super::*;
    use crate::views::tests::sample;

    /// With so many characters of its bodies, or whole.
    fn view(record: &JobRecord, chars: Option<usize>) -> Value {
        let view = match chars {
            Some(chars) => {
                let excerpt = Excerpt::of(record, chars);
                JobView::preview(record.job.clone(), &excerpt, Audience::Owner)
            }
            None => JobView::whole(record.clone()),
        };
        serde_json::to_value(view).unwrap()
    }

    #[test]
    fn a_waiting_job_shows_its_fields_and_leaves_out_what_it_has_not() {
        let record = sample::waiting(1);
        assert_eq!(
            view(&record, Some(200)),
            json!({
                "id": sample::id(1),
                "userId": "default",
                "prompt": "prompt 1",
                "model": "glm-4.7",
                "priority": 0,
                "status": "pending",
                "retryCount": 0,
                "maxRetries": 3,
                "attemptCount": 0,
                "createdAt": "2026-11-23T08:00:00.000Z",
            })
        );
    }

    #[test]
    fn a_job_shows_the_reason_for_which_it_waits_whichever_that_is() {
        for reason in onelane_actors::testing::waits::wait_reasons() {
            let record = sample::waiting(1);
            let view = JobView::whole(record).with_wait(Some(reason.clone()));
            let shown = &serde_json::to_value(view).unwrap()["waitReason"];
            assert_eq!(shown["name"], reason.name());
            assert_eq!(shown["text"], reason.to_string());
        }
    }

    #[test]
    fn a_job_shows_what_it_waits_for_and_who_served_it() {
        let mut record = sample::waiting(3);
        let job = &mut record.job;
        job.after = vec![sample::id(1), sample::id(2)];
        job.waits_for = vec![sample::id(2)];
        job.served_by = Some("glm-4.5-air".to_owned());
        job.throttles = 7;
        job.unpriced = true;
        job.on_interrupted = Some(OnInterrupted::Park);
        job.run_at = Some(sample::NOW);
        job.parked = Some(Parked {
            since: sample::NOW,
            attempt: onelane_core::model::AttemptNo(2),
        });
        let view = view(&record, Some(0));
        assert_eq!(view["after"], json!([sample::id(1), sample::id(2)]));
        assert_eq!(view["waitsFor"], json!([sample::id(2)]));
        assert_eq!(view["servedBy"], "glm-4.5-air");
        assert_eq!(view["throttles"], 7);
        assert_eq!(view["unpriced"], true);
        assert_eq!(view["onInterrupted"], "park");
        assert_eq!(view["runAt"], "2026-11-23T08:00:00.000Z");
        assert_eq!(
            view["parked"],
            json!({"since": "2026-11-23T08:00:00.000Z", "attempt": 2})
        );
    }

    #[test]
    fn a_failed_job_says_why() {
        let mut record = sample::failed(1);
        record.job.metadata = Some(RawValue::from_string("[1.50]".to_owned()).unwrap());
        let view = view(&record, None);
        assert_eq!(view["errorMessage"], "max_tokens too large");
        assert_eq!(
            view["error"],
            json!({"class": "request_fatal", "code": "1210", "message": "max_tokens too large",
                   "statusCode": 400, "maybeBilled": false})
        );
        assert_eq!(view["processedAt"], "2026-11-23T08:00:02.000Z");
        assert_eq!(view["metadata"], json!([1.5]));
    }

    #[test]
    fn a_list_cuts_prompt_and_answer_and_zero_hides_them() {
        let record = sample::completed(1);
        let cut = view(&record, Some(4));
        assert_eq!(cut["prompt"], "prom…");
        assert_eq!(cut["resultPreview"], "answ…");
        assert_eq!(cut.get("result"), None);
        let hidden = view(&record, Some(0));
        assert_eq!(hidden.get("prompt"), None);
        assert_eq!(hidden.get("resultPreview"), None);
    }

    #[test]
    fn a_job_whose_bodies_were_pruned_says_so() {
        let mut record = sample::completed(1);
        record.job.bodies_pruned = true;
        record.request = None;
        record.response = None;
        let whole = view(&record, None);
        assert_eq!(whole["bodiesPruned"], true);
        assert_eq!(whole["result"], Value::Null);
        assert!(whole.as_object().unwrap().contains_key("result"));
        assert_eq!(whole.get("prompt"), None);
        let listed = view(&record, Some(9));
        assert_eq!(listed["bodiesPruned"], true);
        assert_eq!(listed.get("resultPreview"), None);
    }

    #[test]
    fn the_whole_job_has_request_and_answer_to_the_byte() {
        let body = r#"{"messages":[{"role":"user","content":"hi"}],"top_p":0.90,"x":null}"#;
        let mut record = sample::completed(1);
        record.request = Some(std::sync::Arc::new(Request::chat(body).unwrap()));
        let text = serde_json::to_string(&JobView::whole(record)).unwrap();
        assert!(text.contains(&format!(r#""request":{body}"#)), "{text}");
        assert!(
            text.contains(&format!(r#""result":{}"#, sample::ANSWER)),
            "{text}"
        );
        assert!(text.contains(r#""prompt":"hi""#));
    }
}
