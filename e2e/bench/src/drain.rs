//! How long a drain takes beyond the tasks themselves.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

use crate::load::{Client, request};
use crate::subject::{Bench, Subject, Tasks};

/// Tasks that are in the pod when the drain starts.
pub(crate) const TASKS: u32 = 100;
/// How long each takes, and how many run at a time: the best possible is as many rounds of them.
const SECONDS: (&str, f64) = ("0.05", 0.05);
const CONCURRENCY: u32 = 50;
pub(crate) const BEST: f64 = SECONDS.1 * (TASKS / CONCURRENCY) as f64;
const TIMEOUT: Duration = Duration::from_secs(30);

/// From PUT /drain to Idle with 100 tasks in the pod, and from SIGTERM to the exit of an idle pod, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DrainTimes {
    pub(crate) drain: f64,
    pub(crate) exit: f64,
}

/// On a server with SQLite, whose waiting tasks are the pod's own.
pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<DrainTimes> {
    let tasks = Tasks { seconds: SECONDS.0, concurrency: CONCURRENCY, callee: None };
    let running = Subject::Sqlite.start(bench, tasks).await?;
    let submit = request("POST", "/v1/create-task/");
    let connections = (0..TASKS).map(|_| Client::connect(running.server.address));
    let mut clients = futures::future::try_join_all(connections).await?;
    let mut admin = Client::connect(running.admin).await?;
    let submits = clients.iter_mut().map(|client| async {
        let answer = client.ask(submit.as_bytes()).await?;
        ensure!(answer.status == 200, "a submit is answered {}: {}", answer.status, answer.body);
        Ok(())
    });
    futures::future::try_join_all(submits).await?;
    let begun = Instant::now();
    let body = r#"{"epoch":1,"lingerSeconds":0}"#;
    let put = format!(
        "PUT /drain HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut status = Status::parse(admin.ask(put.as_bytes()).await?.body)?;
    let first = status.in_flight.total;
    ensure!(first > 0, "all tasks were done before the drain began");
    let idle = async {
        while status.state != "Idle" {
            sleep(Duration::from_millis(2)).await;
            status = Status::parse(admin.ask(request("GET", "/drain").as_bytes()).await?.body)?;
        }
        anyhow::Ok(())
    };
    timeout(TIMEOUT, idle).await.context("not idle")??;
    let drain = begun.elapsed().as_secs_f64();
    drop((clients, admin));
    let exit = running.terminate(bench).await?;
    Ok(DrainTimes { drain, exit: exit.as_secs_f64() })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    state: String,
    in_flight: InFlight,
}

#[derive(Deserialize)]
struct InFlight {
    total: u64,
}

impl Status {
    fn parse(body: &str) -> anyhow::Result<Self> {
        serde_json::from_str(body).with_context(|| format!("no drain status: {body}"))
    }
}
