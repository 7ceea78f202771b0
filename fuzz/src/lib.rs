//! Decoders of bytes from outside, fed with mutated inputs.
//!
//! A target may answer anything but a panic on any thread, a hang, or more memory than its input allows. It asserts more where
//! there is more to hold: what is understood survives a round trip, a mended file takes what is written next, an error has a
//! text. The mutator is seeded and needs no nightly compiler, so that the gate runs it; it knows nothing of coverage, hence
//! each target starts from well-formed inputs that reach deep, and mutates them by their shape ([`Shape`]). The same targets
//! run under cargo-fuzz, which does know (`fuzz/cargo-fuzz`).
//!
//! `cargo run -p oxetcd-fuzz -- --target all --seconds 120`: the time is shared between the targets. `tests/decoders.rs` has
//! the rule by which every decoder of the workspace needs a target, and the exceptions.

mod meter;
mod mutate;
mod proto;
mod regressions;
mod run;
pub mod targets;

pub use meter::Meter;
pub use mutate::{Mutator, Shape};
pub use regressions::REGRESSIONS;
pub use run::{Budget, Tally, count_panics, fuzz};
pub use targets::TARGETS;

/// One way for bytes from outside.
pub struct Target {
    pub name: &'static str,
    /// Decoders that it reaches, as `crate/file.rs::function`; `tests/decoders.rs` holds the list against the sources.
    pub covers: &'static [&'static str],
    pub shape: Shape,
    /// Well-formed inputs: `run` understands each of them.
    pub corpus: fn() -> Vec<Vec<u8>>,
    /// Makes checksums and lengths of a mutated input right again, which is done half of the time: else nothing but the
    /// checks of checksums would be tested.
    pub mend: Option<fn(&mut Vec<u8>)>,
    /// Whether the input was understood.
    pub run: fn(&[u8]) -> bool,
}

/// The target of that name.
pub fn by_name(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
