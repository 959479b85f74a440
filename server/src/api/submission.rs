//! What a client hands in, read strictly: a field that is unknown or out of range is named, with what to write instead.
//! The input is not looked into here; it goes to its kind as the text it came as.

use std::time::Duration;

use graceful_store::{Idempotency, NewTask};
use jiff::Timestamp;
use jiff::fmt::temporal::Pieces;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use utoipa::{IntoParams, IntoResponses, ToSchema};

use crate::api::fields::{Fields, Object};
use crate::api::queue_name;
use crate::client_id;
use crate::kind::Kind;
use crate::problem::{Problem, ProblemBody};
use crate::queue::Defaults;
use crate::sleep::Sleep;

/// What a task is that does not say: the seed's.
pub(crate) const DEFAULT_KIND: &str = Sleep::NAME;
/// The rule by which a fingerprint was made, which is its first byte. The first version's have none.
const RAW_TEXT: u8 = 2;
/// What a task gets as input that was handed in without one.
const NO_INPUT: &str = "{}";

const MOST_ATTEMPTS: f64 = 100.0;
const MOST_DELAY_SECONDS: f64 = 10.0 * 365.0 * 86_400.0;
const MOST_TIMEOUT_SECONDS: f64 = 7.0 * 86_400.0;
const LEAST_TIMEOUT_SECONDS: f64 = 0.001;
const MOST_KEEP_SECONDS: f64 = 90.0 * 86_400.0;

/// Each field, and what to write into it.
const FIELDS: Fields = Fields(&[
    ("kind", "write the name of a kind as a string; GET /v1/kinds lists them"),
    ("input", "write the input as JSON"),
    ("queue", "write the name of a queue as a string; GET /v1/queues lists them"),
    (
        "concurrency_key",
        "write a string of 1 to 128 characters without control characters and marks of direction",
    ),
    ("priority", "write a whole number from -32768 to 32767"),
    ("delay_seconds", "write a number of seconds from 0 to 315360000"),
    ("not_before", "write a time as 2026-11-22T20:48:00Z"),
    ("timeout_seconds", "write a number of seconds from 0.001 to 604800"),
    ("max_attempts", "write a whole number from 1 to 100"),
    ("client_id", "write a string of 1 to 128 characters without control characters and marks of direction"),
    ("keep_seconds", "write a number of seconds from 0 to 7776000"),
]);

/// A task to do. Everything has a default: `{}` is a task.
#[derive(Debug, Default, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewTask, example = json!({"kind": "sleep", "priority": 5, "client_id": "alice", "max_attempts": 3}))]
pub(crate) struct NewTaskBody<'a> {
    /// Which kind of task it is: `sleep`, unless told otherwise.
    kind: Option<String>,
    /// What the kind needs to know; an empty object when left out.
    #[serde(borrow, serialize_with = "parsed")]
    #[schema(value_type = Option<Object>)]
    input: Option<&'a RawValue>,
    /// The queue that it waits in: `default`, unless told otherwise. It must be there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-z0-9_-]+$")]
    queue: Option<String>,
    /// Whose turn it takes in its queue, a tenant's say: keys take turns, and of one key no more run at once than the queue's
    /// `concurrency_per_key` says. Those without one have a turn together.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(
        min_length = 1,
        max_length = 128,
        pattern = r"^[^\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+$"
    )]
    concurrency_key: Option<String>,
    /// Higher comes first of its queue and key; among equals the older.
    #[schema(value_type = Option<i16>, minimum = -32768, maximum = 32767)]
    priority: Option<f64>,
    /// It is not started before so much time has passed. Beside `not_before`, the later of the two counts.
    #[schema(minimum = 0, maximum = 315360000)]
    delay_seconds: Option<f64>,
    /// It is not started before this time.
    #[schema(format = DateTime)]
    not_before: Option<String>,
    /// How long one attempt may take; without it, what the server was started with.
    #[schema(minimum = 0.001, maximum = 604800)]
    timeout_seconds: Option<f64>,
    /// How often it may be started: an attempt that fails is followed by another. One whose pod dies costs none of these.
    /// Without it, what its queue says, or what the server was started with.
    #[schema(value_type = Option<u16>, minimum = 1, maximum = 100)]
    max_attempts: Option<f64>,
    /// The client that submits it: a client can ask for the events of its own tasks.
    #[schema(
        min_length = 1,
        max_length = 128,
        pattern = r"^[^\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+$"
    )]
    client_id: Option<String>,
    /// How long it is remembered once it has ended. Without it, what the server was started with: an hour, and two weeks
    /// when it is dead, unless the server was told otherwise.
    #[schema(minimum = 0, maximum = 7776000)]
    keep_seconds: Option<f64>,
}

/// What the submit routes know of headers; for the document.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes the headers in the document")]
pub(crate) struct SubmissionHeaders {
    /// The client's own name for this submission, such as a uuid; bare or in double quotes.
    #[param(
        rename = "Idempotency-Key",
        pattern = "^([A-Za-z0-9_.:~+/=-]{1,255}|\"[A-Za-z0-9_.:~+/=-]{1,255}\")$"
    )]
    idempotency_key: Option<String>,
    /// The W3C trace that the task's attempts belong to. One that is malformed is ignored.
    traceparent: Option<String>,
}

/// How the queue refuses a submission; for the document.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "describes the answers in the document")]
pub(crate) enum Refused {
    #[response(status = 422, description = "The key belongs to a task with other content.")]
    KeyReused(ProblemBody),
    #[response(status = 429, description = "The queue is full.")]
    Full(ProblemBody),
    #[response(status = 503, description = "The pod drains, or the queue is unavailable.")]
    Unavailable(ProblemBody),
}

/// The task of a submission without a body: the same as of `{}`.
pub(crate) fn plain(
    key: Option<String>,
    defaults: &Defaults,
    attempts: impl Fn(&str) -> Option<u16>,
) -> NewTask {
    let mut task = defaults.task(DEFAULT_KIND, NO_INPUT.to_owned());
    task.max_attempts = attempts(&task.queue).unwrap_or(task.max_attempts);
    task.idempotency = key.map(|key| NewTaskBody::default().under(key));
    task
}

/// Reads a body. Whether there is such a kind and such a queue, and whether the kind takes the input, is for the caller to see.
/// `attempts`: how often a queue's tasks may be started that do not say so, where it says.
pub(crate) fn read(
    body: &[u8],
    key: Option<String>,
    defaults: &Defaults,
    now: Timestamp,
    attempts: impl Fn(&str) -> Option<u16>,
) -> Result<NewTask, Problem> {
    let Object(body): Object<NewTaskBody<'_>> =
        serde_json::from_slice(body).map_err(|error| explain(body, &error))?;
    let idempotency = key.map(|key| body.under(key));
    let NewTaskBody {
        kind,
        input,
        queue,
        concurrency_key,
        priority,
        delay_seconds,
        not_before,
        timeout_seconds,
        max_attempts,
        client_id,
        keep_seconds,
    } = body;
    if let Some(client) = &client_id {
        client_id::check(client).map_err(|instead| Problem::invalid("client_id", instead))?;
    }
    if let Some(key) = &concurrency_key {
        client_id::check(key).map_err(|instead| Problem::invalid("concurrency_key", instead))?;
    }
    let delay = FIELDS.within("delay_seconds", delay_seconds, 0.0, MOST_DELAY_SECONDS)?.unwrap_or_default();
    let wait = not_before.map(|text| until(&text, now)).transpose()?.unwrap_or_default();
    let timeout =
        FIELDS.within("timeout_seconds", timeout_seconds, LEAST_TIMEOUT_SECONDS, MOST_TIMEOUT_SECONDS)?;
    let keep = FIELDS.within("keep_seconds", keep_seconds, 0.0, MOST_KEEP_SECONDS)?;
    let priority = FIELDS.whole("priority", priority, f64::from(i16::MIN), f64::from(i16::MAX))?;
    let most = FIELDS.whole("max_attempts", max_attempts, 1.0, MOST_ATTEMPTS)?;

    let input = input.map_or(NO_INPUT, RawValue::get).to_owned();
    let mut task = defaults.task(kind.as_deref().unwrap_or(DEFAULT_KIND), input);
    task.client_id = client_id;
    if let Some(queue) = queue {
        queue_name::check(&queue).map_err(|instead| Problem::invalid("queue", &instead))?;
        task.queue = queue;
    }
    task.concurrency_key = concurrency_key;
    task.delay = Duration::from_secs_f64(delay).max(wait);
    task.timeout = timeout.map(Duration::from_secs_f64).or(task.timeout);
    let keep = keep.map(Duration::from_secs_f64);
    task.keep = keep.unwrap_or(task.keep);
    // Who says how long has a reason, however the task ends.
    task.keep_dead = keep;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and in range")]
    {
        task.priority = priority.map_or(task.priority, |priority| priority as i16);
        let most = most.map(|most| most as u16).or_else(|| attempts(&task.queue));
        task.max_attempts = most.unwrap_or(task.max_attempts);
    }
    task.idempotency = idempotency;
    Ok(task)
}

impl NewTaskBody<'_> {
    /// The key with a digest of what came under it: of what was asked for, not of what came of it, since a delay shrinks
    /// and defaults change between a request and its repetition.
    ///
    /// The input counts as the text it came as, but for the white space between its parts: read as a `Value` it would lose digits of large numbers, and two inputs that
    /// cannot be read so would be the same. That was the rule of the first version, whose digests are still stored; ours have
    /// another length, so that neither can be taken for the other.
    fn under(&self, key: String) -> Idempotency {
        let rest = Self { input: None, ..self.clone() };
        let mut digest = Sha256::new();
        digest.update(serde_json::to_vec(&rest).unwrap_or_default());
        digest.update(compact(self.input.map_or("null", RawValue::get)));
        let fingerprint = [&[RAW_TEXT][..], &digest.finalize()].concat();
        let older = Sha256::digest(serde_json::to_vec(self).unwrap_or_default()).to_vec();
        Idempotency { key, fingerprint, older: Some(older) }
    }
}

/// JSON without the white space between its parts. What is in a string stays.
fn compact(json: &str) -> Vec<u8> {
    let (mut quoted, mut escaped) = (false, false);
    let kept = json.bytes().filter(|byte| {
        let inside = quoted;
        match byte {
            b'"' if !escaped => quoted = !quoted,
            _ => {}
        }
        escaped = inside && !escaped && *byte == b'\\';
        inside || !byte.is_ascii_whitespace()
    });
    kept.collect()
}

/// The first version's rule: neither white space nor the order of keys makes another input.
fn parsed<S: Serializer>(input: &Option<&RawValue>, to: S) -> Result<S::Ok, S::Error> {
    input.and_then(|input| serde_json::from_str(input.get()).ok()).map(sorted).serialize(to)
}

/// With the keys in order: whether serde_json keeps them so depends on a feature that any crate of a build can turn on.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            members.sort_by(|(one, _), (other, _)| one.cmp(other));
            Value::Object(members.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        leaf @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => leaf,
    }
}

/// How long until then; nothing when it is past.
fn until(text: &str, now: Timestamp) -> Result<Duration, Problem> {
    let at = match text.parse::<Timestamp>() {
        Ok(at) => at,
        // The last two days of 9999, which somewhere on Earth are the year 10000.
        Err(_) if is_last_year(text) => Timestamp::MAX,
        Err(_) => return Err(FIELDS.wanted("not_before")),
    };
    // Whole milliseconds, as the queue counts, and rounded so that the task is never early.
    let micros = at.as_microsecond() - now.as_millisecond() * 1_000;
    Ok(Duration::from_millis(u64::try_from(micros).unwrap_or_default().div_ceil(1_000)))
}

fn is_last_year(text: &str) -> bool {
    let Ok(pieces) = Pieces::parse(text) else { return false };
    pieces.date().year() == 9999 && pieces.time().is_some() && pieces.to_numeric_offset().is_some()
}

/// Says which field it was. Only for a body that could not be read: it is parsed once more.
fn explain(body: &[u8], error: &serde_json::Error) -> Problem {
    let object = match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return Problem::malformed("the body: write a JSON object, as {\"kind\": \"sleep\"}"),
        Err(error) if body.is_empty() || error.is_eof() && body.iter().all(u8::is_ascii_whitespace) => {
            return Problem::malformed("the body is empty; write a JSON object, at least {}");
        }
        Err(error) => return Problem::malformed(format!("the body is not JSON: {error}")),
    };
    for (name, value) in object {
        let fits = match name.as_str() {
            "kind" | "client_id" | "queue" | "concurrency_key" | "not_before" => value.is_string(),
            "input" => true,
            "priority" | "delay_seconds" | "timeout_seconds" | "max_attempts" | "keep_seconds" => {
                value.is_number()
            }
            _ => {
                let instead = format!("is no field of a task; write one of {}", FIELDS.names());
                return Problem::invalid(name, &instead);
            }
        };
        if let Some(instead) = FIELDS.instead(&name).filter(|_| !fits && !value.is_null()) {
            return Problem::invalid(name, instead);
        }
    }
    // What is left is a field that came twice, which serde names.
    Problem::malformed(format!("the body: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn another_input_is_another_submission_however_it_reads() {
        let under = |input: &str| {
            let body = format!(r#"{{"input": {input}}}"#);
            serde_json::from_str::<NewTaskBody<'_>>(&body).unwrap().under("k".to_owned())
        };
        for (one, other) in [
            (r#"{"n": 9007199254740993.1}"#, r#"{"n": 9007199254740993.2}"#),
            (r#"{"n": 123456789012345678901234567890}"#, r#"{"n": 123456789012345678901234567891}"#),
            (r#"{"text": "\ud800 one"}"#, r#"{"text": "\ud800 other"}"#),
        ] {
            assert_ne!(under(one).fingerprint, under(other).fingerprint, "{one}");
            assert_eq!(under(one), under(one));
            assert_eq!(under(one).fingerprint, under(&one.replace(": ", " :\n\t")).fingerprint);
            assert_eq!(under(one).older, under(other).older, "the first version took them for the same");
        }
        assert_ne!(under(r#"{"a": "b  \" c"}"#).fingerprint, under(r#"{"a": "b \" c"}"#).fingerprint);
        assert_ne!(under("{}").fingerprint.len(), under("{}").older.unwrap().len());
    }

    #[test]
    fn a_list_is_no_task() {
        let defaults = Defaults { timeout: Duration::ZERO, max_attempts: 1, keep: Duration::ZERO };
        let list = br#"["sleep", null, null, null, null, null, null, null, null, null, null]"#;
        let why = read(list, None, &defaults, Timestamp::UNIX_EPOCH, |_| None).unwrap_err();
        assert!(format!("{why:?}").contains("write a JSON object"), "{why:?}");
    }

    // Bites where serde_json keeps the order of keys, as it does when the whole workspace is built at once.
    #[test]
    fn the_order_of_keys_makes_no_other_input() {
        let one = sorted(json!({"b": [{"y": 1, "x": 2}], "a": {"d": null, "c": true}}));
        assert_eq!(one.to_string(), r#"{"a":{"c":true,"d":null},"b":[{"x":2,"y":1}]}"#);
    }
}
