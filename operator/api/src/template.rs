//! The user's pod template, kept as the raw JSON it came as.
//!
//! A typed `PodTemplateSpec` would drop every field that this build does not know, and a newer Kubernetes has some.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A pod template as the user wrote it; unknown fields survive the round trip.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Template(pub Value);

impl Template {
    /// The known fields, typed. Nulls count as absent, as they do for Kubernetes.
    pub fn typed(&self) -> Result<PodTemplateSpec, serde_json::Error> {
        serde_json::from_value(without_nulls(&self.0))
    }
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
        generator.subschema_for::<PodTemplateSpec>()
    }
}

/// The same JSON without members that are null. Nulls inside lists stay: dropping them would shift their neighbours.
pub(crate) fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), without_nulls(v))).collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}
