//! After the DELETE: the scale that belongs to it, and when it is retried or given up.

use std::time::Duration;

use super::{End, Step};
use crate::last_look::may_lower;
use crate::observed::{BackoffCause, Pod};

/// How long after the DELETE a scale that was not done is retried.
pub(super) const RETRIED_FOR: Duration = Duration::from_secs(1);

/// How often such a scale is retried: the Deployment's status moves a few times while a pod goes.
const RETRIES: u32 = 5;

/// The scale that belongs to a DELETE.
#[derive(Clone, Copy, Debug)]
pub(super) struct TakeBack {
    to: u32,
    tries: u32,
}

impl TakeBack {
    /// Not tried yet.
    pub(super) fn to(to: u32) -> Self {
        Self { to, tries: 0 }
    }

    pub(super) fn at_once(self) -> Step<'static> {
        Step::Scale(Scale(self))
    }

    pub(super) fn look_first(self) -> Step<'static> {
        Step::LookAgain(LookAgain(self))
    }

    fn may_retry(&self, since_delete: Duration) -> bool {
        self.tries < RETRIES && since_delete < RETRIED_FOR
    }

    fn retry(self) -> Step<'static> {
        Self { tries: self.tries + 1, ..self }.look_first()
    }

    fn failed(self, cause: BackoffCause, why: impl Into<String>) -> Step<'static> {
        Step::Over(End::NotTakenBack { to: self.to, cause, why: why.into() })
    }
}

/// See [`Step::Scale`].
#[derive(Debug)]
pub struct Scale(TakeBack);

/// What came of a scale, with the API server's own words where it was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scaled {
    /// It was done.
    Done,
    /// The Deployment was changed since it was read.
    Conflict(String),
    /// A policy, a webhook or a quota refuses it.
    Refused(String),
    /// It may have been done, and the answer was lost. One that still comes meets the version that it carries, or does what it should.
    Unanswered(String),
    /// It was not done, or had no answer within [`AT_ONCE`](super::AT_ONCE).
    Failed(String),
}

impl Scale {
    /// The replicas to scale to.
    pub fn to(&self) -> u32 {
        self.0.to
    }

    /// What came of it, so long after the DELETE was sent.
    pub fn answered(self, scaled: Scaled, since_delete: Duration) -> Step<'static> {
        let Self(back) = self;
        let may_retry = back.may_retry(since_delete);
        match scaled {
            Scaled::Done => Step::Over(End::Done),
            Scaled::Conflict(_) if may_retry => back.retry(),
            Scaled::Refused(why) => back.failed(BackoffCause::Refused, why),
            Scaled::Unanswered(why) => Step::Ask(Ask { back, may_retry, why }),
            Scaled::Conflict(why) | Scaled::Failed(why) => back.failed(BackoffCause::TooSlow, why),
        }
    }
}

/// See [`Step::Ask`].
#[derive(Debug)]
pub struct Ask {
    back: TakeBack,
    may_retry: bool,
    why: String,
}

impl Ask {
    /// The replicas that it was to have.
    pub fn to(&self) -> u32 {
        self.back.to
    }

    /// Whether the Deployment has them; false where that cannot be read either.
    pub fn found(self, done: bool) -> Step<'static> {
        match self {
            _ if done => Step::Over(End::FoundDone),
            Self { back, may_retry: true, .. } => back.retry(),
            Self { back, why, .. } => back.failed(BackoffCause::TooSlow, why),
        }
    }
}

/// See [`Step::LookAgain`].
#[derive(Debug)]
pub struct LookAgain(TakeBack);

impl LookAgain {
    /// The Deployment has the replicas that the plan saw, and these are all its pods.
    pub fn seen(self, live: &[Pod]) -> Step<'static> {
        if may_lower(self.0.to, live) {
            return Step::Scale(Scale(self.0));
        }
        let why = "its spare runs already, and its ReplicaSet might take a busy pod in its place";
        self.0.failed(BackoffCause::TooSlow, why)
    }

    /// The Deployment has other replicas by now, or is gone.
    pub fn changed(self) -> Step<'static> {
        self.0.failed(BackoffCause::Refused, "its replicas were changed meanwhile")
    }

    /// One of the two could not be read, for this reason.
    pub fn failed(self, why: String) -> Step<'static> {
        self.0.failed(BackoffCause::TooSlow, why)
    }
}
