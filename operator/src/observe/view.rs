//! An app's children as raw objects, from the watches' stores, or from live lists where those are late.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use graceful_api::{FieldError, GracefulApp, names};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::api::ListParams;
use kube::{Api, Client, Resource, ResourceExt};
use tokio::time::sleep;

use super::adoption::selector;
use super::pods::has_finished;
use super::revisions::Ours;
use super::{Nodes, Sightings, Sources};
use crate::app_ref::AppRef;
use crate::concern::{ANY, Concerns, Pairs, pairs, pairs_to_come};
use crate::decode::{Decoded, Lenient};
use crate::error::{Error, call};
use crate::index::Index;
use crate::requeue::Desired;
use crate::unseen_writes::{Kind, Shown, version};
use crate::writes::Writes;

/// What the watches show, and which app what of it concerns.
#[derive(Clone)]
pub(crate) struct Stores {
    /// Of all namespaces, those with our label; by app.
    pub(crate) deployments: Index<Decoded<Deployment>>,
    /// Likewise.
    pub(crate) pods: Index<Decoded<Pod>>,
    /// All, by what they select: one of the user's own may route to our pods.
    pub(crate) services: Index<Decoded<Service>>,
    /// All, for the same reason.
    pub(crate) budgets: Index<Decoded<PodDisruptionBudget>>,
    /// For whether their kubelets are heard, and whether they go.
    pub(crate) nodes: Nodes,
    pub(crate) concerns: Arc<Concerns>,
}

impl Stores {
    /// All that an app of this namespace has was listed: without its pods or Services in view nothing of it may be decided.
    pub(crate) fn know(&self, namespace: &str) -> bool {
        self.deployments.knows(namespace)
            && self.pods.knows(namespace)
            && self.services.knows(namespace)
            && self.budgets.knows(namespace)
    }
}

/// One app's surroundings at one moment.
pub(crate) struct View {
    /// With the app's label, whosever they are.
    pub(crate) deployments: Vec<Arc<Deployment>>,
    /// With the app's label, whosever they are. An unreadable one is there as its stand-in, which may be busy.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// The one with the app's own name, and those that may select its pods.
    pub(crate) services: Vec<Arc<Service>>,
    /// Likewise.
    pub(crate) budgets: Vec<Arc<PodDisruptionBudget>>,
    /// Read just now, and not from the watches.
    pub(super) live: bool,
    /// Deployments that cannot be read: their uid of the app, and what to say of them.
    unreadable: Vec<(Option<String>, FieldError)>,
}

/// How long the watches are given to show our own last writes, and how often they are looked at meanwhile: mostly they are some milliseconds behind, and
/// a live view costs the API server four calls.
const WATCH_LAG: Duration = Duration::from_millis(20);
const WATCH_LOOKS: u32 = 5;

/// The app itself, where the next look is to be a live one.
pub(crate) enum Newest {
    /// The watch is trusted.
    AsKnown,
    /// Read just now.
    Read(Box<Decoded<GracefulApp>>),
    /// The app is gone, or another has its name.
    Gone,
}

/// What follows from a spec that is no more may be as wrong as what follows from pods that are no more: after another operator has led, a deleted app
/// would be made once again.
pub(crate) async fn newest(
    sources: &Sources,
    app: &GracefulApp,
    trust: Duration,
    writes: &Writes,
    sightings: &mut Sightings,
) -> Result<Newest, Error> {
    let behind = sightings.newest > Some(Desired::of(app));
    if !behind && !writes.look_live && !sightings.distrust_watches(trust) {
        return Ok(Newest::AsKnown);
    }
    let api: Api<Decoded<GracefulApp>> =
        Api::namespaced(sources.client.clone(), &app.namespace().unwrap_or_default());
    let found = call("read the GracefulApp", api.get_opt(&app.name_any())).await?;
    let same = found.filter(|found| found.uid() == app.uid());
    sightings.newest = same.as_ref().map(|found| Desired::of(found));
    Ok(same.map_or(Newest::Gone, |found| Newest::Read(Box::new(found))))
}

/// A view that shows our own last writes. From memory wherever that does, so that an app at rest costs the API server nothing; live after a
/// surprise, and whenever the last live view is older than `trust`, since a watch can go blind without a word.
pub(super) async fn view(
    sources: &Sources,
    app: &GracefulApp,
    trust: Duration,
    writes: &mut Writes,
    sightings: &mut Sightings,
) -> Result<View, Error> {
    let mut looks = 0;
    let (remembered, current) = loop {
        let remembered = View::remembered(&sources.stores, app);
        let current = writes.unseen_writes.settle(|kind, name| remembered.seen(kind, name), |_, _| false);
        if current || writes.look_live || looks == WATCH_LOOKS {
            break (remembered, current);
        }
        looks += 1;
        sleep(WATCH_LAG).await;
    };
    sightings.viewed_live.get_or_insert_with(Instant::now);
    if current && !sightings.distrust_watches(trust) && !writes.look_live {
        return remembered.with_unlabelled(sources, app).await;
    }
    let live = View::live(&sources.client, &sources.stores, app).await?;
    writes.look_live = false;
    sightings.viewed_live = Some(Instant::now());
    let gone = |kind, name: &str| live.seen(kind, name).is_none();
    writes.unseen_writes.settle(|kind, name| remembered.seen(kind, name), gone);
    live.with_unlabelled(sources, app).await
}

impl View {
    fn remembered(stores: &Stores, app: &GracefulApp) -> Self {
        let (name, namespace) = (app.name_any(), app.namespace().unwrap_or_default());
        let deployments = stores.deployments.group(&namespace, &name);
        let pods = stores.pods.group(&namespace, &name);
        let service = stores.services.get(&namespace, &names::service_name(&name));
        let budget = stores.budgets.get(&namespace, &names::pdb_name(&name));
        Self::of(stores, app, &deployments, &pods, service, budget)
    }

    /// What is the app's own, from the API server itself; what only selects its pods, as the watches show it.
    async fn live(client: &Client, stores: &Stores, app: &GracefulApp) -> Result<Self, Error> {
        let (name, namespace) = (app.name_any(), app.namespace().unwrap_or_default());
        let service: Api<Decoded<Service>> = Api::namespaced(client.clone(), &namespace);
        let budget: Api<Decoded<PodDisruptionBudget>> = Api::namespaced(client.clone(), &namespace);
        let (service_name, budget_name) = (names::service_name(&name), names::pdb_name(&name));
        let selector = names::app_selector(&name);
        // Deployments first, and alone: a pod in the list then always has its Deployment in the other.
        let deployments = list(client, &namespace, &selector, "list Deployments").await?;
        let (pods, service, budget) = futures::try_join!(
            list(client, &namespace, &selector, "list pods"),
            call("read the Service", service.get_opt(&service_name)),
            call("read the PodDisruptionBudget", budget.get_opt(&budget_name)),
        )?;
        let (service, budget) = (service.map(Arc::new), budget.map(Arc::new));
        let view = Self::of(stores, app, &shared(deployments), &shared(pods), service, budget);
        Ok(Self { live: true, ..view })
    }

    fn of(
        stores: &Stores,
        app: &GracefulApp,
        deployments: &[Arc<Decoded<Deployment>>],
        pods: &[Arc<Decoded<Pod>>],
        service: Option<Arc<Decoded<Service>>>,
        budget: Option<Arc<Decoded<PodDisruptionBudget>>>,
    ) -> Self {
        let namespace = app.namespace().unwrap_or_default();
        let mut labels = pairs_to_come(app);
        labels.extend(pods.iter().flat_map(|pod| pairs(pod.labels())));
        stores.concerns.file(&AppRef::from_obj(app), &labels);
        let unreadable = deployments.iter().filter_map(|d| Some((d, d.fault()?)));
        let unreadable = unreadable.map(|(deployment, fault)| {
            let FieldError { field, message } = fault;
            let field = format!("Deployment {}, {field}", deployment.name_any());
            (
                deployment.annotations().get(names::APP_UID).cloned(),
                FieldError { field, message: message.clone() },
            )
        });
        let readable = deployments.iter().filter(|d| d.fault().is_none());
        Self {
            live: false,
            unreadable: unreadable.collect(),
            deployments: readable.map(|d| d.shared()).collect(),
            pods: pods.iter().map(|p| p.shared()).collect(),
            services: concerning(
                &stores.services,
                &namespace,
                &labels,
                &names::service_name(&app.name_any()),
                service,
            ),
            budgets: concerning(
                &stores.budgets,
                &namespace,
                &labels,
                &names::pdb_name(&app.name_any()),
                budget,
            ),
        }
    }

    /// With the pods of an adopted Deployment that have no label of ours yet: no watch of ours shows those. They are looked for where there are more pods than are
    /// known.
    async fn with_unlabelled(mut self, sources: &Sources, app: &GracefulApp) -> Result<Self, Error> {
        let (namespace, uid) = (app.namespace().unwrap_or_default(), app.uid().unwrap_or_default());
        let adopted = self.deployments.iter().filter_map(|d| Ours::of(d, &uid)).find(|o| o.hash.is_adopted());
        let Some(adopted) = adopted.filter(Ours::is_in_use) else { return Ok(self) };
        let counted = |pod: &Pod| pod.metadata.deletion_timestamp.is_none() && !has_finished(pod);
        let known = self.pods.iter().filter(|pod| counted(pod) && adopted.has(&pod.metadata)).count();
        if let Some(selector) = selector(&adopted.object).filter(|_| self.live || known < adopted.most_pods())
        {
            let all: Vec<Decoded<Pod>> = list(&sources.client, &namespace, &selector, "list pods").await?;
            let known: BTreeSet<_> = self.pods.iter().filter_map(|pod| pod.uid()).collect();
            let new = |pod: &Decoded<Pod>| {
                adopted.has(&pod.metadata) && pod.uid().is_some_and(|uid| !known.contains(&uid))
            };
            self.pods.extend(shared(all).iter().filter(|pod| new(pod)).map(|pod| pod.shared()));
        }
        // Services and budgets over them are the user's, and of no label of ours either.
        let mut labels = pairs_to_come(app);
        labels.extend(self.pods.iter().flat_map(|pod| pairs(pod.labels())));
        labels.extend(
            adopted.object.spec.template.metadata.iter().flat_map(|m| pairs(m.labels.iter().flatten())),
        );
        sources.stores.concerns.file(&AppRef::from_obj(app), &labels);
        join(&mut self.services, concerning(&sources.stores.services, &namespace, &labels, "", None));
        join(&mut self.budgets, concerning(&sources.stores.budgets, &namespace, &labels, "", None));
        Ok(self)
    }

    /// What keeps an app from being planned: a Deployment of its own that cannot be read may have any number of pods.
    pub(super) fn unreadable(&self, app_uid: &str) -> Vec<FieldError> {
        let ours = self.unreadable.iter().filter(|(uid, _)| uid.as_deref() == Some(app_uid));
        ours.map(|(_, fault)| fault.clone()).collect()
    }

    fn seen(&self, kind: Kind, name: &str) -> Shown {
        match kind {
            Kind::Deployment => named(&self.deployments, name),
            Kind::Pod => named(&self.pods, name),
            Kind::Service => named(&self.services, name),
            Kind::Budget => named(&self.budgets, name),
        }
    }
}

/// All objects of the namespace that are selected, in pages: an app of thousands of pods is never in memory whole and unslimmed.
pub(super) async fn list<K>(
    client: &Client,
    namespace: &str,
    selector: &str,
    what: &'static str,
) -> Result<Vec<Decoded<K>>, Error>
where
    K: Lenient + Resource<Scope = NamespaceResourceScope> + Debug,
{
    let api: Api<Decoded<K>> = Api::namespaced(client.clone(), namespace);
    let mut page = ListParams::default().labels(selector).limit(PAGE);
    let mut all = Vec::new();
    loop {
        let list = call(what, api.list(&page)).await?;
        all.extend(list.items);
        if !turn(&mut page, list.metadata) {
            return Ok(all);
        }
    }
}

/// To the next page, if there is one.
pub(super) fn turn(page: &mut ListParams, read: ListMeta) -> bool {
    page.continue_token = read.continue_.filter(|token| !token.is_empty());
    page.continue_token.is_some()
}

/// A pod is some 10 KiB of JSON: a page stays at a few MiB.
pub(super) const PAGE: u32 = 500;

/// The app's own child, and what may select its pods.
fn concerning<K: Resource<DynamicType = ()> + Clone>(
    index: &Index<Decoded<K>>,
    namespace: &str,
    labels: &Pairs,
    own_name: &str,
    own: Option<Arc<Decoded<K>>>,
) -> Vec<Arc<K>> {
    let groups = labels.iter().map(String::as_str).chain([ANY]);
    let selecting = groups.flat_map(|group| index.group(namespace, group));
    // A live look at the app's own child, or at its absence, is newer than the index.
    let others = selecting.filter(|object| object.name_any() != own_name);
    let found: BTreeMap<String, Arc<K>> =
        others.chain(own).map(|object| (object.name_any(), object.shared())).collect();
    found.into_values().collect()
}

/// Adds the objects that are not there by name.
fn join<K: Resource>(objects: &mut Vec<Arc<K>>, more: Vec<Arc<K>>) {
    let there: BTreeSet<_> = objects.iter().map(|o| o.name_any()).collect();
    objects.extend(more.into_iter().filter(|o| !there.contains(&o.name_any())));
}

fn named<K: Resource>(objects: &[Arc<K>], name: &str) -> Shown {
    let found = objects.iter().find(|o| o.meta().name.as_deref() == Some(name))?;
    Some((found.meta().uid.clone().unwrap_or_default(), version(found.as_ref())))
}

fn shared<K>(items: Vec<K>) -> Vec<Arc<K>> {
    items.into_iter().map(Arc::new).collect()
}
