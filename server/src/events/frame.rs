//! What clients are told, as it goes over the wire: encoded once, shared by all who listen.

use std::sync::{Arc, OnceLock};

use axum::body::Bytes;
use axum::extract::ws::Utf8Bytes;
use graceful_drain::State as DrainState;
use graceful_store::{Event, State};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::hint::{Hint, What};
use super::token::Token;

/// The longest error or progress that goes into a frame, in bytes. A frame is copied into the buffer of each socket that
/// is not quick enough to take it at once; the whole text is at `GET /v1/tasks/{id}`.
const LONGEST_TEXT: usize = 2048;

/// One message to listeners, in each form that they may have asked for.
#[derive(Debug)]
pub(crate) struct Frame {
    /// Its number, if it has one: then it is a task's end.
    pub(crate) number: Option<u64>,
    /// Whose task it tells of.
    pub(crate) client_id: Option<Box<str>>,
    /// For sockets in JSON.
    pub(crate) json: Utf8Bytes,
    /// The first clients' text frame; of succeeded tasks only.
    pub(crate) plain: Option<Box<str>>,
    /// For SSE, made when the first one asks.
    sse: OnceLock<Bytes>,
}

#[derive(Serialize)]
struct End<'a> {
    #[serde(rename = "type")]
    what: &'static str,
    id: Token<'a>,
    task_id: Uuid,
    kind: &'a str,
    client_id: Option<&'a str>,
    attempt: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    at: Option<Timestamp>,
}

#[derive(Serialize, Default)]
struct Hinted<'a> {
    #[serde(rename = "type")]
    what: &'static str,
    task_id: Uuid,
    kind: &'a str,
    client_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_ms: Option<u64>,
}

/// The first frame of each client that speaks JSON.
#[derive(Serialize)]
pub(crate) struct Hello<'a> {
    #[serde(rename = "type")]
    pub(crate) what: &'static str,
    /// Where the client is now.
    pub(crate) id: Token<'a>,
    /// The newest event there is.
    pub(crate) head: Token<'a>,
    pub(crate) stream: &'a str,
    pub(crate) resumed: bool,
    /// Why it could not resume.
    pub(crate) reason: Option<&'static str>,
    pub(crate) missed: Option<Range<'a>>,
    pub(crate) pod: Option<&'a str>,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) state: &'static str,
}

/// Events that are no longer kept.
#[derive(Serialize)]
pub(crate) struct Range<'a> {
    pub(crate) from: Token<'a>,
    pub(crate) to: Token<'a>,
}

/// JSON of what is made of strings and numbers: writing it cannot fail.
pub(crate) fn json(value: &impl Serialize) -> Utf8Bytes {
    serde_json::to_string(value).unwrap_or_default().into()
}

/// Events expired before this client could be told of them.
pub(crate) fn missed(range: Range<'_>) -> Utf8Bytes {
    #[derive(Serialize)]
    struct Missed<'a> {
        #[serde(rename = "type")]
        what: &'static str,
        #[serde(flatten)]
        range: Range<'a>,
    }
    json(&Missed { what: "missed", range })
}

/// The pod's drain has come to another state.
pub(crate) fn drain(state: DrainState, accepting: bool) -> Utf8Bytes {
    #[derive(Serialize)]
    struct Drain {
        #[serde(rename = "type")]
        what: &'static str,
        state: &'static str,
        accepting: bool,
    }
    json(&Drain { what: "drain", state: state.as_str(), accepting })
}

/// The last frame: the pod goes, and the client should come back, to whichever pod is there then.
pub(crate) fn farewell() -> Utf8Bytes {
    farewell_in(pause())
}

/// How long a client should wait, in milliseconds, so that not all come back at once.
pub(crate) fn pause() -> u64 {
    rand::random_range(100..1000)
}

/// The last frame of one that has been told so before.
pub(crate) fn farewell_in(reconnect_in_ms: u64) -> Utf8Bytes {
    #[derive(Serialize)]
    struct Farewell {
        #[serde(rename = "type")]
        what: &'static str,
        reconnect_in_ms: u64,
    }
    json(&Farewell { what: "farewell", reconnect_in_ms })
}

impl Frame {
    /// A task's end.
    pub(crate) fn end(stream: &str, event: &Event) -> Arc<Self> {
        let Event { number, task_id, kind, client_id, state, attempt, error, at } = event;
        let (what, plain) = match state {
            State::Succeeded => {
                ("task.succeeded", Some(format!("{task_id} Task {task_id} processed").into()))
            }
            State::Dead => ("task.dead", None),
            // A task that waits or runs has no event.
            State::Cancelled | State::Queued | State::Running => ("task.cancelled", None),
        };
        let json = json(&End {
            what,
            id: Token { stream, number: *number },
            task_id: *task_id,
            kind,
            client_id: client_id.as_deref(),
            attempt: *attempt,
            error: error.as_deref().map(shortened),
            at: Timestamp::from_millisecond(*at).ok(),
        });
        Arc::new(Self {
            number: Some(*number),
            client_id: client_id.as_deref().map(Into::into),
            json,
            plain,
            sse: OnceLock::new(),
        })
    }

    /// What happens to a task before its end.
    pub(crate) fn hint(hint: &Hint) -> Arc<Self> {
        let Hint { task_id, kind, client_id, what } = hint;
        let task = |what| Hinted {
            what,
            task_id: *task_id,
            kind,
            client_id: client_id.as_deref(),
            ..Hinted::default()
        };
        let hinted = match what {
            What::Queued => task("task.queued"),
            What::Started { attempt } => Hinted { attempt: Some(*attempt), ..task("task.started") },
            What::Progress { attempt, progress } => {
                let fits = progress.len() <= LONGEST_TEXT;
                let progress = fits.then(|| serde_json::from_str(progress).ok()).flatten();
                Hinted { attempt: Some(*attempt), progress, ..task("task.progress") }
            }
            What::Retrying { attempt, error, in_millis } => Hinted {
                attempt: Some(*attempt),
                error: Some(shortened(error)),
                in_ms: Some(*in_millis),
                ..task("task.retrying")
            },
        };
        Arc::new(Self {
            number: None,
            client_id: client_id.as_deref().map(Into::into),
            json: json(&hinted),
            plain: None,
            sse: OnceLock::new(),
        })
    }

    /// For SSE.
    pub(crate) fn sse(&self, stream: &str) -> Bytes {
        let token = self.number.map(|number| Token { stream, number });
        self.sse.get_or_init(|| sse(token, &self.json)).clone()
    }
}

/// One SSE message. Without `event:`, so that `onmessage` gets them all; the type is in the JSON, which has no line
/// break.
pub(crate) fn sse(id: Option<Token<'_>>, json: &str) -> Bytes {
    match id {
        Some(id) => format!("id: {id}\ndata: {json}\n\n").into(),
        None => format!("data: {json}\n\n").into(),
    }
}

fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST_TEXT)]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(state: State, error: Option<String>) -> Event {
        Event {
            number: 7,
            task_id: Uuid::from_u128(5),
            kind: "sleep".to_owned(),
            client_id: Some("me".to_owned()),
            state,
            attempt: 2,
            error,
            at: 1_795_000_000_123,
        }
    }

    fn value(frame: &Frame) -> Value {
        serde_json::from_str(&frame.json).unwrap()
    }

    #[test]
    fn an_end_says_all_that_is_known_and_where_the_client_is() {
        let frame = Frame::end("s", &event(State::Succeeded, None));
        let id = "00000000-0000-0000-0000-000000000005";
        let expected = json!({"type": "task.succeeded", "id": "s.7", "task_id": id, "kind": "sleep",
            "client_id": "me", "attempt": 2, "at": "2026-11-18T11:06:40.123Z"});
        assert_eq!(value(&frame), expected);
        assert_eq!(frame.plain.as_deref(), Some(format!("{id} Task {id} processed").as_str()));
        assert_eq!(frame.sse("s"), format!("id: s.7\ndata: {}\n\n", frame.json));
    }

    #[test]
    fn the_first_clients_hear_of_successes_only() {
        for (state, what) in [(State::Dead, "task.dead"), (State::Cancelled, "task.cancelled")] {
            let frame = Frame::end("s", &event(state, None));
            assert_eq!((value(&frame)["type"].as_str(), &frame.plain), (Some(what), &None));
        }
    }

    #[test]
    fn a_frame_is_bounded_whatever_a_handler_says() {
        let long = "ä".repeat(100_000);
        let frame = Frame::end("s", &event(State::Dead, Some(long.clone())));
        assert!(frame.json.len() < 3000, "{}", frame.json.len());
        let what = What::Progress { attempt: 1, progress: format!("\"{long}\"") };
        let hint = Hint { task_id: Uuid::nil(), kind: "k".to_owned(), client_id: None, what };
        assert_eq!(value(&Frame::hint(&hint)).get("progress"), None);
    }

    #[test]
    fn progress_is_json_and_not_a_string_of_it() {
        let what = What::Progress { attempt: 2, progress: r#"{"done": 3}"#.to_owned() };
        let frame = Frame::hint(&Hint { task_id: Uuid::nil(), kind: "k".to_owned(), client_id: None, what });
        let expected = json!({"type": "task.progress", "task_id": Uuid::nil(), "kind": "k", "client_id": null,
            "attempt": 2, "progress": {"done": 3}});
        assert_eq!((value(&frame), frame.number), (expected, None));
    }
}
