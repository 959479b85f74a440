//! What users write: `spec` of a GracefulApp, with its defaults.
//!
//! The doc comments here are what `kubectl explain` prints. Each default is told to serde and to the schema from one
//! `Default`, so that an object read before and after admission means the same.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::status::GracefulAppStatus;
use crate::template::Template;

mod adopt;
mod gate;

pub use adopt::{Adopt, AdoptedDrain};
pub use gate::{Gate, GateProtocol, GateResources, OnDrain, OpenSockets};

/// An application whose pods end only when their work is done.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "graceful.dev",
    version = "v1alpha1",
    kind = "GracefulApp",
    plural = "gracefulapps",
    singular = "gracefulapp",
    shortname = "gapp",
    category = "all",
    namespaced,
    status = "GracefulAppStatus",
    derive = "PartialEq",
    doc = "An application whose pods end only when their work is done: rollouts, scale-downs and deletion wait for what is in flight.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct GracefulAppSpec {
    /// How many pods serve. `kubectl scale`, HPA and KEDA target the GracefulApp, never its Deployments.
    #[serde(default = "one")]
    #[schemars(range(max = 2_147_483_647))]
    pub replicas: u32,
    /// The pod template. It passes through untouched; a change of it is a new revision.
    pub template: Template,
    /// A Service that the operator keeps, with the app's name, which selects serving pods only. None by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceTemplate>,
    /// How a pod is asked what it has in flight. Belongs to the revision: older pods are asked in their own way. With gate it is how the gate asks the app, over
    /// loopback, and a change of it is a new revision.
    #[serde(default)]
    pub in_flight: InFlight,
    /// A gate before an app that cannot close its own door, in each pod. None by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
    /// A running Deployment whose pods become the oldest revision of this app, without a restart. None by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopt: Option<Adopt>,
    /// How a pod is drained. Belongs to the revision as well.
    #[serde(default)]
    pub drain: Drain,
    /// How a new revision replaces the old ones.
    #[serde(default)]
    pub rollout: Rollout,
    /// What an eviction (`kubectl drain`, an autoscaler) does. Hold: it waits until the operator has drained the pod.
    /// HoldWhileBusy: it waits while the pod has something in flight or cannot be asked; an idle pod is ended at once.
    /// Allow: the pod drains itself within its grace period; better where tasks are shorter than that, since Hold
    /// also stops autoscalers from consolidating these nodes.
    #[serde(default)]
    pub disruption: Disruption,
}

/// The Service to keep.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceTemplate {
    /// ClusterIP, NodePort or LoadBalancer.
    #[serde(default, rename = "type")]
    pub type_: ServiceType,
    /// The Service's ports, as Kubernetes has them.
    #[schemars(length(min = 1, max = 32))]
    pub ports: Vec<ServicePort>,
    /// Annotations of the Service; cloud load balancers are configured by them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// As in Kubernetes: Cluster or Local.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<String>,
    /// As in Kubernetes: None or ClientIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity: Option<String>,
    /// As in Kubernetes, for type LoadBalancer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer_class: Option<String>,
}

/// The Service's type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// Reachable inside the cluster.
    #[default]
    ClusterIP,
    /// Also on a port of every node.
    NodePort,
    /// Also through a load balancer of the cloud.
    LoadBalancer,
}

/// How a pod is asked what it has in flight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct InFlight {
    /// Container port to ask, by name or number.
    pub port: IntOrString,
    /// HTTP path to ask.
    #[schemars(length(max = 1024), regex(pattern = r"^[^\s#]*$"))]
    pub path: String,
    /// What answers there. Graceful: the drain protocol v1. JsonPointer: a JSON document with one number in it, or more.
    /// Prometheus: metrics in the text format.
    pub format: Format,
    /// For format JsonPointer: where the numbers are, each as RFC 6901 writes it, for example /queue/length. They are added up.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), inner(length(max = 512)))]
    pub json_pointers: Option<Vec<String>>,
    /// For format Prometheus: the metrics, each with labels if wanted, for example queue_length{state="running"}. Summed over all series that
    /// match; a series that matches two of them counts twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 512)))]
    pub metrics: Option<Vec<String>>,
    /// For format Prometheus: what it means that the page is whole and no series matches one of the metrics. Busy (the default):
    /// that nothing is known. Zero: that this one counts nothing, for a gauge that comes with the first job. With Zero a
    /// misspelt metric or label reads as idle, and so does a gauge that goes before its job has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when_absent: Option<WhenAbsent>,
    /// For formats JsonPointer and Prometheus: the sum at which the pod is idle; it is taken off before the count is shown. 1 for an endpoint that counts
    /// the request that asks it. Of a pod that does not, one request less is seen than there is, and it may be cut.
    #[schemars(range(max = 1000))]
    pub idle_at: u32,
    /// Refused: write jsonPointers, a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub json_pointer: Option<String>,
    /// Refused: write metrics, a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub metric: Option<String>,
    /// How often a draining pod is asked. With format Graceful a long poll makes the answer instant.
    #[schemars(range(min = 1, max = 3600))]
    pub poll_interval_seconds: u32,
    /// How long an answer may take. No answer in time is no answer: the pod counts as busy.
    #[schemars(range(min = 1, max = 60))]
    pub timeout_seconds: u32,
}

/// What answers on the in-flight port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Format {
    /// The drain protocol v1.
    #[default]
    Graceful,
    /// A JSON document with one number in it, or more.
    JsonPointer,
    /// The Prometheus text format.
    Prometheus,
}

/// What a metric that is not on the page means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhenAbsent {
    /// Nothing is known, so the pod may be busy.
    #[default]
    Busy,
    /// Nothing is in flight, as long as other series are there: an exporter that only starts has an empty page.
    Zero,
}

impl WhenAbsent {
    /// The default, which is not written: a revision that does not use it keeps the annotation it has.
    pub(crate) fn is_busy(&self) -> bool {
        *self == Self::Busy
    }
}

/// How a pod is drained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Drain {
    /// How a pod learns that it drains; see [`Signal`], whose text the schema shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<Signal>,
    /// Seconds for which a pod still accepts once no EndpointSlice lists it any more, while proxies and load balancers follow.
    #[schemars(range(max = 3600))]
    pub linger_seconds: u32,
    /// With signal None: seconds for which zero must hold, since admission cannot be closed.
    #[schemars(range(max = 3600))]
    pub quiet_seconds: u32,
    /// Seconds a drain may take before onDeadline applies. With signal Sigterm and onDeadline Terminate: the grace period of the DELETE.
    #[schemars(range(min = 1))]
    pub deadline_seconds: u32,
    /// Hold: wait on and say so. Terminate: delete the pod, and count what was cut. With signal Sigterm the pod is deleted after its linger, and this
    /// decides its grace period: 7 days with Hold, deadlineSeconds with Terminate. One whose container has crashed is waited for with either, until it runs.
    pub on_deadline: OnDeadline,
    /// Auto adds a preStop hook to containers that have none, for exits that the operator does not start.
    pub pre_stop: PreStop,
    /// With preStop Auto: the command of the hook in the container that has the in-flight port. Without it, and in
    /// all other containers, the hook sleeps for lingerSeconds. With gate the hooks are its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), inner(length(max = 1024)))]
    pub pre_stop_command: Option<Vec<String>>,
}

impl Drain {
    /// The signal as written, or the one that suits the format.
    pub fn signal_for(&self, format: Format) -> Signal {
        self.signal.unwrap_or(match format {
            Format::Graceful => Signal::Http,
            Format::JsonPointer | Format::Prometheus => Signal::None,
        })
    }
}

/// How a pod learns that it drains. Http (default with format Graceful): PUT on the in-flight path. Sigterm: the app drains
/// itself when it gets SIGTERM, as queue workers do: the pod is deleted after lingerSeconds, with a grace period of deadlineSeconds
/// (onDeadline Hold: 7 days) whatever its template says, and drains until it exits. None (default with the other formats): nothing is
/// known of the app: wait for a quiet zero, then delete; what arrives after that zero has the pod's own grace period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Signal {
    /// PUT on the in-flight path.
    Http,
    /// SIGTERM, with a grace period as long as a drain may take. There is no way back from it.
    Sigterm,
    /// Not at all: a quiet zero is waited for.
    None,
}

/// What happens when a drain takes longer than `deadlineSeconds`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnDeadline {
    /// Wait on, and say so.
    #[default]
    Hold,
    /// Delete the pod, and count what was cut.
    Terminate,
}

/// Whether containers without a preStop hook get one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PreStop {
    /// Add one to containers that have none.
    #[default]
    Auto,
    /// Leave all containers as they are.
    None,
}

/// How a new revision replaces the old ones: Kubernetes' own terms, defaults and rounding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rollout {
    /// Pods above replicas while rolling, a number or a percentage that rounds up. Draining pods count.
    pub max_surge: IntOrString,
    /// Pods below replicas while rolling, a number or a percentage that rounds down.
    pub max_unavailable: IntOrString,
    /// Seconds a new pod must be Ready to count as Available.
    #[schemars(range(max = 2_147_483_647))]
    pub min_ready_seconds: u32,
    /// Seconds in which a new pod must become Available; past it the rollout is Stalled. Waiting for a drain does not count.
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub progress_deadline_seconds: u32,
    /// Seconds for which a new pod may find no node before maxUnavailable is spent in place of the surge; an autoscaler may bring a node meanwhile.
    /// Where a quota or a policy refuses the pod, it is spent at once.
    #[schemars(range(max = 2_147_483_647))]
    pub surge_timeout_seconds: u32,
    /// When a pod that drains itself on SIGTERM (signal Sigterm) may be replaced. Drained: once it is gone. Draining: at once, so that old and new
    /// pods may run beside one another for as long as the longest task, beyond maxSurge.
    pub replace_when: ReplaceWhen,
    /// Start no new drain for a rollout. Running drains finish, and scaling goes on.
    pub paused: bool,
    /// Emptied Deployments kept as history, to roll back to.
    #[schemars(range(max = 100))]
    pub revision_history_limit: u32,
}

/// When a pod that drains itself on SIGTERM may be replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReplaceWhen {
    /// Once it is gone, or its node is: until then it counts towards replicas + maxSurge.
    #[default]
    Drained,
    /// At once: it counts for nothing.
    Draining,
}

/// What an eviction does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Disruption {
    /// Wait for the operator to drain.
    #[default]
    Hold,
    /// Wait where the pod is busy, or cannot be asked. One that is known to be idle is ended, and drains itself what came in meanwhile.
    HoldWhileBusy,
    /// End the pod; it drains itself within its grace period.
    Allow,
}

impl Default for GracefulAppSpec {
    fn default() -> Self {
        Self {
            replicas: one(),
            template: Template::default(),
            service: None,
            in_flight: InFlight::default(),
            gate: None,
            adopt: None,
            drain: Drain::default(),
            rollout: Rollout::default(),
            disruption: Disruption::default(),
        }
    }
}

impl Default for InFlight {
    fn default() -> Self {
        Self {
            port: IntOrString::String("admin".to_owned()),
            path: "/drain".to_owned(),
            format: Format::Graceful,
            json_pointers: None,
            metrics: None,
            when_absent: None,
            idle_at: 0,
            json_pointer: None,
            metric: None,
            poll_interval_seconds: 1,
            timeout_seconds: 2,
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            signal: None,
            linger_seconds: 3,
            quiet_seconds: 5,
            deadline_seconds: 300,
            on_deadline: OnDeadline::Hold,
            pre_stop: PreStop::Auto,
            pre_stop_command: None,
        }
    }
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            max_surge: IntOrString::String("25%".to_owned()),
            max_unavailable: IntOrString::Int(0),
            min_ready_seconds: 0,
            progress_deadline_seconds: 600,
            surge_timeout_seconds: 120,
            replace_when: ReplaceWhen::Drained,
            paused: false,
            revision_history_limit: 2,
        }
    }
}

/// One replica, as a Deployment defaults to.
fn one() -> u32 {
    1
}
