//! HTTP/2 frame headers in a byte stream, however the stream is cut into pieces. Payloads are skipped, not looked at.
//!
//! ```text
//! | length 3 | type 1 | flags 1 | stream 4, first bit reserved | payload … |      big endian, RFC 9113 section 4.1
//! ```

/// What a client's HTTP/2 connection begins with.
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEADER: usize = 9;

/// A frame's type, as far as anyone here asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Data,
    Headers,
    Reset,
    Ping,
    Other,
}

/// A frame without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub kind: Kind,
    /// END_STREAM of DATA and HEADERS, ACK of PING: the same bit.
    pub flagged: bool,
    pub stream: u32,
}

/// Where in a stream of frames one is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scanner {
    header: [u8; HEADER],
    /// Bytes of `header` that are there; never all of them between two calls.
    have: usize,
    /// Payload bytes to come.
    payload: usize,
}

impl Scanner {
    /// Goes on by `bytes`; `seen` is told each frame whose header ends in them.
    pub fn feed(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            let skipped = self.payload.min(bytes.len());
            self.payload -= skipped;
            bytes = &bytes[skipped..];
            let (head, rest) = bytes.split_at(bytes.len().min(HEADER - self.have));
            self.header[self.have..self.have + head.len()].copy_from_slice(head);
            self.have += head.len();
            bytes = rest;
            if self.have == HEADER {
                seen(self.parse());
            }
        }
    }

    /// Whether a frame could begin here.
    pub fn between_frames(&self) -> bool {
        self.have == 0 && self.payload == 0
    }

    fn parse(&mut self) -> Frame {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = self.header;
        self.have = 0;
        self.payload = usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2);
        let kind = match kind {
            0 => Kind::Data,
            1 => Kind::Headers,
            3 => Kind::Reset,
            6 => Kind::Ping,
            _ => Kind::Other,
        };
        Frame { kind, flagged: flags & 1 != 0, stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let mut bytes = Vec::new();
        for (kind, flags, stream, payload) in [(4, 0, 0, 12), (1, 5, 0x8000_0001_u32, 300), (0, 1, 3, 0), (6, 1, 0, 8)]
        {
            bytes.extend_from_slice(&u32::to_be_bytes(payload)[1..]);
            bytes.extend_from_slice(&[kind, flags]);
            bytes.extend_from_slice(&stream.to_be_bytes());
            bytes.resize(bytes.len() + payload as usize, 0xff);
        }
        let expected = [
            Frame { kind: Kind::Other, flagged: false, stream: 0 },
            Frame { kind: Kind::Headers, flagged: true, stream: 1 },
            Frame { kind: Kind::Data, flagged: true, stream: 3 },
            Frame { kind: Kind::Ping, flagged: true, stream: 0 },
        ];
        for piece in 1..bytes.len() {
            let (mut scanner, mut seen) = (Scanner::default(), Vec::new());
            for part in bytes.chunks(piece) {
                scanner.feed(part, |frame| seen.push(frame));
            }
            assert_eq!(seen, expected, "pieces of {piece}");
            assert!(scanner.between_frames());
            scanner.feed(&[0], |_| {});
            assert!(!scanner.between_frames());
        }
    }
}
