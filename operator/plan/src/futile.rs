//! Revisions whose pods end before they were ever Ready: the kubelet takes none of them (OutOfcpu, a node selector that it does not have), and their
//! ReplicaSet makes the next at once, many a second and without end. Here they are stopped, said, and tried again one at a time.

use jiff::{SignedDuration, Timestamp};

use crate::action::Action;
use crate::census::{Census, count};
use crate::draft::Draft;
use crate::observed::{Container, Pod, Readiness, Revision, RevisionHash};

/// So many more than `replicas` may end that way: a node that restarts rejects a few.
const MANY: u32 = 5;

/// How long nothing more is made of such a revision. Whatever rejects its pods is rarely over sooner, and each try costs a few records.
const PAUSE: SignedDuration = SignedDuration::from_secs(60);

/// What is known of one.
pub(crate) struct Futile<'a> {
    /// How many pods have ended.
    pub(crate) pods: u32,
    /// The last of them.
    pub(crate) last: &'a Pod,
    /// When the next may be made.
    pub(crate) until: Timestamp,
}

/// None where its pods come well, or may.
pub(crate) fn futile<'a>(census: &Census<'a>, hash: &RevisionHash) -> Option<Futile<'a>> {
    let dead = || {
        census.pods_of(hash).filter(|p| p.container == Container::Finished && p.readiness == Readiness::Never)
    };
    let (pods, last) = (count(dead()), dead().max_by_key(|p| (p.created, &p.name))?);
    let works = |p: &Pod| p.lives() && p.container == Container::Running && p.created > last.created;
    if pods <= census.observed.app.replicas.saturating_add(MANY) || census.pods_of(hash).any(works) {
        return None;
    }
    let until = last.created.saturating_add(PAUSE).unwrap_or(Timestamp::MAX);
    Some(Futile { pods, last, until })
}

/// How many pods of a revision may be made at a time.
pub(crate) fn may_make(census: &Census<'_>, draft: &mut Draft, hash: &RevisionHash) -> u32 {
    match futile(census, hash) {
        None => u32::MAX,
        Some(Futile { until, .. }) => {
            draft.wake(census, until);
            u32::from(until <= census.now)
        }
    }
}

/// Takes back the replicas of such a revision that no pod runs behind: its ReplicaSet stops.
pub(crate) fn stop(census: &Census<'_>, draft: &mut Draft) {
    for revision in &census.observed.revisions {
        let held = futile(census, &revision.hash).is_some_and(|f| f.until > census.now);
        let started = started(census, revision);
        if held
            && revision.replicas > started
            && !draft.has_scaled(&revision.hash)
            && !draft.hindered(census, revision.hindrance.as_ref())
        {
            let (revision, from) = (revision.hash.clone(), revision.replicas);
            draft.act(Action::ScaleDown { revision, from, to: started });
        }
    }
}

fn started(census: &Census<'_>, revision: &Revision) -> u32 {
    let started = |p: &&Pod| p.lives() && p.container != Container::NeverStarted;
    count(census.pods_of(&revision.hash).filter(started))
}

/// For STATUS.
pub(crate) fn words(census: &Census<'_>, hash: &RevisionHash) -> Option<String> {
    let Futile { pods, last, .. } = futile(census, hash)?;
    let why = last.trouble.as_deref().unwrap_or("without a word of the kubelet's");
    Some(format!(
        "{pods} pods of revision {hash} ended before they were Ready, the last is {}: {why}; one more is tried every {} s",
        last.name,
        PAUSE.as_secs()
    ))
}
