//! The binary `graceful-gate`: `run` (the default) and `pre-stop`.

/// musl's own allocator lets one thread at a time in; docs/adr/0008-an-allocator-for-musl.md has what that costs.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    graceful_gate::command_line().await
}
