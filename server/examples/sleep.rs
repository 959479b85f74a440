//! The seed's task, as one would write it: it sleeps 20 s, or as long as its input says, tells how far it is, and stops
//! when it is cancelled. (The server has a kind `sleep` built in; this one is called `nap`.)
//!
//! ```console
//! $ cargo run -p graceful-server --example sleep -- --data /tmp/naps
//! $ curl -X POST localhost:8000/v1/tasks -H 'content-type: application/json' -d '{"kind": "nap", "input": {"seconds": 5}}'
//! $ curl localhost:8000/v1/tasks/<id>           # "progress": {"done": 0.4}
//! $ curl -X POST localhost:8000/v1/tasks/<id>/cancel
//! ```
//! Kill it with `kill -9` in the middle, start it again: the nap is taken in a second attempt.

use std::time::Duration;

use graceful_server::kind::{Failure, InvalidInput, Kind};
use graceful_server::running::Running;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

/// What clients hand in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nap {
    #[serde(default = "twenty")]
    seconds: f64,
}

fn twenty() -> f64 {
    20.0
}

/// What they are told on the way.
#[derive(Serialize)]
struct Progress {
    done: f64,
}

struct NapKind;

impl Kind for NapKind {
    const NAME: &'static str = "nap";
    type Input = Nap;
    type Output = String;

    // Refused as it is handed in, with the field's name, rather than found dead later.
    fn check(&self, nap: &Nap) -> Result<(), InvalidInput> {
        if (0.0..=3600.0).contains(&nap.seconds) {
            return Ok(());
        }
        Err(InvalidInput::new("seconds", "must be from 0 to 3600; write 20"))
    }

    async fn run(&self, nap: Nap, task: &Running) -> Result<String, Failure> {
        let (started, length) = (Instant::now(), Duration::from_secs_f64(nap.seconds));
        while started.elapsed() < length {
            task.progress(Progress { done: started.elapsed().as_secs_f64() / nap.seconds });
            let rest = length.saturating_sub(started.elapsed()).min(Duration::from_millis(500));
            tokio::select! {
                () = sleep(rest) => {}
                () = task.cancelled() => return Err(Failure::fatal("woken")),
            }
        }
        Ok(format!("slept {} s in attempt {}", nap.seconds, task.attempt()))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    graceful_server::command_line(|server| server.kind(NapKind)).await
}
