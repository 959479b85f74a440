//! The managed Service and the PodDisruptionBudget: what is wanted, and whether that is what is there.

use graceful_api::{Validated, names};
use graceful_plan::Child;
use kube::Resource;
use serde::Serialize;
use serde_json::Value;

use crate::digest::digest;

/// A child as it should be.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// As it is applied, fingerprint included.
    pub(crate) object: Value,
    /// Of all but itself.
    pub(crate) fingerprint: String,
    /// The view shows one under its name.
    pub(crate) there: bool,
}

impl Wanted {
    pub(crate) fn new<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Self {
        // Serializing a k8s-openapi type to JSON cannot fail: its keys are strings.
        let mut object = serde_json::to_value(object).unwrap_or_default();
        object["apiVersion"] = Value::from(K::api_version(&()).into_owned());
        object["kind"] = Value::from(K::kind(&()).into_owned());
        let fingerprint = digest(object.to_string().as_bytes());
        object["metadata"]["annotations"][names::APPLIED] = Value::from(fingerprint.as_str());
        Self { object, fingerprint, there: false }
    }
}

/// What is there under the child's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// As the planner sees it, and what others have set on it that we leave alone.
    Ours(Child, Vec<String>),
    /// Something of somebody else's: never touched.
    Foreign,
}

/// Whether a child that is wanted is there, equal, and ours.
pub(crate) fn ownership<K: Resource + Serialize>(
    app_uid: &str,
    wanted: Option<&Wanted>,
    there: Option<&K>,
) -> Ownership {
    let Some(there) = there else {
        let child = if wanted.is_some() { Child::Outdated } else { Child::AsWanted };
        return Ownership::Ours(child, Vec::new());
    };
    if !is_of(there, app_uid) {
        return Ownership::Foreign;
    }
    let Some(wanted) = wanted else {
        return Ownership::Ours(Child::Unwanted, Vec::new());
    };
    let there = serde_json::to_value(there).unwrap_or_default();
    let child = if drift(&there, &wanted.object).is_empty() { Child::AsWanted } else { Child::Outdated };
    Ownership::Ours(child, additions(&there, &wanted.object))
}

/// Whether it carries this app's uid.
pub(crate) fn is_of<K: Resource>(there: &K, app_uid: &str) -> bool {
    let annotations = there.meta().annotations.as_ref();
    annotations.and_then(|a| a.get(names::APP_UID)).map(String::as_str) == Some(app_uid)
}

/// The fields of ours that are not as wanted. A selector must be equal: one more key in it selects fewer pods, in a Service perhaps none, and
/// in a budget leaves the others to be evicted. Of the rest more may be there than is wanted: the API server's defaults, or what others set.
pub(crate) fn drift(there: &Value, wanted: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (part, wanted) in wanted.as_object().into_iter().flatten() {
        // Objects from a list carry neither apiVersion nor kind.
        if part != "apiVersion" && part != "kind" {
            compare(part, &there[part], wanted, &mut found);
        }
    }
    if !wanted["spec"]["maxUnavailable"].is_null() && !there["spec"]["minAvailable"].is_null() {
        found.push("spec.minAvailable".to_owned()); // the API server takes one of the two
    }
    found
}

fn compare(path: &str, there: &Value, wanted: &Value, found: &mut Vec<String>) {
    match (there, wanted) {
        _ if path == "spec.selector" => {
            if bare(there) != bare(wanted) {
                found.push(path.to_owned());
            }
        }
        (Value::Array(there), Value::Array(wanted)) if path == "spec.ports" => {
            for port in wanted {
                let one = format!("{path} {}", port_words(port));
                let twin = there.iter().find(|p| port_words(p) == port_words(port));
                compare(&one, twin.unwrap_or(&Value::Null), port, found);
            }
        }
        (Value::Object(there), Value::Object(wanted)) => {
            for (key, wanted) in wanted.iter().filter(|(_, value)| !value.is_null()) {
                compare(&format!("{path}.{key}"), there.get(key).unwrap_or(&Value::Null), wanted, found);
            }
        }
        (there, wanted) if bare(there) == bare(wanted) => {}
        _ => found.push(path.to_owned()),
    }
}

/// Without what is null or empty: the API server drops these, or adds them.
fn bare(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().map(|(key, value)| (key.clone(), bare(value)));
            let kept: serde_json::Map<_, _> = kept.filter(|(_, value)| !value.is_null()).collect();
            if kept.is_empty() { Value::Null } else { Value::Object(kept) }
        }
        Value::Array(items) if items.is_empty() => Value::Null,
        other => other.clone(),
    }
}

/// What tells the ports of one Service apart.
fn port_words(port: &Value) -> String {
    format!("{}/{}", port["port"], port["protocol"].as_str().unwrap_or("TCP"))
}

/// Fields of a Service that say who is routed where, and the API server's defaults for them.
const ROUTING: [(&str, &str); 8] = [
    ("externalIPs", ""),
    ("externalTrafficPolicy", "Cluster"),
    ("internalTrafficPolicy", "Cluster"),
    ("loadBalancerSourceRanges", ""),
    ("publishNotReadyAddresses", "false"),
    ("sessionAffinity", "None"),
    ("trafficDistribution", ""),
    ("externalName", ""),
];

/// What others have set, of which clients may take notice. It is theirs, so it is left; a user who wonders should read of it. Labels,
/// annotations, and what a cloud's controllers write are nobody's surprise.
pub(crate) fn additions(there: &Value, wanted: &Value) -> Vec<String> {
    let spec = &there["spec"];
    let fields = ROUTING.iter().filter(|(field, default)| {
        let value = bare(&spec[*field]);
        let said = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        wanted["spec"][*field].is_null() && !value.is_null() && said != *default
    });
    let mut found: Vec<_> = fields.map(|(field, _)| format!("spec.{field}")).collect();
    found.extend(extra_ports(there, wanted).map(|port| format!("spec.ports {}", port_words(port))));
    found
}

/// Ports that are not of our making.
pub(crate) fn extra_ports<'a>(there: &'a Value, wanted: &'a Value) -> impl Iterator<Item = &'a Value> {
    let ports = |object: &'a Value| object["spec"]["ports"].as_array().into_iter().flatten();
    ports(there).filter(move |port| !ports(wanted).any(|ours| port_words(ours) == port_words(port)))
}

/// The app's Service, if it wants one.
pub(crate) fn service(app: &Validated) -> Option<Wanted> {
    graceful_api::children::service(app).as_ref().map(Wanted::new)
}

/// The app's PodDisruptionBudget, if it wants one.
pub(crate) fn budget(app: &Validated, all_marked: bool) -> Option<Wanted> {
    graceful_api::children::pdb(app, all_marked).as_ref().map(Wanted::new)
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

    fn compared(wanted: Option<&Wanted>, there: Option<&Service>) -> Ownership {
        ownership("u", wanted, there)
    }

    fn ours(child: Child) -> Ownership {
        Ownership::Ours(child, Vec::new())
    }

    /// Keeps P6.
    #[test]
    fn defaults_of_the_api_server_are_no_difference() {
        let wanted = Wanted::new(&service(&json!({"ports": [{"port": 80}], "selector": {"a": "b"}})));
        let found = there(&wanted, |s| {
            s["spec"]["ports"][0]["protocol"] = json!("TCP");
            s["spec"]["ports"][0]["nodePort"] = json!(31000);
            s["spec"]["clusterIP"] = json!("10.96.0.9");
            s["spec"]["internalTrafficPolicy"] = json!("Cluster");
            s["spec"]["externalTrafficPolicy"] = json!("Cluster");
            s["spec"]["sessionAffinity"] = json!("None");
            s["spec"]["publishNotReadyAddresses"] = json!(false);
            s["metadata"]["labels"] = json!({"theirs": "x"});
        });
        assert_eq!(compared(Some(&wanted), Some(&found)), ours(Child::AsWanted));
    }

    #[test]
    fn drift_and_a_field_taken_back_are_differences() {
        let wanted = Wanted::new(&service(&json!({"ports": [{"port": 80}]})));
        let drifted = there(&wanted, |s| s["spec"]["ports"][0]["port"] = json!(81));
        let Ownership::Ours(child, _) = compared(Some(&wanted), Some(&drifted)) else { panic!("foreign") };
        assert_eq!(child, Child::Outdated);
        let before = Wanted::new(&service(&json!({"ports": [{"port": 80}], "sessionAffinity": "ClientIP"})));
        let applied = there(&before, |_| ());
        let Ownership::Ours(child, _) = compared(Some(&wanted), Some(&applied)) else { panic!("foreign") };
        assert_eq!(child, Child::Outdated);
        assert_eq!(compared(None, Some(&applied)), ours(Child::Unwanted));
        assert_eq!(compared(Some(&wanted), None), ours(Child::Outdated));
        assert_eq!(compared(None, None), ours(Child::AsWanted));
    }

    /// Case 8: with one more key the Service had no endpoints, and the budget held nobody.
    #[test]
    fn a_selector_is_equal_or_it_is_drift() {
        let drifts = |wanted: &Value, there: &Value| drift(&json!({"spec": there}), &json!({"spec": wanted}));
        let selector = json!({"selector": {"app": "x"}});
        assert!(drifts(&selector, &selector).is_empty());
        assert_eq!(drifts(&selector, &json!({"selector": {"app": "x", "track": "blue"}})), ["spec.selector"]);
        assert_eq!(drifts(&selector, &json!({})), ["spec.selector"]);
        let budget = json!({"maxUnavailable": 0, "selector": {"matchLabels": {"app": "x"}}});
        let found = |edit: fn(&mut Value)| {
            let mut there = budget.clone();
            edit(&mut there);
            drifts(&budget, &there)
        };
        assert!(found(|b| b["selector"]["matchExpressions"] = json!([])).is_empty());
        assert_eq!(found(|b| b["selector"]["matchLabels"]["more"] = json!("y")), ["spec.selector"]);
        let more = json!([{"key": "a", "operator": "Exists"}]);
        assert_eq!(
            drifts(
                &budget,
                &json!({"maxUnavailable": 0, "selector": {"matchLabels": {"app": "x"}, "matchExpressions": more}})
            ),
            ["spec.selector"]
        );
        assert_eq!(
            drifts(&budget, &json!({"minAvailable": 0, "selector": {"matchLabels": {"app": "x"}}})),
            ["spec.maxUnavailable", "spec.minAvailable"]
        );
    }

    #[test]
    fn what_others_add_is_said_and_no_reason_to_write() {
        let wanted = Wanted::new(&service(&json!({"ports": [{"port": 80, "targetPort": "http"}]})));
        let found = there(&wanted, |s| {
            s["spec"]["ports"] = json!([{"port": 9999, "name": "x", "protocol": "UDP"},
                {"port": 80, "name": "y", "targetPort": "http", "protocol": "TCP"}]);
            s["spec"]["publishNotReadyAddresses"] = json!(true);
            s["spec"]["sessionAffinity"] = json!("ClientIP");
        });
        let said = ["spec.publishNotReadyAddresses", "spec.sessionAffinity", "spec.ports 9999/UDP"];
        let expected = Ownership::Ours(Child::AsWanted, said.map(str::to_owned).to_vec());
        assert_eq!(compared(Some(&wanted), Some(&found)), expected);
        let retargeted = there(&wanted, |s| s["spec"]["ports"][0]["targetPort"] = json!("admin"));
        assert_eq!(compared(Some(&wanted), Some(&retargeted)), ours(Child::Outdated));
    }

    #[test]
    fn what_is_another_s_is_foreign_whatever_it_says() {
        let wanted = Wanted::new(&service(&json!({"ports": [{"port": 80}]})));
        let other = there(&wanted, |s| s["metadata"]["annotations"][names::APP_UID] = json!("v"));
        assert_eq!(compared(Some(&wanted), Some(&other)), Ownership::Foreign);
        assert_eq!(compared(None, Some(&other)), Ownership::Foreign);
    }
}
