//! What is told to others over HTTP: a notice, to whom, and how far its delivery has got.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use url::Url;

use super::{
    Alert, ClearedAlert, Failure, Job, JobId, JobStatus, SessionId, Timestamp, Wait, private,
    private_or_default,
};

/// The place of a delivery among all; given by the store. On the wire it is text, like every number that may be
/// larger than what a JavaScript number holds.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct DeliveryId(#[schemars(with = "String")] pub u64);

impl Serialize for DeliveryId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.collect_str(&self.0),
            false => serializer.serialize_u64(self.0),
        }
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What of a job's end its receivers are told, besides GLM's answer, which is read when it is sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndedJob {
    /// The job.
    pub id: JobId,
    /// How it ended.
    pub status: JobStatus,
    /// Whose it is.
    pub user_id: String,
    /// What it is about, in the submitter's own terms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_id: Option<String>,
    /// The session that it was a call of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The model that it named.
    pub model: String,
    /// The fallback model that served it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_by: Option<String>,
    /// The model that answered last, as the answer names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_by: Option<String>,
    /// Attempts that were made.
    pub attempt_count: u32,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processed_at: Option<Timestamp>,
    /// The submitter's own JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<RawValue>>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

impl From<&Job> for EndedJob {
    fn from(job: &Job) -> Self {
        Self {
            id: job.id,
            status: job.status,
            user_id: job.user_id.clone(),
            content_id: job.content_id.clone(),
            session: job.session.clone(),
            model: job.model.clone(),
            served_by: job.served_by.clone(),
            answered_by: job.answered_by.clone(),
            attempt_count: job.attempts.0,
            created_at: job.created_at,
            processed_at: job.processed_at,
            metadata: job.metadata.clone(),
            error: job.error.clone(),
        }
    }
}

/// The fact that is told, as it was when it happened.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// A job ended.
    JobEnded(Box<EndedJob>),
    /// Something is bad.
    AlertRaised(Alert),
    /// It is over.
    AlertCleared(ClearedAlert),
    /// Nothing happened: an operator tries whether notices arrive.
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Target {
    /// The configured endpoint of this name.
    #[serde(rename = "endpoint")]
    Endpoint(String),
    /// The URL that came with the job.
    #[serde(rename = "callbackHost")]
    Callback(CallbackUrl),
}

/// The URL that came with a job. Its path may hold a token: on the wire it is its host alone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct CallbackUrl(pub String);

impl CallbackUrl {
    /// The host; empty if there is none.
    #[must_use]
    pub fn host(&self) -> String {
        let host = Url::parse(&self.0).ok();
        let host = host.as_ref().and_then(Url::host_str);
        host.unwrap_or_default().to_owned()
    }
}

impl Serialize for CallbackUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.serialize_str(&self.host()),
            false => serializer.serialize_str(&self.0),
        }
    }
}

impl Target {
    /// Who receives what is sent there.
    #[must_use]
    pub fn receiver(&self) -> Receiver {
        match self {
            Self::Endpoint(name) => Receiver::Endpoint(name.clone()),
            Self::Callback(url) => Receiver::Host(url.host()),
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

    /// The line of those that an operator asked for. An endpoint's are apart, since they are tried even if
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
/// an operator asked for of endpoints, then endpoints, then hosts of callbacks.
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Try {
    /// When it ended.
    #[serde(rename = "lastTryAt")]
    pub at: Timestamp,
    /// The HTTP status, if there was an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    /// Why it counts as not delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One notice on its way to one target. What it tells is not on the wire: it may hold what a submitter wrote.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// Its place.
    pub id: DeliveryId,
    /// The same for every try, and no other delivery has it.
    pub webhook_id: String,
    /// The kind of notice.
    #[schemars(extend("enum" = DELIVERY_EVENTS))]
    pub event: String,
    /// The job whose end it tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// What is told.
    #[serde(skip_serializing_if = "private")]
    #[schemars(skip)]
    pub notice: Notice,
    /// To whom.
    #[serde(flatten)]
    pub target: Target,
    /// How far it has got.
    pub status: DeliveryStatus,
    /// Tries that have ended, since it was last put on its way.
    pub tries: u32,
    /// When it happened.
    pub created_at: Timestamp,
    /// When it was last put on its way.
    #[serde(skip_serializing_if = "private")]
    #[schemars(skip)]
    pub since: Timestamp,
    /// How long it has waited between tries since then, in milliseconds: it is given up by this, and a clock that is set
    /// makes it no older.
    #[serde(default, skip_serializing_if = "private_or_default")]
    #[schemars(skip)]
    pub waited_ms: u64,
    /// When the next try is due; `None` unless it is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try_at: Option<Wait>,
    /// Whether an operator asked for this delivery: it is tried even if the endpoint is off.
    #[serde(default, skip_serializing_if = "private_or_default")]
    #[schemars(skip)]
    pub by_hand: bool,
    /// How the last try ended.
    #[serde(flatten)]
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
        self.next_try_at.map(|wait| DuePlace {
            destination,
            due: wait.until,
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
/// transaction that ends it. It is on unless it is off or missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "WebhookEndpoint")]
pub struct HookEndpoint {
    /// Its name.
    pub name: String,
    /// Scheme and host of its URL, the rest of which may hold a secret.
    pub site: String,
    /// A digest of its URL, to see whether an operator changed it.
    #[serde(skip_serializing_if = "private")]
    #[schemars(skip)]
    pub url_digest: String,
    /// The kinds of notices it asks for.
    pub events: Vec<String>,
    /// Since when it is off: it said that it is gone (410). What it is to be told waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off_since: Option<Timestamp>,
    /// Since when no configuration names it any more. It is told all the same for a while: another start
    /// may know where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_since: Option<Timestamp>,
}

impl HookEndpoint {
    /// An endpoint as a configuration names it.
    #[must_use]
    pub fn new(name: &str, url: &str, events: &[String]) -> Self {
        let digest = Sha256::digest(url);
        let digest = digest.iter().take(8).map(|byte| format!("{byte:02x}"));
        Self {
            name: name.to_owned(),
            site: site(url).unwrap_or_default(),
            url_digest: digest.collect(),
            events: events.to_vec(),
            off_since: None,
            missing_since: None,
        }
    }
}

/// Scheme and host of a URL: what of it may be shown where the rest may be a token.
#[must_use]
pub fn site(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    Some(format!("{}://{}", url.scheme(), url.host_str()?))
}

/// How a try ended, as the store is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TryOutcome {
    /// The receiver took it.
    Delivered {
        /// The HTTP status: 2xx.
        status_code: u16,
    },
    /// The receiver says that it is gone: nothing more is sent there until an operator looks after it.
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
    /// An operator tries whether notices arrive.
    Test {
        /// What no other notice has; a part of the `webhook-id`.
        source: String,
        /// At this endpoint, whatever it asked for.
        endpoint: String,
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
        /// How long the delivery had waited for it, in milliseconds.
        waited_ms: u64,
        /// When the next one is due; `None`: the retries have ended.
        next: Option<Wait>,
    },
    /// An operator wants it sent again, at once and with retries that start afresh.
    Redeliver {
        /// The delivery.
        id: DeliveryId,
        /// Now.
        at: Timestamp,
    },
    /// The clock was set back: these wait no longer for it.
    ClockSetBack {
        /// The deliveries.
        ids: Vec<DeliveryId>,
        /// Now.
        now: Timestamp,
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::row;
    use crate::notify::delivery::made;
    use crate::testing::sample::{self, START};

    #[test]
    fn a_delivery_to_a_callback_shows_its_host_alone() {
        let mut job = sample::new_job(1).job;
        job.status = JobStatus::Failed;
        let notice = Notice::JobEnded(Box::new((&job).into()));
        let callback = CallbackUrl("https://example.com/token".to_owned());
        let mut delivery = made(
            DeliveryId(1),
            "a",
            notice,
            Target::Callback(callback),
            START,
        );
        delivery.last = Some(Try {
            at: START.plus_ms(5),
            status_code: Some(503),
            error: Some("the receiver answered 503".to_owned()),
        });
        delivery.tries = 1;
        assert_eq!(
            serde_json::to_value(&delivery).unwrap(),
            json!({"id": "1", "webhookId": "msg_a_1", "event": "job.failed",
                "jobId": job.id, "callbackHost": "example.com", "status": "pending",
                "tries": 1, "createdAt": "2026-11-23T00:00:00.000Z",
                "nextTryAt": "2026-11-23T00:00:00.000Z",
                "lastTryAt": "2026-11-23T00:00:00.005Z",
                "statusCode": 503, "error": "the receiver answered 503"})
        );
    }

    #[test]
    fn an_endpoint_is_on_off_or_missing() {
        let events = ["job.failed".to_owned()];
        let mut endpoint = HookEndpoint::new("a", "https://example.com/token", &events);
        let on = json!({"name": "a", "site": "https://example.com", "events": ["job.failed"]});
        assert_eq!(serde_json::to_value(&endpoint).unwrap(), on);
        let in_row = row(|| serde_json::to_value(&endpoint)).unwrap();
        assert_eq!(in_row["urlDigest"], endpoint.url_digest);
        (endpoint.off_since, endpoint.missing_since) = (Some(START), Some(START));
        let gone = serde_json::to_value(&endpoint).unwrap();
        assert_eq!(gone["offSince"], gone["missingSince"]);
        assert!(!gone.to_string().contains("token"));
    }
}
