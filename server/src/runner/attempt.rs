//! One attempt at one task: its handler, what ends it, and how the end is told.

use std::pin::pin;
use std::time::Duration;

use futures::FutureExt;
use graceful_store::{Claim, Completion, Held, Outcome, State};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, debug, info, warn};

use super::Runner;
use super::leases::{Entered, Stop};
use crate::backoff;
use crate::events::hint::{Hint, What};
use crate::kind::{Failure, Next};
use crate::metrics::Ended;
use crate::pauses::{self, Pauses};
use crate::running::Running;
use crate::trace::{self, Traceparent};

/// How long a handler may take to clean up once its task was cancelled.
const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// Work that runs on after its attempt is over is named so often.
const SAID_EVERY: Duration = Duration::from_secs(60);
/// Progress is written at most so often: four times a second looks live, and costs the disk nothing.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// What a handler may give back. It is kept with the task, and read with each look at it, a hundred at a time in a list:
/// what is longer belongs elsewhere, with a link to it here.
const LONGEST_OUTPUT: usize = 64 << 10;
/// What is kept of an error's text.
const LONGEST_ERROR: usize = 4096;

type Handler = AbortOnDropHandle<Result<String, Failure>>;

impl Runner {
    /// A place and the task's count in flight are kept until this returns.
    pub(super) async fn attempt(&self, claim: Claim) {
        let Claim { lease, kind, client_id, trace, .. } = &claim;
        let parent = trace.as_deref().and_then(|text| text.parse().ok());
        let (span, parent) = trace::attempt(lease.id, kind, client_id.as_deref(), lease.attempt, parent);
        self.run_attempt(claim, parent).instrument(span).await;
    }

    async fn run_attempt(&self, claim: Claim, parent: Option<Traceparent>) {
        let entered = self.leases.enter(&claim);
        let mut alive = self.queue.tally().attempt();
        self.hint(&claim, What::Started { attempt: claim.lease.attempt });
        // A kind that is not ours makes no series of its own.
        let kind = self.known(&claim.kind);
        self.metrics.started(kind, claim.waited);
        debug!(task_id = %claim.lease.id, attempt = claim.lease.attempt, "started");
        let started = Instant::now();
        let (progress, mut latest) = watch::channel(None);
        let ended = self.handle(&claim, &entered, parent, progress, &mut latest).await;
        {
            let mut outlasted = pin!(self.outlast(kind, latest));
            tokio::select! {
                () = &mut outlasted => {}
                () = entered.stop.lost.cancelled() => {
                    alive.orphaned();
                    outlasted.await;
                }
            }
        }
        drop(alive);
        let ran = started.elapsed();
        self.metrics.ran(kind, ran);
        let completion = match ended {
            Some(outcome) => self.end(&claim, &entered, outcome, ran).await,
            None => Completion::Lost,
        };
        if completion == Completion::Lost {
            self.metrics.lost();
            warn!("the task was taken over by another attempt; this one is dropped");
        }
    }

    /// None when the task was lost.
    async fn handle(
        &self,
        claim: &Claim,
        entered: &Entered,
        parent: Option<Traceparent>,
        progress: watch::Sender<Option<String>>,
        latest: &mut watch::Receiver<Option<String>>,
    ) -> Option<Outcome> {
        let Some(kind) = self.kinds.find(&claim.kind) else {
            let error = format!("this server has no kind `{}`", claim.kind);
            return Some(Outcome::Failed { error, retry: None });
        };
        let handler_stop = CancellationToken::new();
        // However this ends: what still runs on a blocking thread is told.
        let _stop_at_the_end = handler_stop.clone().drop_guard();
        let running = Running::new(claim, parent, progress, handler_stop.clone());
        let handler: JoinHandle<_> = tokio::spawn(kind.run(claim.input.clone(), running).in_current_span());
        let mut handler = AbortOnDropHandle::new(handler);
        let Stop { cancel, lost } = &entered.stop;
        tokio::select! {
            ended = &mut handler => Some(outcome(claim, ended)),
            () = time_out(claim.timeout) => Some(timed_out(claim)),
            () = cancel.cancelled() => {
                handler_stop.cancel();
                Some(cancelled(handler).await)
            }
            () = lost.cancelled() => None,
            () = self.pass_on(claim, &entered.stop, latest) => None,
        }
    }

    /// Writes progress down as it comes; never ends.
    async fn pass_on(&self, claim: &Claim, stop: &Stop, latest: &mut watch::Receiver<Option<String>>) {
        while latest.changed().await.is_ok() {
            let Some(progress) = latest.borrow_and_update().clone() else { continue };
            if let Ok(store) = self.queue.store() {
                match store.progress(claim.lease, progress.clone()).await {
                    Ok(Held::Yes) => {}
                    Ok(Held::CancelRequested) => stop.cancel.cancel(),
                    Ok(Held::Lost) => {
                        // Another attempt speaks for the task now.
                        stop.lost.cancel();
                        break;
                    }
                    Err(error) => debug!(%error, "cannot write progress down"),
                }
            }
            self.hint(claim, What::Progress { attempt: claim.lease.attempt, progress });
            sleep(PROGRESS_EVERY).await;
        }
        // The handler has let go of its end; its result is on the way.
        std::future::pending::<()>().await;
    }

    /// Waits until the last [`Running`] of the attempt is gone, and `progress` with it: a thread that has one may still do
    /// what the next attempt would do again. Until then the attempt keeps its place, its lease and its count in flight. A
    /// thread cannot be stopped from outside, so one that never ends holds them for ever; it is counted and named.
    async fn outlast(&self, kind: &str, mut progress: watch::Receiver<Option<String>>) {
        let mut gone = pin!(async { while progress.changed().await.is_ok() {} });
        if gone.as_mut().now_or_never().is_some() {
            return;
        }
        let _counted = self.metrics.overrunning(kind);
        let over = Instant::now();
        let mut look = interval_at(over + CANCEL_GRACE, SAID_EVERY);
        loop {
            tokio::select! {
                () = &mut gone => return,
                _ = look.tick() => warn!(
                    kind,
                    over_seconds = over.elapsed().as_secs(),
                    "the attempt is over and its work still runs; it keeps its place, and the pod is not idle"
                ),
            }
        }
    }

    /// Reported first, then written down: at least once. Until then it keeps its place and its lease.
    async fn end(&self, claim: &Claim, entered: &Entered, outcome: Outcome, ran: Duration) -> Completion {
        let lost = &entered.stop.lost;
        let report = reported_end(claim, &outcome);
        if let (Some(reporter), Some(end)) = (&self.reporter, report) {
            tokio::select! {
                () = reporter.report(claim.lease.id, end) => {}
                () = lost.cancelled() => return Completion::Lost,
            }
        }
        if let Outcome::Failed { error, retry: Some(pause) } = &outcome
            && claim.lease.attempt < claim.max_attempts
        {
            // Before it is written down: the next attempt may start, and be told of, in the moment after.
            let in_millis = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            let (attempt, error) = (claim.lease.attempt, error.clone());
            self.hint(claim, What::Retrying { attempt, error, in_millis });
        }
        let completion = self.complete(claim, outcome.clone(), lost).await;
        if let Completion::Now(state) = completion {
            self.tell(claim, state, &outcome, ran);
            // It was to be tried again, and someone cancelled it at that moment.
            if let (Some(reporter), State::Cancelled, None) = (&self.reporter, state, report) {
                reporter.report(claim.lease.id, Ended::Cancelled).await;
            }
        }
        completion
    }

    async fn complete(&self, claim: &Claim, outcome: Outcome, lost: &CancellationToken) -> Completion {
        let mut pauses = Pauses::up_to(pauses::LONGEST);
        loop {
            // Asked for each time: a damaged store is replaced.
            let answer = match self.queue.store() {
                Ok(store) => store.complete(claim.lease, outcome.clone()).await,
                Err(closed) => Err(closed),
            };
            self.queue.noticed(&answer);
            match answer {
                Ok(completion) => return completion,
                Err(error) if pauses.is_first() => {
                    warn!(%error, "cannot write down a task's end; retrying");
                }
                Err(_) => {}
            }
            tokio::select! {
                () = pauses.wait() => {}
                () = lost.cancelled() => return Completion::Lost,
            }
        }
    }

    fn tell(&self, claim: &Claim, state: State, outcome: &Outcome, ran: Duration) {
        let task_id = claim.lease.id;
        let (waited_seconds, ran_seconds) = (claim.waited.as_secs_f64(), ran.as_secs_f64());
        match (state, outcome) {
            (State::Succeeded, _) => {
                self.metrics.finished(Ended::Processed);
                info!(%task_id, waited_seconds, ran_seconds, "processed");
            }
            (State::Dead, Outcome::Failed { error, .. }) => {
                self.metrics.gave_up(self.known(&claim.kind));
                warn!(%task_id, ran_seconds, error, "given up");
            }
            (State::Cancelled, _) => {
                self.metrics.finished(Ended::Cancelled);
                info!(%task_id, ran_seconds, "cancelled");
            }
            (State::Queued, Outcome::Failed { error, retry: Some(pause) }) => {
                self.metrics.retried();
                let retry_seconds = pause.as_secs_f64();
                info!(%task_id, ran_seconds, retry_seconds, error, "failed; another attempt follows");
            }
            (State::Queued | State::Running | State::Dead, _) => {
                debug!(%task_id, state = state.as_str(), "the attempt is over");
            }
        }
    }

    /// What a kind is called in metrics.
    fn known<'a>(&self, kind: &'a str) -> &'a str {
        self.kinds.find(kind).map_or("unknown", |_| kind)
    }

    fn hint(&self, claim: &Claim, what: What) {
        self.hub.hint(&Hint {
            task_id: claim.lease.id,
            kind: claim.kind.clone(),
            client_id: claim.client_id.clone(),
            what,
        });
    }
}

async fn time_out(limit: Option<Duration>) {
    match limit {
        Some(limit) => sleep(limit).await,
        None => std::future::pending().await,
    }
}

fn timed_out(claim: &Claim) -> Outcome {
    let seconds = claim.timeout.unwrap_or_default().as_secs_f64();
    failed(claim, Failure::retry(format!("timed out after {seconds} s")))
}

/// The handler has its time to clean up; work that it finishes in it is done all the same.
async fn cancelled(mut handler: Handler) -> Outcome {
    match timeout(CANCEL_GRACE, &mut handler).await {
        Ok(Ok(Ok(output))) if output.len() <= LONGEST_OUTPUT => Outcome::Succeeded(output),
        Ok(Ok(Ok(_) | Err(_)) | Err(_)) | Err(_) => Outcome::Cancelled,
    }
}

fn outcome(claim: &Claim, ended: Result<Result<String, Failure>, JoinError>) -> Outcome {
    match ended {
        Ok(Ok(output)) if output.len() > LONGEST_OUTPUT => {
            let error = format!("the output has {} bytes, and {LONGEST_OUTPUT} is the most", output.len());
            failed(claim, Failure::fatal(error))
        }
        Ok(Ok(output)) => Outcome::Succeeded(output),
        Ok(Err(failure)) => failed(claim, failure),
        Err(died) => failed(claim, Failure::retry(panic_text(died))),
    }
}

fn failed(claim: &Claim, failure: Failure) -> Outcome {
    let Failure { mut error, next } = failure;
    if error.len() > LONGEST_ERROR {
        error.truncate(error.floor_char_boundary(LONGEST_ERROR));
        error.push('…');
    }
    let retry = match next {
        Next::BackOff => {
            let policy = claim.backoff.unwrap_or(backoff::USUAL);
            Some(backoff::pause(policy, claim.lease.attempt, rand::random()))
        }
        Next::After(pause) => Some(pause),
        Next::GiveUp => None,
    };
    Outcome::Failed { error, retry }
}

fn panic_text(died: JoinError) -> String {
    match died.try_into_panic() {
        Ok(payload) => {
            let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
            format!("panicked: {}", text.as_deref().unwrap_or("without a word"))
        }
        Err(_) => "its handler was stopped".to_owned(),
    }
}

/// What the collector is told, if this is the task's end.
fn reported_end(claim: &Claim, outcome: &Outcome) -> Option<Ended> {
    match outcome {
        Outcome::Succeeded(_) => Some(Ended::Processed),
        Outcome::Cancelled => Some(Ended::Cancelled),
        Outcome::Failed { retry: None, .. } => Some(Ended::Dead),
        Outcome::Failed { retry: Some(_), .. } if claim.lease.attempt >= claim.max_attempts => {
            Some(Ended::Dead)
        }
        Outcome::Failed { retry: Some(_), .. } | Outcome::Released => None,
    }
}
