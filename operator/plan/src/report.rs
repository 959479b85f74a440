//! What is shown to people: the shapes. `status` fills them; the operator turns them into status, Events and metrics.

use graceful_api::conditions::{ConditionType, Reason};
use graceful_api::{DrainReason, Phase, PodState, RevisionHash};
use jiff::Timestamp;

use crate::contact::InFlight;
use crate::ids::PodUid;

/// The whole report. Counts are pods unless they say otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The STATUS column.
    pub phase: Phase,
    /// WAITING-FOR: a sentence, empty when nothing is waited for.
    pub waiting_for: String,
    /// In the API's fixed order, without times: a transition time moves only when the status does.
    pub conditions: Vec<ConditionReport>,
    /// Pods that serve, of all revisions.
    pub serving: u32,
    /// Serving pods of the update revision.
    pub updated: u32,
    /// Pods that drain.
    pub draining: u32,
    /// In flight in the draining pods, as far as they told.
    pub in_flight: u64,
    /// The revision that is being replaced; without a rollout, the update revision.
    pub current_revision: Option<RevisionHash>,
    /// Each Deployment, newest first.
    pub revisions: Vec<RevisionReport>,
    /// Each draining pod, the longest-draining first.
    pub pods: Vec<DrainingPodReport>,
    /// Each terminating pod that others ended, and in which something may be at work.
    pub ended_by_others: Vec<EndedPodReport>,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionReport {
    /// The condition's type.
    pub kind: ConditionType,
    /// Whether it holds.
    pub holds: bool,
    /// Why, as a word.
    pub reason: Reason,
    /// Why, as a sentence.
    pub message: String,
}

/// One Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionReport {
    /// The revision whose Deployment it is.
    pub hash: RevisionHash,
    /// Pods that are not terminating.
    pub pods: u32,
    /// Pods that serve.
    pub serving: u32,
    /// Pods that drain.
    pub draining: u32,
}

/// One draining pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainingPodReport {
    /// Its name.
    pub pod: String,
    /// Its uid.
    pub uid: PodUid,
    /// Why it drains.
    pub reason: DrainReason,
    /// How far it is.
    pub state: PodState,
    /// What it said last.
    pub in_flight: Option<InFlight>,
    /// Since when it drains.
    pub since: Timestamp,
    /// When its deadline passes.
    pub deadline: Timestamp,
    /// It is past it, has something in flight or may have, and is not cut.
    pub held: bool,
    /// When it last gave a valid answer.
    pub last_contact: Option<Timestamp>,
    /// What is wrong with its answers now.
    pub error: Option<String>,
}

/// One pod that others ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedPodReport {
    /// Its name.
    pub pod: String,
    /// Its uid.
    pub uid: PodUid,
    /// What it said last.
    pub in_flight: Option<InFlight>,
    /// When it is killed at the latest.
    pub grace_ends: Option<Timestamp>,
}
