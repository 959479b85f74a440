//! Signs what is asked, as the operator does (`docs/protocol.md`, "Tokens"): a JWT with Ed25519.

use std::path::Path;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};

/// The published test vectors, with a private key for tests.
const VECTORS: &str = include_str!("../../../docs/drain-token.vectors.json");

/// A private key and its name.
#[derive(Debug, Clone)]
pub(crate) struct Signer {
    key: SigningKey,
    kid: String,
}

impl Signer {
    /// The key of this file, or the one of the test vectors.
    pub(crate) fn read(file: Option<&Path>) -> anyhow::Result<Self> {
        const HOW: &str = r#"write {"kty": "OKP", "crv": "Ed25519", "kid": "…", "d": "…"}"#;
        let Some(file) = file else { return Self::from_jwk(&vectors()["privateKey"]).context(HOW) };
        let text =
            std::fs::read_to_string(file).with_context(|| format!("--token-key {}", file.display()))?;
        let jwk = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self::from_jwk(&jwk).with_context(|| format!("--token-key {}: {HOW}", file.display()))
    }

    fn from_jwk(jwk: &Value) -> anyhow::Result<Self> {
        let text = |name: &str| jwk[name].as_str().with_context(|| format!("{name} is missing"));
        if (text("kty")?, text("crv")?) != ("OKP", "Ed25519") {
            bail!("it is no Ed25519 key");
        }
        let seed = URL_SAFE_NO_PAD.decode(text("d")?).ok().and_then(|seed| <[u8; 32]>::try_from(seed).ok());
        let key = SigningKey::from_bytes(&seed.context("d must be 32 bytes in base64url")?);
        Ok(Self { key, kid: text("kid")?.to_owned() })
    }

    /// `GRACEFUL_DRAIN_KEYS` for a pod that is to know this key.
    pub(crate) fn public(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.key.verifying_key().as_bytes());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": x}]}).to_string()
    }

    /// The header that a good token has.
    pub(crate) fn header(&self) -> Value {
        json!({"alg": "EdDSA", "typ": "JWT", "kid": self.kid})
    }

    /// The compact form.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes()).to_bytes());
        format!("{signed}.{signature}")
    }
}

fn vectors() -> Value {
    serde_json::from_str(VECTORS).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_signs_what_the_vectors_hold() {
        let signer = Signer::read(None).unwrap();
        let vector = &vectors()["vectors"][0];
        let signature = |token: &str| token.rsplit('.').next().unwrap().to_owned();
        // The members of a vector have an order of their own: what was signed is taken from it.
        let token = vector["token"].as_str().unwrap();
        let signed = token.rsplit_once('.').unwrap().0;
        let again = URL_SAFE_NO_PAD.encode(signer.key.sign(signed.as_bytes()).to_bytes());
        assert_eq!(again, signature(token));
        assert_eq!(signer.header()["kid"], vectors()["keys"]["keys"][0]["kid"]);
        let public: Value = serde_json::from_str(&signer.public()).unwrap();
        assert_eq!(public["keys"][0]["x"], vectors()["keys"]["keys"][0]["x"]);
    }

    #[test]
    fn a_key_that_is_none_is_refused_with_what_to_write() {
        let said = format!("{:#}", Signer::read(Some(Path::new("/no/such/key"))).unwrap_err());
        assert!(said.contains("--token-key /no/such/key"), "{said}");
        assert!(Signer::from_jwk(&json!({"kty": "RSA", "crv": "Ed25519"})).is_err());
        assert!(Signer::from_jwk(&json!({"kty": "OKP", "crv": "Ed25519", "kid": "k", "d": "AAAA"})).is_err());
    }
}
