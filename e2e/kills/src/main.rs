//! SIGKILL at a thousand moments: real servers, real clients, and a ledger that trusts neither.
//!
//! - [`moments`]: when to kill, and whom. [`server`]: a process that is started, killed, started again.
//! - [`callee`]: what `http` tasks call; it fails, hangs and lies.
//! - [`clients`]: submissions without end. [`reports`]: what servers say they have done. [`ledger`]: both, joined.
//! - [`run`]: the run. [`settle`]: what is true at its end, asked of the servers' own API as well. [`summary`]: all of it,
//!   printed and judged.
//!
//! It passes when every task that a client was told was accepted was reported done and is `succeeded` by the API, when no call
//! is said to be done that had no whole answer, when
//! enough kills hit running work to prove something, and when every interrupted task was picked up in time.

mod callee;
mod clients;
mod engine;
mod ledger;
mod moments;
mod reports;
mod run;
mod server;
mod settle;
mod summary;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use clap::Parser;
use parking_lot::{Mutex, MutexGuard};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use engine::Store;
use ledger::{Ledger, Life};

/// Kills task servers, and counts what they lost. `cargo xtask kills` builds and runs it.
#[derive(Debug, Parser)]
struct Args {
    /// How many kills.
    #[arg(long, default_value_t = 1000)]
    n: u32,
    /// The engine that keeps the queue.
    #[arg(long, default_value = "sqlite")]
    store: Store,
    /// Repeats a run's choices; its timing cannot be repeated.
    #[arg(long)]
    seed: Option<u64>,
    /// The server's binary.
    #[arg(long)]
    server: PathBuf,
    /// Where logs and data go; what is there is removed.
    #[arg(long)]
    folder: PathBuf,
}

/// What clients, processes and reports share.
#[derive(Clone, Default)]
struct Shared {
    ledger: Arc<Mutex<Ledger>>,
    lives: Arc<AtomicU32>,
    /// Woken as a submission goes out.
    submitting: Arc<Notify>,
}

impl Shared {
    /// Locked; each use is short and none holds it over an await.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock()
    }

    fn next_life(&self) -> Life {
        self.lives.fetch_add(1, Ordering::Relaxed) + 1
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    // So that a Ctrl-C drops, and so ends, what was started.
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        eprintln!("kills: cannot listen for signals");
        return ExitCode::FAILURE;
    };
    let result = tokio::select! {
        result = run::run(Args::parse()) => result,
        _ = terminate.recv() => Err(anyhow::anyhow!("stopped by SIGTERM")),
        _ = interrupt.recv() => Err(anyhow::anyhow!("stopped by Ctrl-C")),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kills: {error:#}");
            ExitCode::FAILURE
        }
    }
}
