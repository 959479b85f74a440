//! A client that does not keep up is dropped with a code; it costs the server no memory and the others nothing.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

mod pod;

use futures::StreamExt;
use pod::{Held, Plan};
use tokio::net::TcpListener;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

struct Pod {
    pod: pod::Pod,
    url: String,
}

async fn pod() -> Pod {
    let pod = Plan::of(Held::default()).pod().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws/", listener.local_addr().unwrap());
    let public = pod.public.clone();
    tokio::spawn(async move { axum::serve(listener, public).await.unwrap() });
    Pod { pod, url }
}

#[tokio::test]
async fn a_client_that_falls_behind_is_dropped_with_a_code() {
    let pod = pod().await;
    let (mut socket, _) = connect_async(format!("{}slow", pod.url)).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::from("Not running inside Kubernetes"));
    // More than the ring holds, before the session gets to run: this runtime has one thread.
    for _ in 0..5000 {
        pod.pod.hub.task_ended(Uuid::new_v4());
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
    pod.pod.drain.disconnected().await;
    assert!(
        pod.pod.metrics.text(&pod.pod.drain, None).contains("graceful_server_slow_clients_dropped_total 1")
    );
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
    pod.pod.hub.task_ended(id);
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
    pod.pod.drain.disconnected().await;
}
