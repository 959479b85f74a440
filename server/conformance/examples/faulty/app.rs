//! The app: its routes, and the gate before them.

use std::convert::Infallible;
use std::future::ready;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::StreamExt;
use futures::stream;
use tokio::time::{Instant, sleep};

use crate::core::{Core, Door};
use crate::faults::faulty;
use crate::pod::Pod;

/// How long the work of `/task` takes.
const TASK: Duration = Duration::from_millis(500);

pub(crate) fn routes(pod: &Pod) -> Router {
    let gate = from_fn_with_state(pod.clone(), gate);
    let work = Router::new()
        .route("/fast", get(|| async { "done\n" }))
        .route("/slow", post(|body: Bytes| async move { format!("{} bytes\n", body.len()) }))
        .route("/while", get(slow))
        .route("/stream", get(trickle))
        .route("/fail", get(fail))
        .route("/task", post(task))
        .route("/ws", get(socket))
        .route_layer(gate.clone());
    let health = Router::new().route("/health", get(|| async { "ok\n" }));
    let health = if faulty("health-behind-the-latch") { health.route_layer(gate) } else { health };
    work.merge(health).with_state(pod.clone())
}

/// Counts out when it is dropped.
struct Guard {
    pod: Pod,
    done: bool,
    slot: fn(&mut Core) -> &mut u64,
}

impl Guard {
    fn new(pod: &Pod, slot: fn(&mut Core) -> &mut u64) -> Self {
        let mut core = pod.core();
        *slot(&mut core) += 1;
        core.since.get_or_insert_with(Instant::now);
        drop(core);
        pod.changed();
        Self { pod: pod.clone(), done: false, slot }
    }
}

impl Guard {
    fn is_done(&mut self) {
        self.done = true;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let panics = std::thread::panicking();
        if (!self.done && !panics && faulty("who-leaves-stays-counted"))
            || (panics && faulty("failures-stay-counted"))
        {
            return;
        }
        let mut core = self.pod.core();
        *(self.slot)(&mut core) -= 1;
        if core.total() == 0 {
            core.since = None;
        }
        drop(core);
        self.pod.changed();
    }
}

async fn gate(State(pod): State<Pod>, request: Request, next: Next) -> Response {
    let unlatched = faulty("one-path-is-unlatched") && request.uri().path() == "/task";
    let guard = if faulty("gap-at-the-latch") {
        let open = pod.core().accepting();
        // The door was looked at and the lock let go of: the very fault that a gate must not have.
        sleep(Duration::from_millis(5)).await;
        open.then(|| Guard::new(&pod, |core| &mut core.requests))
    } else {
        admit(&pod, unlatched)
    };
    let Some(mut guard) = guard else {
        let retry = if faulty("refuses-without-retry-after") { "x-retry" } else { "retry-after" };
        return closing(
            &pod,
            (StatusCode::SERVICE_UNAVAILABLE, [(retry, "1")], "draining\n").into_response(),
        );
    };
    if faulty("requests-are-not-counted") {
        drop(guard);
        return next.run(request).await;
    }
    let latch = async {
        pod.until(|core| !core.accepting()).await;
    };
    let response = tokio::select! {
        response = next.run(request) => response,
        () = latch, if faulty("the-latch-cuts") => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    };
    let response = closing(&pod, response);
    if faulty("counts-to-the-head") || response.status() == StatusCode::SWITCHING_PROTOCOLS {
        guard.done = true;
        return response;
    }
    let (parts, body) = response.into_parts();
    let ends = body.into_data_stream().map(Some).chain(stream::once(ready(None)));
    let body = ends.filter_map(move |piece| {
        if piece.is_none() {
            guard.is_done();
        }
        ready(piece)
    });
    Response::from_parts(parts, Body::from_stream(body))
}

/// Looked at and counted under one lock.
fn admit(pod: &Pod, unlatched: bool) -> Option<Guard> {
    let mut core = pod.core();
    if !core.accepting() && !unlatched {
        return None;
    }
    core.requests += 1;
    core.since.get_or_insert_with(Instant::now);
    drop(core);
    pod.changed();
    Some(Guard { pod: pod.clone(), done: false, slot: |core| &mut core.requests })
}

fn closing(pod: &Pod, mut response: Response) -> Response {
    let winds_down = !matches!(pod.core().door, Door::Open) || pod.core().terminating;
    if winds_down && response.status() != StatusCode::SWITCHING_PROTOCOLS && !faulty("keeps-connections") {
        response.headers_mut().insert("connection", "close".parse().unwrap());
    }
    response
}

async fn slow() -> &'static str {
    sleep(Duration::from_millis(500)).await;
    "done\n"
}

async fn trickle() -> Body {
    Body::from_stream(stream::iter(0..8).then(|n| async move {
        sleep(Duration::from_millis(100)).await;
        Ok::<_, Infallible>(format!("{n}\n"))
    }))
}

async fn fail() -> &'static str {
    // A panic without its message.
    std::panic::resume_unwind(Box::new("as it was asked to"))
}

async fn task(State(pod): State<Pod>) -> &'static str {
    let begin = move || {
        let guard = Guard::new(&pod, |core| &mut core.running);
        async move {
            sleep(TASK).await;
            let mut guard = guard;
            guard.done = true;
        }
    };
    if faulty("tasks-are-not-counted") {
        tokio::spawn(sleep(TASK));
    } else if faulty("tasks-are-counted-late") {
        tokio::spawn(async move {
            sleep(Duration::from_millis(40)).await;
            begin().await;
        });
    } else {
        tokio::spawn(begin());
    }
    "queued\n"
}

async fn socket(State(pod): State<Pod>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(move |socket| session(pod, socket))
}

static SESSIONS: AtomicU64 = AtomicU64::new(0);

async fn session(pod: Pod, mut socket: WebSocket) {
    let counts: fn(&mut Core) -> &mut u64 = if faulty("sockets-are-in-flight") {
        |core| &mut core.requests
    } else {
        |core| &mut core.connections
    };
    let mut guard = Guard::new(&pod, counts);
    guard.done = true;
    let shared = pod.0.clone();
    let farewell = shared.farewell.notified();
    let shut = async {
        pod.until(|core| !core.accepting()).await;
    };
    tokio::select! {
        () = async { while let Some(Ok(_)) = socket.recv().await {} } => return,
        () = farewell => {}
        () = shut, if faulty("the-latch-closes-sockets") => {}
    }
    if faulty("sockets-are-cut") {
        return;
    }
    if !faulty("farewells-at-once") {
        let n = SESSIONS.fetch_add(37, Ordering::Relaxed);
        sleep(Duration::from_millis(n % 100 * 8)).await;
    }
    let frame = CloseFrame { code: 1012, reason: "service restart".into() };
    if socket.send(Message::Close(Some(frame))).await.is_ok() {
        let _ = tokio::time::timeout(Duration::from_millis(500), socket.recv()).await;
    }
}
