//! `GET /drain`.

use std::time::Duration;

use super::Rule;
use crate::outcome::{Outcome, must};
use crate::pod::{ANSWERS_WITHIN, PROMPT};
use crate::run::Run;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "get-answers",
        says: "GET is answered with 200, application/json, an ETag and Cache-Control: no-store.",
        needs: &[],
        hold: |run| Box::pin(answers(run)),
    },
    Rule {
        name: "known-tag-is-304",
        says: "A GET whose If-None-Match has the tag, strong or weak, alone or in a list, is a 304 at once; with another tag it is a 200.",
        needs: &[],
        hold: |run| Box::pin(known_tag(run)),
    },
];

async fn answers(run: &Run) -> Outcome {
    let reply = run.pod.get_with(&[], ANSWERS_WITHIN).await?;
    must(reply.code == 200, || format!("it was answered with {}", reply.told()))?;
    let kind = reply.header("content-type").unwrap_or("none");
    must(kind.starts_with("application/json"), || format!("its Content-Type is {kind}"))?;
    must(reply.header("etag").is_some(), || "it has no ETag".to_owned())?;
    let stored = reply.header("cache-control").unwrap_or("none");
    must(stored.contains("no-store"), || format!("its Cache-Control is {stored}"))
}

async fn known_tag(run: &Run) -> Outcome {
    run.serving().await?;
    let tag = run.pod.get().await?.etag;
    let strong = tag.trim_start_matches("W/").to_owned();
    for known in [tag.clone(), format!("\"another\", {strong}")] {
        let reply = run.pod.get_with(&[("if-none-match", &known)], ANSWERS_WITHIN).await?;
        must(reply.code == 304, || format!("If-None-Match: {known} was answered with {}", reply.told()))?;
        let took = reply.received - reply.sent;
        must(took < PROMPT, || format!("the 304 took {} s", took.as_secs_f64()))?;
    }
    let other = [("if-none-match", "\"another\""), ("prefer", "wait=5")];
    let reply = run.pod.get_with(&other, ANSWERS_WITHIN).await?;
    must(reply.code == 200, || format!("a tag that it never gave was answered with {}", reply.told()))?;
    let took = reply.received - reply.sent;
    must(took < PROMPT + Duration::from_secs(1), || {
        format!("a tag that it never gave was waited with, {} s", took.as_secs_f64())
    })
}
