//! One request, from its head to the answer's: admitted or refused by the latch, taken to the app, and its answer taken back.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use graceful_drain::RequestGuard;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, EXPECT, HeaderValue};
use hyper::{Request, Response, StatusCode, Version};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::body::{Answer, Held, Outgoing, Progress};
use super::head::{self, Unfit};
use super::pool::Failure;
use super::refusal::Refusal;
use super::{Client, Gate, upgrade};
use crate::metrics::{Fault, Timed};

/// Of a refused request's body, how much is read and for how long, so that the client comes to read the refusal: closing on unread bytes resets the
/// connection, and takes the answer with it.
const LEFT_OVER: usize = 1024 * 1024;
const LEFT_OVER_WAIT: Duration = Duration::from_secs(2);

/// The app is there, as far as the log has said.
static THERE: AtomicBool = AtomicBool::new(true);

/// The whole of it, as hyper calls it.
pub(super) async fn answer(
    client: Arc<Client>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let (gate, version) = (&client.gate, request.version());
    let mut timed = Timed::new(&gate.metrics, request.method(), version);
    let mut response = match gate.drain.try_request() {
        Ok(guard) => exchange(&client, request, guard, timed).await,
        Err(_) => {
            let refusal =
                Refusal::Draining { retry_after: gate.drain.settings().retry_after_seconds }.answer();
            timed.answered(refusal.status());
            left_over(request).await;
            refusal
        }
    };
    // From lingering on, an HTTP/1 answer is the last of its connection, so that the client's next request goes to another pod. HTTP/2 has GOAWAY.
    let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if version != Version::HTTP_2 && !upgraded && gate.drain.winding_down() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

async fn left_over(request: Request<Incoming>) {
    if request.headers().contains_key(EXPECT) || request.body().is_end_stream() {
        return;
    }
    let mut body = http_body_util::Limited::new(request.into_body(), LEFT_OVER);
    let read = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = timeout(LEFT_OVER_WAIT, read).await;
}

async fn exchange(
    client: &Client,
    mut request: Request<Incoming>,
    guard: RequestGuard,
    mut timed: Timed,
) -> Response<Answer> {
    let gate = &client.gate;
    let websocket = head::websocket(request.headers());
    let to_client = hyper::upgrade::on(&mut request);
    let (outgoing, progress, upgrades) = match outgoing(client, request) {
        Ok(made) => made,
        Err(unfit) => return refused(gate, unfit.into(), &mut timed),
    };
    let sent = async {
        match outgoing.version() {
            Version::HTTP_2 => client.pair.send(outgoing).await.map(|response| (response, None)),
            _ => gate.pool.send(outgoing, &progress).await.map(|(response, lease)| (response, Some(lease))),
        }
    };
    let answered = match gate.app_answer {
        None => sent.await,
        Some(limit) => tokio::select! {
            answered = sent => answered,
            () = late(limit, &progress) => return refused(gate, Refusal::Late, &mut timed),
        },
    };
    let (mut response, lease) = match answered {
        Ok(answered) => answered,
        Err(failure) => return refused(gate, told(gate, &failure, &progress), &mut timed),
    };
    there_again();
    progress.answered();
    timed.answered(response.status());
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        // An upgrade that nobody asked for is no answer.
        if !upgrades {
            return refused(gate, Refusal::Died, &mut timed);
        }
        let to_app = hyper::upgrade::on(&mut response);
        upgrade::start(gate, (to_client, to_app), websocket, guard);
        return passed_on(response, |_| Answer::empty());
    }
    let held = Held { _timed: timed, _guard: guard, lease };
    passed_on(response, |body| Answer::App(body, Some(held)))
}

/// The app's request: the client's, but for what a proxy has to change. True if it asks for an upgrade.
fn outgoing(
    client: &Client,
    request: Request<Incoming>,
) -> Result<(Request<Outgoing>, Arc<Progress>, bool), Unfit> {
    let (mut parts, body) = request.into_parts();
    let upgrades = head::request(&mut parts)?;
    client.origin.tell(client.gate.forwarded, &mut parts.headers);
    let http1 = parts.version != Version::HTTP_2;
    let expects = http1
        && !body.is_end_stream()
        && parts
            .headers
            .get(EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let pause = client.gate.body_idle.filter(|_| http1);
    let (body, progress) = Outgoing::new(body, pause, expects);
    let mut outgoing = Request::from_parts(parts, body);
    if expects {
        let progress = progress.clone();
        hyper::ext::on_informational(&mut outgoing, move |response| {
            if response.status() == StatusCode::CONTINUE {
                progress.go_on();
            }
        });
    }
    Ok((outgoing, progress, upgrades))
}

/// The app's answer as the client's.
fn passed_on(response: Response<Incoming>, body: impl FnOnce(Incoming) -> Answer) -> Response<Answer> {
    let (mut parts, incoming) = response.into_parts();
    head::response(&mut parts.headers, parts.status == StatusCode::SWITCHING_PROTOCOLS);
    // hyper says it in the client's version.
    parts.version = Version::HTTP_11;
    Response::from_parts(parts, body(incoming))
}

/// Past the limit once the request is sent: a client that is slow to send is not the app's fault.
async fn late(limit: Duration, progress: &Progress) {
    sleep(limit).await;
    while !progress.sent() {
        sleep(limit).await;
    }
}

fn refused(gate: &Gate, refusal: Refusal, timed: &mut Timed) -> Response<Answer> {
    let fault = match refusal {
        Refusal::NotThere => Some(Fault::NotThere),
        Refusal::Died => Some(Fault::Died),
        Refusal::Late => Some(Fault::Late),
        Refusal::Draining { .. }
        | Refusal::SlowClient
        | Refusal::Connect
        | Refusal::Coding
        | Refusal::Host
        | Refusal::Target
        | Refusal::Body => None,
    };
    if let Some(fault) = fault {
        gate.metrics.fault(fault);
    }
    let answer = refusal.answer();
    timed.answered(answer.status());
    answer
}

fn told(gate: &Gate, failure: &Failure, progress: &Progress) -> Refusal {
    match failure {
        Failure::NotThere(error) => {
            // Once: each request of a busy client would say the same.
            if THERE.swap(false, Ordering::Relaxed) {
                warn!(app = %gate.app, %error, "cannot connect to the app");
            }
            Refusal::NotThere
        }
        Failure::Died(_) if progress.slow() => Refusal::SlowClient,
        Failure::Died(_) if progress.broken() => Refusal::Body,
        Failure::Died(error) => {
            warn!(app = %gate.app, error = %Chain(error), "no answer from the app");
            Refusal::Died
        }
    }
}

impl From<Unfit> for Refusal {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Connect => Self::Connect,
            Unfit::Coding => Self::Coding,
            Unfit::Host => Self::Host,
            Unfit::Target => Self::Target,
        }
    }
}

fn there_again() {
    if !THERE.load(Ordering::Relaxed) && !THERE.swap(true, Ordering::Relaxed) {
        info!("the app answers again");
    }
}

/// An error with its causes, in one line.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
