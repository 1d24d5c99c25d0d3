//! Signatures as Standard Webhooks has them: HMAC-SHA256 over id, time and body.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use onelane_core::model::Timestamp;
use sha2::Sha256;

const PREFIX: &str = "whsec_";
/// Bytes of a key, as the specification asks for.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Keys at once: one that is going and one that is coming would do.
const KEYS_MAX: usize = 4;

/// The keys of one receiver. While one replaces another there are two, and a receiver that knows either
/// is content.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKeys(Vec<Vec<u8>>);

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKeys({})", self.0.len())
    }
}

impl SigningKeys {
    /// Reads `whsec_` and base64, several with commas between. The error never repeats them.
    pub fn parse(text: &str) -> Result<Self, String> {
        let key = |text: &str| {
            let text = text.trim().strip_prefix(PREFIX)?;
            let key = STANDARD.decode(text).ok()?;
            KEY_BYTES.contains(&key.len()).then_some(key)
        };
        let keys: Option<Vec<Vec<u8>>> = text.split(',').map(key).collect();
        let keys = keys.filter(|keys| keys.len() <= KEYS_MAX).ok_or_else(|| {
            format!(
                "must be whsec_ and the base64 of 24 to 64 bytes (at most {KEYS_MAX} of them, with commas \
                 between), as made by: echo whsec_$(openssl rand -base64 32)"
            )
        })?;
        Ok(Self(keys))
    }

    /// The `webhook-signature` of a body sent at this moment: one signature for each key.
    pub(super) fn sign(&self, id: &str, at: Timestamp, body: &[u8]) -> String {
        let head = format!("{id}.{}.", seconds(at));
        let signature = |key: &Vec<u8>| {
            // HMAC takes keys of any length.
            let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
            mac.update(head.as_bytes());
            mac.update(body);
            Some(format!(
                "v1,{}",
                STANDARD.encode(mac.finalize().into_bytes())
            ))
        };
        let signatures: Vec<String> = self.0.iter().filter_map(signature).collect();
        signatures.join(" ")
    }
}

/// The `webhook-timestamp`: whole seconds since 1970.
pub(super) const fn seconds(at: Timestamp) -> i64 {
    at.as_millis().div_euclid(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NEW: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    /// The example of the specification's own libraries.
    #[test]
    fn the_signature_is_that_of_the_specification() {
        let keys = SigningKeys::parse(OLD).unwrap();
        let at = Timestamp::from_millis(1_614_265_330_000);
        let signature = keys.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            at,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn while_keys_change_either_is_enough_for_another_implementation() {
        let keys = SigningKeys::parse(&format!("{OLD},{NEW}")).unwrap();
        let (body, at) = ("{\"a\":\"ü\"}", Timestamp::from_millis(1_795_392_000_999));
        let signatures = keys.sign("msg_1", at, body.as_bytes());
        for secret in [OLD, NEW] {
            let other = standardwebhooks::Webhook::new(secret).unwrap();
            let want = other.sign("msg_1", 1_795_392_000, body.as_bytes()).unwrap();
            assert!(signatures.split(' ').any(|one| one == want), "{signatures}");
        }
    }

    #[test]
    fn a_secret_that_is_none_is_refused_and_not_repeated() {
        for bad in [
            "",
            "secret",
            "whsec_",
            "whsec_???",
            "whsec_c2hvcnQ=",
            &format!("{OLD},"),
            &[OLD; 5].join(","),
        ] {
            let problem = SigningKeys::parse(bad).unwrap_err();
            assert!(problem.contains("openssl rand"), "{problem}");
            assert!(bad.len() < 8 || !problem.contains(bad), "{problem}");
        }
        let keys = SigningKeys::parse(OLD).unwrap();
        assert_eq!(format!("{keys:?}"), "SigningKeys(1)");
    }
}
