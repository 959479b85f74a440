//! One run: the implementation, and what may be asked of it.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use futures::channel::mpsc::UnboundedSender;
use http::{Request, header};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::call::Call;
use crate::http1::{Answer, Body, Connection, piecemeal, whole};
use crate::life::{Exit, Life, START};
use crate::need::Need;
use crate::outcome::{Not, Outcome, broken};
use crate::pod::{ANSWERS_WITHIN, PROMPT, Pod, Seen};
use crate::requests::Requests;

/// How long the last byte of a slow request's body is held back where a rule does not decide it: long beside what a loaded machine delays an answer.
pub(crate) const HELD: Duration = Duration::from_millis(400);
/// A --slow without a body must take so long by itself.
const SLOW: Duration = Duration::from_millis(200);

/// What rules share.
pub(crate) struct Run {
    pub(crate) pod: Pod,
    pub(crate) requests: Requests,
    pub(crate) life: Life,
    /// How long --slow takes, where it has no body.
    pub(crate) slow_takes: Duration,
    /// The tour has been made: what is held of all answers has some to look at.
    pub(crate) toured: bool,
    /// What was seen of the SIGTERM that found it serving.
    pub(crate) exit: Option<Outcome<Exit>>,
}

impl Run {
    /// The run before its first request.
    pub(crate) fn new(pod: Pod, requests: Requests, life: Life) -> Self {
        Self { pod, requests, life, slow_takes: HELD, toured: false, exit: None }
    }

    /// What is said where this is not there.
    pub(crate) fn missing(&self, need: Need) -> Option<String> {
        let given = &self.requests;
        let is_there = match need {
            Need::Work => self.work().next().is_some(),
            Need::Slow => given.slow.is_some(),
            Need::Stream => given.stream.is_some(),
            Need::Fail => given.fail.is_some(),
            Need::Task => given.task.is_some(),
            Need::Socket => given.socket.is_some(),
            Need::Open => !given.open.is_empty(),
            Need::Process => self.life.is_known(),
            Need::Command => self.life.is_ours(),
            Need::Tokens => self.pod.verifies(),
        };
        (!is_there).then(|| need.says().to_owned())
    }

    /// Tries everything once, so that a slip in a flag is not taken for a fault.
    pub(crate) async fn prepare(&mut self) -> anyhow::Result<()> {
        let answered = self.pod.get().await.map_err(text);
        let seen = answered.with_context(|| format!("http://{}/drain", self.pod.authority()))?;
        if !seen.status.accepting {
            bail!("the implementation is {}: start it anew, or resume it", seen.status.told());
        }
        self.ready().await;
        let given = self.requests.clone();
        for (flag, call) in given.app.iter().map(|call| ("--app", call)).chain(
            given
                .open
                .iter()
                .map(|call| ("--open", call))
                .chain(given.task.iter().map(|call| ("--task", call))),
        ) {
            self.expect(flag, call).await?;
        }
        if let Some(slow) = &given.slow {
            let answer = self.expect("--slow", slow).await?;
            self.slow_takes = answer.head - answer.sent;
            let natural = slow.body.is_empty();
            anyhow::ensure!(
                !natural || (SLOW..ANSWERS_WITHIN).contains(&self.slow_takes),
                "--slow was answered after {:.2} s; give one that takes from 0.2 to 20 s, or one with a BODY",
                self.slow_takes.as_secs_f64()
            );
            if !natural {
                self.slow_takes = HELD;
            }
        }
        if let Some(socket) = &given.socket {
            let opened = timeout(ANSWERS_WITHIN, tokio_tungstenite::connect_async(&socket.0)).await?;
            let (mut socket, _) = opened.with_context(|| format!("--socket {}", socket.0))?;
            socket.close(None).await?;
        }
        self.rested(ANSWERS_WITHIN)
            .await
            .map(drop)
            .map_err(text)
            .context("does anybody else use it, or is what has ended not counted out?")
    }

    async fn expect(&self, flag: &str, call: &Call) -> anyhow::Result<Answer> {
        let shown = format!("{flag} {} http://{}{}", call.method, call.at.authority, call.at.path);
        match self.call(call).await {
            Ok(answer) if answer.succeeded() => Ok(answer),
            Ok(answer) => bail!("{shown}: answered with {}; give one that is answered with 2xx", answer.code),
            Err(error) => bail!("{shown}: {error}"),
        }
    }

    /// A new process, where it is ours.
    pub(crate) async fn fresh(&mut self) -> Outcome {
        self.pod.forget_epochs();
        let started = self.life.start(&self.pod).await;
        started.map_err(|error| Not::Kept(format!("it does not start again: {error:#}")))?;
        self.ready().await;
        Ok(())
    }

    /// An app may take a while after /drain has begun to answer. Where it takes longer than it may, whoever asks next says so.
    async fn ready(&self) {
        let Some(call) = self.work().chain(&self.requests.open).next() else { return };
        let begun = Instant::now();
        while self.life.is_ours() && begun.elapsed() < START {
            if self.call(call).await.is_ok_and(|answer| answer.succeeded()) {
                return;
            }
            sleep(PROMPT / 20).await;
        }
    }

    /// Every request that brings work.
    pub(crate) fn work(&self) -> impl Iterator<Item = &Call> {
        self.requests.app.iter().chain(&self.requests.slow).chain(&self.requests.task)
    }

    /// One that brings work and is soon done with.
    pub(crate) fn some_work(&self) -> Outcome<&Call> {
        self.work().next().ok_or_else(|| Not::Held(Need::Work.says().to_owned()))
    }

    pub(crate) fn request(&self, call: &Call, body: Body) -> Result<Request<Body>, String> {
        let mut request = Request::builder().method(&call.method).uri(&call.at.path);
        if !call.body.is_empty() {
            let json = call.body.starts_with(b"{") || call.body.starts_with(b"[");
            let kind = if json { "application/json" } else { "application/octet-stream" };
            request =
                request.header(header::CONTENT_TYPE, kind).header(header::CONTENT_LENGTH, call.body.len());
        }
        let mut request = request.body(body).map_err(|error| error.to_string())?;
        for given in &self.requests.header {
            request.headers_mut().insert(given.0.clone(), given.1.clone());
        }
        Ok(request)
    }

    /// One request over a connection of its own.
    pub(crate) async fn call(&self, call: &Call) -> Result<Answer, String> {
        let request = self.request(call, whole(call.body.clone()))?;
        let asking = async {
            let mut connection = connect(&call.at.authority).await?;
            connection.exchange(request).await
        };
        timeout(ANSWERS_WITHIN, asking)
            .await
            .map_err(|_| format!("no answer within {} s", ANSWERS_WITHIN.as_secs()))?
    }

    /// Begins --slow.
    pub(crate) async fn slow(&self) -> Outcome<Work> {
        let Some(call) = &self.requests.slow else { return Err(Not::Held(Need::Slow.says().to_owned())) };
        let mut connection = connect(&call.at.authority).await.map_err(Not::Kept)?;
        let mut work = Work::prepared(self, call).map_err(Not::Kept)?;
        let request = work.request.take();
        work.answering = Some(tokio::spawn(async move {
            match request {
                Some(request) => connection.exchange(request).await,
                None => Err("no request".to_owned()),
            }
        }));
        Ok(work)
    }

    /// Begins --slow, and waits until it is counted.
    pub(crate) async fn busy(&self) -> Outcome<Work> {
        let work = self.slow().await?;
        let counted =
            self.pod.until("busy, with --slow under way,", PROMPT, |status| status.in_flight.total > 0).await;
        match counted {
            Ok(_) => Ok(work),
            Err(not) => {
                let _ = work.end().await;
                Err(not)
            }
        }
    }

    /// Waits until it is open and has nothing in flight.
    async fn rested(&self, limit: Duration) -> Outcome<Seen> {
        let rests = |status: &crate::status::Status| status.accepting && status.in_flight.total == 0;
        self.pod.until("at rest (accepting, nothing in flight)", limit + self.slow_takes, rests).await
    }

    /// Serving, with nothing in flight, whatever went before.
    pub(crate) async fn serving(&self) -> Outcome {
        if self.pod.get().await?.status.state != "Serving" {
            self.pod.delete(self.pod.next_epoch()).await?;
        }
        self.rested(ANSWERS_WITHIN).await.map(drop)
    }

    /// Serving, then drained without a linger until the latch has closed. The epoch, and the first answer that said so.
    pub(crate) async fn closed(&self) -> Outcome<(u64, Seen)> {
        self.serving().await?;
        self.close().await
    }

    /// The same, with what is in flight.
    pub(crate) async fn close(&self) -> Outcome<(u64, Seen)> {
        let epoch = self.pod.next_epoch();
        let seen = self.pod.put(epoch, 0).await?;
        if !seen.status.accepting {
            return Ok((epoch, seen));
        }
        let what = "closed after a PUT with lingerSeconds 0";
        Ok((epoch, self.pod.until(what, PROMPT, |status| !status.accepting).await?))
    }
}

pub(crate) async fn connect(authority: &str) -> Result<Connection, String> {
    Connection::open(authority).await.map_err(|error| format!("cannot connect to {authority}: {error}"))
}

/// A slow request that is under way.
pub(crate) struct Work {
    /// The last byte of its body, and where it goes.
    last: Option<(UnboundedSender<Bytes>, Bytes)>,
    request: Option<Request<Body>>,
    answering: Option<JoinHandle<Result<Answer, String>>>,
}

impl Work {
    /// Nothing of it is sent yet.
    fn prepared(run: &Run, call: &Call) -> Result<Self, String> {
        if call.body.is_empty() {
            let request = run.request(call, whole(Bytes::new()))?;
            return Ok(Self { last: None, request: Some(request), answering: None });
        }
        let (pieces, body) = piecemeal();
        let cut = call.body.len() - 1;
        let _ = pieces.unbounded_send(call.body.slice(..cut));
        let request = run.request(call, body)?;
        Ok(Self { last: Some((pieces, call.body.slice(cut..))), request: Some(request), answering: None })
    }

    /// Whether its answer is there, although nothing has ended it.
    pub(crate) fn is_answered(&self) -> bool {
        self.answering.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Lets it end, and takes its answer.
    pub(crate) async fn end(mut self) -> Outcome<Answer> {
        if let Some((pieces, last)) = self.last.take() {
            let _ = pieces.unbounded_send(last);
        }
        let Some(answering) = self.answering.take() else { return broken("it was never begun") };
        match timeout(ANSWERS_WITHIN, answering).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(error))) => broken(format!("a request in flight was cut: {error}")),
            Ok(Err(_)) => broken("a request in flight was given up"),
            Err(_) => {
                broken(format!("a request in flight was not answered within {} s", ANSWERS_WITHIN.as_secs()))
            }
        }
    }
}

/// A client that goes without a word.
impl Drop for Work {
    fn drop(&mut self) {
        if let Some(answering) = self.answering.take() {
            answering.abort();
        }
    }
}

fn text(not: Not) -> anyhow::Error {
    let (Not::Kept(reason) | Not::Held(reason)) = not;
    anyhow::anyhow!(reason)
}
