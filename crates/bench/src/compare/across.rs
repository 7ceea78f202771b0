//! What is compared across rows: each server with itself, disturbed and undisturbed, with watchers and without, with many
//! clients and few.

use super::measure::{PUT_P99, RATE};
use super::rows::{Kind, Row};
use super::table::{Pairs, median, ratios, spread};
use std::fmt::Write;

/// Rows with their runs, in the order they ran.
pub type Results = Vec<(Row, Pairs)>;

/// The row that all disturbed ones are compared with.
const UNDISTURBED: &str = "open-put";
/// Clients that are many, and those whose rate they are compared with.
pub const MANY: usize = 16_000;
pub const FEW: usize = 1000;

/// One server's ratio of two rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Across {
    pub row: String,
    /// The row that it is divided by.
    pub by: String,
    pub metric: &'static str,
    /// The pairs' ratios of the first server, and of the second.
    pub sides: [Vec<f64>; 2],
    /// One of the two rows has errors.
    pub failed: bool,
}

impl Across {
    /// The first server's median.
    pub fn first(&self) -> Option<f64> {
        median(&self.sides[0])
    }
}

/// Every comparison that the rows allow.
pub fn all(results: &Results) -> Vec<Across> {
    results.iter().flat_map(|(row, pairs)| of_row(row, pairs, results)).collect()
}

fn of_row(row: &Row, pairs: &Pairs, results: &Results) -> Vec<Across> {
    let Some((by, metrics)) = partner(row) else { return Vec::new() };
    let Some((_, base)) = results.iter().find(|(row, _)| row.name == by) else { return Vec::new() };
    let failed = has_errors(pairs) || has_errors(base);
    let compare = |metric: &&'static str| {
        let sides = [0, 1].map(|side| between(pairs, base, metric, side));
        Across { row: row.name.clone(), by: by.clone(), metric, sides, failed }
    };
    metrics.iter().map(compare).collect()
}

/// The row that a row is to be divided by, and in what.
fn partner(row: &Row) -> Option<(String, &'static [&'static str])> {
    match row.kind {
        Kind::Open { disturbance: Some(_) } => Some((UNDISTURBED.to_owned(), &["p99 ms", "p99.9 ms"])),
        Kind::Watch { keys: 1.., rate: Some(rate) } => Some((format!("watch-0-{rate}"), &[PUT_P99])),
        Kind::Put { .. } | Kind::Range { .. } if row.clients == MANY => {
            let kind = row.name.strip_suffix(&MANY.to_string())?;
            Some((format!("{kind}{FEW}"), &[RATE]))
        }
        _ => None,
    }
}

/// Whether any run of a row had errors: then it is no result.
pub fn has_errors(pairs: &Pairs) -> bool {
    pairs.iter().any(|(a, b)| !a.errors.is_empty() || !b.errors.is_empty())
}

/// The ratios of the runs with the same number.
fn between(pairs: &Pairs, base: &Pairs, metric: &str, side: usize) -> Vec<f64> {
    let of = |pairs: &Pairs, pair: usize| {
        let (a, b) = &pairs[pair];
        if side == 0 { a.get(metric) } else { b.get(metric) }
    };
    let both = pairs.len().min(base.len());
    ratios((0..both).filter_map(|pair| Some((of(pairs, pair)?, of(base, pair)?))))
}

/// A Markdown table of them; empty where there is none.
pub fn table(all: &[Across], first: &str, second: &str) -> String {
    if all.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "\n| across rows | metric | {first}: median (min–max) | {second}: median (min–max) |\n|---|---|---|---|\n"
    );
    for Across { row, by, metric, sides: [a, b], failed } in all {
        let errors = if *failed { " (**with errors**)" } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| {row} ÷ {by}{errors} | {metric} | {} | {} |", spread(a), spread(b));
    }
    text
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::compare::measure::Figures;
    use crate::compare::rows::tests::SIZES;

    /// A row with pairs of runs that measured one thing.
    pub fn result(name: &str, metric: &'static str, values: &[(f64, f64)]) -> (Row, Pairs) {
        let figures = |value| Figures { metrics: vec![(metric, value)], ..Figures::default() };
        let row = Row::parse(name, &SIZES).expect("the tests name rows that exist");
        (row, values.iter().map(|(a, b)| (figures(*a), figures(*b))).collect())
    }

    #[test]
    fn disturbed_rows_are_divided_by_the_undisturbed_one_pair_by_pair() {
        let results = vec![
            result("open-put", "p99 ms", &[(1.0, 10.0), (2.0, 10.0), (4.0, 10.0)]),
            result("open-put-list", "p99 ms", &[(3.0, 5.0), (2.0, 20.0), (4.0, 30.0)]),
        ];
        let expected = "\n| across rows | metric | one: median (min–max) | two: median (min–max) |\n|---|---|---|---|\n\
                        | open-put-list ÷ open-put | p99 ms | 1.00 (1.00–3.00) | 2.00 (0.500–3.00) |\n\
                        | open-put-list ÷ open-put | p99.9 ms | – | – |\n";
        assert_eq!(table(&all(&results), "one", "two"), expected);
    }

    #[test]
    fn rows_without_their_partner_are_not_compared() {
        let alone = vec![result("open-put-list", "p99 ms", &[(1.0, 1.0)]), result("put-16000", RATE, &[(1.0, 1.0)])];
        assert_eq!(table(&all(&alone), "one", "two"), "");
    }

    #[test]
    fn many_clients_are_divided_by_few_and_watched_puts_by_unwatched() {
        let mut results = vec![
            result("range-s-1000", RATE, &[(200.0, 100.0)]),
            result("range-s-16000", RATE, &[(190.0, 50.0)]),
            result("watch-0-500", PUT_P99, &[(1.0, 2.0)]),
            result("watch-100-500", PUT_P99, &[(1.1, 3.0)]),
        ];
        let found = all(&results);
        let lines: Vec<_> = found.iter().map(|one| (one.row.as_str(), one.first(), one.failed)).collect();
        assert_eq!(lines, [("range-s-16000", Some(0.95), false), ("watch-100-500", Some(1.1), false)]);
        results[0].1[0].1.errors.insert("refused".to_owned(), 1);
        assert!(table(&all(&results), "one", "two").contains("| range-s-16000 ÷ range-s-1000 (**with errors**) |"));
    }
}
