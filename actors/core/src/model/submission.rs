//! What somebody who submits a job says, and the checks at the door.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    BatchId, Currency, Face, JobId, KeyId, OnInterrupted, OverRate, PassedHeaders, Request,
    RequestError, Session, Settings, Timestamp, TraceContext, TraceOrigin, Unpriced, limits,
};

/// The moment by which a job has to be done. A moment in time becomes one by itself; the lane's clock
/// says what a span comes to, when the job is submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// This moment.
    At(Timestamp),
    /// So many milliseconds after the job is submitted.
    InMs(u64),
}

impl Deadline {
    /// The moment, for a job that is submitted `now`.
    #[must_use]
    pub fn moment(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::InMs(ms) => now.plus_ms(ms),
        }
    }
}

impl From<Timestamp> for Deadline {
    fn from(at: Timestamp) -> Self {
        Self::At(at)
    }
}

/// A job as it is submitted. Fields that are `None` take the configured default.
#[derive(Debug, Clone)]
pub struct Submission {
    /// What to ask GLM.
    pub request: Request,
    /// The model; a chat body's own `model` counts when this is `None`.
    pub model: Option<String>,
    /// Whose job it is.
    pub user_id: String,
    /// What it is about, in the submitter's own terms.
    pub content_id: Option<String>,
    /// The session that it is a call of; `None`: none, or that of its conversation where `gateway.sessions` is "derive".
    pub session: Option<Session>,
    /// The batch that it belongs to; it has to be open.
    pub batch_id: Option<BatchId>,
    /// Higher is more urgent; `None`: 0, or what the client key says.
    pub priority: Option<i32>,
    /// Retries of transient failures.
    pub max_retries: Option<u32>,
    /// Not before this moment.
    pub run_at: Option<Timestamp>,
    /// Fails if not done by this moment.
    pub deadline: Option<Deadline>,
    /// The process whose connection takes the answer; set by whoever waits for it.
    pub bound_to: Option<u64>,
    /// The total time of one call, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// The same key of the same user with the same request gives the same job.
    pub idempotency_key: Option<String>,
    /// The jobs that have to be completed before it runs; it fails or is cancelled with them.
    pub after: Vec<JobId>,
    /// What becomes of it when its call is interrupted; `None`: as configured.
    pub on_interrupted: Option<OnInterrupted>,
    /// Where its end is to be told; only hosts that the operator allows.
    pub callback_url: Option<String>,
    /// Any JSON of the submitter's own, kept as it came.
    pub metadata: Option<Box<RawValue>>,
    /// Headers of its client that GLM gets, those alone that belong to the protocol of its face.
    pub headers: PassedHeaders,
    /// The span that it is done for. Kept where the lane exports traces.
    pub trace: Option<Box<TraceOrigin>>,
    /// The client key by which it is handed in; set by whoever has looked at the key's rights.
    pub key_id: Option<KeyId>,
    /// The minute of that key has no room for it: it is taken only if it is there already. Set by whoever counts.
    pub over_rate: Option<OverRate>,
}

/// Why a submission is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmissionError {
    /// A field is wrong.
    #[error("{field}: {problem}")]
    Field {
        /// The field, by its name in the API.
        field: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The model has no price, and such are refused.
    #[error(transparent)]
    Unpriced(#[from] UnpricedModel),
}

/// A model without a price, where such are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "model {model} has no price in {currency}, and money.unpriced is \"refuse\"; add its price to \
     money.prices, or set money.unpriced to \"allow\""
)]
pub struct UnpricedModel {
    /// The model.
    pub model: String,
    /// What the list in force counts in.
    pub currency: Currency,
}

impl SubmissionError {
    fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Field {
            field,
            problem: problem.into(),
        }
    }
}

impl From<RequestError> for SubmissionError {
    fn from(error: RequestError) -> Self {
        let field = match error {
            RequestError::EmptyPrompt => "prompt",
            RequestError::NoMessages => "messages",
            RequestError::NoInput => "input",
            RequestError::BadModel => "model",
            RequestError::NotAnObject(_)
            | RequestError::TooMany { .. }
            | RequestError::TooLarge { .. }
            | RequestError::GivenTwice(_)
            | RequestError::HalfACharacter(_) => "request",
        };
        Self::new(field, error.to_string())
    }
}

/// The user of a submission that names none.
pub const DEFAULT_USER: &str = "default";

impl Submission {
    /// A submission of a request with every default: user `default`, priority 0.
    #[must_use]
    pub fn new(request: Request) -> Self {
        Self {
            request,
            model: None,
            user_id: DEFAULT_USER.to_owned(),
            content_id: None,
            session: None,
            batch_id: None,
            priority: None,
            max_retries: None,
            run_at: None,
            deadline: None,
            bound_to: None,
            headers: PassedHeaders::default(),
            trace: None,
            timeout_ms: None,
            idempotency_key: None,
            after: Vec::new(),
            on_interrupted: None,
            callback_url: None,
            metadata: None,
            key_id: None,
            over_rate: None,
        }
    }

    /// A plain prompt. Errors when it is empty or too large.
    pub fn prompt(text: impl Into<String>) -> Result<Self, SubmissionError> {
        Ok(Self::new(Request::prompt(text)?))
    }

    /// A chat body from its JSON text, kept verbatim. Errors when it is no object or has no messages.
    pub fn chat(json: &str) -> Result<Self, SubmissionError> {
        Self::body(Face::Chat, json)
    }

    /// The body of a face from its JSON text, kept verbatim; see [`Request::body`].
    pub fn body(face: Face, json: &str) -> Result<Self, SubmissionError> {
        Ok(Self::new(Request::body(face, json)?))
    }

    /// Retried this often after transient failures, at most [`limits::MAX_RETRIES_MAX`] times.
    #[must_use]
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.max_retries = Some(retries);
        self
    }

    /// With this priority; higher is more urgent.
    #[must_use]
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = Some(priority);
        self
    }

    /// For this model.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// For this user.
    #[must_use]
    pub fn user(mut self, user_id: impl Into<String>) -> Self {
        self.user_id = user_id.into();
        self
    }

    /// About this content.
    #[must_use]
    pub fn content_id(mut self, content_id: impl Into<String>) -> Self {
        self.content_id = Some(content_id.into());
        self
    }

    /// A call of this session: a [`SessionId`](super::SessionId), or one by GLM's own name of it.
    #[must_use]
    pub fn session(mut self, session: impl Into<Session>) -> Self {
        self.session = Some(session.into());
        self
    }

    /// A job of this batch, which has to be open.
    #[must_use]
    pub fn batch(mut self, id: BatchId) -> Self {
        self.batch_id = Some(id);
        self
    }

    /// After these jobs are completed; at most [`limits::AFTER_JOBS_MAX`].
    #[must_use]
    pub fn after(mut self, jobs: impl IntoIterator<Item = JobId>) -> Self {
        self.after.extend(jobs);
        self
    }

    /// Not before this moment.
    #[must_use]
    pub fn run_at(mut self, at: Timestamp) -> Self {
        self.run_at = Some(at);
        self
    }

    /// Fails if not done by this moment.
    #[must_use]
    pub fn deadline(mut self, at: Timestamp) -> Self {
        self.deadline = Some(Deadline::At(at));
        self
    }

    /// Fails if not done so long after it is submitted, by the lane's clock, to the millisecond.
    #[must_use]
    pub fn deadline_in(mut self, span: Duration) -> Self {
        self.deadline = Some(Deadline::InMs(whole_ms(span)));
        self
    }

    /// Closes each of its calls that takes longer; a millisecond to a day.
    #[must_use]
    pub fn timeout(mut self, span: Duration) -> Self {
        self.timeout_ms = Some(whole_ms(span));
        self
    }

    /// Ends so when its call is interrupted, say by a crash, and may have been billed.
    #[must_use]
    pub fn on_interrupted(mut self, then: OnInterrupted) -> Self {
        self.on_interrupted = Some(then);
        self
    }

    /// With any JSON of yours, at most [`limits::METADATA_BYTES_MAX`] bytes of it; a [`RawValue`] is kept as it
    /// came. Errors when it can't be written as JSON.
    pub fn metadata(mut self, json: &impl Serialize) -> Result<Self, SubmissionError> {
        let written = serde_json::value::to_raw_value(json);
        let refused =
            |error: serde_json::Error| SubmissionError::new("metadata", error.to_string());
        self.metadata = Some(written.map_err(refused)?);
        Ok(self)
    }

    /// With this idempotency key.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// A part of this trace: its spans are children of that one.
    #[must_use]
    pub fn trace(mut self, parent: TraceContext) -> Self {
        self.trace = Some(Box::new(TraceOrigin::Parent(parent)));
        self
    }

    /// Told to this URL when it ends.
    #[must_use]
    pub fn callback_url(mut self, url: impl Into<String>) -> Self {
        self.callback_url = Some(url.into());
        self
    }

    /// The model that it is for, as it is spelled: its own, else the chat body's, else the configured one.
    #[must_use]
    pub fn model_in(&self, settings: &Settings) -> String {
        let own = self.model.clone().or_else(|| self.request.model());
        own.unwrap_or_else(|| settings.glm.model.clone())
    }

    /// Checks every field. Refused, too, is a model without a price if the settings say so.
    pub fn validate(&self, settings: &Settings) -> Result<(), SubmissionError> {
        self.check()?;
        let face = self.request.face();
        if let Err(unknown) = face.upstream(&settings.glm.base_url, &settings.glm.faces) {
            return Err(SubmissionError::new("request", unknown.to_string()));
        }
        if let Some(url) = &self.callback_url
            && let Err(problem) = settings.callbacks.check(url)
        {
            return Err(SubmissionError::new("callbackUrl", problem));
        }
        if settings.unpriced == Unpriced::Refuse {
            let model = self.model_in(settings);
            if !settings.prices.is_priced(&model) {
                let currency = settings.prices.currency();
                return Err(UnpricedModel { model, currency }.into());
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), SubmissionError> {
        let chars = |field, text: &str, max: usize| {
            if (1..=max).contains(&text.chars().count()) {
                Ok(())
            } else {
                Err(SubmissionError::new(
                    field,
                    format!("must have 1 to {max} characters"),
                ))
            }
        };
        chars("userId", &self.user_id, limits::USER_ID_CHARS_MAX)?;
        if let Some(model) = &self.model {
            chars("model", model.trim(), limits::MODEL_CHARS_MAX)?;
        }
        if let Some(content_id) = &self.content_id {
            chars("contentId", content_id, limits::CONTENT_ID_CHARS_MAX)?;
        }
        if let Some(key) = &self.idempotency_key {
            chars("idempotencyKey", key, limits::IDEMPOTENCY_KEY_CHARS_MAX)?;
        }
        if self.max_retries.unwrap_or(0) > limits::MAX_RETRIES_MAX {
            return Err(SubmissionError::new(
                "maxRetries",
                format!("must be 0 to {}", limits::MAX_RETRIES_MAX),
            ));
        }
        if self.after.len() > limits::AFTER_JOBS_MAX {
            return Err(SubmissionError::new(
                "after",
                format!("must name at most {} jobs", limits::AFTER_JOBS_MAX),
            ));
        }
        if let Some(ms) = self.timeout_ms
            && !(1..=86_400_000).contains(&ms)
        {
            return Err(SubmissionError::new(
                "timeout",
                "must be 1 to 86400000 milliseconds (a day)",
            ));
        }
        if let Some(metadata) = &self.metadata
            && metadata.get().len() > limits::METADATA_BYTES_MAX
        {
            return Err(SubmissionError::new(
                "metadata",
                format!("must have at most {} bytes", limits::METADATA_BYTES_MAX),
            ));
        }
        Ok(())
    }
}

fn whole_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SessionId;
    use crate::testing::sample;

    #[test]
    fn every_field_of_a_submission_has_a_builder() {
        let at = Timestamp::from_millis(5);
        let note: Box<RawValue> = serde_json::from_str(r#"{"n": 1.50}"#).unwrap();
        let built = Submission::prompt("hi")
            .unwrap()
            .model("glm-5")
            .user("ada")
            .content_id("page 3")
            .session("chat-1".parse::<SessionId>().unwrap())
            .batch(BatchId::new(4))
            .priority(7)
            .max_retries(2)
            .run_at(at)
            .deadline(at)
            .timeout(Duration::from_secs(9))
            .idempotency_key("key")
            .after([sample::job_id(1)])
            .on_interrupted(OnInterrupted::Park)
            .callback_url("https://example.com/")
            .trace(TraceContext::new([1; 16], [2; 8], true))
            .metadata(&note)
            .unwrap();
        // A new field does not compile until it is named, and set, here.
        let Submission {
            request,
            model,
            user_id,
            content_id,
            session,
            batch_id,
            priority,
            max_retries,
            run_at,
            deadline,
            timeout_ms,
            idempotency_key,
            after,
            on_interrupted,
            callback_url,
            metadata,
            bound_to,
            headers,
            trace,
            key_id,
            over_rate,
        } = built;
        assert_eq!(over_rate, None, "nobody says it but who counts");
        assert!(headers.is_empty(), "nobody says it but who has a client's");
        let parent = TraceContext::new([1; 16], [2; 8], true);
        assert_eq!(*trace.unwrap(), TraceOrigin::Parent(parent));
        assert_eq!(bound_to, None, "nobody says it but who waits");
        assert!(matches!(request, Request::Prompt(text) if text == "hi"));
        assert_eq!(model.as_deref(), Some("glm-5"));
        assert_eq!(user_id, "ada");
        assert_eq!(content_id.as_deref(), Some("page 3"));
        assert_eq!(session.unwrap().id().as_str(), "chat-1");
        assert_eq!(batch_id, Some(BatchId::new(4)));
        assert_eq!(priority, Some(7));
        assert_eq!(key_id, None, "nobody says it but who looks at keys");
        assert_eq!(max_retries, Some(2));
        assert_eq!(run_at, Some(at));
        assert_eq!(deadline, Some(Deadline::At(at)));
        assert_eq!(timeout_ms, Some(9_000));
        assert_eq!(idempotency_key.as_deref(), Some("key"));
        assert_eq!(after, [sample::job_id(1)]);
        assert_eq!(on_interrupted, Some(OnInterrupted::Park));
        assert_eq!(callback_url.as_deref(), Some("https://example.com/"));
        assert_eq!(metadata.unwrap().get(), r#"{"n": 1.50}"#);
    }

    #[test]
    fn a_span_ends_so_long_after_the_submission_and_never_overflows() {
        let check = |span, want| {
            let deadline = Submission::prompt("hi").unwrap().deadline_in(span).deadline;
            let got = deadline.unwrap().moment(Timestamp::from_millis(1_000));
            assert_eq!(got, want, "{span:?}");
        };
        check(Duration::from_millis(250), Timestamp::from_millis(1_250));
        check(Duration::ZERO, Timestamp::from_millis(1_000));
        check(Duration::MAX, Timestamp::from_millis(i64::MAX));
    }
}
