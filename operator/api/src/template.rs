//! The user's pod template, kept as the raw JSON it came as.
//!
//! A typed `PodTemplateSpec` would drop every field that this build does not know, and a newer Kubernetes has some.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A pod template as the user wrote it; unknown fields survive the round trip.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Template(pub Value);

impl Template {
    /// The few fields that the operator itself looks at.
    pub fn outline(&self) -> Result<Outline, serde_json::Error> {
        Outline::deserialize(&self.0)
    }
}

/// What the operator reads of a template. Not a whole `PodTemplateSpec`: that one fails on what Kubernetes takes (`cpu: 1`
/// without quotes, a shape from a newer version), and all the rest is Kubernetes' to judge. Nulls count as absent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Outline {
    /// The template's metadata.
    pub metadata: Option<OutlineMetadata>,
    /// The pod's spec.
    pub spec: Option<OutlinePod>,
}

/// A template's metadata.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct OutlineMetadata {
    /// Labels of the pods.
    pub labels: Option<BTreeMap<String, Option<String>>>,
    /// Annotations of the pods.
    pub annotations: Option<BTreeMap<String, Option<String>>>,
}

/// A pod's spec.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutlinePod {
    /// The containers.
    pub containers: Option<Vec<OutlineContainer>>,
    /// The init containers, native sidecars among them.
    pub init_containers: Option<Vec<OutlineContainer>>,
    /// Always, or absent.
    pub restart_policy: Option<String>,
    /// Whether the pod has its node's address.
    pub host_network: Option<bool>,
    /// The grace period, if given.
    pub termination_grace_period_seconds: Option<i64>,
}

impl OutlinePod {
    /// The containers that run for the pod's whole life: the main ones, then the native sidecars.
    pub fn lasting_containers(&self) -> impl Iterator<Item = &OutlineContainer> {
        let sidecars = self.init_containers.iter().flatten();
        let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
        self.containers.iter().flatten().chain(sidecars)
    }
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutlineContainer {
    /// Its name.
    pub name: String,
    /// Always makes an init container a native sidecar.
    pub restart_policy: Option<String>,
    /// The ports it declares.
    pub ports: Option<Vec<OutlinePort>>,
}

/// A container's port.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutlinePort {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its number.
    pub container_port: i32,
    /// A port of the node that leads to it.
    pub host_port: Option<i32>,
    /// TCP, where it is not given.
    pub protocol: Option<String>,
}

impl From<PodTemplateSpec> for Template {
    fn from(typed: PodTemplateSpec) -> Self {
        // Serializing a k8s-openapi type to JSON cannot fail: its keys are strings.
        Self(serde_json::to_value(typed).unwrap_or_default())
    }
}

impl JsonSchema for Template {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        PodTemplateSpec::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        // Not as a reference: it would have our own name, and count as a recursion.
        PodTemplateSpec::json_schema(generator)
    }
}
