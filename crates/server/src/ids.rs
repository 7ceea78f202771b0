//! Request ids: unique in the cluster without asking anyone (etcd `pkg/idutil`).
//!
//! ```text
//! | 63..48 low 16 bits of the member id | 47..8 low 40 bits of the start time, ms | 7..0 counter |
//! ```
//! Each id adds one to the low 48 bits, so a restart, which takes a new time base, repeats none unless 2^8 ids a
//! millisecond were drawn for the whole life of the member.

/// Draws request and lease ids.
#[derive(Clone, Debug)]
pub struct IdGenerator {
    prefix: u64,
    suffix: u64,
}

const SUFFIX_BITS: u32 = 48;
const SUFFIX_MASK: u64 = (1 << SUFFIX_BITS) - 1;

impl IdGenerator {
    /// `now_ms`: wall clock at start, milliseconds since the epoch.
    pub fn new(member_id: u64, now_ms: u64) -> IdGenerator {
        let suffix = (now_ms & ((1 << 40) - 1)) << 8;
        IdGenerator { prefix: (member_id & 0xffff) << SUFFIX_BITS, suffix }
    }

    /// The next id.
    pub fn draw(&mut self) -> u64 {
        self.suffix = (self.suffix + 1) & SUFFIX_MASK;
        self.prefix | self.suffix
    }
}

#[cfg(test)]
mod tests {
    use super::IdGenerator;

    #[test]
    fn an_id_is_member_time_and_counter() {
        let mut ids = IdGenerator::new(0xabcd_1234, 0x12_3456_789a);
        assert_eq!(ids.draw(), 0x1234_1234_5678_9a01);
        assert_eq!(ids.draw(), 0x1234_1234_5678_9a02);
    }

    #[test]
    fn the_counter_wraps_inside_its_48_bits() {
        let mut ids = IdGenerator::new(1, (1 << 40) - 1);
        let first = (0..255).map(|_| ids.draw()).last().unwrap();
        assert_eq!(first, 0x0001_ffff_ffff_ffff);
        assert_eq!(ids.draw(), 0x0001_0000_0000_0000);
    }
}
