//! WebSocket clients: each stays connected, notes which pod it is on, and comes back with jitter when it is closed.

use std::time::Duration;

use futures::StreamExt;
use rand::RngExt;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::events::Hello;
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
    let mut numbered = spec.numbered.then(Numbered::default);
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            () = async {
                match &mut numbered {
                    Some(numbered) => numbered.connection(&url, &client, &ledger).await,
                    None => connection(&url, &client, &ledger).await,
                }
            } => {}
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
    let (socket, first) = first_frame(url).await?;
    Ok((socket, pod_name(&first)))
}

/// Connects and reads the first frame.
async fn first_frame(url: &str) -> Result<(Socket, String), String> {
    let (mut socket, _) = connect_async(url).await.map_err(|error| match error {
        tokio_tungstenite::tungstenite::Error::Http(response) => response.status().as_u16().to_string(),
        tokio_tungstenite::tungstenite::Error::Io(io) => io.kind().to_string(),
        other => other.to_string(),
    })?;
    match socket.next().await {
        Some(Ok(Message::Text(text))) => Ok((socket, text.as_str().to_owned())),
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

/// A client of numbered events: it keeps its place, and goes on there.
#[derive(Default)]
struct Numbered {
    /// The `id` of the last frame that had one.
    at: Option<String>,
}

impl Numbered {
    async fn connection(&mut self, url: &str, client: &str, ledger: &Shared) {
        let place = self.at.as_ref().map_or_else(|| "format=json".to_owned(), |at| format!("after={at}"));
        match timeout(CONNECT_TIMEOUT, first_frame(&format!("{url}?{place}&hints=false"))).await {
            Err(_) => ledger.lock().socket_refused("timed out".into()),
            Ok(Err(kind)) => ledger.lock().socket_refused(kind),
            Ok(Ok((mut socket, first))) => {
                let hello: Frame = match serde_json::from_str(&first) {
                    Ok(hello) => hello,
                    Err(error) => return ledger.lock().socket_refused(format!("first frame: {error}")),
                };
                ledger.lock().socket_opened(client, hello.pod.as_deref().unwrap_or(&first), now_ms());
                self.hear(&hello, client, ledger);
                let (code, told) = self.listen(&mut socket, client, ledger).await;
                ledger.lock().socket_closed(client, code, told, now_ms());
            }
        }
    }

    /// Reads until the connection ends: the close code, if one came, and whether the server announced it.
    async fn listen(&mut self, socket: &mut Socket, client: &str, ledger: &Shared) -> (Option<u16>, bool) {
        let (mut told, mut code) = (false, None);
        while let Some(Ok(message)) = socket.next().await {
            match message {
                Message::Text(text) => match serde_json::from_str::<Frame>(text.as_str()) {
                    Ok(frame) => {
                        told |= frame.what == "farewell";
                        self.hear(&frame, client, ledger);
                    }
                    Err(error) => ledger.lock().socket_refused(format!("not a frame: {error}")),
                },
                Message::Close(frame) => code = frame.map(|f| f.code.into()),
                _ => {}
            }
        }
        (code, told)
    }

    fn hear(&mut self, frame: &Frame, client: &str, ledger: &Shared) {
        let mut ledger = ledger.lock();
        let here = self.at.clone().unwrap_or_default();
        let here = token(&here).0;
        match (frame.what.as_str(), frame.id.as_deref(), frame.task_id.as_deref()) {
            ("hello", Some(id), _) => {
                let (stream, number) = token(id);
                let pod = frame.pod.as_deref().unwrap_or_default();
                let missed = frame.missed.as_ref().map_or(0, Range::count);
                ledger.events().hello(client, &Hello { pod, stream, number, resumed: frame.resumed, missed });
            }
            (_, Some(id), Some(task)) => {
                let (stream, number) = token(id);
                ledger.socket_message();
                ledger.events().event(client, stream, number, task);
            }
            ("missed", ..) => {
                let gone = Range { from: frame.from.clone(), to: frame.to.clone() };
                ledger.events().missed(client, here, gone.count());
                self.at = Some(gone.to);
            }
            ("farewell", ..) => ledger.events().farewell(client, here),
            _ => {}
        }
        if let Some(id) = &frame.id {
            self.at = Some(id.clone());
        }
    }
}

/// Any frame in JSON.
#[derive(Debug, Deserialize)]
struct Frame {
    #[serde(rename = "type")]
    what: String,
    id: Option<String>,
    task_id: Option<String>,
    pod: Option<String>,
    #[serde(default)]
    resumed: bool,
    missed: Option<Range>,
    #[serde(default)]
    from: String,
    #[serde(default)]
    to: String,
}

/// Events from one to another.
#[derive(Debug, Deserialize)]
struct Range {
    from: String,
    to: String,
}

impl Range {
    fn count(&self) -> u64 {
        (token(&self.to).1 + 1).saturating_sub(token(&self.from).1)
    }
}

/// `<stream>.<number>`.
fn token(id: &str) -> (&str, u64) {
    id.rsplit_once('.').map_or((id, 0), |(stream, number)| (stream, number.parse().unwrap_or_default()))
}

/// The pod's name in the greeting `POD Name Space: … POD Name: …`; the whole greeting when it has another form.
fn pod_name(greeting: &str) -> String {
    greeting.rsplit_once("POD Name:").map_or(greeting, |(_, name)| name).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_keeps_its_place_and_the_ledger_hears_what_it_hears() {
        let (ledger, mut client) = (Shared::default(), Numbered::default());
        let frames = [
            r#"{"type":"hello","id":"s.4","pod":"tasks-a","resumed":false,"missed":null,"stream":"s"}"#,
            r#"{"type":"task.succeeded","id":"s.5","task_id":"t","kind":"sleep","client_id":null,"attempt":1}"#,
            r#"{"type":"drain","state":"Draining","accepting":false}"#,
            r#"{"type":"missed","from":"s.6","to":"s.8"}"#,
            r#"{"type":"farewell","reconnect_in_ms":300}"#,
        ];
        for frame in frames {
            client.hear(&serde_json::from_str(frame).unwrap(), "c", &ledger);
        }
        assert_eq!(client.at.as_deref(), Some("s.8"));
        let heard = ledger.lock().events().heard()["c"][0].clone();
        assert_eq!((heard.from, heard.last, heard.events, heard.missed, heard.farewells), (4, 8, 1, 3, 1));
        assert_eq!((heard.gaps, heard.duplicates), (0, 0));
    }

    #[test]
    fn the_greeting_names_the_pod() {
        assert_eq!(pod_name("POD Name Space: ns POD Name: tasks-1-a"), "tasks-1-a");
        assert_eq!(pod_name("Not running inside Kubernetes"), "Not running inside Kubernetes");
    }
}
