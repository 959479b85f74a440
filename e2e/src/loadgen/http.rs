//! Tasks over HTTP, as a task server takes them.

use std::time::Duration;

use serde::Deserialize;

use super::Answer;
use crate::wire::LoadSpec;

/// Longer than any healthy answer, shorter than a drain: what takes this long has failed for its client.
const TIMEOUT: Duration = Duration::from_secs(10);

/// One client of a task server.
pub(super) struct Client {
    client: reqwest::Client,
    url: String,
}

impl Client {
    pub(super) fn new(spec: &LoadSpec, keeps_connection: bool) -> anyhow::Result<Self> {
        let builder = reqwest::Client::builder().timeout(TIMEOUT).no_proxy();
        let builder = if keeps_connection { builder } else { builder.pool_max_idle_per_host(0) };
        Ok(Self { client: builder.build()?, url: format!("{}{}", spec.target, spec.submit_path) })
    }

    pub(super) async fn submit(&self) -> Answer {
        submit(&self.client, &self.url).await
    }
}

/// The part of the task server's answer that matters here.
#[derive(Deserialize)]
struct Created {
    task_id: String,
}

/// Submits one task.
async fn submit(client: &reqwest::Client, url: &str) -> Answer {
    let response = match client.post(url).send().await {
        Ok(response) => response,
        Err(error) => return Answer::Failed(kind(&error)),
    };
    let status = response.status();
    let body = match response.bytes().await {
        Ok(body) => body,
        Err(error) => return Answer::Failed(format!("cut: {}", kind(&error))),
    };
    if !status.is_success() {
        return Answer::Refused(status.as_u16());
    }
    match serde_json::from_slice::<Created>(&body) {
        Ok(Created { task_id }) => Answer::Accepted(task_id),
        Err(error) => Answer::Failed(format!("answer without a task id: {error}")),
    }
}

/// A short, stable word for what went wrong.
fn kind(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return if error.is_connect() { "connect timed out".into() } else { "timed out".into() };
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let phase = if error.is_connect() { "connect: " } else { "" };
    match cause.downcast_ref::<std::io::Error>() {
        Some(io) => format!("{phase}{}", io.kind()),
        None => format!("{phase}{cause}"),
    }
}
