//! The routes: reports in, control in, the ledger out.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Shared, clients, now_ms, sockets};
use crate::streams::echo;
use crate::wire::{LedgerView, LoadSpec, Report, Speaks};

/// What the routes share.
#[derive(Clone, Default)]
pub struct App {
    ledger: Shared,
    load: Arc<Mutex<Load>>,
}

/// The stop switches of what runs. Each `POST /load` adds to it, so that loads can be layered.
#[derive(Default)]
struct Load {
    submitters: Vec<watch::Sender<bool>>,
    sockets: Vec<watch::Sender<bool>>,
    wanted: u64,
}

impl Load {
    /// Whether any load still submits: its clients are gone when none listens to the switch.
    fn submitting(&self) -> bool {
        self.submitters.iter().any(|s| !s.is_closed())
    }
}

/// All routes of the load generator.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/livez", get(async || "ok"))
        .route("/report", post(report))
        .route("/ledger", get(ledger))
        .route("/reach", get(reach))
        .route("/load", post(start))
        .route("/load/stop", post(stop))
        .with_state(app)
}

async fn report(State(app): State<App>, Json(report): Json<Report>) -> StatusCode {
    app.ledger.lock().report(report, now_ms());
    StatusCode::NO_CONTENT
}

async fn ledger(State(app): State<App>) -> Json<LedgerView> {
    let submitting = app.load.lock().submitting();
    Json(app.ledger.lock().view(submitting, now_ms()))
}

async fn start(
    State(app): State<App>,
    Json(spec): Json<LoadSpec>,
) -> Result<StatusCode, (StatusCode, String)> {
    if spec.clients > 0 && !(spec.rate_per_second > 0.0 && spec.rate_per_second <= 1000.0) {
        return Err((StatusCode::BAD_REQUEST, "ratePerSecond must be above 0 and at most 1000".into()));
    }
    let (stop_submitters, submitters) = watch::channel(false);
    let (stop_sockets, socket_stop) = watch::channel(false);
    for number in 0..spec.clients {
        tokio::spawn(clients::run(number, spec.clone(), app.ledger.clone(), submitters.clone()));
    }
    for number in 0..spec.sockets {
        tokio::spawn(sockets::run(number, spec.clone(), app.ledger.clone(), socket_stop.clone()));
    }
    // Bounded, whatever becomes of the harness.
    let end = (stop_submitters.clone(), stop_sockets.clone());
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(spec.seconds)).await;
        end.0.send_replace(true);
        end.1.send_replace(true);
    });
    let mut load = app.load.lock();
    load.wanted += u64::from(spec.sockets);
    app.ledger.lock().sockets_wanted(load.wanted);
    load.submitters.push(stop_submitters);
    load.sockets.push(stop_sockets);
    Ok(StatusCode::ACCEPTED)
}

/// Longer than any healthy answer.
const REACH: Duration = Duration::from_secs(2);

/// Whom to reach.
#[derive(Deserialize)]
struct Whom {
    target: String,
    #[serde(default)]
    speaks: Speaks,
}

/// Whether the target answers at all from here: a Service routes only once kube-proxy has heard of its pods.
async fn reach(Query(whom): Query<Whom>) -> Result<StatusCode, (StatusCode, String)> {
    let answer = match whom.speaks {
        Speaks::Echo => {
            timeout(REACH, echo::begin(&whom.target)).await.map_or(Err("late".to_owned()), |a| a.map(drop))
        }
        // An app of gRPC answers a GET as well, if not kindly.
        Speaks::Tasks | Speaks::Grpc => {
            let client = reqwest::Client::builder().no_proxy().timeout(REACH).build();
            match client {
                Ok(client) => {
                    client.get(whom.target).send().await.map(drop).map_err(|error| error.to_string())
                }
                Err(error) => Err(error.to_string()),
            }
        }
    };
    answer.map(|()| StatusCode::NO_CONTENT).map_err(|error| (StatusCode::BAD_GATEWAY, error))
}

/// What to stop: submissions alone leaves the sockets connected while the last tasks end.
#[derive(Deserialize)]
struct What {
    #[serde(default)]
    sockets: bool,
}

/// Stops submitting, and with `?sockets=true` the sockets too. Submissions that have begun are still waited for:
/// `submitting` in the ledger says when the last is over.
async fn stop(State(app): State<App>, Query(what): Query<What>) -> StatusCode {
    let mut load = app.load.lock();
    for stop in &load.submitters {
        stop.send_replace(true);
    }
    if what.sockets {
        for stop in load.sockets.drain(..) {
            stop.send_replace(true);
        }
        load.wanted = 0;
        app.ledger.lock().sockets_wanted(0);
    }
    StatusCode::NO_CONTENT
}
