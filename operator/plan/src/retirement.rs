//! One retirement, step by step: which call comes next when a pod is ended, and what each answer changes.
//!
//! # Flow
//! [`Retirement::looked`] → the [`Step`] that it gives is done, and its answer gives the next, until [`Step::Over`]:
//!
//! look → the scale and a write to the pod, dry → (cut: the count goes on the pod) → what the pod has said, once more → DELETE → the scale.
//!
//! The operator's `execute` and the model of the property tests both drive this, so that P1 is proved of the order that runs. Whoever drives it may stop at
//! any step: until the DELETE nothing was done that a later plan has to know.
//!
//! # Guarantees
//! A pod that was put back to serving or given a new epoch since the look is not deleted. Nothing is deleted before a dry run has shown that the scale is
//! permitted and takes less than 500 ms. If the real scale fails all the same, see Caveats. Where the API server is too slow for this order, the scale
//! comes first ([`Step::List`]), and only where a wrong choice of the ReplicaSet loses nothing.
//!
//! # Assumptions
//! The DELETE carries the uid and resourceVersion of the look, and each scale is written on the Deployment as it was last read.
//!
//! # Caveats
//! A scale that meets a conflict is retried only while a live list shows every spare Pending: once a spare runs, the ReplicaSet would choose
//! between it and its busy siblings. Such a spare is a serving pod like any other, and nothing more of that Deployment is ended for a while.

mod take_back;

use std::collections::BTreeMap;
use std::time::Duration;

use graceful_api::DrainPolicy;
use jiff::Timestamp;

use self::take_back::TakeBack;
pub use self::take_back::{Ask, LookAgain, Scale, Scaled};
use crate::action::Proof;
use crate::contact::Contact;
use crate::ids::PodUid;
use crate::last_look::{Verdict, check, may_scale_first, unroutes_in_time};
use crate::observed::{BackoffCause, Pod};
use crate::proofs::still_stands;

/// How long the dry run of a scale may take, and the scale after the DELETE. A spare needs about as long to be scheduled and started; once it runs,
/// the ReplicaSet would choose between it and its busy siblings (a wrong one 4 of 4 times when the scale came 1–4 s late).
pub const AT_ONCE: Duration = Duration::from_millis(500);

/// What is to be ended, and why it may be.
#[derive(Clone, Copy, Debug)]
pub struct Retirement<'a> {
    /// The pod.
    pub pod: &'a PodUid,
    /// Its Deployment's `spec.replicas` as the plan saw it.
    pub replicas: u32,
    /// Why it may go.
    pub proof: Proof,
    /// The other pods of its Deployment that may go as well.
    pub as_well: &'a [(PodUid, Proof)],
    /// How the Deployment's pods are drained.
    pub policy: DrainPolicy,
}

/// What to do next. Each holds what its answer leads to.
#[derive(Debug)]
#[must_use]
pub enum Step<'a> {
    /// Try the scale dry, and a write to the pod as well.
    Try(Try<'a>),
    /// Find out how soon the Deployment's controllers hear of a change, and read the scale anew.
    Measure(Measure<'a>),
    /// Read all pods of the Deployment, just now: the scale may come first.
    List(List<'a>),
    /// Make the pod's deletion cost the lowest, on exactly the pod that was looked at.
    LowerCost(LowerCost<'a>),
    /// Write on the pod what is cut of it, or take an older such note off.
    Note(Note<'a>),
    /// Bring what the pod has said by now.
    Hear(Hear<'a>),
    /// Scale to `to` instead of a DELETE of ours, on the Deployment as it was read: its ReplicaSet ends the pod. This is the last step.
    ScaleFirst {
        /// The new `spec.replicas`.
        to: u32,
    },
    /// DELETE the pod.
    Delete(Delete<'a>),
    /// Scale at once to [`Scale::to`], on the Deployment as it was last read.
    Scale(Scale),
    /// The scale has had no answer: read whether it was done all the same.
    Ask(Ask),
    /// Read the scale, and then all pods of the Deployment. (In this order a spare that runs by now is in the list, or moves the version.)
    LookAgain(LookAgain),
    /// Nothing is left to do.
    Over(End),
}

/// How a retirement ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The pod was ended, and its replica was taken back where it had one.
    Done,
    /// The same, as was found out: the answer to the scale was lost.
    FoundDone,
    /// The pod has finished by itself, and counts for nothing.
    Finished,
    /// Something has changed since the plan, for which nothing was done.
    Changed(&'static str),
    /// The pod is kept, since the API server is too slow: the dry run of the scale took so long.
    TooSlow(Duration),
    /// The pod was ended, and its replica was not taken back: its ReplicaSet makes another pod.
    NotTakenBack {
        /// The replicas that its Deployment was to have.
        to: u32,
        /// What kept the scale back.
        cause: BackoffCause,
        /// In words, without the Deployment's name.
        why: String,
    },
}

impl<'a> Retirement<'a> {
    /// The first step, which is a look: read just now, the pod as it is, how many others of its Deployment are active, and whether the Deployment has the
    /// replicas that the plan saw.
    pub fn looked(self, found: Option<&Pod>, others: u32, as_planned: bool) -> Step<'a> {
        let (scale_to, grace_seconds) = match check(found, self.proof, self.replicas, others) {
            Verdict::Go { scale_to, grace_seconds } => (scale_to, grace_seconds),
            Verdict::Finished => return Step::Over(End::Finished),
            Verdict::Void(why) => return Step::Over(End::Changed(why)),
        };
        if !as_planned {
            return Step::Over(End::Changed("its Deployment was changed meanwhile"));
        }
        let noted = found.is_some_and(|pod| pod.cut.is_some());
        let allowed = Allowed { what: self, scale_to, grace_seconds, noted };
        if allowed.scales() { Step::Try(Try(allowed)) } else { allowed.note() }
    }
}

/// What the look has allowed.
#[derive(Clone, Copy, Debug)]
struct Allowed<'a> {
    what: Retirement<'a>,
    /// The Deployment's replicas once the pod is gone.
    scale_to: u32,
    /// The grace of the DELETE; none is the pod's own.
    grace_seconds: Option<u32>,
    /// It has the note of a cut.
    noted: bool,
}

impl<'a> Allowed<'a> {
    fn scales(&self) -> bool {
        self.scale_to != self.what.replicas
    }

    /// An earlier try to cut the pod may have been refused after its note was written. Where it has finished since, nothing of it is cut.
    fn note(self) -> Step<'a> {
        match self.what.proof {
            Proof::Cut { tasks, .. } => Step::Note(Note { allowed: self, cut: Some(Cut { tasks }) }),
            _ if self.noted => Step::Note(Note { allowed: self, cut: None }),
            _ => Step::Hear(Hear { allowed: self, then: Then::Delete }),
        }
    }
}

/// See [`Step::Try`].
#[derive(Debug)]
pub struct Try<'a>(Allowed<'a>);

impl<'a> Try<'a> {
    /// What to scale to.
    pub fn to(&self) -> u32 {
        self.0.scale_to
    }

    /// The dry run of the scale was permitted and took so long. `came_late`: the last real scale after a DELETE of that Deployment did, not long ago.
    /// (A dry run commits nothing, so the next may as well.) `pod_write` is how long a write to the pod takes; none where it is refused.
    pub fn permitted(self, took: Duration, came_late: bool, pod_write: Option<Duration>) -> Step<'a> {
        let Self(allowed) = self;
        if took > AT_ONCE {
            return Step::List(List { allowed, otherwise: Otherwise::TooSlow(took) });
        }
        // Delays come and go: what was late is asked twice.
        let times = if came_late { 2 } else { 1 };
        match (came_late, unroutes_in_time(pod_write)) {
            (false, true) => allowed.note(),
            (true, true) => Step::List(List { allowed, otherwise: Otherwise::Note }),
            (_, false) => Step::List(List { allowed, otherwise: Otherwise::Measure { times } }),
        }
    }
}

/// See [`Step::Measure`]. This is for pods that are slow to write to: a spare would have clients before it is out of service, and end with them, unless
/// its ReplicaSet deletes it before it has started.
#[derive(Debug)]
pub struct Measure<'a> {
    allowed: Allowed<'a>,
    /// How often, this time included.
    times: u32,
}

impl<'a> Measure<'a> {
    /// They hear of it within [`FOLLOWS_AT_ONCE`](crate::last_look::FOLLOWS_AT_ONCE), and the Deployment has the replicas that the plan saw. Where they do
    /// not, the pod is kept.
    pub fn followed(self) -> Step<'a> {
        let Self { allowed, times } = self;
        match times {
            0 | 1 => allowed.note(),
            _ => Step::Measure(Measure { allowed, times: times - 1 }),
        }
    }
}

/// See [`Step::List`].
#[derive(Debug)]
pub struct List<'a> {
    allowed: Allowed<'a>,
    otherwise: Otherwise,
}

/// What is done where the scale may not come first.
#[derive(Debug)]
enum Otherwise {
    TooSlow(Duration),
    Measure { times: u32 },
    Note,
}

impl<'a> List<'a> {
    /// All pods of the Deployment, and what they have said by now.
    pub fn read(self, live: &[Pod], contacts: &BTreeMap<PodUid, Contact>, now: Timestamp) -> Step<'a> {
        let Self { allowed, otherwise } = self;
        let Retirement { pod, proof, as_well, policy, .. } = allowed.what;
        // The ReplicaSet may take any of them: what each has said must stand just now.
        let stand = |(uid, proof): &&(PodUid, Proof)| still_stands(*proof, contacts.get(uid), policy, now);
        let as_well: Vec<_> = as_well.iter().filter(stand).cloned().collect();
        if may_scale_first(pod, proof, &as_well, policy, live) {
            return Step::LowerCost(LowerCost(allowed));
        }
        match otherwise {
            Otherwise::TooSlow(took) => Step::Over(End::TooSlow(took)),
            Otherwise::Measure { times } => Step::Measure(Measure { allowed, times }),
            Otherwise::Note => allowed.note(),
        }
    }
}

/// See [`Step::LowerCost`].
#[derive(Debug)]
pub struct LowerCost<'a>(Allowed<'a>);

impl<'a> LowerCost<'a> {
    /// It was written.
    pub fn written(self) -> Step<'a> {
        Step::Hear(Hear { allowed: self.0, then: Then::ScaleFirst })
    }
}

/// See [`Step::Note`].
#[derive(Debug)]
pub struct Note<'a> {
    allowed: Allowed<'a>,
    cut: Option<Cut>,
}

/// What is cut of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// How much was in flight; none where nobody knows.
    pub tasks: Option<u64>,
}

impl<'a> Note<'a> {
    /// What to write; none takes the note off.
    pub fn cut(&self) -> Option<Cut> {
        self.cut
    }

    /// It was written. The DELETE is of the pod as this has left it.
    pub fn written(self) -> Step<'a> {
        Step::Hear(Hear { allowed: self.allowed, then: Then::Delete })
    }
}

/// See [`Step::Hear`]. What a pod has said may have changed since the plan, which is seconds old behind a slow API server.
#[derive(Debug)]
pub struct Hear<'a> {
    allowed: Allowed<'a>,
    then: Then,
}

#[derive(Debug)]
enum Then {
    Delete,
    ScaleFirst,
}

impl<'a> Hear<'a> {
    /// What it has said by now.
    pub fn heard(self, contact: Option<&Contact>, now: Timestamp) -> Step<'a> {
        let Self { allowed, then } = self;
        if !still_stands(allowed.what.proof, contact, allowed.what.policy, now) {
            return Step::Over(End::Changed("what the pod said does not stand any more"));
        }
        match then {
            Then::Delete => Step::Delete(Delete(allowed)),
            Then::ScaleFirst => Step::ScaleFirst { to: allowed.scale_to },
        }
    }
}

/// See [`Step::Delete`].
#[derive(Debug)]
pub struct Delete<'a>(Allowed<'a>);

impl<'a> Delete<'a> {
    /// The grace to send; none is the pod's own.
    pub fn grace_seconds(&self) -> Option<u32> {
        self.0.grace_seconds
    }

    /// The pod goes, as was known so long after the DELETE was sent. Where that was late, or was found out only by asking, a spare may run by now.
    pub fn done(self, took: Duration) -> Step<'a> {
        let Self(allowed) = self;
        if !allowed.scales() {
            return Step::Over(End::Done);
        }
        let back = TakeBack::to(allowed.scale_to);
        if took > AT_ONCE { back.look_first() } else { back.at_once() }
    }
}

#[cfg(test)]
mod tests;
