//! What needs real sockets: upgraded connections, and the preStop hook's questions.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::routing::get;
use futures::{SinkExt, StreamExt};
use graceful_drain::{Drain, PreStopError, SERVICE_RESTART, Settings, State, closing_frame, pre_stop};
use tokio::net::TcpListener;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::{Error, Message};

async fn listen(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

/// An app whose sockets echo until they are told; `panic` makes a session panic.
fn echo(drain: &Drain) -> Router {
    let sessions = drain.clone();
    let upgrade = move |upgrade: WebSocketUpgrade| async move {
        sessions.on_upgrade(upgrade, |mut socket, farewell| async move {
            loop {
                tokio::select! {
                    message = socket.recv() => match message {
                        Some(Ok(message)) => {
                            assert_ne!(message.to_text().unwrap(), "panic");
                            if socket.send(message).await.is_err() {
                                return;
                            }
                        }
                        Some(Err(_)) | None => return,
                    },
                    () = farewell.told() => {
                        let _ = socket.send(closing_frame()).await;
                        let _ = socket.recv().await;
                        return;
                    }
                }
            }
        })
    };
    Router::new().route("/ws", get(upgrade)).layer(drain.gate())
}

fn drain() -> Drain {
    Drain::new(Settings { farewell_spread: Duration::from_millis(50), ..Settings::default() })
}

#[tokio::test]
async fn a_socket_is_a_connection_and_not_in_flight() {
    let drain = drain();
    let address = listen(echo(&drain)).await;
    let (mut socket, _) = connect_async(format!("ws://{address}/ws")).await.unwrap();
    socket.send("hello".into()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::from("hello"));
    let status = drain.wait_until(|status| status.in_flight.requests == 0).await;
    assert_eq!((status.in_flight.total(), status.connections), (0, 1));
    drop(socket);
    drain.disconnected().await;
}

#[tokio::test]
async fn a_session_that_panics_is_counted_out() {
    let drain = drain();
    let address = listen(echo(&drain)).await;
    let (mut socket, _) = connect_async(format!("ws://{address}/ws")).await.unwrap();
    drain.wait_until(|status| status.connections == 1).await;
    socket.send("panic".into()).await.unwrap();
    drain.disconnected().await;
}

/// Keeps P1.
#[tokio::test]
async fn sockets_outlive_the_drain_and_are_told_at_the_end() {
    let drain = drain();
    let address = listen(echo(&drain)).await;
    let task = drain.try_task().unwrap();
    let (mut socket, _) = connect_async(format!("ws://{address}/ws")).await.unwrap();

    drain.start(1, Duration::ZERO).unwrap();
    match connect_async(format!("ws://{address}/ws")).await {
        Err(Error::Http(refused)) => assert_eq!(refused.status(), 503),
        other => panic!("a new socket must be refused, not {other:?}"),
    }
    drain.terminate(Duration::ZERO);
    socket.send("still here".into()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::from("still here"), "while its task runs");

    drop(task);
    match socket.next().await.unwrap().unwrap() {
        Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), SERVICE_RESTART),
        other => panic!("expected a close, not {other:?}"),
    }
    drop(socket);
    drain.disconnected().await;
}

#[tokio::test]
async fn farewells_are_spread() {
    let drain = Drain::new(Settings { farewell_spread: Duration::from_millis(200), ..Settings::default() });
    drain.terminate(Duration::ZERO);
    let started = tokio::time::Instant::now();
    let told = (0..40).map(|_| {
        let connection = drain.connection();
        async move {
            connection.farewell().told().await;
            started.elapsed()
        }
    });
    let mut told = futures::future::join_all(told).await;
    told.sort();
    let (first, last) = (told[0], told[39]);
    // 40 even draws all landing within one half of the spread has a chance of one in 10^11.
    assert!(last - first > Duration::from_millis(100), "{first:?} to {last:?}");
}

/// Keeps P2.
#[tokio::test]
async fn pre_stop_starts_the_drain_and_returns_when_idle() {
    let drain = drain();
    let address = listen(drain.routes()).await;
    drain.resume(41).unwrap();
    let task = drain.try_task().unwrap();
    let hook = tokio::spawn(async move { pre_stop(address.port(), Duration::ZERO).await.unwrap() });
    let status = drain.wait_until(|status| status.state == State::Draining).await;
    assert_eq!(status.epoch, 42, "above what was seen");
    assert!(!hook.is_finished());
    assert!(drain.leaves(), "nobody outside asked for it, so readiness must fail");
    drop(task);
    assert!(hook.await.unwrap().is_idle());
    drain.resume(43).unwrap();
    assert!(!drain.leaves());
}

#[tokio::test]
async fn pre_stop_waits_out_the_linger_of_a_pod_with_nothing_in_flight() {
    let drain = drain();
    let address = listen(drain.routes()).await;
    let status = pre_stop(address.port(), Duration::from_millis(300)).await.unwrap();
    assert_eq!(
        (status.state, drain.status().state),
        (State::Idle, State::Idle),
        "a zero while accepting is not idle"
    );
}

#[tokio::test]
async fn pre_stop_joins_a_drain_and_leaves_its_epoch() {
    let drain = drain();
    let address = listen(drain.routes()).await;
    drain.start(7, Duration::ZERO).unwrap();
    let status = pre_stop(address.port(), Duration::ZERO).await.unwrap();
    assert_eq!((status.state, status.epoch), (State::Idle, 7));
    assert!(!drain.leaves(), "it was unrouted by who began it");
}

#[tokio::test]
async fn pre_stop_drains_again_what_was_resumed_under_it() {
    let drain = drain();
    let address = listen(drain.routes()).await;
    let task = drain.try_task().unwrap();
    let hook = tokio::spawn(async move { pre_stop(address.port(), Duration::ZERO).await.unwrap() });
    drain.wait_until(|status| status.epoch == 1).await;
    drain.resume(2).unwrap();
    drain.wait_until(|status| status.epoch == 3).await;
    drop(task);
    assert!(hook.await.unwrap().is_idle());
}

#[tokio::test]
async fn pre_stop_says_what_it_could_not_reach() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let said = pre_stop(port, Duration::ZERO).await.unwrap_err().to_string();
    assert!(
        said.contains(&format!("http://127.0.0.1:{port}/drain")) && said.contains("admin port"),
        "{said}"
    );
}

#[tokio::test]
async fn pre_stop_takes_no_strangers_word() {
    for answer in ["{}", r#"{"inFlight": {"total": 0}, "accepting": false}"#, "idle"] {
        let address = listen(Router::new().route("/drain", get(move || async move { answer }))).await;
        let outcome = pre_stop(address.port(), Duration::ZERO).await;
        assert!(matches!(outcome, Err(PreStopError::Unexpected { .. })), "{answer}: {outcome:?}");
    }
    let address = listen(Router::new()).await;
    let said = pre_stop(address.port(), Duration::ZERO).await.unwrap_err().to_string();
    assert!(said.contains("404"), "{said}");
}
