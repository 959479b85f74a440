//! The public keys, as the pod's environment has them: a JWK Set (RFC 7517).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::VerifyingKey;
use serde::Deserialize;
use serde_json::Value;

/// The public keys of who may drain this pod, each with its id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys(Vec<(String, VerifyingKey)>);

/// Why a text is no JWK Set that can be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The text is not a JWK Set at all.
    #[error("not a JWK Set ({{\"keys\":[…]}}): {0}")]
    NotASet(#[source] serde_json::Error),
    /// None of its keys is a signing key of Ed25519.
    #[error(
        "no key in it is usable: each needs kty OKP, crv Ed25519, a kid, and x, the public key in base64url"
    )]
    NoneUsable,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Key {
    kty: String,
    crv: String,
    kid: String,
    x: String,
}

impl Keys {
    /// Reads a JWK Set. Keys of other kinds are passed over, as RFC 7517 §5 wants it: a later operator may add some.
    ///
    /// # Errors
    /// [`KeysError`] where that leaves none.
    pub fn from_jwk_set(text: &str) -> Result<Self, KeysError> {
        let Set { keys } = serde_json::from_str(text).map_err(KeysError::NotASet)?;
        let keys: Vec<_> = keys.into_iter().filter_map(usable).collect();
        if keys.is_empty() { Err(KeysError::NoneUsable) } else { Ok(Self(keys)) }
    }

    pub(super) fn get(&self, id: &str) -> Option<&VerifyingKey> {
        self.0.iter().find(|(known, _)| known == id).map(|(_, key)| key)
    }

    /// For a person who asks why a token was refused.
    pub(super) fn ids(&self) -> String {
        let ids: Vec<_> = self.0.iter().map(|(id, _)| id.as_str()).collect();
        if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
    }
}

fn usable(key: Value) -> Option<(String, VerifyingKey)> {
    let Key { kty, crv, kid, x } = serde_json::from_value(key).ok()?;
    if (kty.as_str(), crv.as_str()) != ("OKP", "Ed25519") {
        return None;
    }
    let x: [u8; 32] = URL_SAFE_NO_PAD.decode(x).ok()?.try_into().ok()?;
    let key = VerifyingKey::from_bytes(&x).ok()?;
    // With a point of small order anybody could sign.
    (!key.is_weak()).then_some((kid, key))
}
