//! What a request shows of itself: a key or a token in one of four places, or what GLM's older SDKs sign with a key.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac_sha256::HMAC;
use onelane_core::model::{KeyId, KeySecret};
use serde::Deserialize;
use subtle::ConstantTimeEq;
use warp::http::header::AUTHORIZATION;
use warp::http::{HeaderMap, HeaderName};

use super::problem::{Kind, Problem};

/// Where clients put their key: OpenAI's and GLM's, Anthropic's, Azure's.
const PLACES: [HeaderName; 3] = [
    AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
];

/// The key or token of a request: `Bearer KEY` or the bare key, and the bare key elsewhere. Several have to be the same.
pub(super) fn given(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut found: Option<&str> = None;
    for place in PLACES {
        for value in headers.get_all(&place) {
            let wrong = |problem: &str| Problem::new(Kind::Unauthorized, problem);
            let value = value
                .to_str()
                .map_err(|_| wrong("the key that was sent is not printable ASCII"))?;
            let key = bare(value);
            match found {
                Some(other) if !bool::from(other.as_bytes().ct_eq(key.as_bytes())) => {
                    let problem = "the request shows several keys that differ; send one";
                    return Err(wrong(problem));
                }
                _ => found = Some(key),
            }
        }
    }
    Ok(found)
}

fn bare(value: &str) -> &str {
    let value = value.trim();
    match value.split_once(' ') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => rest.trim(),
        _ => value,
    }
}

/// A JWT as GLM's older SDKs make it: HS256 over the secret of a key `ID.SECRET`, of which it names the id. When it
/// was made and when it ends is not looked at: clocks of clients differ, and GLM is not strict either.
pub(super) struct Signed<'a> {
    id: Option<KeyId>,
    signed: &'a str,
    signature: [u8; 32],
}

#[derive(Deserialize)]
struct Head {
    alg: String,
}

#[derive(Deserialize)]
struct Claims {
    api_key: String,
}

impl<'a> Signed<'a> {
    /// Takes it apart; `None`: it is none.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (head, claims) = signed.split_once('.')?;
        let part = |text: &str| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok();
        let head: Head = serde_json::from_slice(&part(head)?).ok()?;
        let claims: Claims = serde_json::from_slice(&part(claims)?).ok()?;
        if head.alg != "HS256" {
            return None;
        }
        Some(Self {
            id: claims.api_key.parse().ok(),
            signed,
            signature: part(signature)?.try_into().ok()?,
        })
    }

    /// The key that it names; `None`: the name is no key's of ours.
    pub(super) const fn key_id(&self) -> Option<KeyId> {
        self.id
    }

    /// Whether it was signed with this secret.
    pub(super) fn is_by(&self, secret: &KeySecret) -> bool {
        let Some(secret) = secret.signs() else {
            return false;
        };
        let right = HMAC::mac(self.signed.as_bytes(), secret.as_bytes());
        right.ct_eq(&self.signature).into()
    }
}

#[cfg(test)]
mod tests {
    use onelane_core::model::KeyForm;

    use super::*;

    /// A token as `zhipuai` makes it of its key.
    fn sign(key: &str, alg: &str) -> String {
        let (id, secret) = key.split_once('.').unwrap();
        let part = |json: String| URL_SAFE_NO_PAD.encode(json);
        let head = part(format!(
            r#"{{"alg":"{alg}","sign_type":"SIGN","typ":"JWT"}}"#
        ));
        let claims = format!(r#"{{"api_key":"{id}","exp":1,"timestamp":1}}"#);
        let signed = format!("{head}.{}", part(claims));
        let signature = URL_SAFE_NO_PAD.encode(HMAC::mac(signed.as_bytes(), secret.as_bytes()));
        format!("{signed}.{signature}")
    }

    #[test]
    fn what_an_old_sdk_signs_is_known_by_its_key_and_nothing_else_is() {
        let id = KeyId::new(7);
        let (secret, text) = KeySecret::make(id, &[1; 32], KeyForm::Jwt);
        let token = sign(text.expose(), "HS256");
        let signed = Signed::read(&token).unwrap();
        assert_eq!(signed.key_id(), Some(id));
        assert!(signed.is_by(&secret), "its time is not looked at");
        let (other, _) = KeySecret::make(id, &[2; 32], KeyForm::Jwt);
        assert!(!signed.is_by(&other));
        // The digest of a plain key signs nothing.
        let (plain, _) = KeySecret::make(id, &[1; 32], KeyForm::Plain);
        assert!(!signed.is_by(&plain));
        let forged = format!("{}A", &token[..token.len() - 1]);
        assert!(Signed::read(&forged).is_none_or(|signed| !signed.is_by(&secret)));
        assert!(Signed::read(&sign(text.expose(), "none")).is_none());
        for other in ["", "a", "a.b", "a.b.c", text.expose(), "eyJ9.e30.e30"] {
            assert!(Signed::read(other).is_none(), "{other}");
        }
        let stranger = sign("0123456789abcdef0123456789abcdef.abcdefghijklmnop", "HS256");
        assert_eq!(Signed::read(&stranger).unwrap().key_id(), None);
    }
}
