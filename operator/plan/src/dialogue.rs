//! What one pod is told and what it answers: the transitions of its [`Contact`], and the next request.
//!
//! # Flow
//! the plan's conversation → [`Dialogue::begin`] → [`Dialogue::request`] → the answer, into [`Dialogue::heard`], [`Dialogue::unchanged`] or
//! [`Dialogue::failed`] → [`Dialogue::contact`], which the next plan rests on. The operator's probes and the model of the property tests both drive
//! this, so that the tests of P7 hold for what runs.
//!
//! # Guarantees
//! A pod counts as told only once the very process that speaks for it now has answered a PUT in the drain's epoch: after a failure, which may hide a
//! restart, and after a restart that is seen, it is told again, and an idle that it said before does not stand.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::contact::{
    Acknowledged, Answer, Contact, ContactError, InFlight, OPENS_WITHIN, Protocol, Restarted, Scheduled,
    ZeroRun,
};
use crate::conversation::Conversation;
use crate::ids::Epoch;

/// So many replaced boot ids are remembered: more workers than that behind one port are rare, and so are as many restarts between two answers.
const BOOT_IDS_REMEMBERED: usize = 16;

/// What we say to one pod, and what it has said, as far as this process remembers.
#[derive(Clone, Debug, Default)]
pub struct Dialogue {
    contact: Contact,
    /// What is being said to it, `Ask` and `Survey` among them.
    conversation: Option<Conversation>,
    /// Its last answer was in the epoch that it is told, and nothing has happened since that could have made it forget.
    obeys: bool,
    /// Between two zeros of a quiet run may be so much time at most.
    longest_gap: SignedDuration,
    boot_id: Option<String>,
    /// Boot ids that have been replaced, the last of them.
    replaced_boot_ids: VecDeque<String>,
    /// The container's id, for languages that have no boot id.
    container_id: Option<String>,
}

/// How much time may be between two zeros of a quiet run, of a pod that is asked `interval` after its last answer and has `timeout` for the next: twice as long
/// as that may take, and a second of our own. A longer gap could hide work, and ends the run.
///
/// ```
/// use std::time::Duration;
/// // Asked every second, with a time-out of 2 s.
/// let gap = graceful_plan::longest_gap(Duration::from_secs(1), Duration::from_secs(2));
/// assert_eq!(gap.as_secs(), 7);
/// ```
pub fn longest_gap(interval: Duration, timeout: Duration) -> SignedDuration {
    let gap = 2 * (interval + timeout) + Duration::from_secs(1);
    SignedDuration::try_from(gap).unwrap_or(SignedDuration::MAX)
}

/// What to say to a pod next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// `GET`: what is in flight? Where the pod holds its answer until something changes, that is waited for.
    Status,
    /// `PUT`: drain. The same epoch again changes nothing.
    Drain {
        /// The drain's number.
        epoch: Epoch,
        /// Passed on in the request.
        linger_seconds: u32,
    },
    /// `DELETE`: take new work again.
    Resume {
        /// The resumption's number.
        epoch: Epoch,
    },
}

/// A valid answer, not yet dated.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// What is in flight.
    pub in_flight: InFlight,
    /// What only the Graceful protocol says.
    pub protocol: Option<Protocol>,
    /// Those of the queued that wait for a time of their own.
    pub scheduled: Option<Scheduled>,
    /// New for each start of the app's process; only the Graceful protocol tells.
    pub boot_id: Option<String>,
}

impl Reading {
    /// The last epoch that the pod has seen.
    pub fn epoch(&self) -> Option<Epoch> {
        self.protocol.map(|p| p.epoch)
    }
}

/// What an answer changed: whether the planner needs to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Another word than last time.
    Changed,
    /// The same, only later.
    Same,
}

impl Dialogue {
    /// What the planner is given.
    pub fn contact(&self) -> &Contact {
        &self.contact
    }

    /// A conversation begins, or begins anew. Answers to `Ask` are told from earlier ones by when it began.
    pub fn begin(&mut self, conversation: Conversation, longest_gap: SignedDuration, now: Timestamp) {
        self.conversation = Some(conversation);
        self.obeys = false;
        self.longest_gap = longest_gap;
        // It may open at any moment from now on, whether or not its answer is heard: an idle that it said before does not stand.
        let contact = &mut self.contact;
        if matches!(conversation, Conversation::Resume { .. }) {
            contact.acknowledged = None;
            contact.opening.get_or_insert(now);
        } else if contact.opening.is_some_and(|since| now.duration_since(since) < OPENS_WITHIN) {
            // It was not given the time.
            contact.opening = None;
        }
        self.contact.asking_since = (conversation == Conversation::Ask).then_some(now);
    }

    /// What to say next.
    pub fn request(&self) -> Request {
        match self.conversation {
            Some(Conversation::Drain { epoch, linger_seconds }) if !self.obeys => {
                Request::Drain { epoch, linger_seconds }
            }
            Some(Conversation::Resume { epoch }) if !self.obeys => Request::Resume { epoch },
            Some(_) | None => Request::Status,
        }
    }

    /// A valid answer came, to this request.
    pub fn heard(&mut self, asked: Request, reading: Reading, now: Timestamp) -> News {
        let Reading { in_flight, protocol, scheduled, boot_id } = reading;
        let several = self.contact.several;
        let renewed = boot_id.is_some_and(|boot_id| self.boots_as(&boot_id));
        let contact = &mut self.contact;
        if let Some(protocol) = protocol {
            contact.record(self.conversation, protocol, now);
        }
        let same = contact.error.is_none()
            && contact.several == several
            && contact
                .answer
                .as_ref()
                .is_some_and(|a| (a.in_flight, a.protocol, a.scheduled) == (in_flight, protocol, scheduled));
        contact.answer = Some(Answer { at: now, in_flight, protocol, scheduled });
        contact.tried_at = Some(now);
        contact.error = None;
        match self.conversation {
            Some(Conversation::Drain { epoch, .. }) => {
                let in_epoch = protocol.is_some_and(|p| p.epoch == epoch);
                if in_epoch && matches!(asked, Request::Drain { .. }) {
                    let known = contact.acknowledged.filter(|known| known.epoch == epoch);
                    contact.acknowledged = known.or(Some(Acknowledged { epoch, at: now }));
                }
                // A process that was restarted and kept its epoch has not been told yet: what it says until then proves nothing.
                self.obeys = in_epoch && !(self.obeys && renewed);
            }
            Some(Conversation::Resume { epoch }) => {
                self.obeys |= protocol.is_some_and(|p| p.accepting && p.epoch == epoch);
                contact.opening = (!self.obeys).then(|| contact.opening.unwrap_or(now));
            }
            Some(Conversation::CountZeros { epoch }) => self.contact.zero_run = self.zero_run(epoch, now),
            Some(Conversation::Ask | Conversation::Survey) | None => {}
        }
        if same { News::Same } else { News::Changed }
    }

    /// The pod said that nothing has changed since its last answer.
    pub fn unchanged(&mut self, now: Timestamp) {
        self.contact.tried_at = Some(now);
        if let Some(answer) = &mut self.contact.answer {
            answer.at = now;
            self.contact.error = None;
        }
    }

    /// An attempt failed. It may hide a restart, so that a drain is told again.
    pub fn failed(&mut self, message: String, now: Timestamp) -> News {
        if !matches!(self.conversation, Some(Conversation::Resume { .. })) {
            self.obeys = false;
        }
        let contact = &mut self.contact;
        let since = contact.error.as_ref().map_or(now, |e| e.since);
        let same = contact.error.as_ref().is_some_and(|e| e.message == message);
        contact.error = Some(ContactError { message, since });
        contact.tried_at = Some(now);
        contact.zero_run = None;
        if same { News::Same } else { News::Changed }
    }

    /// The pod refuses to be told (401). It is not told again before something changes: the plan goes another way with it.
    pub fn refused(&mut self, why: String, now: Timestamp) -> News {
        self.obeys = false;
        let contact = &mut self.contact;
        let since = contact.refused.as_ref().map_or(now, |r| r.since);
        let same = contact.refused.as_ref().is_some_and(|r| r.message == why);
        contact.refused = Some(ContactError { message: why, since });
        contact.tried_at = Some(now);
        if same { News::Same } else { News::Changed }
    }

    /// We have other keys than when it refused: it is worth telling again.
    pub fn forgive(&mut self) {
        self.contact.refused = None;
    }

    /// The container that is asked runs under this id now. Another one than before is a restart, where no boot id says so itself.
    pub fn runs_as(&mut self, container_id: &str) {
        let replaced = self.container_id.as_deref().is_some_and(|known| known != container_id);
        if replaced && self.boot_id.is_none() {
            self.restarted();
            self.contact.zero_run = None;
        }
        self.container_id = Some(container_id.to_owned());
    }

    /// The run of zeros with the answer that was just heard. A gap ends it: what happened in between nobody knows.
    fn zero_run(&self, epoch: Epoch, now: Timestamp) -> Option<ZeroRun> {
        let zero = self.contact.answer.as_ref().is_some_and(|a| a.in_flight.total == 0);
        // A clock that was put back says nothing of how long a run has held.
        let in_time =
            |r: &ZeroRun| (SignedDuration::ZERO..=self.longest_gap).contains(&now.duration_since(r.until));
        let run = self.contact.zero_run.filter(|r| r.epoch == epoch && in_time(r));
        zero.then(|| match run {
            None => ZeroRun { epoch, since: now, until: now, reads: 1 },
            Some(run) => ZeroRun { until: now, reads: run.reads.saturating_add(1), ..run },
        })
    }

    /// Whether another process speaks than before. Another boot id is a restart; one that comes back is not: then several processes answer by turns.
    fn boots_as(&mut self, boot_id: &str) -> bool {
        let Some(old) = self.boot_id.replace(boot_id.to_owned()).filter(|old| old != boot_id) else {
            return false;
        };
        if self.replaced_boot_ids.iter().any(|id| id == boot_id) {
            self.contact.several = true;
            self.contact.restarted = None;
        }
        if !self.replaced_boot_ids.contains(&old) {
            self.replaced_boot_ids.push_back(old);
        }
        if self.replaced_boot_ids.len() > BOOT_IDS_REMEMBERED {
            self.replaced_boot_ids.pop_front();
        }
        if self.contact.several {
            self.contact.forget_process();
        } else {
            self.restarted();
        }
        true
    }

    fn restarted(&mut self) {
        self.contact.forget_process();
        let last_known = self.contact.answer.as_ref().map_or(0, |a| a.in_flight.total);
        let times = self.contact.restarted.map_or(0, |r| r.times).saturating_add(1);
        self.contact.restarted = Some(Restarted { times, last_known });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: SignedDuration = SignedDuration::from_secs(5);
    const DRAIN: Conversation = Conversation::Drain { epoch: Epoch(1), linger_seconds: 3 };
    const PUT: Request = Request::Drain { epoch: Epoch(1), linger_seconds: 3 };

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

    fn hear(dialogue: &mut Dialogue, total: u64, boot: Option<&str>, second: i64) -> News {
        dialogue.heard(Request::Status, reading(total, boot), at(second))
    }

    #[test]
    fn a_changed_boot_id_is_a_restart_with_its_last_known_count() {
        let mut dialogue = Dialogue::default();
        hear(&mut dialogue, 4, Some("a"), 1);
        assert_eq!(dialogue.contact.restarted, None);
        hear(&mut dialogue, 0, Some("b"), 2);
        assert_eq!(dialogue.contact.restarted, Some(Restarted { times: 1, last_known: 4 }));
    }

    /// An app of several processes is not one that restarts at every answer.
    #[test]
    fn boot_ids_that_come_back_are_several_processes() {
        let mut dialogue = Dialogue::default();
        hear(&mut dialogue, 1, Some("a"), 1);
        hear(&mut dialogue, 1, Some("b"), 1);
        assert!(!dialogue.contact.several, "one restart");
        hear(&mut dialogue, 1, Some("a"), 1);
        assert!(dialogue.contact.several);
        assert_eq!(dialogue.contact.restarted, None);
        hear(&mut dialogue, 1, Some("c"), 1);
        assert_eq!(dialogue.contact.restarted, None);
    }

    #[test]
    fn a_new_container_is_a_restart_where_no_boot_id_tells() {
        let mut dialogue = Dialogue::default();
        dialogue.runs_as("c1");
        hear(&mut dialogue, 2, None, 1);
        dialogue.begin(Conversation::CountZeros { epoch: Epoch(1) }, GAP, at(2));
        hear(&mut dialogue, 0, None, 2);
        dialogue.runs_as("c1");
        assert_eq!(dialogue.contact.restarted, None);
        assert!(dialogue.contact.zero_run.is_some());
        dialogue.runs_as("c2");
        assert_eq!(dialogue.contact.restarted, Some(Restarted { times: 1, last_known: 0 }));
        assert_eq!(dialogue.contact.zero_run, None, "another process may have found work");
    }

    #[test]
    fn an_error_keeps_the_last_answer_and_its_own_beginning() {
        let mut dialogue = Dialogue::default();
        hear(&mut dialogue, 3, None, 1);
        let fail = |dialogue: &mut Dialogue, second| dialogue.failed("late".to_owned(), at(second));
        assert_eq!(fail(&mut dialogue, 2), News::Changed);
        assert_eq!(fail(&mut dialogue, 5), News::Same);
        assert_eq!(dialogue.contact.answer.as_ref().unwrap().at, at(1));
        assert_eq!(dialogue.contact.error.as_ref().unwrap().since, at(2));
        assert_eq!(hear(&mut dialogue, 3, None, 6), News::Changed);
        assert_eq!(dialogue.contact.error, None);
    }

    #[test]
    fn a_run_of_zeros_ends_with_a_count_a_failure_another_drain_or_a_gap() {
        let mut dialogue = Dialogue::default();
        let count = |dialogue: &mut Dialogue, total, second, epoch| {
            dialogue.begin(Conversation::CountZeros { epoch: Epoch(epoch) }, GAP, at(second));
            hear(dialogue, total, None, second);
            dialogue.contact.zero_run.map_or(0, |q| q.reads)
        };
        let reads: Vec<_> = (1..=3).map(|second| count(&mut dialogue, 0, second, 1)).collect();
        assert_eq!(reads, [1, 2, 3]);
        assert_eq!(count(&mut dialogue, 0, 9, 1), 1, "after a gap");
        assert_eq!(count(&mut dialogue, 0, 10, 2), 1, "in another drain");
        assert_eq!(count(&mut dialogue, 1, 11, 2), 0, "a count");
        assert_eq!(count(&mut dialogue, 0, 12, 2), 1);
        dialogue.failed("409".to_owned(), at(13));
        assert_eq!(dialogue.contact.zero_run, None);
    }

    #[test]
    fn a_drain_is_told_until_the_process_that_speaks_now_has_answered_it() {
        let mut dialogue = Dialogue::default();
        dialogue.begin(DRAIN, GAP, at(0));
        assert_eq!(dialogue.request(), PUT);
        dialogue.heard(PUT, reading(2, Some("a")), at(1));
        let acknowledged = |second| Some(Acknowledged { epoch: Epoch(1), at: at(second) });
        assert_eq!((dialogue.request(), dialogue.contact.acknowledged), (Request::Status, acknowledged(1)));
        hear(&mut dialogue, 0, Some("b"), 2);
        assert_eq!((dialogue.request(), dialogue.contact.acknowledged), (PUT, None), "it was restarted");
        dialogue.heard(PUT, reading(0, Some("b")), at(3));
        assert_eq!(dialogue.contact.acknowledged, acknowledged(3));
        dialogue.heard(PUT, reading(0, Some("b")), at(5));
        assert_eq!(dialogue.contact.acknowledged, acknowledged(3), "told once more, and known before");
        dialogue.failed("late".to_owned(), at(4));
        assert_eq!(dialogue.request(), PUT, "the failure may hide a restart");
    }

    #[test]
    fn a_refusal_stands_until_another_process_speaks_or_we_have_other_keys() {
        let mut dialogue = Dialogue::default();
        hear(&mut dialogue, 0, Some("a"), 0);
        dialogue.begin(DRAIN, GAP, at(0));
        assert_eq!(dialogue.refused("unknown key".to_owned(), at(1)), News::Changed);
        assert_eq!(dialogue.refused("unknown key".to_owned(), at(2)), News::Same);
        dialogue.begin(Conversation::CountZeros { epoch: Epoch(1) }, GAP, at(2));
        hear(&mut dialogue, 0, Some("a"), 3);
        dialogue.failed("late".to_owned(), at(4));
        let refused = dialogue.contact.refused.clone().unwrap();
        assert_eq!((refused.message.as_str(), refused.since), ("unknown key", at(1)));
        hear(&mut dialogue, 0, Some("b"), 5);
        assert_eq!(dialogue.contact.refused, None, "its own environment may be another");
        dialogue.refused("unknown key".to_owned(), at(6));
        dialogue.forgive();
        assert_eq!(dialogue.contact.refused, None);
    }

    /// The plan may want it drained again before its answer is heard.
    #[test]
    fn what_is_told_to_open_is_not_idle_by_what_it_said_before() {
        let mut dialogue = Dialogue::default();
        dialogue.begin(DRAIN, GAP, at(0));
        dialogue.heard(PUT, reading(0, Some("a")), at(1));
        dialogue.begin(Conversation::Resume { epoch: Epoch(2) }, GAP, at(2));
        dialogue.begin(DRAIN, GAP, at(2));
        assert_eq!((dialogue.request(), dialogue.contact.acknowledged), (PUT, None));
    }

    #[test]
    fn a_pod_that_was_given_the_time_and_does_not_open_cannot() {
        let (mut dialogue, resume) = (Dialogue::default(), Conversation::Resume { epoch: Epoch(2) });
        let since = |dialogue: &Dialogue| dialogue.contact.opening;
        dialogue.begin(resume, GAP, at(0));
        dialogue.begin(DRAIN, GAP, at(2));
        assert_eq!(since(&dialogue), None, "we have changed our mind");
        dialogue.begin(resume, GAP, at(5));
        dialogue.heard(Request::Status, reading(0, Some("a")), at(6));
        dialogue.failed("500".to_owned(), at(7));
        dialogue.begin(Conversation::Resume { epoch: Epoch(3) }, GAP, at(8));
        dialogue.begin(DRAIN, GAP, at(15));
        assert_eq!(since(&dialogue), Some(at(5)));
        dialogue.heard(PUT, reading(0, Some("b")), at(16));
        assert_eq!(since(&dialogue), None, "another process may");
    }

    /// After a 409 the pod is asked for its own view: that it has seen the epoch does not mean that it drains.
    #[test]
    fn a_refused_drain_is_not_acknowledged() {
        let mut dialogue = Dialogue::default();
        dialogue.begin(DRAIN, GAP, at(0));
        dialogue.failed("409".to_owned(), at(1));
        hear(&mut dialogue, 0, Some("a"), 1);
        assert_eq!(dialogue.contact.acknowledged, None);
    }

    #[test]
    fn a_resumption_is_told_until_the_pod_accepts() {
        let mut dialogue = Dialogue::default();
        let ask = Request::Resume { epoch: Epoch(1) };
        dialogue.begin(Conversation::Resume { epoch: Epoch(1) }, GAP, at(0));
        dialogue.heard(ask, reading(0, Some("a")), at(1));
        assert_eq!(dialogue.request(), ask, "it still refuses");
        let mut open = reading(0, Some("a"));
        open.protocol = open.protocol.map(|p| Protocol { accepting: true, ..p });
        dialogue.heard(ask, open, at(2));
        assert_eq!(dialogue.request(), Request::Status);
    }
}
