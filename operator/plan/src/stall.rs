//! What an app cannot get past without a person, and the sentence that says what would help.

use graceful_api::conditions::Reason;
use graceful_api::{RevisionHash, names};

use crate::adoption;
use crate::budget::capacity_will_free;
use crate::count::count;
use crate::creation_backoff;
use crate::new_pods;
use crate::observed::{Backoff, BackoffCause, Bypass, LeftBehind, Rejected, TemplateVerdict};
use crate::overdue::{For, Overdue, overdue};
use crate::settled::is_settled;
use crate::snapshot::Snapshot;

/// So many of the user's Services are named, and the others are counted.
const SERVICES_NAMED: usize = 2;

/// Why the app cannot go on without help.
pub(crate) struct Stall {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

/// The first thing that needs a person. A drain that takes long is never one of them.
pub(crate) fn stall(snapshot: &Snapshot<'_>) -> Option<Stall> {
    let around = &snapshot.observed.surroundings;
    if !snapshot.observed.app.deletion.keeps_serving() || around.namespace_terminating {
        return None;
    }
    if let Some(message) = adoption::obstacle(snapshot) {
        return Some(Stall { reason: Reason::AdoptionWaits, message: message.to_owned() });
    }
    if let (Some(why), None) = (around.template.refusal(), snapshot.revision(snapshot.update())) {
        let message = format!("spec.template cannot be rolled out, and nothing running was touched: {why}");
        return Some(Stall { reason: Reason::Refused, message });
    }
    let to_drain =
        || snapshot.count_superseded() > 0 || has_surplus(snapshot) || new_pods::leave_their_nodes(snapshot);
    if needs_fencing(snapshot) && to_drain() {
        return Some(Stall { reason: Reason::UnfencedService, message: how_to_fence(snapshot) });
    }
    if let Some(stall) = backoffs(snapshot).find_map(stalled_by) {
        return Some(stall);
    }
    if let Some(message) = comes_to_nothing(snapshot, snapshot.update()) {
        return Some(Stall { reason: Reason::NoProgress, message });
    }
    let failing = overdue(snapshot, For::Anything);
    let stalls = if failing.is_some() && capacity_will_free(snapshot) {
        // What would finish by itself is no stall.
        overdue(snapshot, For::MoreThanCapacity)
    } else {
        failing
    };
    stalls.map(|late| past_deadline(snapshot, late)).or_else(|| refused_child(snapshot))
}

/// A Service is not fenced, and the operator is not about to do it.
pub(crate) fn needs_fencing(snapshot: &Snapshot<'_>) -> bool {
    let around = &snapshot.observed.surroundings;
    let fences_itself = |service: &String| around.fenceable.contains(service);
    let left_to_us = around.bypasses.is_empty()
        && around.left_behind.is_empty()
        && around.unfenced_services.iter().all(fences_itself);
    !snapshot.services_are_fenced() && !left_to_us
}

/// What would be a stall, did the capacity that is lacking not become free by itself.
pub(crate) fn waits_for_capacity(snapshot: &Snapshot<'_>) -> Option<String> {
    let failing = overdue(snapshot, For::Anything).filter(|_| capacity_will_free(snapshot))?;
    overdue(snapshot, For::MoreThanCapacity).is_none().then(|| past_deadline(snapshot, failing).message)
}

/// What is left alone for now, and why; the app's own first.
pub(crate) fn backoffs<'a>(snapshot: &Snapshot<'a>) -> impl Iterator<Item = &'a Backoff> {
    let observed = snapshot.observed;
    let pods = snapshot.remaining.clone().into_iter().filter_map(|p| p.write_backoff.as_ref());
    let around = &observed.surroundings;
    // An app that is as its spec says has got somewhere, and waits for nobody who is slow.
    let settled = is_settled(snapshot);
    let waited_for = move |b: &&Backoff| !settled || !b.cause.is_slowness();
    // What the spec says of drains and is not written to its Deployment yet is not settled.
    let deployments = observed.revisions.iter().flat_map(move |r| {
        let not_followed = observed.lags.get(&r.hash).and_then(|lag| lag.not_followed.as_ref());
        r.scale_backoff.iter().chain(not_followed).filter(waited_for).chain(&r.annotation_backoff)
    });
    let brake = around.brake.iter().filter(move |_| !settled);
    observed
        .app
        .finalizer_backoff
        .iter()
        .chain(brake)
        .chain(deployments)
        .chain(pods)
        .chain(&around.children_backoff)
        .chain(around.services_backoff.values())
}

fn stalled_by(backoff: &Backoff) -> Option<Stall> {
    let Backoff { cause, message, .. } = backoff;
    match cause {
        BackoffCause::NoProgress => Some(Stall { reason: Reason::NoProgress, message: message.clone() }),
        BackoffCause::Refused => Some(Stall { reason: Reason::Refused, message: backoff.explanation() }),
        BackoffCause::TooSlow | BackoffCause::NotFollowed => None,
    }
}

/// Something is left alone since the API server or a controller is too slow: a Deployment's scale, a pod, our finalizer, the Service or the budget, or a new
/// revision, whose dry run has no answer.
pub(crate) fn too_slow(snapshot: &Snapshot<'_>) -> bool {
    let no_verdict = matches!(snapshot.observed.surroundings.template, TemplateVerdict::Unanswered { .. });
    (no_verdict && snapshot.revision(snapshot.update()).is_none())
        || backoffs(snapshot).any(|b| b.cause.is_slowness())
}

/// The Service or the budget cannot be made as the spec says, or does not stay so. Pods come and go all the same, but clients may not reach them.
fn refused_child(snapshot: &Snapshot<'_>) -> Option<Stall> {
    let warnings = &snapshot.observed.surroundings.warnings;
    let stuck = |reason| matches!(reason, Reason::Refused | Reason::ChangedByOthers);
    let refused = warnings.iter().find(|w| stuck(w.reason))?;
    Some(Stall { reason: refused.reason, message: refused.message.clone() })
}

fn has_surplus(snapshot: &Snapshot<'_>) -> bool {
    count(snapshot.routed()) > snapshot.observed.app.replicas
}

/// What is overdue, as a stall with its sentence.
fn past_deadline(snapshot: &Snapshot<'_>, late: Overdue<'_>) -> Stall {
    match late {
        Overdue::Unmade(failure) => {
            let message = new_pods::cannot_be_made(snapshot, snapshot.update(), &failure.message);
            Stall { reason: Reason::ProgressDeadlineExceeded, message }
        }
        Overdue::NotTakingWork(pod, reason) => {
            Stall { reason, message: new_pods::new_pod(snapshot, pod, "") }
        }
    }
}

/// The pods of this revision come to nothing ([`creation_backoff`]), and one is missing for it.
fn comes_to_nothing(snapshot: &Snapshot<'_>, hash: &RevisionHash) -> Option<String> {
    let here = count(snapshot.routed().filter(|p| p.revision == *hash && snapshot.takes_work(p)));
    let often = creation_backoff::NEXT_TRY_IN.as_secs();
    let message = match (creation_backoff::rejected(snapshot, hash), snapshot.observed.absent.get(hash)) {
        (Some(Rejected { pods, last: _, words }), _) => format!(
            "{pods} pods of revision {hash} ended before they were Ready, the last is {words}; one more is tried every {often} s"
        ),
        (None, Some(_)) => format!(
            "pods of revision {hash} are asked for and none comes. Where `kubectl -n {} get pods` shows pods that nobody owns, an admission webhook or policy takes the label {} off \
             new pods: delete those, and exempt this app's pods from it. Otherwise the cluster's controllers do not run, or are held up (by a webhook on pods that hangs, in whatever \
             namespace). One more is tried every {often} s or more",
            snapshot.observed.app.namespace,
            names::APP_LABEL
        ),
        (None, None) => return None,
    };
    (here < snapshot.observed.app.replicas).then_some(message)
}

/// Which Services are not fenced, and the exact command that fences the first.
pub(crate) fn how_to_fence(snapshot: &Snapshot<'_>) -> String {
    let around = &snapshot.observed.surroundings;
    let services = &around.unfenced_services;
    let Some(first) = services.first() else {
        let behind = around.left_behind.first().map(|l| left_behind(snapshot, l));
        return around.bypasses.first().map(|b| past_the_gate(snapshot, b)).or(behind).unwrap_or_default();
    };
    let namespace = &snapshot.observed.app.namespace;
    let named = services.iter().take(SERVICES_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let others = match services.len().saturating_sub(SERVICES_NAMED) {
        0 => String::new(),
        n => format!(" (and {n} more)"),
    };
    format!(
        "Service {named}{others} would send clients to draining pods: run `kubectl -n {namespace} patch service {first} --type merge -p \
         '{{\"spec\":{{\"selector\":{{\"graceful.dev/serving\":\"true\"}}}}}}'`, or accept it with the annotation \
         graceful.dev/accept-unfenced-services=true on the GracefulApp"
    )
}

fn left_behind(snapshot: &Snapshot<'_>, behind: &LeftBehind) -> String {
    let LeftBehind { service, lacks } = behind;
    let (pods, lacks) = (snapshot.update(), lacks.join(", "));
    format!(
        "Service {service} sends clients to pods of the adopted Deployment, and would send none to pods of revision {pods}: add {{{lacks}}} to \
         spec.template.metadata.labels"
    )
}

fn past_the_gate(snapshot: &Snapshot<'_>, bypass: &Bypass) -> String {
    let Bypass { service, managed, port_index, port_number, name } = bypass;
    let namespace = &snapshot.observed.app.namespace;
    let helps = match managed {
        true => format!("write targetPort: {name} in spec.service"),
        false => format!(
            "run `kubectl -n {namespace} patch service {service} --type json -p \
             '[{{\"op\":\"add\",\"path\":\"/spec/ports/{port_index}/targetPort\",\"value\":\"{name}\"}}]'`"
        ),
    };
    format!(
        "Service {service} sends clients to port {port_number}, the app's own, past its gate: {helps}, or accept it with the annotation \
         graceful.dev/accept-unfenced-services=true on the GracefulApp"
    )
}

#[cfg(test)]
mod tests {
    use graceful_api::{DrainReason, Phase, RevisionHash, Signal};
    use jiff::Timestamp;

    use super::*;
    use crate::fixture::{app, observed, policy, revision, serving};
    use crate::ids::Epoch;
    use crate::observed::{DrainNote, Failure, Lag, Pod, Revision};

    /// What is as the spec says waits for nobody, however slow.
    #[test]
    fn a_settled_app_is_not_held_by_what_was_slow() {
        let met = |cause| Some(Backoff { cause, message: "met".to_owned(), until: Timestamp::MAX });
        let phase_of = |revision, pods: &[&str]| {
            let seen = crate::Observed {
                revisions: vec![revision],
                pods: pods.iter().map(|name| serving(name)).collect(),
                contacts: pods.iter().map(|name| (crate::PodUid::from(*name), answering())).collect(),
                ..observed(app(1, policy(Signal::Http)))
            };
            crate::plan(&seen, Timestamp::from_second(600).unwrap()).report.phase
        };
        let annotation_backoff = Revision { annotation_backoff: met(BackoffCause::TooSlow), ..revision("r") };
        assert_eq!(
            phase_of(annotation_backoff, &["a"]),
            Phase::Held,
            "its pods drain by a policy that the spec has changed"
        );
        let phase =
            |kind, pods: &[&str]| phase_of(Revision { scale_backoff: met(kind), ..revision("r") }, pods);
        assert_eq!(phase(BackoffCause::TooSlow, &["a"]), Phase::Serving);
        assert_eq!(phase(BackoffCause::TooSlow, &["a", "b"]), Phase::Held, "one of them is to go");
        assert_eq!(phase(BackoffCause::Refused, &["a"]), Phase::Stalled, "that needs a person all the same");
    }

    /// A rollout that would finish by itself is not said to need a person: kstatus and CI would fail it.
    #[test]
    fn an_app_that_makes_room_by_itself_is_not_stalled() {
        let quota = "pods \"x\" is forbidden: exceeded quota: pods";
        let phase = |max_unavailable, why: &str, old: &[Pod], capacity_until| {
            let failure = Failure { message: why.to_owned(), since: Timestamp::UNIX_EPOCH };
            let old_replicas = u32::try_from(old.len()).unwrap();
            let old_one = Revision { replicas: old_replicas, ..revision("o") };
            let lag = Lag { capacity_until, ..Lag::default() };
            let new = Revision { replica_failure: Some(failure), proven: false, ..revision("r") };
            let pods = old.iter().map(|p| Pod { revision: RevisionHash::from("o"), ..p.clone() }).collect();
            let app = crate::App { max_unavailable, ..app(2, policy(Signal::Http)) };
            let lags = [(old_one.hash.clone(), lag)].into();
            let seen = crate::Observed { revisions: vec![old_one, new], pods, lags, ..observed(app) };
            crate::plan(&seen, Timestamp::from_second(700).unwrap()).report.phase
        };
        let note = DrainNote { reason: DrainReason::Rollout, since: Timestamp::from_second(690).unwrap() };
        let draining = Pod { routed: false, epoch: Some(Epoch(1)), drain: Some(note), ..serving("b") };
        let (two, one) = ([serving("a"), serving("b")], [serving("a")]);
        assert_eq!(phase(1, quota, &two, None), Phase::Rolling, "one of the two is about to make room");
        assert_eq!(phase(1, quota, &[serving("a"), draining], None), Phase::Rolling, "one makes room");
        let soon = Timestamp::from_second(701).ok();
        assert_eq!(phase(1, quota, &one, soon), Phase::Rolling, "room was made, and may be taken yet");
        assert_eq!(phase(1, quota, &one, None), Phase::Stalled, "others have taken the room");
        assert_eq!(phase(0, quota, &two, None), Phase::Stalled, "none may be missing");
        assert_eq!(phase(1, "denied by policy", &two, None), Phase::Stalled, "no room helps against that");
    }

    fn answering() -> crate::Contact {
        let in_flight = crate::InFlight { total: 0, queued: 0, running: 0, requests: 0 };
        let answer = crate::Answer { at: Timestamp::UNIX_EPOCH, in_flight, protocol: None, scheduled: None };
        crate::Contact {
            answer: Some(answer),
            tried_at: Some(Timestamp::UNIX_EPOCH),
            ..crate::Contact::default()
        }
    }
}
