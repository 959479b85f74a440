//! The allow list of `--http-allow`: which targets may be called, and which addresses a name may stand for.
//!
//! A name says nothing of where it leads: whoever owns a public domain can point it at 10.0.0.1. So an entry allows its own host
//! at public addresses, and at loopback or private ones only in the range that this very entry names.

use std::net::IpAddr;
use std::str::FromStr;

use reqwest::Url;

use super::address::{Range, Reach, reach};

const INSTEAD: &str = "write https://api.example.com, https://*.example.com:8443, or with the private range where it is, \
                       http://worker.tasks.svc:8080=10.96.0.0/12";

/// Targets that may be called; none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allow(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    scheme: Scheme,
    host: Host,
    /// None: any.
    port: Option<u16>,
    /// What it may reach beside public addresses.
    range: Option<Range>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Any,
    /// Any name below this one, which begins with a dot.
    Below(String),
    Name(String),
    Address(IpAddr),
}

/// The entries that one target matches: they decide where its name may lead.
#[derive(Debug, Clone)]
pub(super) struct Door(Vec<Entry>);

impl Allow {
    /// Whether nothing may be called.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether anything may be called by https.
    #[must_use]
    pub fn needs_tls(&self) -> bool {
        self.0.iter().any(|entry| entry.scheme == Scheme::Https)
    }

    /// The entries for this target; None if it has none, or is at an address that they do not admit.
    pub(super) fn door(&self, url: &Url) -> Option<Door> {
        let host = url.host_str()?;
        let port = url.port_or_known_default()?;
        let address = literal(host);
        let name = host.trim_end_matches('.');
        let matching = self.0.iter().filter(|entry| {
            entry.scheme.is(url.scheme())
                && entry.port.is_none_or(|allowed| allowed == port)
                && match &entry.host {
                    Host::Any => true,
                    Host::Below(domain) => address.is_none() && name.ends_with(domain.as_str()),
                    Host::Name(allowed) => allowed == name,
                    Host::Address(allowed) => address == Some(*allowed),
                }
        });
        let door = Door(matching.cloned().collect());
        let open = !door.0.is_empty() && address.is_none_or(|address| door.admits(address));
        open.then_some(door)
    }
}

impl Door {
    /// Whether the target may be at this address.
    pub(super) fn admits(&self, address: IpAddr) -> bool {
        match reach(address) {
            Reach::Public => true,
            Reach::Named => self.0.iter().any(|entry| entry.names(address)),
            Reach::Never => false,
        }
    }
}

impl Entry {
    fn names(&self, address: IpAddr) -> bool {
        let own = match &self.host {
            Host::Address(own) => *own == address.to_canonical(),
            // RFC 6761: it stands for loopback, and for nothing else.
            Host::Name(name) => name == "localhost" && address.to_canonical().is_loopback(),
            Host::Any | Host::Below(_) => false,
        };
        own || self.range.is_some_and(|range| range.has(address))
    }
}

impl Scheme {
    fn is(self, scheme: &str) -> bool {
        match self {
            Self::Http => scheme == "http",
            Self::Https => scheme == "https",
        }
    }
}

/// The address that a URL's host is, if it is one.
pub(super) fn literal(host: &str) -> Option<IpAddr> {
    host.trim_matches(['[', ']']).parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

impl FromStr for Allow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for Entry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no target; {INSTEAD}");
        let (target, range) = match text.split_once('=') {
            Some((target, range)) => (target, Some(range.parse::<Range>()?)),
            None => (text, None),
        };
        let (scheme, rest) = match target.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(("https", rest)) => (Scheme::Https, rest),
            _ => return Err(wrong()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.is_empty() || rest.contains(['/', '@', '?', '#', '\\', ' ']) {
            return Err(wrong());
        }
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, "*")) => (host, None),
            Some((host, port)) if !port.ends_with(']') => {
                (host, Some(port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?))
            }
            _ => (rest, Some(if scheme == Scheme::Http { 80 } else { 443 })),
        };
        let host = host_of(host).ok_or_else(wrong)?;
        let own = if let Host::Address(address) = host { Some(Range::only(address)) } else { None };
        if range.or(own).is_some_and(|range| range.is_never()) {
            return Err(format!(
                "`{text}`: link-local and metadata addresses are never called; leave it out"
            ));
        }
        Ok(Self { scheme, host, port, range })
    }
}

fn host_of(text: &str) -> Option<Host> {
    if text == "*" {
        return Some(Host::Any);
    }
    let (below, name) = match text.strip_prefix("*.") {
        Some(domain) => (true, domain),
        None => (false, text),
    };
    // As it stands in the URLs that are held against it: in lower case, IDNA and one form of address.
    let url = Url::parse(&format!("http://{name}/")).ok()?;
    let name = url.host_str().filter(|host| !host.contains('*'))?.trim_end_matches('.').to_owned();
    match (literal(&name), below) {
        (Some(_), true) => None,
        (Some(address), false) => Some(Host::Address(address)),
        (None, true) => Some(Host::Below(format!(".{name}"))),
        (None, false) => Some(Host::Name(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(text: &str) -> Allow {
        text.parse().unwrap()
    }

    fn opens(allow: &Allow, url: &str) -> bool {
        allow.door(&Url::parse(url).unwrap()).is_some()
    }

    fn admits(allow: &Allow, url: &str, address: &str) -> bool {
        allow.door(&Url::parse(url).unwrap()).is_some_and(|door| door.admits(address.parse().unwrap()))
    }

    #[test]
    fn nothing_is_allowed_that_no_entry_says() {
        assert!(!opens(&Allow::default(), "https://example.com/"));
        let list = allow("https://api.example.com, http://*.hooks.example:8080,https://intern.example:*");
        for url in [
            "https://api.example.com/a?b",
            "https://API.example.com.:443/",
            "http://a.b.hooks.example:8080/",
            "https://intern.example:9/",
        ] {
            assert!(opens(&list, url), "{url}");
        }
        for url in [
            "http://api.example.com/",
            "https://api.example.com:8443/",
            "https://example.com/",
            "https://api.example.com.evil.example/",
            "http://hooks.example:8080/",
            "http://a.hooks.example/",
            "http://evilhooks.example:8080/",
            "https://api.example.com@evil.example/",
            "http://intern.example:9/",
        ] {
            assert!(!opens(&list, url), "{url}");
        }
    }

    #[test]
    fn a_private_address_needs_an_entry_that_names_it_for_that_very_host() {
        let list =
            allow("https://*,http://worker.svc:8080=10.96.0.0/12,http://localhost:9000,http://10.0.0.7");
        assert!(admits(&list, "https://evil.example/", "93.184.216.34"));
        for address in ["10.96.0.1", "127.0.0.1", "::1", "10.0.0.7", "fd00::1"] {
            assert!(
                !admits(&list, "https://evil.example/", address),
                "a public name that leads to {address}"
            );
        }
        assert!(admits(&list, "http://worker.svc:8080/", "10.96.0.1"));
        assert!(!admits(&list, "http://worker.svc:8080/", "10.0.0.7"));
        assert!(admits(&list, "http://localhost:9000/", "127.0.0.1"));
        assert!(!admits(&list, "http://localhost:9000/", "10.96.0.1"));
        assert!(
            opens(&list, "http://10.0.0.7/")
                && opens(&list, "http://0xa000007/")
                && !opens(&list, "http://10.0.0.8/")
        );
        assert!(opens(&list, "https://93.184.216.34/") && !opens(&list, "https://127.0.0.1/"));
        assert!(!opens(&list, "https://[::ffff:127.0.0.1]/"));
    }

    #[test]
    fn what_is_never_called_cannot_be_allowed() {
        let list = allow("http://*:*=0.0.0.0/0,http://*:*=::/0");
        for address in ["169.254.169.254", "fe80::1", "fd00:ec2::254", "100.100.100.200", "0.0.0.0", "::"] {
            assert!(!admits(&list, "http://metadata.example/", address), "{address}");
        }
        assert!(admits(&list, "http://any.example/", "127.0.0.1"));
        for entry in ["http://169.254.169.254", "http://x.example=169.254.0.0/16", "http://[fe80::1]"] {
            assert!(entry.parse::<Allow>().unwrap_err().contains("never called"), "{entry}");
        }
    }

    #[test]
    fn what_is_no_entry_is_refused_with_what_to_write() {
        for text in [
            "api.example.com",
            "ftp://x",
            "https://",
            "https://a/b",
            "https://u@x",
            "https://x:0",
            "https://x:99999",
            "https://*x",
            "https://a.*.b",
            "https://*.10.0.0.1",
            "https://x y",
        ] {
            let said = text.parse::<Allow>().unwrap_err();
            assert!(said.contains("write https://api.example.com"), "{text}: {said}");
        }
        assert!("http://x=10.0.0.0/99".parse::<Allow>().unwrap_err().contains("write 10.0.0.0/8"));
    }
}
