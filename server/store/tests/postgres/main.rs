//! What needs a PostgreSQL, below a module of that name: `cargo xtask check` leaves it out where there is none.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

#[path = "../conformance/mod.rs"]
mod conformance;
mod on_postgres;
