//! Byte mutations: flips, interesting numbers, cuts, copies, splices.

/// Draws mutated inputs from a seed.
#[derive(Debug)]
pub struct Mutator(u64);

/// Lengths, signs and counters that decoders stumble over.
const NUMBERS: [u64; 12] = [0, 1, 7, 8, 127, 128, 255, 65_535, 1 << 31, (1 << 32) - 1, (1 << 63) - 1, u64::MAX];

impl Mutator {
    pub fn new(seed: u64) -> Mutator {
        Mutator(seed)
    }

    fn draw(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let z = z ^ (z >> 31);
        if end == 0 { 0 } else { usize::try_from(z % end as u64).unwrap_or(0) }
    }

    /// A corpus entry with one to eight mutations, rarely pure noise.
    pub fn next(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        if self.draw(50) == 0 {
            let len = self.draw(300);
            return (0..len).map(|_| self.byte()).collect();
        }
        let mut input = corpus[self.draw(corpus.len())].clone();
        for _ in 0..=self.draw(8) {
            self.mutate(&mut input, corpus);
        }
        input
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.draw(256)).unwrap_or(0)
    }

    fn mutate(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        if input.is_empty() {
            input.push(self.byte());
        }
        let at = self.draw(input.len());
        match self.draw(8) {
            0 => input[at] ^= 1 << self.draw(8),
            1 => input[at] = self.byte(),
            2 => self.number(input, at),
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
                let fill = if self.draw(2) == 0 { 0 } else { 0xff };
                input[at..at + len].fill(fill);
            }
        }
    }

    fn number(&mut self, input: &mut [u8], at: usize) {
        let width = [1, 2, 4, 8][self.draw(4)];
        let number = NUMBERS[self.draw(NUMBERS.len())].to_le_bytes();
        let width = width.min(input.len() - at);
        input[at..at + width].copy_from_slice(&number[..width]);
    }
}
