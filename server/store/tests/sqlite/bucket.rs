//! A bucket of starts outlives its process, and the clock by which it was filled.

use std::num::NonZeroU32;

use graceful_store::{NewTask, QueueSettings, Rate};
use rusqlite::Connection;

use crate::conformance::fixture::{claim_one, complete, done, settings, submit, task};
use crate::{Folder, open};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_was_filled_in_the_future_fills_from_now_on() {
    let folder = Folder::new();
    let store = open(&folder.0, settings()).await;
    let rate = Rate { per_second: 5.0, burst: NonZeroU32::MIN };
    store.put_queue("slow", QueueSettings { rate: Some(rate), ..QueueSettings::default() }).await.unwrap();
    for _ in 0..3 {
        submit(&store, NewTask { queue: "slow".to_owned(), ..task() }).await;
    }
    complete(&store, claim_one(&store).await.lease, done()).await;
    drop(store);
    // The machine's clock had been an hour ahead.
    let ahead = "UPDATE queues SET tokens = 0, filled = filled + 3600000 WHERE name = 'slow'";
    assert_eq!(Connection::open(folder.file()).unwrap().execute(ahead, []).unwrap(), 1);
    let store = open(&folder.0, settings()).await;
    for _ in 0..2 {
        complete(&store, claim_one(&store).await.lease, done()).await;
    }
}
