//! Each task's end is reported to a collector that the deployer names, and retried while there is reason to hope. It goes
//! out before the end is written down: at least once, and twice when the process dies between the two.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::metrics::{Ended, Metrics, Report};
use crate::pauses::Pauses;

/// A report holds its task in flight; two minutes outlast a collector's restart, and no drain hangs on a dead one.
const GIVE_UP: Duration = Duration::from_secs(120);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// For one attempt, name resolution included.
const ATTEMPT: Duration = Duration::from_secs(5);

/// What is posted.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    task_id: Uuid,
    pod_uid: &'a str,
    boot_id: &'a str,
    outcome: Ended,
}

/// Posts reports to one URL.
#[derive(Debug, Clone)]
pub struct Reporter {
    client: reqwest::Client,
    url: reqwest::Url,
    pod_uid: String,
    boot_id: String,
    metrics: Arc<Metrics>,
}

impl Reporter {
    /// Reports to `url` in this process's name.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(
        url: reqwest::Url,
        pod_uid: String,
        boot_id: String,
        metrics: Arc<Metrics>,
    ) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .timeout(ATTEMPT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { client, url, pod_uid, boot_id, metrics })
    }

    /// Reports one task's end; returns when it was taken, or given up after two minutes.
    pub async fn report(&self, task_id: Uuid, outcome: Ended) {
        let body = Body { task_id, pod_uid: &self.pod_uid, boot_id: &self.boot_id, outcome };
        let started = Instant::now();
        let mut pauses = Pauses::up_to(LONGEST_PAUSE);
        loop {
            let sent = self.client.post(self.url.clone()).json(&body).send().await;
            match sent.and_then(reqwest::Response::error_for_status) {
                Ok(_) => return self.metrics.reported(Report::Delivered),
                Err(error) if started.elapsed() + pauses.next() > GIVE_UP => {
                    warn!(%task_id, %error, "cannot report a task's end; given up");
                    return self.metrics.reported(Report::Abandoned);
                }
                Err(error) => debug!(%task_id, %error, "cannot report a task's end; retrying"),
            }
            pauses.wait().await;
        }
    }
}
