//! The end of what keeps a lingering pod reachable on its node.

use graceful_api::{DrainPolicy, Signal};

use crate::action::Action;
use crate::clock::{after, seconds};
use crate::draft::{Draft, pod_ref};
use crate::endpoints::{linger_is_over, withdrawn_since};
use crate::observed::{Containers, Readiness};
use crate::snapshot::Snapshot;

/// How long past its linger a pod is given to latch: it is told a moment after it was unrouted, and a little later if it is slow to answer.
const LATCHES_WITHIN: u32 = 10;

/// A pod that lingers behind a Service with a traffic policy `Local` is kept reachable by EndpointSlices of ours until it latches or serves again; where it
/// cannot latch, or ends, until its linger is over.
pub(crate) fn remove(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    for pod in snapshot.observed.pods.iter().filter(|p| p.bridged) {
        let over = match (pod.routed, pod.drain, snapshot.policy(pod)) {
            // Its address is free, and another pod may get it, while the record stays.
            _ if pod.containers == Containers::Finished => true,
            // Ended by somebody in its linger, and it answers no more.
            _ if pod.terminating && !matches!(pod.readiness, Readiness::Ready(_)) => true,
            (false, Some(note), _) if pod.terminating && linger_is_over(snapshot, pod, note) => true,
            (true, ..) | (false, None, _) => true,
            // One that never latches would go on to be sent clients, and never be idle.
            (false, Some(note), DrainPolicy { signal: Signal::Http, linger_seconds, .. }) => {
                let protocol = snapshot.protocol(pod);
                let end = linger_seconds.saturating_add(LATCHES_WITHIN);
                let late = withdrawn_since(pod, note)
                    .is_some_and(|at| snapshot.clock.has_come(after(at, seconds(end))));
                late || protocol.is_some_and(|p| !p.accepting && Some(p.epoch) == pod.epoch)
            }
            (false, Some(note), _) => linger_is_over(snapshot, pod, note),
        };
        if over && !snapshot.backs_off(pod.write_backoff.as_ref()) {
            draft.act(Action::Unbridge { pod: pod_ref(pod) });
        }
    }
}
