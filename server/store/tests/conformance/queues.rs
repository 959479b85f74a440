//! Queues: a fair turn for each, and no more of any than its settings allow.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use graceful_store::{
    Backoff, Claim, DEFAULT_QUEUE, Filter, Hold, MOST_QUEUES, NewTask, QueuePut, QueueRecord, QueueRemoved,
    QueueSettings, Rate, Retried, State, Submitted, TaskStore,
};
use tokio::time::Instant;

use super::fixture::{
    Fixture, claim, claim_one, complete, done, failed, get, nothing_to_claim, settings, submit, task,
    ticking, until,
};

fn few(number: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(number)
}

fn places(concurrency: u32) -> QueueSettings {
    QueueSettings { concurrency: few(concurrency), ..QueueSettings::default() }
}

/// One start in a time that no test lasts, after so many.
fn hardly_ever(burst: u32) -> QueueSettings {
    let rate = Rate { per_second: 0.001, burst: few(burst).unwrap() };
    QueueSettings { rate: Some(rate), ..QueueSettings::default() }
}

async fn make(store: &Arc<dyn TaskStore>, name: &str, settings: QueueSettings) {
    assert_eq!(store.put_queue(name, settings).await.unwrap(), QueuePut::New);
}

async fn fill(store: &Arc<dyn TaskStore>, queue: &str, key: &str, tasks: usize) {
    let key = (!key.is_empty()).then(|| key.to_owned());
    let new = || NewTask { queue: queue.to_owned(), concurrency_key: key.clone(), ..task() };
    for submitted in join_all((0..tasks).map(|_| store.submit(new(), Hold::default()))).await {
        assert_eq!(submitted.unwrap(), Submitted::New);
    }
}

/// How many of each queue there are.
fn by_queue(claims: &[Claim]) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for claim in claims {
        *count.entry(claim.queue.to_string()).or_default() += 1;
    }
    count
}

/// Sees that of no other queue anything may start: a claim that could bring more brings what is handed in to the default one alone. (That
/// nothing comes for a while would prove little on a busy machine.)
async fn nothing_but_the_default(store: &Arc<dyn TaskStore>) {
    fill(store, DEFAULT_QUEUE, "", 1).await;
    let claims = claim(store, 9).await;
    assert_eq!(by_queue(&claims), [(DEFAULT_QUEUE.to_owned(), 1)].into());
    complete(store, claims[0].lease, done()).await;
}

async fn queue(store: &Arc<dyn TaskStore>, name: &str) -> QueueRecord {
    let all = store.queues().await.unwrap();
    all.into_iter().find(|queue| queue.name == name).expect("the queue is gone")
}

pub(crate) async fn a_queue_is_made_changed_and_removed(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let names = async || {
        let all = store.queues().await.unwrap();
        all.into_iter().map(|queue| queue.name).collect::<Vec<_>>()
    };
    assert_eq!(names().await, [DEFAULT_QUEUE]);
    let all = QueueSettings {
        concurrency: few(7),
        per_key: few(2),
        rate: Some(Rate { per_second: 2.5, burst: few(4).unwrap() }),
        max_attempts: Some(6),
        backoff: Some(Backoff { first: Duration::from_millis(1500), longest: Duration::from_secs(60) }),
    };
    make(&store, "mail", all).await;
    assert_eq!(names().await, [DEFAULT_QUEUE, "mail"]);
    let found = queue(&store, "mail").await;
    assert_eq!((found.settings, found.paused), (all, false));
    assert_eq!(store.queue_settings("mail"), Some(all));
    assert!(store.pause_queue("mail", true).await.unwrap());
    assert_eq!(store.put_queue("mail", places(1)).await.unwrap(), QueuePut::Changed);
    let found = queue(&store, "mail").await;
    assert_eq!((found.settings, found.paused), (places(1), true), "it stays paused");
    assert_eq!(store.remove_queue("mail").await.unwrap(), QueueRemoved::Now);
    assert_eq!((names().await, store.queue_settings("mail")), (vec![DEFAULT_QUEUE.to_owned()], None));
    assert_eq!(store.remove_queue("mail").await.unwrap(), QueueRemoved::Unknown);
    assert!(!store.pause_queue("mail", true).await.unwrap());
    assert_eq!(store.remove_queue(DEFAULT_QUEUE).await.unwrap(), QueueRemoved::InUse);
    make(&store, "mail", QueueSettings::default()).await;
    fill(&store, "mail", "", 1).await;
    assert_eq!(store.remove_queue("mail").await.unwrap(), QueueRemoved::InUse, "one waits in it");
    let one = claim_one(&store).await;
    assert_eq!(store.remove_queue("mail").await.unwrap(), QueueRemoved::InUse, "one runs in it");
    complete(&store, one.lease, done()).await;
    assert_eq!(store.remove_queue("mail").await.unwrap(), QueueRemoved::Now);
    assert_eq!(get(&store, one.lease.id).await.queue, "mail", "it is remembered where it was");
}

pub(crate) async fn a_task_for_a_queue_that_is_not_there_is_refused(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let new = NewTask { queue: "mial".to_owned(), ..task() };
    let id = new.id;
    assert_eq!(store.submit(new, Hold::default()).await.unwrap(), Submitted::NoQueue);
    assert_eq!(store.get(id).await.unwrap(), None);
    let beside = [task(), NewTask { queue: "mial".to_owned(), ..task() }, task()];
    let answers = join_all(beside.map(|new| store.submit(new, Hold::default()))).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers, [Submitted::New, Submitted::NoQueue, Submitted::New], "the others are taken");
}

pub(crate) async fn a_flood_of_one_queue_leaves_the_others_their_turn(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    fill(&store, DEFAULT_QUEUE, "", 30).await;
    let flood = claim(&store, 4).await;
    for name in ["a", "b"] {
        make(&store, name, QueueSettings::default()).await;
        fill(&store, name, "", 3).await;
    }
    // Each place that becomes free goes to those who have fewer.
    let next = claim(&store, 4).await;
    assert_eq!(by_queue(&next), [("a".to_owned(), 2), ("b".to_owned(), 2)].into());
    for claim in flood.iter().chain(&next) {
        complete(&store, claim.lease, done()).await;
    }
    // Nobody runs anything: each gets as much, and what one does not need the others get.
    let mut got = BTreeMap::new();
    let mut left = 12;
    while left > 0 {
        let claims = claim(&store, left).await;
        left -= claims.len();
        for (name, number) in by_queue(&claims) {
            *got.entry(name).or_insert(0) += number;
        }
    }
    let expected = [("a", 1), ("b", 1), (DEFAULT_QUEUE, 10)];
    assert_eq!(got, expected.map(|(name, number)| (name.to_owned(), number)).into());
}

pub(crate) async fn priorities_count_within_a_queue(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    make(&store, "low", QueueSettings::default()).await;
    fill(&store, "low", "", 1).await;
    let mut expected = Vec::new();
    for priority in [0, 5, 9] {
        let id = submit(&store, NewTask { priority, ..task() }).await;
        expected.insert(0, id);
    }
    let mut found = Vec::new();
    let mut low = 0;
    for _ in 0..4 {
        let one = claim_one(&store).await;
        if &*one.queue == "low" {
            low += 1;
        } else {
            found.push(one.lease.id);
        }
        if found.len() == 1 {
            low *= 10;
        }
    }
    assert_eq!(found, expected);
    assert!(low > 0, "the other queue had its turn");
}

pub(crate) async fn no_more_of_a_queue_run_than_it_has_places(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    make(&store, "narrow", places(2)).await;
    fill(&store, "narrow", "", 5).await;
    let two = claim(&store, 9).await;
    assert_eq!(two.len(), 2);
    nothing_but_the_default(&store).await;
    complete(&store, two[0].lease, failed("once")).await;
    let one = claim(&store, 9).await;
    assert_eq!(one.len(), 1, "an end is a place");
    fill(&store, DEFAULT_QUEUE, "", 1).await;
    assert_eq!(by_queue(&claim(&store, 9).await), [(DEFAULT_QUEUE.to_owned(), 1)].into());
    store.put_queue("narrow", places(3)).await.unwrap();
    assert_eq!(claim(&store, 9).await.len(), 1, "there is one place more");
    // One who waits is told of a place that becomes free.
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { claim(&store, 9).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    complete(&store, two[1].lease, done()).await;
    assert_eq!(waiting.await.unwrap().len(), 1);
}

pub(crate) async fn no_more_of_a_queue_start_than_its_rate_says(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let rate = Rate { per_second: 20.0, burst: few(3).unwrap() };
    make(&store, "slow", QueueSettings { rate: Some(rate), ..QueueSettings::default() }).await;
    fill(&store, "slow", "", 10).await;
    let begun = Instant::now();
    let mut started = 0;
    while started < 10 {
        let claims = claim(&store, 9).await;
        started += claims.len();
        // By now the bucket has held what it held at first, and what has come since.
        let most = 3.0 + begun.elapsed().as_secs_f64() * 20.0 + 1.0;
        assert!(started as f64 <= most, "{started} after {:?}", begun.elapsed());
        for claim in claims {
            complete(&store, claim.lease, done()).await;
        }
    }
    assert!(begun.elapsed() >= Duration::from_millis(300), "seven came at twenty a second");
}

pub(crate) async fn what_was_started_counts_for_the_next_process_too(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    make(&store, "rare", hardly_ever(2)).await;
    fill(&store, "rare", "", 5).await;
    assert_eq!(claim(&store, 9).await.len(), 2);
    fixture.crash(store).await;
    let store = fixture.open(settings()).await;
    nothing_but_the_default(&store).await;
}

pub(crate) async fn no_more_of_a_key_run_than_its_queue_says(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    make(&store, "q", QueueSettings { per_key: few(2), ..QueueSettings::default() }).await;
    fill(&store, "q", "flood", 20).await;
    fill(&store, "q", "other", 1).await;
    fill(&store, "q", "", 3).await;
    let mut first = Vec::new();
    while first.len() < 6 {
        first.extend(claim(&store, 9).await);
    }
    nothing_but_the_default(&store).await;
    let mut keys = BTreeMap::new();
    for claim in &first {
        *keys.entry(get(&store, claim.lease.id).await.concurrency_key).or_insert(0) += 1;
    }
    let expected = [(None, 3), (Some("flood".to_owned()), 2), (Some("other".to_owned()), 1)];
    assert_eq!(keys, expected.into());
    for claim in &first {
        complete(&store, claim.lease, done()).await;
    }
    assert_eq!(claim(&store, 9).await.len(), 2);
}

pub(crate) async fn each_of_many_keys_has_its_turn(fixture: &impl Fixture) {
    const KEYS: usize = 250;
    let store = fixture.open(settings()).await;
    make(&store, "q", QueueSettings { per_key: few(1), ..QueueSettings::default() }).await;
    let new = |key| NewTask { queue: "q".to_owned(), concurrency_key: Some(format!("{key:03}")), ..task() };
    join_all((0..2 * KEYS).map(|number| store.submit(new(number % KEYS), Hold::default()))).await;
    let mut seen = BTreeMap::new();
    let mut held = Vec::new();
    // None ends, so that each key has its one place, and no key two.
    while held.len() < KEYS {
        for claim in claim(&store, 20).await {
            *seen.entry(get(&store, claim.lease.id).await.concurrency_key).or_insert(0) += 1;
            held.push(claim.lease);
        }
    }
    nothing_to_claim(&store).await;
    assert_eq!((seen.len(), seen.values().max()), (KEYS, Some(&1)));
    // With few places, those who have had none come before those who have.
    for lease in held {
        complete(&store, lease, done()).await;
    }
    let mut last = Vec::new();
    for _ in 0..KEYS {
        let one = claim_one(&store).await;
        complete(&store, one.lease, done()).await;
        last.push(get(&store, one.lease.id).await.concurrency_key);
    }
    last.sort();
    last.dedup();
    assert_eq!(last.len(), KEYS);
}

pub(crate) async fn each_of_few_keys_has_its_turn(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    for key in ["a", "b"] {
        fill(&store, DEFAULT_QUEUE, key, 6).await;
    }
    // One place, that becomes free again and again.
    let mut turns = Vec::new();
    for _ in 0..8 {
        let one = claim_one(&store).await;
        turns.push(get(&store, one.lease.id).await.concurrency_key.unwrap());
        complete(&store, one.lease, done()).await;
    }
    assert!(turns.iter().zip(&turns[1..]).all(|(one, next)| one != next), "{turns:?}");
    for number in 0..20 {
        fill(&store, DEFAULT_QUEUE, &format!("k{number:02}"), 4).await;
    }
    let mut served = BTreeMap::new();
    let mut left = 22 * 2;
    while left > 0 {
        let claims = claim(&store, 5).await;
        left -= claims.len().min(left);
        for claim in &claims {
            *served.entry(get(&store, claim.lease.id).await.concurrency_key).or_insert(0) += 1;
        }
        for claim in claims {
            complete(&store, claim.lease, done()).await;
        }
    }
    assert_eq!(served.len(), 22, "{served:?}");
}

pub(crate) async fn a_key_before_the_one_that_had_its_turn_is_found(fixture: &impl Fixture) {
    const DUE: usize = 50;
    let store = fixture.open(settings()).await;
    let new =
        |number: usize, delay| NewTask { concurrency_key: Some(format!("k{number:03}")), delay, ..task() };
    let hour = Duration::from_secs(3600);
    join_all((DUE..300).map(|number| store.submit(new(number, hour), Hold::default()))).await;
    submit(&store, new(DUE - 1, Duration::ZERO)).await;
    complete(&store, claim_one(&store).await.lease, done()).await;
    // After it come more than are looked at in one go, of which none is due.
    join_all((0..DUE).map(|number| store.submit(new(number, Duration::ZERO), Hold::default()))).await;
    let mut found = 0;
    while found < DUE {
        found += claim(&store, DUE).await.len();
    }
}

pub(crate) async fn a_paused_queue_starts_nothing_until_it_is_resumed(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let before = {
        submit(&store, task()).await;
        claim_one(&store).await
    };
    assert!(store.pause_queue(DEFAULT_QUEUE, true).await.unwrap());
    let id = submit(&store, task()).await;
    nothing_to_claim(&store).await;
    assert!(queue(&store, DEFAULT_QUEUE).await.paused);
    complete(&store, before.lease, done()).await;
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { claim_one(&store).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    assert!(store.pause_queue(DEFAULT_QUEUE, false).await.unwrap());
    assert_eq!(waiting.await.unwrap().lease.id, id);
}

pub(crate) async fn a_pause_outlasts_the_process(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    make(&store, "mail", places(3)).await;
    store.pause_queue("mail", true).await.unwrap();
    fill(&store, "mail", "", 1).await;
    fixture.crash(store).await;
    let store = fixture.open(settings()).await;
    let found = queue(&store, "mail").await;
    assert_eq!(
        (found.settings, found.paused, store.queue_settings("mail")),
        (places(3), true, Some(places(3)))
    );
    nothing_but_the_default(&store).await;
    store.pause_queue("mail", false).await.unwrap();
    claim_one(&store).await;
}

pub(crate) async fn who_runs_alone_waits_for_its_queue_too(fixture: &impl Fixture) {
    let mut store = fixture.open(settings()).await;
    let id = submit(&store, task()).await;
    for _ in 0..3 {
        claim_one(&store).await;
        fixture.crash(store).await;
        store = fixture.open(settings()).await;
        let interrupted = async || get(&store, id).await.state == State::Queued;
        until(&store, "it waits again", interrupted).await;
    }
    store.pause_queue(DEFAULT_QUEUE, true).await.unwrap();
    // It is due by then: the pause after the third interruption is two seconds.
    let due = ticking(&store, tokio::time::sleep(Duration::from_millis(2500)));
    due.await;
    assert!(!store.suspect_is_due().await.unwrap());
    assert!(store.claim_suspect().await.unwrap().is_none());
    store.pause_queue(DEFAULT_QUEUE, false).await.unwrap();
    until(&store, "it is due", async || store.suspect_is_due().await.unwrap()).await;
    let claim = store.claim_suspect().await.unwrap().unwrap();
    assert_eq!((claim.lease.id, &*claim.queue), (id, DEFAULT_QUEUE));
}

pub(crate) async fn a_queues_counts_are_its_own(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    make(&store, "mail", QueueSettings::default()).await;
    fill(&store, "mail", "", 3).await;
    claim(&store, 1).await;
    let later = NewTask { queue: "mail".to_owned(), delay: Duration::from_secs(3600), ..task() };
    submit(&store, later).await;
    fill(&store, DEFAULT_QUEUE, "", 1).await;
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_millis(20)).await;
    // They may be a second old.
    until(&store, "all are counted", async || {
        let counts = queue(&store, "mail").await.counts;
        let oldest = counts.oldest.unwrap_or_default();
        assert!(oldest < begun.elapsed() + Duration::from_secs(10), "{oldest:?}");
        let other = queue(&store, DEFAULT_QUEUE).await.counts;
        (counts.queued, counts.delayed, counts.running) == (2, 1, 1)
            && (other.queued, other.delayed, other.running) == (1, 0, 0)
            && oldest >= Duration::from_millis(20)
    })
    .await;
    let filter = Filter { queue: Some("mail".to_owned()), ..Filter::default() };
    assert_eq!(store.list(&filter, None, 9).await.unwrap().tasks.len(), 4);
}

pub(crate) async fn a_claim_tells_how_its_queue_backs_off(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let backoff = Backoff { first: Duration::from_secs(3), longest: Duration::from_secs(30) };
    make(&store, "mail", QueueSettings { backoff: Some(backoff), ..QueueSettings::default() }).await;
    fill(&store, "mail", "", 1).await;
    assert_eq!(claim_one(&store).await.backoff, Some(backoff));
    fill(&store, DEFAULT_QUEUE, "", 1).await;
    assert_eq!(claim_one(&store).await.backoff, None);
}

pub(crate) async fn a_task_whose_queue_was_removed_is_not_retried(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    make(&store, "mail", QueueSettings::default()).await;
    fill(&store, "mail", "", 1).await;
    let one = claim_one(&store).await;
    store.cancel(one.lease.id).await.unwrap();
    complete(&store, one.lease, failed("no")).await;
    assert_eq!(store.remove_queue("mail").await.unwrap(), QueueRemoved::Now);
    let retried = store.retry(one.lease.id, Hold::default()).await.unwrap();
    assert!(matches!(&retried, Retried::NoQueue(task) if task.queue == "mail"), "{retried:?}");
    make(&store, "mail", QueueSettings::default()).await;
    assert!(matches!(store.retry(one.lease.id, Hold::default()).await.unwrap(), Retried::Now(_)));
    claim_one(&store).await;
}

pub(crate) async fn there_are_so_many_queues_and_no_more(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    for number in 1..MOST_QUEUES {
        make(&store, &format!("q{number}"), QueueSettings::default()).await;
    }
    assert_eq!(store.put_queue("one-more", places(1)).await.unwrap(), QueuePut::TooMany);
    assert_eq!(store.put_queue("q1", places(1)).await.unwrap(), QueuePut::Changed);
    fill(&store, "q499", "", 1).await;
    assert_eq!(&*claim_one(&store).await.queue, "q499");
}
