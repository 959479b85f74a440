//! The parsers of foreign text, for `operator/fuzz` alone (feature `fuzzing`).

use graceful_api::{Question, WhenAbsent};
use graceful_plan::PodUid;

use crate::observe::parse_pod;
use crate::probe::read;

/// The total of a DrainStatus of pod `u`, or of a JSON document where there is a pointer; none where it is refused.
pub fn document(body: &[u8], pointer: Option<&str>, framed: bool) -> Option<u64> {
    let question = match pointer {
        Some(pointer) => {
            Question::JsonPointer { pointers: vec![pointer.to_owned()].try_into().ok()?, idle_at: 0 }
        }
        None => Question::Graceful,
    };
    read(&question, &PodUid::from("u"), body, usize::MAX, framed)
}

/// The sum over `q{a="b"}` of a page that comes in pieces of so many bytes; none where it is refused.
pub fn page(body: &[u8], piece: usize, framed: bool, zero: bool) -> Option<u64> {
    let when_absent = if zero { WhenAbsent::Zero } else { WhenAbsent::Busy };
    let question = Question::Prometheus {
        metrics: vec![r#"q{a="b"}"#.parse().ok()?].try_into().ok()?,
        when_absent,
        idle_at: 0,
    };
    read(&question, &PodUid::from("u"), body, piece, framed)
}

/// Parses a pod in JSON, if its type takes it.
pub fn pod(json: &[u8]) {
    parse_pod(json);
}
