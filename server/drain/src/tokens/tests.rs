//! The test vectors of `docs/protocol.md`, made and read here, and what no vector shows: that nothing near a good token passes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};

use super::*;

const VECTORS: &str = include_str!("../../../../docs/drain-token.vectors.json");
const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/drain-token.vectors.json");

const AUDIENCE: Audience<'_> = Audience {
    pod_uid: "4c0f5ad1-1c66-4f1b-9a63-0e1f8c9a7b52",
    boot_id: "138d3f3f-6f8a-4831-b095-2b7105d59bb3",
};
const NOW: u64 = 1_800_000_000;

/// Of RFC 8037 appendix A, of RFC 8032 §7.1 test 2, and one that the pod was never given.
const SEEDS: [&str; 3] = [
    "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
    "TM0Imyj_ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U-4pvs",
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
];
const KIDS: [&str; 3] = ["current", "next", "stranger"];

fn key(n: usize) -> SigningKey {
    let seed: [u8; 32] = URL_SAFE_NO_PAD.decode(SEEDS[n]).unwrap().try_into().unwrap();
    SigningKey::from_bytes(&seed)
}

fn jwk(n: usize) -> Value {
    let x = URL_SAFE_NO_PAD.encode(key(n).verifying_key().as_bytes());
    json!({"kty": "OKP", "crv": "Ed25519", "kid": KIDS[n], "x": x})
}

fn keys() -> Keys {
    Keys::from_jwk_set(&json!({"keys": [jwk(0), jwk(1)]}).to_string()).unwrap()
}

/// Signed as given: this text is what the vectors hold, so that their members keep an order that no map's can change.
fn signed(n: usize, header: &str, claims: &str) -> String {
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(key(n).sign(text.as_bytes()).to_bytes());
    format!("{text}.{signature}")
}

fn header(n: usize) -> String {
    format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"{}"}}"#, KIDS[n])
}

fn claims(action: &str, epoch: u64, exp: u64) -> String {
    let Audience { pod_uid, boot_id } = AUDIENCE;
    format!(
        r#"{{"iss":"graceful-operator","sub":"{pod_uid}","boot":"{boot_id}","action":"{action}","epoch":{epoch},"exp":{exp}}}"#
    )
}

fn good() -> String {
    signed(0, &header(0), &claims("drain", 7, NOW + 60))
}

fn verify(token: &str, action: Action, epoch: u64) -> Result<(), Refusal> {
    let allowed = keys().verify(token, AUDIENCE, action, NOW)?;
    crate::caller::Grant::Only(allowed).covers(epoch)
}

fn vector(name: &str, (n, header, claims): (usize, String, String), refused: Option<&str>) -> Value {
    let token = signed(n, &header, &claims);
    let (header, claims): (Value, Value) =
        (serde_json::from_str(&header).unwrap(), serde_json::from_str(&claims).unwrap());
    let action = if name.contains("resume") { "resume" } else { "drain" };
    let request = json!({"action": action, "epoch": 7});
    json!({"name": name, "request": request, "token": token, "header": header, "claims": claims, "refused": refused})
}

fn vectors() -> Value {
    let exp = NOW + 60;
    let by = |n: usize, claims: String| (n, header(n), claims);
    let other = |from: &str, to: &str| claims("drain", 7, exp).replace(from, to);
    let mut private = jwk(0);
    private["d"] = json!(SEEDS[0]);
    json!({
        "description": "Drain tokens (docs/protocol.md): what a pod with these keys, this uid and this boot id must say to each at the moment `now`. \
                        `refused` names the claim at fault; null is accepted. The private key is the one of RFC 8037 appendix A, for tests alone.",
        "keys": {"keys": [jwk(0), jwk(1)]},
        "privateKey": private,
        "podUid": AUDIENCE.pod_uid,
        "bootId": AUDIENCE.boot_id,
        "now": NOW,
        "vectors": [
            vector("a drain", by(0, claims("drain", 7, exp)), None),
            vector("a resume", by(0, claims("resume", 7, exp)), None),
            vector("by the next key", by(1, claims("drain", 7, exp)), None),
            vector("expired within the leeway", by(0, claims("drain", 7, NOW - 59)), None),
            vector("expired", by(0, claims("drain", 7, NOW - 60)), Some("exp")),
            vector("for another pod", by(0, other(AUDIENCE.pod_uid, "77c1e9d5-58b5-4c0c-8a44-8dd0f8a1c0de")), Some("sub")),
            vector("for another process of the pod", by(0, other(AUDIENCE.boot_id, "00000000-0000-4000-8000-000000000000")), Some("boot")),
            vector("for another action", by(0, claims("resume", 7, exp)), Some("action")),
            vector("for another epoch", by(0, claims("drain", 6, exp)), Some("epoch")),
            vector("of another issuer", by(0, other("graceful-operator", "somebody")), Some("iss")),
            vector("by a key that the pod does not know", by(2, claims("drain", 7, exp)), Some("kid")),
            vector("by another key than it names", (2, header(0), claims("drain", 7, exp)), Some("signature")),
            vector("of another algorithm", (0, header(0).replace("EdDSA", "none"), claims("drain", 7, exp)), Some("alg")),
        ],
    })
}

#[test]
fn the_vectors_are_what_a_pod_says() {
    if std::env::var("GRACEFUL_GOLDEN").as_deref() == Ok("write") {
        std::fs::write(PATH, format!("{:#}\n", vectors())).unwrap();
        return;
    }
    let written: Value = serde_json::from_str(VECTORS).unwrap();
    let hint = "GRACEFUL_GOLDEN=write cargo test -p graceful-drain --lib tokens";
    assert_eq!(written, vectors(), "docs/drain-token.vectors.json is not what this build makes; run: {hint}");
    for vector in written["vectors"].as_array().unwrap() {
        let (action, epoch) = (&vector["request"]["action"], vector["request"]["epoch"].as_u64().unwrap());
        let action = if action == "drain" { Action::Drain } else { Action::Resume };
        let verdict = verify(vector["token"].as_str().unwrap(), action, epoch);
        let refused = verdict.err().map(|refusal| refusal.claim().unwrap());
        assert_eq!(refused, vector["refused"].as_str(), "{}", vector["name"]);
    }
}

#[test]
fn the_token_in_the_doc_is_the_first_vector() {
    let doc = include_str!("../../../../docs/protocol.md");
    let token = vectors()["vectors"][0]["token"].as_str().unwrap().to_owned();
    assert!(token.split('.').all(|part| doc.contains(part)), "{token}");
}

#[test]
fn no_token_with_a_bit_turned_passes() {
    let token = good();
    verify(&token, Action::Drain, 7).unwrap();
    for at in 0..token.len() {
        for bit in 0..8 {
            let mut bytes = token.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            // Beyond ASCII it is no text, or none of base64url.
            let Ok(turned) = String::from_utf8(bytes) else { continue };
            assert!(verify(&turned, Action::Drain, 7).is_err(), "bit {bit} of character {at}: {turned}");
        }
    }
}

#[test]
fn no_piece_of_a_token_passes_and_none_panics() {
    let token = good();
    for at in 0..token.len() {
        assert!(verify(&token[..at], Action::Drain, 7).is_err());
        assert!(verify(&token[at + 1..], Action::Drain, 7).is_err());
    }
    for odd in ["", ".", "..", "...", "a.b.c", &format!("{token}."), &format!(".{token}"), &"a".repeat(5000)]
    {
        assert!(verify(odd, Action::Drain, 7).is_err(), "{odd}");
    }
}

#[test]
fn a_token_holds_until_its_leeway_is_over() {
    let held = |exp: u64| verify(&signed(0, &header(0), &claims("drain", 7, exp)), Action::Drain, 7);
    assert_eq!(held(NOW), Ok(()));
    assert_eq!(held(NOW - 59), Ok(()));
    assert_eq!(held(NOW - 60), Err(Refusal::Expired { seconds: 60 }));
    assert_eq!(held(0), Err(Refusal::Expired { seconds: NOW }));
    assert_eq!(held(u64::MAX), Ok(()), "a far end is no overflow");
}

#[test]
fn what_a_token_may_not_leave_open_is_not_taken_as_said() {
    let whole = claims("drain", 7, NOW + 60);
    let given: Value = serde_json::from_str(&whole).unwrap();
    for name in given.as_object().unwrap().keys() {
        let mut without = given.clone();
        without.as_object_mut().unwrap().remove(name);
        let verdict = verify(&signed(0, &header(0), &without.to_string()), Action::Drain, 7);
        assert!(matches!(verdict, Err(Refusal::Malformed(_))), "without {name}: {verdict:?}");
    }
    let twice = whole.replace(r#""epoch":7"#, r#""epoch":6,"epoch":7"#);
    assert!(verify(&signed(0, &header(0), &twice), Action::Drain, 7).is_err(), "two epochs");
    let critical = header(0).replace(r#""typ""#, r#""crit":["exp"],"typ""#);
    assert_eq!(verify(&signed(0, &critical, &whole), Action::Drain, 7), Err(Refusal::Algorithm));
}

#[test]
fn a_pod_without_a_uid_takes_no_token() {
    let for_nobody = claims("drain", 7, NOW + 60).replace(AUDIENCE.pod_uid, "");
    let token = signed(0, &header(0), &for_nobody);
    let verdict = keys().verify(&token, Audience { pod_uid: "", ..AUDIENCE }, Action::Drain, NOW);
    assert!(matches!(verdict, Err(Refusal::Pod { .. })), "{verdict:?}");
}

#[test]
fn keys_of_other_kinds_are_passed_over_and_none_at_all_is_an_error() {
    let rsa = json!({"kty": "RSA", "n": "x", "e": "AQAB", "kid": "r"});
    let mixed = Keys::from_jwk_set(&json!({"keys": [rsa, jwk(0)]}).to_string()).unwrap();
    assert!(mixed.get("current").is_some() && mixed.get("r").is_none());
    // The neutral element: with it as a key, a signature of nothing passes a lax check.
    let weak = json!({"kty": "OKP", "crv": "Ed25519", "kid": "w", "x": "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"});
    for set in [json!({"keys": []}), json!({"keys": [rsa, weak, 7]})] {
        assert!(matches!(Keys::from_jwk_set(&set.to_string()), Err(KeysError::NoneUsable)), "{set}");
    }
    assert!(matches!(Keys::from_jwk_set("nonsense"), Err(KeysError::NotASet(_))));
}
