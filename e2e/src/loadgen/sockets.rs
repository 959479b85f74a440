//! WebSocket clients: each stays connected, notes which pod it is on, and comes back with jitter when it is closed.

use std::time::Duration;

use futures::StreamExt;
use rand::RngExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::{Shared, now_ms};
use crate::wire::LoadSpec;

/// As a browser's client would: soon, but not all at the same moment.
const RECONNECT_MS: std::ops::Range<u64> = 20..400;
/// A connection that is not open by then is tried anew.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// One client, until it is stopped.
pub(super) async fn run(number: u32, spec: LoadSpec, ledger: Shared, mut stop: watch::Receiver<bool>) {
    let client = format!("socket-{number}");
    let url = format!("{}/ws/{client}", spec.target.replacen("http", "ws", 1));
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            () = connection(&url, &client, &ledger) => {}
        }
        let pause = Duration::from_millis(rand::rng().random_range(RECONNECT_MS));
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            () = sleep(pause) => {}
        }
    }
    ledger.lock().socket_left(&client);
}

/// One connection, from the attempt to its end.
async fn connection(url: &str, client: &str, ledger: &Shared) {
    match timeout(CONNECT_TIMEOUT, open(url)).await {
        Err(_) => ledger.lock().socket_refused("timed out".into()),
        Ok(Err(kind)) => ledger.lock().socket_refused(kind),
        Ok(Ok((mut socket, pod))) => {
            ledger.lock().socket_opened(client, &pod, now_ms());
            let (code, told) = listen(&mut socket, ledger).await;
            ledger.lock().socket_closed(client, code, told, now_ms());
        }
    }
}

/// Connects and reads the first frame, which names the pod.
async fn open(url: &str) -> Result<(Socket, String), String> {
    let (mut socket, _) = connect_async(url).await.map_err(|error| match error {
        tokio_tungstenite::tungstenite::Error::Http(response) => response.status().as_u16().to_string(),
        tokio_tungstenite::tungstenite::Error::Io(io) => io.kind().to_string(),
        other => other.to_string(),
    })?;
    match socket.next().await {
        Some(Ok(Message::Text(text))) => Ok((socket, pod_name(text.as_str()))),
        Some(Ok(Message::Close(_))) => Err("closed before its first frame".into()),
        Some(Ok(other)) => Err(format!("first frame is not text: {other:?}")),
        Some(Err(error)) => Err(format!("no first frame: {error}")),
        None => Err("no first frame".into()),
    }
}

/// Reads until the connection ends: the close code, if one came, and whether the server announced it.
async fn listen(socket: &mut Socket, ledger: &Shared) -> (Option<u16>, bool) {
    let mut told = false;
    let mut code = None;
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Text(text) if text.as_str() == "Server shutting down" => told = true,
            Message::Text(_) => ledger.lock().socket_message(),
            Message::Close(frame) => code = frame.map(|f| f.code.into()),
            _ => {}
        }
    }
    (code, told)
}

/// The pod's name in the greeting `POD Name Space: … POD Name: …`; the whole greeting when it has another form.
fn pod_name(greeting: &str) -> String {
    greeting.rsplit_once("POD Name:").map_or(greeting, |(_, name)| name).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_names_the_pod() {
        assert_eq!(pod_name("POD Name Space: ns POD Name: tasks-1-a"), "tasks-1-a");
        assert_eq!(pod_name("Not running inside Kubernetes"), "Not running inside Kubernetes");
    }
}
