//! One process that answers for all pods of a stub kubelet, each at an address of its own.
//!
//! The addresses are a private range that is routed to this very machine: a listener on all addresses is then reached
//! at each of them, and a connection's local address tells which pod was asked. The operator takes them for any pod's.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use anyhow::{Context, ensure};
use axum::Router;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use graceful_drain::{Drain, Settings};
use graceful_process::{command, output};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::ServiceExt;

/// The pods' admin port, not the usual one: a server of this machine may listen there.
pub(super) const PORT: u16 = 19_808;
/// The pods' addresses. Beside the cluster's own ranges, and of no use to anybody else for these minutes.
const RANGE: &str = "10.99.0.0/16";
const FIRST: u32 = u32::from_be_bytes([10, 99, 0, 1]);
const LAST: u32 = u32::from_be_bytes([10, 99, 254, 254]);

/// All stub pods. Stops answering, and gives the range back, when dropped.
#[derive(Debug)]
pub(super) struct Answers {
    pods: Arc<Pods>,
    _task: JoinSet<()>,
    _range: Range,
}

#[derive(Debug, Default)]
pub(super) struct Pods {
    by_address: Mutex<HashMap<IpAddr, Router>>,
    given: AtomicU32,
    answered: AtomicU64,
}

impl Answers {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let range = Range::take()?;
        let listener =
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await.context("the stub pods' port")?;
        let pods = Arc::<Pods>::default();
        let routes = Router::new().fallback(answer).with_state(Arc::clone(&pods));
        let service = routes.into_make_service_with_connect_info::<Asked>();
        let mut task = JoinSet::new();
        task.spawn(async move {
            if let Err(error) = axum::serve(listener, service).await {
                eprintln!("the stub pods answer no more: {error}");
            }
        });
        Ok(Self { pods, _task: task, _range: range })
    }

    pub(super) fn pods(&self) -> Arc<Pods> {
        Arc::clone(&self.pods)
    }
}

impl Pods {
    /// A pod that starts: the address where it answers from now on.
    pub(super) fn begin(&self, uid: &str) -> anyhow::Result<IpAddr> {
        let next = FIRST + self.given.fetch_add(1, Ordering::Relaxed);
        ensure!(next <= LAST, "no address is left in {RANGE}");
        let address = IpAddr::from(Ipv4Addr::from(next));
        let drain = Drain::new(Settings { pod_uid: uid.to_owned(), ..Settings::default() });
        self.lock().insert(address, drain.routes());
        Ok(address)
    }

    /// A pod that is gone.
    pub(super) fn end(&self, address: IpAddr) {
        self.lock().remove(&address);
    }

    /// How often any pod was asked.
    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, HashMap<IpAddr, Router>> {
        self.by_address.lock()
    }
}

/// The address that a connection was made to.
#[derive(Clone, Copy, Debug)]
struct Asked(Option<IpAddr>);

impl Connected<IncomingStream<'_, TcpListener>> for Asked {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self(stream.io().local_addr().ok().map(|address| address.ip()))
    }
}

async fn answer(
    State(pods): State<Arc<Pods>>,
    ConnectInfo(Asked(address)): ConnectInfo<Asked>,
    request: Request,
) -> Response {
    pods.answered.fetch_add(1, Ordering::Relaxed);
    let pod = address.and_then(|address| pods.lock().get(&address).cloned());
    match pod {
        Some(pod) => pod.oneshot(request).await.into_response(),
        None => (StatusCode::NOT_FOUND, "no pod has this address").into_response(),
    }
}

/// The route that makes the range this machine's own; removed when dropped.
#[derive(Debug)]
struct Range;

impl Range {
    fn take() -> anyhow::Result<Self> {
        // `replace`: one that a killed run has left is as good.
        ip("replace")?;
        Ok(Self)
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        if let Err(error) = ip("del") {
            eprintln!("{error:#}");
        }
    }
}

fn ip(verb: &str) -> anyhow::Result<()> {
    output(&mut command("ip", &["route", verb, "local", RANGE, "dev", "lo"])).map(drop)
}
