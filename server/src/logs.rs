//! Structured logs on stderr. With the feature `otlp`, spans to a collector too.

use graceful_logs::{LogFormat, subscriber};
#[cfg(feature = "otlp")]
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Sends logs to stderr from now on.
///
/// # Errors
/// When the filter can't be read, or a collector is named that can't be used.
pub fn start(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    // The current span is the task's: its id, client and trace stand on every line that its handler writes.
    let logs = subscriber(format, filter, "info,graceful_drain=debug", true)?;
    #[cfg(feature = "otlp")]
    let logs = logs.with(crate::trace::otlp::layer()?);
    logs.init();
    Ok(())
}
