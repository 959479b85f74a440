//! What users read back: `status` of a GracefulApp. It is a report, and is never read back to decide.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many draining pods are listed one by one; the rest is a count. Fifty keep a status under 32 KiB.
pub const MAX_DRAINING_LISTED: usize = 50;

/// How many pods that were cut and have not ended yet are listed.
pub const MAX_CUT_ENDING_LISTED: usize = 50;

/// What the operator observed, and what it waits for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GracefulAppStatus {
    /// The generation of the spec that this report is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Serving pods, at most spec.replicas: what autoscalers read, so that surge never ratchets them up.
    #[serde(default)]
    pub replicas: u32,
    /// Pods that serve, of all revisions.
    #[serde(default)]
    pub serving_replicas: u32,
    /// Serving pods of the update revision.
    #[serde(default)]
    pub updated_replicas: u32,
    /// Pods that finish their work before they end.
    #[serde(default)]
    pub draining_replicas: u32,
    /// What the draining pods still have in flight, as far as is known.
    #[serde(default)]
    pub in_flight: u64,
    /// Label selector of the serving pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The first that applies of Deleting, Stalled, Paused, Held, Rolling, Draining, Serving.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// What the operator waits for, as a sentence; empty when it waits for nothing.
    #[serde(default)]
    pub waiting_for: String,
    /// The revision that is being replaced; without a rollout, the one that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_revision: Option<String>,
    /// The revision of the template in the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_revision: Option<String>,
    /// All revisions that still have a Deployment, newest first.
    #[serde(default)]
    pub revisions: Vec<RevisionStatus>,
    /// The pods that drain, at most 50.
    #[serde(default)]
    pub draining: Vec<DrainingPod>,
    /// How many more drain than are listed.
    #[serde(default)]
    pub draining_omitted: u32,
    /// What was ended at a deadline so far.
    #[serde(default)]
    pub cut: Cut,
    /// Uids of pods that are in `cut` and have not ended yet, at most 50: after a restart of the operator they are not counted again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cut_ending: Vec<String>,
    /// Pods that others ended (a delete, an eviction) and that finish their work now. Absent where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_by_others: Option<EndedByOthers>,
    /// Available, Progressing, Drained, Warning, Reconciling and Stalled.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// The STATUS column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Being deleted: all pods drain. The Service goes once none lingers, the other children once all have ended.
    Deleting,
    /// Something cannot go on without help, and the Stalled condition says what would help. What does not depend on it goes on.
    Stalled,
    /// `rollout.paused` holds a rollout back.
    Paused,
    /// A pod is past its deadline and is held; or the API server, a controller or a webhook is too slow to end pods safely.
    Held,
    /// A new revision replaces others, or pods are made that do not serve yet.
    Rolling,
    /// There are more pods than the spec asks for, or pods finish their work, without a rollout.
    Draining,
    /// All is as the spec says.
    Serving,
}

/// One revision, and its Deployment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionStatus {
    /// The hash of the template.
    pub hash: String,
    /// The Deployment.
    pub name: String,
    /// Pods that are not terminating.
    pub replicas: u32,
    /// Pods that serve.
    pub serving: u32,
    /// Pods that drain.
    pub draining: u32,
    /// When the Deployment was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Time>,
    /// The image of the gate in its pods. Absent where they have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<String>,
}

/// One draining pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainingPod {
    /// The pod's name.
    pub pod: String,
    /// The pod's revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The node it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Why it drains.
    pub reason: DrainReason,
    /// How far it is.
    pub state: PodState,
    /// What it has in flight, by its last valid answer. Absent: it gave none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<InFlightCount>,
    /// When its drain began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// When onDeadline applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// When it last gave a valid answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_contact: Option<Time>,
    /// What is wrong with its latest answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Why a pod drains: also the value of the annotation `graceful.dev/drain-reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DrainReason {
    /// A newer revision takes its place.
    Rollout,
    /// Fewer replicas are wanted.
    ScaleDown,
    /// Its node goes: it is cordoned, or a taint says so; or it makes way for the pods of one that goes.
    NodeDrain,
    /// The GracefulApp is being deleted.
    Delete,
    /// It was made in another's place, and is taken back before it serves.
    Spare,
}

impl DrainReason {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rollout => "Rollout",
            Self::ScaleDown => "ScaleDown",
            Self::NodeDrain => "NodeDrain",
            Self::Delete => "Delete",
            Self::Spare => "Spare",
        }
    }

    /// From an annotation's value; None for a word that is not ours.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Rollout, Self::ScaleDown, Self::NodeDrain, Self::Delete, Self::Spare]
            .into_iter()
            .find(|r| r.as_str() == text)
    }
}

impl fmt::Display for DrainReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far a pod's drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum PodState {
    /// Unrouted, still accepting stragglers.
    Lingering,
    /// Accepts nothing, finishes what it has.
    Draining,
    /// Has nothing left.
    Idle,
}

/// What a pod has in flight, by kind. Formats other than Graceful know the total alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InFlightCount {
    /// All of it.
    pub total: u64,
    /// Tasks accepted and not begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<u64>,
    /// Tasks begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<u64>,
    /// HTTP requests not yet answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
}

/// Terminating pods that the operator did not end, and in which something may be at work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndedByOthers {
    /// How many.
    pub pods: u32,
    /// What they have in flight, as far as they told.
    pub in_flight: u64,
}

/// What was ended at a deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cut {
    /// Pods deleted while busy.
    #[serde(default)]
    pub pods: u32,
    /// What they had in flight, by their last answers.
    #[serde(default)]
    pub tasks: u64,
}
