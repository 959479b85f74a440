//! The ledger: joins what clients were told was accepted with the reports of tasks that ended. Pure; it is told the time.
//!
//! Guarantees: a task counts as accepted only when a client read a whole 2xx answer with its id, and as finished only
//! when a pod said so. Neither order is assumed: a report may come before its client's answer.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::events::Events;
use crate::wire::{LedgerView, PROCESSED, PodWork, Report, Requests, SocketClose, Sockets, Unfinished};

/// All that was accepted, and all that ended.
#[derive(Debug, Default)]
pub struct Ledger {
    /// When its client was told, by task.
    accepted: HashMap<String, u64>,
    ended: HashMap<String, Ended>,
    last_report_ms: Option<u64>,
    pods: BTreeMap<String, PodWork>,
    requests: Requests,
    sockets: Sockets,
    events: Events,
    /// Clients without a connection, with the index of the close that began their gap.
    gaps: HashMap<String, usize>,
}

/// Which processes reported the end of a task, by how it ended.
#[derive(Debug, Default)]
struct Ended {
    processed_by: HashSet<(String, String)>,
    given_up: Option<String>,
}

/// What became of one submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A whole 2xx answer with this task id.
    Accepted(String),
    /// A whole answer with another status.
    Refused(u16),
    /// No whole answer: whether the task was accepted is unknown.
    Failed(String),
}

impl Ledger {
    /// A submission was answered, or was not.
    pub fn answer(&mut self, answer: Answer, now_ms: u64) {
        self.requests.sent += 1;
        match answer {
            Answer::Accepted(task_id) => {
                self.accepted.insert(task_id, now_ms);
            }
            Answer::Refused(status) => *self.requests.refused.entry(status).or_default() += 1,
            Answer::Failed(kind) => *self.requests.failed.entry(kind).or_default() += 1,
        }
    }

    /// A pod says that a task ended. The same report may come twice.
    pub fn report(&mut self, report: Report, now_ms: u64) {
        let Report { task_id, pod_uid, boot_id, outcome } = report;
        self.last_report_ms = Some(now_ms);
        let ended = self.ended.entry(task_id).or_default();
        let pod = self.pods.entry(pod_uid.clone()).or_default();
        pod.last_report_ms = now_ms;
        if !pod.boots.contains(&boot_id) {
            pod.boots.push(boot_id.clone());
        }
        if outcome != PROCESSED {
            ended.given_up = Some(outcome);
        } else if ended.processed_by.insert((pod_uid, boot_id)) {
            pod.finished += 1;
        }
    }

    /// How many WebSocket clients there should be from now on.
    pub fn sockets_wanted(&mut self, wanted: u64) {
        self.sockets.wanted = wanted;
    }

    /// A client's socket is open: its first frame named the pod.
    pub fn socket_opened(&mut self, client: &str, pod: &str, now_ms: u64) {
        self.sockets.opened += 1;
        self.sockets.on.insert(client.to_owned(), pod.to_owned());
        if let Some(close) = self.gaps.remove(client).and_then(|i| self.sockets.closes.get_mut(i)) {
            close.gap_ms = Some(now_ms.saturating_sub(close.at_ms));
        }
    }

    /// A client could not connect.
    pub fn socket_refused(&mut self, kind: String) {
        *self.sockets.refused.entry(kind).or_default() += 1;
    }

    /// A client received a message.
    pub fn socket_message(&mut self) {
        self.sockets.messages += 1;
    }

    /// What clients of numbered events hear.
    pub fn events(&mut self) -> &mut Events {
        &mut self.events
    }

    /// A client's connection ended though the load goes on.
    pub fn socket_closed(&mut self, client: &str, code: Option<u16>, told: bool, now_ms: u64) {
        let pod = self.sockets.on.remove(client).unwrap_or_default();
        let close = SocketClose { client: client.to_owned(), pod, at_ms: now_ms, code, told, gap_ms: None };
        self.gaps.insert(client.to_owned(), self.sockets.closes.len());
        self.sockets.closes.push(close);
    }

    /// A client leaves because the load was stopped.
    pub fn socket_left(&mut self, client: &str) {
        self.sockets.on.remove(client);
        self.gaps.remove(client);
    }

    /// Everything, joined.
    pub fn view(&self, submitting: bool, now_ms: u64) -> LedgerView {
        let mut finished = 0;
        let mut duplicates = 0;
        let mut processed = Vec::new();
        let mut unfinished = Vec::new();
        let mut given_up: BTreeMap<String, u64> = BTreeMap::new();
        for (task_id, accepted_ms) in &self.accepted {
            let ended = self.ended.get(task_id);
            let processes = ended.map_or(0, |e| e.processed_by.len());
            if processes > 0 {
                processed.push(task_id.as_str());
            }
            match processes {
                0 => {
                    if let Some(outcome) = ended.and_then(|e| e.given_up.clone()) {
                        *given_up.entry(outcome).or_default() += 1;
                    }
                    unfinished.push(Unfinished { task_id: task_id.clone(), accepted_ms: *accepted_ms });
                }
                1 => finished += 1,
                _ => {
                    finished += 1;
                    duplicates += 1;
                }
            }
        }
        unfinished.sort_by_key(|u| u.accepted_ms);
        let mut sockets = self.sockets.clone();
        sockets.connected = sockets.on.len() as u64;
        (sockets.heard, sockets.unheard) = (self.events.heard(), self.events.unheard(&processed));
        LedgerView {
            now_ms,
            submitting,
            accepted: self.accepted.len() as u64,
            finished,
            unfinished,
            given_up,
            duplicates,
            unknown_reports: self.ended.keys().filter(|id| !self.accepted.contains_key(*id)).count() as u64,
            last_report_ms: self.last_report_ms,
            requests: self.requests.clone(),
            sockets,
            pods: self.pods.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(task: &str, boot: &str, outcome: &str) -> Report {
        Report {
            task_id: task.into(),
            pod_uid: "pod".into(),
            boot_id: boot.into(),
            outcome: outcome.to_owned(),
        }
    }

    fn accepted(task: &str) -> Answer {
        Answer::Accepted(task.into())
    }

    #[test]
    fn an_accepted_task_without_a_report_is_unfinished() {
        let mut ledger = Ledger::default();
        ledger.answer(accepted("a"), 1);
        ledger.answer(accepted("b"), 2);
        ledger.report(report("a", "boot", PROCESSED), 3);
        let view = ledger.view(false, 4);
        assert_eq!((view.accepted, view.finished), (2, 1));
        assert_eq!(view.unfinished.iter().map(|u| u.task_id.as_str()).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn a_report_may_come_before_the_clients_answer() {
        let mut ledger = Ledger::default();
        ledger.report(report("a", "boot", PROCESSED), 1);
        assert_eq!(ledger.view(false, 1).unknown_reports, 1);
        ledger.answer(accepted("a"), 2);
        let view = ledger.view(false, 2);
        assert_eq!((view.unknown_reports, view.finished), (0, 1));
    }

    #[test]
    fn a_cut_answer_is_failed_and_not_accepted() {
        let mut ledger = Ledger::default();
        ledger.answer(Answer::Failed("reset".into()), 1);
        ledger.answer(Answer::Refused(503), 1);
        let view = ledger.view(true, 1);
        assert_eq!((view.accepted, view.requests.sent, view.requests.unanswered()), (0, 2, 2));
    }

    #[test]
    fn a_task_that_was_given_up_is_not_finished() {
        let mut ledger = Ledger::default();
        ledger.answer(accepted("a"), 1);
        ledger.report(report("a", "boot", "aborted"), 2);
        let view = ledger.view(false, 2);
        assert_eq!((view.finished, view.unfinished.len()), (0, 1));
        assert_eq!(view.given_up.get("aborted"), Some(&1));
    }

    #[test]
    fn a_repeated_report_is_one_end_and_another_process_is_a_duplicate() {
        let mut ledger = Ledger::default();
        ledger.answer(accepted("a"), 1);
        ledger.report(report("a", "boot", PROCESSED), 2);
        ledger.report(report("a", "boot", PROCESSED), 3);
        assert_eq!(ledger.view(false, 3).duplicates, 0);
        ledger.report(report("a", "other", PROCESSED), 4);
        let view = ledger.view(false, 4);
        assert_eq!((view.finished, view.duplicates), (1, 1));
        assert_eq!(view.pods["pod"].boots, ["boot", "other"]);
    }

    #[test]
    fn a_gap_lasts_from_the_close_to_the_next_open() {
        let mut ledger = Ledger::default();
        ledger.socket_opened("c", "old", 10);
        ledger.socket_closed("c", Some(1012), true, 100);
        assert_eq!(ledger.view(true, 150).sockets.connected, 0);
        ledger.socket_opened("c", "new", 400);
        let sockets = ledger.view(true, 500).sockets;
        assert_eq!(sockets.closes[0].gap_ms, Some(300));
        assert_eq!(sockets.closes[0].pod, "old");
        assert_eq!(sockets.on["c"], "new");
    }
}
