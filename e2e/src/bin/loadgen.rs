//! The load generator as a program: listens until it is told to stop.

use std::net::SocketAddr;

use clap::Parser;
use graceful_e2e::{loadgen, wire};
use tokio::signal::unix::{SignalKind, signal};

/// Sends load to an app, and keeps the ledger of what it accepted and finished.
#[derive(Parser)]
struct Args {
    /// Where to listen.
    #[arg(long, default_value_t = SocketAddr::from(([0, 0, 0, 0], wire::PORT)))]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let listener = tokio::net::TcpListener::bind(args.listen).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        served = axum::serve(listener, loadgen::router(loadgen::App::default())) => Ok(served?),
        _ = terminate.recv() => Ok(()),
    }
}
