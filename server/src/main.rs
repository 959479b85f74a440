//! The binary `server`: `run` (the default) and `pre-stop`, with the built-in kinds alone.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    graceful_server::command_line(|server| server).await
}
