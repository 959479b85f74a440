//! [`Room`]: what submissions that wait for an engine may take up in memory.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::error::{StoreError, Unavailable};
use crate::task::{Hold, NewTask};

/// In bytes: a disk or a database that hangs fills no memory with tasks whose clients have long gone.
const ROOM: usize = 64 << 20;
/// What a submission takes up beside its input, about.
const OVERHEAD: usize = 1024;

#[derive(Debug)]
pub(crate) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ROOM)))
    }
}

impl Room {
    /// Takes room for tasks. What is given back is held in place of `hold`, and gives the room back with it.
    pub(crate) fn take(&self, tasks: &[NewTask], hold: Hold) -> Result<Hold, StoreError> {
        let size = tasks.iter().map(|task| task.input.len() + OVERHEAD).sum::<usize>();
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        match self.0.clone().try_acquire_many_owned(size) {
            Ok(room) => Ok(Hold::new((hold, room))),
            Err(_) => Err(StoreError::Unavailable {
                why: Unavailable::Busy,
                detail: format!("{} MiB of submissions wait", ROOM >> 20),
            }),
        }
    }
}
