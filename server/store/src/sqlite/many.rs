//! The same done to many tasks, in one transaction: to each that it fits, and to the others nothing.

use uuid::Uuid;

use super::apply::Tables;
use super::fault::Fault;
use super::row::Standing;
use crate::task::{Change, Changed, State};

impl Tables<'_> {
    pub(super) fn change(&mut self, ids: &[Uuid], change: Change) -> Result<Changed, Fault> {
        let mut changed = Changed::default();
        for id in ids {
            let Some(task) = self.standing(*id)?.filter(|task| change.fits().contains(&task.state)) else {
                continue;
            };
            match change {
                Change::Cancel if task.state == State::Running => {
                    self.ask_to_stop(*id, &task)?;
                    changed.asked += 1;
                }
                Change::Cancel => {
                    self.end(*id, &task, State::Cancelled, None, None)?;
                    changed.done += 1;
                }
                Change::Retry if self.ledger.knows(&task.lane.queue) => {
                    self.queue_by_hand(*id, &task)?;
                    changed.done += 1;
                }
                Change::Retry => {}
                Change::Delete => {
                    self.delete(*id, &task)?;
                    changed.done += 1;
                }
            }
        }
        Ok(changed)
    }

    fn delete(&mut self, id: Uuid, task: &Standing) -> Result<(), Fault> {
        // Whether there is a long input is not known; one that is not there is not deleted.
        self.forget_task(id, task.state == State::Dead, true, task.attempt > 0)
    }
}
