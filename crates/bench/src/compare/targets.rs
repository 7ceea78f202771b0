//! The product's promises as bounds on measured ratios: the first server against the second, or against itself in another
//! row ([`across`](super::across)).

use super::across::{Across, Results, has_errors};
use super::measure::{PUT_P99, RATE, RESTART, RSS_ANON, RSS_ANON_RESTARTED, SERVER_CPU};
use super::table::{median, ratios, rounded};
use Bound::{AtLeast, AtMost};
use std::fmt::Write;

/// Where a ratio must be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(self, ratio: f64) -> bool {
        match self {
            AtLeast(bound) => ratio >= bound,
            AtMost(bound) => ratio <= bound,
        }
    }

    fn text(self) -> String {
        match self {
            AtLeast(bound) => format!("≥ {}", rounded(bound)),
            AtMost(bound) => format!("≤ {}", rounded(bound)),
        }
    }
}

/// Bounds on metrics of some rows: names, or beginnings of names before a `*`.
type Target = (&'static [&'static str], &'static str, Bound);

const THIRD: f64 = 1.0 / 3.0;
const HALF: f64 = 0.5;

/// The first server divided by the second, in the same row.
const AGAINST_SECOND: &[Target] = &[
    (&["put-1000", "put-one-1000"], RATE, AtLeast(3.0)),
    (&["put-64", "put-one-64"], RATE, AtLeast(2.0)),
    (&["put-*"], SERVER_CPU, AtMost(THIRD)),
    (&["put-1", "put-one-1"], "p50 ms", AtMost(0.8)),
    (&["put-64", "put-one-64", "put-1000", "put-one-1000"], "p99 ms", AtMost(HALF)),
    (&["range-*"], RATE, AtLeast(1.5)),
    (&["range-*"], SERVER_CPU, AtMost(0.6)),
    (&["lease-*"], RATE, AtLeast(2.0)),
    (&["txn-mixed-*"], RATE, AtLeast(2.0)),
    (&["open-put"], "p99 ms", AtMost(HALF)),
    (&["open-put"], "p99.9 ms", AtMost(HALF)),
    (&["watch-1-500", "watch-100-500"], "p99 ms", AtMost(HALF)),
    (&["watch-1-max"], RATE, AtLeast(1.0)),
    (&["watch-100-max"], RATE, AtLeast(4.0)),
    (&["load"], RSS_ANON, AtMost(HALF)),
    (&["load"], RSS_ANON_RESTARTED, AtMost(HALF)),
    (&["load"], RESTART, AtMost(THIRD)),
];

/// The first server divided by itself in the row that [`super::across`] names.
const AGAINST_ITSELF: &[Target] = &[
    (&["open-put-*"], "p99 ms", AtMost(1.2)),
    (&["watch-*"], PUT_P99, AtMost(1.2)),
    (&["put-*", "range-*"], RATE, AtLeast(0.8)),
];

/// The list of targets of the rows that ran, with what was measured; empty where there is none.
pub fn table(results: &Results, across: &[Across]) -> String {
    let mut lines = String::new();
    for target in AGAINST_SECOND {
        for (row, pairs) in results.iter().filter(|(row, _)| names(target, &row.name)) {
            let metric = target.1;
            let values = pairs.iter().filter_map(|(a, b)| Some((a.get(metric)?, b.get(metric)?)));
            line(&mut lines, target, &row.name, "the second server", median(&ratios(values)), has_errors(pairs));
        }
    }
    for target in AGAINST_ITSELF {
        for one in across.iter().filter(|one| names(target, &one.row) && one.metric == target.1) {
            line(&mut lines, target, &one.row, &format!("its own {}", one.by), one.first(), one.failed);
        }
    }
    if lines.is_empty() {
        return lines;
    }
    format!("\n| row | the first server's … | ÷ | target | measured | |\n|---|---|---|---|---|---|\n{lines}")
}

fn names((rows, ..): &Target, name: &str) -> bool {
    rows.iter().any(|row| match row.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *row,
    })
}

/// A row with errors is no result: its target is open.
fn line(text: &mut String, (_, metric, bound): &Target, row: &str, by: &str, measured: Option<f64>, errors: bool) {
    let verdict = match measured {
        _ if errors => "**errors**",
        None => "**not measured**",
        Some(ratio) if bound.holds(ratio) => "met",
        Some(_) => "**missed**",
    };
    let measured = measured.map_or_else(|| "–".to_owned(), rounded);
    // Writing to a String cannot fail.
    let _ = writeln!(text, "| {row} | {metric} | {by} | {} | {measured} | {verdict} |", bound.text());
}

#[cfg(test)]
mod tests {
    use super::super::across::{all, tests::result};
    use super::super::rows::ALL;
    use super::*;

    fn verdicts(results: &Results) -> Vec<String> {
        table(results, &all(results)).lines().skip(3).map(str::to_owned).collect()
    }

    #[test]
    fn a_target_is_met_or_missed_by_the_median_of_the_pairs_ratios() {
        let met = vec![result("put-1000", RATE, &[(9.0, 1.0), (3.0, 1.0), (2.0, 1.0)])];
        assert_eq!(verdicts(&met)[0], "| put-1000 | rate /s | the second server | ≥ 3.00 | 3.00 | met |");
        let missed = vec![result("range-l-64", SERVER_CPU, &[(7.0, 10.0)])];
        let expected = "| range-l-64 | server CPU µs/op | the second server | ≤ 0.600 | 0.700 | **missed** |";
        assert!(verdicts(&missed).contains(&expected.to_owned()), "{:?}", verdicts(&missed));
    }

    #[test]
    fn a_row_with_errors_meets_nothing() {
        let mut results = vec![result("lease-64", RATE, &[(9.0, 1.0)])];
        results[0].1[0].0.errors.insert("refused".to_owned(), 1);
        assert_eq!(verdicts(&results), ["| lease-64 | rate /s | the second server | ≥ 2.00 | 9.00 | **errors** |"]);
    }

    #[test]
    fn the_first_server_is_held_against_itself_too() {
        let results = vec![
            result("open-put", "p99 ms", &[(1.0, 9.0)]),
            result("open-put-defrag", "p99 ms", &[(1.1, 9.0)]),
            result("put-1000", RATE, &[(10.0, 1.0)]),
            result("put-16000", RATE, &[(7.0, 1.0)]),
        ];
        let found = verdicts(&results);
        for line in [
            "| open-put-defrag | p99 ms | its own open-put | ≤ 1.20 | 1.10 | met |",
            "| put-16000 | rate /s | its own put-1000 | ≥ 0.800 | 0.700 | **missed** |",
        ] {
            assert!(found.contains(&line.to_owned()), "{found:?}");
        }
    }

    #[test]
    fn every_row_but_the_unwatched_one_has_a_target() {
        let targets = || AGAINST_SECOND.iter().chain(AGAINST_ITSELF);
        let without: Vec<_> = ALL.into_iter().filter(|name| !targets().any(|target| names(target, name))).collect();
        assert_eq!(without, [""; 0]);
        let unknown = targets().flat_map(|target| target.0).filter(|row| !row.ends_with('*') && !ALL.contains(row));
        assert_eq!(unknown.count(), 0);
    }
}
