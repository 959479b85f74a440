//! How a child stands (the Service, the budget): as the planner sees it, and what the user should know of it.

use std::time::Duration;

use graceful_api::conditions::Reason;
use graceful_api::{Validated, names};
use graceful_plan::{Backoff, BackoffCause, Child, Warning};
use jiff::Timestamp;
use kube::Resource;
use serde::Serialize;

use super::children::{self, Ownership, Wanted};
use crate::clock::later;
use crate::writes::{ChildRefusal, REFUSAL_HOLDS, Writes};

/// What the planner is told of a child.
pub(super) struct ChildState {
    pub(super) child: Child,
    /// What the user should know of it.
    pub(super) warning: Option<Warning>,
    /// Its last write had no answer.
    pub(super) late: Option<Backoff>,
}

impl ChildState {
    fn of(child: Child) -> Self {
        Self { child, warning: None, late: None }
    }

    fn warns(child: Child, reason: Reason, message: String) -> Self {
        Self { child, warning: Some(Warning { reason, message }), late: None }
    }
}

/// Whose children, and what their last writes met.
pub(super) struct Parent<'a> {
    pub(super) app: &'a Validated,
    pub(super) writes: &'a Writes,
    pub(super) now: Timestamp,
}

impl Parent<'_> {
    pub(super) fn state<K>(
        &self,
        kind: &'static str,
        name: &str,
        wanted: Option<&Wanted>,
        there: Option<&K>,
    ) -> ChildState
    where
        K: Resource + Serialize,
    {
        let Self { app, writes, now } = *self;
        let (child, additions) = match children::ownership(&app.uid, wanted, there) {
            Ownership::Foreign if wanted.is_some() => {
                let message = format!(
                    "a {kind} named {name} is there that is not this GracefulApp's, and none is made beside it: remove it; or, if it is this app's from before a \
                     restore, `kubectl annotate {} -n {} {name} --overwrite {}={}` makes it this one's",
                    kind.to_lowercase(),
                    app.namespace,
                    names::APP_UID,
                    app.uid
                );
                return ChildState::warns(Child::AsWanted, Reason::Refused, message);
            }
            Ownership::Foreign => return ChildState::of(Child::AsWanted),
            Ownership::Ours(child, additions) => (child, additions),
        };
        if child == Child::AsWanted {
            // Of one that is not as wanted yet, some may be our own from earlier.
            return match additions.is_empty() {
                true => ChildState::of(child),
                false => {
                    ChildState::warns(child, Reason::SetByOthers, self.set_by_others(kind, name, &additions))
                }
            };
        }
        if let Some((refusal, left)) = refused(writes, kind, wanted) {
            let what = if wanted.is_some() { "written" } else { "removed" };
            let message = cannot_be(what, kind, name, refusal);
            let child = if left.is_some() { Child::AsWanted } else { child };
            return match refusal.kind {
                BackoffCause::TooSlow => {
                    let late = Backoff { cause: refusal.kind, message, until: soon(left, now) };
                    ChildState { child, warning: None, late: Some(late) }
                }
                BackoffCause::Refused | BackoffCause::NotFollowed | BackoffCause::NoProgress => {
                    ChildState::warns(child, Reason::Refused, message)
                }
            };
        }
        match writes.contested.get(kind).filter(|contest| contest.told()) {
            None => ChildState::of(child),
            Some(contest) => {
                let child = if contest.held().is_some() { Child::AsWanted } else { child };
                ChildState::warns(child, Reason::ChangedByOthers, contest.warning(kind, name))
            }
        }
    }

    fn set_by_others(&self, kind: &str, name: &str, additions: &[String]) -> String {
        format!(
            "{kind} {name} has {}, set by another field manager: left as it is; `kubectl -n {} get {} {name} -o yaml --show-managed-fields` \
             names who set it",
            additions.join(", "),
            self.app.namespace,
            kind.to_lowercase(),
        )
    }
}

/// What a child's last write met, as it is wanted now, and how long it is left alone for that. It is told until it was tried again.
pub(super) fn refused<'a>(
    writes: &'a Writes,
    kind: &str,
    wanted: Option<&Wanted>,
) -> Option<(&'a ChildRefusal, Option<Duration>)> {
    let held = writes.refused_children.get(kind)?;
    let same = wanted.map(|w| &w.fingerprint) == held.value.fingerprint.as_ref();
    same.then_some((&held.value, held.remaining(REFUSAL_HOLDS)))
}

pub(super) fn cannot_be(what: &str, kind: &str, name: &str, refusal: &ChildRefusal) -> String {
    format!("{kind} {name} cannot be {what}: {}", refusal.why)
}

pub(super) fn soon(left: Option<Duration>, now: Timestamp) -> Timestamp {
    later(now, left.unwrap_or_default())
}
