//! The planner's report as the status that people read.

use graceful_api::conditions::{ConditionType, Reason};
use graceful_api::status::{MAX_CUT_ENDING_LISTED, MAX_DRAINING_LISTED};
use graceful_api::{
    DrainingPod, EndedByOthers, GracefulApp, GracefulAppStatus, InFlightCount, Phase, RevisionStatus, inject,
    names,
};
use graceful_plan::{
    ConditionReport, DrainingPodReport, EndedPodReport, InFlight, LONGEST_SENTENCE, Report, RevisionReport,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;

use super::cuts::Cuts;
use crate::observe::Observation;

/// How exactly a draining pod's last contact is told, in seconds. A held drain would otherwise write status with every poll, for days.
const CONTACT_STEP: i64 = 10;

/// The longest message of a condition: a status of some kilobytes, whatever a webhook says.
const LONGEST_MESSAGE: usize = 4000;

/// The whole status.
pub(crate) fn status(
    app: &GracefulApp,
    seen: &Observation,
    report: &Report,
    cuts: &Cuts,
    now: Timestamp,
) -> GracefulAppStatus {
    // Destructured whole, so that a new figure cannot be forgotten here.
    let Report {
        phase,
        waiting_for,
        conditions,
        serving,
        updated,
        draining,
        in_flight,
        current_revision,
        revisions,
        pods,
        ended_by_others,
    } = report;
    let (name, observed) = (app.name_any(), &seen.observed);
    let listed = pods.len().min(MAX_DRAINING_LISTED);
    GracefulAppStatus {
        observed_generation: app.metadata.generation,
        replicas: (*serving).min(app.spec.replicas),
        serving_replicas: *serving,
        updated_replicas: *updated,
        draining_replicas: *draining,
        in_flight: *in_flight,
        selector: Some(names::serving_selector(&name)),
        phase: Some(*phase),
        waiting_for: bounded(waiting_for, LONGEST_SENTENCE),
        current_revision: current_revision.as_ref().map(|r| r.0.clone()),
        update_revision: Some(observed.app.update.0.clone()).filter(|hash| !hash.is_empty()),
        revisions: revisions.iter().map(|r| revision(seen, r)).collect(),
        draining: pods.iter().take(listed).map(|p| draining_pod(seen, p)).collect(),
        draining_omitted: u32::try_from(pods.len() - listed).unwrap_or(u32::MAX),
        cut: cuts.total(),
        cut_ending: cuts.ending().take(MAX_CUT_ENDING_LISTED).map(|uid| uid.0.clone()).collect(),
        ended_by_others: ended(ended_by_others),
        conditions: conditions.iter().map(|c| condition(app, c, now)).collect(),
    }
}

/// Of an app that is not planned. What was reported of its pods stays: nothing is touched.
pub(crate) fn stalled(app: &GracefulApp, reason: Reason, message: &str, now: Timestamp) -> GracefulAppStatus {
    let mut status = app.status.clone().unwrap_or_default();
    status.observed_generation = app.metadata.generation;
    status.selector = Some(names::serving_selector(&app.name_any()));
    status.phase = Some(Phase::Stalled);
    status.waiting_for = bounded(message, LONGEST_SENTENCE);
    let report =
        |kind, holds, message: &str| ConditionReport { kind, holds, reason, message: message.to_owned() };
    for stuck in [
        report(ConditionType::Progressing, false, message),
        report(ConditionType::Reconciling, false, message),
        report(ConditionType::Stalled, true, message),
    ] {
        status.conditions.retain(|c| c.type_ != stuck.kind.as_str());
        status.conditions.push(condition(app, &stuck, now));
    }
    let place = |c: &Condition| ConditionType::ALL.iter().position(|kind| kind.as_str() == c.type_);
    status.conditions.sort_by_key(place);
    status
}

fn revision(seen: &Observation, report: &RevisionReport) -> RevisionStatus {
    let RevisionReport { hash, pods, serving, draining } = report;
    let found = seen.observed.revisions.iter().find(|r| r.hash == *hash);
    let gate = seen.deployments.get(hash).and_then(|d| inject::gate_image(&d.spec.template));
    RevisionStatus {
        hash: hash.0.clone(),
        name: found.map(|r| r.name.clone()).unwrap_or_default(),
        replicas: *pods,
        serving: *serving,
        draining: *draining,
        created: found.map(|r| Time(r.created)),
        gate: gate.map(str::to_owned),
    }
}

fn draining_pod(seen: &Observation, report: &DrainingPodReport) -> DrainingPod {
    let DrainingPodReport {
        pod,
        uid: _,
        reason,
        state,
        in_flight,
        since,
        deadline,
        held: _, // the sentence and an Event say it
        last_contact,
        error,
    } = report;
    let found = seen.observed.pods.iter().find(|p| p.name == *pod);
    DrainingPod {
        pod: pod.clone(),
        revision: found.map(|p| p.revision.0.clone()),
        node: found.and_then(|p| p.node.name.clone()),
        reason: *reason,
        state: *state,
        in_flight: in_flight.map(in_flight_count),
        since: Some(Time(whole_seconds(*since, 1))),
        deadline: Some(Time(whole_seconds(*deadline, 1))),
        last_contact: last_contact.map(|at| Time(whole_seconds(at, CONTACT_STEP))),
        error: error.clone(),
    }
}

fn in_flight_count(in_flight: InFlight) -> InFlightCount {
    let InFlight { total, queued, running, requests } = in_flight;
    // Formats other than Graceful know the total alone; their kinds are all zero.
    let kinds = queued + running + requests > 0 || total == 0;
    let kind = |n| kinds.then_some(n);
    InFlightCount { total, queued: kind(queued), running: kind(running), requests: kind(requests) }
}

fn condition(app: &GracefulApp, report: &ConditionReport, now: Timestamp) -> Condition {
    let ConditionReport { kind, holds, reason, message } = report;
    let status = if *holds { "True" } else { "False" };
    let before = app.status.iter().flat_map(|s| &s.conditions).find(|c| c.type_ == kind.as_str());
    // The transition time moves only when the status does.
    let since =
        before.filter(|c| c.status == status).map_or(whole_seconds(now, 1), |c| c.last_transition_time.0);
    Condition {
        type_: kind.as_str().to_owned(),
        status: status.to_owned(),
        observed_generation: app.metadata.generation,
        last_transition_time: Time(since),
        reason: reason.as_str().to_owned(),
        message: bounded(message, LONGEST_MESSAGE),
    }
}

fn ended(pods: &[EndedPodReport]) -> Option<EndedByOthers> {
    let in_flight = pods.iter().filter_map(|p| p.in_flight).map(|f| f.total);
    (!pods.is_empty()).then(|| EndedByOthers {
        pods: u32::try_from(pods.len()).unwrap_or(u32::MAX),
        in_flight: in_flight.fold(0, u64::saturating_add),
    })
}

/// At most so many characters, with an ellipsis where some are left out.
fn bounded(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Kubernetes stores whole seconds; compared with what is stored, anything finer would always differ.
fn whole_seconds(time: Timestamp, step: i64) -> Timestamp {
    let seconds = time.as_second();
    Timestamp::from_second(seconds - seconds.rem_euclid(step)).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::bounded;

    #[test]
    fn a_long_text_is_cut_between_two_characters_and_marked() {
        assert_eq!(bounded("short", 5), "short");
        assert_eq!(bounded(&"€".repeat(600), 500), format!("{}…", "€".repeat(500)));
    }
}
