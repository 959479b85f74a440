//! What the pods have said, as far as this process remembers: one [`Contact`] a pod.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use graceful_plan::{Answer, Contact, ContactError, Conversation, Epoch, PodUid, Quiet, Restarted};
use jiff::{SignedDuration, Timestamp};

use super::error::AskError;
use super::parse::Reading;

/// Shared by the conversations, which write, and `observe`, which reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book(Arc<Mutex<HashMap<PodUid, Page>>>);

#[derive(Debug, Default)]
struct Page {
    contact: Contact,
    /// What is being said to it.
    told: Option<Conversation>,
    boot_id: Option<String>,
    /// Boot ids that have been replaced, the last of them.
    gone: VecDeque<String>,
    /// The container's id, for languages that have no boot id.
    incarnation: Option<String>,
}

/// What an entry changed: whether the planner needs to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Another word than last time.
    Changed,
    /// The same, only later.
    Same,
}

impl Book {
    /// What these pods have said.
    pub(crate) fn contacts<'a>(&self, pods: impl Iterator<Item = &'a PodUid>) -> BTreeMap<PodUid, Contact> {
        let pages = self.open();
        pods.filter_map(|uid| Some((uid.clone(), pages.get(uid)?.contact.clone()))).collect()
    }

    /// A conversation begins. Answers to `Ask` are told from earlier ones by when it began.
    pub(crate) fn begins(&self, pod: &PodUid, conversation: Conversation, now: Timestamp) {
        let mut pages = self.open();
        let page = pages.entry(pod.clone()).or_default();
        page.told = Some(conversation);
        page.contact.asking_since = (conversation == Conversation::Ask).then_some(now);
    }

    /// A valid answer came.
    pub(crate) fn heard(&self, pod: &PodUid, reading: Reading, now: Timestamp) -> News {
        let mut pages = self.open();
        let page = pages.entry(pod.clone()).or_default();
        let Reading { in_flight, protocol, scheduled, boot_id } = reading;
        let several = page.contact.several;
        if let Some(boot_id) = boot_id {
            page.boots_as(&boot_id);
        }
        let told = page.told;
        let contact = &mut page.contact;
        if let Some(said) = protocol {
            contact.compare(told, said, now);
        }
        let same = contact.error.is_none()
            && contact.several == several
            && contact
                .answer
                .as_ref()
                .is_some_and(|a| (a.in_flight, a.protocol, a.scheduled) == (in_flight, protocol, scheduled));
        contact.answer = Some(Answer { at: now, in_flight, protocol, scheduled });
        contact.asked = Some(now);
        contact.error = None;
        if same { News::Same } else { News::Changed }
    }

    /// The process that was heard last has answered a PUT with its epoch.
    pub(crate) fn acknowledges(&self, pod: &PodUid, epoch: Epoch) {
        self.open().entry(pod.clone()).or_default().contact.acknowledged = Some(epoch);
    }

    /// The pod said that nothing has changed since its last answer.
    pub(crate) fn unchanged(&self, pod: &PodUid, now: Timestamp) -> News {
        let mut pages = self.open();
        let page = pages.entry(pod.clone()).or_default();
        page.contact.asked = Some(now);
        if let Some(answer) = &mut page.contact.answer {
            answer.at = now;
            page.contact.error = None;
        }
        News::Same
    }

    /// An attempt failed.
    pub(crate) fn failed(&self, pod: &PodUid, error: &AskError, now: Timestamp) -> News {
        let mut pages = self.open();
        let contact = &mut pages.entry(pod.clone()).or_default().contact;
        let (class, message) = (error.class().to_owned(), error.to_string());
        let since = contact.error.as_ref().map_or(now, |e| e.since);
        let same = contact.error.as_ref().is_some_and(|e| e.class == class && e.message == message);
        contact.error = Some(ContactError { class, message, since });
        contact.asked = Some(now);
        contact.quiet = None;
        if same { News::Same } else { News::Changed }
    }

    /// Counts the zero that was just heard in this drain, or ends the run of them. A gap longer than `longest_gap` ends it as well: what
    /// happened in between nobody knows.
    pub(crate) fn count_quiet(&self, pod: &PodUid, epoch: Epoch, longest_gap: Duration, now: Timestamp) {
        let mut pages = self.open();
        let contact = &mut pages.entry(pod.clone()).or_default().contact;
        let zero = contact.answer.as_ref().is_some_and(|a| a.in_flight.total == 0);
        let gap = SignedDuration::try_from(longest_gap).unwrap_or(SignedDuration::MAX);
        // A clock that was put back says nothing of how long a run has held.
        let in_time = |q: &Quiet| (SignedDuration::ZERO..=gap).contains(&now.duration_since(q.until));
        let run = contact.quiet.filter(|q| q.epoch == epoch && in_time(q));
        contact.quiet = match (zero, run) {
            (false, _) => None,
            (true, None) => Some(Quiet { epoch, since: now, until: now, reads: 1 }),
            (true, Some(run)) => Some(Quiet { until: now, reads: run.reads.saturating_add(1), ..run }),
        };
    }

    /// The container that is asked runs under this id now. Another one than before is a restart, where no boot id says so itself.
    pub(crate) fn runs_as(&self, pod: &PodUid, incarnation: &str) {
        let mut pages = self.open();
        let page = pages.entry(pod.clone()).or_default();
        let replaced = page.incarnation.as_deref().is_some_and(|known| known != incarnation);
        if replaced && page.boot_id.is_none() {
            page.restarted();
            page.contact.quiet = None;
        }
        page.incarnation = Some(incarnation.to_owned());
    }

    /// Forgets the pod.
    pub(crate) fn forget(&self, pod: &PodUid) {
        self.open().remove(pod);
    }

    /// Whether the pod has ever given a valid answer to this process.
    pub(crate) fn knows(&self, pod: &PodUid) -> bool {
        self.open().get(pod).is_some_and(|page| page.contact.answer.is_some())
    }

    /// Whether the last attempt failed.
    pub(crate) fn fails(&self, pod: &PodUid) -> bool {
        self.open().get(pod).is_some_and(|page| page.contact.error.is_some())
    }

    // Nothing panics under the lock; if it ever did, a contact that is a little off beats an operator that stands still.
    fn open(&self) -> MutexGuard<'_, HashMap<PodUid, Page>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// So many replaced boot ids are remembered: more workers than that behind one port are rare, and so are as many restarts between two answers.
const REMEMBERED: usize = 16;

impl Page {
    /// Another boot id is a restart; one that comes back is not: then several processes answer by turns.
    fn boots_as(&mut self, boot_id: &str) {
        let Some(old) = self.boot_id.replace(boot_id.to_owned()).filter(|old| old != boot_id) else {
            return;
        };
        if self.gone.iter().any(|id| id == boot_id) {
            self.contact.several = true;
            self.contact.restarted = None;
        }
        if !self.gone.contains(&old) {
            self.gone.push_back(old);
        }
        if self.gone.len() > REMEMBERED {
            self.gone.pop_front();
        }
        if self.contact.several {
            self.contact.begins_anew();
        } else {
            self.restarted();
        }
    }

    fn restarted(&mut self) {
        self.contact.begins_anew();
        let last_known = self.contact.answer.as_ref().map_or(0, |a| a.in_flight.total);
        let times = self.contact.restarted.map_or(0, |r| r.times).saturating_add(1);
        self.contact.restarted = Some(Restarted { times, last_known });
    }
}

#[cfg(test)]
mod tests {
    use graceful_plan::{InFlight, Protocol};

    use super::*;

    fn pod() -> PodUid {
        PodUid::from("u")
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn reading(total: u64, boot: Option<&str>) -> Reading {
        let protocol = boot.map(|_| Protocol { epoch: Epoch(1), accepting: false, resumable: true });
        Reading {
            in_flight: InFlight { total, ..InFlight::default() },
            protocol,
            scheduled: None,
            boot_id: boot.map(str::to_owned),
        }
    }

    fn contact(book: &Book) -> Contact {
        book.contacts([&pod()].into_iter()).remove(&pod()).unwrap()
    }

    #[test]
    fn a_changed_boot_id_is_a_restart_with_its_last_known_count() {
        let book = Book::default();
        book.heard(&pod(), reading(4, Some("a")), at(1));
        assert_eq!(contact(&book).restarted, None);
        book.heard(&pod(), reading(0, Some("b")), at(2));
        assert_eq!(contact(&book).restarted, Some(Restarted { times: 1, last_known: 4 }));
    }

    /// An app of several processes is not one that restarts at every answer.
    #[test]
    fn boot_ids_that_come_back_are_several_processes() {
        let book = Book::default();
        let hear = |boot| book.heard(&pod(), reading(1, Some(boot)), at(1));
        for boot in ["a", "b"] {
            hear(boot);
        }
        assert!(!contact(&book).several, "one restart");
        hear("a");
        let now = contact(&book);
        assert!(now.several);
        assert_eq!(now.restarted, None);
        hear("c");
        assert_eq!(contact(&book).restarted, None);
    }

    #[test]
    fn a_new_container_is_a_restart_where_no_boot_id_tells() {
        let book = Book::default();
        book.runs_as(&pod(), "c1");
        book.heard(&pod(), reading(2, None), at(1));
        book.runs_as(&pod(), "c1");
        assert_eq!(contact(&book).restarted, None);
        book.runs_as(&pod(), "c2");
        assert_eq!(contact(&book).restarted, Some(Restarted { times: 1, last_known: 2 }));
    }

    #[test]
    fn an_error_keeps_the_last_answer_and_its_own_beginning() {
        let book = Book::default();
        book.heard(&pod(), reading(3, None), at(1));
        let timeout = || AskError::Timeout { place: "p".to_owned(), seconds: 2 };
        assert_eq!(book.failed(&pod(), &timeout(), at(2)), News::Changed);
        assert_eq!(book.failed(&pod(), &timeout(), at(5)), News::Same);
        let after = contact(&book);
        assert_eq!(after.answer.unwrap().at, at(1));
        assert_eq!(after.error.unwrap().since, at(2));
        assert_eq!(book.heard(&pod(), reading(3, None), at(6)), News::Changed);
        assert_eq!(contact(&book).error, None);
    }

    #[test]
    fn a_run_of_zeros_ends_with_a_count_a_failure_another_drain_or_a_gap() {
        let book = Book::default();
        let zero = |second, epoch| {
            book.heard(&pod(), reading(0, None), at(second));
            book.count_quiet(&pod(), Epoch(epoch), Duration::from_secs(5), at(second));
            contact(&book).quiet.map_or(0, |q| q.reads)
        };
        assert_eq!((zero(1, 1), zero(2, 1), zero(3, 1)), (1, 2, 3));
        assert_eq!(zero(9, 1), 1, "after a gap");
        assert_eq!(zero(10, 2), 1, "in another drain");
        book.heard(&pod(), reading(1, None), at(11));
        book.count_quiet(&pod(), Epoch(2), Duration::from_secs(5), at(11));
        assert_eq!(contact(&book).quiet, None);
        assert_eq!(zero(12, 2), 1);
        book.failed(&pod(), &AskError::Conflict, at(13));
        assert_eq!(contact(&book).quiet, None);
    }
}
