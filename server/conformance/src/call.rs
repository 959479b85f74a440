//! A request as it is written on the command line: `[METHOD ]URL[ BODY]`.

use std::str::FromStr;

use bytes::Bytes;
use http::{Method, Uri};

const HOW: &str = "write `http://127.0.0.1:8000/path`, or `POST http://127.0.0.1:8000/path {\"a\": 1}`";

/// One request to the app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub(crate) method: Method,
    pub(crate) at: Place,
    pub(crate) body: Bytes,
}

/// A host with its port, and a path there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// `host:port`.
    pub(crate) authority: String,
    /// With its query.
    pub(crate) path: String,
}

impl Place {
    fn read(text: &str, scheme: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|error| format!("{text} is no URL ({error}); {HOW}"))?;
        match (uri.scheme_str(), uri.host()) {
            (Some(found), Some(host)) if found == scheme => {
                let port = uri.port_u16().unwrap_or(80);
                let path = uri.path_and_query().map_or("/", |path| path.as_str());
                Ok(Self { authority: format!("{host}:{port}"), path: path.to_owned() })
            }
            (Some("https" | "wss"), _) => Err(format!(
                "{text}: TLS is not spoken here; give a port before it, as the pod itself or a port-forward has"
            )),
            _ => Err(format!("{text} does not begin with {scheme}://; {HOW}")),
        }
    }
}

impl FromStr for Call {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let (method, rest) =
            if first.contains("://") { (Method::GET, text.trim()) } else { (method(first)?, rest.trim()) };
        let (url, body) = rest.split_once(' ').unwrap_or((rest, ""));
        let body = Bytes::copy_from_slice(body.trim().as_bytes());
        Ok(Self { method, at: Place::read(url, "http")?, body })
    }
}

fn method(word: &str) -> Result<Method, String> {
    let known = word.chars().all(|c| c.is_ascii_uppercase()) && !word.is_empty();
    known.then(|| word.parse().ok()).flatten().ok_or_else(|| format!("{word} is no method; {HOW}"))
}

/// The admin port: `http://POD:9808`, and no path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin(pub(crate) String);

impl FromStr for Admin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let place = Place::read(text, "http")?;
        match place.path.as_str() {
            "/" | "/drain" => Ok(Self(place.authority)),
            path => Err(format!("{path} is not asked for; write http://{}", place.authority)),
        }
    }
}

/// A WebSocket: `ws://host:port/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket(pub(crate) String);

impl FromStr for Socket {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Place::read(text, "ws").map(|_| Self(text.to_owned()))
    }
}

/// A header of every request to the app: `Name: value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header(pub(crate) http::HeaderName, pub(crate) http::HeaderValue);

impl FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (name, value) = text.split_once(':')?;
            Some(Self(name.trim().parse().ok()?, value.trim().parse().ok()?))
        };
        read().ok_or_else(|| format!("{text} is no header; write `Name: value`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_written_in_one_line() {
        let call: Call = "http://a:8000/x?y=1".parse().unwrap();
        assert_eq!((call.method, call.at.authority.as_str(), call.body.len()), (Method::GET, "a:8000", 0));
        assert_eq!(call.at.path, "/x?y=1");
        let call: Call = "POST http://[::1]/x {\"a\": 1}".parse().unwrap();
        assert_eq!((call.method, call.at.authority.as_str()), (Method::POST, "[::1]:80"));
        assert_eq!(call.body, r#"{"a": 1}"#);
    }

    #[test]
    fn what_cannot_be_asked_is_refused_with_what_to_write() {
        for (text, said) in [
            ("post http://a/", "post is no method"),
            ("/x", "is no method"),
            ("POST", "is no URL"),
            ("https://a/", "TLS is not spoken here"),
            ("ftp://a/", "does not begin with http://"),
        ] {
            let error = text.parse::<Call>().unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
        assert_eq!("http://pod:9808".parse::<Admin>().unwrap().0, "pod:9808");
        assert!("http://pod:9808/status".parse::<Admin>().unwrap_err().contains("http://pod:9808"));
        assert!("http://pod/ws".parse::<Socket>().is_err());
        assert!("Authorization".parse::<Header>().is_err());
    }
}
