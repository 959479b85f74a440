//! One answer of a GiB.

use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::subject::{Bench, Subject};
use crate::load::request;
use crate::spread::median;

const LENGTH: usize = 1 << 30;
const TIMEOUT: Duration = Duration::from_secs(120);

/// How long it took, and the proxy's processor time, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    pub(crate) seconds: f64,
    pub(crate) processor: Option<f64>,
}

/// Measures one.
pub(crate) async fn measure(bench: &Bench, subject: Subject) -> anyhow::Result<Stream> {
    let running = subject.start(bench).await?;
    let time = || running.proxy().map(crate::child::Server::processor_time).transpose();
    let before = time()?;
    let begun = Instant::now();
    timeout(TIMEOUT, read(&mut TcpStream::connect(running.address()).await?)).await.context("too slow")??;
    let seconds = begun.elapsed().as_secs_f64();
    let used = time()?.zip(before).map(|(after, before)| (after - before).as_secs_f64());
    running.end().await?;
    Ok(Stream { seconds, processor: used })
}

async fn read(stream: &mut TcpStream) -> anyhow::Result<()> {
    stream.write_all(request("GET", "/stream").as_bytes()).await?;
    let mut piece = vec![0; 256 * 1024];
    let mut filled = 0;
    let body = loop {
        let more = stream.read(&mut piece[filled..]).await?;
        ensure!(more > 0, "no answer");
        filled += more;
        if let Some(end) = piece[..filled].windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    ensure!(piece.starts_with(b"HTTP/1.1 200"), "refused: {}", String::from_utf8_lossy(&piece[..body]));
    let mut left = LENGTH.checked_sub(filled - body).context("too long")?;
    while left > 0 {
        let more = stream.read(&mut piece).await?;
        ensure!(more > 0, "{left} bytes are missing");
        left = left.checked_sub(more).context("too long")?;
    }
    Ok(())
}

/// The medians of a subject's rounds.
pub(crate) fn medians(of: &[Stream]) -> anyhow::Result<Stream> {
    let seconds = median(of.iter().map(|one| one.seconds).collect()).context("no round")?;
    Ok(Stream { seconds, processor: median(of.iter().filter_map(|one| one.processor).collect()) })
}
