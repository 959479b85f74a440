//! SIGKILL and restarts on the same folder: nothing that was accepted is lost, and nothing is hidden from the drain.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

mod child;

use std::path::Path;
use std::process::Stdio;

use child::{Folder, Server};

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
    second.logged_once("the queue can't be opened").await;
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
    let said = server.logged_once("the queue can't be opened").await;
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
