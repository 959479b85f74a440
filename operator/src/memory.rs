//! What this process remembers of each app between two plans, each stage its own part. All of it can be lost, since it is found or asked for
//! again, but for the apps that were deleted with `--cascade=orphan`: an operator that starts between the collector's removal of that finalizer and of ours drains them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::execute::TakenBack;
use crate::observe::Sightings;
use crate::report::Reported;
use crate::requeue::Requeue;
use crate::writes::Writes;

/// One app's memory, held by its reconcile. By uid: a new app under an old name starts afresh.
#[derive(Debug, Default)]
pub(crate) struct AppMemory {
    pub(crate) sightings: Sightings,
    /// Between `execute`, which notes it, and `observe`, which shows it.
    pub(crate) writes: Writes,
    pub(crate) taken_back: TakenBack,
    pub(crate) reported: Reported,
    pub(crate) requeue: Requeue,
}

/// All apps' memories.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    after_another: bool,
    apps: Mutex<HashMap<String, Shared>>,
    /// Apps seen with `--cascade=orphan`: the garbage collector removes the `orphan` finalizer within moments, and we must not drain then.
    orphaned: Mutex<HashSet<String>>,
}

type Shared = Arc<tokio::sync::Mutex<AppMemory>>;

impl Memory {
    /// `after_another`: another operator may have led until now. What it wrote last, our watches may not have shown yet, so that each app's first look is
    /// a live one.
    pub(crate) fn new(after_another: bool) -> Self {
        Self { after_another, ..Self::default() }
    }

    /// What is remembered of this app, by its uid; begun where nothing is.
    pub(crate) fn of(&self, uid: &str) -> Shared {
        let afresh = || {
            let mut memory = AppMemory::default();
            memory.writes.look_live = self.after_another;
            Arc::new(tokio::sync::Mutex::new(memory))
        };
        Arc::clone(self.apps.lock().entry(uid.to_owned()).or_insert_with(afresh))
    }

    /// Drops it with the app.
    pub(crate) fn forget(&self, uid: &str) {
        self.apps.lock().remove(uid);
        self.orphaned.lock().remove(uid);
    }

    /// After a new list of all apps: those that are not in it are gone.
    pub(crate) fn keep_only(&self, uids: &HashSet<String>) {
        self.apps.lock().retain(|uid, _| uids.contains(uid));
        self.orphaned.lock().retain(|uid| uids.contains(uid));
    }

    pub(crate) fn note_orphaned(&self, uid: &str) {
        self.orphaned.lock().insert(uid.to_owned());
    }

    pub(crate) fn orphaned(&self, uid: &str) -> bool {
        self.orphaned.lock().contains(uid)
    }
}
