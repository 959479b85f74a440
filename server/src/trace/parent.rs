//! `traceparent`, the header (W3C Trace Context, level 1, §3.2).

use std::fmt;
use std::str::FromStr;

use axum::http::HeaderMap;

const HEADER: &str = "traceparent";

/// A trace and the span in it that caused what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traceparent {
    trace: u128,
    parent: u64,
    flags: u8,
}

/// The text is not a `traceparent`. The standard has it that such a header is ignored, so this is never told to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent: it looks like 00-<32 hex digits>-<16 hex digits>-<2 hex digits>")]
pub struct Invalid;

impl Traceparent {
    /// From ids as OpenTelemetry has them. None where one of them is zero: there is no such trace.
    #[must_use]
    pub const fn new(trace: u128, parent: u64, flags: u8) -> Option<Self> {
        if trace == 0 || parent == 0 { None } else { Some(Self { trace, parent, flags }) }
    }

    /// Of a request; None when it has none, has several, or has one that can't be read.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut given = headers.get_all(HEADER).iter();
        let (Some(one), None) = (given.next(), given.next()) else { return None };
        one.to_str().ok()?.parse().ok()
    }

    /// The id of the trace.
    #[must_use]
    pub const fn trace(&self) -> u128 {
        self.trace
    }

    /// The span that caused it.
    #[must_use]
    pub const fn parent(&self) -> u64 {
        self.parent
    }

    /// The flags; the lowest bit says that the trace is recorded.
    #[must_use]
    pub const fn flags(&self) -> u8 {
        self.flags
    }

    /// The trace as it is written in logs.
    #[must_use]
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }
}

impl FromStr for Traceparent {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut parts = text.trim().split('-');
        let (Some(version), Some(trace), Some(parent), Some(flags)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Invalid);
        };
        let version = hex(version, 2)?;
        // 00 has no more parts; a later version may, after those that we know.
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return Err(Invalid);
        }
        let parent = u64::try_from(hex(parent, 16)?).map_err(|_| Invalid)?;
        let flags = u8::try_from(hex(flags, 2)?).map_err(|_| Invalid)?;
        Self::new(hex(trace, 32)?, parent, flags).ok_or(Invalid)
    }
}

/// So many lower-case digits, neither more nor fewer.
fn hex(text: &str, digits: usize) -> Result<u128, Invalid> {
    let lower = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if text.len() != digits || !lower {
        return Err(Invalid);
    }
    u128::from_str_radix(text, 16).map_err(|_| Invalid)
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace, parent, flags } = self;
        // Of the flags only what version 00 knows is passed on.
        write!(f, "00-{trace:032x}-{parent:016x}-{:02x}", flags & 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_goes_through_as_it_came() {
        let parsed: Traceparent = GOOD.parse().unwrap();
        assert_eq!(parsed.to_string(), GOOD);
        assert_eq!(parsed.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((parsed.parent(), parsed.flags()), (0x00f0_67aa_0ba9_02b7, 1));
    }

    #[test]
    fn a_later_version_is_read_as_far_as_we_know_it() {
        let later: Traceparent = format!("cc{}-what-else", &GOOD[2..]).parse().unwrap();
        assert_eq!(later.to_string(), GOOD);
    }

    #[test]
    fn what_the_standard_calls_invalid_is_ignored() {
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-é",
        ] {
            assert_eq!(bad.parse::<Traceparent>(), Err(Invalid), "{bad}");
        }
    }

    #[test]
    fn two_headers_are_as_good_as_none() {
        let mut headers = HeaderMap::new();
        headers.append(HEADER, GOOD.parse().unwrap());
        assert!(Traceparent::of(&headers).is_some());
        headers.append(HEADER, GOOD.parse().unwrap());
        assert_eq!(Traceparent::of(&headers), None);
    }
}
