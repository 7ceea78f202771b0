//! What is counted with: plain atomics that live as long as the process, so that counting costs an addition and
//! nobody passes handles around. Exposition, by crate `prometheus`, reads them when somebody asks.

use parking_lot::Mutex;
use prometheus::proto;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Buckets that a histogram has at most, the one without a bound included.
const BUCKETS_MAX: usize = 26;
/// Label sets of a metric whose values come from outside; what is beyond counts together.
pub(super) const SETS_MAX: usize = 64;
/// The labels' values of what is beyond.
pub(super) const OTHERS: &str = "others";

/// Goes up.
#[derive(Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    pub const fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }

    pub fn inc(&self) {
        self.add(1);
    }

    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// For one that is counted elsewhere, by one thread.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Default for Counter {
    fn default() -> Counter {
        Counter::new()
    }
}

/// Goes up and down.
#[derive(Debug)]
pub struct Gauge(AtomicI64);

impl Gauge {
    pub const fn new() -> Gauge {
        Gauge(AtomicI64::new(0))
    }

    pub fn set(&self, n: i64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn read(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Default for Gauge {
    fn default() -> Gauge {
        Gauge::new()
    }
}

/// Observations by size.
#[derive(Debug)]
pub struct Histogram {
    bounds: Bounds,
    counts: [Counter; BUCKETS_MAX],
    /// Bits of a float.
    sum: AtomicU64,
}

/// The upper bounds of buckets.
#[derive(Clone, Copy, Debug)]
pub enum Bounds {
    /// The first bound, the factor from one to the next, how many: Prometheus' `ExponentialBuckets`.
    Exponential(f64, f64, usize),
    /// One by one.
    Listed(&'static [f64]),
}

impl Bounds {
    fn iter(self) -> impl Iterator<Item = f64> {
        let (first, factor, count, listed) = match self {
            Bounds::Exponential(first, factor, count) => (first, factor, count, &[][..]),
            Bounds::Listed(listed) => (0.0, 1.0, 0, listed),
        };
        let doubled = std::iter::successors(Some(first), move |bound| Some(bound * factor)).take(count);
        doubled.chain(listed.iter().copied())
    }
}

impl Histogram {
    pub const fn new(bounds: Bounds) -> Histogram {
        Histogram { bounds, counts: [const { Counter::new() }; BUCKETS_MAX], sum: AtomicU64::new(0) }
    }

    pub const fn exponential(first: f64, factor: f64, count: usize) -> Histogram {
        assert!(count < BUCKETS_MAX, "a bucket more than the bounds");
        Histogram::new(Bounds::Exponential(first, factor, count))
    }

    pub fn observe(&self, value: f64) {
        self.observe_many(value, 1);
    }

    pub fn observe_seconds(&self, took: std::time::Duration) {
        self.observe(took.as_secs_f64());
    }

    /// So many observations of about this value, whose sum is told apart.
    pub fn count_many(&self, value: f64, count: u64) {
        let bucket = self.bounds.iter().take_while(|bound| value > *bound).count();
        self.counts[bucket.min(BUCKETS_MAX - 1)].add(count);
    }

    /// The sum of all observations, where it is kept elsewhere.
    pub fn set_sum(&self, sum: f64) {
        self.sum.store(sum.to_bits(), Ordering::Relaxed);
    }

    /// So many observations of the same value.
    pub fn observe_many(&self, value: f64, count: u64) {
        self.count_many(value, count);
        let added = value * count as f64;
        let add = |sum| Some((f64::from_bits(sum) + added).to_bits());
        // Always something: it is tried again until it succeeds.
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Observations so far.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(Counter::read).sum()
    }

    /// Of all observations.
    pub fn sum(&self) -> f64 {
        f64::from_bits(self.sum.load(Ordering::Relaxed))
    }

    pub(super) fn proto(&self) -> proto::Histogram {
        let counts: Vec<u64> = self.counts.iter().map(Counter::read).collect();
        histogram(self.bounds.iter().collect(), &counts, self.sum())
    }
}

/// A histogram from its parts; `counts` has one more than `bounds`, each observation is in one of them.
pub fn histogram(bounds: Vec<f64>, counts: &[u64], sum: f64) -> proto::Histogram {
    let mut cumulative = 0;
    let buckets = bounds.into_iter().zip(counts).map(|(bound, count)| {
        cumulative += count;
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(cumulative);
        bucket
    });
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(counts.iter().sum());
    histogram.set_sample_sum(sum);
    histogram
}

/// One of each set of labels.
#[derive(Debug)]
pub struct Labelled<T> {
    names: &'static [&'static str],
    /// Seldom touched: what is counted for every call has handles of its own.
    sets: Mutex<BTreeMap<Vec<String>, T>>,
}

impl<T: Default> Labelled<T> {
    pub const fn new(names: &'static [&'static str]) -> Labelled<T> {
        Labelled { names, sets: Mutex::new(BTreeMap::new()) }
    }

    /// Does something to the one with these values.
    pub fn with(&self, values: &[&str], change: impl FnOnce(&T)) {
        let mut sets = self.sets.lock();
        let mut key: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        if sets.len() >= SETS_MAX && !sets.contains_key(&key) {
            key.fill(OTHERS.to_owned());
        }
        change(sets.entry(key).or_default());
    }
}

/// A metric at one moment.
pub trait Instrument {
    /// As Prometheus knows it; one for each set of labels that there was so far.
    fn metrics(&self) -> (proto::MetricType, Vec<proto::Metric>);
}

impl Instrument for Counter {
    fn metrics(&self) -> (proto::MetricType, Vec<proto::Metric>) {
        (proto::MetricType::COUNTER, vec![counted(&[], self.read() as f64)])
    }
}

impl Instrument for Gauge {
    fn metrics(&self) -> (proto::MetricType, Vec<proto::Metric>) {
        (proto::MetricType::GAUGE, vec![gauged(&[], self.read() as f64)])
    }
}

impl Instrument for Histogram {
    fn metrics(&self) -> (proto::MetricType, Vec<proto::Metric>) {
        (proto::MetricType::HISTOGRAM, vec![observed(&[], self.proto())])
    }
}

impl<T: Instrument + Default> Instrument for Labelled<T> {
    fn metrics(&self) -> (proto::MetricType, Vec<proto::Metric>) {
        let kind = T::default().metrics().0;
        let sets = self.sets.lock();
        let metrics = sets.iter().flat_map(|(values, one)| {
            let labels: Vec<_> = self.names.iter().copied().zip(values.iter().map(String::as_str)).collect();
            one.metrics().1.into_iter().map(move |mut metric| {
                metric.set_label(label_pairs(&labels));
                metric
            })
        });
        (kind, metrics.collect())
    }
}

fn label_pairs(labels: &[(&str, &str)]) -> Vec<proto::LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    labels.iter().map(pair).collect()
}

fn labelled(labels: &[(&str, &str)]) -> proto::Metric {
    proto::Metric::from_label(label_pairs(labels))
}

pub fn counted(labels: &[(&str, &str)], value: f64) -> proto::Metric {
    let mut counter = proto::Counter::default();
    counter.set_value(value);
    let mut metric = labelled(labels);
    metric.set_counter(counter);
    metric
}

pub fn gauged(labels: &[(&str, &str)], value: f64) -> proto::Metric {
    let mut gauge = proto::Gauge::default();
    gauge.set_value(value);
    let mut metric = labelled(labels);
    metric.set_gauge(gauge);
    metric
}

pub fn observed(labels: &[(&str, &str)], histogram: proto::Histogram) -> proto::Metric {
    let mut metric = labelled(labels);
    metric.set_histogram(histogram);
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_fall_into_the_bucket_of_their_size() {
        let histogram = Histogram::exponential(0.001, 2.0, 3);
        for (value, count) in [(0.0, 1), (0.001, 2), (0.0011, 1), (0.004, 1), (0.0041, 3), (9.0, 1)] {
            histogram.observe_many(value, count);
        }
        let proto = histogram.proto();
        let cumulative: Vec<_> = proto.get_bucket().iter().map(|b| b.cumulative_count()).collect();
        assert_eq!(cumulative, [3, 4, 5]);
        assert_eq!((proto.get_sample_count(), histogram.count()), (9, 9));
        assert!((histogram.sum() - 9.0194).abs() < 1e-9, "{}", histogram.sum());
    }

    #[test]
    fn label_values_from_outside_cannot_fill_the_memory() {
        let metric = Labelled::<Counter>::new(&["version"]);
        for n in 0..1000 {
            metric.with(&[&n.to_string()], Counter::inc);
        }
        let (_, sets) = metric.metrics();
        assert_eq!(sets.len(), SETS_MAX + 1);
        let others = sets.iter().find(|set| set.get_label()[0].value() == OTHERS).unwrap();
        assert_eq!(others.get_counter().get_value() as usize, 1000 - SETS_MAX);
    }
}
