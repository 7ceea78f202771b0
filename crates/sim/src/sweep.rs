//! A crash at every disk operation of a short life, in every mode of losing what was not synced.

use crate::world::run_with_crash;
use disk::Crash;

const MODES: [Crash; 3] = [Crash::Lose, Crash::Random, Crash::Keep];

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Disk operations of the life without a crash.
    pub operations: u64,
    pub lives: u64,
}

/// Runs the seed's life once to count its disk operations, then once for each of them (or each `stride`-th) and each
/// mode, crashing there.
///
/// # Errors
/// What went wrong, and where.
pub fn run(seed: u64, steps: u64, stride: u64) -> Result<Report, String> {
    let operations = run_with_crash(seed, steps, None, Crash::Keep, false)?.operations;
    let mut report = Report { operations, lives: 0 };
    let mut uncrashed = 0;
    for at in (0..operations).step_by(stride.max(1) as usize) {
        for mode in MODES {
            let life = run_with_crash(seed, steps, Some(at), mode, false)
                .map_err(|e| format!("crash at disk operation {at} of {operations}, {mode:?}: {e}"))?;
            // Every life ends with a crash, and the one that was asked for comes on top: but for the operation at
            // which the last one comes anyway, which is one in each mode.
            uncrashed += usize::from(life.crashes < 2);
            if uncrashed > MODES.len() {
                return Err(format!("no crash at disk operation {at} of {operations}, {mode:?}"));
            }
            report.lives += 1;
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_crash_at_any_disk_operation_loses_nothing_acknowledged() {
        let report = super::run(1, 30, 3).unwrap();
        assert!(report.lives > 100, "{report:?}");
    }
}
