//! Without the feature `tokens`: whoever reaches the admin port may drain. It stands in the place of `caller.rs`.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;

use crate::drain::Drain;

/// What is asked for; all of it is allowed.
pub(crate) enum Action {
    Drain,
    Resume,
}

/// Anyone.
pub(crate) struct Caller {
    /// The connection comes from the pod itself.
    loopback: bool,
}

impl FromRequestParts<Drain> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Drain) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        Ok(Self { loopback: peer.is_some_and(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback()) })
    }
}

impl Caller {
    /// Its preStop hook, or a person there.
    pub(crate) fn is_in_the_pod(&self) -> bool {
        self.loopback
    }

    pub(crate) fn grant(&self, _: &Drain, _: Action) -> Result<Grant, Infallible> {
        Ok(Grant)
    }
}

/// In any epoch.
pub(crate) struct Grant;

impl Grant {
    pub(crate) fn covers(&self, _: u64) -> Result<(), Infallible> {
        Ok(())
    }
}
