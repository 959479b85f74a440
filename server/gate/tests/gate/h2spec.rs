//! HTTP/2 by the book: h2spec, 145 of its rules. `cargo xtask test` fetches it; by hand: `go install github.com/summerwind/h2spec/cmd/h2spec@latest`.

use std::convert::Infallible;
use std::process::Stdio;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::process::Command;
use tokio::time::timeout;

use super::app::App;
use super::gate::{Gate, PATIENCE};

/// The gate's port speaks HTTP/1.1 as well: what is no preface is read as that, answered with 400 and closed, where the rule wants it closed without a word.
const WRONG_ON_PURPOSE: &str = "Sends invalid connection preface";

#[tokio::test]
async fn the_gate_keeps_the_rules_by_h2spec() {
    let app = App::new(|stream| async move {
        let service = service_fn(|request: Request<Incoming>| async move {
            let body = if request.method() == Method::HEAD { "" } else { "hello" };
            // What is wrong in a body is found by whoever reads it.
            let _ = request.into_body().collect().await;
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(body))))
        });
        let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = serving.serve_connection(TokioIo::new(stream), service).await;
    })
    .await;
    let gate = Gate::before(app.port, &[]).await;
    let program = std::env::var_os("GRACEFUL_H2SPEC").unwrap_or_else(|| "h2spec".into());
    let mut h2spec = Command::new(&program);
    h2spec.args(["--host", "127.0.0.1", "--port", &gate.port.to_string(), "--path", "/"]);
    // Longer than its own two seconds: on a busy machine an answer may take as long.
    h2spec.args(["--timeout", "20"]).stdin(Stdio::null()).kill_on_drop(true);
    let done = timeout(PATIENCE, h2spec.output()).await.expect("it ends");
    let said = done.unwrap_or_else(|error| panic!("{}: {error}", program.display())).stdout;
    let said = String::from_utf8_lossy(&said);
    // Each rule that is broken is named as it is tried, and once more at the end.
    let (_, failures) = said.split_once("Failures:").unwrap_or(("", ""));
    let broken: Vec<_> = failures.lines().filter_map(|line| line.trim().strip_prefix('×')).collect();
    assert!(broken.len() == 1 && broken[0].ends_with(WRONG_ON_PURPOSE), "{said}");
    let total = said.lines().rev().find_map(|line| line.split_once(" tests, ")).map(|(total, _)| total);
    assert_eq!(total, Some("145"), "{said}");
    gate.counted_out().await;
}
