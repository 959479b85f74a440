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
    /// The queued tasks that wait for a time of their own.
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
mod tests;
