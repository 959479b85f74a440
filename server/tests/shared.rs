//! Pods that share a queue. The tests lie below a module that names what they need: `cargo xtask check` leaves them out
//! where there is no PostgreSQL.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

mod callee;
mod child;
mod on_postgres;
