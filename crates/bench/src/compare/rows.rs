//! The rows of the table: what each measures, by name.

use super::disturb::Disturbance;
use std::fmt;

/// Rows of `--rows all`, in the table's order.
pub const ALL: [&str; 30] = [
    "put-1",
    "put-64",
    "put-1000",
    "put-one-1",
    "put-one-64",
    "put-one-1000",
    "range-s-1",
    "range-s-64",
    "range-s-1000",
    "range-l-1",
    "range-l-64",
    "range-l-1000",
    "lease-64",
    "lease-1000",
    "txn-mixed-64",
    "txn-mixed-1000",
    "open-put",
    "open-put-watch",
    "open-put-compact",
    "open-put-defrag",
    "open-put-list",
    "watch-0-500",
    "watch-1-500",
    "watch-100-500",
    "watch-1-max",
    "watch-100-max",
    "put-16000",
    "range-s-16000",
    "range-l-16000",
    "load",
];

/// Sizes that rows share.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Keys of the key space.
    pub keys: u64,
    pub value: usize,
    /// Keys of the row `load`.
    pub load_keys: u64,
    /// Revisions that the disturbing watcher is behind.
    pub behind: u64,
    /// Revisions that the disturbing compaction discards.
    pub compacted: u64,
    /// Watchers of the watch rows.
    pub watchers: usize,
    /// Clients that put in the watch rows without a rate.
    pub watch_put_clients: usize,
    /// Clients of the open-loop rows.
    pub open_clients: usize,
}

/// What a row does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Puts to random keys of the key space, or all to one key.
    Put {
        single: bool,
    },
    Range {
        serializable: bool,
    },
    Lease,
    TxnMixed,
    /// Puts at a given rate, times from when they were due.
    Open {
        disturbance: Option<Disturbance>,
    },
    /// Watchers spread over `keys` keys, or none of 0; puts to those keys (of 0: [`UNWATCHED_KEYS`]) at a rate, or as fast
    /// as they are answered.
    Watch {
        keys: usize,
        rate: Option<u64>,
    },
    /// Loads many keys, restarts, reads.
    Load,
}

/// What a server holds before a row begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    pub keys: u64,
    /// Revisions written to random ones of the keys when all were there.
    pub history: u64,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub name: String,
    pub kind: Kind,
    pub clients: usize,
}

impl Row {
    /// The row of a name such as `put-64` or `open-put-compact`. Client counts are free.
    pub fn parse(name: &str, sizes: &Sizes) -> Option<Row> {
        let row = |kind, clients| Some(Row { name: name.to_owned(), kind, clients });
        if let Some(disturbance) = name.strip_prefix("open-put") {
            return row(Kind::Open { disturbance: disturbance_of(disturbance, sizes)? }, sizes.open_clients);
        }
        if name == "load" {
            return row(Kind::Load, LOAD_CLIENTS);
        }
        let (start, last) = name.rsplit_once('-')?;
        if let Some(keys) = start.strip_prefix("watch-") {
            let rate = if last == "max" { None } else { Some(last.parse().ok()?) };
            let clients = if rate.is_some() { PACED_PUT_CLIENTS } else { sizes.watch_put_clients };
            return row(Kind::Watch { keys: keys.parse().ok()?, rate }, clients);
        }
        row(closed(start)?, last.parse().ok().filter(|clients| *clients > 0)?)
    }

    /// Connections: one a client up to a hundred.
    pub fn conns(&self) -> usize {
        self.clients.min(CONNS_MAX)
    }

    /// What must be there before; `None`: nothing.
    pub fn state(&self, sizes: &Sizes) -> Option<State> {
        let history = match self.kind {
            Kind::Open { disturbance } => disturbance.map_or(0, Disturbance::history),
            Kind::Put { single: false } | Kind::Range { .. } | Kind::TxnMixed => 0,
            Kind::Put { single: true } | Kind::Lease | Kind::Watch { .. } | Kind::Load => return None,
        };
        Some(State { keys: sizes.keys, history })
    }

    /// Whether each request waits for the disk.
    pub fn writes(&self) -> bool {
        matches!(self.kind, Kind::Put { .. })
    }
}

const CONNS_MAX: usize = 100;
/// Clients of the row `load`.
pub const LOAD_CLIENTS: usize = 256;
/// Clients that put in the watch rows with a rate.
const PACED_PUT_CLIENTS: usize = 16;
/// Keys of the watch rows without watchers.
pub const UNWATCHED_KEYS: usize = 100;

fn disturbance_of(name: &str, sizes: &Sizes) -> Option<Option<Disturbance>> {
    Some(match name {
        "" => None,
        "-watch" => Some(Disturbance::Watch { behind: sizes.behind }),
        "-compact" => Some(Disturbance::Compact { revisions: sizes.compacted }),
        "-defrag" => Some(Disturbance::Defragment),
        "-list" => Some(Disturbance::List { keys: sizes.keys }),
        _ => return None,
    })
}

fn closed(name: &str) -> Option<Kind> {
    Some(match name {
        "put" => Kind::Put { single: false },
        "put-one" => Kind::Put { single: true },
        "range-s" => Kind::Range { serializable: true },
        "range-l" => Kind::Range { serializable: false },
        "lease" => Kind::Lease,
        "txn-mixed" => Kind::TxnMixed,
        _ => return None,
    })
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Small ones.
    pub const SIZES: Sizes = Sizes {
        keys: 100,
        value: 8,
        load_keys: 5,
        behind: 50,
        compacted: 60,
        watchers: 10,
        watch_put_clients: 32,
        open_clients: 64,
    };

    #[test]
    fn every_row_of_all_has_a_meaning_and_its_own_name() {
        for name in ALL {
            assert_eq!(Row::parse(name, &SIZES).map(|row| row.name).as_deref(), Some(name));
        }
    }

    #[test]
    fn saturated_watch_rows_put_with_clients_of_their_own() {
        let row = |name| Row::parse(name, &SIZES).map(|row| (row.kind, row.clients));
        assert_eq!(row("watch-0-500"), Some((Kind::Watch { keys: 0, rate: Some(500) }, PACED_PUT_CLIENTS)));
        assert_eq!(row("watch-100-max"), Some((Kind::Watch { keys: 100, rate: None }, 32)));
    }

    #[test]
    fn client_counts_are_free() {
        let row = Row::parse("range-l-16000", &SIZES);
        assert_eq!(
            row.as_ref().map(|row| (row.kind, row.clients, row.conns())),
            Some((Kind::Range { serializable: false }, 16_000, 100))
        );
        let row = Row::parse("open-put-compact", &SIZES);
        let state = State { keys: 100, history: 60 };
        assert_eq!(row.map(|row| (row.clients, row.state(&SIZES))), Some((64, Some(state))));
        for wrong in ["", "put", "put-0", "put-x", "open-put-x", "watch-x-max", "watch-1-fast", "get-5"] {
            assert_eq!(Row::parse(wrong, &SIZES), None, "{wrong}");
        }
    }
}
