//! Events on transitions: what a person who looks later wants to know happened. Never one a poll.

use std::collections::{BTreeMap, BTreeSet};

use graceful_api::conditions::{ConditionType, Reason};
use graceful_api::{GracefulApp, Phase};
use graceful_plan::{ConditionReport, Observed, Pod, PodUid, Report};
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

/// What was told so far. Lost with the process: what stands still then is told again, what goes on is told when it ends.
#[derive(Debug, Default)]
pub(crate) struct Told {
    last: Option<Report>,
    /// A rollout was seen to begin, and not to end.
    rolling: bool,
    /// Restarts of each pod's app.
    restarts: BTreeMap<PodUid, u32>,
}

/// What happened since the last report.
pub(crate) fn happenings(told: &mut Told, now: &Report, observed: &Observed) -> Vec<Happening> {
    let mut found = Vec::new();
    rollouts(told, now, observed, &mut found);
    restarts(told, observed, &mut found);
    let before = told.last.replace(now.clone());
    if let Some(before) = &before {
        drains(before, now, &mut found);
    }
    let held = |report: &Report| report.phase == Phase::Held;
    if held(now) && !before.as_ref().is_some_and(held) {
        found.push(Happening::warning("DrainHeld", now.waiting_for.clone()));
    }
    // A stall whose words move (a restart count in them) is the same stall; a warning is its words.
    let stalled = condition(now, ConditionType::Stalled);
    let was = before.as_ref().and_then(|report| condition(report, ConditionType::Stalled));
    if let Some(stall) = stalled.filter(|stall| was.is_none_or(|was| was.reason != stall.reason)) {
        found.push(Happening::warning(stall.reason.as_str(), stall.message.clone()));
    }
    let warned = condition(now, ConditionType::Warning);
    let was = before.as_ref().and_then(|report| condition(report, ConditionType::Warning));
    if let Some(warning) = warned.filter(|warning| was != Some(warning)) {
        found.push(Happening::warning(warning.reason.as_str(), warning.message.clone()));
    }
    found
}

fn condition(report: &Report, kind: ConditionType) -> Option<&ConditionReport> {
    report.conditions.iter().find(|c| c.kind == kind && c.holds)
}

fn rollouts(told: &mut Told, now: &Report, observed: &Observed, found: &mut Vec<Happening>) {
    let update = &observed.app.update;
    let known = |report: &Report| report.revisions.iter().any(|r| r.hash == *update);
    let made = known(now) && told.last.as_ref().is_some_and(|before| !known(before));
    let rolling = condition(now, ConditionType::Reconciling).is_some_and(|c| c.reason == Reason::RollingOut);
    if (made || rolling) && !told.rolling {
        told.rolling = true;
        found.push(Happening::normal("RolloutStarted", format!("rolling out revision {update}")));
    }
    // Until each pod has been asked, a Serving phase is the benefit of the doubt.
    let answers = |p: &&Pod| observed.contacts.get(&p.uid).is_some_and(|c| c.answer.is_some());
    let serving = observed.pods.iter().filter(|p| p.serving && !p.terminating && p.revision == *update);
    let wanted = usize::try_from(observed.app.replicas).unwrap_or(usize::MAX);
    if told.rolling && now.phase == Phase::Serving && serving.filter(answers).count() >= wanted {
        told.rolling = false;
        let note = format!("all {wanted} replicas serve, of revision {update}");
        found.push(Happening::normal("RolloutFinished", note));
    }
}

/// A container that was restarted in place took what it had in flight with it, unless that was durable.
fn restarts(told: &mut Told, observed: &Observed, found: &mut Vec<Happening>) {
    let now = observed.pods.iter().filter_map(|pod| Some((pod, observed.contacts.get(&pod.uid)?.restarted?)));
    let mut counts = BTreeMap::new();
    for (pod, restarted) in now {
        if told.restarts.get(&pod.uid).copied().unwrap_or_default() < restarted.times {
            let (name, had) = (&pod.name, restarted.last_known);
            let note = format!(
                "the app in pod {name} was restarted in place; at its last answer it had {had} in flight"
            );
            found.push(Happening::warning("Restarted", note));
        }
        counts.insert(pod.uid.clone(), restarted.times);
    }
    told.restarts = counts;
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
