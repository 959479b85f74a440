//! A client that sends bytes as they are, and reads answers as strictly as it can.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::AFTER;
use super::list::Shape;
use crate::app::header;

/// After so long without a byte nothing more is expected. Only shapes that are listed as `waits` take it.
const SILENCE: Duration = Duration::from_secs(3);

/// Sends the shape, and what follows it; reads until that is answered, or nothing more comes.
pub(super) async fn talk(stream: &mut TcpStream, shape: &Shape) -> String {
    let whole = [shape.bytes.as_ref(), AFTER.as_bytes()].concat();
    // The connection may end before all of it is taken.
    let _ = stream.write_all(&whole).await;
    let mut answers = Vec::new();
    let mut heads = shape.bytes.starts_with(b"HEAD ");
    let wanted = shape.answers();
    loop {
        match timeout(SILENCE, answer(stream, heads)).await {
            Err(_) => answers.push("waits".to_owned()),
            Ok(None) => answers.push("closed".to_owned()),
            Ok(Some(answer)) => {
                heads &= answer.starts_with('1');
                answers.push(answer);
                if answers.iter().filter(|answer| !answer.starts_with('1')).count() < wanted {
                    continue;
                }
            }
        }
        return answers.join(" ");
    }
}

/// Its status, and its body where there is one.
async fn answer(stream: &mut TcpStream, heads: bool) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let status = head.split(' ').nth(1)?.split("\r\n").next()?.to_owned();
    let said =
        body(stream, &head, heads || ["204", "304"].contains(&&*status) || status.starts_with('1')).await;
    let Some(said) = said else { return Some(format!("{status} cut")) };
    // What proxies write into their own refusals is theirs.
    let own = !status.starts_with('2');
    Some(if own || said.is_empty() { status } else { format!("{status} '{said}'") })
}

/// None where the connection ends in its midst.
async fn body(stream: &mut TcpStream, head: &str, none: bool) -> Option<String> {
    let mut whole = Vec::new();
    if none {
    } else if header(head, "transfer-encoding").is_some() {
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.push(stream.read_u8().await.ok()?);
            }
            let size = usize::from_str_radix(std::str::from_utf8(&line).ok()?.trim(), 16).ok()?;
            let mut piece = vec![0; size + 2];
            stream.read_exact(&mut piece).await.ok()?;
            piece.truncate(size);
            whole.extend(piece);
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = header(head, "content-length") {
        whole = vec![0; length.parse().ok()?];
        stream.read_exact(&mut whole).await.ok()?;
    } else {
        stream.read_to_end(&mut whole).await.ok()?;
    }
    Some(String::from_utf8_lossy(&whole).into_owned())
}
