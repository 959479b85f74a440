//! How many calls the server makes: tasks of kind `http` that wait, beside a client that calls the same callee and keeps nothing.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

use crate::load::{Client, Load, drive, request};
use crate::machine::settle;
use crate::subject::{Bench, Subject, Tasks};

/// Calls at a time, of the server and of the client: what `--concurrency` is without a word on it.
pub(crate) const AT_ONCE: u32 = 64;
/// Enough to last for seconds.
const TASKS: usize = 20_000;
/// Handed in together; the answer to more would be longer than the generator takes.
const TOGETHER: usize = 40;
const WARM_UP: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(120);
/// Between two looks at what is left: some thousandths of the whole.
const LOOK: Duration = Duration::from_millis(5);
/// The only route that the callee has.
const PATH: &str = "/v1/create-task/";

/// Calls in a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dispatches {
    /// The load generator's own, on as many connections.
    pub(crate) bare: f64,
    pub(crate) sqlite: f64,
    pub(crate) postgres: f64,
}

/// The callee is the ceiling: it answers at once, and stores nothing.
pub(crate) async fn measure(bench: &Bench, measured: Duration) -> anyhow::Result<Dispatches> {
    let callee = Subject::Ceiling.start(bench, Tasks::WAIT).await?;
    let address = callee.server.address;
    settle()?;
    let load = Load { connections: AT_ONCE as usize, warm_up: WARM_UP, measured, every: None };
    let bare = drive(address, &request("POST", PATH), load).await?.per_second;
    let sqlite = one(bench, Subject::Sqlite, address).await.context("SQLite")?;
    let postgres = one(bench, Subject::Postgres, address).await.context("PostgreSQL")?;
    callee.end(bench).await?;
    Ok(Dispatches { bare, sqlite, postgres })
}

/// All wait in a queue that is paused; what is measured is from its resumption until none is left.
async fn one(bench: &Bench, subject: Subject, callee: SocketAddr) -> anyhow::Result<f64> {
    let tasks = Tasks { seconds: "0", concurrency: AT_ONCE, callee: Some(callee) };
    let running = subject.start(bench, tasks).await?;
    let mut client = Client::connect(running.server.address).await?;
    good(&mut client, &request("POST", "/v1/queues/default/pause")).await?;
    let task = format!(r#"{{"kind":"http","input":{{"url":"http://{callee}{PATH}"}}}}"#);
    let body = format!(r#"{{"tasks":[{}]}}"#, vec![task; TOGETHER].join(","));
    let submit = format!(
        "POST /v1/bulk/submit HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    for _ in 0..TASKS / TOGETHER {
        good(&mut client, &submit).await?;
    }
    settle()?;
    let begun = Instant::now();
    good(&mut client, &request("POST", "/v1/queues/default/resume")).await?;
    let emptied = async {
        while left(&mut client).await? > 0 {
            sleep(LOOK).await;
        }
        anyhow::Ok(())
    };
    timeout(TIMEOUT, emptied).await.with_context(|| format!("calls are left after {TIMEOUT:?}"))??;
    let took = begun.elapsed();
    let done = running.succeeded(bench)?;
    ensure!(done == TASKS as u64, "of {TASKS} calls {done} were made");
    running.end(bench).await?;
    Ok(TASKS as f64 / took.as_secs_f64())
}

#[derive(Deserialize)]
struct Left {
    queued: u64,
    delayed: u64,
    running: u64,
}

/// Tasks that wait or run; with PostgreSQL by a count that is up to a second old.
async fn left(client: &mut Client) -> anyhow::Result<u64> {
    let answer = client.ask(request("GET", "/v1/queue").as_bytes()).await?;
    let Left { queued, delayed, running } =
        serde_json::from_str(answer.body).with_context(|| format!("no counts: {}", answer.body))?;
    Ok(queued + delayed + running)
}

async fn good(client: &mut Client, request: &str) -> anyhow::Result<()> {
    let answer = client.ask(request.as_bytes()).await?;
    ensure!((200..300).contains(&answer.status), "{}: {}", answer.status, answer.body);
    Ok(())
}
