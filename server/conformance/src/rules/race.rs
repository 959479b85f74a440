//! Thousands of requests against the latch. The argument for each finding is in its function: none of them rests on how fast anything is.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::Request;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::{Need, Rule};
use crate::http1::{Answer, Connection, piecemeal, whole};
use crate::journal::Entry;
use crate::outcome::{Not, Outcome, broken, must};
use crate::pod::{ANSWERS_WITHIN, Pod};
use crate::run::{HELD, Run, connect};
use crate::status::Status;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "no-gap-at-the-latch",
        says: "A request is counted before the latch closes, or it is refused: none is let in past it, none runs uncounted.",
        needs: &[Need::Slow],
        hold: |run| Box::pin(no_gap(run)),
    },
    Rule {
        name: "tasks-are-handed-over",
        says: "A task is counted before its request is counted out: no zero shows between the two.",
        needs: &[Need::Task],
        hold: |run| Box::pin(handed_over(run)),
    },
    Rule {
        name: "prompt-under-load",
        says: "GET /drain is answered within 2 s under load: a later answer reads as busy.",
        needs: &[Need::Slow],
        hold: |run| Box::pin(prompt(run)),
    },
];

/// Connections of a round. Each has one request in it.
const CROWD: usize = 150;
/// Over which a round's requests are spread, with the latch in their midst.
const BURST: Duration = Duration::from_millis(30);
/// From the first of so many rounds to the last the latch comes later in the burst, from a quarter of it to three; then anew.
const LATEST: u32 = 6;
/// How late an answer of `/drain` reads as none.
const LATE: Duration = Duration::from_secs(2);
/// Tasks in a round, and rounds, of the hand-over.
const TASKS: u32 = 40;
const HAND_OVERS: u32 = 3;

/// Asks without a pause until it is told to stop; the answers are in the journal. The longest that one took.
async fn watch_on(pod: Pod, stop: watch::Receiver<bool>) -> Duration {
    let mut longest = Duration::ZERO;
    while !*stop.borrow() {
        let asked = Instant::now();
        let _ = pod.get().await;
        longest = longest.max(asked.elapsed());
        sleep(Duration::from_millis(2)).await;
    }
    longest
}

/// What a round has shown.
struct Round {
    epoch: u64,
    answers: Vec<Answer>,
    longest: Duration,
    told: Vec<(Entry, Status)>,
}

/// --slow, ready to be sent many times.
#[derive(Clone)]
struct Runner {
    head: Request<()>,
    body: Bytes,
}

impl Runner {
    /// The last byte of its body is held back for a while.
    async fn over(self, mut connection: Connection) -> Result<Answer, String> {
        let body = match self.body.len().checked_sub(1) {
            None => whole(Bytes::new()),
            Some(cut) => {
                let (pieces, body) = piecemeal();
                let _ = pieces.unbounded_send(self.body.slice(..cut));
                tokio::spawn(async move {
                    sleep(HELD).await;
                    let _ = pieces.unbounded_send(self.body.slice(cut..));
                });
                body
            }
        };
        let answered = timeout(ANSWERS_WITHIN, connection.exchange(self.head.map(|()| body))).await;
        answered.map_err(|_| "no answer".to_owned())?
    }
}

async fn round(run: &Run, n: u32, crowd: usize) -> Outcome<Round> {
    run.serving().await?;
    let begun = Instant::now();
    let Some(call) = &run.requests.slow else { return broken("no --slow") };
    let (head, _) = run.request(call, whole(call.body.clone())).map_err(Not::Kept)?.into_parts();
    let runner = Runner { head: Request::from_parts(head, ()), body: call.body.clone() };
    // Each has its connection before the burst begins.
    let connections: Result<Vec<_>, String> =
        join_all((0..crowd).map(|_| connect(&call.at.authority))).await.into_iter().collect();
    let connections = connections.map_err(Not::Kept)?;
    let (stop, stopped) = watch::channel(false);
    let watchers: Vec<_> = (0..2).map(|_| tokio::spawn(watch_on(run.pod.clone(), stopped.clone()))).collect();
    let burst = connections.into_iter().zip(0_u32..).map(|(connection, i)| {
        let runner = runner.clone();
        let at = BURST * i / u32::try_from(crowd).unwrap_or(1).max(1);
        tokio::spawn(async move {
            sleep(at).await;
            runner.over(connection).await
        })
    });
    let burst: Vec<_> = burst.collect();
    // Somewhere else in each round.
    sleep(BURST / 4 + BURST * (n % (LATEST + 1)) / (2 * LATEST)).await;
    let closed = run.close().await;
    // A connection that was closed as its request came has no answer: it may be sent again, and is no loss.
    let answers = join_all(burst).await.into_iter().flatten().flatten().collect();
    let idle = match &closed {
        Ok(_) => run.pod.until("idle after a race", ANSWERS_WITHIN, Status::idle).await.map(drop),
        Err(_) => Ok(()),
    };
    let _ = stop.send(true);
    let longest = join_all(watchers).await.into_iter().flatten().max().unwrap_or_default();
    let (epoch, _) = closed?;
    idle?;
    let told = run.pod.journal().told_since(begun);
    let told = told.into_iter().filter(|(_, status)| status.epoch == epoch).collect();
    Ok(Round { epoch, answers, longest, told })
}

impl Round {
    fn judge(&self, slow_takes: Duration) -> Outcome {
        let served: Vec<_> = self.answers.iter().filter(|answer| answer.succeeded()).collect();
        let closed = self.told.iter().filter(|(_, status)| !status.accepting);
        let Some((entry, status)) = closed.clone().min_by_key(|(entry, _)| entry.received) else {
            return broken(format!("epoch {}: it never said accepting: false", self.epoch));
        };
        // Sent after the answer that said so: it cannot have been let in before.
        let past = served.iter().filter(|answer| answer.sent > entry.received).count();
        must(past == 0, || {
            format!("{past} requests that were sent after accepting: false was said were let in")
        })?;
        // What is answered so much later than the latch was in flight at it, and so in the count that was said with it. A request may
        // count as more than one, never as less.
        let margin = slow_takes / 2;
        let later = served.iter().filter(|answer| answer.head > entry.received + margin).count();
        let counted = usize::try_from(status.in_flight.total).unwrap_or(usize::MAX);
        must(later <= counted, || {
            format!(
                "as the latch closed {counted} were said to be in flight, and {later} that ran then were answered later"
            )
        })?;
        // Idle says that all of them had been handed over.
        let idle = closed.filter(|(_, status)| status.idle()).min_by_key(|(entry, _)| entry.received);
        let Some((entry, _)) = idle else { return Ok(()) };
        let ran = served.iter().filter(|answer| answer.head > entry.received + margin).count();
        must(ran == 0, || format!("it said idle while {ran} requests ran that were answered later"))
    }
}

async fn no_gap(run: &Run) -> Outcome {
    let all = run.requests.race.get();
    let rounds = all.div_ceil(CROWD);
    for n in 0..rounds {
        let crowd = CROWD.min(all - n * CROWD);
        let round = round(run, u32::try_from(n).unwrap_or(0), crowd).await?;
        let served = round.answers.iter().filter(|answer| answer.succeeded()).count();
        let refused = round.answers.iter().filter(|answer| answer.code == 503).count();
        round.judge(run.slow_takes).map_err(|not| match not {
            Not::Kept(seen) => Not::Kept(format!("round {n}, {served} let in, {refused} refused: {seen}")),
            Not::Held(why) => Not::Held(why),
        })?;
    }
    Ok(())
}

async fn prompt(run: &Run) -> Outcome {
    // The round whose latch closes last, so that most of its requests are let in.
    let round = round(run, LATEST, CROWD.min(run.requests.race.get())).await?;
    must(round.longest < LATE, || {
        format!("with {CROWD} requests in flight an answer took {} s", round.longest.as_secs_f64())
    })
}

async fn handed_over(run: &Run) -> Outcome {
    let (Some(call), Some(seconds)) = (&run.requests.task, run.requests.task_seconds) else {
        return broken("no --task");
    };
    let takes = Duration::from_secs_f64(seconds);
    for n in 0..HAND_OVERS {
        run.serving().await?;
        let begun = Instant::now();
        let (stop, stopped) = watch::channel(false);
        let watcher = tokio::spawn(watch_on(run.pod.clone(), stopped));
        let tasks = join_all((0..TASKS).map(|i| async move {
            sleep(BURST * i / TASKS).await;
            run.call(call).await
        }));
        let closing = async {
            sleep(BURST / 4 + BURST * (n + 1) / 6).await;
            run.close().await
        };
        let (answers, closed) = tokio::join!(tasks, closing);
        let (epoch, _) = closed?;
        let what = "idle after its tasks";
        run.pod.until(what, ANSWERS_WITHIN + takes * TASKS, Status::idle).await?;
        let _ = stop.send(true);
        let _ = watcher.await;
        let told = run.pod.journal().told_since(begun);
        let idle = told.iter().filter(|(_, status)| status.epoch == epoch && status.idle());
        let Some(idle) = idle.map(|(entry, _)| entry.received).min() else { continue };
        // Accepted after its request was sent, a task cannot have ended before it has taken its time.
        let unfinished =
            answers.into_iter().flatten().filter(|answer| answer.succeeded() && answer.sent + takes > idle);
        let unfinished = unfinished.count();
        must(unfinished == 0, || {
            format!("it said idle while {unfinished} tasks that it had accepted could not have ended")
        })?;
    }
    Ok(())
}
