//! Pods that end. Those that others end (`kubectl delete pod`, an eviction, preemption, a ReplicaSet that was scaled by somebody else) drain themselves
//! in their grace period (P2); nothing is decided here but what is said of them, and who is still asked. And those that take long, or may still accept, whoever ends them.

use graceful_api::Signal;
use graceful_api::conditions::Reason;

use crate::clock::{after, seconds};
use crate::contact::InFlight;
use crate::handed_over::is_handed_over;
use crate::observed::{Pod, Readiness, Warning};
use crate::phrases::{and_more, whole_seconds};
use crate::snapshot::Snapshot;

/// How long a pod may take to end before that is said: longer than Kubernetes' own grace period, and than most programs need to stop.
const SLOW_SECONDS: u32 = 60;

/// Terminating pods that we did not end and in which something may be at work.
pub(crate) fn ended_by_others<'a>(snapshot: &Snapshot<'a>) -> impl Iterator<Item = &'a Pod> {
    snapshot.observed.pods.iter().filter(|p| p.terminating && by_others(snapshot, p))
}

/// Those of them that are known to have something in flight: what a person would want to wait for. Of the others an Event tells once.
pub(crate) fn busy<'a>(snapshot: &Snapshot<'a>) -> impl Iterator<Item = (&'a Pod, InFlight)> {
    let count = |p: &Pod| snapshot.answer(p).map(|a| a.in_flight).filter(|f| f.total > 0);
    ended_by_others(snapshot).filter_map(move |p| Some((p, count(p)?)))
}

/// The Warning condition's part: the pod that has been ending longest, and how many others there are. It serves nobody and nothing waits for it, but it
/// has its node and its place in a quota, perhaps for days. What it has in flight by its last answer, if it has, is in WAITING-FOR.
pub(crate) fn end_slowly(snapshot: &Snapshot<'_>) -> Option<Warning> {
    let mut slow = Vec::new();
    // One that drains itself is no news a minute later.
    for pod in snapshot.observed.pods.iter().filter(|p| p.may_run() && !is_handed_over(snapshot.observed, p))
    {
        let Some(since) = pod.ends_since else { continue };
        let slow_from = after(since, seconds(SLOW_SECONDS));
        if snapshot.clock.has_come(slow_from) {
            slow.push((since, pod));
        }
    }
    slow.sort_by_key(|(since, pod)| (*since, &pod.name));
    let (since, pod) = slow.first()?;
    let others = and_more(slow.len() - 1);
    let since = whole_seconds(*since);
    let what = match (pod.node.is_silent(), pod.grace_ends) {
        (true, _) => {
            "its node is not Ready, so nobody knows whether it still runs; if the node is lost for good, remove it from the cluster"
                .to_owned()
        }
        (false, Some(at)) => format!(
            "it is finishing its work, or ignores SIGTERM (for example a shell as PID 1); it may go on until {}",
            whole_seconds(at)
        ),
        (false, None) => "it is finishing its work, or ignores SIGTERM (for example a shell as PID 1)".to_owned(),
    };
    let message = format!("{}{others}: ending since {since}: {what}", pod.name);
    Some(Warning { reason: Reason::EndsSlowly, message })
}

/// One that a Service which is fenced for an adoption would lead clients to, if it selected as before: with no Ready pod there, kube-proxy takes those that end and are still Ready, and
/// what such a pod accepts ends with it. Waited for until its grace period is over, at most.
pub(crate) fn ends_behind_a_fence<'a>(snapshot: &Snapshot<'a>) -> Option<&'a Pod> {
    if snapshot.observed.surroundings.fenced.is_empty() {
        return None;
    }
    let is_over = |p: &Pod| p.grace_ends.is_some_and(|at| snapshot.clock.has_come(at));
    let may_accept =
        |p: &&Pod| p.terminating && p.may_run() && !p.nothing_runs() && !p.node.is_silent() && !is_over(p);
    // All of them, so that the plan is made again as the first grace period ends.
    snapshot.observed.pods.iter().filter(may_accept).max_by_key(|p| p.grace_ends)
}

/// WAITING-FOR of an app that goes, or leaves.
pub(crate) fn why_fences_stay(snapshot: &Snapshot<'_>) -> Option<String> {
    let pod = ends_behind_a_fence(snapshot)?;
    let until = pod.grace_ends.map(|at| format!(", until {} at the latest", whole_seconds(at)));
    let until = until.unwrap_or_default();
    Some(format!(
        "pod {} has drained and ends{until}; then the Services select as before: they would lead clients to it",
        pod.name
    ))
}

/// Whether others ended it. A pod that we end has a drain note, and nothing known in flight; or it is handed over to its own drain, or has a cut note. Only one in which nothing
/// runs is ended without a note. (A spare that a ReplicaSet deletes again was never Ready.)
fn by_others(snapshot: &Snapshot<'_>, pod: &Pod) -> bool {
    let busy = snapshot.answer(pod).is_some_and(|a| a.in_flight.total > 0);
    let ours = match pod.drain {
        Some(_) if !pod.routed => !busy || snapshot.policy(pod).signal == Signal::Sigterm,
        Some(_) | None => pod.readiness == Readiness::Never && !busy,
    };
    pod.may_run() && !pod.nothing_runs() && pod.cut.is_none() && !ours
}

#[cfg(test)]
mod tests {
    use graceful_api::DrainReason;
    use jiff::Timestamp;

    use super::*;
    use crate::contact::{Answer, Contact};
    use crate::fixture;
    use crate::ids::Epoch;
    use crate::observed::{Containers, CutNote, DrainNote, Kubelet, Observed};

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
        let snapshot = Snapshot::of(&observed, at);
        (ended_by_others(&snapshot).count() == 1, busy(&snapshot).count() == 1)
    }

    fn noted(pod: &mut Pod) {
        pod.routed = false;
        pod.epoch = Some(Epoch(1));
        pod.drain = Some(DrainNote { reason: DrainReason::Rollout, since: Timestamp::UNIX_EPOCH });
    }

    #[test]
    fn a_pod_that_others_end_is_told_from_one_that_we_ended() {
        let judge = |in_flight, edit: fn(&mut Pod)| judged(Signal::Http, in_flight, edit);
        assert_eq!(judge(Some(3), |_| ()), (true, true), "it served, and nobody drained it");
        assert_eq!(judge(Some(0), |_| ()), (true, false), "with nothing to wait for");
        assert_eq!(judge(None, |_| ()), (true, false), "unheard");
        assert_eq!(judge(None, |p| p.terminating = false), (false, false));
        assert_eq!(judge(Some(0), noted), (false, false), "we ended it, idle");
        assert_eq!(judge(None, noted), (false, false), "a restarted operator cannot tell, and says nothing");
        assert_eq!(judge(Some(2), noted), (true, true), "in mid-drain: the way out of a held one");
        assert_eq!(
            judge(Some(2), |p| p.node.kubelet = Kubelet::Silent),
            (true, true),
            "on a lost node: nobody knows that it is done"
        );
        assert_eq!(judged(Signal::Sigterm, Some(2), noted), (false, false), "its own drain is the drain");
        let cut = |p: &mut Pod| {
            noted(p);
            p.cut = Some(CutNote { tasks: Some(2) });
        };
        assert_eq!(judged(Signal::Http, Some(2), cut), (false, false), "counted as cut");
        let spare = |p: &mut Pod| p.readiness = Readiness::Never;
        assert_eq!(judged(Signal::Http, None, spare), (false, false), "a spare that is taken back");
        assert_eq!(
            judge(Some(1), |p| p.containers = Containers::Crashed),
            (false, false),
            "nothing runs in it"
        );
    }

    #[test]
    fn what_ends_slowly_is_said_with_its_last_moment() {
        let describe = |now: i64, edit: fn(&mut Pod)| {
            let at = |second| Timestamp::from_second(second).unwrap();
            let (ends_since, grace_ends) = (Some(at(0)), Some(at(604_800)));
            let first = Pod { terminating: true, ends_since, grace_ends, ..fixture::serving("tasks-v1-1") };
            let second = Pod { name: "tasks-v1-0".to_owned(), ends_since: Some(at(20)), ..first.clone() };
            let mut pods = vec![second, first];
            pods.iter_mut().for_each(edit);
            let app = fixture::app(1, fixture::policy(Signal::Http));
            let observed = Observed { pods, ..fixture::observed(app) };
            let snapshot = Snapshot::of(&observed, at(now));
            let warning = end_slowly(&snapshot).map(|w| w.message).unwrap_or_default();
            (warning, snapshot.clock.next().map(Timestamp::as_second))
        };
        assert_eq!(describe(59, |_| ()), (String::new(), Some(60)), "and looked at again when it is due");
        let swallows = "tasks-v1-1: ending since 1970-01-01T00:00:00Z: it is finishing its work, or ignores SIGTERM (for example a shell as \
                        PID 1); it may go on until 1970-01-08T00:00:00Z";
        assert_eq!(describe(60, |_| ()), (swallows.to_owned(), Some(80)));
        assert!(describe(80, |_| ()).0.starts_with("tasks-v1-1 (and 1 more pod): "));
        assert!(describe(60, |p| p.node.kubelet = Kubelet::Silent).0.contains("remove it from the cluster"));
        assert_eq!(
            describe(600, |p| p.containers = Containers::Finished),
            (String::new(), None),
            "nothing runs in it"
        );
        assert_eq!(describe(600, |p| p.ends_since = None), (String::new(), None));
    }
}
