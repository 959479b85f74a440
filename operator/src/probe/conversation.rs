//! What one task says to one pod, until the plan wants something else said. Each is a loop that never ends by itself.

use std::time::{Duration, Instant};

use graceful_api::Question as Language;
use graceful_plan::{Conversation, Epoch};
use http::HeaderValue;
use rand::RngExt;
use tokio::time::sleep;

use super::book::News;
use super::error::AskError;
use super::line::{Line, Word};
use super::pace::Pace;
use super::parse::Reading;
use super::places::Standing;
use super::trigger::Trigger;

/// Serving pods are asked for the report alone: twice a minute tells an operator's dashboard enough.
const SURVEY_EVERY: Duration = Duration::from_secs(30);

/// The longest pause after failures. A drain waits for the pod's word, so a pod that recovers is heard within this.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Between two changed answers of a long poll. What moved once is heard again soon; a pod whose tag never holds still, or that always has
/// something to say, is asked half as often each time, down to the longest.
const BREATH: Duration = Duration::from_millis(20);
const LONGEST_BREATH: Duration = Duration::from_millis(250);

/// Holds the conversation.
pub(crate) async fn hold(line: Line, conversation: Conversation, trigger: Trigger, pace: Pace) {
    let failures = u32::from(line.book.fails(&line.target.uid));
    let mut talk = Talk { line, trigger, pace, failures };
    talk.line.standing = talk.standing();
    let graceful = talk.line.target.policy.question == Language::Graceful;
    match conversation {
        Conversation::Survey => talk.survey().await,
        Conversation::Ask => talk.ask().await,
        Conversation::Quiet { epoch } => talk.quiet(epoch).await,
        Conversation::Drain { epoch, linger_seconds } if graceful => talk.drain(epoch, linger_seconds).await,
        Conversation::Resume { epoch } if graceful => talk.resume(epoch).await,
        // The language has no word for it: all that can be done is to listen.
        Conversation::Drain { .. } | Conversation::Resume { .. } => talk.ask().await,
    }
}

struct Talk {
    line: Line,
    trigger: Trigger,
    pace: Pace,
    failures: u32,
}

impl Talk {
    /// Once at once if the pod has never answered, then now and then. Only a changed word wakes the planner.
    async fn survey(mut self) {
        self.line.standing = Standing::Survey;
        if self.line.book.knows(&self.line.target.uid) {
            sleep(jittered(SURVEY_EVERY)).await;
        }
        loop {
            self.pace.turn().await;
            match self.line.get().await {
                Ok(word) => {
                    self.failures = 0;
                    if word.news == News::Changed {
                        self.wake();
                    }
                    sleep(jittered(SURVEY_EVERY)).await;
                }
                Err(_) => {
                    self.wake();
                    self.pause_after_failure().await;
                }
            }
        }
    }

    /// A decision waits for the answer.
    async fn ask(mut self) {
        loop {
            let answered = self.line.get().await.is_ok();
            self.wake();
            self.pause(answered).await;
        }
    }

    /// Zeros in a row are counted. A gap that could hide work ends the run.
    async fn quiet(mut self, epoch: Epoch) {
        let policy = &self.line.target.policy;
        let longest_gap = 2 * (policy.poll_interval() + policy.timeout()) + Duration::from_secs(1);
        loop {
            let answered = self.line.get().await.is_ok();
            if answered {
                let (uid, now) = (&self.line.target.uid, jiff::Timestamp::now());
                self.line.book.count_quiet(uid, epoch, longest_gap, now);
            }
            self.wake();
            self.pause(answered).await;
        }
    }

    /// Told until the pod says that it drains in this epoch; then every change of its state is heard at once.
    async fn drain(mut self, epoch: Epoch, linger_seconds: u32) {
        // Its last word, while nothing has happened that could have made it forget (a failure may hide a restart).
        let mut last: Option<(Reading, Option<HeaderValue>)> = None;
        let mut breath = BREATH;
        loop {
            let asked = Instant::now();
            let told = last.as_ref().is_some_and(|(reading, _)| reading.epoch() == Some(epoch));
            let word = match last.as_ref().and_then(|(_, etag)| etag.clone()).filter(|_| told) {
                Some(etag) => self.line.watch(etag).await,
                None if told => self.line.get().await,
                None => self.line.put(epoch, linger_seconds).await,
            };
            // A process that was restarted and kept its epoch has not been told yet: what it says until then proves nothing.
            let renewed = told && is_another_process(&word, last.as_ref());
            if !told && obeyed(&word, epoch) {
                self.line.book.acknowledges(&self.line.target.uid, epoch);
            }
            self.wake();
            let Ok(Word { reading, etag, .. }) = word else {
                last = None;
                self.pause_after_failure().await;
                continue;
            };
            self.answered();
            let heard = match (reading, &last) {
                (Some(reading), _) => Some((reading, etag)),
                (None, Some((reading, old))) => Some((reading.clone(), etag.or_else(|| old.clone()))),
                (None, None) => None,
            };
            let followed = follows(epoch, last.as_ref(), heard.as_ref());
            last = heard.filter(|_| !renewed);
            let pause = if followed {
                breath
            } else {
                // Not in our epoch, another process, no tag to wait on, or a pod that does not hold its answer: as often as it was configured.
                self.poll_interval().saturating_sub(asked.elapsed()).max(BREATH)
            };
            breath = if followed && asked.elapsed() < self.poll_interval() {
                (2 * breath).min(LONGEST_BREATH)
            } else {
                BREATH
            };
            sleep(pause).await;
        }
    }

    /// Told until the pod says that it accepts again; then it is a serving pod like any other.
    async fn resume(mut self, epoch: Epoch) {
        loop {
            let word = self.line.delete(epoch).await;
            self.wake();
            let protocol = word.as_ref().ok().and_then(|w| w.reading.as_ref()).and_then(|r| r.protocol);
            if protocol.is_some_and(|p| p.accepting && p.epoch == epoch) {
                return self.survey().await;
            }
            self.pause(word.is_ok()).await;
        }
    }

    async fn pause(&mut self, answered: bool) {
        if answered {
            self.answered();
            sleep(self.poll_interval()).await;
        } else {
            self.pause_after_failure().await;
        }
    }

    async fn pause_after_failure(&mut self) {
        let factor = 1 << self.failures.min(10);
        self.failures = self.failures.saturating_add(1);
        self.line.standing = self.standing();
        sleep(jittered((self.poll_interval() * factor).min(LONGEST_PAUSE.max(self.poll_interval())))).await;
    }

    fn answered(&mut self) {
        self.failures = 0;
        self.line.standing = self.standing();
    }

    /// A survey stays one; who failed last queues with its like.
    fn standing(&self) -> Standing {
        match (self.line.standing, self.failures) {
            (Standing::Survey, _) => Standing::Survey,
            (Standing::Answers | Standing::Fails, 0) => Standing::Answers,
            (Standing::Answers | Standing::Fails, _) => Standing::Fails,
        }
    }

    fn poll_interval(&self) -> Duration {
        self.line.target.policy.poll_interval()
    }

    fn wake(&self) {
        self.trigger.pull(&self.line.target.app);
    }
}

/// The answer to a PUT, in its epoch.
fn obeyed(word: &Result<Word, AskError>, epoch: Epoch) -> bool {
    word.as_ref().is_ok_and(|w| !w.refused && w.reading.as_ref().and_then(Reading::epoch) == Some(epoch))
}

fn is_another_process(word: &Result<Word, AskError>, last: Option<&(Reading, Option<HeaderValue>)>) -> bool {
    let new = word.as_ref().ok().and_then(|w| w.reading.as_ref());
    new.zip(last).is_some_and(|(new, (old, _))| new.boot_id != old.boot_id)
}

/// A new word that was worth waiting for, from the process that spoke before, and with a tag to wait on for the next.
fn follows(
    epoch: Epoch,
    last: Option<&(Reading, Option<HeaderValue>)>,
    new: Option<&(Reading, Option<HeaderValue>)>,
) -> bool {
    let Some((new, Some(_))) = new else { return false };
    let moved = last.is_none_or(|(old, _)| old != new && old.boot_id == new.boot_id);
    moved && new.epoch() == Some(epoch)
}

/// Within a tenth of it, so that many pods are not asked in step.
fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(rand::rng().random_range(0.9..1.1))
}

#[cfg(test)]
mod tests;
