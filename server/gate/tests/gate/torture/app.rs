//! An app that writes down what it is given to read, by the strictest reading there is, and answers as it is told.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::app::{App, head, ok};

#[derive(Default)]
struct Book {
    read: Vec<String>,
    answer: Option<Answer>,
}

/// What the app answers to the first request of a shape, and whether it ends the connection then.
#[derive(Clone, Copy)]
pub(super) struct Answer {
    pub(super) bytes: &'static str,
    pub(super) ends: bool,
}

pub(super) struct Recorder {
    pub(super) port: u16,
    book: Arc<Mutex<Book>>,
    _app: App,
}

impl Recorder {
    pub(super) async fn new() -> Self {
        let book = Arc::new(Mutex::new(Book::default()));
        let app = {
            let book = book.clone();
            App::new(move |stream| {
                let book = book.clone();
                async move {
                    let _ = serve(stream, &book).await;
                }
            })
            .await
        };
        Self { port: app.port, book, _app: app }
    }

    /// Begins anew, with what the first request is to be answered.
    pub(super) fn next(&self, answer: Option<Answer>) {
        *self.book.lock().unwrap() = Book { read: Vec::new(), answer };
    }

    pub(super) fn read(&self) -> Vec<String> {
        std::mem::take(&mut self.book.lock().unwrap().read)
    }
}

async fn serve(mut stream: TcpStream, book: &Mutex<Book>) -> Option<()> {
    while let Some(head) = head(&mut stream).await {
        let body = body(&mut stream, &head).await;
        let (line, _) = head.split_once("\r\n")?;
        let what = line.strip_suffix(" HTTP/1.1").unwrap_or(line).to_owned();
        let answer = {
            let mut book = book.lock().unwrap();
            book.read.push(format!("{what}{}", body?));
            book.answer.take()
        };
        match answer {
            None => stream.write_all(ok("").as_bytes()).await.ok()?,
            Some(Answer { bytes, ends }) => {
                stream.write_all(bytes.as_bytes()).await.ok()?;
                if ends {
                    return None;
                }
            }
        }
    }
    None
}

/// As it is written down: nothing where there is none. None where the connection ends in its midst.
async fn body(stream: &mut TcpStream, head: &str) -> Option<String> {
    let values = |name: &'static str| {
        let lines = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        lines.filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let (lengths, codings) = (values("content-length").count(), values("transfer-encoding").count());
    if lengths + codings > 1 {
        return Some(format!(" {lengths} LENGTHS AND {codings} CODINGS"));
    }
    if codings == 1 {
        let mut whole = Vec::new();
        loop {
            let line = line(stream).await?;
            let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
            let mut piece = vec![0; size];
            stream.read_exact(&mut piece).await.ok()?;
            whole.extend(piece);
            if size == 0 {
                break;
            }
            line_end(stream).await?;
        }
        let mut trailers = String::new();
        loop {
            let line = line(stream).await?;
            if line.is_empty() {
                return Some(format!(" '{}'{trailers}", String::from_utf8_lossy(&whole)));
            }
            trailers += &format!(" [{line}]");
        }
    }
    let Some(length) = values("content-length").next() else { return Some(String::new()) };
    let mut whole = vec![0; length.parse().ok()?];
    stream.read_exact(&mut whole).await.ok()?;
    Some(if whole.is_empty() { String::new() } else { format!(" '{}'", String::from_utf8_lossy(&whole)) })
}

async fn line(stream: &mut TcpStream) -> Option<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(stream.read_u8().await.ok()?);
    }
    line.truncate(line.len() - 2);
    Some(String::from_utf8_lossy(&line).into_owned())
}

async fn line_end(stream: &mut TcpStream) -> Option<()> {
    line(stream).await?.is_empty().then_some(())
}
