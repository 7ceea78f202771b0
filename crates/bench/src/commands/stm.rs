//! `stm`.

use super::{Done, Problem, Session};
use crate::given::Given;
use crate::workloads::lock::Locker;
use crate::workloads::stm::{Isolation, Stm};
use cobra::{Flag, Kind};

pub const FLAGS: &[Flag] = &[
    Flag::new(
        "isolation",
        Kind::Text,
        "r",
        "Read Committed (c), Repeatable Reads (r), Serializable (s), or Snapshot (ss)",
    ),
    Flag::new("keys", Kind::Int, "1", "Total unique keys accessible by the benchmark"),
    Flag::new("total", Kind::Int, "10000", "Total number of completed STM transactions"),
    Flag::new("keys-per-txn", Kind::Int, "1", "Number of keys to access per transaction"),
    Flag::new("txn-wr-percent", Kind::Int, "50", "Percentage of keys to overwrite per transaction"),
    Flag::new(
        "stm-locker",
        Kind::Text,
        "stm",
        "Wrap STM transaction with a custom locking mechanism (stm, lock-client, lock-rpc)",
    ),
    Flag::new("val-size", Kind::Int, "8", "Value size of each STM put request"),
    Flag::new("rate", Kind::Int, "0", "Maximum STM transactions per second (0 is no limit)"),
];

/// `stm`
pub fn run(parsed: &Given) -> Done {
    let stm = workload(parsed)?;
    let session = Session::start(parsed)?;
    let pace = session.pace(parsed.count("rate"), 1)?;
    let outcome = session.run(parsed.count("total"), pace, stm)?;
    session.perfdash("stm", &outcome.lanes[0])?;
    print!("{}", session.report(&outcome.lanes[0], outcome.elapsed));
    Ok(())
}

fn workload(parsed: &Given) -> Result<Stm, Problem> {
    let (keys, percent, per_txn) = (parsed.int("keys"), parsed.int("txn-wr-percent"), parsed.int("keys-per-txn"));
    if keys <= 0 {
        return Err(Problem::Failed(format!("expected positive --keys, got ({keys})")));
    }
    if !(0..=100).contains(&percent) {
        return Err(Problem::Failed(format!("expected [0, 100] --txn-wr-percent, got ({percent})")));
    }
    if !(0..=keys).contains(&per_txn) {
        return Err(Problem::Failed(format!("expected --keys-per-txn between 0 and {keys}, got ({per_txn})")));
    }
    let (isolation, locker) = (parsed.text("isolation"), parsed.text("stm-locker"));
    Ok(Stm {
        isolation: Isolation::parse(isolation).ok_or_else(|| format!("unexpected isolation {isolation:?}"))?,
        locker: Locker::parse(locker).ok_or_else(|| format!("unexpected stm locker {locker:?}"))?,
        keys: parsed.count("keys"),
        keys_per_txn: parsed.count("keys-per-txn"),
        write_percent: parsed.count("txn-wr-percent"),
        value_size: parsed.size("val-size"),
    })
}
