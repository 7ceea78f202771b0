//! Two servers side by side: each row in alternating runs, one server at a time, in folders of their own.

pub mod across;
pub mod copy;
pub mod disturb;
pub mod measure;
pub mod rows;
pub mod seeds;
pub mod server;
pub mod table;
pub mod targets;

use crate::floors::Floors;
use across::Results;
use measure::{Figures, Measure};
use rows::Row;
use serde_json::json;
use server::Side;
use std::fs::File;
use std::io::{self, Write};
use table::Pairs;

/// All that a comparison needs.
#[derive(Debug)]
pub struct Comparison {
    pub a: Side,
    pub b: Side,
    pub rows: Vec<Row>,
    pub pairs: usize,
    pub measure: Measure,
    pub floors: Floors,
    /// One JSON object a run is appended here.
    pub json: Option<File>,
}

impl Comparison {
    /// Runs all rows; the table is written to `out` row by row, so that a long run shows what it has.
    pub fn run(&mut self, out: &mut impl Write) -> io::Result<()> {
        if self.measure.open_rate <= 0.0 && self.rows.iter().any(|row| matches!(row.kind, rows::Kind::Open { .. })) {
            self.measure.open_rate = self.half_of_the_slower_peak()?;
            eprintln!("open-loop rate: {:.0} /s, half of the slower server's peak", self.measure.open_rate);
        }
        write!(out, "{}", table::head(&self.a.name, &self.b.name))?;
        let mut results = Results::new();
        for row in self.rows.clone() {
            let pairs = self.row(&row)?;
            write!(out, "{}", table::lines(&row, &pairs, &self.floors))?;
            out.flush()?;
            results.push((row, pairs));
        }
        self.below(&results, out)
    }

    /// What follows from all rows together.
    fn below(&self, results: &Results, out: &mut impl Write) -> io::Result<()> {
        let across = across::all(results);
        write!(out, "{}", across::table(&across, &self.a.name, &self.b.name))?;
        write!(out, "{}", targets::table(results, &across))?;
        write!(out, "{}", table::load_shares(&self.load_shares(results)))
    }

    fn load_shares(&self, results: &Results) -> Vec<(String, String, f64)> {
        let mut shares = Vec::new();
        for (row, pairs) in results {
            for (a, b) in pairs {
                let sides = [(&self.a, a), (&self.b, b)];
                let share = |(side, figures): (&Side, &Figures)| {
                    Some((side.name.clone(), row.name.clone(), figures.load_share()?))
                };
                shares.extend(sides.into_iter().filter_map(share));
            }
        }
        shares
    }

    fn row(&mut self, row: &Row) -> io::Result<Pairs> {
        let mut pairs = Pairs::new();
        for pair in 0..self.pairs {
            let a = self.one(row, pair, &self.a.clone())?;
            let b = self.one(row, pair, &self.b.clone())?;
            pairs.push((a, b));
        }
        Ok(pairs)
    }

    /// One run. A server that fails leaves its error in the table, and the other rows go on.
    fn one(&mut self, row: &Row, pair: usize, side: &Side) -> io::Result<Figures> {
        let figures = self.measure.row(row, side).unwrap_or_else(|error| Figures::of_error(&error));
        // The first metric of a row is its rate.
        let (metric, rate) = figures.metrics.first().copied().unwrap_or((measure::RATE, 0.0));
        let failed: u64 = figures.errors.values().sum();
        eprintln!("{row}, pair {}, {}: {metric} {rate:.0}, {failed} errors", pair + 1, side.name);
        for error in figures.errors.keys() {
            eprintln!("  {error}");
        }
        if let Some(json) = &mut self.json {
            let metrics: serde_json::Map<_, _> =
                figures.metrics.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
            let line = json!({
                "row": row.name, "pair": pair + 1, "side": side.name, "metrics": metrics, "errors": figures.errors,
            });
            writeln!(json, "{line}")?;
        }
        Ok(figures)
    }

    fn half_of_the_slower_peak(&mut self) -> io::Result<f64> {
        let (a, b) = (self.measure.peak(&self.a)?, self.measure.peak(&self.b)?);
        Ok((a.min(b) / 2.0).max(1.0))
    }
}
