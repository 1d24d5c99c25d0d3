//! The id of a client key, which is no secret.

use super::super::id::numbered_id;

numbered_id! {
    /// A key's id, which is the beginning of the key: `ol-` and sixteen hexadecimal digits.
    KeyId of "a client key": "ol-", "client-key", NoKeyId
}

impl KeyId {
    /// The id with which a whole key begins; `None`: the text has not the form of a key.
    #[must_use]
    pub fn of_key(text: &str) -> Option<Self> {
        let (id, rest) = text.split_at_checked(Self::CHARS)?;
        let has_secret = rest.len() > 1 && rest.starts_with(['-', '.']);
        has_secret.then(|| id.parse().ok())?
    }
}
