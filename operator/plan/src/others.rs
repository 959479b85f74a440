//! Pods that others end: `kubectl delete pod`, an eviction, preemption, a ReplicaSet that was scaled by somebody else. They drain themselves in
//! their grace period (P2); nothing is decided here but what is said of them, and who is still asked.

use graceful_api::Signal;

use crate::census::Census;
use crate::contact::InFlight;
use crate::observed::{Container, Pod, Readiness};

/// Terminating pods that we did not end and in which something may be at work.
pub(crate) fn ended_by_others<'a>(census: &Census<'a>) -> impl Iterator<Item = &'a Pod> {
    census.observed.pods.iter().filter(|p| p.terminating && by_others(census, p))
}

/// Those of them that are known to have something in flight: what a person would want to wait for. Of the others an Event tells once.
pub(crate) fn busy<'a>(census: &Census<'a>) -> impl Iterator<Item = (&'a Pod, InFlight)> {
    let count = |p: &Pod| census.answer(p).map(|a| a.in_flight).filter(|f| f.total > 0 && p.node_ready);
    ended_by_others(census).filter_map(move |p| Some((p, count(p)?)))
}

/// We end a pod only after its drain was marked, and then with nothing known in flight, handed over to its own drain, or cut and marked so. (A spare
/// that a ReplicaSet takes back was never Ready.)
fn by_others(census: &Census<'_>, pod: &Pod) -> bool {
    let may_run = matches!(pod.container, Container::Running | Container::HalfCrashed | Container::Unknown);
    let busy = census.answer(pod).is_some_and(|a| a.in_flight.total > 0);
    let ours = match pod.drain {
        Some(_) if !pod.serving => !busy || census.policy(pod).signal == Signal::Sigterm,
        Some(_) | None => pod.readiness == Readiness::Never && !busy,
    };
    may_run && pod.cut.is_none() && !ours
}

#[cfg(test)]
mod tests {
    use graceful_api::DrainReason;
    use jiff::Timestamp;

    use super::*;
    use crate::contact::{Answer, Contact};
    use crate::fixture;
    use crate::observed::{CutMark, DrainMark, Epoch, Observed};

    /// Whether a terminating pod that served counts as ended by others, with this last count and this edit; and whether as busy.
    fn judged(signal: Signal, in_flight: Option<u64>, edit: impl FnOnce(&mut Pod)) -> (bool, bool) {
        let at = Timestamp::UNIX_EPOCH;
        let (terminating, grace_ends) = (true, Some(at));
        let mut pod = Pod { terminating, grace_ends, ..fixture::serving("tasks-v1-1") };
        edit(&mut pod);
        let answer = in_flight.map(|total| Answer {
            at,
            in_flight: InFlight { total, ..InFlight::default() },
            protocol: None,
            scheduled: None,
        });
        let observed = Observed {
            contacts: [(pod.uid.clone(), Contact { answer, ..Contact::default() })].into(),
            pods: vec![pod],
            ..fixture::observed(fixture::app(1, fixture::policy(signal)))
        };
        let census = Census::take(&observed, at);
        (ended_by_others(&census).count() == 1, busy(&census).count() == 1)
    }

    fn marked(pod: &mut Pod) {
        pod.serving = false;
        pod.epoch = Some(Epoch(1));
        pod.drain = Some(DrainMark { reason: DrainReason::Rollout, since: Timestamp::UNIX_EPOCH });
    }

    #[test]
    fn a_pod_that_others_end_is_told_from_one_that_we_ended() {
        let judge = |in_flight, edit: fn(&mut Pod)| judged(Signal::Http, in_flight, edit);
        assert_eq!(judge(Some(3), |_| ()), (true, true), "it served, and nobody drained it");
        assert_eq!(judge(Some(0), |_| ()), (true, false), "with nothing to wait for");
        assert_eq!(judge(None, |_| ()), (true, false), "unheard");
        assert_eq!(judge(None, |p| p.terminating = false), (false, false));
        assert_eq!(judge(Some(0), marked), (false, false), "we ended it, idle");
        assert_eq!(judge(None, marked), (false, false), "a restarted operator cannot tell, and says nothing");
        assert_eq!(judge(Some(2), marked), (true, true), "in mid-drain: the way out of a held one");
        assert_eq!(judged(Signal::Sigterm, Some(2), marked), (false, false), "its own drain is the drain");
        let cut = |p: &mut Pod| {
            marked(p);
            p.cut = Some(CutMark { tasks: Some(2) });
        };
        assert_eq!(judged(Signal::Http, Some(2), cut), (false, false), "counted as cut");
        let spare = |p: &mut Pod| p.readiness = Readiness::Never;
        assert_eq!(judged(Signal::Http, None, spare), (false, false), "a spare that is taken back");
        assert_eq!(
            judge(Some(1), |p| p.container = Container::Crashed),
            (false, false),
            "nothing runs in it"
        );
    }
}
