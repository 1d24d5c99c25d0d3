//! The secret of a client key, and what a store keeps of it.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::super::{Secret, Wait};
use super::id::KeyId;

/// How a key is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyForm {
    /// It is sent as it is: `ol-ID-SECRET`.
    Plain,
    /// GLM's older SDKs sign with it: `ol-ID.SECRET`, of which only the id is sent.
    Jwt,
}

/// What a store keeps of a secret. Neither the wire nor a log ever shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeySecret {
    /// The SHA-256 of the whole key, in hexadecimal digits.
    sha256: String,
    /// What SDKs sign with, readable; only of a key that was made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signs: Option<String>,
}

impl KeySecret {
    /// A key of this id from random bytes: what is kept of it, and the key itself, to be shown once.
    #[must_use]
    pub fn make(id: KeyId, random: &[u8; 32], form: KeyForm) -> (Self, Secret) {
        let secret = hex(random);
        let (text, signs) = match form {
            KeyForm::Plain => (format!("{id}-{secret}"), None),
            KeyForm::Jwt => (format!("{id}.{secret}"), Some(secret)),
        };
        let sha256 = Self::digest(&text);
        (Self { sha256, signs }, Secret::new(&text))
    }

    /// The digest of a key that somebody shows, as [`KeySecret::sha256`] has it.
    #[must_use]
    pub fn digest(key: &str) -> String {
        let digest: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        hex(&digest)
    }

    /// The digest of the key, in hexadecimal digits. Compare it in constant time.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// What SDKs sign with; `None`: the key is not made for it.
    #[must_use]
    pub fn signs(&self) -> Option<&str> {
        self.signs.as_deref()
    }
}

impl fmt::Debug for KeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySecret(****)")
    }
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A secret that was replaced and still opens for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OldSecret {
    /// The secret.
    pub secret: KeySecret,
    /// It opens before this is over.
    pub until: Wait,
}
