//! The apps of a row: made by the hundred, followed by one watch, changed, and removed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use graceful_api::GracefulApp;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ApiResource, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::{DynamicObject, Object};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::answers::PORT;
use super::marks::{self, AT_ONCE};
use super::rows::Row;

const NAMESPACE: &str = "bench-scale";

/// What a settled app must say: this much of its status is read, and nothing of its spec.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    observed_generation: Option<i64>,
    phase: Option<String>,
    serving_replicas: u32,
    updated_replicas: u32,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// A spec that is not kept.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Unread {}

type App = Object<Unread, Status>;

/// The apps of one row.
pub(super) struct Apps {
    client: Client,
    row: Row,
    board: Arc<Board>,
    /// The generation of each app's spec, where it is not the first.
    wanted: Mutex<HashMap<String, i64>>,
    _watch: JoinSet<()>,
}

/// What the watch has shown, app by app: the generation at which it is settled.
#[derive(Debug, Default)]
struct Board {
    settled_at: Mutex<HashMap<String, Option<i64>>>,
    moved: Notify,
}

impl Apps {
    /// Makes the namespaces and begins to watch.
    pub(super) async fn prepare(client: &Client, row: Row) -> anyhow::Result<Self> {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let count = if row.spread { row.apps } else { 1 };
        let made = stream::iter(0..count).map(|n| {
            let namespaces = namespaces.clone();
            async move {
                let object = json!({"metadata": {"name": namespace(row, n), "labels": marks::labels()}});
                namespaces.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
                anyhow::Ok(())
            }
        });
        made.buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.context("namespaces")?;
        let board = Arc::<Board>::default();
        let mut watch = JoinSet::new();
        watch.spawn(follow(client.clone(), row, Arc::clone(&board)));
        Ok(Self { client: client.clone(), row, board, wanted: Mutex::default(), _watch: watch })
    }

    /// Creates all apps; how long that took.
    pub(super) async fn create(&self) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let made = stream::iter(0..self.row.apps).map(|n| async move {
            // Not typed: our own defaults must not be written out.
            let app: DynamicObject = serde_json::from_value(manifest(self.row, n))?;
            let resource = ApiResource::erase::<GracefulApp>(&());
            let apps: Api<DynamicObject> =
                Api::namespaced_with(self.client.clone(), &namespace(self.row, n), &resource);
            apps.create(&PostParams::default(), &app).await.with_context(|| name(n))?;
            anyhow::Ok(())
        });
        made.buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.context("creating the apps")?;
        Ok(begun.elapsed())
    }

    /// Changes the template of the first `count` apps: a rollout of each.
    pub(super) async fn change(&self, count: usize, mark: &str) -> anyhow::Result<()> {
        let changed = stream::iter(0..count).map(|n| async move {
            let patch = json!({"spec": {"template": {"metadata": {"annotations": {"bench": mark}}}}});
            let app =
                self.of(n).patch_metadata(&name(n), &PatchParams::default(), &Patch::Merge(&patch)).await?;
            let generation = app.metadata.generation.context("an app without a generation")?;
            self.wanted.lock().insert(format!("{}/{}", namespace(self.row, n), name(n)), generation);
            anyhow::Ok(())
        });
        changed.buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.context("changing the templates")?;
        Ok(())
    }

    /// Asks for the deletion of all of them.
    pub(super) async fn delete(&self) -> anyhow::Result<()> {
        let namespaces = if self.row.spread { self.row.apps } else { 1 };
        let deleted = stream::iter(0..namespaces).map(|n| async move {
            self.of(n).delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
            anyhow::Ok(())
        });
        deleted.buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.context("deleting the apps")?;
        Ok(())
    }

    /// How many are settled, each with its latest spec.
    pub(super) fn settled(&self) -> usize {
        let wanted = self.wanted.lock();
        let wants = |app: &String| wanted.get(app).copied().unwrap_or(1);
        self.board.settled_at.lock().iter().filter(|(app, at)| at.is_some_and(|at| at >= wants(app))).count()
    }

    /// How many there are.
    pub(super) fn there(&self) -> usize {
        self.board.settled_at.lock().len()
    }

    /// Until the watch shows something, or this much time has passed.
    pub(super) async fn moved(&self, at_most: Duration) {
        let _late = tokio::time::timeout(at_most, self.board.moved.notified()).await;
    }

    fn of(&self, n: usize) -> Api<GracefulApp> {
        Api::namespaced(self.client.clone(), &namespace(self.row, n))
    }
}

async fn follow(client: Client, row: Row, board: Arc<Board>) {
    let apps: Api<App> = Api::all_with(client, &ApiResource::erase::<GracefulApp>(&()));
    let config = watcher::Config::default().labels(&marks::selector());
    let mut events = watcher(apps, config).default_backoff().boxed();
    while let Some(event) = events.next().await {
        // A watch that breaks is taken up again, with a whole list.
        let Ok(event) = event else { continue };
        let mut all = board.settled_at.lock();
        match event {
            Event::Apply(app) | Event::InitApply(app) => drop(all.insert(key(&app), settled_at(&app, row))),
            Event::Delete(app) => drop(all.remove(&key(&app))),
            Event::Init => all.clear(),
            Event::InitDone => {}
        }
        drop(all);
        board.moved.notify_one();
    }
}

/// The generation that it says it has reached, if it says that nothing is left to do.
fn settled_at(app: &App, row: Row) -> Option<i64> {
    let Status { observed_generation, phase, serving_replicas, updated_replicas, conditions } =
        app.status.as_ref()?;
    let busy = conditions.iter().any(|c| c.kind == "Reconciling" && c.status == "True");
    let all = *serving_replicas == row.replicas && *updated_replicas == row.replicas;
    let current = app.metadata.generation.filter(|now| Some(*now) == *observed_generation);
    current.filter(|_| phase.as_deref() == Some("Serving") && all && !busy)
}

fn key(app: &App) -> String {
    format!("{}/{}", app.namespace().unwrap_or_default(), app.name_any())
}

fn namespace(row: Row, n: usize) -> String {
    if row.spread { format!("{NAMESPACE}-{n}") } else { NAMESPACE.to_owned() }
}

fn name(n: usize) -> String {
    format!("app-{n}")
}

/// A small app with a Service, as many have it. Pods go to the stub's nodes alone, and nothing of them is run.
fn manifest(row: Row, n: usize) -> Value {
    let (key, value) = marks::MARK;
    json!({
        "apiVersion": GracefulApp::api_version(&()), "kind": GracefulApp::kind(&()),
        "metadata": {"name": name(n), "namespace": namespace(row, n), "labels": marks::labels()},
        "spec": {
            "replicas": row.replicas,
            "template": {"spec": {
                "nodeSelector": {key: value},
                "tolerations": [{"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"}],
                "automountServiceAccountToken": false,
                "containers": [{
                    "name": "server",
                    "image": "graceful/server:dev",
                    "ports": [{"name": "http", "containerPort": 8000}, {"name": "admin", "containerPort": PORT}],
                    "readinessProbe": {"httpGet": {"path": "/readyz", "port": "admin"}},
                    "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}},
                }],
            }},
            "service": {"ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
            "drain": {"lingerSeconds": 1},
        },
    })
}
