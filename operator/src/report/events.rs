//! Events on transitions: what a person who looks later wants to know happened. Never one a poll.

use std::collections::{BTreeMap, BTreeSet};

use graceful_api::conditions::{ConditionType, Reason};
use graceful_api::{GracefulAppStatus, Phase, RevisionHash};
use graceful_plan::{
    ConditionReport, Containers, DrainingPodReport, InFlight, Observed, Pod, PodUid, Report, way_out,
};

use super::left::Left;
use super::others::Others;
use super::recorder::Sent;
use crate::observe::Observation;

/// What happened, as an Event says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Happening {
    pub(super) warning: bool,
    pub(super) reason: &'static str,
    pub(super) note: String,
    /// The pod that it is about: name and uid. Each pod's Events are then its own.
    pub(super) pod: Option<(String, PodUid)>,
}

impl Happening {
    pub(super) fn normal(reason: &'static str, note: impl Into<String>) -> Self {
        Self { warning: false, reason, note: note.into(), pod: None }
    }

    pub(super) fn warning(reason: &'static str, note: impl Into<String>) -> Self {
        Self { warning: true, reason, note: note.into(), pod: None }
    }

    pub(super) fn of(self, name: &str, uid: &PodUid) -> Self {
        Self { pod: Some((name.to_owned(), uid.clone())), ..self }
    }

    pub(super) fn is(&self, reason: &str) -> bool {
        self.reason == reason
    }
}

/// What was told so far. Lost with the process: what stands still then is told again, what goes on is told when it ends.
#[derive(Debug, Default)]
pub(super) struct Announced {
    last: Option<Report>,
    /// A rollout was seen to begin, and not to end.
    rolling: bool,
    /// Restarts of each pod's app.
    restarts: BTreeMap<PodUid, u32>,
    pub(super) others: Others,
    pub(super) left: Left,
    /// Pods past their deadline that were told as held, and still are.
    held: BTreeSet<PodUid>,
    /// What was told of this stall, without its numbers.
    stalls: BTreeSet<String>,
    /// Said by others than the report.
    noted: Vec<Happening>,
    sent: Sent,
}

/// So many different words of one stall are told: those of an app whose pods fail one after the other name each of them.
const WORDS_OF_A_STALL: usize = 10;

impl Announced {
    /// A stall whose numbers move (a restart count) is the same stall. Other words, a second cause among them, are told once in it.
    fn is_new(&mut self, stall: &ConditionReport) -> bool {
        let words = stall.message.chars().filter(|c| !c.is_ascii_digit());
        let words = format!("{}: {}", stall.reason.as_str(), words.collect::<String>());
        self.stalls.len() < WORDS_OF_A_STALL && self.stalls.insert(words)
    }

    /// A rollout that a former leader has told of is not begun again by this one.
    pub(super) fn goes_on_from(&mut self, status: Option<&GracefulAppStatus>, update: &RevisionHash) {
        let told = status.is_some_and(|s| {
            s.update_revision.as_deref() == Some(update.as_str())
                && s.current_revision != s.update_revision
                && s.phase != Some(Phase::Serving)
        });
        self.rolling |= self.last.is_none() && told;
    }

    /// To be sent with the next report.
    pub(super) fn note(&mut self, happening: Happening) {
        self.noted.push(happening);
    }

    pub(super) fn sent(&mut self) -> &mut Sent {
        &mut self.sent
    }
}

/// What happened since the last report.
pub(super) fn happenings(told: &mut Announced, now: &Report, seen: &Observation) -> Vec<Happening> {
    let observed = &seen.observed;
    let mut found = std::mem::take(&mut told.noted);
    rollouts(told, now, observed, &mut found);
    restarts(told, observed, &mut found);
    told.others.tell(now, seen, &mut found);
    let before = told.last.replace(now.clone());
    if let Some(before) = &before {
        drains(before, now, seen, &mut found);
    }
    held(told, now, observed, &mut found);
    // Held because the cluster is slow: that is said of the app, for it is no pod's fault.
    let slow = |report: &Report| report.phase == Phase::Held && !report.pods.iter().any(|p| p.held);
    if slow(now) && !before.as_ref().is_some_and(slow) {
        found.push(Happening::warning(Reason::ControlPlaneSlow.as_str(), now.waiting_for.clone()));
    }
    match condition(now, ConditionType::Stalled) {
        Some(stall) if told.is_new(stall) => {
            found.push(Happening::warning(stall.reason.as_str(), stall.message.clone()));
        }
        Some(_) => {}
        None => told.stalls.clear(),
    }
    // A warning is its words.
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

fn rollouts(told: &mut Announced, now: &Report, observed: &Observed, found: &mut Vec<Happening>) {
    let update = &observed.app.update;
    let known = |report: &Report| report.revisions.iter().any(|r| r.hash == *update);
    let made = known(now) && told.last.as_ref().is_some_and(|before| !known(before));
    let rolling = condition(now, ConditionType::Reconciling).is_some_and(|c| c.reason == Reason::RollingOut);
    if (made || rolling) && !told.rolling {
        told.rolling = true;
        // An app's first revision is told when it serves: that it was asked for, its GracefulApp says.
        if now.revisions.iter().any(|r| r.hash != *update) {
            found.push(Happening::normal("RolloutStarted", format!("rolling out revision {update}")));
        }
    }
    // Until each pod has been asked, a Serving phase is the benefit of the doubt.
    let answers = |p: &&Pod| observed.contacts.get(&p.uid).is_some_and(|c| c.answer.is_some());
    let serving = observed.pods.iter().filter(|p| p.routed && !p.terminating && p.revision == *update);
    let wanted = usize::try_from(observed.app.replicas).unwrap_or(usize::MAX);
    if told.rolling && now.phase == Phase::Serving && serving.filter(answers).count() >= wanted {
        told.rolling = false;
        let note = format!("all {wanted} replicas serve, of revision {update}");
        found.push(Happening::normal("RolloutFinished", note));
    }
}

/// A container that was restarted in place took what it had in flight with it, unless that was durable.
fn restarts(told: &mut Announced, observed: &Observed, found: &mut Vec<Happening>) {
    let now = observed.pods.iter().filter_map(|pod| Some((pod, observed.contacts.get(&pod.uid)?.restarted?)));
    let mut counts = BTreeMap::new();
    for (pod, restarted) in now {
        if told.restarts.get(&pod.uid).copied().unwrap_or_default() < restarted.times {
            let (name, had) = (&pod.name, restarted.last_known);
            let note = format!(
                "the app in pod {name} was restarted in place; at its last answer it had {had} in flight"
            );
            found.push(Happening::warning("Restarted", note).of(name, &pod.uid));
        }
        counts.insert(pod.uid.clone(), restarted.times);
    }
    told.restarts = counts;
}

fn drains(before: &Report, now: &Report, seen: &Observation, found: &mut Vec<Happening>) {
    let among = |pods: &[DrainingPodReport], uid: &PodUid| pods.iter().any(|p| p.uid == *uid);
    for pod in now.pods.iter().filter(|p| !among(&before.pods, &p.uid)) {
        let DrainingPodReport { pod: name, uid, reason, in_flight, .. } = pod;
        let note = format!("pod {name} drains: {reason}{}", had(", with ", *in_flight));
        found.push(Happening::normal("DrainStarted", note).of(name, uid));
    }
    for pod in before.pods.iter().filter(|p| !among(&now.pods, &p.uid)) {
        let DrainingPodReport { pod: name, uid, in_flight, .. } = pod;
        let serves = seen.observed.pods.iter().any(|p| p.uid == *uid && p.routed && !p.terminating);
        let stranger = seen.strangers.iter().any(|p| p.uid == *uid && p.is_active());
        let (reason, note) = if serves {
            ("DrainCancelled", format!("pod {name} is back in service"))
        } else if stranger {
            ("DrainCancelled", format!("pod {name} runs on: its Deployment is not this app's any more"))
        } else {
            ("DrainEnded", format!("pod {name} ends{}", had(", at its last answer with ", *in_flight)))
        };
        found.push(Happening::normal(reason, note).of(name, uid));
    }
}

/// Each pod that passes its deadline and is held. One that can answer is first asked: a restarted operator finds pods past their deadlines that may
/// be idle by now.
fn held(told: &mut Announced, now: &Report, observed: &Observed, found: &mut Vec<Happening>) {
    let unasked = |pod: &DrainingPodReport| {
        let asked = observed.contacts.get(&pod.uid).is_some_and(|c| c.tried_at.is_some());
        let answers = |p: &Pod| matches!(p.containers, Containers::Running | Containers::HalfCrashed);
        !asked && observed.pods.iter().any(|p| p.uid == pod.uid && answers(p))
    };
    let held: Vec<_> = now.pods.iter().filter(|p| p.held && !unasked(p)).collect();
    told.held.retain(|uid| held.iter().any(|p| p.uid == *uid));
    for pod in held {
        if told.held.insert(pod.uid.clone()) {
            let DrainingPodReport { pod: name, uid, in_flight, since, deadline, .. } = pod;
            let its = observed.pods.iter().find(|p| p.uid == *uid);
            let help = its.and_then(|pod| way_out(&observed.app.namespace, pod));
            let note = format!(
                "pod {name} is past its deadline of {} s and held{}{}",
                deadline.duration_since(*since).as_secs(),
                had(", with ", *in_flight),
                help.map_or(String::new(), |help| format!(": {help}"))
            );
            found.push(Happening::warning("DrainHeld", note).of(name, uid));
        }
    }
}

/// As in ", with 3 in flight"; nothing where it is not known.
pub(super) fn had(joint: &str, in_flight: Option<InFlight>) -> String {
    in_flight.map_or_else(String::new, |f| format!("{joint}{} in flight", f.total))
}

#[cfg(test)]
mod tests;
