//! Stepping up while servers of before work on: none of them is kept waiting for long, and none loses what it runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use graceful_store::postgres;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep};

use super::conformance::fixture::{LONG, settings};
use super::opening::VERSIONS;
use super::{SERVER, maintained, open};

/// A database of the version before this one, in whose midst the new one's servers begin.
fn left_behind() -> String {
    let name = SERVER.create_database().unwrap();
    SERVER.sql(&name, VERSIONS[VERSIONS.len() - 1]).unwrap();
    name
}

/// Statements of a server of before, or of somebody else.
fn elsewhere(name: &str, statements: &str) -> JoinHandle<Option<String>> {
    let (name, statements) = (name.to_owned(), statements.to_owned());
    spawn_blocking(move || SERVER.sql(&name, &statements).ok())
}

async fn until(name: &str, condition: &str) {
    let end = Instant::now() + LONG;
    while SERVER.sql(name, &format!("SELECT {condition}")).unwrap() != "t" {
        assert!(Instant::now() < end, "never: {condition}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_up_that_waits_for_a_backup_is_in_nobodys_way() {
    let name = left_behind();
    let url = SERVER.url(&name);
    // As pg_dump does, for as long as it takes.
    let backup = elsewhere(
        &name,
        "SET application_name = 'backup'; BEGIN; LOCK TABLE graceful_tasks IN ACCESS SHARE MODE; SELECT pg_sleep(60)",
    );
    let backups = "EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
         WHERE a.datname = current_database() AND a.application_name = 'backup' AND l.relation = 'graceful_tasks'::regclass)";
    until(&name, backups).await;
    let opening = tokio::spawn(async move {
        loop {
            match postgres::open(&url, settings()).await {
                Ok(store) => return store,
                Err(_) => sleep(Duration::from_millis(300)).await,
            }
        }
    });
    let waits = "EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')";
    for number in 10..14 {
        until(&name, waits).await;
        let submission = format!(
            "SET statement_timeout = '5s'; \
             INSERT INTO graceful_tasks (id, state, priority, attempt, max_attempts, granted, created, due, keep, kind, input) \
             VALUES ('00000000-0000-7000-8000-0000000000{number}', 'queued', 0, 0, 3, 3, 1, 1, 1, 'sleep', '{{}}')"
        );
        let submitted = elsewhere(&name, &submission).await.unwrap();
        assert!(submitted.is_some(), "a server of before waits for one that waits");
    }
    assert!(!opening.is_finished());
    SERVER
        .sql(
            &name,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'backup'",
        )
        .unwrap();
    assert_eq!(backup.await.unwrap(), None);
    tokio::time::timeout(LONG, opening).await.expect("it does not open").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_up_that_takes_longer_than_a_lease_costs_nobody_what_it_runs() {
    static OPEN: AtomicBool = AtomicBool::new(false);
    let name = left_behind();
    let clock = "(date_part('epoch', clock_timestamp()) * 1000)::bigint";
    // An index on many rows.
    SERVER
        .sql(
            &name,
            "CREATE FUNCTION nap() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(8); END'; \
             CREATE EVENT TRIGGER nap ON ddl_command_end WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION nap()",
        )
        .unwrap();
    let claim = format!(
        "UPDATE graceful_tasks SET state = 'running', attempt = 1, started = {clock}, owner = 'before', lease_until = {clock} + 6000; \
         INSERT INTO graceful_pulse (since, latest) VALUES ({clock} - 60000, {clock})"
    );
    SERVER.sql(&name, &claim).unwrap();
    // Its probes, one after the other, each with the time at which it was sent.
    let probes = tokio::spawn({
        let name = name.clone();
        async move {
            let probe = "WITH beat AS (INSERT INTO graceful_pulse AS before (since, latest) \
                 SELECT t, t FROM (SELECT (date_part('epoch', statement_timestamp()) * 1000)::bigint AS t) now \
                 ON CONFLICT (one) DO UPDATE SET latest = excluded.latest, since = \
                 CASE WHEN abs(excluded.latest - before.latest) <= 3000 THEN before.since ELSE excluded.latest END RETURNING since) \
                 SELECT head FROM graceful_log, beat";
            while !OPEN.load(Ordering::SeqCst) {
                elsewhere(&name, probe).await.unwrap().unwrap();
                sleep(Duration::from_millis(500)).await;
            }
        }
    });
    let store = open(&SERVER.url(&name), settings()).await;
    let _maintained = maintained(&store);
    // Its owner's last attempt to renew was given up in the midst; here is the next.
    sleep(Duration::from_millis(1500)).await;
    let renewed = SERVER
        .sql(
            &name,
            &format!(
                "UPDATE graceful_tasks SET lease_until = {clock} + 6000 WHERE state = 'running' AND owner = 'before' RETURNING attempt"
            ),
        )
        .unwrap();
    assert_eq!(renewed, "1", "it was taken from one that lives");
    OPEN.store(true, Ordering::SeqCst);
    probes.await.unwrap();
}
