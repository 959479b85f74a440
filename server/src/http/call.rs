//! One call: look the name up, check where it leads, connect to that very address, send, take the answer.
//!
//! # Guarantees
//! - The connection goes to an address that was checked: a name is looked up once, and nothing looks it up again (DNS
//!   rebinding). No proxy is asked, and no redirect is followed.
//! - Whoever drops the call closes its connection: nothing of it goes on behind the attempt.
//! - An answer takes up [`KEPT`] bytes, and its head at most [`HEAD`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::task::AbortOnDropHandle;

use super::allow::{Door, literal};
use super::answer::{Answer, KEPT};
use super::input::Call;

/// An answer's head; longer ones are refused.
const HEAD: usize = 64 * 1024;
/// A longer body is not read to its end: the answer's status says all that counts.
const MOST_BODY: usize = 1 << 20;
/// For one of several addresses; the next one may be better.
const CONNECT: Duration = Duration::from_secs(5);

/// Finds a name's addresses.
pub(super) type Lookup =
    Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("cannot look up the host")]
    LookUp(#[source] io::Error),
    /// Where it leads stays in the log: whoever hands in a task may not be meant to know.
    #[error(
        "the host is at no address that may be called; link-local and metadata addresses never are, private ones where \
         the host's entry in --http-allow names them"
    )]
    Address,
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("TLS")]
    Tls(#[source] io::Error),
    #[error("the request cannot be sent")]
    Request(#[from] http::Error),
    #[error("no valid answer")]
    Exchange(#[from] hyper::Error),
    #[error("the answer did not end within {0} s")]
    TooSlow(f64),
}

/// Makes calls.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) lookup: Lookup,
    pub(super) tls: Option<TlsConnector>,
}

/// The system's own look-up.
pub(super) fn system() -> Lookup {
    Arc::new(|host, port| {
        Box::pin(async move { tokio::net::lookup_host((host, port)).await.map(Iterator::collect) })
    })
}

impl Caller {
    /// Makes the call through the door that its target matches.
    pub(super) async fn make(&self, call: Call, door: &Door) -> Result<Answer, CallError> {
        let limit = call.timeout;
        let made = timeout(limit, self.make_without_limit(call, door)).await;
        made.unwrap_or(Err(CallError::TooSlow(limit.as_secs_f64())))
    }

    async fn make_without_limit(&self, call: Call, door: &Door) -> Result<Answer, CallError> {
        let host = call.url.host_str().unwrap_or_default().to_owned();
        let port = call.url.port_or_known_default().unwrap_or_default();
        let stream = connect(&self.admitted(&host, port, door).await?).await.map_err(CallError::Connect)?;
        // Small requests in one piece; a socket that refuses the option is only slower.
        let _ = stream.set_nodelay(true);
        if call.url.scheme() == "http" {
            return exchange(stream, request(call)?).await;
        }
        let refused = |error| CallError::Tls(io::Error::new(io::ErrorKind::InvalidInput, error));
        let tls = self.tls.as_ref().ok_or_else(|| refused("the server has no certificate authorities"))?;
        let name = host.trim_matches(['[', ']']).trim_end_matches('.').to_owned();
        let name = ServerName::try_from(name)
            .map_err(|_| refused("the host is no name that a certificate can have"))?;
        let stream = tls.connect(name, stream).await.map_err(CallError::Tls)?;
        exchange(stream, request(call)?).await
    }

    /// The addresses of a host that may be called.
    async fn admitted(&self, host: &str, port: u16, door: &Door) -> Result<Vec<SocketAddr>, CallError> {
        let found = match literal(host) {
            Some(address) => vec![SocketAddr::new(address, port)],
            // RFC 6761: not asked of anybody.
            None if host.trim_end_matches('.') == "localhost" => {
                [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
                    .map(|address| SocketAddr::new(address, port))
                    .to_vec()
            }
            None => (self.lookup)(host.to_owned(), port).await.map_err(CallError::LookUp)?,
        };
        let (admitted, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|at| door.admits(at.ip()));
        if admitted.is_empty() {
            tracing::warn!(host, addresses = ?others, "--http-allow does not admit where the host of a call leads");
            return Err(CallError::Address);
        }
        Ok(admitted)
    }
}

/// To the first that answers.
async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failed = error,
            Err(_) => failed = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failed)
}

fn request(call: Call) -> Result<Request<Full<Bytes>>, http::Error> {
    let Call { url, method, mut headers, body, timeout: _ } = call;
    let host = match (url.host_str().unwrap_or_default(), url.port()) {
        (host, Some(port)) => format!("{host}:{port}"),
        (host, None) => host.to_owned(),
    };
    headers.insert(header::HOST, HeaderValue::try_from(host)?);
    // Each call has a connection of its own: one that is kept may close just as the next call goes out.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = Uri::try_from(target)?;
    *request.headers_mut() = headers;
    Ok(request)
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, CallError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let (head, body) = sender.send_request(request).await?.into_parts();
    let (body, truncated) = beginning(body).await?;
    Ok(Answer { status: head.status, headers: head.headers, body, truncated })
}

/// The first [`KEPT`] bytes, and whether there are more. An answer that breaks off is none: who knows what it would have said.
async fn beginning(mut body: Incoming) -> Result<(Bytes, bool), hyper::Error> {
    let (mut kept, mut read) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        read += data.len();
        kept.extend_from_slice(&data[..data.len().min(KEPT - kept.len())]);
        if read > MOST_BODY {
            break;
        }
    }
    let truncated = read > kept.len();
    Ok((kept.into(), truncated))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use reqwest::Url;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::allow::Allow;
    use super::*;

    /// A name server that says something else each time; counts how often it is asked.
    fn rebinding(answers: Vec<&'static str>) -> (Caller, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let lookup: Lookup = Arc::new(move |_, port| {
            let turn = count.fetch_add(1, Ordering::SeqCst);
            let said = answers[turn.min(answers.len() - 1)];
            let found =
                said.split(' ').map(|address| SocketAddr::new(address.parse().unwrap(), port)).collect();
            Box::pin(async move { Ok(found) })
        });
        (Caller { lookup, tls: None }, asked)
    }

    fn call(url: &str) -> Call {
        super::super::input::read(&serde_json::from_value(serde_json::json!({"url": url})).unwrap()).unwrap()
    }

    fn door(allow: &str, url: &str) -> Door {
        allow.parse::<Allow>().unwrap().door(&Url::parse(url).unwrap()).expect("is allowed")
    }

    /// Answers the first call with this, and tells what it was sent.
    async fn callee(says: &'static [u8]) -> (u16, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = vec![0; 4096];
            let read = stream.read(&mut buffer).await.unwrap();
            stream.write_all(says).await.unwrap();
            String::from_utf8_lossy(&buffer[..read]).into_owned()
        });
        (port, heard)
    }

    #[tokio::test]
    async fn the_connection_goes_to_the_address_that_was_checked() {
        let (port, heard) = callee(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
        // Its second answer would be refused: nobody may ask for one.
        let (caller, asked) = rebinding(vec!["127.0.0.1", "169.254.169.254"]);
        let url = format!("http://hook.example:{port}/a%20b?c=d");
        let door = door(&format!("http://hook.example:{port}=127.0.0.1"), &url);
        let answer = caller.make(call(&url), &door).await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.body[..], answer.truncated), (200, &b"hi"[..], false));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        let heard = heard.await.unwrap();
        assert!(heard.starts_with("POST /a%20b?c=d HTTP/1.1\r\n"), "{heard}");
        assert!(heard.contains(&format!("host: hook.example:{port}\r\n")), "{heard}");
    }

    #[tokio::test]
    async fn a_name_that_leads_to_an_address_that_nobody_named_is_not_called() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("http://hook.example:{port}/");
        let public = door(&format!("http://hook.example:{port}"), &url);
        for leads in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.0.0.1 169.254.169.254"] {
            let (caller, _) = rebinding(vec![leads]);
            let error = caller.make(call(&url), &public).await.unwrap_err();
            assert!(matches!(error, CallError::Address), "{leads}: {error}");
            assert!(!error.to_string().contains("127.0.0.1"), "{error}");
        }
        let nobody = timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(nobody.is_err(), "no connection was made");
    }

    #[tokio::test]
    async fn of_several_addresses_only_those_that_are_admitted_are_called() {
        let (port, heard) = callee(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        let (caller, _) = rebinding(vec!["169.254.169.254 10.0.0.1 127.0.0.1"]);
        let url = format!("http://hook.example:{port}/");
        let answer =
            caller.make(call(&url), &door(&format!("http://hook.example:{port}=127.0.0.0/8"), &url)).await;
        assert_eq!(answer.unwrap().status.as_u16(), 204);
        heard.await.unwrap();
    }
}
