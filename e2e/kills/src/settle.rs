//! What is true at the end: everything accepted must come to its end, by the reports and by the servers' own word.

use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::Value;
use tokio::time::sleep;
use uuid::Uuid;

use crate::Shared;
use crate::server::Place;

/// Tasks take 0.3 s, leases 6 s, and one that was interrupted many times waits up to five minutes. Without any news for so
/// long, what is missing is lost.
const SILENCE: Duration = Duration::from_secs(330);
/// Questions at a time.
const ASKED_AT_ONCE: usize = 16;
const AGAIN: Duration = Duration::from_millis(100);

/// An accepted task that did not come to its end, and what is known of it.
pub(crate) struct Lost {
    pub(crate) task: Uuid,
    pub(crate) reported: bool,
    /// The task's state by the server's API, or why there is none.
    pub(crate) said: String,
}

/// Waits until every accepted task is done, or nothing moves any more. What is lost.
pub(crate) async fn settle(places: &mut [Place], shared: &Shared) -> anyhow::Result<Vec<Lost>> {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
    let mut addresses = Vec::new();
    for place in places.iter_mut() {
        place.works().await?;
        addresses.extend(place.address().borrow().clone());
    }
    let mut open: Vec<Lost> = shared.ledger().all().into_iter().map(|(task, _)| unknown(task)).collect();
    let mut news = Instant::now();
    while !open.is_empty() && news.elapsed() < SILENCE {
        let before = open.len();
        let asking = open.into_iter().enumerate().map(|(number, lost)| {
            let url = format!("{}/v1/tasks/{}", addresses[number % addresses.len()], lost.task);
            ask(&http, url, lost.task)
        });
        let answers: Vec<Lost> =
            futures::stream::iter(asking).buffer_unordered(ASKED_AT_ONCE).collect().await;
        let reported: std::collections::HashMap<Uuid, bool> = shared.ledger().all().into_iter().collect();
        open = answers
            .into_iter()
            .map(|lost| Lost { reported: reported.get(&lost.task).copied().unwrap_or(false), ..lost })
            .filter(|lost| !(lost.reported && lost.said == DONE))
            .collect();
        if open.len() < before {
            news = Instant::now();
        }
        if !open.is_empty() {
            sleep(AGAIN).await;
        }
    }
    Ok(open)
}

/// Ends the servers in order. With nothing left to do they must go at once; what keeps one is a fault of its own.
pub(crate) async fn stop(places: &mut [Place]) -> Vec<String> {
    let mut faults = Vec::new();
    for place in places {
        if let Err(fault) = place.stop().await {
            faults.push(format!("{fault:#}"));
        }
    }
    faults
}

fn unknown(task: Uuid) -> Lost {
    Lost { task, reported: false, said: "not asked".into() }
}

/// The state of a task that is done.
const DONE: &str = "succeeded";

/// What the server says of a task: its state, or why there is none.
async fn ask(http: &reqwest::Client, url: String, task: Uuid) -> Lost {
    let answer = async {
        let answer = http.get(url).send().await?;
        let status = answer.status();
        Ok::<_, reqwest::Error>((status, answer.json::<Value>().await?))
    };
    let said = match answer.await {
        Ok((status, body)) if status.is_success() => match (body["state"].as_str(), body["message"].as_str())
        {
            (Some(state), _) => state.to_owned(),
            // The seed's words.
            (None, Some(message)) if message == format!("Task {task} processed") => DONE.to_owned(),
            (None, _) => body.to_string(),
        },
        Ok((status, body)) => format!("{status}: {body}"),
        Err(error) => error.to_string(),
    };
    Lost { task, reported: false, said }
}
