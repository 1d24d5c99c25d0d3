//! What lists are narrowed by.

use schemars::JsonSchema;
use serde::Deserialize;

use super::model_name::is_model;
use super::{
    BatchId, CallOutcome, CallRecord, DELIVERY_EVENTS, Day, Delivery, DeliveryStatus, FailureClass,
    Job, JobId, JobStatus, KeyId, SessionId, Target, Timestamp, UsageKey, limits,
};

/// Which jobs a list shows. Every field narrows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
// serde can't refuse unknown names beside a flattened part; whoever reads requests checks the schema.
#[schemars(extend("additionalProperties" = false))]
pub struct JobFilter {
    /// With this status.
    pub status: Option<JobStatus>,
    /// Of this user.
    #[schemars(length(min = 1, max = limits::USER_ID_CHARS_MAX))]
    pub user_id: Option<String>,
    /// For this model.
    #[schemars(length(min = 1, max = limits::MODEL_CHARS_MAX))]
    pub model: Option<String>,
    /// What is in the job's own row alone: a store looks there only when something is asked.
    #[serde(flatten)]
    pub more: MoreFilter,
}

/// What else a list may be narrowed by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MoreFilter {
    /// One of these.
    #[schemars(length(max = limits::NAMED_JOBS_MAX))]
    pub ids: Option<Vec<JobId>>,
    /// About this content.
    #[schemars(length(min = 1, max = limits::CONTENT_ID_CHARS_MAX))]
    pub content_id: Option<String>,
    /// Of this session.
    pub session: Option<SessionId>,
    /// Of this batch.
    pub batch_id: Option<BatchId>,
    /// Handed in by this client key.
    pub key_id: Option<KeyId>,
    /// Whose latest failure has this code.
    #[schemars(length(min = 1, max = limits::ERROR_CODE_CHARS_MAX))]
    pub error_code: Option<String>,
    /// Whose latest failure is of this class.
    pub error_class: Option<FailureClass>,
    /// Parked (`true`) or not.
    pub parked: Option<bool>,
    /// Waiting for a retry (`true`) or not.
    pub delayed: Option<bool>,
    /// Accepted at this moment or later.
    pub created_from: Option<Timestamp>,
    /// Accepted before this moment.
    pub created_before: Option<Timestamp>,
    /// With this priority or a higher one.
    pub priority_min: Option<i32>,
    /// With this priority or a lower one.
    pub priority_max: Option<i32>,
}

impl MoreFilter {
    /// Whether anything is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a job is in the list.
    #[must_use]
    pub fn matches(&self, job: &Job) -> bool {
        let error = job.error.as_ref();
        self.ids.as_ref().is_none_or(|ids| ids.contains(&job.id))
            && self
                .content_id
                .as_ref()
                .is_none_or(|c| job.content_id.as_ref() == Some(c))
            && self
                .session
                .as_ref()
                .is_none_or(|s| job.session.as_ref() == Some(s))
            && self.batch_id.is_none_or(|id| job.batch_id == Some(id))
            && self.key_id.is_none_or(|id| job.key_id == Some(id))
            && self
                .error_code
                .as_ref()
                .is_none_or(|c| error.is_some_and(|e| e.code == *c))
            && self
                .error_class
                .is_none_or(|c| error.is_some_and(|e| e.class == c))
            && self.parked.is_none_or(|held| job.parked.is_some() == held)
            && self.delayed.is_none_or(|held| job.is_delayed() == held)
            && self.created_from.is_none_or(|from| job.created_at >= from)
            && self
                .created_before
                .is_none_or(|before| job.created_at < before)
            && self.priority_min.is_none_or(|min| job.priority >= min)
            && self.priority_max.is_none_or(|max| job.priority <= max)
    }
}

impl JobFilter {
    /// Whether a job with these properties is in the list.
    #[must_use]
    pub fn matches(&self, status: JobStatus, user_id: &str, model: &str) -> bool {
        self.status.is_none_or(|want| want == status)
            && self.user_id.as_deref().is_none_or(|want| want == user_id)
            && self
                .model
                .as_deref()
                .is_none_or(|want| is_model(want, model))
    }
}

/// Which rows of the call log a list shows. Every field narrows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("additionalProperties" = false))]
pub struct CallFilter {
    /// Of this job.
    pub job_id: Option<JobId>,
    /// Of this user.
    #[schemars(length(min = 1, max = limits::USER_ID_CHARS_MAX))]
    pub user_id: Option<String>,
    /// Of this session.
    pub session: Option<SessionId>,
    /// For this model.
    #[schemars(length(min = 1, max = limits::MODEL_CHARS_MAX))]
    pub model: Option<String>,
    /// That ended so.
    pub outcome: Option<CallOutcome>,
    /// Only those that were maybe billed, where nobody has found out yet.
    #[serde(skip)]
    pub billing_open: bool,
    /// That began at this moment or later.
    pub from: Option<Timestamp>,
    /// That began before this moment.
    #[serde(rename = "to")]
    pub before: Option<Timestamp>,
}

impl CallFilter {
    /// Whether a row is in the list.
    #[must_use]
    pub fn matches(&self, call: &CallRecord) -> bool {
        self.job_id.is_none_or(|want| want == call.job_id)
            && self
                .user_id
                .as_ref()
                .is_none_or(|want| *want == call.user_id)
            && self
                .session
                .as_ref()
                .is_none_or(|want| call.session.as_ref() == Some(want))
            && self
                .model
                .as_deref()
                .is_none_or(|want| is_model(want, &call.model))
            && self.outcome.is_none_or(|want| want == call.outcome)
            && (!self.billing_open || call.is_billing_open())
            && self.from.is_none_or(|from| call.started_at >= from)
            && self.before.is_none_or(|before| call.started_at < before)
    }
}

/// Which usage rows are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageFilter {
    /// The first day.
    pub start: Day,
    /// The last day, inclusive.
    pub end: Day,
    /// For this model only.
    pub model: Option<String>,
    /// Of this user only.
    pub user_id: Option<String>,
}

/// All of it.
impl Default for UsageFilter {
    fn default() -> Self {
        Self {
            start: Day(i32::MIN),
            end: Day(i32::MAX),
            model: None,
            user_id: None,
        }
    }
}

impl UsageFilter {
    /// Whether a row is asked for.
    #[must_use]
    pub fn matches(&self, key: &UsageKey) -> bool {
        (self.start..=self.end).contains(&key.day)
            && self
                .model
                .as_deref()
                .is_none_or(|want| is_model(want, &key.model))
            && self
                .user_id
                .as_ref()
                .is_none_or(|want| *want == key.user_id)
    }
}

/// Which deliveries a list shows. Every field narrows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("additionalProperties" = false))]
pub struct DeliveryFilter {
    /// With this status.
    pub status: Option<DeliveryStatus>,
    /// Of this kind of notice.
    #[schemars(extend("enum" = DELIVERY_EVENTS))]
    pub event: Option<String>,
    /// About this job.
    pub job_id: Option<JobId>,
    /// To this endpoint.
    #[schemars(length(min = 1, max = limits::ENDPOINT_CHARS_MAX))]
    pub endpoint: Option<String>,
    /// Made at this moment or later.
    pub created_from: Option<Timestamp>,
    /// Made before this moment.
    pub created_before: Option<Timestamp>,
}

impl DeliveryFilter {
    /// Whether a delivery is in the list.
    #[must_use]
    pub fn matches(&self, delivery: &Delivery) -> bool {
        self.status.is_none_or(|want| want == delivery.status)
            && self
                .event
                .as_ref()
                .is_none_or(|want| *want == delivery.event)
            && self.job_id.is_none_or(|want| delivery.job_id == Some(want))
            && self.endpoint.as_ref().is_none_or(
                |want| matches!(&delivery.target, Target::Endpoint(name) if name == want),
            )
            && self
                .created_from
                .is_none_or(|from| delivery.created_at >= from)
            && self
                .created_before
                .is_none_or(|before| delivery.created_at < before)
    }
}
