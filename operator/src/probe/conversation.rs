//! What one task says to one pod, until the plan wants something else said. Each is a loop that never ends by itself.

use std::time::{Duration, Instant};

use graceful_api::Question as Language;
use graceful_plan::{Conversation, Doubling, Epoch, News, Reading, Request, longest_gap};
use http::HeaderValue;
use jiff::Timestamp;
use rand::RngExt;
use tokio::time::sleep;

use super::dialogues::Dialogues;
use super::pace::Pace;
use super::pod_client::{PodAnswer, PodClient, Target};
use super::slots::Lane;
use super::trigger::Trigger;

/// Serving pods are asked for the report alone: twice a minute tells an operator's dashboard enough.
const SURVEY_EVERY: Duration = Duration::from_secs(30);

/// The longest pause after failures. A drain waits for the pod's word, so a pod that recovers is heard within this.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Between two changed answers of a long poll. What moved once is heard again soon; a pod whose tag never holds still, or that always has
/// something to say, is asked half as often each time, down to the longest.
const BREATH: Duration = Duration::from_millis(20);
const LONGEST_BREATH: Duration = Duration::from_millis(250);

/// Before it is held.
pub(crate) fn begin(dialogues: &Dialogues, target: &Target, conversation: Conversation, now: Timestamp) {
    let Target { policy, uid, container_id, .. } = target;
    let longest_gap = longest_gap(policy.poll_interval(), policy.timeout());
    dialogues.with(uid, |pod| {
        if let Some(id) = container_id {
            pod.runs_as(id);
        }
        pod.begin(conversation, longest_gap, now);
    });
}

/// Holds the conversation.
pub(crate) async fn hold(client: PodClient, conversation: Conversation, trigger: Trigger, pace: Pace) {
    let failures = u32::from(client.dialogues.with(&client.target.uid, |pod| pod.contact().error.is_some()));
    let mut looping = ConversationLoop { client, trigger, pace, failures };
    looping.client.lane = looping.lane();
    let graceful = looping.client.target.policy.question == Language::Graceful;
    match conversation {
        Conversation::Survey => looping.survey().await,
        Conversation::Ask => looping.ask().await,
        Conversation::Drain { epoch, .. } if graceful => looping.drain(epoch).await,
        Conversation::Resume { .. } if graceful => looping.resume().await,
        // A language without a word for drain and resume: all that can be done is to listen.
        Conversation::CountZeros { .. } | Conversation::Drain { .. } | Conversation::Resume { .. } => {
            looping.ask().await;
        }
    }
}

struct ConversationLoop {
    client: PodClient,
    trigger: Trigger,
    pace: Pace,
    failures: u32,
}

impl ConversationLoop {
    /// Immediately if the pod has never answered, then once in [`SURVEY_EVERY`]. Only a changed answer wakes the planner.
    async fn survey(mut self) {
        self.client.lane = Lane::Survey;
        if self.client.dialogues.with(&self.client.target.uid, |pod| pod.contact().answer.is_some()) {
            sleep(jittered(SURVEY_EVERY)).await;
        }
        loop {
            self.pace.turn().await;
            match self.client.ask(Request::Status).await {
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
            let answered = self.client.ask(Request::Status).await.is_ok();
            self.wake();
            self.pause(answered).await;
        }
    }

    /// Told until the pod says that it drains in this epoch; then every change of its state is heard at once.
    async fn drain(mut self, epoch: Epoch) {
        // What it said in this epoch, while that stands.
        let mut last: Option<(Reading, Option<HeaderValue>)> = None;
        let mut breath = BREATH;
        loop {
            let sent = Instant::now();
            let word = match (self.request(), last.as_ref().and_then(|(_, etag)| etag.clone())) {
                (Request::Status, Some(etag)) => self.client.watch(etag).await,
                (request, _) => self.client.ask(request).await,
            };
            self.wake();
            let Ok(PodAnswer { reading, etag, .. }) = word else {
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
            last = heard.filter(|_| self.request() == Request::Status);
            let pause = if followed {
                breath
            } else {
                // Not in our epoch, another process, no tag to wait on, or a pod that does not hold its answer: as often as it was configured.
                self.poll_interval().saturating_sub(sent.elapsed()).max(BREATH)
            };
            breath = if followed && sent.elapsed() < self.poll_interval() {
                (2 * breath).min(LONGEST_BREATH)
            } else {
                BREATH
            };
            sleep(pause).await;
        }
    }

    /// Told until the pod says that it accepts again; then it is a serving pod like any other.
    async fn resume(mut self) {
        loop {
            let answered = self.client.ask(self.request()).await.is_ok();
            self.wake();
            if self.request() == Request::Status {
                return self.survey().await;
            }
            self.pause(answered).await;
        }
    }

    fn request(&self) -> Request {
        self.client.dialogues.with(&self.client.target.uid, |pod| pod.request())
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
        let first = self.poll_interval();
        let pause = Doubling { first, longest: LONGEST_PAUSE.max(first) }.after(self.failures);
        self.failures = self.failures.saturating_add(1);
        self.client.lane = self.lane();
        sleep(jittered(pause)).await;
    }

    fn answered(&mut self) {
        self.failures = 0;
        self.client.lane = self.lane();
    }

    /// A survey stays one; who failed last queues with its like.
    fn lane(&self) -> Lane {
        match (self.client.lane, self.failures) {
            (Lane::Survey, _) => Lane::Survey,
            (Lane::Answers | Lane::Fails, 0) => Lane::Answers,
            (Lane::Answers | Lane::Fails, _) => Lane::Fails,
        }
    }

    fn poll_interval(&self) -> Duration {
        self.client.target.policy.poll_interval()
    }

    fn wake(&self) {
        self.trigger.pull(&self.client.target.app);
    }
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
