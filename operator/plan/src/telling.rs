//! What is told to people: the STATUS column, the conditions and the counts. The sentence is in `waiting`.

use graceful_api::conditions::{ConditionType, Reason};
use graceful_api::{Phase, PodState, Signal};
use jiff::Timestamp;

use crate::action::Proof;
use crate::astray;
use crate::census::{Census, after, count};
use crate::draft::Draft;
use crate::drains::{Progress, deadline, progress};
use crate::futile;
use crate::observed::{Deletion, Hindered, Hindrance, Pod, Readiness, Warning};
use crate::others;
use crate::report::{ConditionReport, DrainingPodReport, EndedPodReport, Report, RevisionReport};
use crate::rollout::{Course, fenced, superseded_pods};
use crate::waiting;

/// Why the app cannot go on without help.
pub(crate) struct Stall {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

pub(crate) fn report(census: &Census<'_>, draft: &mut Draft, course: &Course<'_>) -> Report {
    let stall = stall(census, draft);
    let phase = phase(census, stall.as_ref());
    let mut waiting_for = waiting::sentence(census, draft, course, stall.as_ref());
    if waiting_for.is_empty() && phase != Phase::Serving {
        "the last changes to take effect".clone_into(&mut waiting_for);
    }
    let warning = warning(census, draft, stall.as_ref());
    let drained: Vec<_> = draining_pods(census);
    Report {
        conditions: conditions(census, phase, stall.as_ref(), &waiting_for, warning),
        phase,
        waiting_for,
        serving: census.serving(),
        updated: count(census.live.iter().filter(|p| census.serves(p) && !census.superseded(p))),
        draining: count(census.draining()),
        in_flight: drained.iter().filter_map(|p| p.in_flight).map(|f| f.total).fold(0, u64::saturating_add),
        current_revision: census
            .current()
            .map(|r| r.hash.clone())
            .or_else(|| census.revision(census.update()).map(|r| r.hash.clone())),
        revisions: revisions(census),
        pods: drained,
        ended_by_others: others::ended_by_others(census).map(|p| ended_pod(census, p)).collect(),
    }
}

/// The first thing that needs a person. A drain that takes long is never one of them.
fn stall(census: &Census<'_>, draft: &mut Draft) -> Option<Stall> {
    let around = &census.observed.surroundings;
    if census.observed.app.deletion != Deletion::No || around.namespace_terminating {
        return None;
    }
    if let (Some(why), None) = (around.template.refusal(), census.revision(census.update())) {
        let message = format!("spec.template cannot be rolled out, and nothing running was touched: {why}");
        return Some(Stall { reason: Reason::Refused, message });
    }
    if !fenced(census) && (superseded_pods(census) > 0 || surplus(census)) {
        return Some(Stall { reason: Reason::UnfencedService, message: waiting::unfenced(census) });
    }
    if let Some(stall) = hindrances(census).find_map(stalled_by) {
        return Some(stall);
    }
    if let Some(message) = futile::words(census, census.update()) {
        return Some(Stall { reason: Reason::NoProgress, message });
    }
    failing(census, draft).or_else(|| refused_child(census))
}

/// What is left alone for now, and why; the app's own first.
pub(crate) fn hindrances<'a>(census: &Census<'a>) -> impl Iterator<Item = &'a Hindrance> {
    let observed = census.observed;
    let deployments = observed.revisions.iter().flat_map(|r| r.hindrance.iter().chain(&r.unannotated));
    let pods = census.live.clone().into_iter().filter_map(|p| p.hindrance.as_ref());
    let around = &observed.surroundings;
    observed
        .app
        .unclaimed
        .iter()
        .chain(&around.brake)
        .chain(deployments)
        .chain(pods)
        .chain(&around.late_children)
}

fn stalled_by(hindrance: &Hindrance) -> Option<Stall> {
    let Hindrance { kind, message, .. } = hindrance;
    match kind {
        Hindered::NoProgress => Some(Stall { reason: Reason::NoProgress, message: message.clone() }),
        Hindered::Refused => Some(Stall {
            reason: Reason::Refused,
            message: format!("{message} (tried again, less and less often)"),
        }),
        Hindered::TooSlow => None,
    }
}

/// A Deployment whose pods are proven idle and kept all the same, since the API server is too slow.
fn too_slow(census: &Census<'_>) -> bool {
    hindrances(census).any(|h| h.kind == Hindered::TooSlow)
}

/// The Service or the budget cannot be made as the spec says, or does not stay so. Pods come and go all the same, but clients may not reach them.
fn refused_child(census: &Census<'_>) -> Option<Stall> {
    let warnings = &census.observed.surroundings.warnings;
    let stuck = |reason| matches!(reason, Reason::Refused | Reason::ChangedByOthers);
    let refused = warnings.iter().find(|w| stuck(w.reason))?;
    Some(Stall { reason: refused.reason, message: refused.message.clone() })
}

fn surplus(census: &Census<'_>) -> bool {
    count(census.labelled()) > census.observed.app.replicas
}

/// A new pod that has failed to count for `progressDeadlineSeconds`, or a ReplicaSet that could not make one for as long.
fn failing(census: &Census<'_>, draft: &mut Draft) -> Option<Stall> {
    let update = census.revision(census.update())?;
    if let Some(failure) = &update.replica_failure {
        let overdue = after(failure.since, census.observed.app.progress_deadline_seconds);
        draft.wake(census, overdue);
        if overdue <= census.now {
            let message = format!("{}: no pod can be made: {}", update.name, failure.message);
            return Some(Stall { reason: Reason::ProgressDeadlineExceeded, message });
        }
    }
    let mut found = None;
    for pod in census.labelled().filter(|p| !census.superseded(p) && !census.counts(p)) {
        let Some((since, reason)) = failing_since(census, pod) else {
            continue;
        };
        let overdue = after(since, census.observed.app.progress_deadline_seconds);
        draft.wake(census, overdue);
        if overdue <= census.now && found.is_none() {
            found = Some(Stall { reason, message: waiting::new_pod(census, pod) });
        }
    }
    found
}

/// Since when a new pod has been failing, and at what. None while it has not been asked yet.
fn failing_since(census: &Census<'_>, pod: &Pod) -> Option<(Timestamp, Reason)> {
    match (census.available_from(pod), pod.readiness) {
        (Some(from), _) if from <= census.now => {
            let contact = census.contact(pod)?;
            match (&contact.error, contact.closed_since) {
                (Some(error), _) => Some((from.max(error.since), Reason::InFlightUnreadable)),
                (None, Some(closed)) => Some((from.max(closed), Reason::ProgressDeadlineExceeded)),
                (None, None) => None,
            }
        }
        (Some(from), _) => Some((from, Reason::ProgressDeadlineExceeded)),
        (None, Readiness::Lost(since)) => Some((since, Reason::ProgressDeadlineExceeded)),
        (None, _) => Some((pod.created, Reason::ProgressDeadlineExceeded)),
    }
}

/// The first that applies, in this order.
fn phase(census: &Census<'_>, stall: Option<&Stall>) -> Phase {
    let app = &census.observed.app;
    let superseded = superseded_pods(census) > 0;
    let to_roll = superseded || census.revision(&app.update).is_none();
    if app.deletion != Deletion::No || census.observed.surroundings.namespace_terminating {
        Phase::Deleting
    } else if stall.is_some() {
        Phase::Stalled
    } else if app.paused && to_roll {
        Phase::Paused
    } else if too_slow(census) || census.draining().any(|p| progress(census, p) == Progress::Held) {
        Phase::Held
    } else if to_roll || !all_here(census) {
        Phase::Rolling
    } else if census.total() > app.replicas || others::busy(census).next().is_some() {
        // Draining, or about to: what is there beyond `replicas` is not what the spec says.
        Phase::Draining
    } else {
        Phase::Serving
    }
}

/// Every replica of the update revision serves. One that was never asked yet is given the benefit of the doubt: it is asked within a moment,
/// and a restarted operator must not report a rollout that is not there.
fn all_here(census: &Census<'_>) -> bool {
    let here = census.live.iter().filter(|p| !census.superseded(p) && census.serves(p)).filter(|p| {
        let asked = census.contact(p).and_then(|c| c.asked).is_some();
        !asked || census.counts(p)
    });
    count(here) >= census.observed.app.replicas
}

fn conditions(
    census: &Census<'_>,
    phase: Phase,
    stall: Option<&Stall>,
    waiting_for: &str,
    warning: Option<ConditionReport>,
) -> Vec<ConditionReport> {
    let app = &census.observed.app;
    let serving = census.serving();
    let enough = serving >= app.replicas.saturating_sub(app.max_unavailable);
    let draining = count(census.draining());
    let (why, busy) = match phase {
        Phase::Serving => (Reason::AsDesired, false),
        Phase::Rolling if superseded_pods(census) > 0 => (Reason::RollingOut, true),
        Phase::Rolling => (Reason::Scaling, true),
        Phase::Draining if draining > 0 => (Reason::Draining, true),
        Phase::Draining if census.total() > app.replicas => (Reason::Scaling, true),
        Phase::Draining => (Reason::EndedByOthers, true),
        Phase::Held => (Reason::DeadlineHeld, true),
        Phase::Paused => (Reason::Paused, true),
        Phase::Deleting => (Reason::Deleting, true),
        Phase::Stalled => (stall.map_or(Reason::ProgressDeadlineExceeded, |s| s.reason), true),
    };
    let said =
        if waiting_for.is_empty() { "all is as the spec says".to_owned() } else { waiting_for.to_owned() };
    let condition = |kind, holds, reason, message: &str| ConditionReport {
        kind,
        holds,
        reason,
        message: message.to_owned(),
    };
    let mut all = vec![
        condition(
            ConditionType::Available,
            enough,
            if enough { Reason::MinimumReplicasAvailable } else { Reason::MinimumReplicasUnavailable },
            &format!("{serving} of {} replicas serve", app.replicas),
        ),
        condition(ConditionType::Progressing, stall.is_none(), why, &said),
        condition(
            ConditionType::Drained,
            draining == 0,
            if draining == 0 { Reason::AsDesired } else { Reason::Draining },
            &if draining == 1 { "1 pod drains".to_owned() } else { format!("{draining} pods drain") },
        ),
    ];
    all.extend(warning);
    all.push(condition(ConditionType::Reconciling, busy && stall.is_none(), why, &said));
    let stalled = stall.map_or_else(|| "nothing needs help".to_owned(), |s| s.message.clone());
    all.push(condition(
        ConditionType::Stalled,
        stall.is_some(),
        if stall.is_some() { why } else { Reason::AsDesired },
        &stalled,
    ));
    all
}

/// One condition for all warnings; absent where there are none.
fn warning(census: &Census<'_>, draft: &mut Draft, stall: Option<&Stall>) -> Option<ConditionReport> {
    let mut warnings = census.observed.surroundings.warnings.clone();
    // Known before the first drain that it would stall.
    if !fenced(census) && stall.is_none_or(|s| s.reason != Reason::UnfencedService) {
        let message = waiting::unfenced(census);
        warnings.push(Warning { reason: Reason::UnfencedService, message });
    }
    warnings.extend(astray::warning(census));
    warnings.extend(others::end_slowly(census, draft));
    let reason = match warnings.as_slice() {
        [] => return None,
        [one] => one.reason,
        _ => Reason::SeveralWarnings,
    };
    let message = warnings.iter().map(|w| w.message.as_str()).collect::<Vec<_>>().join(" · ");
    Some(ConditionReport { kind: ConditionType::Warning, holds: true, reason, message })
}

fn revisions(census: &Census<'_>) -> Vec<RevisionReport> {
    let pods = census.by_revision();
    let mut revisions: Vec<_> = census.observed.revisions.iter().collect();
    revisions.sort_by_key(|r| (std::cmp::Reverse(r.created), &r.hash));
    let tally =
        |hash, keep: &dyn Fn(&Pod) -> bool| count(pods.get(hash).into_iter().flatten().filter(|p| keep(p)));
    revisions
        .into_iter()
        .map(|r| RevisionReport {
            hash: r.hash.clone(),
            pods: tally(&r.hash, &|_| true),
            serving: tally(&r.hash, &|p| census.serves(p)),
            draining: tally(&r.hash, &|p| !p.serving),
        })
        .collect()
}

fn draining_pods(census: &Census<'_>) -> Vec<DrainingPodReport> {
    let mut pods: Vec<_> = census.draining().filter_map(|p| draining_pod(census, p)).collect();
    pods.sort_by(|a, b| (a.since, &a.pod).cmp(&(b.since, &b.pod)));
    pods
}

fn draining_pod(census: &Census<'_>, pod: &Pod) -> Option<DrainingPodReport> {
    let mark = pod.drain?;
    let contact = census.contact(pod);
    let answer = census.answer(pod);
    Some(DrainingPodReport {
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        reason: mark.reason,
        state: state(census, pod),
        in_flight: answer.map(|a| a.in_flight),
        since: mark.since,
        deadline: deadline(mark, census.policy(pod)),
        held: progress(census, pod) == Progress::Held,
        last_contact: answer.map(|a| a.at),
        error: contact.and_then(|c| c.error.as_ref()).map(|e| e.message.clone()),
    })
}

fn ended_pod(census: &Census<'_>, pod: &Pod) -> EndedPodReport {
    EndedPodReport {
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        in_flight: census.answer(pod).map(|a| a.in_flight),
        grace_ends: pod.grace_ends,
    }
}

pub(crate) fn state(census: &Census<'_>, pod: &Pod) -> PodState {
    if matches!(
        progress(census, pod),
        Progress::Proven(
            Proof::Idle { .. } | Proof::Quiet { .. } | Proof::NotRunning | Proof::NeverWorked { .. }
        )
    ) {
        return PodState::Idle;
    }
    let said = census.answer(pod).and_then(|a| a.protocol);
    match said {
        Some(p) if Some(p.epoch) == pod.epoch && !p.accepting => PodState::Draining,
        Some(_) if census.policy(pod).signal == Signal::Http => PodState::Lingering,
        Some(_) => PodState::Draining,
        None => PodState::Draining,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::observed::{Observed, RevisionHash, Surroundings};

    /// What is said of an app of one pod, of this revision, that these Services select.
    fn told(of: &str, unfenced_services: Vec<String>) -> Report {
        let at = Timestamp::UNIX_EPOCH;
        let observed = Observed {
            revisions: vec![fixture::revision(of)],
            pods: vec![Pod { revision: RevisionHash::from(of), ..fixture::serving("tasks-1") }],
            surroundings: Surroundings { unfenced_services, ..Surroundings::default() },
            ..fixture::observed(fixture::app(1, fixture::policy(Signal::Http)))
        };
        crate::plan(&observed, at).report
    }

    fn reason(report: &Report, kind: ConditionType) -> Option<Reason> {
        report.conditions.iter().find(|c| c.kind == kind && c.holds).map(|c| c.reason)
    }

    #[test]
    fn an_unfenced_service_is_told_before_the_first_drain_and_stalls_it() {
        let both = |of| {
            let report = told(of, vec!["front".to_owned()]);
            (reason(&report, ConditionType::Warning), reason(&report, ConditionType::Stalled))
        };
        assert_eq!(both("r"), (Some(Reason::UnfencedService), None));
        assert_eq!(both("old"), (None, Some(Reason::UnfencedService)));
    }

    #[test]
    fn the_command_that_helps_is_not_cut_off_however_many_services_there_are() {
        let services = (10..40).map(|n| format!("{}{n}", "s".repeat(61))).collect();
        let report = told("old", services);
        let kept: String = report.waiting_for.chars().take(waiting::LONGEST_SENTENCE).collect();
        assert!(kept.contains("(and 28 more)") && kept.contains("accept-unfenced-services=true"), "{kept}");
    }
}
