//! What is left alone for now, or keeps failing, and why.

use jiff::Timestamp;

/// Why something is left alone for now. Its time passes by itself: no event shortens it. Known until a write goes through, or for some seconds past its pause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// What kind.
    pub cause: BackoffCause,
    /// The API server's own words, or what was measured.
    pub message: String,
    /// When it is retried.
    pub until: Timestamp,
}

/// Why something is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackoffCause {
    /// The API server refuses it: a policy, a webhook, a quota, missing rights.
    Refused,
    /// It takes too long for the order in which a kill is safe.
    TooSlow,
    /// It was done, and the cluster's controllers do not act on it.
    NotFollowed,
    /// Pods were made and ended, and the app got no nearer to its spec.
    NoProgress,
}

impl Backoff {
    /// What is told of it. A cause that goes away is found gone within a minute: that is the longest pause between two tries.
    pub(crate) fn explanation(&self) -> String {
        let message = &self.message;
        match self.cause {
            BackoffCause::Refused | BackoffCause::TooSlow => {
                format!("{message} (retried at least once a minute)")
            }
            BackoffCause::NotFollowed => format!("{message} (checked again every 10 s)"),
            BackoffCause::NoProgress => message.clone(),
        }
    }
}

impl BackoffCause {
    /// Nobody has to act but the cluster.
    pub fn is_slowness(self) -> bool {
        match self {
            Self::TooSlow | Self::NotFollowed => true,
            Self::Refused | Self::NoProgress => false,
        }
    }
}

/// Something that keeps failing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Kubernetes' or the pod's own words.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}
