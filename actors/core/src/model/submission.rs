//! What somebody who submits a job says, and the checks at the door.

use serde_json::value::RawValue;

use super::{
    Admission, AttemptNo, Currency, Job, JobId, JobStatus, OnInterrupted, Request, RequestError,
    Seq, Settings, Timestamp, Unpriced, limits,
};
use crate::model::NewJob;
use crate::money::estimate;
use crate::money::worst;

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
    /// Higher is more urgent.
    pub priority: i32,
    /// Retries of transient failures.
    pub max_retries: Option<u32>,
    /// Not before this moment.
    pub run_at: Option<Timestamp>,
    /// Fails if not done by this moment.
    pub deadline: Option<Timestamp>,
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
            RequestError::BadModel => "model",
            RequestError::NotAnObject(_) | RequestError::TooLarge { .. } => "request",
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
            priority: 0,
            max_retries: None,
            run_at: None,
            deadline: None,
            timeout_ms: None,
            idempotency_key: None,
            after: Vec::new(),
            on_interrupted: None,
            callback_url: None,
            metadata: None,
        }
    }

    /// A plain prompt. Errors when it is empty or too large.
    pub fn prompt(text: impl Into<String>) -> Result<Self, SubmissionError> {
        Ok(Self::new(Request::prompt(text)?))
    }

    /// A chat body from its JSON text, kept verbatim. Errors when it is no object or has no messages.
    pub fn chat(json: &str) -> Result<Self, SubmissionError> {
        Ok(Self::new(Request::chat(json)?))
    }

    /// With this priority; higher is more urgent.
    #[must_use]
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
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
        self.deadline = Some(at);
        self
    }

    /// With this idempotency key.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// Told to this URL when it ends.
    #[must_use]
    pub fn callback_url(mut self, url: impl Into<String>) -> Self {
        self.callback_url = Some(url.into());
        self
    }

    /// The model that it is for: its own, else the chat body's, else the configured one.
    #[must_use]
    pub fn model_in(&self, settings: &Settings) -> String {
        let own = self.model.clone().or_else(|| self.request.model());
        own.unwrap_or_else(|| settings.glm.model.clone())
    }

    /// Checks every field. Refused, too, is a model without a price if the settings say so.
    pub fn validate(&self, settings: &Settings) -> Result<(), SubmissionError> {
        self.check()?;
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

    /// The job, if [`Submission::validate`] has nothing against it.
    pub fn into_job(
        self,
        settings: &Settings,
        id: JobId,
        now: Timestamp,
    ) -> Result<NewJob, SubmissionError> {
        self.validate(settings)?;
        let model = self.model_in(settings);
        let unpriced = !settings.prices.is_priced(&model);
        let estimated_tokens = estimate::tokens(&self.request, settings.glm.max_tokens);
        let worst = worst::of(&self.request);
        let mut after = self.after;
        after.sort_unstable();
        after.dedup();
        let fingerprint = self
            .idempotency_key
            .as_ref()
            .map(|_| self.request.fingerprint(&model));
        let job = Job {
            id,
            seq: Seq(0),
            user_id: self.user_id,
            content_id: self.content_id,
            model,
            priority: self.priority,
            status: JobStatus::Pending,
            attempts: AttemptNo(0),
            open: None,
            retry_count: 0,
            max_retries: self.max_retries.unwrap_or(settings.retry.max_retries),
            interruptions: 0,
            next_retry_at: None,
            run_at: self.run_at,
            deadline: self.deadline,
            timeout_ms: self.timeout_ms,
            error: None,
            created_at: now,
            processed_at: None,
            idempotency_key: self.idempotency_key,
            metadata: self.metadata,
            throttles: 0,
            served_by: None,
            // The store keeps those that are not completed.
            waits_for: after.clone(),
            after,
            has_dependents: false,
            parked: None,
            on_interrupted: self.on_interrupted,
            callback_url: self.callback_url,
            task: None,
            bodies_pruned: false,
            estimated_tokens,
            worst,
            unpriced,
        };
        Ok(NewJob {
            job,
            request: self.request,
            fingerprint,
            admission: Admission::Open {
                max_queue_jobs: settings.lane.max_queue_jobs,
            },
        })
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
            chars("model", model, limits::MODEL_CHARS_MAX)?;
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{PriceRow, PriceTable};

    fn refused(change: impl FnOnce(&mut Submission)) -> String {
        let mut submission = Submission::prompt("hi").unwrap();
        change(&mut submission);
        submission
            .into_job(
                &Settings::default(),
                JobId::from_bytes([1; 16]),
                Timestamp::default(),
            )
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_bad_field_is_named_with_what_would_be_right() {
        let check = |got: String, want: &str| assert_eq!(got, want);
        check(
            refused(|s| s.user_id = String::new()),
            "userId: must have 1 to 128 characters",
        );
        check(
            refused(|s| s.model = Some("m".repeat(129))),
            "model: must have 1 to 128 characters",
        );
        check(
            refused(|s| s.max_retries = Some(101)),
            "maxRetries: must be 0 to 100",
        );
        check(
            refused(|s| s.timeout_ms = Some(0)),
            "timeout: must be 1 to 86400000 milliseconds (a day)",
        );
    }

    #[test]
    fn a_model_without_a_price_is_taken_and_flagged_or_refused_as_configured() {
        let mut prices = PriceTable::new(Currency::Usd);
        let free = PriceRow {
            prompt_from: 0,
            completion_from: 0,
            prompt_to: None,
            input: 0,
            cached_input: 0,
            output: 0,
        };
        prices.add("glm-4.7-flash", free);
        let mut settings = Settings {
            prices: Arc::new(prices),
            ..Settings::default()
        };
        let submit = |settings: &Settings, model: &str| {
            let submission = Submission::prompt("hi").unwrap().model(model);
            submission.into_job(settings, JobId::from_bytes([1; 16]), Timestamp::default())
        };
        assert!(submit(&settings, "glm-9").unwrap().job.unpriced);
        assert!(!submit(&settings, "glm-4.7-flash").unwrap().job.unpriced);
        settings.unpriced = Unpriced::Refuse;
        let free = submit(&settings, "glm-4.7-flash").unwrap();
        assert!(!free.job.unpriced, "free is a price");
        let refused = submit(&settings, "glm-9").unwrap_err().to_string();
        assert!(
            refused.starts_with("model glm-9 has no price in USD, "),
            "{refused}"
        );
        assert!(
            refused.contains("add its price to money.prices"),
            "{refused}"
        );
    }

    #[test]
    fn the_model_is_the_submissions_then_the_bodys_then_the_configured() {
        let model = |submission: Submission| {
            let id = JobId::from_bytes([1; 16]);
            let new = submission.into_job(&Settings::default(), id, Timestamp::default());
            new.unwrap().job.model
        };
        let body = r#"{"model":"glm-5","messages":[{"role":"user","content":"hi"}]}"#;
        assert_eq!(model(Submission::chat(body).unwrap()), "glm-5");
        assert_eq!(
            model(Submission::chat(body).unwrap().model("glm-4.6")),
            "glm-4.6"
        );
        assert_eq!(
            model(Submission::prompt("hi").unwrap()),
            Settings::default().glm.model
        );
    }
}
