//! Who leads, decided: from what was seen of the record and when, on this process' own clock. Pure: the caller brings the clock.
//!
//! # Guarantees
//! - A standby takes the lease only after it has seen one version of the record, unchanged, for the whole lease duration.
//! - A term ends `renew_deadline` after the last good renewal was *sent*: it cannot have reached the record any earlier than that.
//! - A write names the version that it replaces: of two that take the same, one fails.
//!
//! # Why two never lead
//! A renewal sent at s is in the record at s at the earliest, and no standby sees that version before. So it takes over after s + lease, and the leader
//! has stopped at s + `renew_deadline`, each on its own clock. That holds until one clock runs lease / `renew_deadline` times as fast as the other.

use std::time::Duration;

use super::Timing;

/// A version of the record, as the API server counts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version(pub(super) String);

/// One process. No two have the same, and one that is started anew has another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity(pub(super) String);

/// The record, as far as it decides anything. Its times do not: they are read off other clocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) version: Version,
    /// None: released, or never held.
    pub(super) holder: Option<Identity>,
    /// How long its holder asked others to wait.
    pub(super) lease: Duration,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Wait(Duration),
    Read,
    /// Put our name into the record: create it, or replace this version.
    Write(Option<Version>),
    /// The term is over, for this reason.
    Lost(Lost),
}

/// Why a term ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// No renewal came through in time.
    Expired,
    /// Another holds the lease, or somebody deleted it.
    Taken,
}

/// The record, and when this version of it was seen first.
#[derive(Clone, Debug)]
struct SeenRecord {
    record: Option<Record>,
    since: Duration,
}

/// One candidate.
#[derive(Clone, Debug)]
pub(super) struct Elector {
    identity: Identity,
    timing: Timing,
    seen: Option<SeenRecord>,
    /// There was a record once.
    known: bool,
    /// When the record was last asked for or written to, well or not.
    called: Option<Duration>,
    /// What is known of the record is not the last word: a write had no good answer.
    doubt: bool,
    /// When the last good renewal was sent.
    renewed: Option<Duration>,
    lost: Option<Lost>,
}

impl Elector {
    pub(super) fn new(identity: Identity, timing: Timing) -> Self {
        Self {
            identity,
            timing,
            seen: None,
            known: false,
            called: None,
            doubt: false,
            renewed: None,
            lost: None,
        }
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The end of the term; none for a standby.
    pub(super) fn until(&self) -> Option<Duration> {
        self.renewed.filter(|_| self.lost.is_none()).map(|sent| sent + self.timing.renew_deadline)
    }

    /// The version that we know to be in the record under our name: what a release replaces.
    pub(super) fn own_version(&self) -> Option<&Version> {
        let record = self.seen.as_ref()?.record.as_ref()?;
        (record.holder.as_ref() == Some(&self.identity)).then_some(&record.version)
    }

    /// Who holds it, as far as is known.
    pub(super) fn holder(&self) -> Option<&Identity> {
        self.seen.as_ref()?.record.as_ref()?.holder.as_ref()
    }

    /// What to do now.
    pub(super) fn step(&mut self, now: Duration) -> Step {
        if self.until().is_some_and(|until| now >= until) {
            self.lost = Some(Lost::Expired);
        }
        if let Some(lost) = &self.lost {
            return Step::Lost(lost.clone());
        }
        let every = match self.renewed {
            Some(_) => self.timing.retry_period,
            None => self.timing.look_every,
        };
        let Some(seen) = &self.seen else { return self.paced(every, now, Step::Read) };
        if self.doubt {
            // Found out at the pace of a standby: a leader has little time left to know.
            return self.paced(self.timing.look_every, now, Step::Read);
        }
        match &seen.record {
            // Somebody deleted it, perhaps under a leader that does not know yet. A process that never saw it cannot tell that from a first install.
            None if self.known && now < seen.since + self.timing.lease_duration => {
                self.paced(every, now, Step::Read)
            }
            None => self.paced(every, now, Step::Write(None)),
            // Our own name without a term: a write of ours whose answer was lost. When it was done is not known, so it is written once more.
            Some(record) if record.holder.as_ref() == Some(&self.identity) => match self.renewed {
                Some(sent) => after(sent + every, now, Step::Write(Some(record.version.clone()))),
                None => Step::Write(Some(record.version.clone())),
            },
            Some(record) => {
                let free = match record.holder {
                    None => seen.since,
                    // What its holder promised, whatever we would have asked for ourselves.
                    Some(_) => seen.since + record.lease.max(self.timing.lease_duration),
                };
                if now >= free && self.fresh(now) {
                    Step::Write(Some(record.version.clone()))
                } else {
                    self.paced(every, now, Step::Read)
                }
            }
        }
    }

    /// What a read showed; none where there is no Lease. Called when the answer came: a version was in the record before that, so that the wait which
    /// begins here ends too late and never too early.
    pub(super) fn saw(&mut self, record: Option<Record>, now: Duration) {
        self.doubt = false;
        self.known |= record.is_some();
        let ours = record.as_ref().is_some_and(|record| record.holder.as_ref() == Some(&self.identity));
        if self.renewed.is_some() && !ours {
            self.lost.get_or_insert(Lost::Taken);
        }
        let same = |seen: &SeenRecord| {
            seen.record.as_ref().map(|r| &r.version) == record.as_ref().map(|r| &r.version)
        };
        if !self.seen.as_ref().is_some_and(same) {
            self.seen = Some(SeenRecord { record, since: now });
        }
    }

    /// A read or a write is about to be sent.
    pub(super) fn asks(&mut self, now: Duration) {
        self.called = Some(now);
    }

    /// A write that was sent then is in the record, as this version.
    pub(super) fn wrote(&mut self, record: Record, sent: Duration, now: Duration) {
        self.doubt = false;
        self.seen = Some(SeenRecord { record: Some(record), since: now });
        self.renewed = Some(sent);
    }

    /// A write failed: it was refused, or it had no answer and may be done yet.
    pub(super) fn failed(&mut self) {
        self.doubt = true;
    }

    /// Asked not long ago: what would be taken over has been looked at on this side of any pause of ours. (Were it not, the write would still fail by
    /// its version.)
    fn fresh(&self, now: Duration) -> bool {
        self.called.is_some_and(|called| now < called + self.timing.renew_deadline)
    }

    fn paced(&self, every: Duration, now: Duration, step: Step) -> Step {
        match self.called {
            Some(called) => after(called + every, now, step),
            None => step,
        }
    }
}

/// The step, once it is time.
fn after(at: Duration, now: Duration, step: Step) -> Step {
    match at.checked_sub(now).filter(|left| !left.is_zero()) {
        Some(left) => Step::Wait(left),
        None => step,
    }
}

#[cfg(test)]
mod tests;
