//! The member: consensus, the clients that wait, leases' clocks, and everything that has to be decided in one place.
//!
//! [`Member::call`] admits a request; [`Member::tick`] tells the time; [`Member::turn`] carries everything that is
//! queued through log, sync, commit and apply, and puts what follows into the outbox. Invariants:
//!
//! * Entries are applied only when committed **and** locally durable: consistent index ≤ end of the log.
//! * No reply and no event leaves before its entry is durable.
//! * At most one checkpoint is under way; `.snap` and log release follow a checkpoint, in that order.
//! * A revocation is proposed only by a leader into its own log; apply never judges it again.

mod admit;
mod boot;
mod checkpoint;
mod figures;
mod force;
mod held;
mod install;
mod leases;
mod membership;
mod peers;
mod pending;
mod replies;
mod turn;
mod verify;
mod versions;

pub use boot::{Beginning, BootConfig, Founder};
pub use checkpoint::{CheckpointDone, CheckpointJob, JobKind};
pub use figures::{Figures, Tally};
pub use install::{RELEASE_DELAY_MS, RELEASE_ENTRIES, image_name};
pub use pending::Outcome;
pub use verify::Verify;

use crate::autocompact::{AutoCompactor, Policy};
use crate::{Fatal, IdGenerator, LogTask, LogWriter, Logged, Request, TokenChange, Who};
use api::raft::Message;
use checkpoint::Checkpointing;
use pending::{Internal, Pending, Waiter};
use raft::RawNode;
use std::collections::VecDeque;
use std::sync::Arc;
use store::lessor::Lessor;
use store::{Applied, Change, Store};

/// How a member runs; times in milliseconds.
#[derive(Clone, Debug)]
pub struct Config {
    pub name: String,
    pub client_urls: Vec<String>,
    /// One tick; also the heartbeat interval.
    pub tick_ms: u64,
    pub election_ticks: u64,
    /// Asks for votes without a new term first, so that a member that returns disturbs nobody.
    pub pre_vote: bool,
    /// Seeds the randomised election timeout.
    pub seed: u64,
    /// Applied entries between `.snap` files.
    pub snapshot_count: u64,
    /// Entries kept in memory behind a snapshot.
    pub catchup_entries: u64,
    /// The log in memory is looked at each time that so many entries were applied, 1 or more ([`RELEASE_ENTRIES`]) …
    pub release_entries: u64,
    /// … and left as it is for so long after a follower got a database, ms ([`RELEASE_DELAY_MS`]).
    pub release_delay_ms: u64,
    pub max_snapshots: usize,
    pub max_wals: usize,
    pub max_request_bytes: usize,
    pub max_txn_ops: usize,
    /// Bytes; ≤ 0 = no quota.
    pub quota_bytes: i64,
    pub auto_compaction: Option<Policy>,
    /// Revisions that a compaction deletes in `compaction_sleep_ms`, spread evenly.
    pub compaction_batch: usize,
    pub compaction_sleep_ms: u64,
    /// There is no transport: a cluster of several members is refused, and so is what would make it one.
    pub alone: bool,
    /// Changes of membership that could cost the quorum are refused.
    pub strict_reconfig_check: bool,
    /// Gate `LeaseCheckpoint`.
    pub lease_checkpoint: bool,
    pub choices: Choices,
    /// A checkpoint starts when changes wait that will take so many bytes in the page store; they go to its end, so that
    /// many small checkpoints cost as much as few large ones. Deletions hit any page: a compaction's wait until all
    /// changes together take four times as much memory …
    pub checkpoint_bytes: usize,
    /// … or the oldest change waits so long.
    pub checkpoint_ms: u64,
    /// Changes that the page store lacks may take so much memory, and so may proposals that a majority of logs lack; beyond
    /// it proposals are refused until they follow. Bytes.
    pub unwritten_bytes: usize,
}

/// What operators may choose, and rarely do; the defaults are etcd's but for `fast_lease_keep_alive`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choices {
    /// Gate `PriorityRequest`: clients' revocations are admitted at twice the gap between commit and apply at which other
    /// proposals are refused.
    pub priority_request: bool,
    /// Gate `FastLeaseKeepAlive`: who renews a lease that the leader knows does not wait for what is not applied yet, and
    /// may be told of a lease that somebody else was told is revoked (etcd issue 20615).
    pub fast_lease_keep_alive: bool,
    /// A leader looks this often whether a downgrade has come to its end, ms; 0: never.
    pub downgrade_check_ms: u64,
    /// A checkpoint starts when so many entries wait for one.
    pub checkpoint_entries: Option<u64>,
    /// The page store is defragmented before the member starts if that frees so many bytes.
    pub defragment_from: Option<u64>,
}

impl Default for Choices {
    fn default() -> Choices {
        Choices {
            priority_request: false,
            fast_lease_keep_alive: false,
            downgrade_check_ms: 5000,
            checkpoint_entries: None,
            defragment_from: None,
        }
    }
}

/// What a member wants done, in order.
#[derive(Debug)]
pub enum Output<T> {
    /// The answer of a call.
    Reply { ticket: T, result: Outcome },
    /// Run this read on the newest published [`Applied`], if [`crate::access::check_read`] allows it there: it is fresh
    /// enough.
    Read { ticket: T, who: Who, request: Request },
    /// A batch was applied. Goes to readers before the replies that follow; to the watch hub in any case before the next
    /// batch.
    Published { applied: Arc<Applied>, changes: Vec<Change> },
    /// Run the job elsewhere and bring the result to [`Member::checkpointed`].
    Checkpoint(Box<CheckpointJob>),
    /// The page store holds everything up to now: stream its image from the newest published `Applied`.
    Snapshot { ticket: T },
    /// The member published its attributes: it serves.
    Serving,
    /// Send the message with this state's database image, and report what became of it.
    SendSnapshot { message: Message, applied: Arc<Applied> },
    /// A leader's database took the place of ours: watchers missed what happened in between.
    Replaced { applied: Arc<Applied> },
    /// Ask all other members for their versions and bring the answers to [`Member::peer_versions`].
    AskVersions,
    /// Only the leader can answer: ask it.
    Forward { ticket: T, who: Who, request: Request },
    /// Tokens came or went.
    Tokens(TokenChange),
    /// Members came, went or moved: see the newest published [`Applied`].
    MembersChanged,
    /// This member was removed from its cluster: it is to stop after a heartbeat or two, so that its peers learn of it.
    Removed,
    /// Something an operator should read.
    Note(String),
}

/// A call without a server-side deadline of its own ends after this: 5 s and two election timeouts.
fn request_timeout_ms(config: &Config) -> u64 {
    5000 + 2 * config.tick_ms * config.election_ticks
}

/// A linearizable read that waits.
struct Reading<T> {
    ticket: T,
    who: Who,
    request: Request,
    deadline_ms: u64,
}

/// Reads whose index was asked for.
struct Asked<T> {
    context: u64,
    asked_ms: u64,
    reads: Vec<Reading<T>>,
}

/// One member of a cluster. `T` is the caller's ticket: whatever the driver needs to deliver an answer.
pub struct Member<T> {
    config: Config,
    member_id: u64,
    cluster_id: u64,
    raft: RawNode,
    membership: membership::Membership<T>,
    /// The wall clock is ahead of the driver's by so much, ms since the epoch.
    wall_offset_ms: u64,
    /// To peers.
    messages: Vec<Message>,
    leadership: peers::Leadership,
    stall: peers::Stall,
    log_tasks: Vec<LogTask>,
    /// What the log's writer did, as far as it was not counted yet.
    logged: VecDeque<Logged>,
    files: install::Files,
    snapshots: install::Snapshots,
    /// Whether the log took more when it was last asked.
    log_room: bool,
    /// Whether the disk had room for a checkpoint when one was due.
    store_room: bool,
    store: Store,
    applied: Arc<Applied>,
    ids: IdGenerator,
    now_ms: u64,
    next_tick_ms: u64,
    pending: Pending<T>,
    held: held::Held,
    reads_waiting: Vec<Reading<T>>,
    reads_asked: VecDeque<Asked<T>>,
    reads_confirmed: VecDeque<(u64, Vec<Reading<T>>)>,
    lessor: Lessor,
    leases: leases::Keeper<T>,
    compactor: Option<AutoCompactor>,
    compaction: replies::Compacting<T>,
    checkpointing: Checkpointing<T>,
    versions: versions::Versions,
    /// The term in which this member leads, as far as it has taken notice.
    leads: Option<u64>,
    stopping: bool,
    tally: Tally,
    out: Vec<Output<T>>,
}

impl<T> Member<T> {
    /// Milliseconds of the driver's clock (monotonic) at which [`Member::tick`] wants to be called next.
    pub fn next_tick_ms(&self) -> u64 {
        if self.leads.is_some() && self.leases.is_behind() {
            return self.now_ms;
        }
        if self.raft.has_ready() {
            // More was committed than one turn applies.
            return self.now_ms;
        }
        self.next_tick_ms.min(self.compaction.due_ms()).max(self.now_ms)
    }

    /// Time passed.
    pub fn tick(&mut self, now_ms: u64) -> Result<(), Fatal> {
        self.now_ms = self.now_ms.max(now_ms);
        let mut ticks = 0;
        while self.next_tick_ms <= self.now_ms {
            self.next_tick_ms += self.config.tick_ms;
            ticks += 1;
            // After a pause of the process one election timeout of ticks is enough to notice; more would only
            // replay the pause.
            if ticks <= self.config.election_ticks {
                self.raft.tick();
            }
        }
        if !failpoint::mutant!("revokeGuardForgotten") {
            self.follow_leadership();
        }
        if ticks > 0 {
            self.expire_waiters();
            self.tick_leadership();
            self.tick_stall();
            self.tick_membership();
            self.settle_moves();
            self.tick_reads();
            self.tick_leases();
            self.tick_versions();
            self.tick_checkpoint()?;
            self.tick_log_release();
            self.tick_autocompaction();
            if !self.log_room {
                self.log_tasks.push(LogTask::LookForRoom);
            }
        }
        self.tick_compaction()
    }

    /// The newest published state.
    pub fn applied(&self) -> &Arc<Applied> {
        &self.applied
    }

    /// The consensus core, for those who check what it does.
    pub fn raft(&self) -> &RawNode {
        &self.raft
    }

    /// The leader's id; 0 when none is known.
    pub fn leader(&self) -> u64 {
        self.raft.leader()
    }

    /// Milliseconds since the epoch, as far as the clock at start and the driver's since then say.
    fn wall_ms(&self) -> u64 {
        self.now_ms + self.wall_offset_ms
    }

    /// Member id and cluster id.
    pub fn identity(&self) -> (u64, u64) {
        (self.member_id, self.cluster_id)
    }

    /// Clients that wait for a proposal or a read.
    pub fn waiting(&self) -> usize {
        self.pending.len() + self.reads_waiting.len()
    }

    /// Whether apply should keep previous values in events, because a watcher wants them.
    pub fn set_capture_prev(&mut self, on: bool) {
        self.store.set_capture_prev(on);
    }

    /// What happened since the last call, in order.
    pub fn take_outputs(&mut self, into: &mut Vec<Output<T>>) {
        into.append(&mut self.out);
    }

    /// Answers everyone that waits with "server stopped", brings the page store up to date and closes the log. A job that
    /// is out should have come back; else the page store is left as the last checkpoint made it, and the log has the rest.
    ///
    /// # Errors
    /// The disk failed.
    pub fn stop(mut self, log: LogWriter, into: &mut Vec<Output<T>>) -> Result<(), Fatal> {
        self.halt(into)?;
        log.close()
    }

    /// All of [`Member::stop`] but the log's end.
    fn halt(&mut self, into: &mut Vec<Output<T>>) -> Result<(), Fatal> {
        self.stopping = true;
        let waiters = self.pending.drain();
        for ticket in waiters.into_iter().filter_map(Waiter::ticket) {
            self.reply(ticket, Err(api::Error::Stopped));
        }
        let asked = std::mem::take(&mut self.reads_asked).into_iter().flat_map(|asked| asked.reads);
        let confirmed = std::mem::take(&mut self.reads_confirmed).into_iter().flat_map(|(_, reads)| reads);
        let queued = std::mem::take(&mut self.reads_waiting);
        for reading in asked.chain(confirmed).chain(queued) {
            self.reply(reading.ticket, Err(api::Error::Stopped));
        }
        for ticket in self
            .leases
            .drain()
            .into_iter()
            .chain(self.compaction.drain())
            .chain(self.checkpointing.drain())
            .chain(self.membership.drain())
        {
            self.reply(ticket, Err(api::Error::Stopped));
        }
        into.append(&mut self.out);
        if !self.checkpoint_runs() {
            self.last_checkpoint()?;
        }
        Ok(())
    }

    fn reply(&mut self, ticket: T, result: Outcome) {
        self.out.push(Output::Reply { ticket, result });
    }

    /// A proposal is given up. The member itself tries its own again at its own pace.
    fn abandon(&mut self, waiter: Waiter<T>, e: api::Error) {
        if let Waiter::Internal(Internal::Revoke(_)) = waiter {
            self.leases.revoke_done();
        }
        if let Some(ticket) = waiter.ticket() {
            self.tally.proposals_failed += 1;
            self.reply(ticket, Err(e));
        }
    }

    fn expire_waiters(&mut self) {
        let over = self.pending.expire(self.now_ms);
        if !over.is_empty() {
            let e = self.lateness(self.now_ms.saturating_sub(request_timeout_ms(&self.config)));
            over.into_iter().for_each(|waiter| self.abandon(waiter, e.clone()));
        }
        let now = self.now_ms;
        let mut late = Vec::new();
        let asked = self.reads_asked.iter_mut().map(|asked| &mut asked.reads);
        let confirmed = self.reads_confirmed.iter_mut().map(|(_, reads)| reads);
        for queue in asked.chain(confirmed).chain(std::iter::once(&mut self.reads_waiting)) {
            late.extend(queue.extract_if(.., |r| r.deadline_ms <= now));
        }
        self.tally.reads_failed += late.len() as u64;
        for reading in late {
            self.reply(reading.ticket, Err(api::Error::Timeout));
        }
    }
}
