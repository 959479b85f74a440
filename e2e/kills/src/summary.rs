//! What is printed at the end, and what makes a run fail.

use std::time::Duration;

use crate::engine::Store;
use crate::ledger::Ledger;
use crate::settle::Lost;

/// What docs/queue.md promises: the tasks of a process that died are picked up within this.
const PICKED_UP: Duration = Duration::from_secs(10);

/// One run, and whether it passed.
pub(crate) struct Summary {
    pub(crate) store: Store,
    /// How many kills.
    pub(crate) n: u32,
    /// How long they took.
    pub(crate) killing: Duration,
    /// What did not come to its end.
    pub(crate) lost: Vec<Lost>,
    /// What else went wrong.
    pub(crate) faults: Vec<String>,
}

impl Summary {
    /// Prints it; true when nothing was lost and something was proved. The last line is the one that is counted on.
    pub(crate) fn print(self, ledger: &Ledger) -> bool {
        let Self { store, n, killing, lost, mut faults } = self;
        let counts = &ledger.counts;
        let accepted = ledger.all().len();
        let seconds = killing.as_secs_f64();
        println!(
            "{}: {n} kills in {seconds:.1} s, {:.2} a second; {} hit running work and interrupted {} attempts",
            store.name(),
            f64::from(n) / seconds,
            counts.at_work,
            counts.interrupted
        );
        println!(
            "submissions: {} sent, {accepted} accepted, {} cut, refused {:?}; {} keys sent again after their answer",
            counts.sent, counts.cut, counts.refused, counts.repeated
        );
        let mut waits = counts.pick_ups.clone();
        waits.sort();
        let wait =
            |share: usize| waits.get(waits.len() * share / 100).copied().unwrap_or_default().as_secs_f64();
        let longest = waits.last().copied().unwrap_or_default();
        println!(
            "orphans: {} picked up, after {:.2} s (median), {:.2} s (99 %), {:.2} s (longest); {} unseen",
            waits.len(),
            wait(50),
            wait(99),
            longest.as_secs_f64(),
            counts.unseen
        );
        println!(
            "done by more than one process, as at least once allows: {}; done and never heard of by a client: {}",
            ledger.duplicates(),
            ledger.unheard()
        );
        let (calls, made_up) = ledger.calls();
        println!("calls: {calls} accepted, to a callee that fails, hangs and lies");
        for Lost { task, reported, said } in lost.iter().take(10) {
            println!("LOST {task}: reported={reported}, the server says: {said}");
        }
        if accepted == 0 {
            faults.push("nothing was accepted: this proves nothing".to_owned());
        }
        if counts.at_work < n / 3 {
            faults.push(format!("only {} of {n} kills hit running work: this proves little", counts.at_work));
        }
        if calls == 0 {
            faults.push("no call was accepted: nothing is proved of them".to_owned());
        }
        if !made_up.is_empty() {
            faults.push(format!(
                "{} calls are said to be done and had no whole answer: {made_up:?}",
                made_up.len()
            ));
        }
        if !counts.changed.is_empty() {
            faults.push(format!("{} keys gave another task the second time", counts.changed.len()));
        }
        if longest > PICKED_UP {
            faults.push(format!(
                "an orphan waited {:.1} s, over {} s",
                longest.as_secs_f64(),
                PICKED_UP.as_secs()
            ));
        }
        for fault in &faults {
            println!("FAILED: {fault}");
        }
        println!("kills: n={n} accepted={accepted} finished={} lost={}", accepted - lost.len(), lost.len());
        faults.is_empty() && lost.is_empty()
    }
}
