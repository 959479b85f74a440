//! What goes wrong around a queue: a full disk, a database that is away or frozen, a damaged file. Each time clients get
//! 503 with Retry-After, the log says why, reads go on where they can, all comes back by itself, and nothing is half
//! accepted.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]
#![allow(dead_code, reason = "each test file uses its part of the child")]

mod child;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use child::{Folder, Server};
use graceful_postgres::Postgres;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

const BINARY: &str = env!("CARGO_BIN_EXE_server");
/// Far beyond what anything here takes, on a loaded machine too.
const TIMEOUT: Duration = Duration::from_secs(30);
const QUICK: [&str; 4] = ["--task-seconds", "0", "--linger-seconds", "0"];

/// What clients were told, and what is still owed to them.
#[derive(Default)]
struct Ledger(BTreeSet<String>);

impl Ledger {
    /// One submission: its status. A refusal must say when to come back.
    async fn submit(&mut self, server: &Server) -> u16 {
        let answer = server.post().await;
        let status = answer.status().as_u16();
        let retry = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        match status {
            200 => {
                let body: Value = answer.json().await.unwrap();
                self.0.insert(body["task_id"].as_str().unwrap().to_owned());
            }
            _ => assert!(retry.is_some_and(|r| r.parse::<u64>().is_ok()), "{status} without Retry-After"),
        }
        status
    }

    /// Submits until the answer is this one.
    async fn until(&mut self, wanted: u16, server: &Server) {
        let submitting = async {
            while self.submit(server).await != wanted {
                // No faster than the disk: this fills and waits, and is no load test.
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(TIMEOUT, submitting).await.unwrap_or_else(|_| panic!("no {wanted} in {TIMEOUT:?}"));
    }

    /// Every task that was accepted is done.
    async fn all_done(&self, server: &Server) {
        let asking = async {
            for task in &self.0 {
                while read(server, task).await != format!("Task {task} processed") {
                    sleep(Duration::from_millis(20)).await;
                }
            }
        };
        timeout(TIMEOUT, asking).await.expect("all that was accepted is done in time");
    }
}

/// What the server says of a task.
async fn read(server: &Server, task: &str) -> String {
    let url = format!("http://127.0.0.1:{}/v1/tasks/{task}", server.public);
    let answer = reqwest::Client::builder().no_proxy().build().unwrap().get(url).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{task}");
    answer.json::<Value>().await.unwrap()["message"].as_str().unwrap().to_owned()
}

/// `/readyz` on either port.
async fn ready(server: &Server) -> u16 {
    let url = format!("http://127.0.0.1:{}/readyz", server.admin);
    reqwest::Client::builder().no_proxy().build().unwrap().get(url).send().await.unwrap().status().as_u16()
}

async fn until_ready(server: &Server) {
    let asking = async {
        while ready(server).await != 200 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TIMEOUT, asking).await.expect("ready in time");
}

/// Tasks that the server says it has done.
fn processed(server: &Server) -> BTreeSet<String> {
    server.logged("processed").iter().map(|line| line["task_id"].as_str().unwrap().to_owned()).collect()
}

/// A server whose `--data` is a disk of its own of so many MiB, in a mount namespace of its own; and that disk, seen from here.
async fn on_a_disk_of(mebibytes: u32, point: &Folder, args: &[&str]) -> (Server, PathBuf) {
    let data = point.0.to_str().unwrap();
    let shell = ["unshare", "--user", "--map-root-user", "--mount", "sh"];
    let script = format!("mount -t tmpfs -o size={mebibytes}m none '{data}'");
    let server = Server::launch_in(&shell, &script, &[&["--data", data], args].concat()).await;
    let disk = PathBuf::from(format!("/proc/{}/root{data}", server.pid()));
    assert!(disk.join("tasks.db").exists(), "the disk is not where it was looked for");
    (server, disk)
}

/// Writes until nothing more fits.
fn fill(file: &Path) {
    let mut sink = fs::File::create(file).unwrap();
    let error = std::io::copy(&mut std::io::repeat(7), &mut sink).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
}

/// Less than the log is laid out with.
#[tokio::test]
async fn a_full_disk_of_2_mebibytes_refuses_serves_reads_and_is_over_when_there_is_room() {
    full_disk(2).await;
}

/// The log has room of its own for some hundreds of commits; after that it must be written back, and can't be.
#[tokio::test]
async fn a_full_disk_of_16_mebibytes_refuses_serves_reads_and_is_over_when_there_is_room() {
    full_disk(16).await;
}

async fn full_disk(mebibytes: u32) {
    let point = Folder::new();
    let (mut server, disk) = on_a_disk_of(mebibytes, &point, &QUICK).await;
    let mut ledger = Ledger::default();
    assert_eq!(ledger.submit(&server).await, 200, "a small disk is no full one");
    let first = ledger.0.first().unwrap().clone();
    ledger.all_done(&server).await;

    fill(&disk.join("filler"));
    ledger.until(503, &server).await;
    assert_eq!(read(&server, &first).await, format!("Task {first} processed"));
    assert_eq!(ready(&server).await, 200, "a pod that is taken out of its Service can't even say why");
    let said = server.logged_once("cannot write the queue").await;
    assert_eq!(said["why"], "disk", "{said}");
    assert!(said["detail"].as_str().unwrap().contains("full"), "{said}");

    fs::remove_file(disk.join("filler")).unwrap();
    ledger.until(200, &server).await;
    ledger.all_done(&server).await;
    server.logged_once("the queue can be written again").await;
    server.signal("TERM");
    assert_eq!(server.exit().await, 0);
    assert_eq!(processed(&server), ledger.0, "what was refused was not done either");
}

async fn on_postgres(postgres: &Postgres, args: &[&str]) -> Server {
    let url = postgres.url(&postgres.create_database().unwrap());
    let args = [&["--store", "postgres", "--url", &url], args].concat();
    Server::launch(Path::new(BINARY), &args, &[]).await
}

/// Submits while the database is away, for so long: refused, each within the time that a client waits.
async fn refused_for(span: Duration, ledger: &mut Ledger, server: &Server) {
    let end = Instant::now() + span;
    let mut refused = 0;
    while Instant::now() < end {
        let asked = Instant::now();
        if ledger.submit(server).await == 503 {
            refused += 1;
        }
        assert!(asked.elapsed() < Duration::from_secs(12), "an answer took {:?}", asked.elapsed());
        assert_eq!(ready(server).await, 200, "all pods unready at once would leave the Service empty");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(refused > 0, "no submission was refused: the database was not away");
}

#[tokio::test]
async fn on_postgres_a_stop_of_twenty_seconds_costs_nothing_that_was_accepted() {
    let postgres = Postgres::start().unwrap();
    let server = on_postgres(&postgres, &["--task-seconds", "0-3", "--linger-seconds", "0"]).await;
    let mut ledger = Ledger::default();
    for _ in 0..50 {
        assert_eq!(ledger.submit(&server).await, 200);
    }
    // With attempts that run, and some that end while nobody can write it down.
    // Longer than attempts are remembered for without a sign of their queue.
    postgres.stop().unwrap();
    refused_for(Duration::from_secs(20), &mut ledger, &server).await;
    postgres.start_again().unwrap();
    ledger.until(200, &server).await;
    ledger.all_done(&server).await;
    server.logged_once("cannot use the queue").await;
    server.logged_once("the queue can be used again").await;
    let lines = server.logged("the queue is unavailable");
    assert!((1..10).contains(&lines.len()), "not one for each that was refused: {lines:?}");
}

#[tokio::test]
async fn on_postgres_a_freeze_is_refused_and_not_waited_for() {
    let postgres = Postgres::start().unwrap();
    let server = on_postgres(&postgres, &["--task-seconds", "0-3", "--linger-seconds", "0"]).await;
    let mut ledger = Ledger::default();
    for _ in 0..50 {
        assert_eq!(ledger.submit(&server).await, 200);
    }
    postgres.pause().unwrap();
    refused_for(Duration::from_secs(10), &mut ledger, &server).await;
    postgres.resume().unwrap();
    ledger.until(200, &server).await;
    ledger.all_done(&server).await;
}

#[tokio::test]
async fn on_postgres_a_database_that_is_not_there_yet_is_waited_for() {
    let postgres = Postgres::start().unwrap();
    let url = postgres.url(&postgres.create_database().unwrap());
    postgres.stop().unwrap();
    let args = [&["--store", "postgres", "--url", &url], &QUICK[..]].concat();
    let server = Server::spawn(Path::new(BINARY), &args, &[]).await;
    let mut ledger = Ledger::default();
    assert_eq!(ledger.submit(&server).await, 503);
    assert_eq!(ready(&server).await, 503);
    server.logged_once("cannot open the queue").await;
    postgres.start_again().unwrap();
    until_ready(&server).await;
    ledger.until(200, &server).await;
    ledger.all_done(&server).await;
}

/// A server on a folder whose file is damaged: up, refusing, and clear about it.
async fn on_a_damaged_file(data: &Folder) -> Server {
    let args = [&["--data", data.0.to_str().unwrap()], &QUICK[..]].concat();
    let server = Server::spawn(Path::new(BINARY), &args, &[]).await;
    let said = server.logged_once("cannot open the queue").await;
    let trouble = said["trouble"].as_str().unwrap();
    let file = data.0.join("tasks.db");
    assert!(trouble.contains(file.to_str().unwrap()) && trouble.contains("put a sound copy"), "{said}");
    let mut none = Ledger::default();
    assert_eq!((none.submit(&server).await, ready(&server).await), (503, 503));
    server
}

#[tokio::test]
async fn a_damaged_file_is_named_and_left_alone_until_it_is_moved_away() {
    let data = Folder::new();
    let file = data.0.join("tasks.db");
    let rubbish = [7; 40_000];
    fs::write(&file, rubbish).unwrap();
    let server = on_a_damaged_file(&data).await;
    assert_eq!(fs::read(&file).unwrap(), rubbish, "it is left as it is");
    fs::rename(&file, data.0.join("damaged.db")).unwrap();
    until_ready(&server).await;
    let mut ledger = Ledger::default();
    assert_eq!(ledger.submit(&server).await, 200);
    ledger.all_done(&server).await;
}

#[tokio::test]
async fn a_sound_copy_in_the_place_of_a_damaged_file_brings_its_tasks_back() {
    let data = Folder::new();
    let first = Server::start_on(&data, &["--task-seconds", "600"]).await;
    let mut ledger = Ledger::default();
    for _ in 0..5 {
        assert_eq!(ledger.submit(&first).await, 200);
    }
    first.kill().await;
    // One file, as SQLite's own backup makes it; file and log together would do as well.
    let backup = Folder::new();
    let copy = backup.0.join("tasks.db");
    let source = rusqlite::Connection::open(data.0.join("tasks.db")).unwrap();
    source.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    drop(source);
    for entry in fs::read_dir(&data.0).unwrap().flatten() {
        fs::remove_file(entry.path()).unwrap();
    }
    fs::write(data.0.join("tasks.db"), [7; 40_000]).unwrap();
    let server = on_a_damaged_file(&data).await;
    fs::rename(copy, data.0.join("tasks.db")).unwrap();
    until_ready(&server).await;
    ledger.all_done(&server).await;
}
