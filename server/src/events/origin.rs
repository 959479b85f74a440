//! Which pages may listen. A browser lets any page open a WebSocket to anywhere, and says in `Origin` which page it was;
//! what is no browser sends none.

use std::str::FromStr;

use axum::http::{HeaderMap, HeaderValue, Uri, header};

/// Pages of other sites that may listen. The server's own always may.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    any: bool,
    listed: Vec<String>,
}

impl FromStr for Origins {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut origins = Self::default();
        for origin in text.split(',').map(str::trim).filter(|origin| !origin.is_empty()) {
            if origin == "*" {
                origins.any = true;
                continue;
            }
            let instead = "write https://app.example.com, several with commas between them, or * for all";
            let uri: Uri =
                origin.parse().map_err(|error| format!("`{origin}` is no origin: {error}; {instead}"))?;
            let web = matches!(uri.scheme_str(), Some("http" | "https"));
            // A Uri has at least the path `/`.
            if !web || origin.ends_with('/') || uri.path() != "/" || uri.query().is_some() {
                return Err(format!("`{origin}` is no origin; {instead}"));
            }
            origins.listed.push(origin.to_ascii_lowercase());
        }
        Ok(origins)
    }
}

impl Origins {
    /// Whether the page that asks may. Some(origin) when it is one of another site that may.
    ///
    /// # Errors
    /// The origin that may not.
    pub(crate) fn admit<'a>(
        &self,
        headers: &'a HeaderMap,
    ) -> Result<Option<&'a HeaderValue>, &'a HeaderValue> {
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(None) };
        let text = origin.to_str().unwrap_or_default().to_ascii_lowercase();
        // The scheme is not compared: TLS may end before us.
        let page = text.split_once("://").map(|(_, host)| host);
        let own = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        match (page, own) {
            (Some(page), Some(own)) if page.eq_ignore_ascii_case(own) => Ok(None),
            _ if self.any || self.listed.contains(&text) => Ok(Some(origin)),
            _ => Err(origin),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(origin: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("Tasks.example:8000"));
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        headers
    }

    fn admitted(origins: &str, origin: Option<&str>) -> bool {
        origins.parse::<Origins>().unwrap().admit(&headers(origin)).is_ok()
    }

    #[test]
    fn own_pages_and_what_is_no_browser_may_listen() {
        for origin in [None, Some("http://tasks.example:8000"), Some("https://TASKS.example:8000")] {
            assert!(admitted("", origin), "{origin:?}");
        }
        for origin in ["http://tasks.example", "http://evil.example:8000", "null", "tasks.example:8000", ""] {
            assert!(!admitted("", Some(origin)), "{origin}");
        }
    }

    #[test]
    fn listed_pages_may_listen() {
        let listed = "https://App.example, http://localhost:3000";
        assert!(admitted(listed, Some("https://app.example")));
        assert!(admitted(listed, Some("http://localhost:3000")));
        assert!(!admitted(listed, Some("http://app.example")), "the scheme is part of what was listed");
        assert!(!admitted(listed, Some("null")));
        assert!(admitted("*", Some("null")));
    }

    #[test]
    fn what_is_no_origin_is_refused_with_what_to_write() {
        for text in ["app.example", "https://app.example/", "https://app.example/x", "ftp://x", "https://"] {
            let said = text.parse::<Origins>().unwrap_err();
            assert!(said.contains("write https://app.example.com"), "{text}: {said}");
        }
    }
}
