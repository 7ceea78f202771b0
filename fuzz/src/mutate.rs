//! Mutations: of bytes (flips, interesting numbers, cuts, copies, splices), of texts (words that mean something, in odd
//! places), of protobuf messages ([`crate::proto`]).

use crate::proto;

/// Draws mutated inputs from a seed.
#[derive(Debug)]
pub struct Mutator(u64);

/// What an input is made of, so that a mutation can keep most of it whole.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    Bytes,
    /// So many bytes of anything, then a protobuf message.
    Proto(usize),
    /// Text, and words that mean something in it.
    Text(&'static [&'static str]),
}

/// Lengths, signs and counters that decoders stumble over.
const NUMBERS: [u64; 14] =
    [0, 1, 2, 7, 8, 127, 128, 255, 65_535, 1 << 31, (1 << 32) - 1, (1 << 63) - 1, 1 << 63, u64::MAX];

/// An input does not grow beyond this: it would only slow the others down.
const INPUT_BYTES_MAX: usize = 256 << 10;

impl Mutator {
    pub fn new(seed: u64) -> Mutator {
        Mutator(seed)
    }

    /// A number below `end`; zero if there is none.
    pub(crate) fn draw(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let z = z ^ (z >> 31);
        if end == 0 { 0 } else { usize::try_from(z % end as u64).unwrap_or(0) }
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.draw(2) == 0
    }

    /// One that decoders stumble over, or near it.
    pub(crate) fn number(&mut self) -> u64 {
        let number = NUMBERS[self.draw(NUMBERS.len())];
        number.wrapping_add(self.draw(5) as u64).wrapping_sub(2)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.byte()).collect()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.draw(256)).unwrap_or(0)
    }

    /// A corpus entry, mutated; rarely pure noise.
    pub fn next(&mut self, corpus: &[Vec<u8>], shape: Shape) -> Vec<u8> {
        if self.draw(100) == 0 {
            let len = self.draw(300);
            return self.bytes(len);
        }
        let mut input = corpus[self.draw(corpus.len())].clone();
        match shape {
            Shape::Proto(head) if self.draw(4) != 0 => self.message(&mut input, head),
            Shape::Text(words) if self.draw(4) != 0 => self.text(&mut input, words),
            _ => {
                for _ in 0..=self.draw(8) {
                    self.mutate(&mut input, corpus);
                }
            }
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    fn message(&mut self, input: &mut Vec<u8>, head: usize) {
        let at = head.min(input.len());
        if let Some(message) = proto::mutated(&input[at..], self) {
            input.truncate(at);
            input.extend_from_slice(&message);
        }
        if at > 0 && self.draw(4) == 0 {
            let at = self.draw(at);
            input[at] = self.byte();
        }
    }

    fn text(&mut self, input: &mut Vec<u8>, words: &[&str]) {
        for _ in 0..=self.draw(5) {
            let at = self.draw(input.len() + 1);
            match self.draw(6) {
                0 => {
                    let number = self.number();
                    let text = if self.coin() { number.to_string() } else { number.cast_signed().to_string() };
                    input.splice(at..at, text.into_bytes());
                }
                1 => {
                    let end = (at + self.draw(12)).min(input.len());
                    input.drain(at..end);
                }
                2 if !input.is_empty() => {
                    let from = self.draw(input.len());
                    let len = self.draw(40).min(input.len() - from);
                    let piece = input[from..from + len].to_vec();
                    input.splice(at..at, piece);
                }
                3 => input.truncate(at),
                _ => {
                    let word = words.get(self.draw(words.len())).copied().unwrap_or("\u{e9}");
                    input.splice(at..at, word.bytes());
                }
            }
        }
    }

    /// One mutation of bytes that nobody knows anything about.
    pub(crate) fn scratch(&mut self, input: &mut Vec<u8>) {
        let own = [input.clone()];
        self.mutate(input, &own);
    }

    fn mutate(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        if input.is_empty() {
            input.push(self.byte());
        }
        let at = self.draw(input.len());
        match self.draw(8) {
            0 => input[at] ^= 1 << self.draw(8),
            1 => input[at] = self.byte(),
            2 => self.overwrite(input, at),
            3 => input.truncate(at),
            4 => {
                let len = self.draw(32).min(input.len() - at);
                input.drain(at..at + len);
            }
            5 => {
                let from = self.draw(input.len());
                let len = self.draw(64).min(input.len() - from);
                let piece = input[from..from + len].to_vec();
                input.splice(at..at, piece);
            }
            6 => {
                let other = &corpus[self.draw(corpus.len())];
                let from = self.draw(other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from.min(other.len())..]);
            }
            _ => {
                let len = self.draw(16).min(input.len() - at);
                let fill = if self.coin() { 0 } else { 0xff };
                input[at..at + len].fill(fill);
            }
        }
    }

    fn overwrite(&mut self, input: &mut [u8], at: usize) {
        let width = [1, 2, 4, 8][self.draw(4)].min(input.len() - at);
        let number = self.number();
        let bytes = if self.coin() { number.to_le_bytes() } else { number.to_be_bytes() };
        input[at..at + width].copy_from_slice(&bytes[..width]);
    }
}
