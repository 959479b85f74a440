//! What the planner is given: the app as its user wants it, and its Deployments and pods as they are.
//!
//! These are plain data, parsed once by `observe`; nothing here knows of a client. All counts are pods.

use std::collections::BTreeMap;
use std::fmt;

use graceful_api::conditions::Reason;
use graceful_api::{DrainPolicy, DrainReason, ReplaceWhen, RevisionHash};
use jiff::Timestamp;

use crate::contact::Contact;
use crate::futile::{Absent, Rejected};

/// A pod's `metadata.uid`: unlike its name, never used twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid(pub String);

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for PodUid {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// The number of one drain or one resumption. Each is above all that any pod of the app that is still there carries, and above what its own pod has seen; numbers
/// of pods that are gone may be used again. Annotations that no operator of ours can have written are ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The next number.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

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
    /// Pods that ended before they were ever Ready, those of late whose record is gone among them, by revision.
    pub rejected: BTreeMap<RevisionHash, Rejected>,
    /// Pods that a Deployment asks for and of which none comes, by revision.
    pub absent: BTreeMap<RevisionHash, Absent>,
    /// What stands around them.
    pub surroundings: Surroundings,
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
    /// The revision that the template of now belongs to.
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
    /// How long a new pod may find no node before maxUnavailable is spent in its place.
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
    /// Why our finalizer is not put on for now: what the last try met.
    pub unclaimed: Option<Backoff>,
}

/// Whether the GracefulApp goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deletion {
    /// It stays.
    #[default]
    No,
    /// It goes, and takes its pods with it, drained. Background and foreground alike.
    Drain,
    /// `--cascade=orphan`: it goes and leaves its Deployments.
    Orphan,
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
    /// The policy annotation says what the spec says (asked of the update revision only).
    pub policy_current: bool,
    /// Why the ReplicaSet cannot make pods (a quota, a policy), and since when.
    pub replica_failure: Option<Failure>,
    /// The same where it cannot end them (a policy): a spare of it stays.
    pub end_failure: Option<Failure>,
    /// Its ReplicaSet itself cannot be made, as `replica_failure` says: no room among pods would help that.
    pub has_no_replica_set: bool,
    /// A pod of it was Ready, or gave a valid answer, at some time: written on its Deployment, so that a restarted operator knows.
    pub proven: bool,
    /// Why its Deployment is not scaled for now, and so none of its pods ended: what the last scale met.
    pub backoff: Option<Backoff>,
    /// The same of our annotations on it. No drain waits for them; what is history is not deleted meanwhile.
    pub unannotated: Option<Backoff>,
    /// Its controller has taken up the last change of it.
    pub followed: bool,
    /// Its controller has not taken it up for too long ([`Lags`](crate::Lags)): none of its pods is ended, and none taken
    /// out of service but spares, those of a dying node, and all at a deletion.
    pub lag: Option<Backoff>,
    /// When something was last written to it, so that its controllers look at it again.
    pub nudged: Option<Timestamp>,
    /// It is time to write to it once more, so that its controllers look.
    pub nudge: bool,
    /// A pod of it was ended a while ago, and until then another Deployment's that had no room may find the place ([`Lags`](crate::Lags)).
    pub room_until: Option<Timestamp>,
}

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
    pub(crate) fn is_slowness(self) -> bool {
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

/// One pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: PodUid,
    /// Which revision it belongs to.
    pub revision: RevisionHash,
    /// When it was made.
    pub created: Timestamp,
    /// It has a deletion timestamp: whatever we think of it, it goes.
    pub terminating: bool,
    /// It has the label that routes traffic to it, Ready or not.
    pub routed: bool,
    /// The epoch on its annotation, of its last drain or resumption.
    pub epoch: Option<Epoch>,
    /// Why and since when it drains, from its annotations.
    pub drain: Option<DrainMark>,
    /// Its deletion cost is the lowest: where its ReplicaSet has one pod too many, it is to take this one.
    pub cheapest: bool,
    /// Whether Services still send clients to it; looked at while it drains.
    pub endpoints: Endpoints,
    /// EndpointSlices of ours keep it reachable on its node, for Services with a traffic policy `Local`.
    pub bridged: bool,
    /// What it says to evictions and autoscalers.
    pub mark: Mark,
    /// It was marked not long ago, and is left alone until then.
    pub mark_rests_until: Option<Timestamp>,
    /// It is, or was about to be, ended at its deadline, from its annotation.
    pub cut: Option<CutMark>,
    /// Since when it is terminating.
    pub ends_since: Option<Timestamp>,
    /// When its grace period ends, while it is terminating.
    pub grace_ends: Option<Timestamp>,
    /// Kubernetes' Ready condition.
    pub readiness: Readiness,
    /// What the kubelet says of the containers that last: ordinary ones and native sidecars.
    pub containers: Containers,
    /// The node that it was given.
    pub node: Node,
    /// Since when the scheduler finds no node for it.
    pub unschedulable: Option<Timestamp>,
    /// Its `terminationGracePeriodSeconds`.
    pub grace_seconds: u32,
    /// What keeps it from running or becoming Ready, in the kubelet's or the scheduler's words.
    pub trouble: Option<String>,
    /// Why it is not written to for now: what our last write to it met.
    pub backoff: Option<Backoff>,
}

impl Pod {
    /// Its ReplicaSet counts it: neither terminating nor finished. The record of an evicted pod stays, and counts for nothing anywhere.
    pub fn is_counted(&self) -> bool {
        !self.terminating && self.containers != Containers::Finished
    }

    /// Its node does not go, or the pod stays on it all the same ([`KeptBy`]).
    pub fn stays(&self) -> bool {
        self.node.fate.stays()
    }

    /// It lives, and something of it has started or may have: one that a ReplicaSet must not choose among others.
    pub fn has_begun(&self) -> bool {
        self.is_counted() && self.containers != Containers::NeverStarted
    }
}

/// What the Services that route by the serving label make of a pod that has lost it. Their EndpointSlices are written by a controller, which may be seconds behind, or
/// away: until it has followed, clients are sent to the pod, however long it lingers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Endpoints {
    /// None lists it since its drain began, or there is none that could.
    #[default]
    Withdrawn,
    /// None lists it, as far as is known since then.
    WithdrawnAt(Timestamp),
    /// One lists it.
    Listed {
        /// Its name.
        slice: String,
        /// Who keeps it, by its label; empty where it does not say.
        managed_by: String,
    },
    /// They could not be read, and why.
    Unread(String),
}

/// Whether an eviction waits for a pod under `disruption: HoldWhileBusy`: our label, and what autoscalers go by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    /// It waits, and autoscalers leave the pod alone.
    Busy,
    /// It does not wait.
    Idle,
    /// Neither as a whole: the pod was made otherwise, or somebody changed it.
    #[default]
    Unclear,
}

/// The node of a pod. One without a node is the scheduler's: it runs nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// None before it is scheduled.
    pub name: Option<String>,
    /// Whether its word on the pod can be trusted.
    pub kubelet: Kubelet,
    /// What becomes of it.
    pub fate: NodeFate,
}

impl Node {
    /// What its kubelet says of the pod is so.
    pub fn is_heard(&self) -> bool {
        self.kubelet == Kubelet::Heard
    }

    /// It is not Ready, or not there.
    pub fn is_silent(&self) -> bool {
        self.kubelet == Kubelet::Silent
    }
}

/// Whether a node's agent is heard by the API server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kubelet {
    /// The node is Ready, or there is none yet.
    #[default]
    Heard,
    /// It is not: nobody knows what its pods do.
    Silent,
    /// Nodes are not read (`nodeDrain.enabled: false`): its word may be as old as any.
    Unread,
}

/// What becomes of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeFate {
    /// It stays, as far as is known.
    #[default]
    Stays,
    /// It would be emptied, and its pods stay all the same.
    Kept(KeptBy),
    /// It is being emptied: it is cordoned, or an autoscaler has marked it. Its pods are replaced elsewhere, and drained.
    Emptied,
    /// It dies soon, whatever we do: a spot instance that is taken back. What its pods accepted from now on would die with it.
    Dying,
    /// Somebody says that it is shut down (the taint `node.kubernetes.io/out-of-service`): nothing runs there.
    ShutDown,
}

impl NodeFate {
    /// Pods stay there, as far as is known.
    pub fn stays(self) -> bool {
        matches!(self, Self::Stays | Self::Kept(_))
    }
}

/// Why pods stay on a node that would be emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptBy {
    /// The annotation `graceful.dev/keep` on the node.
    Annotation,
    /// It is cordoned, and the chart's `nodeDrain.onCordon` is false.
    Chart,
    /// The scheduler put the pod there after the node began to go: it tolerates that, and its replacement might be put there as well, without end.
    Toleration,
}

/// Why and since when a pod drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainMark {
    /// The reason, as it was told.
    pub reason: DrainReason,
    /// Since when.
    pub since: Timestamp,
}

/// Written on a pod before it is deleted at its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutMark {
    /// What it had in flight by its last answer; none where it never told.
    pub tasks: Option<u64>,
}

/// Kubernetes' Ready condition of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Ready since then.
    Ready(Timestamp),
    /// It was Ready once, and is not since then.
    Lost(Timestamp),
    /// It has never been Ready, so that no Service has sent it anything, unless one publishes unready addresses.
    Never,
}

/// What the kubelet says of all containers of a pod that last. One that runs, or that nothing is known of, is enough to be busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Containers {
    /// One runs: it may be busy.
    Running,
    /// One runs, and the one that is asked for its in-flight count crashed. What it accepted may wait in a volume for its next start.
    HalfCrashed,
    /// None runs now, and no run of any has ever started.
    NeverStarted,
    /// None runs now, and one ran (a crash loop's back-off). What it accepted may wait in a volume for its next start.
    Crashed,
    /// As `Crashed`, in a pod without a volume that could hold accepted work: what it had is gone already.
    CrashedEmpty,
    /// The pod's phase is Failed or Succeeded: nothing in it will run again.
    Finished,
    /// Nothing is known: it may be busy.
    Unknown,
}

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
    /// The user's own PodDisruptionBudgets over these pods.
    pub foreign_budgets: Vec<String>,
    /// What the user should know of the spec or of running pods. No drain waits for it; where a child is refused the app is Stalled all the same.
    pub warnings: Vec<Warning>,
    /// Services with `publishNotReadyAddresses` that select the app's pods: even one that was never Ready may have been sent work.
    pub publishing_unready: Vec<String>,
    /// The app has ended as many pods as it may without getting nearer to its spec: it ends no more for a while.
    pub brake: Option<Backoff>,
    /// The Service or the budget, where its last write had no answer. No drain waits for it; a deletion of the app does.
    pub late_children: Vec<Backoff>,
    /// The namespace is terminating: nothing can be made, all is taken by others.
    pub namespace_terminating: bool,
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
    /// The same, a while ago: it is asked again, and is refused until it has answered otherwise.
    RefusedBefore(String),
}

impl TemplateVerdict {
    /// Why it is not taken.
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Self::Unknown | Self::Accepted => None,
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
