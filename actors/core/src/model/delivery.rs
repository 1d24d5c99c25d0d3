//! What is told to others over HTTP: a notice, to whom, and how far its delivery has got.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use url::Url;

use super::{Alert, ClearedAlert, Job, JobId, JobStatus, Timestamp, private};

/// The place of a delivery among all; given by the store.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
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
    AlertCleared(ClearedAlert),
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

/// The kinds of notices that a delivery may carry: those, and a try.
pub const DELIVERY_EVENTS: [&str; 6] = [
    "alert.raised",
    "alert.cleared",
    "job.completed",
    "job.failed",
    "job.cancelled",
    "webhook.test",
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

impl Target {
    /// Who receives what is sent there.
    #[must_use]
    pub fn receiver(&self) -> Receiver {
        match self {
            Self::Endpoint(name) => Receiver::Endpoint(name.clone()),
            Self::Callback(url) => {
                let host = Url::parse(url).ok();
                let host = host.as_ref().and_then(Url::host_str);
                Receiver::Host(host.unwrap_or_default().to_owned())
            }
        }
    }
}

/// Who receives. What is slow is a receiver, so that each has a bound of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Receiver {
    /// The configured endpoint of this name.
    Endpoint(String),
    /// The host that callbacks go to, whatever their paths.
    Host(String),
}

impl Receiver {
    /// The line in which its deliveries wait.
    #[must_use]
    pub fn destination(&self) -> DestinationId {
        match self {
            Self::Endpoint(name) => DestinationId::of(DestinationId::ENDPOINTS, name),
            Self::Host(host) => DestinationId::of(DestinationId::HOSTS, host),
        }
    }

    /// The line of those that somebody asked for. An endpoint's are apart, since they are tried even if
    /// it is off.
    #[must_use]
    pub fn destination_by_hand(&self) -> DestinationId {
        match self {
            Self::Endpoint(name) => DestinationId::of(DestinationId::BY_HAND, name),
            Self::Host(_) => self.destination(),
        }
    }
}

/// A line of deliveries: of one receiver, in the order in which they are due. Lines are ordered: what
/// somebody asked for of endpoints, then endpoints, then hosts of callbacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DestinationId(pub [u8; 16]);

impl DestinationId {
    const BY_HAND: u8 = 0;
    const ENDPOINTS: u8 = 1;
    const HOSTS: u8 = 2;

    fn of(kind: u8, name: &str) -> Self {
        let mut bytes = [kind; 16];
        let digest = Sha256::digest(name);
        let rest = bytes.iter_mut().skip(1).zip(digest);
        rest.for_each(|(to, from)| *to = from);
        Self(bytes)
    }

    /// Where the lines of hosts begin.
    #[must_use]
    pub fn first_host() -> Self {
        let mut bytes = [0; 16];
        if let Some(kind) = bytes.first_mut() {
            *kind = Self::HOSTS;
        }
        Self(bytes)
    }

    /// Whether it is that of a host of callbacks.
    #[must_use]
    pub fn is_host(self) -> bool {
        self >= Self::first_host()
    }

    /// The next one that there may be; `None` after the last.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        let next = u128::from_be_bytes(self.0).checked_add(1)?;
        Some(Self(next.to_be_bytes()))
    }
}

/// The place of a pending delivery among all: by line, then by when it is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DuePlace {
    /// Its line.
    pub destination: DestinationId,
    /// When it is due.
    pub due: Timestamp,
    /// The delivery.
    pub id: DeliveryId,
}

impl DuePlace {
    /// The first place that there may be in a line.
    #[must_use]
    pub const fn first_of(destination: DestinationId) -> Self {
        Self {
            destination,
            due: Timestamp::from_millis(i64::MIN),
            id: DeliveryId(0),
        }
    }
}

/// How far a delivery has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
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
    /// When it was last put on its way: retries count from here on.
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

impl Delivery {
    /// Its place among those that are pending; `None`: it is not.
    #[must_use]
    pub fn place(&self) -> Option<DuePlace> {
        let receiver = self.target.receiver();
        let destination = match self.by_hand {
            true => receiver.destination_by_hand(),
            false => receiver.destination(),
        };
        self.due_at.map(|due| DuePlace {
            destination,
            due,
            id: self.id,
        })
    }
}

/// How many deliveries there are of each status.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(default)]
pub struct DeliveryCounts {
    /// Waiting for their next try.
    pub pending: u64,
    /// That arrived.
    pub delivered: u64,
    /// Given up.
    pub failed: u64,
}

impl DeliveryCounts {
    /// Counts a delivery that left one status (`None`: it is new) for another (`None`: it is gone).
    pub const fn moved(&mut self, from: Option<DeliveryStatus>, to: Option<DeliveryStatus>) {
        if let Some(from) = from {
            let count = self.of_mut(from);
            *count = count.saturating_sub(1);
        }
        if let Some(to) = to {
            *self.of_mut(to) += 1;
        }
    }

    const fn of_mut(&mut self, status: DeliveryStatus) -> &mut u64 {
        match status {
            DeliveryStatus::Pending => &mut self.pending,
            DeliveryStatus::Delivered => &mut self.delivered,
            DeliveryStatus::Failed => &mut self.failed,
        }
    }
}

/// A configured endpoint, as the store knows it: what the end of a job is told to is decided in the
/// transaction that ends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookEndpoint {
    /// Its name.
    pub name: String,
    /// A digest of its URL, to see whether an operator changed it. The URL may hold a secret.
    #[serde(skip_serializing_if = "private")]
    pub url_digest: String,
    /// The kinds of notices it asks for.
    pub events: Vec<String>,
    /// Since when it is off: it said that it is gone (410).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off_since: Option<Timestamp>,
    /// Since when no configuration names it any more. It is told all the same for a while: another start
    /// may know where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_since: Option<Timestamp>,
}

/// How a try ended, as the store is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TryOutcome {
    /// The receiver took it.
    Delivered {
        /// The HTTP status: 2xx.
        status_code: u16,
    },
    /// The receiver says that it is gone: nothing more is sent there until somebody looks after it.
    Gone,
    /// It did not arrive, as far as is known.
    Failed {
        /// The HTTP status, if there was an answer.
        status_code: Option<u16>,
        /// Why.
        error: String,
    },
}

/// A change that concerns deliveries.
#[derive(Debug, Clone)]
pub enum DeliveryChange {
    /// Something happened that is to be told.
    Tell {
        /// What no other notice has; a part of the `webhook-id`.
        source: String,
        /// What happened.
        notice: Box<Notice>,
        /// To this endpoint alone, whatever it asked for; `None`: to all that asked for it.
        only: Option<String>,
        /// When.
        at: Timestamp,
    },
    /// A try ended.
    Tried {
        /// The delivery.
        id: DeliveryId,
        /// Which try it was, from 1; the fence.
        try_no: u32,
        /// How it ended.
        outcome: TryOutcome,
        /// When.
        at: Timestamp,
        /// When the next one is due; `None`: the retries have ended.
        next: Option<Timestamp>,
    },
    /// Somebody wants it sent again, at once and with retries that start afresh.
    Redeliver {
        /// The delivery.
        id: DeliveryId,
        /// Now.
        at: Timestamp,
    },
    /// Deliveries are forgotten; one that has not ended is kept.
    Forget {
        /// The deliveries.
        ids: Vec<DeliveryId>,
    },
    /// The endpoints that are configured from now on.
    Endpoints {
        /// Those.
        endpoints: Vec<HookEndpoint>,
        /// Now.
        at: Timestamp,
        /// One that was not configured any more at this moment is forgotten.
        forget_before: Timestamp,
    },
}
