//! The one thread that writes. Whatever waits becomes one transaction and one sync; then everyone is answered.
//!
//! # Flow
//! Take what waits → begin → put back what did not arrive → apply each command → claim for those who wait → commit →
//! tell `Owned`, the head and the cancellations → answer. Where the commit fails, the ledger goes back to what the
//! disk has, and everyone who was in it is told why; the next round tries anew.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use rusqlite::Connection;
use tracing::{error, info, warn};

use super::apply::Tables;
use super::clock::Clock;
use super::command::{Answer, Command, Delivery, Reply, answer};
use super::fault::{Failure, Fault};
use super::file::OwnFile;
use super::ledger::Ledger;
use super::store::Shared;
use crate::OwnedWatch;
use crate::error::{StoreError, Unavailable};
use crate::task::{Claim, Hold, Lease, Millis, Owned};

/// Commands in one transaction, so that the first of them does not wait long for the last.
const BATCH: usize = 512;

/// What could not be put back, and times that a changed clock made come sooner, are looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Someone waits for tasks.
struct Claimer {
    most: usize,
    reply: Reply<Delivery>,
}

/// What a transaction makes known once it has ended.
#[derive(Default)]
struct Outbox {
    answers: Vec<Answer>,
    claims: Vec<(Reply<Delivery>, Vec<Claim>)>,
    /// Attempts that are to be stopped.
    stop: Vec<Lease>,
}

/// The writer's thread: the connection, and all that must agree with what is on disk.
pub(super) struct Writer {
    connection: Connection,
    clock: Clock,
    ledger: Ledger,
    /// The number of the latest event.
    head: u64,
    limits: Limits,
    pod: String,
    owned: OwnedWatch,
    told: Owned,
    shared: Arc<Shared>,
    inbox: Receiver<Command>,
    /// For claims that don't arrive.
    own_inbox: Sender<Command>,
    claimers: VecDeque<Claimer>,
    /// Claims that did not arrive, and are not put back yet.
    undelivered: Vec<Lease>,
    /// How the last transaction failed.
    failing: Option<Unavailable>,
    /// The last to go: the file is free once nothing of it is open.
    file: OwnFile,
}

/// What the settings say of the writer's work.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) capacity: u64,
    pub(super) keep_events: Millis,
    pub(super) keep_dead: Millis,
    pub(super) max_interruptions: u16,
}

/// What `open` has found and made.
pub(super) struct Opened {
    pub(super) file: OwnFile,
    pub(super) connection: Connection,
    pub(super) clock: Clock,
    pub(super) ledger: Ledger,
    pub(super) head: u64,
    /// Who runs tasks here.
    pub(super) pod: String,
}

impl Writer {
    pub(super) fn new(
        opened: Opened,
        limits: Limits,
        owned: OwnedWatch,
        shared: Arc<Shared>,
        (own_inbox, inbox): (Sender<Command>, Receiver<Command>),
    ) -> Self {
        let Opened { file, connection, clock, ledger, head, pod } = opened;
        let owned_now = ledger.owned();
        let writer = Self {
            file,
            connection,
            clock,
            ledger,
            head,
            limits,
            pod,
            owned,
            told: owned_now,
            shared,
            inbox,
            own_inbox,
            claimers: VecDeque::new(),
            undelivered: Vec::new(),
            failing: None,
        };
        (writer.owned)(writer.told);
        writer.tell_counts();
        writer.tell_settings();
        writer
    }

    /// Until the store is dropped.
    pub(super) fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            match self.wait() {
                Ok(first) => batch.push(first),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while batch.len() < BATCH
                && let Ok(next) = self.inbox.try_recv()
            {
                batch.push(next);
            }
            let closing = batch.iter().any(|command| matches!(command, Command::Close));
            self.round(&mut batch);
            if closing {
                return;
            }
        }
    }

    /// The next command, if one comes before there is something to do without one.
    fn wait(&mut self) -> Result<Command, RecvTimeoutError> {
        if self.undelivered.is_empty() && self.ledger.next_change().is_none() {
            return self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected);
        }
        let now = self.clock.now();
        let until_due = self.ledger.next_change().map_or(LOOK_EVERY, |due| {
            Duration::from_millis(u64::try_from(due.saturating_sub(now)).unwrap_or(0))
        });
        self.inbox.recv_timeout(until_due.min(LOOK_EVERY))
    }

    fn round(&mut self, batch: &mut Vec<Command>) {
        let now = self.clock.now();
        self.ledger.advance(now);
        let mut work = Vec::with_capacity(batch.len());
        let mut looks = Vec::new();
        for command in batch.drain(..) {
            match command {
                Command::Claim(most, reply) => self.claimers.push_back(Claimer { most, reply }),
                Command::PutBack(leases) => self.undelivered.extend(leases),
                Command::Damaged | Command::Close => {}
                // Its client has gone, perhaps long ago (a disk that stalled): nothing was promised, nothing is begun.
                Command::Submit(_, hold, reply) if reply.is_closed() => drop(hold),
                Command::SubmitMany(_, hold, reply) if reply.is_closed() => drop(hold),
                Command::Submit(..)
                | Command::SubmitMany(..)
                | Command::Change(..)
                | Command::Progress(..)
                | Command::Complete(..)
                | Command::Cancel(..)
                | Command::Retry(..)
                | Command::PutQueue(..)
                | Command::PauseQueue(..)
                | Command::RemoveQueue(..)
                | Command::Suspect(_)
                | Command::Forget(_) => work.push(command),
                // Who asks is told of what is on disk, so not before this batch is.
                Command::Queues(reply) => looks.push(reply),
            }
        }
        self.claimers.retain(|claimer| !claimer.reply.is_closed());
        if work.iter().any(|command| matches!(command, Command::Forget(_))) {
            self.see_whose_file_it_is();
        }
        if let Some(failure) = self.shared.damage() {
            work.extend(looks.into_iter().map(Command::Queues));
            return self.refuse_all(work, &failure);
        }
        self.write(work, now);
        for reply in looks {
            // If it can't be sent nobody waits for it.
            let _ = reply.send(Ok((self.ledger.now(), self.ledger.records())));
        }
    }

    /// Does what waits in one transaction, and answers.
    fn write(&mut self, work: Vec<Command>, now: Millis) {
        let claimable = !self.claimers.is_empty() && self.ledger.next().is_some();
        if work.is_empty() && self.undelivered.is_empty() && !claimable {
            return self.tell_counts();
        }
        let mut outbox = Outbox::default();
        let head = self.head;
        match self.transact(work, &mut outbox, now) {
            Ok(()) => {
                if self.ledger.keep() {
                    self.tell_settings();
                }
                self.undelivered.clear();
                self.announce(outbox);
            }
            Err(failure) => {
                self.head = head;
                self.give_up(&failure);
                for answer in outbox.answers {
                    answer(Some(&failure));
                }
                for (reply, _) in outbox.claims {
                    answer(reply, Err(failure.error()), Hold::default())(None);
                }
            }
        }
    }

    /// One transaction. Whatever was begun is in the outbox, whether it is Ok or not.
    fn transact(&mut self, work: Vec<Command>, outbox: &mut Outbox, now: Millis) -> Result<(), Failure> {
        let mut failed = self.begin().err();
        let mut tables = Tables {
            connection: &self.connection,
            ledger: &mut self.ledger,
            now,
            head: &mut self.head,
            stop: &mut outbox.stop,
            limits: self.limits,
            pod: &self.pod,
        };
        if failed.is_none() {
            failed = settle(tables.take_back(&self.undelivered)).1;
        }
        for command in work {
            match &failed {
                None => {
                    failed =
                        apply(&mut tables, command, self.limits, &mut outbox.answers, &mut outbox.claims);
                }
                Some(failure) => command.refuse(failure),
            }
        }
        while failed.is_none()
            && tables.ledger.next().is_some()
            && let Some(claimer) = self.claimers.pop_front()
        {
            let (claims, failure) = settle(tables.claim(claimer.most));
            failed = failure;
            outbox.claims.push((claimer.reply, claims.unwrap_or_default()));
        }
        match failed {
            None => Ok(self.connection.execute_batch("COMMIT")?),
            Some(failure) => Err(failure),
        }
    }

    fn begin(&self) -> Result<(), Failure> {
        self.roll_back()?;
        Ok(self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([]).map(drop)?)
    }

    /// Some errors have ended the transaction already.
    fn roll_back(&self) -> rusqlite::Result<()> {
        if self.connection.is_autocommit() {
            return Ok(());
        }
        self.connection.execute_batch("ROLLBACK")
    }

    /// Nothing of the transaction is, on disk or in memory.
    fn give_up(&mut self, failure: &Failure) {
        self.ledger.undo();
        if let Err(error) = self.roll_back() {
            warn!(%error, "cannot roll the transaction back; retrying before the next");
        }
        if failure.why == Unavailable::Corrupt {
            self.shared.damaged(&failure.detail);
        } else if self.failing != Some(failure.why) {
            error!(why = %failure.why, detail = failure.detail, "cannot write the queue; retrying");
        }
        self.failing = Some(failure.why);
    }

    /// What is on disk now, told in an order in which no one learns of anything that is not counted yet.
    fn announce(&mut self, outbox: Outbox) {
        if let Some(why) = self.failing.take() {
            info!(%why, "the queue can be written again");
        }
        let owned = self.ledger.owned();
        if owned != self.told {
            (self.owned)(owned);
            self.told = owned;
        }
        self.tell_counts();
        for attempt in outbox.stop {
            // Nobody may be listening: its runner is then told by its next renewal (`CancelRequested`).
            let _ = self.shared.cancellations.send(attempt);
        }
        for (reply, claims) in outbox.claims {
            // If it can't be sent it is dropped, and so put back.
            let _ = reply.send(Ok(Delivery::new(claims, self.own_inbox.clone())));
        }
        for answer in outbox.answers {
            answer(None);
        }
    }

    /// What is written to a file that has been moved away would be lost with the process.
    fn see_whose_file_it_is(&self) {
        if self.file.replaced() {
            self.shared.damaged("the file was replaced or removed while it was open");
        }
    }

    fn tell_counts(&self) {
        self.shared.tell(self.ledger.counts(), self.ledger.suspect_is_due(), self.head);
    }

    fn tell_settings(&self) {
        self.shared.tell_queues(self.ledger.all_settings());
    }

    fn refuse_all(&mut self, work: Vec<Command>, failure: &Failure) {
        for command in work {
            command.refuse(failure);
        }
        for claimer in self.claimers.drain(..) {
            Command::Claim(claimer.most, claimer.reply).refuse(failure);
        }
        self.undelivered.clear();
    }
}

/// Does one command, and makes its answer ready.
fn apply(
    tables: &mut Tables<'_>,
    command: Command,
    limits: Limits,
    answers: &mut Vec<Answer>,
    claims: &mut Vec<(Reply<Delivery>, Vec<Claim>)>,
) -> Option<Failure> {
    match command {
        Command::Suspect(reply) => {
            let (claim, failure) = settle(tables.claim_suspect());
            claims.push((reply, claim.unwrap_or_default()));
            failure
        }
        Command::Submit(task, hold, reply) => {
            ready(tables.submit(&task, limits.capacity), reply, hold, answers)
        }
        Command::SubmitMany(tasks, hold, reply) => {
            ready(tables.submit_many(&tasks, limits.capacity), reply, hold, answers)
        }
        Command::Change(ids, change, hold, reply) => ready(tables.change(&ids, change), reply, hold, answers),
        Command::Progress(lease, progress, reply) => {
            ready(tables.progress(lease, &progress), reply, Hold::default(), answers)
        }
        Command::Complete(lease, outcome, reply) => {
            ready(tables.complete(lease, &outcome), reply, Hold::default(), answers)
        }
        Command::Cancel(id, reply) => ready(tables.cancel(id), reply, Hold::default(), answers),
        Command::Retry(id, hold, reply) => ready(tables.retry(id), reply, hold, answers),
        Command::Forget(reply) => ready(tables.forget(limits.keep_events), reply, Hold::default(), answers),
        Command::PutQueue(name, settings, reply) => {
            ready(tables.put_queue(&name, settings), reply, Hold::default(), answers)
        }
        Command::PauseQueue(name, paused, reply) => {
            ready(tables.pause_queue(&name, paused), reply, Hold::default(), answers)
        }
        Command::RemoveQueue(name, reply) => {
            ready(tables.remove_queue(&name), reply, Hold::default(), answers)
        }
        Command::Queues(_) | Command::Claim(..) | Command::PutBack(_) | Command::Damaged | Command::Close => {
            None
        }
    }
}

fn ready<T: Send + 'static>(
    result: Result<T, Fault>,
    reply: Reply<T>,
    hold: Hold,
    answers: &mut Vec<Answer>,
) -> Option<Failure> {
    let (result, failure) = settle(result);
    answers.push(answer(reply, result, hold));
    failure
}

/// The command's own answer, and the transaction's end if it is that.
fn settle<T>(result: Result<T, Fault>) -> (Result<T, StoreError>, Option<Failure>) {
    match result {
        Ok(value) => (Ok(value), None),
        Err(Fault::Alone(error)) => (Err(error), None),
        Err(Fault::Batch(failure)) => (Err(failure.error()), Some(failure)),
    }
}
