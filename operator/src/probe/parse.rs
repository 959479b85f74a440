//! An answer's bytes in, a [`Reading`] out, in each of the three languages. Whatever is not surely a count is an error.

use graceful_api::{Members, Question as Language, WhenAbsent};
use graceful_plan::{Epoch, InFlight, PodUid, Protocol, Reading, Scheduled};
use graceful_prometheus::{LONGEST_PAGE, Page};
use jiff::Timestamp;
use serde_json::Value;

use super::count;
use super::error::{AskError, excerpt};
use super::http::Sink;

/// The most of a JSON document: it is kept whole. A DrainStatus has some 300 bytes.
const LONGEST_DOCUMENT: usize = 64 * 1024;

/// An answer of a language that knows the total alone. Where the endpoint counts the question itself, that is no work: it is taken off here, so that nobody
/// who decides or reads ever sees it.
fn of_total(total: u64, idle_at: u32) -> Reading {
    let in_flight = InFlight { total: total.saturating_sub(idle_at.into()), ..InFlight::default() };
    Reading { in_flight, protocol: None, scheduled: None, boot_id: None }
}

/// An answer on its way in, in the language that was asked in.
pub(crate) struct Hearing<'a> {
    pod: &'a PodUid,
    heard: Heard<'a>,
}

enum Heard<'a> {
    Status(Vec<u8>),
    Document { body: Vec<u8>, pointers: &'a Members<String>, idle_at: u32 },
    Page { page: Page<'a>, idle_at: u32 },
}

impl<'a> Hearing<'a> {
    pub(crate) fn new(language: &'a Language, pod: &'a PodUid) -> Self {
        let heard = match language {
            Language::Graceful => Heard::Status(Vec::new()),
            Language::JsonPointer { pointers, idle_at } => {
                Heard::Document { body: Vec::new(), pointers, idle_at: *idle_at }
            }
            Language::Prometheus { metrics, when_absent, idle_at } => Heard::Page {
                page: Page::new(metrics.as_slice(), *when_absent == WhenAbsent::Zero),
                idle_at: *idle_at,
            },
        };
        Self { pod, heard }
    }

    /// What it says. `framed`: HTTP said where it ends.
    pub(crate) fn reading(self, framed: bool) -> Result<Reading, AskError> {
        match self.heard {
            Heard::Status(body) | Heard::Document { body, .. } if !framed && ends_in_a_number(&body) => {
                let why = "it ended with the connection, and perhaps in the middle of its number; send Content-Length";
                Err(AskError::NotJson { why: why.to_owned() })
            }
            Heard::Status(body) => graceful(&body, self.pod),
            Heard::Document { body, pointers, idle_at } => {
                json_pointers(&body, pointers).map(|total| of_total(total, idle_at))
            }
            Heard::Page { page, idle_at } => {
                page.end(framed).map(|total| of_total(total, idle_at)).map_err(AskError::from)
            }
        }
    }
}

impl Sink for Hearing<'_> {
    fn limit(&self) -> usize {
        match self.heard {
            Heard::Status(_) | Heard::Document { .. } => LONGEST_DOCUMENT,
            Heard::Page { .. } => LONGEST_PAGE,
        }
    }

    fn take(&mut self, piece: &[u8]) -> Result<(), AskError> {
        match &mut self.heard {
            Heard::Status(body) | Heard::Document { body, .. } => {
                body.extend_from_slice(piece);
                Ok(())
            }
            Heard::Page { page, .. } => Ok(page.take(piece)?),
        }
    }
}

/// The drain protocol v1. The answer must come from the asked pod: an IP is given to another pod soon after its last one ends.
fn graceful(body: &[u8], pod: &PodUid) -> Result<Reading, AskError> {
    let answer = json(body)?;
    let version = answer.get("protocol").and_then(Value::as_str).unwrap_or_default();
    if version != "v1" {
        let why = format!(
            "protocol is {:?}, and must be \"v1\"; check inFlight.path and inFlight.format",
            excerpt(version)
        );
        return Err(AskError::NotProtocol { why });
    }
    let uid = answer.get("podUid").and_then(Value::as_str).unwrap_or_default();
    if uid != pod.0 {
        return Err(AskError::WrongPod { found: excerpt(uid) });
    }
    let boot_id = answer.get("bootId").and_then(Value::as_str).filter(|id| !id.is_empty());
    if let Some(why) = answer.get("unknown").and_then(Value::as_str) {
        return Err(AskError::NotKnown { why: excerpt(why), boot_id: boot_id.map(str::to_owned) });
    }
    let boot_id =
        boot_id.ok_or_else(|| missing("bootId", "a text that is new for each start of the process"))?;
    let accepting = answer.get("accepting").and_then(Value::as_bool);
    let accepting = accepting.ok_or_else(|| missing("accepting", "true or false"))?;
    let epoch = count::from_json("epoch", answer.get("epoch").unwrap_or(&Value::Null))?;
    let counts = answer.get("inFlight").filter(|c| c.is_object());
    let counts =
        counts.ok_or_else(|| missing("inFlight", "an object with total, queued, running and requests"))?;
    let total = count::from_json("inFlight.total", counts.get("total").unwrap_or(&Value::Null))?;
    let kind = |name: &str| match counts.get(name) {
        None | Some(Value::Null) => Ok(0),
        Some(value) => count::from_json(&format!("inFlight.{name}"), value),
    };
    let in_flight =
        InFlight { total, queued: kind("queued")?, running: kind("running")?, requests: kind("requests")? };
    // A total below its own parts is wrong somewhere, and the larger word is the safe one.
    let parts = in_flight.queued.saturating_add(in_flight.running).saturating_add(in_flight.requests);
    if total < parts {
        return Err(AskError::NotProtocol {
            why: format!("inFlight.total is {total}, less than its parts ({parts})"),
        });
    }
    Ok(Reading {
        in_flight,
        protocol: Some(Protocol {
            epoch: Epoch(epoch),
            accepting,
            resumable: answer.get("resumable").and_then(Value::as_bool).unwrap_or(true),
        }),
        scheduled: scheduled(&answer, in_flight),
        boot_id: Some(boot_id.to_owned()),
    })
}

/// What the pod says of its scheduled tasks decides nothing, so what cannot be read, or is more than what is queued, is as good as not said.
fn scheduled(answer: &Value, in_flight: InFlight) -> Option<Scheduled> {
    let said = answer.get("scheduled")?;
    let tasks = said.get("tasks").and_then(Value::as_u64).filter(|n| (1..=in_flight.queued).contains(n))?;
    let next = said.get("next").and_then(Value::as_str).and_then(|t| t.parse::<Timestamp>().ok())?;
    Some(Scheduled { tasks, next })
}

/// The sum of the numbers at these RFC 6901 pointers. Each must be there.
fn json_pointers(body: &[u8], pointers: &Members<String>) -> Result<u64, AskError> {
    let document = json(body)?;
    let mut total: u64 = 0;
    for pointer in pointers.as_slice() {
        let value = document
            .pointer(pointer)
            .ok_or_else(|| AskError::PointerMissing { pointer: pointer.to_owned() })?;
        total = total.saturating_add(count::from_json(pointer, value)?);
    }
    if total >= count::LIMIT {
        let what = format!("the sum of {}", pointers.as_slice().join(" and "));
        return Err(AskError::NotACount { what, found: total.to_string() });
    }
    Ok(total)
}

/// All other JSON says itself where it ends.
fn ends_in_a_number(body: &[u8]) -> bool {
    body.trim_ascii_end().last().is_some_and(u8::is_ascii_digit)
}

fn json(body: &[u8]) -> Result<Value, AskError> {
    if body.is_empty() {
        return Err(AskError::NotJson { why: "it is empty".to_owned() });
    }
    serde_json::from_slice(body).map_err(|e| {
        let start = excerpt(&String::from_utf8_lossy(&body[..body.len().min(200)]));
        AskError::NotJson { why: format!("{e}; it begins with {start:?}") }
    })
}

fn missing(field: &str, must: &str) -> AskError {
    AskError::NotProtocol { why: format!("{field} is missing, and must be {must}") }
}

#[cfg(test)]
mod tests;
