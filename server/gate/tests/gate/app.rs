//! Apps: each a listener of the test's own, and what it does with a connection.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub(crate) struct App {
    pub(crate) port: u16,
    /// How often it was connected to.
    pub(crate) connections: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl App {
    /// Each connection is given to `serve`.
    pub(crate) async fn new<F, Fut>(serve: F) -> Self
    where
        F: Fn(TcpStream) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::at(0, serve).await
    }

    pub(crate) async fn at<F, Fut>(port: u16, serve: F) -> Self
    where
        F: Fn(TcpStream) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicU64::new(0));
        let counted = connections.clone();
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream));
            }
        });
        Self { port, connections, accepting }
    }

    /// Answers each request with what `answer` makes of its head and body, and keeps the connection.
    pub(crate) async fn http(answer: impl Fn(&str, &str) -> String + Send + Sync + 'static) -> Self {
        let answer = Arc::new(answer);
        Self::new(move |mut stream| {
            let answer = answer.clone();
            async move {
                while let Some(head) = head(&mut stream).await {
                    let length = header(&head, "content-length").map_or(0, |text| text.parse().unwrap());
                    let mut body = vec![0; length];
                    if stream.read_exact(&mut body).await.is_err() {
                        return;
                    }
                    let answer = answer(&head, &String::from_utf8_lossy(&body));
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await
    }

    /// A port at which nothing listens.
    pub(crate) fn none() -> u16 {
        graceful_process::free_port(Ipv4Addr::LOCALHOST.into()).unwrap()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A whole answer.
pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A head up to its empty line; None when the peer has ended.
pub(crate) async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return None,
        }
    }
    Some(String::from_utf8(head).unwrap())
}

/// Exactly these bytes.
pub(crate) async fn expect(stream: &mut TcpStream, wanted: &str) {
    let mut found = vec![0; wanted.len()];
    stream.read_exact(&mut found).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&found), wanted);
}

pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}
