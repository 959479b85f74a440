//! The app's pods among those in view: whose each is, and what is remembered of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use graceful_api::{DrainReason, InFlightPolicy};
use graceful_plan::refusals::Subject;
use graceful_plan::{NodeFate, PodUid, Readiness};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::pods::{AppContainers, uid};
use super::revisions::Ours;
use super::{Sightings, Sources};
use crate::clock::later;
use crate::error::Error;
use crate::writes::Writes;

/// The app's pods as the planner sees them, with what is remembered of each.
pub(super) async fn parsed(
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
    let tolerating: BTreeSet<_> = pods.iter().filter(may_take).map(|(pod, _)| uid(pod)).collect();
    let tolerates = |pod: &graceful_plan::Pod| tolerating.contains(&pod.uid);
    sightings.departures.update(&mut parsed, |name| sources.stores.nodes.going(name), tolerates, now);
    for pod in &mut parsed {
        pod.write_backoff = writes.backoff(&Subject::Pod(pod.uid.clone()), now);
        pod.mark_rests_until = writes.mark_rests(&pod.uid).map(|left| later(now, left));
    }
    ready_by_our_clock(&mut parsed, &mut sightings.ready_ahead, now);
    writes.keep_pods(|uid| parsed.iter().any(|p| p.uid == *uid));
    Ok(parsed)
}

pub(super) fn of_each<T>(pods: &[(&Pod, &Ours)], what: impl Fn(&Pod) -> Option<T>) -> BTreeMap<PodUid, T> {
    pods.iter().filter_map(|(pod, _)| Some((uid(pod), what(pod)?))).collect()
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

pub(super) fn owner<'a>(pod: &Pod, ours: &'a [Ours]) -> Option<&'a Ours> {
    ours.iter().find(|o| o.has(&pod.metadata))
}

pub(super) fn app_containers(owner: &Ours) -> Option<AppContainers<'_>> {
    let InFlightPolicy { container, app_container, .. } = &owner.policy.as_ref()?.in_flight;
    Some(match app_container {
        Some(app) => AppContainers { container: app, gate: Some(container) },
        None => AppContainers { container, gate: None },
    })
}

#[cfg(test)]
mod tests;
