//! WAITING-FOR's sentences of pods that are to come: what keeps a new pod from taking work, and what keeps it from being made.

use graceful_api::RevisionHash;
use jiff::Timestamp;

use crate::astray::contradiction;
use crate::clock::{after, seconds};
use crate::expendable::superseded_revisions;
use crate::observed::{NodeFate, Pod, Readiness, Revision};
use crate::phrases::{and_more, exceeds_quota, nodes_are_closed, whole_seconds};
use crate::snapshot::Snapshot;
use crate::token_refused;

/// New pods that do not take work yet.
pub(crate) fn not_taking_work(snapshot: &Snapshot<'_>) -> Option<String> {
    let mut pods: Vec<_> =
        snapshot.routed().filter(|p| !snapshot.is_superseded(p) && !snapshot.takes_work(p)).collect();
    if snapshot.count_superseded() == 0 {
        // One that is about to be asked for the first time keeps nothing waiting.
        pods.retain(|p| !snapshot.serves(p) || snapshot.contact(p).is_some_and(|c| c.tried_at.is_some()));
    }
    pods.sort_by_key(|p| (p.created, &p.name));
    let first = pods.first()?;
    Some(new_pod(snapshot, first, &and_more(pods.len() - 1)))
}

/// What keeps one new pod from taking work.
pub(crate) fn new_pod(snapshot: &Snapshot<'_>, pod: &Pod, others: &str) -> String {
    let name = format!("{}{others}", pod.name);
    let error = snapshot.contact(pod).and_then(|c| c.error.as_ref());
    match (snapshot.available_from(pod), &pod.trouble, error) {
        (Some(from), ..) if !snapshot.clock.has_come(from) => {
            format!(
                "{name}: Ready, Available after minReadySeconds ({} s)",
                snapshot.observed.app.min_ready_seconds
            )
        }
        (Some(_), _, Some(error)) => {
            format!("{name}: Available, but its in-flight count cannot be read: {}", error.message)
        }
        (Some(_), _, None) if snapshot.answer(pod).is_some() => {
            let why = snapshot.contact(pod).and_then(contradiction).map(str::to_owned);
            let why = why
                .or_else(|| token_refused::explanation(snapshot, pod))
                .map_or(String::new(), |why| format!(": {why}"));
            format!("{name}: Available, but accepts no work yet{why}")
        }
        (Some(_), _, None) => format!("{name}: Available, not asked for its in-flight count yet"),
        (None, Some(trouble), _) if pod.unschedulable.is_some() && nodes_are_closed(trouble) => {
            format!("{name}: not Ready: {trouble}; uncordon a node, take its taint off, or add a node")
        }
        (None, Some(trouble), _) if pod.unschedulable.is_some() && capacity_helps(snapshot, trouble) => {
            format!(
                "{name}: not Ready: {trouble}; {}",
                what_frees_capacity(
                    snapshot,
                    pod.unschedulable
                        .map(|at| after(at, seconds(snapshot.observed.app.surge_timeout_seconds)))
                )
            )
        }
        (None, Some(trouble), _) => format!("{name}: not Ready: {trouble}"),
        (None, None, _) if pod.node.is_silent() => format!(
            "{name}: not Ready: its node is not Ready; if the node is lost for good, remove it from the cluster"
        ),
        (None, None, _) => match pod.readiness {
            Readiness::Lost(since) => format!("{name}: not Ready any more, since {}", whole_seconds(since)),
            Readiness::Never | Readiness::Ready(_) => format!("{name}: not Ready yet"),
        },
    }
}

/// Pods that a ReplicaSet cannot make: of the update revision, or of another that lacks some.
pub(crate) fn not_made(snapshot: &Snapshot<'_>) -> Option<String> {
    if !snapshot.observed.app.deletion.keeps_serving() {
        return None;
    }
    let update = snapshot.revision(snapshot.update());
    // A superseded one as well, where its pods are replaced: on a node that goes, in a rollout that is paused or stuck.
    let lacks = |r: &&Revision| r.replicas > snapshot.remaining_of(&r.hash);
    let others = || superseded_revisions(snapshot).filter(lacks).find(|r| r.replica_failure.is_some());
    let revision = update.filter(|r| r.replica_failure.is_some()).or_else(others)?;
    Some(cannot_be_made(snapshot, &revision.hash, &revision.replica_failure.as_ref()?.message))
}

/// Why no pod of this revision can be made (a quota, a policy), in Kubernetes' own words, and what would help.
pub(crate) fn cannot_be_made(snapshot: &Snapshot<'_>, revision: &RevisionHash, words: &str) -> String {
    let no_replica_set = snapshot.revision(revision).is_some_and(|r| r.has_no_replica_set);
    let helps = if no_replica_set && exceeds_quota(words) {
        "raise that quota, or delete what it counts; the operator retries by itself".to_owned()
    } else {
        what_helps(snapshot, words)
    };
    format!("no pod of revision {revision} can be made: {words}; {helps}")
}

/// What would help against what refuses a pod: capacity against a full quota, and against nothing else.
fn what_helps(snapshot: &Snapshot<'_>, words: &str) -> String {
    if exceeds_quota(words) {
        return what_frees_capacity(snapshot, None);
    }
    "change the policy or webhook that refuses it; the operator retries by itself".to_owned()
}

/// Whether capacity on the nodes is what a new pod lacks. A serving pod that goes frees its node's, whatever is scarce there. Without a rollout, none is there to go; but one on a node that is emptied may go before
/// its replacement comes.
fn capacity_helps(snapshot: &Snapshot<'_>, words: &str) -> bool {
    snapshot.count_superseded() > 0
        || leave_their_nodes(snapshot)
        || ["Insufficient", "Too many pods"].iter().any(|scarce| words.contains(scarce))
}

/// Whether pods are to leave a node that is emptied.
pub(crate) fn leave_their_nodes(snapshot: &Snapshot<'_>) -> bool {
    snapshot.on_going_nodes().any(|p| p.node.fate == NodeFate::Emptied)
}

/// `from`: an autoscaler may bring a node until then.
fn what_frees_capacity(snapshot: &Snapshot<'_>, from: Option<Timestamp>) -> String {
    let app = &snapshot.observed.app;
    if snapshot.count_superseded() == 0 && leave_their_nodes(snapshot) && app.max_unavailable == 0 {
        return "free capacity on another node, or set spec.rollout.maxUnavailable to 1 so that a pod leaves its node before another serves in its place".to_owned();
    }
    if snapshot.count_superseded() == 0 || app.max_surge == 0 {
        return "free capacity on the nodes".to_owned();
    }
    if app.max_unavailable == 0 {
        return "free capacity on the nodes, or set spec.rollout.maxUnavailable to 1 so that a serving pod makes way for a new one".to_owned();
    }
    match from.filter(|at| !snapshot.clock.has_come(*at)) {
        Some(at) => format!(
            "at {} (surgeTimeoutSeconds) one serving pod makes way for it by itself",
            whole_seconds(at)
        ),
        None => {
            "one serving pod at a time makes way by itself, as spec.rollout.maxUnavailable allows".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use graceful_api::Signal;

    use super::*;
    use crate::fixture;
    use crate::observed::{Node, Observed};

    /// Beside a pod that is to leave its node.
    #[test]
    fn what_would_help_a_pod_that_no_node_takes_is_what_its_scheduler_lacks() {
        let helps = |causes: &str| {
            let words = format!("not scheduled: 0/2 nodes are available: {causes}.");
            let leaves = Pod {
                node: Node { fate: NodeFate::Emptied, ..Node::default() },
                ..fixture::serving("leaves")
            };
            let new = Pod {
                readiness: Readiness::Never,
                unschedulable: Some(Timestamp::UNIX_EPOCH),
                trouble: Some(words.clone()),
                ..fixture::serving("new")
            };
            let app = fixture::app(1, fixture::policy(Signal::Http));
            let observed = Observed { pods: vec![leaves, new.clone()], ..fixture::observed(app) };
            let said = new_pod(&Snapshot::of(&observed, Timestamp::UNIX_EPOCH), &new, "");
            said.strip_prefix(&format!("new: not Ready: {words}; ")).unwrap_or(&said).to_owned()
        };
        assert!(helps("2 Insufficient cpu").starts_with("free capacity on another node, or set"));
        assert_eq!(
            helps("2 node(s) were unschedulable"),
            "uncordon a node, take its taint off, or add a node"
        );
    }
}
