//! A client of one pod: the requests that can be made of it. What each comes to is written into its [`Dialogue`](graceful_plan::Dialogue).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use graceful_api::{InFlightPolicy, Question as Language};
use graceful_plan::{Epoch, News, PodUid, Reading, Request};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use jiff::Timestamp;
use serde_json::json;

use super::dialogues::Dialogues;
use super::error::AskError;
use super::http::{Asker, Question, Reply};
use super::parse::Hearing;
use super::slots::{Lane, Slots};
use crate::app_ref::AppRef;
use crate::clock::Clock;
use crate::error::CALL_DEADLINE;
use crate::keys::{Claims, KeyId, Keyring};
use crate::telemetry::Metrics;

/// How long a pod is asked to hold its answer until something changes. Long enough that an idle wait costs nothing, short enough that
/// a pod whose node vanished without a word is noticed within the minute.
const WAIT: Duration = Duration::from_secs(30);
/// The same as RFC 7240 says it.
const PREFER_WAIT: HeaderValue = HeaderValue::from_static("wait=30");

/// Where and how a pod is asked. A pod whose target changes (its revision's policy, its container) is asked anew.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    pub(crate) app: AppRef,
    pub(crate) pod: String,
    pub(crate) uid: PodUid,
    pub(crate) address: SocketAddr,
    pub(crate) policy: InFlightPolicy,
    /// The id of the container that is asked.
    pub(crate) container_id: Option<String>,
    /// The keys that it was given, by their ids: a token by one of them is one that it can verify.
    pub(crate) keys: Arc<[KeyId]>,
}

/// What one conversation needs to ask and to write down.
#[derive(Clone)]
pub(crate) struct PodClient {
    pub(crate) target: Target,
    pub(crate) asker: Asker,
    pub(crate) keyring: Keyring,
    pub(crate) dialogues: Dialogues,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) slots: Slots,
    /// Where its quick questions queue.
    pub(crate) lane: Lane,
}

/// What the pod has answered to one request.
#[derive(Clone, Debug)]
pub(crate) struct PodAnswer {
    /// None: nothing has changed since the tag that was sent.
    pub(crate) reading: Option<Reading>,
    pub(crate) etag: Option<HeaderValue>,
    /// When it was said, by the pod's own clock.
    date: Option<Timestamp>,
    pub(crate) news: News,
}

/// How long a token holds, by the pod's own clock: the request follows at once, within the longest time-out of a question. (A pod takes it for another minute.)
const TOKEN_LIFE: i64 = 60;

impl PodClient {
    /// Sends one request and notes what came of it.
    pub(crate) async fn ask(&self, request: Request) -> Result<PodAnswer, AskError> {
        match request {
            Request::Status => {
                let answer = self.quick(Method::GET, self.path(), HeaderMap::new(), Bytes::new()).await;
                self.note(request, answer)
            }
            Request::Drain { epoch, linger_seconds } => {
                let body = json!({"epoch": epoch.0, "lingerSeconds": linger_seconds}).to_string();
                let mut headers = HeaderMap::new();
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                let answer = self.tell(request, epoch, Method::PUT, self.path(), headers, body.into()).await;
                self.or_status(request, answer).await
            }
            Request::Resume { epoch } => {
                let (path, headers) = (self.resumption(epoch), HeaderMap::new());
                let answer = self.tell(request, epoch, Method::DELETE, &path, headers, Bytes::new()).await;
                // It may be closed, and clients are not to be sent to it then: that it cannot be told says nothing of that.
                if matches!(answer, Err(AskError::Status { .. } | AskError::Timeout { .. })) {
                    let status = self.quick(Method::GET, self.path(), HeaderMap::new(), Bytes::new()).await;
                    let _failed_as_well = self.note(Request::Status, status);
                }
                self.or_status(request, answer).await
            }
        }
    }

    fn resumption(&self, epoch: Epoch) -> String {
        let path = self.path();
        let joint = if path.contains('?') { '&' } else { '?' };
        format!("{path}{joint}epoch={epoch}")
    }

    /// Tells a pod something, with a token if it names a key of ours. A token is for one process: who it is, and what time it is there, is asked just before.
    /// A refusal counts only from the very process that the token was for; another one is told again.
    async fn tell(
        &self,
        request: Request,
        epoch: Epoch,
        method: Method,
        path: &str,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<PodAnswer, AskError> {
        let mut known = None;
        if self.keyring.knows(&self.target.keys) {
            let answer = self.quick(Method::GET, self.path(), HeaderMap::new(), Bytes::new()).await;
            let (boot_id, there) = match answer {
                Ok(answer) => (answer.reading.and_then(|r| r.boot_id), answer.date),
                Err(AskError::NotKnown { boot_id, .. }) => (boot_id, None),
                Err(error) => return Err(error),
            };
            let token =
                boot_id.as_ref().and_then(|boot_id| self.token(boot_id, there, action(request), epoch));
            known = boot_id;
            let bearer = token.and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok());
            headers.extend(bearer.map(|bearer| (header::AUTHORIZATION, bearer)));
        }
        let told = self.within(self.telling_deadline(), method, path, headers, body).await;
        if !matches!(told, Err(AskError::Unauthorized { .. })) {
            return told;
        }
        // Whoever said so may be another pod by now, at the address of the one that is meant.
        let answer = self.quick(Method::GET, self.path(), HeaderMap::new(), Bytes::new()).await;
        let answer = self.note(Request::Status, answer)?;
        let speaks = answer.reading.and_then(|r| r.boot_id);
        if known.is_some() && known != speaks { Err(AskError::AnotherProcess) } else { told }
    }

    /// `there`: its own clock, where it said it.
    fn token(
        &self,
        boot_id: &str,
        there: Option<Timestamp>,
        action: &'static str,
        epoch: Epoch,
    ) -> Option<String> {
        let there = there.unwrap_or_else(|| self.clock.now());
        let claims = Claims {
            pod_uid: &self.target.uid.0,
            boot_id,
            action,
            epoch: epoch.0,
            expires: there.as_second().saturating_add(TOKEN_LIFE),
        };
        self.keyring.sign(&self.target.keys, &claims)
    }

    /// Tell when something has changed since this tag; at once where so many pods are watched that no descriptor is left for it.
    pub(crate) async fn watch(&self, etag: HeaderValue) -> Result<PodAnswer, AskError> {
        let Some(_place) = self.slots.try_watch() else { return self.ask(Request::Status).await };
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, etag);
        headers.insert(HeaderName::from_static("prefer"), PREFER_WAIT);
        let deadline = WAIT + self.target.policy.timeout();
        let answer = self.send(Method::GET, self.path(), headers, Bytes::new(), deadline).await;
        self.note(Request::Status, answer)
    }

    /// After a refusal of the epoch, the pod's own view says which it has seen; the planner goes above it.
    async fn or_status(
        &self,
        request: Request,
        answer: Result<PodAnswer, AskError>,
    ) -> Result<PodAnswer, AskError> {
        match self.note(request, answer) {
            Err(AskError::Conflict) => {
                let answer = self.quick(Method::GET, self.path(), HeaderMap::new(), Bytes::new()).await;
                self.note(Request::Status, answer)
            }
            other => other,
        }
    }

    fn path(&self) -> &str {
        &self.target.policy.path
    }

    async fn quick(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<PodAnswer, AskError> {
        self.within(self.target.policy.timeout(), method, path, headers, body).await
    }

    /// Once this process leads no more, the next one may tell the pod something else: what is told must be over by then, as each write to the API server is
    /// (`leader::Timing::check`), however long a pod may take for its count.
    fn telling_deadline(&self) -> Duration {
        self.target.policy.timeout().min(CALL_DEADLINE)
    }

    async fn within(
        &self,
        deadline: Duration,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<PodAnswer, AskError> {
        let _place = self.slots.take(self.lane).await;
        self.send(method, path, headers, body, deadline).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
        deadline: Duration,
    ) -> Result<PodAnswer, AskError> {
        let address = self.target.address;
        let conditional = headers.contains_key(header::IF_NONE_MATCH);
        let Target { policy, uid, .. } = &self.target;
        let mut hearing = Hearing::new(&policy.question, uid);
        let told = method != Method::GET;
        let question = Question { method, address, path, headers, body, deadline };
        let Reply { status, etag, date, challenge, framed } = self.asker.ask(question, &mut hearing).await?;
        let reading = match status {
            StatusCode::NOT_MODIFIED if conditional => None,
            StatusCode::OK | StatusCode::ACCEPTED => Some(hearing.reading(framed)?),
            StatusCode::CONFLICT if policy.question == Language::Graceful => return Err(AskError::Conflict),
            StatusCode::UNAUTHORIZED if told => return Err(AskError::Unauthorized { challenge }),
            other => {
                return Err(AskError::Status { path: self.path().to_owned(), code: other.as_u16() });
            }
        };
        Ok(PodAnswer { reading, etag, date, news: News::Same })
    }

    /// Into the pod's dialogue and the metrics.
    fn note(&self, request: Request, answer: Result<PodAnswer, AskError>) -> Result<PodAnswer, AskError> {
        let (uid, now) = (&self.target.uid, self.clock.now());
        match answer {
            Ok(mut answer) => {
                self.metrics.asked("ok");
                answer.news = self.dialogues.with(uid, |pod| match &answer.reading {
                    Some(reading) => pod.heard(request, reading.clone(), now),
                    None => {
                        pod.unchanged(now);
                        News::Same
                    }
                });
                Ok(answer)
            }
            Err(error) => {
                self.metrics.asked(error.class());
                let news = self.dialogues.with(uid, |pod| match error {
                    AskError::Unauthorized { .. } => pod.refused(error.to_string(), now),
                    _ => pod.failed(error.to_string(), now),
                });
                if news == News::Changed {
                    let Target { app, pod, .. } = &self.target;
                    tracing::info!(%app, pod, class = <&str>::from(error.class()), "no valid in-flight answer: {error}");
                }
                Err(error)
            }
        }
    }
}

/// What a token calls it.
fn action(request: Request) -> &'static str {
    match request {
        Request::Resume { .. } => "resume",
        Request::Drain { .. } | Request::Status => "drain",
    }
}

#[cfg(test)]
mod tests;
