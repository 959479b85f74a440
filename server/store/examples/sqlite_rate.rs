//! What the SQLite engine does on this disk: `cargo run --release -p graceful-store --example sqlite_rate -- FOLDER`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use graceful_store::{Hold, NewTask, Outcome, Settings, StoreError, TaskStore, sqlite};
use uuid::Uuid;

const SPAN: Duration = Duration::from_secs(4);

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).map_or_else(|| PathBuf::from("target/sqlite-rate"), PathBuf::from);
    let settings = Settings {
        owner: "rate".to_owned(),
        capacity: u64::MAX,
        kinds: vec!["sleep".to_owned()],
        keep_events: Duration::from_secs(3600),
        owned: Arc::new(|_| ()),
    };
    let began = Instant::now();
    let store: Arc<dyn TaskStore> = sqlite::open(&folder, settings).await?;
    println!("open: {:?}, {:?}", began.elapsed(), store.counts().await?);
    for submitters in [1, 32, 128] {
        submits(&store, submitters).await?;
    }
    claims(&store).await?;
    starts(&store).await?;
    Ok(())
}

fn task(priority: i16) -> NewTask {
    NewTask {
        id: Uuid::now_v7(),
        kind: "sleep".to_owned(),
        input: r#"{"seconds":20}"#.to_owned(),
        client_id: None,
        priority,
        delay: Duration::ZERO,
        timeout: None,
        max_attempts: 10,
        keep: Duration::from_secs(3600),
        idempotency: None,
        trace: None,
    }
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 1000).copied().unwrap_or_default();
    format!("p50 {:?}, p99 {:?}, p99.9 {:?}", at(500), at(990), at(999))
}

async fn submits(store: &Arc<dyn TaskStore>, submitters: usize) -> Result<(), StoreError> {
    let began = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..submitters {
        let store = Arc::clone(store);
        clients.spawn(async move {
            let mut times = Vec::new();
            while began.elapsed() < SPAN {
                let one = Instant::now();
                store.submit(task(0), Hold::default()).await?;
                times.push(one.elapsed());
            }
            Ok::<_, StoreError>(times)
        });
    }
    let mut times = Vec::new();
    for client in clients.join_all().await {
        times.extend(client?);
    }
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    println!("{submitters} submitters: {rate:.0} submits/s, {}", percentiles(times));
    Ok(())
}

/// Takes and ends what waits, behind all that was submitted.
async fn claims(store: &Arc<dyn TaskStore>) -> Result<(), StoreError> {
    let (began, waiting) = (Instant::now(), store.counts().await?.queued);
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let store = Arc::clone(store);
        workers.spawn(async move {
            let mut times = Vec::new();
            while began.elapsed() < SPAN {
                let one = Instant::now();
                let claims = store.claim(1).await?;
                times.push(one.elapsed());
                for claim in claims {
                    store.complete(claim.lease, Outcome::Succeeded("1".to_owned())).await?;
                }
            }
            Ok::<_, StoreError>(times)
        });
    }
    let mut times = Vec::new();
    for worker in workers.join_all().await {
        times.extend(worker?);
    }
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    println!(
        "claim and complete, one each, from {waiting} waiting: {rate:.0}/s, claims {}",
        percentiles(times)
    );
    Ok(())
}

/// From the submission of a task to its claim by one who waits; and a submission alone, which is one commit.
async fn starts(store: &Arc<dyn TaskStore>) -> Result<(), StoreError> {
    const ROUNDS: usize = 2000;
    while store.counts().await?.queued > 0 {
        for claim in store.claim(5000).await? {
            drop(claim);
        }
    }
    let (mut commits, mut starts, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let one = Instant::now();
        store.submit(task(1), Hold::default()).await?;
        commits.push(one.elapsed());
        let claims = store.claim(1).await?;
        let claimer = tokio::spawn({
            let store = Arc::clone(store);
            async move { store.claim(1).await.map(|claims| (claims, Instant::now())) }
        });
        // The claimer is to be waiting by then.
        store.complete(claims[0].lease, Outcome::Released).await?;
        let (back, _) = claimer.await.map_err(|_| StoreError::Full)??;
        let claimer = tokio::spawn({
            let store = Arc::clone(store);
            async move { store.claim(1).await.map(|claims| (claims, Instant::now())) }
        });
        let one = Instant::now();
        store.complete(back[0].lease, Outcome::Succeeded("1".to_owned())).await?;
        ends.push(one.elapsed());
        let one = Instant::now();
        store.submit(task(1), Hold::default()).await?;
        let (claims, at) = claimer.await.map_err(|_| StoreError::Full)??;
        starts.push(at - one);
        store.complete(claims[0].lease, Outcome::Succeeded("1".to_owned())).await?;
    }
    println!("a submit alone: {}", percentiles(commits));
    println!("a complete alone: {}", percentiles(ends));
    println!("push to claim, idle: {}", percentiles(starts));
    Ok(())
}
