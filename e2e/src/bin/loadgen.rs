//! The load generator as a program, and the apps that it also is: they run until they are told to stop.

use std::net::SocketAddr;

use clap::{Parser, ValueEnum};
use graceful_e2e::streams::{echo, grpc};
use graceful_e2e::{loadgen, wire};
use tokio::signal::unix::{SignalKind, signal};

/// Sends load to an app, and keeps the ledger of what it accepted and finished.
#[derive(Parser)]
struct Args {
    /// Is an app instead: one that streams gRPC, or one that sends back lines over TCP.
    app: Option<App>,
    /// Where to listen.
    #[arg(long, default_value_t = SocketAddr::from(([0, 0, 0, 0], wire::PORT)))]
    listen: SocketAddr,
}

#[derive(Clone, Copy, ValueEnum)]
enum App {
    Grpc,
    Echo,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        served = run(args) => served,
        _ = terminate.recv() => Ok(()),
    }
}

async fn run(Args { app, listen }: Args) -> anyhow::Result<()> {
    match app {
        Some(App::Grpc) => grpc::serve(listen).await,
        Some(App::Echo) => echo::serve(listen).await,
        None => {
            let listener = tokio::net::TcpListener::bind(listen).await?;
            Ok(axum::serve(listener, loadgen::router(loadgen::App::default())).await?)
        }
    }
}
