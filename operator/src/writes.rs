//! What this operator's own writes to one app have met, as far as its next plan must know.
//!
//! Layer: below the stages. `execute` notes it, `observe` shows it to the planner. All of it can be lost: it is found again, or asked for again.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use graceful_plan::refusals::{Refusals, Subject};
use graceful_plan::{Backoff, BackoffCause, Brake, MARK_RESTS, PodUid, TemplateVerdict};
use jiff::Timestamp;

use crate::contest::Contest;
use crate::unseen_writes::UnseenWrites;

/// A refusal may come from a quota or a webhook that has changed its mind since: asked again once a minute. (Tests do not
/// wait as long.)
pub(crate) const REFUSAL_HOLDS: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 60 });

/// One app's.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    /// The writes that the watches may not have shown yet.
    pub(crate) unseen_writes: UnseenWrites,
    /// One of them found things changed: the next view must be a live one.
    pub(crate) look_live: bool,
    /// What the API server would not do to Deployments and pods.
    pub(crate) refusals: Refusals,
    /// Children that it refuses as the spec wants them, or gives no answer about, by kind.
    pub(crate) refused_children: BTreeMap<&'static str, Expiring<ChildRefusal>>,
    /// Children that others change back, by kind.
    pub(crate) contested: BTreeMap<&'static str, Contest>,
    /// What the dry run said of a revision.
    pub(crate) verdicts: HashMap<String, Expiring<TemplateVerdict>>,
    /// Counts the pods that were ended.
    pub(crate) brake: Brake,
    /// The last write to a pod that took longer than a spare can be let wait for.
    pub(crate) slow_pod_write: Option<Expiring<Duration>>,
    /// When pods were last marked for evictions and autoscalers.
    marked: HashMap<PodUid, Instant>,
    /// When pods were put back whose label or marks somebody else had changed.
    put_right: HashMap<PodUid, Vec<Instant>>,
    /// What was done lately that others undo, and when.
    repeated: HashMap<String, Vec<Instant>>,
    /// The `spec.replicas` that an adopted Deployment was last given, by its uid.
    pub(crate) scaled: HashMap<String, u32>,
    /// The API server said that the namespace goes.
    pub(crate) namespace_terminating: bool,
}

/// A person or two may err about a label.
const FREELY: usize = 3;
const A_MINUTE: Duration = Duration::from_secs(60);

/// For how long it counts that something was done again. More than [`FREELY`] times the longest pause between two tries, so that what goes on is still known.
pub(crate) const LATELY: Duration = Duration::from_secs(600);

/// How long it counts that a pod was slow to write to: a webhook's delays come and go.
const SLOW_FOR: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 20 });

/// What the last write to a child met.
#[derive(Clone, Debug)]
pub(crate) struct ChildRefusal {
    /// Of what was to be applied; none for a removal.
    pub(crate) fingerprint: Option<String>,
    pub(crate) kind: BackoffCause,
    pub(crate) why: String,
}

impl Writes {
    /// What the last write to it met, while that is worth telling.
    pub(crate) fn backoff(&self, subject: &Subject, now: Timestamp) -> Option<Backoff> {
        self.refusals.of(subject, now, Instant::now())
    }

    pub(crate) fn marked(&mut self, pod: &PodUid) {
        self.marked.insert(pod.clone(), Instant::now());
    }

    /// How long its mark is left alone.
    pub(crate) fn mark_rests(&self, pod: &PodUid) -> Option<Duration> {
        MARK_RESTS.checked_sub(self.marked.get(pod)?.elapsed())
    }

    /// A pod was put back whose label or marks somebody else had changed. Whether that has become a contest: so often within a minute.
    pub(crate) fn is_contested(&mut self, pod: &PodUid) -> bool {
        let times = self.put_right.entry(pod.clone()).or_default();
        times.retain(|at| at.elapsed() < A_MINUTE);
        times.push(Instant::now());
        times.len() > FREELY
    }

    /// Notes that this was done, perhaps once more since others have undone it: how often lately, where that has become a contest.
    pub(crate) fn repeats(&mut self, what: &str) -> Option<usize> {
        self.repeated.values_mut().for_each(|times| times.retain(|at| at.elapsed() < LATELY));
        self.repeated.retain(|_, times| !times.is_empty());
        let times = self.repeated.entry(what.to_owned()).or_default();
        times.push(Instant::now());
        (times.len() > FREELY).then_some(times.len())
    }

    /// Drops what concerns pods that are gone.
    pub(crate) fn keep_pods(&mut self, there: impl Fn(&PodUid) -> bool) {
        self.marked.retain(|uid, _| there(uid));
        self.put_right.retain(|uid, _| there(uid));
        self.refusals.keep_pods(there, Instant::now());
    }

    /// How long a write to a pod takes, by one that was just tried and by earlier ones; None if it is refused.
    pub(crate) fn pod_write(&self, just_now: Option<Duration>) -> Option<Duration> {
        let slow = self.slow_pod_write.as_ref().filter(|slow| slow.remaining(SLOW_FOR).is_some());
        just_now.map(|took| slow.map_or(took, |slow| slow.value.max(took)))
    }

    /// When the next refusal, or question without an answer, may be asked again; none where there is none.
    pub(crate) fn next_retry(&self) -> Option<Duration> {
        let asked_again = |v: &&Expiring<TemplateVerdict>| {
            v.value.refusal().is_some() || matches!(v.value, TemplateVerdict::Unanswered { .. })
        };
        let verdicts = self.verdicts.values().filter(asked_again).filter_map(|v| v.remaining(REFUSAL_HOLDS));
        let children = self.refused_children.values().filter_map(|r| r.remaining(REFUSAL_HOLDS));
        verdicts.chain(children).chain(self.contested.values().filter_map(Contest::held)).min()
    }
}

/// Something that holds for a while.
#[derive(Clone, Debug)]
pub(crate) struct Expiring<T> {
    pub(crate) value: T,
    since: Instant,
}

impl<T> Expiring<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value, since: Instant::now() }
    }

    /// How long it still holds; none once it does no more.
    pub(crate) fn remaining(&self, holds: Duration) -> Option<Duration> {
        holds.checked_sub(self.since.elapsed()).filter(|d| !d.is_zero())
    }
}
