//! The report of etcd's `benchmark`, byte for byte (reference/benchmark.md, section 2).

use crate::number;
use crate::samples::{Distribution, Samples, Second};
use std::fmt::Write;
use std::time::Duration;

const PERCENTILES: [f64; 8] = [10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9];
/// Steps between the fastest and the slowest.
const STEPS: usize = 10;
/// Bar characters of the fullest line.
const BAR_MAX: u64 = 40;
const BAR: &str = "∎";

/// What the text is made of.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    pub samples: &'a Samples,
    /// Wall time from the start of collection to its end.
    pub total: Duration,
    /// `%g` instead of `%4.4f`.
    pub precise: bool,
    /// Operations a request stands for in the rate (`mvcc put --txn`); else 1.
    pub weight: f64,
}

impl<'a> Report<'a> {
    /// A report whose requests count once.
    pub fn new(samples: &'a Samples, total: Duration, precise: bool) -> Report<'a> {
        Report { samples, total, precise, weight: 1.0 }
    }

    /// The whole text; it begins with an empty line and ends with one newline.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if !self.samples.is_empty() {
            let distribution = self.samples.distribution();
            self.summary(&mut text, &distribution);
            self.histogram(&mut text, &distribution);
            self.percentiles(&mut text, &distribution);
            self.seconds(&mut text);
        }
        self.errors(&mut text);
        text
    }

    fn float(&self, value: f64) -> String {
        number::float(value, self.precise)
    }

    fn summary(&self, text: &mut String, distribution: &Distribution) {
        let total = self.total.as_secs_f64();
        text.push_str("\nSummary:\n");
        let lines = [
            ("Total", total),
            ("Slowest", distribution.slowest()),
            ("Fastest", distribution.fastest()),
            ("Average", distribution.average()),
            ("Stddev", distribution.stddev()),
        ];
        for (name, value) in lines {
            put(text, format_args!("  {name}:\t{} secs.\n", self.float(value)));
        }
        let rate = distribution.len() as f64 * self.weight / total;
        put(text, format_args!("  Requests/sec:\t{}\n", self.float(rate)));
    }

    fn histogram(&self, text: &mut String, distribution: &Distribution) {
        let bounds = bounds(distribution);
        let counts = counts(distribution, &bounds);
        let fullest = counts.iter().copied().max().unwrap_or_default().max(1);
        text.push_str("\nResponse time histogram:\n");
        for (bound, count) in bounds.iter().zip(counts) {
            let bar = BAR.repeat((count * BAR_MAX / fullest) as usize);
            put(text, format_args!("  {} [{count}]\t|{bar}\n", self.float(*bound)));
        }
    }

    fn percentiles(&self, text: &mut String, distribution: &Distribution) {
        text.push_str("\nLatency distribution:\n");
        for (percentile, value) in PERCENTILES.iter().zip(distribution.percentiles(PERCENTILES)) {
            if value > 0.0 {
                put(text, format_args!("  {percentile}% in {} secs.\n", self.float(value)));
            }
        }
    }

    fn seconds(&self, text: &mut String) {
        let Some(seconds) = self.samples.seconds() else {
            return;
        };
        text.push_str("\nSample in one second (unix latency throughput):\n");
        text.push_str("UNIX-SECOND,MIN-LATENCY-MS,AVG-LATENCY-MS,MAX-LATENCY-MS,AVG-THROUGHPUT\n");
        for (second, row) in seconds.rows() {
            put(text, format_args!("{second},{}\n", second_line(&row)));
        }
        text.push('\n');
    }

    fn errors(&self, text: &mut String) {
        if self.samples.errors().is_empty() {
            return;
        }
        text.push_str("\nError distribution:\n");
        for (error, count) in self.samples.errors() {
            put(text, format_args!("  [{count}]\t{error}\n"));
        }
    }
}

fn second_line(row: &Second) -> String {
    let mean = if row.count == 0 { Duration::ZERO } else { row.sum / row.count };
    let times = [row.least, mean, row.greatest].map(go::format_duration);
    format!("{},{},{},{}", times[0], times[1], times[2], row.count)
}

fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = text.write_fmt(line);
}

fn bounds(distribution: &Distribution) -> [f64; STEPS + 1] {
    let (fastest, slowest) = (distribution.fastest(), distribution.slowest());
    let step = (slowest - fastest) / STEPS as f64;
    std::array::from_fn(|i| if i == STEPS { slowest } else { fastest + step * i as f64 })
}

fn counts(distribution: &Distribution, bounds: &[f64; STEPS + 1]) -> [u64; STEPS + 1] {
    let mut counts = [0; STEPS + 1];
    let mut step = 0;
    for (nanos, count) in distribution.pairs() {
        let value = *nanos as f64 / 1e9;
        while step < STEPS && value > bounds[step] {
            step += 1;
        }
        counts[step] += count;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(micros: impl IntoIterator<Item = u64>) -> Samples {
        let mut samples = Samples::default();
        micros.into_iter().for_each(|value| samples.add(Duration::from_micros(value)));
        samples
    }

    #[test]
    fn the_layout_is_etcds() {
        let samples = of((0..10).map(|i| 1000 + i * 1000).chain([1000, 2000]));
        let expected = "
Summary:
  Total:\t0.5000 secs.
  Slowest:\t0.0100 secs.
  Fastest:\t0.0010 secs.
  Average:\t0.0048 secs.
  Stddev:\t0.0030 secs.
  Requests/sec:\t24.0000

Response time histogram:
  0.0010 [2]\t|∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎
  0.0019 [0]\t|
  0.0028 [2]\t|∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎
  0.0037 [1]\t|∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎
  0.0046 [1]\t|∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎
  0.0055 [1]\t|∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎
  0.0064 [1]\t|∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎
  0.0073 [1]\t|∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎
  0.0082 [1]\t|∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎
  0.0091 [1]\t|∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎
  0.0100 [1]\t|∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎∎

Latency distribution:
  10% in 0.0020 secs.
  25% in 0.0020 secs.
  50% in 0.0050 secs.
  75% in 0.0080 secs.
  90% in 0.0100 secs.
";
        assert_eq!(Report::new(&samples, Duration::from_millis(500), false).text(), expected);
    }

    #[test]
    fn without_a_success_only_the_errors_are_told() {
        let mut samples = Samples::default();
        samples.fail_many("etcdserver: too many requests".to_owned(), 3);
        let text = Report::new(&samples, Duration::from_secs(1), false).text();
        assert_eq!(text, "\nError distribution:\n  [3]\tetcdserver: too many requests\n");
    }

    #[test]
    fn precise_numbers_keep_all_digits() {
        let text = Report::new(&of([1234, 1234]), Duration::from_millis(250), true).text();
        assert!(text.contains("  Fastest:\t0.001234 secs.\n  Average:\t0.001234 secs.\n"), "{text}");
        assert!(text.contains("Requests/sec:\t8\n"), "{text}");
    }

    #[test]
    fn samples_of_a_second_are_lines_of_go_durations() {
        let mut samples = Samples::new(true);
        samples.add_at(|| 1_795_231_355, Duration::from_nanos(654_840));
        samples.add_at(|| 1_795_231_357, Duration::from_millis(2));
        let text = Report::new(&samples, Duration::from_secs(1), false).text();
        let expected = "UNIX-SECOND,MIN-LATENCY-MS,AVG-LATENCY-MS,MAX-LATENCY-MS,AVG-THROUGHPUT
1795231355,654.84µs,654.84µs,654.84µs,1
1795231356,0s,0s,0s,0
1795231357,2ms,2ms,2ms,1
";
        assert!(text.contains(expected), "{text}");
    }
}
