//! A server of lines over TCP, which sends each one back. The first is answered with who serves, and with the client's address as the server knows it: the PROXY
//! protocol's, where that comes first.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use uuid::Uuid;

use super::{Begun, PACE, STEPS, Server};

/// Serves until the process ends.
///
/// # Errors
/// When the port is taken.
pub async fn serve(listen: SocketAddr) -> anyhow::Result<()> {
    let (listener, server) = (TcpListener::bind(listen).await?, Server::here());
    loop {
        let (stream, peer) = listener.accept().await?;
        let server = server.clone();
        tokio::spawn(async move {
            // A client that leaves is its own business.
            let _ = echo(BufReader::new(stream), peer, server).await;
        });
    }
}

async fn echo(mut stream: BufReader<TcpStream>, peer: SocketAddr, server: Server) -> std::io::Result<()> {
    let (mut line, mut client) = (String::new(), peer.ip().to_string());
    stream.read_line(&mut line).await?;
    if let Some(address) = line.strip_prefix("PROXY TCP4 ").and_then(|rest| rest.split(' ').next()) {
        client = address.to_owned();
        line.clear();
        stream.read_line(&mut line).await?;
    }
    let Server { pod_uid, boot_id } = server;
    let mut answer = format!("{pod_uid} {boot_id} {client}\n");
    while !line.is_empty() {
        stream.write_all(answer.as_bytes()).await?;
        line.clear();
        stream.read_line(&mut line).await?;
        answer.clone_from(&line);
    }
    Ok(())
}

/// A connection that has begun.
#[derive(Debug)]
pub struct Stream(BufReader<TcpStream>);

/// Connects, and says the first line. `target` is an address, as `http://NAME` too; the server has to know this client's own.
///
/// # Errors
/// With what the client would see.
pub async fn begin(target: &str) -> Result<(Begun, Stream), String> {
    let address = target.trim_start_matches("http://");
    let address = if address.contains(':') { address.to_owned() } else { format!("{address}:80") };
    let stream = TcpStream::connect(address).await.map_err(|error| format!("connect: {}", error.kind()))?;
    let own = stream.local_addr().map_err(told)?.ip().to_string();
    let mut stream = Stream(BufReader::new(stream));
    let answer = stream.say("hello\n").await?;
    let words: Vec<_> = answer.split_whitespace().collect();
    let [pod_uid, boot_id, client] = words[..] else { return Err(format!("echo: {answer:?}")) };
    if client != own {
        return Err(format!("echo: the server takes its client for {client}"));
    }
    let begun = Begun {
        task_id: Uuid::new_v4().to_string(),
        pod_uid: pod_uid.to_owned(),
        boot_id: boot_id.to_owned(),
    };
    Ok((begun, stream))
}

impl Stream {
    async fn say(&mut self, line: &str) -> Result<String, String> {
        self.0.write_all(line.as_bytes()).await.map_err(told)?;
        let mut answer = String::new();
        self.0.read_line(&mut answer).await.map_err(told)?;
        if answer.is_empty() { Err("echo: closed".to_owned()) } else { Ok(answer) }
    }

    /// To its end: each line comes back, and the connection is closed in order.
    ///
    /// # Errors
    /// With what the client would see.
    pub async fn finish(mut self) -> Result<(), String> {
        for n in 1..=STEPS {
            sleep(PACE).await;
            let line = format!("{n}\n");
            let answer = self.say(&line).await?;
            if answer != line {
                return Err(format!("echo: {answer:?} for {line:?}"));
            }
        }
        self.0.shutdown().await.map_err(told)?;
        let mut rest = String::new();
        match self.0.read_line(&mut rest).await.map_err(told)? {
            0 => Ok(()),
            _ => Err(format!("echo: {rest:?} after the end")),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn told(error: std::io::Error) -> String {
    format!("echo: {}", error.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_come_back_and_the_client_is_known() {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        tokio::spawn(serve(address));
        let (begun, stream) = loop {
            match begin(&format!("http://{address}")).await {
                Ok(begun) => break begun,
                Err(error) => {
                    assert!(error.contains("onnect"), "{error}");
                    sleep(PACE).await;
                }
            }
        };
        assert!(!begun.boot_id.is_empty());
        stream.finish().await.unwrap();
        let mut known = Stream(BufReader::new(TcpStream::connect(address).await.unwrap()));
        let told = known.say("PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\nhello\n").await.unwrap();
        assert!(told.ends_with(" 192.0.2.7\n"), "{told}");
    }
}
