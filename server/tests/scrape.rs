//! `/metrics` beside a queue that hangs: the scrape answers at once, and says how old what it tells is.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]
#![allow(dead_code, reason = "each test file uses its part of the pod")]

mod pod;
mod silent;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use graceful_drain::{Drain, Settings};
use graceful_server::queue::{Opener, Queue};
use graceful_store::{Counts, QueueCounts, QueueRecord, QueueSettings, TaskStore};
use silent::{Listing, Silent};
use tokio::time::{Instant, advance, sleep, timeout};

const DEPTH: &str = "graceful_server_queue_depth{state=\"queued\"} 3";
const MAIL: &str = "graceful_server_queue_waiting{queue=\"mail\"} 3";
const UP: &str = "graceful_server_queue_up 1";
const DOWN: &str = "graceful_server_queue_up 0";

fn silent() -> Arc<Silent> {
    let counts = Counts { queued: 3, ..Counts::default() };
    let mail = QueueRecord {
        name: "mail".to_owned(),
        settings: QueueSettings::default(),
        paused: false,
        counts: QueueCounts { queued: 3, ..QueueCounts::default() },
    };
    Silent::new(counts, vec![mail])
}

/// What Prometheus is told, which takes no time at all.
async fn scrape(admin: &Router) -> Vec<String> {
    let begun = Instant::now();
    let asked = timeout(Duration::from_secs(60), pod::ask(admin, "GET", "/metrics"));
    let (status, _, text) = asked.await.expect("the scrape waits for the queue");
    assert_eq!((status.as_u16(), begun.elapsed()), (200, Duration::ZERO));
    text.lines().map(str::to_owned).collect()
}

fn says(told: &[String], line: &str) -> bool {
    told.iter().any(|one| one == line)
}

fn age(told: &[String]) -> Option<f64> {
    let name = "graceful_server_queue_figures_age_seconds ";
    told.iter().find_map(|line| line.strip_prefix(name)).map(|age| age.parse().unwrap())
}

/// A queue on that store, and the admin port of its pod.
fn pod_on(store: &Arc<Silent>) -> (Arc<Queue>, Router) {
    let (drain, opened) = (Drain::new(Settings::default()), store.clone());
    let opener: Opener = Box::new(move || {
        let store: Arc<dyn TaskStore> = opened.clone();
        Box::pin(async { Ok(store) })
    });
    let queue = Queue::keep(opener, true, drain.clone(), Arc::default(), None);
    let (_, admin) = pod::routes(drain, queue.clone());
    (queue, admin)
}

#[tokio::test(start_paused = true)]
async fn a_scrape_waits_for_no_queue_and_tells_no_old_figure() {
    let store = silent();
    let (queue, admin) = pod_on(&store);
    assert!(says(&scrape(&admin).await, DOWN), "it is not open yet");
    queue.opened().await;
    sleep(Duration::from_millis(1)).await;
    let told = scrape(&admin).await;
    assert!([DEPTH, MAIL, UP].iter().all(|line| says(&told, line)), "{told:?}");

    // A look has begun, and another one comes: neither is waited for, and what is known is told while it is young.
    store.hush(true);
    advance(Duration::from_secs(29)).await;
    let told = scrape(&admin).await;
    assert!([DEPTH, MAIL, UP].iter().all(|line| says(&told, line)), "{told:?}");
    assert!(age(&told).unwrap() >= 29.0, "{told:?}");
    advance(Duration::from_secs(1)).await;
    let told = scrape(&admin).await;
    assert!(says(&told, DOWN) && ![DEPTH, MAIL].iter().any(|line| says(&told, line)), "{told:?}");
    assert!(age(&told).unwrap() >= 30.0, "{told:?}");

    store.hush(false);
    sleep(Duration::from_secs(3)).await;
    let told = scrape(&admin).await;
    assert!([DEPTH, MAIL, UP].iter().all(|line| says(&told, line)), "{told:?}");
    assert!(age(&told).unwrap() < 3.0, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_answers_slowly_is_up_all_the_time() {
    let store = silent();
    store.slow_down(Duration::from_secs(6));
    let (queue, admin) = pod_on(&store);
    queue.opened().await;
    sleep(Duration::from_secs(7)).await;
    for second in 0..60 {
        let told = scrape(&admin).await;
        assert!([DEPTH, MAIL, UP].iter().all(|line| says(&told, line)), "after {second} s: {told:?}");
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_whose_single_queues_cannot_be_read_is_up() {
    for listing in [Listing::Fails, Listing::Hangs] {
        let store = silent();
        store.listing(listing);
        let (queue, admin) = pod_on(&store);
        queue.opened().await;
        sleep(Duration::from_secs(60)).await;
        let told = scrape(&admin).await;
        assert!([DEPTH, UP].iter().all(|line| says(&told, line)) && !says(&told, MAIL), "{told:?}");
        assert!(age(&told).unwrap() < 3.0, "{told:?}");

        store.listing(Listing::Works);
        sleep(Duration::from_secs(3)).await;
        let told = scrape(&admin).await;
        assert!([DEPTH, MAIL, UP].iter().all(|line| says(&told, line)), "{told:?}");
    }
}
