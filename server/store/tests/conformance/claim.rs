//! Claims: in order, once, and never lost on the way.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use graceful_store::{Filter, Hold, Lease, NewTask, State};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::fixture::{
    Fixture, LONG, claim, claim_one, complete, done, failed, get, nothing_to_claim, settings, submit, task,
    until, watched,
};

pub(crate) async fn a_claim_brings_all_that_a_handler_needs(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let new = NewTask {
        kind: "mail".to_owned(),
        input: r#"{"to": "ada"}"#.to_owned(),
        client_id: Some("c".to_owned()),
        timeout: Some(Duration::from_millis(1500)),
        max_attempts: 9,
        trace: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        ..task()
    };
    let id = submit(&store, new.clone()).await;
    let claim = claim_one(&store).await;
    assert_eq!(claim.lease, Lease { id, attempt: 1 });
    assert_eq!((claim.kind, claim.input, claim.client_id), (new.kind, new.input, new.client_id));
    assert_eq!((claim.timeout, claim.max_attempts, claim.trace), (new.timeout, 9, new.trace));
    assert!(claim.waited < LONG, "{:?}", claim.waited);
    let found = get(&store, id).await;
    assert_eq!((found.state, found.attempt, found.created), (State::Running, 1, claim.created));
    assert!(found.started.is_some_and(|started| started >= found.created));
}

pub(crate) async fn an_input_of_any_length_arrives_whole(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    for length in [0, 100, 510, 511, 3000, 300_000] {
        let input = format!("\"{}\"", "é".repeat(length / 2) + &"x".repeat(length % 2));
        let id = submit(&store, NewTask { input: input.clone(), max_attempts: 2, ..task() }).await;
        assert_eq!(get(&store, id).await.input, input);
        complete(&store, claim_one(&store).await.lease, failed("once")).await;
        let again = claim_one(&store).await;
        assert_eq!(again.input, input);
        complete(&store, again.lease, done()).await;
        assert_eq!(store.list(&Filter::default(), None, 1).await.unwrap().tasks[0].input, input);
    }
}

pub(crate) async fn higher_priority_comes_first_then_the_oldest(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let mut expected = Vec::new();
    for (place, priority) in [0, 5, -3, 5, 0, i16::MAX, i16::MIN].into_iter().enumerate() {
        let id = submit(&store, NewTask { priority, ..task() }).await;
        expected.push((std::cmp::Reverse(priority), place, id));
    }
    // Its time has not come, whatever its priority.
    let later = NewTask { priority: 9, delay: Duration::from_secs(60), ..task() };
    submit(&store, later).await;
    expected.sort();
    let mut found = Vec::new();
    while found.len() < expected.len() {
        found.extend(claim(&store, 3).await.into_iter().map(|claim| claim.lease.id));
    }
    assert_eq!(found, expected.into_iter().map(|(_, _, id)| id).collect::<Vec<_>>());
    nothing_to_claim(&store).await;
}

pub(crate) async fn each_of_many_priorities_has_its_turn(fixture: &impl Fixture) {
    const MANY: i16 = 110;
    let store = fixture.open(settings()).await;
    let all = |delay| {
        let each = |step: i16| {
            let new = NewTask { priority: step * 7 % MANY, delay, ..task() };
            store.submit(new, Hold::default())
        };
        join_all((0..MANY).map(each))
    };
    all(Duration::ZERO).await;
    let mut found = Vec::new();
    while found.len() < MANY as usize {
        for claim in claim(&store, 200).await {
            found.push(get(&store, claim.lease.id).await.priority);
        }
    }
    assert_eq!(found, (0..MANY).rev().collect::<Vec<_>>());
    // The first that is due is below them all.
    all(Duration::from_secs(3600)).await;
    let soon = NewTask { priority: -1, delay: Duration::from_millis(50), ..task() };
    let id = submit(&store, soon).await;
    assert_eq!(claim_one(&store).await.lease.id, id);
    nothing_to_claim(&store).await;
}

pub(crate) async fn a_claim_waits_for_a_task(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    nothing_to_claim(&store).await;
    let claimer = tokio::spawn({
        let store = Arc::clone(&store);
        async move { claim(&store, 10).await }
    });
    let id = submit(&store, task()).await;
    let claims = timeout(LONG, claimer).await.unwrap().unwrap();
    assert_eq!(claims.iter().map(|claim| claim.lease.id).collect::<Vec<_>>(), [id]);
}

pub(crate) async fn a_delayed_task_waits_for_its_time_and_no_longer(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let delay = Duration::from_millis(400);
    let began = Instant::now();
    let id = submit(&store, NewTask { delay, ..task() }).await;
    assert_eq!(claim_one(&store).await.lease.id, id);
    // Clocks in milliseconds: one of them may have just begun.
    assert!(began.elapsed() >= delay - Duration::from_millis(2), "{:?}", began.elapsed());
    let found = get(&store, id).await;
    let late = found.started.unwrap() - found.due;
    assert!((0..10_000).contains(&late), "{late} ms late");
}

pub(crate) async fn each_task_goes_to_one_claimer(fixture: &impl Fixture) {
    const TASKS: usize = 200;
    let store = fixture.open(settings()).await;
    let (claimed, mut seen) = mpsc::unbounded_channel();
    let mut claimers = tokio::task::JoinSet::new();
    for most in 1..=8 {
        let (store, claimed) = (Arc::clone(&store), claimed.clone());
        claimers.spawn(async move {
            loop {
                let claims = store.claim(most).await.unwrap();
                assert!((1..=most).contains(&claims.len()));
                for claim in claims {
                    assert_eq!(complete(&store, claim.lease, done()).await, State::Succeeded);
                    claimed.send(claim.lease.id).unwrap();
                }
            }
        });
    }
    drop(claimed);
    let mut submitted = BTreeSet::new();
    for _ in 0..TASKS {
        submitted.insert(submit(&store, task()).await);
    }
    let mut ids = Vec::new();
    while ids.len() < TASKS {
        ids.push(timeout(LONG, seen.recv()).await.expect("all are claimed").expect("the claimers live"));
    }
    // A task that went to two comes once more, and soon.
    tokio::time::sleep(Duration::from_millis(500)).await;
    ids.extend(std::iter::from_fn(|| seen.try_recv().ok()));
    assert_eq!(ids.len(), TASKS, "a task went to two");
    assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), submitted);
}

pub(crate) async fn a_dropped_claim_loses_nothing(fixture: &impl Fixture) {
    let (settings, told) = watched();
    let store = fixture.open(settings).await;
    let mut taken = 0_u16;
    for round in 0..40_u64 {
        let id = submit(&store, NewTask { max_attempts: 1, ..task() }).await;
        // From dropped before it is polled to dropped about when the answer comes.
        let patience = Duration::from_micros(round * 100);
        let claimed = timeout(patience, store.claim(1)).await;
        let lease = match claimed {
            Ok(claims) => {
                taken += 1;
                claims.unwrap()[0].lease
            }
            Err(_) => claim_one(&store).await.lease,
        };
        assert_eq!(lease, Lease { id, attempt: 1 }, "a lost claim counted as an attempt");
        assert_eq!(complete(&store, lease, done()).await, State::Succeeded);
    }
    println!("{taken} of 40 were claimed in time");
    until(&store, "nothing is owned", async || told.latest() == graceful_store::Owned::default()).await;
    // A count may be a second old, of when the last one was still running.
    until(&store, "nothing runs", async || store.counts().await.unwrap().running == 0).await;
}

pub(crate) async fn a_claim_of_nothing_is_nothing(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    submit(&store, task()).await;
    assert_eq!(store.claim(0).await.unwrap(), []);
    claim_one(&store).await;
}
