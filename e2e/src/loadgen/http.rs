//! HTTP clients: each submits tasks at its share of the rate and writes down what it was told.

use std::time::Duration;

use rand::RngExt;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::{Answer, Shared, now_ms};
use crate::wire::LoadSpec;

/// Longer than any healthy answer, shorter than a drain: what takes this long has failed for its client.
const TIMEOUT: Duration = Duration::from_secs(10);

/// One client, until it is stopped. A submission that has begun is always waited for.
pub(super) async fn run(number: u32, spec: LoadSpec, ledger: Shared, mut stop: watch::Receiver<bool>) {
    let keeps_connection = number.is_multiple_of(2) && !spec.fresh;
    let builder = reqwest::Client::builder().timeout(TIMEOUT).no_proxy();
    let builder = if keeps_connection { builder } else { builder.pool_max_idle_per_host(0) };
    let client = match builder.build() {
        Ok(client) => client,
        Err(error) => {
            ledger.lock().answer(Answer::Failed(format!("no client: {error}")), now_ms());
            return;
        }
    };
    let url = format!("{}{}", spec.target, spec.submit_path);
    let interval = f64::from(spec.clients) / spec.rate_per_second;
    let mut next = Instant::now() + Duration::from_secs_f64(interval * rand::rng().random_range(0.0..1.0));
    loop {
        tokio::select! {
            // A client that is late is always due: by dice it would go on after a stop, 10 s a submission.
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = sleep_until(next) => {}
        }
        next += Duration::from_secs_f64(interval * rand::rng().random_range(0.5..1.5));
        let answer = submit(&client, &url).await;
        ledger.lock().answer(answer, now_ms());
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
