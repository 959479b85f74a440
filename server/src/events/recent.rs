//! [`Recent`]: the tasks that have lately been told to have started or ended. A submission's own word that its task is queued may
//! come after both: the task is anybody's from the moment it is on disk, and its submitter is only woken by then.

use std::collections::{HashSet, VecDeque};

use uuid::Uuid;

/// Some tenths of a second at ten thousand tasks a second; a submitter takes a few milliseconds to say its word.
const KEPT: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Recent {
    ids: HashSet<Uuid>,
    order: VecDeque<Uuid>,
}

impl Recent {
    pub(super) fn note(&mut self, id: Uuid) {
        if self.ids.insert(id) {
            self.order.push_back(id);
        }
        if self.order.len() > KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }

    pub(super) fn has(&self, id: Uuid) -> bool {
        self.ids.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered_and_no_more() {
        let mut recent = Recent::default();
        let id = |number: usize| Uuid::from_u128(number as u128);
        for number in 0..3 * KEPT {
            recent.note(id(number));
            recent.note(id(number));
        }
        assert!((2 * KEPT..3 * KEPT).all(|number| recent.has(id(number))));
        assert!(!recent.has(id(2 * KEPT - 1)));
        assert_eq!((recent.ids.len(), recent.order.len()), (KEPT, KEPT));
    }
}
