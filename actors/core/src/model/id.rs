//! Ids and numbers that must not be mistaken for one another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Timestamp;

/// Makes an id that is a number, written as a prefix and sixteen hexadecimal digits: small enough for every waiting job
/// to carry it.
macro_rules! numbered_id {
    ($(#[doc = $doc:literal])* $name:ident of $what:literal: $prefix:literal, $format:literal, $none:ident) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(::std::num::NonZeroU64);

        impl $name {
            const PREFIX: &str = $prefix;
            const CHARS: usize = Self::PREFIX.len() + 16;

            /// From a random number.
            #[must_use]
            pub const fn new(number: u64) -> Self {
                match ::std::num::NonZeroU64::new(number) {
                    Some(number) => Self(number),
                    None => Self(::std::num::NonZeroU64::MIN),
                }
            }

            /// The number that is the key in the store.
            #[must_use]
            pub const fn number(self) -> u64 {
                self.0.get()
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                write!(f, "{}{:016x}", Self::PREFIX, self.0)
            }
        }

        #[doc = concat!("A text is not the id of ", $what, ".")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $none;

        impl ::std::fmt::Display for $none {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(concat!("must be the id of ", $what, ", like ", $prefix, "00c0ffee00c0ffee"))
            }
        }

        impl ::std::error::Error for $none {}

        impl ::std::str::FromStr for $name {
            type Err = $none;

            fn from_str(text: &str) -> Result<Self, $none> {
                let digits = text.strip_prefix(Self::PREFIX).ok_or($none)?;
                if text.len() != Self::CHARS || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err($none);
                }
                let number = u64::from_str_radix(digits, 16).map_err(|_| $none)?;
                ::std::num::NonZeroU64::new(number).map(Self).ok_or($none)
            }
        }

        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <::std::borrow::Cow<'de, str> as ::serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(::serde::de::Error::custom)
            }
        }

        impl ::schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> ::std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut ::schemars::SchemaGenerator) -> ::schemars::Schema {
                ::schemars::json_schema!({"type": "string", "format": $format})
            }
        }
    };
}
pub(super) use numbered_id;

/// A job's id: a UUID of version 7, so that ids sort by the time they were made.
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
#[serde(transparent)]
pub struct JobId(
    #[serde(with = "uuid::serde::hyphenated")]
    #[schemars(with = "Uuid")]
    Uuid,
);

impl JobId {
    /// From a UUID that the Ids port, the store or a client gave.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The sixteen bytes that are the key in the store.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// From the sixteen bytes of a key in the store.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// When it was made, to the millisecond; `None`: it is of another version.
    #[must_use]
    pub fn made_at(&self) -> Option<Timestamp> {
        let (seconds, nanos) = self.0.get_timestamp()?.to_unix();
        let ms = seconds
            .checked_mul(1_000)?
            .checked_add(u64::from(nanos / 1_000_000))?;
        i64::try_from(ms).ok().map(Timestamp::from_millis)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for JobId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::try_parse(text).map(Self)
    }
}

/// A job as a response of ours: what the responses face calls it, whoever of its clients names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseId(pub JobId);

impl ResponseId {
    const PREFIX: &str = "resp_";

    /// The response that a text names; `None`: it is none of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let job = text.strip_prefix(Self::PREFIX)?;
        job.parse().ok().map(Self)
    }
}

impl fmt::Display for ResponseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.0.0.simple())
    }
}

/// A job's place in line: given by the store at insertion, persisted, never reused.
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
pub struct Seq(pub u64);

/// The number of an attempt within its job, from 1. It fences outcomes: one that belongs to an
/// older attempt is refused by the store.
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
pub struct AttemptNo(pub u32);

impl AttemptNo {
    /// The attempt after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for AttemptNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which of the lane's slots, from 0 to `max_concurrency` - 1.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct SlotId(pub u16);

/// The `request_id` sent to GLM: fresh for every attempt, since GLM refuses a repeated one (1231),
/// and made of job and attempt, so that a line in GLM's console leads back to the call log.
/// 6 to 64 characters, as GLM asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct RequestId(String);

impl RequestId {
    /// The id of one attempt of one job.
    #[must_use]
    pub fn new(job: JobId, attempt: AttemptNo) -> Self {
        Self(format!("{}-{attempt}", job.0.simple()))
    }

    /// An id that a submitter chose; `None`: GLM takes 6 to 64 characters, and those of a header are safe everywhere.
    #[must_use]
    pub fn chosen(text: &str) -> Option<Self> {
        let fits = (6..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| Self(text.to_owned()))
    }

    /// The job of which a text would be the id of an attempt; `None`: it has not the form of one. That some lane
    /// issued it does not say that this one did.
    #[must_use]
    pub fn job_in(text: &str) -> Option<JobId> {
        let (job, attempt) = text.split_once('-')?;
        let is_number = !attempt.is_empty() && attempt.bytes().all(|b| b.is_ascii_digit());
        let job = (job.len() == 32 && is_number).then_some(job)?;
        Uuid::try_parse(job).ok().map(JobId)
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_a_response_names_its_job() {
        let job = JobId::from_bytes([7; 16]);
        let id = ResponseId(job).to_string();
        assert!(id.starts_with("resp_") && !id.contains('-'), "{id}");
        assert_eq!(ResponseId::parse(&id), Some(ResponseId(job)));
        for other in ["", "resp_", "resp_abc", "chatcmpl-1", &job.to_string()] {
            assert_eq!(ResponseId::parse(other), None, "{other}");
        }
    }
}
