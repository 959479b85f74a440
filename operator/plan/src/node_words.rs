//! What people are shown of nodes that go: parts of WAITING-FOR, and of the Warning condition.

use std::collections::BTreeSet;

use graceful_api::conditions::Reason;

use crate::count::count;
use crate::going_nodes::drains_for_its_node;
use crate::new_pods::new_pod;
use crate::observed::{KeptBy, NodeFate, Pod, Readiness, Warning};
use crate::phrases::and_more;
use crate::snapshot::Snapshot;

/// WAITING-FOR's parts: pods that have yet to leave their nodes, nodes that are dying or shut down, and what keeps a replacement from serving.
pub(crate) fn sentences(snapshot: &Snapshot<'_>) -> Vec<String> {
    let mut parts = Vec::new();
    if !snapshot.observed.app.deletion.keeps_serving() {
        return parts;
    }
    parts.extend(yet_to_leave(snapshot));
    for (fate, what) in [
        (NodeFate::Dying, "about to be shut down: its pods drain, and are replaced elsewhere"),
        (NodeFate::ShutDown, "shut down (node.kubernetes.io/out-of-service): its pods are replaced"),
    ] {
        let on = snapshot.remaining.iter().filter(|p| p.node.fate == fate);
        let names: BTreeSet<_> = on.filter_map(|p| p.node.name.as_deref()).collect();
        parts.extend(names.into_iter().map(|name| format!("node {name} is {what}")));
    }
    // Where all of them drain, for an hour perhaps, only what is wrong with the others.
    let all_drain = parts.is_empty() && snapshot.shown_as_draining().any(drains_for_its_node);
    parts.extend(
        pending_replacement(snapshot)
            .filter(|p| !parts.is_empty() || (all_drain && p.trouble.is_some()))
            .map(|pod| new_pod(snapshot, pod, "")),
    );
    parts
}

fn yet_to_leave(snapshot: &Snapshot<'_>) -> Option<String> {
    let app = &snapshot.observed.app;
    let pods: Vec<_> = snapshot.on_going_nodes().filter(|p| p.node.fate == NodeFate::Emptied).collect();
    let (have, each) = match pods.len() {
        0 => return None,
        1 => ("1 pod has".to_owned(), ""),
        n => (format!("{n} pods have"), "each "),
    };
    let how = match (app.max_surge, app.max_unavailable) {
        (0, _) => "as far as spec.rollout.maxUnavailable allows".to_owned(),
        (_, 0) => format!("{each}once another serves in its place"),
        _ => "as fast as spec.rollout.maxSurge and maxUnavailable allow".to_owned(),
    };
    Some(format!("{have} to leave {}, {how}", nodes(pods.into_iter()).0))
}

/// The first replacement that does not serve yet, of whichever revision it is.
fn pending_replacement<'a>(snapshot: &Snapshot<'a>) -> Option<&'a Pod> {
    let mut new: Vec<_> = snapshot
        .routed()
        .filter(|p| p.stays() && !snapshot.takes_work(p) && p.readiness == Readiness::Never)
        .collect();
    new.sort_by_key(|p| (p.created, &p.name));
    new.first().copied()
}

/// The Warning condition's part on nodes that are about to be shut down.
pub(crate) fn dying_warning(snapshot: &Snapshot<'_>) -> Option<Warning> {
    let dying = || snapshot.remaining.iter().copied().filter(|p| p.node.fate == NodeFate::Dying);
    let (nodes, one) = nodes(dying());
    let what = match one {
        true => "has a taint that says it is about to be shut down",
        false => "have taints that say they are about to be shut down",
    };
    let pods = match count(dying()) {
        0 => return None,
        1 => "1 pod of this app there gets no new clients, and finishes what it can".to_owned(),
        n => format!("{n} pods of this app there get no new clients, and finish what they can"),
    };
    let message = format!("{nodes} {what}: {pods}");
    Some(Warning { reason: Reason::NodeDies, message })
}

/// The Warning condition's part on nodes that are to be emptied and where pods stay: why they do, since an eviction of them may wait for long.
pub(crate) fn kept_warning(snapshot: &Snapshot<'_>) -> Option<Warning> {
    let on =
        |by: KeptBy| snapshot.remaining.iter().copied().filter(move |p| p.node.fate == NodeFate::Kept(by));
    let describe = |by: KeptBy| {
        let first = on(by).next()?;
        let (nodes, one) = nodes(on(by));
        let (are, it) = if one { ("is", "it") } else { ("are", "them") };
        Some(match by {
            KeptBy::Annotation => format!(
                "{nodes} {are} to be emptied, and the annotation graceful.dev/keep on {it} says that pods stay: where `disruption` holds evictions, `kubectl drain` waits until it is taken off"
            ),
            KeptBy::Chart => format!(
                "{nodes} {are} cordoned, and pods stay, since the chart's nodeDrain.onCordon is false: where `disruption` holds evictions, `kubectl drain` waits until they are gone for another reason"
            ),
            KeptBy::Toleration => {
                let others = and_more(on(by).count() - 1);
                format!(
                    "pod {}{others} was put on a node that is to be emptied, and stays: what replaces it might be put there as well; spec.template tolerates the node's taint",
                    first.name
                )
            }
        })
    };
    let parts: Vec<_> =
        [KeptBy::Annotation, KeptBy::Chart, KeptBy::Toleration].into_iter().filter_map(describe).collect();
    let message = parts.join("; ");
    (!message.is_empty()).then_some(Warning { reason: Reason::NodeKept, message })
}

/// As in "node a" and "nodes a, b"; and whether it is one.
fn nodes<'a>(pods: impl Iterator<Item = &'a Pod>) -> (String, bool) {
    let names: BTreeSet<_> = pods.filter_map(|p| p.node.name.as_deref()).collect();
    let one = names.len() == 1;
    let names: Vec<_> = names.into_iter().collect();
    (format!("{} {}", if one { "node" } else { "nodes" }, names.join(", ")), one)
}
