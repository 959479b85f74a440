//! Which keys pods know: those that the template of their revision's Deployment names, which is written once (P5).

use std::collections::{BTreeSet, HashSet};

use graceful_api::names;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt;

use super::ring::{KeyId, ids};
use crate::decode::Decoded;
use crate::index::Index;

/// The ids that a container of this Deployment's pods is given.
pub(crate) fn named_by(deployment: &Deployment, container: &str) -> Vec<KeyId> {
    let all = containers(deployment).find(|c| c.name == container);
    all.and_then(value).map(ids).unwrap_or_default()
}

/// All that any container of any Deployment is given. None where nobody can say which keys some pod knows, so that none may be dropped: a namespace was never
/// listed (its Role is missing), a Deployment cannot be read, or a pod's Deployment is gone.
pub(crate) fn in_use(
    deployments: &Index<Decoded<Deployment>>,
    pods: &Index<Decoded<Pod>>,
) -> Option<BTreeSet<KeyId>> {
    if !deployments.knows_all() || !pods.knows_all() {
        return None;
    }
    let (mut named, mut there) = (BTreeSet::new(), HashSet::new());
    for deployment in deployments.all() {
        if deployment.fault().is_some() {
            return None;
        }
        there.insert((deployment.namespace().unwrap_or_default(), deployment.name_any()));
        named.extend(containers(&deployment).filter_map(value).flat_map(ids));
    }
    let orphan = |pod: &Pod| {
        let label = |key| pod.labels().get(key).map_or("", String::as_str);
        let revision = label(names::REVISION_LABEL);
        let name = names::deployment_name(label(names::APP_LABEL), revision);
        // Of an adopted Deployment, which was given no keys.
        revision != names::ADOPTED_REVISION && !there.contains(&(pod.namespace().unwrap_or_default(), name))
    };
    (!pods.all().iter().any(|pod| orphan(pod))).then_some(named)
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
    use serde_json::{Value, json};

    use super::*;
    use crate::decode::{Lenient, decode};
    use crate::index::Scope;
    use crate::keys::Ring;

    fn deployment(revision: &str, keys: &str) -> Value {
        let env = json!([{"name": "GRACEFUL_DRAIN_KEYS", "value": keys}]);
        json!({
            "metadata": {"name": format!("tasks-{revision}"), "namespace": "a"},
            "spec": {"replicas": 0, "selector": {}, "template": {"spec": {"containers": [
                {"name": "server", "env": env}, {"name": "side"}]}}},
        })
    }

    fn pod(revision: &str) -> Value {
        json!({"metadata": {"name": format!("p-{revision}"), "namespace": "a",
            "labels": {"graceful.dev/app": "tasks", "graceful.dev/revision": revision}}})
    }

    fn of(object: &Value) -> Deployment {
        serde_json::from_value(object.clone()).unwrap()
    }

    /// As two watches show them, of namespace a and of namespace b. The second may have no right to list yet.
    fn watched<K: Lenient>(objects: &[Value], b_is_refused: bool) -> Index<Decoded<K>> {
        let [a, b] = ["a", "b"].map(|namespace| Scope::Namespace(namespace.to_owned()));
        let index = Index::new(|_| Vec::new(), &[a.clone(), b.clone()]);
        index.begin(&a);
        objects.iter().for_each(|object| drop(index.list(decode(&object.to_string()))));
        index.finish(&a);
        if b_is_refused {
            index.refuse(&b);
        } else {
            index.finish(&b);
        }
        index
    }

    fn all<K: Lenient>(objects: &[Value]) -> Index<Decoded<K>> {
        watched(objects, false)
    }

    #[test]
    fn a_deployment_at_zero_names_its_keys_and_a_pod_without_one_keeps_all() {
        let ring = Ring::random(&mut rand::rng());
        let emptied = deployment("r1", &ring.public_halves());
        let named = named_by(&of(&emptied), "server");
        assert_eq!(named.len(), 2);
        assert!(named_by(&of(&emptied), "side").is_empty());
        let deployments = all(&[emptied]);
        assert_eq!(in_use(&deployments, &all(&[pod("r1")])), Some(named.into_iter().collect()));
        assert_eq!(in_use(&deployments, &all(&[pod("r1"), pod("r2")])), None);
    }

    #[test]
    fn what_a_namespace_names_that_was_never_listed_nobody_knows() {
        assert_eq!(in_use(&all(&[]), &all(&[])), Some(BTreeSet::new()));
        assert_eq!(in_use(&watched(&[], true), &all(&[])), None);
        assert_eq!(in_use(&all(&[]), &watched(&[], true)), None);
    }

    #[test]
    fn what_a_deployment_names_that_cannot_be_read_nobody_knows() {
        let mut garbled = deployment("r1", "mine");
        assert_eq!(in_use(&all(std::slice::from_ref(&garbled)), &all(&[])), Some(BTreeSet::new()));
        garbled["spec"]["replicas"] = json!("three");
        assert_eq!(in_use(&all(&[garbled]), &all(&[])), None);
    }

    #[test]
    fn what_is_no_jwk_set_names_nothing() {
        for text in ["", "mine", "{\"keys\":[1,{}]}"] {
            assert!(named_by(&of(&deployment("r1", text)), "server").is_empty(), "{text}");
        }
    }
}
