//! Bytes between two sockets, both ways, until both have said their last. An idle tunnel has no buffer: bytes are read into the stack, and kept only where
//! the other side does not take them at once.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use graceful_drain::Farewell;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::task::coop::consume_budget;
use tokio::time::{sleep, timeout};

use self::frames::Frames;

mod frames;

/// What is read at once: what a socket's buffer commonly has.
const PIECE: usize = 16 * 1024;

/// After its farewell, how long a peer has to close.
const CLOSING: Duration = Duration::from_secs(1);

/// An app that has ended its side, and a client that neither ends its own nor sends anything: the kernel gives up such a half of a connection whose process is gone
/// after the same time, and without the gate it would. (A client that has ended its side waits for the app, as long as that takes.)
const HALF_CLOSED: Duration = Duration::from_secs(60);

/// One end, with what was read from it already.
pub(crate) struct End {
    pub(crate) stream: TcpStream,
    pub(crate) read: Bytes,
}

/// How a tunnel that is told to go says goodbye to its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goodbye {
    /// With a close frame, 1012, between two frames of the app's.
    WebSocket,
    /// There is no word for it: the connection is closed in order.
    Plain,
}

/// Moves bytes until both sides have ended, one of them fails, or the farewell's time has come and was answered.
pub(crate) async fn run(client: End, app: End, farewell: Option<(Farewell, Goodbye)>) -> io::Result<()> {
    let moved = AtomicU64::new(0);
    let up = pump(&client.stream, &app.stream, client.read, &moved);
    match farewell {
        None => {
            let unused = AtomicU64::new(0);
            both(up, pump(&app.stream, &client.stream, app.read, &unused), &moved).await
        }
        Some((farewell, Goodbye::Plain)) => {
            let unused = AtomicU64::new(0);
            let down = pump(&app.stream, &client.stream, app.read, &unused);
            tokio::select! {
                ended = both(up, down, &moved) => ended,
                // Boxed: it has buffers, and an idle tunnel should not have room for them.
                () = farewell.told() => Box::pin(closed(&client.stream, &app.stream)).await,
            }
        }
        Some((farewell, Goodbye::WebSocket)) => {
            let down = until_told(&app.stream, &client.stream, app.read, farewell);
            let mut up = std::pin::pin!(up);
            let mut down = std::pin::pin!(down);
            let told = tokio::select! {
                ended = &mut up => {
                    ended?;
                    return down.await.map(|_| ());
                }
                told = &mut down => told?,
            };
            match told {
                // The client's own close goes on to the app, which closes in turn: both have said goodbye in their own words.
                Ending::ClientTold => {
                    let both = Box::pin(async {
                        tokio::select! {
                            ended = up => ended,
                            ended = swallow(&app.stream) => ended,
                        }
                    });
                    timeout(CLOSING, both).await.unwrap_or(Ok(()))
                }
                Ending::AppEnded => half_closed(up, &moved).await,
            }
        }
    }
}

async fn both(
    up: impl Future<Output = io::Result<()>>,
    down: impl Future<Output = io::Result<()>>,
    moved: &AtomicU64,
) -> io::Result<()> {
    let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
    tokio::select! {
        ended = &mut up => {
            ended?;
            down.await
        }
        ended = &mut down => {
            ended?;
            half_closed(up, moved).await
        }
    }
}

/// The rest of what the client sends, as long as it sends any.
async fn half_closed(
    up: Pin<&mut impl Future<Output = io::Result<()>>>,
    moved: &AtomicU64,
) -> io::Result<()> {
    let mut up = up;
    loop {
        let before = moved.load(Ordering::Relaxed);
        match timeout(HALF_CLOSED, up.as_mut()).await {
            Ok(ended) => return ended,
            Err(_) if moved.load(Ordering::Relaxed) == before => return Ok(()),
            Err(_) => {}
        }
    }
}

async fn closed(client: &TcpStream, app: &TcpStream) -> io::Result<()> {
    end(client)?;
    end(app)?;
    // Unread bytes at a close would turn it into a reset, and take from the client what it has not read yet.
    let drained = async { tokio::try_join!(swallow(client), swallow(app)) };
    timeout(CLOSING, drained).await.map_or(Ok(()), |drained| drained.map(|_| ()))
}

async fn swallow(from: &TcpStream) -> io::Result<()> {
    loop {
        from.readable().await?;
        let mut piece = [0; 1024];
        match from.try_read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(_) => consume_budget().await,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// One way, until it ends; the other side is then told that no more comes. `moved` grows with each piece.
async fn pump(from: &TcpStream, to: &TcpStream, begun: Bytes, moved: &AtomicU64) -> io::Result<()> {
    write(to, &begun).await?;
    drop(begun);
    loop {
        let step = step(from, to, None)?;
        if !matches!(step, Step::Wait) {
            moved.fetch_add(1, Ordering::Relaxed);
        }
        match step {
            Step::Wait => from.readable().await?,
            Step::Moved => consume_budget().await,
            Step::Kept(rest) => write(to, &rest).await?,
            Step::Ended => return end(to),
        }
    }
}

enum Ending {
    ClientTold,
    AppEnded,
}

/// As [`pump`], from an app that speaks WebSocket. When the farewell's time has come, its current frame is let go on to its end; then the client is told.
async fn until_told(
    from: &TcpStream,
    to: &TcpStream,
    begun: Bytes,
    farewell: Farewell,
) -> io::Result<Ending> {
    let mut frames = Frames::default();
    frames.pass(&begun);
    write(to, &begun).await?;
    drop(begun);
    let mut told = std::pin::pin!(farewell.told());
    loop {
        match step(from, to, Some(&mut frames))? {
            Step::Wait => tokio::select! {
                biased;
                () = &mut told => break,
                readable = from.readable() => readable?,
            },
            Step::Moved => consume_budget().await,
            Step::Kept(rest) => write(to, &rest).await?,
            Step::Ended => return end(to).map(|()| Ending::AppEnded),
        }
    }
    if frames.closed() {
        return Ok(Ending::ClientTold);
    }
    let rest_of_frame = async {
        while !frames.between() {
            from.readable().await?;
            let mut piece = [0; PIECE];
            match from.try_read(&mut piece) {
                Ok(0) => return Ok(false),
                Ok(read) => {
                    let whole = frames.up_to_the_next(&piece[..read]);
                    write(to, &piece[..whole]).await?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    };
    // Boxed: it has a buffer, and few tunnels ever come here.
    if let Ok(whole) = timeout(CLOSING, Box::pin(rest_of_frame)).await
        && whole?
    {
        write(to, &frames::service_restart()).await?;
    }
    Ok(Ending::ClientTold)
}

enum Step {
    /// Nothing to read now.
    Wait,
    Moved,
    /// Read, and not taken by the other side.
    Kept(Bytes),
    Ended,
}

/// Reads once and writes what it can. Not async, so that the buffer is on the stack and not in each idle tunnel's future.
fn step(from: &TcpStream, to: &TcpStream, frames: Option<&mut Frames>) -> io::Result<Step> {
    let mut piece = [0; PIECE];
    let read = match from.try_read(&mut piece) {
        Ok(0) => return Ok(Step::Ended),
        Ok(read) => &piece[..read],
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Wait),
        Err(error) => return Err(error),
    };
    if let Some(frames) = frames {
        frames.pass(read);
    }
    let written = match to.try_write(read) {
        Ok(written) => written,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(error) => return Err(error),
    };
    Ok(if written == read.len() { Step::Moved } else { Step::Kept(Bytes::copy_from_slice(&read[written..])) })
}

async fn write(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn end(to: &TcpStream) -> io::Result<()> {
    match SockRef::from(to).shutdown(Shutdown::Write) {
        // It has gone already.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        ended => ended,
    }
}

/// Closes a connection so that its peer sees a refusal, and not an answer of no bytes.
pub(crate) async fn reset(stream: TcpStream) {
    // A moment, so that a peer that has just sent something has it acknowledged first.
    sleep(Duration::ZERO).await;
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}
