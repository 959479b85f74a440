//! HTTP/2 with prior knowledge, as gRPC clients speak it: streams both ways, trailers, GOAWAY as a drain winds down.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::mpsc;
use futures::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::app::{App, ok};
use super::gate::{Gate, PATIENCE};

type Streamed = StreamBody<mpsc::Receiver<Result<Frame<Bytes>, Infallible>>>;

/// An app that sends back what it gets, piece by piece, trailers too: gRPC's shape.
async fn echo() -> App {
    App::new(|stream| async move {
        let service = service_fn(|request: Request<Incoming>| async move {
            assert_eq!(request.headers().get("te").map(|value| value.to_str().unwrap()), Some("trailers"));
            let response =
                Response::builder().header("seen-for", request.headers()["x-forwarded-for"].clone());
            let response = response.header("seen-authority", request.uri().authority().unwrap().as_str());
            Ok::<_, Infallible>(response.body(request.into_body()).unwrap())
        });
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
    })
    .await
}

struct Client<B> {
    sender: SendRequest<B>,
    connection: JoinHandle<Result<(), hyper::Error>>,
}

async fn client<B>(gate: &Gate) -> Client<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    let (sender, connection) =
        handshake(TokioExecutor::new(), TokioIo::new(gate.connect().await)).await.unwrap();
    Client { sender, connection: tokio::spawn(connection) }
}

fn request<B>(body: B) -> Request<B> {
    let uri = "http://a.example/pkg.Service/Method";
    Request::post(uri).header("te", "trailers").header("content-type", "application/grpc").body(body).unwrap()
}

#[tokio::test]
async fn streams_pass_both_ways_with_trailers() {
    let app = echo().await;
    let gate = Gate::before(app.port, &[]).await;
    let mut client = client::<Streamed>(&gate).await;
    let (mut to, body) = mpsc::channel(1);
    let mut response = client.sender.send_request(request(StreamBody::new(body))).await.unwrap();
    assert_eq!(response.headers()["seen-for"], "127.0.0.1");
    assert_eq!(response.headers()["seen-authority"], "a.example");
    for piece in ["one", "two", "three"] {
        to.send(Ok(Frame::data(Bytes::from(piece)))).await.unwrap();
        let got = timeout(PATIENCE, response.body_mut().frame()).await.expect("no piece is held back");
        assert_eq!(got.unwrap().unwrap().into_data().unwrap(), piece);
        assert_eq!(gate.status().await.in_flight.requests, 1, "a stream is a request, and holds");
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    to.send(Ok(Frame::trailers(trailers))).await.unwrap();
    drop(to);
    let got = timeout(PATIENCE, response.body_mut().frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(got.into_trailers().unwrap()["grpc-status"], "0");
    gate.counted_out().await;
    let labels =
        "{http_request_method=\"POST\",http_response_status_code=\"200\",network_protocol_version=\"2\"}";
    assert_eq!(gate.metric(&format!("http_server_request_duration_seconds_count{labels}")).await, 1.0);
}

/// The client is told to open its next connection elsewhere; the stream that it has goes on to its end.
#[tokio::test]
async fn a_drain_says_goaway_and_lets_streams_end() {
    let app = echo().await;
    let gate = Gate::before(app.port, &[]).await;
    let mut client = client::<Streamed>(&gate).await;
    let (mut to, body) = mpsc::channel(1);
    let mut response = client.sender.send_request(request(StreamBody::new(body))).await.unwrap();
    to.send(Ok(Frame::data(Bytes::from("one")))).await.unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    let status = gate.drain(1, 0).await;
    assert_eq!((status.accepting, status.in_flight.requests), (false, 1));
    // Past GOAWAY nothing new begins on it, here or there: the client's own library refuses, or the gate does.
    let refused = timeout(PATIENCE, async {
        loop {
            let (_, body) = mpsc::channel(1);
            match client.sender.send_request(request(StreamBody::new(body))).await {
                Ok(response) => assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE),
                Err(error) => return error,
            }
        }
    });
    refused.await.expect("GOAWAY");
    to.send(Ok(Frame::data(Bytes::from("two")))).await.unwrap();
    let got = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(got.into_data().unwrap(), "two", "the stream goes on");
    drop(to);
    let rest = response.into_body().collect().await.expect("to its own end");
    assert!(rest.to_bytes().is_empty());
    gate.wait("idle", |status| status.is_idle()).await;
    timeout(PATIENCE, client.connection).await.expect("the connection ends by itself").unwrap().unwrap();
}

#[tokio::test]
async fn a_new_connection_past_the_latch_is_refused_as_grpc_reads_it() {
    let app = echo().await;
    let gate = Gate::before(app.port, &[]).await;
    gate.drain(1, 0).await;
    let mut client = client::<Empty<Bytes>>(&gate).await;
    let got = client.sender.send_request(request(Empty::new())).await.unwrap();
    // gRPC's own table makes UNAVAILABLE of it, which clients try elsewhere.
    assert_eq!(
        (got.status(), &got.headers()["retry-after"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"1".parse().unwrap())
    );
    assert_eq!(app.connections.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_app_that_is_away_or_speaks_no_http2_is_an_answer_too() {
    let gate = Gate::before(App::none(), &[]).await;
    let mut to = client::<Empty<Bytes>>(&gate).await;
    let got = to.sender.send_request(request(Empty::new())).await.unwrap();
    assert_eq!(got.status(), StatusCode::SERVICE_UNAVAILABLE);
    gate.counted_out().await;

    let app = App::http(|_, _| ok("HTTP/1.1 alone")).await;
    let gate = Gate::before(app.port, &[]).await;
    let mut to = client::<Empty<Bytes>>(&gate).await;
    let got =
        timeout(PATIENCE, to.sender.send_request(request(Empty::new()))).await.expect("no hang").unwrap();
    assert_eq!(got.status(), StatusCode::BAD_GATEWAY);
    gate.counted_out().await;
}

#[tokio::test]
async fn an_app_that_dies_in_a_stream_resets_it() {
    let app = App::new(|stream| async move {
        let service = service_fn(|_: Request<Incoming>| async move {
            let (mut to, body) = mpsc::channel::<Result<_, Infallible>>(1);
            to.send(Ok(Frame::data(Bytes::from("one")))).await.unwrap();
            // Kept open past the connection's end.
            tokio::spawn(async move {
                tokio::time::sleep(PATIENCE).await;
                drop(to);
            });
            Ok::<_, Infallible>(Response::new(StreamBody::new(body)))
        });
        let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service);
        let _ = timeout(Duration::from_millis(500), serving).await;
    })
    .await;
    let gate = Gate::before(app.port, &[]).await;
    let mut client = client::<Empty<Bytes>>(&gate).await;
    let mut response = client.sender.send_request(request(Empty::new())).await.unwrap();
    assert_eq!(response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "one");
    let end = timeout(PATIENCE, response.body_mut().frame()).await.expect("no hang");
    assert!(end.is_some_and(|frame| frame.is_err()), "cut, and not ended");
    gate.counted_out().await;
}

/// A client's flood of streams waits at the limit and is served in turn.
#[tokio::test]
async fn many_streams_share_a_connection() {
    let app = echo().await;
    let gate = Gate::before(app.port, &[]).await;
    let client = client::<Empty<Bytes>>(&gate).await;
    let all = (0..1000).map(|_| {
        let mut sender = client.sender.clone();
        async move { sender.send_request(request(Empty::new())).await.unwrap().status() }
    });
    let got: Vec<_> = futures::stream::iter(all).buffer_unordered(500).collect().await;
    assert!(got.iter().all(|status| *status == StatusCode::OK), "{got:?}");
    gate.counted_out().await;
    assert_eq!(app.connections.load(std::sync::atomic::Ordering::SeqCst), 1, "one beside the client's own");
}
