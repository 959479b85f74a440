//! The attempts at a task that are remembered: one row for each that another followed, and what the task's own row says of the
//! latest. So a task that succeeds at once, as nearly all do, costs no row more.

use crate::task::{Attempt, State, TaskRecord};

/// Attempts of one task that are remembered; of more the latest.
pub(crate) const MOST: u16 = 20;

/// What is kept of an earlier attempt's error: with [`MOST`] of them a task has some KiB of history at most.
pub(crate) const LONGEST_ERROR: usize = 500;

/// The part of an owner's name that people know: without the id of the process.
pub(crate) fn pod(owner: &str) -> &str {
    owner.rsplit_once('/').map_or(owner, |(pod, _)| pod)
}

/// As much of an error as is kept.
pub(crate) fn short(error: &str) -> &str {
    &error[..error.floor_char_boundary(LONGEST_ERROR)]
}

/// With the latest attempt, unless it is among those that were noted. `pod` is who ran it.
pub(crate) fn complete(mut noted: Vec<Attempt>, task: &TaskRecord, pod: Option<String>) -> Vec<Attempt> {
    let known = noted.last().is_some_and(|last| last.number >= task.attempt);
    if let Some(started) = task.started
        && !known
        && task.attempt > 0
    {
        let failed = matches!(task.state, State::Dead | State::Queued);
        let error = task.error.as_deref().filter(|_| failed).map(|error| short(error).to_owned());
        noted.push(Attempt { number: task.attempt, pod, started, ended: task.ended, error });
    }
    noted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_know_the_pod_and_not_the_process() {
        assert_eq!(pod("tasks-6f9c-x2l/0b5e"), "tasks-6f9c-x2l");
        assert_eq!(pod("tasks"), "tasks");
    }

    #[test]
    fn an_error_is_cut_between_letters() {
        let long = "ä".repeat(LONGEST_ERROR);
        assert_eq!(short(&long).len(), LONGEST_ERROR);
        assert_eq!(short(&format!("a{long}")).len(), LONGEST_ERROR - 1);
        assert_eq!(short("no"), "no");
    }
}
