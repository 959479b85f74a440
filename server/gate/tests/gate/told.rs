//! `--on-drain`: the app hears that a drain begins, before anything is asked of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;

use super::app::{App, ok};
use super::gate::Gate;
use graceful_drain::State;

#[tokio::test]
async fn the_app_is_told_as_a_drain_begins_and_asked_after_that() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let app = {
        let heard = heard.clone();
        App::http(move |head, body| {
            let line = head.lines().next().unwrap().to_owned();
            let mut heard = heard.lock().unwrap();
            heard.push(format!("{line} {body}"));
            let calls = heard.iter().filter(|one| one.starts_with("PUT")).count();
            // The first call fails: the app is told again.
            if line.starts_with("PUT") && calls == 1 {
                return "HTTP/1.1 500 Not Yet\r\ncontent-length: 0\r\n\r\n".to_owned();
            }
            ok(r#"{"n": 0}"#)
        })
        .await
    };
    let call = r#"{"method": "PUT", "path": "/stop?now=1", "body": "{\"stop\": true}"}"#;
    let question = r#"{"path": "/queue", "jsonPointers": ["/n"]}"#;
    let flags = ["--on-drain", call, "--in-flight", question, "--quiet-seconds", "0"];
    let gate = Gate::before(app.port, &flags).await;
    sleep(Duration::from_millis(200)).await;
    assert!(!heard.lock().unwrap().iter().any(|one| one.starts_with("PUT")), "nothing drains yet");
    assert_eq!(gate.drain(1, 0).await.state, State::Draining);
    gate.wait("idle", |status| status.is_idle()).await;
    let told = heard.lock().unwrap().clone();
    let calls: Vec<_> = told.iter().enumerate().filter(|(_, one)| one.starts_with("PUT")).collect();
    assert_eq!(calls.len(), 2, "{told:?}");
    assert_eq!(calls[1].1, "PUT /stop?now=1 HTTP/1.1 {\"stop\": true}");
    assert!(told.len() - calls[1].0 > 3, "three answers count, all of them from after it was told: {told:?}");
}

/// The call is a courtesy: a drain does not depend on it for ever.
#[tokio::test]
async fn an_app_that_does_not_take_the_call_is_drained_all_the_same() {
    let gate = Gate::before(App::none(), &["--on-drain", r#"{"path": "/stop"}"#]).await;
    let status = gate.drain(1, 0).await;
    assert_eq!((status.state, status.in_flight.total()), (State::Draining, 1), "told first");
    gate.wait("idle", |status| status.is_idle()).await;
    assert!(gate.log().contains("cannot tell the app"), "{}", gate.log());
}
