//! HTTP/1.1 as attackers and old programs write it. Each shape goes through the gate, and through nginx where it is here; what the client is answered, and what
//! the app is given to read, is held against the list. Where the two differ, the list says why, and docs/gate.md argues it.

mod app;
mod client;
mod list;
mod nginx;

use tokio::net::TcpStream;

use self::app::Recorder;
use self::list::{Shape, all};
use self::nginx::Nginx;
use super::gate::Gate;

/// What follows each shape on its connection: whatever is read into the wrong request shows here.
const AFTER: &str = "GET /after HTTP/1.1\r\nHost: x\r\n\r\n";

/// What one shape came to, as the list writes it: the answers and how the connection ended; then what the app read.
async fn outcome(port: u16, app: &Recorder, shape: &Shape) -> String {
    app.next(shape.answer);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let answers = client::talk(&mut stream, shape).await;
    drop(stream);
    let read = app.read();
    if read.is_empty() { answers } else { format!("{answers}; {}", read.join(", ")) }
}

/// All that differ, with what is there instead: one line of the list after the other can be mended then.
async fn differences(port: u16, app: &Recorder, wanted: impl Fn(&Shape) -> String) -> Vec<String> {
    let mut found = Vec::new();
    for shape in all() {
        let (got, wanted) = (outcome(port, app, &shape).await, wanted(&shape));
        if got != wanted {
            found.push(format!("{}: {got}\n    and not {wanted}", shape.name));
        }
    }
    found
}

#[tokio::test]
async fn the_gate_answers_each_shape_as_the_list_says() {
    let app = Recorder::new().await;
    let gate = Gate::before(app.port, &[]).await;
    let found = differences(gate.port, &app, |shape| shape.gate.to_owned()).await;
    assert!(found.is_empty(), "{}", found.join("\n"));
    gate.counted_out().await;
}

#[tokio::test]
async fn beside_nginx_the_gate_differs_where_the_list_says() {
    let app = Recorder::new().await;
    let nginx = Nginx::before(app.port).await;
    let found = differences(nginx.port, &app, |shape| shape.nginx.unwrap_or(shape.gate).to_owned()).await;
    assert!(found.is_empty(), "{}", found.join("\n"));
}
