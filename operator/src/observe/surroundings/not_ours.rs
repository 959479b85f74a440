//! What has the app's label and is not the app's: Deployments that nobody drains, and pods that somebody took out of theirs.

use std::sync::Arc;

use graceful_api::conditions::Reason;
use graceful_api::{Validated, names};
use graceful_plan::Warning;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::super::revisions::Ours;
use super::super::view::View;

/// An app that was restored from a backup, or applied again after `--cascade=orphan`, finds its Deployments under its old uid.
pub(super) fn of_another(app: &Validated, name: &str, its_uid: Option<&String>) -> String {
    let Validated { namespace, uid, .. } = app;
    let (label, key) = (names::APP_LABEL, names::APP_UID);
    let why = match its_uid {
        Some(_) => {
            "it is of another GracefulApp of that name, from before a restore or a deletion with --cascade=orphan"
        }
        None => "it has lost the annotation that says whose it is, to an edit or an admission webhook",
    };
    format!(
        "{why}: `kubectl annotate deployment \
         -n {namespace} {name} --overwrite {key}={uid}` makes it this one's, and its pods drain as they should; or, once its pods are idle, `kubectl \
         label deployment -n {namespace} {name} {label}-` and delete it"
    )
}

/// Deployments with this app's label that are not its own: nobody drains their pods, and its Service routes to them.
pub(super) fn of_others(app: &Validated, view: &View) -> Option<Warning> {
    let theirs = |d: &&Arc<Deployment>| Ours::of(d, &app.uid).is_none();
    let next = names::deployment_name(&app.name, app.revision.as_str());
    // The one that stands in the way of the next revision is said as a refusal.
    let found = view.deployments.iter().filter(theirs).find(|d| d.name_any() != next)?;
    let name = found.name_any();
    let message = format!(
        "Deployment {name} has this app's label and is not drained by it: {}",
        why_not_ours(app, found)
    );
    Some(Warning { reason: Reason::ForeignDeployment, message })
}

/// One that was adopted is known by its own uid, which a backup does not keep.
fn why_not_ours(app: &Validated, found: &Deployment) -> String {
    let (name, namespace, label) = (found.name_any(), &app.namespace, names::APP_LABEL);
    let its_uid = found.annotations().get(names::APP_UID);
    let adopted =
        found.labels().get(names::REVISION_LABEL).is_some_and(|hash| hash == names::ADOPTED_REVISION);
    let (why, helps) = match its_uid == Some(&app.uid) {
        _ if adopted => (
            "it was adopted under another uid, and is a copy or comes from a backup",
            "makes it one that spec.adopt can take",
        ),
        true => {
            ("it is a copy of one of this app's, or has lost its revision's label", "makes it a plain one")
        }
        false => return of_another(app, &name, its_uid),
    };
    format!("{why}: `kubectl label deployment -n {namespace} {name} {label}-` {helps}")
}

/// A pod with this app's label that belongs to none of its Deployments: somebody has changed a label of it, to look at it in peace perhaps. Its ReplicaSet
/// has let it go, and nobody drains it.
pub(super) fn pods_let_go(app: &Validated, view: &View) -> Option<Warning> {
    let phase = |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default();
    let owned = |pod: &Pod| pod.owner_references().iter().any(|owner| owner.controller == Some(true));
    let runs =
        |pod: &Pod| pod.metadata.deletion_timestamp.is_none() && phase(pod) == "Running" && !owned(pod);
    let names: Vec<_> = view.pods.iter().filter(|p| runs(p)).map(|p| p.name_any()).collect();
    let first = names.first()?;
    let others = if names.len() > 1 { format!(" (and {} more)", names.len() - 1) } else { String::new() };
    let namespace = &app.namespace;
    let message = format!(
        "pod {first}{others} has this app's label and is none of its Deployments' (one of its labels was changed): nobody drains it, and a Service may \
         still send it clients; `kubectl -n {namespace} label pod {first} {}-` takes it out of service, `kubectl -n {namespace} delete pod {first}` ends \
         it within its grace period",
        names::SERVING_LABEL
    );
    Some(Warning { reason: Reason::PodLetGo, message })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// P8: the advice for our own would make one that was adopted nobody's, without a word.
    #[test]
    fn a_deployment_that_is_not_ours_any_more_is_told_with_what_helps() {
        let app: graceful_api::GracefulApp = serde_json::from_value(json!({
            "apiVersion": "graceful.dev/v1alpha1", "kind": "GracefulApp",
            "metadata": {"name": "tasks", "namespace": "apps", "uid": "u"},
            "spec": {"template": {"spec": {"containers": [
                {"name": "s", "image": "x", "ports": [{"name": "admin", "containerPort": 9808}]}]}}},
        }))
        .unwrap();
        let app = Validated::try_from(&app).unwrap();
        let why = |revision: &str, uid: &str| {
            let found = json!({"metadata": {"name": "web", "annotations": {(names::APP_UID): uid},
                "labels": {(names::APP_LABEL): "tasks", (names::REVISION_LABEL): revision}},
                "spec": {"selector": {}, "template": {}}});
            why_not_ours(&app, &serde_json::from_value(found).unwrap())
        };
        let off = "kubectl label deployment -n apps web graceful.dev/app-` makes it";
        for uid in ["u", "of-before"] {
            let why = why(names::ADOPTED_REVISION, uid);
            assert!(why.contains(off) && why.contains("spec.adopt"), "{why}");
        }
        assert!(why("ph4cjw6b", "u").contains(off));
        assert!(why("ph4cjw6b", "of-before").contains("kubectl annotate deployment"));
    }
}
