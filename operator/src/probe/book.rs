//! What the pods have said, as far as this process remembers: one [`Dialogue`] a pod.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use graceful_plan::{Contact, Dialogue, PodUid};

/// Shared by the conversations, which write, and `observe`, which reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book(Arc<Mutex<HashMap<PodUid, Dialogue>>>);

impl Book {
    /// What these pods have said.
    pub(crate) fn contacts<'a>(&self, pods: impl Iterator<Item = &'a PodUid>) -> BTreeMap<PodUid, Contact> {
        let dialogues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pods.filter_map(|uid| Some((uid.clone(), dialogues.get(uid)?.contact().clone()))).collect()
    }

    /// Reads or goes on with one pod's dialogue.
    // Nothing panics under the lock; if it ever did, a contact that is a little off beats an operator that stands still.
    pub(crate) fn with<T>(&self, pod: &PodUid, work: impl FnOnce(&mut Dialogue) -> T) -> T {
        let mut dialogues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work(dialogues.entry(pod.clone()).or_default())
    }

    /// Whoever refused to be told may be told again.
    pub(crate) fn forgive(&self) {
        let mut dialogues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        dialogues.values_mut().for_each(Dialogue::forgive);
    }

    /// Forgets the pod.
    pub(crate) fn forget(&self, pod: &PodUid) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(pod);
    }
}
