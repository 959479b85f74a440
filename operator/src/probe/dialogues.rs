//! What the pods have said, as far as this process remembers: one [`Dialogue`] a pod.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use graceful_plan::{Contact, Dialogue, PodUid};
use parking_lot::Mutex;

/// Shared by the conversations, which write, and `observe`, which reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dialogues(Arc<Mutex<HashMap<PodUid, Dialogue>>>);

impl Dialogues {
    /// What these pods have said.
    pub(crate) fn contacts<'a>(&self, pods: impl Iterator<Item = &'a PodUid>) -> BTreeMap<PodUid, Contact> {
        let dialogues = self.0.lock();
        pods.filter_map(|uid| Some((uid.clone(), dialogues.get(uid)?.contact().clone()))).collect()
    }

    /// Reads or goes on with one pod's dialogue.
    // Nothing panics under the lock; if it ever did, a contact that is a little off beats an operator that stands still.
    pub(crate) fn with<T>(&self, pod: &PodUid, work: impl FnOnce(&mut Dialogue) -> T) -> T {
        let mut dialogues = self.0.lock();
        work(dialogues.entry(pod.clone()).or_default())
    }

    /// Pods that refused our token are told again.
    pub(crate) fn forget_refusals(&self) {
        let mut dialogues = self.0.lock();
        dialogues.values_mut().for_each(Dialogue::forgive);
    }

    /// Forgets the pod.
    pub(crate) fn forget(&self, pod: &PodUid) {
        self.0.lock().remove(pod);
    }
}
