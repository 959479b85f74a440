//! What is counted, and until when.

use std::time::Duration;

use hyper::body::Body as _;
use tokio::time::{Instant, sleep, timeout};

use super::{Need, Rule};
use crate::http1::whole;
use crate::outcome::{Not, Outcome, broken, must};
use crate::pod::{ANSWERS_WITHIN, PROMPT};
use crate::run::{Run, connect};
use crate::status::Status;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "requests-count",
        says: "A request is in flight from its acceptance to its end, and not longer.",
        needs: &[Need::Slow],
        hold: |run| Box::pin(requests_count(run)),
    },
    Rule {
        name: "what-was-accepted-ends",
        says: "What is in flight at the latch goes on and is answered; the state is Draining until then, and Idle after it.",
        needs: &[Need::Slow],
        hold: |run| Box::pin(accepted_ends(run)),
    },
    Rule {
        name: "bodies-count-to-their-end",
        says: "A request is in flight until its response's body has ended.",
        needs: &[Need::Stream],
        hold: |run| Box::pin(bodies_count(run)),
    },
    Rule {
        name: "who-leaves-is-counted-out",
        says: "A request whose client has gone is counted out, at the latest when its work is done.",
        needs: &[Need::Slow],
        hold: |run| Box::pin(leavers(run)),
    },
    Rule {
        name: "failures-are-counted-out",
        says: "A request whose handler fails is counted out.",
        needs: &[Need::Fail],
        hold: |run| Box::pin(failures(run)),
    },
    Rule {
        name: "tasks-count-to-their-end",
        says: "Work that goes on after its answer is in flight until it is done.",
        needs: &[Need::Task],
        hold: |run| Box::pin(tasks_count(run)),
    },
    Rule {
        name: "zero-stays-zero",
        says: "Once latched and at zero, nothing counts any more until a resume, whatever is asked.",
        needs: &[],
        hold: |run| Box::pin(zero_stays(run)),
    },
];

async fn requests_count(run: &Run) -> Outcome {
    run.serving().await?;
    let work = run.busy().await?;
    let answer = work.end().await?;
    must(answer.succeeded(), || format!("--slow was answered with {}", answer.code))?;
    let what = "at zero again after a request's end";
    run.pod.until(what, ANSWERS_WITHIN, |status| status.in_flight.total == 0).await.map(drop)
}

async fn accepted_ends(run: &Run) -> Outcome {
    run.serving().await?;
    let work = run.busy().await?;
    let (_, closed) = run.close().await?;
    if work.is_answered() && run.requests.slow.as_ref().is_some_and(|call| call.body.is_empty()) {
        let code = work.end().await?.code;
        must((200..300).contains(&code), || {
            format!("a request in flight at the latch was answered with {code}")
        })?;
        return Err(Not::Held("--slow was answered before the latch: give one that takes longer".to_owned()));
    }
    must(closed.status.state == "Draining" && closed.status.in_flight.total > 0, || {
        format!("with a request in flight and the latch closed it is {}", closed.status.told())
    })?;
    let answer = work.end().await?;
    must(answer.succeeded(), || {
        format!("a request in flight at the latch was answered with {}", answer.code)
    })?;
    let idle =
        run.pod.until("idle once its last request had ended", ANSWERS_WITHIN, Status::idle).await?.status;
    must(idle.state == "Idle", || format!("at the end it is {}", idle.told()))
}

/// Pieces that come over half a second tell a body from its head.
const LONG: Duration = Duration::from_millis(400);
/// An answer may be here this much later than it was handed over.
const DELIVERY: Duration = Duration::from_millis(150);

async fn bodies_count(run: &Run) -> Outcome {
    run.serving().await?;
    let Some(call) = &run.requests.stream else { return broken("no --stream") };
    let mut connection = connect(&call.at.authority).await.map_err(Not::Kept)?;
    let request = run.request(call, whole(call.body.clone())).map_err(Not::Kept)?;
    let begun = timeout(ANSWERS_WITHIN, connection.begin(request)).await;
    let response =
        begun.map_err(|_| Not::Kept("--stream was never answered".to_owned()))?.map_err(Not::Kept)?;
    let head = Instant::now();
    let reading = async move {
        let mut body = std::pin::pin!(response.into_body());
        while let Some(Ok(_)) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {}
        Instant::now()
    };
    let watching = async {
        let mut zero = None;
        loop {
            let seen = run.pod.get().await?;
            if seen.status.in_flight.total == 0 && zero.is_none() {
                zero = Some(seen.received);
            }
            sleep(Duration::from_millis(20)).await;
            if zero.is_some_and(|at: Instant| at.elapsed() > DELIVERY) || head.elapsed() > ANSWERS_WITHIN {
                return Outcome::Ok(zero);
            }
        }
    };
    let (end, zero) = tokio::join!(timeout(ANSWERS_WITHIN, reading), watching);
    let end = end.map_err(|_| Not::Kept("the body of --stream never ended".to_owned()))?;
    if end - head < LONG {
        return Err(Not::Held(format!(
            "--stream ended {} s after its head: give one that comes over half a second",
            (end - head).as_secs_f64()
        )));
    }
    match zero? {
        Some(zero) if zero + DELIVERY < end => {
            broken(format!("nothing was in flight {} s before a body's end", (end - zero).as_secs_f64()))
        }
        Some(_) => Ok(()),
        None => broken("it was never at zero again after a body's end"),
    }
}

async fn leavers(run: &Run) -> Outcome {
    run.serving().await?;
    drop(run.busy().await?);
    let limit = ANSWERS_WITHIN.min(run.slow_takes + 10 * PROMPT);
    let what = "at zero after a client that left in the midst of its request";
    run.pod.until(what, limit, |status| status.in_flight.total == 0).await?;
    if let Some(call) = &run.requests.stream {
        let mut connection = connect(&call.at.authority).await.map_err(Not::Kept)?;
        let request = run.request(call, whole(call.body.clone())).map_err(Not::Kept)?;
        drop(timeout(ANSWERS_WITHIN, connection.begin(request)).await);
        drop(connection);
        let what = "at zero after a client that left in the midst of its answer";
        run.pod.until(what, limit, |status| status.in_flight.total == 0).await?;
    }
    Ok(())
}

async fn failures(run: &Run) -> Outcome {
    run.serving().await?;
    let Some(call) = &run.requests.fail else { return broken("no --fail") };
    for _ in 0..3 {
        // A connection that ends without an answer is a failure too.
        let code = run.call(call).await.map_or(500, |answer| answer.code);
        if code < 500 {
            return Err(Not::Held(format!(
                "--fail was answered with {code}: give a request whose handler fails"
            )));
        }
    }
    let what = "at zero after requests whose handler failed";
    run.pod.until(what, PROMPT, |status| status.in_flight.total == 0).await.map(drop)
}

async fn tasks_count(run: &Run) -> Outcome {
    run.serving().await?;
    let (Some(call), Some(seconds)) = (&run.requests.task, run.requests.task_seconds) else {
        return broken("no --task");
    };
    let answer = run.call(call).await.map_err(Not::Kept)?;
    must(answer.succeeded(), || format!("--task was answered with {}", answer.code))?;
    let end = answer.sent + Duration::from_secs_f64(seconds);
    let zero =
        run.pod.until("at zero after a task", ANSWERS_WITHIN + Duration::from_secs_f64(seconds), |status| {
            status.in_flight.total == 0
        });
    let zero = zero.await?.received;
    must(zero >= end, || {
        format!("nothing was in flight {} s before a task's end", (end - zero).as_secs_f64())
    })
}

async fn zero_stays(run: &Run) -> Outcome {
    run.closed().await?;
    run.pod.until("idle", ANSWERS_WITHIN, Status::idle).await?;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        if let Some(call) = run.work().next() {
            let _ = run.call(call).await;
        }
        let status = run.pod.get().await?.status;
        must(status.idle(), || {
            format!("{} s after it was idle it is {}", begun.elapsed().as_secs_f64(), status.told())
        })?;
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
