//! SIGKILL at any moment: what was acknowledged is there.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use graceful_store::{Hold, NewTask, Outcome, State, Submitted};
use uuid::Uuid;

use crate::conformance::fixture::{get, settings, task};
use crate::{Folder, open};

const FOLDER: &str = "GRACEFUL_TEST_FOLDER";

/// Runs one of this binary's ignored tests as a process of its own.
pub(crate) fn child(test: &str, folder: &std::path::Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--ignored", "--nocapture", "--test-threads=1"]).env(FOLDER, folder);
    command
}

/// The folder that the parent gave.
pub(crate) fn given_folder() -> PathBuf {
    std::env::var_os(FOLDER).expect("run by its parent test only").into()
}

/// Says on a line of its own what is certain.
pub(crate) fn say(what: &str, id: Uuid) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{what} {id}").unwrap();
    out.flush().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process that is killed"]
async fn submits_and_completes_until_it_is_killed() {
    let store = open(&given_folder(), settings()).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let store = Arc::clone(&store);
        clients.spawn(async move {
            loop {
                let new = NewTask { max_attempts: 1000, ..task() };
                let id = new.id;
                assert_eq!(store.submit(new, Hold::default()).await.unwrap(), Submitted::New);
                say("accepted", id);
            }
        });
    }
    for _ in 0..2 {
        let store = Arc::clone(&store);
        clients.spawn(async move {
            loop {
                for claim in store.claim(2).await.unwrap() {
                    let done = Outcome::Succeeded("1".to_owned());
                    store.complete(claim.lease, done).await.unwrap();
                    say("done", claim.lease.id);
                }
            }
        });
    }
    clients.join_all().await;
}

/// What the child has said after so many lines; it is dead by then.
fn said(child: &mut Child, lines: usize) -> Vec<(String, Uuid)> {
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut said = Vec::new();
    let mut line = String::new();
    while out.read_line(&mut line).unwrap() > 0 {
        if let Some((what, id)) = line.trim().split_once(' ')
            && let Ok(id) = id.parse()
        {
            said.push((what.to_owned(), id));
        }
        line.clear();
        if said.len() == lines {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_to_a_kill() {
    let folder = Folder::new();
    let mut all = Vec::new();
    for round in 0..6 {
        let mut child = child("kill::submits_and_completes_until_it_is_killed", &folder.0)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = said(&mut child, 37 + 61 * round);
        assert!(said.len() >= 37, "the child said {said:?}");
        all.extend(said);
        let store = open(&folder.0, settings()).await;
        for (what, id) in &all {
            let found = get(&store, *id).await;
            match what.as_str() {
                "accepted" => assert!(matches!(found.state, State::Queued | State::Succeeded), "{found:?}"),
                _ => assert_eq!(found.state, State::Succeeded),
            }
        }
        let events = store.events(0, usize::MAX).await.unwrap().events;
        assert!(events.iter().map(|event| event.number).eq(1..=events.len() as u64));
        assert_eq!(store.counts().await.unwrap().running, 0);
    }
}
