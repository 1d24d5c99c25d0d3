//! What is told to others over HTTP: a notice, to whom, and how far its delivery has got.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Alert, Job, JobId, JobStatus, PastAlert, Timestamp};

/// The place of a delivery among all; given by the store.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct DeliveryId(pub u64);

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The fact that is told, as it was when it happened.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// A job ended. GLM's answer is not in it: it is read when it is sent.
    JobEnded(Box<Job>),
    /// Something is bad.
    AlertRaised(Alert),
    /// It is over.
    AlertCleared(PastAlert),
    /// Nothing happened: somebody tries whether notices arrive.
    Test,
}

/// The kinds of notices that an endpoint may ask for.
pub const NOTICE_EVENTS: [&str; 5] = [
    "alert.raised",
    "alert.cleared",
    "job.completed",
    "job.failed",
    "job.cancelled",
];

impl Notice {
    /// The job whose end it is.
    #[must_use]
    pub const fn job_id(&self) -> Option<JobId> {
        match self {
            Self::JobEnded(job) => Some(job.id),
            Self::AlertRaised(_) | Self::AlertCleared(_) | Self::Test => None,
        }
    }

    /// The kind, as endpoints ask for it and as the body's `type` says it.
    #[must_use]
    pub const fn event(&self) -> &'static str {
        match self {
            Self::JobEnded(job) => match job.status {
                JobStatus::Failed => "job.failed",
                JobStatus::Cancelled => "job.cancelled",
                _ => "job.completed",
            },
            Self::AlertRaised(_) => "alert.raised",
            Self::AlertCleared(_) => "alert.cleared",
            Self::Test => "webhook.test",
        }
    }
}

/// To whom something is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The configured endpoint of this name.
    Endpoint(String),
    /// The URL that came with the job.
    Callback(String),
}

/// How far a delivery has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryStatus {
    /// It waits for its next try.
    Pending,
    /// It arrived.
    Delivered,
    /// Given up; kept, and may be sent again by hand.
    Failed,
}

impl DeliveryStatus {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Failed];

    /// The name used in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }
}

/// How a try ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Try {
    /// When it ended.
    pub at: Timestamp,
    /// The HTTP status, if there was an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    /// Why it counts as not delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One notice on its way to one target.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delivery {
    /// Its place.
    pub id: DeliveryId,
    /// The `webhook-id`: the same for every try, and no other delivery has it.
    pub message_id: String,
    /// What is told.
    pub notice: Notice,
    /// To whom.
    pub target: Target,
    /// When it happened.
    pub created_at: Timestamp,
    /// How far it has got.
    pub status: DeliveryStatus,
    /// Tries that have ended, since it was last put on its way.
    pub tries: u32,
    /// When it was last put on its way: from here on patience is counted.
    pub since: Timestamp,
    /// When the next try is due; `None` unless it is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Timestamp>,
    /// Whether somebody asked for this delivery: it is tried even if the endpoint is off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_hand: bool,
    /// How the last try ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Try>,
}

/// A configured endpoint, as the store knows it: what the end of a job is told to is decided in the
/// transaction that ends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookEndpoint {
    /// Its name.
    pub name: String,
    /// A digest of its URL, to see whether an operator changed it. The URL may hold a secret.
    pub url_digest: String,
    /// The kinds of notices it asks for.
    pub events: Vec<String>,
    /// Since when it is off: it said that it is gone (410).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off_since: Option<Timestamp>,
}
