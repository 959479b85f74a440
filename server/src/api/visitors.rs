//! What browsers let the pages of others do. Any page may send a POST to anywhere without being asked for leave (it does not
//! see the answer, and the task is in the queue all the same); and a name of the page's own that is pointed at this server
//! (DNS rebinding) makes it one of the server's own pages.
//!
//! # Guarantees
//! - What changes something is refused to pages of other sites that are not in `--allowed-origins` (403): by `Origin`, or by
//!   `Sec-Fetch-Site` where a browser sends no `Origin`. What is no browser sends neither, and is let in.
//! - A request for a name that is not this server's is refused (421). Its own are addresses and names without a dot, which
//!   nobody can point here from outside; where it listens on loopback alone, else only those in `--allowed-hosts`; elsewhere
//!   any name, unless some are listed: behind an Ingress its names are not ours to know.
//! - Listed pages get the headers that they need to read answers (CORS), here and for preflights.
//! - Nobody frames a page of ours.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::events::origin::Origins;
use crate::metrics::{Metrics, Refusal};
use crate::problem::Problem;

/// How long a browser may remember what a preflight said, in seconds.
const PREFLIGHT_SECONDS: &str = "600";
/// What a listed page may send, and see of an answer.
const METHODS: &str = "GET, POST, PUT, DELETE";
const SENT: &str = "authorization, content-type, idempotency-key, last-event-id, traceparent";
const SEEN: &str = "idempotency-replayed, location, retry-after, www-authenticate";

/// The names under which the server may be asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    any: bool,
    listed: Vec<String>,
}

impl FromStr for Hosts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut hosts = Self::default();
        for host in text.split(',').map(str::trim).filter(|host| !host.is_empty()) {
            let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
            match host {
                "*" => hosts.any = true,
                name if name.chars().all(usable) => hosts.listed.push(name.to_ascii_lowercase()),
                _ => {
                    return Err(format!(
                        "`{host}` is no host name; write tasks.example.com without scheme and port, several with commas \
                         between them, or * for all"
                    ));
                }
            }
        }
        Ok(hosts)
    }
}

impl Hosts {
    /// As they are for a server that listens there: if none is listed, any name will do where others can reach it.
    #[must_use]
    pub fn listening_on(mut self, bind: IpAddr) -> Self {
        self.any |= self.listed.is_empty() && !bind.is_loopback();
        self
    }

    fn has(&self, host: &str) -> bool {
        let name = name(host);
        let address =
            name.parse::<IpAddr>().is_ok() || name.trim_matches(['[', ']']).parse::<Ipv6Addr>().is_ok();
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        self.any || address || !name.contains('.') || self.listed.contains(&name)
    }
}

/// Without the port.
fn name(host: &str) -> &str {
    match host.rsplit_once(':') {
        // The colons of an address are in brackets.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.contains(':') => name,
        Some((name, _)) if name.ends_with(']') => name,
        _ => host,
    }
}

/// Whose pages may do what.
#[derive(Debug, Clone, Default)]
pub struct Visitors {
    /// Pages of other sites that may use the server.
    pub origins: Origins,
    /// The server's own names.
    pub hosts: Hosts,
}

/// What the routes' outermost layer knows.
#[derive(Debug, Clone)]
pub(crate) struct Porter {
    pub(crate) visitors: Arc<Visitors>,
    pub(crate) metrics: Arc<Metrics>,
}

/// The outermost layer of both ports.
pub(crate) async fn admit(State(porter): State<Porter>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    if let Some(problem) = porter.refuse(request.method(), headers) {
        porter.metrics.refused(Refusal::Origin);
        return problem.into_response();
    }
    let listed = match porter.visitors.origins.admit(headers) {
        Ok(listed) => listed.cloned(),
        // A read: the browser keeps the answer from the page.
        Err(_) => None,
    };
    let preflight = listed.is_some()
        && request.method() == Method::OPTIONS
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let framed = request.uri().path().starts_with("/docs");
    let mut response =
        if preflight { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let headers = response.headers_mut();
    if let Some(origin) = listed {
        share(headers, origin, preflight);
    }
    if framed {
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("frame-ancestors 'none'"));
        headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    }
    response
}

impl Porter {
    fn refuse(&self, method: &Method, headers: &HeaderMap) -> Option<Problem> {
        let host = headers.get(header::HOST).map(|host| host.to_str().unwrap_or_default());
        if let Some(host) = host.filter(|host| !self.visitors.hosts.has(host)) {
            return Some(Problem::foreign_host(host));
        }
        let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        let site = headers.get("sec-fetch-site").and_then(|site| site.to_str().ok());
        // The browser's own word; what is behind a proxy that changes `Host` has no other.
        if reads || site == Some("same-origin") {
            return None;
        }
        match self.visitors.origins.admit(headers) {
            Err(origin) => Some(Problem::foreign_page(&String::from_utf8_lossy(origin.as_bytes()))),
            Ok(_) if headers.contains_key(header::ORIGIN) => None,
            Ok(_) => match site {
                Some("cross-site" | "same-site") => Some(Problem::foreign_page("another site")),
                _ => None,
            },
        }
    }
}

/// Lets a listed page read the answer.
fn share(headers: &mut HeaderMap, origin: HeaderValue, preflight: bool) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    if preflight {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(SENT));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_SECONDS));
    } else {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(SEEN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(listed: &str, bind: &str) -> Hosts {
        listed.parse::<Hosts>().unwrap().listening_on(bind.parse().unwrap())
    }

    #[test]
    fn names_that_can_be_pointed_here_from_outside_are_no_names_of_a_server_on_loopback() {
        let local = hosts("", "127.0.0.1");
        for host in
            ["localhost:8000", "LOCALHOST", "127.0.0.1:8000", "[::1]:8000", "[::1]", "tasks:8000", "10.0.0.7"]
        {
            assert!(local.has(host), "{host}");
        }
        for host in ["evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example.", "a.b"] {
            assert!(!local.has(host), "{host}");
        }
        assert!(hosts("", "::").has("tasks.example.com"), "behind an Ingress");
        let listed = hosts("Tasks.example.com", "::");
        assert!(listed.has("tasks.EXAMPLE.com:443") && !listed.has("evil.example"));
        assert!(hosts("*", "127.0.0.1").has("evil.example"));
    }

    #[test]
    fn what_is_no_host_name_is_refused_with_what_to_write() {
        for text in ["https://tasks.example.com", "tasks.example.com:8000", "a b"] {
            let said = text.parse::<Hosts>().unwrap_err();
            assert!(said.contains("write tasks.example.com"), "{text}: {said}");
        }
    }
}
