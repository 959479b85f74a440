//! Who may drain: tokens of the operator, checked against the public keys that the pod was given (`docs/protocol.md`, "Tokens").
//!
//! A token is a JWT (RFC 7519) in compact form, signed with Ed25519 (RFC 8037). It is written out here rather than taken from a JWT library: one
//! algorithm, one shape, and nothing that an attacker could choose.
//!
//! # Guarantees
//! Pure: `now` comes in, and nothing is fetched, so that a pod verifies without access to any API. What is not surely right is refused, with the claim
//! that is at fault.
//!
//! # Caveats
//! A token may be used again until it expires. That changes nothing: the epoch it names was taken by its first use, so that another use repeats an answer
//! or meets a 409, and a process that starts anew has another boot id.

mod jwk;
mod jws;

use serde::Deserialize;

pub use jwk::{Keys, KeysError};

/// Who signs. Another issuer's tokens, should it ever share a key with the operator, are for something else.
pub(crate) const ISSUER: &str = "graceful-operator";

/// How many seconds after `exp` a token is still accepted. The operator computes `exp` from this pod's own `Date`, so this covers the time a request is under
/// way, not a difference of clocks.
pub(crate) const LEEWAY_SECONDS: u64 = 60;

/// What a token lets its bearer do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// `PUT /drain`.
    Drain,
    /// `DELETE /drain`.
    Resume,
}

impl Action {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Resume => "resume",
        }
    }
}

/// Which pod, and which process of it, a token must be for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Audience<'a> {
    pub(crate) pod_uid: &'a str,
    pub(crate) boot_id: &'a str,
}

/// Why a token is refused. All are 401 on the wire; [`Refusal::claim`] is the problem's `field`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(
        "this pod verifies who drains it; send `Authorization: Bearer <token>` with a token of the operator (docs/protocol.md)"
    )]
    Missing,
    #[error("the token cannot be used: {0}")]
    Malformed(&'static str),
    #[error("the token's alg must be EdDSA, and its header must not have crit")]
    Algorithm,
    #[error("this pod does not know that key; it knows {known}")]
    UnknownKey { known: String },
    #[error("the signature does not match the token and its kid")]
    Signature,
    #[error("the token's iss is not {ISSUER}")]
    Issuer,
    #[error("the token is for another pod than {here}")]
    Pod { here: String },
    #[error("the token is for another process of this pod than {here}; ask for the boot id anew")]
    Boot { here: String },
    #[error("the token is for another action than {}", .0.as_str())]
    Action(Action),
    #[error("the token is for epoch {allowed}, and epoch {asked} was asked for")]
    Epoch { allowed: u64, asked: u64 },
    #[error("the token expired {seconds} s ago; it is accepted for less than {LEEWAY_SECONDS} s after exp")]
    Expired { seconds: u64 },
}

impl Refusal {
    /// The claim or header parameter that is at fault, as the token spells it; `signature`, where it is that.
    pub(crate) const fn claim(&self) -> Option<&'static str> {
        match self {
            Self::Missing | Self::Malformed(_) => None,
            Self::Signature => Some("signature"),
            Self::Algorithm => Some("alg"),
            Self::UnknownKey { .. } => Some("kid"),
            Self::Issuer => Some("iss"),
            Self::Pod { .. } => Some("sub"),
            Self::Boot { .. } => Some("boot"),
            Self::Action(_) => Some("action"),
            Self::Epoch { .. } => Some("epoch"),
            Self::Expired { .. } => Some("exp"),
        }
    }
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    boot: String,
    action: String,
    epoch: u64,
    exp: u64,
}

impl Keys {
    /// The epoch that a token allows this action in, here and now (`now` in seconds since 1970).
    pub(crate) fn verify(
        &self,
        token: &str,
        here: Audience<'_>,
        action: Action,
        now: u64,
    ) -> Result<u64, Refusal> {
        let Claims { iss, sub, boot, action: allowed, epoch, exp } = jws::open(self, token)?;
        if iss != ISSUER {
            return Err(Refusal::Issuer);
        }
        // A pod that does not know its uid is nobody that a token could be for.
        if sub != here.pod_uid || sub.is_empty() {
            return Err(Refusal::Pod { here: here.pod_uid.to_owned() });
        }
        if boot != here.boot_id {
            return Err(Refusal::Boot { here: here.boot_id.to_owned() });
        }
        if allowed != action.as_str() {
            return Err(Refusal::Action(action));
        }
        match now.checked_sub(exp) {
            Some(seconds) if seconds >= LEEWAY_SECONDS => Err(Refusal::Expired { seconds }),
            Some(_) | None => Ok(epoch),
        }
    }
}

#[cfg(test)]
mod tests;
