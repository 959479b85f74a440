//! What this process remembers of an app between two plans. All of it can be lost: it is found again, or asked for again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use graceful_api::RevisionHash;
use graceful_plan::{Absences, Brake, Hindered, Lags, PodUid, Rejections, TemplateVerdict};
use jiff::Timestamp;

use crate::contest::Contest;
use crate::observe::Written;
use crate::refusals::Refusals;
use crate::report::{Cuts, Told};

/// A refusal may come from a quota or a webhook that has changed its mind since: asked again once a minute. (Tests do not
/// wait as long.)
pub(crate) const REFUSAL_HOLDS: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 60 });

/// One app's memory, held by its reconcile. By uid: a new app under an old name starts afresh.
#[derive(Debug, Default)]
pub(crate) struct AppMemory {
    /// Our own writes that the watches may not have shown yet.
    pub(crate) written: Written,
    /// An action found things changed: the next view must be a live one.
    pub(crate) look_live: bool,
    /// When the last live view was taken, or this memory began.
    pub(crate) viewed_live: Option<Instant>,
    /// The last plan left something under way.
    pub(crate) active: bool,
    /// How long what is remembered may be trusted, as the last plan left the app.
    pub(crate) look: Option<Duration>,
    /// Plans in a row that found things changed.
    pub(crate) looks: u32,
    /// What the dry run said of a revision.
    pub(crate) verdicts: HashMap<String, Held<TemplateVerdict>>,
    /// Pods of a node whose clock is ahead: since when they are Ready by that clock, and since when we know.
    pub(crate) ready_ahead: HashMap<PodUid, (Timestamp, Timestamp)>,
    /// Children that Kubernetes refuses as the spec wants them, or gives no answer about, by kind.
    pub(crate) refused: BTreeMap<&'static str, Held<ChildRefusal>>,
    /// What the API server would not do to Deployments and pods.
    pub(crate) refusals: Refusals,
    /// Counts the pods that were ended.
    pub(crate) brake: Brake,
    /// Pods that ended before they were ever Ready.
    pub(crate) rejections: Rejections,
    /// Deployments that their controller has not taken up.
    pub(crate) lags: Lags,
    /// When a pod of a revision was last ended and its Deployment scaled down for it.
    pub(crate) taken_back: BTreeMap<RevisionHash, Instant>,
    /// Pods that are asked for and do not come.
    pub(crate) absences: Absences,
    /// Children that others change back, by kind.
    pub(crate) contested: BTreeMap<&'static str, Contest>,
    /// The API server said that the namespace goes.
    pub(crate) namespace_terminating: bool,
    /// When the namespace was last read for that.
    pub(crate) namespace_read: Option<Instant>,
    /// What was cut, as far as status has it and since.
    pub(crate) cuts: Cuts,
    /// When status was last written.
    pub(crate) reported: Option<Instant>,
    /// How often in a row its write was refused since.
    pub(crate) status_refused: u32,
    /// What Events have told so far.
    pub(crate) told: Told,
    /// The invalid spec that an Event was sent for.
    pub(crate) invalid: Option<String>,
    /// Reconciles that failed in a row.
    pub(crate) failures: u32,
    /// No plan before this moment, whatever asks, unless the user changes something: after a panic, or while nothing can be read.
    pub(crate) rests: Option<Rest>,
}

/// What the last write to a child met.
#[derive(Clone, Debug)]
pub(crate) struct ChildRefusal {
    /// Of what was to be applied; none for a removal.
    pub(crate) fingerprint: Option<String>,
    pub(crate) kind: Hindered,
    pub(crate) why: String,
}

/// A pause that watch events do not shorten.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rest {
    pub(crate) until: Instant,
    /// The generation and the deletion that it holds for.
    pub(crate) of: (Option<i64>, bool),
}

impl AppMemory {
    /// When the next refusal may be asked about again; none where nothing is refused.
    pub(crate) fn next_retry(&self) -> Option<Duration> {
        let refused = |v: &&Held<TemplateVerdict>| v.value.refusal().is_some();
        let verdicts = self.verdicts.values().filter(refused).filter_map(|v| v.remaining(REFUSAL_HOLDS));
        let refused = self.refused.values().filter_map(|r| r.remaining(REFUSAL_HOLDS));
        verdicts.chain(refused).chain(self.contested.values().filter_map(Contest::held)).min()
    }
}

/// Something that holds for a while.
#[derive(Clone, Debug)]
pub(crate) struct Held<T> {
    /// What.
    pub(crate) value: T,
    since: Instant,
}

impl<T> Held<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value, since: Instant::now() }
    }

    /// How long it still holds; none once it does no more.
    pub(crate) fn remaining(&self, holds: Duration) -> Option<Duration> {
        holds.checked_sub(self.since.elapsed()).filter(|d| !d.is_zero())
    }
}

/// All apps' memories.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    apps: Mutex<HashMap<String, Shared>>,
    /// Apps seen with `--cascade=orphan`: the garbage collector takes its mark off within moments, and we must not drain then.
    orphaned: Mutex<HashSet<String>>,
}

type Shared = Arc<tokio::sync::Mutex<AppMemory>>;

impl Memory {
    /// This app's.
    pub(crate) fn of(&self, uid: &str) -> Shared {
        Arc::clone(lock(&self.apps).entry(uid.to_owned()).or_default())
    }

    /// Drops it with the app.
    pub(crate) fn forget(&self, uid: &str) {
        lock(&self.apps).remove(uid);
        lock(&self.orphaned).remove(uid);
    }

    /// After a new list of all apps: those that are not in it are gone.
    pub(crate) fn keep_only(&self, uids: &HashSet<String>) {
        lock(&self.apps).retain(|uid, _| uids.contains(uid));
        lock(&self.orphaned).retain(|uid| uids.contains(uid));
    }

    pub(crate) fn mark_orphaned(&self, uid: &str) {
        lock(&self.orphaned).insert(uid.to_owned());
    }

    pub(crate) fn orphaned(&self, uid: &str) -> bool {
        lock(&self.orphaned).contains(uid)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
