//! Every target, for a moment: alone in its process, since memory is measured.

use oxetcd_fuzz::{Budget, Meter, TARGETS, count_panics, fuzz};
use std::time::Duration;

#[global_allocator]
static METER: Meter = Meter;

/// The gate's own step runs longer (`.ci/run`).
const EACH: Duration = Duration::from_millis(300);

#[test]
fn no_target_panics_hangs_or_takes_more_memory_than_its_input_allows() {
    count_panics(std::io::stdout());
    for target in TARGETS {
        let tally = fuzz(target, 1, Budget::Time(EACH)).unwrap_or_else(|why| panic!("{why}"));
        assert!(tally.rounds > 0 && tally.bytes > 0, "{} ran {} times and took memory", target.name, tally.rounds);
    }
}
