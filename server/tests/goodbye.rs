//! How those who listen take leave of a pod that goes: told at each turn, kept while its tasks run, and sent off with
//! a code; and event streams, which must not hold a drain up.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

mod listener;
mod pod;

use std::net::SocketAddr;
use std::time::Duration;

use listener::{Heard, Listener, Stream, number, refused};
use pod::{Held, Plan, Pod, TIMEOUT};
use serde_json::json;
use tokio::time::timeout;

async fn plain_pod() -> (Pod, Held, SocketAddr) {
    let held = Held::default();
    let pod = Plan::of(held.clone()).pod().await;
    let address = pod.listen().await;
    (pod, held, address)
}

#[tokio::test]
async fn a_socket_is_told_kept_while_tasks_run_and_closed_with_a_code() {
    let (pod, held, address) = plain_pod().await;
    let (mut ada, _) = Listener::json(address, "ada?format=json&hints=false").await;
    let mut plain = Listener::open(address, "plain").await;
    assert_eq!(plain.text().await, "Not running inside Kubernetes");
    let id = pod.put("sleep", "{}").await;
    pod.running(1).await;

    pod.drain.start(1, Duration::from_secs(3600)).unwrap();
    assert_eq!(ada.next().await, json!({"type": "drain", "state": "Lingering", "accepting": true}));
    pod.drain.resume(2).unwrap();
    assert_eq!(ada.next().await, json!({"type": "drain", "state": "Serving", "accepting": true}));
    pod.drain.start(3, Duration::ZERO).unwrap();
    assert_eq!(ada.next().await, json!({"type": "drain", "state": "Draining", "accepting": false}));
    assert_eq!(refused(address, "late", None).await.0, 503, "no new ones");
    pod.drain.terminate(Duration::ZERO);
    assert_eq!(ada.next().await["state"], "Terminating");

    held.let_go(1);
    let last = ada.next().await;
    assert_eq!(
        (&last["type"], &last["task_id"]),
        (&json!("task.succeeded"), &json!(id)),
        "results come first"
    );
    let farewell = ada.next().await;
    assert_eq!(farewell["type"], "farewell");
    assert!((100..1000).contains(&farewell["reconnect_in_ms"].as_u64().unwrap()), "{farewell}");
    assert_eq!(ada.heard().await, Heard::Close(1012, "service restart".to_owned()));
    assert_eq!(plain.text().await, format!("Client id plain Message: {id} Task {id} processed"));
    assert_eq!(plain.text().await, "Server shutting down");
    assert_eq!(plain.heard().await, Heard::Close(1012, "service restart".to_owned()));
    timeout(TIMEOUT, pod.drain.disconnected()).await.unwrap();
}

#[tokio::test]
async fn a_stream_tells_the_same_and_goes_on_after_its_last_id() {
    let (pod, held, address) = plain_pod().await;
    let mut stream = Stream::open(address, "?hints=false", None).await;
    let (start, hello) = stream.event().await;
    assert_eq!((hello["type"].as_str(), hello["id"].as_str()), (Some("hello"), start.as_deref()));
    held.let_go(3);
    let mut ids = Vec::new();
    for expected in 1..=3 {
        pod.put("sleep", "{}").await;
        let (id, event) = stream.event().await;
        assert_eq!((event["id"].as_str(), number(&event)), (id.as_deref(), expected));
        ids.push(id.unwrap());
    }
    // The header is newer than the address.
    let again = format!("?hints=false&after={}", start.unwrap());
    let mut stream = Stream::open(address, &again, Some(&ids[0])).await;
    let (_, hello) = stream.event().await;
    assert_eq!((&hello["resumed"], hello["id"].as_str()), (&json!(true), Some(ids[0].as_str())));
    assert_eq!([number(&stream.event().await.1), number(&stream.event().await.1)], [2, 3]);
    let mut own = Stream::open(address, &format!("{again}&client_id=ada"), None).await;
    own.event().await;
    let task = graceful_store::NewTask {
        client_id: Some("ada".to_owned()),
        ..pod.defaults.task("sleep", "{}".to_owned())
    };
    let id = task.id;
    pod.queue.store().unwrap().submit(task, graceful_store::Hold::default()).await.unwrap();
    held.let_go(1);
    assert_eq!(own.event().await.1["task_id"], json!(id), "the three before it were not ada's");
}

#[tokio::test]
async fn a_stream_holds_no_drain_up_and_ends_with_the_pod() {
    let (pod, held, address) = plain_pod().await;
    let mut stream = Stream::open(address, "?hints=false", None).await;
    stream.event().await;
    assert_eq!((pod.drain.status().in_flight.total(), pod.drain.status().connections), (0, 1));
    pod.put("sleep", "{}").await;
    pod.running(1).await;
    pod.drain.start(1, Duration::ZERO).unwrap();
    assert_eq!(stream.event().await.1["state"], "Draining");
    // It is a read: it may come late.
    let mut late = Stream::open(address, "?hints=false", None).await;
    assert_eq!(late.event().await.1["state"], "Draining");
    held.let_go(1);
    timeout(TIMEOUT, pod.drain.idle()).await.expect("streams are not in flight");
    pod.drain.terminate(Duration::ZERO);
    let mut rest = Vec::new();
    while let Some(message) = stream.message().await {
        rest.push(message);
    }
    let at = |what: &str| rest.iter().position(|message| message.contains(&format!("\"type\":\"{what}\"")));
    assert!(at("task.succeeded").unwrap() < rest.len() - 1, "results come first: {rest:?}");
    assert_eq!(at("farewell"), Some(rest.len() - 1), "{rest:?}");
    assert!(rest.last().unwrap().starts_with("retry: "), "{rest:?}");
    drop(late);
    timeout(TIMEOUT, pod.drain.disconnected()).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_cannot_begin_says_why() {
    let (_pod, _, address) = plain_pod().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for (query, header, field) in
        [("?after=7", "", "after"), ("", "nine", "Last-Event-ID"), ("?client_id=", "", "client_id")]
    {
        let request =
            client.get(format!("http://{address}/v1/events{query}")).header("last-event-id", header);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 400, "{query}");
        let problem: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(problem["field"], field);
    }
}
