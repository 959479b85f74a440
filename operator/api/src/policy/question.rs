//! What answers on the in-flight port, with all that is needed to read it; and how an annotation has it.

use serde::{Deserialize, Serialize};

use crate::members::Members;
use crate::spec::WhenAbsent;
use graceful_prometheus::MetricSelector;

/// The most that `idleAt` may be. What is asked for is an endpoint that counts its own questions, and few are asked at a time.
pub const MAX_IDLE_AT: u32 = 1000;

/// What answers on the in-flight port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Question {
    /// The drain protocol v1.
    Graceful,
    /// A JSON document.
    JsonPointer {
        /// Where its numbers are (RFC 6901). They are added up.
        pointers: Members<String>,
        /// The sum at which nothing is in flight.
        idle_at: u32,
    },
    /// The Prometheus text format.
    Prometheus {
        /// The series to sum.
        metrics: Members<MetricSelector>,
        /// What it means that one of them is not there.
        when_absent: WhenAbsent,
        /// The sum at which nothing is in flight.
        idle_at: u32,
    },
}

/// The same in an annotation. A lone member stands under the name that it had before there were sums: no upgrade writes the annotation anew, and an older
/// operator still reads it. Of a sum an older operator reads nothing, and lets the pods be.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "format")]
enum Written {
    Graceful,
    #[serde(rename_all = "camelCase")]
    JsonPointer {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pointer: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pointers: Option<Members<String>>,
        #[serde(default, skip_serializing_if = "is_zero")]
        idle_at: u32,
    },
    #[serde(rename_all = "camelCase")]
    Prometheus {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        metric: Option<MetricSelector>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        metrics: Option<Members<MetricSelector>>,
        #[serde(default, skip_serializing_if = "WhenAbsent::is_busy")]
        when_absent: WhenAbsent,
        #[serde(default, skip_serializing_if = "is_zero")]
        idle_at: u32,
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl From<Question> for Written {
    fn from(question: Question) -> Self {
        match question {
            Question::Graceful => Self::Graceful,
            Question::JsonPointer { pointers, idle_at } => {
                let (pointer, pointers) = split(pointers);
                Self::JsonPointer { pointer, pointers, idle_at }
            }
            Question::Prometheus { metrics, when_absent, idle_at } => {
                let (metric, metrics) = split(metrics);
                Self::Prometheus { metric, metrics, when_absent, idle_at }
            }
        }
    }
}

impl TryFrom<Written> for Question {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        Ok(match written {
            Written::Graceful => Self::Graceful,
            Written::JsonPointer { pointer, pointers, idle_at } => {
                Self::JsonPointer { pointers: join(pointer, pointers)?, idle_at: bounded(idle_at)? }
            }
            Written::Prometheus { metric, metrics, when_absent, idle_at } => {
                Self::Prometheus { metrics: join(metric, metrics)?, when_absent, idle_at: bounded(idle_at)? }
            }
        })
    }
}

fn split<T: Clone>(members: Members<T>) -> (Option<T>, Option<Members<T>>) {
    match members.as_slice() {
        [only] => (Some(only.clone()), None),
        _ => (None, Some(members)),
    }
}

fn join<T: PartialEq + std::fmt::Display>(
    lone: Option<T>,
    members: Option<Members<T>>,
) -> Result<Members<T>, String> {
    match (lone, members) {
        (Some(only), None) => vec![only].try_into(),
        (None, Some(members)) => Ok(members),
        (Some(_), Some(_)) | (None, None) => Err("either one member, or a list of them".to_owned()),
    }
}

/// An annotation may have been edited by hand, and a large enough number would make any pod idle.
fn bounded(idle_at: u32) -> Result<u32, String> {
    if idle_at <= MAX_IDLE_AT { Ok(idle_at) } else { Err(format!("idleAt is {idle_at}")) }
}
