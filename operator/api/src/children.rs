//! What the operator creates for an app: a Deployment per revision, the Service and the PodDisruptionBudget.
//!
//! Pure builders. None carries an ownerReference: with a foreground deletion the garbage collector would kill owned pods
//! at once, whatever our finalizer says. They are found by label and by the app's uid, and the finalizer removes them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use crate::inject::{self, Given};
use crate::marks;
use crate::names;
use crate::spec::{Disruption, ServiceTemplate, ServiceType};
use crate::validated::Validated;

/// The Deployment of the app's own revision. Raw JSON, since a typed one would drop fields that we don't know.
///
/// Its template is written once and never changes, so that the Deployment controller never rolls anything: the strategy
/// only says what would happen if somebody got past the admission policy (one pod at a time).
///
/// `given`: see [`inject::pod_template`].
pub fn deployment(app: &Validated, replicas: u32, given: &Given<'_>) -> Value {
    let selector = BTreeMap::from([
        (names::APP_LABEL, app.name.as_str()),
        (names::REVISION_LABEL, app.revision.as_str()),
    ]);
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": names::deployment_name(&app.name, app.revision.as_str()),
            "namespace": app.namespace,
            "labels": {
                (names::APP_LABEL): app.name,
                (names::REVISION_LABEL): app.revision,
                (MANAGED_BY): names::FIELD_MANAGER,
            },
            "annotations": {
                (names::APP_UID): app.uid,
                (names::POLICY): app.policy.to_annotation(),
                (names::PROVEN): names::PROVEN_FALSE,
            },
        },
        "spec": {
            "replicas": replicas,
            "minReadySeconds": app.min_ready_seconds,
            "progressDeadlineSeconds": app.progress_deadline_seconds,
            "revisionHistoryLimit": 0,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": selector},
            "template": inject::pod_template(app, given),
        },
    })
}

/// The Service over the serving pods, if the app wants one.
pub fn service(app: &Validated) -> Option<Service> {
    let ServiceTemplate {
        type_,
        ports,
        annotations,
        external_traffic_policy,
        session_affinity,
        load_balancer_class,
    } = app.service.clone()?;
    let kind = match type_ {
        ServiceType::ClusterIP => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
    };
    // Written out, since it is ours: left to the API server's default, a targetPort that somebody else sets would stay.
    let ports = ports.into_iter().map(|port| ServicePort {
        target_port: Some(port.target_port.unwrap_or(IntOrString::Int(port.port))),
        ..port
    });
    let mut selector = pod_labels(app);
    selector.insert(names::SERVING_LABEL.to_owned(), names::SERVING.to_owned());
    let mut metadata = metadata(app, names::service_name(&app.name));
    metadata.annotations.get_or_insert_default().extend(annotations.unwrap_or_default());
    Some(Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(kind.to_owned()),
            ports: Some(ports.collect()),
            selector: Some(selector),
            external_traffic_policy,
            session_affinity,
            load_balancer_class,
            ..ServiceSpec::default()
        }),
        status: None,
    })
}

/// The budget that makes evictions wait for the operator, unless the app allows them. Unready pods are held as well:
/// one may be busy. `all_marked`: each pod says whether it is busy, so that those alone can be held that are.
pub fn pdb(app: &Validated, all_marked: bool) -> Option<PodDisruptionBudget> {
    let mut held = pod_labels(app);
    if app.disruption == Disruption::HoldWhileBusy && all_marked {
        held.insert(marks::BUSY_LABEL.to_owned(), marks::BUSY.to_owned());
    }
    match app.disruption {
        Disruption::Allow => None,
        Disruption::Hold | Disruption::HoldWhileBusy => Some(PodDisruptionBudget {
            metadata: metadata(app, names::pdb_name(&app.name)),
            spec: Some(PodDisruptionBudgetSpec {
                max_unavailable: Some(IntOrString::Int(0)),
                // The default, written out: with AlwaysAllow, set by somebody else, unready pods could be evicted.
                unhealthy_pod_eviction_policy: Some("IfHealthyBudget".to_owned()),
                selector: Some(LabelSelector { match_labels: Some(held), ..LabelSelector::default() }),
                ..PodDisruptionBudgetSpec::default()
            }),
            status: None,
        }),
    }
}

/// Kubernetes' recommended label: who keeps an object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// What all pods of the app carry, serving or not.
fn pod_labels(app: &Validated) -> BTreeMap<String, String> {
    BTreeMap::from([(names::APP_LABEL.to_owned(), app.name.clone())])
}

fn metadata(app: &Validated, name: String) -> ObjectMeta {
    let mut labels = pod_labels(app);
    labels.insert(MANAGED_BY.to_owned(), names::FIELD_MANAGER.to_owned());
    ObjectMeta {
        name: Some(name),
        namespace: Some(app.namespace.clone()),
        labels: Some(labels),
        annotations: Some(BTreeMap::from([(names::APP_UID.to_owned(), app.uid.clone())])),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::GracefulApp;

    fn tasks(spec: &Value) -> Validated {
        let app: GracefulApp = serde_json::from_value(json!({
            "apiVersion": "graceful.dev/v1alpha1", "kind": "GracefulApp",
            "metadata": {"name": "tasks", "namespace": "apps", "uid": "u1"}, "spec": spec,
        }))
        .unwrap();
        Validated::try_from(&app).unwrap()
    }

    fn spec() -> Value {
        json!({
            "replicas": 3,
            "template": {"spec": {"containers": [
                {"name": "s", "image": "x", "ports": [{"name": "admin", "containerPort": 9808}]},
            ]}},
            "service": {"type": "NodePort", "annotations": {"a": "b"},
                "ports": [{"name": "http", "port": 80, "targetPort": "http", "nodePort": 30000}]},
        })
    }

    /// Keeps P1.
    #[test]
    fn no_child_is_owned_so_that_no_garbage_collector_kills_a_busy_pod() {
        let app = tasks(&spec());
        let children = [
            deployment(&app, 3, &Given::default()),
            serde_json::to_value(service(&app)).unwrap(),
            serde_json::to_value(pdb(&app, true)).unwrap(),
        ];
        for child in children {
            assert_eq!(child["metadata"].get("ownerReferences"), None);
            assert_eq!(child["metadata"]["annotations"][names::APP_UID], "u1");
            assert_eq!(child["metadata"]["labels"][names::APP_LABEL], "tasks");
            assert_eq!(child["metadata"]["namespace"], "apps");
        }
    }

    #[test]
    fn a_deployment_selects_its_revision_whether_serving_or_not() {
        let app = tasks(&spec());
        let deployment = deployment(&app, 2, &Given::default());
        assert_eq!(deployment["metadata"]["name"], format!("tasks-{}", app.revision));
        assert_eq!(deployment["spec"]["replicas"], 2);
        assert_eq!(
            deployment["spec"]["selector"],
            json!({"matchLabels": {"graceful.dev/app": "tasks", "graceful.dev/revision": app.revision}})
        );
        let annotation = deployment["metadata"]["annotations"][names::POLICY].as_str().unwrap();
        assert_eq!(crate::Policy::from_annotation(annotation).unwrap(), app.policy);
    }

    #[test]
    fn the_service_routes_to_serving_pods_only() {
        let service = service(&tasks(&spec())).unwrap();
        assert_eq!(
            serde_json::to_value(&service).unwrap(),
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {
                    "name": "tasks", "namespace": "apps",
                    "labels": {"graceful.dev/app": "tasks", "app.kubernetes.io/managed-by": "graceful-operator"},
                    "annotations": {"graceful.dev/app-uid": "u1", "a": "b"},
                },
                "spec": {
                    "type": "NodePort",
                    "selector": {"graceful.dev/app": "tasks", "graceful.dev/serving": "true"},
                    "ports": [{"name": "http", "port": 80, "targetPort": "http", "nodePort": 30000}],
                },
            })
        );
    }

    #[test]
    fn the_budget_holds_all_pods_unless_disruption_is_allowed() {
        let mut spec = spec();
        let held = serde_json::to_value(pdb(&tasks(&spec), true).unwrap()).unwrap();
        assert_eq!(
            held["spec"],
            json!({"maxUnavailable": 0, "unhealthyPodEvictionPolicy": "IfHealthyBudget",
                "selector": {"matchLabels": {"graceful.dev/app": "tasks"}}})
        );
        spec["disruption"] = json!("HoldWhileBusy");
        let selector = |all_marked| {
            pdb(&tasks(&spec), all_marked).unwrap().spec.unwrap().selector.unwrap().match_labels.unwrap()
        };
        assert_eq!(selector(true)["graceful.dev/busy"], "true");
        assert!(!selector(false).contains_key("graceful.dev/busy"), "a pod without a mark may be busy");
        spec["disruption"] = json!("Allow");
        assert_eq!(pdb(&tasks(&spec), true), None);
    }
}
