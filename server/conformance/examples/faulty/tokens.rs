//! Who may: a token of the operator's, or anybody over loopback.

use std::net::SocketAddr;
use std::sync::Mutex;

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, VerifyingKey};
use jiff::Timestamp;
use serde_json::Value;

use crate::faults::faulty;
use crate::pod::Pod;

fn keys() -> Option<Value> {
    let text = std::env::var("GRACEFUL_DRAIN_KEYS").ok().filter(|text| !text.is_empty())?;
    serde_json::from_str(&text).ok()
}

pub(crate) fn verifies() -> bool {
    keys().is_some()
}

/// The claim that is at fault.
type Refused = Option<&'static str>;

/// For a fault: tokens that were used.
static USED: Mutex<Vec<String>> = Mutex::new(Vec::new());

pub(crate) fn allow(
    pod: &Pod,
    peer: SocketAddr,
    headers: &HeaderMap,
    action: &str,
    epoch: u64,
) -> Result<(), Refused> {
    let Some(keys) = keys() else { return Ok(()) };
    let header = headers.get("authorization").and_then(|value| value.to_str().ok());
    let Some(token) = header.and_then(|header| header.strip_prefix("Bearer ")) else {
        let forwarded = headers.get("x-forwarded-for").filter(|_| faulty("believes-a-header"));
        let said = forwarded.and_then(|value| value.to_str().ok()?.parse().ok());
        let local = said.unwrap_or(peer.ip()).to_canonical().is_loopback() && !faulty("token-on-loopback");
        return if local || faulty("token-is-optional") { Ok(()) } else { Err(None) };
    };
    let claims = open(&keys, token)?;
    let wrong = [
        ("iss", claims["iss"] != "graceful-operator"),
        ("sub", claims["sub"] != pod.0.uid.as_str()),
        ("boot", claims["boot"] != pod.0.boot.as_str()),
        ("action", claims["action"] != action),
        ("epoch", claims["epoch"] != epoch),
        ("exp", claims["exp"].as_i64().is_none_or(|exp| Timestamp::now().as_second() >= exp + 60)),
    ];
    if let Some((claim, _)) = wrong.into_iter().find(|(_, is_wrong)| *is_wrong)
        && !faulty("any-token-will-do")
    {
        return Err(Some(claim));
    }
    let mut used = USED.lock().unwrap();
    if faulty("tokens-are-for-once") && used.iter().any(|used| used == token) {
        return Err(Some("epoch"));
    }
    used.push(token.to_owned());
    Ok(())
}

fn open(keys: &Value, token: &str) -> Result<Value, Refused> {
    let part = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| None);
    let json = |text: &str| serde_json::from_slice::<Value>(&part(text)?).map_err(|_| None);
    let (signed, signature) = token.rsplit_once('.').ok_or(None)?;
    let (header, claims) = signed.split_once('.').ok_or(None)?;
    let head = json(header)?;
    if head["alg"] != "EdDSA" || head.get("crit").is_some() {
        return Err(Some("alg"));
    }
    let key =
        keys["keys"].as_array().unwrap().iter().find(|key| key["kid"] == head["kid"]).ok_or(Some("kid"))?;
    let key: [u8; 32] = part(key["x"].as_str().unwrap())?.try_into().unwrap();
    let signature = Signature::from_slice(&part(signature)?).map_err(|_| Some("signature"))?;
    let checked = VerifyingKey::from_bytes(&key).unwrap().verify_strict(signed.as_bytes(), &signature);
    checked.map_err(|_| Some("signature"))?;
    json(claims)
}
