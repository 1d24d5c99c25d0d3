//! Signatures as Standard Webhooks has them: HMAC-SHA256 over id, time and body.

use onelane_core::model::setting::{Kind, Secrets, Setting};
use onelane_core::model::{Secret, Timestamp};
use serde_json::Value;
use standardwebhooks::Webhook;

/// The base64 of a key of 24 to 64 bytes, as the specification asks for, has so many characters.
const KEY_CHARS: std::ops::RangeInclusive<usize> = 32..=88;
/// Keys at once: one that is going and one that is coming would do.
const KEYS_MAX: usize = 4;

/// The keys of one receiver. While one replaces another there are two, and a receiver that knows either
/// is content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKeys(Secret);

impl SigningKeys {
    /// Reads `whsec_` and base64, several with commas between. The error never repeats them.
    pub fn parse(text: &str) -> Result<Self, String> {
        let keys = Self(Secret::new(text));
        let is_good = text.split(',').count() <= KEYS_MAX && keys.each().all(|key| key.is_some());
        is_good.then_some(keys).ok_or_else(|| {
            format!(
                "must be whsec_ and the base64 of 24 to 64 bytes (at most {KEYS_MAX} of them, with commas \
                 between), as made by: echo whsec_$(openssl rand -base64 32)"
            )
        })
    }

    /// Each of the keys; `None` for what is none.
    fn each(&self) -> impl Iterator<Item = Option<Webhook>> {
        self.0.expose().split(',').map(|text| {
            let key = text.trim().strip_prefix("whsec_")?;
            KEY_CHARS.contains(&key.len()).then_some(())?;
            Webhook::new(key).ok()
        })
    }

    /// The `webhook-signature` of a body sent at this moment: one signature for each key.
    pub(super) fn sign(&self, id: &str, at: Timestamp, body: &[u8]) -> String {
        let signatures = self.each().flatten();
        // JSON is UTF-8, the only thing that a signature asks for.
        let signatures = signatures.filter_map(|key| key.sign(id, seconds(at), body).ok());
        signatures.collect::<Vec<_>>().join(" ")
    }
}

impl Setting for SigningKeys {
    fn kind() -> Kind {
        Kind::Secret(|text| Ok(Self::parse(text).map(|_| text.to_owned())?))
    }

    fn write(&self, secrets: Secrets) -> Value {
        self.0.write(secrets)
    }

    fn take(value: &Value) -> Option<Self> {
        Self::parse(value.as_str()?).ok()
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
        assert_eq!(format!("{keys:?}"), "SigningKeys(Secret(****))");
    }
}
