//! How long calls took: over the last minute, the last hour, and all in all, by powers of two.

use std::fmt::Write as _;
use std::time::Duration;

/// Powers of two of microseconds: the last is above 38 hours.
const BUCKETS: usize = 38;
/// Of the longest bar, pixels.
const BAR: f64 = 350.0;

/// Calls by how long they took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spread {
    counts: [u64; BUCKETS],
    sum: f64,
    squares: f64,
}

impl Default for Spread {
    fn default() -> Spread {
        Spread { counts: [0; BUCKETS], sum: 0.0, squares: 0.0 }
    }
}

impl Spread {
    fn add(&mut self, micros: u64) {
        self.counts[(micros.max(1).ilog2() as usize).min(BUCKETS - 1)] += 1;
        self.sum += micros as f64;
        self.squares += (micros as f64).powi(2);
    }

    fn join(mut self, other: &Spread) -> Spread {
        self.counts.iter_mut().zip(&other.counts).for_each(|(own, more)| *own += more);
        self.sum += other.sum;
        self.squares += other.squares;
        self
    }

    fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// As far as it can be told from powers of two: half way into the bucket where the middle call lies.
    fn median(&self) -> u64 {
        let (count, half) = (self.count(), (self.count() as f64 / 2.0).round() as u64);
        if count <= 1 {
            return self.sum as u64;
        }
        let mut before = 0;
        for (bucket, n) in self.counts.iter().enumerate() {
            let (low, high) = (boundary(bucket), boundary(bucket + 1));
            if before + n > half {
                let part = (half - before) as f64 / *n as f64;
                return low + (part * (high - low) as f64).round() as u64;
            }
            before += n;
            if before == half {
                // Exactly between two: the middle of what lies between them.
                let next = self.counts.iter().skip(bucket + 1).position(|n| *n > 0).unwrap_or(0);
                return high + (boundary(bucket + 1 + next) - high) / 2;
            }
        }
        boundary(BUCKETS - 1)
    }

    /// A table with bars.
    pub fn html(&self) -> String {
        let count = self.count() as f64;
        let mean = if count > 0.0 { self.sum / count } else { 0.0 };
        let deviation = if count > 0.0 { (self.squares / count - mean * mean).max(0.0).sqrt() } else { 0.0 };
        let mut out = String::from("<table>\n<tr>");
        for text in [
            format!("Count: {count}"),
            format!("Mean: {mean:.0}"),
            format!("StdDev: {deviation:.0}"),
            format!("Median: {}", self.median()),
        ] {
            out += &format!("<td style=\"padding:0.25em\">{text}</td>");
        }
        out += "</tr>\n</table>\n<hr>\n<table>\n";
        let most = self.counts.iter().max().copied().unwrap_or(0) as f64;
        let mut so_far = 0.0;
        for (bucket, n) in self.counts.iter().enumerate().filter(|(_, n)| **n > 0) {
            so_far += *n as f64;
            let upper = if bucket + 1 < BUCKETS { boundary(bucket + 1) } else { i64::MAX.unsigned_abs() };
            let cell = "<td style=\"text-align:right;padding:0 0.25em\">";
            // Writing to a String can't fail.
            let _ = writeln!(
                out,
                "<tr><td style=\"padding:0 0 0 0.25em\">[</td>{cell}{},</td>{cell}{upper})</td>{cell}{n}</td>\
                 {cell}{:.3}%</td>{cell}{:.3}%</td>\
                 <td><div style=\"background-color: blue; height: 1em; width: {:.0};\"></div></td></tr>",
                boundary(bucket),
                *n as f64 * 100.0 / count,
                so_far * 100.0 / count,
                (*n as f64 * BAR / most).floor(),
            );
        }
        out + "</table>\n"
    }
}

fn boundary(bucket: usize) -> u64 {
    if bucket == 0 { 0 } else { 1 << bucket }
}

/// Spreads of the last sixty spans of time.
#[derive(Debug)]
struct Ring {
    /// Seconds.
    span: u64,
    /// With the number of the span that each is of.
    slots: Box<[(u64, Spread); 60]>,
}

impl Ring {
    fn new(span: u64) -> Ring {
        Ring { span, slots: Box::new([(0, Spread::default()); 60]) }
    }

    fn add(&mut self, second: u64, micros: u64) {
        let number = second / self.span;
        let slot = &mut self.slots[(number % 60) as usize];
        if slot.0 != number {
            *slot = (number, Spread::default());
        }
        slot.1.add(micros);
    }

    fn sum(&self, second: u64) -> Spread {
        let recent = |of: &&(u64, Spread)| of.0 + 60 > second / self.span;
        self.slots.iter().filter(recent).fold(Spread::default(), |sum, (_, spread)| sum.join(spread))
    }
}

/// All three; times are in seconds of a clock that does not go back.
#[derive(Debug)]
pub(super) struct Latency {
    minute: Ring,
    hour: Ring,
    total: Spread,
}

impl Default for Latency {
    fn default() -> Latency {
        Latency { minute: Ring::new(1), hour: Ring::new(60), total: Spread::default() }
    }
}

impl Latency {
    pub fn add(&mut self, second: u64, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.minute.add(second, micros);
        self.hour.add(second, micros);
        self.total.add(micros);
    }

    /// The columns behind a family's lists: what they are over, and how it was.
    pub fn column(&self, column: usize, second: u64) -> Option<(&'static str, Spread)> {
        match column {
            0 => Some(("last minute", self.minute.sum(second))),
            1 => Some(("last hour", self.hour.sum(second))),
            2 => Some(("all time", self.total)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_go() {
        let mut latency = Latency::default();
        // As Go's page showed them for calls of 1.488, 4.363, 3.716 and 2.051 ms.
        for micros in [1488, 4363, 3716, 2051] {
            latency.add(7, Duration::from_micros(micros));
        }
        let page = latency.column(2, 7).unwrap().1.html();
        for text in ["Count: 4<", "Mean: 2904<", "StdDev: 1175<", "Median: 3072<", "width: 175;", "width: 350;"] {
            assert!(page.contains(text), "{text} in {page}");
        }
    }

    #[test]
    fn what_is_old_is_left_out() {
        let mut latency = Latency::default();
        for second in [0, 59, 60, 3600] {
            latency.add(second, Duration::from_micros(3));
        }
        let count = |column, second| latency.column(column, second).unwrap().1.count();
        assert_eq!((count(0, 3600), count(0, 3700)), (1, 0));
        assert_eq!((count(1, 3600), count(2, 3600)), (2, 4), "a minute holds its seconds");
        assert!(latency.column(3, 0).is_none());
        assert_eq!(Latency::default().column(0, 0).unwrap().1.median(), 0);
    }
}
