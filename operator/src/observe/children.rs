//! The managed Service and the PodDisruptionBudget: what is wanted, and whether that is what is there.

use graceful_api::{Validated, names};
use graceful_plan::Child;
use kube::Resource;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// A child as it should be.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// As it is applied, fingerprint included.
    pub(crate) object: Value,
    /// Of all but itself.
    pub(crate) fingerprint: String,
}

impl Wanted {
    pub(crate) fn new<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Self {
        // Serializing a k8s-openapi type to JSON cannot fail: its keys are strings.
        let mut object = serde_json::to_value(object).unwrap_or_default();
        object["apiVersion"] = Value::from(K::api_version(&()).into_owned());
        object["kind"] = Value::from(K::kind(&()).into_owned());
        let digest = Sha256::digest(object.to_string().as_bytes());
        let fingerprint: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        object["metadata"]["annotations"][names::APPLIED] = Value::from(fingerprint.as_str());
        Self { object, fingerprint }
    }
}

/// What is there under the child's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// As the planner sees it.
    Ours(Child),
    /// Something of somebody else's: never touched.
    Foreign,
}

/// Compares.
pub(crate) fn standing<K: Resource + Serialize>(
    app_uid: &str,
    wanted: Option<&Wanted>,
    there: Option<&K>,
) -> Standing {
    let Some(there) = there else {
        return Standing::Ours(if wanted.is_some() { Child::Outdated } else { Child::AsWanted });
    };
    let annotations = there.meta().annotations.as_ref();
    if annotations.and_then(|a| a.get(names::APP_UID)).map(String::as_str) != Some(app_uid) {
        return Standing::Foreign;
    }
    Standing::Ours(match wanted {
        None => Child::Unwanted,
        // The fingerprint is an annotation of `object`, so that the comparison includes it.
        Some(wanted)
            if covers(&serde_json::to_value(there).unwrap_or_default(), &comparable(&wanted.object)) =>
        {
            Child::AsWanted
        }
        Some(_) => Child::Outdated,
    })
}

/// Objects from a list carry neither apiVersion nor kind.
fn comparable(wanted: &Value) -> Value {
    let mut wanted = wanted.clone();
    if let Some(fields) = wanted.as_object_mut() {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    wanted
}

/// Whether all that is wanted is there. More may be: the API server fills in defaults.
fn covers(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => wanted
            .iter()
            .filter(|(_, value)| !value.is_null())
            .all(|(key, value)| there.get(key).is_some_and(|found| covers(found, value))),
        (Value::Array(there), Value::Array(wanted)) => {
            there.len() == wanted.len()
                && there.iter().zip(wanted).all(|(there, wanted)| covers(there, wanted))
        }
        (there, wanted) => there == wanted,
    }
}

/// The app's Service, if it wants one.
pub(crate) fn service(app: &Validated) -> Option<Wanted> {
    graceful_api::children::service(app).as_ref().map(Wanted::new)
}

/// The app's PodDisruptionBudget, if it wants one.
pub(crate) fn budget(app: &Validated) -> Option<Wanted> {
    graceful_api::children::pdb(app).as_ref().map(Wanted::new)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use serde_json::json;

    use super::*;

    fn service(spec: &Value) -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": "tasks", "annotations": {(names::APP_UID): "u"}}, "spec": spec,
        }))
        .unwrap()
    }

    fn there(wanted: &Wanted, edit: impl FnOnce(&mut Value)) -> Service {
        let mut object = wanted.object.clone();
        edit(&mut object);
        serde_json::from_value(object).unwrap()
    }

    fn compared(wanted: Option<&Wanted>, there: Option<&Service>) -> Standing {
        standing("u", wanted, there)
    }

    #[test]
    fn defaults_of_the_api_server_are_no_difference() {
        let wanted = Wanted::new(&service(&json!({"ports": [{"port": 80}]})));
        let found = there(&wanted, |s| {
            s["spec"]["ports"][0]["protocol"] = json!("TCP");
            s["spec"]["clusterIP"] = json!("10.96.0.9");
        });
        assert_eq!(compared(Some(&wanted), Some(&found)), Standing::Ours(Child::AsWanted));
    }

    #[test]
    fn drift_and_a_field_taken_back_are_differences() {
        let wanted = Wanted::new(&service(&json!({"ports": [{"port": 80}]})));
        let drifted = there(&wanted, |s| s["spec"]["ports"][0]["port"] = json!(81));
        assert_eq!(compared(Some(&wanted), Some(&drifted)), Standing::Ours(Child::Outdated));
        let before = Wanted::new(&service(&json!({"ports": [{"port": 80}], "sessionAffinity": "ClientIP"})));
        let applied = there(&before, |_| ());
        assert_eq!(compared(Some(&wanted), Some(&applied)), Standing::Ours(Child::Outdated));
        assert_eq!(compared(None, Some(&applied)), Standing::Ours(Child::Unwanted));
        assert_eq!(compared(Some(&wanted), None), Standing::Ours(Child::Outdated));
        assert_eq!(compared(None, None), Standing::Ours(Child::AsWanted));
    }

    #[test]
    fn what_is_another_s_is_foreign_whatever_it_says() {
        let wanted = Wanted::new(&service(&json!({"ports": [{"port": 80}]})));
        let other = there(&wanted, |s| s["metadata"]["annotations"][names::APP_UID] = json!("v"));
        assert_eq!(compared(Some(&wanted), Some(&other)), Standing::Foreign);
        assert_eq!(compared(None, Some(&other)), Standing::Foreign);
    }
}
