//! Clients as plain as can be: what they see is what the gate does, not what a library makes good.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::app;
use super::gate::PATIENCE;

/// An answer, its body read by its length.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        app::header(&self.head, name)
    }
}

/// One request on this connection, and its answer; None when the connection ends without a whole one.
pub(crate) async fn ask(stream: &mut TcpStream, request: &str) -> Option<Answer> {
    // It may fail where the answer comes before the request's end.
    let _ = stream.write_all(request.as_bytes()).await;
    answer(stream).await
}

pub(crate) async fn answer(stream: &mut TcpStream) -> Option<Answer> {
    let read = async {
        let head = app::head(stream).await?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let length = app::header(&head, "content-length").map_or(0, |text| text.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        Some(Answer { status, head, body: String::from_utf8(body).unwrap() })
    };
    timeout(PATIENCE, read).await.expect("an answer, or an end")
}

/// All that comes until the connection ends, however it does.
pub(crate) async fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("it ends");
    String::from_utf8_lossy(&all).into_owned()
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n")
}

pub(crate) fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
