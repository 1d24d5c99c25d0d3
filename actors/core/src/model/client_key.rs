//! A client key: what a program shows at the gateway, whom it speaks for, and how much that may do.
//!
//! A key is `ol-` and sixteen hexadecimal digits, its id, which are no secret; then 256 random bits. The store
//! keeps the digest of the whole.

mod id;
mod rights;
mod secret;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Budget, BudgetRules, BudgetScope, Timestamp, Wait, limits, private, private_or_none};

pub use id::{KeyId, NoKeyId};
pub use rights::{KeyBudget, KeyError, KeyRights, NoKeyBudget};
pub use secret::{KeyForm, KeySecret, OldSecret};

/// What a key is for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum KeyRole {
    /// Hands work in and looks at its own.
    #[default]
    Client,
    /// Looks at everything that an operator may look at, and changes nothing.
    Viewer,
}

impl KeyRole {
    /// The name used in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Viewer => "viewer",
        }
    }
}

/// Whether a key opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// It does.
    Live,
    /// Its time was over at this moment.
    Expired(Timestamp),
    /// Somebody took it back at this moment.
    Revoked(Timestamp),
}

impl KeyState {
    /// The name used in lists.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Expired(_) => "expired",
            Self::Revoked(_) => "revoked",
        }
    }
}

/// A client key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientKey {
    /// Its id, with which the key itself begins.
    pub id: KeyId,
    /// What its operator calls it.
    pub name: String,
    /// What it is for.
    pub role: KeyRole,
    /// GLM's older SDKs sign with it; its secret is readable in the store.
    #[serde(default)]
    pub jwt: bool,
    /// How much it may do.
    #[serde(flatten)]
    pub rights: KeyRights,
    /// When it was made.
    pub created_at: Timestamp,
    /// It opens before this moment; `None`: for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When its secret was replaced last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_at: Option<Timestamp>,
    /// When somebody took it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
    /// What opens.
    #[serde(skip_serializing_if = "private")]
    #[schemars(skip)]
    pub secret: KeySecret,
    /// What opened before, and may still.
    #[serde(default, skip_serializing_if = "private_or_none")]
    #[schemars(skip)]
    pub previous: Option<OldSecret>,
}

impl ClientKey {
    /// A key of nothing but its id and its secret, with every right and no bound.
    #[must_use]
    pub fn new(
        id: KeyId,
        name: impl Into<String>,
        secret: KeySecret,
        created_at: Timestamp,
    ) -> Self {
        Self {
            id,
            name: name.into(),
            role: KeyRole::Client,
            jwt: secret.signs().is_some(),
            rights: KeyRights::default(),
            created_at,
            expires_at: None,
            rotated_at: None,
            revoked_at: None,
            secret,
            previous: None,
        }
    }

    /// Checks what its maker chose.
    pub fn check(&self) -> Result<(), KeyError> {
        let max = limits::KEY_NAME_CHARS_MAX;
        let length = self.name.chars().count();
        if !(1..=max).contains(&length) || self.name.chars().any(char::is_control) {
            let problem = format!("must have 1 to {max} characters, none of them a control one");
            return Err(KeyError::new("name", problem));
        }
        if self.expires_at.is_some_and(|at| at <= self.created_at) {
            return Err(KeyError::new("expiresAt", "must be in the future"));
        }
        self.rights.check()
    }

    /// How it is used.
    #[must_use]
    pub const fn form(&self) -> KeyForm {
        if self.jwt {
            KeyForm::Jwt
        } else {
            KeyForm::Plain
        }
    }

    /// What its calls may come to. Dead, it still has its budget: jobs that it handed in go on.
    #[must_use]
    pub fn budget(&self) -> Option<Budget> {
        let KeyBudget {
            limit,
            period,
            over,
        } = self.rights.budget?;
        Some(Budget {
            name: format!("client key {}", self.id),
            users: BudgetScope::All,
            models: BudgetScope::All,
            key: Some(self.id),
            limit,
            rules: BudgetRules {
                period,
                over,
                ..BudgetRules::default()
            },
        })
    }

    /// Whether it opens.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> KeyState {
        match (self.revoked_at, self.expires_at) {
            (Some(at), _) => KeyState::Revoked(at),
            (None, Some(at)) if at <= now => KeyState::Expired(at),
            (None, _) => KeyState::Live,
        }
    }

    /// Why it opens nothing, in words; `None`: it opens.
    #[must_use]
    pub fn why_dead(&self, now: Timestamp) -> Option<String> {
        let id = self.id;
        match self.state(now) {
            KeyState::Live => None,
            KeyState::Expired(at) => Some(format!("client key {id} expired at {at}")),
            KeyState::Revoked(at) => Some(format!("client key {id} was revoked at {at}")),
        }
    }

    /// The secrets that open at this moment, whatever its state.
    pub fn secrets(&self, now: Timestamp) -> impl Iterator<Item = &KeySecret> {
        let old = self.previous.as_ref();
        let old = old.filter(|old| !old.until.is_over(now));
        std::iter::once(&self.secret).chain(old.map(|old| &old.secret))
    }

    /// Somebody takes it back. What is revoked stays so.
    pub fn revoke(&mut self, at: Timestamp) {
        self.revoked_at.get_or_insert(at);
    }

    /// Replaces its secret; the old one opens for a while. Said again of the same secret, nothing changes.
    pub fn rotate(&mut self, secret: KeySecret, overlap_ms: u64, at: Timestamp) {
        if self.secret == secret {
            return;
        }
        let old = std::mem::replace(&mut self.secret, secret);
        self.rotated_at = Some(at);
        self.previous = (overlap_ms > 0).then(|| OldSecret {
            secret: old,
            until: Wait::from(at, overlap_ms),
        });
    }
}

/// A change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyStep {
    /// Somebody takes it back.
    Revoke,
    /// Its secret is replaced.
    Rotate {
        /// By this.
        secret: KeySecret,
        /// The old one opens for so long.
        overlap_ms: u64,
    },
}

/// The keys of a store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientKeys(BTreeMap<KeyId, Arc<ClientKey>>);

impl ClientKeys {
    /// One of them.
    #[must_use]
    pub fn get(&self, id: KeyId) -> Option<&Arc<ClientKey>> {
        self.0.get(&id)
    }

    /// All of them, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ClientKey>> {
        self.0.values()
    }

    /// Whether there are none, dead ones included.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<ClientKey> for ClientKeys {
    fn from_iter<I: IntoIterator<Item = ClientKey>>(keys: I) -> Self {
        let keys = keys.into_iter();
        Self(keys.map(|key| (key.id, Arc::new(key))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;
    use crate::testing::sample::START;

    const ID: KeyId = KeyId::new(0xc0_ffee);

    fn key(random: u8, form: KeyForm) -> (KeySecret, Secret) {
        KeySecret::make(ID, &[random; 32], form)
    }

    #[test]
    fn a_key_begins_with_its_id_and_an_id_reads_back() {
        let (_, text) = key(7, KeyForm::Plain);
        let text = text.expose();
        assert!(text.starts_with("ol-0000000000c0ffee-0707"), "{text}");
        assert_eq!(text.len(), 3 + 16 + 1 + 64);
        assert_eq!(KeyId::of_key(text), Some(ID));
        assert_eq!(ID.to_string().parse(), Ok(ID));
        let (_, text) = key(7, KeyForm::Jwt);
        assert!(text.expose().starts_with("ol-0000000000c0ffee.0707"));
        assert_eq!(KeyId::of_key(text.expose()), Some(ID));
        for bad in [
            "",
            "ol-0000000000c0ffee",
            "ol-0000000000c0ffee-",
            "ol-0000000000c0ffex-07",
            "sk-0000000000c0ffee-07",
            "ol-000000000000000\u{e9}-07",
        ] {
            assert_eq!(KeyId::of_key(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_secret_of_a_key_is_in_its_row_and_never_on_the_wire_nor_in_a_log() {
        for form in [KeyForm::Plain, KeyForm::Jwt] {
            let (secret, text) = key(0xab, form);
            let mut made = ClientKey::new(ID, "agent", secret, START);
            made.rotate(key(0xcd, form).0, 1_000, START);
            let digest = KeySecret::digest(text.expose());
            let wire = serde_json::to_string(&made).unwrap();
            let logged = format!("{made:?}");
            for part in ["abab", "cdcd", digest.as_str()] {
                assert!(!wire.contains(part), "{part} in {wire}");
                assert!(!logged.contains(part), "{part} in {logged}");
            }
            let row = crate::model::row(|| serde_json::to_string(&made).unwrap());
            assert!(row.contains(&digest), "{row}");
            assert_eq!(row.contains("abab"), form == KeyForm::Jwt, "{row}");
        }
    }

    #[test]
    fn a_replaced_secret_opens_until_the_overlap_is_over() {
        let (first, second) = (key(1, KeyForm::Plain).0, key(2, KeyForm::Plain).0);
        let mut made = ClientKey::new(ID, "agent", first.clone(), START);
        made.rotate(second.clone(), 5_000, START.plus_ms(1_000));
        made.rotate(second.clone(), 9_000, START.plus_ms(2_000));
        let opens =
            |made: &ClientKey, at| made.secrets(START.plus_ms(at)).cloned().collect::<Vec<_>>();
        assert_eq!(opens(&made, 5_999), [second.clone(), first.clone()]);
        assert_eq!(opens(&made, 6_000), std::slice::from_ref(&second));
        made.rotate(first.clone(), 0, START.plus_ms(3_000));
        assert_eq!(opens(&made, 3_000), [first]);
    }

    #[test]
    fn a_key_is_dead_once_it_is_revoked_or_its_time_is_over() {
        let mut made = ClientKey::new(ID, "agent", key(1, KeyForm::Plain).0, START);
        assert_eq!(made.state(START), KeyState::Live);
        let end = START.plus_ms(10);
        made.expires_at = Some(end);
        assert_eq!(made.state(START.plus_ms(9)), KeyState::Live);
        assert_eq!(made.state(end), KeyState::Expired(end));
        made.revoke(START.plus_ms(3));
        made.revoke(START.plus_ms(4));
        assert_eq!(made.state(end), KeyState::Revoked(START.plus_ms(3)));
    }

    #[test]
    fn what_a_key_is_made_of_is_checked_by_field() {
        let check = |change: fn(&mut ClientKey), want: Option<&str>| {
            let mut made = ClientKey::new(ID, "agent", key(1, KeyForm::Plain).0, START);
            change(&mut made);
            let field = made.check().err().map(|error| error.field);
            assert_eq!(field, want, "{made:?}");
        };
        check(|_| {}, None);
        check(|key| key.name = String::new(), Some("name"));
        check(|key| key.name = "a\nb".into(), Some("name"));
        check(|key| key.expires_at = Some(START), Some("expiresAt"));
        check(|key| key.rights.share = 0, Some("share"));
    }
}
