//! How many questions may be open at once, of one app and of all: endpoints that are slow wait for their like, and never for descriptors.

use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Where a question queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// A decision waits for the answer, and the pod's last attempt did not fail.
    Answers,
    /// The same, of a pod that failed last time: it may hold its slot for the whole time-out.
    Fails,
    /// For the report alone: never in the way of a decision.
    Survey,
}

/// Of one app, whatever the others do. Who answers is done within milliseconds, so there are plenty; who does not shares a few with its like, and costs
/// a slot among those that answer once, the first time. Where hundreds of its pods drain and each takes a second to answer, these are too few to hear
/// each of them often enough for a quiet zero: the app then takes more, of what nobody needs just now ([`Lanes::spare`]).
const OF_AN_APP: Shares = Shares { answers: 64, fails: 8, surveys: 4 };

/// Descriptors that are not ours to spend: watches, calls to the API server, who asks for metrics.
const OTHERS: u64 = 256;

/// More sockets than this at once help nobody.
const MOST: u64 = 16 * 1024;

#[derive(Clone, Copy)]
struct Shares {
    answers: usize,
    fails: usize,
    surveys: usize,
}

struct Lanes {
    shares: Shares,
    answers: Arc<Semaphore>,
    fails: Arc<Semaphore>,
    surveys: Arc<Semaphore>,
}

impl Lanes {
    fn new(shares: Shares) -> Self {
        let Shares { answers, fails, surveys } = shares;
        let of = |n| Arc::new(Semaphore::new(n));
        Self { shares, answers: of(answers), fails: of(fails), surveys: of(surveys) }
    }

    /// A slot for an answer while more than half of them are free: the other half is for apps that have not taken their own yet.
    fn spare(&self, lane: Lane) -> Option<OwnedSemaphorePermit> {
        let plenty = lane == Lane::Answers && self.answers.available_permits() > self.shares.answers / 2;
        plenty.then(|| Arc::clone(&self.answers).try_acquire_owned().ok())?
    }

    fn queue(&self, lane: Lane) -> Arc<Semaphore> {
        Arc::clone(match lane {
            Lane::Answers => &self.answers,
            Lane::Fails => &self.fails,
            Lane::Survey => &self.surveys,
        })
    }
}

/// The slots of all apps together.
#[derive(Clone)]
pub(crate) struct AllSlots {
    lanes: Arc<Lanes>,
    watches: Arc<Semaphore>,
}

impl AllSlots {
    /// As many as this process may have descriptors; its soft limit is raised to the hard one first.
    pub(crate) fn of_this_process() -> Self {
        Self::of(descriptors())
    }

    fn of(descriptors: u64) -> Self {
        let ours = usize::try_from(descriptors.saturating_sub(OTHERS).clamp(64, MOST)).unwrap_or(64);
        let shares = Shares { answers: ours / 2, fails: ours / 8, surveys: ours / 8 };
        Self { lanes: Arc::new(Lanes::new(shares)), watches: Arc::new(Semaphore::new(ours / 4)) }
    }
}

/// The slots of one app.
#[derive(Clone)]
pub(crate) struct Slots {
    app: Arc<Lanes>,
    all: AllSlots,
}

/// A slot that is held; given back when it is dropped.
pub(crate) struct Slot {
    _held: (Option<OwnedSemaphorePermit>, Option<OwnedSemaphorePermit>),
}

impl Slots {
    pub(crate) fn of_app(all: &AllSlots) -> Self {
        Self { app: Arc::new(Lanes::new(OF_AN_APP)), all: all.clone() }
    }

    /// Waits for a slot: first among its app's, so that an app that has many questions keeps no other waiting.
    pub(crate) async fn take(&self, lane: Lane) -> Slot {
        let app = self.app.queue(lane);
        if app.available_permits() == 0
            && let Some(spare) = self.all.lanes.spare(lane)
        {
            return Slot { _held: (None, Some(spare)) };
        }
        // The semaphores are never closed.
        let app = app.acquire_owned().await.ok();
        let all = self.all.lanes.queue(lane).acquire_owned().await.ok();
        Slot { _held: (app, all) }
    }

    /// A slot for an answer that is held until something changes, if one is free. Without, one asks again from time to time.
    pub(crate) fn try_watch(&self) -> Option<Slot> {
        let permit = Arc::clone(&self.all.watches).try_acquire_owned().ok()?;
        Some(Slot { _held: (Some(permit), None) })
    }
}

/// How many descriptors this process may have open. Container runtimes start it with 1,024 of half a million.
fn descriptors() -> u64 {
    const USUAL: u64 = 1024;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return USUAL };
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        return hard;
    }
    soft
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// A slot, if one is free. (tokio would have a task that takes so many at once pause.)
    fn free(slots: &Slots, lane: Lane) -> Option<Slot> {
        tokio::task::unconstrained(slots.take(lane)).now_or_never()
    }

    const EACH: [Lane; 3] = [Lane::Answers, Lane::Fails, Lane::Survey];

    #[test]
    fn who_fails_waits_for_its_like_alone() {
        let slots = Slots::of_app(&AllSlots::of(1024));
        let mut held: Vec<_> = (0..OF_AN_APP.fails).filter_map(|_| free(&slots, Lane::Fails)).collect();
        assert!(free(&slots, Lane::Fails).is_none(), "no slot left");
        assert!(free(&slots, Lane::Answers).is_some());
        assert!(free(&slots, Lane::Survey).is_some());
        held.pop();
        assert!(free(&slots, Lane::Fails).is_some());
    }

    #[test]
    fn an_app_of_black_holes_keeps_no_other_waiting() {
        let all = AllSlots::of(1024);
        let (holes, other) = (Slots::of_app(&all), Slots::of_app(&all));
        let mut held = Vec::new();
        for lane in EACH {
            held.extend(std::iter::from_fn(|| free(&holes, lane)));
            assert!(free(&other, lane).is_some(), "{lane:?}");
        }
        assert!(held.len() >= OF_AN_APP.answers + OF_AN_APP.fails + OF_AN_APP.surveys);
    }

    /// Five hundred pods that take two seconds to answer, each to be heard within seven.
    #[test]
    fn an_app_with_many_slow_pods_takes_what_nobody_needs() {
        let all = AllSlots::of(4096);
        let (many, other) = (Slots::of_app(&all), Slots::of_app(&all));
        let held: Vec<_> = std::iter::from_fn(|| free(&many, Lane::Answers)).collect();
        assert!(held.len() > 500, "{}", held.len());
        let left: Vec<_> = std::iter::from_fn(|| free(&other, Lane::Answers)).collect();
        assert!(left.len() >= OF_AN_APP.answers, "{}", left.len());
    }

    /// However many apps there are.
    #[test]
    fn all_together_stay_below_the_descriptors() {
        for descriptors in [0, 1024, 1 << 40] {
            let all = AllSlots::of(descriptors);
            let mut held = Vec::new();
            for _ in 0..300 {
                let app = Slots::of_app(&all);
                EACH.iter().for_each(|s| held.extend(std::iter::from_fn(|| free(&app, *s))));
                held.extend(std::iter::from_fn(|| app.try_watch()));
            }
            let most = descriptors.saturating_sub(OTHERS).clamp(64, MOST);
            assert!(held.len() as u64 <= most, "{} of {most}", held.len());
            assert!(held.len() >= 56, "only {}", held.len());
        }
    }

    #[test]
    fn the_soft_limit_is_raised() {
        let known = descriptors();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!((known, soft), (soft, hard));
    }
}
