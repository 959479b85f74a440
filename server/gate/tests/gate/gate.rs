//! The process under test.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use graceful_drain::DrainStatus;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// Generous: the machine may be busy. Nothing is asserted to be quick.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_graceful-gate");

pub(crate) struct Gate {
    pub(crate) child: Child,
    pub(crate) port: u16,
    pub(crate) admin: u16,
    log: Arc<Mutex<String>>,
}

impl Gate {
    /// Before the app at this port, with ports of its own.
    pub(crate) async fn before(app: u16, flags: &[&str]) -> Self {
        Self::with(app, flags, &[]).await
    }

    pub(crate) async fn with(app: u16, flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["--listen-port", "0", "--admin-port", "0", "--app-port", &app.to_string()])
            .args(["--log-format", "json"])
            .args(flags)
            .env("GRACEFUL_POD_UID", "uid-of-the-test")
            .envs(environment.iter().copied())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let serving = timeout(PATIENCE, async {
            loop {
                let line = lines.next_line().await.unwrap().expect("it serves");
                if line.contains("\"serving\"") {
                    return serde_json::from_str::<Value>(&line).unwrap();
                }
            }
        });
        let serving = serving.await.unwrap();
        let port = |name: &str| serving[name].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
        let gate = Self { port: port("public"), admin: port("admin"), child, log: log.clone() };
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                log.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        gate
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }

    /// One question to the admin port: its status and body.
    pub(crate) async fn admin(&self, request: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin)).await.unwrap();
        let head = format!(
            "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    pub(crate) async fn status(&self) -> DrainStatus {
        let (code, body) = self.admin("GET /drain", "").await;
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    pub(crate) async fn drain(&self, epoch: u64, linger_seconds: u64) -> DrainStatus {
        let body = format!("{{\"epoch\": {epoch}, \"lingerSeconds\": {linger_seconds}}}");
        let (code, body) = self.admin("PUT /drain", &body).await;
        assert_eq!(code, 202, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    pub(crate) async fn resume(&self, epoch: u64) {
        assert_eq!(self.admin(&format!("DELETE /drain?epoch={epoch}"), "").await.0, 200);
    }

    pub(crate) async fn wait(&self, what: &str, wanted: impl Fn(&DrainStatus) -> bool) -> DrainStatus {
        let found = timeout(PATIENCE, async {
            loop {
                let status = self.status().await;
                if wanted(&status) {
                    return status;
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
        match found.await {
            Ok(status) => status,
            Err(_) => panic!("never {what}: {:?}\n{}", self.status().await, self.log()),
        }
    }

    /// Until nothing is counted.
    pub(crate) async fn counted_out(&self) {
        self.wait("counted out", |status| status.in_flight.total() == 0).await;
    }

    /// A figure from /metrics: the first line that begins so.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let (_, text) = self.admin("GET /metrics", "").await;
        let line = text
            .lines()
            .find(|line| line.starts_with(series))
            .unwrap_or_else(|| panic!("no {series} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    pub(crate) async fn exit(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap()
    }
}
