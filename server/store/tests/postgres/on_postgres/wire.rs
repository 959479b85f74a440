//! A way to the server that loses one answer: the request arrives, and the connection breaks before the reply.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Forwards connections to a server; see [`Wire::lose_answer_to`].
pub(crate) struct Wire {
    port: u16,
    trap: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Wire {
    pub(crate) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let wire = Self { port: listener.local_addr().unwrap().port(), trap: Arc::default() };
        let trap = wire.trap.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server =
                    TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, server))).await.unwrap();
                tokio::spawn(forward(client, server, trap.clone()));
            }
        });
        wire
    }

    /// The same database by way of this wire.
    pub(crate) fn url(&self, url: &str, server: u16) -> String {
        url.replace(&format!(":{server}/"), &format!(":{}/", self.port))
    }

    /// The next request with these bytes in it arrives; its answer does not, and its connection breaks.
    pub(crate) fn lose_answer_to(&self, bytes: &[u8]) {
        *self.trap.lock().unwrap() = Some(bytes.to_vec());
    }

    pub(crate) fn has_lost(&self) -> bool {
        self.trap.lock().unwrap().is_none()
    }
}

async fn forward(mut client: TcpStream, mut server: TcpStream, trap: Arc<Mutex<Option<Vec<u8>>>>) {
    let (mut request, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut request) => {
                let Ok(length @ 1..) = read else { return };
                if server.write_all(&request[..length]).await.is_err() {
                    return;
                }
                let caught = {
                    let mut trap = trap.lock().unwrap();
                    trap.take_if(|bytes| request[..length].windows(bytes.len()).any(|at| at == bytes)).is_some()
                };
                if caught {
                    // It has been done once the answer is here.
                    server.readable().await.ok();
                    return;
                }
            }
            read = server.read(&mut answer) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&answer[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}
