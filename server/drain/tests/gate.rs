//! The gate and the guards: what is admitted is counted, and what is counted holds the pod.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use futures::StreamExt;
use graceful_drain::{Drain, InFlight, RequestGuard, Settings, State};
use tokio::sync::{mpsc, oneshot};
use tower::ServiceExt;

fn drain() -> Drain {
    Drain::new(Settings::default())
}

fn requests(drain: &Drain) -> u64 {
    drain.status().in_flight.requests
}

async fn call(app: &Router, path: &str) -> Response {
    app.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap()
}

/// P1, P7: threads race through the gate while another drains and resumes, and one watches: an answer that says idle, seen
/// while something admitted runs, is the loss that this crate exists to prevent. `running` is raised after admission
/// and lowered before the guard goes, so that a count above zero is always of guarded work.
#[test]
fn idle_is_never_reported_while_something_admitted_runs() {
    let drain = drain();
    let running = Arc::new(AtomicI64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let admitted = Arc::new(AtomicU64::new(0));

    let workers = (0..3).map(|_| {
        let (drain, running, stop, admitted) =
            (drain.clone(), running.clone(), stop.clone(), admitted.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                let Ok(request) = drain.try_request() else {
                    std::thread::yield_now();
                    continue;
                };
                running.fetch_add(1, Ordering::SeqCst);
                admitted.fetch_add(1, Ordering::SeqCst);
                let mut task = request.queue_task();
                drop(request);
                task.start();
                std::thread::yield_now();
                running.fetch_sub(1, Ordering::SeqCst);
                drop(task);
            }
        })
    });
    let workers: Vec<_> = workers.collect();
    for epoch in 1..500_u64 {
        let before = admitted.load(Ordering::SeqCst);
        while admitted.load(Ordering::SeqCst) < before + 4 {
            std::thread::yield_now();
        }
        drain.start(2 * epoch, Duration::ZERO).unwrap();
        while !drain.status().is_idle() {
            std::thread::yield_now();
        }
        // Idle holds until the resume: look at the work itself, not at the counts.
        for _ in 0..20 {
            std::thread::yield_now();
            assert_eq!(running.load(Ordering::SeqCst), 0, "idle was reported while work ran");
            assert!(drain.status().is_idle(), "an idle pod stays so until it is resumed");
        }
        drain.resume(2 * epoch + 1).unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    for worker in workers {
        worker.join().unwrap();
    }
    assert_eq!(drain.status().in_flight, InFlight::default(), "all were counted out");
}

/// Keeps P1.
#[tokio::test]
async fn a_request_counts_until_its_body_has_ended() {
    let drain = drain();
    let (pieces, body) = mpsc::unbounded_channel::<Result<Bytes, Infallible>>();
    let body = Arc::new(std::sync::Mutex::new(Some(body)));
    let app = Router::new()
        .route(
            "/",
            get(move || async move {
                let mut body = body.lock().unwrap().take().unwrap();
                Body::from_stream(futures::stream::poll_fn(move |cx| body.poll_recv(cx)))
            }),
        )
        .layer(drain.gate());
    let mut stream = call(&app, "/").await.into_body().into_data_stream();
    assert_eq!(requests(&drain), 1, "the handler is done, the body is not");
    pieces.send(Ok(Bytes::from_static(b"one"))).unwrap();
    stream.next().await.unwrap().unwrap();
    assert_eq!(requests(&drain), 1);
    drop(pieces);
    assert!(stream.next().await.is_none());
    assert_eq!(requests(&drain), 0, "counted out at the end, though the body still exists");
}

#[tokio::test]
async fn a_body_that_is_dropped_counts_out() {
    let drain = drain();
    let app = Router::new().route("/", get(|| async { "never read" })).layer(drain.gate());
    let response = call(&app, "/").await;
    assert_eq!(requests(&drain), 1);
    drop(response);
    assert_eq!(requests(&drain), 0);
}

#[tokio::test]
async fn a_handler_that_panics_counts_out() {
    let drain = drain();
    let app = Router::new()
        .route(
            "/",
            get(|request: RequestGuard| async move {
                let _task = request.queue_task();
                if true {
                    panic!("on purpose")
                }
            }),
        )
        .layer(drain.gate());
    let outcome = tokio::spawn(async move { call(&app, "/").await.status() }).await;
    assert!(outcome.unwrap_err().is_panic());
    assert_eq!(drain.status().in_flight, InFlight::default());
}

#[tokio::test]
async fn a_client_that_leaves_counts_out() {
    let drain = drain();
    let app = Router::new().route("/", get(std::future::pending::<()>)).layer(drain.gate());
    let call = tokio::spawn(async move { call(&app, "/").await.status() });
    drain.wait_until(|status| status.in_flight.requests == 1).await;
    call.abort();
    drain.wait_until(|status| status.in_flight.requests == 0).await;
}

#[tokio::test]
async fn a_task_outlives_its_request_and_counts_out_on_panic() {
    let drain = drain();
    let (go, gone) = oneshot::channel::<()>();
    let gone = Arc::new(std::sync::Mutex::new(Some(gone)));
    let app = Router::new()
        .route(
            "/",
            post(move |request: RequestGuard| async move {
                let gone = gone.lock().unwrap().take().unwrap();
                let mut task = request.queue_task();
                tokio::spawn(async move {
                    task.start();
                    gone.await.unwrap();
                    panic!("on purpose");
                });
            }),
        )
        .layer(drain.gate());
    let response = app.oneshot(Request::post("/").body(Body::empty()).unwrap()).await.unwrap();
    drop(response);
    drain.start(1, Duration::ZERO).unwrap();
    let status = drain.wait_until(|status| status.in_flight.running == 1).await;
    assert_eq!((status.state, status.in_flight.requests), (State::Draining, 0));
    go.send(()).unwrap();
    drain.idle().await;
    assert_eq!(drain.status().state, State::Idle);
}

#[tokio::test(start_paused = true)]
async fn stragglers_are_served_and_told_to_go_then_newcomers_are_refused() {
    let drain = drain();
    let app = Router::new().route("/work", get(|| async { "done" })).layer(drain.gate());
    let reads = Router::new().route("/read", get(|| async { "read" })).merge(app);

    let answer = call(&reads, "/work").await;
    assert_eq!((answer.status(), answer.headers().get(header::CONNECTION)), (StatusCode::OK, None));
    drop(answer);

    drain.start(1, Duration::from_secs(3)).unwrap();
    tokio::time::advance(Duration::from_millis(2999)).await;
    let answer = call(&reads, "/work").await;
    assert_eq!(
        (answer.status(), &answer.headers()[header::CONNECTION]),
        (StatusCode::OK, &"close".parse().unwrap())
    );
    drop(answer);

    tokio::time::advance(Duration::from_millis(1)).await;
    let answer = call(&reads, "/work").await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers()[header::RETRY_AFTER], "1");
    assert_eq!(answer.headers()[header::CONNECTION], "close");
    assert_eq!(drain.refused(), 1);
    assert_eq!(call(&reads, "/read").await.status(), StatusCode::OK, "outside of the gate");

    drain.resume(2).unwrap();
    let answer = call(&reads, "/work").await;
    assert_eq!((answer.status(), answer.headers().get(header::CONNECTION)), (StatusCode::OK, None));
}

#[tokio::test]
async fn an_app_refuses_in_its_own_words() {
    let drain = drain();
    let refusal =
        || Response::builder().status(503).header("retry-after", "9").body("closed".into()).unwrap();
    let app = Router::new().route("/", get(|| async {})).layer(drain.gate_with(refusal));
    drain.start(1, Duration::ZERO).unwrap();
    let answer = call(&app, "/").await;
    assert_eq!(answer.headers()[header::RETRY_AFTER], "9", "the app's own figure stays");
    assert_eq!(axum::body::to_bytes(answer.into_body(), 100).await.unwrap(), "closed");
}

#[tokio::test]
async fn work_that_comes_by_other_ways_is_refused_past_the_latch() {
    let drain = drain();
    let task = drain.try_task().unwrap();
    drain.start(1, Duration::ZERO).unwrap();
    assert!(drain.try_task().is_err() && drain.try_request().is_err());
    let child = task.queue_task();
    drop(task);
    assert_eq!(drain.status().state, State::Draining, "what a task brings forth is never refused");
    drop(child);
    assert_eq!(drain.status().state, State::Idle);
}

#[tokio::test]
async fn a_gate_forgotten_is_said_at_the_first_request() {
    let app = Router::new().route("/", get(|_: RequestGuard| async {}));
    let answer = call(&app, "/").await;
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let said = axum::body::to_bytes(answer.into_body(), 1000).await.unwrap();
    assert!(String::from_utf8_lossy(&said).contains("drain.gate()"));
}

/// Counts how often it was woken.
#[derive(Default)]
struct Woken(AtomicU64);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// With ten thousand sockets each wake-up would be ten thousand.
#[tokio::test]
async fn an_idle_socket_sleeps_while_requests_come_and_go() {
    let drain = drain();
    let farewell = drain.connection().farewell();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut told = std::pin::pin!(farewell.told());
    assert_eq!(told.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending);
    for _ in 0..100 {
        let request = drain.try_request().unwrap();
        let task = request.queue_task();
        drop(request);
        drain.set_tasks(1, 0);
        drop(task);
        drain.set_tasks(0, 0);
    }
    assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    drain.terminate(Duration::ZERO);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1, "the turn itself is heard");
}
