//! What the planner is given: the app as its user wants it, and its Deployments and pods as they are.
//!
//! These are plain data, parsed once by `observe`; nothing here knows of a client. All counts are pods.

mod adoption;
mod backoff;
mod creation_backoff;
mod lag;
mod node;
mod pod;
mod surroundings;

use std::collections::BTreeMap;

use graceful_api::{DrainPolicy, ReplaceWhen, RevisionHash};
use jiff::Timestamp;

pub use self::adoption::{Adoption, LeftBehind};
pub use self::backoff::{Backoff, BackoffCause, Failure};
pub use self::creation_backoff::{Absent, Rejected};
pub use self::lag::Lag;
pub use self::node::{KeptBy, Kubelet, Node, NodeFate};
pub use self::pod::{Containers, CutNote, DrainNote, Endpoints, Mark, Pod, Readiness};
pub use self::surroundings::{Bypass, Child, Surroundings, TemplateVerdict, Warning};
use crate::contact::Contact;
use crate::ids::PodUid;

/// One app, all at one moment, including the effect of our own last writes.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// What the user asks for.
    pub app: App,
    /// The app's Deployments, one a revision, found by label and the app's uid.
    pub revisions: Vec<Revision>,
    /// The app's pods, terminating ones among them.
    pub pods: Vec<Pod>,
    /// What the pods have said to this operator process.
    pub contacts: BTreeMap<PodUid, Contact>,
    /// Pods that ended before they were ever Ready, by revision, including recent ones whose object is gone.
    pub rejected: BTreeMap<RevisionHash, Rejected>,
    /// Pods that a Deployment asks for and of which none comes, by revision.
    pub absent: BTreeMap<RevisionHash, Absent>,
    /// Deployments whose controllers are late, by revision.
    pub lags: BTreeMap<RevisionHash, Lag>,
    /// What stands around them.
    pub surroundings: Surroundings,
}

impl Observed {
    /// Whether a pod of this revision was Ready, or heard, at some time: as was written on its Deployment, or as is seen and not written yet.
    pub(crate) fn is_proven(&self, revision: &Revision) -> bool {
        let heard = |p: &Pod| self.contacts.get(&p.uid).is_some_and(|c| c.answer.is_some());
        let mut pods = self.pods.iter().filter(|p| p.revision == revision.hash);
        revision.proven || pods.any(|p| p.readiness != Readiness::Never || heard(p))
    }
}

/// What the user asks for, resolved: percentages are pods, defaults are filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct App {
    /// The GracefulApp's name.
    pub name: String,
    /// Its namespace: commands that are told to people name it.
    pub namespace: String,
    /// How many serving pods are wanted.
    pub replicas: u32,
    /// The update revision.
    pub update: RevisionHash,
    /// How the update revision's pods are drained.
    pub policy: DrainPolicy,
    /// Pods above `replicas` that may exist, draining ones counted.
    pub max_surge: u32,
    /// Pods below `replicas` that may be missing from serving.
    pub max_unavailable: u32,
    /// A pod must have been Ready this long to be Available.
    pub min_ready_seconds: u32,
    /// How long a new pod may not take work before the app is Stalled.
    pub progress_deadline_seconds: u32,
    /// How long a new pod may stay unschedulable before maxUnavailable is used to make way for it.
    pub surge_timeout_seconds: u32,
    /// When a pod that drains itself on SIGTERM may be replaced.
    pub replace_when: ReplaceWhen,
    /// No drain for a rollout starts.
    pub paused: bool,
    /// How many Deployments without replicas and pods are kept.
    pub revision_history_limit: u32,
    /// `disruption: HoldWhileBusy`: evictions wait for pods alone that are marked as busy.
    pub hold_while_busy: bool,
    /// Whether the GracefulApp is being deleted, and what is to become of its children.
    pub deletion: Deletion,
    /// Our finalizer is on the GracefulApp.
    pub finalizer: bool,
    /// Why our finalizer is not put on the GracefulApp for now: what the last try met.
    pub finalizer_backoff: Option<Backoff>,
}

/// Whether the GracefulApp goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deletion {
    /// It stays.
    #[default]
    No,
    /// It goes, and takes its pods with it, drained. Background and foreground alike.
    Drain,
    /// `graceful.dev/leave`: it goes once one revision serves, and leaves that as a plain Deployment.
    Leave,
    /// `--cascade=orphan`: it goes and leaves its Deployments.
    Orphan,
}

impl Deletion {
    /// Pods are made and replaced as ever: it stays, or leaves what serves in good order.
    pub(crate) fn keeps_serving(self) -> bool {
        match self {
            Self::No | Self::Leave => true,
            Self::Drain | Self::Orphan => false,
        }
    }
}

/// One Deployment of ours.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    /// Which revision it is.
    pub hash: RevisionHash,
    /// The Deployment's name.
    pub name: String,
    /// Its `spec.replicas`.
    pub replicas: u32,
    /// When it was made.
    pub created: Timestamp,
    /// How its pods are drained.
    pub policy: DrainPolicy,
    /// The policy annotation says what the spec says (asked of the update revision and of the adopted one).
    pub policy_current: bool,
    /// The signal in it is the one that the spec says (asked of the same).
    pub signal_current: bool,
    /// Why the ReplicaSet cannot make pods (a quota, a policy), and since when.
    pub replica_failure: Option<Failure>,
    /// Why the ReplicaSet cannot end pods (a policy), and since when: a spare of it stays.
    pub end_failure: Option<Failure>,
    /// Its ReplicaSet itself cannot be made, as `replica_failure` says: free places for pods would not help that.
    pub has_no_replica_set: bool,
    /// A pod of it was Ready, or gave a valid answer, at some time: written on its Deployment, so that a restarted operator knows.
    pub proven: bool,
    /// Why its Deployment is not scaled for now, and so none of its pods ended: what the last scale met.
    pub scale_backoff: Option<Backoff>,
    /// Why our annotations on its Deployment are not written for now. No drain waits for them; a Deployment that is history is not deleted meanwhile.
    pub annotation_backoff: Option<Backoff>,
    /// Its controller has taken up the last change of it.
    pub followed: bool,
    /// When something was last written to it, so that its controllers look at it again.
    pub nudged: Option<Timestamp>,
}
