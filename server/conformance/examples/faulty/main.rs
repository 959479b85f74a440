//! A small implementation of the drain protocol, written from docs/protocol.md alone, whose faults are switched on one at a time: the kit's tests see each
//! of its rules fail on one of them, and none without.
//!
//! ```text
//! cargo run -p graceful-conformance --example faulty -- 127.0.0.1 8000 9808 gap-at-the-latch
//! ```
#![allow(clippy::unwrap_used, reason = "it is a test's, and ends where anything is wrong")]

mod admin;
mod app;
mod core;
mod faults;
mod listener;
mod pod;
mod tokens;

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};

use crate::faults::faulty;
use crate::pod::Pod;

#[tokio::main]
async fn main() {
    let (mut term, mut int) = (hears(SignalKind::terminate()), hears(SignalKind::interrupt()));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, port, admin_port, fault] = arguments.as_slice() else {
        panic!("faulty ADDRESS PORT ADMIN_PORT FAULT (or `none`)")
    };
    faults::choose(fault);
    let pod = Pod::new();
    let bind = |port: &str| tokio::net::TcpListener::bind(format!("{address}:{port}"));
    let (public, admin) = (bind(port).await.unwrap(), bind(admin_port).await.unwrap());
    tokio::spawn(listener::serve(public, app::routes(&pod), Some(pod.clone())));
    let admin = tokio::spawn(listener::serve(admin, admin::routes(&pod), None));

    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    if faulty("sigterm-exits-at-once") {
        std::process::exit(0);
    }
    pod.terminate();
    let second = async {
        loop {
            tokio::select! {
                _ = term.recv() => if faulty("second-sigterm-aborts") { return 143 },
                _ = int.recv() => if !faulty("ignores-sigint") { return 130 },
            }
        }
    };
    let orderly = async {
        pod.until(core::Core::idle).await;
        if faulty("mute-at-the-end") {
            admin.abort();
            sleep(Duration::from_secs(5)).await;
        }
        pod.say_farewell();
        let _ = timeout(Duration::from_secs(3), pod.until(|core| core.connections == 0)).await;
        // Last bytes are on their way.
        sleep(Duration::from_millis(100)).await;
        if faulty("exits-with-3") { 3 } else { 0 }
    };
    let code = tokio::select! {
        code = orderly => code,
        code = second => code,
    };
    std::process::exit(code)
}

fn hears(kind: SignalKind) -> Signal {
    signal(kind).unwrap()
}
