//! Who is logged in: sessions in memory, known by the digest of a random text that their cookie has. A restart ends them.

use std::collections::BTreeMap;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::api::site::Known;

/// A session lasts so long.
pub(super) const LASTS: Duration = Duration::from_secs(12 * 60 * 60);
/// Sessions at once; the oldest makes room.
const SESSIONS_MAX: usize = 1_000;

type Key = [u8; 32];

/// Somebody who is logged in.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) known: Known,
    /// What its forms have to say.
    pub(super) form_token: String,
    until: Instant,
}

impl Session {
    pub(super) const fn of(known: Known, form_token: String, until: Instant) -> Self {
        Self {
            known,
            form_token,
            until,
        }
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Sessions(BTreeMap<Key, Session>);

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key(cookie: &str) -> Key {
    Sha256::digest(cookie.as_bytes()).into()
}

/// What the forms of a session say, known to its pages alone.
pub(super) fn form_token(secret: &[u8]) -> String {
    let mut digest = Sha256::new();
    digest.update(b"form ");
    digest.update(secret);
    hex(&digest.finalize())
}

impl Sessions {
    /// Begins a session, and answers what its cookie says.
    pub(super) fn begin(&mut self, known: Known, secret: &[u8; 32], now: Instant) -> String {
        self.0.retain(|_, session| session.until > now);
        if self.0.len() >= SESSIONS_MAX {
            let oldest = self.0.iter().min_by_key(|(_, session)| session.until);
            if let Some(key) = oldest.map(|(key, _)| *key) {
                self.0.remove(&key);
            }
        }
        let cookie = hex(secret);
        let session = Session {
            known,
            form_token: form_token(secret),
            until: now + LASTS,
        };
        self.0.insert(key(&cookie), session);
        cookie
    }

    /// The session of a cookie, unless it is over.
    pub(super) fn find(&self, cookie: &str, now: Instant) -> Option<Session> {
        let found = self.0.get(&key(cookie));
        found.filter(|session| session.until > now).cloned()
    }

    /// Ends a session.
    pub(super) fn end(&mut self, cookie: &str) {
        self.0.remove(&key(cookie));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_known_by_its_cookie_until_it_is_over() {
        let (mut sessions, start) = (Sessions::default(), Instant::now());
        let cookie = sessions.begin(Known::local(), &[7; 32], start);
        let found = sessions.find(&cookie, start).unwrap();
        assert_ne!(found.form_token, cookie, "a page does not tell the cookie");
        assert!(sessions.find(&cookie, start + LASTS).is_none());
        assert!(sessions.find(&hex(&[8; 32]), start).is_none());
        sessions.end(&cookie);
        assert!(sessions.find(&cookie, start).is_none());
    }

    #[test]
    fn there_are_so_many_sessions_at_most_and_the_oldest_makes_room() {
        let (mut sessions, start) = (Sessions::default(), Instant::now());
        let begin = |sessions: &mut Sessions, n: u64| {
            let mut secret = [0; 32];
            secret[..8].copy_from_slice(&n.to_be_bytes());
            sessions.begin(Known::local(), &secret, start + Duration::from_secs(n))
        };
        let first = begin(&mut sessions, 0);
        let second = begin(&mut sessions, 1);
        for n in 2..=SESSIONS_MAX as u64 {
            begin(&mut sessions, n);
        }
        let now = start + Duration::from_secs(SESSIONS_MAX as u64);
        assert!(sessions.find(&first, now).is_none());
        assert!(sessions.find(&second, now).is_some());
        assert_eq!(sessions.0.len(), SESSIONS_MAX);
    }
}
