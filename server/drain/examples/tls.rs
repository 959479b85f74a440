//! An app that ends TLS itself and can be drained: its own accept loop, and [`serve_behind`] for the rest.
//!
//! ```text
//! cargo run -p graceful-drain --example tls &
//! curl -k https://localhost:8443/work
//! curl localhost:9808/drain
//! kill -TERM %1        # ends once the work is done
//! ```
//!
//! The certificate is made at the start, so that this runs as it is; yours comes from a Secret.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use graceful_drain::{Drain, Settings, Signals, serve_behind};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a client may take for its handshake, and for taking its last answer.
const TLS_AND_FLUSH: Duration = Duration::from_secs(5);

/// Idle connections are closed this long before the latch, so that their clients open new ones to other pods.
const TAIL: Duration = Duration::from_millis(500);

/// The public side: accepts until it is closed.
#[derive(Clone)]
struct Public {
    acceptor: TlsAcceptor,
    app: Router,
    drain: Drain,
    stop: CancellationToken,
    connections: TaskTracker,
}

impl Public {
    async fn accept(self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => drop(self.connections.spawn(self.clone().connection(stream))),
                // No descriptors left, most likely: some come free.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn connection(self, stream: TcpStream) {
        let Ok(Ok(stream)) = timeout(TLS_AND_FLUSH, self.acceptor.accept(stream)).await else { return };
        let server = auto::Builder::new(TokioExecutor::new());
        let serving =
            server.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(self.app));
        tokio::pin!(serving);
        // Biased: a request that is already here is answered before the connection winds down.
        tokio::select! {
            biased;
            _ = serving.as_mut() => return,
            () = self.drain.latching(TAIL) => {}
            () = self.stop.cancelled() => {}
        }
        serving.as_mut().graceful_shutdown();
        let _ = serving.await;
    }

    /// Accepts no more, and lets what is sent reach its clients.
    async fn close(&self) {
        self.stop.cancel();
        self.connections.close();
        let _ = timeout(TLS_AND_FLUSH, self.connections.wait()).await;
    }
}

fn acceptor() -> io::Result<TlsAcceptor> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).map_err(io::Error::other)?;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let signals = Signals::install()?;
    let drain = Drain::new(Settings::from_env());
    let work = || async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        "done\n"
    };
    let public = Public {
        acceptor: acceptor()?,
        app: Router::new().route("/work", get(work)).layer(drain.gate()),
        drain: drain.clone(),
        stop: CancellationToken::new(),
        connections: TaskTracker::new(),
    };
    let listener = TcpListener::bind("0.0.0.0:8443").await?;
    tokio::spawn(public.clone().accept(listener));
    // The kubelet and the operator ask without TLS; who may drain is told by tokens.
    let admin = TcpListener::bind("0.0.0.0:9808").await?;
    let exit = serve_behind((admin, drain.routes()), drain.clone(), signals, public.close()).await;
    std::process::exit(exit.code())
}
