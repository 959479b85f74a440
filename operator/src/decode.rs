//! Objects decoded one by one: what this build cannot read costs the object itself, never the list or the watch that it came in.
//!
//! # Flow
//! raw text of one object → [`decode`] → the object, slimmed; or a stand-in made of its metadata, with the [`fault`](Decoded::fault).
//!
//! # Guarantees
//! Deserializing a [`Decoded`] succeeds for any JSON value, however deep: what does not fit the type is read for its metadata alone.
//!
//! # Assumptions
//! A watch event names its type before its object, as every API server prints it: raw text cannot be taken out of a buffered value.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::panic::catch_unwind;
use std::sync::Arc;

use graceful_api::{Cut, FieldError, GracefulApp, GracefulAppSpec, GracefulAppStatus, names};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{
    Container, Node, NodeStatus, Pod, PodCondition, PodSpec, PodStatus, Service, ServicePort, ServiceSpec,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// One object as far as it can be read.
#[derive(Clone, Debug)]
pub(crate) struct Decoded<K> {
    object: Arc<K>,
    fault: Option<FieldError>,
}

impl<K> Decoded<K> {
    /// Why the object is only a stand-in, if it is: the field that cannot be read, and what of it.
    pub(crate) fn fault(&self) -> Option<&FieldError> {
        self.fault.as_ref()
    }

    /// The object itself.
    pub(crate) fn shared(&self) -> Arc<K> {
        Arc::clone(&self.object)
    }
}

impl<K> Deref for Decoded<K> {
    type Target = K;

    fn deref(&self) -> &K {
        &self.object
    }
}

/// A kind whose objects may be unreadable.
pub(crate) trait Lenient: Resource<DynamicType = ()> + Clone + DeserializeOwned {
    /// What stands in an unreadable object's place. It must claim nothing that the object may not be: unknown is busy.
    fn stand_in(metadata: ObjectMeta, fault: &FieldError, raw: &str) -> Self;

    /// The same object without a part of it that says nothing about what is wanted, if that part alone cannot be read.
    fn without_its_report(_raw: &str) -> Option<Self> {
        None
    }

    /// Drops what nobody here reads: it would fill our memory for nothing.
    fn slim(&mut self) {}
}

impl<'de, K: Lenient> Deserialize<'de> for Decoded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Taken as it stands, by a scan that does not recurse: an object of any depth passes.
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(decode(raw.get()))
    }
}

/// Decodes one object.
pub(crate) fn decode<K: Lenient>(raw: &str) -> Decoded<K> {
    // A decoder that panics is no better reason to end the process than one that fails.
    let whole = catch_unwind(|| serde_json::from_str::<K>(raw));
    let whole = match whole {
        Ok(Ok(object)) => Some(object),
        Ok(Err(_)) | Err(_) => catch_unwind(|| K::without_its_report(raw)).ok().flatten(),
    };
    let (mut object, fault) = match whole {
        Some(object) => (object, None),
        None => {
            let fault = fault::<K>(raw);
            (K::stand_in(metadata(raw), &fault, raw), Some(fault))
        }
    };
    let meta = object.meta_mut();
    // The larger half of many objects, and nobody here reads them.
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    object.slim();
    Decoded { object: Arc::new(object), fault }
}

/// Where reading stops, and why.
fn fault<K: DeserializeOwned>(raw: &str) -> FieldError {
    let read = catch_unwind(|| {
        let mut reader = serde_json::Deserializer::from_str(raw);
        let error = serde_path_to_error::deserialize::<_, K>(&mut reader).err()?;
        let (path, error) = (error.path().to_string(), error.into_inner().to_string());
        // A position in a text that the user never saw.
        let (error, _) = error.rsplit_once(" at line ").unwrap_or((error.as_str(), ""));
        let message = if error.starts_with("recursion limit") {
            "nested deeper than the 128 levels that the operator reads; flatten it".to_owned()
        } else {
            format!(
                "cannot be read by this version of the operator: {error}; write a value that it knows, or upgrade it"
            )
        };
        Some(FieldError { field: shortened(&path), message })
    });
    read.ok().flatten().unwrap_or_else(|| FieldError {
        field: ".".to_owned(),
        message: "cannot be read by this version of the operator".to_owned(),
    })
}

/// Of a path of 128 steps the first few say where to look, and leave room for the reason.
fn shortened(path: &str) -> String {
    const STEPS: usize = 8;
    match path.match_indices('.').nth(STEPS) {
        Some((end, _)) => format!("{}…", &path[..end]),
        None => path.to_owned(),
    }
}

#[derive(Deserialize)]
struct Envelope<M> {
    metadata: M,
}

/// The metadata of an object of which more may be unreadable. Field by field, if it has to be.
fn metadata(raw: &str) -> ObjectMeta {
    if let Ok(Envelope { metadata }) = serde_json::from_str(raw) {
        return metadata;
    }
    let fields: BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(raw).map(|e: Envelope<_>| e.metadata).unwrap_or_default();
    let going = fields.get("deletionTimestamp").filter(|v| v.get() != "null");
    ObjectMeta {
        name: field(&fields, "name"),
        namespace: field(&fields, "namespace"),
        uid: field(&fields, "uid"),
        resource_version: field(&fields, "resourceVersion"),
        generation: field(&fields, "generation"),
        labels: field(&fields, "labels"),
        annotations: field(&fields, "annotations"),
        finalizers: field(&fields, "finalizers"),
        owner_references: field(&fields, "ownerReferences"),
        creation_timestamp: field(&fields, "creationTimestamp"),
        // That it goes is what matters, whatever the time says.
        deletion_timestamp: going
            .map(|_| field(&fields, "deletionTimestamp").unwrap_or(Time(Timestamp::now()))),
        ..ObjectMeta::default()
    }
}

fn field<T: DeserializeOwned>(fields: &BTreeMap<String, Box<RawValue>>, name: &str) -> Option<T> {
    serde_json::from_str(fields.get(name)?.get()).ok()
}

/// The field `name` of the object, if it can be read.
fn part<T: DeserializeOwned>(raw: &str, names: &[&str]) -> Option<T> {
    let mut raw = Cow::Borrowed(raw);
    for name in names {
        let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&raw).ok()?;
        raw = Cow::Owned(fields.remove(*name)?.get().to_owned());
    }
    serde_json::from_str(&raw).ok()
}

impl Lenient for GracefulApp {
    /// Wants nothing: whoever plans it must look at the fault first.
    fn stand_in(metadata: ObjectMeta, _: &FieldError, raw: &str) -> Self {
        let spec = GracefulAppSpec { replicas: 0, ..GracefulAppSpec::default() };
        Self { metadata, spec, status: status(raw) }
    }

    /// A status that another version wrote is no part of what the user wants.
    fn without_its_report(raw: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Wanted {
            metadata: ObjectMeta,
            spec: GracefulAppSpec,
        }
        let Wanted { metadata, spec } = serde_json::from_str(raw).ok()?;
        Some(Self { metadata, spec, status: status(raw) })
    }
}

/// The status, or the one figure of it that is carried forward.
fn status(raw: &str) -> Option<GracefulAppStatus> {
    part(raw, &["status"]).or_else(|| {
        let cut: Cut = part(raw, &["status", "cut"])?;
        Some(GracefulAppStatus { cut, ..GracefulAppStatus::default() })
    })
}

impl Lenient for Deployment {
    /// An app with one of these is not planned.
    fn stand_in(metadata: ObjectMeta, _: &FieldError, _: &str) -> Self {
        Self { metadata, ..Self::default() }
    }
}

impl Lenient for Pod {
    /// Taken up by a kubelet, once ready or about to be, with no word on any container: it may run, and it does not serve.
    fn stand_in(metadata: ObjectMeta, fault: &FieldError, raw: &str) -> Self {
        // That it has finished is for ever.
        let phase: Option<String> = part(raw, &["status", "phase"]);
        let finished = phase.filter(|phase| matches!(phase.as_str(), "Failed" | "Succeeded"));
        let created = metadata.creation_timestamp.clone().unwrap_or(Time(Timestamp::UNIX_EPOCH));
        let ready = PodCondition {
            type_: "Ready".to_owned(),
            status: "Unknown".to_owned(),
            ..PodCondition::default()
        };
        Self {
            metadata,
            spec: Some(PodSpec { node_name: Some("unknown".to_owned()), ..PodSpec::default() }),
            status: Some(PodStatus {
                phase: finished.or_else(|| Some("Running".to_owned())),
                start_time: Some(created),
                conditions: Some(vec![ready]),
                message: Some(format!("the operator cannot read this pod and takes it as busy: {fault}")),
                ..PodStatus::default()
            }),
        }
    }

    fn slim(&mut self) {
        let Some(spec) = &mut self.spec else { return };
        spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()).for_each(slim_container);
        spec.ephemeral_containers = None;
        spec.affinity = None;
        spec.topology_spread_constraints = None;
        spec.security_context = None;
    }
}

/// What a container runs, with what, is the kubelet's to know.
fn slim_container(container: &mut Container) {
    container.args = None;
    container.command = None;
    container.env = None;
    container.env_from = None;
    container.resources = None;
    container.security_context = None;
    container.volume_devices = None;
    container.volume_mounts = None;
}

impl Lenient for Service {
    fn stand_in(metadata: ObjectMeta, _: &FieldError, raw: &str) -> Self {
        let selector = part(raw, &["spec", "selector"]);
        Self { metadata, spec: Some(ServiceSpec { selector, ..ServiceSpec::default() }), status: None }
    }

    /// Of other people's Services only what they select matters, and there may be ten thousand.
    fn slim(&mut self) {
        self.status = None;
        if managed(&self.metadata) {
            return;
        }
        // One that was fenced for an adoption is to be known again.
        let fenced = self.metadata.annotations.take().and_then(|mut a| a.remove_entry(names::FENCED));
        strip(&mut self.metadata);
        self.metadata.annotations = fenced.map(|one| [one].into());
        self.spec = self.spec.take().map(|spec| ServiceSpec {
            selector: spec.selector,
            publish_not_ready_addresses: spec.publish_not_ready_addresses,
            external_traffic_policy: spec.external_traffic_policy,
            internal_traffic_policy: spec.internal_traffic_policy,
            type_: spec.type_,
            ports: spec.ports.map(|ports| ports.into_iter().map(target_alone).collect()),
            ..ServiceSpec::default()
        });
    }
}

/// Where one of its ports leads.
fn target_alone(port: ServicePort) -> ServicePort {
    ServicePort { port: port.port, target_port: port.target_port, ..ServicePort::default() }
}

impl Lenient for PodDisruptionBudget {
    fn stand_in(metadata: ObjectMeta, _: &FieldError, raw: &str) -> Self {
        let selector = part(raw, &["spec", "selector"]);
        let spec = PodDisruptionBudgetSpec { selector, ..PodDisruptionBudgetSpec::default() };
        Self { metadata, spec: Some(spec), status: None }
    }

    fn slim(&mut self) {
        self.status = None;
        if !managed(&self.metadata) {
            strip(&mut self.metadata);
        }
    }
}

impl Lenient for Node {
    /// Not heard, as far as is known: its word on pods is not trusted.
    fn stand_in(metadata: ObjectMeta, _: &FieldError, _: &str) -> Self {
        Self { metadata, ..Self::default() }
    }

    fn slim(&mut self) {
        let conditions = self.status.take().and_then(|s| s.conditions);
        self.status = Some(NodeStatus { conditions, ..NodeStatus::default() });
        if let Some(annotations) = &mut self.metadata.annotations {
            annotations.retain(|key, _| key == names::KEEP);
        }
    }
}

/// A child of a GracefulApp of ours, or of somebody's who says so.
fn managed(metadata: &ObjectMeta) -> bool {
    metadata.annotations.as_ref().is_some_and(|a| a.contains_key(names::APP_UID))
}

fn strip(metadata: &mut ObjectMeta) {
    metadata.annotations = None;
    metadata.owner_references = None;
    metadata.labels = None;
}

impl<K: Resource<DynamicType = ()> + Clone> Resource for Decoded<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind(_: &()) -> Cow<'_, str> {
        Cow::Owned(K::kind(&()).into_owned())
    }

    fn group(_: &()) -> Cow<'_, str> {
        Cow::Owned(K::group(&()).into_owned())
    }

    fn version(_: &()) -> Cow<'_, str> {
        Cow::Owned(K::version(&()).into_owned())
    }

    fn plural(_: &()) -> Cow<'_, str> {
        Cow::Owned(K::plural(&()).into_owned())
    }

    fn meta(&self) -> &ObjectMeta {
        self.object.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        Arc::make_mut(&mut self.object).meta_mut()
    }
}

#[cfg(test)]
mod tests;
