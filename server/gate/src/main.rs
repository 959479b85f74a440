//! The binary `graceful-gate`: `run` (the default) and `pre-stop`.

/// musl's own allocator lets one thread at a time in; docs/adr/0008-an-allocator-for-musl.md has what that costs.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// This thread accepts clients, answers on the admin port and asks the app; what clients send is moved by others.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    graceful_gate::command_line().await
}
