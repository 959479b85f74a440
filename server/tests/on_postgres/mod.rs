//! Pods that share a queue in PostgreSQL: whose task is whose, as pods drain, die and are aborted, and as the database
//! goes away.

use std::sync::LazyLock;
use std::time::Duration;

use crate::callee::{Callee, Say};
use crate::child::Server;
use graceful_postgres::Postgres;
use serde_json::json;
use tokio::time::{sleep, timeout};

const TIMEOUT: Duration = Duration::from_secs(60);
/// A task that outlasts any test.
const LONG: [&str; 4] = ["--task-seconds", "600", "--concurrency", "1"];
const QUICK: [&str; 2] = ["--task-seconds", "0"];

static POSTGRES: LazyLock<Postgres> = LazyLock::new(|| Postgres::start().unwrap());

/// A database of the test's own: its name and its URL.
fn database() -> (String, String) {
    let name = POSTGRES.create_database().unwrap();
    let url = POSTGRES.url(&name);
    (name, url)
}

/// Tasks that some pod has claimed: a claim that is under way counts as running before it has one.
fn running(postgres: &Postgres, database: &str) -> String {
    postgres
        .sql(database, "SELECT count(*) FROM graceful_tasks WHERE state = 'running'")
        .unwrap()
        .trim()
        .to_owned()
}

async fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let asking = async {
        while !is_so() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(TIMEOUT, asking).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

#[tokio::test]
async fn a_draining_pod_leaves_what_waits_to_the_others_and_claims_again_after_a_resume() {
    let (database, url) = database();
    let mut first = Server::start_sharing(&url, &["--task-seconds", "2", "--concurrency", "1"]).await;
    for _ in 0..3 {
        first.submit().await;
    }
    wait_until("it runs one", || running(&POSTGRES, &database) == "1").await;
    first.drain(1, 0).await;
    let idle = first.drained_to(|status| status["state"] == "Idle").await;
    assert_eq!(idle["inFlight"], json!({"total": 0, "queued": 0, "running": 0, "requests": 0}));
    first.logged_once("processed").await;
    // The shared length is up to a second old, and wakes nobody.
    let told = async {
        while first.status().await["shared"]["queued"] != 2 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(TIMEOUT, told)
        .await
        .expect("what waits is told, for information: it ended what it had, and took no more");

    let second = Server::start_sharing(&url, &QUICK).await;
    wait_until("the other pod does both", || second.logged("processed").len() == 2).await;
    assert_eq!(first.logged("processed").len(), 1);

    second.drain(1, 0).await;
    second.drained_to(|status| status["state"] == "Idle").await;
    first.resume(2).await;
    first.submit().await;
    wait_until("it claims again", || first.logged("processed").len() == 2).await;
    first.signal("TERM");
    assert_eq!(first.exit().await, 0);
}

#[tokio::test]
async fn a_dead_pod_s_tasks_go_to_another() {
    let (database, url) = database();
    let first = Server::start_sharing(&url, &LONG).await;
    let id = first.submit().await;
    wait_until("it runs", || running(&POSTGRES, &database) == "1").await;
    let second = Server::start_sharing(&url, &QUICK).await;
    first.kill().await;
    let done = second.logged_once("processed").await;
    assert_eq!((&done["task_id"], &done["span"]["attempt"]), (&json!(id), &json!(2)));
}

#[tokio::test]
async fn an_aborted_pod_hands_back_what_it_ran() {
    let (database, url) = database();
    let mut pod = Server::start_sharing(&url, &["--task-seconds", "600", "--linger-seconds", "0"]).await;
    for _ in 0..3 {
        pod.submit().await;
    }
    wait_until("they run", || running(&POSTGRES, &database) == "3").await;
    pod.signal("TERM");
    pod.drained_to(|status| status["state"] == "Terminating").await;
    pod.signal("TERM");
    assert_eq!(pod.exit().await, 143);
    assert_eq!(running(&POSTGRES, &database), "0", "at once, not when the leases are over");
}

#[tokio::test]
async fn an_exit_leaves_nothing_claimed() {
    let (database, url) = database();
    let mut pod = Server::start_sharing(
        &url,
        &["--task-seconds", "0.05", "--concurrency", "4", "--linger-seconds", "0"],
    )
    .await;
    for _ in 0..40 {
        pod.submit().await;
    }
    pod.signal("TERM");
    assert_eq!(pod.exit().await, 0);
    assert_eq!(running(&POSTGRES, &database), "0");
    let left = POSTGRES.sql(&database, "SELECT count(*) FROM graceful_tasks WHERE state = 'queued'").unwrap();
    let done = pod.logged("processed").len();
    assert_eq!(left.trim().parse::<usize>().unwrap() + done, 40);
}

#[tokio::test]
async fn a_database_that_goes_away_is_told_as_503_and_comes_back_by_itself() {
    let postgres = Postgres::start().unwrap();
    let name = postgres.create_database().unwrap();
    let pod = Server::start_sharing(&postgres.url(&name), &["--task-seconds", "1"]).await;
    let before = pod.submit().await;
    wait_until("it runs", || running(&postgres, &name) == "1").await;
    postgres.stop().unwrap();
    let refused = pod.post().await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(pod.readyz().await, 200, "a Service without endpoints could not say so");
    // Its work ends meanwhile; the end is written down when the database is back.
    pod.logged_once("cannot write down a task's end").await;
    assert_eq!(pod.status().await["inFlight"]["running"], 1);
    postgres.start_again().unwrap();
    assert_eq!(pod.logged_once("processed").await["task_id"], json!(before));
    let accepted = async {
        while pod.post().await.status() != 200 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(TIMEOUT, accepted).await.expect("takes tasks again");
    wait_until("both are processed", || pod.logged("processed").len() == 2).await;
}

#[tokio::test]
async fn a_pod_that_starts_before_its_database_waits_for_it() {
    let postgres = Postgres::start().unwrap();
    let url = postgres.url(&postgres.create_database().unwrap());
    postgres.stop().unwrap();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_server"));
    let args = [&["--store", "postgres", "--url", &url], &QUICK[..]].concat();
    let pod = Server::spawn(program, &args, &[]).await;
    assert_eq!((pod.post().await.status().as_u16(), pod.readyz().await), (503, 503));
    let said = pod.logged_once("cannot open the queue").await;
    assert!(!said.to_string().contains(graceful_postgres::PASSWORD), "{said}");
    postgres.start_again().unwrap();
    let ready = async {
        while pod.readyz().await != 200 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(TIMEOUT, ready).await.expect("opens it by itself");
    pod.submit().await;
    pod.logged_once("processed").await;
}

#[tokio::test]
async fn calls_are_made_by_the_pods_that_may_make_them() {
    let (_, url) = database();
    let callee = Callee::that(&[Say::Bytes("HTTP/1.1 204 No Content\r\n\r\n")]).await;
    // It comes first to all that waits, and leaves it.
    let closed = Server::start_sharing(&url, &QUICK).await;
    let open = Server::start_sharing(&url, &["--http-allow", &callee.url()]).await;
    for _ in 0..10 {
        let task = json!({"kind": "http", "input": {"url": callee.url()}, "max_attempts": 1});
        let (status, body) = open.call("POST", "/v1/tasks", Some(&task)).await;
        assert_eq!(status, 202, "{body}");
        let id = body["id"].as_str().unwrap();
        let task = open.task(id, |task| task["ended_at"].is_string()).await;
        assert_eq!(task["state"], "succeeded", "{task}");
    }
    assert_eq!((callee.calls(), closed.logged("processed").len()), (10, 0));
}
