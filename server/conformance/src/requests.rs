//! What an implementation may be asked, each by a flag. Each request that is given lets more rules be held; none is required.

use std::num::NonZeroUsize;

use clap::Args;

use crate::call::{Call, Header, Socket};

/// The requests that were given.
#[derive(Debug, Clone, Args)]
pub struct Requests {
    /// Work that is answered with 2xx at once, and refused past the latch. May be given several times: each path that brings work.
    #[arg(long, value_name = "REQUEST")]
    pub app: Vec<Call>,
    /// Work whose answer takes from 0.2 to 20 s. Where it has a BODY its last byte is held back for as long as the work is to take, so that any POST whose
    /// body the app reads will do.
    #[arg(long, value_name = "REQUEST")]
    pub slow: Option<Call>,
    /// Work whose answer's body comes in pieces, over half a second or more.
    #[arg(long, value_name = "REQUEST")]
    pub stream: Option<Call>,
    /// A request in which the app's handler fails (an exception, a panic).
    #[arg(long, value_name = "REQUEST")]
    pub fail: Option<Call>,
    /// Work that goes on after its answer; with --task-seconds.
    #[arg(long, value_name = "REQUEST", requires = "task_seconds")]
    pub task: Option<Call>,
    /// How long the work of --task takes at least; from 0.3 s.
    #[arg(long, value_name = "SECONDS", requires = "task", value_parser = task_seconds)]
    pub task_seconds: Option<f64>,
    /// A WebSocket of the app that stays open: ws://127.0.0.1:8000/ws.
    #[arg(long, value_name = "URL")]
    pub socket: Option<Socket>,
    /// A read or a health check that answers 2xx in every state. May be given several times.
    #[arg(long, value_name = "REQUEST")]
    pub open: Vec<Call>,
    /// A header of every request to the app: `Authorization: Bearer x`. May be given several times.
    #[arg(long, value_name = "HEADER")]
    pub header: Vec<Header>,
    /// How many requests race the latch. A gap of a microsecond is met by chance: more find more.
    #[arg(long, value_name = "N", default_value = "3000")]
    pub race: NonZeroUsize,
}

/// Shorter than this, a zero between an answer and its work could not be told from the work's end.
const SHORTEST_TASK: f64 = 0.3;

fn task_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (SHORTEST_TASK..=60.0).contains(seconds));
    seconds.ok_or_else(|| format!("must be a number of seconds from {SHORTEST_TASK} to 60, not {text}"))
}
