//! What a seed's world is like. Swarm: each seed has its own mix, and lacks most faults, so that none hides another.

use crate::rng::Rng;

/// Faults that the world knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A process dies, its disk keeps what was written.
    Kill,
    /// A machine loses power, and its disk what was not synced.
    Power,
    /// All machines lose power at once.
    Blackout,
    /// A process stands still for a while.
    Pause,
    /// Two groups can't reach each other.
    Split,
    /// One member reaches nobody.
    Isolate,
    /// Messages pass in one direction only.
    OneWay,
    /// What is on its way between two members is lost.
    Break,
    /// A disk takes long to sync.
    SlowDisk,
    /// A write or a sync fails, or the power goes in the middle of what is written.
    BadDisk,
    /// Bytes that were synced are others, of one member at a time.
    Rot,
    /// A machine's clock is later all at once, as of one that was moved. (Back it never goes: that is what monotonic means.)
    Jump,
}

pub const FAULTS: [Fault; 12] = [
    Fault::Kill,
    Fault::Power,
    Fault::Blackout,
    Fault::Pause,
    Fault::Split,
    Fault::Isolate,
    Fault::OneWay,
    Fault::Break,
    Fault::SlowDisk,
    Fault::BadDisk,
    Fault::Rot,
    Fault::Jump,
];

/// The mix.
#[derive(Clone, Debug)]
pub struct Plan {
    pub members: u64,
    pub faults: Vec<Fault>,
    /// Between two faults, on average.
    pub fault_every_us: u64,
    /// Every second fault hits a leader, if there is one.
    pub at_leaders: bool,
    /// How long a fault lasts at most.
    pub fault_lasts_us: u64,
    /// Between two client operations, on average.
    pub ask_every_us: u64,
    /// Client operations before peace comes.
    pub asks: u64,
    /// Members are added, promoted and removed.
    pub reconfigure: bool,
    pub move_leader: bool,
    /// Of a hundred client operations.
    pub defragments: u64,
    pub images: u64,
    pub delay_us: (u64, u64),
    /// Of a thousand messages.
    pub lost: u64,
    pub doubled: u64,
    /// Messages overtake one another.
    pub reorder: bool,
    pub sync_us: (u64, u64),
    /// How fast the slowest and the fastest clock go, parts in a million off.
    pub drift_ppm: u64,
    pub pre_vote: bool,
    pub lease_checkpoint: bool,
    pub streams: u64,
    pub ttl: (u64, u64),
    pub big_values: bool,
    pub snapshot_count: u64,
    pub catchup_entries: u64,
    pub release_entries: u64,
    pub release_delay_ms: u64,
    pub checkpoint_bytes: usize,
    pub checkpoint_ms: u64,
    /// A checkpoint, or whatever else its thread does, begins so late at most.
    pub job_delay_us: u64,
    pub compaction_batch: usize,
    pub quota: i64,
    /// There are users and roles.
    pub auth: bool,
    /// Downgrades are enabled and cancelled.
    pub downgrade: bool,
    /// Watchers go on at other members.
    pub roam: bool,
    /// Members refuse proposals while changes that the page store lacks take so much memory.
    pub unwritten_bytes: usize,
    /// The time of day may be wrong by so much, and is another one each time a machine starts.
    pub time_of_day_off_ms: u64,
}

impl Plan {
    pub fn draw(rng: &mut Rng) -> Plan {
        // Drawn apart: worlds without what is new stay what they were.
        let mut more = Rng::new(rng.clone().draw());
        let later = [Fault::Rot, Fault::Jump];
        let faults = FAULTS.into_iter().filter(|fault| !later.contains(fault) && rng.one_in(3)).collect();
        let mut plan = Plan {
            members: [1, 3, 3, 3, 4, 5, 5][rng.below(7) as usize],
            faults,
            fault_every_us: [300_000, 1_000_000, 5_000_000][rng.below(3) as usize],
            at_leaders: rng.one_in(3),
            fault_lasts_us: [500_000, 3_000_000, 12_000_000][rng.below(3) as usize],
            ask_every_us: [3_000, 10_000, 40_000][rng.below(3) as usize],
            asks: 1000 + rng.below(1000),
            reconfigure: rng.one_in(3),
            move_leader: rng.one_in(3),
            defragments: 1,
            images: rng.below(2),
            delay_us: [(50, 200), (100, 5_000), (1_000, 40_000)][rng.below(3) as usize],
            lost: if rng.one_in(3) { rng.below(100) } else { 0 },
            doubled: if rng.one_in(3) { rng.below(100) } else { 0 },
            reorder: rng.one_in(2),
            sync_us: [(50, 300), (200, 3_000), (1_000, 60_000)][rng.below(3) as usize],
            drift_ppm: if rng.one_in(2) { rng.below(20_000) } else { 0 },
            pre_vote: !rng.one_in(4),
            lease_checkpoint: rng.one_in(2),
            streams: rng.below(4),
            ttl: [(1, 6), (2, 60), (500, 4000)][rng.below(3) as usize],
            big_values: rng.one_in(4),
            snapshot_count: 5 + rng.below(60),
            catchup_entries: 1 + rng.below(30),
            release_entries: 1 + rng.below(100),
            release_delay_ms: [500, 5_000, 30_000][rng.below(3) as usize],
            checkpoint_bytes: 1 << (10 + rng.below(6)),
            checkpoint_ms: 200 + rng.below(2000),
            job_delay_us: [10_000, 100_000, 1_000_000][rng.below(3) as usize],
            compaction_batch: 1 + rng.below(8) as usize,
            quota: if rng.one_in(8) { 100_000 + rng.below(200_000) as i64 } else { 0 },
            auth: more.one_in(3),
            downgrade: more.one_in(4),
            roam: more.one_in(2),
            unwritten_bytes: usize::MAX,
            time_of_day_off_ms: 0,
        };
        // A member that is refused its data is replaced; beside other changes that could cost the quorum.
        if more.one_in(4) && plan.members >= 3 && !plan.reconfigure {
            plan.faults.push(Fault::Rot);
        }
        if more.one_in(6) {
            plan.faults.push(Fault::Jump);
        }
        plan.time_of_day_off_ms = [0, 0, 0, 3_600_000][more.below(4) as usize];
        if more.one_in(6) {
            plan.unwritten_bytes = plan.checkpoint_bytes * (1 + more.below(4) as usize);
        }
        plan
    }
}
