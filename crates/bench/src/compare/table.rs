//! Medians, ratios and their spread, as a Markdown table.

use super::measure::{Figures, RATE, SERVER_CPU};
use super::rows::Row;
use crate::floors::Floors;
use std::fmt::Write;

/// A row's runs: pairs of (a, b), in the order they ran.
pub type Pairs = Vec<(Figures, Figures)>;

/// The table's head for two servers.
pub fn head(a: &str, b: &str) -> String {
    format!(
        "| row | metric | {a}: median (min–max) | {b}: median (min–max) | {a} ÷ {b}: median (min–max) | % of floor {a} / {b} |\n\
         |---|---|---|---|---|---|\n"
    )
}

/// The lines of one row.
pub fn lines(row: &Row, pairs: &Pairs, floors: &Floors) -> String {
    let mut text = String::new();
    // A run that came to nothing has no metrics.
    let metrics = pairs.iter().flat_map(|(a, b)| [&a.metrics, &b.metrics]).max_by_key(|metrics| metrics.len());
    for (place, (metric, _)) in metrics.into_iter().flatten().enumerate() {
        let values: Vec<(f64, f64)> =
            pairs.iter().filter_map(|(a, b)| Some((a.get(metric)?, b.get(metric)?))).collect();
        let name = if place == 0 { row.name.as_str() } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| {name} | {metric} | {} |", cells(row, metric, &values, floors));
    }
    errors(&mut text, pairs);
    text
}

fn cells(row: &Row, metric: &str, values: &[(f64, f64)], floors: &Floors) -> String {
    let a: Vec<f64> = values.iter().map(|(a, _)| *a).collect();
    let b: Vec<f64> = values.iter().map(|(_, b)| *b).collect();
    let ratios = ratios(values.iter().copied());
    let floor = match (share(row, metric, &a, floors), share(row, metric, &b, floors)) {
        (Some(a), Some(b)) => format!("{a:.0} % / {b:.0} %"),
        _ => String::new(),
    };
    format!("{} | {} | {} | {floor}", spread(&a), spread(&b), spread(&ratios))
}

/// How near to the floor: the rate's share of the floor's, the floor's CPU time's share of this one.
fn share(row: &Row, metric: &str, values: &[f64], floors: &Floors) -> Option<f64> {
    let floor = floors.of(row.clients, row.writes())?;
    let value = median(values)?;
    match metric {
        RATE => Some(100.0 * value / floor.rate),
        SERVER_CPU if value > 0.0 => Some(100.0 * floor.cpu / value),
        _ => None,
    }
}

fn errors(text: &mut String, pairs: &Pairs) {
    for (pair, (a, b)) in pairs.iter().enumerate() {
        for (side, figures) in [("first", a), ("second", b)] {
            for (error, count) in &figures.errors {
                // A server's log may stand in it, line by line.
                let error = error.trim_end().replace('\n', " · ").replace('|', "\\|");
                let _ = writeln!(text, "| | **error** | pair {}, {side} server: {count} × {error} | | | |", pair + 1);
            }
        }
    }
}

/// The quotients of pairs, where there is one.
pub fn ratios(values: impl Iterator<Item = (f64, f64)>) -> Vec<f64> {
    values.filter(|(_, b)| *b != 0.0).map(|(a, b)| a / b).collect()
}

/// `median (min–max)`.
pub fn spread(values: &[f64]) -> String {
    let Some(median) = median(values) else {
        return "–".to_owned();
    };
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{} ({}–{})", rounded(median), rounded(least), rounded(greatest))
}

/// The rows' largest shares of the load tool's CPU time in the server's, as a sentence each server.
pub fn load_shares(shares: &[(String, String, f64)]) -> String {
    let mut text = String::new();
    let mut sides: Vec<&String> = shares.iter().map(|(side, _, _)| side).collect();
    sides.sort();
    sides.dedup();
    for side in sides {
        let of_side = shares.iter().filter(|(name, _, _)| name == side);
        if let Some((_, row, share)) = of_side.max_by(|one, two| one.2.total_cmp(&two.2)) {
            let percent = share * 100.0;
            let _ =
                writeln!(text, "\nThe load tool needs at most {percent:.0} % of the CPU time of {side} (row {row}).");
        }
    }
    text
}

/// The middle value; the mean of the two middle ones.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        len if len % 2 == 1 => Some(sorted[half]),
        _ => Some((sorted[half - 1] + sorted[half]) / 2.0),
    }
}

/// Three significant digits, or the whole number.
pub fn rounded(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::rows::{Kind, Row};
    use crate::floors::Floor;

    fn figures(rate: f64, cpu: f64) -> Figures {
        Figures { metrics: vec![(RATE, rate), (SERVER_CPU, cpu)], ..Figures::default() }
    }

    #[test]
    fn the_ratio_is_the_median_of_the_pairs_ratios() {
        let row = Row { name: "range-s-64".to_owned(), kind: Kind::Range { serializable: true }, clients: 64 };
        let pairs = vec![
            (figures(200.0, 10.0), figures(100.0, 40.0)),
            (figures(900.0, 20.0), figures(300.0, 40.0)),
            (figures(400.0, 5.0), figures(400.0, 40.0)),
        ];
        let mut floors = Floors::default();
        floors.grpc.insert(64, Floor { rate: 1000.0, cpu: 5.0, ..Floor::default() });
        let expected = "\
| range-s-64 | rate /s | 400 (200–900) | 300 (100–400) | 2.00 (1.00–3.00) | 40 % / 30 % |
|  | server CPU µs/op | 10.0 (5.00–20.0) | 40.0 (40.0–40.0) | 0.250 (0.125–0.500) | 50 % / 12 % |
";
        assert_eq!(lines(&row, &pairs, &floors), expected);
    }

    #[test]
    fn errors_stand_in_the_table() {
        let row = Row { name: "put-1".to_owned(), kind: Kind::Put { single: false }, clients: 1 };
        let mut wrong = figures(1.0, 1.0);
        wrong.errors.insert("event missing".to_owned(), 7);
        let text = lines(&row, &vec![(figures(1.0, 1.0), wrong)], &Floors::default());
        assert!(text.contains("| | **error** | pair 1, second server: 7 × event missing | | | |\n"), "{text}");
    }

    #[test]
    fn a_run_that_came_to_nothing_leaves_its_error() {
        let row = Row { name: "put-1".to_owned(), kind: Kind::Put { single: false }, clients: 1 };
        let nothing = Figures::of_error(&std::io::Error::other("it ended\na log | of it\n"));
        let text = lines(&row, &vec![(nothing, figures(5.0, 1.0))], &Floors::default());
        assert!(text.contains("| put-1 | rate /s | – | – | – |"), "{text}");
        assert!(text.contains("no figures: it ended · a log \\| of it | | | |\n"), "{text}");
    }

    #[test]
    fn the_tools_share_is_told_by_its_worst_row() {
        let share = |side: &str, row: &str, share| (side.to_owned(), row.to_owned(), share);
        let shares = [share("a", "put-1", 0.25), share("b", "put-1", 0.1), share("a", "put-64", 0.5)];
        let expected = "\nThe load tool needs at most 50 % of the CPU time of a (row put-64).\n\n\
                        The load tool needs at most 10 % of the CPU time of b (row put-1).\n";
        assert_eq!(load_shares(&shares), expected);
    }

    #[test]
    fn medians_of_even_numbers_are_means() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }
}
