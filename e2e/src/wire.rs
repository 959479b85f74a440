//! What the load generator and the harness say to each other, and what a task server reports. JSON over HTTP.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The load generator's port, in its pod and on its Service.
pub const PORT: u16 = 8080;

/// `POST /load`: what to send, and for how long at most.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadSpec {
    /// Base URL of the app's Service, such as `http://tasks`.
    pub target: String,
    /// HTTP clients. Half of them keep their connection, the others open a fresh one for each request.
    pub clients: u32,
    /// None of them keeps its connection.
    #[serde(default)]
    pub fresh: bool,
    /// Tasks submitted in a second by all clients together.
    pub rate_per_second: f64,
    /// WebSocket clients, each of which reconnects for as long as the load runs.
    pub sockets: u32,
    /// Whether the WebSocket clients ask for numbered events, and for what they missed as they come back.
    #[serde(default)]
    pub numbered: bool,
    /// What the clients speak, and what a task is to them.
    #[serde(default)]
    pub speaks: Speaks,
    /// The load ends by itself after this many seconds.
    pub seconds: u64,
    /// Path and method of a submission; the default is the task server's `POST /v1/create-task/`.
    #[serde(default = "create_task")]
    pub submit_path: String,
}

/// What clients speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Speaks {
    /// A task is a POST that is answered with its id, and reported by its server.
    #[default]
    Tasks,
    /// A task is a stream of gRPC: accepted with its first message, and processed once its client has all of it.
    Grpc,
    /// A task is a TCP connection, in the same way.
    Echo,
}

/// Where the task server takes tasks.
pub fn create_task() -> String {
    "/v1/create-task/".to_owned()
}

/// `POST /report`: what a task server says as a task ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The id that the client was told when the task was accepted.
    pub task_id: String,
    /// The pod that ran it.
    pub pod_uid: String,
    /// The process that ran it; a restarted container has another.
    pub boot_id: String,
    /// How it ended: [`PROCESSED`], or another word for a task that was given up.
    pub outcome: String,
}

/// The outcome of a task that was done. Any other is not finished work.
pub const PROCESSED: &str = "processed";

/// `GET /ledger`: all that is known so far. Times are milliseconds since 1970 on the load generator's clock.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerView {
    /// The clock of all times here.
    pub now_ms: u64,
    /// Whether HTTP clients are still submitting.
    pub submitting: bool,
    /// Tasks that clients were told were accepted.
    pub accepted: u64,
    /// Accepted tasks that were reported as processed.
    pub finished: u64,
    /// Accepted tasks that were not; lost, once nothing can finish them any more.
    pub unfinished: Vec<Unfinished>,
    /// Accepted tasks that were reported to have ended otherwise, by outcome.
    pub given_up: BTreeMap<String, u64>,
    /// Accepted tasks that more than one process finished.
    pub duplicates: u64,
    /// Reports of tasks that no client was told about (its response was cut).
    pub unknown_reports: u64,
    /// When the last report came.
    pub last_report_ms: Option<u64>,
    /// Answers to submissions.
    pub requests: Requests,
    /// The WebSocket clients.
    pub sockets: Sockets,
    /// Work by pod uid.
    pub pods: BTreeMap<String, PodWork>,
}

/// One accepted task that has not finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unfinished {
    /// The task's id.
    pub task_id: String,
    /// When its client was told that it was accepted.
    pub accepted_ms: u64,
}

/// How submissions were answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requests {
    /// All that were sent.
    pub sent: u64,
    /// Answered, but with a status that is not 2xx, by status.
    pub refused: BTreeMap<u16, u64>,
    /// Not answered, or cut short, by kind.
    pub failed: BTreeMap<String, u64>,
}

impl Requests {
    /// Refused and failed ones together: what a client notices.
    pub fn unanswered(&self) -> u64 {
        self.refused.values().sum::<u64>() + self.failed.values().sum::<u64>()
    }
}

/// The WebSocket clients.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sockets {
    /// Clients that should be connected now.
    pub wanted: u64,
    /// Clients that are.
    pub connected: u64,
    /// Connections that were opened.
    pub opened: u64,
    /// Attempts that failed, by kind.
    pub refused: BTreeMap<String, u64>,
    /// How many messages it received.
    pub messages: u64,
    /// The pod that each connected client is on.
    pub on: BTreeMap<String, String>,
    /// Connections that ended while the load ran.
    pub closes: Vec<SocketClose>,
    /// What each client of numbered events heard, by stream, in the order in which it came to them.
    pub heard: BTreeMap<String, Vec<Heard>>,
    /// Accepted and processed tasks whose end it was not told of, by such a client.
    pub unheard: BTreeMap<String, u64>,
}

/// What a client heard of one stream of numbered events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heard {
    /// The queue's numbering.
    pub stream: String,
    /// The pods that told of it.
    pub pods: Vec<String>,
    /// The number it began after.
    pub from: u64,
    /// The last number it heard.
    pub last: u64,
    /// Events it was told.
    pub events: u64,
    /// Numbers that were passed over.
    pub gaps: u64,
    /// Events that were told again.
    pub duplicates: u64,
    /// Events that the server said were no longer kept.
    pub missed: u64,
    /// Times it came back.
    pub resumed: u64,
    /// Times it came back and was not taken where it was, though it was the same stream.
    pub not_resumed: u64,
    /// Times the pod said that it goes, after all it had to tell.
    pub farewells: u64,
}

/// One WebSocket connection that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SocketClose {
    /// The client's id.
    pub client: String,
    /// The pod it was on, from the first frame.
    pub pod: String,
    /// When it ended.
    pub at_ms: u64,
    /// The close code; none when the connection was cut without one.
    pub code: Option<u16>,
    /// Whether `Server shutting down` came first.
    pub told: bool,
    /// How long the client had no connection; none while it still has none.
    pub gap_ms: Option<u64>,
}

/// What one pod did, by its reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodWork {
    /// Tasks it processed.
    pub finished: u64,
    /// When its last report came.
    pub last_report_ms: u64,
    /// The boot ids of the processes that reported in its name.
    pub boots: Vec<String>,
}
