//! What a pod has said, as far as this operator process remembers. Lost with the process, and asked again.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::clock::after;
use crate::conversation::Conversation;
use crate::doubling::Doubling;
use crate::ids::Epoch;

/// What one pod has said, and what came of asking it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contact {
    /// The last valid answer; kept when later attempts fail, with its age.
    pub answer: Option<Answer>,
    /// When the last attempt ended, well or not.
    pub tried_at: Option<Timestamp>,
    /// Since when the pod has been in `Conversation::Ask`, while it is: a later `tried_at` was for that, whether it was answered or not.
    pub asking_since: Option<Timestamp>,
    /// What the last attempt met, where it failed; cleared by a valid answer.
    pub error: Option<ContactError>,
    /// The run of zeros that still holds, since the pod was unrouted in that epoch (signal None, and pods that refuse our token).
    pub zero_run: Option<ZeroRun>,
    /// The app was restarted in place: how often, and its last known in-flight count before the last time.
    pub restarted: Option<Restarted>,
    /// Since when it has said, without a break, that it is not accepting.
    pub closed_since: Option<Timestamp>,
    /// The highest epoch that this process of the pod's has said.
    pub highest: Option<Epoch>,
    /// The drain's epoch that this very process of the pod's has answered our PUT with. One that was restarted has to be told first, even if it
    /// remembers the epoch.
    pub acknowledged: Option<Acknowledged>,
    /// Since when it is told to accept again, and has not said that it does; kept while it is told something else, once [`OPENS_WITHIN`] is over.
    pub opening: Option<Timestamp>,
    /// The pod goes another way than it is told.
    pub astray: Option<Astray>,
    /// The pod refuses to be told (401), since when and in which words: it verifies who drains it, and takes no token of ours. What it answers otherwise is as
    /// good as ever.
    pub refused: Option<ContactError>,
    /// Boot ids come back: several processes answer, and each speaks for itself alone.
    pub several: bool,
}

/// A drain that a pod has been told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// The drain's number.
    pub epoch: Epoch,
    /// When it answered our PUT first.
    pub at: Timestamp,
}

/// How often a pod has gone another way than it was told, lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Astray {
    /// Which way, the last time.
    pub way: Way,
    /// How often.
    pub times: u32,
    /// The last time.
    pub last: Timestamp,
    /// The epoch that it said then.
    pub epoch: Epoch,
}

/// The ways in which a pod goes astray.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The pod says an epoch that nobody here has told it. Once, that is somebody who drains by hand; time and again, it is a clock.
    Epoch,
    /// The pod has taken the resumption's epoch, and does not accept.
    Closed,
}

/// How often a pod that goes astray is told anew at once: a person, or a second operator, may have spoken to it.
const RETOLD_AT_ONCE: u32 = 3;

/// The pauses after that.
const RETELL: Doubling = Doubling { first: Duration::from_secs(2), longest: Duration::from_secs(3600) };

/// How long a pod that is told to accept again may take. After that it cannot, until it does, or another process speaks for it.
pub(crate) const OPENS_WITHIN: SignedDuration = SignedDuration::from_secs(10);

/// When a pod's going astray is forgotten: later than the longest pause of `RETELL`, or a pod that is told once an hour would begin anew each time.
const FORGET_STRAYS_AFTER: SignedDuration = SignedDuration::from_hours(2);

impl Contact {
    /// Records how the protocol part of a new answer fits to what the pod is told and to what it said before. To be called before `answer` is replaced.
    pub(crate) fn record(&mut self, told: Option<Conversation>, protocol: Protocol, now: Timestamp) {
        let open_before = self.answer.as_ref().and_then(|a| a.protocol).is_some_and(|p| p.accepting);
        if protocol.accepting {
            self.closed_since = None;
        } else {
            self.closed_since.get_or_insert(now);
        }
        let Some(before) = self.highest.replace(self.highest.unwrap_or(protocol.epoch).max(protocol.epoch))
        else {
            return; // its first answer: what was before is not held against it
        };
        let Protocol { epoch: heard, accepting, resumable } = protocol;
        let way = match told {
            Some(Conversation::Drain { epoch, .. }) if heard == epoch => None,
            Some(Conversation::Resume { epoch }) if heard == epoch && accepting => None,
            Some(Conversation::Resume { epoch }) if heard == epoch && heard > before => Some(Way::Closed),
            _ if heard > before => Some(Way::Epoch),
            // By itself, in the epoch of its resumption.
            _ if heard == before && open_before && !accepting && resumable => Some(Way::Closed),
            _ => None,
        };
        if let Some(way) = way.filter(|_| self.astray.is_none_or(|a| a.epoch != heard)) {
            let lately = self.astray.filter(|a| now.duration_since(a.last) < FORGET_STRAYS_AFTER);
            let times = lately.map_or(0, |a| a.times).saturating_add(1);
            self.astray = Some(Astray { way, times, last: now, epoch: heard });
        }
    }

    /// Forgets what the process before the one that answers now has said of epochs, and that it refused a token: the new one may know other keys.
    pub(crate) fn forget_process(&mut self) {
        self.highest = None;
        self.closed_since = None;
        self.acknowledged = None;
        self.opening = None;
        self.refused = None;
    }

    /// Returns from when on the pod may be told again, under a new epoch; None where that is at once. A pod that goes astray time and again is told less and
    /// less often.
    pub fn retell_at(&self) -> Option<Timestamp> {
        let astray = self.astray.filter(|a| a.times > RETOLD_AT_ONCE)?;
        let pause = RETELL.after(astray.times - RETOLD_AT_ONCE - 1);
        Some(after(astray.last, pause))
    }
}

/// A valid answer in the revision's own language.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// When it came.
    pub at: Timestamp,
    /// What is in flight.
    pub in_flight: InFlight,
    /// What only the Graceful protocol says.
    pub protocol: Option<Protocol>,
    /// The queued tasks that wait for a time of their own, where the pod says so.
    pub scheduled: Option<Scheduled>,
}

/// Tasks that were accepted for later. For information: they are in flight like the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// How many of the queued they are.
    pub tasks: u64,
    /// When the first of them is due, by the pod's clock.
    pub next: Timestamp,
}

/// The part of an answer that only the Graceful protocol has. `probe` has checked that it came from the asked pod's uid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// The last epoch the pod has seen.
    pub epoch: Epoch,
    /// Whether it takes new work.
    pub accepting: bool,
    /// Whether it can still be put back to serving; false after SIGTERM.
    pub resumable: bool,
}

/// In-flight counts, in things the app counts (tasks, requests). Only the Graceful protocol tells the kinds apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    /// All of it.
    pub total: u64,
    /// Accepted, not begun.
    pub queued: u64,
    /// Begun.
    pub running: u64,
    /// Requests being answered.
    pub requests: u64,
}

/// A failed attempt, in a sentence for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContactError {
    /// What happened and what to do about it.
    pub message: String,
    /// Since when attempts fail without a valid answer between them.
    pub since: Timestamp,
}

/// A run of answers that each said that nothing was in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZeroRun {
    /// The drain they were read in.
    pub epoch: Epoch,
    /// The first of them.
    pub since: Timestamp,
    /// The last of them.
    pub until: Timestamp,
    /// How many.
    pub reads: u32,
}

/// A restart in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restarted {
    /// How often.
    pub times: u32,
    /// In flight at the last answer before the last restart: what it may have lost.
    pub last_known: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn hear(contact: &mut Contact, told: Option<Conversation>, epoch: u64, accepting: bool, second: i64) {
        let protocol = Protocol { epoch: Epoch(epoch), accepting, resumable: true };
        contact.record(told, protocol, at(second));
        let in_flight = InFlight::default();
        contact.answer =
            Some(Answer { at: at(second), in_flight, protocol: Some(protocol), scheduled: None });
    }

    const DRAIN: Option<Conversation> = Some(Conversation::Drain { epoch: Epoch(5), linger_seconds: 0 });
    const RESUME: Option<Conversation> = Some(Conversation::Resume { epoch: Epoch(6) });

    #[test]
    fn a_pod_that_does_as_it_is_told_never_goes_astray() {
        let mut contact = Contact::default();
        hear(&mut contact, None, 0, true, 1);
        hear(&mut contact, DRAIN, 5, true, 2);
        hear(&mut contact, DRAIN, 5, false, 3);
        assert_eq!(contact.closed_since, Some(at(3)));
        hear(&mut contact, RESUME, 5, false, 4);
        hear(&mut contact, RESUME, 6, true, 5);
        hear(&mut contact, None, 6, true, 6);
        assert_eq!((contact.astray, contact.closed_since), (None, None));
    }

    #[test]
    fn a_clock_is_told_less_and_less_often() {
        let mut contact = Contact::default();
        (0..4).for_each(|n| hear(&mut contact, DRAIN, 100 + n, false, 10 + i64::try_from(n).unwrap()));
        assert_eq!(contact.astray.map(|a| (a.way, a.times)), Some((Way::Epoch, 3)));
        assert_eq!(contact.retell_at(), None, "three times at once");
        hear(&mut contact, DRAIN, 104, false, 20);
        assert_eq!(contact.retell_at(), Some(at(22)));
        hear(&mut contact, DRAIN, 105, false, 30);
        assert_eq!(contact.retell_at(), Some(at(34)));
        (0..40).for_each(|n| hear(&mut contact, DRAIN, 200 + n, false, 40));
        assert_eq!(contact.retell_at(), Some(at(40 + 3600)), "an hour at most");
        hear(&mut contact, DRAIN, 300, false, 40 + 7200);
        assert_eq!(contact.retell_at(), None, "two hours later it is forgotten");
    }

    #[test]
    fn a_pod_that_does_not_come_back_is_known() {
        let mut contact = Contact::default();
        hear(&mut contact, DRAIN, 5, false, 1);
        hear(&mut contact, RESUME, 6, false, 2);
        hear(&mut contact, RESUME, 6, false, 3);
        assert_eq!(contact.astray.map(|a| (a.way, a.times)), Some((Way::Closed, 1)), "once an epoch");
        let mut contact = Contact::default();
        hear(&mut contact, None, 6, true, 1);
        hear(&mut contact, None, 6, false, 2);
        assert_eq!(contact.astray.map(|a| a.way), Some(Way::Closed), "it closes by itself");
    }

    #[test]
    fn a_new_process_begins_anew() {
        let mut contact = Contact::default();
        hear(&mut contact, DRAIN, 5, false, 1);
        contact.forget_process();
        hear(&mut contact, DRAIN, 0, true, 2);
        hear(&mut contact, DRAIN, 5, false, 3);
        assert_eq!(contact.astray, None);
    }
}
