//! One pod, as its object, its Services' EndpointSlices and our own annotations on it have it.

use graceful_api::{DrainPolicy, DrainReason, RevisionHash};
use jiff::Timestamp;

use super::{Backoff, Node};
use crate::clock::{after, seconds};
use crate::ids::{Epoch, PodUid};

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
    /// The pod carries the labels that its app's pods are known by. Those of an adopted Deployment get them while they run, and count as routed to until then.
    pub enlisted: bool,
    /// The pod has a deletion timestamp: whatever we think of it, it goes.
    pub terminating: bool,
    /// The pod has the label that routes traffic to it, Ready or not.
    pub routed: bool,
    /// The epoch on its annotation, of its last drain or resumption.
    pub epoch: Option<Epoch>,
    /// Why and since when it drains, from its annotations.
    pub drain: Option<DrainNote>,
    /// Its deletion cost is the lowest there is: where its ReplicaSet has one pod too many, it is to delete this one.
    pub cheapest: bool,
    /// Whether Services still send clients to it; looked at while it drains.
    pub endpoints: Endpoints,
    /// EndpointSlices of ours keep it reachable on its node, for Services with a traffic policy `Local`.
    pub bridged: bool,
    /// What it says to evictions and autoscalers.
    pub mark: Mark,
    /// Until when its mark is left alone, since it was written not long ago.
    pub mark_rests_until: Option<Timestamp>,
    /// The pod is, or was about to be, ended at its deadline, from its annotation.
    pub cut: Option<CutNote>,
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
    pub write_backoff: Option<Backoff>,
}

impl Pod {
    /// Whether its ReplicaSet counts it, as client-go's `IsPodActive` has it: neither terminating nor finished. The record of an evicted pod stays, and counts for
    /// nothing anywhere.
    pub fn is_active(&self) -> bool {
        !self.terminating && self.containers != Containers::Finished
    }

    /// Its node does not go, or the pod stays on it all the same ([`KeptBy`](super::KeptBy)).
    pub fn stays(&self) -> bool {
        self.node.fate.stays()
    }

    /// Whether a Service that asked for the serving label would turn clients away from it, though it does not drain: it has begun, and is without that label.
    pub fn would_be_fenced_off(&self) -> bool {
        self.has_begun() && !(self.enlisted && (self.routed || self.drain.is_some()))
    }

    /// The grace of a pod that may be at work when its SIGTERM comes: what its drain would have had.
    pub(crate) fn longest_grace(&self, policy: DrainPolicy) -> u32 {
        self.grace_seconds.max(policy.longest_drain_seconds())
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
    /// Neither as a whole, though there is something of it: somebody changed it.
    Unclear,
    /// There is nothing of it: the pod was made without.
    #[default]
    Absent,
}

impl Mark {
    /// It says as a whole whether it waits.
    pub fn is_clear(self) -> bool {
        match self {
            Self::Busy | Self::Idle => true,
            Self::Unclear | Self::Absent => false,
        }
    }
}

/// Why and since when a pod drains, as our annotations on it say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainNote {
    /// The reason, as it was told.
    pub reason: DrainReason,
    /// Since when.
    pub since: Timestamp,
}

impl DrainNote {
    /// When the deadline of this drain passes.
    pub(crate) fn deadline(self, policy: DrainPolicy) -> Timestamp {
        after(self.since, seconds(policy.deadline_seconds))
    }
}

/// What is written on a pod before it is deleted at its deadline, in an annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutNote {
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
