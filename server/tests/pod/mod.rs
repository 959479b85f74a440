//! A pod inside of the test: the whole server but its listeners, on a queue in a folder of its own.
#![allow(dead_code, reason = "each test file uses its part of the pod")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use graceful_drain::{Drain, Settings};
use graceful_server::api::visitors::{Hosts, Visitors};
use graceful_server::api::{self, Api};
use graceful_server::engine::Engine;
use graceful_server::events::hub::{Hub, HubSettings};
use graceful_server::kind::{Failure, Kind, Kinds};
use graceful_server::metrics::Metrics;
use graceful_server::queue::{Defaults, Queue};
use graceful_server::runner::Runner;
use graceful_server::running::Running;
use graceful_server::sleep;
use graceful_store::{State, StoreSettings, TaskRecord};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tower::ServiceExt;
use uuid::Uuid;

#[path = "../folder/mod.rs"]
mod folder;
pub(crate) use folder::Folder;

/// Far beyond what anything here takes, on a loaded machine too.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// Takes the place of `sleep`: each task waits until the test lets one go.
#[derive(Clone)]
pub(crate) struct Held(pub(crate) Arc<Semaphore>);

impl Default for Held {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }
}

impl Held {
    pub(crate) fn let_go(&self, tasks: usize) {
        self.0.add_permits(tasks);
    }
}

impl Kind for Held {
    const NAME: &'static str = sleep::Sleep::NAME;
    type Input = sleep::Input;
    type Output = ();

    async fn run(&self, _: sleep::Input, task: &Running) -> Result<(), Failure> {
        tokio::select! {
            place = self.0.acquire() => {
                place?.forget();
                Ok(())
            }
            () = task.cancelled() => Err(Failure::fatal("cancelled")),
        }
    }
}

pub(crate) struct Pod {
    pub(crate) drain: Drain,
    pub(crate) queue: Arc<Queue>,
    pub(crate) hub: Hub,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) public: Router,
    pub(crate) admin: Router,
    pub(crate) defaults: Defaults,
    pub(crate) folder: Folder,
}

/// How a pod of the tests is made.
pub(crate) struct Plan {
    pub(crate) kinds: Kinds,
    pub(crate) capacity: u64,
    pub(crate) concurrency: usize,
    pub(crate) defaults: Defaults,
    pub(crate) keep_events: Duration,
    pub(crate) listening: HubSettings,
    /// None: SQLite in a folder of its own.
    pub(crate) engine: Option<Engine>,
}

impl Plan {
    pub(crate) fn of(kind: impl Kind) -> Self {
        let mut kinds = Kinds::default();
        kinds.add(kind).unwrap();
        let defaults = Defaults { timeout: TIMEOUT, max_attempts: 3, keep: Duration::from_secs(3600) };
        Self {
            kinds,
            capacity: 100,
            concurrency: 8,
            defaults,
            keep_events: Duration::from_secs(3600),
            listening: HubSettings::default(),
            engine: None,
        }
    }

    /// Ready.
    pub(crate) async fn pod(self) -> Pod {
        let Self { kinds, capacity, concurrency, defaults, keep_events, listening, engine } = self;
        let folder = Folder::new();
        let drain = Drain::new(Settings::default());
        let (kinds, metrics) = (Arc::new(kinds), Arc::new(Metrics::default()));
        let visitors = Arc::new(Visitors { origins: listening.origins.clone(), hosts: Hosts::default() });
        let hub = Hub::new(listening, drain.clone(), metrics.clone());
        tokio::spawn(hub.clone().attend());
        let settings = StoreSettings { keep_events, ..store_settings(capacity, kinds.names()) };
        let engine = engine.unwrap_or_else(|| Engine::Sqlite(folder.0.clone()));
        let queue = Queue::open(engine, settings, drain.clone(), metrics.clone());
        let runner =
            Runner::new(queue.clone(), kinds.clone(), drain.clone(), hub.clone(), None, metrics.clone());
        runner.start(concurrency);
        tokio::spawn(hub.clone().follow(queue.clone()));
        timeout(TIMEOUT, queue.opened()).await.unwrap();
        let api = Api {
            drain: drain.clone(),
            queue: queue.clone(),
            kinds,
            defaults,
            hub: hub.clone(),
            history: Arc::default(),
            metrics: metrics.clone(),
            rooms: Arc::default(),
            visitors,
            tokens: None,
        };
        let admin = api::admin(&api);
        Pod { drain, queue, hub, metrics, admin, public: api::public(api), defaults, folder }
    }
}

pub(crate) fn store_settings(capacity: u64, kinds: Vec<String>) -> StoreSettings {
    StoreSettings {
        owner: Uuid::new_v4().to_string(),
        capacity,
        kinds,
        keep_events: Duration::from_secs(3600),
        max_interruptions: graceful_store::MOST_INTERRUPTIONS.get(),
        keep_dead: Duration::from_secs(3600),
        owned: Arc::new(|_| {}),
        letters: Arc::new(|_| {}),
    }
}

/// The public and the admin routes of a pod that has this queue and runs nothing.
pub(crate) fn routes(drain: Drain, queue: Arc<Queue>) -> (Router, Router) {
    let plan = Plan::of(Held::default());
    let (kinds, metrics) = (Arc::new(plan.kinds), queue.metrics().clone());
    let hub = Hub::new(HubSettings::default(), drain.clone(), metrics.clone());
    let (rooms, visitors) = (Arc::default(), Arc::default());
    let api = Api {
        drain,
        queue,
        kinds,
        defaults: plan.defaults,
        hub,
        history: Arc::default(),
        metrics,
        rooms,
        visitors,
        tokens: None,
    };
    (api::public(api.clone()), api::admin(&api))
}

impl Pod {
    /// Serves the public routes; where.
    pub(crate) async fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = self.public.clone().into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        address
    }

    /// Puts a task of this kind into the queue, past the API.
    pub(crate) async fn put(&self, kind: &str, input: &str) -> Uuid {
        let task = self.defaults.task(kind, input.to_owned());
        let id = task.id;
        let request = self.drain.try_request().unwrap();
        self.queue.submit(task, &request).await.unwrap();
        id
    }

    /// Waits until the task is as wanted.
    pub(crate) async fn task(&self, id: Uuid, wanted: impl Fn(&TaskRecord) -> bool) -> TaskRecord {
        let asking = async {
            loop {
                let found = self.queue.store().unwrap().get(id).await.unwrap();
                if let Some(task) = found.filter(&wanted) {
                    return task;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(TIMEOUT, asking).await.expect("comes to it in time")
    }

    pub(crate) async fn ended(&self, id: Uuid) -> TaskRecord {
        self.task(id, |task| task.state.ended()).await
    }

    pub(crate) async fn in_state(&self, id: Uuid, state: State) -> TaskRecord {
        self.task(id, |task| task.state == state).await
    }

    /// Waits until `/metrics` has this line.
    pub(crate) async fn told(&self, line: &str) {
        let asking = async {
            loop {
                let (_, _, text) = ask(&self.admin, "GET", "/metrics").await;
                if text.lines().any(|one| one == line) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(TIMEOUT, asking).await.unwrap_or_else(|_| panic!("/metrics never says {line}"));
    }

    pub(crate) async fn running(&self, tasks: u64) {
        let wanted = self.drain.wait_until(|status| status.in_flight.running == tasks);
        timeout(TIMEOUT, wanted).await.expect("comes to it in time");
    }
}

pub(crate) async fn ask(app: &Router, method: &str, path: &str) -> (StatusCode, HeaderMap, String) {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    let (parts, body) = app.clone().oneshot(request).await.unwrap().into_parts();
    let body = axum::body::to_bytes(body, 10 << 20).await.unwrap();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

pub(crate) async fn json(app: &Router, method: &str, path: &str) -> (u16, Value) {
    let (status, _, body) = ask(app, method, path).await;
    (status.as_u16(), serde_json::from_str(&body).unwrap())
}
