//! The other end of `http` tasks: it answers as the test tells it, or does not, and remembers what it was sent.
#![allow(dead_code, reason = "each test file uses its part of the callee")]

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// Far beyond what anything here takes, on a loaded machine too.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What the callee does with a call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Say {
    /// These bytes, and then the end of the connection.
    Bytes(&'static str),
    /// A status and a body of so many letters.
    Long(u16, usize),
    /// Nothing, until the test lets it go; then 200.
    Hold,
    /// A body that never ends, a chunk a millisecond.
    Drip,
}

/// A call as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Heard {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

#[derive(Clone)]
pub(crate) struct Callee {
    pub(crate) port: u16,
    heard: watch::Sender<Vec<Heard>>,
    let_go: Arc<Semaphore>,
}

impl Callee {
    /// The first call gets the first of these, and so on; the last one is for all that follow.
    pub(crate) async fn that(script: &[Say]) -> Self {
        Self::over(script, None).await
    }

    /// Over TLS.
    pub(crate) async fn over(script: &[Say], tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let callee = Self { port, heard: watch::Sender::default(), let_go: Arc::new(Semaphore::new(0)) };
        let (answering, script) = (callee.clone(), Arc::new(Mutex::new(script.to_vec())));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (callee, script, tls) = (answering.clone(), script.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => callee.serve(stream, &script).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                callee.serve(stream, &script).await;
                            }
                        }
                    }
                });
            }
        });
        callee
    }

    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin, script: &Mutex<Vec<Say>>) {
        let Some(heard) = read(&mut stream).await else { return };
        self.heard.send_modify(|all| all.push(heard));
        let say = {
            let mut script = script.lock();
            if script.len() > 1 { script.remove(0) } else { script[0] }
        };
        let text = match say {
            Say::Bytes(text) => text.to_owned(),
            Say::Long(status, length) => {
                format!("HTTP/1.1 {status} Odd\r\ncontent-length: {length}\r\n\r\n{}", "x".repeat(length))
            }
            Say::Hold => {
                self.let_go.acquire().await.unwrap().forget();
                "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nheld".to_owned()
            }
            Say::Drip => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                while stream.write_all(b"drip").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                return;
            }
        };
        let _ = stream.write_all(text.as_bytes()).await;
        let _ = stream.shutdown().await;
    }

    pub(crate) fn let_go(&self) {
        self.let_go.add_permits(1);
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// All calls, once there are so many.
    pub(crate) async fn heard(&self, calls: usize) -> Vec<Heard> {
        let mut heard = self.heard.subscribe();
        let heard = timeout(TIMEOUT, heard.wait_for(|heard| heard.len() >= calls)).await;
        heard.expect("is called in time").unwrap().clone()
    }

    pub(crate) fn calls(&self) -> usize {
        self.heard.borrow().len()
    }
}

/// Head and body of a request with a length.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Heard> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).await.ok()?;
        head.push(byte[0]);
    }
    let mut heard = Heard { head: String::from_utf8(head).unwrap(), body: Vec::new() };
    let length = heard.header("content-length").map_or(0, |length| length.parse().unwrap());
    heard.body = vec![0; length];
    stream.read_exact(&mut heard.body).await.ok()?;
    Some(heard)
}
