//! What becomes of a task whose handler fails, panics, hangs, or is told to stop.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

mod pod;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use futures::StreamExt;
use graceful_drain::State::Draining;
use graceful_server::kind::{Failure, Kind};
use graceful_server::queue::Defaults;
use graceful_server::running::Running;
use graceful_store::{Cancelled, Completion, Lease, Outcome, State};
use pod::{Held, Plan, Pod, TIMEOUT, json};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tower::ServiceExt;
use uuid::Uuid;

/// Does what its input says.
#[derive(Clone, Default)]
struct Odd {
    dropped: Arc<AtomicBool>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Act {
    /// Fails, soon to be tried again, until this attempt.
    FailUntil(u16),
    GiveUp,
    PanicUntil(u16),
    Hang,
    /// Says how far it is, then waits to be cancelled, and ends so.
    WorkUntilCancelled {
        finish: bool,
    },
    Ignore,
}

/// Says when it is dropped.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Kind for Odd {
    const NAME: &'static str = "odd";
    type Input = Act;
    type Output = u16;

    async fn run(&self, act: Act, task: &Running) -> Result<u16, Failure> {
        let _dropped = Dropped(self.dropped.clone());
        match act {
            Act::FailUntil(last) if task.attempt() < last => {
                return Err(Failure::retry_after(Duration::ZERO, format!("no luck in {}", task.attempt())));
            }
            Act::PanicUntil(last) if task.attempt() < last => panic!("oh no, {}", task.attempt()),
            Act::FailUntil(_) | Act::PanicUntil(_) => {}
            Act::GiveUp => return Err(Failure::fatal("it will never work")),
            Act::Hang | Act::Ignore => std::future::pending().await,
            Act::WorkUntilCancelled { finish } => {
                task.progress("half");
                task.cancelled().await;
                if !finish {
                    return Err(Failure::fatal("stopped"));
                }
            }
        }
        Ok(task.attempt())
    }
}

async fn pod() -> (Pod, Odd) {
    let odd = Odd::default();
    (Plan::of(odd.clone()).pod().await, odd)
}

#[tokio::test]
async fn a_failure_is_tried_again_and_the_attempt_number_goes_up() {
    let (pod, _) = pod().await;
    let events = timeout(TIMEOUT, listen(&pod)).await.unwrap();
    let id = pod.put("odd", r#"{"fail_until": 3}"#).await;
    let task = pod.ended(id).await;
    assert_eq!((task.state, task.attempt, task.output.as_deref()), (State::Succeeded, 3, Some("3")));
    let told = timeout(TIMEOUT, heard(events, "task.succeeded")).await.unwrap();
    let kinds: Vec<_> = told
        .iter()
        .map(|event| (event["type"].as_str().unwrap(), event["attempt"].as_u64().unwrap()))
        .collect();
    let expected = [
        ("task.started", 1),
        ("task.retrying", 1),
        ("task.started", 2),
        ("task.retrying", 2),
        ("task.started", 3),
        ("task.succeeded", 3),
    ];
    assert_eq!(kinds, expected);
    assert_eq!(told[1]["error"], "no luck in 1");
}

/// A stream of server-sent events, as soon as there is one.
async fn listen(pod: &Pod) -> Body {
    loop {
        let request = Request::get("/v1/events").body(Body::empty()).unwrap();
        let answer = pod.public.clone().oneshot(request).await.unwrap();
        if answer.status() == 200 {
            return answer.into_body();
        }
        tokio::task::yield_now().await;
    }
}

/// What a stream of server-sent events says of tasks, up to such an event.
async fn heard(events: Body, last: &str) -> Vec<Value> {
    let mut bytes = events.into_data_stream();
    let (mut text, mut told) = (String::new(), Vec::new());
    loop {
        text.push_str(std::str::from_utf8(&bytes.next().await.unwrap().unwrap()).unwrap());
        while let Some((event, rest)) = text.split_once("\n\n") {
            let data = event.lines().find_map(|line| line.strip_prefix("data: "));
            if let Some(event) = data.map(|data| serde_json::from_str::<Value>(data).unwrap())
                && event.get("task_id").is_some()
            {
                told.push(event);
            }
            text = rest.to_owned();
        }
        if told.last().is_some_and(|event| event["type"] == last) {
            return told;
        }
    }
}

#[tokio::test]
async fn a_task_without_attempts_left_is_dead_and_says_why() {
    let (pod, _) = pod().await;
    let id = pod.put("odd", r#"{"fail_until": 9}"#).await;
    let task = pod.ended(id).await;
    assert_eq!((task.state, task.attempt), (State::Dead, 3));
    assert_eq!(task.error.as_deref(), Some("no luck in 3"));
}

#[tokio::test]
async fn a_fatal_failure_is_not_tried_again() {
    let (pod, _) = pod().await;
    let id = pod.put("odd", r#""give_up""#).await;
    let task = pod.ended(id).await;
    assert_eq!((task.state, task.attempt), (State::Dead, 1));
    assert_eq!(task.error.as_deref(), Some("it will never work"));
    pod.told("graceful_server_tasks_dead_total{kind=\"odd\"} 1").await;
}

#[tokio::test]
async fn a_panic_is_a_failure_and_costs_nobody_else() {
    let (pod, _) = pod().await;
    let panics = pod.put("odd", r#"{"panic_until": 2}"#).await;
    let other = pod.put("odd", r#"{"fail_until": 1}"#).await;
    assert_eq!(pod.ended(other).await.state, State::Succeeded);
    let failed = pod.task(panics, |task| task.error.is_some()).await;
    assert_eq!(failed.error.as_deref(), Some("panicked: oh no, 1"));
    let task = pod.ended(panics).await;
    assert_eq!((task.state, task.attempt), (State::Succeeded, 2), "after a back-off of about a second");
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_dropped_and_tried_again() {
    let odd = Odd::default();
    let defaults =
        Defaults { timeout: Duration::from_millis(50), max_attempts: 1, keep: Duration::from_secs(60) };
    let pod = Plan { defaults, ..Plan::of(odd.clone()) }.pod().await;
    let id = pod.put("odd", r#""hang""#).await;
    let task = pod.ended(id).await;
    assert_eq!((task.state, task.error.as_deref()), (State::Dead, Some("timed out after 0.05 s")));
    dropped(&odd).await;
}

async fn dropped(odd: &Odd) {
    let gone = async {
        while !odd.dropped.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
    };
    timeout(TIMEOUT, gone).await.expect("the handler is dropped");
}

#[tokio::test]
async fn an_input_that_no_longer_fits_is_dead_and_names_the_field() {
    let (pod, _) = pod().await;
    let id = pod.put("odd", r#"{"fail_until": -1}"#).await;
    let task = pod.ended(id).await;
    assert_eq!(task.state, State::Dead);
    let error = task.error.unwrap();
    assert!(error.contains("input.fail_until") && error.contains("expected u16"), "{error}");
}

#[tokio::test]
async fn a_running_task_that_is_cancelled_is_told_at_once() {
    let (pod, _) = pod().await;
    for (finish, state) in [(false, State::Cancelled), (true, State::Succeeded)] {
        let input = format!(r#"{{"work_until_cancelled": {{"finish": {finish}}}}}"#);
        let id = pod.put("odd", &input).await;
        pod.task(id, |task| task.progress.as_deref() == Some(r#""half""#)).await;
        let asked = pod.queue.store().unwrap().cancel(id).await.unwrap();
        assert!(matches!(asked, Cancelled::Asked(_)), "{asked:?}");
        assert_eq!(pod.ended(id).await.state, state, "work that was finished is not thrown away");
    }
}

#[tokio::test]
async fn a_handler_that_does_not_listen_is_dropped_a_few_seconds_after_its_cancel() {
    let (pod, odd) = pod().await;
    let id = pod.put("odd", r#""ignore""#).await;
    pod.in_state(id, State::Running).await;
    pod.queue.store().unwrap().cancel(id).await.unwrap();
    assert_eq!(pod.ended(id).await.state, State::Cancelled);
    dropped(&odd).await;
}

#[tokio::test]
async fn an_attempt_that_has_lost_its_task_is_dropped_and_changes_nothing() {
    let (pod, odd) = pod().await;
    let id = pod.put("odd", r#""hang""#).await;
    pod.in_state(id, State::Running).await;
    // As another pod would, to whom the task had gone.
    let theirs = Lease { id, attempt: 1 };
    let ended =
        pod.queue.store().unwrap().complete(theirs, Outcome::Succeeded("1".to_owned())).await.unwrap();
    assert_eq!(ended, Completion::Now(State::Succeeded));
    dropped(&odd).await;
    timeout(TIMEOUT, pod.drain.wait_until(|status| status.in_flight.total() == 0)).await.unwrap();
    let task = pod.ended(id).await;
    assert_eq!((task.state, task.output.as_deref()), (State::Succeeded, Some("1")));
}

/// Blocks a thread that nobody can take it from, until it is told.
#[derive(Clone)]
struct Blocking(Arc<Semaphore>);

impl Kind for Blocking {
    const NAME: &'static str = "blocking";
    type Input = ();
    type Output = ();

    async fn run(&self, (): (), task: &Running) -> Result<(), Failure> {
        let (task, ended) = (task.clone(), self.0.clone());
        tokio::task::spawn_blocking(move || {
            while !task.is_cancelled() {
                std::thread::yield_now();
            }
            ended.add_permits(1);
        })
        .await?;
        Ok(())
    }
}

#[tokio::test]
async fn work_on_a_blocking_thread_is_told_when_its_time_is_over() {
    let blocking = Blocking(Arc::new(Semaphore::new(0)));
    let defaults =
        Defaults { timeout: Duration::from_millis(50), max_attempts: 1, keep: Duration::from_secs(60) };
    let pod = Plan { defaults, ..Plan::of(blocking.clone()) }.pod().await;
    let id = pod.put("blocking", "null").await;
    assert_eq!(pod.ended(id).await.error.as_deref(), Some("timed out after 0.05 s"));
    timeout(TIMEOUT, blocking.0.acquire()).await.expect("the thread comes back").unwrap().forget();
}

/// Blocks a thread that hears nothing, until the test lets it go.
#[derive(Clone, Default)]
struct Deaf {
    let_go: Arc<AtomicBool>,
    threads: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Kind for Deaf {
    const NAME: &'static str = "deaf";
    type Input = ();
    type Output = u16;

    async fn run(&self, (): (), task: &Running) -> Result<u16, Failure> {
        let (task, deaf) = (task.clone(), self.clone());
        Ok(tokio::task::spawn_blocking(move || {
            let threads = deaf.threads.fetch_add(1, Ordering::SeqCst) + 1;
            deaf.most.fetch_max(threads, Ordering::SeqCst);
            // A test that fails would else wait for it without end.
            let began = std::time::Instant::now();
            while !deaf.let_go.load(Ordering::SeqCst) && began.elapsed() < 2 * TIMEOUT {
                std::thread::park_timeout(Duration::from_millis(1));
            }
            deaf.threads.fetch_sub(1, Ordering::SeqCst);
            task.attempt()
        })
        .await?)
    }
}

/// A pod with one place whose task's time is over, and whose thread runs on.
async fn overrun() -> (Pod, Deaf, Uuid) {
    let deaf = Deaf::default();
    let defaults =
        Defaults { timeout: Duration::from_millis(50), max_attempts: 3, keep: Duration::from_secs(60) };
    let pod = Plan { defaults, concurrency: 1, ..Plan::of(deaf.clone()) }.pod().await;
    let id = pod.put("deaf", "null").await;
    pod.told("graceful_server_task_attempts_overrunning{kind=\"deaf\"} 1").await;
    (pod, deaf, id)
}

#[tokio::test]
async fn work_that_outlives_its_time_is_in_flight_until_it_ends() {
    let (pod, deaf, id) = overrun().await;
    pod.drain.start(1, Duration::ZERO).unwrap();
    let status = pod.drain.status();
    assert_eq!((status.state, status.in_flight.running), (Draining, 1), "a thread that runs is in flight");
    let task = pod.in_state(id, State::Running).await;
    assert_eq!(task.attempt, 1, "no other attempt begins beside it");
    deaf.let_go.store(true, Ordering::SeqCst);
    let task = pod.ended(id).await;
    assert_eq!((task.state, task.attempt), (State::Succeeded, 2), "then comes the next one");
    assert_eq!(task.error.as_deref(), Some("timed out after 0.05 s"));
    assert_eq!(deaf.most.load(Ordering::SeqCst), 1, "two attempts never ran at once");
    timeout(TIMEOUT, pod.drain.idle()).await.expect("the pod is idle once all threads have ended");
    pod.told("graceful_server_task_attempts_overrunning{kind=\"deaf\"} 0").await;
}

#[tokio::test]
async fn work_that_lost_its_task_is_in_flight_until_it_ends() {
    let deaf = Deaf::default();
    let pod = Plan { concurrency: 1, ..Plan::of(deaf.clone()) }.pod().await;
    let id = pod.put("deaf", "null").await;
    pod.in_state(id, State::Running).await;
    let theirs = Lease { id, attempt: 1 };
    pod.queue.store().unwrap().complete(theirs, Outcome::Succeeded("1".to_owned())).await.unwrap();
    pod.told("graceful_server_task_attempts_overrunning{kind=\"deaf\"} 1").await;
    let waits = pod.put("deaf", "null").await;
    let in_flight = pod.drain.status().in_flight;
    assert_eq!((in_flight.running, in_flight.queued), (1, 1), "it has its place, and the next one waits");
    deaf.let_go.store(true, Ordering::SeqCst);
    assert_eq!(pod.ended(waits).await.state, State::Succeeded);
    assert_eq!(deaf.most.load(Ordering::SeqCst), 1);
    timeout(TIMEOUT, pod.drain.wait_until(|status| status.in_flight.total() == 0)).await.unwrap();
}

#[tokio::test]
async fn no_more_tasks_run_than_there_are_places() {
    let held = Held::default();
    let pod = Plan { concurrency: 2, ..Plan::of(held.clone()) }.pod().await;
    for _ in 0..5 {
        pod.put("sleep", "{}").await;
    }
    pod.running(2).await;
    assert_eq!(pod.drain.status().in_flight.queued, 3);
    held.let_go(5);
    timeout(TIMEOUT, pod.drain.wait_until(|status| status.in_flight.total() == 0)).await.unwrap();
}

#[tokio::test]
async fn a_pod_with_its_own_queue_drains_what_waits_for_its_time_too() {
    let (pod, _) = pod().await;
    let mut task = pod.defaults.task("odd", r#"{"fail_until": 1}"#.to_owned());
    task.delay = Duration::from_millis(700);
    let id = task.id;
    let request = pod.drain.try_request().unwrap();
    pod.queue.submit(task, &request).await.unwrap();
    drop(request);
    pod.drain.start(1, Duration::ZERO).unwrap();
    assert_eq!((pod.drain.status().state, pod.drain.status().in_flight.queued), (Draining, 1));
    timeout(TIMEOUT, pod.drain.idle()).await.expect("it is done when its time has come");
    assert_eq!(pod.ended(id).await.state, State::Succeeded, "idle means that it was done");
}

#[tokio::test]
async fn a_task_that_is_looked_at_tells_its_attempts_and_one_of_a_list_does_not() {
    let (pod, _) = pod().await;
    let id = pod.put("odd", r#"{"fail_until": 2}"#).await;
    pod.ended(id).await;
    let (status, task) = json(&pod.public, "GET", &format!("/v1/tasks/{id}")).await;
    assert_eq!(status, 200, "{task}");
    let attempts = task["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{task}");
    assert_eq!(
        (&attempts[0]["attempt"], &attempts[0]["error"]),
        (&1.into(), &"no luck in 1".into()),
        "{task}"
    );
    assert_eq!((&attempts[1]["attempt"], &attempts[1]["error"]), (&2.into(), &Value::Null), "{task}");
    for attempt in attempts {
        assert!(attempt["pod"].is_string() && attempt["started_at"].is_string(), "{task}");
        assert!(attempt["ended_at"].is_string(), "{task}");
    }
    assert_eq!(attempts[1]["started_at"], task["started_at"]);
    let (_, list) = json(&pod.public, "GET", "/v1/tasks").await;
    assert_eq!(list["tasks"][0]["id"], task["id"]);
    assert_eq!(list["tasks"][0].get("attempts"), None, "{list}");
}
