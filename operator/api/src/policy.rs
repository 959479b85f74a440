//! How the pods of one revision are asked and drained.
//!
//! Written as an annotation on the revision's Deployment while it is the update revision, and frozen after: each pod is
//! asked in its own revision's language. The JSON outlives operator versions, so every field has a default or is there
//! from the first version on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::spec::{OnDeadline, Signal};

mod question;

pub use question::{MAX_IDLE_AT, Question};

/// The longest `deadlineSeconds`: seven days.
pub const MAX_DEADLINE_SECONDS: u32 = 7 * 24 * 3600;

/// The resolved `inFlight` and `drain` of one revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// How a pod is asked.
    pub in_flight: InFlightPolicy,
    /// How a pod is drained.
    pub drain: DrainPolicy,
}

impl Policy {
    /// As the annotation's value: one line of JSON, the same for the same policy.
    pub fn to_annotation(&self) -> String {
        // Serializing cannot fail: there are no maps with keys other than strings, and no custom errors.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// From an annotation's value.
    pub fn from_annotation(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

/// Where and how a pod is asked what it has in flight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InFlightPolicy {
    /// The container that has the port. Without a gate: while it never started, its pod cannot be busy.
    pub container: String,
    /// With a gate: the container whose work it is, and the gate's own is none. An operator of before reads over it, and takes the gate for the app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_container: Option<String>,
    /// The port's number.
    pub port: u16,
    /// The HTTP path.
    pub path: String,
    /// What answers there.
    pub question: Question,
    /// Seconds between two questions to a draining pod.
    pub poll_interval_seconds: u32,
    /// Seconds an answer may take.
    pub timeout_seconds: u32,
}

impl InFlightPolicy {
    /// Time between two questions to a draining pod. An annotation may have been edited by hand: 0 would be a busy loop.
    pub fn poll_interval(&self) -> Duration {
        Duration::from_secs(self.poll_interval_seconds.clamp(1, 3600).into())
    }

    /// Time an answer may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds.clamp(1, 60).into())
    }
}

/// How a pod is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainPolicy {
    /// How it learns that it drains.
    #[serde(with = "word")]
    pub signal: Signal,
    /// Seconds unrouted and still accepting.
    pub linger_seconds: u32,
    /// With None: seconds for which zero must hold.
    pub quiet_seconds: u32,
    /// Seconds until `on_deadline` applies.
    pub deadline_seconds: u32,
    /// What happens then.
    pub on_deadline: OnDeadline,
}

/// The signal's word in the annotation.
///
/// `Sigterm` is the word of older operators for an app that goes by a quiet zero first, and was their default: a revision that carries it may be of an app that
/// just ends on SIGTERM. So it is read as `None`, and an app that drains itself has another word, which those operators cannot read: they let its pods be.
mod word {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::spec::Signal;

    const DRAINS_ITSELF: &str = "DrainsOnSigterm";

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(signal: &Signal, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(match signal {
            Signal::Http => "Http",
            Signal::Sigterm => DRAINS_ITSELF,
            Signal::None => "None",
        })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Signal, D::Error> {
        match String::deserialize(from)?.as_str() {
            "Http" => Ok(Signal::Http),
            DRAINS_ITSELF => Ok(Signal::Sigterm),
            "None" | "Sigterm" => Ok(Signal::None),
            other => Err(D::Error::unknown_variant(other, &["Http", DRAINS_ITSELF, "None"])),
        }
    }
}

impl DrainPolicy {
    /// How long a drain may take, in seconds: the grace of a pod whose SIGTERM begins its drain.
    pub fn longest_drain_seconds(&self) -> u32 {
        match self.on_deadline {
            OnDeadline::Hold => MAX_DEADLINE_SECONDS,
            OnDeadline::Terminate => self.deadline_seconds,
        }
    }

    /// Time unrouted and still accepting.
    pub fn linger(&self) -> Duration {
        Duration::from_secs(self.linger_seconds.into())
    }

    /// Time for which zero must hold.
    pub fn quiet(&self) -> Duration {
        Duration::from_secs(self.quiet_seconds.into())
    }

    /// Time until `on_deadline` applies, from the drain's beginning.
    pub fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline_seconds.into())
    }
}

#[cfg(test)]
mod tests;
