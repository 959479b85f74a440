//! `graceful-bench`: what we built beside what others have, in one run, on one machine. `cargo xtask bench server` and
//! `cargo xtask bench gate` build what it takes and start it.

mod aim;
mod child;
mod dispatch;
mod drain;
mod gate;
mod latency;
mod load;
mod machine;
mod plot;
mod report;
mod server;
mod sockets;
mod spread;
mod subject;
mod submit;

use clap::Parser;

/// Measures one program.
#[derive(Debug, Parser)]
enum Command {
    /// The task server beside the seed's stack and beside a handler that stores nothing.
    Server(server::Flags),
    /// The gate beside nginx, HAProxy and no proxy at all.
    Gate(gate::Flags),
}

// The generator has one thread, so that the other cores are the subjects'.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Server(flags) => server::run(&flags).await,
        Command::Gate(flags) => gate::run(&flags).await,
    }
}
