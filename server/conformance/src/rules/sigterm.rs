//! The SIGTERM that finds an app serving: it is sent once, all that follows is written down, and each rule looks at that.

use std::time::Duration;

use futures::StreamExt;
use nix::sys::signal::Signal;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::sockets::{Socket, lives, open};
use super::{Need, Rule};
use crate::life::{End, Exit};
use crate::outcome::{Not, Outcome, broken, must};
use crate::pod::{ANSWERS_WITHIN, PROMPT, Reply, Token};
use crate::run::{Run, Work};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "sigterm-lingers",
        says: "SIGTERM that nobody announced: the state is Terminating, and work is accepted for a while, since endpoints propagate at the same time; then the latch closes.",
        needs: &[Need::Process],
        hold: |run| Box::pin(lingers(run)),
    },
    Rule {
        name: "sigterm-waits-for-work",
        says: "What is in flight at SIGTERM ends and is answered, and the process waits for it.",
        needs: &[Need::Process, Need::Slow],
        hold: |run| Box::pin(waits(run)),
    },
    Rule {
        name: "sigterm-is-final",
        says: "After SIGTERM a DELETE is a 409 without a field, resumable is false, and a higher epoch is still taken, up to 2^53 - 1.",
        needs: &[Need::Process],
        hold: |run| Box::pin(is_final(run)),
    },
    Rule {
        name: "drain-answers-to-the-end",
        says: "/drain answers until the very end of the process.",
        needs: &[Need::Process],
        hold: |run| Box::pin(answers(run)),
    },
    Rule {
        name: "sigterm-exits-0",
        says: "The process exits with 0 once nothing is in flight.",
        needs: &[Need::Process],
        hold: |run| Box::pin(exits(run)),
    },
    Rule {
        name: "sockets-are-told",
        says: "WebSockets stay open while work runs; at the end each is closed with 1012 (service restart).",
        needs: &[Need::Process, Need::Socket],
        hold: |run| Box::pin(told(run)),
    },
    Rule {
        name: "sockets-are-told-spread",
        says: "Farewells are spread over about a second, so that not all clients come back at once.",
        needs: &[Need::Process, Need::Socket],
        hold: |run| Box::pin(spread(run)),
    },
];

/// The highest epoch there is.
const LAST_EPOCH: u64 = (1 << 53) - 1;
/// Sockets that are open at the SIGTERM: enough that their farewells show how they are spread.
const SOCKETS: usize = 24;
/// What an interpreter takes to end on a busy machine, once its last listener is closed.
const MUTE: Duration = Duration::from_millis(2500);
/// How long a process may stay after its last work: farewells, and last bytes to clients.
const LEAVE: Duration = Duration::from_secs(15);
/// Of 24 draws over a second, the first and the last are nearer than this to each other once in 10^9 runs.
const SPREAD: Duration = Duration::from_millis(200);

/// Sends it, once a run.
async fn exit(run: &mut Run) -> Outcome<Exit> {
    if run.exit.is_none() {
        run.exit = Some(send(run).await);
    }
    run.exit.clone().unwrap_or_else(|| broken("no SIGTERM was sent"))
}

fn await_farewell(mut socket: Socket) -> JoinHandle<(Option<u16>, Instant)> {
    tokio::spawn(async move {
        let mut code = None;
        let mut at = Instant::now();
        while let Ok(Some(Ok(message))) = timeout(ANSWERS_WITHIN * 2, socket.next()).await {
            if let Message::Close(frame) = message {
                at = Instant::now();
                code = frame.map(|frame| u16::from(frame.code));
            }
        }
        (code, if code.is_some() { at } else { Instant::now() })
    })
}

async fn send(run: &mut Run) -> Outcome<Exit> {
    run.fresh().await?;
    run.serving().await?;
    let mut sockets = Vec::new();
    if run.requests.socket.is_some() {
        for _ in 0..SOCKETS {
            sockets.push(open(run).await?);
        }
    }
    let mut spare = sockets.pop();
    let farewells: Vec<_> = sockets.into_iter().map(await_farewell).collect();
    let mut work = if run.requests.slow.is_some() { Some(run.busy().await?) } else { None };
    let (sent, mut seen) = (Instant::now(), Exit::nothing());
    run.life.signal(Signal::SIGTERM)?;
    let mut last_answer = Instant::now();
    let mut released = None;
    loop {
        if let Some(end) = run.life.ended() {
            (seen.end, seen.mute) = (Some(end), last_answer.elapsed());
            seen.ended_before_work = work.is_some();
            break;
        }
        if sent.elapsed() > ANSWERS_WITHIN * 2 {
            break;
        }
        if let Ok(reply) = run.pod.ask("GET", "", &[], bytes::Bytes::new(), PROMPT * 2).await {
            last_answer = reply.received;
            seen.note(run, reply, sent).await;
        }
        // Held for a while past the latch: what is in flight then is what the process waits for.
        let closed = seen.closed_after.is_some_and(|after| sent.elapsed().as_secs_f64() > after + 0.5);
        if closed && let Some(work) = work.take() {
            if let Some(socket) = &mut spare {
                seen.socket_lived = Some(lives(socket).await);
            }
            released = Some(finish(work));
        }
        sleep(Duration::from_millis(20)).await;
    }
    seen.work = match (released, work) {
        (Some(finishing), _) => finishing.await.ok(),
        (None, Some(work)) => Some(work.end().await.map(|answer| answer.code)),
        (None, None) => None,
    };
    for farewell in farewells {
        seen.farewells.extend(farewell.await);
    }
    Ok(seen)
}

fn finish(work: Work) -> JoinHandle<Outcome<u16>> {
    tokio::spawn(async move { work.end().await.map(|answer| answer.code) })
}

impl Exit {
    fn nothing() -> Self {
        Self {
            first: None,
            closed_after: None,
            work_in_linger: None,
            resume: None,
            last_epoch: None,
            work: None,
            ended_before_work: false,
            mute: Duration::ZERO,
            socket_lived: None,
            farewells: Vec::new(),
            end: None,
        }
    }

    /// One answer on the way down; at the first of them it is also tried what may be asked of a process that terminates.
    async fn note(&mut self, run: &Run, reply: Reply, sent: Instant) {
        let Some(status) = reply.status.clone().filter(|status| status.state == "Terminating") else {
            return;
        };
        if self.closed_after.is_none() && !status.accepting {
            self.closed_after = Some((reply.received - sent).as_secs_f64());
        }
        if self.first.is_some() {
            return;
        }
        self.first = Some(reply);
        if let Some(call) = run.work().next().filter(|_| status.accepting) {
            self.work_in_linger = Some(run.call(call).await.map_or(0, |answer| answer.code));
        }
        let epoch = run.pod.next_epoch();
        self.resume =
            run.pod.delete_query(&format!("?epoch={epoch}"), Token::Good("resume", epoch)).await.ok();
        self.last_epoch = run.pod.put_any(LAST_EPOCH, 0).await.ok();
    }
}

async fn lingers(run: &mut Run) -> Outcome {
    let seen = exit(run).await?;
    let Some(first) = &seen.first else { return broken("no answer said Terminating after a SIGTERM") };
    must(first.status.as_ref().is_some_and(|status| status.accepting), || {
        format!(
            "the first answer after a SIGTERM was {}: it closed at once (is its linger set to 0?)",
            first.told()
        )
    })?;
    if let Some(code) = seen.work_in_linger {
        must((200..300).contains(&code), || {
            format!("work in the linger of a SIGTERM was answered with {code}")
        })?;
    }
    must(seen.closed_after.is_some() || seen.end.is_some(), || "the latch never closed".to_owned())
}

async fn waits(run: &mut Run) -> Outcome {
    let seen = exit(run).await?;
    must(!seen.ended_before_work, || "it ended with a request in flight".to_owned())?;
    match seen.work {
        Some(Ok(code)) => must((200..300).contains(&code), || {
            format!("a request in flight at SIGTERM was answered with {code}")
        }),
        Some(Err(Not::Kept(seen) | Not::Held(seen))) => broken(seen),
        None => broken("a request in flight at SIGTERM was never answered"),
    }
}

async fn is_final(run: &mut Run) -> Outcome {
    let seen = exit(run).await?;
    let (Some(first), Some(resume)) = (&seen.first, &seen.resume) else {
        return broken("it could not be asked after its SIGTERM");
    };
    must(first.status.as_ref().is_some_and(|status| !status.resumable), || {
        "it says resumable: true".to_owned()
    })?;
    must(resume.code == 409 && resume.field().is_none(), || {
        format!("a DELETE after SIGTERM was answered with {}, not 409 without a field", resume.told())
    })?;
    let Some(told) = &seen.last_epoch else { return broken("a PUT after SIGTERM was not answered") };
    let taken = told.code == 202 && told.status.as_ref().is_some_and(|status| status.epoch == LAST_EPOCH);
    must(taken, || format!("a PUT of epoch 2^53 - 1 after SIGTERM was answered with {}", told.told()))
}

async fn answers(run: &mut Run) -> Outcome {
    let seen = exit(run).await?;
    must(seen.mute < MUTE, || {
        format!("the process lived on for {} s after its last answer", seen.mute.as_secs_f64())
    })
}

async fn exits(run: &mut Run) -> Outcome {
    let seen = exit(run).await?;
    match seen.end {
        Some(End::Code(0)) => Ok(()),
        Some(End::Code(code)) => broken(format!("it exited with {code}")),
        Some(End::Signal) => broken("it was ended by a signal: does it handle SIGTERM?"),
        Some(End::Unseen) => Err(Not::Held(
            "it has ended; nobody but its parent sees its exit code: give -- COMMAND".to_owned(),
        )),
        None => broken(format!("it had not ended {} s after SIGTERM", (ANSWERS_WITHIN * 2).as_secs())),
    }
}

async fn told(run: &mut Run) -> Outcome {
    let seen = exit(run).await?;
    must(seen.socket_lived != Some(false), || {
        "a WebSocket was closed while a request was in flight".to_owned()
    })?;
    let other = seen.farewells.iter().find(|(code, _)| *code != Some(1012));
    must(!seen.farewells.is_empty() && other.is_none(), || match other {
        Some((Some(code), _)) => format!("a WebSocket was closed with {code}"),
        _ => "a WebSocket was cut without a close frame".to_owned(),
    })
}

async fn spread(run: &mut Run) -> Outcome {
    let seen = exit(run).await?;
    let mut times: Vec<_> = seen.farewells.iter().map(|(_, at)| *at).collect();
    times.sort_unstable();
    let (Some(first), Some(last)) = (times.first(), times.last()) else {
        return broken("no WebSocket was told");
    };
    let (took, most) = (*last - *first, LEAVE);
    must((SPREAD..most).contains(&took), || {
        format!("{} WebSockets were told within {:.3} s", times.len(), took.as_secs_f64())
    })
}
