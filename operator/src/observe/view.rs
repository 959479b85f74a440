//! An app's children as raw objects, from the watches' stores, or from live lists where those are late.

use std::sync::Arc;
use std::time::Instant;

use graceful_api::names;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::ListParams;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, Resource, ResourceExt};

use super::written::{Kind, Seen, version};
use crate::error::{Error, call};
use crate::memory::AppMemory;
use crate::operator::{ACTIVE_LOOK, Operator, RESTING_LOOK};

/// What the watches show.
#[derive(Clone)]
pub(crate) struct Stores {
    /// Of all namespaces, those with our label.
    pub(crate) deployments: Store<Deployment>,
    /// Likewise.
    pub(crate) pods: Store<Pod>,
    /// All: one of the user's own may route to our pods.
    pub(crate) services: Store<Service>,
    /// All, for the same reason.
    pub(crate) budgets: Store<PodDisruptionBudget>,
    /// Only for whether their kubelets are heard.
    pub(crate) nodes: Store<Node>,
}

/// One app's surroundings at one moment.
pub(crate) struct View {
    /// With the app's label, whosever they are.
    pub(crate) deployments: Vec<Arc<Deployment>>,
    /// With the app's label, whosever they are.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// All of the namespace.
    pub(crate) services: Vec<Arc<Service>>,
    /// All of the namespace.
    pub(crate) budgets: Vec<Arc<PodDisruptionBudget>>,
}

/// A view that shows our own last writes. From memory wherever that does, so that an app at rest costs the API server nothing; live after a
/// surprise, and now and then, since a watch can go blind without a word.
pub(crate) async fn view(
    operator: &Operator,
    namespace: &str,
    app: &str,
    memory: &mut AppMemory,
) -> Result<View, Error> {
    let remembered = View::remembered(&operator.stores, namespace, app);
    let current = memory.written.settle(|kind, name| remembered.seen(kind, name), |_, _| false);
    let trust = if memory.active { ACTIVE_LOOK } else { RESTING_LOOK };
    let fresh = memory.viewed_live.get_or_insert_with(Instant::now).elapsed() < trust;
    if current && fresh && !memory.look_live {
        return Ok(remembered);
    }
    let live = View::live(&operator.client, namespace, app).await?;
    memory.look_live = false;
    memory.viewed_live = Some(Instant::now());
    let gone = |kind, name: &str| live.seen(kind, name).is_none();
    memory.written.settle(|kind, name| remembered.seen(kind, name), gone);
    Ok(live)
}

impl View {
    fn remembered(stores: &Stores, namespace: &str, app: &str) -> Self {
        let ours = |meta: &kube::api::ObjectMeta| {
            here(meta, namespace)
                && meta.labels.as_ref().and_then(|l| l.get(names::APP_LABEL)).is_some_and(|a| a == app)
        };
        Self {
            deployments: pick(&stores.deployments, |o| ours(&o.metadata)),
            pods: pick(&stores.pods, |o| ours(&o.metadata)),
            services: pick(&stores.services, |o| here(&o.metadata, namespace)),
            budgets: pick(&stores.budgets, |o| here(&o.metadata, namespace)),
        }
    }

    async fn live(client: &Client, namespace: &str, app: &str) -> Result<Self, Error> {
        let ours = ListParams::default().labels(&names::app_selector(app));
        let all = ListParams::default();
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let services: Api<Service> = Api::namespaced(client.clone(), namespace);
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), namespace);
        // Deployments first, and alone: a pod in the list then always has its Deployment in the other.
        let deployments = call("list Deployments", deployments.list(&ours)).await?;
        let (pods, services, budgets) = futures::try_join!(
            call("list pods", pods.list(&ours)),
            call("list Services", services.list(&all)),
            call("list PodDisruptionBudgets", budgets.list(&all)),
        )?;
        Ok(Self {
            deployments: shared(deployments.items),
            pods: shared(pods.items),
            services: shared(services.items),
            budgets: shared(budgets.items),
        })
    }

    fn seen(&self, kind: Kind, name: &str) -> Seen {
        match kind {
            Kind::Deployment => named(&self.deployments, name),
            Kind::Pod => named(&self.pods, name),
            Kind::Service => named(&self.services, name),
            Kind::Budget => named(&self.budgets, name),
        }
    }
}

/// Whether a node's kubelet is heard. A node that is not known is not heard; the node agent's word on a pod is then worthless.
pub(crate) fn node_ready(nodes: &Store<Node>, name: &str) -> bool {
    let node = nodes.get(&ObjectRef::new(name));
    let conditions = node.as_ref().and_then(|n| n.status.as_ref()).and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn named<K: Resource>(objects: &[Arc<K>], name: &str) -> Seen {
    let found = objects.iter().find(|o| o.meta().name.as_deref() == Some(name))?;
    Some((found.meta().uid.clone().unwrap_or_default(), version(found.as_ref())))
}

fn here(meta: &kube::api::ObjectMeta, namespace: &str) -> bool {
    meta.namespace.as_deref() == Some(namespace)
}

fn pick<K>(store: &Store<K>, keep: impl Fn(&K) -> bool) -> Vec<Arc<K>>
where
    K: Resource + Clone + 'static,
    K::DynamicType: std::hash::Hash + Eq + Clone,
{
    let mut picked: Vec<_> = store.state().into_iter().filter(|o| keep(o)).collect();
    picked.sort_by_key(|o| o.name_any());
    picked
}

fn shared<K>(items: Vec<K>) -> Vec<Arc<K>> {
    items.into_iter().map(Arc::new).collect()
}
