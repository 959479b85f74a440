//! The signature of a call: who has the key knows that the call is this server's, that nobody changed it, and how old it is.
//!
//! Signed is `v1:<task id>:<attempt>:<unix seconds>:` and then the body, byte for byte, with HMAC-SHA256 (RFC 2104). The header
//! says `v1=<hex>`, once for each key: while a key is exchanged both sign, and the other side accepts either.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

/// Shorter keys can be guessed: RFC 2104 asks for as many bytes as the digest has, and half of them are hard enough.
const SHORTEST: usize = 16;
/// The present one and the next.
const MOST: usize = 2;

/// The variable with the keys.
pub(super) const VARIABLE: &str = "GRACEFUL_HTTP_KEY";

/// The keys that calls are signed with; none: they are not signed.
#[derive(Clone, Default)]
pub struct Keys(Vec<Vec<u8>>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

impl Keys {
    /// One key, or two with a comma between them.
    ///
    /// # Errors
    /// When one is too short, or there are more. Says what to write, and nothing of the keys.
    pub fn parse(text: &str) -> Result<Self, String> {
        let keys: Vec<Vec<u8>> = text
            .split(',')
            .map(str::trim)
            .filter(|key| !key.is_empty())
            .map(|key| key.as_bytes().to_vec())
            .collect();
        if keys.len() > MOST || keys.iter().any(|key| key.len() < SHORTEST) {
            return Err(format!(
                "{VARIABLE}: write one key, or while it is exchanged two with a comma between them, each of {SHORTEST} \
                 characters or more: openssl rand -hex 32"
            ));
        }
        Ok(Self(keys))
    }

    /// From the environment.
    ///
    /// # Errors
    /// As [`Keys::parse`].
    pub fn from_env() -> Result<Self, String> {
        match std::env::var(VARIABLE) {
            Ok(text) => Self::parse(&text),
            Err(std::env::VarError::NotPresent) => Ok(Self::default()),
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(format!("{VARIABLE} is no text; write: openssl rand -hex 32"))
            }
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the header says; None without a key.
    pub(super) fn sign(&self, id: Uuid, attempt: u16, unix_seconds: i64, body: &[u8]) -> Option<String> {
        let signatures: Vec<String> = self
            .0
            .iter()
            .filter_map(|key| {
                // HMAC takes a key of any length.
                let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
                mac.update(format!("v1:{id}:{attempt}:{unix_seconds}:").as_bytes());
                mac.update(body);
                Some(format!("v1={}", hex::encode(mac.finalize().into_bytes())))
            })
            .collect();
        (!signatures.is_empty()).then(|| signatures.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0123456789abcdef";
    const OTHER: &str = "fedcba9876543210";

    /// printf 'v1:00000000-0000-0000-0000-000000000007:2:1700000000:{}' | openssl dgst -sha256 -hmac 0123456789abcdef
    const EXPECTED: &str = "e9d7f15a6b1cd989d71fb2db8f1bd8b2864a4027caba354a848fe4947cefb1db";

    #[test]
    fn id_attempt_time_and_body_are_signed() {
        let keys = Keys::parse(ONE).unwrap();
        let id = Uuid::from_u128(7);
        let signed = keys.sign(id, 2, 1_700_000_000, b"{}").unwrap();
        assert_eq!(signed, format!("v1={EXPECTED}"));
        for other in [
            keys.sign(Uuid::from_u128(8), 2, 1_700_000_000, b"{}"),
            keys.sign(id, 3, 1_700_000_000, b"{}"),
            keys.sign(id, 2, 1_700_000_001, b"{}"),
            keys.sign(id, 2, 1_700_000_000, b"{ }"),
            Keys::parse(OTHER).unwrap().sign(id, 2, 1_700_000_000, b"{}"),
        ] {
            assert_ne!(other.unwrap(), signed);
        }
    }

    #[test]
    fn two_keys_sign_while_one_is_exchanged_for_the_other() {
        let both = Keys::parse(&format!("{OTHER}, {ONE}"))
            .unwrap()
            .sign(Uuid::from_u128(7), 2, 1_700_000_000, b"{}")
            .unwrap();
        assert_eq!(both.split(',').count(), 2);
        assert!(both.ends_with(EXPECTED), "{both}");
        assert_eq!(Keys::parse("").unwrap().sign(Uuid::nil(), 1, 0, b""), None);
    }

    #[test]
    fn a_bad_key_is_refused_and_not_shown() {
        for text in ["0123456789abcde", "0123456789abcdef,short", &[ONE; 3].join(",")] {
            let said = Keys::parse(text).unwrap_err();
            assert!(said.contains("openssl rand") && !said.contains("0123"), "{said}");
        }
        assert!(!format!("{:?}", Keys::parse(ONE).unwrap()).contains("0123"));
    }
}
