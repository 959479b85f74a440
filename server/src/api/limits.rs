//! What a request may cost: how large and how slow its body may be, how long the queue may take, and what its headers may
//! hold.

use std::error::Error;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, header};
use graceful_store::StoreError;
use http_body_util::LengthLimitError;
use tokio::time::timeout;
use utoipa::IntoResponses;

use crate::api::rooms::{Room, Rooms};
use crate::problem::{Problem, ProblemBody};
use crate::queue::Queue;

/// The largest body: what other queues take as well (SQS: 256 KiB).
pub(crate) const MOST_BODY: usize = 256 * 1024;
/// How long a body may take to arrive: 26 KiB/s at least for the largest.
const BODY_TIME: Duration = Duration::from_secs(10);
/// How long the queue may take: a disk that stalls for longer than this does not recover soon, and its clients should
/// hear of it. (The head of a request has 75 s, the drain library's limit.)
const QUEUE_TIME: Duration = Duration::from_secs(30);

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const LONGEST_KEY: usize = 255;

/// How a body is refused before it is read; for the document.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "describes the answers in the document")]
pub(crate) enum BodyRefused {
    #[response(status = 408, description = "The body came too slowly.")]
    TooSlow(ProblemBody),
    #[response(status = 413, description = "The body is larger than 256 KiB.")]
    TooLarge(ProblemBody),
    #[response(status = 415, description = "The body is not `application/json`.")]
    NotJson(ProblemBody),
}

/// Reads a body to its end, within bounds, once there is room for all of it. The room is to be kept until the request is
/// answered.
pub(crate) async fn body(rooms: &Rooms, headers: &HeaderMap, body: Body) -> Result<(Bytes, Room), Problem> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > MOST_BODY as u64) {
        return Err(Problem::too_large(MOST_BODY));
    }
    let expected = announced.map_or(MOST_BODY, |length| usize::try_from(length).unwrap_or(MOST_BODY));
    let room = rooms.body(expected).await?;
    match timeout(BODY_TIME, axum::body::to_bytes(body, MOST_BODY)).await {
        Ok(Ok(bytes)) => Ok((bytes, room)),
        Ok(Err(error)) if error.source().is_some_and(|source| source.is::<LengthLimitError>()) => {
            Err(Problem::too_large(MOST_BODY))
        }
        Ok(Err(_)) => Err(Problem::malformed("the body broke off; nothing was accepted, send it again")),
        Err(_) => Err(Problem::too_slow(BODY_TIME.as_secs())),
    }
}

/// Sees that a body says it is JSON.
pub(crate) fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let essence = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(|value| value.split(';').next().unwrap_or_default().trim());
    match essence {
        Some(kind) if kind.eq_ignore_ascii_case("application/json") => Ok(()),
        _ => Err(Problem::media_type()),
    }
}

/// Asks the queue, and lets it see by the answer whether it is damaged.
pub(crate) async fn ask<T>(
    queue: &Queue,
    asked: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, Problem> {
    let noticed = async {
        let answered = asked.await;
        queue.noticed(&answered);
        answered
    };
    answer(noticed).await
}

/// Waits for the queue's answer, but not for ever.
pub(crate) async fn answer<T>(asked: impl Future<Output = Result<T, StoreError>>) -> Result<T, Problem> {
    match timeout(QUEUE_TIME, asked).await {
        Ok(answered) => answered.map_err(Problem::from),
        Err(_) => Err(Problem::no_answer()),
    }
}

/// The client's own name for its submission (draft-ietf-httpapi-idempotency-key-header): a quoted string as the draft
/// has it, or bare as most clients send it; both are the same key.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let bytes = match value.as_bytes() {
        [b'"', inner @ .., b'"'] => inner,
        bare => bare,
    };
    let known = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:~+/=".contains(byte);
    if values.next().is_some() || !(1..=LONGEST_KEY).contains(&bytes.len()) || !bytes.iter().all(known) {
        let instead = "write one key of 1 to 255 letters, digits and - _ . : ~ + / =, such as a uuid";
        return Err(Problem::invalid("Idempotency-Key", instead));
    }
    Ok(Some(String::from_utf8_lossy(bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn key(value: &str) -> Result<Option<String>, Problem> {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        idempotency_key(&HeaderMap::from_iter([(IDEMPOTENCY_KEY, value)]))
    }

    #[test]
    fn a_key_is_the_same_quoted_and_bare() {
        assert_eq!(key("a-1").unwrap().unwrap(), "a-1");
        assert_eq!(key("\"a-1\"").unwrap().unwrap(), "a-1");
        for bad in ["", "\"\"", "\"", "a b", "a\"", "ä", &"x".repeat(256)] {
            assert!(key(bad).is_err(), "{bad}");
        }
        assert!(key(&"x".repeat(255)).is_ok());
        assert!(idempotency_key(&HeaderMap::new()).unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_dawdles_or_never_ends_is_given_up() {
        let silent = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let rooms = Rooms::default();
        let slow = body(&rooms, &HeaderMap::new(), silent).await.unwrap_err();
        assert!(format!("{slow:?}").contains("408"), "{slow:?}");
        let endless =
            Body::from_stream(futures::stream::repeat_with(|| Ok::<_, std::io::Error>("x".repeat(999))));
        let large = body(&rooms, &HeaderMap::new(), endless).await.unwrap_err();
        assert!(format!("{large:?}").contains("413"), "{large:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_that_does_not_answer_is_given_up() {
        let asked = answer(std::future::pending::<Result<(), StoreError>>()).await.unwrap_err();
        assert!(format!("{asked:?}").contains("503"), "{asked:?}");
    }
}
