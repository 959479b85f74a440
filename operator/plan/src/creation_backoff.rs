//! Revisions whose pods come to nothing, many a second and without end: the kubelet takes none of them (OutOfcpu, a taint), or admission takes our label
//! off each, so that neither its ReplicaSet nor we know it. Here they are stopped, told in STATUS, and retried one pod at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use graceful_api::RevisionHash;
use jiff::{SignedDuration, Timestamp};

use crate::action::Action;
use crate::clock::after;
use crate::count::count;
use crate::doubling::Doubling;
use crate::draft::Draft;
use crate::ids::PodUid;
use crate::observed::{Absent, Containers, Pod, Readiness, Rejected, Revision};
use crate::snapshot::Snapshot;

/// How many pods more than `replicas` may be rejected: a node that restarts rejects a few.
const REJECTIONS_TOLERATED: u32 = 5;

/// How long a Deployment may ask for pods of which none comes, counted from when its ReplicaSet has heard of it. A controller that is well makes a pod in
/// milliseconds, and one that is slow gets longer the next time.
const UNSEEN_FOR: Doubling = Doubling { first: Duration::from_secs(10), longest: Duration::from_secs(300) };

/// How long nothing more is made of such a revision. Whatever rejects its pods is rarely over sooner, and each try costs a few records.
pub(crate) const NEXT_TRY_IN: SignedDuration = SignedDuration::from_secs(60);

/// How long a rejected pod is remembered whose record is gone: a taint's manager, or a cleaner of the user's, removes them as fast as they come.
const REMEMBER_REJECTIONS_FOR: SignedDuration = SignedDuration::from_mins(10);

/// The pods of one app that ended before they were ever Ready. Kept by whoever executes plans; lost with the process, which counts the records that are still there.
#[derive(Clone, Debug, Default)]
pub struct Rejections(BTreeMap<PodUid, (RevisionHash, Timestamp, String)>);

/// Pods that Deployments ask for and that no view shows. Kept like [`Rejections`].
#[derive(Clone, Debug, Default)]
pub struct Absences(BTreeMap<RevisionHash, Asked>);

/// What one revision's Deployment asks for, and since when in vain.
#[derive(Clone, Debug, Default)]
struct Asked {
    replicas: u32,
    /// The pods there were, by number and by the newest.
    seen: (usize, Option<Timestamp>),
    /// Since when some are missing, and none comes.
    since: Option<Timestamp>,
    /// How often that was too long.
    times: u32,
    /// When more may be asked for.
    until: Option<Timestamp>,
}

impl Absences {
    /// Before each plan, with all Deployments and pods there are. Where it is known why a pod cannot be made (`ReplicaFailure`, a lag), that is the word to
    /// go by.
    pub fn update(
        &mut self,
        revisions: &[Revision],
        pods: &[Pod],
        now: Timestamp,
    ) -> BTreeMap<RevisionHash, Absent> {
        self.0.retain(|hash, _| revisions.iter().any(|r| r.hash == *hash));
        let mut found = BTreeMap::new();
        for revision in revisions {
            let asked = self.0.entry(revision.hash.clone()).or_default();
            let all = || pods.iter().filter(|p| p.revision == revision.hash);
            let seen = (all().count(), all().map(|p| p.created).max());
            if seen != asked.seen {
                *asked = Asked { seen, ..Asked::default() };
            }
            let missing = revision.replicas > count(all().filter(|p| p.is_active()));
            if !missing || revision.replica_failure.is_some() || !revision.followed {
                asked.since = None;
            } else if revision.replicas > asked.replicas || asked.since.is_none() {
                asked.since = Some(now);
            }
            asked.replicas = revision.replicas;
            let patience = UNSEEN_FOR.after(asked.times);
            let enough = |since: Timestamp| after(since, patience) <= now;
            if asked.since.is_some_and(enough) {
                asked.times = asked.times.saturating_add(1);
                (asked.since, asked.until) = (None, Some(after(now, NEXT_TRY_IN)));
            }
            if let Some(until) = asked.until {
                found.insert(revision.hash.clone(), Absent { until });
            }
        }
        found
    }
}

impl Rejections {
    /// Before each plan, with all pods there are.
    pub fn update(&mut self, pods: &[Pod], now: Timestamp) -> BTreeMap<RevisionHash, Rejected> {
        // One that was ended while it was Pending may be Failed for a moment as well.
        let ended = |p: &&Pod| {
            p.containers == Containers::Finished && p.readiness == Readiness::Never && !p.terminating
        };
        for pod in pods.iter().filter(ended) {
            let why = pod.trouble.as_deref().unwrap_or("without a word of the kubelet's");
            let words = format!("{}: {why}", pod.name);
            self.0.entry(pod.uid.clone()).or_insert((pod.revision.clone(), pod.created, words));
        }
        self.0.retain(|uid, (_, made, _)| {
            now.duration_since(*made) < REMEMBER_REJECTIONS_FOR || pods.iter().any(|p| p.uid == *uid)
        });
        let mut found: BTreeMap<RevisionHash, Rejected> = BTreeMap::new();
        for (hash, made, words) in self.0.values() {
            let new = || Rejected { pods: 0, last: *made, words: words.clone() };
            let rejected = found.entry(hash.clone()).or_insert_with(new);
            rejected.pods = rejected.pods.saturating_add(1);
            if *made > rejected.last {
                (rejected.last, rejected.words) = (*made, words.clone());
            }
        }
        found
    }
}

/// When the next pod may be made of a revision that comes to nothing; none where its pods come well, or may.
fn next_pod_at(snapshot: &Snapshot<'_>, hash: &RevisionHash) -> Option<Timestamp> {
    let after_rejections = rejected(snapshot, hash).map(|r| after(r.last, NEXT_TRY_IN));
    after_rejections.max(snapshot.observed.absent.get(hash).map(|absent| absent.until))
}

/// Its rejected pods, where these are too many and none works.
pub(crate) fn rejected<'a>(snapshot: &Snapshot<'a>, hash: &RevisionHash) -> Option<&'a Rejected> {
    let rejected = snapshot.observed.rejected.get(hash)?;
    let works = |p: &Pod| p.is_active() && p.containers == Containers::Running && p.created > rejected.last;
    let many = rejected.pods > snapshot.observed.app.replicas.saturating_add(REJECTIONS_TOLERATED);
    (many && !snapshot.pods_of(hash).any(works)).then_some(rejected)
}

/// Nothing is to be made of it just now.
pub(crate) fn is_stopped(snapshot: &Snapshot<'_>, hash: &RevisionHash) -> bool {
    next_pod_at(snapshot, hash).is_some_and(|until| !snapshot.clock.has_come(until))
}

/// How many pods of a revision may be made at a time.
pub(crate) fn may_make(snapshot: &Snapshot<'_>, hash: &RevisionHash) -> u32 {
    match next_pod_at(snapshot, hash) {
        None => u32::MAX,
        Some(until) => u32::from(snapshot.clock.has_come(until)),
    }
}

/// Takes back the replicas of such a revision that no pod runs behind: its ReplicaSet stops.
pub(crate) fn stop(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    for revision in &snapshot.observed.revisions {
        let started = match rejected(snapshot, &revision.hash) {
            Some(_) => started(snapshot, revision),
            None => snapshot.remaining_of(&revision.hash),
        };
        if is_stopped(snapshot, &revision.hash)
            && revision.replicas > started
            && !snapshot.backs_off(revision.scale_backoff.as_ref())
        {
            let (revision, from) = (revision.hash.clone(), revision.replicas);
            draft.act(Action::ScaleDown { revision, from, to: started });
        }
    }
}

fn started(snapshot: &Snapshot<'_>, revision: &Revision) -> u32 {
    count(snapshot.pods_of(&revision.hash).filter(|p| p.has_begun()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{self, serving};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn rejected(name: &str, second: i64) -> Pod {
        let trouble = Some("TaintToleration: no".to_owned());
        let (containers, readiness) = (Containers::Finished, Readiness::Never);
        Pod { containers, readiness, trouble, created: at(second), ..serving(name) }
    }

    #[test]
    fn a_rejected_pod_counts_once_also_when_its_record_is_gone() {
        let mut rejections = Rejections::default();
        let mut look =
            |pods: &[Pod], second| rejections.update(pods, at(second)).remove(&serving("a").revision);
        assert_eq!(look(&[serving("a")], 1), None);
        for second in 1..=8 {
            look(&[rejected(&format!("p{second}"), second), rejected("p1", 1)], second);
        }
        let words = "p8: TaintToleration: no".to_owned();
        assert_eq!(look(&[], 9), Some(Rejected { pods: 8, last: at(8), words }));
        let ended = Pod { terminating: true, ..rejected("spare", 9) };
        assert_eq!(look(&[ended], 9).unwrap().pods, 8, "somebody ended it as it came");
        assert_eq!(look(&[], 1000), None, "long ago");
        assert_eq!(look(&[rejected("old", 1)], 2000).unwrap().pods, 1, "its record is there");
    }

    #[test]
    fn pods_that_do_not_come_are_given_longer_each_time_until_one_comes() {
        let mut absences = Absences::default();
        let mut look = |replicas, pods: &[Pod], second| {
            let revision = Revision { replicas, ..fixture::revision("r") };
            let found = absences.update(&[revision], pods, at(second));
            found.values().next().map(|absent| absent.until.as_second())
        };
        assert_eq!((look(2, &[], 0), look(2, &[], 9)), (None, None));
        assert_eq!(look(2, &[], 10), Some(70));
        assert_eq!(look(0, &[], 11), Some(70), "they are taken back");
        assert_eq!((look(1, &[], 71), look(1, &[], 90)), (Some(70), Some(70)), "and one is tried");
        assert_eq!(look(1, &[], 91), Some(151), "for twice as long");
        assert_eq!(look(1, &[serving("a")], 92), None, "one has come");
        assert_eq!((look(2, &[serving("a")], 100), look(2, &[serving("a")], 109)), (None, None));
        assert_eq!(look(2, &[serving("a")], 110), Some(170));
    }

    #[test]
    fn pods_that_kubernetes_says_it_cannot_make_are_not_absent() {
        let failure = crate::observed::Failure { message: "exceeded quota".to_owned(), since: at(0) };
        let refused = Revision { replicas: 2, replica_failure: Some(failure), ..fixture::revision("r") };
        let mut absences = Absences::default();
        for second in 0..100 {
            assert!(absences.update(std::slice::from_ref(&refused), &[], at(second)).is_empty());
        }
    }
}
