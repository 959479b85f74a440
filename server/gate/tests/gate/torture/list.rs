//! The shapes. What one comes to is written as `answers; what the app read`: statuses with the body of a success, then `closed` or `waits` where the connection
//! did not stay open; the app's requests with their bodies, and trailers in brackets.

use std::borrow::Cow;

use super::app::Answer;

/// One thing that a client, or an app, may write.
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) bytes: Cow<'static, [u8]>,
    /// What it comes to through the gate.
    pub(super) gate: &'static str,
    /// And through nginx, where that is something else.
    pub(super) nginx: Option<&'static str>,
    /// What the app answers to the first request; None: 200.
    pub(super) answer: Option<Answer>,
    /// How many requests it is, read as it should be.
    requests: usize,
}

impl Shape {
    /// How many answers there can be, with that to what follows.
    pub(super) fn answers(&self) -> usize {
        self.requests + 1
    }

    fn nginx(self, nginx: &'static str) -> Self {
        Self { nginx: Some(nginx), ..self }
    }

    fn answered(self, bytes: &'static str) -> Self {
        Self { answer: Some(Answer { bytes, ends: false }), ..self }
    }

    /// The app ends its connection behind it.
    fn ends(self) -> Self {
        Self { answer: self.answer.map(|answer| Answer { ends: true, ..answer }), ..self }
    }

    fn requests(self, requests: usize) -> Self {
        Self { requests, ..self }
    }
}

fn bytes(name: &'static str, bytes: impl Into<Cow<'static, [u8]>>, gate: &'static str) -> Shape {
    let bytes = bytes.into();
    Shape { name, bytes, gate, nginx: None, answer: None, requests: 1 }
}

/// A request whose head has these lines beside its host, and what comes after the head.
fn post(name: &'static str, lines: &str, body: &str, gate: &'static str) -> Shape {
    bytes(name, format!("POST /a HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n{body}").into_bytes(), gate)
}

fn get(name: &'static str, lines: &str, gate: &'static str) -> Shape {
    bytes(name, format!("GET /a HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n").into_bytes(), gate)
}

fn line(name: &'static str, line: &str, gate: &'static str) -> Shape {
    bytes(name, format!("{line}\r\nHost: x\r\n\r\n").into_bytes(), gate)
}

const CHUNKED: &str = "Transfer-Encoding: chunked";
const HI: &str = "2\r\nhi\r\n0\r\n\r\n";

pub(super) fn all() -> Vec<Shape> {
    [lengths(), codings(), chunks(), heads(), lines(), exchanges(), answers()].into_iter().flatten().collect()
}

/// Who says how long a body is.
fn lengths() -> Vec<Shape> {
    vec![
        post("a length", "Content-Length: 2", "hi", "200 200; POST /a 'hi', GET /after"),
        post(
            "a length beside chunks",
            "Content-Length: 3\r\nTransfer-Encoding: chunked",
            HI,
            "200 closed; POST /a 'hi'",
        )
        .nginx("400 closed"),
        post(
            "chunks beside a length",
            "Transfer-Encoding: chunked\r\nContent-Length: 3",
            HI,
            "200 closed; POST /a 'hi'",
        )
        .nginx("400 closed"),
        post("two lengths that differ", "Content-Length: 2\r\nContent-Length: 3", "hi!", "400 closed"),
        post(
            "two lengths that are the same",
            "Content-Length: 2\r\nContent-Length: 2",
            "hi",
            "200 200; POST /a 'hi', GET /after",
        )
        .nginx("400 closed"),
        post("two lengths in one line", "Content-Length: 2, 2", "hi", "400 closed"),
        post("a length with a sign", "Content-Length: +2", "hi", "400 closed"),
        post("a length below zero", "Content-Length: -2", "hi", "400 closed"),
        post("a length in hexadecimal", "Content-Length: 0x2", "hi", "400 closed"),
        post("a length that is no number", "Content-Length: two", "hi", "400 closed"),
        post("a length that is empty", "Content-Length:", "", "400 closed"),
        post("a length beyond 64 bits", "Content-Length: 18446744073709551618", "hi", "400 closed"),
        post("a length with spaces around", "Content-Length:  2 ", "hi", "200 200; POST /a 'hi', GET /after"),
        bytes(
            "a GET with a body",
            b"GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi".as_slice(),
            "200 200; GET /a 'hi', GET /after",
        ),
        post(
            "a length in trailers that were announced",
            "TE: trailers\r\nTrailer: Content-Length, X-Sum\r\nTransfer-Encoding: chunked",
            "2\r\nhi\r\n0\r\nContent-Length: 9\r\nX-Sum: 1\r\n\r\n",
            "200 200; POST /a 'hi' [x-sum: 1], GET /after",
        )
        .nginx("200 200; POST /a 'hi', GET /after"),
        post("no length at all", "X: y", "", "200 200; POST /a, GET /after"),
    ]
}

/// Transfer codings other than plain chunks.
fn codings() -> Vec<Shape> {
    vec![
        post("another coding before chunks", "Transfer-Encoding: gzip, chunked", HI, "501 closed"),
        post("another coding after chunks", "Transfer-Encoding: chunked, gzip", HI, "400 closed")
            .nginx("501 closed"),
        post("chunked twice in one line", "Transfer-Encoding: chunked, chunked", HI, "501 closed"),
        post(
            "chunked twice in two lines",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            HI,
            "501 closed",
        )
        .nginx("400 closed"),
        post("identity", "Transfer-Encoding: identity", "", "400 closed").nginx("501 closed"),
        post("chunked in capitals", "Transfer-Encoding: CHUNKED", HI, "200 200; POST /a 'hi', GET /after"),
        post("a coding that only ends so", "Transfer-Encoding: xchunked", HI, "400 closed")
            .nginx("501 closed"),
        post("a coding in quotes", "Transfer-Encoding: \"chunked\"", HI, "400 closed").nginx("501 closed"),
        post("a parameter of chunked", "Transfer-Encoding: chunked;q=1", HI, "400 closed")
            .nginx("501 closed"),
        post("a vertical tab before chunked", "Transfer-Encoding: \x0bchunked", HI, "400 closed")
            .nginx("501 closed"),
        post("a space before the colon", "Transfer-Encoding : chunked", HI, "400 closed"),
        post("a coding in a folded line", "Transfer-Encoding:\r\n chunked", HI, "400 closed"),
        post("a name with an underscore", "Transfer_Encoding: chunked", "", "200 200; POST /a, GET /after"),
        bytes(
            "chunks in HTTP/1.0",
            format!("POST /a HTTP/1.0\r\nHost: x\r\n{CHUNKED}\r\n\r\n{HI}").into_bytes(),
            "400 closed",
        ),
    ]
}

/// Chunks, and what may be in them.
fn chunks() -> Vec<Shape> {
    let chunks = |name, body: &str, gate| post(name, CHUNKED, body, gate);
    vec![
        chunks("chunks", HI, "200 200; POST /a 'hi', GET /after"),
        chunks("an extension", "2;a=b\r\nhi\r\n0\r\n\r\n", "200 200; POST /a 'hi', GET /after"),
        chunks("a quoted extension", "2;a=\"b;c\"\r\nhi\r\n0\r\n\r\n", "200 200; POST /a 'hi', GET /after"),
        chunks("a line feed in an extension", "2;a\nb\r\nhi\r\n0\r\n\r\n", "400 closed"),
        chunks("trailers", "2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n", "200 200; POST /a 'hi', GET /after"),
        chunks(
            "a length in the trailers",
            "2\r\nhi\r\n0\r\nContent-Length: 9\r\n\r\n",
            "200 200; POST /a 'hi', GET /after",
        ),
        chunks("zeros before a size", "0002\r\nhi\r\n0\r\n\r\n", "200 200; POST /a 'hi', GET /after"),
        chunks("a size with a prefix", "0x2\r\nhi\r\n0\r\n\r\n", "400 closed"),
        chunks("a size with a sign", "+2\r\nhi\r\n0\r\n\r\n", "400 closed"),
        chunks("a size beyond 64 bits", "10000000000000002\r\nhi\r\n0\r\n\r\n", "400 closed"),
        chunks("a size that is empty", "\r\nhi\r\n0\r\n\r\n", "400 closed"),
        chunks("a line feed alone after a size", "2\nhi\r\n0\r\n\r\n", "400 closed")
            .nginx("200 200; POST /a 'hi', GET /after"),
        chunks("nothing between two chunks", "2\r\nhi0\r\n\r\n", "400 closed"),
        chunks("a space after a size", "2 \r\nhi\r\n0\r\n\r\n", "200 200; POST /a 'hi', GET /after"),
    ]
}

/// Headers.
fn heads() -> Vec<Shape> {
    vec![
        get("a folded header", "A: b\r\n c", "400 closed"),
        bytes("line feeds alone", b"GET /a HTTP/1.1\nHost: x\n\n".as_slice(), "200 200; GET /a, GET /after"),
        bytes(
            "a carriage return alone",
            b"GET /a HTTP/1.1\r\nHost: x\r\nA: b\rC: d\r\n\r\n".as_slice(),
            "400 closed",
        ),
        bytes(
            "a zero byte in a value",
            b"GET /a HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n".as_slice(),
            "400 closed",
        ),
        bytes(
            "a zero byte in a name",
            b"GET /a HTTP/1.1\r\nHost: x\r\nA\0: b\r\n\r\n".as_slice(),
            "400 closed",
        ),
        get("a name of nothing", ": b", "400 closed"),
        get("a name with a space", "A B: c", "400 closed"),
        get("a line without a colon", "nothing", "400 closed").nginx("200 200; GET /a, GET /after"),
        get("bytes beyond ASCII in a value", "A: \u{e9}", "200 200; GET /a, GET /after"),
        bytes("no host", b"GET /a HTTP/1.1\r\n\r\n".as_slice(), "400 closed"),
        get("two hosts", "Host: y", "400 closed"),
        bytes("a host that is none", b"GET /a HTTP/1.1\r\nHost: a b/c\r\n\r\n".as_slice(), "400 closed"),
        bytes("no host in HTTP/1.0", b"GET /a HTTP/1.0\r\n\r\n".as_slice(), "200 closed; GET /a"),
    ]
}

/// Request lines.
fn lines() -> Vec<Shape> {
    vec![
        line("the absolute form", "GET http://y/a?b=c HTTP/1.1", "200 200; GET /a?b=c, GET /after"),
        line("the absolute form without a path", "GET http://y HTTP/1.1", "200 200; GET /, GET /after"),
        line("the asterisk", "OPTIONS * HTTP/1.1", "200 200; OPTIONS *, GET /after").nginx("400 closed"),
        line("CONNECT", "CONNECT y:80 HTTP/1.1", "405 200; GET /after").nginx("400 closed"),
        line("a path without a slash", "GET a HTTP/1.1", "400 closed"),
        line("dots in a path", "GET /b/../a HTTP/1.1", "200 200; GET /b/../a, GET /after"),
        line("a fragment", "GET /a#b HTTP/1.1", "200 200; GET /a, GET /after")
            .nginx("200 200; GET /a#b, GET /after"),
        line("bytes beyond ASCII in a path", "GET /\u{e9} HTTP/1.1", "200 200; GET /\u{e9}, GET /after"),
        line("a space in a path", "GET /a b HTTP/1.1", "400 closed"),
        line("two spaces", "GET  /a HTTP/1.1", "400 closed").nginx("200 200; GET /a, GET /after"),
        line("a tab", "GET\t/a HTTP/1.1", "400 closed"),
        line("a method in small letters", "get /a HTTP/1.1", "200 200; get /a, GET /after")
            .nginx("400 closed"),
        line("a method that nobody knows", "PURGE /a HTTP/1.1", "200 200; PURGE /a, GET /after"),
        line("a method that is none", "G(T /a HTTP/1.1", "400 closed"),
        line("HTTP/1.2", "GET /a HTTP/1.2", "400 closed").nginx("200 200; GET /a, GET /after"),
        line("HTTP/2.0", "GET /a HTTP/2.0", "400 closed").nginx("505 closed"),
        bytes("HTTP/0.9", b"GET /a\r\n".as_slice(), "400 closed").nginx("closed; GET /a"),
        bytes(
            "an empty line before it",
            b"\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n".as_slice(),
            "200 200; GET /a, GET /after",
        ),
    ]
}

/// More than a request and its answer.
fn exchanges() -> Vec<Shape> {
    let three = "GET /a HTTP/1.1\r\nHost: x\r\n\r\nPOST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhiGET /c HTTP/1.1\r\nHost: x\r\n\r\n";
    let bad = "GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost : x\r\n\r\n";
    vec![
        bytes(
            "three in a row",
            three.as_bytes(),
            "200 200 200 200; GET /a, POST /b 'hi', GET /c, GET /after",
        )
        .requests(3),
        bytes("a bad one behind a good one", bad.as_bytes(), "200 400 closed; GET /a").requests(2),
        get("the last of its connection", "Connection: close", "200 closed; GET /a"),
        get("a length named as a hop", "Connection: content-length, host", "200 200; GET /a, GET /after"),
        post(
            "100-continue",
            "Content-Length: 2\r\nExpect: 100-continue",
            "hi",
            "100 200 200; POST /a 'hi', GET /after",
        ),
        post(
            "another expectation",
            "Content-Length: 2\r\nExpect: 200-ok",
            "hi",
            "200 200; POST /a 'hi', GET /after",
        ),
        get(
            "an upgrade that the app refuses",
            "Connection: Upgrade\r\nUpgrade: websocket",
            "200 200; GET /a, GET /after",
        ),
        get(
            "an upgrade to h2c",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
            "200 200; GET /a, GET /after",
        ),
    ]
}

/// What an app may answer.
fn answers() -> Vec<Shape> {
    let answer = |name, answer, gate| get(name, "A: b", gate).answered(answer);
    vec![
        answer(
            "an answer",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            "200 'hi' 200; GET /a, GET /after",
        ),
        answer("an answer to its end", "HTTP/1.1 200 OK\r\n\r\nhi", "200 'hi' 200; GET /a, GET /after")
            .ends(),
        answer("an answer of HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\nhi", "200 'hi' 200; GET /a, GET /after")
            .ends(),
        answer(
            "an answer in chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            "200 'hi' 200; GET /a, GET /after",
        ),
        answer(
            "a length beside chunks in an answer",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            "200 'hi' 200; GET /a, GET /after",
        ),
        answer(
            "two lengths in an answer",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!",
            "502 200; GET /a, GET /after",
        )
        .nginx("200 'hi!' 200; GET /a, GET /after"),
        answer(
            "bytes behind an answer",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            "200 'hi' 200; GET /a, GET /after",
        ),
        answer(
            "an answer that is cut",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi",
            "200 cut closed; GET /a",
        )
        .ends(),
        answer(
            "chunks that are cut",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
            "200 cut closed; GET /a",
        )
        .ends(),
        answer(
            "a body behind 204",
            "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nhi",
            "204 200; GET /a, GET /after",
        ),
        answer(
            "a length of 304",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n",
            "304 200; GET /a, GET /after",
        ),
        answer(
            "no reason",
            "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi",
            "200 'hi' 200; GET /a, GET /after",
        ),
        answer(
            "line feeds alone in an answer",
            "HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
            "200 'hi' 200; GET /a, GET /after",
        ),
        answer(
            "a folded header in an answer",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 2\r\n\r\nhi",
            "502 200; GET /a, GET /after",
        ),
        answer(
            "a status that is none",
            "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nhi",
            "502 200; GET /a, GET /after",
        )
        .nginx("20 'hi' waits; GET /a"),
        answer(
            "early hints",
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            "200 'hi' 200; GET /a, GET /after",
        )
        .nginx("103 200 'hi' waits; GET /a"),
        answer(
            "an upgrade that nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
            "502 200; GET /a, GET /after",
        )
        .nginx("101 waits; GET /a"),
        answer("no HTTP at all", "+OK hello\r\n", "502 200; GET /a, GET /after")
            .nginx("hello waits; GET /a, GET /after")
            .ends(),
        answer("nothing", "", "502 200; GET /a, GET /after").ends(),
        bytes(
            "an answer to HEAD",
            b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n".as_slice(),
            "200 200; HEAD /a, GET /after",
        )
        .answered("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"),
        bytes(
            "a body behind an answer to HEAD",
            b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n".as_slice(),
            "200 200; HEAD /a, GET /after",
        )
        .answered("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
    ]
}
