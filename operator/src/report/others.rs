//! Pods at work that others end, as Events tell it: each once, with what it had in flight.
//!
//! # Flow
//! A pod is followed while something may be at work in it. Somebody ends it, and it terminates (`kubectl delete pod`, an eviction through the API), or
//! has finished without a deletion (the kubelet evicts, a node shuts down: its record stays), or is gone between two views (a deletion by force).
//! A pod whose Deployment is not in the view lives on, and is followed until it ends or is let go (`left`).
//!
//! # Caveats
//! Lost with the process: a successor tells again what still terminates, and nothing of records that it finds.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Instant;

use graceful_api::RevisionHash;
use graceful_plan::{Containers, InFlight, NodeFate, Observed, Pod, PodUid, Readiness, Report};

use super::REMEMBERED_FOR;
use super::events::{Happening, had};
use crate::observe::Observation;

/// The reason of these Events.
pub(super) const ENDED_BY_OTHERS: &str = "EndedByOthers";

/// What is remembered of it.
#[derive(Debug, Default)]
pub(super) struct Others {
    /// Pods in which something may have been at work in the last view.
    at_work: BTreeMap<PodUid, AtWork>,
    /// Told, and still in the view or lately: after a live view, an older one may show the pod once more.
    told: BTreeMap<PodUid, Instant>,
}

#[derive(Debug)]
struct AtWork {
    name: String,
    revision: RevisionHash,
    /// The pod was not being drained: nobody of ours may take it from there to nothing.
    routed: bool,
    in_flight: Option<InFlight>,
}

impl Others {
    /// What this view shows for the first time.
    pub(super) fn tell(&mut self, now: &Report, seen: &Observation, found: &mut Vec<Happening>) {
        let observed = &seen.observed;
        let there: HashMap<_, _> = observed.pods.iter().map(|p| (&p.uid, p)).collect();
        let strangers = strangers(seen);
        self.told.retain(|uid, at| there.contains_key(uid) || at.elapsed() < REMEMBERED_FOR);
        for pod in &now.ended_by_others {
            let until = match pod.grace_ends {
                Some(at) => format!("; it has until {at} to finish"),
                None => String::new(),
            };
            let how = "is ended by others (a delete, an eviction), or by its ReplicaSet (scaled by somebody, or late in following us)";
            self.once(&pod.uid, &pod.pod, how, pod.in_flight, &until, found);
        }
        let at_work = observed.pods.iter().filter(|p| at_work(observed, p)).map(|pod| {
            let (name, revision) = (pod.name.clone(), pod.revision.clone());
            let in_flight = in_flight_of(observed, &pod.uid);
            (pod.uid.clone(), AtWork { name, revision, routed: pod.routed, in_flight })
        });
        for (uid, before) in std::mem::replace(&mut self.at_work, at_work.collect()) {
            let in_flight = in_flight_of(observed, &uid).or(before.in_flight);
            let busy = in_flight.is_some_and(|f| f.total > 0);
            let stranger = strangers.get(&uid).copied();
            if stranger.is_some_and(Pod::is_active) {
                self.at_work.insert(uid, before);
                continue;
            }
            let how = match there.get(&uid).copied().or(stranger) {
                None if before.routed => {
                    "is gone, and the operator did not end it (a delete by force, or of its Deployment)"
                }
                // We end a pod by its deletion, and that is seen on it.
                Some(pod) if pod.containers == Containers::Finished && !pod.terminating => {
                    let how = seen.endings.get(&uid).map(String::as_str);
                    match before.routed || busy {
                        true => how.unwrap_or("has finished, and the operator did not end it"),
                        false => continue, // it was drained, and has nothing to lose
                    }
                }
                // Its containers still run by its record, and nobody will write another.
                Some(pod) if pod.node.fate == NodeFate::ShutDown && (before.routed || busy) => {
                    "is on a node that was shut down (node.kubernetes.io/out-of-service), and ended with it"
                }
                Some(_) if stranger.is_some() && before.routed => {
                    "is ended by others (a delete, of its Deployment perhaps)"
                }
                Some(pod) if pod.containers == Containers::Finished && before.routed => {
                    "was ended by others (a delete, an eviction)"
                }
                None | Some(_) => continue,
            };
            self.once(&uid, &before.name, how, in_flight, "", found);
        }
    }

    /// The pods that served and that no view shows.
    pub(super) fn vanished(&self, seen: &Observation) -> Vec<(PodUid, String)> {
        let strangers = strangers(seen);
        let there: HashSet<_> = seen.observed.pods.iter().map(|p| &p.uid).collect();
        let gone = self.at_work.iter().filter(|(uid, pod)| {
            pod.routed && !there.contains(uid) && !strangers.contains_key(uid) && !self.told.contains_key(uid)
        });
        gone.map(|(uid, pod)| (uid.clone(), pod.name.clone())).collect()
    }

    /// Forgets a pod that lives on, and is not ours any more.
    pub(super) fn forget(&mut self, uid: &PodUid) {
        self.at_work.remove(uid);
    }

    /// The same of all pods of a revision.
    pub(super) fn let_go_of(&mut self, revision: &RevisionHash) {
        self.at_work.retain(|_, pod| pod.revision != *revision);
    }

    fn once(
        &mut self,
        uid: &PodUid,
        name: &str,
        how: &str,
        in_flight: Option<InFlight>,
        until: &str,
        found: &mut Vec<Happening>,
    ) {
        if self.told.insert(uid.clone(), Instant::now()).is_none() {
            let note = format!("pod {name} {how}{}{until}", had(", at its last answer with ", in_flight));
            found.push(Happening::warning(ENDED_BY_OTHERS, note).of(name, uid));
        }
    }
}

/// Something may be at work in it. (A spare that is taken back, and a pod of a revision that never worked, were never Ready: these we may end as
/// they are.)
fn at_work(observed: &Observed, pod: &Pod) -> bool {
    let busy = in_flight_of(observed, &pod.uid).is_some_and(|f| f.total > 0);
    !pod.terminating && !pod.nothing_runs() && (pod.readiness != Readiness::Never || busy)
}

fn strangers(seen: &Observation) -> HashMap<&PodUid, &Pod> {
    seen.strangers.iter().map(|p| (&p.uid, p)).collect()
}

fn in_flight_of(observed: &Observed, uid: &PodUid) -> Option<InFlight> {
    Some(observed.contacts.get(uid)?.answer.as_ref()?.in_flight)
}
