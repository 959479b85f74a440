//! Who is let in, and how connections wind down.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Need, Rule};
use crate::call::Call;
use crate::http1::{Answer, whole};
use crate::outcome::{Not, Outcome, broken, must};
use crate::pod::{ANSWERS_WITHIN, PROMPT};
use crate::run::{Run, connect};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "latch-refuses",
        says: "Past the latch all work is refused with 503 and Retry-After, WebSockets too.",
        needs: &[Need::Work],
        hold: |run| Box::pin(refuses(run)),
    },
    Rule {
        name: "latch-holds",
        says: "accepting: false is a latch: it stays until a resume, whatever is asked meanwhile.",
        needs: &[],
        hold: |run| Box::pin(holds(run)),
    },
    Rule {
        name: "reads-are-answered",
        says: "Reads and health checks are answered in all states.",
        needs: &[Need::Open],
        hold: |run| Box::pin(reads(run)),
    },
    Rule {
        name: "answers-say-close",
        says: "From the linger on, answers of HTTP/1 say Connection: close.",
        needs: &[Need::Work],
        hold: |run| Box::pin(say_close(run)),
    },
    Rule {
        name: "idle-connections-close",
        says: "Connections that are idle are closed before the latch, so that their clients go elsewhere and meet no refusal.",
        needs: &[Need::Work],
        hold: |run| Box::pin(idle_ones_close(run)),
    },
];

fn is_refusal(call: &Call, answer: &Answer) -> Outcome {
    let shown = format!("{} {} past the latch", call.method, call.at.path);
    must(answer.code == 503, || format!("{shown} was answered with {}", answer.code))?;
    must(answer.header("retry-after").is_some(), || format!("{shown} was refused without Retry-After"))
}

async fn refuses(run: &Run) -> Outcome {
    run.closed().await?;
    for call in run.work() {
        let answer = run.call(call).await.map_err(Not::Kept)?;
        is_refusal(call, &answer)?;
    }
    let Some(socket) = &run.requests.socket else { return Ok(()) };
    match tokio_tungstenite::connect_async(&socket.0).await {
        Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => {
            must(answer.status() == 503, || format!("a WebSocket was refused with {}", answer.status()))
        }
        Ok(_) => broken("a WebSocket was let in past the latch"),
        Err(error) => broken(format!("a WebSocket was not refused with 503: {error}")),
    }
}

async fn holds(run: &Run) -> Outcome {
    run.closed().await?;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        let status = run.pod.get().await?.status;
        must(!status.accepting, || {
            format!("{} s after the latch it is {}", begun.elapsed().as_secs_f64(), status.told())
        })?;
        if let Some(call) = run.work().next() {
            let code = run.call(call).await.map_or(0, |answer| answer.code);
            must(!(200..300).contains(&code), || format!("work past the latch was answered with {code}"))?;
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn all_open(run: &Run, when: &str) -> Outcome {
    for call in &run.requests.open {
        let code = run.call(call).await.map_or_else(|error| error, |answer| answer.code.to_string());
        must(code.starts_with('2'), || format!("{when}, {} {}: {code}", call.method, call.at.path))?;
    }
    Ok(())
}

async fn reads(run: &Run) -> Outcome {
    run.serving().await?;
    let work = if run.requests.slow.is_some() { Some(run.busy().await?) } else { None };
    run.pod.put(run.pod.next_epoch(), 1).await?;
    all_open(run, "lingering").await?;
    run.pod.until("closed", ANSWERS_WITHIN, |status| !status.accepting).await?;
    all_open(run, "draining").await?;
    if let Some(work) = work {
        work.end().await?;
    }
    run.pod.until("idle", ANSWERS_WITHIN, crate::status::Status::idle).await?;
    all_open(run, "idle").await
}

fn closes(answer: &Answer) -> bool {
    answer.header("connection").is_some_and(|value| value.to_ascii_lowercase().contains("close"))
}

async fn say_close(run: &Run) -> Outcome {
    run.serving().await?;
    let call = run.some_work()?;
    run.pod.put(run.pod.next_epoch(), 1).await?;
    let answer = run.call(call).await.map_err(Not::Kept)?;
    must(closes(&answer), || format!("an answer in the linger ({}) does not say it", answer.code))?;
    run.pod.until("closed", ANSWERS_WITHIN, |status| !status.accepting).await?;
    let answer = run.call(call).await.map_err(Not::Kept)?;
    must(closes(&answer), || format!("a refusal past the latch ({}) does not say it", answer.code))
}

async fn idle_ones_close(run: &Run) -> Outcome {
    run.serving().await?;
    let call = run.some_work()?;
    let mut connection = connect(&call.at.authority).await.map_err(Not::Kept)?;
    let request = run.request(call, whole(call.body.clone())).map_err(Not::Kept)?;
    let answer = connection.exchange(request).await.map_err(Not::Kept)?;
    if closes(&answer) {
        return Err(Not::Held("the app keeps no connections: it always says Connection: close".to_owned()));
    }
    run.pod.put(run.pod.next_epoch(), 1).await?;
    run.pod.until("closed", ANSWERS_WITHIN, |status| !status.accepting).await?;
    must(connection.closed(PROMPT).await, || "an idle connection was still open after the latch".to_owned())
}
