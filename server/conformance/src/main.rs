//! The binary `graceful-conformance`; all of it is in the library.

#[tokio::main]
async fn main() -> std::process::ExitCode {
    graceful_conformance::command_line().await
}
