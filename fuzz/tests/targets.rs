//! Every target, for a moment: alone in its process, since memory is measured.

use oxetcd_fuzz::{Budget, Meter, TARGETS, count_panics, fuzz};
use std::fs::File;
use std::time::Duration;

#[global_allocator]
static METER: Meter = Meter;

/// The gate's own step runs longer (`.ci/run`).
const EACH: Duration = Duration::from_millis(300);

/// What the tools under test print goes nowhere while this lives: it is megabytes.
struct Silence(File);

impl Silence {
    fn begin() -> Silence {
        let told = rustix::io::dup(std::io::stdout()).expect("a descriptor more");
        let nowhere = File::options().write(true).open("/dev/null").expect("it is everywhere");
        rustix::stdio::dup2_stdout(&nowhere).expect("standard output can be replaced");
        Silence(told.into())
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        rustix::stdio::dup2_stdout(&self.0).expect("standard output can be given back");
    }
}

#[test]
fn no_target_panics_hangs_or_takes_more_memory_than_its_input_allows() {
    let silence = Silence::begin();
    count_panics(silence.0.try_clone().expect("a descriptor more"));
    for target in TARGETS {
        let tally = fuzz(target, 1, Budget::Time(EACH)).unwrap_or_else(|why| panic!("{why}"));
        assert!(tally.rounds > 0 && tally.bytes > 0, "{} ran {} times and took memory", target.name, tally.rounds);
    }
}
