//! Counters of the transport, by peer. Exposition (names, labels) is `metrics::figures`'; the names beside the fields are
//! etcd's (reference/metrics.md). A counter outlives its peer, as Prometheus wants it.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Ids that get counters of their own. Ids come from outside; those beyond count under id 0.
const METERS_MAX: usize = 1024;

/// One peer's figures at one moment. Id 0 stands for senders that are not identified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerMetrics {
    pub id: u64,
    /// `etcd_network_known_peers`.
    pub known: bool,
    /// `etcd_network_active_peers`, `etcd_network_disconnected_peers_total`.
    pub active: u64,
    pub disconnected: u64,
    /// `etcd_network_peer_{sent,received}_bytes_total`; framing included.
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// `etcd_network_peer_{sent,received}_failures_total`.
    pub sent_failures: u64,
    pub received_failures: u64,
    /// `etcd_network_snapshot_send_{success,failures,inflights_total,total_duration_seconds}`.
    pub snapshot_sent: u64,
    pub snapshot_send_failures: u64,
    pub snapshot_sending: u64,
    pub snapshot_send_time: Distribution,
    /// `etcd_network_snapshot_receive_{success,failures,inflights_total,total_duration_seconds}`.
    pub snapshot_received: u64,
    pub snapshot_receive_failures: u64,
    pub snapshot_receiving: u64,
    pub snapshot_receive_time: Distribution,
    /// `etcd_network_peer_round_trip_time_seconds`.
    pub round_trip_time: Distribution,
}

/// A histogram's state: `counts[i]` observations of at most `bounds[i]`, each counted once; one more count for the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    pub bounds: Vec<Duration>,
    pub counts: Vec<u64>,
    pub sum: Duration,
}

/// A number that goes up, or up and down.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }

    pub fn up(&self) {
        self.add(1);
    }

    pub fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts of durations in buckets that double.
#[derive(Debug)]
pub(crate) struct Histogram {
    first: Duration,
    counts: Box<[Count]>,
    sum_micros: Count,
}

impl Histogram {
    fn new(first: Duration, buckets: usize) -> Histogram {
        Histogram { first, counts: (0..=buckets).map(|_| Count::default()).collect(), sum_micros: Count::default() }
    }

    fn bounds(&self) -> impl Iterator<Item = Duration> {
        std::iter::successors(Some(self.first), |bound| Some(*bound * 2)).take(self.counts.len() - 1)
    }

    pub fn observe(&self, took: Duration) {
        let bucket = self.bounds().take_while(|bound| took > *bound).count();
        self.counts[bucket].up();
        self.sum_micros.add(usize::try_from(took.as_micros()).unwrap_or(usize::MAX));
    }

    fn read(&self) -> Distribution {
        Distribution {
            bounds: self.bounds().collect(),
            counts: self.counts.iter().map(Count::read).collect(),
            sum: Duration::from_micros(self.sum_micros.read()),
        }
    }
}

/// One peer's counters.
#[derive(Debug)]
pub(crate) struct Meter {
    pub active: Count,
    pub disconnected: Count,
    pub sent_bytes: Count,
    pub received_bytes: Count,
    pub sent_failures: Count,
    pub received_failures: Count,
    pub snapshot_sent: Count,
    pub snapshot_send_failures: Count,
    pub snapshot_sending: Count,
    pub snapshot_send_time: Histogram,
    pub snapshot_received: Count,
    pub snapshot_receive_failures: Count,
    pub snapshot_receiving: Count,
    pub snapshot_receive_time: Histogram,
    pub round_trip_time: Histogram,
}

impl Default for Meter {
    fn default() -> Meter {
        let snapshot_time = || Histogram::new(Duration::from_millis(100), 10);
        Meter {
            active: Count::default(),
            disconnected: Count::default(),
            sent_bytes: Count::default(),
            received_bytes: Count::default(),
            sent_failures: Count::default(),
            received_failures: Count::default(),
            snapshot_sent: Count::default(),
            snapshot_send_failures: Count::default(),
            snapshot_sending: Count::default(),
            snapshot_send_time: snapshot_time(),
            snapshot_received: Count::default(),
            snapshot_receive_failures: Count::default(),
            snapshot_receiving: Count::default(),
            snapshot_receive_time: snapshot_time(),
            round_trip_time: Histogram::new(Duration::from_micros(100), 16),
        }
    }
}

impl Meter {
    fn read(&self, id: u64) -> PeerMetrics {
        PeerMetrics {
            id,
            known: false,
            active: self.active.read(),
            disconnected: self.disconnected.read(),
            sent_bytes: self.sent_bytes.read(),
            received_bytes: self.received_bytes.read(),
            sent_failures: self.sent_failures.read(),
            received_failures: self.received_failures.read(),
            snapshot_sent: self.snapshot_sent.read(),
            snapshot_send_failures: self.snapshot_send_failures.read(),
            snapshot_sending: self.snapshot_sending.read(),
            snapshot_send_time: self.snapshot_send_time.read(),
            snapshot_received: self.snapshot_received.read(),
            snapshot_receive_failures: self.snapshot_receive_failures.read(),
            snapshot_receiving: self.snapshot_receiving.read(),
            snapshot_receive_time: self.snapshot_receive_time.read(),
            round_trip_time: self.round_trip_time.read(),
        }
    }
}

/// Every peer's counters.
#[derive(Debug, Default)]
pub(crate) struct Meters(Mutex<BTreeMap<u64, Arc<Meter>>>);

impl Meters {
    pub fn of(&self, id: u64) -> Arc<Meter> {
        let mut meters = self.0.lock();
        let id = if meters.len() < METERS_MAX || meters.contains_key(&id) { id } else { 0 };
        meters.entry(id).or_default().clone()
    }

    pub fn read(&self) -> Vec<PeerMetrics> {
        self.0.lock().iter().map(|(id, meter)| meter.read(*id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_doubling_buckets() {
        let histogram = Histogram::new(Duration::from_millis(100), 3);
        for ms in [0, 100, 101, 400, 401, 9000] {
            histogram.observe(Duration::from_millis(ms));
        }
        let read = histogram.read();
        assert_eq!(read.bounds, [100, 200, 400].map(Duration::from_millis));
        assert_eq!(read.counts, [2, 1, 1, 2]);
        assert_eq!(read.sum, Duration::from_millis(10_002));
    }

    #[test]
    fn ids_from_outside_cannot_fill_the_memory() {
        let meters = Meters::default();
        for id in 1..3000 {
            meters.of(id).received_bytes.up();
        }
        let read = meters.read();
        assert_eq!(read.len(), METERS_MAX + 1);
        assert_eq!(read[0].id, 0);
        assert_eq!(read[0].received_bytes, 2999 - METERS_MAX as u64);
    }
}
