//! What is remembered of a task's attempts.

use std::time::Duration;

use graceful_store::{Attempt, Hold, NewTask, Outcome, State, StoreSettings};

use super::fixture::{Fixture, claim_one, complete, done, failed, get, settings, submit, task, until};

fn on(pod: &str) -> StoreSettings {
    StoreSettings { owner: format!("{pod}/{}", uuid::Uuid::new_v4()), ..settings() }
}

/// Each attempt's number, pod and error.
fn told(attempts: &[Attempt]) -> Vec<(u16, &str, Option<&str>)> {
    let told = attempts
        .iter()
        .map(|attempt| (attempt.number, attempt.pod.as_deref().unwrap_or("?"), attempt.error.as_deref()));
    told.collect()
}

pub(crate) async fn each_attempt_is_told_with_its_pod_times_and_error(fixture: &impl Fixture) {
    let store = fixture.open(on("one")).await;
    let id = submit(&store, NewTask { max_attempts: 3, ..task() }).await;
    assert_eq!(get(&store, id).await.attempts, Some(vec![]), "none yet");
    complete(&store, claim_one(&store).await.lease, failed("no luck")).await;
    let found = get(&store, id).await;
    assert_eq!(told(found.attempts.as_ref().unwrap()), [(1, "one", Some("no luck"))]);
    let lease = claim_one(&store).await.lease;
    let found = get(&store, id).await.attempts.unwrap();
    assert_eq!(told(&found), [(1, "one", Some("no luck")), (2, "one", None)]);
    assert_eq!(found[1].ended, None, "it runs");
    complete(&store, lease, done()).await;
    let record = get(&store, id).await;
    let found = record.attempts.clone().unwrap();
    assert_eq!(told(&found), [(1, "one", Some("no luck")), (2, "one", None)]);
    assert_eq!((Some(found[1].started), found[1].ended), (record.started, record.ended));
    let first = &found[0];
    assert!(record.created <= first.started && first.started <= first.ended.unwrap(), "{found:?}");
    assert!(first.ended.unwrap() <= found[1].started, "{found:?}");
    let page = store.list(&Default::default(), None, 10).await.unwrap();
    assert_eq!(page.tasks[0].attempts, None, "a list has none");
}

pub(crate) async fn an_attempt_whose_process_died_is_told_with_its_pod(fixture: &impl Fixture) {
    let store = fixture.open(on("one")).await;
    let id = submit(&store, task()).await;
    claim_one(&store).await;
    fixture.crash(store).await;
    let store = fixture.open(on("other")).await;
    let lease = claim_one(&store).await.lease;
    let found = get(&store, id).await.attempts.unwrap();
    assert_eq!(found.iter().map(|one| one.pod.as_deref()).collect::<Vec<_>>(), [Some("one"), Some("other")]);
    assert!(found[0].error.is_some() && found[0].ended.is_some(), "{found:?}");
    complete(&store, lease, done()).await;
}

pub(crate) async fn an_attempt_that_was_given_back_was_none(fixture: &impl Fixture) {
    let store = fixture.open(on("one")).await;
    let id = submit(&store, task()).await;
    complete(&store, claim_one(&store).await.lease, failed("no")).await;
    complete(&store, claim_one(&store).await.lease, Outcome::Released).await;
    assert_eq!(told(&get(&store, id).await.attempts.unwrap()), [(1, "one", Some("no"))]);
}

pub(crate) async fn a_retry_by_hand_forgets_no_attempt(fixture: &impl Fixture) {
    let store = fixture.open(on("one")).await;
    let id = submit(&store, NewTask { max_attempts: 2, ..task() }).await;
    for error in ["first", "second"] {
        complete(&store, claim_one(&store).await.lease, failed(error)).await;
    }
    assert_eq!(get(&store, id).await.state, State::Dead);
    let dead = [(1, "one", Some("first")), (2, "one", Some("second"))];
    assert_eq!(told(&get(&store, id).await.attempts.unwrap()), dead);
    store.retry(id, Hold::default()).await.unwrap();
    assert_eq!(told(&get(&store, id).await.attempts.unwrap()), dead);
    complete(&store, claim_one(&store).await.lease, done()).await;
    let all = get(&store, id).await.attempts.unwrap();
    assert_eq!(told(&all), [dead[0], dead[1], (3, "one", None)]);
}

pub(crate) async fn only_the_latest_attempts_are_kept_and_only_the_beginning_of_an_error(
    fixture: &impl Fixture,
) {
    let store = fixture.open(on("one")).await;
    let id = submit(&store, NewTask { max_attempts: 100, ..task() }).await;
    let long = "x".repeat(4000);
    for _ in 0..25 {
        complete(&store, claim_one(&store).await.lease, failed(&long)).await;
    }
    let found = get(&store, id).await.attempts.unwrap();
    assert_eq!(found.iter().map(|one| one.number).collect::<Vec<_>>(), (6..=25).collect::<Vec<_>>());
    assert!(found.iter().all(|one| one.error.as_ref().is_some_and(|error| error.len() == 500)));
}

pub(crate) async fn attempts_are_forgotten_with_their_task(fixture: &impl Fixture) {
    let store = fixture.open(on("one")).await;
    let id = submit(&store, NewTask { keep: Duration::ZERO, ..task() }).await;
    complete(&store, claim_one(&store).await.lease, failed("no")).await;
    complete(&store, claim_one(&store).await.lease, done()).await;
    until(&store, "forgotten", async || store.get(id).await.unwrap().is_none()).await;
    // A task of the same id would else have a past.
    submit(&store, NewTask { id, ..task() }).await;
    complete(&store, claim_one(&store).await.lease, failed("again")).await;
    assert_eq!(told(&get(&store, id).await.attempts.unwrap()), [(1, "one", Some("again"))]);
    complete(&store, claim_one(&store).await.lease, done()).await;
}

pub(crate) async fn the_attempt_before_a_cancellation_is_forgotten_too(fixture: &impl Fixture) {
    let store = fixture.open(on("one")).await;
    let id = submit(&store, NewTask { keep: Duration::ZERO, ..task() }).await;
    complete(&store, claim_one(&store).await.lease, failed("no")).await;
    store.cancel(id).await.unwrap();
    until(&store, "forgotten", async || store.get(id).await.unwrap().is_none()).await;
    submit(&store, NewTask { id, ..task() }).await;
    complete(&store, claim_one(&store).await.lease, failed("again")).await;
    assert_eq!(told(&get(&store, id).await.attempts.unwrap()), [(1, "one", Some("again"))]);
}
