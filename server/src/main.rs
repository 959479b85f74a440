//! The binary `server`: `run` (the default) and `pre-stop`.

use std::time::Duration;

use clap::Parser;
use graceful_server::config::{Cli, Command, LogFormat, PreStop, Run};
use graceful_server::{logs, run};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Cli { command, run } = Cli::parse();
    match command.unwrap_or(Command::Run(run)) {
        Command::Run(run) => serve(run).await,
        Command::PreStop(hook) => pre_stop(hook).await,
    }
}

async fn serve(flags: Run) -> anyhow::Result<()> {
    logs::start(flags.log_format, &flags.log)?;
    let exit = run::run(flags).await?;
    // Not by returning: an abort must not wait for work that blocks a thread.
    std::process::exit(exit.code())
}

async fn pre_stop(flags: PreStop) -> anyhow::Result<()> {
    logs::start(LogFormat::Auto, "info")?;
    let PreStop { admin_port, linger_seconds } = flags;
    graceful_drain::pre_stop(admin_port.get(), Duration::from_secs(linger_seconds)).await?;
    Ok(())
}
