//! The Deployment in `spec.adopt`: whether it can be taken now; and once it is the app's, what others do beside us until it is at 0 ([`beside`]).
//!
//! No watch of ours shows any of it, since it has no label of ours: it is read, and again after a while.

mod beside;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use graceful_api::template::Template;
use graceful_api::{Adoption as AdoptSpec, Policy, RevisionHash, Validated, names};
use graceful_plan::refusals::Subject;
use graceful_plan::{Adoption, BackoffCause, Doubling};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::core::Selector;
use kube::{Api, Client, ResourceExt};

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

#[derive(Debug)]
struct Look {
    at: Instant,
    /// What the spec said then, and the Deployment that was the app's: of anything else it says nothing.
    of: (Option<AdoptSpec>, Option<String>),
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
        let last = self.0.take().filter(|look| look.of == of);
        if let Some(look) = last.as_ref().filter(|look| !look.holds_for().is_zero()) {
            let sought = look.sought.clone();
            self.0 = last;
            return sought;
        }
        let sought = match (taken, wanted) {
            (Some(taken), None) => beside::look(sources, app, taken).await,
            (Some(other), Some(_)) => one_at_a_time(app, &other.object.name_any()),
            (None, Some(wanted)) => look(sources, app, wanted, ours, writes, now).await,
            (None, None) => Sought::default(),
        };
        let before = last.filter(|last| last.sought.state == sought.state);
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

/// Whose it is, if somebody else has it in hand.
fn of_another(app: &Validated, found: &Deployment) -> Option<String> {
    let name = found.name_any();
    if let Some(owner) = found.owner_references().iter().find(|o| o.controller == Some(true)) {
        return Some(format!(
            "Deployment {name} is controlled by {} {}, which would write it back: adopt one that nobody controls",
            owner.kind, owner.name
        ));
    }
    let Some(its_app) = found.labels().get(names::APP_LABEL) else {
        return made_by_an_app(found);
    };
    let adopted =
        found.labels().get(names::REVISION_LABEL).map(String::as_str) == Some(names::ADOPTED_REVISION);
    let (namespace, label) = (&app.namespace, names::APP_LABEL);
    Some(match (*its_app == app.name, adopted) {
        (false, true) => format!(
            "Deployment {name} is adopted by GracefulApp {its_app}: one app adopts it, remove spec.adopt from the other"
        ),
        (false, false) => format!(
            "Deployment {name} is one revision of GracefulApp {its_app}: name a Deployment of your own"
        ),
        // Of an earlier app of this name, or a copy of one that was adopted.
        (true, _) => made_by_an_app(found).unwrap_or_else(|| format!(
            "Deployment {name} has this app's label and is not as this app made it: `kubectl -n {namespace} label deployment {name} {label}-` makes it one \
             that can be adopted"
        )),
    })
}

/// One that an app made and left is told by its selector, which never changes. Its ReplicaSet would let go of each pod that is given the labels of an adopted one,
/// and make another, without end.
fn made_by_an_app(found: &Deployment) -> Option<String> {
    let selector = &found.spec.selector;
    let expressions = selector.match_expressions.iter().flatten().map(|e| &e.key);
    let mut keys = selector.match_labels.iter().flat_map(|labels| labels.keys()).chain(expressions);
    let key = keys.find(|key| key.strip_prefix(names::GROUP).is_some_and(|rest| rest.starts_with('/')))?;
    Some(format!(
        "Deployment {} cannot be adopted: its selector asks for {key}, since a GracefulApp made it, and a selector never changes; make a Deployment with \
         labels of your own",
        found.name_any()
    ))
}

/// Who else scales it; it is `done` once nobody does.
async fn scaler(client: &Client, app: &Validated, name: &str, done: &str) -> Result<Option<String>, Error> {
    let api: Api<HorizontalPodAutoscaler> = Api::namespaced(client.clone(), &app.namespace);
    let all = call("list HorizontalPodAutoscalers", api.list(&ListParams::default())).await?;
    let on_it = |hpa: &&HorizontalPodAutoscaler| {
        let target = &hpa.spec.scale_target_ref;
        target.kind == "Deployment" && target.name == name
    };
    Ok(all.items.iter().find(on_it).map(|hpa| {
        let (hpa, namespace, app) = (hpa.name_any(), &app.namespace, &app.name);
        let (group, version, kind) = (names::GROUP, names::VERSION, names::KIND);
        format!(
            "HorizontalPodAutoscaler {hpa} scales Deployment {name}, which is {done} once nobody else does: `kubectl -n {namespace} patch hpa {hpa} --type merge -p \
             '{{\"spec\":{{\"scaleTargetRef\":{{\"apiVersion\":\"{group}/{version}\",\"kind\":\"{kind}\",\"name\":\"{app}\"}}}}}}'` lets it scale the app (of one \
             that KEDA keeps: scaleTargetRef of its ScaledObject)"
        )
    }))
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
    use serde_json::{Value, json};

    use super::*;

    fn app() -> Validated {
        let app: GracefulApp = serde_json::from_value(json!({
            "apiVersion": "graceful.dev/v1alpha1", "kind": "GracefulApp",
            "metadata": {"name": "tasks", "namespace": "apps", "uid": "u"},
            "spec": {"template": {"spec": {"containers": [
                {"name": "s", "image": "x", "ports": [{"name": "admin", "containerPort": 9808}]}]}}},
        }))
        .unwrap();
        Validated::try_from(&app).unwrap()
    }

    #[test]
    fn a_deployment_that_somebody_has_in_hand_is_not_taken() {
        let whose = |metadata: Value| {
            let mut metadata = metadata;
            metadata["name"] = json!("web");
            let found = json!({"metadata": metadata, "spec": {"selector": {}, "template": {}}});
            of_another(&app(), &serde_json::from_value(found).unwrap())
        };
        let labelled = |app: &str, revision: &str| {
            whose(json!({"labels": {(names::APP_LABEL): app, (names::REVISION_LABEL): revision}})).unwrap()
        };
        assert_eq!(whose(json!({"labels": {"app": "web"}})), None);
        assert!(labelled("other", "adopted").contains("is adopted by GracefulApp other"));
        assert!(labelled("other", "ph4cjw6b").contains("is one revision of GracefulApp other"));
        assert!(
            labelled("tasks", "adopted").contains("kubectl -n apps label deployment web graceful.dev/app-")
        );
        let rollout = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "r", "uid": "x", "controller": true});
        assert!(whose(json!({"ownerReferences": [rollout]})).unwrap().contains("is controlled by Rollout r"));
    }

    /// P1: the labels that its pods would be given are not what its selector asks for.
    #[test]
    fn a_deployment_that_an_app_made_and_left_is_not_taken() {
        let whose = |labels: Value, selector: Value| {
            let found = json!({"metadata": {"name": "old-ph4cjw6b", "labels": labels},
                "spec": {"selector": selector, "template": {}}});
            of_another(&app(), &serde_json::from_value(found).unwrap()).unwrap_or_default()
        };
        let made = json!({"matchLabels": {"app": "web", (names::REVISION_LABEL): "ph4cjw6b"}});
        let asks = json!({"matchExpressions": [{"key": names::APP_LABEL, "operator": "DoesNotExist"}]});
        let refused = "make a Deployment with labels of your own";
        assert!(whose(json!({}), made.clone()).contains(refused));
        assert!(whose(json!({}), asks).contains(names::APP_LABEL));
        // To take its label off would not help.
        let labelled = whose(json!({(names::APP_LABEL): "tasks"}), made);
        assert!(labelled.contains(refused) && !labelled.contains("can be adopted"), "{labelled}");
        assert_eq!(whose(json!({}), json!({"matchLabels": {"graceful.developer/x": "y"}})), "");
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
