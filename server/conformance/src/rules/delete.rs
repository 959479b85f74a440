//! `DELETE /drain`: the way back.

use std::time::Duration;

use tokio::time::sleep;

use super::Rule;
use crate::outcome::{Outcome, must};
use crate::pod::Token;
use crate::run::Run;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "delete-resumes",
        says: "DELETE with a higher epoch is answered with 200: Serving, accepting, in that epoch; work is let in again.",
        needs: &[],
        hold: |run| Box::pin(resumes(run)),
    },
    Rule {
        name: "delete-again-is-200",
        says: "The same resume again is answered with 200.",
        needs: &[],
        hold: |run| Box::pin(again(run)),
    },
    Rule {
        name: "delete-while-serving-is-200",
        says: "A pod that does not drain takes a resume too.",
        needs: &[],
        hold: |run| Box::pin(while_serving(run)),
    },
    Rule {
        name: "stale-delete-is-409",
        says: "A resume at or below the drain's epoch is a 409 with field epoch, and the latch stays closed.",
        needs: &[],
        hold: |run| Box::pin(stale(run)),
    },
    Rule {
        name: "late-put-stays-out",
        says: "After a resume, the PUT of the old drain that was delayed on its way is a 409 and closes nothing.",
        needs: &[],
        hold: |run| Box::pin(late_put(run)),
    },
    Rule {
        name: "resume-ends-the-linger",
        says: "The linger of a drain that was resumed closes no latch later, nor does it cut the next drain's short.",
        needs: &[],
        hold: |run| Box::pin(ends_the_linger(run)),
    },
    Rule {
        name: "delete-is-validated",
        says: "A DELETE whose epoch is missing or out of range is a 422 with field epoch, and changes nothing.",
        needs: &[],
        hold: |run| Box::pin(is_validated(run)),
    },
];

async fn resumes(run: &Run) -> Outcome {
    run.closed().await?;
    let epoch = run.pod.next_epoch();
    let status = run.pod.delete(epoch).await?.status;
    must(status.state == "Serving" && status.accepting && status.epoch == epoch, || {
        format!("a resume in epoch {epoch} was answered with {}", status.told())
    })?;
    for call in run.work() {
        let code = run.call(call).await.map_or_else(|error| error, |answer| answer.code.to_string());
        must(code.starts_with('2'), || format!("{} {} after a resume: {code}", call.method, call.at.path))?;
    }
    Ok(())
}

async fn again(run: &Run) -> Outcome {
    run.closed().await?;
    let epoch = run.pod.next_epoch();
    run.pod.delete(epoch).await?;
    run.pod.delete(epoch).await.map(drop)
}

async fn while_serving(run: &Run) -> Outcome {
    run.serving().await?;
    let epoch = run.pod.next_epoch();
    let status = run.pod.delete(epoch).await?.status;
    must(status.accepting && status.epoch == epoch, || format!("it was answered with {}", status.told()))
}

async fn stale(run: &Run) -> Outcome {
    let (epoch, _) = run.closed().await?;
    for stale in [epoch, epoch - 1] {
        let reply = run.pod.delete_any(stale.max(1)).await?;
        must(reply.code == 409 && reply.field() == Some("epoch"), || {
            format!(
                "a resume in epoch {stale} of a drain in epoch {epoch} was answered with {}",
                reply.told()
            )
        })?;
    }
    let after = run.pod.get().await?.status;
    must(!after.accepting, || format!("and now it is {}", after.told()))
}

async fn late_put(run: &Run) -> Outcome {
    let (drained, _) = run.closed().await?;
    let resumed = run.pod.next_epoch();
    run.pod.delete(resumed).await?;
    let late = run.pod.put_any(drained, 0).await?;
    must(late.code == 409, || format!("the old drain's PUT was answered with {}", late.told()))?;
    let after = run.pod.get().await?.status;
    must(after.accepting && after.epoch == resumed, || format!("and now it is {}", after.told()))
}

async fn ends_the_linger(run: &Run) -> Outcome {
    run.serving().await?;
    run.pod.put(run.pod.next_epoch(), 1).await?;
    run.pod.delete(run.pod.next_epoch()).await?;
    let epoch = run.pod.next_epoch();
    run.pod.put(epoch, 3).await?;
    // Past the end of the first linger, and far from the end of the second.
    sleep(Duration::from_millis(1700)).await;
    let status = run.pod.get().await?.status;
    must(status.accepting && status.epoch == epoch, || {
        format!("1.7 s into a linger of 3 s, after one of 1 s that was resumed, it is {}", status.told())
    })?;
    run.pod.delete(run.pod.next_epoch()).await?;
    sleep(Duration::from_millis(1800)).await;
    let status = run.pod.get().await?.status;
    must(status.accepting, || format!("after a resume in a linger it closed all the same: {}", status.told()))
}

async fn is_validated(run: &Run) -> Outcome {
    let (epoch, _) = run.closed().await?;
    let next = run.pod.next_epoch();
    for query in ["", "?epoch=", "?epoch=x", "?epoch=0", "?epoch=-1", "?epoch=9007199254740992", "?other=1"] {
        let reply = run.pod.delete_query(query, Token::Good("resume", next)).await?;
        let by_token = reply.code == 401 && run.pod.verifies();
        must(by_token || (reply.code == 422 && reply.field() == Some("epoch")), || {
            format!("DELETE /drain{query} was answered with {}, not 422 with field epoch", reply.told())
        })?;
    }
    let after = run.pod.get().await?.status;
    must(!after.accepting && after.epoch == epoch, || format!("and now it is {}", after.told()))
}
