//! The Graceful operator: it rolls, scales and deletes pods only when their work is done.
//!
//! [`reconcile`] has the loop's body, which reads as the table of contents: observe → plan → converse → execute → report. What is decided is decided in
//! `graceful-plan`; here is all that touches the world.

#[cfg(test)]
mod api_faults;
mod app_ref;
mod clock;
mod concern;
mod contest;
mod decode;
mod digest;
mod error;
mod execute;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod index;
mod keys;
mod leader;
mod memory;
mod merge;
mod observe;
mod operator;
mod probe;
mod pulse;
mod reconcile;
mod report;
mod requeue;
mod run;
mod schedule;
mod telemetry;
mod unseen_writes;
mod watch;
mod writes;

pub use error::Error;
pub use keys::{KeySecret, rotate};
pub use leader::{Lease, Timing};
pub use observe::{GateImage, NodeDrain, TAINTS, URGENT_TAINTS};
pub use run::{Settings, Tokens, run, run_with};
