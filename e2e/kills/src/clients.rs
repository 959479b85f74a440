//! Clients that submit without a pause to speak of: half through the seed's route, half with an idempotency key and as
//! many tries as it takes. Half of the latter hand in calls, the other half tasks for a queue that is bounded in each way.

use std::time::Duration;

use anyhow::Context;
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;
use uuid::Uuid;

use crate::Shared;
use crate::callee::TIMEOUT_SECONDS;

/// Between two submissions of one client.
const PAUSE_MS: std::ops::Range<u64> = 20..120;
/// After a submission that failed: a server that is down is back within some 50 ms.
const RETRY: Duration = Duration::from_millis(15);
/// More than that accepted and unfinished, and clients wait: the run is to end soon after its last kill.
const BACKLOG: usize = 250;
/// A submission that hangs tells nothing.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The queue of those whose tasks are bounded. Its bounds are reached now and then, and no run is long because of them.
const QUEUE: &str = "narrow";
const KEYS: [&str; 3] = ["ada", "eve", "bob"];

/// Of a hundred answered keys so many are sent again.
const AGAIN: u32 = 10;

/// Submits tasks one after another, and notes what it was told.
pub(crate) struct Client {
    http: reqwest::Client,
    servers: Vec<watch::Receiver<Option<String>>>,
    shared: Shared,
    rng: StdRng,
    keyed: bool,
    /// What its tasks call, if they are calls.
    calls: Option<String>,
}

/// What came of one try.
enum Answer {
    Accepted(Uuid),
    NotYet,
}

impl Client {
    /// The client with this number: odd ones use keys, every other of which hands in calls, and the others tasks of a queue; every other pair keeps its
    /// connections.
    pub(crate) fn new(
        number: usize,
        servers: Vec<watch::Receiver<Option<String>>>,
        call_url: &str,
        shared: Shared,
        rng: StdRng,
    ) -> anyhow::Result<Self> {
        let idle = if number % 4 < 2 { 4 } else { 0 };
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(TIMEOUT)
            .pool_max_idle_per_host(idle)
            .build()
            .context("cannot make an HTTP client")?;
        let calls = (number % 4 == 3).then(|| call_url.to_owned());
        Ok(Self { http, servers, shared, rng, keyed: number % 2 == 1, calls })
    }

    /// Submits until it is told to stop. A key whose answer is unknown then is left: nothing was promised.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            () = async {
                if self.has_queue() {
                    self.declare().await;
                }
                self.submit_on_and_on().await;
            } => {}
        }
    }

    fn has_queue(&self) -> bool {
        self.keyed && self.calls.is_none()
    }

    /// Until it is answered: a queue that is there already gets the same settings.
    async fn declare(&mut self) {
        let settings =
            json!({"concurrency": 32, "rate_per_second": 200, "burst": 50, "concurrency_per_key": 12});
        loop {
            let url = format!("{}/v1/queues/{QUEUE}", self.any_server().await);
            let answer = self.http.put(url).json(&settings).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            sleep(RETRY).await;
        }
    }

    async fn submit_on_and_on(&mut self) {
        loop {
            if self.keyed {
                self.submit_with_a_key().await;
            } else {
                // Not tried again: without a key that would be another task.
                self.submit(None).await;
            }
            let pause = self.rng.random_range(PAUSE_MS);
            sleep(Duration::from_millis(pause)).await;
            while self.shared.ledger().open() > BACKLOG {
                sleep(RETRY).await;
            }
        }
    }

    /// Until it is answered; and now and then once more, which must give the same task.
    async fn submit_with_a_key(&mut self) {
        let key = Uuid::new_v4();
        let first = self.until_accepted(key).await;
        if self.rng.random_range(0..100) < AGAIN {
            // Long enough for a kill to come between, now and then.
            sleep(Duration::from_millis(self.rng.random_range(PAUSE_MS))).await;
            let second = self.until_accepted(key).await;
            let mut ledger = self.shared.ledger();
            ledger.counts.repeated += 1;
            if first != second {
                ledger.counts.changed.push(key);
            }
        }
    }

    async fn until_accepted(&mut self, key: Uuid) -> Uuid {
        loop {
            match self.submit(Some(key)).await {
                Answer::Accepted(task) => return task,
                Answer::NotYet => sleep(RETRY).await,
            }
        }
    }

    async fn submit(&mut self, key: Option<Uuid>) -> Answer {
        let base = self.any_server().await;
        let request = match key {
            None => self.http.post(format!("{base}/v1/create-task/")),
            Some(key) => self
                .http
                .post(format!("{base}/v1/tasks"))
                .header("idempotency-key", key.to_string())
                .json(&self.task(key)),
        };
        self.shared.ledger().counts.sent += 1;
        let sent = request.send();
        self.shared.submitting.notify_waiters();
        let answered = async {
            let answer = sent.await?;
            let status = answer.status();
            // To the last byte: half an answer is none.
            Ok::<_, reqwest::Error>((status, answer.bytes().await?))
        };
        let answered = answered.await;
        let mut ledger = self.shared.ledger();
        match answered {
            Ok((status, body)) if status.is_success() => match task_id(&body) {
                Some(task) => {
                    match &self.calls {
                        None => ledger.accepted(task),
                        Some(_) => ledger.accepted_call(task),
                    }
                    return Answer::Accepted(task);
                }
                None => ledger.counts.cut += 1,
            },
            Ok((status, _)) => *ledger.counts.refused.entry(status.as_u16()).or_default() += 1,
            Err(_) => ledger.counts.cut += 1,
        }
        Answer::NotYet
    }

    /// The same for the same key, whoever asks again.
    fn task(&self, key: Uuid) -> Value {
        match &self.calls {
            None => {
                let place = usize::from(key.as_bytes()[0]) % (KEYS.len() + 1);
                json!({"kind": "sleep", "queue": QUEUE, "concurrency_key": KEYS.get(place)})
            }
            // As many attempts as may be: what the callee fails at is not what is asked here.
            Some(url) => json!({
                "kind": "http",
                "input": {"url": url, "timeout_seconds": TIMEOUT_SECONDS},
                "max_attempts": 100,
            }),
        }
    }

    /// One of those that listen, so far as anybody knows.
    async fn any_server(&mut self) -> String {
        loop {
            let place = self.rng.random_range(0..self.servers.len());
            if let Some(base) = self.servers[place].borrow().clone() {
                return base;
            }
            sleep(Duration::from_millis(2)).await;
        }
    }
}

/// `task_id` by the seed's route, and `id` by the other.
fn task_id(body: &[u8]) -> Option<Uuid> {
    let body: Value = serde_json::from_slice(body).ok()?;
    body["task_id"].as_str().or(body["id"].as_str())?.parse().ok()
}
