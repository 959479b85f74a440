//! How each pod is asked, and what stands in for those that cannot be.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use graceful_plan::{Contact, ContactError, Containers, PodUid};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::pods;
use super::revisions::Ours;
use crate::app_ref::AppRef;
use crate::probe::{Probes, Target};

/// How each pod is asked, and what each has said. One that runs and cannot be asked is unknown.
pub(super) fn targets_and_contacts(
    probes: &Probes,
    app: &AppRef,
    pods: &[(&Pod, &Ours)],
    parsed: &[graceful_plan::Pod],
    now: Timestamp,
) -> (BTreeMap<PodUid, Target>, BTreeMap<PodUid, Contact>) {
    let targets: BTreeMap<_, _> =
        pods.iter().filter_map(|(pod, owner)| target(probes, app, pod, owner)).collect();
    let mut contacts = probes.contacts(parsed.iter().map(|p| &p.uid));
    let runs =
        |p: &&graceful_plan::Pod| matches!(p.containers, Containers::Running | Containers::HalfCrashed);
    for pod in parsed.iter().filter(runs).filter(|p| !targets.contains_key(&p.uid)) {
        contacts.insert(pod.uid.clone(), unaskable(pod, now));
    }
    (targets, contacts)
}

/// What stands in the place of a dialogue for a pod that runs and must not or cannot be asked: unknown, so busy, and said.
fn unaskable(pod: &graceful_plan::Pod, now: Timestamp) -> Contact {
    let message = "it cannot be asked: its Deployment's annotation graceful.dev/policy cannot be read, or its address is no pod's own";
    let error = ContactError { message: message.to_owned(), since: pod.created };
    Contact { tried_at: Some(now), asking_since: Some(pod.created), error: Some(error), ..Contact::default() }
}

/// Where and how a pod is asked: at its own IP, in its own revision's language.
fn target(probes: &Probes, app: &AppRef, pod: &Pod, owner: &Ours) -> Option<(PodUid, Target)> {
    let policy = owner.policy.as_ref()?.in_flight.clone();
    let spec = pod.spec.as_ref()?;
    if spec.host_network == Some(true) {
        return None;
    }
    let ip = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
    let address = probes.permitted(SocketAddr::new(ip, policy.port))?;
    let uid = pods::uid(pod);
    let target = Target {
        app: app.clone(),
        pod: pod.name_any(),
        uid: uid.clone(),
        address,
        container_id: pods::container_id(pod, &policy.container),
        keys: Arc::clone(&owner.keys),
        policy,
    };
    Some((uid, target))
}
