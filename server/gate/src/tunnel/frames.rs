//! Where WebSocket frames end in a stream (RFC 6455 §5.2), so that one of our own can be put between two of them. Nothing but lengths is looked at.

/// The longest head: two bytes, eight of length, four of mask.
const HEAD: usize = 14;

/// Follows one direction of a WebSocket.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; HEAD],
    /// How much of the head is here.
    have: usize,
    /// What is still to come of the payload.
    left: u64,
    closed: bool,
}

impl Frames {
    /// Follows bytes that were passed on.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let used = self.take(bytes);
            bytes = &bytes[used..];
        }
    }

    /// How many of these bytes belong to the frame that has begun.
    pub(super) fn up_to_the_next(&mut self, bytes: &[u8]) -> usize {
        let mut used = 0;
        while used < bytes.len() && !self.between() {
            used += self.take(&bytes[used..]);
        }
        used
    }

    /// No frame has begun: another may stand here.
    pub(super) fn between(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// There was a close frame: nothing may follow.
    pub(super) fn closed(&self) -> bool {
        self.closed
    }

    fn take(&mut self, bytes: &[u8]) -> usize {
        if self.left > 0 {
            let used = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            self.left -= used as u64;
            return used;
        }
        self.head[self.have] = bytes[0];
        self.have += 1;
        if let Some(payload) = payload(&self.head[..self.have]) {
            self.closed |= self.head[0] & 0x0f == 8;
            self.left = payload;
            self.have = 0;
        }
        1
    }
}

/// The payload's length, once the head is whole.
fn payload(head: &[u8]) -> Option<u64> {
    let [_, second, rest @ ..] = head else { return None };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let (long, length) = match second & 0x7f {
        126 => (2, rest.first_chunk::<2>().map(|bytes| u64::from(u16::from_be_bytes(*bytes)))),
        127 => (8, rest.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))),
        short => (0, Some(u64::from(short))),
    };
    length.filter(|_| rest.len() >= long + mask)
}

/// A server's close frame with 1012 (service restart).
pub(super) fn service_restart() -> Vec<u8> {
    let reason = b"service restart";
    let code = graceful_drain::SERVICE_RESTART.to_be_bytes();
    // Under 126 bytes, so that the length is one byte.
    [&[0x88, (code.len() + reason.len()) as u8], &code[..], &reason[..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of each form of length, with and without a mask.
    fn stream() -> (Vec<u8>, Vec<usize>) {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for (length, mask) in
            [(0_u64, false), (5, false), (125, true), (126, false), (70_000, false), (3, true)]
        {
            bytes.push(0x82);
            let masked = if mask { 0x80 } else { 0 };
            match length {
                0..126 => bytes.push(masked | length as u8),
                126..65_536 => {
                    bytes.push(masked | 126);
                    bytes.extend((length as u16).to_be_bytes());
                }
                _ => {
                    bytes.push(masked | 127);
                    bytes.extend(length.to_be_bytes());
                }
            }
            bytes.extend([0x88; 4].iter().take(if mask { 4 } else { 0 }));
            bytes.extend(std::iter::repeat_n(0x88, length as usize));
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn it_knows_where_frames_end_however_they_are_cut() {
        let (bytes, ends) = stream();
        for cut in [1, 2, 3, 7, 1000, bytes.len()] {
            let mut frames = Frames::default();
            let mut found = Vec::new();
            let mut at = 0;
            for piece in bytes.chunks(cut) {
                let mut piece = piece;
                while !piece.is_empty() {
                    // At least one byte, so that a frame begins.
                    frames.pass(&piece[..1]);
                    let used = 1 + frames.up_to_the_next(&piece[1..]);
                    at += used;
                    piece = &piece[used..];
                    if frames.between() {
                        found.push(at);
                    }
                }
            }
            assert_eq!(found, ends, "cut into pieces of {cut}");
            assert!(!frames.closed(), "payloads are not looked at");
        }
    }

    #[test]
    fn it_sees_a_close() {
        let mut frames = Frames::default();
        frames.pass(&service_restart());
        assert!(frames.closed() && frames.between());
    }
}
