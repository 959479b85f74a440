//! How long a claim takes while 300,000 tasks wait, by the number of their queues, on each engine.
//!
//! `cargo run -p graceful-store --example claims -- TASKS QUEUES…` prints milliseconds: the tenth, the middle and the 99th of a hundred, for
//! claims of one task and of thirty. Nothing else should run on the machine; where something does, the tenth says more than the rest.
#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use graceful_postgres::Postgres;
use graceful_store::{
    DEFAULT_QUEUE, Hold, NewTask, Outcome, QueueSettings, StoreSettings, TaskStore, postgres, sqlite,
};
use uuid::Uuid;

const CLAIMS: usize = 200;
/// Submissions on their way at a time.
const AT_ONCE: usize = 2000;

#[tokio::main]
async fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).map(|number| number.parse().unwrap()).collect();
    let (tasks, queues) = numbers.split_first().expect("write TASKS QUEUES…");
    println!("engine    queues  claim of 1: p10   p50   p99   of 30: p10   p50   p99");
    let server = Postgres::start().unwrap();
    for queues in queues {
        let folder = std::env::temp_dir().join(format!("claims-{}", Uuid::new_v4()));
        let store = sqlite::open(&folder, settings()).await.unwrap();
        measure("sqlite", store, *tasks, *queues).await;
        std::fs::remove_dir_all(folder).unwrap();
        let url = server.url(&server.create_database().unwrap());
        let store = postgres::open(&url, settings()).await.unwrap();
        measure("postgres", store, *tasks, *queues).await;
    }
}

async fn measure(engine: &str, store: Arc<dyn TaskStore>, tasks: usize, queues: usize) {
    let names: Vec<_> = (0..queues)
        .map(|number| if number == 0 { DEFAULT_QUEUE.to_owned() } else { format!("q{number}") })
        .collect();
    for name in names.iter().skip(1) {
        store.put_queue(name, QueueSettings::default()).await.unwrap();
    }
    for begin in (0..tasks).step_by(AT_ONCE) {
        let each = |number: usize| store.submit(task(&names[number % queues]), Hold::default());
        for submitted in join_all((begin..begin + AT_ONCE).map(each)).await {
            submitted.unwrap();
        }
    }
    // As the server does, so that a database has been looked at.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (one, thirty) = (claims(&store, 1).await, claims(&store, 30).await);
    println!("{engine:<9} {queues:>6}  {one}  {thirty}");
}

async fn claims(store: &Arc<dyn TaskStore>, most: usize) -> String {
    let mut took = Vec::new();
    for _ in 0..CLAIMS {
        let begun = Instant::now();
        let claims = store.claim(most).await.unwrap();
        took.push(begun.elapsed());
        assert_eq!(claims.len(), most);
        let done = || Outcome::Succeeded("1".to_owned());
        join_all(claims.iter().map(|claim| store.complete(claim.lease, done()))).await;
    }
    took.sort();
    let millis = |part: usize| took[took.len() * part / 100].as_secs_f64() * 1000.0;
    format!("{:>15.2} {:>6.2} {:>6.2}", millis(10), millis(50), millis(99))
}

fn settings() -> StoreSettings {
    StoreSettings {
        owner: "bench/1".to_owned(),
        capacity: u64::MAX,
        kinds: vec!["sleep".to_owned()],
        keep_events: Duration::from_secs(3600),
        max_interruptions: 10,
        keep_dead: Duration::from_secs(3600),
        owned: Arc::new(|_| {}),
        letters: Arc::new(|_| {}),
    }
}

fn task(queue: &str) -> NewTask {
    NewTask {
        id: Uuid::now_v7(),
        kind: "sleep".to_owned(),
        input: "{}".to_owned(),
        client_id: None,
        queue: queue.to_owned(),
        concurrency_key: None,
        priority: 0,
        delay: Duration::ZERO,
        timeout: None,
        max_attempts: 3,
        keep: Duration::from_secs(3600),
        keep_dead: None,
        idempotency: None,
        trace: None,
    }
}
