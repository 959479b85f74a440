//! Structured logs on stderr: text for a person at a terminal, JSON for a collector. With the feature `otlp`, spans too.

use std::io::{IsTerminal, stderr};

use anyhow::Context;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt, registry};

use crate::config::LogFormat;

/// Sends logs to stderr from now on.
///
/// # Errors
/// When the filter can't be read, or a collector is named that can't be used.
pub fn start(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .parse(filter)
        .with_context(|| format!("--log {filter}: not a filter; write info, or info,graceful_drain=debug"))?;
    let json = match format {
        LogFormat::Auto => !stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let lines = fmt::layer().with_writer(stderr);
    // The current span is the task's: its id, client and trace stand on every line that its handler writes.
    let lines = match json {
        true => lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed(),
        false => lines.boxed(),
    };
    let registry = registry().with(filter).with(lines);
    #[cfg(feature = "otlp")]
    let registry = registry.with(crate::trace::otlp::layer()?);
    registry.init();
    Ok(())
}
