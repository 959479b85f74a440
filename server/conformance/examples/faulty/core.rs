//! The state, and what moves it.

use std::time::Duration;

use tokio::time::Instant;

use crate::faults::faulty;

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Door {
    Open,
    Lingering(Instant),
    Shut,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum By {
    Nobody,
    Drain,
    Resume,
}

/// Why a verb is refused.
pub(crate) enum Conflict {
    Stale,
    Terminating,
}

pub(crate) struct Core {
    pub(crate) door: Door,
    pub(crate) terminating: bool,
    pub(crate) epoch: u64,
    by: By,
    pub(crate) requests: u64,
    pub(crate) running: u64,
    pub(crate) connections: u64,
    pub(crate) since: Option<Instant>,
}

impl Core {
    pub(crate) fn new() -> Self {
        Self {
            door: Door::Open,
            terminating: false,
            epoch: if faulty("epoch-is-a-clock") { 1_764_000_000 } else { 0 },
            by: By::Nobody,
            requests: 0,
            running: 0,
            connections: 0,
            since: None,
        }
    }

    pub(crate) fn advance(&mut self) {
        if let Door::Lingering(until) = self.door
            && Instant::now() >= until
            && !faulty("never-latches")
        {
            self.door = Door::Shut;
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.requests + self.running
    }

    pub(crate) fn accepting(&self) -> bool {
        self.door != Door::Shut
    }

    pub(crate) fn idle(&self) -> bool {
        !self.accepting() && self.total() == 0
    }

    pub(crate) fn state(&self) -> &'static str {
        match self.door {
            _ if self.terminating => "Terminating",
            Door::Open => "Serving",
            Door::Lingering(_) => "Lingering",
            Door::Shut if self.total() == 0 || faulty("idle-while-busy") => "Idle",
            Door::Shut => "Draining",
        }
    }

    fn take(&mut self, epoch: u64, by: By) -> Result<(), Conflict> {
        if epoch <= self.epoch {
            let forgives = if by == By::Drain { "takes-any-epoch" } else { "resume-takes-any-epoch" };
            if !faulty(forgives) {
                return Err(Conflict::Stale);
            }
        }
        if by == By::Drain || !faulty("resume-keeps-the-epoch") {
            (self.epoch, self.by) = (epoch, by);
        }
        Ok(())
    }

    pub(crate) fn drain(&mut self, epoch: u64, linger: Duration) -> Result<(), Conflict> {
        self.advance();
        let until = Instant::now() + linger;
        if (epoch, self.by) == (self.epoch, By::Drain)
            || faulty("resume-keeps-the-epoch") && epoch == self.epoch
        {
            if faulty("retry-restarts-the-linger") && self.door != Door::Shut {
                self.door = Door::Lingering(until);
            }
            return Ok(());
        }
        self.take(epoch, By::Drain)?;
        self.door = match self.door {
            Door::Open if linger.is_zero() || faulty("no-linger") => Door::Shut,
            Door::Open => Door::Lingering(until),
            Door::Lingering(_) if faulty("takeover-shortens") => Door::Lingering(until),
            Door::Lingering(before) => Door::Lingering(before.max(until)),
            Door::Shut if faulty("takeover-reopens") => Door::Lingering(until),
            Door::Shut => Door::Shut,
        };
        Ok(())
    }

    pub(crate) fn resume(&mut self, epoch: u64) -> Result<(), Conflict> {
        self.advance();
        if self.terminating && !faulty("resume-after-sigterm") {
            return Err(Conflict::Terminating);
        }
        if (epoch, self.by) == (self.epoch, By::Resume) && !faulty("resume-only-once") {
            return Ok(());
        }
        if self.door == Door::Open && faulty("resume-needs-a-drain") {
            return Err(Conflict::Stale);
        }
        self.take(epoch, By::Resume)?;
        if !faulty("resume-keeps-the-latch") {
            self.door = Door::Open;
        }
        Ok(())
    }

    pub(crate) fn terminate(&mut self, linger: Duration) {
        self.advance();
        self.terminating = true;
        let until = Instant::now() + linger;
        self.door = match self.door {
            Door::Open if faulty("sigterm-closes-at-once") => Door::Shut,
            Door::Open => Door::Lingering(until),
            Door::Lingering(before) => Door::Lingering(before.min(until)),
            Door::Shut if faulty("idle-lingers") => Door::Lingering(Instant::now() + Duration::from_secs(5)),
            Door::Shut => Door::Shut,
        };
    }
}
