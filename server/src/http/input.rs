//! What a call is, as it is handed in, and read once into what is sent.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use reqwest::Url;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::kind::InvalidInput;

/// Long enough for a handler that does some work, and short beside a drain's deadline.
const USUAL_SECONDS: f64 = 30.0;
const LEAST_SECONDS: f64 = 0.1;
/// As the task's own time-out unless somebody changes it.
const MOST_SECONDS: f64 = 3600.0;
const MOST_HEADERS: usize = 64;
/// As long as common servers take.
const LONGEST_URL: usize = 8000;

/// Headers that the call itself makes, and those that say how a connection is used.
const OURS: [&str; 17] = [
    "connection",
    "content-length",
    "expect",
    "graceful-attempt",
    "graceful-signature",
    "graceful-task-id",
    "graceful-time",
    "host",
    "idempotency-key",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "traceparent",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What an `http` task takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Where the call goes: http or https, with a host that `--http-allow` names.
    pub url: String,
    /// POST where nothing is said.
    #[serde(default)]
    pub method: Verb,
    /// Sent along; seen by whoever may look at the task.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Sent as it is.
    pub body: Option<String>,
    /// Sent as JSON, letter for letter; instead of `body`.
    pub json: Option<Box<RawValue>>,
    /// How long the call may take, from the look-up of the name to the last byte of the answer.
    pub timeout_seconds: Option<f64>,
}

/// How a call is made.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verb {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`, which it is where nothing is said.
    #[default]
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
}

impl Verb {
    const fn method(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Head => Method::HEAD,
            Self::Post => Method::POST,
            Self::Put => Method::PUT,
            Self::Patch => Method::PATCH,
            Self::Delete => Method::DELETE,
        }
    }
}

/// An input that was read.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) url: Url,
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) timeout: Duration,
}

/// The JSON Schema of [`Input`].
pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "url": {
                "type": "string",
                "format": "uri",
                "pattern": "^https?://",
                "maxLength": LONGEST_URL,
                "description": "Where to: a target of the server's --http-allow, without user and password.",
            },
            "method": {
                "type": "string",
                "enum": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
                "description": "POST when left out.",
            },
            "headers": {
                "type": "object",
                "maxProperties": MOST_HEADERS,
                "propertyNames": {"pattern": "^[A-Za-z0-9-]+$"},
                "additionalProperties": {"type": "string", "pattern": "^[!-~]([ -~]*[!-~])?$"},
                "description": "Sent along. Whoever may look at the task sees them.",
            },
            "body": {
                "type": ["string", "null"],
                "description": "Sent as it is, as text/plain unless a header says otherwise.",
            },
            "json": {"description": "Sent as JSON, letter for letter; instead of `body`."},
            "timeout_seconds": {
                "type": ["number", "null"],
                "minimum": LEAST_SECONDS,
                "maximum": MOST_SECONDS,
                "description": "How long the call may take, from the look-up of the name to the last byte of the \
                                answer; 30 when left out. The task's own time-out counts as well.",
            },
        },
        "required": ["url"],
        "additionalProperties": false,
    })
}

/// Reads an input. Whether its target is allowed is for the caller to see.
pub(super) fn read(input: &Input) -> Result<Call, InvalidInput> {
    let Input { url, method, headers, body, json, timeout_seconds } = input;
    let url = target(url)?;
    let mut headers = header_map(headers)?;
    let (body, kind) = match (body, json) {
        (Some(_), Some(_)) => {
            return Err(InvalidInput::new("json", "`body` is there as well; write one of the two"));
        }
        (Some(text), None) => (Bytes::from(text.clone()), Some("text/plain; charset=utf-8")),
        (None, Some(json)) => (Bytes::from(json.get().to_owned()), Some("application/json")),
        (None, None) => (Bytes::new(), None),
    };
    if let Some(kind) = kind {
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(kind));
    }
    let seconds = timeout_seconds.unwrap_or(USUAL_SECONDS);
    if !(LEAST_SECONDS..=MOST_SECONDS).contains(&seconds) {
        let detail = format!("is {seconds}; write a number from {LEAST_SECONDS} to {MOST_SECONDS}");
        return Err(InvalidInput::new("timeout_seconds", detail));
    }
    Ok(Call { url, method: method.method(), headers, body, timeout: Duration::from_secs_f64(seconds) })
}

fn target(text: &str) -> Result<Url, InvalidInput> {
    let wrong = |what: &str| InvalidInput::new("url", format!("{what}; write https://host/path"));
    if text.len() > LONGEST_URL {
        return Err(wrong(&format!("is longer than {LONGEST_URL} bytes")));
    }
    let url = text.parse::<Url>().map_err(|error| wrong(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong(&format!("is {}", url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("has a user or a password, which belong into the header `authorization`"));
    }
    Ok(url)
}

fn header_map(headers: &BTreeMap<String, String>) -> Result<HeaderMap, InvalidInput> {
    if headers.len() > MOST_HEADERS {
        return Err(InvalidInput::new(
            "headers",
            format!("are {}; write up to {MOST_HEADERS}", headers.len()),
        ));
    }
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let wrong = |what: &str| InvalidInput::new(&format!("headers.{name}"), what);
        let key = HeaderName::try_from(name).map_err(|_| wrong("is no name of a header; write x-name"))?;
        if OURS.contains(&key.as_str()) {
            return Err(wrong("is set by the call itself; leave it out"));
        }
        let value =
            HeaderValue::try_from(value).map_err(|_| wrong("has a line break or control character"))?;
        if map.insert(key, value).is_some() {
            return Err(wrong("is there twice, in other letters; write it once"));
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(input: Value) -> Result<Call, InvalidInput> {
        read(&serde_json::from_value(input).unwrap())
    }

    #[test]
    fn what_is_not_said_is_usual() {
        let made = call(json!({"url": "https://x.example/a?b#c"})).unwrap();
        assert_eq!((made.method, made.timeout), (Method::POST, Duration::from_secs(30)));
        assert!(made.body.is_empty() && made.headers.is_empty());
        let text = call(json!({"url": "http://x", "body": "hello"})).unwrap();
        assert_eq!(&text.body[..], b"hello");
        assert_eq!(text.headers["content-type"], "text/plain; charset=utf-8");
        let own = json!({"url": "http://x", "body": "<a/>", "headers": {"Content-Type": "text/xml"}});
        assert_eq!(call(own).unwrap().headers["content-type"], "text/xml");
    }

    #[test]
    fn json_goes_out_letter_for_letter() {
        let input: Input =
            serde_json::from_str(r#"{"url": "http://x", "json": {"n": 12345678901234567890.10, "a":1}}"#)
                .unwrap();
        let made = read(&input).unwrap();
        assert_eq!(&made.body[..], br#"{"n": 12345678901234567890.10, "a":1}"#);
        assert_eq!(made.headers["content-type"], "application/json");
    }

    #[test]
    fn what_cannot_be_sent_is_named_with_what_to_write() {
        for (input, field, instead) in [
            (json!({"url": "x"}), "input.url", "write https://host/path"),
            (json!({"url": "ftp://x/"}), "input.url", "write https://host/path"),
            (json!({"url": "http://u:p@x/"}), "input.url", "header `authorization`"),
            (json!({"url": format!("http://x/{}", "a".repeat(8000))}), "input.url", "longer than 8000"),
            (json!({"url": "http://x", "body": "", "json": 1}), "input.json", "one of the two"),
            (json!({"url": "http://x", "timeout_seconds": 0}), "input.timeout_seconds", "from 0.1 to 3600"),
            (json!({"url": "http://x", "headers": {"Host": "y"}}), "input.headers.Host", "leave it out"),
            (
                json!({"url": "http://x", "headers": {"graceful-signature": "y"}}),
                "input.headers.graceful-signature",
                "leave it out",
            ),
            (json!({"url": "http://x", "headers": {"a b": "y"}}), "input.headers.a b", "write x-name"),
            (json!({"url": "http://x", "headers": {"a": "y\r\nhost: z"}}), "input.headers.a", "line break"),
            (json!({"url": "http://x", "headers": {"a": "1", "A": "2"}}), "input.headers.a", "write it once"),
        ] {
            let error = call(input.clone()).unwrap_err();
            assert_eq!(error.field, field, "{input}: {error}");
            assert!(error.detail.contains(instead), "{input}: {error}");
        }
    }

    #[test]
    fn no_header_of_ours_can_be_handed_in() {
        assert!(OURS.is_sorted());
        for name in OURS {
            let input = json!({"url": "http://x", "headers": {name.to_ascii_uppercase(): "1"}});
            assert!(call(input).is_err(), "{name}");
        }
    }
}
