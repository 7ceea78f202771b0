//! Where processors spend their time: a timer of the process (`ITIMER_PROF`) interrupts whichever thread runs, 100 times a
//! second of processor time, and its stack is remembered. By the crate `pprof`, TiKV's.
//!
//! A stack is unwound by the tables that the compiler and the C library leave for that. Left out is what runs in the
//! unwinder itself, in the loader and in the kernel's own page (vDSO): there a second unwinding could trip over the first.

use crate::format::Profile;
use crate::symbols::{Call, Frame};
use pprof::{Frames, ProfilerGuard, ProfilerGuardBuilder, UnresolvedReport};
use std::time::{Duration, Instant};

/// Samples a second of processor time, as in Go.
const FREQUENCY: i32 = 100;
/// A part of the name of each library where no stack is unwound.
const LEFT_OUT: [&str; 3] = ["/libgcc_s", "/ld-linux", "linux-vdso"];

/// Being measured, until it is dropped.
pub struct Sampling {
    guard: ProfilerGuard<'static>,
    begun: Instant,
}

/// What was measured, in addresses.
pub struct Samples {
    report: UnresolvedReport,
    lasted: Duration,
}

impl Sampling {
    /// Begins.
    ///
    /// # Errors
    /// Somebody measures already, or there is no place for a temporary file.
    pub fn start() -> Result<Sampling, String> {
        let guard = ProfilerGuardBuilder::default().frequency(FREQUENCY).blocklist(&LEFT_OUT).build();
        let guard = guard.map_err(|e| match e {
            pprof::Error::Running => "cpu profiling already in use".to_owned(),
            pprof::Error::CreatingError => {
                "the sampler needs a temporary file: name a folder that this process may write to in TMPDIR".to_owned()
            }
            other => other.to_string(),
        })?;
        Ok(Sampling { guard, begun: Instant::now() })
    }

    /// Ends. Names are not looked up yet, which may take long.
    ///
    /// # Errors
    /// What was measured can't be read.
    pub fn finish(self) -> Result<Samples, String> {
        let report = self.guard.report().build_unresolved().map_err(|e| e.to_string())?;
        Ok(Samples { report, lasted: self.begun.elapsed() })
    }
}

impl Samples {
    /// The profile. Takes a second or so when it is done for the first time.
    pub fn into_profile(self) -> Profile {
        let period = 1_000_000_000 / i64::from(FREQUENCY);
        let mut profile = Profile::new(&[("samples", "count"), ("cpu", "nanoseconds")])
            .with_period(("cpu", "nanoseconds"), period)
            .over(self.lasted);
        for (stack, count) in self.report.data {
            let stack = Frames::from(stack);
            let frames: Vec<Frame> = stack.frames.iter().map(|calls| frame(calls)).collect();
            let count = count as i64;
            profile.add(&frames, &[count, count * period], &[("thread", &stack.thread_name_or_id())]);
        }
        profile
    }
}

fn frame(calls: &[pprof::Symbol]) -> Frame {
    let call = |symbol: &pprof::Symbol| Call {
        name: symbol.name(),
        file: symbol.filename.as_ref().map(|file| file.display().to_string()).unwrap_or_default(),
        line: symbol.lineno(),
    };
    Frame(calls.iter().map(call).collect())
}

impl std::fmt::Debug for Sampling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sampling").field("begun", &self.begun).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Samples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Samples").field("lasted", &self.lasted).finish_non_exhaustive()
    }
}
