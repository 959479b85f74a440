//! WebSockets: connections, not in flight.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::{Need, Rule};
use crate::outcome::{Not, Outcome, broken, must};
use crate::pod::{ANSWERS_WITHIN, PROMPT};
use crate::run::Run;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "sockets-hold-nothing-up",
        says: "An open WebSocket is one of connections and not in flight: a drain becomes idle beside it.",
        needs: &[Need::Socket],
        hold: |run| Box::pin(hold_nothing(run)),
    },
    Rule {
        name: "sockets-outlive-the-latch",
        says: "A WebSocket stays open past the latch, since its client waits for what was accepted.",
        needs: &[Need::Socket],
        hold: |run| Box::pin(outlive(run)),
    },
];

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(super) async fn open(run: &Run) -> Outcome<Socket> {
    let Some(url) = &run.requests.socket else { return broken("no --socket") };
    match timeout(ANSWERS_WITHIN, connect_async(&url.0)).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(error)) => broken(format!("a WebSocket could not be opened: {error}")),
        Err(_) => broken("a WebSocket was not opened in time"),
    }
}

/// A ping that is answered.
pub(super) async fn lives(socket: &mut Socket) -> bool {
    let asked = async {
        socket.send(Message::Ping("conformance".into())).await.ok()?;
        while let Some(Ok(message)) = socket.next().await {
            match message {
                Message::Pong(_) => return Some(()),
                Message::Close(_) => return None,
                _ => {}
            }
        }
        None
    };
    timeout(PROMPT + Duration::from_secs(4), asked).await.ok().flatten().is_some()
}

async fn hold_nothing(run: &Run) -> Outcome {
    run.serving().await?;
    let before = run.pod.get().await?.status.connections;
    let mut socket = open(run).await?;
    let what = "at zero in flight with one more of connections, while a WebSocket was open,";
    let wanted = |status: &crate::status::Status| status.in_flight.total == 0 && status.connections > before;
    run.pod.until(what, 5 * PROMPT, wanted).await?;
    run.close().await?;
    run.pod.until("idle beside an open WebSocket", 5 * PROMPT, crate::status::Status::idle).await?;
    let _ = socket.close(None).await;
    drop(socket);
    let what = "down by one in connections, after a WebSocket had closed,";
    run.pod.until(what, ANSWERS_WITHIN, |status| status.connections <= before).await.map(drop)
}

async fn outlive(run: &Run) -> Outcome {
    run.serving().await?;
    let mut socket = open(run).await?;
    if !lives(&mut socket).await {
        return Err(Not::Held("the WebSocket of --socket answers no pings".to_owned()));
    }
    run.close().await?;
    tokio::time::sleep(PROMPT).await;
    let lives = lives(&mut socket).await;
    must(lives, || "a WebSocket was closed at the latch".to_owned())
}
