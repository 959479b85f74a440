//! The compact form (RFC 7515): `header.payload.signature`, each in base64url.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::Signature;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Keys, Refusal};

/// A token has some 380 characters; a pod's uid and boot id are the longest things in it.
const LONGEST: usize = 4096;

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
    crit: Option<Value>,
}

/// The payload, once the signature is found to be of one of these keys. Nothing of it is looked at before.
pub(super) fn open<T: DeserializeOwned>(keys: &Keys, token: &str) -> Result<T, Refusal> {
    if token.len() > LONGEST {
        return Err(Refusal::Malformed("it is longer than 4,096 characters"));
    }
    let parts = Refusal::Malformed("it must be three parts in base64url, with dots between");
    let (signed, signature) = token.rsplit_once('.').ok_or_else(|| parts.clone())?;
    let (header, payload) = signed.split_once('.').filter(|(_, p)| !p.contains('.')).ok_or(parts)?;
    let Header { alg, kid, crit } = read(header)?;
    if alg != "EdDSA" || crit.is_some() {
        return Err(Refusal::Algorithm);
    }
    let key = keys.get(&kid).ok_or_else(|| Refusal::UnknownKey { known: keys.ids() })?;
    let signature = decoded(signature)?;
    let signature = Signature::from_slice(&signature).map_err(|_| Refusal::Signature)?;
    // Strictly: no two signatures of one token.
    key.verify_strict(signed.as_bytes(), &signature).map_err(|_| Refusal::Signature)?;
    read(payload)
}

fn read<T: DeserializeOwned>(part: &str) -> Result<T, Refusal> {
    serde_json::from_slice(&decoded(part)?).map_err(|_| {
        Refusal::Malformed("its header or its claims lack a field that docs/protocol.md requires")
    })
}

fn decoded(part: &str) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Malformed("a part of it is not base64url"))
}
