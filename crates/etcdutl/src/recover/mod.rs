//! `recover`: of what is left of a cluster's members, finds the one that has most, says what would be lost, and makes of it
//! the first member of a new cluster.
//!
//! ```text
//! directories ─► logs, databases ─► order by (term, index) ─► report          the files that are there stay as they are
//!                                   the first one's database + the rest of its log ─► as from a snapshot ─► --data-dir
//! ```
//! Why that order: an entry is committed once a quorum's logs hold it, and who leads later has it (Raft §5.4). So among the
//! logs of a quorum the one with the highest last (term, index) holds everything that was acknowledged; with fewer, what only
//! the others had is gone.
//! All entries of that log are kept, also those it does not know to be committed: a log learns of a commit with what follows it.

mod make;
mod report;

use crate::restore::{FLAGS as RESTORE, Plan};
use crate::standing::Standing;
use crate::{Format, file};
use cobra::{Call, Exit, Flag, Kind};
use std::path::Path;

/// Flags of `recover`: a restore's, but for the snapshot's checksum.
pub static FLAGS: &[Flag] = &[
    Flag::new("data-dir", Kind::Text, "", "directory to make; without it, nothing is made and the report is all"),
    RESTORE[1],
    RESTORE[2],
    RESTORE[3],
    RESTORE[4],
    RESTORE[5],
    RESTORE[8],
    RESTORE[9],
];

/// What was found in a directory, or why it can't be used.
struct Found {
    dir: String,
    standing: Result<Standing, String>,
}

/// All that was found, and what follows from it.
struct Finding {
    /// The most advanced one first, those that can't be used last.
    found: Vec<Found>,
    /// Voters of the cluster, as the most advanced one has it.
    voters: usize,
    /// How many of them have a usable directory here.
    present: usize,
}

impl Finding {
    fn best(&self) -> Option<&Standing> {
        self.found.first().and_then(|found| found.standing.as_ref().ok())
    }

    fn is_quorum(&self) -> bool {
        self.present > self.voters / 2
    }
}

/// `recover DIR…`.
pub fn run(call: &mut Call) -> Result<(), Exit> {
    let format = Format::from_flags(&call.given)?;
    if call.args().is_empty() {
        return Err(Exit::arguments("recover requires the data directories that are left, at least one"));
    }
    let finding = look(call)?;
    report::print(&finding, format)?;
    let Some(best) = finding.best() else {
        return Err(Exit::error("none of the directories can be used: restore a snapshot (etcdutl snapshot restore)"));
    };
    if call.given.text("data-dir").is_empty() {
        report::next(&finding);
        return Ok(());
    }
    let plan = Plan::new(call, &best.dir.join("member/snap/db"))?;
    plan.vacant()?;
    make::make(best, &plan)?;
    eprintln!("{} holds the first member of a new cluster", plan.data_dir.display());
    Ok(())
}

/// Reads all directories.
fn look(call: &Call) -> Result<Finding, Exit> {
    let patience = file::lock_timeout(call);
    let mut found: Vec<Found> = (0..call.args().len())
        .map(|at| {
            let dir = call.arg(at);
            let standing = Standing::of(Path::new(&dir), None, patience);
            Found { dir, standing: standing.map_err(|exit| exit.error.unwrap_or_default()) }
        })
        .collect();
    let order = |found: &Found| found.standing.as_ref().ok().map(|standing| (standing.last(), standing.applied));
    found.sort_by_key(|found| std::cmp::Reverse(order(found)));
    one_cluster(&found)?;
    let usable: Vec<&Standing> = found.iter().filter_map(|found| found.standing.as_ref().ok()).collect();
    let voters = usable.first().map(|best| best.voters()).unwrap_or_default();
    let present = voters.iter().filter(|id| usable.iter().any(|standing| standing.member == **id)).count();
    Ok(Finding { voters: voters.len(), present, found })
}

/// Logs of different clusters have nothing in common.
fn one_cluster(found: &[Found]) -> Result<(), Exit> {
    let mut usable = found.iter().filter_map(|found| found.standing.as_ref().ok());
    let Some(first) = usable.next() else { return Ok(()) };
    match usable.find(|other| other.cluster != first.cluster) {
        None => Ok(()),
        Some(other) => Err(Exit::error(format!(
            "{} belongs to cluster {:x} and {} to cluster {:x}: give directories of one cluster",
            first.dir.display(),
            first.cluster,
            other.dir.display(),
            other.cluster
        ))),
    }
}
