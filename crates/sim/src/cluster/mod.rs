//! A whole cluster in a world that breaks: shipping members on simulated machines, disks, clocks and a simulated network.
//!
//! One queue of events, one thread, one seed. A turn's effects become visible when it is over, a sync's when it is done; a
//! crash in between discards them. First comes chaos, then peace: then the cluster must converge, serve, and have lost
//! nothing.
//!
//! | room | holds |
//! |---|---|
//! | `plan` | what a seed's world is like |
//! | `world`, `node`, `net`, `queue` | the event loop, machines, links, time |
//! | `clients`, `operator`, `faults` | what is asked, reconfigured, broken |
//! | `history`, `shadow` | what was agreed on, and the model behind each entry; what each log durably holds |
//! | `checks` | what must be true at every moment |
//! | `images` | database snapshots on their way to users |
//! | `scenarios` | worlds in which a known bug of etcd's would show |
//! | `settle` | what must be true in the end |
//! | `story` | the shortest story that fails as a seed did |

mod checks;
mod clients;
mod faults;
mod history;
mod images;
mod net;
mod node;
mod operator;
mod plan;
mod queue;
mod scenarios;
mod settle;
mod shadow;
mod story;
mod world;

pub(crate) use checks::permissions;
pub use plan::{FAULTS, Fault};
pub use scenarios::{SCENARIOS, Scenario};
pub use story::{Shortened, Story, shorten};

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use world::World;

/// What a run did: equal for equal seeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// FNV-1a over everything that happened.
    pub trace: u64,
    pub members: u64,
    pub simulated_us: u64,
    pub events: u64,
    pub messages: u64,
    pub asked: u64,
    pub acknowledged: u64,
    pub ambiguous: u64,
    /// Surely not proposed.
    pub refused: u64,
    pub reads: u64,
    pub renewed: u64,
    pub expired: u64,
    pub entries: u64,
    pub crashes: u64,
    /// Of a disk that failed.
    pub died: u64,
    pub checkpoints: u64,
    /// Databases that followers got.
    pub images: u64,
    /// Jobs that were done, and those that a crash cut short.
    pub defragmented: u64,
    pub installed: u64,
    pub cut_defragmenting: u64,
    pub cut_installing: u64,
    /// Databases that came while a defragmentation was under way, and those that came right after another.
    pub installed_after_defragmenting: u64,
    pub installed_in_a_row: u64,
    /// Transactions that failed at one of their operations, and what deletes were when they were compacted.
    pub failed_txns: u64,
    pub compactions: u64,
    pub compacted_deletes: u64,
    pub alarms: u64,
    /// A leader stood still; another took over.
    pub paused_leaders: u64,
    pub leaders: u64,
    pub promoted: u64,
    /// Database snapshots that users got, and those that were moved to a copy half way.
    pub user_images: u64,
    pub moved_images: u64,
    pub joined: u64,
    pub retired: u64,
    pub watched: u64,
    pub gaps: u64,
    /// Changes of users and roles; requests that were refused for want of permission: before they were proposed, when they
    /// were applied, reads, watches; and answers to users that are not root, keys in them.
    /// Downgrades that were enabled, and what became of the cluster's version; questions whether one could begin.
    pub downgrades: u64,
    pub lowered: u64,
    pub raised: u64,
    pub judged: u64,
    /// Watchers that went on at another member.
    pub moved_watchers: u64,
    /// Files that rotted: of the log, `.snap`, databases; members that came up with one, and those that refused it; and those
    /// that took their place.
    pub rotted: [u64; 3],
    pub rot_survived: u64,
    pub rot_refused: u64,
    pub replaced: u64,
    pub auth_changes: u64,
    pub auth_enabled: u64,
    pub forbidden_at_door: u64,
    pub forbidden_at_apply: u64,
    pub forbidden_reads: u64,
    pub forbidden_watches: u64,
    pub outdated: u64,
    pub answered_users: u64,
    pub faults: BTreeMap<Fault, u64>,
}

/// What many runs did.
#[derive(Debug, Default)]
pub struct Totals {
    pub seeds: u64,
    /// Of the traces of all seeds, in their order: two processes that run the same seeds have the same.
    traces: Digest,
    /// Each figure in the seeds in which it is not zero.
    figures: BTreeMap<String, Vec<u64>>,
}

impl Totals {
    pub fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.traces.mix(&[report.trace]);
        for (name, figure) in report.figures() {
            self.figures.entry(name).or_default().extend((figure > 0).then_some(figure));
        }
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{:<44} {:>14} {:>12} {:>14}", "what", "in all", "% of seeds", "median there")?;
        for (name, figures) in &self.figures {
            let share = figures.len() as f64 * 100.0 / self.seeds as f64;
            let mut sorted = figures.clone();
            sorted.sort_unstable();
            let median = sorted.get(sorted.len() / 2).unwrap_or(&0);
            writeln!(f, "{name:<44} {:>14} {share:>12.1} {median:>14}", figures.iter().sum::<u64>())?;
        }
        writeln!(f, "traces of all seeds together: {:016x}", self.traces.0)
    }
}

impl Report {
    /// Everything that can be added up, by name.
    fn figures(&self) -> impl Iterator<Item = (String, u64)> {
        let named = [
            ("members", self.members),
            ("simulated seconds", self.simulated_us / 1_000_000),
            ("events", self.events),
            ("messages", self.messages),
            ("asked", self.asked),
            ("writes acknowledged", self.acknowledged),
            ("answers ambiguous", self.ambiguous),
            ("writes refused", self.refused),
            ("reads checked", self.reads),
            ("leases renewed", self.renewed),
            ("leases expired", self.expired),
            ("entries", self.entries),
            ("crashes", self.crashes),
            ("died of a disk", self.died),
            ("checkpoints", self.checkpoints),
            ("databases sent", self.images),
            ("databases installed", self.installed),
            ("databases installed, cut by a crash", self.cut_installing),
            ("databases installed, after a defragmentation", self.installed_after_defragmenting),
            ("databases installed, one after another", self.installed_in_a_row),
            ("defragmentations", self.defragmented),
            ("defragmentations, cut by a crash", self.cut_defragmenting),
            ("user's snapshots", self.user_images),
            ("user's snapshots, moved to a copy", self.moved_images),
            ("failed transactions", self.failed_txns),
            ("compactions", self.compactions),
            ("compactions, at a deletion", self.compacted_deletes),
            ("alarms raised", self.alarms),
            ("leaders", self.leaders),
            ("leaders paused", self.paused_leaders),
            ("learners promoted", self.promoted),
            ("members joined", self.joined),
            ("members retired", self.retired),
            ("watch events checked", self.watched),
            ("watch gaps", self.gaps),
            ("downgrades enabled", self.downgrades),
            ("downgrades judged", self.judged),
            ("cluster versions lowered", self.lowered),
            ("cluster versions raised", self.raised),
            ("watchers moved to another member", self.moved_watchers),
            ("rot in a log", self.rotted[0]),
            ("rot in a .snap", self.rotted[1]),
            ("rot in a database", self.rotted[2]),
            ("rot refused", self.rot_refused),
            ("rot survived", self.rot_survived),
            ("rotten members replaced", self.replaced),
            ("users and roles changed", self.auth_changes),
            ("authentication enabled", self.auth_enabled),
            ("forbidden at the door", self.forbidden_at_door),
            ("forbidden when applied", self.forbidden_at_apply),
            ("forbidden reads", self.forbidden_reads),
            ("forbidden watches", self.forbidden_watches),
            ("refused for an old auth revision", self.outdated),
            ("answers to users other than root", self.answered_users),
        ];
        let faults = FAULTS.map(|fault| (format!("fault {fault:?}"), self.faults.get(&fault).copied().unwrap_or(0)));
        named.map(|(name, figure)| (name.to_owned(), figure)).into_iter().chain(faults)
    }
}

/// Everything that happens, for people if they want it, and as a number.
#[derive(Debug)]
pub struct Trace {
    hash: Digest,
    verbose: bool,
    tail: Rc<RefCell<Tail>>,
}

/// FNV-1a of numbers, little-endian.
#[derive(Clone, Copy, Debug)]
struct Digest(u64);

impl Default for Digest {
    fn default() -> Digest {
        Digest(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    fn mix(&mut self, numbers: &[u64]) {
        for byte in numbers.iter().flat_map(|n| n.to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// How much happened, and the last of it: kept by whoever started the run, since a world that fails is gone.
#[derive(Debug, Default)]
struct Tail {
    said: u64,
    now_us: u64,
    /// So many lines are kept.
    keep: usize,
    lines: VecDeque<String>,
}

impl Trace {
    fn new(verbose: bool, tail: Rc<RefCell<Tail>>) -> Trace {
        Trace { hash: Digest::default(), verbose, tail }
    }

    fn mix(&mut self, numbers: &[u64]) {
        self.hash.mix(numbers);
    }

    fn say(&mut self, now_us: u64, what: impl FnOnce() -> String) {
        self.mix(&[now_us]);
        let mut tail = self.tail.borrow_mut();
        tail.said += 1;
        tail.now_us = now_us;
        if !self.verbose && tail.keep == 0 {
            return;
        }
        let line = format!("{:>12.3} ms  {:.600}", now_us as f64 / 1000.0, what());
        if self.verbose {
            println!("{line}");
        }
        if tail.lines.len() == tail.keep {
            tail.lines.pop_front();
        }
        if tail.keep > 0 {
            tail.lines.push_back(line);
        }
    }
}

/// Runs one seed. A panic of the members is an error like others.
///
/// # Errors
/// What went wrong, for people.
pub fn run(seed: u64, verbose: bool) -> Result<Report, String> {
    run_shaped(seed, verbose, |_| ())
}

/// As [`run`], in a world that `shape` has changed.
fn run_shaped(seed: u64, verbose: bool, shape: impl FnOnce(&mut plan::Plan)) -> Result<Report, String> {
    run_traced(seed, Trace::new(verbose, Rc::default()), shape)
}

fn run_traced(seed: u64, trace: Trace, shape: impl FnOnce(&mut plan::Plan)) -> Result<Report, String> {
    let run = AssertUnwindSafe(|| World::new(seed, trace, shape).live());
    std::panic::catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panicked: {}", text.unwrap_or_default()))
    })
}
