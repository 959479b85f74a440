//! A process whose descriptors are all taken still answers on its admin port. (Alone in its file: the limit is the process's.)
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

use std::fs::File;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use graceful_drain::{Drain, Settings, Signals, raise_descriptor_limit, serve};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::timeout;

/// Far beyond what anything here takes, on a loaded machine too.
const TIMEOUT: Duration = Duration::from_secs(60);

async fn asked(socket: TcpSocket, address: SocketAddr) -> String {
    let asking = async {
        let mut stream = socket.connect(address).await.unwrap();
        stream
            .write_all(b"GET /drain HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    timeout(TIMEOUT, asking).await.expect("an answer in time")
}

#[tokio::test]
async fn the_admin_port_answers_when_all_descriptors_are_taken() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 64, hard.min(256)).unwrap();
    assert_eq!(raise_descriptor_limit().unwrap(), hard.min(256));
    assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap().0, hard.min(256));
    let public = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = admin.local_addr().unwrap();
    let drain = Drain::new(Settings::default());
    let signals = Signals::install().unwrap();
    tokio::spawn(serve((public, Router::new()), (admin, drain.routes()), drain, signals));
    // Its reserve is there once it has answered.
    assert!(asked(TcpSocket::new_v4().unwrap(), address).await.contains("Serving"));
    let sockets: Vec<_> = (0..3).map(|_| TcpSocket::new_v4().unwrap()).collect();
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    assert!(taken.len() > 100, "{}", taken.len());
    for socket in sockets {
        assert!(asked(socket, address).await.contains("Serving"));
        // What the client had, and what was kept for the connection, is taken as well.
        while let Ok(file) = File::open("/dev/null") {
            taken.push(file);
        }
    }
}
