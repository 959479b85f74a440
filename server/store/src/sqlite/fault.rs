//! SQLite's errors, by what they mean for the caller and for the transaction.

use rusqlite::ErrorCode;

use crate::error::{StoreError, Unavailable};

/// Why nothing came of a command.
#[derive(Debug)]
pub(super) enum Fault {
    /// The command could not be done; the others in its transaction can.
    Alone(StoreError),
    /// The transaction can't be ended well.
    Batch(Failure),
}

/// A transaction that failed, told to everyone who was in it.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) why: Unavailable,
    pub(super) detail: String,
}

impl Failure {
    pub(super) fn error(&self) -> StoreError {
        StoreError::Unavailable { why: self.why, detail: self.detail.clone() }
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self { why: kind(&error), detail: error.to_string() }
    }
}

/// For statements after a command's first write, and for those whose failure says that the file is in trouble.
impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Batch(error.into())
    }
}

/// For a command's first write: SQLite undoes the one statement, so a refusal of its content is the command's own.
pub(super) fn first_write(error: rusqlite::Error) -> Fault {
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch) => {
            Fault::Alone(Failure::from(error).error())
        }
        _ => Fault::Batch(error.into()),
    }
}

/// What kind of trouble an error is.
pub(super) fn kind(error: &rusqlite::Error) -> Unavailable {
    match error.sqlite_error_code() {
        Some(
            ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::ReadOnly
            | ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied,
        ) => Unavailable::Disk,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Unavailable::Corrupt,
        _ if unreadable(error) => Unavailable::Corrupt,
        _ => Unavailable::Engine,
    }
}

/// A value that no version of ours has written.
fn unreadable(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..)
    )
}

/// The store has been closed.
pub(super) fn closed() -> StoreError {
    StoreError::Unavailable { why: Unavailable::Closed, detail: "the queue is closed".to_owned() }
}

/// The file is damaged.
pub(super) fn corrupt(detail: &str) -> StoreError {
    StoreError::Unavailable { why: Unavailable::Corrupt, detail: detail.to_owned() }
}
