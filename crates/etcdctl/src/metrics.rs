//! A page of metrics, as far as the tools look at it: single values, sums over labels, and quantiles of histograms.

use std::collections::BTreeMap;

/// Series of one page: each line's name with its labels, and its value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    series: BTreeMap<String, Vec<(String, f64)>>,
}

impl Metrics {
    /// Reads a page; lines that are no series are left out.
    pub fn parse(page: &str) -> Metrics {
        let mut series: BTreeMap<String, Vec<(String, f64)>> = BTreeMap::new();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let Some((head, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = head.split_once('{').unwrap_or((head, ""));
            series.entry(name.to_owned()).or_default().push((labels.trim_end_matches('}').to_owned(), value));
        }
        Metrics { series }
    }

    /// The sum of a metric over all its labels; `None`: it is not there.
    pub fn sum(&self, name: &str) -> Option<f64> {
        self.sum_where(name, "")
    }

    /// The sum over the labels that hold this text.
    pub fn sum_where(&self, name: &str, labels: &str) -> Option<f64> {
        let all = self.series.get(name)?.iter().filter(|(own, _)| own.contains(labels));
        Some(all.map(|(_, value)| value).sum())
    }

    /// The text of a label of a metric's first series.
    pub fn label(&self, name: &str, label: &str) -> Option<String> {
        let (labels, _) = self.series.get(name)?.first()?;
        Some(labels.split(&format!("{label}=\"")).nth(1)?.split('"').next()?.to_owned())
    }

    /// A histogram over all its labels: counts below each bound, in order of the bounds.
    pub fn histogram(&self, name: &str) -> Histogram {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for (labels, count) in self.series.get(&format!("{name}_bucket")).into_iter().flatten() {
            let Some(bound) = bound(labels) else { continue };
            match buckets.iter_mut().find(|(other, _)| *other == bound) {
                Some((_, sum)) => *sum += count,
                None => buckets.push((bound, *count)),
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        Histogram { buckets }
    }
}

/// The bound `le` of a bucket.
fn bound(labels: &str) -> Option<f64> {
    let text = labels.split("le=\"").nth(1)?.split('"').next()?;
    let bound: f64 = if text == "+Inf" { f64::INFINITY } else { text.parse().ok()? };
    (!bound.is_nan()).then_some(bound)
}

/// How many observations were not above each bound.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    buckets: Vec<(f64, f64)>,
}

impl Histogram {
    /// All observations.
    pub fn count(&self) -> f64 {
        self.buckets.last().map_or(0.0, |(_, count)| *count)
    }

    /// What came since an earlier page.
    pub fn since(&self, before: &Histogram) -> Histogram {
        let earlier = |bound: f64| before.buckets.iter().find(|(other, _)| *other == bound).map_or(0.0, |(_, n)| *n);
        let buckets = self.buckets.iter().map(|(bound, count)| (*bound, (count - earlier(*bound)).max(0.0)));
        Histogram { buckets: buckets.collect() }
    }

    /// The bound that this share of the observations is not above; `None`: there are none.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = self.count() * share;
        let found = self.buckets.iter().find(|(_, count)| *count >= wanted);
        found.filter(|_| self.count() > 0.0).map(|(bound, _)| *bound)
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    const PAGE: &str = "# TYPE a histogram\na_bucket{to=\"x\",le=\"0.1\"} 90\na_bucket{to=\"x\",le=\"+Inf\"} 100\n\
                        a_bucket{to=\"y\",le=\"0.1\"} 9\na_bucket{to=\"y\",le=\"+Inf\"} 10\nb 2e+09\nc{k=\"1\"} 1\nc{k=\"2\"} 2\n";

    #[test]
    fn values_sums_and_quantiles_are_read() {
        let metrics = Metrics::parse(PAGE);
        assert_eq!(metrics.sum("b"), Some(2e9));
        assert_eq!((metrics.sum("c"), metrics.sum_where("c", "k=\"2\"")), (Some(3.0), Some(2.0)));
        assert_eq!(metrics.label("c", "k").as_deref(), Some("1"));
        assert_eq!(metrics.sum("d"), None);
        let a = metrics.histogram("a");
        assert_eq!((a.count(), a.quantile(0.5), a.quantile(0.99)), (110.0, Some(0.1), Some(f64::INFINITY)));
        assert_eq!(a.since(&a).quantile(0.5), None);
        assert_eq!(metrics.histogram("none").quantile(0.5), None);
        assert_eq!(Metrics::parse("x\n\u{0} y\n{} 1\nq_bucket{le=\"NaN\"} 1").histogram("q").count(), 0.0);
    }
}
