//! What is asked for in `spec.inFlight`, and that it suits the format.

use std::fmt;

use super::Errors;
use crate::members::Members;
use crate::policy::{MAX_IDLE_AT, Question};
use crate::spec::{Format, InFlight};
use graceful_prometheus::MetricSelector;

const POINTERS: &str = "spec.inFlight.jsonPointers";
const METRICS: &str = "spec.inFlight.metrics";

/// What the pods are to be asked, or else what is wrong with it.
pub(super) fn question(in_flight: &InFlight, errors: &mut Errors) -> Option<Question> {
    let retired = refuse_retired(in_flight, errors);
    refuse_unsuited(in_flight, errors);
    let InFlight { format, json_pointers, metrics, when_absent, idle_at, .. } = in_flight;
    let idle_at = *idle_at;
    let missing = "is missing; say where the number is, as in jsonPointers: [/queue/length]";
    match (format, json_pointers, metrics) {
        (Format::Graceful, _, _) => Some(Question::Graceful),
        (Format::JsonPointer, Some(pointers), _) => {
            for bad in pointers.iter().filter(|p| !p.is_empty() && !p.starts_with('/')) {
                errors.add(POINTERS, format!("{bad:?} must start with /, as in /queue/length"));
            }
            let pointers = members(POINTERS, pointers.clone(), errors)?;
            Some(Question::JsonPointer { pointers, idle_at })
        }
        (Format::Prometheus, _, Some(metrics)) => {
            let parsed = metrics.iter().map(|metric| metric.parse::<MetricSelector>());
            let metrics = parsed.collect::<Result<_, _>>().map_err(|why| errors.add(METRICS, why)).ok()?;
            let metrics = members(METRICS, metrics, errors)?;
            Some(Question::Prometheus { metrics, when_absent: when_absent.unwrap_or_default(), idle_at })
        }
        // Once is enough: what replaces it was said.
        (Format::JsonPointer, None, _) | (Format::Prometheus, _, None) if retired => None,
        (Format::JsonPointer, None, _) => {
            errors.add(POINTERS, missing);
            None
        }
        (Format::Prometheus, _, None) => {
            errors.add(METRICS, "is missing; name the metric, as in metrics: [queue_length]");
            None
        }
    }
}

/// The single fields that came before the lists. They stay in the schema to be refused here: one that the schema does not have is pruned without a word
/// by whoever applies without strict validation, Helm and GitOps among them, and is gone from an object that was stored before.
fn refuse_retired(in_flight: &InFlight, errors: &mut Errors) -> bool {
    let mut refuse = |field: &str, list: &str, value: &Option<String>| {
        let Some(value) = value else { return false };
        // JSON's quotes are YAML's as well.
        let quoted = serde_json::Value::from(value.as_str());
        errors.add(format!("spec.inFlight.{field}"), format!("write {list}: [{quoted}]"));
        true
    };
    let pointer = refuse("jsonPointer", "jsonPointers", &in_flight.json_pointer);
    refuse("metric", "metrics", &in_flight.metric) || pointer
}

fn refuse_unsuited(in_flight: &InFlight, errors: &mut Errors) {
    let InFlight { format, json_pointers, metrics, when_absent, idle_at, .. } = in_flight;
    if json_pointers.is_some() && *format != Format::JsonPointer {
        errors.add(POINTERS, "needs format: JsonPointer; set it, or remove jsonPointers");
    }
    if metrics.is_some() && *format != Format::Prometheus {
        errors.add(METRICS, "needs format: Prometheus; set it, or remove metrics");
    }
    if when_absent.is_some() && *format != Format::Prometheus {
        errors.add("spec.inFlight.whenAbsent", "needs format: Prometheus; set it, or remove whenAbsent");
    }
    if *idle_at > 0 && *format == Format::Graceful {
        let why = "needs another format: with Graceful the pod itself says what is in flight; remove idleAt";
        errors.add("spec.inFlight.idleAt", why);
    }
    if *idle_at > MAX_IDLE_AT {
        errors.add("spec.inFlight.idleAt", format!("must be 0 to {MAX_IDLE_AT}"));
    }
}

fn members<T: PartialEq + fmt::Display>(
    field: &str,
    given: Vec<T>,
    errors: &mut Errors,
) -> Option<Members<T>> {
    given.try_into().map_err(|why: String| errors.add(field, why)).ok()
}
