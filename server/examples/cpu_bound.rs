//! Work that keeps a core busy: it runs on tokio's blocking threads, so that the server goes on answering (`/drain` among
//! others), says how far it is, and looks now and then whether it should stop. Nobody can take a thread from it.
//!
//! ```console
//! $ cargo run --release -p graceful-server --example cpu_bound -- --data /tmp/primes --concurrency 2
//! $ curl -X POST localhost:8000/v1/tasks -H 'content-type: application/json' \
//!     -d '{"kind": "count-primes", "input": {"below": 30000000}}'
//! $ curl localhost:8000/v1/tasks/<id>           # "progress": {"checked": 12000000, "found": 788060}
//! $ curl -X POST localhost:8000/v1/tasks/<id>/cancel
//! ```
//! `--concurrency` is the number of cores that these tasks may have.

use graceful_server::kind::{Failure, InvalidInput, Kind};
use graceful_server::running::Running;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

/// Numbers checked between two looks at whether to stop: some milliseconds' worth.
const CHUNK: u64 = 50_000;

/// What clients hand in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Primes {
    below: u64,
}

/// What they are told on the way.
#[derive(Serialize)]
struct Progress {
    checked: u64,
    found: usize,
}

struct CountPrimes;

impl Kind for CountPrimes {
    const NAME: &'static str = "count-primes";
    type Input = Primes;
    type Output = usize;

    fn check(&self, input: &Primes) -> Result<(), InvalidInput> {
        if input.below <= 1_000_000_000 {
            return Ok(());
        }
        Err(InvalidInput::new("below", "must be at most 1000000000"))
    }

    async fn run(&self, input: Primes, task: &Running) -> Result<usize, Failure> {
        let task = task.clone();
        spawn_blocking(move || count(input.below, &task)).await?
    }
}

fn count(below: u64, task: &Running) -> Result<usize, Failure> {
    let (mut checked, mut found) = (0, 0);
    while checked < below {
        // True when a client cancelled the task, when its time is over, and when another pod has it now.
        if task.is_cancelled() {
            return Err(Failure::fatal("stopped"));
        }
        let end = below.min(checked + CHUNK);
        found += (checked..end).filter(|number| is_prime(*number)).count();
        checked = end;
        task.progress(Progress { checked, found });
    }
    Ok(found)
}

fn is_prime(number: u64) -> bool {
    let mut divisors = (2..).take_while(|divisor| divisor * divisor <= number);
    number >= 2 && divisors.all(|divisor| !number.is_multiple_of(divisor))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    graceful_server::command_line(|server| server.kind(CountPrimes)).await
}
