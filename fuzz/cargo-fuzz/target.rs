//! One target under libFuzzer; which one, the binary's name says.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oxetcd_fuzz::{Target, by_name};
use std::sync::LazyLock;

static TARGET: LazyLock<&Target> = LazyLock::new(|| by_name(env!("CARGO_BIN_NAME")).expect("a target of that name"));

fuzz_target!(|input: &[u8]| {
    (TARGET.run)(input);
});
