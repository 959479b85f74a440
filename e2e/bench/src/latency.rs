//! How soon: one commit, and from a push on an idle queue to its handler's start.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use uuid::Uuid;

use crate::load::{Client, request};
use crate::machine::settle;
use crate::spread::Spread;
use crate::subject::{Bench, Subject, Tasks};

/// Before them, some that are not counted.
const SAMPLES: usize = 1000;
const WARM_UP: usize = 50;
/// Between two samples: after a task's end has been heard of nothing is left to be written then. Commits have it too,
/// since a processor that has just slept is slower.
const PAUSE: Duration = Duration::from_millis(5);
const TIMEOUT: Duration = Duration::from_secs(20);

/// Both, in milliseconds, and how one relates to the other.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    /// From a submit's first byte to its answer, one at a time on one connection, while nothing runs.
    pub(crate) commit: Spread,
    /// From a submit's first byte to `task.started` reaching a WebSocket.
    pub(crate) push_to_start: Spread,
}

/// Measures one engine.
pub(crate) async fn measure(bench: &Bench, subject: Subject) -> anyhow::Result<Latency> {
    let running = subject.start(bench, Tasks::WAIT).await?;
    settle()?;
    let commit = commits(running.server.address).await.context("one commit")?;
    running.end(bench).await?;

    let running = subject.start(bench, Tasks { seconds: "0", concurrency: 64, callee: None }).await?;
    settle()?;
    let push_to_start = pushes(running.server.address).await.context("push to start")?;
    running.end(bench).await?;
    Ok(Latency { commit, push_to_start })
}

async fn commits(address: SocketAddr) -> anyhow::Result<Spread> {
    let mut client = Client::connect(address).await?;
    let mut all = Vec::new();
    for _ in 0..SAMPLES + WARM_UP {
        let begun = Instant::now();
        submit(&mut client).await?;
        all.push(milliseconds(begun.elapsed()));
        sleep(PAUSE).await;
    }
    Spread::of(all.split_off(WARM_UP)).context("no samples")
}

async fn pushes(address: SocketAddr) -> anyhow::Result<Spread> {
    let mut events = Events::connect(address).await?;
    let mut client = Client::connect(address).await?;
    let mut all = Vec::new();
    for _ in 0..SAMPLES + WARM_UP {
        let begun = Instant::now();
        // The start may be told before the submit is answered.
        let (task, started) =
            timeout(TIMEOUT, async { tokio::try_join!(submit(&mut client), events.next_start()) })
                .await
                .context("no task.started")??;
        let (started_task, at) = started;
        ensure!(task == started_task, "{started_task} started instead of {task}");
        all.push(milliseconds(at - begun));
        timeout(TIMEOUT, events.end_of(task)).await.context("the task does not end")??;
        sleep(PAUSE).await;
    }
    Spread::of(all.split_off(WARM_UP)).context("no samples")
}

async fn submit(client: &mut Client) -> anyhow::Result<Uuid> {
    #[derive(Deserialize)]
    struct Accepted {
        task_id: Uuid,
    }
    let answer = client.ask(request("POST", "/v1/create-task/").as_bytes()).await?;
    ensure!(answer.status == 200, "a submit is answered {}: {}", answer.status, answer.body);
    Ok(serde_json::from_str::<Accepted>(answer.body)?.task_id)
}

/// What a WebSocket says of tasks.
struct Events {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Ends that came before they were asked for.
    ended: HashMap<Uuid, String>,
}

#[derive(Deserialize)]
struct Frame {
    r#type: String,
    task_id: Option<Uuid>,
}

impl Events {
    async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let (socket, _) = connect_async(format!("ws://{address}/ws/bench?format=json")).await?;
        let mut events = Self { socket, ended: HashMap::new() };
        // The first frame: from now on each event comes.
        events.frame().await?;
        Ok(events)
    }

    async fn frame(&mut self) -> anyhow::Result<Frame> {
        loop {
            match self.socket.next().await.context("the socket is closed")?? {
                Message::Text(text) => return Ok(serde_json::from_str(&text)?),
                Message::Close(frame) => bail!("the socket is closed: {frame:?}"),
                _ => {}
            }
        }
    }

    async fn next_start(&mut self) -> anyhow::Result<(Uuid, Instant)> {
        loop {
            let Frame { r#type, task_id } = self.frame().await?;
            match (r#type.as_str(), task_id) {
                ("task.started", Some(task)) => return Ok((task, Instant::now())),
                ("task.succeeded" | "task.dead" | "task.cancelled", Some(task)) => {
                    self.ended.insert(task, r#type);
                }
                _ => {}
            }
        }
    }

    async fn end_of(&mut self, task: Uuid) -> anyhow::Result<()> {
        let how = loop {
            if let Some(how) = self.ended.remove(&task) {
                break how;
            }
            let Frame { r#type, task_id } = self.frame().await?;
            if let ("task.succeeded" | "task.dead" | "task.cancelled", Some(ended)) =
                (r#type.as_str(), task_id)
            {
                self.ended.insert(ended, r#type);
            }
        };
        ensure!(how == "task.succeeded", "{how} instead of task.succeeded");
        Ok(())
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
