//! The drain's state machine and its counts, pure: `now` comes in, outcomes go out, no IO, no clock.
//!
//! One value under one lock holds both the latch and the counts. That is the whole argument for why a request
//! cannot slip between them: it is counted while the latch is open, or it is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::status::{InFlight, State};

/// Whether new work is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    Open,
    /// Still open, but the end is known: the time at which the latch closes.
    Closing(Instant),
    Latched,
}

/// Who used the highest epoch seen. A repeat by the same kind is a retry; by the other kind it is stale.
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
pub(crate) enum Kind {
    Request,
    Queued,
    Running,
}

/// Names one counted thing. Ids only grow, so the first in order is the oldest.
pub(crate) type Ticket = u64;

#[derive(Debug)]
pub(crate) struct Core {
    admission: Admission,
    terminating: bool,
    epoch: u64,
    epoch_of: EpochOf,
    in_flight: InFlight,
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
            epoch: 0,
            epoch_of: EpochOf::Nobody,
            in_flight: InFlight::default(),
            connections: 0,
            ended: false,
            next: 0,
            since: BTreeMap::new(),
        }
    }

    /// Closes the latch if its time has come. Every entry point calls this first, so no timer has to run for the
    /// latch to be on time. True when it closed just now.
    pub(crate) fn advance(&mut self, now: Instant) -> bool {
        match self.admission {
            Admission::Closing(at) if now >= at => {
                self.admission = Admission::Latched;
                true
            }
            Admission::Open | Admission::Closing(_) | Admission::Latched => false,
        }
    }

    /// Counts a newcomer, or refuses it because the latch is closed.
    pub(crate) fn admit(&mut self, kind: Kind, now: Instant) -> Option<Ticket> {
        self.advance(now);
        match self.admission {
            Admission::Open | Admission::Closing(_) => Some(self.count(kind, now)),
            Admission::Latched => None,
        }
    }

    /// Counts work that an already counted thing brings forth; the latch does not bind it.
    pub(crate) fn count(&mut self, kind: Kind, now: Instant) -> Ticket {
        let ticket = self.next;
        self.next += 1;
        self.since.insert(ticket, now);
        *self.slot(kind) += 1;
        ticket
    }

    pub(crate) fn shift(&mut self, from: Kind, to: Kind) {
        *self.slot(from) -= 1;
        *self.slot(to) += 1;
    }

    pub(crate) fn release(&mut self, ticket: Ticket, kind: Kind) {
        self.since.remove(&ticket);
        *self.slot(kind) -= 1;
    }

    fn slot(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Request => &mut self.in_flight.requests,
            Kind::Queued => &mut self.in_flight.queued,
            Kind::Running => &mut self.in_flight.running,
        }
    }

    pub(crate) fn connect(&mut self) {
        self.connections += 1;
    }

    pub(crate) fn disconnect(&mut self) {
        self.connections -= 1;
    }

    /// `PUT /drain`.
    pub(crate) fn drain(&mut self, epoch: u64, linger: Duration, now: Instant) -> Result<(), Conflict> {
        self.advance(now);
        if epoch == self.epoch && self.epoch_of == EpochOf::Drain {
            return Ok(());
        }
        self.take_epoch(epoch, EpochOf::Drain)?;
        self.admission = match self.admission {
            Admission::Open => closing(now, linger),
            // A newer epoch may lengthen a linger but never cut short what an older one promised; past SIGTERM the
            // grace period is running, and nothing is lengthened.
            Admission::Closing(at) if self.terminating => Admission::Closing(at),
            Admission::Closing(at) => Admission::Closing(at.max(now + linger)),
            Admission::Latched => Admission::Latched,
        };
        Ok(())
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
        self.admission = Admission::Open;
        Ok(())
    }

    fn take_epoch(&mut self, epoch: u64, by: EpochOf) -> Result<(), Conflict> {
        if epoch <= self.epoch {
            return Err(Conflict::Stale { asked: epoch, seen: self.epoch });
        }
        self.epoch = epoch;
        self.epoch_of = by;
        Ok(())
    }

    /// SIGTERM: final. A linger that runs is shortened to `linger` at most (its caller unrouted us back then; the
    /// grace period runs now). A latch that is closed stays closed, so an idle pod goes at once.
    pub(crate) fn terminate(&mut self, linger: Duration, now: Instant) {
        self.advance(now);
        self.terminating = true;
        self.admission = match self.admission {
            Admission::Open => closing(now, linger),
            Admission::Closing(_) if linger.is_zero() => Admission::Latched,
            Admission::Closing(at) => Admission::Closing(at.min(now + linger)),
            Admission::Latched => Admission::Latched,
        };
    }

    pub(crate) fn state(&self) -> State {
        if self.terminating {
            return State::Terminating;
        }
        match self.admission {
            Admission::Open => State::Serving,
            Admission::Closing(_) => State::Lingering,
            Admission::Latched if self.in_flight.total() == 0 => State::Idle,
            Admission::Latched => State::Draining,
        }
    }

    pub(crate) fn accepting(&self) -> bool {
        self.admission != Admission::Latched
    }

    /// Nothing runs and nothing can come any more (short of a resume).
    pub(crate) fn idle(&self) -> bool {
        !self.accepting() && self.in_flight.total() == 0
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
            Admission::Closing(at) => Some(at),
            Admission::Open | Admission::Latched => None,
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn in_flight(&self) -> InFlight {
        self.in_flight
    }

    pub(crate) fn connections(&self) -> u64 {
        self.connections
    }

    pub(crate) fn oldest(&self, now: Instant) -> Duration {
        self.since.values().next().map_or(Duration::ZERO, |since| now.saturating_duration_since(*since))
    }
}

fn closing(now: Instant, linger: Duration) -> Admission {
    if linger.is_zero() { Admission::Latched } else { Admission::Closing(now + linger) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;
    const LINGER: Duration = Duration::from_secs(3);

    /// A core, and its clock in seconds since the start.
    fn core() -> (Core, impl Fn(f64) -> Instant) {
        let start = Instant::now();
        (Core::new(), move |seconds| start + Duration::from_secs_f64(seconds))
    }

    #[test]
    fn a_lone_zero_is_not_idle() {
        let (mut core, at) = core();
        assert!(!core.idle(), "nothing in flight, but the door is open");
        core.drain(1, LINGER, at(0.0)).unwrap();
        core.advance(at(2.9));
        assert_eq!((core.idle(), core.state()), (false, State::Lingering), "still accepting");
        core.advance(at(3.0));
        assert_eq!((core.idle(), core.state()), (true, State::Idle));
    }

    #[test]
    fn the_latch_is_on_time_without_a_timer() {
        let (mut core, at) = core();
        core.drain(1, LINGER, at(0.0)).unwrap();
        assert!(core.admit(Kind::Request, at(2.999)).is_some(), "stragglers are served");
        assert!(core.admit(Kind::Request, at(3.0)).is_none(), "though nobody looked in between");
        assert_eq!(core.state(), State::Draining);
    }

    #[test]
    fn past_the_latch_only_what_is_counted_can_count_more() {
        let (mut core, at) = core();
        let request = core.admit(Kind::Request, at(0.0)).unwrap();
        core.drain(1, NOW, at(1.0)).unwrap();
        assert_eq!(core.state(), State::Draining);
        let task = core.count(Kind::Queued, at(1.0));
        core.release(request, Kind::Request);
        assert_eq!(core.state(), State::Draining, "the request's task holds it");
        core.shift(Kind::Queued, Kind::Running);
        assert_eq!(core.in_flight(), InFlight { queued: 0, running: 1, requests: 0 });
        core.release(task, Kind::Running);
        assert!(core.idle());
    }

    #[test]
    fn the_same_epoch_changes_nothing_and_an_older_one_is_refused() {
        let (mut core, at) = core();
        core.drain(7, LINGER, at(0.0)).unwrap();
        core.drain(7, Duration::from_secs(60), at(1.0)).unwrap();
        assert_eq!(core.latches_at(), Some(at(3.0)), "a retry does not lengthen the linger");
        assert_eq!(core.drain(6, LINGER, at(1.0)), Err(Conflict::Stale { asked: 6, seen: 7 }));
        assert_eq!(core.resume(7, at(1.0)), Err(Conflict::Stale { asked: 7, seen: 7 }));
    }

    #[test]
    fn a_late_drain_cannot_undo_a_resume() {
        let (mut core, at) = core();
        core.drain(7, NOW, at(0.0)).unwrap();
        core.resume(8, at(1.0)).unwrap();
        core.resume(8, at(1.0)).expect("a retry is no conflict");
        assert_eq!(core.state(), State::Serving);
        assert!(core.drain(7, NOW, at(2.0)).is_err(), "the drain's own late retry");
        assert!(core.drain(8, NOW, at(2.0)).is_err(), "the resume's epoch is not a drain's");
        assert!(core.accepting());
    }

    #[test]
    fn a_resume_fences_a_drain_that_never_arrived() {
        let (mut core, at) = core();
        core.resume(8, at(0.0)).unwrap();
        assert!(core.drain(7, NOW, at(1.0)).is_err());
        assert!(core.accepting());
    }

    #[test]
    fn a_newer_epoch_keeps_the_latch_closed_and_never_shortens_a_linger() {
        let (mut core, at) = core();
        core.drain(1, LINGER, at(0.0)).unwrap();
        core.drain(2, NOW, at(1.0)).unwrap();
        assert_eq!(core.latches_at(), Some(at(3.0)), "what the first promised holds");
        core.drain(3, LINGER, at(2.0)).unwrap();
        assert_eq!(core.latches_at(), Some(at(5.0)));
        core.advance(at(5.0));
        core.drain(4, LINGER, at(6.0)).unwrap();
        assert_eq!((core.accepting(), core.epoch()), (false, 4), "a closed door is not opened again");
    }

    #[test]
    fn sigterm_is_final() {
        let (mut core, at) = core();
        core.drain(1, NOW, at(0.0)).unwrap();
        core.terminate(LINGER, at(1.0));
        assert_eq!(core.resume(2, at(1.0)), Err(Conflict::Terminating));
        assert_eq!(
            (core.state(), core.accepting()),
            (State::Terminating, false),
            "an idle pod lingers no more"
        );
    }

    #[test]
    fn sigterm_lingers_unless_the_door_is_closed_already() {
        let (mut core, at) = core();
        core.terminate(LINGER, at(0.0));
        assert_eq!((core.state(), core.latches_at()), (State::Terminating, Some(at(3.0))));
        core.drain(1, Duration::from_secs(60), at(1.0)).expect("its epoch can still be set");
        assert_eq!(core.latches_at(), Some(at(3.0)), "but nothing is lengthened any more");
        core.terminate(NOW, at(2.0));
        assert!(!core.accepting());
    }

    #[test]
    fn sigterm_shortens_a_long_linger() {
        let (mut core, at) = core();
        core.drain(1, Duration::from_secs(3600), at(0.0)).unwrap();
        core.terminate(LINGER, at(10.0));
        assert_eq!(core.latches_at(), Some(at(13.0)));
    }

    #[test]
    fn the_oldest_is_the_oldest_that_is_left() {
        let (mut core, at) = core();
        let first = core.admit(Kind::Request, at(0.0)).unwrap();
        let second = core.admit(Kind::Queued, at(4.0)).unwrap();
        core.shift(Kind::Queued, Kind::Running);
        assert_eq!(core.oldest(at(10.0)), Duration::from_secs(10));
        core.release(first, Kind::Request);
        assert_eq!(core.oldest(at(10.0)), Duration::from_secs(6), "queued time counts");
        core.release(second, Kind::Running);
        assert_eq!(core.oldest(at(10.0)), Duration::ZERO);
    }
}
