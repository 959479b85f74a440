//! Events on transitions: what a person who looks later wants to know happened. Never one a poll.

use std::collections::BTreeSet;

use graceful_api::conditions::ConditionType;
use graceful_api::{GracefulApp, Phase};
use graceful_plan::{Observed, Report};
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder};
use tracing::debug;

use crate::error::{call, chain};

/// What happened, as an Event says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Happening {
    warning: bool,
    reason: &'static str,
    note: String,
}

impl Happening {
    pub(crate) fn normal(reason: &'static str, note: impl Into<String>) -> Self {
        Self { warning: false, reason, note: note.into() }
    }

    pub(crate) fn warning(reason: &'static str, note: impl Into<String>) -> Self {
        Self { warning: true, reason, note: note.into() }
    }
}

/// The API server refuses notes of more than 1024 bytes.
const LONGEST_NOTE: usize = 1000;

/// What changed between two reports. Without an earlier one (the operator has just started) nothing has happened as far as we know, but for what
/// stands still: that is worth saying again.
pub(crate) fn happenings(before: Option<&Report>, now: &Report, observed: &Observed) -> Vec<Happening> {
    let mut found = Vec::new();
    if let Some(before) = before {
        rollouts(before, now, observed, &mut found);
        drains(before, now, &mut found);
    }
    let stalled = |report: &Report| {
        report
            .conditions
            .iter()
            .find(|c| c.kind == ConditionType::Stalled && c.holds)
            .map(|c| (c.reason, c.message.clone()))
    };
    let was = before.and_then(stalled);
    if let Some((reason, message)) = stalled(now)
        && was.as_ref().map(|w| w.0) != Some(reason)
    {
        found.push(Happening::warning(reason.as_str(), message));
    }
    let warned = |report: &Report| {
        report
            .conditions
            .iter()
            .find(|c| c.kind == ConditionType::Warning && c.holds)
            .map(|c| (c.reason, c.message.clone()))
    };
    if let Some((reason, message)) = warned(now)
        && before.and_then(warned).map(|w| w.1).as_ref() != Some(&message)
    {
        found.push(Happening::warning(reason.as_str(), message));
    }
    found
}

fn rollouts(before: &Report, now: &Report, observed: &Observed, found: &mut Vec<Happening>) {
    let update = &observed.app.update;
    let known = |report: &Report| report.revisions.iter().any(|r| r.hash == *update);
    if known(now) && !known(before) {
        found.push(Happening::normal("RolloutStarted", format!("rolling out revision {update}")));
    } else if now.phase == Phase::Rolling && before.phase == Phase::Serving {
        found.push(Happening::normal("RolloutStarted", format!("rolling to revision {update}")));
    }
    let rolled = |phase| {
        matches!(phase, Phase::Rolling | Phase::Held | Phase::Paused | Phase::Stalled | Phase::Draining)
    };
    if now.phase == Phase::Serving && rolled(before.phase) {
        let note = format!("all {} replicas serve, of revision {update}", observed.app.replicas);
        found.push(Happening::normal("RolloutFinished", note));
    }
    if now.phase == Phase::Held && before.phase != Phase::Held {
        found.push(Happening::warning("DrainHeld", now.waiting_for.clone()));
    }
}

fn drains(before: &Report, now: &Report, found: &mut Vec<Happening>) {
    let names = |report: &Report| report.pods.iter().map(|p| p.pod.clone()).collect::<BTreeSet<_>>();
    let (was, is) = (names(before), names(now));
    for pod in now.pods.iter().filter(|p| !was.contains(&p.pod)) {
        found.push(Happening::normal("DrainStarted", format!("pod {} drains: {}", pod.pod, pod.reason)));
    }
    for pod in before.pods.iter().filter(|p| !is.contains(&p.pod)) {
        found.push(Happening::normal("DrainEnded", format!("pod {} drains no more", pod.pod)));
    }
}

/// Sends them. An Event that cannot be sent is not worth a failure.
pub(crate) async fn publish(recorder: &Recorder, app: &GracefulApp, happenings: Vec<Happening>) {
    for Happening { warning, reason, mut note } in happenings {
        if note.len() > LONGEST_NOTE {
            let end = (0..=LONGEST_NOTE).rev().find(|i| note.is_char_boundary(*i)).unwrap_or_default();
            note.truncate(end);
        }
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            note: Some(note),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = call("publish an Event", recorder.publish(&event, &app.object_ref(&()))).await {
            debug!("{}", chain(&error));
        }
    }
}
