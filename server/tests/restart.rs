//! SIGKILL and restarts on the same folder: nothing that was accepted is lost, and nothing is hidden from the drain.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

mod child;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use child::{Folder, Server};
use tokio::time::timeout;

#[tokio::test]
async fn what_was_accepted_is_finished_after_a_sigkill_and_the_attempt_counts() {
    let data = Folder::new();
    let first = Server::start_on(&data, &["--task-seconds", "600", "--concurrency", "2"]).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(first.submit().await);
    }
    let before = first.drained_to(|status| status["inFlight"]["running"] == 2).await;
    assert_eq!(before["inFlight"]["queued"], 3);
    first.kill().await;

    let mut second = Server::start_on(&data, &["--task-seconds", "0", "--linger-seconds", "0"]).await;
    second.drained_to(|status| status["inFlight"]["total"] == 0).await;
    second.signal("TERM");
    assert_eq!(second.exit().await, 0);
    let processed = second.logged("processed");
    let mut done: Vec<_> = processed.iter().map(|one| one["task_id"].as_str().unwrap().to_owned()).collect();
    done.sort_unstable();
    ids.sort_unstable();
    assert_eq!(done, ids);
    let again = processed.iter().filter(|one| one["span"]["attempt"] == 2).count();
    assert_eq!(again, 2, "those that ran when it was killed are in their second attempt");
}

#[tokio::test]
async fn a_server_that_could_not_open_its_file_ends_all_the_same() {
    let program = Path::new(env!("CARGO_BIN_EXE_server"));
    let data = Folder::new();
    let args = ["--data", data.0.to_str().unwrap(), "--task-seconds", "600", "--linger-seconds", "0"];
    let first = Server::start_on(&data, &args[2..]).await;
    first.submit().await;
    let mut second = Server::spawn(program, &args, &[]).await;
    let status = second.status().await;
    assert_ne!(status["inFlight"]["total"], 0, "nobody knows what is in the file: {status}");
    second.signal("TERM");
    assert_eq!(second.exit().await, 0);
    assert_eq!(second.logged("the queue cannot be opened and the process is to end").len(), 1);
    first.kill().await;

    let file = rusqlite::Connection::open(data.0.join("tasks.db")).unwrap();
    file.pragma_update(None, "user_version", 99).unwrap();
    let mut older = Server::spawn(program, &args, &[]).await;
    older.signal("TERM");
    assert_eq!(older.exit().await, 0);
    let said = older.logged("cannot open the queue");
    let trouble = said[0]["trouble"].as_str().unwrap();
    assert!(trouble.contains("schema version 99") && trouble.contains("run a newer server"), "{trouble}");
}

#[tokio::test]
async fn what_the_file_holds_is_in_flight_from_the_first_answer_on() {
    let data = Folder::new();
    let first = Server::start_on(&data, &["--task-seconds", "600", "--concurrency", "1"]).await;
    first.submit().await;
    first.submit().await;
    first.kill().await;

    let program = Path::new(env!("CARGO_BIN_EXE_server"));
    let args = ["--data", data.0.to_str().unwrap(), "--task-seconds", "600", "--concurrency", "1"];
    let second = Server::spawn(program, &args, &[]).await;
    // From the moment that its ports are known, its queue open or not: nobody may take this pod for an idle one.
    let status = second.status().await;
    assert_ne!(status["inFlight"]["total"], 0, "{status}");
    second.drain(1, 0).await;
    let status = second.status().await;
    assert_eq!(status["state"], "Draining", "{status}");
    second.drained_to(|status| status["inFlight"]["queued"] == 1 && status["inFlight"]["running"] == 1).await;
}

#[tokio::test]
async fn a_folder_that_another_server_has_is_waited_for() {
    let data = Folder::new();
    let first = Server::start_on(&data, &["--task-seconds", "600"]).await;
    first.submit().await;
    let program = Path::new(env!("CARGO_BIN_EXE_server"));
    let args = ["--data", data.0.to_str().unwrap(), "--task-seconds", "0"];
    let second = Server::spawn(program, &args, &[]).await;
    let refused = second.post().await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    second.logged_once("cannot open the queue").await;
    first.kill().await;
    second.drained_to(|status| status["inFlight"]["total"] == 0).await;
    second.logged_once("processed").await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    let file = Folder::new();
    let inside = file.0.join("a-file");
    std::fs::write(&inside, "").unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_server"));
    let server = Server::spawn(program, &["--data", inside.to_str().unwrap()], &[]).await;
    let said = server.logged_once("cannot open the queue").await;
    assert!(said["trouble"].as_str().unwrap().contains("give --data a folder"), "{said}");
}

#[tokio::test]
async fn flags_that_contradict_each_other_are_refused_before_anything_starts() {
    let run = tokio::process::Command::new(env!("CARGO_BIN_EXE_server"))
        .args(["--url", "postgres://u:secret@h/d"])
        .stderr(Stdio::piped())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(2), "{said}");
    assert!(said.contains("write --store postgres") && !said.contains("secret"), "{said}");
}

/// The queue's files, from one folder to another.
fn move_queue(from: &Path, to: &Path) {
    for name in ["tasks.db", "tasks.db-wal", "tasks.db-shm"] {
        match std::fs::rename(from.join(name), to.join(name)) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{name}"),
        }
    }
}

#[tokio::test]
async fn a_damaged_file_is_told_and_left_alone_and_a_sound_one_is_taken_up_by_itself() {
    let data = Folder::new();
    let server = Server::start_on(&data, &["--task-seconds", "600", "--concurrency", "1"]).await;
    server.submit().await;
    server.submit().await;
    server.drained_to(|status| status["inFlight"]["running"] == 1).await;
    // Those who listen must not keep the old file open.
    let _socket = server.socket("alice").await;
    let _stream = reqwest::get(format!("http://127.0.0.1:{}/v1/events", server.public)).await.unwrap();

    let aside = Folder::new();
    move_queue(&data.0, &aside.0);
    std::fs::write(data.0.join("tasks.db"), "this is no queue ".repeat(1000)).unwrap();
    server
        .logged_until("cannot use the queue", |line| {
            line["trouble"].as_str().unwrap().contains("put a sound copy in its place")
        })
        .await;
    let refused = server.post().await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(server.readyz().await, 200);
    assert_eq!(server.status().await["inFlight"]["total"], 2, "what was accepted is not forgotten");
    assert!(std::fs::read_to_string(data.0.join("tasks.db")).unwrap().starts_with("this is no queue"));

    std::fs::remove_file(data.0.join("tasks.db")).unwrap();
    move_queue(&aside.0, &data.0);
    let accepted = async {
        while server.post().await.status() != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(30), accepted).await.expect("it is taken up by itself");
    server.drained_to(|status| status["inFlight"]["queued"] == 2 && status["inFlight"]["running"] == 1).await;
}
