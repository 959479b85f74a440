//! The watches: each keeps an index, and turns what changes into requests for a plan.
//!
//! # Guarantees
//! One object that cannot be read is indexed as what is known of it, and said once. A Service or a budget asks for the apps alone that it may
//! concern.
//!
//! # Caveats
//! No shared streams: kube 5's can lose a delete. One watcher a kind, with its own index; what it tells goes into a channel. Where the operator runs the
//! apps of named namespaces alone, one a kind and namespace, so that a Role in each is all that it needs. A watch that breaks is taken up again with back-off.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Debug;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::{BoxStream, select_all};
use futures::{FutureExt, Stream, StreamExt};
use graceful_api::{GracefulApp, names};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod, Service, ServicePort};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::NamespaceResourceScope;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use tracing::warn;

use crate::app_ref::AppRef;
use crate::concern::{Concerns, by_app, by_budget_selector, by_service_selector, covered, selected};
use crate::decode::{Decoded, Lenient};
use crate::error::chain;
use crate::index::{Groups, Index, Scope};
use crate::observe::{NodeDrain, Nodes, Stores, node_state, orphaning};
use crate::operator::Operator;
use crate::probe::Trigger;
use crate::pulse::Pulse;

/// A future that never ends by itself.
pub(crate) type Watch = BoxFuture<'static, ()>;

/// One kind's index, and the stream that fills it once it is driven: of one watch, or of one for each namespace.
struct Follow<K> {
    index: Index<Decoded<K>>,
    stream: BoxStream<'static, (Scope, watcher::Result<Event<Decoded<K>>>)>,
}

/// All of them.
pub(crate) struct Follows {
    apps: Follow<GracefulApp>,
    deployments: Follow<Deployment>,
    pods: Follow<Pod>,
    services: Follow<Service>,
    budgets: Follow<PodDisruptionBudget>,
    nodes: Option<(Follow<Node>, Arc<NodeDrain>)>,
    concerns: Arc<Concerns>,
}

/// What a watch tells: an object that changed, came or went, and that a whole new list has come.
enum Change<'a, K> {
    Applied { before: Option<&'a K>, now: &'a K },
    Deleted(&'a K),
    Listed,
}

/// Objects in one answer while all are listed: with all kinds at once, a few MiB of JSON are in memory.
const PAGE: u32 = 100;

impl Follows {
    /// Of these namespaces; of all, where none is named. Without `node_drain` no node is read.
    pub(crate) fn new(client: &Client, namespaces: &BTreeSet<String>, node_drain: Option<NodeDrain>) -> Self {
        let all = || watcher::Config::default().page_size(PAGE);
        let ours = || all().labels(names::APP_LABEL);
        let scopes = scopes(namespaces);
        Self {
            apps: follow(client, &scopes, &all(), |_| Vec::new()),
            deployments: follow(client, &scopes, &ours(), by_app),
            pods: follow(client, &scopes, &ours(), by_app),
            services: follow(client, &scopes, &all(), by_service_selector),
            budgets: follow(client, &scopes, &all(), by_budget_selector),
            nodes: node_drain.map(|drain| {
                let nodes = watcher(Api::<Decoded<Node>>::all(client.clone()), all());
                (followed(vec![(Scope::All, nodes)], |_| Vec::new()), Arc::new(drain))
            }),
            concerns: Arc::default(),
        }
    }

    pub(crate) fn apps(&self) -> Index<Decoded<GracefulApp>> {
        self.apps.index.clone()
    }

    pub(crate) fn stores(&self) -> Stores {
        Stores {
            deployments: self.deployments.index.clone(),
            pods: self.pods.index.clone(),
            services: self.services.index.clone(),
            budgets: self.budgets.index.clone(),
            nodes: match &self.nodes {
                Some((follow, drain)) => Nodes::of_index(follow.index.clone(), Arc::clone(drain)),
                None => Nodes::unread(),
            },
            concerns: Arc::clone(&self.concerns),
        }
    }

    /// Waits until every watch has shown its first list.
    pub(crate) fn listed(&self) -> BoxFuture<'static, ()> {
        let (apps, stores) = (self.apps(), self.stores());
        async move {
            futures::join!(
                apps.listed(),
                stores.deployments.listed(),
                stores.pods.listed(),
                stores.services.listed(),
                stores.budgets.listed(),
                stores.nodes.listed(),
            );
        }
        .boxed()
    }

    /// The futures that keep the indexes current and pull the trigger.
    pub(crate) fn drive(self, operator: &Arc<Operator>, trigger: &Trigger) -> Vec<Watch> {
        let asks = Asks {
            apps: self.apps(),
            trigger: trigger.clone(),
            pulse: Arc::clone(&operator.pulse),
            concerns: Arc::clone(&self.concerns),
        };
        let pods = self.pods.index.clone();
        let mut watches = vec![
            self.apps.drive(watch_apps(asks.clone(), Arc::clone(operator))),
            self.deployments.drive(asks.clone().of_labelled()),
            self.pods.drive(asks.clone().of_labelled()),
            self.services.drive(asks.clone().of_selecting(
                |service| selected(service).cloned(),
                // Where it leads matters as well: past a gate, perhaps.
                |before, now| ports(before) == ports(now),
                names::service_name,
            )),
            self.budgets.drive(asks.clone().of_selecting(
                |budget| {
                    covered(budget).filter(|labels| !labels.is_empty()).cloned().or(Some(BTreeMap::new()))
                },
                |_, _| true,
                names::pdb_name,
            )),
        ];
        watches.extend(self.nodes.map(|(nodes, drain)| nodes.drive(asks.of_nodes(pods, drain))));
        watches
    }
}

/// Turns what changed into requests for a plan.
#[derive(Clone)]
struct Asks {
    apps: Index<Decoded<GracefulApp>>,
    trigger: Trigger,
    pulse: Arc<Pulse>,
    concerns: Arc<Concerns>,
}

impl Asks {
    fn pull(&self, app: &AppRef) {
        if self.apps.get(app.namespace.as_deref().unwrap_or_default(), &app.name).is_some() {
            self.pulse.asked(app);
            self.trigger.pull(app);
        }
    }

    fn pull_each(&self, apps: &[Arc<Decoded<GracefulApp>>]) {
        for app in apps {
            self.pull(&AppRef::from_obj(&***app));
        }
    }

    /// A child or a pod with our label asks for its app.
    fn of_labelled<K: Resource>(self) -> impl Fn(Change<'_, K>) {
        let pull = move |asks: &Self, object: &K| {
            if let (Some(namespace), Some(app)) = (object.namespace(), object.labels().get(names::APP_LABEL))
            {
                asks.pull(&AppRef::new(app).within(&namespace));
            }
        };
        move |told| match told {
            Change::Applied { before, now } => {
                let label = |object: &K| object.labels().get(names::APP_LABEL).cloned();
                if let Some(before) = before.filter(|before| label(before) != label(now)) {
                    pull(&self, before);
                }
                pull(&self, now);
            }
            Change::Deleted(object) => pull(&self, object),
            Change::Listed => self.pull_each(&self.apps.all()),
        }
    }

    /// A Service or a budget asks for the apps whose pods it may select, before or now, and for the one that it belongs to by its name.
    /// `selector` is empty if it selects otherwise than by pairs, and none if it selects nothing. `alike`: nothing else of it that matters has changed.
    fn of_selecting<K: Resource>(
        self,
        selector: impl Fn(&K) -> Option<BTreeMap<String, String>>,
        alike: impl Fn(&K, &K) -> bool,
        name_of_child: fn(&str) -> String,
    ) -> impl Fn(Change<'_, Decoded<K>>) {
        move |told| {
            let (before, now) = match told {
                Change::Applied { before, now } => (before, now),
                Change::Deleted(gone) => (None, gone),
                Change::Listed => return self.pull_each(&self.apps.all()),
            };
            let namespace = now.namespace().unwrap_or_default();
            let name = now.name_any();
            let label = now.labels().get(names::APP_LABEL);
            // The child's name is the app's with an ending, or without one.
            let ending = name_of_child("");
            let owner = label.map(String::as_str).or_else(|| name.strip_suffix(&ending));
            if let Some(owner) = owner {
                self.pull(&AppRef::new(owner).within(&namespace));
            }
            let selectors = (before.map(|b| selector(b)), selector(now));
            let as_before = before.is_some_and(|before| alike(before, now));
            if as_before && selectors.0.as_ref() == Some(&selectors.1) {
                return; // what else changed of it concerns nobody but its owner
            }
            for selector in selectors.0.flatten().into_iter().chain(selectors.1) {
                match self.concerns.of(&namespace, &selector) {
                    Some(apps) => apps.iter().for_each(|app| self.pull(app)),
                    None => self.pull_each(&self.apps.within(&namespace)),
                }
            }
        }
    }

    /// A node that goes or stays, or is heard or not heard any more, asks for the apps of its pods. All else about it (a heartbeat a minute) concerns nobody.
    fn of_nodes(
        self,
        pods: Index<Decoded<Pod>>,
        drain: Arc<NodeDrain>,
    ) -> impl Fn(Change<'_, Decoded<Node>>) {
        move |told| {
            let node = match told {
                Change::Applied { before: Some(before), now }
                    if node_state(before, &drain) == node_state(now, &drain) =>
                {
                    return;
                }
                Change::Applied { now, .. } => now,
                Change::Deleted(gone) => gone,
                Change::Listed => return self.pull_each(&self.apps.all()),
            };
            let name = node.name_any();
            let mut apps = HashSet::new();
            for pod in pods.all() {
                let there = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(name.as_str());
                if let (true, Some(app)) = (there, pod.labels().get(names::APP_LABEL)) {
                    apps.insert(AppRef::new(app).within(&pod.namespace().unwrap_or_default()));
                }
            }
            apps.iter().for_each(|app| self.pull(app));
        }
    }
}

fn ports(service: &Service) -> Option<&Vec<ServicePort>> {
    service.spec.as_ref()?.ports.as_ref()
}

fn watch_apps(asks: Asks, operator: Arc<Operator>) -> impl Fn(Change<'_, Decoded<GracefulApp>>) {
    move |told| match told {
        Change::Applied { now: app, .. } => {
            if orphaning(app) {
                operator.memory.note_orphaned(&app.uid().unwrap_or_default());
            }
            asks.pull(&AppRef::from_obj(&**app));
        }
        Change::Deleted(app) => operator.forget(app),
        Change::Listed => {
            let apps = asks.apps.all();
            let there: HashSet<_> = apps.iter().filter_map(|app| app.uid()).collect();
            operator.memory.keep_only(&there);
            let there: HashSet<_> = apps.iter().map(|app| AppRef::from_obj(&***app)).collect();
            for gone in operator.probes.known_beside(&there) {
                operator.forget_ref(&gone);
            }
            asks.pull_each(&apps);
        }
    }
}

fn scopes(namespaces: &BTreeSet<String>) -> Vec<Scope> {
    match namespaces.is_empty() {
        true => vec![Scope::All],
        false => namespaces.iter().cloned().map(Scope::Namespace).collect(),
    }
}

fn follow<K>(
    client: &Client,
    scopes: &[Scope],
    config: &watcher::Config,
    groups: Groups<Decoded<K>>,
) -> Follow<K>
where
    K: Lenient + Resource<Scope = NamespaceResourceScope> + Debug + Send + Sync + 'static,
{
    let watch = |scope: &Scope| {
        let api: Api<Decoded<K>> = match scope {
            Scope::All => Api::all(client.clone()),
            Scope::Namespace(namespace) => Api::namespaced(client.clone(), namespace),
        };
        (scope.clone(), watcher(api, config.clone()))
    };
    followed(scopes.iter().map(watch).collect(), groups)
}

fn followed<K, W>(watches: Vec<(Scope, W)>, groups: Groups<Decoded<K>>) -> Follow<K>
where
    K: Lenient + Send + Sync + 'static,
    W: Stream<Item = watcher::Result<Event<Decoded<K>>>> + Send + 'static,
{
    let scopes: Vec<_> = watches.iter().map(|(scope, _)| scope.clone()).collect();
    let streams = watches
        .into_iter()
        .map(|(scope, watch)| watch.default_backoff().map(move |event| (scope.clone(), event)).boxed());
    Follow { index: Index::new(groups, &scopes), stream: select_all(streams).boxed() }
}

impl<K: Lenient + Send + Sync + 'static> Follow<K> {
    fn drive(self, tell: impl Fn(Change<'_, Decoded<K>>) + Send + 'static) -> Watch {
        let Self { index, mut stream } = self;
        async move {
            while let Some((scope, event)) = stream.next().await {
                match event {
                    Ok(Event::Apply(object)) => {
                        let (before, now) = index.apply(object);
                        say_unreadable(before.as_deref(), &now);
                        tell(Change::Applied { before: before.as_deref(), now: &now });
                    }
                    Ok(Event::Delete(object)) => {
                        index.remove(&object);
                        tell(Change::Deleted(&object));
                    }
                    Ok(Event::Init) => index.begin(&scope),
                    Ok(Event::InitApply(object)) => {
                        let (before, now) = index.list(object);
                        say_unreadable(before.as_deref(), &now);
                    }
                    Ok(Event::InitDone) => {
                        index.finish(&scope);
                        tell(Change::Listed);
                    }
                    Err(error) => {
                        if is_refused(&error) {
                            index.refuse(&scope);
                        }
                        let place = match &scope {
                            Scope::All => String::new(),
                            Scope::Namespace(namespace) => format!(" in namespace {namespace}"),
                        };
                        warn!(
                            "the watch of {}{place} broke and is taken up again: {}",
                            K::plural(&()),
                            chain(&error)
                        );
                    }
                }
            }
        }
        .boxed()
    }
}

/// A list that we may not have: a Role that is missing, or a namespace with its Role.
fn is_refused(error: &watcher::Error) -> bool {
    let watcher::Error::InitialListFailed(kube::Error::Api(status)) = error else { return false };
    matches!(status.code, 403 | 404)
}

/// Once for each fault of each object.
fn say_unreadable<K: Lenient>(before: Option<&Decoded<K>>, now: &Decoded<K>) {
    let Some(fault) = now.fault().filter(|fault| before.and_then(Decoded::fault) != Some(*fault)) else {
        return;
    };
    let (kind, namespace, name) = (K::kind(&()), now.namespace().unwrap_or_default(), now.name_any());
    warn!(%kind, namespace, name, "this object cannot be read: {fault}");
}
