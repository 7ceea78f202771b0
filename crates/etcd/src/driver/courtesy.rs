//! Long work gives way to short work.
//!
//! A lower priority is not enough where processors are short: the system lets a thread run on until its slice or the
//! next tick of its clock ends, some 4 ms, while a call that takes 100 µs waits. So long work is done in stretches, and
//! after each it sleeps as long as it worked if calls are about. Where nobody calls it runs at full speed.

use super::Shared;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Work in one go: how long a call may wait for it.
const STRETCH: Duration = Duration::from_micros(100);
/// Calls are about for so long after one was seen: who waits for this very processor can't show that he does.
const ABOUT: Duration = Duration::from_millis(5);
/// A nap at most: a stretch that waited for the device is not paid for in full.
const NAP_MAX: Duration = Duration::from_millis(2);
/// Bytes of work between two looks at the clock: some 10 µs.
const LOOK: usize = 8 << 10;
/// What a step takes beside its bytes, as bytes.
const STEP: usize = 128;

/// Counts what was done for calls.
#[derive(Debug, Default)]
pub struct Calls(AtomicU64);

impl Calls {
    /// Something was done.
    pub fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn so_far(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One thread's long work.
pub struct Courtesy {
    shared: Arc<Shared>,
    bytes: Cell<usize>,
    stretch: Cell<Stretch>,
}

impl Courtesy {
    pub fn new(shared: Arc<Shared>) -> Courtesy {
        let stretch = Stretch::new(Instant::now(), shared.calls.so_far());
        Courtesy { shared, bytes: Cell::new(0), stretch: Cell::new(stretch) }
    }

    /// A piece of work begins: what went before it, waiting for it most likely, was no work.
    pub fn begin(&self) {
        self.bytes.set(0);
        let mut stretch = self.stretch.get();
        stretch.begin(Instant::now());
        self.stretch.set(stretch);
    }

    /// A step of so many bytes was done. May sleep.
    pub fn step(&self, bytes: usize) {
        let bytes = self.bytes.get() + bytes + STEP;
        self.bytes.set(bytes);
        if bytes < LOOK {
            return;
        }
        self.bytes.set(0);
        let mut stretch = self.stretch.get();
        if let Some(nap) = stretch.end(Instant::now(), self.shared.calls.so_far()) {
            std::thread::sleep(nap);
            stretch.begin(Instant::now());
        }
        self.stretch.set(stretch);
    }
}

#[derive(Clone, Copy, Debug)]
struct Stretch {
    since: Instant,
    /// What had been done for calls when somebody was last seen to be about, and when that was.
    calls: u64,
    seen: Option<Instant>,
}

impl Stretch {
    fn new(since: Instant, calls: u64) -> Stretch {
        Stretch { since, calls, seen: None }
    }

    /// What was before is no work of this stretch.
    fn begin(&mut self, now: Instant) {
        self.since = now;
    }

    /// Begins the next stretch if this one was long enough; the answer is how long to sleep before.
    fn end(&mut self, now: Instant, calls: u64) -> Option<Duration> {
        let worked = now - self.since;
        if worked < STRETCH {
            return None;
        }
        self.since = now;
        if calls != self.calls {
            (self.calls, self.seen) = (calls, Some(now));
        }
        let about = self.seen.is_some_and(|seen| now - seen < ABOUT);
        about.then(|| worked.min(NAP_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_sleeps_as_long_as_it_worked_while_calls_are_about() {
        let start = Instant::now();
        let at = |micros: u64| start + Duration::from_micros(micros);
        let mut stretch = Stretch::new(start, 7);
        assert_eq!(stretch.end(at(1000), 7), None, "nobody calls");
        assert_eq!(stretch.end(at(1050), 8), None, "the stretch has just begun");
        assert_eq!(stretch.end(at(1150), 8), Some(Duration::from_micros(150)));
        // Nothing was done for anybody: he may wait for this processor.
        assert_eq!(stretch.end(at(5000), 8), Some(NAP_MAX));
        assert_eq!(stretch.end(at(6200), 8), None, "and then he may not");
        assert_eq!(stretch.end(at(6400), 9), Some(Duration::from_micros(200)));
    }

    #[test]
    fn waiting_for_work_is_no_work() {
        let start = Instant::now();
        let at = |micros: u64| start + Duration::from_micros(micros);
        let mut stretch = Stretch::new(start, 7);
        stretch.begin(at(60_000_000));
        assert_eq!(stretch.end(at(60_000_050), 8), None, "the stretch has just begun");
        assert_eq!(stretch.end(at(60_000_150), 8), Some(Duration::from_micros(150)));
    }
}
