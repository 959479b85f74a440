//! The long poll. A server may ignore `Prefer`; one that says it was applied has to apply it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Rule;
use crate::outcome::{Not, Outcome, broken, must};
use crate::pod::{ANSWERS_WITHIN, PROMPT, Reply};
use crate::run::Run;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "poll-is-held",
        says: "With the last tag and Prefer: wait=N a GET without news ends after N seconds, as a 304 that says Preference-Applied: wait=N.",
        needs: &[],
        hold: |run| Box::pin(is_held(run)),
    },
    Rule {
        name: "poll-wakes",
        says: "A held GET is answered as soon as something changes: at a PUT, at the end of a linger, at a count, at a DELETE.",
        needs: &[],
        hold: |run| Box::pin(wakes(run)),
    },
    Rule {
        name: "poll-is-bounded",
        says: "No wait is longer than 300 s: Preference-Applied says what was applied.",
        needs: &[],
        hold: |run| Box::pin(is_bounded(run)),
    },
];

/// A poll by the newest tag.
async fn poll(run: &Run, wait: u64) -> Outcome<Reply> {
    let tag = run.pod.get().await?.etag;
    poll_from(run, &tag, wait).await
}

async fn poll_from(run: &Run, tag: &str, wait: u64) -> Outcome<Reply> {
    let wait = format!("wait={wait}");
    run.pod.get_with(&[("if-none-match", tag), ("prefer", &wait)], ANSWERS_WITHIN).await
}

fn applied(reply: &Reply) -> Option<u64> {
    reply.header("preference-applied")?.trim().strip_prefix("wait=")?.parse().ok()
}

/// Seconds of the first poll: enough to be told from an answer at once.
const WAIT: u64 = 1;

async fn is_held(run: &Run) -> Outcome {
    run.serving().await?;
    let reply = poll(run, WAIT).await?;
    let took = reply.received - reply.sent;
    must(reply.code == 304, || format!("a poll without news was answered with {}", reply.told()))?;
    if took < PROMPT / 2 && applied(&reply).is_none() {
        return Err(Not::Held(
            "it ignores Prefer, which it may: it is asked every pollIntervalSeconds".to_owned(),
        ));
    }
    must(applied(&reply) == Some(WAIT), || {
        format!("Preference-Applied is {:?}, not wait={WAIT}", reply.header("preference-applied"))
    })?;
    let (least, most) =
        (Duration::from_secs(WAIT) - Duration::from_millis(100), Duration::from_secs(WAIT) + PROMPT);
    must((least..most).contains(&took), || format!("wait={WAIT} was held for {} s", took.as_secs_f64()))
}

/// Holds a poll, does something, and sees that it wakes with news.
async fn woken_by(run: &Run, what: &str, act: impl Future<Output = Outcome>) -> Outcome {
    let tag = run.pod.get().await?.etag;
    let acting = async {
        // The poll should be under way. One that begins later sees the change as news, and proves less.
        sleep(Duration::from_millis(150)).await;
        act.await?;
        Outcome::Ok(Instant::now())
    };
    let (reply, acted) = tokio::join!(poll_from(run, &tag, 15), acting);
    let (reply, acted) = (reply?, acted?);
    must(reply.code == 200, || {
        format!("a poll that {what} should have ended was answered with {}", reply.told())
    })?;
    let late = reply.received.saturating_duration_since(acted);
    must(late < PROMPT, || format!("a poll was answered {} s after {what}", late.as_secs_f64()))
}

async fn supported(run: &Run) -> Outcome {
    let reply = poll(run, 1).await?;
    match applied(&reply) {
        Some(_) => Ok(()),
        None => Err(Not::Held("it ignores Prefer, which it may".to_owned())),
    }
}

async fn wakes(run: &Run) -> Outcome {
    run.serving().await?;
    supported(run).await?;
    let pod = &run.pod;
    let epoch = pod.next_epoch();
    woken_by(run, "a PUT", async { pod.put(epoch, 1).await.map(drop) }).await?;
    woken_by(run, "the end of a linger", async {
        pod.until("closed", ANSWERS_WITHIN, |status| !status.accepting).await.map(drop)
    })
    .await?;
    woken_by(run, "a DELETE", async { pod.delete(pod.next_epoch()).await.map(drop) }).await?;
    if run.requests.slow.is_none() {
        return Ok(());
    }
    let mut work = None;
    woken_by(run, "a request", async {
        work = Some(run.busy().await?);
        Ok(())
    })
    .await?;
    let Some(work) = work else { return broken("no request") };
    woken_by(run, "a request's end", async { work.end().await.map(drop) }).await
}

async fn is_bounded(run: &Run) -> Outcome {
    run.serving().await?;
    supported(run).await?;
    let epoch = run.pod.next_epoch();
    let tag = run.pod.get().await?.etag;
    let changing = async {
        sleep(Duration::from_millis(150)).await;
        run.pod.put(epoch, 0).await
    };
    let (reply, changed) = tokio::join!(poll_from(run, &tag, 100_000), changing);
    changed?;
    let reply = reply?;
    match applied(&reply) {
        Some(seconds) if seconds <= 300 => Ok(()),
        other => broken(format!("of wait=100000 it applied {other:?}")),
    }
}
