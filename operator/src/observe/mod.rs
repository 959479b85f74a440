//! One app at one moment: raw objects and the pods' own words in, the planner's [`Observed`] out.

mod adoption;
mod app_pods;
mod child_state;
mod children;
mod deletion;
mod endpoints;
mod gates;
#[cfg(test)]
mod hostile;
mod look;
mod nodes;
mod pods;
mod policies;
mod resolved;
mod revisions;
mod sightings;
mod surroundings;
mod targets;
mod trouble;
mod unkeyed;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use graceful_api::marks::AutoscalerAnnotation;
use graceful_api::{FieldError, GracefulApp, Policy, RevisionHash, Signal, Validated, names};
use graceful_plan::refusals::Subject;
use graceful_plan::{Deletion, Mark, Observed, PodUid, Surroundings};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Client, ResourceExt};

pub(crate) use self::adoption::Sought;
use self::app_pods::{of_each, owner, parsed};
pub(crate) use self::children::{Wanted, drift, extra_ports, is_of};
pub(crate) use self::deletion::orphaning;
use self::deletion::{deletion, namespace_terminates, suspects_its_namespace};
use self::endpoints::local_services;
pub use self::gates::GateImage;
pub(crate) use self::look::{live_pods, look};
pub use self::nodes::{NodeDrain, TAINTS, URGENT_TAINTS};
pub(crate) use self::nodes::{Nodes, state as node_state};
pub(crate) use self::pods::{condition, has_finished};
use self::resolved::resolved;
use self::revisions::Ours;
pub(crate) use self::revisions::followed;
pub(crate) use self::sightings::Sightings;
pub(crate) use self::surroundings::{WantedChildren, selects};
use self::surroundings::{surroundings, surroundings_in_deletion};
use self::targets::targets_and_contacts;
use self::trouble::ending;
pub(crate) use self::view::Stores;
use self::view::view;
pub(crate) use self::view::{Newest, newest};
use crate::app_ref::AppRef;
use crate::clock::Clock;
use crate::decode::Decoded;
use crate::error::Error;
use crate::keys::Keyring;
use crate::probe::{Probes, Target};
use crate::writes::Writes;

/// What the planner is given, and what the executor needs beside it.
pub(crate) struct Observation {
    pub(crate) observed: Observed,
    /// None while the app is being deleted and its spec makes no sense.
    pub(crate) app: Option<Validated>,
    pub(crate) wanted: WantedChildren,
    /// How each pod that has an address is asked.
    pub(crate) targets: BTreeMap<PodUid, Target>,
    /// The resourceVersion that each pod was seen at.
    pub(crate) versions: BTreeMap<PodUid, String>,
    /// The autoscalers' annotations that are ours to write on each pod, where any are to be written.
    pub(crate) autoscaler_annotations: BTreeMap<PodUid, Vec<AutoscalerAnnotation>>,
    /// Services that send clients to pods on their own node alone (a traffic policy `Local`), and route to the app's serving pods.
    pub(crate) local_services: Vec<String>,
    /// The EndpointSlices of ours that keep lingering pods reachable.
    pub(crate) bridges: BTreeMap<PodUid, Vec<String>>,
    /// Pods with the app's label that no Deployment in the view owns: it lost its label or is gone, or they are not the app's.
    pub(crate) strangers: Vec<graceful_plan::Pod>,
    /// How each pod that has finished was ended, where Kubernetes says it.
    pub(crate) endings: BTreeMap<PodUid, String>,
    /// The Deployment that may be adopted.
    pub(crate) sought: Sought,
    /// How the pods of the adopted one are asked and drained by the spec.
    pub(crate) adopted_policy: Option<Policy>,
    /// The Deployments, by revision.
    pub(crate) deployments: BTreeMap<RevisionHash, Arc<Deployment>>,
}

/// Where an app's objects are read from.
pub(crate) struct Sources {
    pub(crate) client: Client,
    pub(crate) stores: Stores,
    pub(crate) keyring: Keyring,
    pub(crate) clock: Clock,
}

/// What is known beside the objects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trust {
    /// The app was seen with `--cascade=orphan`, though its `orphan` finalizer is gone.
    pub(crate) orphaned: bool,
    /// How long the watches are trusted without a live view.
    pub(crate) watches_for: Duration,
}

/// Looks at an app.
///
/// # Errors
/// The inner error is the user's: the spec contradicts itself, and nothing is to be touched.
pub(crate) async fn observe(
    (sources, probes): (&Sources, &Probes),
    app: &Decoded<GracefulApp>,
    Trust { orphaned, watches_for }: Trust,
    writes: &mut Writes,
    sightings: &mut Sightings,
) -> Result<Result<Observation, Vec<FieldError>>, Error> {
    let deletion = deletion(app, orphaned);
    let valid = match app.fault() {
        None => Validated::try_from(&**app),
        Some(fault) => Err(vec![fault.clone()]),
    };
    let (name, namespace, uid) =
        (app.name_any(), app.namespace().unwrap_or_default(), app.uid().unwrap_or_default());
    if deletion != Deletion::No && !writes.namespace_terminating {
        writes.namespace_terminating = namespace_terminates(&sources.client, &namespace).await?;
    }
    // One that leaves is planned by its spec; in a namespace that goes nothing of it stays, and nobody could correct it.
    let by_its_spec = match deletion {
        Deletion::No => true,
        Deletion::Leave => !writes.namespace_terminating,
        Deletion::Drain | Deletion::Orphan => false,
    };
    if let (Err(errors), true) = (&valid, by_its_spec) {
        return Ok(Err(errors.clone()));
    }
    let view = view(sources, app, watches_for, writes, sightings).await?;
    let now = sources.clock.now();
    let unreadable = view.unreadable(&uid);
    if !unreadable.is_empty() {
        return Ok(Err(unreadable));
    }
    let ours: Vec<_> = view.deployments.iter().filter_map(|d| Ours::of(d, &uid)).collect();
    let pods: Vec<_> = view.pods.iter().filter_map(|p| Some((p.as_ref(), owner(p, &ours)?))).collect();
    let valid = valid.ok();
    let objects: Vec<_> = pods.iter().map(|(pod, _)| *pod).collect();
    let sought = match (&valid, deletion) {
        (Some(app), Deletion::No) => sightings.seeker.look(sources, app, &ours, writes, now).await,
        _ => {
            // The next look of one that is not looked at is never due.
            sightings.seeker = adoption::Seeker::default();
            Sought::default()
        }
    };
    let gone = || surroundings_in_deletion(&name, &uid, &view, &objects, writes, now);
    let (surroundings, wanted) = match (&valid, deletion) {
        (Some(app), Deletion::No | Deletion::Leave) => {
            sightings.policies.update(&sources.client, app).await;
            let (mut around, wanted) =
                surroundings(app, &view, &ours, &objects, (writes, &sightings.policies), now);
            around.adoption = sought.state.clone();
            around.template = unkeyed::verdict(around.template, sources.keyring.awaited());
            around.warnings.extend(unkeyed::warning(app, &ours, sources.keyring.missing().as_deref()));
            if deletion == Deletion::Leave {
                (without_children(around, gone()), None)
            } else {
                (around, Some(wanted))
            }
        }
        _ => (gone(), None),
    };
    let mut parsed = parsed(sources, (&name, &pods), view.live, writes, sightings, now).await?;
    sightings.withdrawals.update(&sources.client, &namespace, &view, &pods, &mut parsed, now).await;
    let (targets, contacts) = targets_and_contacts(probes, &AppRef::from_obj(&**app), &pods, &parsed, now);
    let revisions: Vec<_> = ours.iter().map(|o| o.parse(valid.as_ref(), writes, now)).collect();
    let mut observed = Observed {
        app: resolved(app, valid.as_ref(), deletion, writes.backoff(&Subject::Finalizer, now)),
        lags: sightings.lags.update(&revisions, now),
        absent: sightings.absences.update(&revisions, &parsed, now),
        revisions,
        contacts,
        rejected: sightings.rejections.update(&parsed, now),
        pods: parsed,
        surroundings,
    };
    observed.surroundings.brake = writes.brake.update(&observed, now);
    if deletion == Deletion::No && suspects_its_namespace(&observed, writes, sightings, now) {
        sightings.namespace_read = Some(Instant::now());
        // Asked for the report alone: without an answer it stays as it was.
        writes.namespace_terminating =
            namespace_terminates(&sources.client, &namespace).await.unwrap_or(false);
        observed.surroundings.namespace_terminating = writes.namespace_terminating;
    }
    let strangers = view.pods.iter().filter(|p| owner(p, &ours).is_none());
    let strangers = strangers.map(|p| pods::parse(p, None, |n| sources.stores.nodes.of(n), now)).collect();
    let drain_themselves = observed.revisions.iter().any(|r| r.policy.signal == Signal::Sigterm);
    let marks = observed.app.hold_while_busy || drain_themselves;
    let adopted = ours.iter().find(|o| o.hash.is_adopted());
    Ok(Ok(Observation {
        sought,
        adopted_policy: adopted.zip(valid.as_ref()).and_then(|(o, app)| o.wanted_policy(app)),
        app: valid,
        wanted: wanted.unwrap_or_default(),
        targets,
        versions: of_each(&pods, |p| Some(p.resource_version().unwrap_or_default())),
        autoscaler_annotations: of_each(&pods, |p| {
            (marks || pods::mark(p) != Mark::Absent).then(|| pods::autoscaler_annotations(p))
        }),
        local_services: local_services(&view, &pods),
        bridges: of_each(&pods, |p| {
            Some(p.annotations().get(names::LINGERING)?.split(',').map(str::to_owned).collect())
        }),
        observed,
        strangers,
        endings: view.pods.iter().filter_map(|p| Some((pods::uid(p), ending(p)?))).collect(),
        deployments: ours.iter().map(|o| (o.hash.clone(), Arc::clone(&o.object))).collect(),
    }))
}

/// Of an app that leaves: none of its children is kept any more.
fn without_children(around: Surroundings, gone: Surroundings) -> Surroundings {
    let Surroundings { service, budget, children_backoff, .. } = gone;
    Surroundings { service, budget, children_backoff, ..around }
}

impl Observation {
    /// This pod, as the planner was given it.
    pub(crate) fn pod(&self, uid: &PodUid) -> Option<&graceful_plan::Pod> {
        self.observed.pods.iter().find(|p| p.uid == *uid)
    }

    /// How a revision's pods are drained.
    pub(crate) fn policy(&self, revision: &RevisionHash) -> Option<graceful_api::DrainPolicy> {
        self.observed.revisions.iter().find(|r| r.hash == *revision).map(|r| r.policy)
    }
}

/// For `fuzzing`.
#[cfg(feature = "fuzzing")]
pub(crate) fn parse_pod(json: &[u8]) {
    if let Ok(pod) = serde_json::from_slice::<k8s_openapi::api::core::v1::Pod>(json) {
        let app_containers = pods::AppContainers { container: "web", gate: None };
        let node = |_: &str| graceful_plan::Node::default();
        let _parsed = pods::parse(&pod, Some(app_containers), node, jiff::Timestamp::UNIX_EPOCH);
    }
}
