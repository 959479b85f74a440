//! What a client asks for as it connects: the parameters of `/ws/{client_id}` and `/v1/events`, and who it is.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Extension};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use graceful_store::{StoreError, Unavailable};

use super::hub::Hub;
use super::limits::Crowded;
use super::token::Token;
use crate::metrics::Refusal;
use crate::problem::Problem;

/// A place is free when someone leaves; nobody knows when.
const CROWDED_RETRY_SECONDS: u16 = 5;

/// What a person may look back over as the page opens. More is a matter for `after`.
const MOST_LAST: u64 = 1000;

/// The peer's address, where the server that runs us tells it.
pub(crate) type Peer = Option<Extension<ConnectInfo<SocketAddr>>>;

pub(crate) fn address(peer: Peer) -> Option<IpAddr> {
    peer.map(|Extension(ConnectInfo(address))| address.ip())
}

/// The parameters of either route.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ask<'a> {
    /// JSON, not the words of the seed.
    pub(crate) json: bool,
    /// The last event seen.
    pub(crate) after: Option<Token<'a>>,
    /// Without a last event seen: how many of the latest to begin with.
    pub(crate) last: u64,
    /// Only the client's own tasks.
    pub(crate) own: bool,
    /// Only how tasks ended, and not what happens before.
    pub(crate) no_hints: bool,
    /// Whose tasks, for those whose path does not say it.
    pub(crate) client_id: Option<&'a str>,
}

/// What can't be used: the parameter's name, and what to write instead.
pub(crate) type Unusable = (&'static str, String);

impl<'a> Ask<'a> {
    /// For a socket.
    pub(crate) fn of_socket(query: &'a [(String, String)]) -> Result<Self, Unusable> {
        let mut ask = Self::default();
        for (name, value) in query {
            match (name.as_str(), value.as_str()) {
                ("format", "json") => ask.json = true,
                ("format", _) => return Err(("format", "write json, or leave it out".to_owned())),
                ("tasks", "own") => ask.own = true,
                ("tasks", "all") => ask.own = false,
                ("tasks", _) => return Err(("tasks", "write own or all".to_owned())),
                _ => ask.shared(name, value, "format, after, last, tasks and hints")?,
            }
        }
        let json_only = [("last", ask.last > 0), ("tasks", ask.own), ("hints", ask.no_hints)];
        // A token is of no use to a client that does not read JSON, so it implies it; the others may be a mistake.
        ask.json |= ask.after.is_some();
        match json_only.into_iter().find(|(_, given)| *given && !ask.json) {
            Some((name, _)) => Err((name, "is for JSON; write format=json as well".to_owned())),
            None => Ok(ask),
        }
    }

    /// For SSE. The header is what a browser sends as it comes back, to the address it was given at first: it is the
    /// newer one.
    pub(crate) fn of_stream(
        query: &'a [(String, String)],
        last_event_id: Option<&'a HeaderValue>,
    ) -> Result<Self, Unusable> {
        let mut ask = Self { json: true, ..Self::default() };
        for (name, value) in query {
            match (name.as_str(), value.as_str()) {
                ("client_id", id) => (ask.client_id, ask.own) = (Some(client_id(id)?), true),
                _ => ask.shared(name, value, "after, last, client_id and hints")?,
            }
        }
        if let Some(token) = last_event_id.filter(|token| !token.is_empty()) {
            let parsed = Token::parse(token.to_str().unwrap_or_default());
            ask.after = Some(parsed.map_err(|why| ("Last-Event-ID", why))?);
        }
        Ok(ask)
    }

    fn shared(&mut self, name: &str, value: &'a str, known: &str) -> Result<(), Unusable> {
        match (name, value) {
            ("after", token) => self.after = Some(Token::parse(token).map_err(|why| ("after", why))?),
            ("last", many) => {
                let many = many.parse().ok().filter(|many| *many <= MOST_LAST);
                self.last =
                    many.ok_or_else(|| ("last", format!("write a whole number from 0 to {MOST_LAST}")))?;
            }
            ("hints", "false") => self.no_hints = true,
            ("hints", "true") => self.no_hints = false,
            ("hints", _) => return Err(("hints", "write true or false".to_owned())),
            _ => return Err(("query", format!("there is no parameter `{name}`; there are {known}"))),
        }
        Ok(())
    }
}

/// The client id, if it can be used: as who submits says it.
pub(crate) fn client_id(id: &str) -> Result<&str, Unusable> {
    crate::client_id::check(id).map(|()| id).map_err(|why| ("client_id", why.to_owned()))
}

/// The page that asks, if it is one of another site that may.
pub(crate) fn admit<'a>(hub: &Hub, headers: &'a HeaderMap) -> Result<Option<&'a HeaderValue>, Box<Response>> {
    hub.settings().origins.admit(headers).map_err(|origin| {
        hub.metrics().refused(Refusal::Origin);
        Box::new(Problem::foreign_page(&String::from_utf8_lossy(origin.as_bytes())).into_response())
    })
}

pub(crate) fn unusable((field, why): Unusable) -> Response {
    Problem::invalid(field, &why).into_response()
}

pub(crate) fn crowded(hub: &Hub, crowded: Crowded) -> Response {
    hub.metrics().refused(Refusal::Crowded);
    let (status, detail) = match crowded {
        Crowded::Total => (
            StatusCode::SERVICE_UNAVAILABLE,
            "As many listen to this pod as may (--max-sockets); try again later",
        ),
        Crowded::Client => (
            StatusCode::TOO_MANY_REQUESTS,
            "As many listen under this client_id as may (--max-sockets-per-client); close one",
        ),
        Crowded::Address => (
            StatusCode::TOO_MANY_REQUESTS,
            "As many listen from this address as may (--max-sockets-per-ip); close one",
        ),
    };
    Problem::crowded(status, CROWDED_RETRY_SECONDS, detail).into_response()
}

/// The queue is not open.
pub(crate) fn closed() -> Response {
    let detail = "the queue is not open".to_owned();
    away(StoreError::Unavailable { why: Unavailable::Closed, detail })
}

/// The queue can't be read.
pub(crate) fn away(error: StoreError) -> Response {
    Problem::from(error).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Vec<(String, String)> {
        text.split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    }

    #[test]
    fn without_parameters_a_client_gets_what_the_first_ones_got() {
        assert_eq!(Ask::of_socket(&[]), Ok(Ask::default()));
        assert!(!Ask::default().json);
    }

    #[test]
    fn a_token_implies_json() {
        let query = query("after=s.7&tasks=own&hints=false");
        let expected = Ask {
            json: true,
            after: Some(Token { stream: "s", number: 7 }),
            last: 0,
            own: true,
            no_hints: true,
            client_id: None,
        };
        assert_eq!(Ask::of_socket(&query), Ok(expected));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (text, field, instead) in [
            ("format=xml", "format", "write json"),
            ("format=json&after=7", "after", "write the `id`"),
            ("format=json&tasks=mine", "tasks", "write own or all"),
            ("tasks=own", "tasks", "write format=json"),
            ("hints=false", "hints", "write format=json"),
            ("format=json&hints=no", "hints", "write true or false"),
            ("format=json&last=1001", "last", "from 0 to 1000"),
            ("last=5", "last", "write format=json"),
            ("format=json&afer=s.7", "query", "there are format, after, last, tasks and hints"),
        ] {
            let (found, why) = Ask::of_socket(&query(text)).unwrap_err();
            assert!(found == field && why.contains(instead), "{text}: {found}: {why}");
        }
    }

    #[test]
    fn a_browser_that_comes_back_knows_better_than_its_address() {
        let (query, header) = (query("after=s.7&client_id=me"), HeaderValue::from_static("s.9"));
        let ask = Ask::of_stream(&query, Some(&header)).unwrap();
        assert_eq!((ask.after.unwrap().number, ask.client_id, ask.own), (9, Some("me"), true));
        assert_eq!(Ask::of_stream(&query, None).unwrap().after.unwrap().number, 7);
        let wrong = HeaderValue::from_static("nine");
        assert_eq!(Ask::of_stream(&query, Some(&wrong)).unwrap_err().0, "Last-Event-ID");
    }
}
