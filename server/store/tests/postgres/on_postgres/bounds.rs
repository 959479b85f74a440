//! What a call may take: of others' time.

use std::time::Duration;

use graceful_store::{QueueRemoved, QueueSettings};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::conformance::fixture::{LONG, is_busy, settings, submit, task};
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
