//! Clients that listen, as the tests need them.
#![allow(dead_code, reason = "each test file uses its part")]

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderValue};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Far beyond what anything here takes, on a loaded machine too.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A client on a socket.
pub(crate) struct Listener(pub(crate) WebSocketStream<MaybeTlsStream<TcpStream>>);

/// What came.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    Text(String),
    Close(u16, String),
}

impl Listener {
    pub(crate) async fn open(address: SocketAddr, path: &str) -> Self {
        let (socket, _) = connect_async(format!("ws://{address}/ws/{path}")).await.unwrap();
        Self(socket)
    }

    /// With `format=json`; its first frame too.
    pub(crate) async fn json(address: SocketAddr, path: &str) -> (Self, Value) {
        let mut listener = Self::open(address, path).await;
        let hello = listener.next().await;
        assert_eq!(hello["type"], "hello");
        (listener, hello)
    }

    pub(crate) async fn heard(&mut self) -> Heard {
        let reading = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Text(text))) => return Heard::Text(text.as_str().to_owned()),
                    Some(Ok(Message::Close(Some(frame)))) => {
                        return Heard::Close(frame.code.into(), frame.reason.as_str().to_owned());
                    }
                    Some(Ok(_)) => {}
                    other => panic!("ended without a close: {other:?}"),
                }
            }
        };
        timeout(TIMEOUT, reading).await.expect("something comes in time")
    }

    pub(crate) async fn text(&mut self) -> String {
        match self.heard().await {
            Heard::Text(text) => text,
            other @ Heard::Close(..) => panic!("expected a text, not {other:?}"),
        }
    }

    /// The next frame in JSON.
    pub(crate) async fn next(&mut self) -> Value {
        serde_json::from_str(&self.text().await).unwrap()
    }

    /// The next numbered event; hints and turns are passed over.
    pub(crate) async fn event(&mut self) -> Value {
        loop {
            let frame = self.next().await;
            if frame.get("id").is_some() {
                return frame;
            }
        }
    }
}

/// An upgrade that is refused: status, headers and body.
pub(crate) async fn refused(
    address: SocketAddr,
    path: &str,
    origin: Option<&str>,
) -> (u16, HeaderMap, Value) {
    let mut request = format!("ws://{address}/ws/{path}").into_client_request().unwrap();
    if let Some(origin) = origin {
        request.headers_mut().insert("origin", HeaderValue::from_str(origin).unwrap());
    }
    match connect_async(request).await {
        Err(Error::Http(response)) => {
            let body = serde_json::from_slice(response.body().as_deref().unwrap_or_default());
            (response.status().as_u16(), response.headers().clone(), body.unwrap_or_default())
        }
        other => panic!("expected a refusal, not {other:?}"),
    }
}

/// The number in a frame's `id`.
pub(crate) fn number(frame: &Value) -> u64 {
    let id = frame["id"].as_str().unwrap_or_else(|| panic!("no id in {frame}"));
    id.rsplit_once('.').unwrap().1.parse().unwrap()
}

/// An event stream.
pub(crate) struct Stream {
    answer: reqwest::Response,
    read: String,
}

impl Stream {
    pub(crate) async fn open(address: SocketAddr, query: &str, last_event_id: Option<&str>) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = client.get(format!("http://{address}/v1/events{query}"));
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { answer, read: String::new() }
    }

    /// The next message, its lines; None at the end.
    pub(crate) async fn message(&mut self) -> Option<String> {
        let reading = async {
            loop {
                if let Some((message, rest)) = self.read.split_once("\n\n") {
                    let message = message.to_owned();
                    self.read = rest.to_owned();
                    return Some(message);
                }
                let chunk = self.answer.chunk().await.unwrap()?;
                self.read.push_str(std::str::from_utf8(&chunk).unwrap());
            }
        };
        timeout(TIMEOUT, reading).await.expect("something comes in time")
    }

    /// The next message's id and data.
    pub(crate) async fn event(&mut self) -> (Option<String>, Value) {
        let message = self.message().await.expect("not the end");
        let field =
            |name: &str| message.lines().find_map(|line| line.strip_prefix(name).map(ToOwned::to_owned));
        (field("id: "), serde_json::from_str(&field("data: ").unwrap()).unwrap())
    }
}
