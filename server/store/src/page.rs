//! [`Filling`]: a page of a list, bounded in bytes too.

use crate::task::{Page, TaskRecord};

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

    pub(crate) fn page(self) -> Page {
        let next = self.tasks.last().filter(|_| self.more).map(|task| task.id);
        Page { tasks: self.tasks, next }
    }
}
