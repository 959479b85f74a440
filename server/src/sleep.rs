//! The built-in kind `sleep`, the seed's task: it takes its time, and that is all.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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

/// How long a task takes: from the first to the second, drawn evenly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TaskSeconds {
    shortest: f64,
    longest: f64,
}

impl TaskSeconds {
    /// Draws how long one task takes.
    #[must_use]
    pub fn draw(&self) -> Duration {
        Duration::from_secs_f64(rand::random_range(self.shortest..=self.longest))
    }
}

impl FromStr for TaskSeconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seconds = |part: &str| match part.trim().parse::<f64>() {
            Ok(value) if (0.0..=86_400.0).contains(&value) => Ok(value),
            _ => Err(format!("`{text}` is not a number of seconds up to 86400; write 20, 0.5 or 2-8")),
        };
        let (shortest, longest) = match text.split_once('-') {
            Some((shortest, longest)) => (seconds(shortest)?, seconds(longest)?),
            None => (seconds(text)?, seconds(text)?),
        };
        if shortest > longest {
            return Err(format!("the range runs backwards; write {longest}-{shortest}"));
        }
        Ok(Self { shortest, longest })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_seconds_are_drawn_from_the_range() {
        let range: TaskSeconds = "0.5-2".parse().unwrap();
        for _ in 0..100 {
            let drawn = range.draw().as_secs_f64();
            assert!((0.5..=2.0).contains(&drawn), "{drawn}");
        }
        assert_eq!("20".parse::<TaskSeconds>().unwrap().draw(), Duration::from_secs(20));
    }
}
