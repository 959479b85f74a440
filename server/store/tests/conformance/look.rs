//! Looking: lists, events, and what is forgotten.

use std::sync::Arc;
use std::time::Duration;

use graceful_store::{Cursor, Events, Filter, NewTask, Outcome, State, StoreSettings, TaskStore};
use tokio::time::timeout;
use uuid::Uuid;

use super::fixture::{
    Fixture, LONG, claim, claim_one, complete, done, failed, get, get_briefly, key, settings, submit, task,
    until,
};

async fn page(
    store: &Arc<dyn TaskStore>,
    filter: &Filter,
    after: Option<Cursor>,
    limit: usize,
) -> (Vec<Uuid>, Option<Cursor>) {
    let page = store.list(filter, after, limit).await.unwrap();
    (page.tasks.iter().map(|task| task.id).collect(), page.next)
}

async fn all(store: &Arc<dyn TaskStore>, filter: &Filter) -> Vec<Uuid> {
    let (mut ids, mut after) = page(store, filter, None, 2).await;
    while after.is_some() {
        let (more, next) = page(store, filter, after, 2).await;
        assert!((1..=2).contains(&more.len()));
        ids.extend(more);
        after = next;
    }
    ids
}

pub(crate) async fn lists_are_newest_first_and_pages_join(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    assert_eq!(page(&store, &Filter::default(), None, 5).await, (Vec::new(), None));
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.insert(0, submit(&store, task()).await);
    }
    assert_eq!(page(&store, &Filter::default(), None, 3).await, (ids[..3].to_vec(), Some(ids[2])));
    assert_eq!(page(&store, &Filter::default(), Some(ids[2]), 3).await, (ids[3..6].to_vec(), Some(ids[5])));
    assert_eq!(page(&store, &Filter::default(), Some(ids[5]), 3).await, (ids[6..].to_vec(), None));
    assert_eq!(page(&store, &Filter::default(), None, 7).await, (ids.clone(), None));
    let listed = store.list(&Filter::default(), None, 1).await.unwrap();
    assert_eq!(listed.tasks[0], get_briefly(&store, ids[0]).await);
}

pub(crate) async fn a_page_of_large_tasks_has_fewer_of_them(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let large = || NewTask { input: format!("\"{}\"", "x".repeat(200 << 10)), ..task() };
    let mut ids = Vec::new();
    for _ in 0..14 {
        ids.insert(0, submit(&store, large()).await);
    }
    // A task over 1 MiB is the last of its page.
    let pages = [(&ids[..6], Some(ids[5])), (&ids[6..12], Some(ids[11])), (&ids[12..], None)];
    let mut after = None;
    for (tasks, next) in pages {
        assert_eq!(page(&store, &Filter::default(), after, 100).await, (tasks.to_vec(), next));
        after = next;
    }
    submit(&store, task()).await;
}

pub(crate) async fn filters_say_what_is_listed(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let states =
        [State::Succeeded, State::Dead, State::Cancelled, State::Running, State::Queued].into_iter().cycle();
    let mut expected = Vec::new();
    for (round, state) in states.take(20).enumerate() {
        let kind = if round % 2 == 0 { "sleep" } else { "mail" };
        let client_id = ["ada", "bob"].get(round % 3).map(|name| (*name).to_owned());
        let delay = Duration::from_secs(if state == State::Queued { 3600 } else { 0 });
        let new =
            NewTask { kind: kind.to_owned(), client_id: client_id.clone(), delay, max_attempts: 1, ..task() };
        expected.insert(0, (submit(&store, new).await, state, kind, client_id));
        let outcome = match state {
            State::Succeeded => done(),
            State::Dead => failed("no"),
            State::Cancelled => Outcome::Cancelled,
            State::Running => {
                claim_one(&store).await;
                continue;
            }
            State::Queued => continue,
        };
        assert_eq!(complete(&store, claim_one(&store).await.lease, outcome).await, state);
    }
    let mut states: Vec<Vec<State>> = State::ALL.map(|state| vec![state]).into();
    states.extend([Vec::new(), vec![State::Queued, State::Running], vec![State::Dead, State::Cancelled]]);
    states.push(vec![State::Succeeded, State::Queued, State::Dead]);
    // Once they are known to be few, those that wait or run are found in a way of their own.
    store.counts().await.unwrap();
    for states in states {
        for kind in [None, Some("sleep"), Some("nothing")] {
            for client in [None, Some("ada"), Some("eve")] {
                let filter = Filter {
                    states: states.clone(),
                    kind: kind.map(str::to_owned),
                    client_id: client.map(str::to_owned),
                    queue: None,
                };
                let wanted: Vec<_> = expected
                    .iter()
                    .filter(|task| states.is_empty() || states.contains(&task.1))
                    .filter(|task| kind.is_none_or(|kind| kind == task.2))
                    .filter(|task| client.is_none() || client == task.3.as_deref())
                    .map(|task| task.0)
                    .collect();
                assert_eq!(all(&store, &filter).await, wanted, "{filter:?}");
            }
        }
    }
}

pub(crate) async fn a_page_stays_where_it_is_as_tasks_come(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.insert(0, submit(&store, task()).await);
    }
    let (_, next) = page(&store, &Filter::default(), None, 2).await;
    for _ in 0..3 {
        submit(&store, task()).await;
    }
    // The cursor's own task may go, too.
    store.cancel(ids[1]).await.unwrap();
    assert_eq!(page(&store, &Filter::default(), next, 2).await, (ids[2..].to_vec(), None));
}

pub(crate) async fn a_page_looks_through_so_many_tasks_and_says_where_to_go_on(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    fixture.fill(45_000).await;
    let mail = |id| NewTask { id, kind: "mail".to_owned(), ..task() };
    let oldest = submit(&store, mail(Uuid::nil())).await;
    let newest = submit(&store, mail(Uuid::now_v7())).await;
    let mails = Filter { kind: Some("mail".to_owned()), ..Filter::default() };
    let (found, mut next) = page(&store, &mails, None, 10).await;
    assert_eq!(found, [newest]);
    assert!(next.is_some(), "the page ends before all were looked through");
    let (mut pages, mut ids) = (1, found);
    while next.is_some() {
        let (found, then) = page(&store, &mails, next, 10).await;
        assert!(then.is_none_or(|then| Some(then) < next), "it goes on");
        (pages, next) = (pages + 1, then);
        ids.extend(found);
    }
    assert_eq!((pages, ids), (3, vec![newest, oldest]), "who goes on gets all");
    let none = Filter { kind: Some("nothing".to_owned()), ..Filter::default() };
    let (found, next) = page(&store, &none, None, 1).await;
    assert!(found.is_empty() && next.is_some());
    // What has an index is found at once.
    for states in [vec![State::Dead], vec![State::Running]] {
        let some = Filter { states, ..Filter::default() };
        assert_eq!(page(&store, &some, None, 1).await, (Vec::new(), None));
    }
    store.counts().await.unwrap();
    let waiting = Filter { states: vec![State::Queued, State::Running], ..Filter::default() };
    assert_eq!(page(&store, &waiting, None, 9).await, (vec![newest, oldest], None));
}

async fn numbers(store: &Arc<dyn TaskStore>) -> Vec<u64> {
    store.events(0, usize::MAX).await.unwrap().events.iter().map(|event| event.number).collect()
}

pub(crate) async fn events_are_numbered_without_a_gap(fixture: &impl Fixture) {
    const TASKS: u64 = 120;
    let store = fixture.open(settings()).await;
    let watcher = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            // Who has seen a number never meets a lower one later.
            let (mut seen, mut head) = (0, store.head());
            while seen < TASKS {
                timeout(LONG, head.wait_for(|head| *head > seen)).await.unwrap().unwrap();
                for event in store.events(seen, 7).await.unwrap().events {
                    assert_eq!(event.number, seen + 1);
                    seen = event.number;
                }
            }
        }
    });
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..8 {
        let store = Arc::clone(&store);
        clients.spawn(async move {
            for round in 0..TASKS / 8 {
                let id = submit(&store, NewTask { max_attempts: 1, ..task() }).await;
                if (client + round) % 3 == 0 {
                    store.cancel(id).await.unwrap();
                }
            }
        });
    }
    clients.join_all().await;
    let working = async {
        loop {
            for (place, claim) in store.claim(9).await.unwrap().into_iter().enumerate() {
                // Some have been asked to stop between their claim and now; each ends once all the same.
                complete(&store, claim.lease, if place % 2 == 0 { done() } else { failed("no") }).await;
            }
        }
    };
    tokio::select! {
        watched = timeout(LONG, watcher) => watched.unwrap().unwrap(),
        () = working => {}
    }
    assert_eq!(numbers(&store).await, (1..=TASKS).collect::<Vec<_>>());
    assert_eq!(store.events(TASKS, 10).await.unwrap(), Events { events: Vec::new(), oldest: 1 });
    assert_eq!(store.events(u64::MAX, 10).await.unwrap().events, []);
    let some = store.events(3, 2).await.unwrap().events;
    assert_eq!(some.iter().map(|event| event.number).collect::<Vec<_>>(), [4, 5]);
}

pub(crate) async fn the_head_follows_the_events(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    assert_eq!(store.events(0, 10).await.unwrap(), Events { events: Vec::new(), oldest: 1 });
    let mut head = store.head();
    assert_eq!(*head.borrow(), 0);
    for number in 1..=3 {
        let id = submit(&store, task()).await;
        store.cancel(id).await.unwrap();
        timeout(LONG, head.wait_for(|head| *head == number)).await.expect("the head stayed").unwrap();
    }
    assert_eq!(*store.head().borrow(), 3, "one who comes later knows it at once");
}

pub(crate) async fn an_end_is_told_with_all_that_a_client_needs(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let new =
        || NewTask { client_id: Some("ada".to_owned()), kind: "mail".to_owned(), max_attempts: 2, ..task() };
    let cancelled = submit(&store, new()).await;
    store.cancel(cancelled).await.unwrap();
    let good = submit(&store, new()).await;
    complete(&store, claim_one(&store).await.lease, done()).await;
    let dead = submit(&store, new()).await;
    complete(&store, claim_one(&store).await.lease, failed("once")).await;
    complete(&store, claim_one(&store).await.lease, failed("twice")).await;
    let events = store.events(0, 10).await.unwrap().events;
    let told: Vec<_> = events
        .iter()
        .map(|event| (event.number, event.task_id, event.state, event.attempt, event.error.as_deref()))
        .collect();
    assert_eq!(
        told,
        [
            (1, cancelled, State::Cancelled, 0, None),
            (2, good, State::Succeeded, 1, None),
            (3, dead, State::Dead, 2, Some("twice")),
        ]
    );
    for event in events {
        assert_eq!((event.kind.as_str(), event.client_id.as_deref()), ("mail", Some("ada")));
        assert_eq!(Some(event.at), get(&store, event.task_id).await.ended);
    }
}

pub(crate) async fn ended_tasks_are_forgotten_after_their_time(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let brief = Duration::from_millis(1);
    let mut ended = Vec::new();
    for keep in [brief, Duration::from_secs(3600)] {
        for outcome in [done(), Outcome::Failed { error: String::new(), retry: None }, Outcome::Cancelled] {
            let new = NewTask {
                keep,
                keep_dead: Some(keep),
                idempotency: key(&format!("{keep:?}{outcome:?}"), b""),
                ..task()
            };
            ended.push(submit(&store, new).await);
            complete(&store, claim_one(&store).await.lease, outcome).await;
        }
    }
    // What has not ended is not forgotten, however little it is to be kept.
    let waits = submit(&store, NewTask { keep: brief, ..task() }).await;
    let runs = submit(&store, NewTask { keep: brief, priority: 1, ..task() }).await;
    claim_one(&store).await;
    until(&store, "forgotten", async || {
        let mut gone = 0;
        for id in &ended[..3] {
            gone += usize::from(store.get(*id).await.unwrap().is_none());
        }
        gone == 3
    })
    .await;
    for id in ended[3..].iter().chain([&waits, &runs]) {
        get(&store, *id).await;
    }
    until(&store, "counted", async || store.counts().await.unwrap().dead == 1).await;
    // Its key is free again.
    submit(&store, NewTask { idempotency: key(&format!("{brief:?}{:?}", done()), b"other"), ..task() }).await;
}

/// A chunk at a time fell behind what can be handed in: 500 of SQLite's a second, 1,000 of PostgreSQL's.
pub(crate) async fn forgetting_goes_on_while_there_is_time(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    fixture.fill(20_000).await;
    let (mut calls, mut left) = (0, true);
    while left {
        store.maintain().await.unwrap();
        calls += 1;
        left = page(&store, &Filter::default(), None, 1).await != (Vec::new(), None);
    }
    assert!(calls < 20, "{calls} calls");
}

pub(crate) async fn a_dead_letter_is_kept_for_its_own_time(fixture: &impl Fixture) {
    let store = fixture.open(settings()).await;
    let short = || NewTask { keep: Duration::ZERO, ..task() };
    let (kept, said, done_with) = (
        submit(&store, short()).await,
        submit(&store, NewTask { keep_dead: Some(Duration::ZERO), ..short() }).await,
        submit(&store, short()).await,
    );
    for claim in claim(&store, 3).await {
        let good = claim.lease.id == done_with;
        let outcome = Outcome::Failed { error: "no".to_owned(), retry: None };
        complete(&store, claim.lease, if good { done() } else { outcome }).await;
    }
    until(&store, "forgotten", async || {
        store.get(said).await.unwrap().is_none() && store.get(done_with).await.unwrap().is_none()
    })
    .await;
    assert_eq!(get(&store, kept).await.state, State::Dead);
}

pub(crate) async fn old_events_are_forgotten_and_it_shows(fixture: &impl Fixture) {
    let store = fixture.open(StoreSettings { keep_events: Duration::from_millis(1), ..settings() }).await;
    for _ in 0..5 {
        submit(&store, task()).await;
    }
    for claim in claim(&store, 5).await {
        complete(&store, claim.lease, done()).await;
    }
    until(&store, "forgotten", async || store.events(0, 10).await.unwrap().oldest >= 5).await;
    // The numbers go on.
    let id = submit(&store, task()).await;
    store.cancel(id).await.unwrap();
    let found = store.events(0, 10).await.unwrap();
    assert_eq!(found.events.last().map(|event| event.number), Some(6));
    assert_eq!(found.events.first().map(|event| event.number), Some(found.oldest));
    assert_eq!(*store.head().borrow(), 6);
}
