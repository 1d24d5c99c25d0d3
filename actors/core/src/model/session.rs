//! A session: the calls of one conversation. GLM finds more of a prompt in its cache where they name one, and a lane
//! may keep them together.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{KeyId, limits};
use crate::words;

/// What a session is called: visible ASCII, so that it can stand in a header.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct SessionId(String);

/// A text is no session's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to {max} characters, visible ASCII without spaces", max = limits::SESSION_CHARS_MAX)]
pub struct NoSessionId;

/// What the id of a session that was made here begins with.
const MADE: &str = "auto-";
/// Bytes of a digest that such an id has.
const MADE_BYTES: usize = 12;

impl SessionId {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// One that is made of a digest.
    pub(crate) fn made(digest: Sha256) -> Self {
        let digest: [u8; 32] = digest.finalize().into();
        let digest: [u8; MADE_BYTES] = *digest.first_chunk().unwrap_or(&[0; MADE_BYTES]);
        let digits = digest.iter().map(|byte| format!("{byte:02x}"));
        Self(format!("{MADE}{}", digits.collect::<String>()))
    }

    /// What GLM is told instead of it, so that a session that another client key calls the same is another one there.
    pub(crate) fn of_key(&self, key: KeyId) -> Self {
        Self::made(self.digest(Some(key)))
    }

    fn digest(&self, key: Option<KeyId>) -> Sha256 {
        let key = key.map_or(0, KeyId::number);
        Sha256::new()
            .chain_update(key.to_be_bytes())
            .chain_update(&self.0)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SessionId {
    type Error = NoSessionId;

    fn try_from(text: String) -> Result<Self, NoSessionId> {
        let fits = (1..=limits::SESSION_CHARS_MAX).contains(&text.len());
        let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        (fits && is_visible)
            .then_some(Self(text))
            .ok_or(NoSessionId)
    }
}

impl FromStr for SessionId {
    type Err = NoSessionId;

    fn from_str(text: &str) -> Result<Self, NoSessionId> {
        text.to_owned().try_into()
    }
}

impl schemars::JsonSchema for SessionId {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SessionId".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "format": "session", "minLength": 1,
            "maxLength": limits::SESSION_CHARS_MAX})
    }
}

/// A session as a submission names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Session {
    /// By a field of ours. Two client keys that name the same mean two sessions, and GLM is told of two.
    Ours(SessionId),
    /// By the header that GLM has for it: it reaches GLM to the byte, whoever sends it.
    Glms(SessionId),
}

impl Session {
    /// What it is called here.
    #[must_use]
    pub const fn id(&self) -> &SessionId {
        match self {
            Self::Ours(id) | Self::Glms(id) => id,
        }
    }

    /// The same, when nothing else of it is asked.
    #[must_use]
    pub fn into_id(self) -> SessionId {
        match self {
            Self::Ours(id) | Self::Glms(id) => id,
        }
    }

    /// What GLM is told instead of that; `None`: that very id.
    #[must_use]
    pub fn told_as(&self, key: Option<KeyId>) -> Option<SessionId> {
        match self {
            Self::Ours(id) => Some(id.of_key(key?)),
            Self::Glms(_) => None,
        }
    }
}

impl From<SessionId> for Session {
    fn from(id: SessionId) -> Self {
        Self::Ours(id)
    }
}

/// A session in four bytes: every waiting job of one carries them. It is of one of those who take turns, a client key or
/// a user. That two have the same is rare, and then their calls are kept together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionTag(NonZeroU32);

impl SessionTag {
    /// That of a session of a client key; without one, of a user.
    #[must_use]
    pub fn of(id: &SessionId, key: Option<KeyId>, user: &str) -> Self {
        let user = if key.is_some() { "" } else { user };
        let digest = id.digest(key).chain_update([0]).chain_update(user);
        let digest: [u8; 32] = digest.finalize().into();
        let number = u32::from_be_bytes(*digest.first_chunk().unwrap_or(&[0; 4]));
        Self(NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN))
    }

    /// From a number.
    #[must_use]
    pub const fn new(number: NonZeroU32) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> NonZeroU32 {
        self.0
    }
}

/// What is done about sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sessions {
    /// GLM is told of none.
    Off,
    /// GLM is told of those that somebody names.
    #[default]
    Pass,
    /// A request that names none has that of its conversation.
    Derive,
}

words! {
    Sessions { Off, Pass, Derive }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SessionId {
        text.parse().unwrap()
    }

    #[test]
    fn a_session_is_visible_ascii_of_bounded_length() {
        let longest = "x".repeat(256);
        for good in ["a", "agent:main/7#{}", &longest] {
            assert_eq!(id(good).as_str(), good);
        }
        let longer = "x".repeat(257);
        for bad in ["", " ", "a b", "a\n", "\u{7f}", "é", &longer] {
            let problem = bad.parse::<SessionId>().unwrap_err().to_string();
            assert!(problem.contains("1 to 256 characters"), "{problem}");
            let json = serde_json::to_string(bad).unwrap();
            assert!(serde_json::from_str::<SessionId>(&json).is_err(), "{json}");
        }
    }

    #[test]
    fn two_keys_that_name_the_same_session_mean_two() {
        let [one, two] = [KeyId::new(1), KeyId::new(2)];
        let session = id("chat");
        let tag = |key, user| SessionTag::of(&session, key, user);
        let tags = [
            tag(None, "ada"),
            tag(None, "bob"),
            tag(Some(one), "ada"),
            tag(Some(two), "ada"),
        ];
        let distinct: std::collections::BTreeSet<_> = tags.iter().collect();
        assert_eq!(distinct.len(), tags.len());
        assert_eq!(
            tag(Some(one), "bob"),
            tags[2],
            "a key has its sessions, whomever it speaks for"
        );
        let ours = Session::from(session.clone());
        let told = |key| ours.told_as(key).map(|id| id.to_string());
        assert_eq!(told(None), None, "nobody's key is in the way");
        assert_ne!(told(Some(one)), told(Some(two)));
        assert!(told(Some(one)).unwrap().starts_with("auto-"));
        let glms = Session::Glms(session);
        assert_eq!(glms.told_as(Some(one)), None, "to the byte");
    }
}
