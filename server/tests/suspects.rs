//! Tasks that run alone, beside others that wait.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

mod silent;

use std::sync::Arc;
use std::time::Duration;

use graceful_drain::{Drain, Settings};
use graceful_server::events::hub::{Hub, HubSettings};
use graceful_server::kind::{Failure, Kind, Kinds};
use graceful_server::queue::{Opener, Queue};
use graceful_server::runner::Runner;
use graceful_server::running::Running;
use graceful_store::{Claim, Counts, DEFAULT_QUEUE, Lease, TaskStore};
use serde::Deserialize;
use silent::Silent;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

/// Says that it runs, and takes so long.
struct Told(mpsc::UnboundedSender<String>);

#[derive(Deserialize)]
struct Input {
    name: String,
    seconds: u64,
}

impl Kind for Told {
    const NAME: &'static str = "told";
    type Input = Input;
    type Output = ();

    async fn run(&self, input: Input, _: &Running) -> Result<(), Failure> {
        self.0.send(input.name)?;
        sleep(Duration::from_secs(input.seconds)).await;
        Ok(())
    }
}

fn task(name: &str, seconds: u64) -> Claim {
    Claim {
        lease: Lease { id: Uuid::now_v7(), attempt: 1 },
        kind: Told::NAME.to_owned(),
        input: format!(r#"{{"name": "{name}", "seconds": {seconds}}}"#),
        client_id: None,
        timeout: None,
        max_attempts: 3,
        queue: DEFAULT_QUEUE.into(),
        backoff: None,
        created: 0,
        waited: Duration::ZERO,
        trace: None,
    }
}

#[tokio::test(start_paused = true)]
async fn suspects_that_take_long_leave_others_a_moment_between_them() {
    let store = Silent::new(Counts::default(), Vec::new());
    let opened = store.clone();
    let opener: Opener = Box::new(move || {
        let store: Arc<dyn TaskStore> = opened.clone();
        Box::pin(async { Ok(store) })
    });
    let drain = Drain::new(Settings::default());
    let queue = Queue::keep(opener, true, drain.clone(), Arc::default(), None);
    let (say, mut said) = mpsc::unbounded_channel();
    let mut kinds = Kinds::default();
    kinds.add(Told(say)).unwrap();
    let hub = Hub::new(HubSettings::default(), drain.clone(), Arc::default());
    let runner = Runner::new(queue.clone(), Arc::new(kinds), drain, hub, None, Arc::default());
    queue.opened().await;
    runner.start(2);

    // Each takes longer than a turn.
    for name in ["first suspect", "second suspect"] {
        store.give_suspect(task(name, 60));
    }
    let mut next = async || timeout(Duration::from_secs(600), said.recv()).await.unwrap().unwrap();
    assert_eq!(next().await, "first suspect");
    store.give(task("other", 0));
    assert_eq!(next().await, "other");
    assert_eq!(next().await, "second suspect");
}
