//! Holds any implementation of the drain protocol against `docs/protocol.md`, rule by rule, from outside: by its admin port, its app's port and its
//! process.
//!
//! # Flow
//! Read the flags → start the implementation, if its command was given → try each request that was given → hold each rule → print a table or JSON.
//!
//! # Guarantees
//! - What an implementation may do is no failure: a server that ignores `Prefer`, or verifies no tokens, has those rules skipped, with the reason.
//! - A rule that could not be held is skipped and says what it needs. Nothing passes unseen.
//!
//! # Assumptions
//! Nobody else uses the implementation meanwhile: a count that others move proves nothing.
//!
//! # Caveats
//! Failures are proofs, passes are not: a gap of a microsecond between latch and count may be missed by a race of thousands of requests.

mod call;
mod config;
mod hold;
mod http1;
mod journal;
mod life;
mod need;
mod outcome;
mod pod;
mod report;
mod requests;
mod rules;
mod run;
mod schema;
mod status;
mod token;

use std::process::ExitCode;

use clap::Parser;

pub use config::Flags;
pub use hold::hold;
pub use report::{Held, Report, Verdict};
pub use requests::Requests;
pub use rules::names;

/// The whole of `main`: 0 where nothing failed, 1 where a rule did, 2 where nothing could be held.
pub async fn command_line() -> ExitCode {
    let flags = Flags::parse();
    if flags.list {
        print!("{}", rules::listed());
        return ExitCode::SUCCESS;
    }
    let json = flags.json;
    match hold(flags).await {
        Ok(report) => {
            print!("{}", if json { report.json() } else { report.table() });
            ExitCode::from(u8::from(report.failed() > 0))
        }
        Err(error) => {
            eprintln!("graceful-conformance: {error:#}");
            ExitCode::from(2)
        }
    }
}
