//! `check doctor`: asks every member and says what is wrong, or soon will be, and what to do about it.
//!
//! ```text
//! ask: member list ─► Status, alarms, /metrics of each member ─► HashKV of all at one revision      (gather)
//!                       ▼
//! judge: Examined (plain values) ─► findings, ranked                                                (judge)
//!                       ▼
//! show: lines, or JSON                                                                              (show)
//! ```
//! Members that the list names are asked, and the endpoints that were given: the list is the answering member's own, so that it
//! needs no leader. All of it ends within `--command-timeout`; what did not answer by then counts as silent.

mod gather;
mod judge;
mod show;

pub use gather::members;

use crate::globals::Ctl;
use crate::hints;
use crate::metrics::Metrics;
use crate::output::{Format, write_out};
use cobra::{Call, Exit};
use std::time::Duration;

/// What was seen of one member, or of an endpoint that is none's.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// 0: it is not known whose endpoint this is.
    pub id: u64,
    /// Empty: it never started.
    pub name: String,
    /// Where it was asked; empty: nobody says where it is.
    pub endpoint: String,
    pub is_listed: bool,
    pub is_learner: bool,
    pub state: Result<State, String>,
    pub hash: Option<Hash>,
    pub web: Result<Web, String>,
}

impl Default for Member {
    fn default() -> Member {
        Member {
            id: 0,
            name: String::new(),
            endpoint: String::new(),
            is_listed: false,
            is_learner: false,
            state: Err(String::new()),
            hash: None,
            web: Err(String::new()),
        }
    }
}

/// Its answer to Status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub cluster: u64,
    pub version: String,
    pub storage_version: String,
    pub leader: u64,
    pub term: u64,
    pub index: u64,
    pub applied: u64,
    pub revision: i64,
    pub size: i64,
    pub size_in_use: i64,
    pub quota: i64,
    pub errors: Vec<String>,
    pub downgrade: Option<String>,
    /// The quickest of some answers.
    pub round_trip: Duration,
}

/// Its answer to HashKV.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hash {
    pub hash: u32,
    pub revision: i64,
    pub compacted: i64,
}

/// What its web page and its certificate say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Web {
    /// Its clock less ours, seconds; the page has whole seconds, so that up to one is no difference.
    pub clock_offset: Option<f64>,
    /// Whole days that its certificate still counts; negative: it has ended.
    pub certificate_days: Option<i64>,
    pub cluster_version: Option<String>,
    /// 99 of 100 syncs of the log, commits of the page store, round trips to peers took no longer; seconds, since its start.
    pub wal_fsync: Option<f64>,
    pub backend_commit: Option<f64>,
    pub peer_round_trip: Option<f64>,
    /// The page.
    pub metrics: Metrics,
}

/// All that was seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Examined {
    pub members: Vec<Member>,
    /// Whether a member said who the members are.
    pub is_listed: bool,
    /// Alarms: which, and the id of the member that raised it.
    pub alarms: Vec<(String, u64)>,
    /// Why hashes were not compared.
    pub unhashed: Option<String>,
}

/// How bad it is; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Critical,
    Warning,
    Note,
}

/// Something that somebody should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// A word that scripts may look for.
    pub check: &'static str,
    /// Name or endpoint; empty: the cluster.
    pub member: String,
    pub found: String,
    pub cure: String,
}

/// `check doctor`.
pub fn run(call: &mut Call) -> Result<(), Exit> {
    if !call.args().is_empty() {
        return Err(Exit::arguments("check doctor command accepts no arguments"));
    }
    let ctl = Ctl::open(call)?;
    if !matches!(ctl.display.format, Format::Simple | Format::Json) {
        return Err(Exit::feature("check doctor prints in the formats simple and json only"));
    }
    let examined = ctl.block_on_quietly(gather::examine(&ctl));
    let findings = judge::judge(&examined);
    // Findings are hints already.
    hints::silence();
    write_out(show::text(&examined, &findings, ctl.display.format == Format::Json).as_bytes());
    match findings.iter().any(|finding| finding.severity == Severity::Critical) {
        true => Err(Exit::code(1)),
        false => Ok(()),
    }
}
