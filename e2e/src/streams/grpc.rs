//! A gRPC service by tonic with one method, that streams: its steps, each half a second after the one before. The code that `protoc` would generate is written
//! by hand here.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use futures::stream::{self, BoxStream, StreamExt};
use http::uri::PathAndQuery;
use prost::Message;
use tokio::time::sleep;
use tonic::codec::Streaming;
use tonic::server::{Grpc, ServerStreamingService};
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use uuid::Uuid;

use super::{Begun, PACE, STEPS, Server};

const METHOD: &str = "/graceful.e2e.Worker/Run";

#[derive(Clone, PartialEq, Eq, Message)]
struct Job {
    #[prost(uint32, tag = "1")]
    steps: u32,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Step {
    #[prost(uint32, tag = "1")]
    done: u32,
    #[prost(string, tag = "2")]
    task_id: String,
    #[prost(string, tag = "3")]
    pod_uid: String,
    #[prost(string, tag = "4")]
    boot_id: String,
}

struct Run(Server);

impl ServerStreamingService<Job> for Run {
    type Response = Step;
    type ResponseStream = BoxStream<'static, Result<Step, Status>>;
    type Future = std::future::Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, job: tonic::Request<Job>) -> Self::Future {
        let Server { pod_uid, boot_id } = self.0.clone();
        let first = Step { done: 0, task_id: Uuid::new_v4().to_string(), pod_uid, boot_id };
        let steps = stream::iter(0..=job.into_inner().steps).then(move |done| {
            let step = Step { done, ..first.clone() };
            async move {
                if done > 0 {
                    sleep(PACE).await;
                }
                Ok(step)
            }
        });
        std::future::ready(Ok(tonic::Response::new(steps.boxed())))
    }
}

async fn run(State(server): State<Server>, request: Request) -> Response {
    let mut grpc = Grpc::new(ProstCodec::<Step, Job>::default());
    grpc.server_streaming(Run(server), request).await.map(Body::new)
}

/// Serves until the process ends.
///
/// # Errors
/// When the port is taken.
pub async fn serve(listen: SocketAddr) -> anyhow::Result<()> {
    let routes: Routes = Router::new().route(METHOD, post(run)).with_state(Server::here()).into();
    Ok(tonic::transport::Server::builder().add_routes(routes).serve(listen).await?)
}

/// A client, with a channel that it keeps or with one for each stream.
#[derive(Debug)]
pub struct Client {
    endpoint: Endpoint,
    kept: Option<Channel>,
}

/// A stream that has begun.
pub struct Stream(Streaming<Step>);

impl Client {
    /// For the Service at this URL.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(target: &str, keeps_connection: bool) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(target.to_owned())?;
        let kept = keeps_connection.then(|| endpoint.connect_lazy());
        Ok(Self { endpoint, kept })
    }

    /// Waits for the first piece.
    ///
    /// A call that never left, since its connection had been told to go just then, is made once more: gRPC's own clients do so without a word (a "transparent retry"),
    /// and tonic's does not.
    ///
    /// # Errors
    /// With what the client would see.
    pub async fn begin(&self) -> Result<(Begun, Stream), String> {
        match self.call().await {
            Err(Failure::NeverLeft(_)) => self.call().await.map_err(Failure::into_words),
            made => made.map_err(Failure::into_words),
        }
    }

    async fn call(&self) -> Result<(Begun, Stream), Failure> {
        let channel = self.kept.clone().unwrap_or_else(|| self.endpoint.connect_lazy());
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.map_err(|error| Failure::Seen(format!("grpc: not ready: {error}")))?;
        let codec = ProstCodec::<Job, Step>::default();
        let job = tonic::Request::new(Job { steps: STEPS });
        let method = PathAndQuery::from_static(METHOD);
        let answer = grpc.server_streaming(job, method, codec).await.map_err(|status| {
            if never_left(&status) { Failure::NeverLeft(told(status)) } else { Failure::Seen(told(status)) }
        })?;
        let mut stream = answer.into_inner();
        let first = stream.message().await.map_err(|status| Failure::Seen(told(status)))?;
        let first = first.ok_or_else(|| Failure::Seen("grpc: a stream without a beginning".to_owned()))?;
        let Step { done: _, task_id, pod_uid, boot_id } = first;
        Ok((Begun { task_id, pod_uid, boot_id }, Stream(stream)))
    }
}

/// Why a call has no stream.
enum Failure {
    /// hyper gave it back unsent.
    NeverLeft(String),
    Seen(String),
}

impl Failure {
    fn into_words(self) -> String {
        match self {
            Self::NeverLeft(words) | Self::Seen(words) => words,
        }
    }
}

fn never_left(status: &Status) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
            return true;
        }
        cause = error.source();
    }
    false
}

impl Stream {
    /// To its end, which has to come in order, after all steps.
    ///
    /// # Errors
    /// With what the client would see.
    pub async fn finish(mut self) -> Result<(), String> {
        let mut last = 0;
        while let Some(step) = self.0.message().await.map_err(told)? {
            if step.done != last + 1 {
                return Err(format!("grpc: step {} after {last}", step.done));
            }
            last = step.done;
        }
        if last == STEPS { Ok(()) } else { Err(format!("grpc: ended after {last} steps of {STEPS}")) }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn told(status: Status) -> String {
    let code: Code = status.code();
    format!("grpc: {code:?}: {}", status.message())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_stream_runs_to_its_end() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        tokio::spawn(serve(address));
        let client = Client::new(&format!("http://{address}"), true).unwrap();
        let (begun, stream) = loop {
            match client.begin().await {
                Ok(begun) => break begun,
                Err(_) => sleep(PACE).await,
            }
        };
        assert!(!begun.task_id.is_empty() && !begun.boot_id.is_empty());
        stream.finish().await.unwrap();
    }
}
