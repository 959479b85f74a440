//! What a proxy has to change in a head (RFC 9110 §7.6), and nothing else: headers that are about one connection go, and the app is told who its client is.

use std::net::IpAddr;

use hyper::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{Method, Uri, Version};

use crate::config::Forwarded;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// A client's address, as headers say it.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    plain: HeaderValue,
    node: HeaderValue,
}

impl Origin {
    pub(super) fn new(client: IpAddr) -> Self {
        let node = match client {
            IpAddr::V4(address) => format!("for={address}"),
            IpAddr::V6(address) => format!("for=\"[{address}]\""),
        };
        // An address is always fit for a header.
        let value = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("unknown"));
        Self { plain: value(&client.to_string()), node: value(&node) }
    }

    /// Adds this client to the chain that the request brings.
    pub(super) fn tell(&self, how: Forwarded, headers: &mut HeaderMap) {
        let forwarded = match how {
            Forwarded::None => return,
            Forwarded::Auto => headers.contains_key(header::FORWARDED),
            Forwarded::Both => true,
        };
        append(headers, X_FORWARDED_FOR, &self.plain);
        if forwarded {
            append(headers, header::FORWARDED, &self.node);
        }
    }
}

/// At the end of a list, on its last line: some read the first line alone, and those that came so far are on it.
fn append(headers: &mut HeaderMap, name: HeaderName, value: &HeaderValue) {
    match headers.entry(name) {
        Entry::Vacant(none) => {
            none.insert(value.clone());
        }
        Entry::Occupied(mut lines) => {
            let Some(last) = lines.iter_mut().next_back() else { return };
            let joined = [last.as_bytes(), b", ", value.as_bytes()].concat();
            // Both halves were values already.
            if let Ok(joined) = HeaderValue::from_bytes(&joined) {
                *last = joined;
            }
        }
    }
}

/// Why a request cannot be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    /// CONNECT asks for a tunnel to somewhere: this is no such proxy.
    Connect,
    /// A transfer coding beside chunked: it ends here, and nobody here knows how to undo it.
    Coding,
    /// No `Host`, more than one, or one that is none: the next server could take the request for another's (RFC 9112 §3.2).
    Host,
    /// A target that is neither a path nor the absolute form.
    Target,
}

/// Makes a client's head the app's. True if it asks for an upgrade.
pub(super) fn request(parts: &mut Parts) -> Result<bool, Unfit> {
    if parts.method == Method::CONNECT {
        return Err(Unfit::Connect);
    }
    if parts.version == Version::HTTP_2 {
        // There are no such headers in HTTP/2, and h2 refuses most of them; the request's form is the app's as well.
        return Ok(false);
    }
    let mut coded = parts.headers.get_all(header::TRANSFER_ENCODING).iter();
    let chunked = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    if coded.next().is_some_and(|value| !chunked(value)) || coded.next().is_some() {
        return Err(Unfit::Coding);
    }
    one_host(parts)?;
    let upgrade = wanted(&parts.headers);
    let trailers = parts.headers.get_all(header::TE).iter().any(|value| lists(value, "trailers"));
    of_one_connection(&mut parts.headers);
    parts.headers.remove(HTTP2_SETTINGS);
    let asks = upgrade.is_some();
    match upgrade {
        Some(protocol) => {
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(header::UPGRADE, protocol);
        }
        None => {
            parts.headers.remove(header::UPGRADE);
        }
    }
    if trailers {
        parts.headers.insert(header::TE, TRAILERS);
    }
    origin_form(parts);
    parts.version = Version::HTTP_11;
    Ok(asks)
}

/// As a server must see to it. HTTP/1.0 knows no `Host`.
fn one_host(parts: &Parts) -> Result<(), Unfit> {
    // What is no path and has no scheme was read as a host alone, which is CONNECT's.
    if parts.uri.scheme().is_none() && parts.uri.authority().is_some() {
        return Err(Unfit::Target);
    }
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if parts.version == Version::HTTP_10 => Ok(()),
        (Some(host), None) if is_host(host.as_bytes()) => Ok(()),
        _ => Err(Unfit::Host),
    }
}

/// A name or an address with or without a port; empty where there is none to tell.
fn is_host(host: &[u8]) -> bool {
    host.is_empty() || (!host.contains(&b'@') && Authority::try_from(host).is_ok())
}

/// The absolute form is for proxies: its host is the one that holds (RFC 9112 §3.2.2). A client of HTTP/1.0 may name none.
fn origin_form(parts: &mut Parts) {
    if let Some(authority) = parts.uri.authority() {
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            parts.headers.insert(header::HOST, host);
        }
        let path = parts.uri.path_and_query().cloned();
        parts.uri = path.map_or_else(|| Uri::from_static("/"), Uri::from);
    }
    if parts.version == Version::HTTP_10 && !parts.headers.contains_key(header::HOST) {
        parts.headers.insert(header::HOST, HeaderValue::from_static("localhost"));
    }
}

/// The protocol that a client asks to change to. h2c is asked for in other ways by now (RFC 9113 §3.1), and answering in HTTP/1.1 is always right.
fn wanted(headers: &HeaderMap) -> Option<HeaderValue> {
    let protocol = headers.get(header::UPGRADE)?;
    let asked = headers.get_all(header::CONNECTION).iter().any(|value| lists(value, "upgrade"));
    (asked && !lists(protocol, "h2c")).then(|| protocol.clone())
}

/// Whether the client asks for a WebSocket.
pub(super) fn websocket(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|value| lists(value, "websocket"))
}

/// Makes the app's head the client's.
pub(super) fn response(headers: &mut HeaderMap, upgraded: bool) {
    // What an upgrade's head says of the connection is for the client, who asked.
    if !upgraded {
        // The coding holds where there are both, and ends here; the length would be believed.
        if headers.contains_key(header::TRANSFER_ENCODING) {
            headers.remove(header::CONTENT_LENGTH);
        }
        of_one_connection(headers);
    }
}

/// Takes away what is about the connection that it came on. `Upgrade` stays: an answer of 426 is nothing without it.
fn of_one_connection(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<_> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            // Lengths and hosts are nobody's to take away: naming them here is how requests are smuggled.
            .filter(|name| ![header::CONTENT_LENGTH, header::HOST, header::UPGRADE].contains(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    for name in [&KEEP_ALIVE, &PROXY_CONNECTION, &header::TE, &header::TRANSFER_ENCODING] {
        headers.remove(name);
    }
}

fn lists(value: &HeaderValue, word: &str) -> bool {
    value.to_str().is_ok_and(|value| {
        value
            .split(',')
            .any(|one| one.split(';').next().is_some_and(|one| one.trim().eq_ignore_ascii_case(word)))
    })
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn parts(lines: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri("/x?y=1");
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn lines(headers: &HeaderMap) -> Vec<(&str, &str)> {
        headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect()
    }

    #[test]
    fn only_what_is_about_the_connection_goes() {
        let kept = [
            ("host", "a.example"),
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ("tracestate", "vendor=1"),
            ("content-length", "3"),
            ("trailer", "x-sum"),
            ("authorization", "Bearer x"),
        ];
        let gone = [
            ("connection", "close, x-hop, content-length"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAAQAAP__"),
        ];
        let mut parts = parts(&[&kept[..], &gone[..]].concat());
        assert_eq!(request(&mut parts), Ok(false));
        assert_eq!(lines(&parts.headers), kept);
    }

    #[test]
    fn an_upgrade_is_passed_on_and_trailers_too() {
        let mut parts = parts(&[
            ("Host", "x"),
            ("Connection", "keep-alive, Upgrade"),
            ("Upgrade", "websocket"),
            ("TE", "trailers, deflate"),
        ]);
        assert_eq!(request(&mut parts), Ok(true));
        let mut found = lines(&parts.headers);
        found.sort_unstable();
        assert_eq!(
            found,
            [("connection", "upgrade"), ("host", "x"), ("te", "trailers"), ("upgrade", "websocket")]
        );
    }

    #[test]
    fn what_cannot_be_passed_on_is_refused() {
        let asked = |lines: &[(&str, &str)]| request(&mut parts(lines));
        assert_eq!(asked(&[("host", "x"), ("transfer-encoding", "gzip, chunked")]), Err(Unfit::Coding));
        let twice = [("host", "x"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        assert_eq!(asked(&twice), Err(Unfit::Coding));
        assert_eq!(asked(&[("host", "x"), ("transfer-encoding", "Chunked")]), Ok(false));
        for good in ["a.example:81", "192.0.2.1", "[2001:db8::7]:80", "", "a_b"] {
            assert_eq!(asked(&[("host", good)]), Ok(false), "{good}");
        }
        for bad in ["a b", "a/b", "a?b", "me@a", "http://a"] {
            assert_eq!(asked(&[("host", bad)]), Err(Unfit::Host), "{bad}");
        }
        assert_eq!(asked(&[]), Err(Unfit::Host));
        assert_eq!(asked(&[("host", "x"), ("host", "x")]), Err(Unfit::Host));
        let mut no_path = parts(&[("host", "x")]);
        no_path.uri = Uri::from_static("a");
        assert_eq!(request(&mut no_path), Err(Unfit::Target));
        let mut connect = parts(&[]);
        connect.method = Method::CONNECT;
        assert_eq!(request(&mut connect), Err(Unfit::Connect));
    }

    #[test]
    fn an_absolute_form_names_the_host() {
        let mut parts = parts(&[("host", "other")]);
        parts.uri = Uri::from_static("http://a.example:81/x?y=1");
        request(&mut parts).unwrap();
        assert_eq!(
            (parts.uri.to_string().as_str(), lines(&parts.headers)),
            ("/x?y=1", vec![("host", "a.example:81")])
        );
    }

    #[test]
    fn the_client_joins_the_chain_that_is_there() {
        let origin = Origin::new("2001:db8::7".parse().unwrap());
        for (how, given, wanted) in [
            (Forwarded::Auto, &[][..], &[("x-forwarded-for", "2001:db8::7")][..]),
            (
                Forwarded::Auto,
                &[
                    ("x-forwarded-for", "1.1.1.1"),
                    ("x-forwarded-for", "2.2.2.2"),
                    ("forwarded", "for=1.1.1.1"),
                ],
                &[
                    ("x-forwarded-for", "1.1.1.1"),
                    ("x-forwarded-for", "2.2.2.2, 2001:db8::7"),
                    ("forwarded", "for=1.1.1.1, for=\"[2001:db8::7]\""),
                ],
            ),
            (
                Forwarded::Both,
                &[],
                &[("x-forwarded-for", "2001:db8::7"), ("forwarded", "for=\"[2001:db8::7]\"")],
            ),
            (Forwarded::None, &[("x-forwarded-for", "1.1.1.1")], &[("x-forwarded-for", "1.1.1.1")]),
        ] {
            let mut parts = parts(given);
            origin.tell(how, &mut parts.headers);
            assert_eq!(lines(&parts.headers), wanted);
        }
    }
}
