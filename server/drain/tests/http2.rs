//! HTTP/2 without TLS: its streams are requests like any other, and its connections wind down as HTTP/1's do.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode, Version};
use axum::routing::{get, post};
use futures::StreamExt;
use graceful_drain::{Bounds, Drain, Settings, Signals, serve_within};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Far beyond what anything here takes, on a loaded machine too.
const TIMEOUT: Duration = Duration::from_secs(60);

/// An app whose `/stream` sends what the test hands it, then a trailer.
struct App {
    address: SocketAddr,
    drain: Drain,
    chunks: mpsc::UnboundedSender<&'static str>,
}

async fn app(bounds: Bounds) -> App {
    let (chunks, taken) = mpsc::unbounded_channel();
    let taken = std::sync::Arc::new(std::sync::Mutex::new(Some(taken)));
    let stream = move || {
        let mut taken: mpsc::UnboundedReceiver<&'static str> = taken.lock().unwrap().take().unwrap();
        async move {
            let data = futures::stream::poll_fn(move |cx| taken.poll_recv(cx))
                .map(|chunk| Ok::<_, std::io::Error>(Frame::data(Bytes::from(chunk))));
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            let frames = data.chain(futures::stream::iter([Ok(Frame::trailers(trailers))]));
            Body::new(http_body_util::StreamBody::new(frames))
        }
    };
    let drain = Drain::new(Settings::default());
    let routes = Router::new()
        .route("/stream", post(stream))
        .route("/version", get(async |request: Request<Body>| format!("{:?}", request.version())))
        .layer(drain.gate());
    let public = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = public.local_addr().unwrap();
    let signals = Signals::install().unwrap();
    tokio::spawn(serve_within(bounds, (public, routes), (admin, drain.routes()), drain.clone(), signals));
    App { address, drain, chunks }
}

type Connection = JoinHandle<hyper::Result<()>>;

async fn connect(address: SocketAddr) -> (SendRequest<Body>, Connection) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

async fn send(sender: &mut SendRequest<Body>, method: &str, path: &str) -> http::Response<Incoming> {
    let request = Request::builder().method(method).uri(format!("http://app{path}")).body(Body::empty());
    timeout(TIMEOUT, sender.send_request(request.unwrap())).await.unwrap().unwrap()
}

async fn text(body: Incoming) -> String {
    String::from_utf8(axum::body::to_bytes(Body::new(body), 1024).await.unwrap().to_vec()).unwrap()
}

async fn ended(connection: Connection) {
    timeout(TIMEOUT, connection).await.expect("the server closes it").unwrap().unwrap();
}

/// What a stream has in flight holds the drain until its trailers are sent. P1, P7.
#[tokio::test]
async fn a_stream_is_in_flight_until_its_trailers() {
    let App { address, drain, chunks } = app(Bounds::default().with_http2()).await;
    let (mut sender, connection) = connect(address).await;
    let mut response = send(&mut sender, "POST", "/stream").await;
    assert_eq!((response.status(), response.version()), (StatusCode::OK, Version::HTTP_2));
    chunks.send("one").unwrap();

    drain.start(1, Duration::ZERO).unwrap();
    assert_eq!(drain.status().in_flight.requests, 1);
    let (mut late, late_connection) = connect(address).await;
    let refused = send(&mut late, "GET", "/version").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    assert!(!drain.status().is_idle());

    chunks.send("two").unwrap();
    drop(chunks);
    let mut seen = String::new();
    let mut trailers = None;
    while let Some(frame) =
        std::future::poll_fn(|cx| std::pin::Pin::new(response.body_mut()).poll_frame(cx)).await
    {
        match frame.unwrap().into_data() {
            Ok(data) => seen.push_str(std::str::from_utf8(&data).unwrap()),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    assert_eq!(seen, "onetwo");
    assert_eq!(trailers.unwrap()["grpc-status"], "0");
    timeout(TIMEOUT, drain.idle()).await.unwrap();
    // Both connections are told to go (GOAWAY), so that their clients open new ones to other pods.
    drop(response);
    ended(connection).await;
    ended(late_connection).await;
    drop((sender, late));
}

/// A connection that is idle when the latch is about to close is closed, and does not meet a refusal later.
#[tokio::test]
async fn an_idle_connection_ends_before_the_latch() {
    let App { address, drain, .. } = app(Bounds::default().with_http2()).await;
    let (mut sender, connection) = connect(address).await;
    assert_eq!(text(send(&mut sender, "GET", "/version").await.into_body()).await, "HTTP/2.0");
    drain.start(1, Duration::from_secs(2)).unwrap();
    ended(connection).await;
    assert!(drain.status().accepting, "it ends while the pod still accepts");
    let (mut anew, _connection) = connect(address).await;
    assert_eq!(send(&mut anew, "GET", "/version").await.status(), StatusCode::OK);
}

/// Where places are short, an idle connection makes room for a newcomer.
#[tokio::test]
async fn an_idle_connection_makes_room() {
    let App { address, .. } = app(Bounds::at_most(1, 0).with_http2()).await;
    let (mut sender, connection) = connect(address).await;
    send(&mut sender, "GET", "/version").await;
    let (mut newcomer, _connection) = connect(address).await;
    assert_eq!(text(send(&mut newcomer, "GET", "/version").await.into_body()).await, "HTTP/2.0");
    ended(connection).await;
}

/// HTTP/1 is served beside it, though a POST begins with a letter of HTTP/2's preface and may come byte by byte.
#[tokio::test]
async fn http1_is_served_on_the_same_port() {
    let App { address, chunks, .. } = app(Bounds::default().with_http2()).await;
    chunks.send("body").unwrap();
    drop(chunks);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in b"POST /stream HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n" {
        stream.write_all(&[*byte]).await.unwrap();
    }
    let mut answer = String::new();
    timeout(TIMEOUT, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("body"), "{answer}");
}

/// HTTP/2 is spoken only where it is asked for: it costs more memory.
#[tokio::test]
async fn http2_is_not_spoken_unless_asked_for() {
    let App { address, .. } = app(Bounds::default()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    // hyper closes without a word; HTTP/2 would begin with its settings, and stay.
    let mut answer = Vec::new();
    timeout(TIMEOUT, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.is_empty(), "{answer:?}");
}
