//! A client that does not keep up is dropped with a code; it costs the server no memory and the others nothing.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

use std::sync::Arc;

use futures::StreamExt;
use graceful_drain::Drain;
use graceful_server::api::{self, Api};
use graceful_server::events::hub::{Hub, Settings};
use graceful_server::metrics::Metrics;
use graceful_server::queue::Queue;
use tokio::net::TcpListener;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

struct Pod {
    hub: Hub,
    drain: Drain,
    metrics: Arc<Metrics>,
    url: String,
}

async fn pod() -> Pod {
    let drain = Drain::new(graceful_drain::Settings::default());
    let metrics = Arc::new(Metrics::default());
    let hub = Hub::new(Settings::default(), drain.clone(), metrics.clone());
    tokio::spawn(hub.clone().attend());
    let queue = Arc::new(Queue::new(1, 1));
    let api = Api { drain: drain.clone(), queue, hub: hub.clone(), metrics: metrics.clone() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, api::public(api)).await.unwrap() });
    Pod { hub, drain, metrics, url }
}

#[tokio::test]
async fn a_client_that_falls_behind_is_dropped_with_a_code() {
    let pod = pod().await;
    let (mut socket, _) = connect_async(format!("{}slow", pod.url)).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::from("Not running inside Kubernetes"));
    // More than the ring holds, before the session gets to run: this runtime has one thread.
    for _ in 0..5000 {
        pod.hub.task_ended(Uuid::new_v4());
    }
    match socket.next().await.unwrap().unwrap() {
        Message::Close(Some(frame)) => {
            assert_eq!(
                (u16::from(frame.code), frame.reason.as_str()),
                (1008, "too slow: events were missed")
            );
        }
        other => panic!("expected a close, not {other:?}"),
    }
    drop(socket);
    pod.drain.disconnected().await;
    assert!(pod.metrics.text(&pod.drain).contains("graceful_server_slow_clients_dropped_total 1"));
}

#[tokio::test]
async fn every_socket_hears_of_every_task_with_its_own_name() {
    let pod = pod().await;
    let mut sockets = Vec::new();
    // Two under one name: the seed would forget the first.
    for name in ["a", "b", "b"] {
        let (mut socket, _) = connect_async(format!("{}{name}", pod.url)).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::from("Not running inside Kubernetes"));
        sockets.push((name, socket));
    }
    let id = Uuid::new_v4();
    pod.hub.task_ended(id);
    for (name, socket) in &mut sockets {
        let expected = format!("Client id {name} Message: {id} Task {id} processed");
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::from(expected));
    }
}

#[tokio::test]
async fn what_clients_send_is_bounded() {
    let pod = pod().await;
    let long = "x".repeat(129);
    assert!(connect_async(format!("{}{long}", pod.url)).await.is_err());
    let (mut socket, _) = connect_async(format!("{}big", pod.url)).await.unwrap();
    futures::SinkExt::send(&mut socket, "x".repeat(17 * 1024).into()).await.unwrap();
    pod.drain.disconnected().await;
}
