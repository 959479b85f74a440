//! Against real servers on loopback that lie, drip, flood and vanish.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::leader::Term;
use crate::probe::AskErrorClass;

/// A server that reads one request's head and then does what it is told with the connection.
async fn serving<F>(behave: impl FnOnce(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        behave(stream).await;
    });
    address
}

async fn saying(answer: &'static [u8]) -> SocketAddr {
    serving(move |mut stream| async move {
        // The client may hang up before it has heard all.
        let _hung_up = stream.write_all(answer).await;
    })
    .await
}

/// Keeps up to so many bytes.
struct Kept(Vec<u8>, usize);

impl Sink for Kept {
    fn limit(&self) -> usize {
        self.1
    }

    fn take(&mut self, piece: &[u8]) -> Result<(), AskError> {
        self.0.extend_from_slice(piece);
        Ok(())
    }
}

/// For deadlines that are to be met.
const SOON: Duration = Duration::from_millis(300);

/// Long enough for a busy machine.
async fn ask(address: SocketAddr) -> Result<(Reply, Vec<u8>), AskError> {
    ask_within(address, Duration::from_secs(10)).await
}

async fn ask_within(address: SocketAddr, deadline: Duration) -> Result<(Reply, Vec<u8>), AskError> {
    let mut kept = Kept(Vec::new(), 64 * 1024);

    let question = Question {
        method: Method::GET,
        address,
        path: "/drain",
        headers: HeaderMap::new(),
        body: Bytes::new(),
        deadline,
    };
    let reply = Asker::that_reaches_loopback().ask(question, &mut kept).await?;
    Ok((reply, kept.0))
}

async fn class(address: SocketAddr) -> AskErrorClass {
    ask(address).await.unwrap_err().class()
}

#[tokio::test]
async fn an_answer_is_read_whole() {
    let address = saying(b"HTTP/1.1 200 OK\r\nETag: W/\"7\"\r\nContent-Length: 2\r\n\r\n{}").await;
    let (reply, body) = ask(address).await.unwrap();
    assert_eq!((reply.status, reply.framed, body.as_slice()), (StatusCode::OK, true, b"{}".as_ref()));
    assert_eq!(reply.etag.unwrap(), "W/\"7\"");
}

#[tokio::test]
async fn an_answer_that_ends_with_the_connection_is_read_whole() {
    let address = saying(b"HTTP/1.0 200 OK\r\n\r\n{\"n\": 3}").await;
    let (reply, body) = ask(address).await.unwrap();
    assert_eq!(
        (reply.framed, body.as_slice()),
        (false, b"{\"n\": 3}".as_ref()),
        "what was cut off would look the same"
    );
}

#[tokio::test]
async fn an_answer_in_chunks_says_where_it_ends() {
    let whole =
        saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nq 1\r\n1\r\n2\r\n0\r\n\r\n").await;
    let (reply, body) = ask(whole).await.unwrap();
    assert_eq!((reply.framed, body.as_slice()), (true, b"q 12".as_ref()));
    let cut = saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nq 1\r\n").await;
    assert_eq!(class(cut).await, AskErrorClass::Reset);
}

#[tokio::test]
async fn loopback_is_out_of_reach_for_the_operator() {
    let address = saying(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let question = Question {
        method: Method::GET,
        address,
        path: "/drain",
        headers: HeaderMap::new(),
        body: Bytes::new(),
        deadline: Duration::from_secs(1),
    };
    assert_eq!(
        Asker::default().ask(question, &mut Kept(Vec::new(), 0)).await.unwrap_err().class(),
        AskErrorClass::Forbidden
    );
}

#[tokio::test]
async fn nobody_there_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert_eq!(class(address).await, AskErrorClass::Refused);
}

/// Keeps P7.
#[tokio::test]
async fn silence_meets_the_deadline() {
    let address = serving(|stream| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let sent = Instant::now();
    assert_eq!(ask_within(address, SOON).await.unwrap_err().class(), AskErrorClass::Timeout);
    assert!(sent.elapsed() < Duration::from_secs(9));
}

/// The deadline is over the whole answer: each byte is in time, all of them are not.
#[tokio::test]
async fn a_byte_at_a_time_meets_the_deadline() {
    for head in ["", "HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"] {
        let address = serving(move |mut stream| async move {
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut pace = tokio::time::interval(Duration::from_millis(50));
            loop {
                pace.tick().await;
                if stream.write_all(b"H").await.is_err() {
                    return;
                }
            }
        })
        .await;
        let sent = Instant::now();
        let met = ask_within(address, SOON).await.unwrap_err().class();
        assert!(
            met == AskErrorClass::Timeout || (head.is_empty() && met == AskErrorClass::NotHttp),
            "{met:?}"
        );
        assert!(sent.elapsed() < Duration::from_secs(9));
    }
}

#[tokio::test]
async fn a_flood_is_not_read() {
    let flood = |head: &'static [u8]| {
        serving(move |mut stream| async move {
            stream.write_all(head).await.unwrap();
            while stream.write_all(&[b'x'; 8192]).await.is_ok() {}
        })
    };
    let announced = flood(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
    assert_eq!(class(announced).await, AskErrorClass::TooLarge);
    let endless = flood(b"HTTP/1.1 200 OK\r\n\r\n").await;
    assert_eq!(class(endless).await, AskErrorClass::TooLarge);
    let headers = flood(b"HTTP/1.1 200 OK\r\nX-Endless: ").await;
    assert_eq!(class(headers).await, AskErrorClass::NotHttp);
}

#[tokio::test]
async fn a_redirect_is_an_error_that_names_it() {
    let address =
        saying(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n").await;
    let error = ask(address).await.unwrap_err();
    assert_eq!(error.class(), AskErrorClass::Redirect);
    assert!(error.to_string().contains("http://169.254.169.254/"), "{error}");
}

#[tokio::test]
async fn an_encoded_answer_is_not_decoded() {
    let address = saying(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc").await;
    assert_eq!(class(address).await, AskErrorClass::Encoded);
}

#[tokio::test]
async fn a_connection_that_breaks_off_is_a_reset() {
    assert_eq!(class(saying(b"").await).await, AskErrorClass::Reset);
    let cut_short = saying(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}").await;
    assert_eq!(class(cut_short).await, AskErrorClass::Reset);
}

#[tokio::test]
async fn what_is_not_http_is_said() {
    assert_eq!(class(saying(b"SSH-2.0-OpenSSH_9.9\r\n").await).await, AskErrorClass::NotHttp);
    assert_eq!(class(saying(b"\x15\x03\x01\x00\x02\x02\x46").await).await, AskErrorClass::NotHttp);
}

/// Answers every request, and notes its method.
async fn noting() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let (listener, heard) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), Arc::<Mutex<Vec<_>>>::default());
    let (address, notes) = (listener.local_addr().unwrap(), Arc::clone(&heard));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let notes = Arc::clone(&notes);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    // One that is not sent anything.
                    let Ok(byte) = stream.read_u8().await else { return };
                    head.push(byte);
                }
                let method = String::from_utf8_lossy(&head).split(' ').next().unwrap_or_default().to_owned();
                notes.lock().push(method);
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
                let _hung_up = stream.write_all(answer).await;
            });
        }
    });
    (address, heard)
}

/// Another operator may lead by now, and tell the pod otherwise. Whoever leads asks first, and hearing harms nobody.
#[tokio::test]
async fn only_who_leads_tells_a_pod_anything() {
    let (address, heard) = noting().await;
    let term = Arc::<Term>::default();
    let asker = Asker::that_reaches_loopback().led_by(Leadership::Elected(Arc::clone(&term)));
    let ask = async |method: Method| {
        let deadline = Duration::from_secs(10);
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        let question = Question { method, address, path: "/drain", headers, body, deadline };
        asker.ask(question, &mut Kept(Vec::new(), 64)).await
    };
    let told = async |held: bool, when: &str| {
        heard.lock().clear();
        for method in [Method::PUT, Method::DELETE] {
            let answer = ask(method).await;
            assert!(
                if held { answer.is_ok() } else { matches!(answer, Err(AskError::NotLeading(_))) },
                "{when}: {answer:?}"
            );
        }
        ask(Method::GET).await.unwrap();
        let all: &[&str] = if held { &["PUT", "DELETE", "GET"] } else { &["GET"] };
        assert_eq!(*heard.lock(), all, "{when}");
    };
    told(false, "before its term").await;
    term.extend(Duration::MAX);
    told(true, "in its term").await;
    term.extend(crate::clock::since_boot());
    told(false, "as it has run out").await;
    term.extend(Duration::MAX);
    term.end();
    told(false, "after its term").await;
}
