//! The server does what tests of others rely on: it is real, it can be disturbed, and it leaves nothing.

use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use graceful_postgres::{PASSWORD, Postgres};

#[test]
fn what_was_committed_outlives_a_stop_and_a_kill() {
    let server = Postgres::start().unwrap();
    let database = server.create_database().unwrap();
    assert_ne!(database, server.create_database().unwrap());
    server.sql(&database, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)").unwrap();
    server.restart().unwrap();
    server.sql(&database, "INSERT INTO t VALUES (2)").unwrap();
    server.kill().unwrap();
    assert!(server.sql(&database, "SELECT 1").is_err());
    server.start_again().unwrap();
    assert_eq!(server.sql(&database, "SELECT sum(n) FROM t").unwrap(), "3");
    assert_eq!(server.sql(&database, "SHOW fsync").unwrap(), "on");
    assert!(server.url(&database).contains(PASSWORD));
}

#[test]
fn a_paused_server_takes_connections_and_does_not_answer() {
    let server = Postgres::start().unwrap();
    server.pause().unwrap();
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    // The request for TLS, which a server answers with one byte.
    std::io::Write::write_all(&mut &socket, &[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
    let mut answer = [0; 1];
    assert!(std::io::Read::read_exact(&mut &socket, &mut answer).is_err());
    server.resume().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    std::io::Read::read_exact(&mut &socket, &mut answer).unwrap();
    assert_eq!(answer, [b'N']);
}

#[test]
fn nothing_is_left_of_a_dropped_one() {
    let server = Postgres::start().unwrap();
    let (log, port) = (server.log(), server.port());
    server.pause().unwrap();
    drop(server);
    assert!(!log.parent().unwrap().exists());
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
}

/// Run again as a child by the test below; waits to be killed.
#[test]
#[ignore = "the child of an_owner_that_is_killed_takes_it_along"]
fn child() {
    let server = Postgres::start().unwrap();
    println!("\nport {} {}", server.port(), server.log().display());
    loop {
        std::thread::park();
    }
}

#[test]
fn an_owner_that_is_killed_takes_it_along() {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "on_postgres::child", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = std::io::BufRead::lines(std::io::BufReader::new(owner.stdout.take().unwrap()))
        .map(Result::unwrap)
        .find(|line| line.starts_with("port "))
        .unwrap();
    let (port, log) = said["port ".len()..].split_once(' ').unwrap();
    let port: u16 = port.parse().unwrap();
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    owner.kill().unwrap();
    owner.wait().unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while std::path::Path::new(log).parent().unwrap().exists() {
        assert!(Instant::now() < end, "{log} is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
}
