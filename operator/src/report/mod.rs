//! Tells people: status, Events and metrics, all from one report. Nothing here is read back to decide.

mod cuts;
mod events;
mod left;
mod others;
mod recorder;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use graceful_api::conditions::Reason;
use graceful_api::{FieldError, GracefulApp, GracefulAppStatus, Phase, names};
use graceful_plan::{Action, Deletion, Doubling, Observed, PodUid, Report, is_handed_over};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use self::cuts::Cuts;
use self::events::happenings;
use self::events::{Announced, Happening};
pub(crate) use self::recorder::Recorder;
use crate::app_ref::AppRef;
use crate::clock::Clock;
use crate::decode::Decoded;
use crate::error::{Error, call, chain};
use crate::observe::Observation;
use crate::telemetry::Metrics;

/// The shortest time between two writes of one app's status: two seconds are live enough for a person, and a thousand apps that roll at once
/// stay at 500 writes a second.
const WRITE_EVERY: Duration = Duration::from_secs(2);

/// How long a new app's first status is put off while it only says that all is being made: most often it can say by then that all is there.
const FIRST_AFTER: Duration = Duration::from_secs(1);

/// The longest, where a webhook refuses the write: twice as long each time up to this.
const REFUSED_EVERY: Duration = Duration::from_secs(300);

/// Far longer than a watch is behind.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);

/// Where it is told.
pub(crate) struct Reporter {
    pub(crate) client: Client,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) recorder: Recorder,
    pub(crate) clock: Clock,
}

/// What was told of one app so far.
#[derive(Debug, Default)]
pub(crate) struct Reported {
    /// What was cut, as far as status has it and since.
    cuts: Cuts,
    /// When status was first to be written.
    begun: Option<Instant>,
    /// When status was last written.
    written: Option<Instant>,
    /// How often in a row its write was refused since.
    refused: u32,
    /// What Events have told.
    told: Announced,
    /// The invalid spec that an Event was sent for.
    invalid: Option<String>,
}

impl Reported {
    /// Something was done that a person may look for: to be told with the next report.
    pub(crate) fn note(&mut self, reason: &'static str, note: String) {
        self.told.note(Happening::normal(reason, note));
    }
}

/// Tells what was seen, and what was done. Says in how long a write that had to wait is due.
pub(crate) async fn report(
    reporter: &Reporter,
    app: &GracefulApp,
    seen: &Observation,
    report: &Report,
    tried: &[Action],
    reported: &mut Reported,
) -> Result<Option<Duration>, Error> {
    let app_ref = AppRef::from_obj(app);
    reported.invalid = None; // the same mistake once more is a new one
    let (pods, now) = (&seen.observed.pods, reporter.clock.now());
    let mut happened =
        reported.cuts.newly_seen(app.status.as_ref(), pods, &handed_over(&seen.observed), tried, now);
    if !happened.is_empty() {
        reported.written = None; // the one figure that cannot be observed again is written at once
    }
    happened.extend(left::left(&reporter.client, app, seen, &mut reported.told).await);
    reported.told.goes_on_from(app.status.as_ref(), &seen.observed.app.update);
    happened.extend(happenings(&mut reported.told, report, seen));
    let ended = happened.iter().filter(|h| h.is(others::ENDED_BY_OTHERS)).count();
    reporter.metrics.reported(&app_ref, report, serving_in_flight(seen), reported.cuts.total(), ended);
    // Status first: there may be an Event for each of forty pods, and a call may take seconds.
    let written = if gone(seen) {
        Ok(None)
    } else {
        let status = status::status(app, seen, report, &reported.cuts, reporter.clock.now());
        write(&reporter.client, app, status, reported).await
    };
    // Nothing can be created in a namespace that goes, Events least of all; what is there can still be written to.
    if !seen.observed.surroundings.namespace_terminating {
        reporter.recorder.publish(app, reported.told.sent(), happened).await;
    }
    written
}

/// The spec contradicts itself: said once in an Event, and in the conditions.
pub(crate) async fn report_invalid(
    reporter: &Reporter,
    app: &GracefulApp,
    errors: &[FieldError],
    reported: &mut Reported,
) -> Result<Option<Duration>, Error> {
    let message = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    report_stalled(reporter, app, Reason::InvalidSpec, &message, reported).await
}

/// Nothing is planned, and nothing touched: said once in an Event, and in the conditions.
pub(crate) async fn report_stalled(
    reporter: &Reporter,
    app: &GracefulApp,
    reason: Reason,
    message: &str,
    reported: &mut Reported,
) -> Result<Option<Duration>, Error> {
    if reported.invalid.as_deref() != Some(message) {
        let stalled = vec![Happening::warning(reason.as_str(), message)];
        reporter.recorder.publish(app, reported.told.sent(), stalled).await;
        reported.invalid = Some(message.to_owned());
    }
    reporter.metrics.stalled(&AppRef::from_obj(app));
    let status = status::stalled(app, reason, message, reporter.clock.now());
    write(&reporter.client, app, status, reported).await
}

/// At most once in two seconds, on the trailing edge, and only what differs.
async fn write(
    client: &Client,
    app: &GracefulApp,
    status: GracefulAppStatus,
    reported: &mut Reported,
) -> Result<Option<Duration>, Error> {
    if app.status.as_ref() == Some(&status) {
        return Ok(None);
    }
    let every = Doubling { first: WRITE_EVERY, longest: REFUSED_EVERY }.after(reported.refused);
    let begun = *reported.begun.get_or_insert_with(Instant::now);
    let only_begins = app.status.is_none() && status.phase == Some(Phase::Rolling);
    let wait = match reported.written {
        Some(at) => every.checked_sub(at.elapsed()),
        None if only_begins => FIRST_AFTER.checked_sub(begun.elapsed()),
        None => None,
    };
    if let Some(wait) = wait.filter(|w| !w.is_zero()) {
        return Ok(Some(wait));
    }
    reported.written = Some(Instant::now());
    // Applied whole: a field that is no longer said is taken away. The uid keeps it off a new app under the old name.
    let patch = json!({
        "apiVersion": format!("{}/{}", names::GROUP, names::VERSION),
        "kind": names::KIND,
        "metadata": {"name": app.name_any(), "uid": app.metadata.uid},
        "status": status,
    });
    let api: Api<Decoded<GracefulApp>> =
        Api::namespaced(client.clone(), &app.namespace().unwrap_or_default());
    let params = PatchParams::apply(names::FIELD_MANAGER).force();
    match call("write status", api.patch_status(&app.name_any(), &params, &Patch::Apply(patch))).await {
        Ok(_) => {
            reported.refused = 0;
            Ok(None)
        }
        Err(error) if error.not_found() || error.conflict() => Ok(None),
        // Drains do not wait for what is said of them.
        Err(error) if error.backoff().is_some() => {
            reported.refused = reported.refused.saturating_add(1);
            tracing::warn!(app = %AppRef::from_obj(app), "{}; retrying less and less often", chain(&error));
            Ok(Some(every))
        }
        Err(error) => Err(error),
    }
}

/// Nothing of ours holds the app any more.
fn gone(seen: &Observation) -> bool {
    seen.observed.app.deletion != Deletion::No && !seen.observed.app.finalizer
}

/// The pods that drain themselves after their DELETE, with what each had in flight by its last answer.
fn handed_over(observed: &Observed) -> BTreeMap<PodUid, Option<u64>> {
    let count = |uid| Some(observed.contacts.get(uid)?.answer.as_ref()?.in_flight.total);
    let pods = observed.pods.iter().filter(|p| is_handed_over(observed, p));
    pods.map(|p| (p.uid.clone(), count(&p.uid))).collect()
}

fn serving_in_flight(seen: &Observation) -> u64 {
    let serving = seen.observed.pods.iter().filter(|p| p.routed && !p.terminating);
    let answers = serving.filter_map(|p| seen.observed.contacts.get(&p.uid)?.answer.as_ref());
    answers.map(|a| a.in_flight.total).fold(0, u64::saturating_add)
}
