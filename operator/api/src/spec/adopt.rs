//! `spec.adopt`: the way in from a Deployment that runs already.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Drain, InFlight, OnDeadline, Signal};

/// A running Deployment of the same namespace, whose pods become the app's oldest revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Adopt {
    /// The Deployment's name. It is paused, its pods are drained one by one, and it stays, with 0 replicas.
    #[schemars(length(min = 1, max = 253))]
    pub deployment: String,
    /// How its pods are asked what they have in flight. They were not made for the drain protocol: the format is JsonPointer or Prometheus.
    pub in_flight: InFlight,
    /// How its pods are drained.
    #[serde(default)]
    pub drain: AdoptedDrain,
}

/// How the pods of an adopted Deployment are drained. They have no hook of ours, and the grace period that their own template gives them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AdoptedDrain {
    /// None (the default): a quiet zero is waited for, then the pod is deleted; what arrives after that zero has the pod's own grace period.
    /// Sigterm: the app drains itself on SIGTERM, and is given deadlineSeconds for it (onDeadline Hold: 7 days). Http is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<Signal>,
    /// Seconds for which a pod still accepts once no EndpointSlice lists it any more.
    #[schemars(range(max = 3600))]
    pub linger_seconds: u32,
    /// With signal None: seconds for which zero must hold.
    #[schemars(range(max = 3600))]
    pub quiet_seconds: u32,
    /// Seconds a drain may take before onDeadline applies.
    #[schemars(range(min = 1))]
    pub deadline_seconds: u32,
    /// Hold: wait on and say so. Terminate: delete the pod, and count what was cut.
    pub on_deadline: OnDeadline,
}

impl Default for AdoptedDrain {
    fn default() -> Self {
        let Drain { linger_seconds, quiet_seconds, deadline_seconds, on_deadline, .. } = Drain::default();
        Self { signal: None, linger_seconds, quiet_seconds, deadline_seconds, on_deadline }
    }
}
