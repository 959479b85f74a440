//! Several processes on one queue: each task is one's, the dead are inherited, hints travel, numbers stay in order.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use graceful_store::{
    Held, Hold, NewTask, Outcome, QueueSettings, State, StoreError, StoreSettings, Submitted, TaskStore,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};

use super::conformance::fixture::{
    LONG, claim, claim_one, complete, done, get, key, nothing_to_claim, settings, submit, task, watched,
};
use super::{database, maintained, open};

async fn two() -> (Arc<dyn TaskStore>, Arc<dyn TaskStore>) {
    let url = database().await.0;
    (open(&url, settings()).await, open(&url, settings()).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_task_goes_to_one_process() {
    const TASKS: usize = 300;
    let (a, b) = two().await;
    let mut submitted = BTreeSet::new();
    for _ in 0..TASKS {
        submitted.insert(submit(&a, task()).await);
    }
    let mut workers = JoinSet::new();
    for store in [&a, &b, &a, &b] {
        let store = store.clone();
        workers.spawn(async move {
            let mut mine = Vec::new();
            while let Ok(claims) = timeout(Duration::from_secs(3), store.claim(5)).await {
                for claim in claims.unwrap() {
                    complete(&store, claim.lease, done()).await;
                    mine.push(claim.lease.id);
                }
            }
            mine
        });
    }
    let shares = workers.join_all().await;
    assert_eq!(shares.iter().map(Vec::len).sum::<usize>(), TASKS, "a task went to two");
    assert_eq!(shares.into_iter().flatten().collect::<BTreeSet<_>>(), submitted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_process_is_inherited_within_ten_seconds_and_a_living_one_is_not() {
    let url = database().await.0;
    let (dies, lives, inherits) =
        (open(&url, settings()).await, open(&url, settings()).await, open(&url, settings()).await);
    let _maintained = maintained(&inherits);
    let orphan = submit(&dies, NewTask { max_attempts: 2, ..task() }).await;
    let only = submit(&dies, NewTask { max_attempts: 1, priority: -1, ..task() }).await;
    let unwanted = submit(&dies, NewTask { priority: -2, ..task() }).await;
    let claims = claim(&dies, 3).await;
    assert_eq!(claims.len(), 3);
    inherits.cancel(unwanted).await.unwrap();
    // Late enough for all to have been seen alive for a lease.
    let mut beats = interval(dies.renew_every().unwrap());
    let leases: Vec<_> = claims.iter().map(|claim| claim.lease).collect();
    for _ in 0..4 {
        beats.tick().await;
        dies.renew(&leases).await.unwrap();
    }
    submit(&lives, NewTask { priority: 9, ..task() }).await;
    let kept = claim_one(&lives).await.lease;
    let renewing = tokio::spawn({
        let lives = lives.clone();
        async move {
            loop {
                beats.tick().await;
                assert_eq!(
                    lives.renew(&[kept]).await.unwrap(),
                    [Held::Yes],
                    "a living process lost its task"
                );
            }
        }
    });
    let died = Instant::now();
    drop(dies);
    let inherited = timeout(LONG, inherits.claim(5)).await.unwrap().unwrap();
    let took = died.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    let leases: Vec<_> = inherited.iter().map(|claim| (claim.lease.id, claim.lease.attempt)).collect();
    assert_eq!(leases, [(orphan, 2), (only, 2)], "an attempt that was interrupted costs none");
    let ended = |state| get(&inherits, state);
    assert_eq!(ended(unwanted).await.state, State::Cancelled, "nobody wants it tried again");
    // For longer than a lease more.
    tokio::time::sleep_until(died + Duration::from_secs(12)).await;
    assert!(!renewing.is_finished());
    renewing.abort();
    complete(&lives, kept, done()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_reach_other_processes_before_they_look_for_themselves() {
    let (a, b) = two().await;
    let mut quick = 0;
    for _ in 0..5 {
        let claimer = tokio::spawn({
            let b = b.clone();
            async move { (claim_one(&b).await, Instant::now()) }
        });
        // In the middle of a look each second.
        nothing_to_claim(&b).await;
        let (submitted, id) = (Instant::now(), submit(&a, task()).await);
        let (claim, at) = claimer.await.unwrap();
        assert_eq!(claim.lease.id, id);
        quick += usize::from(at - submitted < Duration::from_millis(400));
        // Nothing but a hint tells of this.
        let mut cancellations = b.cancellations();
        a.cancel(id).await.unwrap();
        assert_eq!(timeout(LONG, cancellations.recv()).await.unwrap().unwrap(), claim.lease);
        let mut head = a.head();
        let before = *head.borrow();
        complete(&b, claim.lease, Outcome::Cancelled).await;
        timeout(LONG, head.wait_for(|head| *head > before)).await.unwrap().unwrap();
    }
    // One or two may be late where the machine is busy; by looks alone, all five would be in time once in a hundred.
    assert!(quick >= 4, "{quick} of 5 came at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_two_processes_are_numbered_without_a_gap() {
    const TASKS: u64 = 240;
    let (a, b) = two().await;
    let mut watchers = JoinSet::new();
    for store in [&a, &b] {
        let store = store.clone();
        watchers.spawn(async move {
            let (mut seen, mut head) = (0, store.head());
            while seen < TASKS {
                timeout(LONG, head.wait_for(|head| *head > seen)).await.unwrap().unwrap();
                for event in store.events(seen, 11).await.unwrap().events {
                    // Who has seen a number never meets a lower one later.
                    assert_eq!(event.number, seen + 1);
                    seen = event.number;
                }
            }
        });
    }
    let mut workers = JoinSet::new();
    for place in 0..8 {
        let (mine, other) = if place % 2 == 0 { (a.clone(), b.clone()) } else { (b.clone(), a.clone()) };
        workers.spawn(async move {
            for round in 0..TASKS / 8 {
                let id = submit(&mine, task()).await;
                if round % 3 == 0 {
                    // It may run by now: then it is asked to stop, and ends once all the same.
                    other.cancel(id).await.unwrap();
                }
            }
            loop {
                let claims = other.claim(5).await.unwrap();
                for claim in claims {
                    complete(&other, claim.lease, done()).await;
                }
            }
        });
    }
    while let Some(seen) = watchers.join_next().await {
        seen.unwrap();
    }
    drop(workers);
    let numbers: Vec<_> = b.events(0, 1000).await.unwrap().events.iter().map(|event| event.number).collect();
    assert_eq!(numbers, (1..=TASKS).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_submitted_to_two_processes_at_once_are_one_task_each() {
    let (a, b) = two().await;
    for round in 0..10 {
        let mut clients = JoinSet::new();
        for place in 0..60 {
            // Each process meets the keys in another order, so that a batch of one could wait for a batch of the other.
            let (store, number) =
                if place % 2 == 0 { (a.clone(), place / 2) } else { (b.clone(), 29 - place / 2) };
            clients.spawn(async move {
                let new = NewTask { idempotency: key(&format!("{round} {number}"), b"a"), ..task() };
                let id = new.id;
                match store.submit(new, Hold::default()).await.unwrap() {
                    Submitted::New => (number, id, true),
                    Submitted::Known(known) => (number, known.id, false),
                    Submitted::KeyReused { .. } => panic!("the content is the same"),
                    Submitted::NoQueue => panic!("its queue is always there"),
                }
            });
        }
        let answers = clients.join_all().await;
        assert_eq!(answers.iter().filter(|(_, _, new)| *new).count(), 30);
        assert_eq!(answers.iter().map(|(number, id, _)| (number, id)).collect::<BTreeSet<_>>().len(), 30);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_claims_no_kind_that_it_does_not_know() {
    let url = database().await.0;
    let older = open(&url, StoreSettings { kinds: vec!["sleep".to_owned()], ..settings() }).await;
    let newer = open(&url, settings()).await;
    let new = submit(&older, NewTask { kind: "mail".to_owned(), priority: 9, ..task() }).await;
    let old = submit(&newer, task()).await;
    let claimed: Vec<_> = claim(&older, 10).await.iter().map(|claim| claim.lease.id).collect();
    assert_eq!(claimed, [old]);
    assert_eq!(claim_one(&newer).await.lease.id, new);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_postgresql_cannot_store_spoils_no_other_task() {
    let (a, _) = two().await;
    let mut clients = JoinSet::new();
    for number in 0..20 {
        let a = a.clone();
        clients.spawn(async move {
            let client_id = (number == 7).then(|| "a\0b".to_owned());
            submit(&a, NewTask { client_id, ..task() }).await
        });
    }
    clients.join_all().await;
    let claims = claim(&a, 20).await;
    assert_eq!(claims.iter().filter(|claim| claim.client_id.as_deref() == Some("a\u{FFFD}b")).count(), 1);
    // The same id twice is the one mistake left, and its sender's own.
    let twice = task();
    submit(&a, twice.clone()).await;
    let (again, other) = tokio::join!(a.submit(twice, Hold::default()), a.submit(task(), Hold::default()));
    assert!(matches!(again, Err(StoreError::Unavailable { .. })), "{again:?}");
    assert_eq!(other.unwrap(), Submitted::New);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_nobody_waits_for_goes_to_another_process_at_once() {
    let url = database().await.0;
    let (settings_of_a, told) = watched();
    let (a, b) = (open(&url, settings_of_a).await, open(&url, settings()).await);
    for round in 0..30_u64 {
        let id = submit(&b, NewTask { max_attempts: 1, ..task() }).await;
        let claimed = timeout(Duration::from_micros(round * 150), a.claim(3)).await;
        let (store, lease) = match claimed {
            Ok(claims) => (&a, claims.unwrap()[0].lease),
            Err(_) => (&b, claim_one(&b).await.lease),
        };
        assert_eq!((lease.id, lease.attempt), (id, 1));
        complete(store, lease, done()).await;
    }
    let nothing = async {
        while told.latest().running > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, nothing).await.expect("a dropped claim is still counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_fill_a_queues_places_together_and_never_more() {
    const TASKS: usize = 60;
    const PLACES: u32 = 3;
    let url = database().await.0;
    let a = open(&url, settings()).await;
    let places = |each: u32| QueueSettings { concurrency: NonZeroU32::new(each), ..QueueSettings::default() };
    a.put_queue("narrow", places(PLACES)).await.unwrap();
    a.put_queue("keyed", QueueSettings { per_key: NonZeroU32::new(1), ..QueueSettings::default() })
        .await
        .unwrap();
    let stores = [a.clone(), open(&url, settings()).await, open(&url, settings()).await];
    for number in 0..TASKS {
        submit(&a, NewTask { queue: "narrow".to_owned(), ..task() }).await;
        let key = Some(format!("{}", number % 2));
        submit(&a, NewTask { queue: "keyed".to_owned(), concurrency_key: key, ..task() }).await;
    }
    let running = Arc::new(Mutex::new(BTreeMap::<String, u32>::new()));
    let most = Arc::new(Mutex::new(BTreeMap::<String, u32>::new()));
    let ended = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    // More who claim than there are places, so that they meet.
    for store in stores.iter().chain(&stores) {
        let (store, running, most, ended) = (store.clone(), running.clone(), most.clone(), ended.clone());
        workers.spawn(async move {
            while ended.load(Ordering::SeqCst) < 2 * TASKS {
                let Ok(claims) = timeout(Duration::from_millis(500), store.claim(4)).await else { continue };
                for claim in claims.unwrap() {
                    let key = get(&store, claim.lease.id).await.concurrency_key;
                    let name = format!("{}{}", claim.queue, key.unwrap_or_default());
                    {
                        let mut running = running.lock().unwrap();
                        let now = running.entry(name.clone()).or_default();
                        *now += 1;
                        let mut most = most.lock().unwrap();
                        let before = most.entry(name.clone()).or_default();
                        *before = (*before).max(*now);
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    *running.lock().unwrap().get_mut(&name).unwrap() -= 1;
                    complete(&store, claim.lease, done()).await;
                    ended.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
    }
    workers.join_all().await;
    let most = most.lock().unwrap().clone();
    assert_eq!(most.keys().collect::<Vec<_>>(), ["keyed0", "keyed1", "narrow"]);
    assert!(most["narrow"] <= PLACES && most["keyed0"] == 1 && most["keyed1"] == 1, "{most:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_holds_for_all_processes_as_soon_as_it_is_told() {
    let (a, b) = two().await;
    a.put_queue("mail", QueueSettings::default()).await.unwrap();
    // One that this process has not heard of yet.
    let id = submit(&b, NewTask { queue: "mail".to_owned(), ..task() }).await;
    assert_eq!(claim_one(&b).await.lease.id, id);
    a.pause_queue("mail", true).await.unwrap();
    submit(&b, NewTask { queue: "mail".to_owned(), ..task() }).await;
    let other = submit(&b, task()).await;
    let claims = claim(&b, 9).await;
    assert_eq!(
        claims.iter().map(|claim| claim.lease.id).collect::<Vec<_>>(),
        [other],
        "the other queue's alone"
    );
    let waiting = tokio::spawn({
        let b = b.clone();
        async move { claim_one(&b).await }
    });
    a.pause_queue("mail", false).await.unwrap();
    timeout(LONG, waiting).await.expect("it waits on").unwrap();
}
