//! JSON values out of a stream of bytes, one after the other, whatever stands between them: a stream's requests come as
//! concatenated values, and of a unary body only the first counts (grpc-gateway's decoder works so).
//!
//! Only where a value ends is found out here; whether it is one is for its parser to say.

use super::source::Source;
use bytes::{Bytes, BytesMut};

/// Why there is no next value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// A value has more bytes than this many.
    TooLarge(usize),
}

/// The values of a body.
pub(crate) struct Values {
    source: Source,
    held: BytesMut,
    scanner: Scanner,
    /// Bytes that a value may have.
    limit: usize,
    ended: bool,
}

impl Values {
    pub fn new(source: Source, limit: usize) -> Values {
        Values { source, held: BytesMut::new(), scanner: Scanner::default(), limit, ended: false }
    }

    /// The next value, perhaps cut short by the end of the body; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Unread> {
        loop {
            if let Some(end) = self.scanner.scan(&self.held) {
                self.scanner = Scanner::default();
                return Ok(Some(self.held.split_to(end).freeze()));
            }
            if self.held.len() > self.limit {
                return Err(Unread::TooLarge(self.limit));
            }
            if self.ended {
                let rest = self.held.split().freeze();
                self.scanner = Scanner::default();
                return Ok(Some(rest).filter(|rest| !rest.iter().all(u8::is_ascii_whitespace)));
            }
            match self.source.next().await {
                Some(piece) => self.held.extend_from_slice(&piece),
                None => self.ended = true,
            }
        }
    }
}

/// Where in a value one is.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    /// Bytes looked at.
    at: usize,
    within: Within,
    /// Open brackets and braces.
    depth: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Within {
    /// Before the value.
    #[default]
    Nothing,
    /// A number or a word at the top.
    Word,
    /// Brackets, outside of texts.
    Brackets,
    Text,
    /// Behind a backslash.
    Escape,
}

impl Scanner {
    /// Goes on where it stopped; `bytes` are those of before and more. Answers the end of the value once it is there.
    pub fn scan(&mut self, bytes: &[u8]) -> Option<usize> {
        while let Some(byte) = bytes.get(self.at) {
            if self.within == Within::Word && !is_of_a_word(*byte) {
                return Some(self.at);
            }
            self.at += 1;
            if self.step(*byte) {
                return Some(self.at);
            }
        }
        None
    }

    /// Whether the value ends with this byte.
    fn step(&mut self, byte: u8) -> bool {
        self.within = match (self.within, byte) {
            (Within::Escape, _) => Within::Text,
            (Within::Text, b'\\') => Within::Escape,
            (Within::Text, b'"') if self.depth == 0 => return true,
            (Within::Text, b'"') => Within::Brackets,
            (Within::Text, _) => Within::Text,
            (_, b'"') => Within::Text,
            (_, b'{' | b'[') => {
                self.depth += 1;
                Within::Brackets
            }
            (_, b'}' | b']') => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    return true;
                }
                Within::Brackets
            }
            (Within::Nothing, byte) if byte.is_ascii_whitespace() => Within::Nothing,
            // What can begin no value is one by itself, for the parser to refuse.
            (Within::Nothing, byte) if !is_of_a_word(byte) => return true,
            (Within::Nothing | Within::Word, _) => Within::Word,
            (Within::Brackets, _) => Within::Brackets,
        };
        false
    }
}

fn is_of_a_word(byte: u8) -> bool {
    !byte.is_ascii_whitespace() && !b"{}[]\",:".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(body: &[u8], piece: usize, limit: usize) -> Result<Vec<String>, Unread> {
        let mut values = Values::new(Source::pieces(body.chunks(piece).map(Bytes::copy_from_slice)), limit);
        let mut all = Vec::new();
        while let Some(value) = values.next().await? {
            all.push(String::from_utf8_lossy(value.trim_ascii()).into_owned());
        }
        Ok(all)
    }

    #[tokio::test]
    async fn values_are_found_however_the_bytes_are_cut() {
        let body = br#" {"a":"}\"]{"} {} [1,{"b":[]}]"x\\" 12 null{"c":1}{"cut":"#;
        let expected =
            [r#"{"a":"}\"]{"}"#, "{}", r#"[1,{"b":[]}]"#, r#""x\\""#, "12", "null", r#"{"c":1}"#, r#"{"cut":"#];
        for piece in 1..=body.len() {
            assert_eq!(all(body, piece, 1000).await.unwrap(), expected, "pieces of {piece}");
        }
        assert_eq!(all(b" \r\n\t ", 1, 1000).await.unwrap(), [""; 0]);
        assert_eq!(all(b"},{", 3, 1000).await.unwrap(), ["}", ",", "{"]);
    }

    #[tokio::test]
    async fn a_value_is_not_gathered_without_end() {
        assert_eq!(all(&[b'['; 5000], 100, 1000).await, Err(Unread::TooLarge(1000)));
        assert_eq!(all(&[b' '; 5000], 100, 1000).await, Err(Unread::TooLarge(1000)));
    }
}
