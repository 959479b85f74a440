//! Connections, of which the idle ones can be closed.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

use crate::faults::faulty;
use crate::pod::Pod;

pub(crate) async fn serve(listener: TcpListener, app: Router, winding: Option<Pod>) {
    while let Ok((stream, peer)) = listener.accept().await {
        tokio::spawn(connection(stream, peer, app.clone(), winding.clone()));
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, app: Router, pod: Option<Pod>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let answering = app.clone().oneshot(request.map(Body::new));
        async move { Ok::<_, Infallible>(answering.await.unwrap_or_else(|never| match never {})) }
    });
    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut serving = pin!(serving);
    let Some(pod) = pod.filter(|_| !faulty("idle-connections-stay")) else {
        let _ = serving.await;
        return;
    };
    tokio::select! {
        _ = serving.as_mut() => {}
        () = pod.0.winding.notified() => {
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }
}
