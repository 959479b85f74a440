//! Asks the cluster's DNS a real question, through its service: the answer proves DNS, and kube-proxy on the way.

use std::net::UdpSocket;
use std::time::Duration;

use crate::layout::DNS_IP;

/// A name that every cluster has.
const NAME: &str = "kubernetes.default.svc.cluster.local";

/// Echoed in the answer.
const ID: [u8; 2] = *b"gr";

/// Whether a query is answered, with an address, within a second.
pub(crate) fn serves() -> bool {
    ask().is_ok_and(|answer| has_address(&answer))
}

/// A new socket each time: a new port, and so no old translation of the node's.
fn ask() -> std::io::Result<Vec<u8>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.connect((DNS_IP, 53))?;
    socket.send(&query(NAME))?;
    let mut answer = vec![0; 512];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

/// RFC 1035, section 4: a header that wishes for recursion and has one question, then the name, type A, class IN.
fn query(name: &str) -> Vec<u8> {
    let mut packet = ID.to_vec();
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        packet.push(label.len() as u8);
        packet.extend(label.as_bytes());
    }
    packet.extend([0, 0, 1, 0, 1]);
    packet
}

/// An answer to our question, without an error, with at least one record.
fn has_address(answer: &[u8]) -> bool {
    let Some(header) = answer.get(..12) else { return false };
    let (is_response, code, answers) = (header[2] & 0x80 != 0, header[3] & 0x0f, [header[6], header[7]]);
    header[..2] == ID && is_response && code == 0 && answers != [0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_a_header_and_its_labels() {
        let packet = query("a.bc");
        assert_eq!(packet[12..], [1, b'a', 2, b'b', b'c', 0, 0, 1, 0, 1]);
    }

    #[test]
    fn only_an_answer_with_a_record_counts() {
        let answer = |flags: u8, code: u8, answers: u8| {
            [&ID[..], &[flags, code, 0, 1, 0, answers, 0, 0, 0, 0]].concat()
        };
        assert!(has_address(&answer(0x85, 0x80, 1)));
        assert!(!has_address(&answer(0x85, 0x83, 1)), "no such name");
        assert!(!has_address(&answer(0x85, 0x80, 0)), "no record");
        assert!(!has_address(&answer(0x01, 0x00, 1)), "a query");
        assert!(!has_address(&query(NAME)) && !has_address(b"gr"));
    }
}
