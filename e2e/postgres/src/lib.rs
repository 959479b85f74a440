//! A real PostgreSQL of one's own, for tests and benches: Debian's programs, in a temporary folder, on a free port.
//!
//! # Flow
//! [`Postgres::start`] → [`Postgres::create_database`] for each test → [`Postgres::url`]. Faults on the way:
//! [`Postgres::stop`], [`Postgres::kill`], [`Postgres::pause`] and their ways back.
//!
//! # Guarantees
//! - It syncs as a server in production does (`fsync` is on), so that what is measured or promised on it holds.
//! - It ends with its owner and leaves no folder: as the value is dropped, and when the process is killed (a watching
//!   shell sees to both).
//!
//! # Assumptions
//! Linux with Debian's layout, `/usr/lib/postgresql/<version>/bin`. PostgreSQL refuses to run as root: started by root,
//! it runs as the user `postgres`, whom Debian's package makes; else as ourselves.
//!
//! All calls block. From async code: `spawn_blocking`, or call them where a second does not matter.

mod programs;
mod server;

pub use programs::{PACKAGE, folder};
pub use server::{Options, PASSWORD, Postgres, USER};
