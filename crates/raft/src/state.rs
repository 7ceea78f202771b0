//! A participant's state: term, vote, role, log and members, and what every role does with them.
//!
//! What a role does with a message is in [`crate::election`], [`crate::leader`], [`crate::replication`] and
//! [`crate::follower`]; which of them gets it, in [`crate::step`].

use crate::config::{Config, LOCAL_APPEND_THREAD, ReadState, Role, SoftState};
use crate::log::{Log, payload};
use crate::logging::{Logs, note};
use crate::progress::Progress;
use crate::read_only::ReadOnly;
use crate::tracker::Tracker;
use crate::{MemoryStorage, confchange};
use api::raft::{Entry, HardState, Message, MessageType};

/// One participant. [`crate::RawNode`] wraps it for its owner.
#[derive(Debug)]
pub(crate) struct Raft {
    pub id: u64,
    pub config: Config,
    pub term: u64,
    /// Whom it voted for in `term`; 0 for nobody.
    pub vote: u64,
    pub role: Role,
    /// 0 when none is known.
    pub leader: u64,
    pub log: Log,
    pub tracker: Tracker,

    /// Ticks since this follower heard from its leader, or since this leader last checked its quorum.
    pub election_elapsed: usize,
    pub heartbeat_elapsed: usize,
    /// Ticks after which this node stands for election.
    pub timeout: usize,
    random: u64,

    /// Whom leadership is being handed to; 0 for nobody.
    pub transferee: u64,
    /// A conf change at or below this index may be unapplied; until it is applied, no other is appended.
    pub pending_conf_index: u64,
    /// Bytes of proposals that are not applied yet.
    pub uncommitted_bytes: u64,
    pub read_only: ReadOnly,
    /// Reads that arrived before this leader committed an entry of its term.
    pub early_reads: Vec<Message>,

    pub read_states: Vec<ReadState>,
    pub messages: Vec<Message>,
    /// Promises, and requests that rest on them: they leave only when everything appended, voted and acknowledged
    /// before them is durable.
    pub after_append: Vec<Message>,
    pub logs: Logs,
}

impl Raft {
    pub fn new(config: Config, storage: MemoryStorage) -> Result<Raft, String> {
        config.validate()?;
        let hard_state = storage.hard_state();
        let last_index = storage.last_index();
        if hard_state.commit > last_index {
            return Err(format!(
                "commit index {} is past the end of the log at {last_index}: the log lost entries",
                hard_state.commit
            ));
        }
        let applied = config.applied.max(config.committed);
        if applied > last_index {
            return Err(format!("entry {applied} is applied, but the log ends at {last_index}"));
        }
        let tracker = Tracker::new(config.max_inflight_msgs, config.max_inflight_bytes);
        let restored = confchange::restore(tracker.clone(), last_index, storage.conf_state())
            .map_err(|e| format!("the stored configuration makes no sense: {e}"))?;
        let committed = hard_state.commit.max(config.committed);
        let log = Log::new(storage, committed, config.applied, config.max_applying_bytes());
        let mut raft = Raft {
            id: config.id,
            term: hard_state.term,
            vote: hard_state.vote,
            role: Role::Follower,
            leader: 0,
            log,
            tracker,
            election_elapsed: 0,
            heartbeat_elapsed: 0,
            timeout: 0,
            random: config.seed,
            transferee: 0,
            pending_conf_index: 0,
            uncommitted_bytes: 0,
            read_only: ReadOnly::default(),
            early_reads: Vec::new(),
            read_states: Vec::new(),
            messages: Vec::new(),
            after_append: Vec::new(),
            logs: Logs::new(config.log_level),
            config,
        };
        raft.switch_to(restored);
        raft.become_follower(raft.term, 0);
        raft.say_hello();
        Ok(raft)
    }

    fn say_hello(&mut self) {
        let peers: Vec<String> = self.tracker.config.voters.ids().iter().map(|id| format!("{id:x}")).collect();
        note!(
            self.logs,
            Info,
            "newRaft {:x} [peers: [{}], term: {}, commit: {}, applied: {}, lastindex: {}, lastterm: {}]",
            self.id,
            peers.join(","),
            self.term,
            self.log.committed,
            self.log.applied,
            self.log.last_index(),
            self.log.last_term()
        );
    }

    pub fn hard_state(&self) -> HardState {
        HardState { term: self.term, vote: self.vote, commit: self.log.committed }
    }

    pub fn soft_state(&self) -> SoftState {
        SoftState { leader: self.leader, role: self.role }
    }

    /// Whether this node may stand for election: a voter whose configuration is in force, not one that is about to
    /// come with a snapshot.
    pub fn promotable(&self) -> bool {
        let votes = self.tracker.progress.get(&self.id).is_some_and(|p| !p.is_learner);
        votes && self.log.unstable.snapshot().is_none()
    }

    /// Queues a message. Promises wait for their append; everything else goes at once.
    ///
    /// Votes and their answers carry a term of their own; a forwarded proposal or read carries none, since it is
    /// meant for whoever leads.
    pub fn send(&mut self, mut message: Message) {
        use MessageType as T;
        if message.from == 0 {
            message.from = self.id;
        }
        match message.kind {
            T::MsgVote | T::MsgPreVote => {
                assert!(message.term != 0, "{} without a term", message.kind.as_str_name());
            }
            T::MsgVoteResp | T::MsgPreVoteResp | T::MsgProp | T::MsgReadIndex => {}
            _ => message.term = self.term,
        }
        match message.kind {
            T::MsgVoteResp if failpoint::mutant!("voteBeforeSync") => self.messages.push(message),
            T::MsgAppResp if failpoint::mutant!("ackBeforeSync") => self.messages.push(message),
            T::MsgAppResp | T::MsgVoteResp | T::MsgPreVoteResp => self.after_append.push(message),
            // It vouches for a log. Were it lost in a crash, grants still under way could elect this node in the same
            // term with a shorter one.
            T::MsgVote if self.log.unstable.len() > 0 => self.after_append.push(message),
            kind => {
                assert!(message.to != self.id, "{} to oneself", kind.as_str_name());
                self.messages.push(message);
            }
        }
    }

    /// Begins `term`, or the present one anew, as nobody's leader or follower.
    pub fn reset(&mut self, term: u64) {
        if self.term != term {
            self.term = term;
            self.vote = 0;
        }
        self.leader = 0;
        self.election_elapsed = 0;
        self.heartbeat_elapsed = 0;
        self.draw_timeout();
        self.transferee = 0;
        self.tracker.reset_votes();
        let (last, inflights) = (self.log.last_index(), self.tracker.inflights());
        for (id, progress) in &mut self.tracker.progress {
            *progress = Progress::new(last + 1, inflights.clone(), progress.is_learner);
            if *id == self.id {
                // Entries of older terms are never committed by counting, so it does no harm that some of these may
                // not be durable here yet.
                progress.match_index = last;
            }
        }
        self.pending_conf_index = 0;
        self.uncommitted_bytes = 0;
        self.read_only = ReadOnly::default();
        self.early_reads.clear();
    }

    fn draw_timeout(&mut self) {
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^= z >> 27;
        self.timeout = self.config.election_tick + (z % self.config.election_tick as u64) as usize;
    }

    pub fn become_follower(&mut self, term: u64, leader: u64) {
        self.reset(term);
        self.leader = leader;
        self.role = Role::Follower;
        note!(self.logs, Info, "{:x} became follower at term {}", self.id, self.term);
    }

    /// Time passed by one tick.
    pub fn tick(&mut self) {
        match self.role {
            Role::Leader => self.tick_leader(),
            Role::Follower | Role::PreCandidate | Role::Candidate => {
                self.election_elapsed += 1;
                if self.promotable() && self.election_elapsed >= self.timeout {
                    self.election_elapsed = 0;
                    self.hup();
                }
            }
        }
    }

    fn tick_leader(&mut self) {
        self.heartbeat_elapsed += 1;
        self.election_elapsed += 1;
        if self.election_elapsed >= self.config.election_tick {
            self.election_elapsed = 0;
            if self.config.check_quorum {
                self.check_quorum();
            }
            // A transfer that took an election timeout has failed: proposals go on here.
            self.transferee = 0;
        }
        if self.role == Role::Leader && self.heartbeat_elapsed >= self.config.heartbeat_tick {
            self.heartbeat_elapsed = 0;
            self.broadcast_heartbeat();
        }
    }

    /// Appends entries of this leader's term; its own acknowledgement leaves when they are durable. Says whether
    /// there was room for them among what is uncommitted.
    pub fn append(&mut self, mut entries: Vec<Entry>) -> bool {
        let (next, bytes) = (self.log.last_index() + 1, payload(&entries));
        if !self.reserve_uncommitted(bytes) {
            note!(
                self.logs,
                Warn,
                "{:x} appending new entries to log would exceed uncommitted entry size limit; dropping proposal",
                self.id
            );
            return false;
        }
        for (entry, index) in entries.iter_mut().zip(next..) {
            entry.term = self.term;
            entry.index = index;
        }
        self.log.append(entries, &mut self.logs);
        self.acknowledge_to_oneself(self.log.last_index());
        true
    }

    /// One acknowledgement stands for all proposals that become durable together.
    fn acknowledge_to_oneself(&mut self, index: u64) {
        match self.after_append.last_mut() {
            Some(m) if (m.kind, m.to, m.term) == (MessageType::MsgAppResp, self.id, self.term) => m.index = index,
            _ => self.send(Message { kind: MessageType::MsgAppResp, to: self.id, index, ..Message::default() }),
        }
    }

    /// Empty entries always go, and anything when nothing else is uncommitted: a leader must be able to begin its
    /// term, and one large proposal must be able to pass.
    fn reserve_uncommitted(&mut self, bytes: u64) -> bool {
        let limit = self.config.max_uncommitted_size;
        let total = self.uncommitted_bytes + bytes;
        if limit != 0 && self.uncommitted_bytes > 0 && bytes > 0 && total > limit {
            return false;
        }
        self.uncommitted_bytes = total;
        true
    }

    /// Whether an entry of this term is committed: only then a leader knows what is.
    pub fn committed_in_term(&self) -> bool {
        self.log.term(self.log.committed) == Some(self.term)
    }

    /// Storage work that `message` completes is done.
    pub fn stored(&mut self, message: &Message, entries_valid: bool) {
        let entries = (entries_valid && message.index != 0).then_some((message.index, message.log_term));
        let snapshot = message.snapshot.as_ref().map(|s| s.metadata.index);
        self.log.stored(entries, snapshot, &mut self.logs);
        if let Some(index) = snapshot.filter(|index| *index <= self.log.committed) {
            self.applied_to(index);
        }
    }

    /// Entries up to `index`, handed out before, are applied.
    pub fn applied_to(&mut self, index: u64) {
        let data = self.log.applied_to(index);
        self.uncommitted_bytes = self.uncommitted_bytes.saturating_sub(data);
        self.maybe_leave_joint();
    }

    /// The completion of all storage work handed out so far, if entries or a snapshot are among it.
    pub fn storage_append_resp(&self) -> Option<Message> {
        let (unstable, snapshot) = (self.log.unstable.len() > 0, self.log.unstable.snapshot());
        (unstable || snapshot.is_some()).then(|| Message {
            kind: MessageType::MsgStorageAppendResp,
            to: self.id,
            from: LOCAL_APPEND_THREAD,
            term: self.term,
            index: if unstable { self.log.last_index() } else { 0 },
            log_term: if unstable { self.log.last_term() } else { 0 },
            snapshot: snapshot.cloned(),
            ..Message::default()
        })
    }
}
