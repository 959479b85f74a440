//! SQLite: a file in a volume, owned by the process that has it open.
//!
//! - `store`: [`SqliteStore`], the [`crate::TaskStore`] that sends each call to the thread that owns the connection
//! - `open`: the checks, and what a dead process left behind
//! - `file`: the lock, and whether the file is still there
//! - `schema`: the tables and how a connection is set up
//! - `writer`: the one thread that writes: whatever waits becomes one transaction and one sync
//! - `apply`, `many`, `claims`, `retention`: what the commands do inside that transaction
//! - `queues`: what queues there are and what they may take
//! - `ledger`: what waits and runs, counted in memory, in step with the disk
//! - `reader`: look-ups on connections of their own, which never wait for a commit
//!
//! # Choices
//! - A submission touches two b-trees at their right edge: the tasks (by id) and the live ones (by place in line).
//! - A task retried by hand keeps its attempt number, which fences, and gets `max_attempts` more: the record's
//!   `max_attempts` grows by what was used.
//! - An orphan keeps its place in line: it is older than what waits, so it comes first within its priority.
//! - Damage that is met (SQLITE_CORRUPT, SQLITE_NOTADB) ends the store: every call then answers
//!   [`crate::Unavailable::Corrupt`], for writing on would spread it. Drop it and [`open()`] again once the file is
//!   sound. With the file belong `tasks.db-wal` and `tasks.db-shm`: move or restore the three together.

mod apply;
mod attempts;
mod claims;
mod clock;
mod command;
mod fault;
mod file;
mod ledger;
mod many;
mod open;
mod queues;
mod reader;
mod retention;
mod row;
mod schema;
mod store;
mod writer;

pub use open::open;
pub use store::SqliteStore;
