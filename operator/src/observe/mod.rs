//! One app at one moment: raw objects and the pods' own words in, the planner's [`Observed`] out.

mod adoption;
mod child_state;
mod children;
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
mod surroundings;
mod targets;
mod trouble;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use graceful_api::marks::AutoscalerAnnotation;
use graceful_api::{
    DrainReason, FieldError, GracefulApp, InFlightPolicy, Policy, RevisionHash, Signal, Validated, names,
};
use graceful_plan::refusals::Subject;
use graceful_plan::{
    Absences, Deletion, Lags, Mark, NodeFate, Observed, PodUid, Readiness, Rejections, Surroundings,
};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service, ServiceSpec};
use kube::{Api, Client, ResourceExt};

use self::adoption::Seeker;
pub(crate) use self::adoption::Sought;
pub(crate) use self::children::{Wanted, drift, extra_ports, is_of};
use self::endpoints::Withdrawals;
pub use self::gates::GateImage;
pub(crate) use self::look::{live_pods, look};
use self::nodes::Departures;
pub use self::nodes::{NodeDrain, TAINTS, URGENT_TAINTS};
pub(crate) use self::nodes::{Nodes, state as node_state};
use self::pods::AppContainers;
pub(crate) use self::pods::{condition, has_finished};
use self::policies::Policies;
use self::resolved::resolved;
use self::revisions::Ours;
pub(crate) use self::revisions::followed;
pub(crate) use self::surroundings::{WantedChildren, selects};
use self::surroundings::{surroundings, surroundings_in_deletion};
use self::targets::targets_and_contacts;
use self::trouble::ending;
pub(crate) use self::view::Stores;
pub(crate) use self::view::{Newest, newest};
use self::view::{View, view};
use crate::app_ref::AppRef;
use crate::clock::{Clock, later};
use crate::decode::Decoded;
use crate::error::{Error, call};
use crate::keys::Keyring;
use crate::probe::{Pace, Probes, Target};
use crate::requeue::Desired;
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

/// Where an app's state is read from. The same client writes to it.
pub(crate) struct Sources {
    pub(crate) client: Client,
    pub(crate) stores: Stores,
    pub(crate) probes: Probes,
    pub(crate) clock: Clock,
    /// Marks on pods, of all apps.
    pub(crate) mark_pace: Pace,
    /// What drains are signed with, and what new revisions' pods are given of it.
    pub(crate) keyring: Keyring,
    /// What new revisions' gates are made of.
    pub(crate) gate_image: GateImage,
}

/// What observing remembers of one app between two looks.
#[derive(Debug, Default)]
pub(crate) struct Sightings {
    /// When the last live view was taken, or this memory began.
    viewed_live: Option<Instant>,
    /// The newest GracefulApp that was read live: a watch that shows an older one is behind.
    newest: Option<Desired>,
    /// Nodes that go.
    departures: Departures,
    /// Pods that drain, and whether Services still send clients to them.
    withdrawals: Withdrawals,
    /// NetworkPolicies, where there is a gate that they may shut off.
    policies: Policies,
    /// Pods of a node whose clock is ahead: since when they are Ready by that clock, and since when we know.
    ready_ahead: HashMap<PodUid, (Timestamp, Timestamp)>,
    /// Pods that ended before they were ever Ready.
    rejections: Rejections,
    /// Deployments that their controller has not taken up.
    lags: Lags,
    /// Pods that are asked for and do not come.
    absences: Absences,
    /// The Deployment in `spec.adopt`.
    seeker: Seeker,
    /// When the namespace was last read for whether it goes.
    namespace_read: Option<Instant>,
}

impl Sightings {
    /// When to look again, at what no watch shows.
    pub(crate) fn due(&self) -> Option<Duration> {
        [self.withdrawals.due(), self.seeker.due()].into_iter().flatten().min()
    }

    /// A watch can go blind without a word.
    fn distrust_watches(&self, trust: Duration) -> bool {
        self.viewed_live.is_some_and(|at| at.elapsed() >= trust)
    }
}

/// What is known beside the objects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trust {
    /// The app was seen with `--cascade=orphan`, though its `orphan` finalizer is gone.
    pub(crate) orphaned: bool,
    /// How long the watches are trusted without a live view.
    pub(crate) watches_for: Duration,
}

/// A quota may keep pods from being made for days: the namespace is not asked for in each plan of these.
const NAMESPACE_READ_EVERY: Duration = Duration::from_secs(30);

/// A Deployment of that age has its pods, or something keeps them away.
const UNMADE: jiff::SignedDuration = jiff::SignedDuration::from_secs(30);

/// Looks at an app.
///
/// # Errors
/// The inner error is the user's: the spec contradicts itself, and nothing is to be touched.
pub(crate) async fn observe(
    sources: &Sources,
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
        _ => Sought::default(),
    };
    let (surroundings, wanted) = match (&valid, deletion) {
        (Some(app), Deletion::No | Deletion::Leave) => {
            sightings.policies.update(&sources.client, app).await;
            let (mut around, wanted) =
                surroundings(app, &view, &ours, &objects, (writes, &sightings.policies), now);
            around.adoption = sought.state.clone();
            match deletion {
                Deletion::Leave => {
                    // None of its children is kept any more.
                    let gone = surroundings_in_deletion(&name, &uid, &view, &objects, writes, now);
                    let Surroundings { service, budget, children_backoff, .. } = gone;
                    (Surroundings { service, budget, children_backoff, ..around }, WantedChildren::default())
                }
                Deletion::No | Deletion::Drain | Deletion::Orphan => (around, wanted),
            }
        }
        _ => {
            let around = surroundings_in_deletion(&name, &uid, &view, &objects, writes, now);
            (around, WantedChildren::default())
        }
    };
    let mut parsed = parsed(sources, (&name, &pods), view.live, writes, sightings, now).await?;
    sightings.withdrawals.update(&sources.client, &namespace, &view, &pods, &mut parsed, now).await;
    let (targets, contacts) =
        targets_and_contacts(&sources.probes, &AppRef::from_obj(&**app), &pods, &parsed, now);
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
        wanted,
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

/// The app's pods as the planner sees them, with what is remembered of each.
async fn parsed(
    sources: &Sources,
    (app, pods): (&str, &[(&Pod, &Ours)]),
    live: bool,
    writes: &mut Writes,
    sightings: &mut Sightings,
    now: Timestamp,
) -> Result<Vec<graceful_plan::Pod>, Error> {
    let node = |name: &str| sources.stores.nodes.of(name);
    let mut parsed: Vec<_> = pods.iter().map(|(pod, owner)| owner.parsed(pod, app, node, now)).collect();
    if live {
        look_again_at_nodes(sources, &mut parsed).await?;
    }
    let may_take = |(pod, _): &&(&Pod, &Ours)| sources.stores.nodes.may_take(pod);
    let tolerating: BTreeSet<_> = pods.iter().filter(may_take).map(|(pod, _)| pods::uid(pod)).collect();
    let tolerates = |pod: &graceful_plan::Pod| tolerating.contains(&pod.uid);
    sightings.departures.update(&mut parsed, |name| node(name).fate, tolerates, now);
    for pod in &mut parsed {
        pod.write_backoff = writes.backoff(&Subject::Pod(pod.uid.clone()), now);
        pod.mark_rests_until = writes.mark_rests(&pod.uid).map(|left| later(now, left));
    }
    ready_by_our_clock(&mut parsed, &mut sightings.ready_ahead, now);
    writes.keep_pods(|uid| parsed.iter().any(|p| p.uid == *uid));
    Ok(parsed)
}

fn of_each<T>(pods: &[(&Pod, &Ours)], what: impl Fn(&Pod) -> Option<T>) -> BTreeMap<PodUid, T> {
    pods.iter().filter_map(|(pod, _)| Some((pods::uid(pod), what(pod)?))).collect()
}

/// Reads these nodes live: whether their pods are put back or ended must not depend on a late watch.
async fn look_again_at_nodes(sources: &Sources, pods: &mut [graceful_plan::Pod]) -> Result<(), Error> {
    let in_doubt = |p: &graceful_plan::Pod| {
        let for_its_node = p.drain.is_some_and(|note| note.reason == DrainReason::NodeDrain);
        (for_its_node && p.stays()) || p.node.fate == NodeFate::ShutDown
    };
    let names: BTreeSet<_> =
        pods.iter().filter(|p| in_doubt(p)).filter_map(|p| p.node.name.clone()).collect();
    for name in names {
        let node = sources.stores.nodes.read(&sources.client, &name).await?;
        for pod in pods.iter_mut().filter(|p| p.node.name.as_ref() == Some(&name)) {
            pod.node = node.clone();
        }
    }
    Ok(())
}

/// A node's clock may be hours ahead: what is Ready from then on is Ready since we first saw it so.
fn ready_by_our_clock(
    pods: &mut [graceful_plan::Pod],
    ahead: &mut HashMap<PodUid, (Timestamp, Timestamp)>,
    now: Timestamp,
) {
    ahead.retain(|uid, _| pods.iter().any(|p| p.uid == *uid));
    for pod in pods {
        let Readiness::Ready(said) = pod.readiness else { continue };
        let known = ahead.get(&pod.uid).filter(|(before, _)| *before == said).map(|(_, since)| *since);
        // Also once that moment has come: what was counted from is not changed by it.
        if let Some(since) = known.or((said > now).then_some(now)) {
            ahead.insert(pod.uid.clone(), (said, since));
            pod.readiness = Readiness::Ready(since);
        }
    }
}

/// The app's own Service, and others of the user's that ask for the serving label.
fn local_services(view: &View, pods: &[(&Pod, &Ours)]) -> Vec<String> {
    let local = |service: &&Arc<Service>| {
        let spec = service.spec.as_ref();
        let policies = |s: &ServiceSpec| {
            let each = [&s.external_traffic_policy, &s.internal_traffic_policy];
            each.into_iter().flatten().any(|policy| policy == "Local")
        };
        let fenced = |s: &ServiceSpec| {
            s.selector.as_ref().is_some_and(|selector| selector.contains_key(names::SERVING_LABEL))
        };
        spec.is_some_and(|s| policies(s) && fenced(s))
            && pods.iter().any(|(pod, _)| selects(service, pod.labels()))
    };
    view.services.iter().filter(local).map(|s| s.name_any()).collect()
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
    if let Ok(pod) = serde_json::from_slice::<Pod>(json) {
        let app_containers = AppContainers { container: "web", gate: None };
        let node = |_: &str| graceful_plan::Node::default();
        let _parsed = pods::parse(&pod, Some(app_containers), node, Timestamp::UNIX_EPOCH);
    }
}

fn owner<'a>(pod: &Pod, ours: &'a [Ours]) -> Option<&'a Ours> {
    ours.iter().find(|o| o.has(&pod.metadata))
}

fn app_containers(owner: &Ours) -> Option<AppContainers<'_>> {
    let InFlightPolicy { container, app_container, .. } = &owner.policy.as_ref()?.in_flight;
    Some(match app_container {
        Some(app) => AppContainers { container: app, gate: Some(container) },
        None => AppContainers { container, gate: None },
    })
}

/// Foreground and background deletions drain; with `--cascade=orphan` the API server adds the finalizer `orphan`, which stays for a moment.
fn deletion(app: &GracefulApp, orphaned: bool) -> Deletion {
    if app.metadata.deletion_timestamp.is_none() {
        Deletion::No
    } else if orphaning(app) || orphaned {
        Deletion::Orphan
    } else if app.annotations().get(names::LEAVE).is_some_and(|v| v == "true") {
        Deletion::Leave
    } else {
        Deletion::Drain
    }
}

/// Whether this is a deletion with `--cascade=orphan`, while the garbage collector has not removed the `orphan` finalizer yet.
pub(crate) fn orphaning(app: &GracefulApp) -> bool {
    app.metadata.deletion_timestamp.is_some() && app.finalizers().iter().any(|f| f == "orphan")
}

/// A namespace that goes ends its pods first; our own object may be told minutes later. Pods that somebody ends and pods that cannot be made are
/// how it shows.
fn suspects_its_namespace(
    observed: &Observed,
    writes: &Writes,
    sightings: &Sightings,
    now: Timestamp,
) -> bool {
    let ended = observed.pods.iter().any(|p| p.terminating && p.routed);
    let failing = observed.revisions.iter().any(|r| r.replica_failure.is_some());
    // Of one that goes, a ReplicaSet makes no pod, and after our restart nobody says why.
    let old = |r: &graceful_plan::Revision| now.duration_since(r.created) > UNMADE;
    let lives = |r: &graceful_plan::Revision| {
        observed.pods.iter().filter(|p| p.is_active() && p.revision == r.hash).count()
    };
    let unmade = observed.revisions.iter().any(|r| old(r) && lives(r) < r.replicas as usize);
    let lately = sightings.namespace_read.is_some_and(|at| at.elapsed() < NAMESPACE_READ_EVERY);
    (ended || failing || unmade) && !lately && !writes.namespace_terminating
}

async fn namespace_terminates(client: &Client, namespace: &str) -> Result<bool, Error> {
    let api: Api<Namespace> = Api::all(client.clone());
    let found = call("read the namespace", api.get_opt(namespace)).await?;
    Ok(found.is_none_or(|n| n.metadata.deletion_timestamp.is_some()))
}

#[cfg(test)]
mod tests;
