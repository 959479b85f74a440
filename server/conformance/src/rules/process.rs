//! What takes a process of its own for each rule.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use super::{Need, Rule};
use crate::life::End;
use crate::outcome::{Outcome, broken, must};
use crate::pod::{ANSWERS_WITHIN, PROMPT};
use crate::run::Run;
use crate::status::Status;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "idle-exits-soon",
        says: "SIGTERM that finds the pod idle: no linger, and an exit with 0 within about two seconds.",
        needs: &[Need::Command],
        hold: |run| Box::pin(idle_exits(run)),
    },
    Rule {
        name: "second-sigterm-in-a-pod",
        says: "In a pod (GRACEFUL_POD_UID is set) a second SIGTERM changes nothing.",
        needs: &[Need::Command, Need::Slow],
        hold: |run| Box::pin(second_sigterm(run)),
    },
    Rule {
        name: "sigint-aborts",
        says: "SIGINT in a drain aborts at once, with a code other than 0.",
        needs: &[Need::Command, Need::Slow],
        hold: |run| Box::pin(aborts(run)),
    },
    Rule {
        name: "boot-id-is-new",
        says: "Each start of the process has a new boot id, and begins at epoch 0.",
        needs: &[Need::Command],
        hold: |run| Box::pin(boot_id(run)),
    },
];

/// "About two seconds", and what a busy machine adds.
const SOON: Duration = Duration::from_millis(3500);

async fn idle_exits(run: &mut Run) -> Outcome {
    run.fresh().await?;
    run.closed().await?;
    run.pod.until("idle", ANSWERS_WITHIN, Status::idle).await?;
    let asked = Instant::now();
    run.life.signal(Signal::SIGTERM)?;
    match run.life.end(ANSWERS_WITHIN).await {
        Some(End::Code(0)) => {
            must(asked.elapsed() < SOON, || format!("it took {} s to exit", asked.elapsed().as_secs_f64()))
        }
        Some(other) => broken(format!("it ended with {other:?}")),
        None => broken("it did not exit"),
    }
}

/// Terminating, with a request in flight.
async fn terminating(run: &mut Run) -> Outcome<crate::run::Work> {
    run.fresh().await?;
    run.serving().await?;
    let work = run.busy().await?;
    run.life.signal(Signal::SIGTERM)?;
    run.pod.until("Terminating after a SIGTERM", 5 * PROMPT, |status| status.state == "Terminating").await?;
    Ok(work)
}

async fn second_sigterm(run: &mut Run) -> Outcome {
    let work = terminating(run).await?;
    run.life.signal(Signal::SIGTERM)?;
    sleep(PROMPT / 2).await;
    must(run.life.ended().is_none(), || "it ended at a second SIGTERM, with a request in flight".to_owned())?;
    let answer = work.end().await?;
    must(answer.succeeded(), || format!("the request in flight was answered with {}", answer.code))?;
    let end = run.life.end(ANSWERS_WITHIN).await;
    must(end == Some(End::Code(0)), || format!("it ended with {end:?}"))
}

async fn aborts(run: &mut Run) -> Outcome {
    let work = terminating(run).await?;
    run.life.signal(Signal::SIGINT)?;
    let end = run.life.end(5 * PROMPT).await;
    drop(work);
    match end {
        Some(End::Code(0)) => broken("it exited with 0, as if nothing had been cut"),
        Some(_) => Ok(()),
        None => broken("it went on"),
    }
}

async fn boot_id(run: &mut Run) -> Outcome {
    let mut boots = Vec::new();
    for _ in 0..2 {
        run.fresh().await?;
        let status = run.pod.get().await?.status;
        must(status.epoch == 0, || format!("a new process begins at epoch {}", status.epoch))?;
        run.pod.put(run.pod.next_epoch(), 0).await?;
        boots.push(status.boot_id);
    }
    must(boots[0] != boots[1], || {
        format!("two processes, one after the other, have the boot id {}", boots[0])
    })
}
