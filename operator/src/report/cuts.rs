//! What was ended at a deadline, counted by what is seen: the one figure of status that is carried forward.
//!
//! # Flow
//! a plan tries to cut a pod → the annotation `graceful.dev/cut` → DELETE; the next view shows the pod terminating with that annotation, or gone, or
//! (nothing came of it) alive. The first two are counted, whether or not the DELETE's answer or the scale after it came through.
//!
//! # Guarantees
//! Each pod is counted once by one process. A successor counts those that still terminate and are not in `status.cutEnding`, which is written
//! together with the figures.
//!
//! # Caveats
//! Not counted: a pod whose DELETE had its effect and that was gone before the operator that sent it, and crashed, has a successor; and one that was
//! counted by an operator that crashed before it wrote status and was gone by then. A pod that somebody else deletes in the moment in which it
//! is cut counts as cut. A queue worker that exits by itself in the very second in which its grace is over counts as killed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use graceful_api::{Cut, GracefulAppStatus};
use graceful_plan::{Action, Containers, Pod, PodUid, Proof};
use jiff::{SignedDuration, Timestamp};

use super::REMEMBERED_FOR;
use super::events::Happening;

/// What is remembered of it.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    /// None before the first look at status.
    total: Option<Cut>,
    /// Counted, and still in the view.
    ending: BTreeSet<PodUid>,
    /// Counted lately: after a live view, an older one may show the pod once more.
    lately: BTreeMap<PodUid, Instant>,
    /// Tried in the last plan: name, and count where it is known.
    tried: BTreeMap<PodUid, (String, Option<u64>)>,
    /// Ended while something may have been at work in them, with a grace period to finish it.
    with_grace: BTreeMap<PodUid, Finishing>,
}

/// A pod that finishes what it is at, in its grace period.
#[derive(Clone, Debug)]
struct Finishing {
    name: String,
    /// When it is killed at the latest, and how many seconds its grace is; none until it is seen terminating.
    killed: Option<(Timestamp, i64)>,
    /// What it had in flight by its last answer.
    tasks: Option<u64>,
}

impl Finishing {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), killed: None, tasks: None }
    }

    /// Its deletion as it is seen now. The API server reckons a grace that somebody shortens from the deletion on, and the kubelet from when it hears of it.
    fn sees(&mut self, pod: &Pod, now: Timestamp) {
        let Some(ends) = pod.grace_ends else { return };
        let grace = pod.ends_since.map_or(0, |since| ends.duration_since(since).as_secs());
        // The kubelet's last act on a pod whose containers have ended: it takes the record away, and shortens nothing.
        if grace == 0 && pod.containers == Containers::Finished {
            return;
        }
        if self.killed.is_none_or(|(_, known)| known != grace) {
            let left = SignedDuration::from_secs(grace);
            let shortened = self.killed.is_some().then(|| now.checked_add(left).unwrap_or(ends));
            self.killed = Some((shortened.unwrap_or(ends), grace));
        }
    }
}

impl Cuts {
    pub(crate) fn total(&self) -> Cut {
        self.total.unwrap_or_default()
    }

    pub(crate) fn ending(&self) -> impl Iterator<Item = &PodUid> {
        self.ending.iter()
    }

    /// Counts what this view shows for the first time, and remembers what is tried on it. `handed_over` are the pods that drain themselves after their DELETE, with
    /// what each had in flight by its last answer.
    pub(crate) fn newly_seen(
        &mut self,
        status: Option<&GracefulAppStatus>,
        pods: &[Pod],
        handed_over: &BTreeMap<PodUid, Option<u64>>,
        tried: &[Action],
        now: Timestamp,
    ) -> Vec<Happening> {
        if self.total.is_none() {
            self.total = Some(status.map(|s| s.cut).unwrap_or_default());
            self.ending =
                status.into_iter().flat_map(|s| &s.cut_ending).map(|uid| PodUid(uid.clone())).collect();
        }
        let there = |uid: &PodUid| pods.iter().any(|p| p.uid == *uid);
        let mut found: BTreeMap<_, _> = std::mem::take(&mut self.tried);
        found.retain(|uid, _| !there(uid)); // gone already
        let marked = pods.iter().filter(|p| p.terminating);
        found.extend(marked.filter_map(|p| Some((p.uid.clone(), (p.name.clone(), p.cut?.tasks)))));
        found.extend(self.killed(pods, handed_over, now));
        let mut happened = Vec::new();
        for (uid, (name, tasks)) in found {
            let known = self.lately.insert(uid.clone(), Instant::now()).is_some();
            if self.ending.insert(uid.clone()) && !known {
                let total = self.total.get_or_insert_default();
                total.pods = total.pods.saturating_add(1);
                total.tasks = total.tasks.saturating_add(tasks.unwrap_or_default());
                let tasks = tasks.map_or_else(
                    || "an unknown number of tasks".to_owned(),
                    |n| if n == 1 { "1 task".to_owned() } else { format!("{n} tasks") },
                );
                let note = format!("pod {name} was ended at its deadline with {tasks} in flight");
                happened.push(Happening::warning("Cut", note).of(&name, &uid));
            }
        }
        self.ending.retain(there);
        self.lately.retain(|_, at| at.elapsed() < REMEMBERED_FOR);
        self.tried = tried.iter().filter_map(cut).collect();
        for action in tried {
            if let Action::Retire {
                pod,
                proof: Proof::NeverWorked { .. } | Proof::HandedOver { .. } | Proof::TokenRefused { .. },
                ..
            } = action
            {
                self.with_grace.entry(pod.uid.clone()).or_insert_with(|| Finishing::new(&pod.name));
            }
        }
        happened
    }

    /// Pods that were ended while something may have been at work in them. One that was there until its grace period was over was killed, at what it had by its last
    /// answer, if that was anything; one that went before has finished.
    fn killed(
        &mut self,
        pods: &[Pod],
        handed_over: &BTreeMap<PodUid, Option<u64>>,
        now: Timestamp,
    ) -> Vec<(PodUid, (String, Option<u64>))> {
        let mut killed = Vec::new();
        // Those that a former leader has handed over as well.
        for pod in pods.iter().filter(|p| handed_over.contains_key(&p.uid)) {
            self.with_grace.entry(pod.uid.clone()).or_insert_with(|| Finishing::new(&pod.name));
        }
        self.with_grace.retain(|uid, its| match pods.iter().find(|p| p.uid == *uid) {
            Some(pod) if pod.terminating => {
                its.sees(pod, now);
                its.tasks = handed_over.get(uid).copied().flatten().or(its.tasks);
                true
            }
            Some(_) => false, // it was not ended
            None => {
                let over = its.killed.is_some_and(|(at, _)| at.duration_since(now) <= WATCH_LAG);
                if over && its.tasks != Some(0) {
                    killed.push((uid.clone(), (its.name.clone(), its.tasks)));
                }
                false
            }
        });
        killed
    }
}

/// A kill comes at the end of the grace period, and is seen a moment later; clocks differ by as much.
const WATCH_LAG: SignedDuration = SignedDuration::from_secs(1);

fn cut(action: &Action) -> Option<(PodUid, (String, Option<u64>))> {
    match action {
        Action::Retire { pod, proof: Proof::Cut { tasks, .. }, .. } => {
            Some((pod.uid.clone(), (pod.name.clone(), *tasks)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graceful_api::RevisionHash;
    use graceful_plan::{CutNote, Endpoints, Epoch, Mark, Node, PodRef, Readiness};

    fn pod(uid: &str, terminating: bool, cut: Option<u64>) -> Pod {
        Pod {
            name: uid.to_owned(),
            uid: PodUid::from(uid),
            revision: RevisionHash::from("v1"),
            created: Timestamp::UNIX_EPOCH,
            enlisted: true,
            terminating,
            routed: false,
            epoch: None,
            drain: None,
            cheapest: false,
            bridged: false,
            endpoints: Endpoints::Withdrawn,
            mark: Mark::Absent,
            mark_rests_until: None,
            cut: cut.map(|n| CutNote { tasks: Some(n) }),
            ends_since: None,
            grace_ends: None,
            readiness: Readiness::Never,
            containers: Containers::Running,
            node: Node::default(),
            unschedulable: None,
            grace_seconds: 30,
            trouble: None,
            write_backoff: None,
        }
    }

    fn tried(uid: &str, tasks: u64) -> Action {
        Action::Retire {
            pod: PodRef { name: uid.to_owned(), uid: PodUid::from(uid) },
            revision: RevisionHash::from("v1"),
            replicas: 1,
            proof: Proof::Cut { epoch: Epoch(1), tasks: Some(tasks) },
            as_well: Vec::new(),
        }
    }

    /// Keeps P8.
    #[test]
    fn a_cut_counts_once_whether_or_not_its_answer_came() {
        let mut cuts = Cuts::default();
        let mut look = |pods: &[Pod], tried: &[Action]| {
            let told = cuts.newly_seen(None, pods, &BTreeMap::new(), tried, Timestamp::UNIX_EPOCH).len();
            (cuts.total().pods, cuts.total().tasks, told)
        };
        assert_eq!(look(&[pod("a", false, None)], &[tried("a", 3)]), (0, 0, 0), "nothing is known yet");
        assert_eq!(
            look(&[pod("a", false, Some(3))], &[tried("a", 4)]),
            (0, 0, 0),
            "annotated, and still alive"
        );
        assert_eq!(look(&[pod("a", true, Some(4))], &[]), (1, 4, 1), "its DELETE went through");
        assert_eq!(look(&[pod("a", true, Some(4))], &[]), (1, 4, 0));
        assert_eq!(look(&[pod("b", false, None)], &[tried("b", 2)]), (1, 4, 0));
        assert_eq!(look(&[], &[]), (2, 6, 1), "gone before it was seen terminating");
        assert_eq!(look(&[pod("b", true, Some(2))], &[]), (2, 6, 0), "an older view shows it once more");
        assert_eq!(look(&[pod("c", false, None)], &[tried("c", 9)]), (2, 6, 0));
        assert_eq!(look(&[pod("c", true, None)], &[]), (2, 6, 0), "somebody else's delete came first");
        assert_eq!(look(&[], &[]), (2, 6, 0));
    }

    /// A pull consumer that was never Ready, under `onDeadline: Terminate`: nobody knows what it had, and that it was cut is counted.
    #[test]
    fn what_is_killed_at_the_end_of_its_grace_period_is_cut() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let ended = |uid: &str, proof| Action::Retire {
            pod: PodRef { name: uid.to_owned(), uid: PodUid::from(uid) },
            revision: RevisionHash::from("v1"),
            replicas: 1,
            proof,
            as_well: Vec::new(),
        };
        let ending = |uid: &str| Pod { grace_ends: Some(at(120)), ..pod(uid, true, None) };
        let mut cuts = Cuts::default();
        let mut look = |pods: &[Pod], tried: &[Action], now: i64| {
            let told = cuts.newly_seen(None, pods, &BTreeMap::new(), tried, at(now)).len();
            (cuts.total().pods, cuts.total().tasks, told)
        };
        let never = Proof::NeverWorked { grace_seconds: 120 };
        let refused = Proof::TokenRefused { epoch: Epoch(1), grace_seconds: 120 };
        let all = ["a", "b", "c"];
        let tried = [ended("a", never), ended("b", never), ended("c", refused)];
        look(&all.map(|uid| pod(uid, false, None)), &tried, 0);
        assert_eq!(look(&all.map(ending), &[], 1), (0, 0, 0));
        assert_eq!(look(&[ending("a"), ending("c")], &[], 60), (0, 0, 0), "b has finished by itself");
        assert_eq!(look(&[], &[], 121), (2, 0, 2), "the others were killed");
        assert_eq!(look(&[], &[], 122), (2, 0, 0));
    }

    /// A queue worker has what is left of its grace, by whichever leader it was handed over; one that exits by itself is not cut, whatever it said last.
    #[test]
    fn a_queue_worker_that_is_killed_is_cut_with_its_last_count() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let ending = |uid: &str, grace| Pod {
            ends_since: Some(at(0)),
            grace_ends: Some(at(grace)),
            ..pod(uid, true, None)
        };
        let mut cuts = Cuts::default();
        let mut look = |pods: &[Pod], counts: &[(&str, Option<u64>)], now: i64| {
            let counts = counts.iter().map(|(uid, n)| (PodUid::from(*uid), *n)).collect();
            let told = cuts.newly_seen(None, pods, &counts, &[], at(now)).len();
            (cuts.total().pods, cuts.total().tasks, told)
        };
        let all = [ending("exits", 100), ending("killed", 100), ending("idle", 100)];
        look(&all, &[("exits", Some(2)), ("killed", Some(3)), ("idle", Some(0))], 10);
        let left = [ending("killed", 100), ending("idle", 100)];
        assert_eq!(look(&left, &[("killed", None), ("idle", Some(0))], 50), (0, 0, 0), "it has exited");
        assert_eq!(look(&[], &[], 100), (1, 3, 1), "with its last known count; the idle one loses nothing");
        // Somebody shortens the grace an hour later: it is reckoned from the deletion, and lasts from now.
        let long = |grace| ending("long", grace);
        look(&[long(604_800)], &[("long", Some(4))], 3600);
        look(&[long(30)], &[("long", Some(4))], 3610);
        assert_eq!(look(&[], &[], 3620), (1, 3, 0), "it has finished within them");
        look(&[ending("last", 604_800)], &[("last", Some(5))], 3630);
        look(&[ending("last", 30)], &[("last", Some(5))], 3640);
        assert_eq!(look(&[], &[], 3670), (2, 8, 1));
        // The kubelet's last act on a pod that has ended is a deletion without a grace.
        let over = |uid: &str, since: i64, containers| Pod {
            ends_since: Some(at(since)),
            grace_ends: Some(at(since)),
            containers,
            ..pod(uid, true, None)
        };
        look(&[ending("done", 604_800)], &[("done", Some(6))], 3700);
        look(&[over("done", 3710, Containers::Finished)], &[], 3710);
        assert_eq!(look(&[], &[], 3710), (2, 8, 0), "it has exited by itself");
        look(&[ending("forced", 604_800)], &[("forced", Some(7))], 3720);
        look(&[over("forced", 3730, Containers::Running)], &[], 3730);
        assert_eq!(look(&[], &[], 3730), (3, 15, 1), "somebody deleted it by force");
    }

    #[test]
    fn a_successor_counts_what_still_ends_and_is_not_in_status() {
        let mut before = Cuts::default();
        before.newly_seen(None, &[pod("a", true, Some(3))], &BTreeMap::new(), &[], Timestamp::UNIX_EPOCH);
        let status = GracefulAppStatus {
            cut: before.total(),
            cut_ending: before.ending().map(|uid| uid.0.clone()).collect(),
            ..GracefulAppStatus::default()
        };
        assert_eq!(status.cut_ending, ["a"]);
        let mut after = Cuts::default();
        let ending = [pod("a", true, Some(3)), pod("b", true, Some(2))];
        let happened = after.newly_seen(Some(&status), &ending, &BTreeMap::new(), &[], Timestamp::UNIX_EPOCH);
        assert_eq!((after.total().pods, after.total().tasks, happened.len()), (2, 5, 1));
        after.newly_seen(Some(&status), &[], &BTreeMap::new(), &[], Timestamp::UNIX_EPOCH);
        assert_eq!(after.ending().count(), 0, "status does not grow with the years");
    }
}
