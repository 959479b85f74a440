//! A task as clients see it: a superset of the seed's `{"task_id", "message"}`.

use graceful_store::{Attempt, Millis, NewTask, State, TaskRecord};
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

/// A task.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Task<'a> {
    /// The task's id, as the first clients know it.
    task_id: Uuid,
    /// `Task <id> queued` until it has ended, then `Task <id> processed`; or `dead`, or `cancelled`.
    #[schema(example = "Task 019e5f0c-7a3d-7c41-9d4e-1f6a5a1c2b3d queued")]
    message: String,
    /// The task's id.
    id: Uuid,
    /// What kind of task it is.
    #[schema(example = "sleep")]
    kind: &'a str,
    /// Where it is.
    #[serde(serialize_with = "word")]
    #[schema(value_type = TaskState)]
    state: State,
    /// Attempts started so far.
    attempt: u16,
    /// How often it may be started.
    max_attempts: u16,
    /// The queue that it waits in, or waited in.
    #[schema(example = "default")]
    queue: &'a str,
    /// Whose turn it takes in its queue.
    #[schema(required)]
    concurrency_key: Option<&'a str>,
    /// Higher comes first.
    priority: i16,
    /// The client that submitted it, if it gave a name.
    #[schema(required)]
    client_id: Option<&'a str>,
    /// How long one attempt may take.
    #[schema(required)]
    timeout_seconds: Option<f64>,
    /// What was handed in.
    #[serde(serialize_with = "json")]
    #[schema(value_type = Value)]
    input: Option<&'a str>,
    /// How far the attempt that runs is, in the kind's own words.
    #[serde(serialize_with = "json")]
    #[schema(value_type = Value)]
    progress: Option<&'a str>,
    /// What came of it, once it has succeeded.
    #[serde(serialize_with = "json")]
    #[schema(value_type = Value)]
    output: Option<&'a str>,
    /// Why the last attempt failed.
    #[schema(required)]
    error: Option<&'a str>,
    /// Someone wants it to stop.
    cancel_requested: bool,
    /// When it was handed in.
    #[serde(serialize_with = "time")]
    #[schema(value_type = String, format = DateTime, example = "2026-11-22T20:48:00.123Z")]
    created_at: Millis,
    /// When it may start.
    #[serde(serialize_with = "time")]
    #[schema(value_type = String, format = DateTime, example = "2026-11-22T20:48:00.123Z")]
    due_at: Millis,
    /// When the latest attempt started.
    #[serde(serialize_with = "time_if_any")]
    #[schema(value_type = Option<String>, required, format = DateTime)]
    started_at: Option<Millis>,
    /// When it ended.
    #[serde(serialize_with = "time_if_any")]
    #[schema(value_type = Option<String>, required, format = DateTime)]
    ended_at: Option<Millis>,
    /// Its latest attempts, twenty at most, the oldest first. Only where one task is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<AttemptOut>, required = false, max_items = 20)]
    attempts: Option<Vec<AttemptOut<'a>>>,
}

/// One attempt at a task.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Attempt)]
pub(crate) struct AttemptOut<'a> {
    /// 1 for the first.
    attempt: u16,
    /// The pod that ran it; null where an older server did, which did not write it down.
    #[schema(required)]
    pod: Option<&'a str>,
    /// When it started.
    #[serde(serialize_with = "time")]
    #[schema(value_type = String, format = DateTime)]
    started_at: Millis,
    /// When it ended, or was found to have ended with its process. Null while it runs.
    #[serde(serialize_with = "time_if_any")]
    #[schema(value_type = Option<String>, required, format = DateTime)]
    ended_at: Option<Millis>,
    /// Why it failed, 500 letters of it at most; null while it runs, and where it did not fail.
    #[schema(required)]
    error: Option<&'a str>,
}

impl<'a> AttemptOut<'a> {
    fn of(attempt: &'a Attempt) -> Self {
        let Attempt { number, pod, started, ended, error } = attempt;
        Self {
            attempt: *number,
            pod: pod.as_deref(),
            started_at: *started,
            ended_at: *ended,
            error: error.as_deref(),
        }
    }
}

/// Where a task is: it waits (`queued`), runs, was done (`succeeded`), was given up (`dead`), or was called off.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "describes the words in the document")]
pub(crate) enum TaskState {
    Queued,
    Running,
    Succeeded,
    Dead,
    Cancelled,
}

impl<'a> Task<'a> {
    /// As the queue has it.
    pub(crate) fn of(record: &'a TaskRecord) -> Self {
        let TaskRecord {
            id,
            kind,
            state,
            client_id,
            queue,
            concurrency_key,
            priority,
            attempt,
            max_attempts,
            timeout,
            input,
            output,
            progress,
            error,
            created,
            due,
            started,
            ended,
            cancel_requested,
            attempts,
        } = record;
        Self {
            task_id: *id,
            message: message(*id, *state),
            id: *id,
            kind,
            state: *state,
            attempt: *attempt,
            max_attempts: *max_attempts,
            queue,
            concurrency_key: concurrency_key.as_deref(),
            priority: *priority,
            client_id: client_id.as_deref(),
            timeout_seconds: timeout.map(|timeout| timeout.as_secs_f64()),
            input: Some(input),
            progress: progress.as_deref(),
            output: output.as_deref(),
            error: error.as_deref(),
            cancel_requested: *cancel_requested,
            created_at: *created,
            due_at: *due,
            started_at: *started,
            ended_at: *ended,
            attempts: attempts.as_ref().map(|attempts| attempts.iter().map(AttemptOut::of).collect()),
        }
    }

    /// As it is handed in, at `now` by this pod's clock: told without asking the queue again.
    pub(crate) fn new(task: &'a NewTask, now: Timestamp) -> Self {
        let NewTask {
            id,
            kind,
            input,
            client_id,
            queue,
            concurrency_key,
            priority,
            delay,
            timeout,
            max_attempts,
            keep: _,
            keep_dead: _,
            idempotency: _,
            trace: _,
        } = task;
        let created = now.as_millisecond();
        Self {
            task_id: *id,
            message: message(*id, State::Queued),
            id: *id,
            kind,
            state: State::Queued,
            attempt: 0,
            max_attempts: *max_attempts,
            queue,
            concurrency_key: concurrency_key.as_deref(),
            priority: *priority,
            client_id: client_id.as_deref(),
            timeout_seconds: timeout.map(|timeout| timeout.as_secs_f64()),
            input: Some(input),
            progress: None,
            output: None,
            error: None,
            cancel_requested: false,
            created_at: created,
            due_at: created.saturating_add(delay.as_millis().try_into().unwrap_or(Millis::MAX)),
            started_at: None,
            ended_at: None,
            attempts: None,
        }
    }
}

/// The seed's words where it had some.
pub(crate) fn message(id: Uuid, state: State) -> String {
    match state {
        State::Queued | State::Running => format!("Task {id} queued"),
        State::Succeeded => format!("Task {id} processed"),
        State::Dead | State::Cancelled => format!("Task {id} {state}"),
    }
}

fn word<S: Serializer>(state: &State, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(state.as_str())
}

/// JSON text as the JSON it is.
fn json<S: Serializer>(text: &Option<&str>, to: S) -> Result<S::Ok, S::Error> {
    text.and_then(|text| serde_json::from_str::<&RawValue>(text).ok()).serialize(to)
}

fn time<S: Serializer>(at: &Millis, to: S) -> Result<S::Ok, S::Error> {
    // What lies behind the year 9999 has no RFC 3339 form; its last moment is near enough.
    let at = Timestamp::from_millisecond(*at).unwrap_or(Timestamp::MAX);
    to.collect_str(&format_args!("{at:.3}"))
}

fn time_if_any<S: Serializer>(at: &Option<Millis>, to: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => time(at, to),
        None => to.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn record() -> TaskRecord {
        TaskRecord {
            id: Uuid::from_u128(7),
            kind: "sleep".to_owned(),
            state: State::Running,
            client_id: None,
            queue: "default".to_owned(),
            concurrency_key: None,
            priority: -1,
            attempt: 2,
            max_attempts: 10,
            timeout: None,
            input: r#"{ "seconds": 1 }"#.to_owned(),
            output: None,
            progress: Some("0.5".to_owned()),
            error: Some("first try failed".to_owned()),
            created: 0,
            due: 1_500,
            started: Some(i64::MAX),
            ended: None,
            cancel_requested: false,
            attempts: None,
        }
    }

    #[test]
    fn a_task_is_told_with_its_json_as_json_and_its_times_in_utc() {
        let task: Value = serde_json::to_value(Task::of(&record())).unwrap();
        assert_eq!(task["input"], json!({"seconds": 1}));
        assert_eq!((&task["progress"], &task["output"]), (&json!(0.5), &Value::Null));
        assert_eq!(task["due_at"], "1970-01-01T00:00:01.500Z");
        assert_eq!(task["started_at"], "9999-12-30T22:00:00.999Z", "later has no RFC 3339 form");
        assert_eq!(task["message"], format!("Task {} queued", Uuid::from_u128(7)), "until it has ended");
    }

    #[test]
    fn each_end_has_its_word() {
        let word = |state| message(Uuid::nil(), state).rsplit(' ').next().map(str::to_owned).unwrap();
        assert_eq!(State::ALL.map(word), ["queued", "queued", "processed", "dead", "cancelled"]);
    }
}
