//! Which pods a ReplicaSet that has too many deletes next, where that is known and loses nothing.

use std::collections::BTreeSet;

use graceful_api::Signal;

use crate::ids::PodUid;
use crate::observed::{Containers, Observed, Pod, Readiness, Revision};

/// The active pods of this revision that its ReplicaSet chooses before all others, and that may be left to it: as many of them as it has too many are condemned.
pub(crate) fn next<'a>(observed: &Observed, revision: &Revision, active: &[&'a Pod]) -> BTreeSet<&'a PodUid> {
    let of_it = || active.iter().copied().filter(|p| p.revision == revision.hash);
    // A ReplicaSet deletes a pod that is not Ready before one that is, whatever they cost.
    let unready_first =
        of_it().any(|p| !p.cheapest && p.containers != Containers::NeverStarted && !is_ready(p));
    let chosen =
        |p: &&Pod| p.cheapest && !(unready_first && is_ready(p)) && ends_in_time(observed, revision, p);
    of_it().filter(chosen).map(|p| &p.uid).collect()
}

fn is_ready(pod: &Pod) -> bool {
    matches!(pod.readiness, Readiness::Ready(_))
}

/// A ReplicaSet ends a pod with the grace of its template. That is too short for a pod that may have pulled work without any Service, and for a queue worker that
/// has begun, which has work though it was unrouted before.
fn ends_in_time(observed: &Observed, revision: &Revision, pod: &Pod) -> bool {
    let unheard = observed.contacts.get(&pod.uid).is_none_or(|c| c.answer.is_none());
    let may_pull = !revision.proven && unheard && pod.readiness == Readiness::Never && !pod.nothing_runs();
    let works = revision.policy.signal == Signal::Sigterm && pod.has_begun();
    !(may_pull || works) || pod.grace_seconds >= pod.longest_grace(revision.policy)
}
