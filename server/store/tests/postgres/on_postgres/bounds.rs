//! What a call may take: of others' time, of the database, and of a bucket that was filled by another clock.

use std::num::NonZeroU32;
use std::time::Duration;

use graceful_store::{NewTask, QueueRemoved, QueueSettings, Rate};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::conformance::fixture::{LONG, claim_one, complete, done, is_busy, settings, submit, task};
use super::{SERVER, database, open};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_removes_a_queue_gives_up_soon_where_others_write_for_long() {
    let database = database().await;
    let store = open(&database.0, settings()).await;
    store.put_queue("mail", QueueSettings::default()).await.unwrap();
    let name = database.name().to_owned();
    let writes = spawn_blocking({
        let name = name.clone();
        move || {
            let held = "SET application_name = 'writes'; BEGIN; LOCK TABLE graceful_tasks IN ROW EXCLUSIVE MODE; SELECT pg_sleep(60)";
            SERVER.sql(&name, held).ok()
        }
    });
    let held = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
         WHERE a.datname = current_database() AND a.application_name = 'writes' AND l.relation = 'graceful_tasks'::regclass";
    let end = Instant::now() + LONG;
    while SERVER.sql(&name, held).unwrap() == "0" {
        assert!(Instant::now() < end);
        sleep(Duration::from_millis(20)).await;
    }
    // Whoever submits meanwhile waits as long as it does.
    let (removed, _) = tokio::join!(store.remove_queue("mail"), async {
        sleep(Duration::from_millis(50)).await;
        submit(&store, task()).await
    });
    assert!(is_busy(&removed), "{removed:?}");
    SERVER
        .sql(
            &name,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'writes'",
        )
        .unwrap();
    assert_eq!(writes.await.unwrap(), None);
    assert_eq!(store.remove_queue("mail").await.unwrap(), QueueRemoved::Now);
}

#[tokio::test]
async fn a_bucket_that_was_filled_in_the_future_is_full() {
    let database = database().await;
    let store = open(&database.0, settings()).await;
    let rate = Rate { per_second: 0.001, burst: NonZeroU32::new(2).unwrap() };
    store.put_queue("slow", QueueSettings { rate: Some(rate), ..QueueSettings::default() }).await.unwrap();
    for _ in 0..3 {
        submit(&store, NewTask { queue: "slow".to_owned(), ..task() }).await;
    }
    for _ in 0..2 {
        complete(&store, claim_one(&store).await.lease, done()).await;
    }
    // The database's clock had been an hour ahead.
    let ahead = "UPDATE graceful_queues SET filled = filled + 3600000 WHERE name = 'slow'";
    SERVER.sql(database.name(), ahead).unwrap();
    claim_one(&store).await;
}

/// Keys of the queue `later`, one task each, of which none is due for a long time.
fn delayed_keys(name: &str, keys: u32) {
    let delayed = format!(
        "INSERT INTO graceful_tasks (id, state, priority, attempt, max_attempts, granted, created, due, keep, kind, input, queue, lane) \
         SELECT lpad(to_hex(number), 32, '0')::uuid, 'queued', 0, 0, 1, 1, 0, {}, 0, 'sleep', '{{}}', 'later', lpad(number::text, 6, '0') \
         FROM generate_series(1, {keys}) AS number; ANALYZE graceful_tasks",
        i64::MAX / 2
    );
    SERVER.sql(name, &delayed).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_looks_at_few_of_many_keys_and_comes_to_each_of_them() {
    const KEYS: u32 = 20_000;
    let database = database().await;
    let name = database.name();
    SERVER.sql(name, &format!("ALTER DATABASE {name} SET log_statement = 'all'")).unwrap();
    let store = open(&database.0, settings()).await;
    store.put_queue("later", QueueSettings::default()).await.unwrap();
    delayed_keys(name, KEYS);
    submit(&store, task()).await;
    let looks = || {
        let log = std::fs::read_to_string(SERVER.log()).unwrap();
        log.matches("WITH RECURSIVE asked").count()
    };
    let before = looks();
    complete(&store, claim_one(&store).await.lease, done()).await;
    let looked = looks() - before;
    // 200 pages have them all.
    assert!((1..=20).contains(&looked), "{looked} pages");
    // One in the midst of them becomes due: no single look comes so far.
    SERVER.sql(name, &format!("UPDATE graceful_tasks SET due = 1 WHERE lane = '{:06}'", KEYS - 150)).unwrap();
    let found = claim_one(&store).await;
    assert_eq!(found.lease.id, Uuid::from_u128(u128::from(KEYS - 150)));
}
