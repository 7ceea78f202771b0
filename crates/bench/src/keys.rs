//! Keys, values and random numbers of the workloads.

use bytes::Bytes;

/// Longest varint of a 64-bit number.
const VARINT_MAX: usize = 10;

/// Builds keys as etcd's `benchmark` does: the number as a signed (zig-zag) varint at the start of a buffer of the key's
/// size, the rest zero. etcd reuses the buffer, so bytes of a former longer varint stay behind a shorter one; a fresh
/// encoder clears them, so that a key space of n has exactly n keys.
#[derive(Clone, Debug)]
pub struct KeyEncoder {
    buffer: Vec<u8>,
    reuse: bool,
}

impl KeyEncoder {
    /// An encoder that leaves old bytes in its buffer, as etcd's does.
    pub fn reusing(size: usize) -> KeyEncoder {
        KeyEncoder { buffer: vec![0; size.max(1)], reuse: true }
    }

    /// An encoder that clears its buffer before each key.
    pub fn fresh(size: usize) -> KeyEncoder {
        KeyEncoder { buffer: vec![0; size.max(1)], reuse: false }
    }

    /// The key of a number. `None` where the key's size does not hold its varint (Go's tool panics there).
    pub fn key(&mut self, number: i64) -> Option<&[u8]> {
        let (varint, len) = varint(number);
        if !self.reuse {
            self.buffer.fill(0);
        }
        self.buffer.get_mut(..len)?.copy_from_slice(&varint[..len]);
        Some(&self.buffer)
    }
}

/// Whether every number below `space` fits into keys of `size` bytes.
pub fn fits(size: usize, space: u64) -> bool {
    let last = i64::try_from(space.saturating_sub(1)).unwrap_or(i64::MAX);
    varint(last).1 <= size
}

fn varint(number: i64) -> ([u8; VARINT_MAX], usize) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    let mut bytes = [0; VARINT_MAX];
    let mut len = 0;
    while rest >= 0x80 {
        bytes[len] = rest as u8 | 0x80;
        rest >>= 7;
        len += 1;
    }
    bytes[len] = rest as u8;
    (bytes, len + 1)
}

/// splitmix64: a number a call, from a seed, the same in every run.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0xA076_1D64_78BD_642F) ^ 0x9E37_79B9_7F4A_7C15)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 where it is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// `len` random bytes.
    pub fn bytes(&mut self, len: usize) -> Bytes {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.draw().to_le_bytes());
        }
        bytes.truncate(len);
        bytes.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_zigzag_varints_in_a_zeroed_buffer() {
        let table: [(i64, &[u8]); 6] = [
            (0, &[0, 0, 0, 0]),
            (1, &[2, 0, 0, 0]),
            (-1, &[1, 0, 0, 0]),
            (63, &[126, 0, 0, 0]),
            (64, &[0x80, 1, 0, 0]),
            (99_999, &[0xbe, 0x9a, 0x0c, 0]),
        ];
        for (number, key) in table {
            assert_eq!(KeyEncoder::fresh(4).key(number), Some(key), "{number}");
        }
    }

    #[test]
    fn bytes_of_a_longer_varint_stay_in_a_reused_buffer() {
        let mut reused = KeyEncoder::reusing(4);
        reused.key(99_999);
        assert_eq!(reused.key(1), Some(&[2, 0x9a, 0x0c, 0][..]));
        let mut fresh = KeyEncoder::fresh(4);
        fresh.key(99_999);
        assert_eq!(fresh.key(1), Some(&[2, 0, 0, 0][..]));
    }

    #[test]
    fn a_key_too_short_for_its_number_is_refused() {
        assert_eq!(KeyEncoder::fresh(1).key(64), None);
        assert!(fits(1, 64) && !fits(1, 65) && fits(3, 1 << 20) && !fits(3, (1 << 20) + 1));
    }

    #[test]
    fn random_numbers_stay_below_their_bound_and_repeat_with_their_seed() {
        let (mut one, mut two) = (Random::new(7), Random::new(7));
        for bound in 1..1000 {
            let drawn = one.below(bound);
            assert!(drawn < bound);
            assert_eq!(drawn, two.below(bound));
        }
        assert_eq!(one.bytes(13).len(), 13);
        assert!((0.0..1.0).contains(&one.unit()));
    }
}
