//! Deployments of ours as the planner sees them, and the policy that each one's pods are asked and drained by.

use std::sync::Arc;

use graceful_api::{Adopted, DrainPolicy, Policy, RevisionHash, Template, Validated, names};
use graceful_plan::refusals::Subject;
use graceful_plan::{Failure, Node, Revision};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::app_pods::app_containers;
use super::pods;
use crate::keys::{KeyId, named_by};
use crate::writes::Writes;

/// One Deployment of ours.
pub(crate) struct Ours {
    pub(crate) object: Arc<Deployment>,
    pub(crate) hash: RevisionHash,
    /// None where the annotation is missing or garbled: its pods are not asked, hence busy.
    pub(crate) policy: Option<Policy>,
    /// The keys that the container which is asked was given.
    pub(crate) keys: Arc<[KeyId]>,
}

impl Ours {
    /// If it carries this app's uid, and the name that we gave it, or its own uid as it was adopted: others are not ours, a copy that somebody made of one among them.
    pub(crate) fn of(object: &Arc<Deployment>, app_uid: &str) -> Option<Self> {
        let policy = object.annotations().get(names::POLICY);
        let label = |key| object.labels().get(key).map_or("", String::as_str);
        let name = names::deployment_name(label(names::APP_LABEL), label(names::REVISION_LABEL));
        let carries = object.annotations().get(names::APP_UID).map(String::as_str) == Some(app_uid);
        let as_made = match label(names::REVISION_LABEL) {
            names::ADOPTED_REVISION => adopted(object),
            _ => object.name_any() == name,
        };
        (carries && as_made).then(|| {
            let policy = policy.and_then(|text| Policy::from_annotation(text).ok());
            let asked = policy.as_ref().map(|p| p.in_flight.container.as_str());
            Self {
                hash: RevisionHash(object.labels().get(names::REVISION_LABEL).cloned().unwrap_or_default()),
                keys: asked.map(|container| named_by(object, container)).unwrap_or_default().into(),
                policy,
                object: Arc::clone(object),
            }
        })
    }

    /// Whether the pod is one of its own.
    pub(super) fn has(&self, pod: &ObjectMeta) -> bool {
        match self.hash.is_adopted() {
            true => pods::is_made_by(pod, &self.object.name_any()),
            false => pods::belongs_to(pod, &self.object.name_any(), &self.hash.0),
        }
    }

    /// A pod of its own, as the planner sees it.
    pub(super) fn parsed(
        &self,
        pod: &Pod,
        app: &str,
        node: impl Fn(&str) -> Node,
        now: Timestamp,
    ) -> graceful_plan::Pod {
        let parsed = pods::parse(pod, app_containers(self), node, now);
        if self.hash.is_adopted() { pods::of_adopted(parsed, pod, app) } else { parsed }
    }

    /// Whether the Deployment has pods, or is to have some.
    pub(super) fn is_in_use(&self) -> bool {
        self.most_pods() > 0
    }

    /// How many it has, by its own word, or is to have.
    pub(super) fn most_pods(&self) -> usize {
        let there = self.object.status.as_ref().and_then(|s| s.replicas).unwrap_or_default();
        usize::try_from(there).unwrap_or_default().max(replicas(&self.object) as usize)
    }

    /// What its policy should be by the spec, where that says so: of the update revision, and of the adopted one while the spec speaks of it.
    pub(crate) fn wanted_policy(&self, app: &Validated) -> Option<Policy> {
        if !self.hash.is_adopted() {
            return Some(app.policy.clone());
        }
        let adopt = app.adopt.as_ref().filter(|adopt| adopt.deployment == self.object.name_any())?;
        adopt.policy(&Template::from(self.object.spec.template.clone())).ok()
    }

    pub(crate) fn parse(&self, app: Option<&Validated>, writes: &Writes, now: Timestamp) -> Revision {
        let failure = replica_failure(&self.object);
        let has_no_replica_set = failure.as_ref().is_some_and(|f| f.no_replica_set);
        let (end_failure, replica_failure) = match failure {
            Some(failed) if failed.ending => (Some(failed.failure), None),
            failed => (None, failed.map(|f| f.failure)),
        };
        let wanted = app.and_then(|app| self.wanted_policy(app));
        let policy = self.policy.as_ref().map_or(CAUTIOUS, |p| p.drain);
        Revision {
            hash: self.hash.clone(),
            name: self.object.name_any(),
            replicas: replicas(&self.object),
            created: self.object.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
            policy,
            policy_current: wanted.as_ref().is_none_or(|wanted| self.policy.as_ref() == Some(wanted)),
            signal_current: wanted.is_none_or(|wanted| wanted.drain.signal == policy.signal),
            replica_failure,
            end_failure,
            has_no_replica_set,
            proven: self.object.annotations().get(names::PROVEN).is_none_or(|v| v != names::PROVEN_FALSE),
            scale_backoff: writes.backoff(&Subject::Deployment(self.hash.clone()), now),
            annotation_backoff: writes.backoff(&Subject::Annotations(self.hash.clone()), now),
            followed: followed(&self.object),
            nudged: self.object.annotations().get(names::NUDGED).and_then(|at| at.parse().ok()),
        }
    }
}

/// Whether the Deployment was adopted, and is that very object.
fn adopted(deployment: &Deployment) -> bool {
    let annotation = deployment.annotations().get(names::ADOPTED);
    let adopted = annotation.and_then(|text| Adopted::from_annotation(text).ok());
    adopted.is_some_and(|adopted| Some(&adopted.uid) == deployment.metadata.uid.as_ref())
}

/// For a revision whose policy nobody can read: wait, and never cut. The app's own policy would not do: it may cut at a deadline, or take a zero for
/// an answer, in pods that were made under another one.
pub(crate) const CAUTIOUS: DrainPolicy = DrainPolicy {
    signal: graceful_api::Signal::Http,
    linger_seconds: 3,
    quiet_seconds: 5,
    deadline_seconds: 300,
    on_deadline: graceful_api::OnDeadline::Hold,
};

/// A Deployment's `spec.replicas`; Kubernetes defaults it to 1.
pub(crate) fn replicas(deployment: &Deployment) -> u32 {
    let replicas = deployment.spec.replicas.unwrap_or(1);
    u32::try_from(replicas).unwrap_or_default()
}

/// Its controller writes which generation it has carried out.
pub(crate) fn followed(deployment: &Deployment) -> bool {
    let carried_out = deployment.status.as_ref().and_then(|status| status.observed_generation);
    carried_out.unwrap_or_default() >= deployment.metadata.generation.unwrap_or_default()
}

/// What its ReplicaSet could not do.
struct ReplicaFailure {
    /// The ReplicaSet could not end pods, or else could not make them.
    ending: bool,
    /// There is none: its Deployment could not make it.
    no_replica_set: bool,
    failure: Failure,
}

fn replica_failure(deployment: &Deployment) -> Option<ReplicaFailure> {
    let is = |text: &Option<String>, word: &str| text.as_deref() == Some(word);
    let conditions = deployment.status.as_ref()?.conditions.iter().flatten();
    // Without a ReplicaSet (a quota on those, a webhook) there is none to say that it fails: its Deployment does, in another condition.
    let failure = conditions.into_iter().find(|c| {
        (is(&c.type_, "ReplicaFailure") && is(&c.status, "True"))
            || (is(&c.type_, "Progressing") && is(&c.reason, "ReplicaSetCreateError"))
    })?;
    Some(ReplicaFailure {
        ending: is(&failure.reason, "FailedDelete"),
        no_replica_set: is(&failure.reason, "ReplicaSetCreateError"),
        failure: Failure {
            message: failure.message.clone().unwrap_or_default(),
            since: failure.last_transition_time.as_ref()?.0,
        },
    })
}

#[cfg(test)]
mod tests {
    use graceful_api::{GracefulApp, OnDeadline};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_replica_set_that_cannot_end_pods_is_not_one_that_cannot_make_them() {
        let failing = |reason: &str| {
            let object: Deployment = serde_json::from_value(json!({
                "metadata": {"name": "tasks-abc", "annotations": {(names::APP_UID): "u"},
                    "labels": {(names::APP_LABEL): "tasks", (names::REVISION_LABEL): "abc"}},
                "spec": {"selector": {}, "template": {}},
                "status": {"conditions": [{"type": "ReplicaFailure", "status": "True", "reason": reason, "message": "denied",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
            }))
            .unwrap();
            let revision = Ours::of(&Arc::new(object), "u").unwrap().parse(
                None,
                &Writes::default(),
                Timestamp::UNIX_EPOCH,
            );
            (revision.replica_failure.is_some(), revision.end_failure.is_some())
        };
        assert_eq!((failing("FailedCreate"), failing("FailedDelete")), ((true, false), (false, true)));
    }

    /// P1: a Deployment that a release before the mark made serves perhaps, and so does one whose mark somebody took off: its pods are drained before they are
    /// ended, whatever they answer.
    #[test]
    fn only_a_mark_that_says_so_makes_a_revision_unproven() {
        let proven = |mark: Option<&str>| {
            let mut annotations = json!({(names::APP_UID): "u"});
            if let Some(mark) = mark {
                annotations[names::PROVEN] = json!(mark);
            }
            let object: Deployment = serde_json::from_value(json!({
                "metadata": {"name": "tasks-abc", "annotations": annotations,
                    "labels": {(names::APP_LABEL): "tasks", (names::REVISION_LABEL): "abc"}},
                "spec": {"selector": {}, "template": {}},
            }))
            .unwrap();
            let ours = Ours::of(&Arc::new(object), "u").unwrap();
            ours.parse(None, &Writes::default(), Timestamp::UNIX_EPOCH).proven
        };
        assert!(proven(None), "absent");
        assert!(!proven(Some(names::PROVEN_FALSE)));
        assert!(proven(Some(names::PROVEN_TRUE)));
        assert!(proven(Some("")) && proven(Some("False")), "garbled");
    }

    #[test]
    fn a_deployment_says_that_it_has_no_replica_set() {
        let object: Deployment = serde_json::from_value(json!({
            "metadata": {"name": "tasks-abc", "annotations": {(names::APP_UID): "u"},
                "labels": {(names::APP_LABEL): "tasks", (names::REVISION_LABEL): "abc"}},
            "spec": {"selector": {}, "template": {}},
            "status": {"conditions": [{"type": "Progressing", "status": "False", "reason": "ReplicaSetCreateError",
                "message": "exceeded quota", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        }))
        .unwrap();
        let ours = Ours::of(&Arc::new(object), "u").unwrap();
        let revision = ours.parse(None, &Writes::default(), Timestamp::UNIX_EPOCH);
        assert!(revision.has_no_replica_set && revision.replica_failure.is_some());
    }

    /// P1, P7: the app of now may cut at a deadline; pods of a revision whose policy cannot be read never agreed to that.
    #[test]
    fn an_unreadable_policy_is_the_cautious_one_and_not_the_app_s() {
        let app: GracefulApp = serde_json::from_value(json!({
            "apiVersion": "graceful.dev/v1alpha1", "kind": "GracefulApp",
            "metadata": {"name": "tasks", "namespace": "apps", "uid": "u"},
            "spec": {
                "drain": {"onDeadline": "Terminate", "deadlineSeconds": 1, "lingerSeconds": 0},
                "template": {"spec": {"containers": [
                    {"name": "s", "image": "x", "ports": [{"name": "admin", "containerPort": 9808}]}]}},
            },
        }))
        .unwrap();
        let app = Validated::try_from(&app).unwrap();
        assert_eq!(app.policy.drain.on_deadline, OnDeadline::Terminate);
        let revision = |policy: &str| {
            let object: Deployment = serde_json::from_value(json!({
                "metadata": {"name": "tasks-abc", "annotations": {(names::APP_UID): "u", (names::POLICY): policy},
                    "labels": {(names::APP_LABEL): "tasks", (names::REVISION_LABEL): "abc"}},
                "spec": {"selector": {}, "template": {}},
            }))
            .unwrap();
            Ours::of(&Arc::new(object), "u").unwrap().parse(
                Some(&app),
                &Writes::default(),
                Timestamp::UNIX_EPOCH,
            )
        };
        assert_eq!(revision("{\"fromTheFuture\": 1}").policy, CAUTIOUS);
        assert!(!revision("garbled").policy_current, "the update revision's is written anew");
        assert_eq!(revision(&app.policy.to_annotation()).policy, app.policy.drain);
    }
}
