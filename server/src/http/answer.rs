//! What an answer means for the task.

use std::time::Duration;

use axum::body::Bytes;
use graceful_store::Backoff;
use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use serde::Serialize;

use crate::backoff;
use crate::kind::Failure;

/// What is kept of an answer's body.
pub(super) const KEPT: usize = 1024;

/// What is left of an answer once it was taken.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The first [`KEPT`] bytes.
    pub(super) body: Bytes,
    /// There was more.
    pub(super) truncated: bool,
}

/// What an `http` task gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Output {
    /// The answer's status, from 200 to 299.
    pub status: u16,
    /// The first KiB of its body; what is not UTF-8 in it is replaced.
    pub body: String,
    /// Whether the body was longer.
    pub truncated: bool,
}

impl Answer {
    /// 2xx is done; 429 and 503 wait for as long as they say; all else is tried again by the task's policy. `die` is from 0
    /// to 1.
    pub(super) fn judged(
        self,
        (attempt, policy): (u16, Backoff),
        now: Timestamp,
        die: f64,
    ) -> Result<Output, Failure> {
        let Self { status, headers, body, truncated } = self;
        let body = String::from_utf8_lossy(&body).into_owned();
        if status.is_success() {
            return Ok(Output { status: status.as_u16(), body, truncated });
        }
        let said = match (status.is_redirection(), body.trim()) {
            (true, _) => format!("answered {status}; redirects are not followed, hand in the address itself"),
            (false, "") => format!("answered {status}"),
            (false, text) => format!("answered {status}: {text}"),
        };
        let waits = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        match retry_after(&headers, now).filter(|_| waits) {
            // Never sooner than the policy would: a callee that says `0` to all of a flood would see it again at once.
            Some(asked) => {
                let pause = asked.max(backoff::pause(policy, attempt, die)).min(policy.longest);
                Err(Failure::retry_after(pause, said))
            }
            None => Err(Failure::retry(said)),
        }
    }
}

/// RFC 9110, 10.2.3: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More seconds than a number holds are as good as for ever.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let at = DateTimeParser::new().parse_timestamp(text).ok()?;
    let seconds = at.as_second().saturating_sub(now.as_second());
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::kind::Next;

    fn answer(status: u16, retry_after: Option<&'static str>) -> Result<Output, Failure> {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(value));
        }
        let status = StatusCode::from_u16(status).unwrap();
        let now: Timestamp = "2026-11-27T12:00:00Z".parse().unwrap();
        Answer { status, headers, body: Bytes::from_static(b"hm"), truncated: false }.judged(
            (3, backoff::USUAL),
            now,
            0.5,
        )
    }

    fn next(status: u16, retry_after: Option<&'static str>) -> Next {
        answer(status, retry_after).unwrap_err().next
    }

    #[test]
    fn only_2xx_is_done() {
        for status in [200, 201, 204, 299] {
            assert_eq!(answer(status, Some("5")).unwrap().status, status);
        }
        for status in [301, 302, 307, 400, 404, 408, 500, 502, 504] {
            assert_eq!(
                next(status, Some("5")),
                Next::BackOff,
                "{status}: Retry-After counts with 429 and 503 alone"
            );
        }
        assert!(answer(302, None).unwrap_err().error.contains("redirects are not followed"));
        assert_eq!(answer(404, None).unwrap_err().error, "answered 404 Not Found: hm");
    }

    #[test]
    fn a_callee_that_says_when_is_heard_within_the_policy() {
        let seconds = |seconds| Next::After(Duration::from_secs(seconds));
        for status in [429, 503] {
            assert_eq!(next(status, Some("20")), seconds(20));
            assert_eq!(next(status, Some("Fri, 27 Nov 2026 12:01:00 GMT")), seconds(60));
            for long in ["86400", "99999999999999999999999999", "Fri, 27 Nov 2099 12:00:00 GMT"] {
                assert_eq!(next(status, Some(long)), Next::After(backoff::USUAL.longest), "{long}");
            }
            for short in ["0", "1", "Fri, 27 Nov 2020 12:00:00 GMT"] {
                assert_eq!(next(status, Some(short)), seconds(4), "{short}: after the third attempt");
            }
            for odd in ["soon", "-1", "", "1.5", "99 Nov"] {
                assert_eq!(next(status, Some(odd)), Next::BackOff, "{odd}");
            }
            assert_eq!(next(status, None), Next::BackOff);
        }
    }
}
