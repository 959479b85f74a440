//! Structured logs on stderr.

use graceful_logs::{LogFormat, subscriber};
use tracing_subscriber::util::SubscriberInitExt;

/// Sends logs to stderr from now on. No span is ever entered here.
pub(crate) fn start(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    subscriber(format, filter, "info,graceful_gate=debug", false)?.init();
    Ok(())
}
