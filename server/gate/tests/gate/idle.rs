//! `--in-flight`: the pod is idle when the app says so too, in answers that were asked for after the gate was latched and empty.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::app::{App, header, ok};
use super::client::{ask, get};
use super::gate::{Gate, PATIENCE};
use graceful_drain::{DrainStatus, State};

/// An app with a count of its own, and when it was asked for it.
struct Counting {
    app: App,
    count: Arc<Mutex<String>>,
    asked: Arc<Mutex<Vec<Instant>>>,
}

impl Counting {
    async fn new() -> Self {
        let (count, asked) = (Arc::new(Mutex::new("0".to_owned())), Arc::new(Mutex::new(Vec::new())));
        let (says, notes) = (count.clone(), asked.clone());
        let app = App::http(move |head, _| {
            if !head.starts_with("GET /queue") {
                return ok("");
            }
            notes.lock().unwrap().push(Instant::now());
            let says = says.lock().unwrap().clone();
            ok(&format!("{{\"task_lenth\": {says}}}"))
        })
        .await;
        Self { app, count, asked }
    }

    fn says(&self, count: &str) {
        count.clone_into(&mut self.count.lock().unwrap());
    }

    fn asked_since(&self, moment: Instant) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| **asked > moment).count()
    }
}

const QUESTION: &str = r#"{"path": "/queue", "jsonPointers": ["/task_lenth"]}"#;

#[tokio::test]
async fn idle_takes_the_apps_own_zero_held_and_heard_three_times() {
    let counting = Counting::new().await;
    let gate = Gate::before(counting.app.port, &["--in-flight", QUESTION, "--quiet-seconds", "2"]).await;
    gate.wait("served", |status| status.in_flight.total() == 0).await;
    let latched = Instant::now();
    let status = gate.drain(1, 0).await;
    assert_eq!((status.state, status.in_flight.total()), (State::Draining, 1), "unknown is busy");
    gate.wait("idle", |status| status.is_idle()).await;
    assert!(latched.elapsed() >= Duration::from_secs(2), "it held for {:?}", latched.elapsed());
    assert!(counting.asked_since(latched) >= 3, "asked {} times since", counting.asked_since(latched));
}

#[tokio::test]
async fn work_behind_a_response_holds_the_drain_and_any_rise_starts_over() {
    let counting = Counting::new().await;
    let gate = Gate::before(counting.app.port, &["--in-flight", QUESTION, "--quiet-seconds", "3"]).await;
    counting.says("3");
    gate.drain(1, 0).await;
    let status = gate.wait("3 behind", |status| status.in_flight.running == 3).await;
    assert_eq!(status.state, State::Draining);
    counting.says("0");
    let asked = Instant::now();
    while counting.asked_since(asked) < 2 {
        sleep(Duration::from_millis(20)).await;
    }
    counting.says("1");
    gate.wait("risen", |status| status.in_flight.running == 1 && !status.is_idle()).await;
    while counting.asked_since(asked) < 4 {
        sleep(Duration::from_millis(20)).await;
    }
    let quiet = Instant::now();
    counting.says("0");
    gate.wait("idle", |status| status.is_idle()).await;
    assert!(quiet.elapsed() >= Duration::from_secs(3), "it starts over: {:?}", quiet.elapsed());
    // Work that shows up later all the same is told, and takes the word back.
    counting.says("2");
    gate.wait("busy again", |status| status.in_flight.running == 2).await;
    counting.says("0");
    gate.wait("idle again", |status| status.is_idle()).await;
}

/// A question that is wrong is found when the pod comes, and not when it must go.
#[tokio::test]
async fn until_the_apps_first_answer_the_gate_says_that_it_knows_nothing() {
    let counting = Counting::new().await;
    counting.says("\"many\"");
    let gate = Gate::before(counting.app.port, &["--in-flight", QUESTION]).await;
    let why = |status: &DrainStatus| status.unknown.clone().unwrap_or_default();
    let status = gate.wait("asked", |status| why(status).contains("/task_lenth")).await;
    assert_eq!((status.state, status.accepting, status.is_idle()), (State::Serving, true, false));
    counting.says("0");
    gate.wait("heard", |status| status.unknown.is_none()).await;
    // From then on silence is an app that is busy, or restarts.
    let moment = Instant::now();
    counting.says("\"many\"");
    gate.drain(1, 0).await;
    while counting.asked_since(moment) < 2 {
        sleep(Duration::from_millis(20)).await;
    }
    let status = gate.status().await;
    assert_eq!((status.unknown.as_ref(), status.in_flight.total()), (None, 1));
}

/// Whatever is not surely a count is busy, and so is silence.
#[tokio::test]
async fn an_app_that_does_not_say_is_busy() {
    let counting = Counting::new().await;
    let gate = Gate::before(counting.app.port, &["--in-flight", QUESTION, "--quiet-seconds", "0"]).await;
    for answer in ["\"0\"", "null", "-1", "0.5", "0, \"task_lenth\"", "0}{"] {
        counting.says(answer);
        let moment = Instant::now();
        let epoch = gate.status().await.epoch + 1;
        gate.drain(epoch, 0).await;
        while counting.asked_since(moment) < 4 {
            sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(gate.status().await.in_flight.total(), 1, "{answer}");
        gate.resume(epoch + 1).await;
    }
    assert!(gate.log().contains("taken for busy"), "{}", gate.log());
    counting.says("0");
    gate.drain(100, 0).await;
    gate.wait("idle", |status| status.is_idle()).await;
}

#[tokio::test]
async fn an_app_that_is_away_is_busy_until_the_process_itself_must_end() {
    let counting = Counting::new().await;
    let mut gate = Gate::before(
        counting.app.port,
        &["--in-flight", QUESTION, "--quiet-seconds", "0", "--linger-seconds", "0"],
    )
    .await;
    drop(counting);
    gate.drain(1, 0).await;
    let failed = "graceful_gate_app_questions_total{outcome=\"no_answer\"}";
    let before = gate.metric(failed).await;
    while gate.metric(failed).await < before + 4.0 {
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(gate.status().await.in_flight.total(), 1, "it may be one that restarts");
    // The kubelet ends the sidecar after the app.
    gate.signal("-TERM");
    assert_eq!(gate.exit().await.code(), Some(0));
}

#[tokio::test]
async fn metrics_are_added_up_and_the_question_has_its_authorization() {
    let running = Arc::new(AtomicU64::new(1));
    let seen = Arc::new(Mutex::new(None));
    let app = {
        let (running, seen) = (running.clone(), seen.clone());
        App::http(move |head, _| {
            assert!(head.starts_with("GET /metrics HTTP/1.1"), "{head}");
            *seen.lock().unwrap() = header(head, "authorization").map(ToOwned::to_owned);
            let running = running.load(Ordering::SeqCst);
            ok(&format!("# TYPE r gauge\nvllm:num_requests_running{{m=\"a\"}} {running}\nvllm:num_requests_waiting{{m=\"a\"}} 2.0\n"))
        })
        .await
    };
    let question = r#"{"metrics": ["vllm:num_requests_running", "vllm:num_requests_waiting"], "idleAt": 2}"#;
    let flags = ["--in-flight", question, "--quiet-seconds", "0"];
    let secret = [("GRACEFUL_GATE_IN_FLIGHT_AUTHORIZATION", "Bearer of-the-pod")];
    let gate = Gate::with(app.port, &flags, &secret).await;
    gate.drain(1, 0).await;
    gate.wait("asked", |status| status.in_flight.running == 1).await;
    sleep(Duration::from_millis(1500)).await;
    assert!(!gate.status().await.is_idle(), "3, of which 2 are the app's idle");
    running.store(0, Ordering::SeqCst);
    gate.wait("idle", |status| status.is_idle()).await;
    assert_eq!(seen.lock().unwrap().as_deref(), Some("Bearer of-the-pod"));
    assert!(!gate.log().contains("of-the-pod"), "{}", gate.log());
}

#[tokio::test]
async fn a_proof_is_for_one_drain() {
    let counting = Counting::new().await;
    let gate = Gate::before(counting.app.port, &["--in-flight", QUESTION, "--quiet-seconds", "1"]).await;
    gate.drain(1, 0).await;
    gate.wait("idle", |status| status.is_idle()).await;
    gate.resume(2).await;
    assert_eq!(ask(&mut gate.connect().await, &get("/")).await.unwrap().status, 200);
    let again = Instant::now();
    assert!(!gate.drain(3, 0).await.is_idle(), "clients were served since");
    gate.wait("idle", |status| status.is_idle()).await;
    assert!(again.elapsed() >= Duration::from_secs(1) && counting.asked_since(again) >= 3);
    timeout(PATIENCE, gate.admin("GET /wait-idle", "")).await.unwrap();
}
