//! The Deployment in `spec.adopt`: whether it can be taken now; and once it is the app's, what others do beside us until it is at 0 ([`beside`]).
//!
//! No watch of ours shows any of it, since it has no label of ours: it is read, and again after a while.

mod beside;
mod whose;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use graceful_api::template::Template;
use graceful_api::{Adoption as AdoptSpec, Policy, RevisionHash, Validated, names};
use graceful_plan::refusals::Subject;
use graceful_plan::{Adoption, BackoffCause, Doubling};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::core::Selector;
use kube::{Api, Client, ResourceExt};

use self::whose::{of_another, scaler};
use super::revisions::{Ours, followed};
use super::view::list;
use super::{Sources, pods};
use crate::decode::Decoded;
use crate::error::{Error, call, chain};
use crate::writes::Writes;

/// How old the last look may be. (Tests do not wait as long.)
const LOOK_EVERY: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });

/// Whoever a Deployment waits for may be away for days.
const WAITS_FOR_A_PERSON: Doubling =
    Doubling { first: LOOK_EVERY, longest: Duration::from_secs(if cfg!(test) { 1 } else { 30 }) };

/// The same while a Deployment that was taken is not at 0. An autoscaler acts each 15 s.
const BESIDE_EVERY: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 15 });

/// What was seen of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sought {
    pub(crate) state: Adoption,
    /// As it was looked at, and how its pods are asked and drained; where it can be taken.
    pub(crate) found: Option<(Arc<Deployment>, Policy)>,
}

/// The last look.
#[derive(Debug, Default)]
pub(super) struct Seeker(Option<Look>);

/// What the spec says, and the Deployment that is the app's.
type LookedAt = (Option<AdoptSpec>, Option<String>);

#[derive(Debug)]
struct Look {
    at: Instant,
    of: LookedAt,
    /// Looks before it that found the same.
    before: u32,
    sought: Sought,
}

impl Look {
    /// How long it is as good as a new one.
    fn holds_for(&self) -> Duration {
        let period = match &self.sought.state {
            // It is taken just as it was looked at: what has failed on an old state would fail on it again.
            Adoption::Ready { .. } => Duration::ZERO,
            Adoption::Waits { needs_a_person: true, .. } => WAITS_FOR_A_PERSON.after(self.before),
            Adoption::Waits { needs_a_person: false, .. } | Adoption::None => LOOK_EVERY,
            Adoption::Taken { .. } => BESIDE_EVERY,
        };
        period.saturating_sub(self.at.elapsed())
    }
}

impl Seeker {
    /// When to look again.
    pub(super) fn due(&self) -> Option<Duration> {
        let look = self.0.as_ref()?;
        match look.sought.state {
            Adoption::None => None,
            Adoption::Ready { .. } => Some(LOOK_EVERY),
            Adoption::Waits { .. } | Adoption::Taken { .. } => Some(look.holds_for()),
        }
    }

    /// What the last look found, where that is good for this spec still.
    fn remembered(&self, of: &LookedAt) -> Option<Sought> {
        let look = self.0.as_ref().filter(|look| look.of == *of && !look.holds_for().is_zero())?;
        Some(look.sought.clone())
    }

    /// Who scaled it when it was looked at last.
    fn scaler(&self, of: &LookedAt) -> Option<String> {
        match &self.0.as_ref().filter(|look| look.of == *of)?.sought.state {
            Adoption::Taken { scaler, .. } => scaler.clone(),
            Adoption::None | Adoption::Waits { .. } | Adoption::Ready { .. } => None,
        }
    }

    pub(super) async fn look(
        &mut self,
        sources: &Sources,
        app: &Validated,
        ours: &[Ours],
        writes: &Writes,
        now: Timestamp,
    ) -> Sought {
        let taken = ours.iter().find(|o| o.hash.is_adopted());
        let name = taken.map(|o| o.object.name_any());
        let wanted = app.adopt.as_ref().map(|adopt| adopt.deployment.as_str());
        let wanted = wanted.filter(|wanted| name.as_deref() != Some(wanted));
        if wanted.is_none() && !taken.is_some_and(Ours::is_in_use) {
            self.0 = None;
            return Sought::default();
        }
        let of = (app.adopt.clone(), name);
        if let Some(sought) = self.remembered(&of) {
            return sought;
        }
        let sought = match (taken, wanted) {
            (Some(taken), None) => beside::look(sources, app, taken, self.scaler(&of)).await,
            (Some(other), Some(_)) => one_at_a_time(app, &other.object.name_any()),
            (None, Some(wanted)) => look(sources, app, wanted, ours, writes, now).await,
            (None, None) => Sought::default(),
        };
        let before = self.0.take().filter(|last| last.of == of && last.sought.state == sought.state);
        let before = before.map_or(0, |last| last.before.saturating_add(1));
        self.0 = Some(Look { at: Instant::now(), of, before, sought: sought.clone() });
        sought
    }
}

fn one_at_a_time(app: &Validated, other: &str) -> Sought {
    waits(format!(
        "spec.adopt.deployment: Deployment {other} was adopted before, and one is at a time: delete it (`kubectl -n {} label deployment {other} {}-`, \
         then `kubectl delete`) once it is at 0",
        app.namespace,
        names::APP_LABEL
    ))
}

/// At one that is not taken.
async fn look(
    sources: &Sources,
    app: &Validated,
    wanted: &str,
    ours: &[Ours],
    writes: &Writes,
    now: Timestamp,
) -> Sought {
    let refused = writes.backoff(&Subject::Annotations(RevisionHash::adopted()), now);
    match refused.filter(|backoff| backoff.until > now) {
        Some(backoff) => match backoff.cause {
            BackoffCause::Refused | BackoffCause::NoProgress => waits(backoff.message),
            BackoffCause::TooSlow | BackoffCause::NotFollowed => comes_by_itself(backoff.message),
        },
        None => {
            let sought = seek(&sources.client, app, wanted, ours).await;
            sought.unwrap_or_else(|error| unread(wanted, &error))
        }
    }
}

/// Reads it, and what stands around it.
async fn seek(client: &Client, app: &Validated, name: &str, ours: &[Ours]) -> Result<Sought, Error> {
    if ours.iter().any(|o| o.object.name_any() == name) {
        return Ok(waits(format!(
            "spec.adopt.deployment: Deployment {name} is a revision of this app: remove spec.adopt"
        )));
    }
    let api: Api<Decoded<Deployment>> = Api::namespaced(client.clone(), &app.namespace);
    let Some(found) = call("read the Deployment to adopt", api.get_opt(name)).await? else {
        // One that has been adopted and deleted is no reason to stop; one that never was there may be a typing error.
        return Ok(if ours.is_empty() { missing(app, name) } else { Sought::default() });
    };
    if let Some(fault) = found.fault() {
        return Ok(waits(format!("Deployment {name} cannot be read: {fault}")));
    }
    let found = Arc::new(found).shared();
    if let Some(whose) = of_another(app, &found) {
        return Ok(waits(whose));
    }
    if let Some(scaler) = scaler(client, app, name, "adopted").await? {
        return Ok(waits(scaler));
    }
    let template = Template::from(found.spec.template.clone());
    let policy = match app.adopt.as_ref().map(|adopt| adopt.policy(&template)) {
        Some(Ok(policy)) => policy,
        Some(Err(fault)) => return Ok(waits(fault.to_string())),
        None => return Ok(Sought::default()),
    };
    if let Some(unsettled) = unsettled(client, app, &found).await? {
        return Ok(comes_by_itself(format!(
            "Deployment {name} is adopted once its own rollout is complete: {unsettled}"
        )));
    }
    let state = Adoption::Ready { deployment: name.to_owned() };
    Ok(Sought { state, found: Some((found, policy)) })
}

fn waits(message: String) -> Sought {
    Sought { state: Adoption::Waits { message, needs_a_person: true }, found: None }
}

fn comes_by_itself(message: String) -> Sought {
    Sought { state: Adoption::Waits { message, needs_a_person: false }, found: None }
}

/// What the app runs itself goes on without it.
fn unread(name: &str, error: &Error) -> Sought {
    let message = format!(
        "whether Deployment {name} can be adopted cannot be read: {} (retried every {} s)",
        chain(error),
        LOOK_EVERY.as_secs()
    );
    if error.denial().is_some() { waits(message) } else { comes_by_itself(message) }
}

fn missing(app: &Validated, name: &str) -> Sought {
    waits(format!(
        "spec.adopt.deployment: there is no Deployment {name} in namespace {}; write the name of the one to adopt, or remove spec.adopt to start without one",
        app.namespace
    ))
}

/// What it is about still: a Deployment that is paused half-way would stay so, with two ReplicaSets that it scales in proportion.
async fn unsettled(
    client: &Client,
    app: &Validated,
    found: &Arc<Deployment>,
) -> Result<Option<String>, Error> {
    if found.metadata.deletion_timestamp.is_some() {
        return Ok(Some("it is being deleted".to_owned()));
    }
    let wanted = found.spec.replicas.unwrap_or(1);
    let status = found.status.clone().unwrap_or_default();
    let [there, updated, available] =
        [status.replicas, status.updated_replicas, status.available_replicas].map(Option::unwrap_or_default);
    if !followed(found) || [there, updated, available] != [wanted; 3] {
        return Ok(Some(format!(
            "{there} pods, {updated} of them of its newest template and {available} Available, {wanted} asked for"
        )));
    }
    let Some(selector) = selector(found) else {
        return Ok(Some("its selector cannot be read".to_owned()));
    };
    let pods: Vec<Decoded<Pod>> = list(client, &app.namespace, &selector, "list pods").await?;
    let mixed = templates(pods.iter().map(|pod| &**pod), &found.name_any()) > 1;
    Ok(mixed.then(|| "pods of an older template are ending".to_owned()))
}

/// Of how many templates its pods are. The record of one that has finished stays for as long as nobody removes it.
fn templates<'a>(pods: impl Iterator<Item = &'a Pod>, deployment: &str) -> usize {
    let its = pods.filter(|pod| pods::is_made_by(&pod.metadata, deployment) && !pods::has_finished(pod));
    its.filter_map(|pod| pod.labels().get(pods::TEMPLATE_HASH)).collect::<BTreeSet<_>>().len()
}

/// What selects its pods, as the API server wants it.
pub(super) fn selector(deployment: &Deployment) -> Option<String> {
    let selector = Selector::try_from(deployment.spec.selector.clone()).ok()?;
    Some(selector.to_string()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use graceful_api::GracefulApp;
    use serde_json::json;

    use super::*;

    /// The Deployment that the spec named before would be adopted.
    #[test]
    fn a_look_is_good_for_the_spec_that_it_was_made_for_and_to_act_on_once() {
        let spec = |name: &str| {
            let in_flight =
                json!({"port": "admin", "path": "/n", "format": "JsonPointer", "jsonPointers": ["/n"]});
            let mut app: GracefulApp = serde_json::from_value(json!({
                "apiVersion": "graceful.dev/v1alpha1", "kind": "GracefulApp",
                "metadata": {"name": "tasks", "namespace": "apps", "uid": "u"},
                "spec": {"template": {"spec": {"containers": [
                    {"name": "s", "image": "x", "ports": [{"name": "admin", "containerPort": 9808}]}]}}},
            }))
            .unwrap();
            app.spec.adopt =
                serde_json::from_value(json!({"deployment": name, "inFlight": in_flight})).unwrap();
            (Validated::try_from(&app).unwrap().adopt, None)
        };
        let found = |state: Adoption| {
            let sought = Sought { state, found: None };
            Seeker(Some(Look { at: Instant::now(), of: spec("web"), before: 0, sought }))
        };
        let waits = Adoption::Waits { message: "an HPA is on it".to_owned(), needs_a_person: true };
        let seeker = found(waits.clone());
        assert_eq!(seeker.remembered(&spec("web")).map(|sought| sought.state), Some(waits));
        assert!(seeker.remembered(&spec("other")).is_none());
        let taken_since = (spec("web").0, Some("web".to_owned()));
        assert!(seeker.remembered(&taken_since).is_none());
        let ready = found(Adoption::Ready { deployment: "web".to_owned() });
        assert!(ready.remembered(&spec("web")).is_none(), "what met a conflict is looked at anew");
    }

    #[test]
    fn the_record_of_a_pod_that_has_finished_is_no_rollout() {
        let pod = |template: &str, phase: &str| -> Pod {
            let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("web-{template}"), "uid": "x", "controller": true});
            let labels = json!({(pods::TEMPLATE_HASH): template});
            serde_json::from_value(json!({"metadata": {"labels": labels, "ownerReferences": [owner]}, "status": {"phase": phase}}))
                .unwrap()
        };
        let of = |pods: &[Pod]| templates(pods.iter(), "web");
        assert_eq!(of(&[pod("new", "Running"), pod("old", "Running")]), 2);
        assert_eq!(of(&[pod("new", "Running"), pod("new", "Pending"), pod("old", "Failed")]), 1);
    }
}
