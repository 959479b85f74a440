//! HTTP/2 without TLS (h2c) on the public port, by prior knowledge: what a gRPC client speaks inside a cluster.

use std::io;
use std::time::Duration;

use hyper::server::conn::http2::Builder;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::sleep;

/// A connection whose client is gone without a word is found out: by a ping after so long without a frame, and an answer
/// that does not come. HTTP/1 has its time limit for a head instead.
const PING: Duration = Duration::from_secs(60);
const PONG: Duration = Duration::from_secs(15);

/// Requests at a time of one connection. As many as common servers allow.
const STREAMS: u32 = 100;

/// What a client may send ahead of its reader, for each stream and for all streams of a connection together: the least
/// that the protocol has.
const WINDOW: u32 = 64 * 1024 - 1;

/// `buffer` bounds a request's head, and what is buffered of a response that its client does not take.
pub(crate) fn builder(buffer: u16) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).keep_alive_interval(PING).keep_alive_timeout(PONG);
    builder.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW);
    builder
        .max_concurrent_streams(STREAMS)
        .max_send_buf_size(buffer.into())
        .max_header_list_size(buffer.into());
    builder
}

/// Looks at the first bytes without taking them: no method of HTTP/1 begins as HTTP/2's preface does. All of that is waited for here, where
/// there is a limit of time: hyper's handshake has none.
///
/// # Errors
/// When the client closes, or the socket fails, before it has said either.
pub async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const LONGEST: Duration = Duration::from_millis(250);
    let mut pause = Duration::from_millis(5);
    loop {
        let mut first = [0; PREFACE.len()];
        let seen = stream.peek(&mut first).await?;
        match &first[..seen] {
            [] => return Err(io::ErrorKind::UnexpectedEof.into()),
            PREFACE => return Ok(true),
            // `P` alone may become a POST. A peek does not wait for more, and a client that sends a byte at a time is rare.
            some if PREFACE.starts_with(some) => {
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST);
            }
            _ => return Ok(false),
        }
    }
}
