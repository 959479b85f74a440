//! A reverse proxy that stands between the Service and the app in one pod. It closes admission for the app, counts what is in flight, and speaks the drain
//! protocol (`docs/protocol.md`), so that an app that knows nothing of it can be taken away without losing what it accepted. `docs/gate.md` is for its users.
//!
//! The latch and the counts are graceful-drain's; this crate moves bytes.
//!
//! # Flow
//! [`config`] → [`run`] → `listener` (one task a client, on one of the `shards`) → `http` or `tcp` → the app on loopback. Beside it: `app` asks the app what it has in hand once the
//! gate is empty, `admin` answers on the admin port.
//!
//! # Guarantees
//! - What reaches the app was counted before the latch closed, and counts until its answer's last byte was handed over to be sent, or its client has
//!   gone. What slow clients have still to take is waited for as the process ends.
//! - With `--in-flight`, idle also means that the app itself said zero, in answers that were all asked for after the gate was latched and empty.
//! - An app that is not there, dies or says nothing costs its client an error, and never a place in the counts.
//!
//! # Caveats
//! - Without `--in-flight` the promise ends with the response: work that the app goes on with is not seen.
//! - What was handed over to be sent counts as sent.

mod admin;
pub mod app;
pub mod config;
mod http;
mod listener;
mod logs;
mod metrics;
pub mod run;
mod shards;
mod tcp;
mod tunnel;

pub use run::command_line;
