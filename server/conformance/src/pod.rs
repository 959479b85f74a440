//! The admin port, asked over a new connection each time, as a client would that must not be fooled by one of several processes. Every answer is noted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::http1::{Connection, whole};
use crate::journal::{Entry, Journal};
use crate::outcome::{Not, Outcome, broken};
use crate::status::Status;
use crate::token::Signer;

/// "At once", over a network and on a machine that is busy.
pub(crate) const PROMPT: Duration = Duration::from_secs(1);
/// What is waited for where something must come: longer than any of it takes on a loaded machine.
pub(crate) const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// How often a status is asked for while it is waited for.
const LOOK: Duration = Duration::from_millis(10);
/// How long a token holds, as the operator has it.
const TOKEN_SECONDS: i64 = 60;
/// An HTTP date reads as an e-mail's (`GMT` is one of its zones).
const HTTP_DATE: DateTimeParser = DateTimeParser::new();

/// Any answer of the admin port.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) json: Value,
    pub(crate) status: Option<Status>,
    pub(crate) sent: Instant,
    pub(crate) received: Instant,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn field(&self) -> Option<&str> {
        self.json["field"].as_str()
    }

    /// For a sentence about what was seen.
    pub(crate) fn told(&self) -> String {
        match (&self.status, self.field()) {
            (Some(status), _) => format!("{} ({})", self.code, status.told()),
            (None, Some(field)) => format!("{} (field {field})", self.code),
            (None, None) => self.code.to_string(),
        }
    }
}

/// An answer with a status.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) status: Status,
    pub(crate) etag: String,
    pub(crate) received: Instant,
}

/// Which token goes with a PUT or DELETE.
#[derive(Debug, Clone)]
pub(crate) enum Token {
    /// A good one where the pod verifies, for this action and epoch.
    Good(&'static str, u64),
    None,
    This(String),
}

#[derive(Debug, Clone)]
pub(crate) struct Pod(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    authority: String,
    journal: Journal,
    signer: Signer,
    verifies: AtomicBool,
    loopback: AtomicBool,
    highest: AtomicU64,
}

impl Pod {
    pub(crate) fn new(authority: String, signer: Signer) -> Self {
        Self(Arc::new(Shared {
            authority,
            journal: Journal::default(),
            signer,
            verifies: AtomicBool::new(false),
            loopback: AtomicBool::new(false),
            highest: AtomicU64::new(0),
        }))
    }

    pub(crate) fn authority(&self) -> &str {
        &self.0.authority
    }

    pub(crate) fn journal(&self) -> &Journal {
        &self.0.journal
    }

    pub(crate) fn signer(&self) -> &Signer {
        &self.0.signer
    }

    /// Whether the pod says that it verifies tokens.
    pub(crate) fn verifies(&self) -> bool {
        self.0.verifies.load(Ordering::Relaxed)
    }

    /// Whether the pod sees us come from a loopback address.
    pub(crate) fn over_loopback(&self) -> bool {
        self.0.loopback.load(Ordering::Relaxed)
    }

    /// Above all that was seen or used; each call gives another.
    pub(crate) fn next_epoch(&self) -> u64 {
        self.0.highest.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A new process: its epochs begin anew.
    pub(crate) fn forget_epochs(&self) {
        self.0.highest.store(0, Ordering::Relaxed);
    }

    /// One question, whatever is answered. An error is none at all.
    pub(crate) async fn ask(
        &self,
        method: &str,
        query: &str,
        headers: &[(&str, &str)],
        body: Bytes,
        limit: Duration,
    ) -> Result<Reply, String> {
        let mut request = Request::builder().method(method).uri(format!("/drain{query}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let in_body = serde_json::from_slice::<Value>(&body).ok().and_then(|body| body["epoch"].as_u64());
        let asked = in_body.or_else(|| query.strip_prefix("?epoch=")?.parse().ok());
        let request = request.body(whole(body)).map_err(|error| error.to_string())?;
        let asking = async {
            let mut connection =
                Connection::open(&self.0.authority).await.map_err(|error| error.to_string())?;
            self.0.loopback.store(connection.loopback, Ordering::Relaxed);
            connection.exchange(request).await
        };
        let answer = match timeout(limit, asking).await {
            Ok(answer) => answer.map_err(|error| format!("{method} /drain was not answered: {error}"))?,
            Err(_) => return Err(format!("{method} /drain was not answered within {} s", limit.as_secs())),
        };
        let json: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        let tells = matches!(answer.code, 200 | 202);
        let status = tells.then(|| serde_json::from_value::<Status>(json.clone()).ok()).flatten();
        let reply = Reply {
            code: answer.code,
            sent: answer.sent,
            received: Instant::now(),
            headers: answer.headers,
            json,
            status,
        };
        self.note(method, asked, &reply);
        Ok(reply)
    }

    fn note(&self, verb: &str, asked: Option<u64>, reply: &Reply) {
        if let Some(status) = &reply.status {
            self.0.highest.fetch_max(status.epoch, Ordering::Relaxed);
            self.0.verifies.store(status.verifies, Ordering::Relaxed);
        }
        let text = |name: &str| reply.header(name).unwrap_or_default().to_owned();
        self.0.journal.note(Entry {
            received: reply.received,
            verb: verb.to_owned(),
            asked,
            code: reply.code,
            content_type: text("content-type"),
            etag: reply.header("etag").map(str::to_owned),
            json: reply.json.clone(),
            status: reply.status.clone(),
        });
    }

    pub(crate) async fn get_with(&self, headers: &[(&str, &str)], limit: Duration) -> Outcome<Reply> {
        self.ask("GET", "", headers, Bytes::new(), limit).await.map_err(Not::Kept)
    }

    pub(crate) async fn get(&self) -> Outcome<Seen> {
        seen("GET", 200, self.get_with(&[], ANSWERS_WITHIN).await?)
    }

    /// Whatever is answered.
    pub(crate) async fn put_body(&self, body: impl Into<Bytes>, token: Token) -> Outcome<Reply> {
        let bearer = self.bearer(token).await;
        self.ask("PUT", "", &bearer_header(&bearer), body.into(), ANSWERS_WITHIN).await.map_err(Not::Kept)
    }

    /// Whatever is answered.
    pub(crate) async fn put_any(&self, epoch: u64, linger_seconds: u64) -> Outcome<Reply> {
        let body = json!({"epoch": epoch, "lingerSeconds": linger_seconds}).to_string();
        self.put_body(body, Token::Good("drain", epoch)).await
    }

    pub(crate) async fn put(&self, epoch: u64, linger_seconds: u64) -> Outcome<Seen> {
        seen("PUT", 202, self.put_any(epoch, linger_seconds).await?)
    }

    /// Whatever is answered.
    pub(crate) async fn delete_query(&self, query: &str, token: Token) -> Outcome<Reply> {
        let bearer = self.bearer(token).await;
        self.ask("DELETE", query, &bearer_header(&bearer), Bytes::new(), ANSWERS_WITHIN)
            .await
            .map_err(Not::Kept)
    }

    /// Whatever is answered.
    pub(crate) async fn delete_any(&self, epoch: u64) -> Outcome<Reply> {
        self.delete_query(&format!("?epoch={epoch}"), Token::Good("resume", epoch)).await
    }

    pub(crate) async fn delete(&self, epoch: u64) -> Outcome<Seen> {
        seen("DELETE", 200, self.delete_any(epoch).await?)
    }

    /// Asks until it is as wanted.
    pub(crate) async fn until(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Status) -> bool,
    ) -> Outcome<Seen> {
        let begun = Instant::now();
        loop {
            let seen = self.get().await?;
            if wanted(&seen.status) {
                return Ok(seen);
            }
            if begun.elapsed() > limit {
                let told = seen.status.told();
                return broken(format!("it was never {what} within {} s: {told}", limit.as_secs_f64()));
            }
            sleep(LOOK).await;
        }
    }

    /// The claims of a good token, as far as this pod goes. `exp` is reckoned by its own clock.
    pub(crate) async fn claims(&self, action: &str, epoch: u64) -> Value {
        let asked = self.ask("GET", "", &[], Bytes::new(), ANSWERS_WITHIN).await.ok();
        let date = asked.as_ref().and_then(|reply| reply.header("date"));
        let now = date
            .and_then(|date| HTTP_DATE.parse_timestamp(date).ok())
            .map_or_else(|| Timestamp::now().as_second(), Timestamp::as_second);
        let status = asked.and_then(|reply| reply.status);
        let (uid, boot) = status.map(|status| (status.pod_uid, status.boot_id)).unwrap_or_default();
        json!({
            "iss": "graceful-operator", "sub": uid, "boot": boot, "action": action, "epoch": epoch, "exp": now + TOKEN_SECONDS,
        })
    }

    async fn bearer(&self, token: Token) -> Option<String> {
        let token = match token {
            Token::Good(action, epoch) if self.verifies() => {
                let claims = self.claims(action, epoch).await;
                self.0.signer.sign(&self.0.signer.header(), &claims)
            }
            Token::This(token) => token,
            Token::Good(..) | Token::None => return None,
        };
        Some(format!("Bearer {token}"))
    }
}

fn bearer_header(bearer: &Option<String>) -> Vec<(&str, &str)> {
    bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect()
}

/// The status of an answer that must have one.
fn seen(verb: &str, code: u16, reply: Reply) -> Outcome<Seen> {
    if reply.code != code {
        return broken(format!("{verb} /drain was answered with {}, not {code}", reply.told()));
    }
    let etag = reply.header("etag").unwrap_or_default().to_owned();
    match reply.status {
        Some(status) => Ok(Seen { status, etag, received: reply.received }),
        None => broken(format!("{verb} /drain was answered with {code} and no status: {}", reply.json)),
    }
}
