//! The page at `/`: whole in itself, and under a policy that lets it be nothing else.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use base64::Engine;
use graceful_server::kind::Kinds;
use graceful_server::page;
use sha2::{Digest, Sha256};
use tower::ServiceExt;

async fn ask(with: &[(header::HeaderName, &str)]) -> (StatusCode, HeaderMap, String) {
    let app: Router = page::routes();
    let mut request = Request::get("/");
    for (name, value) in with {
        request = request.header(name, *value);
    }
    let response = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> &'a str {
    headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
}

/// The contents of all elements of this name, found in another way than the server's.
fn elements<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    let close = format!("</{name}>");
    page.split(&format!("<{name}"))
        .skip(1)
        .map(|rest| {
            let (attributes, content) = rest.split_once('>').unwrap();
            assert_eq!(attributes, "", "an attribute may name a source");
            content.split_once(&close).unwrap().0
        })
        .collect()
}

#[tokio::test]
async fn it_is_served_as_a_page_that_may_change_with_each_version() {
    let (status, headers, page) = ask(&[]).await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.starts_with("<!doctype html>"));
    assert_eq!(text(&headers, &header::CONTENT_TYPE), "text/html; charset=utf-8");
    assert_eq!(text(&headers, &header::X_CONTENT_TYPE_OPTIONS), "nosniff");
    assert_eq!(text(&headers, &header::CACHE_CONTROL), "no-cache");

    let tag = text(&headers, &header::ETAG);
    assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 10, "{tag}");
    for same in [tag.to_owned(), format!("\"other\", W/{tag}"), "*".to_owned()] {
        let (status, again, body) = ask(&[(header::IF_NONE_MATCH, &same)]).await;
        assert_eq!((status, body.as_str()), (StatusCode::NOT_MODIFIED, ""), "{same}");
        assert_eq!(text(&again, &header::ETAG), tag);
    }
    let (status, ..) = ask(&[(header::IF_NONE_MATCH, "\"other\"")]).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn its_policy_names_its_own_script_and_style_and_nothing_else() {
    let (_, headers, page) = ask(&[]).await;
    let policy = text(&headers, &header::CONTENT_SECURITY_POLICY);
    let sources = |directive: &str| -> Vec<String> {
        let found = policy.split("; ").find_map(|part| part.strip_prefix(&format!("{directive} ")));
        found.unwrap_or_else(|| panic!("no {directive} in {policy}")).split(' ').map(str::to_owned).collect()
    };
    for (directive, element) in [("script-src", "script"), ("style-src", "style")] {
        let contents = elements(&page, element);
        assert_eq!(contents.len(), 1);
        let digest = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(contents[0]));
        assert_eq!(sources(directive), [format!("'sha256-{digest}'")]);
    }
    assert_eq!(sources("default-src"), ["'none'"]);
    assert_eq!(sources("connect-src"), ["'self'"]);
    assert_eq!(sources("frame-ancestors"), ["'none'"]);
    assert!(!policy.contains("unsafe"), "{policy}");
}

#[tokio::test]
async fn it_needs_nothing_from_elsewhere_and_makes_no_html_of_data() {
    let (.., page) = ask(&[]).await;
    // Names of XML vocabularies are no addresses that anybody fetches.
    let page = page.replace("http://www.w3.org/2000/svg", "");
    for elsewhere in
        ["http://", "https://", "src=", "url(", "@import", "<link rel=\"stylesheet", "\"//", "'//"]
    {
        assert!(!page.contains(elsewhere), "{elsewhere}");
    }
    for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
        assert!(!page.contains(sink), "{sink}");
    }
    // The policy would not let them apply.
    for inline in [" style=", " onclick=", "javascript:"] {
        assert!(!page.contains(inline), "{inline}");
    }
}

/// The names in quotes after each of these, in the page's script.
fn named<'a>(page: &'a str, before: &str) -> Vec<&'a str> {
    page.split(before).skip(1).filter_map(|rest| rest.split_once('\'')).map(|(name, _)| name).collect()
}

#[tokio::test]
async fn its_script_finds_all_that_it_asks_for() {
    let (.., page) = ask(&[]).await;
    let ids = named(&page, "$('");
    assert!(ids.len() > 50 && ids.contains(&"bulk-go") && ids.contains(&"queues"), "{ids:?}");
    for id in ids {
        assert_eq!(page.matches(&format!(" id=\"{id}\"")).count(), 1, "{id}");
    }
}

/// With the names that stand in a template.
fn filled(template: &str) -> Vec<String> {
    if template.contains("/v1/bulk/") {
        return ["cancel", "retry", "delete"].map(|change| template.replace("${change}", change)).into();
    }
    let name = template.replace("${encodeURIComponent(name)}", "{name}").replace("${id}", "{id}");
    let verbs: &[_] = if name.contains("/queues/") { &["pause", "resume"] } else { &["cancel", "retry"] };
    if name.contains("${verb}") {
        verbs.iter().map(|verb| name.replace("${verb}", verb)).collect()
    } else {
        vec![name]
    }
}

#[tokio::test]
async fn its_script_asks_for_what_the_api_has() {
    let (.., page) = ask(&[]).await;
    let api = serde_json::to_value(graceful_server::api::document(&Kinds::default())).unwrap();
    let mut asked = Vec::new();
    for call in page.split("call('").skip(1) {
        let (method, rest) = call.split_once("', ").unwrap();
        let path = match rest.split_at(1) {
            ("'", path) => vec![path.split_once('\'').unwrap().0.to_owned()],
            ("`", path) => filled(path.split_once('`').unwrap().0),
            // The list's address, made in a function of its own.
            _ => continue,
        };
        asked.extend(path.into_iter().map(|path| (method.to_lowercase(), path)));
    }
    assert!(asked.contains(&("post".to_owned(), "/v1/bulk/delete".to_owned())), "{asked:?}");
    asked.retain(|(method, path)| api["paths"][path][method].is_null());
    assert!(asked.is_empty(), "there is no {asked:?}");
}
