//! The built-in kind `sleep`, the seed's task: it takes its time, and that is all.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::TaskSeconds;
use crate::kind::{Failure, InvalidInput, Kind};
use crate::running::Running;

/// A day: what `--task-seconds` allows as well.
const LONGEST: f64 = 86_400.0;

/// The handler of the kind `sleep`.
#[derive(Debug, Clone)]
pub struct Sleep {
    /// For how long, where the task does not say. An attempt that is interrupted draws anew.
    pub task_seconds: TaskSeconds,
}

/// What a `sleep` task takes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// For how long; drawn from `--task-seconds` when left out.
    pub seconds: Option<f64>,
}

/// The output of a `sleep`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Output {
    /// For how long it slept.
    pub slept_seconds: f64,
}

impl Kind for Sleep {
    const NAME: &'static str = "sleep";
    type Input = Input;
    type Output = Output;

    fn schema(&self) -> Value {
        json!({
            "type": "object",
            "properties": {
                "seconds": {
                    "type": ["number", "null"],
                    "minimum": 0,
                    "maximum": LONGEST,
                    "description": "For how long; the server's choice when left out.",
                },
            },
            "additionalProperties": false,
        })
    }

    fn check(&self, input: &Input) -> Result<(), InvalidInput> {
        match input.seconds {
            Some(seconds) if !(0.0..=LONGEST).contains(&seconds) => {
                Err(InvalidInput::new("seconds", format!("is {seconds}; write a number from 0 to {LONGEST}")))
            }
            Some(_) | None => Ok(()),
        }
    }

    async fn run(&self, input: Input, task: &Running) -> Result<Output, Failure> {
        let time = match input.seconds {
            Some(seconds) => Duration::try_from_secs_f64(seconds).map_err(Failure::fatal)?,
            None => self.task_seconds.draw(),
        };
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(Output { slept_seconds: time.as_secs_f64() }),
            () = task.cancelled() => Err(Failure::retry("interrupted")),
        }
    }
}
