//! The app behind a proxy, as cheap as can be: one thread, answers that are ready, no parsing beyond a head's first line and its end.
//! `GET /` has a short body, `GET /stream` one of a GiB, `GET /socket` is a WebSocket that says nothing.

use std::net::Ipv4Addr;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a JSON API commonly answers in size.
const BODY: [u8; 256] = [b'x'; 256];
const STREAM: usize = 1 << 30;
const PIECE: usize = 64 * 1024;
/// A proxy's request: its head alone. Longer ones are nobody's here.
const LONGEST_HEAD: usize = 8192;

const UPGRADED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let port = std::env::args().nth(1).context("app PORT")?.parse().context("PORT is a number")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // Whoever leaves in the midst of an answer is the proxy's business.
        tokio::spawn(async move { drop(serve(stream).await) });
    }
}

fn head(length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n")
}

async fn serve(mut stream: TcpStream) -> anyhow::Result<()> {
    let short = [head(BODY.len()).as_bytes(), &BODY].concat();
    loop {
        let Some(path) = request(&mut stream).await? else { return Ok(()) };
        match path {
            Path::Short => stream.write_all(&short).await?,
            Path::Stream => {
                stream.write_all(head(STREAM).as_bytes()).await?;
                let piece = vec![b'x'; PIECE];
                for _ in 0..STREAM / PIECE {
                    stream.write_all(&piece).await?;
                }
            }
            Path::Socket => {
                stream.write_all(UPGRADED.as_bytes()).await?;
                stream.read_u8().await?;
                return Ok(());
            }
        }
    }
}

enum Path {
    Short,
    Stream,
    Socket,
}

/// The next request; None when its connection has ended. The buffer is gone by the time a socket idles.
async fn request(stream: &mut TcpStream) -> anyhow::Result<Option<Path>> {
    let mut buffer = [0; LONGEST_HEAD];
    let mut filled = 0;
    while !buffer[..filled].ends_with(b"\r\n\r\n") {
        let more = stream.read(&mut buffer[filled..]).await?;
        if more == 0 {
            return Ok(None);
        }
        filled += more;
    }
    Ok(Some(match &buffer[..filled] {
        head if head.starts_with(b"GET /stream ") => Path::Stream,
        head if head.starts_with(b"GET /socket ") => Path::Socket,
        _ => Path::Short,
    }))
}
