//! Whoever logs in to pages: once, by a token or a key that is typed.

use onelane_core::model::{ClientKeys, KeyId, KeySecret, Timestamp};

use super::{Auth, of_key};
use crate::api::principal::{Access, Principal};

impl Auth {
    /// Whether pages of ours are asked for over TLS.
    pub(in crate::api) fn is_tls(&self) -> bool {
        self.scheme == "https"
    }

    /// Whether no token is set, and the machine gets in without one.
    pub(in crate::api) fn is_open(&self) -> bool {
        self.tokens.is_empty()
    }

    /// For whom a token or a key speaks that somebody typed; `None`: for nobody who may look at everything.
    pub(in crate::api) fn of_typed(
        &self,
        typed: &str,
        keys: &ClientKeys,
        now: Timestamp,
    ) -> Option<Known> {
        let typed = typed.trim();
        if let Some(principal) = self.of_token(typed) {
            let key = None;
            return Some(Known { principal, key });
        }
        let principal = of_key(typed, keys, now)?.ok()?;
        let known = Known {
            principal,
            key: Some((KeyId::of_key(typed)?, KeySecret::digest(typed))),
        };
        Access::Look.admits(&known.principal).then_some(known)
    }
}

/// Whom somebody logged in as, and by what that is known to hold still. Tokens hold as long as the process.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) principal: Principal,
    /// The key that was typed, with its digest.
    key: Option<(KeyId, String)>,
}

impl Known {
    /// Somebody on this machine, where nobody has to log in.
    pub(crate) const fn local() -> Self {
        Self {
            principal: Principal::Local,
            key: None,
        }
    }

    /// Whether it opens still.
    pub(in crate::api) fn opens(&self, keys: &ClientKeys, now: Timestamp) -> bool {
        let Some((id, digest)) = &self.key else {
            return true;
        };
        keys.get(*id).is_some_and(|key| {
            let is_it = |secret: &KeySecret| secret.sha256() == digest;
            key.why_dead(now).is_none() && key.secrets(now).any(is_it)
        })
    }
}
