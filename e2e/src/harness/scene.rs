//! One test: its namespace, its app, its load, and steps that log themselves.

use std::future::Future;

use anyhow::{Context, bail, ensure};
use graceful_api::{GracefulApp, names};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use parking_lot::{Mutex, MutexGuard};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::app::{AppSpec, NAME};
use super::load::Load;
use super::observer::Observer;
use super::world::World;
use super::{given::Given, then::Then, when::When};

/// One test while it runs.
pub struct Scene {
    /// What all tests share.
    pub world: World,
    /// The scenario's name.
    pub name: String,
    /// The namespace that this scenario has to itself.
    pub namespace: String,
    /// Talks to the API server.
    pub client: Client,
    /// Never looks away.
    pub observer: Observer,
    spec: Mutex<Option<AppSpec>>,
    load: OnceCell<Load>,
    rng: Mutex<StdRng>,
    started: Instant,
    figures: Mutex<Figures>,
}

/// What a test counted.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Tasks that clients were told were accepted.
    pub accepted: u64,
    /// Of those, finished.
    pub finished: u64,
    /// Of those, lost; what the test meant to be cut does not count.
    pub lost: u64,
    /// Requests refused or failed.
    pub unanswered: u64,
    /// Spare pods seen.
    pub spares: usize,
    /// The spares that ran a container.
    pub spares_ran: usize,
}

impl Scene {
    /// A fresh namespace.
    pub async fn new(world: &World, name: &str) -> anyhow::Result<Self> {
        let suffix = uuid::Uuid::new_v4().simple().to_string();
        let namespace = format!("e2e-{}-{}", name.replace('_', "-"), &suffix[..5]);
        Self::in_namespace(world, name, namespace).await
    }

    /// The same in a namespace of this name, which must not exist.
    pub async fn in_namespace(world: &World, name: &str, namespace: String) -> anyhow::Result<Self> {
        let salt = name.bytes().fold(0u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
        let client = world.client.clone();
        let object = serde_json::from_value(
            json!({"metadata": {"name": namespace, "labels": {NAMESPACE_LABEL: ""}}}),
        )?;
        Api::<Namespace>::all(client.clone())
            .create(&PostParams::default(), &object)
            .await
            .with_context(|| format!("cannot create namespace {namespace}"))?;
        let observer = Observer::start(client.clone(), &namespace, &names::app_selector(NAME));
        Ok(Self {
            world: world.clone(),
            name: name.to_owned(),
            namespace,
            client,
            observer,
            spec: Mutex::default(),
            load: OnceCell::new(),
            rng: Mutex::new(StdRng::seed_from_u64(world.seed ^ salt)),
            started: Instant::now(),
            figures: Mutex::default(),
        })
    }

    /// The three kinds of steps.
    pub fn steps(&self) -> (Given<'_>, When<'_>, Then<'_>) {
        (Given(self), When(self), Then(self))
    }

    /// Runs one step and logs it with its time; an error says which step it was.
    pub async fn step<T>(
        &self,
        words: impl Into<String>,
        body: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let words = words.into();
        let begun = Instant::now();
        let result = body.await.with_context(|| words.clone());
        let mark = if result.is_ok() { "" } else { "   FAILED" };
        self.say(&format!("{words} ({:.1} s){mark}", begun.elapsed().as_secs_f64()));
        result
    }

    /// One line of the test's log.
    pub fn say(&self, line: &str) {
        println!("{:>6.1} {:<22} {line}", self.started.elapsed().as_secs_f64(), self.name);
    }

    /// Objects of a kind in this test's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The spec as last applied.
    pub fn spec(&self) -> anyhow::Result<AppSpec> {
        self.spec.lock().clone().context("no app was given")
    }

    /// Applies a spec as `kubectl apply --server-side` does, and tells the observer what it allows.
    pub async fn apply(&self, spec: AppSpec) -> anyhow::Result<()> {
        let params = PatchParams::apply("e2e").force();
        let manifest = spec.manifest();
        self.observer.expect(Some(spec.limits()));
        *self.spec.lock() = Some(spec);
        self.api::<GracefulApp>().patch(NAME, &params, &Patch::Apply(&manifest)).await?;
        Ok(())
    }

    /// Remembers what another writer (`kubectl scale`, an autoscaler) made of the spec.
    pub fn spec_became(&self, spec: AppSpec) {
        self.observer.expect(Some(spec.limits()));
        *self.spec.lock() = Some(spec);
    }

    /// The app as the API server has it.
    pub async fn app(&self) -> anyhow::Result<GracefulApp> {
        Ok(self.api::<GracefulApp>().get(NAME).await?)
    }

    /// The app's pods, terminating ones too.
    pub async fn pods(&self) -> anyhow::Result<Vec<Pod>> {
        let params = ListParams::default().labels(&names::app_selector(NAME));
        Ok(self.api::<Pod>().list(&params).await?.items)
    }

    /// The load generator, deployed at the first use.
    pub async fn load(&self) -> anyhow::Result<&Load> {
        self.load.get_or_try_init(|| Load::deploy(&self.world, &self.namespace)).await
    }

    /// The load generator if there is one.
    pub fn load_if_any(&self) -> Option<&Load> {
        self.load.get()
    }

    /// The test's own random numbers, which the seed decides.
    pub fn rng(&self) -> MutexGuard<'_, StdRng> {
        self.rng.lock()
    }

    /// What was counted so far.
    pub fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock()
    }

    /// Fails with every promise that the observer saw broken.
    pub async fn check_promises(&self) -> anyhow::Result<()> {
        let ledger = match self.load.get() {
            Some(load) => Some(load.ledger_with_offset().await?),
            None => None,
        };
        let findings = self.observer.findings(ledger.as_ref().map(|(view, offset)| (view, *offset)));
        let mut figures = self.figures();
        figures.spares = findings.spares;
        figures.spares_ran = findings.spares_ran;
        drop(figures);
        ensure!(findings.violations.is_empty(), "{}", findings.violations.join("; "));
        Ok(())
    }

    /// Asks for the namespace's deletion; the runner waits for it later.
    pub async fn remove_namespace(&self) -> anyhow::Result<()> {
        self.observer.expect(None);
        Api::<Namespace>::all(self.client.clone()).delete(&self.namespace, &DeleteParams::default()).await?;
        Ok(())
    }
}

/// Marks the namespaces that tests made.
pub const NAMESPACE_LABEL: &str = "graceful.dev/e2e";

/// Whether a pod's first container is what the template says: image and environment, and it is Ready and routed to.
pub fn serves_template(pod: &Pod, spec: &AppSpec) -> anyhow::Result<()> {
    let name = pod.name_any();
    let wanted = &spec.0["template"]["spec"]["containers"][0];
    let pod_json = serde_json::to_value(pod)?;
    let has = &pod_json["spec"]["containers"][0];
    ensure!(has["image"] == wanted["image"], "{name} still has image {}", has["image"]);
    // What comes from a field or a secret is completed by the API server and compares unequal.
    for env in wanted["env"].as_array().into_iter().flatten().filter(|e| e.get("value").is_some()) {
        let found = has["env"].as_array().is_some_and(|all| all.contains(env));
        ensure!(found, "{name} has not {env}");
    }
    let ready = pod_json["status"]["conditions"]
        .as_array()
        .is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"));
    ensure!(ready, "{name} is not Ready");
    if pod.labels().get(names::SERVING_LABEL).map(String::as_str) != Some(names::SERVING) {
        bail!("{name} is not routed to");
    }
    Ok(())
}
