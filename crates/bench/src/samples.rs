//! What was measured: response times in nanoseconds, and errors by text.
//!
//! Times are kept one by one up to [`EXACT_MAX`]; past that they are counted in buckets whose width is at most 1/512 of
//! their value, so a run of any length fits into a few megabytes and no percentile is off by more than 0.2 %.

use std::collections::BTreeMap;
use std::time::Duration;

/// Times kept one by one: 4 Mi of 8 bytes.
pub const EXACT_MAX: usize = 4 << 20;
/// Buckets a power of two has.
const STEPS_BITS: u32 = 9;
/// Different error texts kept; the rest is counted under one.
const ERRORS_MAX: usize = 64;
const OTHER_ERRORS: &str = "(other errors)";

/// Response times of successful requests and texts of failed ones.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    exact: Vec<u64>,
    buckets: BTreeMap<u64, u64>,
    len: u64,
    errors: BTreeMap<String, u64>,
    seconds: Option<Seconds>,
}

impl Samples {
    /// An empty set, which also keeps one row a second (`--sample`) if asked to.
    pub fn new(per_second: bool) -> Samples {
        Samples { seconds: per_second.then(Seconds::default), ..Samples::default() }
    }

    /// Counts a success.
    pub fn add(&mut self, took: Duration) {
        self.add_nanos(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts a success that began in the given second of the Unix era.
    pub fn add_at(&mut self, unix_second: impl FnOnce() -> u64, took: Duration) {
        if let Some(seconds) = &mut self.seconds {
            seconds.add(unix_second(), took);
        }
        self.add(took);
    }

    fn add_nanos(&mut self, nanos: u64) {
        self.len += 1;
        if self.exact.len() < EXACT_MAX {
            self.exact.push(nanos);
        } else {
            *self.buckets.entry(bucket(nanos)).or_default() += 1;
        }
    }

    /// Counts a failure.
    pub fn fail(&mut self, text: String) {
        self.fail_many(text, 1);
    }

    /// Counts `times` failures.
    pub fn fail_many(&mut self, text: String, times: u64) {
        if times == 0 {
            return;
        }
        let known = self.errors.len() < ERRORS_MAX || self.errors.contains_key(&text);
        let key = if known { text } else { OTHER_ERRORS.to_owned() };
        *self.errors.entry(key).or_default() += times;
    }

    /// Adds what another thread saw.
    pub fn merge(&mut self, other: Samples) {
        for nanos in other.exact {
            self.add_nanos(nanos);
        }
        for (value, count) in other.buckets {
            *self.buckets.entry(value).or_default() += count;
            self.len += count;
        }
        for (text, count) in other.errors {
            self.fail_many(text, count);
        }
        match (&mut self.seconds, other.seconds) {
            (Some(mine), Some(theirs)) => mine.merge(theirs),
            (mine @ None, theirs) => *mine = theirs,
            (Some(_), None) => {}
        }
    }

    /// Successes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing succeeded.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Failures by text.
    pub fn errors(&self) -> &BTreeMap<String, u64> {
        &self.errors
    }

    /// Failures.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// The rows of `--sample`.
    pub fn seconds(&self) -> Option<&Seconds> {
        self.seconds.as_ref()
    }

    /// The times in order.
    pub fn distribution(&self) -> Distribution {
        let mut sorted: Vec<(u64, u64)> = self.exact.iter().map(|nanos| (*nanos, 1)).collect();
        sorted.extend(self.buckets.iter().map(|(value, count)| (*value, *count)));
        sorted.sort_unstable();
        Distribution { sorted, len: self.len }
    }
}

/// The largest value that shares `nanos`' bucket.
fn bucket(nanos: u64) -> u64 {
    let bits = u64::BITS - nanos.leading_zeros();
    let shift = bits.saturating_sub(STEPS_BITS + 1);
    (nanos >> shift << shift) | ((1u64 << shift) - 1)
}

/// Response times in order, as (nanoseconds, how often).
#[derive(Clone, Debug, Default)]
pub struct Distribution {
    sorted: Vec<(u64, u64)>,
    len: u64,
}

impl Distribution {
    /// How many.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Pairs of (nanoseconds, how often), in order.
    pub fn pairs(&self) -> &[(u64, u64)] {
        &self.sorted
    }

    /// The least, in seconds; 0 of none.
    pub fn fastest(&self) -> f64 {
        self.sorted.first().map_or(0.0, |(nanos, _)| seconds(*nanos))
    }

    /// The greatest, in seconds; 0 of none.
    pub fn slowest(&self) -> f64 {
        self.sorted.last().map_or(0.0, |(nanos, _)| seconds(*nanos))
    }

    /// The mean, in seconds; 0 of none.
    pub fn average(&self) -> f64 {
        if self.len == 0 {
            return 0.0;
        }
        self.sorted.iter().map(|(nanos, count)| seconds(*nanos) * *count as f64).sum::<f64>() / self.len as f64
    }

    /// The population's standard deviation, in seconds.
    pub fn stddev(&self) -> f64 {
        if self.len == 0 {
            return 0.0;
        }
        let mean = self.average();
        let squares = |(nanos, count): &(u64, u64)| (seconds(*nanos) - mean).powi(2) * *count as f64;
        (self.sorted.iter().map(squares).sum::<f64>() / self.len as f64).sqrt()
    }

    /// The values at etcd's percentiles: at most one percentile for each index i, the first with 100·i/n ≥ p. Zero where
    /// there are too few values to get there.
    pub fn percentiles<const N: usize>(&self, wanted: [f64; N]) -> [f64; N] {
        let mut found = [0.0; N];
        let mut earliest = 0;
        for (slot, percentile) in found.iter_mut().zip(wanted) {
            let index = first_index(percentile, self.len).max(earliest);
            if index >= self.len {
                break;
            }
            *slot = self.at(index);
            earliest = index + 1;
        }
        found
    }

    /// One percentile, in seconds: the value that this share of requests did not exceed.
    pub fn percentile(&self, percentile: f64) -> f64 {
        let rank = (percentile / 100.0 * self.len as f64).ceil() as u64;
        self.at(rank.saturating_sub(1))
    }

    fn at(&self, index: u64) -> f64 {
        // Where all values were kept one by one, their place is known.
        if self.sorted.len() as u64 == self.len {
            return usize::try_from(index)
                .ok()
                .and_then(|i| self.sorted.get(i))
                .map_or(0.0, |(nanos, _)| seconds(*nanos));
        }
        let mut before = 0;
        for (nanos, count) in &self.sorted {
            before += count;
            if index < before {
                return seconds(*nanos);
            }
        }
        0.0
    }
}

/// The first i with 100·i/n ≥ p, in the floating point that etcd calculates it in.
fn first_index(percentile: f64, len: u64) -> u64 {
    if len == 0 {
        return 0;
    }
    let reaches = |index: u64| index as f64 * 100.0 / len as f64 >= percentile;
    let guess = (percentile * len as f64 / 100.0) as u64;
    let start = guess.saturating_sub(2);
    (start..=len).find(|index| reaches(*index)).unwrap_or(len)
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// Least, mean and greatest response time and count of each second.
#[derive(Clone, Debug, Default)]
pub struct Seconds {
    rows: BTreeMap<u64, Second>,
}

/// One second's requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Second {
    pub least: Duration,
    pub sum: Duration,
    pub greatest: Duration,
    pub count: u32,
}

impl Seconds {
    fn add(&mut self, second: u64, took: Duration) {
        self.join(second, Second { least: took, sum: took, greatest: took, count: 1 });
    }

    fn merge(&mut self, other: Seconds) {
        for (second, row) in other.rows {
            self.join(second, row);
        }
    }

    fn join(&mut self, second: u64, row: Second) {
        let mine = self.rows.entry(second).or_insert(Second { least: Duration::MAX, ..Second::default() });
        mine.least = mine.least.min(row.least);
        mine.greatest = mine.greatest.max(row.greatest);
        mine.sum += row.sum;
        mine.count += row.count;
    }

    /// Every second from the first to the last; those without a request are empty.
    pub fn rows(&self) -> Vec<(u64, Second)> {
        let (Some((first, _)), Some((last, _))) = (self.rows.first_key_value(), self.rows.last_key_value()) else {
            return Vec::new();
        };
        (*first..=*last).map(|second| (second, self.rows.get(&second).copied().unwrap_or_default())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Samples {
        let mut samples = Samples::default();
        values.into_iter().for_each(|value| samples.add(Duration::from_millis(value)));
        samples
    }

    #[test]
    fn percentiles_are_those_of_etcds_walk() {
        // reference/benchmark.md: "value at the first i with 100·i/n ≥ p; n=100 has no 99.9".
        let wanted = [10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9];
        let hundred = of(1..=100).distribution().percentiles(wanted);
        assert_eq!(hundred, [0.011, 0.026, 0.051, 0.076, 0.091, 0.096, 0.1, 0.0]);
        let thousand = of(1..=1000).distribution().percentiles(wanted);
        assert_eq!(thousand, [0.101, 0.251, 0.501, 0.751, 0.901, 0.951, 0.991, 1.0]);
        // "at most one percentile per i"
        assert_eq!(of([5]).distribution().percentiles(wanted), [0.0; 8]);
        assert_eq!(of([1, 2, 3]).distribution().percentiles(wanted)[..3], [0.002, 0.003, 0.0]);
    }

    #[test]
    fn percentiles_equal_those_of_a_naive_walk() {
        let wanted = [10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9];
        for len in 1..400u64 {
            let mut naive = [0.0; 8];
            let mut next = 0;
            for index in 0..len {
                if next < 8 && index as f64 * 100.0 / len as f64 >= wanted[next] {
                    naive[next] = seconds((index + 1) * 1_000_000);
                    next += 1;
                }
            }
            assert_eq!(of(1..=len).distribution().percentiles(wanted), naive, "of {len}");
        }
    }

    #[test]
    fn deviation_is_the_populations() {
        let distribution = of([1000, 3000]).distribution();
        assert_eq!((distribution.average(), distribution.stddev()), (2.0, 1.0));
    }

    #[test]
    fn a_bucket_is_at_most_a_512th_wide() {
        for shift in 0..60 {
            for value in [(1u64 << shift), (1 << shift) + 1, (3 << shift) / 2, (1 << shift) * 2 - 1] {
                let top = bucket(value);
                assert!(top >= value && (top - value) as f64 <= value as f64 / 512.0, "{value} in {top}");
            }
        }
    }

    #[test]
    fn merged_samples_count_values_errors_and_seconds() {
        let mut one = Samples::new(true);
        one.add_at(|| 10, Duration::from_millis(2));
        one.fail("refused".to_owned());
        let mut two = Samples::new(true);
        two.add_at(|| 12, Duration::from_millis(4));
        two.fail("refused".to_owned());
        one.merge(two);
        assert_eq!((one.len(), one.failed(), one.errors()["refused"]), (2, 2, 2));
        let rows = one.seconds().map(Seconds::rows).unwrap_or_default();
        assert_eq!(
            rows.iter().map(|(second, row)| (*second, row.count)).collect::<Vec<_>>(),
            [(10, 1), (11, 0), (12, 1)]
        );
    }

    #[test]
    fn many_error_texts_are_kept_under_one() {
        let mut samples = Samples::default();
        (0..200).for_each(|number| samples.fail(format!("error {number}")));
        assert_eq!((samples.failed(), samples.errors().len()), (200, ERRORS_MAX + 1));
    }
}
