//! A gRPC service that can be drained: tonic behind the gate, on HTTP/2 without TLS, and HTTP/1 on the same port.
//!
//! ```text
//! cargo run -p graceful-drain --example grpc &
//! curl localhost:8000/livez
//! grpcurl -plaintext -proto worker.proto -d '{"steps": 20}' localhost:8000 graceful.example.Worker/Run &
//! curl localhost:9808/drain     # {"requests": 1}: a stream is in flight until its trailers are sent
//! kill -TERM %1                 # ends once the stream has
//! ```
//!
//! ```proto
//! syntax = "proto3";
//! package graceful.example;
//! message Job { uint32 steps = 1; }
//! message Step { uint32 done = 1; }
//! service Worker { rpc Run(Job) returns (stream Step); }
//! ```
//!
//! The service is written by hand here, since generated code needs `protoc`. With `tonic-prost-build`, `Routes::new(WorkerServer::new(…)).into_axum_router()` is the
//! router, and the gate is its layer in the same way. tonic's own `Server` knows nothing of admission: leave serving to [`serve_within`].

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::{get, post};
use futures::stream::{self, BoxStream, StreamExt};
use graceful_drain::{Bounds, Drain, Settings, Signals, serve_within};
use prost::Message;
use tokio::net::TcpListener;
use tonic::Status;
use tonic::server::{Grpc, ServerStreamingService};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, Eq, Message)]
struct Job {
    #[prost(uint32, tag = "1")]
    steps: u32,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Step {
    #[prost(uint32, tag = "1")]
    done: u32,
}

/// One step in half a second.
struct Run;

impl ServerStreamingService<Job> for Run {
    type Response = Step;
    type ResponseStream = BoxStream<'static, Result<Step, Status>>;
    type Future = std::future::Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, job: tonic::Request<Job>) -> Self::Future {
        let steps = stream::iter(1..=job.into_inner().steps).then(|done| async move {
            tokio::time::sleep(Duration::from_millis(500)).await;
            Ok(Step { done })
        });
        std::future::ready(Ok(tonic::Response::new(steps.boxed())))
    }
}

async fn run(request: Request) -> Response {
    Grpc::new(ProstCodec::<Step, Job>::default()).server_streaming(Run, request).await.map(Body::new)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let signals = Signals::install()?;
    // A client that streams to us may pause for as long as it likes; bound its silence in the handler if that matters.
    let drain = Drain::new(Settings { slowest_body: None, ..Settings::from_env() });
    let app = Router::new()
        .route("/graceful.example.Worker/Run", post(run))
        .route_layer(drain.gate())
        .route("/livez", get(|| async { "ok\n" }));
    let public = TcpListener::bind("0.0.0.0:8000").await?;
    let admin = TcpListener::bind("0.0.0.0:9808").await?;
    let bounds = Bounds::default().with_http2();
    let exit = serve_within(bounds, (public, app), (admin, drain.routes()), drain, signals).await;
    std::process::exit(exit.code())
}
