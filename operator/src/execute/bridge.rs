//! Behind a Service with a traffic policy `Local`, external or internal, a node answers only with pods of its own. A pod whose serving label goes would be gone from
//! there at once, though clients (a load balancer) learn of it seconds later. So it gets an EndpointSlice of ours first.
//!
//! # Flow
//! annotation that names the slices → the slices → the serving label goes → … → latched, or put back → the slices go → the annotation goes.
//!
//! # Guarantees
//! The slice says ready false, serving true, terminating true, as of a pod that is being deleted: kube-proxy falls back to it where no ready endpoint
//! is left on the node, and nowhere else. It is owned by its pod, so that a dead operator leaves no address behind that another pod may get.

use graceful_api::names;
use graceful_plan::PodRef;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{CHANGED, Outcome, Scene, pods};
use crate::error::{Error, call, chain};
use crate::merge::Mode;
use crate::observe::{condition, selects};
use crate::unseen_writes::Kind;

/// Before a pod is unrouted. Gives the resourceVersion that the pod has after it.
pub(super) async fn begin(
    scene: &mut Scene<'_>,
    pod: &PodRef,
    version: &str,
) -> Result<Result<String, Outcome>, Error> {
    let services = scene.seen.local_services.clone();
    if services.is_empty() {
        return Ok(Ok(version.to_owned()));
    }
    let Some(object) = call("read a pod", scene.api::<Pod>().get_opt(&pod.name)).await? else {
        return Ok(Err(CHANGED));
    };
    // No endpoint says that it serves where the pod itself does not: a spare that is taken back would get clients, and be killed with their work.
    if object.metadata.deletion_timestamp.is_some()
        || condition(object.status.as_ref(), "Ready").is_none_or(|ready| ready.status != "True")
    {
        return Ok(Ok(version.to_owned()));
    }
    let mut slices = Vec::new();
    for name in &services {
        match call("read a Service", scene.api::<Service>().get_opt(name)).await {
            Ok(service) => {
                // Another of the app's pods may be all that it selects.
                let its = service.iter().filter(|service| selects(service, object.labels()));
                slices.extend(its.flat_map(|service| slices_of(&object, service)));
            }
            // The pod goes on to drain, as below.
            Err(error) => tracing::warn!(
                pod = pod.name,
                service = name,
                "clients of this Service may be refused while the pod drains: {}",
                chain(&error)
            ),
        }
    }
    if slices.is_empty() {
        return Ok(Ok(version.to_owned()));
    }
    let named: Vec<_> = slices.iter().filter_map(|s| s["metadata"]["name"].as_str()).collect();
    let annotation = json!({(names::LINGERING): named.join(",")});
    let version = match pods::write(scene, pod, Some(version), &json!({}), &annotation, Mode::Real).await {
        Ok(written) => {
            scene.writes.unseen_writes.record(Kind::Pod, &written);
            written.resource_version().unwrap_or_default()
        }
        Err(error) if error.not_found() || error.conflict() => return Ok(Err(CHANGED)),
        Err(error) => return pods::refused(scene, pod, "changed", error).map(Err),
    };
    let params = PatchParams::apply(names::FIELD_MANAGER).force();
    let api = scene.api::<EndpointSlice>();
    for slice in &slices {
        let name = slice["metadata"]["name"].as_str().unwrap_or_default();
        let patch = Patch::Apply(slice);
        match call("apply an EndpointSlice", api.patch(name, &params, &patch)).await {
            Ok(_) => {}
            // The pod goes on to drain: a shorter linger is no reason to hold it.
            Err(error) => {
                tracing::warn!(
                    pod = pod.name,
                    "cannot keep the pod reachable on its node while it lingers: {}",
                    chain(&error)
                );
            }
        }
    }
    Ok(Ok(version))
}

/// Removes what [`begin`] made.
pub(super) async fn end(scene: &mut Scene<'_>, pod: &PodRef) -> Result<Outcome, Error> {
    let Some(version) = scene.seen.versions.get(&pod.uid).cloned() else {
        return Ok(CHANGED);
    };
    let (api, params) = (scene.api::<EndpointSlice>(), DeleteParams::default());
    let its_own = |name: &&String| name.strip_prefix(&pod.name).is_some_and(|rest| rest.starts_with('-'));
    for name in scene.seen.bridges.get(&pod.uid).into_iter().flatten().filter(its_own) {
        match call("remove an EndpointSlice", api.delete(name, &params)).await {
            Ok(_) => {}
            Err(error) if error.not_found() => {}
            // It goes with its pod: no reason to hold that.
            Err(error) => tracing::warn!(pod = pod.name, "{}", chain(&error)),
        }
    }
    let annotation = json!({(names::LINGERING): null});
    match pods::write(scene, pod, Some(&version), &json!({}), &annotation, Mode::Real).await {
        Ok(written) => {
            scene.writes.unseen_writes.record(Kind::Pod, &written);
            Ok(Outcome::Done)
        }
        Err(error) if error.not_found() || error.conflict() => Ok(CHANGED),
        Err(error) => pods::refused(scene, pod, "changed", error),
    }
}

/// One for each address family of the pod.
fn slices_of(pod: &Pod, service: &Service) -> Vec<Value> {
    let status = pod.status.as_ref();
    let many = status.iter().flat_map(|s| s.pod_ips.iter().flatten()).map(|ip| ip.ip.as_str());
    let one = status.and_then(|s| s.pod_ip.as_deref());
    let mut addresses: Vec<_> = many.chain(one).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let node = pod.spec.as_ref().and_then(|s| s.node_name.clone());
    let family = |address: &str| if address.contains(':') { "IPv6" } else { "IPv4" };
    let (pod_name, service_name) = (pod.name_any(), service.name_any());
    let slice = |address: &str| {
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{pod_name}-{service_name}-{}", family(address).to_lowercase()),
                "labels": {
                    (names::SLICE_SERVICE): service_name,
                    (names::SLICE_MANAGER): names::GROUP,
                },
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Pod", "name": pod_name, "uid": pod.metadata.uid},
                ],
            },
            "addressType": family(address),
            "endpoints": [{
                "addresses": [address],
                "conditions": {"ready": false, "serving": true, "terminating": true},
                "nodeName": node,
                "targetRef": {"kind": "Pod", "namespace": pod.namespace(), "name": pod_name, "uid": pod.metadata.uid},
            }],
            "ports": ports(pod, service),
        })
    };
    addresses.into_iter().map(slice).collect()
}

/// The Service's ports as numbers of this pod.
fn ports(pod: &Pod, service: &Service) -> Vec<Value> {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    let containers =
        || pod.spec.iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
    let named = |name: &str| {
        let mut all = containers().flat_map(|c| c.ports.iter().flatten());
        all.find(|p| p.name.as_deref() == Some(name)).map(|p| p.container_port)
    };
    let of_service = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    let resolved = of_service.filter_map(|port| {
        let number = match &port.target_port {
            None => Some(port.port),
            Some(IntOrString::Int(number)) => Some(*number),
            Some(IntOrString::String(name)) => named(name),
        }?;
        Some(json!({
            "name": port.name.clone().unwrap_or_default(),
            "port": number,
            "protocol": port.protocol.as_deref().unwrap_or("TCP"),
            "appProtocol": port.app_protocol,
        }))
    });
    resolved.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_says_what_a_pod_that_is_being_deleted_says() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "tasks-a-b-c", "namespace": "apps", "uid": "u", "labels": {"app": "tasks"}},
            "spec": {"nodeName": "n2", "containers": [{"name": "web", "ports": [{"name": "http", "containerPort": 8000}]}]},
            "status": {"podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}]},
        }))
        .unwrap();
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "tasks"},
            "spec": {"ports": [{"name": "web", "port": 80, "targetPort": "http"}, {"name": "raw", "port": 9}]},
        }))
        .unwrap();
        let chosen = |selector: Value| {
            let service = json!({"metadata": {"name": "s"}, "spec": {"selector": selector}});
            selects(&serde_json::from_value(service).unwrap(), pod.labels())
        };
        assert!(chosen(json!({"app": "tasks"})));
        assert!(!chosen(json!({"app": "tasks", "version": "2"})), "another revision's alone");
        assert!(!chosen(json!({})), "its endpoints are made by hand");
        let slices = slices_of(&pod, &service);
        assert_eq!(slices.len(), 2, "one a family");
        let (four, six) = (&slices[0], &slices[1]);
        assert_eq!((&four["addressType"], &six["addressType"]), (&json!("IPv4"), &json!("IPv6")));
        assert_eq!(four["metadata"]["labels"]["kubernetes.io/service-name"], "tasks");
        assert_eq!(four["metadata"]["ownerReferences"][0]["uid"], "u");
        let endpoint = &four["endpoints"][0];
        assert_eq!(endpoint["conditions"], json!({"ready": false, "serving": true, "terminating": true}));
        assert_eq!((&endpoint["nodeName"], &endpoint["addresses"]), (&json!("n2"), &json!(["10.0.0.7"])));
        let ports: Vec<_> = four["ports"].as_array().unwrap().iter().map(|p| p["port"].clone()).collect();
        assert_eq!(ports, [json!(8000), json!(9)]);
        serde_json::from_value::<EndpointSlice>(four.clone()).unwrap();
    }
}
