//! What is true at the end: everything accepted must come to its end, by the reports and by the servers' own word.

use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::Value;
use tokio::time::sleep;
use uuid::Uuid;

use crate::Shared;
use crate::engine::Store;
use crate::ledger::Ledger;
use crate::run::name;
use crate::server::Place;

/// Tasks take 0.3 s, leases 6 s. Without any news for so long, what is missing is lost.
const SILENCE: Duration = Duration::from_secs(20);
/// Questions at a time.
const ASKED_AT_ONCE: usize = 16;
const AGAIN: Duration = Duration::from_millis(100);
/// The design's promise: orphans are picked up within this.
const PICKED_UP: Duration = Duration::from_secs(10);

/// An accepted task that did not come to its end, and what is known of it.
pub(crate) struct Lost {
    task: Uuid,
    reported: bool,
    said: String,
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

/// What there is to say.
pub(crate) struct Verdict {
    /// Which queue.
    pub(crate) store: Store,
    /// Kills.
    pub(crate) n: u32,
    /// How long they took.
    pub(crate) killing: Duration,
    /// What did not come to its end.
    pub(crate) lost: Vec<Lost>,
    /// What else went wrong.
    pub(crate) faults: Vec<String>,
}

impl Verdict {
    /// Prints it; true when nothing was lost and something was proved. The last line is the one that is counted on.
    pub(crate) fn print(self, ledger: &Ledger) -> bool {
        let Self { store, n, killing, lost, mut faults } = self;
        let counts = &ledger.counts;
        let accepted = ledger.all().len();
        let seconds = killing.as_secs_f64();
        println!(
            "{}: {n} kills in {seconds:.1} s, {:.2} a second; {} hit running work and interrupted {} attempts",
            name(store),
            f64::from(n) / seconds,
            counts.at_work,
            counts.interrupted
        );
        println!(
            "submissions: {} sent, {accepted} accepted, {} cut, refused {:?}; {} keys sent again after their answer",
            counts.sent, counts.cut, counts.refused, counts.repeated
        );
        let mut waits = counts.pick_ups.clone();
        waits.sort();
        let wait =
            |share: usize| waits.get(waits.len() * share / 100).copied().unwrap_or_default().as_secs_f64();
        let longest = waits.last().copied().unwrap_or_default();
        println!(
            "orphans: {} picked up, after {:.2} s (median), {:.2} s (99 %), {:.2} s (longest); {} unseen",
            waits.len(),
            wait(50),
            wait(99),
            longest.as_secs_f64(),
            counts.unseen
        );
        println!(
            "done by more than one process, as at least once allows: {}; done and never heard of by a client: {}",
            ledger.duplicates(),
            ledger.unheard()
        );
        for Lost { task, reported, said } in lost.iter().take(10) {
            println!("LOST {task}: reported={reported}, the server says: {said}");
        }
        if accepted == 0 {
            faults.push("nothing was accepted: this proves nothing".to_owned());
        }
        if counts.at_work < n / 3 {
            faults.push(format!("only {} of {n} kills hit running work: this proves little", counts.at_work));
        }
        if !counts.changed.is_empty() {
            faults.push(format!("{} keys gave another task the second time", counts.changed.len()));
        }
        if longest > PICKED_UP {
            faults.push(format!(
                "an orphan waited {:.1} s, over {} s",
                longest.as_secs_f64(),
                PICKED_UP.as_secs()
            ));
        }
        for fault in &faults {
            println!("FAILED: {fault}");
        }
        println!("kills: n={n} accepted={accepted} finished={} lost={}", accepted - lost.len(), lost.len());
        faults.is_empty() && lost.is_empty()
    }
}
