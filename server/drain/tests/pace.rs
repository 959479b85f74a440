//! A client that sends its request's body too slowly holds no drain.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::response::Parts;
use axum::http::{Request, StatusCode, header};
use axum::routing::post;
use futures::StreamExt;
use futures::stream::{self, Stream};
use graceful_drain::{Drain, Settings, SlowestBody};
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt;

const HOUR: Duration = Duration::from_secs(3600);

fn drain_with(slowest_body: Option<SlowestBody>) -> Drain {
    Drain::new(Settings { slowest_body, ..Settings::default() })
}

/// Pieces of so many bytes, one a second.
fn piecewise(bytes: usize) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::repeat(()).then(move |()| async move {
        sleep(Duration::from_secs(1)).await;
        Ok(Bytes::from(vec![b'x'; bytes]))
    })
}

/// What a handler that reads it all answers, and after how long.
async fn upload(
    drain: &Drain,
    body: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static,
) -> (Parts, Duration) {
    let app = Router::new()
        .route("/", post(|body: Bytes| async move { body.len().to_string() }))
        .layer(drain.gate());
    let request = Request::post("/").body(Body::from_stream(body)).unwrap();
    let began = Instant::now();
    let (answer, body) = app.oneshot(request).await.unwrap().into_parts();
    drop(body);
    (answer, began.elapsed())
}

/// What is accepted is answered, and what can never be is not waited for.
#[tokio::test(start_paused = true)]
async fn one_byte_a_second_holds_no_drain_for_ever() {
    let drain = drain_with(Settings::default().slowest_body);
    let uploading = tokio::spawn({
        let drain = drain.clone();
        async move { upload(&drain, piecewise(1)).await }
    });
    drain.wait_until(|status| status.in_flight.requests == 1).await;
    drain.start(1, Duration::ZERO).unwrap();
    timeout(HOUR, drain.idle()).await.expect("the drain is held");
    let (answer, took) = uploading.await.unwrap();
    assert_eq!(answer.status, StatusCode::REQUEST_TIMEOUT);
    assert_eq!(answer.headers[header::CONNECTION], "close");
    assert_eq!(took.as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_nothing_is_given_up_as_well() {
    let drain = drain_with(Settings::default().slowest_body);
    let (answer, took) = upload(&drain, stream::pending()).await;
    assert_eq!((answer.status, took.as_secs()), (StatusCode::REQUEST_TIMEOUT, 30));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_fast_enough_may_take_its_time() {
    let drain = drain_with(Settings::default().slowest_body);
    let (answer, took) = upload(&drain, piecewise(1024).take(600)).await;
    assert_eq!((answer.status, took.as_secs()), (StatusCode::OK, 600));
    let stalls = piecewise(10).take(1).chain(stream::once(async {
        sleep(Duration::from_secs(28)).await;
        Ok(Bytes::new())
    }));
    assert_eq!(upload(&drain, stalls).await.0.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_takes_its_time_is_not_its_clients_fault() {
    let drain = drain_with(Settings::default().slowest_body);
    let slow = |body: Body| async move {
        let mut pieces = body.into_data_stream();
        sleep(HOUR).await;
        let mut bytes = 0;
        while let Some(piece) = pieces.next().await {
            bytes += piece.unwrap().len();
            sleep(HOUR).await;
        }
        bytes.to_string()
    };
    let app = Router::new().route("/", post(slow)).layer(drain.gate());
    let request = Request::post("/").body(Body::from_stream(piecewise(1).take(20))).unwrap();
    assert_eq!(app.oneshot(request).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_did_not_need_the_rest_stays_as_it_is() {
    let drain = drain_with(Settings::default().slowest_body);
    let first = |body: Body| async move {
        let pieces = body.into_data_stream().filter_map(async |piece| piece.ok()).take(60);
        pieces.count().await.to_string()
    };
    let app = Router::new().route("/", post(first)).layer(drain.gate());
    let request = Request::post("/").body(Body::from_stream(piecewise(1))).unwrap();
    assert_eq!(app.oneshot(request).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn other_bounds_and_none_can_be_set() {
    let slowest = SlowestBody { grace: Duration::from_secs(2), bytes_per_second: 1 };
    let (answer, took) = upload(&drain_with(Some(slowest)), stream::pending()).await;
    assert_eq!((answer.status, took.as_secs()), (StatusCode::REQUEST_TIMEOUT, 2));
    assert_eq!(upload(&drain_with(Some(slowest)), piecewise(1).take(500)).await.0.status, StatusCode::OK);
    let drain = drain_with(None);
    let held = tokio::spawn({
        let drain = drain.clone();
        async move { upload(&drain, stream::pending()).await }
    });
    drain.wait_until(|status| status.in_flight.requests == 1).await;
    drain.start(1, Duration::ZERO).unwrap();
    assert!(timeout(HOUR, drain.idle()).await.is_err());
    held.abort();
}
