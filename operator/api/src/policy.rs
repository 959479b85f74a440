//! How the pods of one revision are asked and drained.
//!
//! Written as an annotation on the revision's Deployment while it is the update revision, and frozen after: each pod is
//! asked in its own revision's language. The JSON outlives operator versions, so every field has a default or is there
//! from the first version on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::spec::{OnDeadline, Signal, WhenAbsent};
use crate::validated::MAX_DEADLINE_SECONDS;
use graceful_prometheus::MetricSelector;

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
    /// The container that has the port: while it never started, its pod cannot be busy.
    pub container: String,
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

/// What answers on the in-flight port, with all that is needed to read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "format")]
pub enum Question {
    /// The drain protocol v1.
    Graceful,
    /// A JSON document.
    JsonPointer {
        /// Where its number is (RFC 6901).
        pointer: String,
    },
    /// The Prometheus text format.
    Prometheus {
        /// The series to sum.
        metric: MetricSelector,
        /// What it means that none is there.
        #[serde(rename = "whenAbsent", default, skip_serializing_if = "WhenAbsent::is_busy")]
        when_absent: WhenAbsent,
    },
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
mod tests {
    use super::*;

    fn policy(when_absent: WhenAbsent) -> Policy {
        Policy {
            in_flight: InFlightPolicy {
                container: "web".to_owned(),
                port: 8000,
                path: "/metrics".to_owned(),
                question: Question::Prometheus {
                    metric: r#"q{state="running"}"#.parse().unwrap(),
                    when_absent,
                },
                poll_interval_seconds: 1,
                timeout_seconds: 2,
            },
            drain: DrainPolicy {
                signal: Signal::Http,
                linger_seconds: 3,
                quiet_seconds: 5,
                deadline_seconds: 300,
                on_deadline: OnDeadline::Hold,
            },
        }
    }

    /// P5: golden: Deployments in users' clusters carry exactly this text. It stays so where `whenAbsent` is not used (P5).
    #[test]
    fn an_annotation_written_today_is_read_by_every_later_version() {
        let text = r#"{"inFlight":{"container":"web","port":8000,"path":"/metrics","question":{"format":"Prometheus","metric":"q{state=\"running\"}"},"pollIntervalSeconds":1,"timeoutSeconds":2},"drain":{"signal":"Http","lingerSeconds":3,"quietSeconds":5,"deadlineSeconds":300,"onDeadline":"Hold"}}"#;
        assert_eq!(policy(WhenAbsent::Busy).to_annotation(), text);
        assert_eq!(Policy::from_annotation(text).unwrap(), policy(WhenAbsent::Busy));
        let text = text.replace(r#"\"}"},"poll"#, r#"\"}","whenAbsent":"Zero"},"poll"#);
        assert_eq!(policy(WhenAbsent::Zero).to_annotation(), text);
        assert_eq!(Policy::from_annotation(&text).unwrap(), policy(WhenAbsent::Zero));
    }

    /// P1 over an upgrade: a revision of before, whose app may end at once on SIGTERM, keeps its quiet zero.
    #[test]
    fn the_sigterm_of_older_operators_stays_a_quiet_zero() {
        let reads = |word: &str| {
            let text = policy(WhenAbsent::Busy).to_annotation().replace("\"Http\"", &format!("\"{word}\""));
            Policy::from_annotation(&text).map(|p| p.drain.signal).ok()
        };
        assert_eq!((reads("Sigterm"), reads("Somehow")), (Some(Signal::None), None));
        for signal in [Signal::Http, Signal::Sigterm, Signal::None] {
            let mut written = policy(WhenAbsent::Busy);
            written.drain.signal = signal;
            assert_eq!(Policy::from_annotation(&written.to_annotation()).unwrap(), written);
        }
    }
}
