//! What stands around an app's pods: verdicts, children, other people's Services and budgets, and what its user should know.

mod not_ours;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use graceful_api::conditions::Reason;
use graceful_api::{Validated, inject, names};
use graceful_plan::refusals::Subject;
use graceful_plan::{Adoption, Backoff, Child, LeftBehind, Surroundings, TemplateVerdict, Warning};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use kube::core::{Selector, SelectorExt};
use serde_json::Value;

use self::not_ours::{of_another, of_others, pods_let_go};
use super::child_state::{Parent, cannot_be, refused, soon};
use super::children::{self, Ownership, Wanted};
use super::gates;
use super::pods::{self, has_finished, mark, uid};
use super::policies::Policies;
use super::revisions::Ours;
use super::view::View;
use crate::writes::{REFUSAL_HOLDS, Writes};

/// The labels of one pod, or of the template.
pub(super) type Labels = BTreeMap<String, String>;

/// The children as they should be; none where none is wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct WantedChildren {
    pub(crate) service: Option<Wanted>,
    pub(crate) budget: Option<Wanted>,
}

/// Of an app that stays.
pub(crate) fn surroundings(
    app: &Validated,
    view: &View,
    ours: &[Ours],
    pods: &[&Pod],
    (writes, policies): (&Writes, &Policies),
    now: Timestamp,
) -> (Surroundings, WantedChildren) {
    let mut warnings = warnings(app, ours);
    warnings.extend(of_others(app, view));
    warnings.extend(pods_let_go(app, view));
    let labels = pod_labels(app, pods);
    warnings.extend(policies.warning(app, &labels));
    let foreign_budgets = foreign_budgets(app, view, &labels);
    // Where writes to a pod are refused, its mark may be another than it should be.
    let not_to_be_written = |pod: &Pod| writes.backoff(&Subject::Pod(uid(pod)), now).is_some();
    let all_marked = pods.iter().filter(|pod| !has_finished(pod)).all(|pod| {
        pod.metadata.deletion_timestamp.is_some() || (mark(pod).is_clear() && !not_to_be_written(pod))
    });
    let mut wanted = WantedChildren {
        service: children::service(app),
        // Two budgets on one pod make the eviction API fail outright: ours steps aside.
        budget: children::budget(app, all_marked).filter(|_| foreign_budgets.is_empty()),
    };
    let (service, budget) =
        (there(&view.services, &app.name), there(&view.budgets, &names::pdb_name(&app.name)));
    for (wanted, there) in [(&mut wanted.service, service.is_some()), (&mut wanted.budget, budget.is_some())]
    {
        if let Some(wanted) = wanted {
            wanted.there = there;
        }
    }
    let pdb_name = names::pdb_name(&app.name);
    let parent = Parent { app, writes, now };
    let service = parent.state("Service", &app.name, wanted.service.as_ref(), service);
    let budget = parent.state("PodDisruptionBudget", &pdb_name, wanted.budget.as_ref(), budget);
    warnings.extend([service.warning, budget.warning].into_iter().flatten());
    warnings.extend(steps_aside(app, &foreign_budgets, all_marked));
    let surroundings = Surroundings {
        service: service.child,
        budget: budget.child,
        template: verdict(app, view, ours, writes),
        unfenced_services: if app.accept_unfenced_services {
            Vec::new()
        } else {
            unfenced(app, view, &labels)
        },
        bypasses: if app.accept_unfenced_services {
            Vec::new()
        } else {
            gates::bypasses(app, view, ours, &labels)
        },
        adoption: Adoption::None,
        fenceable: fenceable(app, view, ours, &labels),
        fenced: fenced(&app.uid, view),
        left_behind: left_behind(app, view, ours, &labels),
        publishing_unready: publishing_unready(&view.services, &labels),
        brake: None,
        namespace_terminating: writes.namespace_terminating,
        warnings,
        children_backoff: [service.late, budget.late].into_iter().flatten().collect(),
        services_backoff: writes.refusals.of_services(now, Instant::now()),
    };
    (surroundings, wanted)
}

/// Our budget steps aside for one of the user's over the same pods, where one of ours is wanted.
fn steps_aside(app: &Validated, foreign_budgets: &[String], all_marked: bool) -> Option<Warning> {
    let first = foreign_budgets.first()?;
    children::budget(app, all_marked)?;
    let message = format!(
        "PodDisruptionBudget {first} covers this app's pods, and two on one pod make every eviction fail: ours ({}) steps aside, so an eviction \
         may end a pod that was not drained; remove {first}, or set spec.disruption to Allow",
        names::pdb_name(&app.name)
    );
    Some(Warning { reason: Reason::ForeignDisruptionBudget, message })
}

/// Of an app that goes: no child is wanted any more.
pub(crate) fn surroundings_in_deletion(
    app: &str,
    uid: &str,
    view: &View,
    pods: &[&Pod],
    writes: &Writes,
    now: Timestamp,
) -> Surroundings {
    let mut children_backoff = Vec::new();
    let mut gone = |kind: &str, name: &str, ownership| {
        let Ownership::Ours(child, _) = ownership else { return Child::AsWanted };
        if let (true, Some((refusal, left))) = (child != Child::AsWanted, refused(writes, kind, None)) {
            let message = cannot_be("removed", kind, name, refusal);
            children_backoff.push(Backoff { cause: refusal.kind, message, until: soon(left, now) });
        }
        child
    };
    let pdb = names::pdb_name(app);
    let service = gone("Service", app, children::ownership(uid, None, there(&view.services, app)));
    let budget =
        gone("PodDisruptionBudget", &pdb, children::ownership(uid, None, there(&view.budgets, &pdb)));
    Surroundings {
        service,
        budget,
        children_backoff,
        services_backoff: writes.refusals.of_services(now, Instant::now()),
        fenced: fenced(uid, view),
        publishing_unready: publishing_unready(&view.services, &labels_of(pods).collect()),
        namespace_terminating: writes.namespace_terminating,
        ..Surroundings::default()
    }
}

pub(crate) fn there<'a, K: kube::Resource>(objects: &'a [Arc<K>], name: &str) -> Option<&'a K> {
    objects.iter().map(AsRef::as_ref).find(|o| o.meta().name.as_deref() == Some(name))
}

fn verdict(app: &Validated, view: &View, ours: &[Ours], writes: &Writes) -> TemplateVerdict {
    if ours.iter().any(|o| o.hash.0 == app.revision.0) {
        return TemplateVerdict::Accepted;
    }
    let name = names::deployment_name(&app.name, app.revision.as_str());
    if let Some(found) = there(&view.deployments, &name) {
        let uid = found.annotations().get(names::APP_UID);
        return TemplateVerdict::Refused(format!(
            "Deployment {name} is there already; {}",
            of_another(app, &name, uid)
        ));
    }
    let Some(held) = writes.verdicts.get(app.revision.as_str()) else {
        return TemplateVerdict::Unknown;
    };
    match (held.remaining(REFUSAL_HOLDS), &held.value) {
        (Some(_), verdict) => verdict.clone(),
        (None, TemplateVerdict::Refused(why)) => TemplateVerdict::RefusedBefore(why.clone()),
        (None, TemplateVerdict::Unanswered { why, .. }) => {
            TemplateVerdict::Unanswered { why: why.clone(), ask_again: true }
        }
        (None, _) => TemplateVerdict::Unknown,
    }
}

/// The labels of the pods there are and of those to come, without the one that is taken off when they drain.
fn pod_labels(app: &Validated, pods: &[&Pod]) -> BTreeSet<Labels> {
    labels_of(pods).chain([labels_to_come(app)]).collect()
}

fn labels_to_come(app: &Validated) -> Labels {
    let mut to_come: Labels =
        serde_json::from_value(app.template.0["metadata"]["labels"].clone()).unwrap_or_default();
    to_come.insert(names::APP_LABEL.to_owned(), app.name.clone());
    to_come.insert(names::REVISION_LABEL.to_owned(), app.revision.0.clone());
    to_come
}

/// Of pods that are there, without those that come and go with each. The record of one that has finished is none: no client is sent to it, and no eviction
/// asks for it.
fn labels_of(pods: &[&Pod]) -> impl Iterator<Item = Labels> {
    pods.iter().filter(|pod| !has_finished(pod)).map(|pod| {
        let mut labels = pod.labels().clone();
        labels.remove(names::SERVING_LABEL);
        labels.remove(pods::TEMPLATE_HASH);
        labels
    })
}

/// Whether this Service sends clients to pods with these labels. The endpoints of one without a selector are made by hand.
pub(crate) fn selects(service: &Service, labels: &Labels) -> bool {
    let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref()).filter(|s| !s.is_empty());
    selector.is_some_and(|s| s.iter().all(|(key, value)| labels.get(key) == Some(value)))
}

/// Services that would go on sending clients to a pod whose serving label was taken off.
fn unfenced(app: &Validated, view: &View, pods: &BTreeSet<Labels>) -> Vec<String> {
    let routes = |service: &Service| pods.iter().any(|labels| selects(service, labels));
    let managed = |service: &Service| service.annotations().get(names::APP_UID) == Some(&app.uid);
    view.services.iter().filter(|s| !managed(s) && routes(s)).map(|s| s.name_any()).collect()
}

/// Pods of the adopted Deployment by their labels, while it is not at 0.
fn adopted_labels(ours: &[Ours], pods: &BTreeSet<Labels>) -> Vec<Labels> {
    let adopted = ours.iter().find(|o| o.hash.is_adopted());
    let Some(adopted) = adopted.filter(|o| o.is_in_use()) else { return Vec::new() };
    let template = adopted.object.spec.template.metadata.as_ref();
    let of_template = template.and_then(|m| m.labels.clone()).unwrap_or_default();
    // Those that run may have been given more; a template asks for what they have in common.
    let its = pods.iter().filter(|labels| of_template.iter().all(|(k, v)| labels.get(k) == Some(v)));
    let its =
        its.filter(|labels| labels.get(names::REVISION_LABEL).is_none_or(|r| r == names::ADOPTED_REVISION));
    its.cloned().chain([of_template.clone()]).collect()
}

/// Services of the user's that send clients to its pods, labelled or not, and that the operator has not fenced before: who put their selector back meant it.
fn fenceable(app: &Validated, view: &View, ours: &[Ours], pods: &BTreeSet<Labels>) -> Vec<String> {
    let its = adopted_labels(ours, pods);
    if app.accept_unfenced_services || its.is_empty() {
        return Vec::new();
    }
    let routes = |service: &Service| its.iter().any(|labels| selects(service, labels));
    let once = |service: &Service| service.annotations().get(names::FENCED) == Some(&app.uid);
    let managed = |service: &Service| service.annotations().get(names::APP_UID) == Some(&app.uid);
    view.services.iter().filter(|s| !managed(s) && !once(s) && routes(s)).map(|s| s.name_any()).collect()
}

/// Those that it has fenced.
fn fenced(app_uid: &str, view: &View) -> Vec<String> {
    let ours =
        |service: &&Arc<Service>| service.annotations().get(names::FENCED).is_some_and(|uid| uid == app_uid);
    view.services.iter().filter(ours).map(|s| s.name_any()).collect()
}

/// Services of the user's that send clients to pods of the adopted Deployment, and would send none to those of the template. One that asks for a ReplicaSet's own
/// pods means just those.
fn left_behind(app: &Validated, view: &View, ours: &[Ours], pods: &BTreeSet<Labels>) -> Vec<LeftBehind> {
    let its = adopted_labels(ours, pods);
    if app.accept_unfenced_services || its.is_empty() {
        return Vec::new();
    }
    let to_come = labels_to_come(app);
    let passing = |key: &str| key == names::SERVING_LABEL;
    let found = view.services.iter().filter_map(|service| {
        let selector = service.spec.as_ref()?.selector.as_ref().filter(|s| !s.is_empty())?;
        let leads =
            its.iter().any(|labels| selector.iter().all(|(k, v)| passing(k) || labels.get(k) == Some(v)));
        let lacks = selector.iter().filter(|(k, v)| !passing(k) && to_come.get(*k) != Some(*v));
        let lacks: Vec<_> = lacks.map(|(k, v)| format!("{k}: {v}")).collect();
        let of_one_set = selector.contains_key(pods::TEMPLATE_HASH);
        (leads && !lacks.is_empty() && !of_one_set).then(|| LeftBehind { service: service.name_any(), lacks })
    });
    found.collect()
}

/// Services, ours or others', that send clients to pods before they are Ready.
fn publishing_unready(services: &[Arc<Service>], pods: &BTreeSet<Labels>) -> Vec<String> {
    let publishes = |service: &Service| {
        service.spec.as_ref().is_some_and(|s| s.publish_not_ready_addresses == Some(true))
    };
    services.iter().filter(|s| publishes(s) && leads_to(s, pods)).map(|s| s.name_any()).collect()
}

/// Whether it sends clients to these pods while they serve.
pub(super) fn leads_to(service: &Service, pods: &BTreeSet<Labels>) -> bool {
    let serving = |key: &String| key == names::SERVING_LABEL;
    let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref()).filter(|s| !s.is_empty());
    selector.is_some_and(|s| {
        let carried = |labels: &Labels| s.iter().all(|(k, v)| serving(k) || labels.get(k) == Some(v));
        pods.iter().any(carried)
    })
}

/// Budgets of others over these pods.
fn foreign_budgets(app: &Validated, view: &View, pods: &BTreeSet<Labels>) -> Vec<String> {
    let ours = |budget: &PodDisruptionBudget| budget.annotations().get(names::APP_UID) == Some(&app.uid);
    view.budgets.iter().filter(|b| !ours(b) && covers(b, pods)).map(|b| b.name_any()).collect()
}

/// Whether a budget selects one of these pods, be it while that serves or while it drains. One without a selector selects nothing, one with an empty selector all.
fn covers(budget: &PodDisruptionBudget, pods: &BTreeSet<Labels>) -> bool {
    let selector = budget.spec.as_ref().and_then(|s| s.selector.clone());
    let Some(selector) = selector.and_then(|s| Selector::try_from(s).ok()) else { return false };
    let serving = |labels: &Labels| {
        let mut labels = labels.clone();
        labels.insert(names::SERVING_LABEL.to_owned(), names::SERVING.to_owned());
        labels
    };
    pods.iter().any(|labels| selector.matches(labels) || selector.matches(&serving(labels)))
}

/// Paths that are known to fail while a pod drains: the seed's health route answers 503 then.
const FAILS_WHILE_DRAINING: [&str; 1] = ["/v1/health"];

fn warnings(app: &Validated, ours: &[Ours]) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if let Some(message) = app.grace_warning.clone() {
        warnings.push(Warning { reason: Reason::GraceTooShort, message });
    }
    if let Some(update) = ours.iter().find(|o| o.hash.0 == app.revision.0) {
        let template = serde_json::to_value(&update.object.spec.template).unwrap_or_default();
        let differences = inject::baked_in_differences(app, &template);
        if !differences.is_empty() {
            let message = format!(
                "{}; pods get these at their creation, so change the template as well to roll them out",
                differences.join("; ")
            );
            warnings.push(Warning { reason: Reason::BakedInDiffers, message });
        }
    }
    // Behind a gate it is not the app that drains.
    warnings.extend(failing_probes(&app.template.0).filter(|_| app.gate.is_none()));
    warnings.extend(gates::hooks(app));
    warnings.extend(no_such_port(app));
    warnings
}

/// Kubernetes takes such a Service, and sends no client anywhere.
fn no_such_port(app: &Validated) -> Option<Warning> {
    let spec = &app.template.0["spec"];
    let containers = ["containers", "initContainers"]
        .into_iter()
        .flat_map(|kind| spec[kind].as_array().into_iter().flatten());
    let ports: Vec<_> = containers.flat_map(|c| c["ports"].as_array().into_iter().flatten()).collect();
    let missing = app.service.iter().flat_map(|s| &s.ports).find_map(|port| match &port.target_port {
        Some(IntOrString::String(name)) if !ports.iter().any(|p| p["name"] == name.as_str()) => Some(name),
        _ => None,
    })?;
    let message = format!(
        "spec.service sends clients to the port named {missing}, and no container has one: add {{name: {missing}, containerPort: …}} to the one that \
         listens there, or write its number as targetPort"
    );
    Some(Warning { reason: Reason::NoSuchPort, message })
}

fn failing_probes(template: &Value) -> Option<Warning> {
    let containers = template["spec"]["containers"].as_array()?;
    let found = containers.iter().find_map(|container| {
        let kind = ["livenessProbe", "readinessProbe"].into_iter().find(|kind| {
            let path = container[kind]["httpGet"]["path"].as_str();
            path.is_some_and(|p| FAILS_WHILE_DRAINING.contains(&p.trim_end_matches('/')))
        })?;
        Some((container["name"].as_str().unwrap_or_default(), kind))
    });
    let (container, kind) = found?;
    let outcome = match kind {
        "livenessProbe" => "the kubelet would restart a pod that is busy",
        _ => "its ReplicaSet would take a draining pod first",
    };
    let message = format!(
        "the {kind} of container {container} asks /v1/health, which fails while a pod drains: {outcome}; use /livez and /readyz"
    );
    Some(Warning { reason: Reason::ProbeFailsWhileDraining, message })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Two budgets on one pod make each eviction of it fail: one that is overlooked stops `kubectl drain`.
    #[test]
    fn a_budget_covers_what_the_eviction_api_says_it_does() {
        let labels = [("app", "tasks"), ("tier", "web")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let pods = BTreeSet::from([Labels::from(labels)]);
        let covers = |spec: Value| {
            let budget = json!({"metadata": {"name": "mine", "namespace": "apps"}, "spec": spec});
            covers(&serde_json::from_value(budget).unwrap(), &pods)
        };
        let by = |key: &str, value: &str| covers(json!({"selector": {"matchLabels": {(key): value}}}));
        assert!(by("app", "tasks") && !by("app", "other") && !by("zone", "a"));
        assert!(by(names::SERVING_LABEL, names::SERVING), "each serves at some time");
        let expression = |key: &str, operator: &str, values: &[&str]| {
            let values = Some(values).filter(|values| !values.is_empty());
            covers(
                json!({"selector": {"matchExpressions": [{"key": key, "operator": operator, "values": values}]}}),
            )
        };
        assert!(expression("tier", "In", &["db", "web"]) && !expression("tier", "NotIn", &["db", "web"]));
        assert!(expression("zone", "DoesNotExist", &[]) && !expression("zone", "Exists", &[]));
        assert!(expression(names::SERVING_LABEL, "DoesNotExist", &[]), "and drains at another");
        assert!(covers(json!({"selector": {}})), "all pods of the namespace");
        assert!(!covers(json!({})), "none");
        let both = json!({"matchLabels": {"app": "tasks"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}]});
        assert!(covers(json!({"selector": both})));
    }

    /// P1, P7: what such a Service leads to may have had work before it was Ready, and is never taken for a pod that never worked.
    #[test]
    fn a_service_that_publishes_unready_addresses_is_found() {
        let pods = BTreeSet::from([Labels::from([("app".to_owned(), "tasks".to_owned())])]);
        let published = |spec: Value| {
            let service = json!({"metadata": {"name": "headless", "namespace": "apps"}, "spec": spec});
            !publishing_unready(&[Arc::new(serde_json::from_value(service).unwrap())], &pods).is_empty()
        };
        let unready = |publishes: Option<bool>, selector: Value| {
            published(json!({"publishNotReadyAddresses": publishes, "selector": selector}))
        };
        assert!(unready(Some(true), json!({"app": "tasks"})));
        assert!(!unready(Some(false), json!({"app": "tasks"})) && !unready(None, json!({"app": "tasks"})));
        assert!(!unready(Some(true), json!({"app": "other"})));
        let of_serving = json!({"app": "tasks", (names::SERVING_LABEL): names::SERVING});
        assert!(unready(Some(true), of_serving), "a pod has that label from birth");
        assert!(!unready(Some(true), json!({})), "its endpoints are made by hand");
    }
}
