//! Whose a Deployment is that is to be adopted, and who scales it.

use graceful_api::{Validated, names};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::error::{Error, call};

/// Whose it is, if somebody else has it in hand.
pub(super) fn of_another(app: &Validated, found: &Deployment) -> Option<String> {
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
pub(super) async fn scaler(
    client: &Client,
    app: &Validated,
    name: &str,
    done: &str,
) -> Result<Option<String>, Error> {
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
}
