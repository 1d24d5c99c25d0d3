//! What went wrong with a call, and which class of wrong that is.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Received, Timestamp};

/// The classes of failure. Each says what happens to the job, to the lane and to the breaker;
/// [`crate::judge`] holds those rules, the table `errors.json` maps GLM's codes to classes.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The account's own limit (1302, 1303): the job goes back to its place, the lane cools down.
    Throttle,
    /// The provider has no capacity for the model (1305, 1312): wait longer, not the account's fault.
    Overload,
    /// A quota window is used up (1308, 1310, 1316-1321, 1304): the lane waits for the stated reset.
    QuotaWindow,
    /// Nothing helps but an operator (401, 1113, ...): the lane is held, no job fails.
    OperatorFatal,
    /// The job itself is at fault (121x, 1261, 1301, other 4xx): it fails at once, the lane goes on.
    RequestFatal,
    /// The server or the network failed (5xx, timeouts, resets): bounded retries with backoff.
    ServerTransient,
    /// Nothing left the machine (refused, unresolved, no connection in time): the way to GLM is at fault, the
    /// job keeps its place and its retries.
    Unreachable,
    /// A refusal without a code of GLM's (404, a redirect, a firewall's 403): whose fault it is shows only when other
    /// jobs have met it or passed.
    Unattributed,
    /// GLM has seen this `request_id` before (1231): never resend it; the next attempt has a new one.
    DuplicateRequest,
    /// What came belongs to another call: it is not taken, and a second one in a row holds the account.
    ForeignAnswer,
}

impl FailureClass {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Throttle,
        Self::Overload,
        Self::QuotaWindow,
        Self::OperatorFatal,
        Self::RequestFatal,
        Self::ServerTransient,
        Self::Unreachable,
        Self::Unattributed,
        Self::DuplicateRequest,
        Self::ForeignAnswer,
    ];

    /// The name used in the API, in logs and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Throttle => "throttle",
            Self::Overload => "overload",
            Self::QuotaWindow => "quota_window",
            Self::OperatorFatal => "operator_fatal",
            Self::RequestFatal => "request_fatal",
            Self::ServerTransient => "server_transient",
            Self::Unreachable => "unreachable",
            Self::Unattributed => "unattributed",
            Self::DuplicateRequest => "duplicate_request",
            Self::ForeignAnswer => "foreign_answer",
        }
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Codes of failures that GLM did not state itself. GLM's own codes are its numbers as text.
pub mod code {
    /// A connection that stood was reset, or ended with the answer cut short.
    pub const CONNECTION: &str = "conn";
    /// No connection: refused, no route, no such name, a handshake that broke off. Nothing left.
    pub const UNREACHABLE: &str = "unreachable";
    /// The certificate of the server is not trusted. Nothing left.
    pub const TLS_UNTRUSTED: &str = "tls_untrusted";
    /// A kept connection ended before one byte of the answer came: the server had let go of it.
    pub const CONNECTION_ENDED: &str = "conn_ended";
    /// The answer names the `request_id` of another call.
    pub const FOREIGN_ANSWER: &str = "foreign_answer";
    /// No connection within `timeouts.connect_ms`.
    pub const TIMEOUT_CONNECT: &str = "timeout_connect";
    /// No response headers within `timeouts.first_byte_ms` where GLM answers at once: when a task is handed over.
    pub const TIMEOUT_FIRST_BYTE: &str = "timeout_first_byte";
    /// No byte for `timeouts.idle_ms` in the middle of a response.
    pub const TIMEOUT_IDLE: &str = "timeout_idle";
    /// Not finished within `timeouts.total_ms` or the job's own timeout.
    pub const TIMEOUT_TOTAL: &str = "timeout_total";
    /// A 200 whose body is not a GLM answer.
    pub const BODY_INVALID: &str = "body_invalid";
    /// A success that is a page for people: a website, or the door of a network.
    pub const HTML_PAGE: &str = "html_page";
    /// A response larger than the cap.
    pub const BODY_TOO_LARGE: &str = "body_too_large";
    /// The stored request can't be turned into a GLM body.
    pub const REQUEST_INVALID: &str = "request_invalid";
    /// The process or the caller died while the call was open.
    pub const INTERRUPTED: &str = "interrupted";
    /// Somebody cancelled the job while its answer came in pieces: how their readers are told.
    pub const CANCELLED: &str = "cancelled";
    /// In flight in too many crashes in a row.
    pub const QUARANTINED: &str = "quarantined";
    /// The job's deadline passed before it was done.
    pub const DEADLINE: &str = "deadline";
    /// A job that it was to run after failed or was cancelled.
    pub const DEPENDENCY: &str = "dependency";
    /// Met more throttle answers than `retry.max_throttles`.
    pub const THROTTLED: &str = "throttled";
    /// The transport has no asynchronous calls.
    pub const ASYNC_UNSUPPORTED: &str = "async_unsupported";
    /// A task of GLM's asynchronous API ended without an answer and without a code of GLM's.
    pub const TASK_FAILED: &str = "task_failed";
    /// No API key is configured.
    pub const NO_API_KEY: &str = "no_api_key";
    /// Where the job's face is, below this base URL, is not known.
    pub const FACE_UNKNOWN: &str = "face_unknown";
    /// The base URL is no URL.
    pub const BASE_URL_INVALID: &str = "base_url_invalid";
}

/// One failure, as a job's `error` and in the call log. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// What kind of wrong it is.
    pub class: FailureClass,
    /// GLM's `error.code` as text, else one of [`code`] or `http_NNN`.
    pub code: String,
    /// The HTTP status, if one arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    /// GLM's words or ours, cut to a bound.
    pub message: String,
    /// A `Retry-After` header, in milliseconds.
    #[serde(
        rename = "retryAfter",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub retry_after_ms: Option<u64>,
    /// The reset that a quota message states (its text is read as UTC+8).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_at: Option<Timestamp>,
    /// Whether GLM may have done (and billed) the work all the same.
    #[serde(default)]
    pub maybe_billed: bool,
    /// What came instead of an answer, on its way from the transport to where it is kept: with the attempt, and, where
    /// it is the job's end, with the job.
    #[serde(skip)]
    #[schemars(skip)]
    pub received: Option<Arc<Received>>,
}

impl Failure {
    /// A failure of our own making, with one of the codes in [`code`].
    #[must_use]
    pub fn new(class: FailureClass, code: &str, message: impl Into<String>) -> Self {
        Self {
            class,
            code: code.to_owned(),
            status_code: None,
            message: message.into(),
            retry_after_ms: None,
            reset_at: None,
            maybe_billed: false,
            received: None,
        }
    }
}

impl Failure {
    /// Whether it came under a success.
    #[must_use]
    pub fn is_under_success(&self) -> bool {
        self.status_code
            .is_some_and(|status| (200..300).contains(&status))
    }

    /// Whether GLM had begun an answer that could not be read, or did not come whole: it was paid for, as far as
    /// anybody can tell.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        match self.code.as_str() {
            code::BODY_INVALID | code::BODY_TOO_LARGE => true,
            code::CONNECTION | code::TIMEOUT_IDLE | code::TIMEOUT_TOTAL => self.is_under_success(),
            _ => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.code, self.class, self.message)
    }
}
