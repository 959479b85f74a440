//! Who asks for a drain: over loopback, with a token, or neither. Without the feature `tokens`, `anyone.rs` stands in its place.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use jiff::Timestamp;

use crate::drain::Drain;
use crate::tokens::{Audience, Refusal};

pub(crate) use crate::tokens::Action;

/// Who sent a `PUT` or a `DELETE`.
pub(crate) struct Caller {
    /// The connection comes from the pod itself: its preStop hook, a person with `kubectl exec` or `port-forward`. False where the peer's address is unknown
    /// (a server without `into_make_service_with_connect_info`).
    loopback: bool,
    /// What follows `Bearer`.
    token: Option<String>,
}

impl FromRequestParts<Drain> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Drain) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        // A listener on `[::]` has IPv4 peers as ::ffff:127.0.0.1.
        let loopback = peer.is_some_and(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback());
        let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim().to_owned());
        Ok(Self { loopback, token })
    }
}

impl Caller {
    /// Its preStop hook, or a person there; not the operator.
    pub(crate) fn is_in_the_pod(&self) -> bool {
        self.loopback && self.token.is_none()
    }

    /// What this caller may do here and now.
    pub(crate) fn grant(&self, drain: &Drain, action: Action) -> Result<Grant, Refusal> {
        let Some(keys) = &drain.settings().keys else { return Ok(Grant::Any) };
        let Some(token) = &self.token else {
            // One that is given is looked at, wherever it comes from: a wrong one is a mistake that should be seen.
            return if self.loopback { Ok(Grant::Any) } else { Err(Refusal::Missing) };
        };
        let here = Audience { pod_uid: &drain.settings().pod_uid, boot_id: drain.boot_id() };
        let now = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
        keys.verify(token, here, action, now).map(Grant::Only)
    }
}

/// In which epoch a caller may do what it asks.
pub(crate) enum Grant {
    Any,
    Only(u64),
}

impl Grant {
    /// Whether it covers this epoch.
    pub(crate) fn covers(&self, asked: u64) -> Result<(), Refusal> {
        match *self {
            Self::Only(allowed) if allowed != asked => Err(Refusal::Epoch { allowed, asked }),
            Self::Only(_) | Self::Any => Ok(()),
        }
    }
}
