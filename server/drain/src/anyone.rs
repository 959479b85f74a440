//! Without the feature `tokens`: whoever reaches the admin port may drain. It stands in the place of `caller.rs`.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::drain::Drain;

/// What is asked for; all of it is allowed.
pub(crate) enum Action {
    Drain,
    Resume,
}

/// Anyone.
pub(crate) struct Caller;

impl FromRequestParts<Drain> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, _: &Drain) -> Result<Self, Infallible> {
        Ok(Self)
    }
}

impl Caller {
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
