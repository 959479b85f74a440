//! The page at `/`: the queue, live, in one answer that is part of the binary. It needs nothing but this server's own API,
//! and its policy lets it reach nothing else.

use std::sync::LazyLock;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// The parts, in the order in which a browser meets them. All scripts are one function, so that they see each other's names and
/// nothing else does.
const PAGE: &str = concat!(
    include_str!("head.html"),
    "<style>\n",
    include_str!("style.css"),
    "</style>\n",
    include_str!("body.html"),
    "<script>\n'use strict';\n(() => {\n",
    include_str!("basics.js"),
    include_str!("api.js"),
    include_str!("tasks.js"),
    include_str!("row.js"),
    include_str!("list.js"),
    include_str!("address.js"),
    include_str!("queues.js"),
    include_str!("bulk.js"),
    include_str!("plot.js"),
    include_str!("details.js"),
    include_str!("submit.js"),
    include_str!("log.js"),
    include_str!("connection.js"),
    include_str!("handover.js"),
    include_str!("start.js"),
    "})();\n</script>\n</body>\n</html>\n",
);

/// What a browser is told with the page, worked out from its content once.
static HEADERS: LazyLock<HeaderMap> = LazyLock::new(|| {
    let tag = digest(PAGE).replace(['+', '/', '='], "");
    let text = |value: String| HeaderValue::try_from(value).ok();
    let headers = [
        (header::CONTENT_TYPE, text("text/html; charset=utf-8".to_owned())),
        (header::CONTENT_SECURITY_POLICY, text(policy(PAGE))),
        (header::X_CONTENT_TYPE_OPTIONS, text("nosniff".to_owned())),
        (header::REFERRER_POLICY, text("no-referrer".to_owned())),
        // During a rollout two versions answer under one address: ask each time, and get 304 for the same.
        (header::CACHE_CONTROL, text("no-cache".to_owned())),
        (header::ETAG, text(format!("\"{}\"", &tag[..16]))),
    ];
    headers.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
});

/// `GET /`, the page.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/", get(page))
}

async fn page(asked: HeaderMap) -> Response {
    let headers = HEADERS.clone();
    let has = asked.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    let tag = headers.get(header::ETAG).and_then(|tag| tag.to_str().ok());
    if has.zip(tag).is_some_and(|(has, tag)| has == "*" || has.split(',').any(|one| same(one, tag))) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, PAGE).into_response()
}

/// RFC 9110, 13.1.2: If-None-Match compares weakly. A proxy that compresses makes tags weak.
fn same(one: &str, tag: &str) -> bool {
    one.trim().trim_start_matches("W/") == tag
}

/// Nothing runs, applies or loads but what is in the page, named by digest; it talks to this server only; nobody frames
/// it; and no string becomes HTML or script (Trusted Types without a policy).
fn policy(page: &str) -> String {
    let sources = |element| {
        let digests = contents(page, element).map(|content| format!(" 'sha256-{}'", digest(content)));
        digests.collect::<String>()
    };
    format!(
        "default-src 'none'; script-src{}; style-src{}; img-src data:; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        sources("script"),
        sources("style"),
    )
}

/// What is between the tags of each element of this name. Ours have no attributes.
fn contents<'a>(page: &'a str, element: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let (open_length, mut rest) = (open.len(), page);
    std::iter::from_fn(move || {
        let start = rest.find(&open)? + open_length;
        let length = rest[start..].find(&close)?;
        let content = &rest[start..start + length];
        rest = &rest[start + length..];
        Some(content)
    })
}

fn digest(content: &str) -> String {
    STANDARD.encode(Sha256::digest(content))
}
