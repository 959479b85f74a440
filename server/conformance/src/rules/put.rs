//! `PUT /drain`: drains, lingers, and epochs that only go up.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::Rule;
use crate::outcome::{Outcome, must};
use crate::pod::{ANSWERS_WITHIN, PROMPT, Reply, Token};
use crate::run::Run;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "put-drains",
        says: "PUT is answered with 202 and the status, in its epoch; with lingerSeconds 0 the latch closes at once.",
        needs: &[],
        hold: |run| Box::pin(drains(run)),
    },
    Rule {
        name: "put-lingers",
        says: "In a linger the state is Lingering and work is accepted; the latch closes when it is over, and no earlier.",
        needs: &[],
        hold: |run| Box::pin(lingers(run)),
    },
    Rule {
        name: "retry-changes-nothing",
        says: "The same PUT again is answered with 202, and does not lengthen the linger.",
        needs: &[],
        hold: |run| Box::pin(retries(run)),
    },
    Rule {
        name: "higher-epoch-takes-over",
        says: "A higher epoch while draining is taken over, and the latch stays closed.",
        needs: &[],
        hold: |run| Box::pin(takes_over(run)),
    },
    Rule {
        name: "linger-is-never-shortened",
        says: "A higher epoch in a linger, with a shorter one, does not close the latch early.",
        needs: &[],
        hold: |run| Box::pin(is_not_shortened(run)),
    },
    Rule {
        name: "stale-put-is-409",
        says: "A PUT at or below an epoch that was seen, but for the drain's own, is a 409 with field epoch, and changes nothing.",
        needs: &[],
        hold: |run| Box::pin(stale(run)),
    },
    Rule {
        name: "put-is-validated",
        says: "A body that is no JSON is a 400, one over 4 KiB a 413, a field that is missing, mistyped or out of range a 422 that names it; nothing changes.",
        needs: &[],
        hold: |run| Box::pin(is_validated(run)),
    },
    Rule {
        name: "unknown-fields-are-ignored",
        says: "Unknown fields are ignored, and lingerSeconds may be left out.",
        needs: &[],
        hold: |run| Box::pin(unknown_fields(run)),
    },
];

/// The linger that these rules ask for: whole seconds, and long beside what a busy machine delays.
const LINGER: u64 = 2;
/// Clocks and rounding.
const EARLY: Duration = Duration::from_millis(100);

async fn drains(run: &Run) -> Outcome {
    let (epoch, seen) = run.closed().await?;
    must(seen.status.epoch == epoch, || format!("it says epoch {} after a PUT of {epoch}", seen.status.epoch))
}

/// When the latch closed, after this moment.
async fn closes(run: &Run) -> Outcome<Instant> {
    Ok(run.pod.until("closed", ANSWERS_WITHIN, |status| !status.accepting).await?.received)
}

async fn lingers(run: &Run) -> Outcome {
    run.serving().await?;
    let asked = Instant::now();
    let seen = run.pod.put(run.pod.next_epoch(), LINGER).await?;
    must(seen.status.accepting && seen.status.state == "Lingering", || {
        format!("a PUT with lingerSeconds {LINGER} was answered with {}", seen.status.told())
    })?;
    if let Some(call) = run.work().next() {
        let code = run.call(call).await.map_or(0, |answer| answer.code);
        let soon = asked.elapsed() < Duration::from_secs(LINGER) - EARLY;
        must((200..300).contains(&code) || !soon, || format!("work in a linger was answered with {code}"))?;
    }
    let lingered = closes(run).await? - asked;
    must(lingered >= Duration::from_secs(LINGER) - EARLY, || {
        format!("the latch closed {} s after a PUT with lingerSeconds {LINGER}", lingered.as_secs_f64())
    })?;
    must(lingered < Duration::from_secs(LINGER) + 2 * PROMPT, || {
        format!("the latch closed only {} s after a PUT with lingerSeconds {LINGER}", lingered.as_secs_f64())
    })
}

async fn retries(run: &Run) -> Outcome {
    run.serving().await?;
    let epoch = run.pod.next_epoch();
    run.pod.put(epoch, LINGER).await?;
    let asked = Instant::now();
    sleep(Duration::from_secs(LINGER) / 2).await;
    let again = run.pod.put(epoch, 3600).await?;
    must(again.status.epoch == epoch, || format!("the retry was answered with {}", again.status.told()))?;
    let lingered =
        run.pod.until("closed, after a PUT was sent again with a longer linger,", 3 * PROMPT, |status| {
            !status.accepting
        });
    let lingered = lingered.await?.received - asked;
    must(lingered < Duration::from_secs(LINGER) + PROMPT + Duration::from_millis(500), || {
        format!(
            "the latch closed {} s after the first PUT, whose linger was {LINGER} s",
            lingered.as_secs_f64()
        )
    })?;
    // Also once it is closed.
    let again = run.pod.put(epoch, 3600).await?;
    must(!again.status.accepting, || "a retry after the latch opened it again".to_owned())
}

async fn takes_over(run: &Run) -> Outcome {
    run.closed().await?;
    let epoch = run.pod.next_epoch();
    let seen = run.pod.put(epoch, LINGER).await?;
    must(seen.status.epoch == epoch && !seen.status.accepting, || {
        format!("epoch {epoch} upon a closed latch was answered with {}", seen.status.told())
    })
}

async fn is_not_shortened(run: &Run) -> Outcome {
    run.serving().await?;
    let asked = Instant::now();
    run.pod.put(run.pod.next_epoch(), LINGER).await?;
    run.pod.put(run.pod.next_epoch(), 0).await?;
    let lingered = closes(run).await? - asked;
    must(lingered >= Duration::from_secs(LINGER) - EARLY, || {
        format!(
            "a linger of {LINGER} s ended after {} s, at a higher epoch without one",
            lingered.as_secs_f64()
        )
    })
}

fn is_conflict(reply: &Reply, what: &str) -> Outcome {
    must(reply.code == 409 && reply.field() == Some("epoch"), || {
        format!("{what} was answered with {}, not 409 with field epoch", reply.told())
    })
}

async fn stale(run: &Run) -> Outcome {
    run.serving().await?;
    let resumed = run.pod.next_epoch();
    run.pod.delete(resumed).await?;
    is_conflict(&run.pod.put_any(resumed, 0).await?, "a PUT at the resume's epoch")?;
    let (epoch, _) = run.close().await?;
    for lower in [epoch - 1, 1] {
        is_conflict(&run.pod.put_any(lower, 0).await?, "a PUT below the drain's epoch")?;
    }
    let after = run.pod.get().await?.status;
    must(after.epoch == epoch && !after.accepting, || format!("and now it is {}", after.told()))
}

async fn is_validated(run: &Run) -> Outcome {
    run.serving().await?;
    let before = run.pod.get().await?.status;
    let epoch = run.pod.next_epoch();
    let with = |epoch: &str| format!("{{\"epoch\": {epoch}}}");
    let lingering = |linger: &str| format!("{{\"epoch\": {epoch}, \"lingerSeconds\": {linger}}}");
    let mut cases = vec![
        (String::new(), 400, None),
        ("{".to_owned(), 400, None),
        ("{}".to_owned(), 422, Some("epoch")),
        (format!("{{\"epoch\": {epoch}, \"x\": \"{}\"}}", "x".repeat(5000)), 413, None),
    ];
    for wrong in ["0", "-1", "1.5", "null", "\"7\"", "true", "9007199254740992", "1e308"] {
        cases.push((with(wrong), 422, Some("epoch")));
    }
    for wrong in ["-1", "\"3\"", "1.5", "3601"] {
        cases.push((lingering(wrong), 422, Some("lingerSeconds")));
    }
    for (body, code, field) in cases {
        let reply = run.pod.put_body(body.clone(), Token::Good("drain", epoch)).await?;
        // One that verifies may look at the token's epoch first.
        let by_token = reply.code == 401 && run.pod.verifies();
        let shown: String = body.chars().take(60).collect();
        must(by_token || (reply.code == code && (field.is_none() || reply.field() == field)), || {
            format!("the body {shown:?} was answered with {}, not {code} with field {field:?}", reply.told())
        })?;
    }
    let after = run.pod.get().await?.status;
    must(after.accepting && after.epoch == before.epoch, || format!("and now it is {}", after.told()))
}

async fn unknown_fields(run: &Run) -> Outcome {
    run.serving().await?;
    let epoch = run.pod.next_epoch();
    let body = json!({"epoch": epoch, "reason": {"of": "a later version"}}).to_string();
    let reply = run.pod.put_body(body.clone(), Token::Good("drain", epoch)).await?;
    must(reply.code == 202, || format!("{body} was answered with {}", reply.told()))
}
