//! Structured logs on stderr: text for a person at a terminal, JSON for a collector.

use std::io::{IsTerminal, stderr};

use anyhow::Context;
use clap::ValueEnum;
use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, fmt, registry};

/// Form of the logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// A line for a person.
    Text,
    /// One JSON object a line.
    Json,
}

/// Writes what passes the filter to stderr, once it is made the process's subscriber. `spans`: a line of JSON has the fields of the span that it was written in.
///
/// # Errors
/// When the filter cannot be read; `example` is one that can.
pub fn subscriber(
    format: LogFormat,
    filter: &str,
    example: &str,
    spans: bool,
) -> anyhow::Result<impl Subscriber + for<'span> LookupSpan<'span> + Send + Sync> {
    let filter = EnvFilter::builder()
        .parse(filter)
        .with_context(|| format!("--log {filter}: not a filter; write info, or {example}"))?;
    let json = match format {
        LogFormat::Auto => !stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let lines = fmt::layer().with_writer(stderr);
    let lines = match json {
        true => lines.json().flatten_event(true).with_current_span(spans).with_span_list(false).boxed(),
        false => lines.boxed(),
    };
    Ok(registry().with(filter).with(lines))
}
