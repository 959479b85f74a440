//! Counting: what a drain waits for.

use std::time::Duration;

use graceful_store::{Counts, Hold, NewTask, Outcome, Owned};

use super::fixture::{
    Fixture, claim, claim_one, complete, done, failed, settings, submit, task, until, watched,
};

pub(crate) async fn owned_is_exact_at_each_step(fixture: &impl Fixture) {
    let (settings, told) = watched();
    let store = fixture.open(settings).await;
    let shared = store.shared();
    let owns = |queued, running| {
        let queued = if shared { 0 } else { queued };
        let Owned { queued: waiting, running: busy, delayed: _ } = told.latest();
        assert_eq!((waiting, busy), (queued, running));
    };
    owns(0, 0);
    submit(&store, task()).await;
    owns(1, 0);
    let delayed = submit(&store, NewTask { delay: Duration::from_secs(60), ..task() }).await;
    owns(2, 0);
    let first = claim_one(&store).await.lease;
    owns(1, 1);
    submit(&store, task()).await;
    submit(&store, task()).await;
    owns(3, 1);
    let two = claim(&store, 5).await;
    owns(1, 3);
    complete(&store, first, failed("no")).await;
    owns(2, 2);
    complete(&store, two[0].lease, Outcome::Released).await;
    owns(3, 1);
    complete(&store, two[1].lease, Outcome::Failed { error: String::new(), retry: None }).await;
    owns(3, 0);
    store.retry(two[1].lease.id, Hold::default()).await.unwrap();
    owns(4, 0);
    store.cancel(delayed).await.unwrap();
    owns(3, 0);
    // A second end of the same attempt changes nothing.
    store.complete(two[1].lease, done()).await.unwrap();
    owns(3, 0);
    while let left @ 1.. = 3 - store.list(&succeeded(), None, 10).await.unwrap().tasks.len() {
        let lease = claim_one(&store).await.lease;
        owns(left as u64 - 1, 1);
        complete(&store, lease, done()).await;
        owns(left as u64 - 1, 0);
    }
}

fn succeeded() -> graceful_store::Filter {
    graceful_store::Filter { states: vec![graceful_store::State::Succeeded], ..Default::default() }
}

pub(crate) async fn counts_follow_the_tasks(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    // May be up to a second old.
    let counted = async |queued, delayed, running, dead| {
        let expected = Counts { queued, delayed, running, dead };
        until(&store, "counted", async || store.counts().await.unwrap() == expected).await;
    };
    counted(0, 0, 0, 0).await;
    for _ in 0..3 {
        submit(&store, task()).await;
    }
    let delayed = submit(&store, NewTask { delay: Duration::from_secs(60), ..task() }).await;
    counted(3, 1, 0, 0).await;
    let claims = claim(&store, 2).await;
    counted(1, 1, 2, 0).await;
    let wait = Outcome::Failed { error: String::new(), retry: Some(Duration::from_millis(2500)) };
    complete(&store, claims[0].lease, wait).await;
    complete(&store, claims[1].lease, Outcome::Failed { error: String::new(), retry: None }).await;
    counted(1, 2, 0, 1).await;
    // Time passes without anyone claiming.
    counted(2, 1, 0, 1).await;
    store.cancel(delayed).await.unwrap();
    store.retry(claims[1].lease.id, Hold::default()).await.unwrap();
    counted(3, 0, 0, 0).await;
}
