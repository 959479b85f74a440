//! What stands around the app: its Service and budget, what the API server says to its template, and others' objects over its pods.

use std::collections::BTreeMap;

use graceful_api::conditions::Reason;

use super::{Adoption, Backoff, LeftBehind};

/// What stands around the app.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Surroundings {
    /// What the API server says to the update revision's Deployment.
    pub template: TemplateVerdict,
    /// The managed Service.
    pub service: Child,
    /// The PodDisruptionBudget.
    pub budget: Child,
    /// Services of the user's that select the app's pods without the serving label.
    pub unfenced_services: Vec<String>,
    /// The Deployment in `spec.adopt`, as long as it is not the app's.
    pub adoption: Adoption,
    /// Those of `unfenced_services` that the operator fences itself: they lead to pods of the adopted Deployment, and it has not done so before.
    pub fenceable: Vec<String>,
    /// Services of the user's that it has fenced.
    pub fenced: Vec<String>,
    /// Services that lead to pods of the adopted Deployment alone: the template's would get no clients from them.
    pub left_behind: Vec<LeftBehind>,
    /// Services whose targetPort is the app's own port, past the gate.
    pub bypasses: Vec<Bypass>,
    /// What the user should know of the spec or of running pods. No drain waits for it; where a child is refused the app is Stalled all the same.
    pub warnings: Vec<Warning>,
    /// Services with `publishNotReadyAddresses` that select the app's pods: even one that was never Ready may have been sent work.
    pub publishing_unready: Vec<String>,
    /// The app has ended as many pods as it may without getting nearer to its spec: it ends no more for a while.
    pub brake: Option<Backoff>,
    /// Why the Service or the budget is not written for now: its last write had no answer, or, while the app is deleted, was refused as well. No drain waits
    /// for it; a deletion of the app does.
    pub children_backoff: Vec<Backoff>,
    /// Services that are not fenced, given back or let go of for now, by name: what the last write to each met.
    pub services_backoff: BTreeMap<String, Backoff>,
    /// The namespace is terminating: nothing can be made, all is taken by others.
    pub namespace_terminating: bool,
}

/// A way past a gate: what comes by it is not counted, and is not refused when the gate is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bypass {
    /// The Service.
    pub service: String,
    /// It is the one that the operator keeps.
    pub managed: bool,
    /// Which entry of its `spec.ports`, from 0.
    pub port_index: usize,
    /// The port number that it leads to: the app's own.
    pub port_number: i32,
    /// The port name that it should lead to: the gate's.
    pub name: String,
}

/// Something to know that no drain waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// As a word.
    pub reason: Reason,
    /// As a sentence that says what to do.
    pub message: String,
}

/// What a server-side dry run says of the template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TemplateVerdict {
    /// Not asked yet.
    #[default]
    Unknown,
    /// It would be taken.
    Accepted,
    /// It would not: Kubernetes' own words.
    Refused(String),
    /// Not asked yet, and not to be made for now, for this reason.
    Awaits(String),
    /// It would not, a while ago: the API server is asked again, and until it has answered otherwise the template counts as refused.
    RefusedBefore(String),
    /// Nobody answered in time, a webhook perhaps.
    Unanswered {
        /// Who may be slow.
        why: String,
        /// Whether it may be asked again.
        ask_again: bool,
    },
}

impl TemplateVerdict {
    /// Why it is not taken.
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Self::Unknown | Self::Accepted | Self::Awaits(_) | Self::Unanswered { .. } => None,
            Self::Refused(why) | Self::RefusedBefore(why) => Some(why),
        }
    }
}

/// A child that is kept equal to what the spec says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Child {
    /// It is as wanted: there and equal, or absent where none is wanted.
    #[default]
    AsWanted,
    /// It is wanted, and missing or different.
    Outdated,
    /// It is there, and not wanted.
    Unwanted,
}
