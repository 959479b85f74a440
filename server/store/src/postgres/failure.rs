//! What PostgreSQL and the way to it complain of, by what the caller should do about it.

use std::time::Duration;

use crate::error::{OpenError, StoreError, Unavailable};

/// Which kind of trouble an error is. Classes are SQLSTATE's (PostgreSQL's manual, appendix A).
fn why(error: &sqlx::Error) -> Unavailable {
    match error {
        sqlx::Error::Database(error) => match error.code().as_deref().unwrap_or_default() {
            // Out of disk; an I/O error.
            "53100" | "58030" => Unavailable::Disk,
            // Damaged pages or indexes; a table or a column that is not there.
            "XX001" | "XX002" | "42P01" | "42703" => Unavailable::Corrupt,
            // A primary that has become a standby: another connection may find the new one.
            "25006" => Unavailable::Connection,
            // A lock that others have held for too long.
            "55P03" => Unavailable::Busy,
            // Lost connections; no room for one more; shut down, starting up, or given up for taking too long;
            // not let in.
            code if ["08", "53", "57", "28"].iter().any(|class| code.starts_with(class)) => {
                Unavailable::Connection
            }
            _ => Unavailable::Engine,
        },
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::Configuration(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => Unavailable::Connection,
        _ => Unavailable::Engine,
    }
}

/// The caller's error.
pub(super) fn failed(error: &sqlx::Error) -> StoreError {
    StoreError::Unavailable { why: why(error), detail: error.to_string() }
}

/// No answer came, so that nobody knows whether it was done.
pub(super) fn late(patience: Duration) -> StoreError {
    let detail = format!("the database did not answer within {} s", patience.as_secs());
    StoreError::Unavailable { why: Unavailable::Connection, detail }
}

/// The store is being dropped.
pub(super) fn closed() -> StoreError {
    StoreError::Unavailable { why: Unavailable::Closed, detail: "the queue was closed".to_owned() }
}

/// Whether the connections are no good any more, of which one has failed so.
pub(super) fn is_connection(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable { why: Unavailable::Connection, .. })
}

/// Whether it may lie in what was sent, so that each part of a batch should be tried by itself: bad data (class 22),
/// violated constraints (23), limits of the program (54).
pub(super) fn is_in_the_data(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    error.code().is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.starts_with(class)))
}

/// The queue could not be opened.
pub(super) fn not_opened(error: &sqlx::Error) -> OpenError {
    OpenError::Engine { detail: error.to_string() }
}

/// The same trouble for another caller of the same batch.
pub(super) fn again(error: &StoreError) -> StoreError {
    match error {
        StoreError::Full => StoreError::Full,
        StoreError::Unavailable { why, detail } => {
            StoreError::Unavailable { why: *why, detail: detail.clone() }
        }
    }
}
