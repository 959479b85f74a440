//! Protocol Tcp: what is in flight is connections. Each is admitted, taken to the app, and counted until both sides have ended.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use graceful_drain::Drain;
use tokio::net::TcpStream;
use tracing::{debug, warn};

use crate::app::connect;
use crate::config::{OpenSockets, ProxyProtocol, Run};
use crate::metrics::{Fault, Metrics};
use crate::tunnel::{self, End, Goodbye};

pub(crate) struct Gate {
    app: SocketAddr,
    open_sockets: OpenSockets,
    proxy_protocol: Option<ProxyProtocol>,
    drain: Drain,
    metrics: Arc<Metrics>,
}

impl Gate {
    pub(crate) fn new(flags: &Run, app: SocketAddr, drain: Drain, metrics: Arc<Metrics>) -> Arc<Self> {
        let (open_sockets, proxy_protocol) = (flags.open_sockets, flags.proxy_protocol);
        Arc::new(Self { app, open_sockets, proxy_protocol, drain, metrics })
    }
}

/// One client, from its accept to its end.
pub(crate) async fn client(gate: Arc<Gate>, stream: TcpStream, peer: SocketAddr) {
    // Admission is asked in either case: it is the latch that refuses.
    let Ok(admitted) = gate.drain.try_request() else {
        return tunnel::reset(stream).await;
    };
    let app = match connect(gate.app).await {
        Ok(app) => app,
        Err(error) => {
            gate.metrics.fault(Fault::NotThere);
            warn!(app = %gate.app, %error, "cannot connect to the app");
            return tunnel::reset(stream).await;
        }
    };
    let head = gate.proxy_protocol.map_or_else(Bytes::new, |version| {
        // The client's own words follow this; where its address is not known any more, it has gone.
        let to = stream.local_addr().map(canonical).unwrap_or(gate.app);
        head(version, peer, to)
    });
    // As a socket it is counted among the connections before it is counted out of the requests.
    let (held, told) = match gate.open_sockets {
        OpenSockets::Hold => (Some(admitted), None),
        OpenSockets::Farewell => {
            let connection = gate.drain.connection();
            drop(admitted);
            (None, Some(connection))
        }
    };
    let farewell = told.as_ref().map(|connection| (connection.farewell(), Goodbye::Plain));
    let client = End { stream, read: head };
    if let Err(error) = tunnel::run(client, End { stream: app, read: Bytes::new() }, farewell).await {
        debug!(%peer, %error, "connection ended");
    }
    drop((held, told));
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The PROXY protocol's header: who the client is, and where it came to.
fn head(version: ProxyProtocol, from: SocketAddr, to: SocketAddr) -> Bytes {
    match version {
        ProxyProtocol::V1 => {
            let family = if from.is_ipv4() && to.is_ipv4() { "TCP4" } else { "TCP6" };
            let (source, target) = match family {
                "TCP4" => (from.ip().to_string(), to.ip().to_string()),
                _ => (sixth(from.ip()).to_string(), sixth(to.ip()).to_string()),
            };
            format!("PROXY {family} {source} {target} {} {}\r\n", from.port(), to.port()).into()
        }
        ProxyProtocol::V2 => {
            let mut head = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
            match (from.ip(), to.ip()) {
                (IpAddr::V4(source), IpAddr::V4(target)) => {
                    head.extend([0x11, 0, 12]);
                    head.extend(source.octets());
                    head.extend(target.octets());
                }
                (source, target) => {
                    head.extend([0x21, 0, 36]);
                    head.extend(sixth(source).octets());
                    head.extend(sixth(target).octets());
                }
            }
            head.extend(from.port().to_be_bytes());
            head.extend(to.port().to_be_bytes());
            head.into()
        }
    }
}

fn sixth(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::to_ipv6_mapped(&address),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_who_the_client_is() {
        let from = "192.0.2.7:40000".parse().unwrap();
        let to = "10.0.0.3:8080".parse().unwrap();
        assert_eq!(head(ProxyProtocol::V1, from, to), "PROXY TCP4 192.0.2.7 10.0.0.3 40000 8080\r\n");
        let binary = head(ProxyProtocol::V2, from, to);
        assert_eq!(binary[..16], *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
        assert_eq!(binary[16..], [192, 0, 2, 7, 10, 0, 0, 3, 0x9c, 0x40, 0x1f, 0x90]);
        let sixth = "[2001:db8::7]:40000".parse().unwrap();
        assert_eq!(
            head(ProxyProtocol::V1, sixth, to),
            "PROXY TCP6 2001:db8::7 ::ffff:10.0.0.3 40000 8080\r\n",
            "one family for both"
        );
        assert_eq!(head(ProxyProtocol::V2, sixth, to).len(), 16 + 36);
    }
}
