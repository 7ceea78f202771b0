//! The core against an independent one: the crates.io crate `raft` 0.7.0, wherever both keep the same rules.
//!
//! | module | what is compared |
//! |---|---|
//! | [`bench`] | one node of each kind, fed the same messages: state, log and answers after each of them |
//! | [`twins`] | a cluster of each kind under the same script: state, logs and what was applied whenever the network rests |
//! | [`mixed`] | clusters with nodes of both kinds over a hostile network: raft's safety, and progress once it healed |
//!
//! Messages travel as their bytes, so the wire form is compared too. The oracle has rules of its own where etcd's raft
//! v3.7 went on since; each is named where it is let pass. `OXETCD_ORACLE_SEEDS` (a number) runs so many seeds a test.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

mod bench;
mod disk;
mod member;
mod mixed;
mod ours;
mod theirs;
mod translate;
mod twins;

/// splitmix64
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 if there is nothing below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.draw() % n.max(1)
    }

    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// The seeds of one test: `usual` of them, unless the environment asks for another number.
#[allow(clippy::disallowed_methods, reason = "only the number of seeds, not what they do")]
pub fn seeds(first: u64, usual: u64) -> std::ops::Range<u64> {
    let asked = std::env::var("OXETCD_ORACLE_SEEDS").ok().and_then(|n| n.parse().ok());
    first..first + asked.unwrap_or(usual)
}
