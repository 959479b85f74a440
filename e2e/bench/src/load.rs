//! The load generator: keep-alive connections with one request at a time each, on one thread. It parses just enough of
//! an answer to know its status and its end, so that what is measured is the server. Every request it sends is
//! answered before it returns, so that answers can be counted against rows.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::future::try_join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::spread::Spread;

/// Longer answers than any of the subjects give are a mistake.
const LONGEST_ANSWER: usize = 4096;

/// What to send, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// How many connections.
    pub(crate) connections: usize,
    /// Before anything is measured: caches, the log's first growth, the connections themselves.
    pub(crate) warm_up: Duration,
    /// What is measured.
    pub(crate) measured: Duration,
    /// A request so often on each connection; None: the next one as soon as one is answered.
    pub(crate) every: Option<Duration>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Driven {
    /// Answers with 2xx, in the warm-up too.
    pub(crate) accepted: u64,
    /// Other answers.
    pub(crate) failed: u64,
    /// 2xx in the measured time, in a second.
    pub(crate) per_second: f64,
    /// How long one took, in milliseconds.
    pub(crate) latency: Spread,
}

/// Drives one route.
pub(crate) async fn drive(address: SocketAddr, request: &str, load: Load) -> anyhow::Result<Driven> {
    let Load { connections, warm_up, measured, every } = load;
    let begin = Instant::now();
    let from = begin + warm_up;
    let until = from + measured;
    let all = (0..connections).map(|n| {
        // Spread over the pace: all at once would wait for each other.
        let pace = every.map(|every| Pace { first: begin + every * n as u32 / connections as u32, every });
        connection(address, request.as_bytes(), (from, until), pace)
    });
    let all = try_join_all(all);
    let all = all.await?;
    let accepted = all.iter().map(|one| one.accepted).sum();
    let failed = all.iter().map(|one| one.failed).sum();
    let took: Vec<f64> = all.into_iter().flat_map(|one| one.took).map(|s| f64::from(s) * 1000.0).collect();
    Ok(Driven {
        accepted,
        failed,
        per_second: took.len() as f64 / measured.as_secs_f64(),
        latency: Spread::of(took).context("nothing was answered in time")?,
    })
}

/// A request as it goes over the wire.
pub(crate) fn request(method: &str, path: &str) -> String {
    let length = if method == "GET" { "" } else { "Content-Length: 0\r\n" };
    format!("{method} {path} HTTP/1.1\r\nHost: bench\r\n{length}\r\n")
}

#[derive(Default)]
struct One {
    accepted: u64,
    failed: u64,
    took: Vec<f32>,
}

/// When a connection sends. One that is late leaves out what it has missed.
struct Pace {
    first: Instant,
    every: Duration,
}

impl Pace {
    fn timer(&self) -> Interval {
        let mut timer = interval_at(self.first, self.every);
        timer.set_missed_tick_behavior(MissedTickBehavior::Skip);
        timer
    }
}

async fn connection(
    address: SocketAddr,
    request: &[u8],
    (from, until): (Instant, Instant),
    pace: Option<Pace>,
) -> anyhow::Result<One> {
    let mut client = Client::connect(address).await?;
    let mut timer = pace.map(|pace| pace.timer());
    let mut one = One::default();
    let mut now = Instant::now();
    while now < until {
        if let Some(timer) = &mut timer {
            timer.tick().await;
            now = Instant::now();
        }
        let begun = now;
        let good = (200..300).contains(&client.ask(request).await?.status);
        now = Instant::now();
        if !good {
            one.failed += 1;
            continue;
        }
        one.accepted += 1;
        if begun >= from && now <= until {
            one.took.push((now - begun).as_secs_f32());
        }
    }
    Ok(one)
}

/// One keep-alive connection.
pub(crate) struct Client {
    stream: TcpStream,
    buffer: [u8; LONGEST_ANSWER],
}

/// What a request came to.
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a str,
}

impl Client {
    /// Opens it.
    pub(crate) async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("no server at {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: [0; LONGEST_ANSWER] })
    }

    /// Sends one request and waits for its whole answer.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> anyhow::Result<Answer<'_>> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        let head = loop {
            let more = self.stream.read(&mut self.buffer[filled..]).await?;
            if more == 0 {
                bail!("the server closed a connection in the middle of an answer");
            }
            filled += more;
            if let Some(head) = Head::parse(&self.buffer[..filled])?
                && filled >= head.end
            {
                break head;
            }
        };
        ensure!(filled == head.end, "{} bytes follow an answer", filled - head.end);
        let body = std::str::from_utf8(&self.buffer[head.body..head.end])?;
        Ok(Answer { status: head.status, body })
    }
}

#[derive(Debug, PartialEq)]
struct Head {
    status: u16,
    body: usize,
    end: usize,
}

impl Head {
    /// None while the head is not complete.
    fn parse(bytes: &[u8]) -> anyhow::Result<Option<Self>> {
        let Some(length) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
        let text = std::str::from_utf8(&bytes[..length])?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.get(9..12)).context("no status line")?.parse()?;
        let body = length + 4;
        let size: usize = lines
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .context("an answer without a Content-Length")?
            .1
            .trim()
            .parse()?;
        let end = body + size;
        ensure!(end <= LONGEST_ANSWER, "an answer of {end} bytes");
        Ok(Some(Self { status, body, end }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_length_says() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody";
        let head = Head::parse(whole).unwrap().unwrap();
        assert_eq!(head, Head { status: 200, body: 38, end: 42 });
        assert_eq!(Head::parse(&whole[..37]).unwrap(), None, "not complete");
        assert!(Head::parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err(), "no length");
    }
}
