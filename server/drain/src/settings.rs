//! [`Settings`]: how a pod drains, and where that is read from.

use std::time::Duration;

#[cfg(feature = "tokens")]
use tracing::error;

use crate::pace::SlowestBody;
#[cfg(feature = "tokens")]
use crate::tokens::Keys;

/// How a pod drains; the defaults are what the operator's own defaults expect.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The pod's uid; empty outside a cluster. `from_env` reads `GRACEFUL_POD_UID`.
    pub pod_uid: String,
    /// How long a pod that drains itself goes on accepting, so that endpoints can propagate. Three seconds: an
    /// EndpointSlice change reaches every kube-proxy within about one, and a busy API server gets three times that.
    pub linger: Duration,
    /// Farewells to open sockets are spread over this time, so that their clients don't all come back at once.
    pub farewell_spread: Duration,
    /// What a refused client is told to wait, in seconds (`Retry-After`).
    pub retry_after_seconds: u32,
    /// How slowly a client may send a request's body to what is behind the gate; past it 408, and the request counts no more. None
    /// sets no bound, for an app whose clients stream to it with pauses (gRPC, a feed): one of them may then hold a drain for ever.
    pub slowest_body: Option<SlowestBody>,
    /// The public keys of who may drain this pod. None: anyone who reaches the admin port may. `from_env` reads `GRACEFUL_DRAIN_KEYS`, which the operator
    /// sets; a value without a usable key means that no token is accepted, since somebody meant the pod to verify.
    #[cfg(feature = "tokens")]
    pub keys: Option<Keys>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pod_uid: String::new(),
            linger: Duration::from_secs(3),
            farewell_spread: Duration::from_secs(1),
            retry_after_seconds: 1,
            slowest_body: Some(SlowestBody::default()),
            #[cfg(feature = "tokens")]
            keys: None,
        }
    }
}

impl Settings {
    /// The defaults, with the pod's uid from `GRACEFUL_POD_UID` and the keys from `GRACEFUL_DRAIN_KEYS`.
    #[must_use]
    pub fn from_env() -> Self {
        Self {
            pod_uid: std::env::var("GRACEFUL_POD_UID").unwrap_or_default(),
            #[cfg(feature = "tokens")]
            keys: std::env::var("GRACEFUL_DRAIN_KEYS").ok().and_then(|text| keys(&text)),
            ..Self::default()
        }
    }

    pub(crate) fn verifies(&self) -> bool {
        #[cfg(feature = "tokens")]
        return self.keys.is_some();
        #[cfg(not(feature = "tokens"))]
        false
    }
}

/// An empty variable is as good as none: so a template switches off what the operator would add.
#[cfg(feature = "tokens")]
fn keys(text: &str) -> Option<Keys> {
    if text.trim().is_empty() {
        return None;
    }
    Some(Keys::from_jwk_set(text).unwrap_or_else(|error| {
        error!("GRACEFUL_DRAIN_KEYS cannot be used, and every PUT and DELETE /drain from outside is refused: {error}");
        Keys::default()
    }))
}
