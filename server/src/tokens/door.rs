//! The layer that asks for a token: before the gate, and before a body is read.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::table::Scope;
use super::{Denied, Tokens};
use crate::metrics::{Metrics, Refusal};
use crate::problem::Problem;

/// What a page says beside its token: a server must choose one of the words that it was offered, and not the secret one.
pub const SUBPROTOCOL: &str = "graceful.v1";
/// How a page gives its token: a browser lets it set no header as it opens a WebSocket.
const IN_SUBPROTOCOL: &str = "bearer.";

/// What the layer knows.
#[derive(Debug, Clone)]
pub(crate) struct Doorkeeper {
    pub(crate) tokens: Option<Arc<Tokens>>,
    pub(crate) metrics: Arc<Metrics>,
}

pub(crate) async fn admit(State(keeper): State<Doorkeeper>, request: Request, next: Next) -> Response {
    match keeper.refuse(&request) {
        None => next.run(request).await,
        Some(denied) => {
            keeper.metrics.refused(Refusal::Token);
            refusal(denied)
        }
    }
}

impl Doorkeeper {
    fn refuse(&self, request: &Request) -> Option<Denied> {
        let tokens = self.tokens.as_ref()?;
        let needed = needed(request.method(), request.uri().path())?;
        tokens.judge(presented(request.headers()), needed).err()
    }
}

/// None: nobody is asked. What a new route forgets to say is read, or admin's.
fn needed(method: &Method, path: &str) -> Option<Scope> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match path {
        // Probes, and what a person needs before they can give a token.
        "/" | "/docs" | "/openapi.json" | "/livez" | "/readyz" | "/v1/health" if reads => None,
        path if reads && path.starts_with("/docs/") => None,
        _ if *method == Method::OPTIONS => None,
        _ if reads => Some(Scope::Read),
        "/v1/tasks" | "/v1/bulk/submit" | "/v1/create-task" | "/v1/create-task/"
            if *method == Method::POST =>
        {
            Some(Scope::Submit)
        }
        _ => Some(Scope::Admin),
    }
}

/// RFC 6750, or among the subprotocols of a WebSocket.
fn presented(headers: &HeaderMap) -> Option<&str> {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some((scheme, token)) = authorization.and_then(|value| value.split_once(' '))
        && scheme.eq_ignore_ascii_case("bearer")
    {
        return Some(token.trim());
    }
    let offered =
        headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    offered.flat_map(|value| value.split(',')).find_map(|word| word.trim().strip_prefix(IN_SUBPROTOCOL))
}

fn refusal(denied: Denied) -> Response {
    let (problem, challenge) = match denied {
        Denied::Missing => (Problem::no_token(), HeaderValue::from_static("Bearer realm=\"graceful\"")),
        Denied::Unknown => (
            Problem::unknown_token(),
            HeaderValue::from_static("Bearer realm=\"graceful\", error=\"invalid_token\""),
        ),
        Denied::Scope(scope) => {
            let text = format!(
                "Bearer realm=\"graceful\", error=\"insufficient_scope\", scope=\"{}\"",
                scope.as_str()
            );
            let challenge = HeaderValue::try_from(text);
            (Problem::narrow_token(scope.as_str()), challenge.unwrap_or(HeaderValue::from_static("Bearer")))
        }
    };
    let mut response = problem.into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_probes_and_the_page_itself_are_open() {
        for (method, path, scope) in [
            ("GET", "/", None),
            ("HEAD", "/docs/index.css", None),
            ("GET", "/v1/health", None),
            ("OPTIONS", "/v1/tasks", None),
            ("GET", "/v1/tasks", Some(Scope::Read)),
            ("GET", "/v1/events", Some(Scope::Read)),
            ("GET", "/ws/alice", Some(Scope::Read)),
            ("GET", "/v1/get_queue_length/", Some(Scope::Read)),
            ("GET", "/docsandmore", Some(Scope::Read)),
            ("POST", "/v1/tasks", Some(Scope::Submit)),
            ("POST", "/v1/create-task/", Some(Scope::Submit)),
            ("POST", "/v1/bulk/submit", Some(Scope::Submit)),
            ("POST", "/v1/bulk/delete", Some(Scope::Admin)),
            ("DELETE", "/v1/tasks/1", Some(Scope::Admin)),
            ("PUT", "/v1/queues/mail", Some(Scope::Admin)),
            ("GET", "/v1/queues", Some(Scope::Read)),
            ("POST", "/v1/tasks/1/cancel", Some(Scope::Admin)),
            ("POST", "/v1/tasks/", Some(Scope::Admin)),
            ("DELETE", "/", Some(Scope::Admin)),
            ("POST", "/docs/x", Some(Scope::Admin)),
        ] {
            assert_eq!(needed(&method.parse().unwrap(), path), scope, "{method} {path}");
        }
    }

    #[test]
    fn a_token_is_read_where_clients_can_put_it() {
        let of = |name: &'static str, value: &'static str| {
            let headers = HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))]);
            presented(&headers).map(str::to_owned)
        };
        assert_eq!(of("authorization", "Bearer abc").as_deref(), Some("abc"));
        assert_eq!(of("authorization", "bearer  abc").as_deref(), Some("abc"));
        assert_eq!(of("sec-websocket-protocol", "graceful.v1, bearer.abc").as_deref(), Some("abc"));
        assert_eq!(of("authorization", "Basic abc"), None);
        assert_eq!(of("sec-websocket-protocol", "graceful.v1"), None);
    }
}
