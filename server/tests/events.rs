//! What clients hear over sockets: numbered events, once each, and those they missed; and who may not listen.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

mod listener;
mod pod;

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use graceful_postgres::Postgres;
use graceful_server::engine::Engine;
use graceful_server::events::hint::{Hint, What};
use graceful_server::events::hub::HubSettings;
use graceful_server::events::limits::Limits;
use graceful_store::{Hold, NewTask};
use listener::{Heard, Listener, number, refused};
use pod::{Held, Plan, Pod, TIMEOUT};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::sync::Barrier;
use tokio::time::timeout;
use uuid::Uuid;

static POSTGRES: LazyLock<Postgres> = LazyLock::new(|| Postgres::start().unwrap());

async fn plain_pod() -> (Pod, Held, SocketAddr) {
    let held = Held::default();
    let pod = Plan { capacity: 100_000, ..Plan::of(held.clone()) }.pod().await;
    let address = pod.listen().await;
    (pod, held, address)
}

fn task(pod: &Pod, client: Option<&str>) -> NewTask {
    let task = pod.defaults.task("sleep", "{}".to_owned());
    // It stays where it is until it is cancelled.
    NewTask { client_id: client.map(ToOwned::to_owned), delay: Duration::from_secs(3600), ..task }
}

/// Ends a task of this client at once: by calling it off.
async fn end_one(pod: &Pod, client: Option<&str>) -> Uuid {
    let task = task(pod, client);
    let (id, store) = (task.id, pod.queue.store().unwrap());
    store.submit(task, Hold::default()).await.unwrap();
    store.cancel(id).await.unwrap();
    id
}

async fn end_many(pod: &Pod, count: usize) {
    for _ in 0..count.div_ceil(64) {
        join_all((0..64.min(count)).map(|_| end_one(pod, None))).await;
    }
}

#[tokio::test]
async fn a_tasks_end_is_numbered_and_tells_all() {
    let (pod, held, address) = plain_pod().await;
    let (mut ada, hello) = Listener::json(address, "ada?format=json&hints=false").await;
    let stream = hello["stream"].as_str().unwrap();
    assert_eq!((number(&hello), &hello["resumed"], &hello["state"]), (0, &json!(false), &json!("Serving")));
    assert_eq!(hello["head"], hello["id"]);
    held.let_go(1);
    let done = pod.put("sleep", "{}").await;
    let first = ada.next().await;
    let expected = json!({"type": "task.succeeded", "id": format!("{stream}.1"), "task_id": done, "kind": "sleep",
        "client_id": null, "attempt": 1, "at": first["at"]});
    assert_eq!(first, expected);
    let age = jiff::Timestamp::now().duration_since(first["at"].as_str().unwrap().parse().unwrap());
    assert!(age.abs() < TIMEOUT.try_into().unwrap(), "{age:?}");
    let called_off = end_one(&pod, Some("ada")).await;
    let second = ada.next().await;
    let expected = json!({"type": "task.cancelled", "id": format!("{stream}.2"), "task_id": called_off,
        "kind": "sleep", "client_id": "ada", "attempt": 0, "at": second["at"]});
    assert_eq!(second, expected);
}

#[tokio::test]
async fn the_first_clients_hear_what_they_always_heard() {
    let (pod, held, address) = plain_pod().await;
    let mut sockets = Vec::new();
    // Two under one name: the seed would forget the first.
    for name in ["a", "b", "b"] {
        let mut socket = Listener::open(address, name).await;
        assert_eq!(socket.text().await, "Not running inside Kubernetes");
        sockets.push((name, socket));
    }
    end_one(&pod, None).await;
    held.let_go(1);
    let id = pod.put("sleep", "{}").await;
    for (name, socket) in &mut sockets {
        assert_eq!(socket.text().await, format!("Client id {name} Message: {id} Task {id} processed"));
    }
}

#[tokio::test]
async fn a_client_that_comes_back_gets_what_it_missed_and_goes_on() {
    let (pod, _, address) = plain_pod().await;
    let (mut ada, _) = Listener::json(address, "ada?format=json").await;
    end_one(&pod, None).await;
    let seen = ada.event().await;
    drop(ada);
    // More than two pages.
    end_many(&pod, 640).await;
    let id = seen["id"].as_str().unwrap();
    let (mut ada, hello) = Listener::json(address, &format!("ada?after={id}")).await;
    assert_eq!(
        (&hello["resumed"], &hello["missed"], &hello["id"]),
        (&json!(true), &Value::Null, &seen["id"])
    );
    for expected in 2..=641 {
        assert_eq!(number(&ada.event().await), expected);
    }
    end_one(&pod, None).await;
    assert_eq!(number(&ada.event().await), 642);
}

/// Clients leave and come back at any moment while tasks end all the time: the page they read from the queue and the
/// ring they then listen to meet at every possible place.
/// Of those that are kept, and as events that are missing from nobody.
#[tokio::test]
async fn a_client_may_begin_with_the_latest_events() {
    let (pod, _, address) = plain_pod().await;
    let (mut first, _) = Listener::json(address, "first?format=json").await;
    end_many(&pod, 5).await;
    // The latest are those that were told: what has just ended may come a moment later.
    for expected in 1..=5 {
        assert_eq!(number(&first.event().await), expected);
    }
    let (mut ada, hello) = Listener::json(address, "ada?format=json&last=2").await;
    let stream = hello["stream"].as_str().unwrap().to_owned();
    assert_eq!(hello["id"], format!("{stream}.3"));
    assert_eq!(hello["head"], format!("{stream}.5"));
    assert_eq!((&hello["resumed"], &hello["reason"]), (&json!(false), &json!(null)));
    end_one(&pod, None).await;
    for expected in 4..=6 {
        assert_eq!(number(&ada.event().await), expected);
    }
    let (mut all, hello) = Listener::json(address, "all?format=json&last=1000").await;
    assert_eq!(hello["id"], format!("{stream}.0"));
    assert_eq!(number(&all.event().await), 1);
}

async fn no_gap_and_no_duplicate(pods: Vec<(Pod, SocketAddr)>, last: u64) {
    const CLIENTS: usize = 8;
    let pods = Arc::new(pods);
    // They begin at the head, which must be 0 for all: no task ends before each has said hello.
    let begun = Arc::new(Barrier::new(CLIENTS + 1));
    let clients = (0..CLIENTS).map(|me| {
        let (pods, begun) = (pods.clone(), begun.clone());
        tokio::spawn(async move {
            let (mut at, mut visits) = (None::<String>, 0_usize);
            let mut seen = 0;
            while seen < last {
                // Each visit is to the next pod, and of another length.
                let address = pods[visits % pods.len()].1;
                let path = at.as_ref().map_or("format=json".to_owned(), |at| format!("after={at}"));
                let (mut socket, hello) = Listener::json(address, &format!("c{me}?{path}")).await;
                assert_eq!((number(&hello), &hello["resumed"]), (seen, &json!(at.is_some())));
                if at.is_none() {
                    at = Some(hello["id"].as_str().unwrap().to_owned());
                    begun.wait().await;
                }
                for _ in 0..(visits * 7 + me) % 60 {
                    if seen == last {
                        break;
                    }
                    let event = socket.event().await;
                    assert_eq!(number(&event), seen + 1, "client {me} in visit {visits}");
                    (seen, at) = (seen + 1, Some(event["id"].as_str().unwrap().to_owned()));
                }
                visits += 1;
            }
            visits
        })
    });
    let clients: Vec<_> = clients.collect();
    timeout(TIMEOUT, begun.wait()).await.expect("each client says hello");
    let mut ended = 0;
    while ended < last {
        let (pod, _) = &pods[usize::try_from(ended).unwrap() % pods.len()];
        join_all((0..4).map(|_| end_one(pod, None))).await;
        ended += 4;
    }
    for client in clients {
        assert!(timeout(Duration::from_secs(60), client).await.expect("hears of all in time").unwrap() > 5);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_what_was_missed_meets_what_comes_there_is_no_gap_and_no_duplicate() {
    let (pod, _, address) = plain_pod().await;
    no_gap_and_no_duplicate(vec![(pod, address)], 1200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_a_client_goes_on_at_another_pod() {
    let url = POSTGRES.url(&POSTGRES.create_database().unwrap());
    let mut pods = Vec::new();
    for _ in 0..2 {
        let engine = Some(Engine::Postgres(url.parse().unwrap()));
        let pod = Plan { capacity: 100_000, engine, ..Plan::of(Held::default()) }.pod().await;
        let address = pod.listen().await;
        pods.push((pod, address));
    }
    no_gap_and_no_duplicate(pods, 600).await;
}

#[tokio::test]
async fn a_client_may_hear_of_its_own_tasks_only() {
    let (pod, _, address) = plain_pod().await;
    let (mut ada, hello) = Listener::json(address, "ada?format=json&tasks=own").await;
    for client in [Some("bob"), Some("ada"), None, Some("ada")] {
        end_one(&pod, client).await;
    }
    assert_eq!([number(&ada.next().await), number(&ada.next().await)], [2, 4]);
    // The same from the queue as from the ring.
    let (mut ada, _) =
        Listener::json(address, &format!("ada?tasks=own&after={}", hello["id"].as_str().unwrap())).await;
    assert_eq!([number(&ada.next().await), number(&ada.next().await)], [2, 4]);
}

#[tokio::test]
async fn what_happens_before_the_end_is_told_without_a_number() {
    let (pod, held, address) = plain_pod().await;
    let (mut ada, _) = Listener::json(address, "ada?format=json").await;
    let (mut bob, _) = Listener::json(address, "bob?format=json&hints=false").await;
    let (status, body) = pod::json(&pod.public, "POST", "/v1/create-task/").await;
    assert_eq!(status, 200);
    let mut frame = ada.next().await;
    if frame["type"] == "task.queued" {
        frame = ada.next().await;
    }
    let id = &body["task_id"];
    let started =
        json!({"type": "task.started", "task_id": id, "kind": "sleep", "client_id": null, "attempt": 1});
    assert_eq!(frame, started);
    held.let_go(1);
    assert_eq!(ada.event().await["type"], "task.succeeded");
    assert_eq!(bob.next().await["type"], "task.succeeded", "bob wants no hints");
}

#[tokio::test]
async fn a_place_that_is_not_in_this_queue_is_said_and_the_client_goes_on_from_the_head() {
    let (pod, _, address) = plain_pod().await;
    end_one(&pod, None).await;
    let (_, hello) = Listener::json(address, "ada?format=json").await;
    let stream = hello["stream"].as_str().unwrap();
    let elsewhere = [format!("{stream}.2"), format!("{stream}.1000"), "elsewhere.1".to_owned()];
    for (after, why) in elsewhere.iter().zip(["older copy", "older copy", "another queue"]) {
        let (mut ada, hello) = Listener::json(address, &format!("ada?after={after}")).await;
        assert_eq!((&hello["resumed"], &hello["missed"]), (&json!(false), &Value::Null), "{after}");
        assert!(hello["reason"].as_str().unwrap().contains(why), "{hello}");
        assert_eq!(hello["id"], hello["head"]);
        end_one(&pod, None).await;
        assert_eq!(number(&ada.event().await), number(&hello) + 1);
    }
}

async fn break_off(listener: Listener, pod: &Pod) {
    let before = pod.drain.status().connections;
    drop(listener);
    timeout(TIMEOUT, pod.drain.wait_until(|status| status.connections < before)).await.unwrap();
}

#[tokio::test]
async fn what_is_no_longer_kept_is_named() {
    let held = Held::default();
    let plan = Plan { keep_events: Duration::from_millis(1), capacity: 1000, ..Plan::of(held) };
    let pod = plan.pod().await;
    let address = pod.listen().await;
    let (_, hello) = Listener::json(address, "ada?format=json").await;
    end_many(&pod, 64).await;
    let store = pod.queue.store().unwrap();
    // Each second; and never the newest.
    let forgotten = async {
        while store.events(0, 1).await.unwrap().oldest < 64 {
            store.maintain().await.unwrap();
        }
    };
    timeout(TIMEOUT, forgotten).await.expect("old events are forgotten");
    let stream = hello["stream"].as_str().unwrap();
    let (mut ada, hello) = Listener::json(address, &format!("ada?after={stream}.3")).await;
    let missed = json!({"from": format!("{stream}.4"), "to": format!("{stream}.63")});
    assert_eq!((&hello["resumed"], &hello["missed"]), (&json!(true), &missed));
    assert_eq!(number(&ada.event().await), 64, "and what is kept comes");
    let (_, hello) = Listener::json(address, &format!("ada?after={stream}.63")).await;
    assert_eq!(hello["missed"], Value::Null, "who has seen all that is gone has missed nothing");
    let (_, hello) = Listener::json(address, "ada?format=json&last=1000").await;
    let oldest = json!(format!("{stream}.63"));
    assert_eq!((&hello["id"], &hello["missed"]), (&oldest, &Value::Null), "nor has who only looks back");
}

#[tokio::test]
async fn a_client_that_falls_behind_is_dropped_with_a_code() {
    let listening = HubSettings { behind: 16, ..HubSettings::default() };
    let pod = Plan { listening, ..Plan::of(Held::default()) }.pod().await;
    let address = pod.listen().await;
    let (mut slow, _) = Listener::json(address, "slow?format=json").await;
    // Who wants no hints is not dropped for them.
    let mut plain = Listener::open(address, "plain").await;
    assert_eq!(plain.text().await, "Not running inside Kubernetes");
    // More than the ring holds, before the session gets to run: this runtime has one thread.
    for _ in 0..100 {
        pod.hub.hint(&Hint {
            task_id: Uuid::nil(),
            kind: "sleep".to_owned(),
            client_id: None,
            what: What::Queued,
        });
    }
    assert_eq!(slow.heard().await, Heard::Close(1008, "too slow: events were missed".to_owned()));
    drop(slow);
    pod.drain.wait_until(|status| status.connections == 1).await;
    assert!(pod.metrics.text(&pod.drain).contains("graceful_server_slow_clients_dropped_total 1"));
    drop(plain);
    pod.drain.disconnected().await;
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_dropped_and_one_that_does_stays() {
    let (pod, _, address) = plain_pod().await;
    let (mut silent, _) = Listener::json(address, "silent?format=json").await;
    let (mut quiet, _) = Listener::json(address, "quiet?format=json").await;
    // From here on a minute passes as soon as nobody has anything to do.
    tokio::time::pause();
    let mut pings = 0;
    let reading = async {
        // Reading answers pings.
        while let Some(Ok(message)) = quiet.0.next().await {
            assert!(message.is_ping(), "{message:?}");
            pings += 1;
        }
    };
    assert!(timeout(Duration::from_secs(310), reading).await.is_err(), "it stays");
    assert_eq!((pings, pod.drain.status().connections), (12, 1));
    tokio::time::resume();
    // To its last bytes, without answering the pings before them now.
    let mut frames = Vec::new();
    silent.0.get_mut().read_to_end(&mut frames).await.unwrap();
    let close = [&1008_u16.to_be_bytes()[..], b"silent: no answer to pings"].concat();
    assert!(frames.ends_with(&close), "{}", String::from_utf8_lossy(&frames));
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_dropped_after_ten_seconds() {
    let (pod, _, address) = plain_pod().await;
    let (deaf, _) = Listener::json(address, "deaf?format=json").await;
    // More than the kernel keeps for a socket.
    for _ in 0..400 {
        pod.hub.hint(&Hint {
            task_id: Uuid::nil(),
            kind: "x".repeat(64 << 10),
            client_id: None,
            what: What::Queued,
        });
    }
    let dropped = |pod: &Pod| pod.metrics.text(&pod.drain).contains("slow_clients_dropped_total 1");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((pod.drain.status().connections, dropped(&pod)), (1, false), "it has its time");
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    pod.drain.disconnected().await;
    assert!(dropped(&pod));
    // The send, and then the close frame that it does not take either.
    let waited = begun.elapsed();
    assert!((Duration::from_secs(9)..Duration::from_secs(12)).contains(&waited), "{waited:?}");
    drop(deaf);
}

#[tokio::test]
async fn what_clients_send_is_bounded() {
    let (pod, _, address) = plain_pod().await;
    let (status, _, problem) = refused(address, &"x".repeat(129), None).await;
    assert_eq!((status, problem["field"].as_str()), (400, Some("client_id")));
    let mut big = Listener::open(address, "big").await;
    futures::SinkExt::send(&mut big.0, "x".repeat(5 * 1024).into()).await.unwrap();
    pod.drain.disconnected().await;
}

#[tokio::test]
async fn each_limit_is_answered_with_when_to_come_back() {
    let limits = Limits { total: 3, per_client: 1, per_address: 2 };
    let listening = HubSettings { limits, ..HubSettings::default() };
    let pod = Plan { listening, ..Plan::of(Held::default()) }.pod().await;
    let address = pod.listen().await;
    let first = Listener::open(address, "a").await;
    let (status, headers, problem) = refused(address, "a", None).await;
    assert_eq!((status, headers.contains_key("retry-after")), (429, true));
    assert!(problem["detail"].as_str().unwrap().contains("--max-sockets-per-client"), "{problem}");
    let _second = Listener::open(address, "b").await;
    let (status, headers, problem) = refused(address, "c", None).await;
    assert_eq!((status, headers.contains_key("retry-after")), (429, true));
    assert!(problem["detail"].as_str().unwrap().contains("--max-sockets-per-ip"), "{problem}");
    break_off(first, &pod).await;
    let _again = Listener::open(address, "a").await;
    let metrics = pod.metrics.text(&pod.drain);
    assert!(metrics.contains("graceful_server_requests_refused_total{reason=\"crowded\"} 2"), "{metrics}");
}

#[tokio::test]
async fn pages_of_other_sites_may_not_listen() {
    let (_pod, _, address) = plain_pod().await;
    let (status, headers, problem) = refused(address, "a", Some("https://evil.example")).await;
    assert_eq!((status, headers["content-type"].to_str().unwrap()), (403, "application/problem+json"));
    assert_eq!(problem["field"], "Origin");
    assert!(problem["detail"].as_str().unwrap().contains("--allowed-origins"), "{problem}");
}

#[tokio::test]
async fn a_wrong_parameter_is_named_before_the_upgrade() {
    let (_pod, _, address) = plain_pod().await;
    for (query, field) in [("format=xml", "format"), ("after=7", "after"), ("format=json&afer=s.1", "query")]
    {
        let (status, _, problem) = refused(address, &format!("a?{query}"), None).await;
        assert_eq!((status, problem["field"].as_str()), (400, Some(field)), "{query}");
    }
}

#[tokio::test]
async fn a_queue_that_was_replaced_has_other_numbers_and_each_client_is_told() {
    let (pod, _, address) = plain_pod().await;
    let (mut ada, hello) = Listener::json(address, "ada?format=json").await;
    end_one(&pod, None).await;
    assert_eq!(number(&ada.event().await), 1);
    let file = pod.folder.0.join("tasks.db");
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", file.display()));
    }
    let stream = hello["stream"].as_str().unwrap();
    // The server finds out by itself, each second.
    assert_eq!(ada.heard().await, Heard::Close(1012, "the queue was replaced".to_owned()));
    let (mut ada, hello) = Listener::json(address, &format!("ada?after={stream}.1")).await;
    assert_eq!((&hello["resumed"], number(&hello)), (&json!(false), 0));
    end_one(&pod, None).await;
    assert_eq!(number(&ada.event().await), 1);
}

#[tokio::test]
async fn an_older_copy_of_the_queue_gives_its_numbers_again_and_each_client_is_told() {
    let (pod, _, address) = plain_pod().await;
    let (mut ada, hello) = Listener::json(address, "ada?format=json&hints=false").await;
    end_one(&pod, None).await;
    let (file, copy) = (pod.folder.0.join("tasks.db"), pod.folder.0.join("copy.db"));
    let source = rusqlite::Connection::open(&file).unwrap();
    source.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    drop(source);
    end_many(&pod, 3).await;
    for expected in 1..=4 {
        assert_eq!(number(&ada.next().await), expected);
    }
    for suffix in ["-wal", "-shm"] {
        std::fs::remove_file(format!("{}{suffix}", file.display())).unwrap();
    }
    std::fs::rename(copy, file).unwrap();
    assert_eq!(ada.heard().await, Heard::Close(1012, "the queue was replaced".to_owned()));
    let stream = hello["stream"].as_str().unwrap();
    let (mut ada, hello) = Listener::json(address, &format!("ada?after={stream}.4")).await;
    assert!(hello["reason"].as_str().unwrap().contains("older copy"), "{hello}");
    assert_eq!((&hello["resumed"], number(&hello)), (&json!(false), 1));
    end_one(&pod, None).await;
    assert_eq!(number(&ada.event().await), 2);
}
