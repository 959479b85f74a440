//! An HTTP call that is made until it works: another system's trouble (5xx, 429, no connection) is tried again with
//! growing pauses, or when its `Retry-After` says; our own mistake (4xx) is not.
//!
//! ```console
//! $ cargo run -p graceful-server --example http_call -- --data /tmp/calls
//! $ curl -X POST localhost:8000/v1/tasks -H 'content-type: application/json' \
//!     -d '{"kind": "http-call", "input": {"url": "http://localhost:8000/v1/health", "method": "GET"}}'
//! $ curl localhost:8000/v1/tasks/<id>           # "state": "succeeded", "output": {"status": 200, "body": "{\"status\":\"ok\"}"}
//! ```
//! The call carries `Idempotency-Key: <task id>`, the same in each attempt: a task may run more than once, and the other
//! side can tell. (Whoever may submit can have this server call any address: give such a kind a list of hosts.)

use std::time::Duration;

use graceful_server::kind::{Failure, InvalidInput, Kind};
use graceful_server::running::Running;
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, Method, StatusCode, Url};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What clients hand in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    url: String,
    #[serde(default)]
    method: Verb,
    /// Sent as JSON.
    body: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Verb {
    Get,
    #[default]
    Post,
    Put,
    Delete,
}

/// What they find when it is done.
#[derive(Serialize)]
struct Answer {
    status: u16,
    body: String,
}

struct HttpCall(Client);

impl Kind for HttpCall {
    const NAME: &'static str = "http-call";
    type Input = Call;
    type Output = Answer;

    fn check(&self, call: &Call) -> Result<(), InvalidInput> {
        match call.url.parse::<Url>() {
            Ok(url) if url.scheme() == "http" => Ok(()),
            Ok(url) => Err(InvalidInput::new("url", format!("is {}; write http://host/path", url.scheme()))),
            Err(error) => Err(InvalidInput::new("url", format!("{error}; write http://host/path"))),
        }
    }

    async fn run(&self, call: Call, task: &Running) -> Result<Answer, Failure> {
        let method = match call.method {
            Verb::Get => Method::GET,
            Verb::Post => Method::POST,
            Verb::Put => Method::PUT,
            Verb::Delete => Method::DELETE,
        };
        let mut request = self.0.request(method, call.url).header("idempotency-key", task.id().to_string());
        if let Some(trace) = task.trace() {
            request = request.header("traceparent", trace.to_string());
        }
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        // No answer at all: any error becomes a failure that is tried again. A cancelled task's handler is dropped at an
        // `.await` like these, which closes the connection; it has nothing else to clean up.
        let answer = request.send().await?;
        let status = answer.status();
        let wait = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = answer.text().await?;
        match (status, wait) {
            (good, _) if good.is_success() => Ok(Answer { status: good.as_u16(), body }),
            (busy, Some(seconds)) if may_pass(busy) => {
                Err(Failure::retry_after(Duration::from_secs(seconds), format!("{busy}: {body}")))
            }
            (busy, None) if may_pass(busy) => Err(Failure::retry(format!("{busy}: {body}"))),
            (ours, _) => Err(Failure::fatal(format!("{ours}: {body}"))),
        }
    }
}

fn may_pass(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = Client::builder().timeout(Duration::from_secs(30)).no_proxy().build()?;
    graceful_server::command_line(|server| server.kind(HttpCall(client))).await
}
