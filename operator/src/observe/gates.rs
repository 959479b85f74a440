//! What gates are made of, and what stands around gated pods: ways past their gates, and hooks that do not wait for them.

use std::collections::BTreeSet;

use graceful_api::conditions::Reason;
use graceful_api::{Validated, inject, names};
use graceful_plan::{Bypass, Warning};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::revisions::Ours;
use super::surroundings::{Labels, leads_to};
use super::view::View;

/// The image of the gates that new revisions' pods get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateImage {
    /// Its name, as a container has it.
    pub image: String,
    /// When it is pulled: `Always`, `IfNotPresent` or `Never`. None: Kubernetes' default.
    pub pull_policy: Option<String>,
}

/// Services, the app's own among them, that lead to a gated app's number: of the spec, and of revisions whose pods are still there.
pub(super) fn bypasses(app: &Validated, view: &View, ours: &[Ours], pods: &BTreeSet<Labels>) -> Vec<Bypass> {
    let to_come = app.gate.iter().map(|gate| (gate.port.as_str(), i32::from(gate.app_port)));
    let with_pods = ours.iter().filter(|o| o.object.spec.replicas != Some(0));
    let gated: BTreeSet<_> =
        to_come.chain(with_pods.filter_map(|o| inject::gated_port(&o.object.spec.template))).collect();
    if gated.is_empty() {
        return Vec::new();
    }
    let services = view.services.iter().filter(|service| leads_to(service, pods));
    services.flat_map(|service| past(app, service, &gated)).collect()
}

fn past(app: &Validated, service: &Service, gated: &BTreeSet<(&str, i32)>) -> Vec<Bypass> {
    let managed = service.annotations().get(names::APP_UID) == Some(&app.uid);
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()).enumerate();
    let numbered = ports.filter_map(|(n, port)| match &port.target_port {
        None => Some((n, port.port)),
        Some(IntOrString::Int(number)) => Some((n, *number)),
        Some(IntOrString::String(_)) => None,
    });
    numbered
        .filter_map(|(port_index, port_number)| {
            let (name, _) = gated.iter().find(|(_, app)| *app == port_number)?;
            Some(Bypass {
                service: service.name_any(),
                managed,
                port_index,
                port_number,
                name: (*name).to_owned(),
            })
        })
        .collect()
}

/// A container with a hook of its own gets SIGTERM once that is done, whatever the gate still has for it.
pub(super) fn hooks(app: &Validated) -> Option<Warning> {
    let gate = app.gate.as_ref()?;
    let containers = app.template.0["spec"]["containers"].as_array().into_iter().flatten();
    let own = containers.filter(|container| !container["lifecycle"]["preStop"].is_null());
    let own: Vec<_> = own.filter_map(|container| container["name"].as_str()).collect();
    let first = own.first()?;
    let others = if own.len() > 1 { format!(" (and {} more)", own.len() - 1) } else { String::new() };
    let message = format!(
        "container {first}{others} has a preStop hook of its own, so that a pod that others delete ends it while the gate still has requests for it; remove the hook, \
         or let it end with `wget -qO- http://127.0.0.1:{}/wait-idle`, which answers once there is nothing left",
        gate.admin_port
    );
    Some(Warning { reason: Reason::HookBesideGate, message })
}

#[cfg(test)]
mod tests {
    use graceful_api::GracefulApp;
    use serde_json::{Value, json};

    use super::*;

    fn app(edit: impl Fn(&mut Value)) -> Validated {
        let mut spec = json!({
            "gate": {"port": "http"},
            "template": {"spec": {"containers": [
                {"name": "web", "image": "x", "ports": [{"name": "http", "containerPort": 8000}]}]}},
        });
        edit(&mut spec);
        let app: GracefulApp = serde_json::from_value(json!({
            "apiVersion": "graceful.dev/v1alpha1", "kind": "GracefulApp",
            "metadata": {"name": "tasks", "namespace": "apps", "uid": "u"}, "spec": spec,
        }))
        .unwrap();
        Validated::try_from(&app).unwrap()
    }

    /// Keeps P1.
    #[test]
    fn a_service_that_leads_to_the_apps_own_number_goes_past_the_gate() {
        let found = |ports: Value| {
            let service: Service = serde_json::from_value(json!({
                "metadata": {"name": "front"}, "spec": {"selector": {"a": "b"}, "ports": ports},
            }))
            .unwrap();
            past(&app(|_| ()), &service, &[("http", 8000)].into())
        };
        let bypass = |port_index| {
            let (service, name) = ("front".to_owned(), "http".to_owned());
            Bypass { service, managed: false, port_index, port_number: 8000, name }
        };
        assert_eq!(found(json!([{"port": 80, "targetPort": "http"}, {"port": 81, "targetPort": 9100}])), []);
        assert_eq!(found(json!([{"port": 80, "targetPort": "http"}, {"port": 8000}])), [bypass(1)]);
        assert_eq!(found(json!([{"port": 80, "targetPort": 8000}])), [bypass(0)]);
    }

    #[test]
    fn a_hook_of_the_apps_own_is_warned_of_beside_a_gate_alone() {
        let hook = |spec: &mut Value| {
            spec["template"]["spec"]["containers"][0]["lifecycle"] =
                json!({"preStop": {"sleep": {"seconds": 1}}});
        };
        let said = hooks(&app(hook)).unwrap();
        assert_eq!(said.reason, Reason::HookBesideGate);
        assert!(
            said.message.contains("container web has") && said.message.contains(":9808/wait-idle"),
            "{}",
            said.message
        );
        assert_eq!(hooks(&app(|_| ())), None);
        let ungated = |spec: &mut Value| {
            hook(spec);
            spec["gate"] = Value::Null;
            spec["inFlight"] = json!({"port": "http"});
        };
        assert_eq!(hooks(&app(ungated)), None);
    }
}
