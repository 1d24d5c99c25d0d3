//! The call log: one immutable row per attempt.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    AttemptNo, Cost, Day, Failure, Job, JobId, KeyId, Parts, PassedHeaders, PriceUsed, RequestId,
    Reserve, SessionId, Speed, Timestamp, Usage, private_or_default, private_or_none,
};

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CallOutcome {
    /// GLM answered and the answer is stored.
    Completed,
    /// GLM refused, or the transport failed.
    Failed,
    /// A caller cancelled the job and the open call was closed.
    Cancelled,
    /// The process or the caller died while the call was open: maybe billed.
    Interrupted,
}

impl CallOutcome {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Interrupted,
    ];

    /// The name used in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }
}

/// What somebody found out about an attempt that may have been billed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Billing {
    /// Whether GLM billed it.
    pub billed: bool,
    /// The tokens billed.
    pub usage: Usage,
    /// What it cost; `None` when it was not billed, or the cost is not known.
    #[serde(flatten)]
    pub cost: Option<Cost>,
    /// The prices that the cost was worked out by; `None` when somebody stated the cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<PriceUsed>,
    /// When it was found out.
    pub at: Timestamp,
}

/// What it means for the cost that another model answered than the one that was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Substitution {
    /// The model that answered has a price: that one counts.
    Priced,
    /// The model that answered has none, as a relay's alias has none: the price of the model that was called counts.
    Assumed,
}

impl Substitution {
    /// The name used in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Priced => "priced",
            Self::Assumed => "assumed",
        }
    }
}

/// One row of the call log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallRecord {
    /// Place in the log, given by the store; 0 until then. A row's key is its place.
    #[serde(skip)]
    pub seq: u64,
    /// The job this attempt was for.
    pub job_id: JobId,
    /// Which attempt of that job.
    pub attempt: AttemptNo,
    /// Whose job it was.
    pub user_id: String,
    /// The client key by which that was handed in.
    #[serde(default, skip_serializing_if = "private_or_none")]
    pub key_id: Option<KeyId>,
    /// The session that it was a call of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The URL called, without any secret; empty when it is not known (interrupted).
    pub endpoint: String,
    /// The model asked for.
    pub model: String,
    /// The `request_id` sent to GLM.
    pub request_id: RequestId,
    /// When the call was sent.
    pub started_at: Timestamp,
    /// When its end was known.
    pub ended_at: Timestamp,
    /// How it ended.
    pub outcome: CallOutcome,
    /// The HTTP status, if one arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    /// From the first byte sent to the last byte read, in milliseconds, by a monotonic clock.
    pub response_time_ms: u64,
    /// Where its time went.
    #[serde(default, skip_serializing_if = "Parts::is_nothing")]
    pub parts: Parts,
    /// Tokens, zeros when GLM reported none.
    pub usage: Usage,
    /// The cost; `None` when nothing was billed or the cost is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// The prices that the cost was worked out by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<PriceUsed>,
    /// The model that answered, as the answer names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_by: Option<String>,
    /// The headers by which GLM names the call, for whoever asks about it there.
    #[serde(default, skip_serializing_if = "PassedHeaders::is_empty")]
    pub call_ids: PassedHeaders,
    /// Another model answered than the one that was called, and what that means for the cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub substitution: Option<Substitution>,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The job's retry count when the call was sent.
    pub retry_count: u32,
    /// Whether GLM may have billed the call although no answer is stored.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub maybe_billed: bool,
    /// Its reserve. A call that was maybe billed keeps it until an operator settles it; one that
    /// was answered without its tokens is taken for so much by budgets for good.
    #[serde(default, skip_serializing_if = "private_or_default")]
    pub reserved: Option<Reserve>,
    /// The beginning of what came instead of an answer, under a success or for another call:
    /// [`limits::KEPT_ANSWER_BYTES_MAX`](super::limits::KEPT_ANSWER_BYTES_MAX) at most.
    #[serde(default, skip_serializing_if = "private_or_none")]
    pub received: Option<Arc<str>>,
    /// The day of the calendar in force that it is booked on; `None`: its UTC day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub booked_on: Option<Day>,
    /// What somebody found out later about an attempt that was maybe billed: the one thing of a row
    /// that is added after it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billing: Option<Billing>,
}

impl CallRecord {
    /// The row of an attempt that brought nothing: no status, no tokens, no cost. What it did bring is added
    /// by name.
    #[must_use]
    pub fn of(
        job: &Job,
        attempt: AttemptNo,
        outcome: CallOutcome,
        started_at: Timestamp,
        ended_at: Timestamp,
    ) -> Self {
        Self {
            seq: 0,
            job_id: job.id,
            attempt,
            user_id: job.user_id.clone(),
            key_id: job.key_id,
            session: job.session.clone(),
            endpoint: String::new(),
            model: job.sent_to().to_owned(),
            request_id: job.request_id(attempt),
            started_at,
            ended_at,
            outcome,
            status_code: None,
            response_time_ms: 0,
            parts: Parts::default(),
            usage: Usage::default(),
            cost: None,
            price: None,
            answered_by: None,
            call_ids: PassedHeaders::default(),
            substitution: None,
            failure: None,
            retry_count: job.retry_count,
            maybe_billed: false,
            reserved: None,
            received: None,
            booked_on: None,
            billing: None,
        }
    }

    /// The day that it is booked on.
    #[must_use]
    pub fn day(&self) -> Day {
        self.booked_on.unwrap_or_else(|| self.ended_at.day())
    }

    /// How long a streamed answer went on after its first token; `None`: it had none.
    #[must_use]
    pub fn decode_ms(&self) -> Option<u64> {
        let first = self.parts.first_token_ms?;
        Some(self.response_time_ms.saturating_sub(first))
    }

    /// How fast its answer came: the tokens behind the first in the time behind it, or all of them in the time of the
    /// whole call where it was not streamed. `None`: it has no answer, nobody counted its tokens, or it came too fast to
    /// tell.
    #[must_use]
    pub fn speed(&self) -> Option<Speed> {
        let tokens = self.usage.completion_tokens;
        let (tokens, ms) = match self.decode_ms() {
            Some(ms) => (tokens.saturating_sub(1), ms),
            // Of a call that does not tell even this, no parts were measured.
            None => (
                tokens,
                self.parts.first_byte_ms.map(|_| self.response_time_ms)?,
            ),
        };
        let is_told = self.outcome == CallOutcome::Completed && tokens > 0 && ms > 0;
        is_told.then_some(Speed { tokens, ms })
    }

    /// Whether GLM billed something whose cost is not known: tokens of a model without a price, or an
    /// answer that came without its tokens. Such a call is counted as unpriced, never as free.
    #[must_use]
    pub const fn is_unpriced(&self) -> bool {
        let billed = matches!(self.outcome, CallOutcome::Completed) || self.usage.is_reported();
        self.cost.is_none() && billed
    }

    /// What budgets take an answered call for of which GLM did not say what it billed.
    #[must_use]
    pub fn assumed(&self) -> Option<Reserve> {
        self.reserved.filter(|_| !self.maybe_billed)
    }

    /// Whether GLM may have billed the call and nobody has found out yet.
    #[must_use]
    pub const fn is_billing_open(&self) -> bool {
        self.maybe_billed && self.billing.is_none()
    }
}
