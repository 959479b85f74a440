//! What holds of all answers together, whichever rule asked for them. A tour through a drain's life sees to it that there are some.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::sleep;

use super::Rule;
use crate::journal::Entry;
use crate::outcome::{Outcome, broken, must};
use crate::pod::ANSWERS_WITHIN;
use crate::run::Run;
use crate::schema::{check, drain_status};
use crate::status::Status;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "status-has-its-fields",
        says: "Every answer of GET, PUT and DELETE has the fields of drain-status.schema.json.",
        needs: &[],
        hold: |run| Box::pin(fields(run)),
    },
    Rule {
        name: "total-is-the-sum",
        says: "inFlight.total is queued, running and requests together.",
        needs: &[],
        hold: |run| Box::pin(sums(run)),
    },
    Rule {
        name: "states-agree",
        says: "Serving and Lingering accept; Draining and Idle do not, with something in flight and with nothing.",
        needs: &[],
        hold: |run| Box::pin(states(run)),
    },
    Rule {
        name: "boot-id-is-one",
        says: "A process has one boot id. Boot ids that alternate are several processes that answer each for itself.",
        needs: &[],
        hold: |run| Box::pin(boot_id(run)),
    },
    Rule {
        name: "epoch-is-what-was-told",
        says: "epoch is the highest that PUT or DELETE was answered 202 or 200 for, and 0 before that; no clock and no counter.",
        needs: &[],
        hold: |run| Box::pin(epochs(run)),
    },
    Rule {
        name: "tag-covers-what-decides",
        says: "Another boot id, state, accepting, epoch or count in flight is another ETag.",
        needs: &[],
        hold: |run| Box::pin(tag_covers(run)),
    },
    Rule {
        name: "tag-ignores-the-rest",
        says: "While none of these changes the ETag stays, whatever oldestSeconds and connections do.",
        needs: &[],
        hold: |run| Box::pin(tag_ignores(run)),
    },
    Rule {
        name: "refusals-are-problems",
        says: "Refusals are application/problem+json (RFC 9457) with title, status and detail.",
        needs: &[],
        hold: |run| Box::pin(problems(run)),
    },
];

/// Of two processes that take connections in turn or by chance, one alone answers all of so many once in a million runs.
const QUESTIONS: u32 = 20;

/// Once a run: through all states, with a request in flight where there can be one.
async fn tour(run: &mut Run) -> Outcome<Vec<Entry>> {
    if !run.toured {
        run.serving().await?;
        let work = if run.requests.slow.is_some() { Some(run.busy().await?) } else { None };
        run.pod.get().await?;
        // Long enough for an age in whole seconds to move.
        sleep(Duration::from_millis(1200)).await;
        run.pod.get().await?;
        let epoch = run.pod.next_epoch();
        run.pod.put(epoch, 1).await?;
        run.pod.put(epoch, 1).await?;
        run.pod.until("closed", ANSWERS_WITHIN, |status| !status.accepting).await?;
        if let Some(work) = work {
            let _ = work.end().await;
        }
        run.pod.until("idle", ANSWERS_WITHIN, Status::idle).await?;
        run.pod.put_any(epoch.saturating_sub(1).max(1), 0).await?;
        run.pod.delete_query("", crate::pod::Token::Good("resume", epoch)).await?;
        run.pod.put(run.pod.next_epoch(), 0).await?;
        run.pod.delete(run.pod.next_epoch()).await?;
        run.pod.get().await?;
        run.toured = true;
    }
    Ok(run.pod.journal().all())
}

/// Of every answer with a status, the first thing that is wrong with it.
async fn each(run: &mut Run, wrong: impl Fn(&Entry, &Status) -> Option<String>) -> Outcome {
    for entry in tour(run).await? {
        let Some(status) = &entry.status else { continue };
        if let Some(wrong) = wrong(&entry, status) {
            return broken(format!("{} was answered with {}: {wrong}", entry.verb, status.told()));
        }
    }
    Ok(())
}

async fn fields(run: &mut Run) -> Outcome {
    let schema = drain_status();
    for entry in tour(run).await?.iter().filter(|entry| entry.tells()) {
        let checked = check(&schema, &entry.json, "");
        checked.or_else(|wrong| broken(format!("of an answer to {}, {wrong}", entry.verb)))?;
    }
    Ok(())
}

async fn sums(run: &mut Run) -> Outcome {
    let wrong = |_: &Entry, status: &Status| {
        let counts = status.in_flight;
        let sum = counts.queued + counts.running + counts.requests;
        (counts.total != sum).then(|| format!("queued, running and requests are {sum}"))
    };
    each(run, wrong).await
}

async fn states(run: &mut Run) -> Outcome {
    let wrong = |_: &Entry, status: &Status| {
        let (accepting, total) = (status.accepting, status.in_flight.total);
        let agrees = match status.state.as_str() {
            "Serving" | "Lingering" => accepting,
            "Draining" => !accepting && total > 0,
            "Idle" => !accepting && total == 0,
            _ => true,
        };
        (!agrees).then(|| "state, accepting and the count contradict each other".to_owned())
    };
    each(run, wrong).await
}

async fn boot_id(run: &mut Run) -> Outcome {
    // Each over a connection of its own, which another process may take.
    for _ in 0..QUESTIONS {
        run.pod.get().await?;
    }
    let all = run.pod.journal().all();
    let mut boots: Vec<_> =
        all.iter().filter_map(|entry| Some(entry.status.as_ref()?.boot_id.clone())).collect();
    boots.sort_unstable();
    boots.dedup();
    must(boots.len() == 1, || format!("one process has answered with the boot ids {}", boots.join(", ")))
}

async fn epochs(run: &mut Run) -> Outcome {
    let all = tour(run).await?;
    let first = all.iter().find_map(|entry| entry.status.as_ref()).map_or(0, |status| status.epoch);
    must(!run.life.is_ours() || first == 0, || {
        format!("a new process said epoch {first}, before it was told any")
    })?;
    let told: HashSet<u64> =
        all.iter().filter(|entry| entry.tells()).filter_map(|entry| entry.asked).collect();
    for entry in &all {
        let Some(status) = &entry.status else { continue };
        let holds = match entry.asked {
            Some(asked) => status.epoch == asked,
            None => status.epoch == first || told.contains(&status.epoch),
        };
        must(holds, || match entry.asked {
            Some(asked) => format!("to a {} in epoch {asked} it says epoch {}", entry.verb, status.epoch),
            None => format!("it says epoch {}, which it was never told", status.epoch),
        })?;
    }
    Ok(())
}

async fn tag_covers(run: &mut Run) -> Outcome {
    let mut known = HashMap::new();
    for entry in tour(run).await? {
        let (Some(status), Some(tag)) = (&entry.status, &entry.etag) else { continue };
        let before = known.entry(tag.clone()).or_insert_with(|| status.clone());
        must(before.decides() == status.decides(), || {
            format!("{tag} was given to {} and to {}", before.told(), status.told())
        })?;
    }
    must(!known.is_empty(), || "no answer has an ETag".to_owned())
}

async fn tag_ignores(run: &mut Run) -> Outcome {
    let mut known = HashMap::new();
    for entry in tour(run).await? {
        let (Some(status), Some(tag)) = (&entry.status, &entry.etag) else { continue };
        let before = known.entry(status.decides()).or_insert_with(|| tag.clone());
        must(before == tag, || format!("{} had {before}, and then {tag}", status.told()))?;
    }
    Ok(())
}

async fn problems(run: &mut Run) -> Outcome {
    for entry in tour(run).await?.iter().filter(|entry| (400..500).contains(&entry.code)) {
        let shown = format!("a {} of {}", entry.code, entry.verb);
        let kind = &entry.content_type;
        must(kind.starts_with("application/problem+json"), || format!("{shown} has Content-Type {kind:?}"))?;
        let whole = entry.json["title"].is_string() && entry.json["detail"].is_string();
        must(whole && entry.json["status"] == entry.code, || {
            format!("{shown} lacks title, status or detail: {}", entry.json)
        })?;
    }
    Ok(())
}
