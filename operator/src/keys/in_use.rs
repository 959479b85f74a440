//! Which keys pods know: those that the template of their revision's Deployment names, which is written once (P5).

use std::collections::{BTreeSet, HashSet};

use graceful_api::names;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt;

use super::ring::{KeyId, ids};

/// The ids that a container of this Deployment's pods is given.
pub(crate) fn named_by(deployment: &Deployment, container: &str) -> Vec<KeyId> {
    let all = containers(deployment).find(|c| c.name == container);
    all.and_then(value).map(ids).unwrap_or_default()
}

/// All that any container of any of these Deployments is given. None if a pod's Deployment is gone: nobody can say which keys that pod knows, so none may be
/// dropped.
pub(crate) fn in_use<'a>(
    deployments: impl Iterator<Item = &'a Deployment>,
    pods: impl Iterator<Item = &'a Pod>,
) -> Option<BTreeSet<KeyId>> {
    let (mut named, mut there) = (BTreeSet::new(), HashSet::new());
    for deployment in deployments {
        there.insert((deployment.namespace().unwrap_or_default(), deployment.name_any()));
        named.extend(containers(deployment).filter_map(value).flat_map(ids));
    }
    let orphan = |pod: &Pod| {
        let label = |key| pod.labels().get(key).map_or("", String::as_str);
        let name = names::deployment_name(label(names::APP_LABEL), label(names::REVISION_LABEL));
        !there.contains(&(pod.namespace().unwrap_or_default(), name))
    };
    let mut pods = pods;
    (!pods.any(orphan)).then_some(named)
}

fn containers(deployment: &Deployment) -> impl Iterator<Item = &Container> {
    let spec = deployment.spec.template.spec.iter();
    spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()))
}

fn value(container: &Container) -> Option<&str> {
    let variable = container.env.iter().flatten().find(|v| v.name == names::DRAIN_KEYS_ENV)?;
    variable.value.as_deref()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::keys::Ring;

    fn deployment(revision: &str, keys: &str) -> Deployment {
        let env = json!([{"name": "GRACEFUL_DRAIN_KEYS", "value": keys}]);
        serde_json::from_value(json!({
            "metadata": {"name": format!("tasks-{revision}"), "namespace": "apps"},
            "spec": {"replicas": 0, "selector": {}, "template": {"spec": {"containers": [
                {"name": "server", "env": env}, {"name": "side"}]}}},
        }))
        .unwrap()
    }

    fn pod(revision: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "apps",
            "labels": {"graceful.dev/app": "tasks", "graceful.dev/revision": revision}}}))
        .unwrap()
    }

    #[test]
    fn a_deployment_at_zero_names_its_keys_and_a_pod_without_one_keeps_all() {
        let ring = Ring::random(&mut rand::rng());
        let emptied = deployment("r1", &ring.public_halves());
        let named = named_by(&emptied, "server");
        assert_eq!(named.len(), 2);
        assert!(named_by(&emptied, "side").is_empty());
        let all = in_use([&emptied].into_iter(), [&pod("r1")].into_iter());
        assert_eq!(all, Some(named.into_iter().collect()));
        assert_eq!(in_use([&emptied].into_iter(), [&pod("r1"), &pod("r2")].into_iter()), None);
    }

    #[test]
    fn what_is_no_jwk_set_names_nothing() {
        for text in ["", "mine", "{\"keys\":[1,{}]}"] {
            assert!(named_by(&deployment("r1", text), "server").is_empty(), "{text}");
        }
    }
}
