//! What can go wrong, by what the caller should do about it.

use std::path::PathBuf;

/// A queue that is open could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// As many wait as may: the client should come back later (429).
    #[error("the queue is full")]
    Full,
    /// The queue can't be reached or written just now; it recovers by itself (503). A submission that failed so was
    /// not accepted, though it may exist: its idempotency key makes trying again safe.
    #[error("the queue is unavailable: {why}: {detail}")]
    Unavailable {
        /// What kind of trouble, for metrics.
        why: Unavailable,
        /// The engine's own words.
        detail: String,
    },
}

/// Kinds of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unavailable {
    /// The disk is full, or may not be written.
    Disk,
    /// The database can't be reached.
    Connection,
    /// The file or the tables are damaged or are not ours.
    Corrupt,
    /// The queue is not open yet, or no longer.
    Closed,
    /// More is being submitted than can be written.
    Busy,
    /// Anything else the engine says.
    Engine,
}

impl Unavailable {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Disk, Self::Connection, Self::Corrupt, Self::Closed, Self::Busy, Self::Engine];

    /// The word in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Connection => "connection",
            Self::Corrupt => "corrupt",
            Self::Closed => "closed",
            Self::Busy => "busy",
            Self::Engine => "engine",
        }
    }
}

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A queue could not be opened. All of these may pass by themselves or by a hand from outside: try again.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder can't be made or written.
    #[error("{path}: {source}; give --data a folder that this user may write")]
    Folder {
        /// The folder that cannot be used.
        path: PathBuf,
        /// Why it cannot be used.
        source: std::io::Error,
    },
    /// Another process has the file.
    #[error("{path} is open in another process; each server needs a --data of its own")]
    Taken {
        /// The queue's file.
        path: PathBuf,
    },
    /// The file is damaged, or is no queue.
    #[error(
        "{path} is damaged or is not a queue of ours ({detail}); it is left as it is: put a sound copy in its place, without the old {path}-wal and {path}-shm, or move all three away to begin with an empty queue"
    )]
    Corrupt {
        /// The queue's file.
        path: PathBuf,
        /// SQLite's words.
        detail: String,
    },
    /// The tables were made by a newer version.
    #[error("the queue has schema version {found}, and this server knows up to {known}; run a newer server")]
    TooNew {
        /// What is there.
        found: i64,
        /// What we know.
        known: i64,
    },
    /// The URL can't be used.
    #[error("--url: {detail}; write postgres://user:password@host:5432/database")]
    Url {
        /// What the engine says.
        detail: String,
    },
    /// The engine said no.
    #[error("cannot open the queue: {detail}")]
    Engine {
        /// The engine's words.
        detail: String,
    },
}
