//! `--in-flight`: how the app is asked what it has in hand. The words are those of `spec.inFlight`.

use std::num::{NonZeroU16, NonZeroU64};
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use graceful_prometheus::MetricSelector;

/// How the app is asked, checked.
#[derive(Debug, Clone)]
pub struct InFlight {
    /// None: the app's own.
    pub(crate) port: Option<NonZeroU16>,
    pub(crate) path: String,
    pub(crate) counts: Counts,
    pub(crate) when_absent: WhenAbsent,
    /// The app counts the question itself, say.
    pub(crate) idle_at: u64,
    pub(crate) poll: Duration,
    pub(crate) timeout: Duration,
}

/// What is added up.
#[derive(Debug, Clone)]
pub(crate) enum Counts {
    JsonPointers(Vec<String>),
    Metrics(Vec<MetricSelector>),
}

/// What it means that a count is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub(crate) enum WhenAbsent {
    #[default]
    Busy,
    Zero,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    port: Option<NonZeroU16>,
    path: Option<String>,
    #[serde(default)]
    json_pointers: Vec<String>,
    #[serde(default)]
    metrics: Vec<String>,
    #[serde(default)]
    when_absent: WhenAbsent,
    #[serde(default)]
    idle_at: u64,
    poll_interval_seconds: Option<NonZeroU64>,
    timeout_seconds: Option<NonZeroU64>,
}

impl FromStr for InFlight {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let written = serde_json::from_str::<Written>(text).map_err(|error| {
            let error = error.to_string();
            match ["pollIntervalSeconds", "timeoutSeconds", "port"]
                .into_iter()
                .find(|_| error.contains("nonzero"))
            {
                Some(_) => format!("{error}; port, pollIntervalSeconds and timeoutSeconds are 1 or more"),
                None => error,
            }
        })?;
        let Written {
            port,
            path,
            json_pointers,
            metrics,
            when_absent,
            idle_at,
            poll_interval_seconds,
            timeout_seconds,
        } = written;
        let counts = counts(json_pointers, &metrics)?;
        let usual = match counts {
            Counts::JsonPointers(_) => "/",
            Counts::Metrics(_) => "/metrics",
        };
        let path = path.unwrap_or_else(|| usual.to_owned());
        fit_for_a_request(&path)?;
        let seconds =
            |given: Option<NonZeroU64>, usual| Duration::from_secs(given.map_or(usual, NonZeroU64::get));
        let (poll, timeout) = (seconds(poll_interval_seconds, 1), seconds(timeout_seconds, 2));
        Ok(Self { port, path, counts, when_absent, idle_at, poll, timeout })
    }
}

fn counts(json_pointers: Vec<String>, metrics: &[String]) -> Result<Counts, String> {
    match (json_pointers.is_empty(), metrics.is_empty()) {
        (false, true) => {
            if let Some(bad) =
                json_pointers.iter().find(|pointer| !pointer.is_empty() && !pointer.starts_with('/'))
            {
                return Err(format!("jsonPointers: {bad:?} is no JSON pointer (RFC 6901); write \"/{bad}\""));
            }
            Ok(Counts::JsonPointers(json_pointers))
        }
        (true, false) => {
            let parsed = metrics.iter().map(|text| text.parse().map_err(|why| format!("metrics: {why}")));
            parsed.collect::<Result<_, _>>().map(Counts::Metrics)
        }
        (false, false) => Err("jsonPointers and metrics are both given; write one of them".to_owned()),
        (true, true) => {
            let write = r#"write {"path": "/queue", "jsonPointers": ["/length"]} or {"path": "/metrics", "metrics": ["jobs"]}"#;
            Err(format!("nothing says what to count; {write}"))
        }
    }
}

/// Whether a path can stand in a request.
pub(crate) fn fit_for_a_request(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("path: {path:?} does not begin with a slash; write \"/{path}\""));
    }
    let parsed = path.parse::<hyper::Uri>();
    parsed
        .map(|_| ())
        .map_err(|error| format!("path: {path:?} cannot be asked for ({error}); write it percent-encoded"))
}
