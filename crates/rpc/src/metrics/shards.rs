//! Counters of calls, which every call touches: each thread has its own, which it alone raises, so that counting is an
//! addition in its own cache and not a contest between processors. A scrape adds them up.
//!
//! A thread's counters outlive it. Threads that serve calls are few and live as long as the process.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Methods of all services.
pub(super) const METHODS: usize = 52;
/// gRPC's codes.
pub(super) const CODES: usize = 17;

/// Raised by one thread, read by others.
#[derive(Debug, Default)]
pub(super) struct Own(AtomicU64);

impl Own {
    pub fn add(&self, n: u64) {
        // Nobody else writes: no need to lock the bus.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }
}

/// One method's.
#[derive(Debug, Default)]
pub(super) struct OfMethod {
    pub started: Own,
    pub handled: [Own; CODES],
    pub received: Own,
    pub sent: Own,
}

/// One thread's.
#[derive(Debug)]
pub(super) struct Shard {
    pub methods: [OfMethod; METHODS],
    pub received_bytes: Own,
    pub sent_bytes: Own,
}

static SHARDS: Mutex<Vec<&'static Shard>> = Mutex::new(Vec::new());

thread_local! {
    static SHARD: &'static Shard = register();
}

fn register() -> &'static Shard {
    let methods = std::array::from_fn(|_| OfMethod::default());
    let shard = Shard { methods, received_bytes: Own::default(), sent_bytes: Own::default() };
    let shard: &'static Shard = Box::leak(Box::new(shard));
    SHARDS.lock().push(shard);
    shard
}

/// This thread's.
pub(super) fn here<T>(count: impl FnOnce(&Shard) -> T) -> T {
    SHARD.with(|shard| count(shard))
}

/// What all threads counted.
pub(super) fn sum(counter: impl Fn(&Shard) -> &Own) -> u64 {
    SHARDS.lock().iter().map(|shard| counter(shard).0.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_counted_outlives_them() {
        let before = sum(|shard| &shard.sent_bytes);
        let counting = || (0..100).for_each(|_| here(|shard| shard.sent_bytes.add(3)));
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(counting))));
        assert!(sum(|shard| &shard.sent_bytes) >= before + 1200);
    }
}
