//! What the planner answers: acts to do now, conversations to hold, and what to tell people.

use std::collections::BTreeMap;
use std::fmt;

use graceful_api::{DrainReason, RevisionHash};
use jiff::Timestamp;

use crate::conversation::Conversation;
use crate::ids::{Epoch, PodUid};
use crate::report::Report;

/// All that follows from one view.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// To be done now, in this order. What is refused stops only what depends on it; anything else unexpected ends the plan, and the app is observed again.
    pub actions: Vec<Action>,
    /// What is to be said to each pod until the next plan. A pod that is not here is not spoken to.
    pub conversations: BTreeMap<PodUid, Conversation>,
    /// Plan again at this moment even if nothing is heard.
    pub wake_at: Option<Timestamp>,
    /// For status, columns, Events and metrics.
    pub report: Report,
}

/// The deletion cost: among pods that are equally Ready, a ReplicaSet deletes the cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletionCost {
    /// Last: it may be at work.
    Highest,
    /// First. For one that has not started, or whose revision never worked.
    Lowest,
}

/// One idempotent call. Each carries what it was decided on, and is void where that no longer holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Put our finalizer on the GracefulApp, before anything that it must clean up exists.
    AddFinalizer,
    /// Take our finalizer off the GracefulApp: nothing of ours is left to do.
    ReleaseFinalizer,
    /// Make the Deployment in `spec.adopt` the app's, as the revision `adopted`: labels, annotations and `paused` in one patch, on exactly what was looked at.
    Adopt,
    /// Give a running pod of the adopted Deployment the labels that ours have from birth, the serving label among them.
    Enlist {
        /// The pod.
        pod: PodRef,
    },
    /// Put the serving label into the selector of a Service of the user's. Void unless a live list shows it on every pod of the adopted Deployment.
    Fence {
        /// The Service.
        service: String,
    },
    /// Take it out again, where [`Action::Fence`] put it in.
    Unfence {
        /// The Service.
        service: String,
    },
    /// Take off a Deployment what makes it ours: from then on it is a plain one. One that was adopted is as paused as it was before.
    LetGo {
        /// The revision whose Deployment it is.
        revision: RevisionHash,
    },
    /// The same of the managed Service, which goes on to select what it selects.
    LetGoService,
    /// Make the managed Service as the spec says, or remove it.
    SyncService,
    /// Make the PodDisruptionBudget as wanted, or remove it.
    SyncBudget,
    /// Ask the API server whether it would take the update revision's Deployment, and remember its answer.
    DryRunTemplate {
        /// The revision asked about.
        revision: RevisionHash,
    },
    /// Make the update revision's Deployment. One that is there already is success.
    CreateRevision {
        /// The update revision.
        revision: RevisionHash,
        /// Its first `spec.replicas`.
        replicas: u32,
    },
    /// Write the policy annotation of the update revision, or of the adopted one, as the spec says now.
    SyncPolicy {
        /// The revision whose Deployment is written to.
        revision: RevisionHash,
    },
    /// Write on a Deployment that a pod of its revision was Ready or heard.
    RecordProven {
        /// The revision whose Deployment is written to.
        revision: RevisionHash,
    },
    /// Write an annotation to a Deployment whose controllers have given it up or wait long, so that they look again.
    Nudge {
        /// The revision whose Deployment is written to.
        revision: RevisionHash,
    },
    /// Raise a Deployment's `spec.replicas`, if it is still `from`.
    ScaleUp {
        /// The revision whose Deployment is scaled.
        revision: RevisionHash,
        /// The value seen.
        from: u32,
        /// The value wanted.
        to: u32,
    },
    /// Lower a Deployment's `spec.replicas` by replicas behind which no pod has started. Void unless a live list shows at most `to`
    /// pods that have begun (`last_look::may_lower`).
    ScaleDown {
        /// The revision whose Deployment is scaled.
        revision: RevisionHash,
        /// The value seen.
        from: u32,
        /// The value wanted.
        to: u32,
    },
    /// One patch with uid and resourceVersion: epoch, reason and since on the annotations, the serving label off, deletion cost to `cost`.
    /// Before it, where a Service has a traffic policy `Local`, an EndpointSlice that keeps the pod reachable on its node.
    Unroute {
        /// The pod.
        pod: PodRef,
        /// The new drain's number.
        epoch: Epoch,
        /// The reason that is written on the pod, and told.
        reason: DrainReason,
        /// Since when; kept when a drain is only given a new number.
        since: Timestamp,
        /// Its place in the order in which its ReplicaSet deletes pods.
        cost: DeletionCost,
    },
    /// Remove the EndpointSlices that keep a lingering pod reachable on its node, and the annotation that names them.
    Unbridge {
        /// The pod.
        pod: PodRef,
    },
    /// One patch with uid and resourceVersion: the new epoch on the annotation, the serving label back, reason, since and cost off.
    PutBack {
        /// The pod.
        pod: PodRef,
        /// The resumption's number.
        epoch: Epoch,
    },
    /// Write the busy label and the autoscalers' annotations: whether evictions and autoscalers wait for the pod.
    Mark {
        /// The pod.
        pod: PodRef,
        /// The pod is not known to be idle.
        busy: bool,
    },
    /// Remove the busy label and the autoscalers' annotations: in this mode nothing keeps them up to date.
    Unmark {
        /// The pod.
        pod: PodRef,
    },
    /// End a pod, in the order of [`crate::retirement`]: live look, the scale tried dry, DELETE with uid and resourceVersion, and at once the scale.
    Retire {
        /// The pod.
        pod: PodRef,
        /// Its Deployment.
        revision: RevisionHash,
        /// The Deployment's `spec.replicas` as seen.
        replicas: u32,
        /// Why it may go.
        proof: Proof,
        /// The other pods of its Deployment that may go as well: where all may, a ReplicaSet's choice among them loses nothing.
        as_well: Vec<(PodUid, Proof)>,
    },
    /// Delete a Deployment that has neither replicas nor pods, with preconditions.
    DeleteRevision {
        /// The revision whose Deployment is deleted.
        revision: RevisionHash,
    },
}

impl Action {
    /// The pod that it acts upon.
    pub fn pod(&self) -> Option<&PodRef> {
        self.touches().0
    }

    /// The revision whose Deployment it scales.
    pub fn scales(&self) -> Option<&RevisionHash> {
        self.touches().1
    }

    /// In one list, so that a new action says here what it touches or does not compile.
    fn touches(&self) -> (Option<&PodRef>, Option<&RevisionHash>) {
        match self {
            Self::Retire { pod, revision, .. } => (Some(pod), Some(revision)),
            Self::Unroute { pod, .. }
            | Self::Enlist { pod }
            | Self::PutBack { pod, .. }
            | Self::Unbridge { pod }
            | Self::Mark { pod, .. }
            | Self::Unmark { pod } => (Some(pod), None),
            Self::ScaleUp { revision, .. } | Self::ScaleDown { revision, .. } => (None, Some(revision)),
            Self::AddFinalizer
            | Self::ReleaseFinalizer
            | Self::Adopt
            | Self::Fence { .. }
            | Self::Unfence { .. }
            | Self::LetGo { .. }
            | Self::LetGoService
            | Self::SyncService
            | Self::SyncBudget
            | Self::DryRunTemplate { .. }
            | Self::CreateRevision { .. }
            | Self::SyncPolicy { .. }
            | Self::RecordProven { .. }
            | Self::Nudge { .. }
            | Self::DeleteRevision { .. } => (None, None),
        }
    }
}

/// A pod by name and uid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodRef {
    /// For the URL.
    pub name: String,
    /// For the precondition.
    pub uid: PodUid,
}

/// Why a pod may be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// One answer said: this epoch, admission closed, nothing in flight.
    Idle {
        /// The drain's number.
        epoch: Epoch,
    },
    /// Zero has held through quietSeconds, read at least three times; admission could not be closed.
    Quiet {
        /// The drain's number.
        epoch: Epoch,
    },
    /// As `Quiet`, of a pod that refuses to be told (401). What slips in after the last zero meets its SIGTERM, and has this grace: at least its drain's
    /// deadline.
    TokenRefused {
        /// The drain's number.
        epoch: Epoch,
        /// For the DELETE.
        grace_seconds: u32,
    },
    /// Signal Sigterm, and its linger is over: the app's own drain within this grace is the drain (`handed_over`).
    HandedOver {
        /// The drain's number.
        epoch: Epoch,
        /// For the DELETE: `deadlineSeconds`, with `onDeadline: Hold` 7 days; whatever the pod's own is.
        grace_seconds: u32,
    },
    /// `onDeadline: Terminate`: what is in flight is cut, and counted on the pod before the DELETE.
    Cut {
        /// The drain's number.
        epoch: Epoch,
        /// The last known in-flight count; none where the pod never told.
        tasks: Option<u64>,
    },
    /// Nothing in it can be busy (`Snapshot::cannot_be_busy`); the last look asks `Pod::nothing_runs` again.
    NotRunning,
    /// No pod of its whole revision was ever Ready or heard. It gets its SIGTERM with this grace, at least its drain's deadline: if it works all
    /// the same (a pull consumer with a wrong readiness probe), it finishes.
    NeverWorked {
        /// For the DELETE.
        grace_seconds: u32,
    },
}

/// As it follows in brackets after the name of a pod: in the log, and wherever else an end is told.
impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle { epoch } => write!(f, "idle in epoch {epoch}"),
            Self::Quiet { epoch } => write!(f, "quiet in epoch {epoch}"),
            Self::TokenRefused { epoch, grace_seconds } => {
                write!(
                    f,
                    "quiet in epoch {epoch}, since it refuses the operator's token; grace {grace_seconds} s"
                )
            }
            Self::HandedOver { epoch, grace_seconds } => {
                write!(f, "SIGTERM begins its own drain; epoch {epoch}, grace {grace_seconds} s")
            }
            Self::Cut { epoch, tasks: Some(tasks) } => {
                write!(f, "past its deadline in epoch {epoch}: cut with {tasks} in flight")
            }
            Self::Cut { epoch, tasks: None } => {
                write!(f, "past its deadline in epoch {epoch}: cut, and what it has in flight is not known")
            }
            Self::NotRunning => f.write_str("nothing runs in it"),
            Self::NeverWorked { grace_seconds } => {
                write!(f, "no pod of its revision ever worked; grace {grace_seconds} s")
            }
        }
    }
}
