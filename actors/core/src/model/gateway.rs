//! What the gateway does for clients that wait for an answer, and for those that stop waiting.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Sessions, limits};
use crate::{section, words, written};

section! {
    /// `[gateway]`: clients that wait for an answer on their connection.
    #[derive(Copy, Eq)]
    pub struct GatewaySettings {
        /// A client waits so long for its call to begin; then it is answered with the reason, and a request without an
        /// Idempotency-Key is cancelled. What has no stated end, or a later one, is answered at once.
        max_wait_ms: u64 = 600_000 => [within(1_000..=limits::DAY_MS)];
        /// What becomes of a request whose client is gone, unless it has an Idempotency-Key: "abort" gives it up once the time
        /// to come back has passed, "keep" goes on and keeps the answer, "drain:SECONDS" gives it up after so long.
        on_disconnect: OnDisconnect = OnDisconnect::Abort;
        /// So long the same request, byte for byte, takes up the one whose client is gone, in its place in the queue, instead
        /// of being a second one: an SDK that asks again after its own timeout is served by one call. 0 is not at all.
        reattach_ms: u64 = 10_000 => [within(0..=limits::DAY_MS)];
        /// The same once the answer has begun to come in pieces.
        reattach_streaming_ms: u64 = 0 => [within(0..=limits::DAY_MS)];
        /// A streamed answer in which nothing happens for so long shows by a comment that its connection stands, before its
        /// first piece too: then a refusal that comes later is told in the stream. 0 is never; GLM's Java SDK can't read comments.
        keepalive_ms: u64 = 0 => [within(0..=limits::DAY_MS)];
        /// When an answer that is not streamed is given: "stored" once it is on disk, "relay" as soon as it is there. A crash
        /// in between leaves a call that is maybe billed, as one in the middle of a stream does.
        answer: AnswerWhen = AnswerWhen::Stored;
        /// What GLM is told of sessions, by X-Session-Id: "off" is nothing; "pass", those that somebody names; "derive",
        /// also one for each conversation of which nobody names any, made of client key, user and first messages.
        sessions: Sessions = Sessions::Pass;
    }
}

/// When an answer that is not streamed is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AnswerWhen {
    /// Once it is on disk.
    #[default]
    Stored,
    /// As soon as it is there.
    Relay,
}

/// What becomes of a call whose client is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDisconnect {
    /// It is given up.
    #[default]
    Abort,
    /// It goes on, and its answer is kept.
    Keep,
    /// It goes on for so many seconds, and is given up then.
    Drain {
        /// Seconds.
        seconds: u32,
    },
}

impl fmt::Display for OnDisconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Abort => f.write_str("abort"),
            Self::Keep => f.write_str("keep"),
            Self::Drain { seconds } => write!(f, "drain:{seconds}"),
        }
    }
}

impl FromStr for OnDisconnect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            let max = limits::DRAIN_S_MAX;
            format!(
                "must be \"abort\", \"keep\" or \"drain:SECONDS\", of 1 to {max} seconds, and is {text:?}"
            )
        };
        match text {
            "abort" => Ok(Self::Abort),
            "keep" => Ok(Self::Keep),
            _ => {
                let digits = text.strip_prefix("drain:").ok_or_else(wrong)?;
                // `parse` would take a sign.
                let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
                let seconds: Option<u32> = digits.parse().ok().filter(|_| is_number);
                let seconds = seconds.filter(|seconds| (1..=limits::DRAIN_S_MAX).contains(seconds));
                let seconds = seconds.ok_or_else(wrong)?;
                Ok(Self::Drain { seconds })
            }
        }
    }
}

impl Serialize for OnDisconnect {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OnDisconnect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for OnDisconnect {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "OnDisconnect".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "format": "on-disconnect", "pattern": "^(abort|keep|drain:[0-9]{1,5})$"})
    }
}

written!(OnDisconnect);
words! { AnswerWhen { Stored, Relay } }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_of_a_call_is_read_as_it_is_written() {
        for text in ["abort", "keep", "drain:1", "drain:86400"] {
            assert_eq!(text.parse::<OnDisconnect>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "Abort",
            "drain",
            "drain:",
            "drain:0",
            "drain:+1",
            "drain:86401",
        ] {
            let problem = text.parse::<OnDisconnect>().unwrap_err();
            assert!(problem.contains("drain:SECONDS"), "{problem}");
        }
    }
}
