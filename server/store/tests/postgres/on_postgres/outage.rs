//! The server stops, dies, or stands still: each call ends, and all goes on by itself.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use graceful_postgres::Postgres;
use graceful_store::{Filter, Held, Hold, NewTask, Outcome, State, StoreError, TaskStore};
use tokio::time::{Instant, interval, timeout};
use uuid::Uuid;

use super::conformance::fixture::{
    LONG, claim_one, complete, done, get, is_busy, settings, submit, submit_mebibytes, task,
};
use super::{is_away, maintained, open};

async fn server() -> (Postgres, String) {
    let server = Postgres::start().unwrap();
    let url = server.url(&server.create_database().unwrap());
    (server, url)
}

/// Every call answers in time that the database is away.
async fn all_calls_end(store: &Arc<dyn TaskStore>, lease: graceful_store::Lease) {
    async fn away<T: Debug>(call: impl Future<Output = Result<T, StoreError>>) {
        let answer = timeout(Duration::from_secs(8), call).await.expect("a call hangs");
        assert!(is_away(answer));
    }
    let filter = Filter::default();
    tokio::join!(
        away(store.submit(task(), Hold::default())),
        away(store.claim(1)),
        away(store.renew(std::slice::from_ref(&lease))),
        away(store.progress(lease, "1".to_owned())),
        away(store.complete(lease, done())),
        away(store.cancel(lease.id)),
        away(store.retry(lease.id, Hold::default())),
        away(store.get(lease.id)),
        away(store.list(&filter, None, 10)),
        away(store.events(0, 10)),
        away(store.maintain()),
    );
}

async fn works_again(store: &Arc<dyn TaskStore>) -> Uuid {
    let since = Instant::now();
    let new = task();
    let id = new.id;
    while is_away(store.submit(new.clone(), Hold::default()).await) {
        assert!(since.elapsed() < LONG, "it does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_server_that_hangs_fills_no_memory() {
    let (server, url) = server().await;
    let store = open(&url, settings()).await;
    server.pause().unwrap();
    let answers = submit_mebibytes(&store, 70).await;
    assert_eq!(answers.iter().filter(|answer| is_busy(answer)).count(), 7, "64 MiB may wait");
    server.resume().unwrap();
    works_again(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_and_comes_back_has_all_that_was_accepted() {
    let (server, url) = server().await;
    let store = open(&url, settings()).await;
    let before = submit(&store, task()).await;
    let runs = claim_one(&store).await.lease;
    assert_eq!(runs.id, before);
    let waits = submit(&store, task()).await;
    server.kill().unwrap();
    all_calls_end(&store, runs).await;
    server.start_again().unwrap();
    let after = works_again(&store).await;
    // Whether it was written the first time is not known; now it is.
    complete(&store, runs, done()).await;
    let mut head = store.head();
    timeout(LONG, head.wait_for(|head| *head == 1)).await.unwrap().unwrap();
    let mut claimed = vec![claim_one(&store).await.lease.id, claim_one(&store).await.lease.id];
    claimed.sort();
    assert_eq!(claimed, [waits, after]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_is_survived_by_waiting_claims_and_listeners() {
    let (server, url) = server().await;
    let (a, b) = (open(&url, settings()).await, open(&url, settings()).await);
    let mut cancellations = a.cancellations();
    server.restart().unwrap();
    // Only a hint tells of a wish to cancel: once one comes, the listener is back.
    let heard = async {
        loop {
            works_again(&a).await;
            let Ok(claims) = a.claim(1).await else { continue };
            let asked = b.cancel(claims[0].lease.id).await;
            if !is_away(asked) && timeout(Duration::from_secs(1), cancellations.recv()).await.is_ok() {
                return;
            }
        }
    };
    timeout(LONG, heard).await.expect("no hint comes any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_standstill_owners_renew_before_anyone_judges_them() {
    let (server, url) = server().await;
    let (dies, lives, judges) =
        (open(&url, settings()).await, open(&url, settings()).await, open(&url, settings()).await);
    let orphan = submit(&dies, task()).await;
    assert_eq!(claim_one(&dies).await.lease.id, orphan);
    let kept = submit(&lives, NewTask { priority: 1, ..task() }).await;
    let lease = claim_one(&lives).await.lease;
    assert_eq!(lease.id, kept);
    let _maintained = (maintained(&judges), maintained(&lives));
    // Seen steady for a lease, so that without a second look all would be judged at once.
    for _ in 0..4 {
        assert_eq!(lives.renew(&[lease]).await.unwrap(), [Held::Yes]);
        tokio::time::sleep(lives.renew_every().unwrap()).await;
    }
    server.pause().unwrap();
    drop(dies);
    all_calls_end(&judges, graceful_store::Lease { id: Uuid::nil(), attempt: 1 }).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    server.resume().unwrap();
    // Its lease is long over; an owner may take some seconds to find its way back.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let renewing = tokio::spawn({
        let lives = lives.clone();
        async move {
            let mut beats = interval(lives.renew_every().unwrap());
            loop {
                beats.tick().await;
                if let Ok(held) = lives.renew(&[lease]).await {
                    assert_eq!(held, [Held::Yes], "judged before it could renew");
                }
            }
        }
    });
    let inherited = loop {
        match timeout(LONG, judges.claim(5)).await.unwrap() {
            Ok(claims) if claims.iter().any(|claim| claim.lease.id == orphan) => break claims,
            Ok(_) => {}
            Err(error) => assert!(is_away::<()>(Err(error))),
        }
    };
    assert!(inherited.iter().all(|claim| claim.lease.id != kept));
    assert!(!renewing.is_finished());
    renewing.abort();
    assert_eq!((get(&lives, kept).await.state, get(&lives, kept).await.attempt), (State::Running, 1));
    complete(&lives, lease, Outcome::Succeeded("1".to_owned())).await;
}
