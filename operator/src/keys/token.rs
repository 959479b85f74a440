//! A drain token: the claims, signed. `docs/protocol.md` has the form, `docs/drain-token.vectors.json` the test vectors.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::Signer;
use serde::Serialize;

use super::ring::{Key, KeyId};

/// What pods know this operator as.
const ISSUER: &str = "graceful-operator";

/// What is allowed: this to that process of that pod, in this epoch, until then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claims<'a> {
    pub(crate) pod_uid: &'a str,
    pub(crate) boot_id: &'a str,
    /// `drain` or `resume`.
    pub(crate) action: &'static str,
    pub(crate) epoch: u64,
    /// In seconds since 1970, by the pod's own clock.
    pub(crate) expires: i64,
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    typ: &'static str,
    kid: &'a KeyId,
}

#[derive(Serialize)]
struct Payload<'a> {
    iss: &'static str,
    sub: &'a str,
    boot: &'a str,
    action: &'static str,
    epoch: u64,
    exp: i64,
}

/// The compact form.
pub(super) fn sign(key: &Key, claims: &Claims<'_>) -> String {
    let Claims { pod_uid, boot_id, action, epoch, expires } = *claims;
    let header = Header { alg: "EdDSA", typ: "JWT", kid: &key.id };
    let payload = Payload { iss: ISSUER, sub: pod_uid, boot: boot_id, action, epoch, exp: expires };
    let text = format!("{}.{}", encoded(&header), encoded(&payload));
    let signature = URL_SAFE_NO_PAD.encode(key.signing.sign(text.as_bytes()).to_bytes());
    format!("{text}.{signature}")
}

fn encoded(part: &impl Serialize) -> String {
    // Texts and numbers: there is nothing in it that could fail.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(part).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use ed25519_dalek::SigningKey;
    use serde_json::Value;

    use super::*;

    /// Each vector that a pod accepts is, byte for byte, what this signs.
    #[test]
    fn the_vectors_are_what_is_signed() {
        let vectors: Value =
            serde_json::from_str(include_str!("../../../docs/drain-token.vectors.json")).unwrap();
        let seed = URL_SAFE_NO_PAD.decode(vectors["privateKey"]["d"].as_str().unwrap()).unwrap();
        let signing = SigningKey::from_bytes(&seed.try_into().unwrap());
        let kid = &vectors["privateKey"]["kid"];
        let key = Key { id: KeyId(kid.as_str().unwrap().to_owned()), signing };
        let mut signed = 0;
        for vector in vectors["vectors"].as_array().unwrap() {
            if !vector["refused"].is_null() || vector["header"]["kid"] != *kid {
                continue;
            }
            let (claims, request) = (&vector["claims"], &vector["request"]);
            let ours = sign(
                &key,
                &Claims {
                    pod_uid: vectors["podUid"].as_str().unwrap(),
                    boot_id: vectors["bootId"].as_str().unwrap(),
                    action: if request["action"] == "drain" { "drain" } else { "resume" },
                    epoch: request["epoch"].as_u64().unwrap(),
                    expires: claims["exp"].as_i64().unwrap(),
                },
            );
            assert_eq!(ours, vector["token"].as_str().unwrap(), "{}", vector["name"]);
            signed += 1;
        }
        assert!(signed >= 2, "a drain and a resume at least");
    }

    /// `cargo test -p graceful-operator --lib keys -- --ignored --nocapture`: what a PUT costs more.
    #[test]
    #[ignore = "a measurement, for docs/adr"]
    fn what_signing_costs() {
        let key = Key { id: KeyId("k".to_owned()), signing: SigningKey::from_bytes(&[7; 32]) };
        let claims = Claims { pod_uid: "u", boot_id: "b", action: "drain", epoch: 7, expires: 1 };
        let begun = Instant::now();
        let length: usize = (0..1000).map(|_| sign(&key, &claims).len()).sum();
        println!("{:?} a token of {} characters", begun.elapsed() / 1000, length / 1000);
    }
}
