//! From what the core's thread knows to metrics: after each of its turns, by that thread alone. Counting so costs no
//! read-modify-write; what others look up stands under one short lock.

use super::{Shared, slow};
use raft::progress::ProgressState;
use rpc::metrics::{self, Progress, RaftFigures};
use server::Member;
use std::time::{Duration, Instant, SystemTime};
use store::{Counts, Kind, TTL_BOUNDS};

/// How the member stood after the core's last turn.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    pub raft: RaftFigures,
    pub db_size: i64,
    pub db_in_use: i64,
    pub pending: usize,
}

/// The core's meter.
#[derive(Debug, Default)]
pub struct Meter {
    /// As far as it was counted.
    before: Counts,
    leader: u64,
    /// Seconds of the log's writes and syncs, likewise.
    log: f64,
    /// Compactions that were seen to end, and when the one under way was asked for.
    compactions: u64,
    compaction: Option<Instant>,
}

/// Seconds that the log's writes and syncs took.
fn log_seconds() -> f64 {
    metrics::WAL_FSYNC.sum() + metrics::WAL_WRITE.sum()
}

impl Meter {
    /// A turn begins.
    pub fn begin(&mut self) {
        self.log = log_seconds();
    }

    /// A turn took so long; `inline`: the log's writes with it; `limit`: longer than that is
    /// slow. Entries that it applied have the rest in equal parts.
    pub fn turned<T>(&mut self, member: &Member<T>, took: Duration, inline: bool, limit: Duration) {
        let counts = member.figures().counts;
        let log = if inline { log_seconds() - self.log } else { 0.0 };
        let both = counts.applied.iter().flatten().zip(self.before.applied.iter().flatten());
        let entries: u64 = both.map(|(now, before)| now - before).sum();
        if entries == 0 {
            return;
        }
        let each = (took.as_secs_f64() - log).max(0.0) / entries as f64;
        for (kind, (now, before)) in counts.applied.iter().zip(&self.before.applied).enumerate() {
            for (outcome, (now, before)) in now.iter().zip(before).enumerate() {
                if let (true, Some(histogram)) = (now > before, metrics::APPLY.at(kind, outcome)) {
                    histogram.observe_many(each, now - before);
                }
            }
        }
        let asked = |counts: &Counts| counts.applied[Kind::Compaction as usize][0];
        if asked(counts) > asked(&self.before) {
            self.compaction.get_or_insert_with(Instant::now);
        }
        if each > limit.as_secs_f64() {
            slow::entries(entries, member.applied().index(), Duration::from_secs_f64(each), limit);
        }
        self.count(counts);
    }

    /// A compaction came to its end.
    fn count_compactions(&mut self, counts: &Counts) {
        metrics::COMPACTION_KEYS.set(counts.compacted);
        if std::mem::replace(&mut self.compactions, counts.compactions) == counts.compactions {
            return;
        }
        if let Some(begun) = self.compaction.take() {
            metrics::COMPACTION_TOTAL.observe(begun.elapsed().as_secs_f64() * 1000.0);
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        metrics::COMPACTION_LAST.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    }

    fn count(&mut self, counts: &Counts) {
        metrics::PUTS.set(counts.puts);
        metrics::DELETES.set(counts.deletes);
        metrics::TXNS.set(counts.txns);
        metrics::RANGES.add(counts.ranges - self.before.ranges);
        metrics::PUT_BYTES.set(counts.put_bytes.cast_signed());
        metrics::LEASE_GRANTED.set(counts.leases_granted);
        metrics::LEASE_REVOKED.set(counts.leases_revoked);
        if counts.leases_granted > self.before.leases_granted {
            self.count_ttls(counts);
        }
        self.before = counts.clone();
    }

    fn count_ttls(&self, counts: &Counts) {
        for (n, (now, before)) in counts.ttls.iter().zip(&self.before.ttls).enumerate() {
            // Any value of the bucket; what they come to is set right below.
            let value = if n < TTL_BOUNDS { 2_f64.powi(i32::try_from(n).unwrap_or(i32::MAX)) } else { f64::MAX };
            metrics::LEASE_TTL.count_many(value, now - before);
        }
        metrics::LEASE_TTL.set_sum(counts.ttl_sum as f64);
    }

    /// How things stand at the end of the core's round.
    pub fn stand<T>(&mut self, member: &Member<T>, shared: &Shared) {
        let figures = member.figures();
        let tally = figures.tally;
        metrics::LEASE_EXPIRED.set(tally.leases_expired);
        metrics::LEASE_RENEWED.set(tally.leases_renewed);
        metrics::SLOW_READ_INDEX.set(tally.reads_asked_again);
        metrics::FAILED_READ_INDEX.set(tally.reads_failed);
        metrics::PROPOSALS_FAILED.set(tally.proposals_failed);
        metrics::PROMOTE_SUCCESSES.set(tally.promoted);
        self.count_compactions(figures.counts);
        let status = member.raft().basic_status();
        if status.leader != 0 && status.leader != self.leader {
            metrics::LEADER_CHANGES.inc();
        }
        self.leader = status.leader;
        let mut standing = shared.standing.lock();
        (standing.db_size, standing.db_in_use) = (figures.db_size, figures.db_in_use);
        standing.pending = figures.pending;
        let raft = &mut standing.raft;
        raft.id = member.raft().id();
        (raft.term, raft.vote, raft.commit) =
            (status.hard_state.term, status.hard_state.vote, status.hard_state.commit);
        (raft.applied, raft.lead, raft.transferee) = (status.applied, status.leader, status.transferee);
        raft.state = role(status.role);
        raft.progress.clear();
        if status.role == raft::Role::Leader {
            raft.progress.extend(member.raft().progress().map(|(id, progress)| Progress {
                id,
                match_index: progress.match_index,
                next: progress.next,
                state: state(progress.state),
            }));
        }
    }
}

fn role(role: raft::Role) -> &'static str {
    match role {
        raft::Role::Follower => "StateFollower",
        raft::Role::PreCandidate => "StatePreCandidate",
        raft::Role::Candidate => "StateCandidate",
        raft::Role::Leader => "StateLeader",
    }
}

fn state(state: ProgressState) -> &'static str {
    match state {
        ProgressState::Probe => "StateProbe",
        ProgressState::Replicate => "StateReplicate",
        ProgressState::Snapshot => "StateSnapshot",
    }
}
