//! The watches: each keeps a store, and turns what changes into requests for a plan.
//!
//! # Caveats
//! No shared streams: kube 5's can lose a delete. One watcher a kind, with its own store; what it tells goes into a channel. A watch that breaks
//! is taken up again with back-off.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use graceful_api::{GracefulApp, names};
use k8s_openapi::api::core::v1::Node;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tracing::warn;

use crate::error::chain;
use crate::memory::Pulse;
use crate::observe::{Stores, orphaning};
use crate::operator::Operator;
use crate::probe::{AppRef, Trigger};

/// A future that never ends by itself.
pub(crate) type Watch = BoxFuture<'static, ()>;

/// One kind's store, and the stream that fills it once it is driven.
struct Follow<K: Resource<DynamicType = ()> + 'static> {
    store: Store<K>,
    stream: BoxStream<'static, watcher::Result<Event<K>>>,
}

/// All of them.
pub(crate) struct Follows {
    apps: Follow<GracefulApp>,
    deployments: Follow<k8s_openapi::api::apps::v1::Deployment>,
    pods: Follow<k8s_openapi::api::core::v1::Pod>,
    services: Follow<k8s_openapi::api::core::v1::Service>,
    budgets: Follow<k8s_openapi::api::policy::v1::PodDisruptionBudget>,
    nodes: Follow<Node>,
}

/// What a watch tells: objects that changed, and that a whole new list has come.
enum Told<'a, K> {
    Applied(&'a K),
    Deleted(&'a K),
    Listed,
}

impl Follows {
    pub(crate) fn new(client: &Client) -> Self {
        let all = watcher::Config::default;
        let ours = || watcher::Config::default().labels(names::APP_LABEL);
        Self {
            apps: follow(client, all(), |_| ()),
            deployments: follow(client, ours(), |_| ()),
            pods: follow(client, ours(), |_| ()),
            services: follow(client, all(), |_| ()),
            budgets: follow(client, all(), |_| ()),
            nodes: follow(client, all(), slim_node),
        }
    }

    pub(crate) fn apps(&self) -> Store<GracefulApp> {
        self.apps.store.clone()
    }

    pub(crate) fn stores(&self) -> Stores {
        Stores {
            deployments: self.deployments.store.clone(),
            pods: self.pods.store.clone(),
            services: self.services.store.clone(),
            budgets: self.budgets.store.clone(),
            nodes: self.nodes.store.clone(),
        }
    }

    /// Waits until every watch has shown its first list.
    pub(crate) fn listed(&self) -> BoxFuture<'static, ()> {
        let (apps, stores) = (self.apps(), self.stores());
        async move {
            // An error means that the writer is gone: the operator is stopping.
            let _stopping = futures::join!(
                apps.wait_until_ready(),
                stores.deployments.wait_until_ready(),
                stores.pods.wait_until_ready(),
                stores.services.wait_until_ready(),
                stores.budgets.wait_until_ready(),
                stores.nodes.wait_until_ready(),
            );
        }
        .boxed()
    }

    /// The futures that keep the stores current and pull the trigger.
    pub(crate) fn drive(self, operator: &Arc<Operator>, trigger: &Trigger) -> Vec<Watch> {
        let asks = Asks { apps: self.apps(), trigger: trigger.clone(), pulse: Arc::clone(&operator.pulse) };
        vec![
            self.apps.drive(watch_apps(asks.clone(), Arc::clone(operator))),
            self.deployments.drive(asks.clone().of_labelled()),
            self.pods.drive(asks.clone().of_labelled()),
            self.services.drive(asks.clone().of_namespace()),
            self.budgets.drive(asks.of_namespace()),
            // A node's word is only looked up: what it means for a pod is told by the pod itself.
            self.nodes.drive(|_| ()),
        ]
    }
}

/// Turns what changed into requests for a plan.
#[derive(Clone)]
struct Asks {
    apps: Store<GracefulApp>,
    trigger: Trigger,
    pulse: Arc<Pulse>,
}

impl Asks {
    fn pull(&self, app: &AppRef) {
        if self.apps.get(app).is_some() {
            self.pulse.asked(app);
            self.trigger.pull(app);
        }
    }

    fn pull_where(&self, keep: impl Fn(&GracefulApp) -> bool) {
        for app in self.apps.state().iter().filter(|app| keep(app)) {
            self.pull(&AppRef::from_obj(app.as_ref()));
        }
    }

    /// A child or a pod with our label asks for its app.
    fn of_labelled<K: Resource>(self) -> impl Fn(Told<'_, K>) {
        move |told| match told {
            Told::Applied(object) | Told::Deleted(object) => {
                if let (Some(namespace), Some(app)) =
                    (object.namespace(), object.labels().get(names::APP_LABEL))
                {
                    self.pull(&AppRef::new(app).within(&namespace));
                }
            }
            Told::Listed => self.pull_where(|_| true),
        }
    }

    /// A Service or a budget may concern any app of its namespace.
    fn of_namespace<K: Resource>(self) -> impl Fn(Told<'_, K>) {
        move |told| match told {
            Told::Applied(object) | Told::Deleted(object) => {
                let namespace = object.namespace();
                self.pull_where(|app| app.namespace() == namespace);
            }
            Told::Listed => self.pull_where(|_| true),
        }
    }
}

fn watch_apps(asks: Asks, operator: Arc<Operator>) -> impl Fn(Told<'_, GracefulApp>) {
    move |told| match told {
        Told::Applied(app) => {
            if orphaning(app) {
                operator.memory.mark_orphaned(&app.uid().unwrap_or_default());
            }
            asks.pull(&AppRef::from_obj(app));
        }
        Told::Deleted(app) => operator.forget(app),
        Told::Listed => {
            let there: HashSet<_> = asks.apps.state().iter().filter_map(|app| app.uid()).collect();
            operator.memory.keep_only(&there);
            let there: HashSet<_> =
                asks.apps.state().iter().map(|app| AppRef::from_obj(app.as_ref())).collect();
            for gone in operator.probes.others_than(&there) {
                operator.forget_ref(&gone);
            }
            asks.pull_where(|_| true);
        }
    }
}

fn follow<K>(client: &Client, config: watcher::Config, slim: fn(&mut K)) -> Follow<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let stream = watcher(Api::<K>::all(client.clone()), config).default_backoff();
    let stream = stream.modify(move |object| {
        // Field managers are the larger half of many objects, and nobody here reads them.
        object.meta_mut().managed_fields = None;
        slim(object);
    });
    Follow { store, stream: stream.reflect(writer).boxed() }
}

impl<K: Resource<DynamicType = ()> + Send + Sync + 'static> Follow<K> {
    fn drive(self, tell: impl Fn(Told<'_, K>) + Send + 'static) -> Watch {
        let mut stream = self.stream;
        async move {
            while let Some(event) = stream.next().await {
                match event {
                    Ok(Event::Apply(object)) => tell(Told::Applied(&object)),
                    Ok(Event::Delete(object)) => tell(Told::Deleted(&object)),
                    Ok(Event::InitDone) => tell(Told::Listed),
                    Ok(Event::Init | Event::InitApply(_)) => {}
                    Err(error) => warn!("a watch broke and is taken up again: {}", chain(&error)),
                }
            }
        }
        .boxed()
    }
}

/// A node's images and addresses would fill our memory for nothing.
fn slim_node(node: &mut Node) {
    let conditions = node.status.take().and_then(|s| s.conditions);
    node.status = Some(k8s_openapi::api::core::v1::NodeStatus { conditions, ..Default::default() });
    node.metadata.annotations = None;
}
