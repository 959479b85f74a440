//! [`Rooms`]: what requests may take up in memory together. Each is bounded by itself as well; but a few hundred clients who
//! send all but the last byte, or take nothing of their answer, would fill any memory with what each of them may have.
//!
//! # Flow
//! A body: room for all that is announced → read → the queue has decided → the answer is sent → the room is free. A look:
//! room for the largest answer → read from the queue → what the answer does not need is given back → it is sent, or its
//! client is cut off (30 s without taking anything) → free. Who finds no room waits for two seconds, then 503.
//!
//! # Guarantees
//! With the bounds on connections ([`graceful_drain::Bounds`]) and the queue's own room, a process at the default limits
//! stays below the 256 MiB of `samples/`, whatever clients do; `server/tests/memory.rs` has them try.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use graceful_store::{StoreError, Unavailable};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::problem::Problem;

/// Bodies that are read, and submissions until they are answered: 64 of the largest. Each is in memory up to three times
/// (as it came, as its task, in its answer).
const BODIES: usize = 16 << 20;
/// Lists: eight at a time while they are read.
const LISTS: usize = 24 << 20;
/// Answers that tell of one task. Apart from lists, so that who cancels does not wait for those who leaf through.
const TASKS: usize = 16 << 20;

/// A page has 1 MiB of tasks and a task more, once as it is read and once as it is written.
const LARGEST_LIST: usize = 3 << 20;
/// An input of 256 KiB, an output of 64, a progress, an error and twenty attempts, in both forms.
const LARGEST_TASK: usize = 1 << 20;

/// Longer than any answer takes to send; short enough that a client tries again elsewhere.
const WAIT: Duration = Duration::from_secs(2);

/// Room for bodies and for answers, in bytes.
#[derive(Debug)]
pub struct Rooms {
    bodies: Arc<Semaphore>,
    lists: Arc<Semaphore>,
    tasks: Arc<Semaphore>,
}

impl Default for Rooms {
    fn default() -> Self {
        let room = |bytes| Arc::new(Semaphore::new(bytes));
        Self { bodies: room(BODIES), lists: room(LISTS), tasks: room(TASKS) }
    }
}

/// Some of a room; given back when dropped, or when the last of an answer was sent.
#[derive(Debug)]
pub(crate) struct Room(OwnedSemaphorePermit);

impl Rooms {
    /// For a body of so many bytes.
    pub(crate) async fn body(&self, bytes: usize) -> Result<Room, Problem> {
        take(&self.bodies, bytes).await
    }

    /// For a page of tasks.
    pub(crate) async fn list(&self) -> Result<Room, Problem> {
        take(&self.lists, LARGEST_LIST).await
    }

    /// For one task.
    pub(crate) async fn task(&self) -> Result<Room, Problem> {
        take(&self.tasks, LARGEST_TASK).await
    }
}

async fn take(room: &Arc<Semaphore>, bytes: usize) -> Result<Room, Problem> {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    match timeout(WAIT, room.clone().acquire_many_owned(bytes)).await {
        Ok(Ok(permit)) => Ok(Room(permit)),
        Ok(Err(_)) | Err(_) => {
            let detail = "the requests that are being read or answered take up all their room".to_owned();
            Err(StoreError::Unavailable { why: Unavailable::Busy, detail }.into())
        }
    }
}

impl Room {
    /// An answer that keeps as much of the room as it needs, until its last byte was handed to the kernel.
    pub(crate) fn answer(mut self, answer: Vec<u8>) -> Bytes {
        let spare = self.0.num_permits().saturating_sub(answer.len());
        drop(self.0.split(spare));
        Bytes::from_owner(Answer { bytes: answer, _room: self })
    }
}

struct Answer {
    bytes: Vec<u8>,
    _room: Room,
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_room_is_told_so_and_room_comes_back_with_the_answer() {
        let rooms = Rooms::default();
        let mut held = Vec::new();
        for _ in 0..LISTS / LARGEST_LIST {
            held.push(rooms.list().await.unwrap());
        }
        let refused = rooms.list().await.unwrap_err();
        assert!(format!("{refused:?}").contains("busy"), "{refused:?}");
        assert!(rooms.task().await.is_ok(), "who looks at one task does not wait for lists");
        let answer = held.pop().unwrap().answer(vec![b'x'; LARGEST_LIST / 2]);
        let other = held.pop().unwrap().answer(vec![b'x'; LARGEST_LIST / 2]);
        let third = rooms.list().await.expect("both answers need half");
        let part = answer.slice(..10);
        drop((answer, other, third));
        assert_eq!(
            rooms.lists.available_permits(),
            LISTS - LARGEST_LIST * 6 - LARGEST_LIST / 2,
            "a part is held"
        );
        drop(part);
        drop(held);
        assert_eq!(rooms.lists.available_permits(), LISTS);
    }
}
