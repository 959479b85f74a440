//! Clients: each submits tasks at its share of the rate and writes down what it was told.

use std::time::Duration;

use rand::RngExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Answer, Shared, http, now_ms};
use crate::streams::{Begun, echo, grpc};
use crate::wire::{LoadSpec, PROCESSED, Report, Speaks};

/// Longer than any healthy beginning of a stream, shorter than a drain.
const BEGINS: Duration = Duration::from_secs(10);
/// Longer than a stream takes on a machine that is busy.
const ENDS: Duration = Duration::from_secs(30);

/// What a client submits by.
enum Client {
    Tasks(http::Client),
    Grpc(Box<grpc::Client>),
    Echo(String),
}

/// A stream that has begun.
enum Stream {
    Grpc(grpc::Stream),
    Echo(echo::Stream),
}

/// One client, until it is stopped. A submission that has begun is always waited for.
pub(super) async fn run(number: u32, spec: LoadSpec, ledger: Shared, mut stop: watch::Receiver<bool>) {
    let client = match Client::new(number, &spec) {
        Ok(client) => client,
        Err(error) => {
            ledger.lock().answer(Answer::Failed(format!("no client: {error}")), now_ms());
            return;
        }
    };
    let interval = f64::from(spec.clients) / spec.rate_per_second;
    let mut next = Instant::now() + Duration::from_secs_f64(interval * rand::rng().random_range(0.0..1.0));
    loop {
        tokio::select! {
            // A client that is late is always due: by dice it would go on after a stop, 10 s a submission.
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = sleep_until(next) => {}
        }
        next += Duration::from_secs_f64(interval * rand::rng().random_range(0.5..1.5));
        client.submit(&ledger).await;
    }
}

impl Client {
    fn new(number: u32, spec: &LoadSpec) -> anyhow::Result<Self> {
        let keeps_connection = number.is_multiple_of(2) && !spec.fresh;
        Ok(match spec.speaks {
            Speaks::Tasks => Self::Tasks(http::Client::new(spec, keeps_connection)?),
            Speaks::Grpc => Self::Grpc(Box::new(grpc::Client::new(&spec.target, keeps_connection)?)),
            Speaks::Echo => Self::Echo(spec.target.clone()),
        })
    }

    async fn submit(&self, ledger: &Shared) {
        let begun = async {
            match self {
                Self::Tasks(client) => Err(client.submit().await),
                Self::Grpc(client) => client
                    .begin()
                    .await
                    .map(|(begun, stream)| (begun, Stream::Grpc(stream)))
                    .map_err(Answer::Failed),
                Self::Echo(target) => echo::begin(target)
                    .await
                    .map(|(begun, stream)| (begun, Stream::Echo(stream)))
                    .map_err(Answer::Failed),
            }
        };
        let late = || Err(Answer::Failed("nothing in 10 s".to_owned()));
        // A task server's client has a limit of its own.
        match timeout(BEGINS + BEGINS / 10, begun).await.unwrap_or_else(|_| late()) {
            Ok((begun, stream)) => stream.finish(begun, ledger).await,
            Err(answer) => ledger.lock().answer(answer, now_ms()),
        }
    }
}

impl Stream {
    /// Its client is its witness: what it has not read to the end was lost.
    async fn finish(self, begun: Begun, ledger: &Shared) {
        let Begun { task_id, pod_uid, boot_id } = begun;
        ledger.lock().answer(Answer::Accepted(task_id.clone()), now_ms());
        let whole = async {
            match self {
                Self::Grpc(stream) => stream.finish().await,
                Self::Echo(stream) => stream.finish().await,
            }
        };
        let ended = timeout(ENDS, whole).await.unwrap_or_else(|_| Err("no end in 30 s".to_owned()));
        let outcome = ended.err().unwrap_or_else(|| PROCESSED.to_owned());
        ledger.lock().report(Report { task_id, pod_uid, boot_id, outcome }, now_ms());
    }
}
