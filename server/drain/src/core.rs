//! The drain's state machine and its counts, pure: `now` comes in, outcomes go out, no IO, no clock.
//!
//! One value under one lock holds both the latch and the counts. That is the whole argument for why a request
//! cannot slip between them: it is counted while the latch is open, or it is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::status::{InFlight, Scheduled, State};

/// Whether new work is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    Open,
    /// Still open, but the end is known: the time at which the latch closes.
    Lingering(Instant),
    Latched,
}

/// What connections, sockets and the exit wait for a change of. It changes a few times in a drain, and not with each
/// request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Phase {
    admission: Admission,
    terminating: bool,
    idle: bool,
    ended: bool,
}

/// Which call used the highest epoch seen. The same call again is a retry; the other one is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EpochOf {
    Nobody,
    Drain,
    Resume,
}

/// Why a change of state was refused; both are 409 on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The epoch is at or below another one already seen.
    #[error("epoch {asked} is at or below {seen}, the highest epoch seen; use a higher one")]
    Stale {
        /// The epoch of the request.
        asked: u64,
        /// The highest epoch seen so far.
        seen: u64,
    },
    /// SIGTERM has come, and that is final.
    #[error("the process is terminating (SIGTERM has come), which cannot be undone")]
    Terminating,
}

/// What a counted thing is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Request,
    Queued,
    Running,
}

/// Names one counted thing. Ids only grow, so the first in order is the oldest.
pub(crate) type Ticket = u64;

/// Tasks that a queue owns and counts itself, outside of the guards.
#[derive(Debug, Default)]
struct Tasks {
    queued: u64,
    running: u64,
    /// Since when there has been at least one: an upper bound of the oldest's age, for when the queue gives none.
    since: Option<Instant>,
    /// Since when the oldest has been here, as the queue says.
    oldest: Option<Instant>,
}

/// Work behind this process, in another one that can only be asked: its answers are always late.
#[derive(Debug)]
struct Behind {
    count: u64,
    since: Option<Instant>,
    /// True once answers that were asked for after the latch closed, with nothing counted here, have all said zero. Until then a
    /// reported zero counts as one.
    proven: bool,
    /// The work behind has answered at least once.
    heard: bool,
    /// Why it has not, until it has.
    unknown: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Core {
    admission: Admission,
    terminating: bool,
    /// The drain was begun from inside the pod.
    begun_in_pod: bool,
    epoch: u64,
    epoch_of: EpochOf,
    /// How often the latch was opened again: an answer from before that proves nothing after it.
    reopened: u64,
    in_flight: InFlight,
    tasks: Tasks,
    behind: Option<Behind>,
    scheduled: Option<Scheduled>,
    shared_queued: Option<u64>,
    connections: u64,
    ended: bool,
    next: Ticket,
    since: BTreeMap<Ticket, Instant>,
}

impl Core {
    pub(crate) fn new() -> Self {
        Self {
            admission: Admission::Open,
            terminating: false,
            begun_in_pod: false,
            epoch: 0,
            epoch_of: EpochOf::Nobody,
            reopened: 0,
            in_flight: InFlight::default(),
            tasks: Tasks::default(),
            behind: None,
            scheduled: None,
            shared_queued: None,
            connections: 0,
            ended: false,
            next: 0,
            since: BTreeMap::new(),
        }
    }

    /// Closes the latch if its time has come. Every method here that admits, or that moves the latch or the epoch, calls it first, and
    /// [`Drain`](crate::Drain) calls it before it reads, so the latch closes on time without a timer. True if this call
    /// closed it.
    pub(crate) fn advance(&mut self, now: Instant) -> bool {
        match self.admission {
            Admission::Lingering(at) if now >= at => {
                self.admission = Admission::Latched;
                true
            }
            Admission::Open | Admission::Lingering(_) | Admission::Latched => false,
        }
    }

    /// Counts new work, or refuses it because the latch is closed.
    pub(crate) fn admit(&mut self, work: Work, now: Instant) -> Option<Ticket> {
        self.advance(now);
        match self.admission {
            Admission::Open | Admission::Lingering(_) => Some(self.count(work, now)),
            Admission::Latched => None,
        }
    }

    /// Counts work that something already counted brings, as a request does a task; it is never refused.
    pub(crate) fn count(&mut self, work: Work, now: Instant) -> Ticket {
        let ticket = self.next;
        self.next += 1;
        self.since.insert(ticket, now);
        *self.slot(work) += 1;
        ticket
    }

    pub(crate) fn shift(&mut self, from: Work, to: Work) {
        *self.slot(from) -= 1;
        *self.slot(to) += 1;
    }

    pub(crate) fn release(&mut self, ticket: Ticket, work: Work) {
        self.since.remove(&ticket);
        *self.slot(work) -= 1;
    }

    /// Sets a queue's own counts, past the latch as well: what it counts was accepted before. True when they differ from
    /// the last ones.
    pub(crate) fn set_tasks(&mut self, queued: u64, running: u64, now: Instant) -> bool {
        self.advance(now);
        let changed = (self.tasks.queued, self.tasks.running) != (queued, running);
        self.tasks.queued = queued;
        self.tasks.running = running;
        self.tasks.since = if queued + running == 0 { None } else { self.tasks.since.or(Some(now)) };
        changed
    }

    /// From now on there is work behind: idle takes a proof that it has ended.
    pub(crate) fn expect_behind(&mut self) {
        self.behind.get_or_insert(Behind {
            count: 0,
            since: None,
            proven: false,
            heard: false,
            unknown: None,
        });
    }

    /// Why the process behind has never answered. After its first answer this is ignored: silence then counts as busy. True when it differs
    /// from the last one.
    pub(crate) fn set_unknown(&mut self, why: String) -> bool {
        let Some(behind) = self.behind.as_mut().filter(|behind| !behind.heard) else { return false };
        let changed = behind.unknown.as_ref() != Some(&why);
        behind.unknown = Some(why);
        changed
    }

    pub(crate) fn unknown(&self) -> Option<&str> {
        self.behind.as_ref()?.unknown.as_deref()
    }

    /// What the process behind said last. Any work that it has takes a proof back. True when the count differs from the last one.
    pub(crate) fn set_behind(&mut self, count: u64, now: Instant) -> bool {
        self.advance(now);
        let Some(behind) = &mut self.behind else { return false };
        let changed = behind.count != count || behind.unknown.is_some();
        (behind.heard, behind.unknown) = (true, None);
        behind.count = count;
        behind.since = if count == 0 { None } else { behind.since.or(Some(now)) };
        behind.proven &= count == 0;
        changed
    }

    /// Latched, and nothing is left that is counted here: the earliest moment from which an answer of the process behind proves anything. The
    /// number changes with each resume, so that an old proof does not hold.
    pub(crate) fn quiesced(&self) -> Option<u64> {
        (!self.accepting() && self.counted().total() == 0).then_some(self.reopened)
    }

    /// All that was heard since `quiesced` says that nothing is left behind. False when the latch was opened since.
    pub(crate) fn prove_behind(&mut self, quiesced: u64, now: Instant) -> bool {
        self.advance(now);
        let holds = self.quiesced() == Some(quiesced);
        if let Some(behind) = self.behind.as_mut().filter(|_| holds) {
            behind.count = 0;
            behind.since = None;
            behind.proven = true;
        }
        holds
    }

    pub(crate) fn set_oldest_task(&mut self, since: Option<Instant>) {
        self.tasks.oldest = since;
    }

    pub(crate) fn set_scheduled(&mut self, scheduled: Option<Scheduled>) {
        self.scheduled = scheduled;
    }

    pub(crate) fn scheduled(&self) -> Option<Scheduled> {
        self.scheduled
    }

    pub(crate) fn set_shared_queued(&mut self, queued: u64) {
        self.shared_queued = Some(queued);
    }

    pub(crate) fn shared_queued(&self) -> Option<u64> {
        self.shared_queued
    }

    fn slot(&mut self, work: Work) -> &mut u64 {
        match work {
            Work::Request => &mut self.in_flight.requests,
            Work::Queued => &mut self.in_flight.queued,
            Work::Running => &mut self.in_flight.running,
        }
    }

    pub(crate) fn connect(&mut self) {
        self.connections += 1;
    }

    pub(crate) fn disconnect(&mut self) {
        self.connections -= 1;
    }

    /// `PUT /drain`. Says whether this is a new epoch, and not a retry.
    pub(crate) fn drain(&mut self, epoch: u64, linger: Duration, now: Instant) -> Result<bool, Conflict> {
        self.advance(now);
        if epoch == self.epoch && self.epoch_of == EpochOf::Drain {
            return Ok(false);
        }
        self.take_epoch(epoch, EpochOf::Drain)?;
        self.begun_in_pod = false;
        self.admission = match self.admission {
            Admission::Open => lingering(now, linger),
            // A newer epoch may lengthen a linger but never cut short what an older one promised; past SIGTERM the
            // grace period is running, and nothing is lengthened.
            Admission::Lingering(at) if self.terminating => Admission::Lingering(at),
            Admission::Lingering(at) => Admission::Lingering(at.max(now + linger)),
            Admission::Latched => Admission::Latched,
        };
        Ok(true)
    }

    /// `DELETE /drain`.
    pub(crate) fn resume(&mut self, epoch: u64, now: Instant) -> Result<(), Conflict> {
        self.advance(now);
        if self.terminating {
            return Err(Conflict::Terminating);
        }
        if epoch == self.epoch && self.epoch_of == EpochOf::Resume {
            return Ok(());
        }
        self.take_epoch(epoch, EpochOf::Resume)?;
        (self.admission, self.begun_in_pod) = (Admission::Open, false);
        self.reopened += 1;
        if let Some(behind) = &mut self.behind {
            behind.proven = false;
        }
        Ok(())
    }

    /// The drain of this epoch was begun from inside the pod.
    pub(crate) fn mark_begun_in_pod(&mut self) {
        self.begun_in_pod = true;
    }

    /// Whether the process drains, and nobody outside the pod has asked for it.
    pub(crate) fn leaves(&self) -> bool {
        self.terminating || self.begun_in_pod
    }

    fn take_epoch(&mut self, epoch: u64, by: EpochOf) -> Result<(), Conflict> {
        if epoch <= self.epoch {
            return Err(Conflict::Stale { asked: epoch, seen: self.epoch });
        }
        self.epoch = epoch;
        self.epoch_of = by;
        Ok(())
    }

    /// SIGTERM: final. A linger that runs is shortened to `linger` at most (the pod was unrouted when it began; the
    /// grace period runs now). A latch that is closed stays closed, so an idle pod goes at once.
    pub(crate) fn terminate(&mut self, linger: Duration, now: Instant) {
        self.advance(now);
        self.terminating = true;
        self.admission = match self.admission {
            Admission::Open => lingering(now, linger),
            Admission::Lingering(_) if linger.is_zero() => Admission::Latched,
            Admission::Lingering(at) => Admission::Lingering(at.min(now + linger)),
            Admission::Latched => Admission::Latched,
        };
    }

    pub(crate) fn state(&self) -> State {
        if self.terminating {
            return State::Terminating;
        }
        match self.admission {
            Admission::Open => State::Serving,
            Admission::Lingering(_) => State::Lingering,
            Admission::Latched if self.in_flight().total() == 0 => State::Idle,
            Admission::Latched => State::Draining,
        }
    }

    pub(crate) fn accepting(&self) -> bool {
        self.admission != Admission::Latched
    }

    /// Nothing runs and nothing can come any more (short of a resume).
    pub(crate) fn idle(&self) -> bool {
        !self.accepting() && self.in_flight().total() == 0
    }

    pub(crate) fn phase(&self) -> Phase {
        Phase {
            admission: self.admission,
            terminating: self.terminating,
            idle: self.idle(),
            ended: self.ended,
        }
    }

    pub(crate) fn terminating(&self) -> bool {
        self.terminating
    }

    /// The process is about to exit: whoever still waits for a change is answered now.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn latches_at(&self) -> Option<Instant> {
        match self.admission {
            Admission::Lingering(at) => Some(at),
            Admission::Open | Admission::Latched => None,
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What has a guard, what the queue counts, and what may be left behind: there unknown is one, since a zero would be taken for idle.
    pub(crate) fn in_flight(&self) -> InFlight {
        let behind = match &self.behind {
            Some(Behind { count, proven: false, .. }) if !self.accepting() => (*count).max(1),
            Some(Behind { count, .. }) => *count,
            None => 0,
        };
        let InFlight { queued, running, requests } = self.counted();
        InFlight { queued, running: running + behind, requests }
    }

    fn counted(&self) -> InFlight {
        let InFlight { queued, running, requests } = self.in_flight;
        let Tasks { queued: own, running: run, since: _, oldest: _ } = self.tasks;
        InFlight { queued: queued + own, running: running + run, requests }
    }

    pub(crate) fn connections(&self) -> u64 {
        self.connections
    }

    pub(crate) fn oldest(&self, now: Instant) -> Duration {
        let task = self.tasks.since.map(|since| self.tasks.oldest.unwrap_or(since));
        let behind = self.behind.as_ref().and_then(|behind| behind.since);
        let oldest = self.since.values().next().copied().into_iter().chain(task).chain(behind).min();
        oldest.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

fn lingering(now: Instant, linger: Duration) -> Admission {
    if linger.is_zero() { Admission::Latched } else { Admission::Lingering(now + linger) }
}

#[cfg(test)]
mod tests;
