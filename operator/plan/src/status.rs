//! What is shown to people: the STATUS column, the conditions and the counts. The sentence is in `waiting_for`.

use graceful_api::Phase;
use graceful_api::conditions::{ConditionType, Reason};

use crate::adoption;
use crate::astray;
use crate::count::count;
use crate::course::Course;
use crate::draft::Draft;
use crate::going_nodes;
use crate::node_words;
use crate::observed::{Deletion, Pod, Warning};
use crate::others;
use crate::proofs::{Progress, progress, state};
use crate::report::{ConditionReport, DrainingPodReport, EndedPodReport, Report, RevisionReport};
use crate::settled::{all_replicas_serve, is_settled};
use crate::snapshot::Snapshot;
use crate::stall::{Stall, how_to_fence, needs_fencing, stall, too_slow};
use crate::token_refused;
use crate::waiting_for::{self, Sentence};

pub(crate) fn report(snapshot: &Snapshot<'_>, draft: &Draft, course: &Course<'_>) -> Report {
    let stall = stall(snapshot);
    let phase = phase(snapshot, stall.as_ref());
    let Sentence { text: mut waiting_for, stands_for } =
        waiting_for::sentence(snapshot, draft, course, stall.as_ref());
    // A sentence with an age in it is said anew when that has changed.
    if let Some(time) = stands_for {
        snapshot.clock.wake_in(time);
    }
    if waiting_for.is_empty() && phase != Phase::Serving {
        let what = if draft.actions.is_empty() {
            "Kubernetes carries out the last change"
        } else {
            "the operator is about to act"
        };
        what.clone_into(&mut waiting_for);
    }
    let warning = warning(snapshot, stall.as_ref());
    let draining = draining_pods(snapshot);
    Report {
        conditions: conditions(snapshot, phase, stall.as_ref(), &waiting_for, warning),
        phase,
        waiting_for,
        serving: snapshot.serving(),
        updated: count(
            snapshot.remaining.iter().filter(|p| snapshot.serves(p) && !snapshot.is_superseded(p)),
        ),
        draining: count(snapshot.shown_as_draining()),
        in_flight: draining.iter().filter_map(|p| p.in_flight).map(|f| f.total).fold(0, u64::saturating_add),
        current_revision: snapshot
            .predecessor()
            .map(|r| r.hash.clone())
            .or_else(|| snapshot.revision(snapshot.update()).map(|r| r.hash.clone())),
        revisions: revisions(snapshot),
        pods: draining,
        ended_by_others: others::ended_by_others(snapshot).map(|p| ended_pod(snapshot, p)).collect(),
    }
}

/// The first that applies, in this order.
fn phase(snapshot: &Snapshot<'_>, stall: Option<&Stall>) -> Phase {
    let app = &snapshot.observed.app;
    let to_roll = to_be_replaced(snapshot) || snapshot.revision(&app.update).is_none();
    if app.deletion != Deletion::No || snapshot.observed.surroundings.namespace_terminating {
        Phase::Deleting
    } else if stall.is_some() {
        Phase::Stalled
    } else if app.paused && to_roll {
        Phase::Paused
    } else if too_slow(snapshot) || any_is_held(snapshot) {
        Phase::Held
    } else if to_roll || !all_replicas_serve(snapshot) {
        Phase::Rolling
    } else if !is_settled(snapshot) {
        // Draining, or about to: what is there beyond `replicas` is not what the spec says.
        Phase::Draining
    } else {
        Phase::Serving
    }
}

/// A pod is past its deadline and kept.
fn any_is_held(snapshot: &Snapshot<'_>) -> bool {
    let mut pods = snapshot.unrouted().chain(snapshot.handed_over());
    pods.any(|p| progress(snapshot, p) == Progress::Held)
}

/// Pods of other revisions than the spec asks for are there, those that drain themselves after their DELETE among them.
fn to_be_replaced(snapshot: &Snapshot<'_>) -> bool {
    snapshot.count_superseded() > 0 || snapshot.handed_over().any(|p| snapshot.is_superseded(p))
}

fn conditions(
    snapshot: &Snapshot<'_>,
    phase: Phase,
    stall: Option<&Stall>,
    waiting_for: &str,
    warning: Option<ConditionReport>,
) -> Vec<ConditionReport> {
    let why = progress_reason(snapshot, phase, stall);
    let busy = phase != Phase::Serving;
    let message = if waiting_for.is_empty() { "all is as the spec says" } else { waiting_for };
    let (stalled, standstill) = match stall {
        Some(stall) => (why, stall.message.as_str()),
        None => (Reason::AsDesired, "nothing needs a person"),
    };
    let mut all = vec![
        available(snapshot),
        condition(ConditionType::Progressing, stall.is_none(), why, message),
        drained(snapshot),
    ];
    all.extend(warning);
    all.push(condition(ConditionType::Reconciling, busy && stall.is_none(), why, message));
    all.push(condition(ConditionType::Stalled, stall.is_some(), stalled, standstill));
    all
}

fn condition(kind: ConditionType, holds: bool, reason: Reason, message: &str) -> ConditionReport {
    ConditionReport { kind, holds, reason, message: message.to_owned() }
}

/// The reason of Progressing and Reconciling; of Stalled too, where the app is.
fn progress_reason(snapshot: &Snapshot<'_>, phase: Phase, stall: Option<&Stall>) -> Reason {
    match phase {
        Phase::Serving => Reason::AsDesired,
        Phase::Rolling if to_be_replaced(snapshot) => Reason::RollingOut,
        Phase::Rolling => Reason::Scaling,
        Phase::Draining if going_nodes::is_under_way(snapshot) => Reason::NodeDraining,
        Phase::Draining if snapshot.shown_as_draining().next().is_some() => Reason::Draining,
        Phase::Draining if snapshot.total() > snapshot.observed.app.replicas => Reason::Scaling,
        Phase::Draining => Reason::EndedByOthers,
        Phase::Held if any_is_held(snapshot) => Reason::DeadlineHeld,
        Phase::Held => Reason::ControlPlaneSlow,
        Phase::Paused => Reason::Paused,
        Phase::Deleting => Reason::Deleting,
        Phase::Stalled => stall.map_or(Reason::ProgressDeadlineExceeded, |s| s.reason),
    }
}

fn available(snapshot: &Snapshot<'_>) -> ConditionReport {
    let app = &snapshot.observed.app;
    let serving = snapshot.serving();
    let enough = serving >= app.replicas.saturating_sub(app.max_unavailable);
    let reason = if enough { Reason::MinimumReplicasAvailable } else { Reason::MinimumReplicasUnavailable };
    let pods = if serving == 1 { "pod serves" } else { "pods serve" };
    let message = format!("{serving} {pods}, {} asked for", app.replicas);
    condition(ConditionType::Available, enough, reason, &message)
}

fn drained(snapshot: &Snapshot<'_>) -> ConditionReport {
    let draining = count(snapshot.shown_as_draining());
    let undrained = adoption::undrained(snapshot);
    let reason = match (draining, &undrained) {
        (0, None) => Reason::AsDesired,
        (_, Some((reason, _))) => *reason,
        (_, None) => Reason::Draining,
    };
    let message = drained_words(draining, undrained.map(|(_, words)| words));
    condition(ConditionType::Drained, reason == Reason::AsDesired, reason, &message)
}

/// Of a Deployment that is adopted nothing is drained before all of it is.
fn drained_words(draining: u32, undrained: Option<String>) -> String {
    let drain = if draining == 1 { "1 pod drains".to_owned() } else { format!("{draining} pods drain") };
    undrained.map_or(drain.clone(), |undrained| format!("{drain}; {undrained}"))
}

/// One condition for all warnings; absent where there are none.
fn warning(snapshot: &Snapshot<'_>, stall: Option<&Stall>) -> Option<ConditionReport> {
    let mut warnings = snapshot.observed.surroundings.warnings.clone();
    // Known before the first drain that it would stall.
    if needs_fencing(snapshot) && stall.is_none_or(|s| s.reason != Reason::UnfencedService) {
        let message = how_to_fence(snapshot);
        warnings.push(Warning { reason: Reason::UnfencedService, message });
    }
    warnings.extend(adoption::warnings(snapshot));
    warnings.extend(node_words::dying_warning(snapshot));
    warnings.extend(node_words::kept_warning(snapshot));
    warnings.extend(astray::warning(snapshot));
    warnings.extend(token_refused::warning(snapshot));
    warnings.extend(others::end_slowly(snapshot));
    let reason = match warnings.as_slice() {
        [] => return None,
        [one] => one.reason,
        _ => Reason::SeveralWarnings,
    };
    let message = warnings.iter().map(|w| w.message.as_str()).collect::<Vec<_>>().join(" · ");
    Some(ConditionReport { kind: ConditionType::Warning, holds: true, reason, message })
}

fn revisions(snapshot: &Snapshot<'_>) -> Vec<RevisionReport> {
    let (pods, handed_over): (_, Vec<_>) = (snapshot.by_revision(), snapshot.handed_over().collect());
    let mut revisions: Vec<_> = snapshot.observed.revisions.iter().collect();
    revisions.sort_by_key(|r| (std::cmp::Reverse(r.created), &r.hash));
    let tally =
        |hash, keep: &dyn Fn(&Pod) -> bool| count(pods.get(hash).into_iter().flatten().filter(|p| keep(p)));
    revisions
        .into_iter()
        .map(|r| RevisionReport {
            hash: r.hash.clone(),
            pods: tally(&r.hash, &|_| true),
            serving: tally(&r.hash, &|p| snapshot.serves(p)),
            draining: tally(&r.hash, &|p| !p.routed)
                + count(handed_over.iter().filter(|p| p.revision == r.hash)),
        })
        .collect()
}

fn draining_pods(snapshot: &Snapshot<'_>) -> Vec<DrainingPodReport> {
    let mut pods: Vec<_> = snapshot.shown_as_draining().filter_map(|p| draining_pod(snapshot, p)).collect();
    pods.sort_by(|a, b| (a.since, &a.pod).cmp(&(b.since, &b.pod)));
    pods
}

fn draining_pod(snapshot: &Snapshot<'_>, pod: &Pod) -> Option<DrainingPodReport> {
    let note = pod.drain?;
    let contact = snapshot.contact(pod);
    let answer = snapshot.answer(pod);
    Some(DrainingPodReport {
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        reason: note.reason,
        state: state(snapshot, pod),
        in_flight: answer.map(|a| a.in_flight),
        since: note.since,
        deadline: note.deadline(snapshot.policy(pod)),
        held: progress(snapshot, pod) == Progress::Held,
        last_contact: answer.map(|a| a.at),
        error: contact.and_then(|c| c.error.as_ref()).map(|e| e.message.clone()),
    })
}

fn ended_pod(snapshot: &Snapshot<'_>, pod: &Pod) -> EndedPodReport {
    EndedPodReport {
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        in_flight: snapshot.answer(pod).map(|a| a.in_flight),
        grace_ends: pod.grace_ends,
    }
}

#[cfg(test)]
mod tests {
    use graceful_api::{RevisionHash, Signal};
    use jiff::Timestamp;

    use super::*;
    use crate::fixture;
    use crate::observed::{Observed, Surroundings};

    /// What is said of an app of one pod, of this revision, that these Services select.
    fn report_of(of: &str, unfenced_services: Vec<String>) -> Report {
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

    /// Keeps P8: what CI waits for (docs/status.md).
    #[test]
    fn an_app_is_reconciling_until_it_serves_as_the_spec_says() {
        let holds = |report: &Report, kind| reason(report, kind).is_some();
        let serves = report_of("r", Vec::new());
        assert!(!holds(&serves, ConditionType::Reconciling) && !holds(&serves, ConditionType::Stalled));
        let rolls = report_of("old", Vec::new());
        assert!(holds(&rolls, ConditionType::Reconciling) && !holds(&rolls, ConditionType::Stalled));
    }

    #[test]
    fn an_unfenced_service_is_told_before_the_first_drain_and_stalls_it() {
        let both = |of| {
            let report = report_of(of, vec!["front".to_owned()]);
            (reason(&report, ConditionType::Warning), reason(&report, ConditionType::Stalled))
        };
        assert_eq!(both("r"), (Some(Reason::UnfencedService), None));
        assert_eq!(both("old"), (None, Some(Reason::UnfencedService)));
    }

    /// P8: a drain of its node waits for the Service, and not for maxUnavailable.
    #[test]
    fn an_unfenced_service_stalls_the_drain_of_a_node() {
        let mut leaves = fixture::serving("tasks-1");
        leaves.node.fate = crate::NodeFate::Emptied;
        let mut observed = Observed {
            revisions: vec![fixture::revision("r")],
            pods: vec![leaves],
            ..fixture::observed(fixture::app(1, fixture::policy(Signal::Http)))
        };
        observed.surroundings.unfenced_services = vec!["front".to_owned()];
        let report = crate::plan(&observed, Timestamp::UNIX_EPOCH).report;
        assert_eq!(reason(&report, ConditionType::Stalled), Some(Reason::UnfencedService));
        assert!(report.waiting_for.contains("front"), "{}", report.waiting_for);
    }

    #[test]
    fn the_command_that_helps_is_not_cut_off_however_many_services_there_are() {
        let services = (10..40).map(|n| format!("{}{n}", "s".repeat(61))).collect();
        let report = report_of("old", services);
        let kept: String = report.waiting_for.chars().take(waiting_for::LONGEST_SENTENCE).collect();
        assert!(kept.contains("(and 28 more)") && kept.contains("accept-unfenced-services=true"), "{kept}");
    }
}
