//! Structured logs on stderr: text for a person at a terminal, JSON for a collector.

use std::io::{IsTerminal, stderr};

use anyhow::Context;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt, registry};

use crate::config::LogFormat;

/// Sends logs to stderr from now on.
pub(crate) fn start(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .parse(filter)
        .with_context(|| format!("--log {filter}: not a filter; write info, or info,graceful_gate=debug"))?;
    let json = match format {
        LogFormat::Auto => !stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let lines = fmt::layer().with_writer(stderr);
    let lines = match json {
        true => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
        false => lines.boxed(),
    };
    registry().with(filter).with(lines).init();
    Ok(())
}
