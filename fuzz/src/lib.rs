//! Decoders of bytes from outside, fed with mutated inputs. A target may answer anything but a panic, a hang or more
//! memory than its input allows.
//!
//! The mutator is seeded and needs no nightly compiler, so that the gate runs it; it knows nothing of coverage, hence each
//! target starts from well-formed inputs that reach deep.
//!
//! `cargo run --release -p oxetcd-fuzz -- --target all --rounds 1000000`

mod mutate;
pub mod targets;

pub use mutate::Mutator;

/// One decoder: well-formed inputs and what is done with a mutated one.
pub struct Target {
    pub name: &'static str,
    pub corpus: fn() -> Vec<Vec<u8>>,
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "raft-messages", corpus: targets::raft_corpus, run: targets::raft },
    Target { name: "log", corpus: targets::log_corpus, run: targets::log },
    Target { name: "snap", corpus: targets::snap_corpus, run: targets::snap },
    Target { name: "page-store", corpus: targets::page_corpus, run: targets::page_store },
    Target { name: "entries", corpus: targets::entry_corpus, run: targets::entries },
    Target { name: "v2-entries", corpus: targets::v2_corpus, run: targets::v2_entries },
    Target { name: "command-line", corpus: targets::command_corpus, run: targets::command_line },
    Target { name: "config-file", corpus: targets::config_corpus, run: targets::config_file },
];

/// Runs a target on `rounds` mutations; a panic names target, seed and round by its message before it.
pub fn fuzz(target: &Target, seed: u64, rounds: u64) {
    let corpus = (target.corpus)();
    let mut mutator = Mutator::new(seed);
    for input in &corpus {
        (target.run)(input);
    }
    for round in 0..rounds {
        let input = mutator.next(&corpus);
        let outcome = std::panic::catch_unwind(|| (target.run)(&input));
        if outcome.is_err() {
            let shown: String = input.iter().take(4096).map(|b| format!("{b:02x}")).collect();
            panic!(
                "target {} panicked at seed {seed}, round {round}; input ({} bytes) {shown}",
                target.name,
                input.len()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_target_panics() {
        for target in TARGETS {
            fuzz(target, 1, 1500);
        }
    }
}
