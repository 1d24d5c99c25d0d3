//! What somebody who submits a job says, and the checks at the door.

use serde_json::value::RawValue;

use super::{
    Currency, JobId, OnInterrupted, Request, RequestError, Settings, Timestamp, Unpriced, limits,
};

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
        own.unwrap_or_else(|| settings.model.clone())
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
