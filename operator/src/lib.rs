//! The Graceful operator: it rolls, scales and deletes pods only when their work is done.
//!
//! [`operator`] has the loop's body, which reads as the table of contents: observe → plan → execute → report. What is decided is decided in
//! `graceful-plan`; here is all that touches the world.

#[cfg(test)]
#[path = "../tests/api_faults/mod.rs"]
mod api_faults;
mod concern;
mod contest;
mod decode;
mod error;
mod execute;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod index;
mod leader;
mod memory;
mod observe;
mod operator;
mod probe;
mod pulse;
mod refusals;
mod report;
mod run;
mod schedule;
mod telemetry;
mod watch;

pub use error::Error;
pub use leader::Leadership;
pub use run::{Settings, run, run_with};
