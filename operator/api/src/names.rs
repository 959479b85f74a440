//! The names on the wire: labels, annotations, the finalizer, and what the children are called.
//!
//! All of them are promises. Running pods carry them across operator upgrades, so none is ever renamed.

/// The API group.
pub const GROUP: &str = "graceful.dev";
/// The API version.
pub const VERSION: &str = "v1alpha1";
/// The kind.
pub const KIND: &str = "GracefulApp";
/// The plural, as in `kubectl get gracefulapps`.
pub const PLURAL: &str = "gracefulapps";

/// The operator's name in `managedFields`, Events and Leases.
pub const FIELD_MANAGER: &str = "graceful-operator";
/// Held on a GracefulApp until its pods are drained and its children are gone.
pub const FINALIZER: &str = "graceful.dev/drain";

/// Label: the app's name, on every child and pod.
pub const APP_LABEL: &str = "graceful.dev/app";
/// Label: the revision's hash, on its Deployment and pods.
pub const REVISION_LABEL: &str = "graceful.dev/revision";
/// Label: `"true"` on pods that Services may route to; taken off when a drain begins.
pub const SERVING_LABEL: &str = "graceful.dev/serving";
/// The only value of [`SERVING_LABEL`].
pub const SERVING: &str = "true";

/// Annotation on a pod: the epoch of its latest drain or resume. It only grows.
pub const DRAIN_EPOCH: &str = "graceful.dev/drain-epoch";
/// Annotation on a pod: why it drains, one of [`crate::DrainReason`].
pub const DRAIN_REASON: &str = "graceful.dev/drain-reason";
/// Annotation on a pod: since when it drains, RFC 3339.
pub const DRAIN_SINCE: &str = "graceful.dev/drain-since";
/// Annotation on a pod: the EndpointSlices of ours that keep it reachable on its node while it lingers, by name, with commas.
pub const LINGERING: &str = "graceful.dev/lingering";
/// Annotation on a pod: how many tasks are cut, written before a forced DELETE.
pub const CUT: &str = "graceful.dev/cut";

/// Annotation on a child: the uid of its GracefulApp, in place of an ownerReference (a foreground deletion would
/// let the garbage collector kill the pods at once, whatever our finalizer says).
pub const APP_UID: &str = "graceful.dev/app-uid";
/// Annotation on a Deployment: how its pods are asked and drained, a policy as JSON.
pub const POLICY: &str = "graceful.dev/policy";
/// Annotation on a Deployment: `"false"` from its creation until a pod of it was Ready or gave a valid answer. Absent, on Deployments that an
/// older operator made, is as good as `"true"`.
pub const PROVEN: &str = "graceful.dev/proven";
/// The value of [`PROVEN`] once a pod worked.
pub const PROVEN_TRUE: &str = "true";
/// The value of [`PROVEN`] until then.
pub const PROVEN_FALSE: &str = "false";
/// Annotation on a Deployment: `"true"` where its pods were to verify who drains them, and the keys could not be read as it was made: they verify nobody.
pub const WITHOUT_KEYS: &str = "graceful.dev/without-keys";
/// Annotation on a Deployment that its controller had given up: when something was last written for it to look again.
pub const NUDGED: &str = "graceful.dev/nudged";
/// Annotation on a child: a fingerprint of what was applied. Without it, a field that the user took out of the spec again would not be noticed,
/// since the API server's own defaults look the same as ours.
pub const APPLIED: &str = "graceful.dev/applied";
/// Annotation on a Deployment of the user's that was adopted: its own uid, and what it was like before, as JSON ([`crate::Adopted`]).
pub const ADOPTED: &str = "graceful.dev/adopted";
/// The value of [`REVISION_LABEL`] on an adopted Deployment and its pods. It has letters that no hash has.
pub const ADOPTED_REVISION: &str = "adopted";
/// Annotation on a Service of the user's: the uid of the GracefulApp for whose adoption the serving label was put into its selector.
pub const FENCED: &str = "graceful.dev/fenced";
/// Annotation on a GracefulApp: with `"true"` its deletion leaves what serves, as a plain Deployment.
pub const LEAVE: &str = "graceful.dev/leave";
/// Argo CD's annotation of how an object is synced, a list with commas.
pub const ARGO_SYNC_OPTIONS: &str = "argocd.argoproj.io/sync-options";
/// In that list: the object is not deleted when it is gone from the repository.
pub const ARGO_KEEP: &str = "Prune=false";
/// Annotation on a GracefulApp: `"true"` accepts Services of the user's own that route to draining pods.
pub const ACCEPT_UNFENCED_SERVICES: &str = "graceful.dev/accept-unfenced-services";

/// Annotation on a node: `"true"` leaves its pods where they are though it is cordoned or marked by an autoscaler.
pub const KEEP: &str = "graceful.dev/keep";

/// Kubernetes' annotation that ranks a ReplicaSet's victims: the lowest cost goes first.
pub const POD_DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// The cost of a draining pod, the highest there is: its ReplicaSet deletes any other pod before it.
pub const DRAINING_DELETION_COST: &str = "2147483647";

/// The cost of a pod that its ReplicaSet is to take now, the lowest there is.
pub const RETIRING_DELETION_COST: &str = "-2147483648";

/// Kubernetes' label of an EndpointSlice: the Service that it is of.
pub const SLICE_SERVICE: &str = "kubernetes.io/service-name";
/// Kubernetes' label of an EndpointSlice: who keeps it.
pub const SLICE_MANAGER: &str = "endpointslice.kubernetes.io/managed-by";

/// Env variable in every container: its pod's name.
pub const POD_NAME_ENV: &str = "GRACEFUL_POD_NAME";
/// Env variable in every container: its pod's uid.
pub const POD_UID_ENV: &str = "GRACEFUL_POD_UID";

/// Env variable in every container: the public keys of who may drain the pod, a JWK Set (`docs/protocol.md`, "Tokens").
pub const DRAIN_KEYS_ENV: &str = "GRACEFUL_DRAIN_KEYS";

/// The longest name an app may have. `<app>-<revision>-<replicaset>-<pod>` is then at most 37 + 1 + 8 + 1 + 10 + 1 + 5 = 63
/// characters, so that pod names are never truncated and every name fits in a label's value.
pub const MAX_APP_NAME: usize = 37;

/// The Deployment of one revision.
pub fn deployment_name(app: &str, hash: &str) -> String {
    format!("{app}-{hash}")
}

/// The managed Service: clients say `http://tasks`, so it has the app's own name.
pub fn service_name(app: &str) -> String {
    app.to_owned()
}

/// The PodDisruptionBudget over the app's pods. Not the app's own name, which a budget of the user's often has.
pub fn pdb_name(app: &str) -> String {
    format!("{app}-graceful")
}

/// Selects every pod of the app, serving or not.
pub fn app_selector(app: &str) -> String {
    format!("{APP_LABEL}={app}")
}

/// Selects the app's serving pods alone: the scale subresource's selector, and the managed Service's.
pub fn serving_selector(app: &str) -> String {
    format!("{APP_LABEL}={app},{SERVING_LABEL}={SERVING}")
}
