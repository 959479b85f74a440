//! Whether the NetworkPolicies over gated pods let anybody in to the gate. Read live, of apps with a gate and rarely: what is found is a warning, and no watch holds
//! the policies of a whole cluster for it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use graceful_api::conditions::Reason;
use graceful_api::{Gated, Validated};
use graceful_plan::Warning;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ListParams;
use kube::core::{Selector, SelectorExt};
use kube::{Api, Client, ResourceExt};
use tracing::warn;

use super::surroundings::Labels;
use crate::error::{call, chain};

/// How long what was read is taken to hold. A rollout takes longer, and a person who mends a policy looks again within that time.
const HOLDS: Duration = Duration::from_secs(60);
/// Namespaces have a handful; of more than these the rest is not looked at.
const MOST: u32 = 500;

/// What was read last for one app.
#[derive(Debug, Default)]
pub(super) struct Policies {
    read: Option<Instant>,
    found: Vec<NetworkPolicy>,
    /// The log has said that they cannot be read.
    refused: bool,
}

impl Policies {
    /// Reads them again where it is time; nothing where the app has no gate.
    pub(super) async fn update(&mut self, client: &Client, app: &Validated) {
        if app.gate.is_none() || self.read.is_some_and(|at| at.elapsed() < HOLDS) {
            return;
        }
        self.read = Some(Instant::now());
        let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), &app.namespace);
        match call("list NetworkPolicies", api.list(&ListParams::default().limit(MOST))).await {
            Ok(list) => (self.found, self.refused) = (list.items, false),
            // What was known stays. Without the right to read them the app is rolled out all the same.
            Err(error) if !std::mem::replace(&mut self.refused, true) => {
                warn!(
                    namespace = app.namespace,
                    "whether NetworkPolicies let clients in to gates is not known: {}",
                    chain(&error)
                );
            }
            Err(_) => {}
        }
    }

    /// One that covers these pods, where none of those that do lets anybody in to the gate.
    pub(super) fn warning(&self, app: &Validated, pods: &BTreeSet<Labels>) -> Option<Warning> {
        let gate = app.gate.as_ref()?;
        let over: Vec<_> = self.found.iter().filter(|policy| is_over(policy, pods)).collect();
        let first = over.first()?.name_any();
        let shut = |port: u16| !over.iter().any(|policy| lets_in(policy, gate, port));
        let who = match (shut(gate.listen_port), shut(gate.admin_port)) {
            (false, false) => return None,
            (true, false) => {
                format!("nobody in to port {}, where the gate listens for clients", gate.listen_port)
            }
            (false, true) => {
                format!("nobody in to port {}, where the operator asks the gate", gate.admin_port)
            }
            (true, true) => format!(
                "nobody in to ports {} and {}, where the gate listens for clients and for the operator",
                gate.listen_port, gate.admin_port
            ),
        };
        let message = format!(
            "NetworkPolicy {first} covers this app's pods and lets {who}: allow {} from where clients come to {} now, and {} from the operator's namespace",
            gate.listen_port, gate.app_port, gate.admin_port
        );
        Some(Warning { reason: Reason::GateShutOff, message })
    }
}

/// Whether the policy decides what comes in to these pods.
fn is_over(policy: &NetworkPolicy, pods: &BTreeSet<Labels>) -> bool {
    let Some(spec) = &policy.spec else { return false };
    // Kubernetes fills it in: Ingress is in it wherever it is not given.
    let ingress = spec.policy_types.as_ref().is_none_or(|types| types.iter().any(|kind| kind == "Ingress"));
    let selector = Selector::try_from(spec.pod_selector.clone().unwrap_or_default()).ok();
    ingress && selector.is_some_and(|selector| pods.iter().any(|labels| selector.matches(labels)))
}

/// From wherever: whether that is where clients and the operator are, only they know.
fn lets_in(policy: &NetworkPolicy, gate: &Gated, port: u16) -> bool {
    let rules = policy.spec.iter().flat_map(|spec| spec.ingress.iter().flatten());
    let mut ports = rules.map(|rule| rule.ports.as_deref().unwrap_or_default());
    ports.any(|ports| ports.is_empty() || ports.iter().any(|one| is_it(one, gate, port)))
}

fn is_it(one: &NetworkPolicyPort, gate: &Gated, port: u16) -> bool {
    let tcp = one.protocol.as_deref().unwrap_or("TCP") == "TCP";
    let port = i32::from(port);
    tcp && match &one.port {
        None => true,
        Some(IntOrString::Int(from)) => (*from..=one.end_port.unwrap_or(*from)).contains(&port),
        // A name is looked up in each pod: in one with a gate it is the gate's.
        Some(IntOrString::String(name)) => {
            (*name == gate.port && port == i32::from(gate.listen_port))
                || (name == graceful_api::gated::ADMIN_PORT_NAME && port == i32::from(gate.admin_port))
        }
    }
}

#[cfg(test)]
mod tests {
    use graceful_api::GracefulApp;
    use serde_json::{Value, json};

    use super::*;

    fn app() -> Validated {
        let app: GracefulApp = serde_json::from_value(json!({
            "apiVersion": "graceful.dev/v1alpha1", "kind": "GracefulApp",
            "metadata": {"name": "tasks", "namespace": "apps", "uid": "u"},
            "spec": {"gate": {"port": "http"}, "template": {"spec": {"containers": [
                {"name": "web", "image": "x", "ports": [{"name": "http", "containerPort": 8000}]}]}}},
        }))
        .unwrap();
        Validated::try_from(&app).unwrap()
    }

    fn said(specs: &[Value]) -> Option<String> {
        let policy = |(n, spec): (usize, &Value)| {
            serde_json::from_value(json!({"metadata": {"name": format!("policy-{n}")}, "spec": spec}))
                .unwrap()
        };
        let policies =
            Policies { found: specs.iter().enumerate().map(policy).collect(), ..Policies::default() };
        let labels = [("app".to_owned(), "web".to_owned())].into();
        policies.warning(&app(), &[labels].into()).map(|warning| warning.message)
    }

    #[test]
    fn a_policy_that_lets_nobody_in_to_the_gate_is_named_with_what_to_allow() {
        let web = json!({"matchLabels": {"app": "web"}});
        let open = |ports: Value| json!({"podSelector": web, "ingress": [{"ports": ports}]});
        assert_eq!(said(&[]), None, "without a policy all is let in");
        let app_alone = said(&[open(json!([{"port": 8000}]))]).unwrap();
        assert!(
            app_alone.starts_with(
                "NetworkPolicy policy-0 covers this app's pods and lets nobody in to ports 9809 and 9808"
            ),
            "{app_alone}"
        );
        let clients_alone = said(&[open(json!([{"port": 8000}, {"port": 9809}]))]).unwrap();
        assert!(clients_alone.contains("nobody in to port 9808, where the operator"), "{clients_alone}");
        for all in [
            json!([{"port": 9809}, {"port": 9808}]),
            json!([{"port": 9000, "endPort": 9999}]),
            json!([{"port": "http"}, {"port": "graceful-admin"}]),
            json!([{}]),
            json!([]),
        ] {
            assert_eq!(said(&[open(all.clone())]), None, "{all}");
        }
        assert!(said(&[open(json!([{"port": 9809, "protocol": "UDP"}, {"port": 9808}]))]).is_some());
    }

    #[test]
    fn policies_add_up_and_those_over_others_or_on_the_way_out_do_not_count() {
        let denies_all = json!({"podSelector": {}});
        assert!(said(std::slice::from_ref(&denies_all)).is_some());
        let gate = json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"ports": [{"port": 9809}, {"port": 9808}]}]});
        assert_eq!(said(&[denies_all, gate]), None);
        assert_eq!(said(&[json!({"podSelector": {"matchLabels": {"app": "other"}}})]), None);
        assert_eq!(said(&[json!({"podSelector": {}, "policyTypes": ["Egress"]})]), None);
    }
}
