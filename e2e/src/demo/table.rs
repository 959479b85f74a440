//! The table at the end.

use crate::wire::LedgerView;

/// One way of running the pods, and what became of its tasks.
pub(super) struct Row {
    name: &'static str,
    pub(super) accepted: u64,
    pub(super) finished: u64,
    pub(super) lost: u64,
    requests: u64,
    unanswered: u64,
    sockets_cut: usize,
}

impl Row {
    /// From a closed ledger: what is unfinished now is lost.
    pub(super) fn new(name: &'static str, view: &LedgerView) -> Self {
        Self {
            name,
            accepted: view.accepted,
            finished: view.finished,
            lost: view.unfinished.len() as u64,
            requests: view.requests.sent,
            unanswered: view.requests.unanswered(),
            sockets_cut: view.sockets.closes.iter().filter(|c| !c.told).count(),
        }
    }
}

/// Prints the table.
pub(super) fn print(rows: &[Row]) {
    println!(
        "\n{:<50} {:>8} {:>8} {:>5}   {:<18}   sockets cut",
        "", "accepted", "finished", "lost", "refused or failed"
    );
    for row in rows {
        let Row { name, accepted, finished, lost, requests, unanswered, sockets_cut } = row;
        let answered = format!("{unanswered} of {requests}");
        println!("{name:<50} {accepted:>8} {finished:>8} {lost:>5}   {answered:<18}   {sockets_cut}");
    }
}
