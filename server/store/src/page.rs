//! [`Filling`]: a page of a list, bounded in bytes and in what is looked through for it.

use crate::task::{Cursor, Page, TaskRecord};

/// Tasks that are looked through for one page. A filter that matches few of a million tasks costs some milliseconds a page, and
/// not seconds for all: whoever lists takes turns with others, and no transaction stands in the way of a log that is to be cut.
pub(crate) const LOOKED_THROUGH: usize = 20_000;

/// Live tasks that are few enough to be sorted rather than found among all others.
pub(crate) const FEW: u64 = 10_000;

/// An input or an output may have hundreds of KiB, and a page a hundred tasks.
const PAGE_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Filling {
    tasks: Vec<TaskRecord>,
    limit: usize,
    bytes: usize,
    more: bool,
}

impl Filling {
    pub(crate) fn new(limit: usize) -> Self {
        Self { tasks: Vec::new(), limit, bytes: 0, more: false }
    }

    /// Takes the next task, if there is room; whether there was. One that is not taken says that there is another page.
    pub(crate) fn take(&mut self, task: TaskRecord) -> bool {
        self.more = self.tasks.len() >= self.limit || self.bytes >= PAGE_BYTES;
        if !self.more {
            let long = [&task.output, &task.progress, &task.error];
            self.bytes += task.input.len() + long.into_iter().flatten().map(String::len).sum::<usize>();
            self.tasks.push(task);
        }
        !self.more
    }

    /// `end`: the last task that was looked at, if there may be more below it.
    pub(crate) fn page(self, end: Option<Cursor>) -> Page {
        let next = if self.more { self.tasks.last().map(|task| task.id) } else { end };
        Page { tasks: self.tasks, next }
    }
}
