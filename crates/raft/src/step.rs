//! Which part of the core gets a message: first the terms decide, then the role.
//!
//! A message of a higher term makes this node a follower of that term, except votes within a leader's lease and
//! everything about pre-votes. A message of a lower term is ignored, but for answers that free a node which is
//! ahead of its cluster. What can't come from a correct peer is refused here and never reaches the state.

use crate::config::{Error, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, Role};
use crate::logging::note;
use crate::state::Raft;
use api::raft::{Message, MessageType};

/// Context of the vote requests of a node that its leader told to take over.
pub(crate) const CAMPAIGN_TRANSFER: &[u8] = b"CampaignTransfer";

impl Raft {
    /// Takes a message of a peer or a completion of local storage work.
    ///
    /// # Errors
    /// It is refused; nothing changed.
    pub fn step_outside(&mut self, message: Message) -> Result<(), Error> {
        self.admit(&message)?;
        self.step(message)
    }

    fn admit(&self, m: &Message) -> Result<(), Error> {
        use MessageType as T;
        let local_sender = match m.kind {
            T::MsgStorageAppendResp => Some(LOCAL_APPEND_THREAD),
            T::MsgStorageApplyResp => Some(LOCAL_APPLY_THREAD),
            _ => None,
        };
        match m.kind {
            T::MsgStorageAppendResp | T::MsgStorageApplyResp if Some(m.from) == local_sender => {}
            T::MsgHup
            | T::MsgBeat
            | T::MsgUnreachable
            | T::MsgSnapStatus
            | T::MsgCheckQuorum
            | T::MsgForgetLeader
            | T::MsgStorageAppend
            | T::MsgStorageAppendResp
            | T::MsgStorageApply
            | T::MsgStorageApplyResp => return Err(Error::LocalMessage),
            T::MsgAppResp | T::MsgVoteResp | T::MsgHeartbeatResp | T::MsgPreVoteResp | T::MsgReadIndexResp
                if !self.tracker.progress.contains_key(&m.from) =>
            {
                return Err(Error::PeerNotFound);
            }
            _ => {}
        }
        let addressed = local_sender.is_some() || self.may_come_from(m);
        match addressed && (m.to == 0 || m.to == self.id) && well_formed(m) {
            true => Ok(()),
            false => Err(Error::Malformed),
        }
    }

    /// A node sends itself only promises; its requests may come back from a follower that took it for the leader.
    fn may_come_from(&self, m: &Message) -> bool {
        use MessageType as T;
        let own = match m.kind {
            T::MsgAppResp => !m.reject,
            T::MsgVoteResp | T::MsgPreVoteResp | T::MsgProp | T::MsgReadIndex | T::MsgTransferLeader => true,
            _ => false,
        };
        m.from != 0 && m.from < LOCAL_APPLY_THREAD && (own || m.from != self.id)
    }

    /// Takes a message that passed the border, or one of this node's own.
    pub fn step(&mut self, m: Message) -> Result<(), Error> {
        use MessageType as T;
        let goes_on = match m.term {
            // Local, or meant for whoever leads.
            0 => true,
            term if term > self.term => self.follow_term(&m),
            term if term < self.term => {
                self.answer_old_term(&m);
                false
            }
            _ => true,
        };
        if !goes_on {
            return Ok(());
        }
        match m.kind {
            T::MsgStorageAppendResp => self.stored(&m, true),
            T::MsgStorageApplyResp => {
                let last = m.entries.last().map_or(0, |e| e.index);
                if last > self.log.applying {
                    return Err(Error::Malformed);
                }
                self.applied_to(last);
            }
            T::MsgVote | T::MsgPreVote => self.vote_on(&m),
            _ => return self.step_role(m),
        }
        Ok(())
    }

    fn step_role(&mut self, m: Message) -> Result<(), Error> {
        match self.role {
            Role::Leader => self.step_leader(m),
            Role::Candidate | Role::PreCandidate => self.step_candidate(m),
            Role::Follower => self.step_follower(m),
        }
    }

    /// A message of a higher term; says whether it goes on.
    fn follow_term(&mut self, m: &Message) -> bool {
        use MessageType as T;
        if matches!(m.kind, T::MsgVote | T::MsgPreVote) && m.context != CAMPAIGN_TRANSFER && self.in_lease() {
            // The leader is alive: a node that can't hear it must not unseat it (dissertation, 4.2.3).
            note!(
                self.logs,
                Info,
                "{} ignored {} from {:x} [logterm: {}, index: {}] at term {}: lease is not expired (remaining ticks: {})",
                self.place_and_vote(),
                m.kind.as_str_name(),
                m.from,
                m.log_term,
                m.index,
                self.term,
                self.config.election_tick - self.election_elapsed
            );
            return false;
        }
        // A pre-vote changes no term; its grant carries the term that would be, its rejection a real one.
        if m.kind == T::MsgPreVote || (m.kind == T::MsgPreVoteResp && !m.reject) {
            return true;
        }
        note!(
            self.logs,
            Info,
            "{:x} [term: {}] received a {} message with higher term from {:x} [term: {}]",
            self.id,
            self.term,
            m.kind.as_str_name(),
            m.from,
            m.term
        );
        let leader = match m.kind {
            T::MsgApp | T::MsgHeartbeat | T::MsgSnap => m.from,
            _ => 0,
        };
        self.become_follower(m.term, leader);
        true
    }

    fn in_lease(&self) -> bool {
        self.config.check_quorum && self.leader != 0 && self.election_elapsed < self.config.election_tick
    }

    fn answer_old_term(&mut self, m: &Message) {
        use MessageType as T;
        let guarded = self.config.check_quorum || self.config.pre_vote;
        match m.kind {
            // This node is ahead of its leader's term and, since votes are ignored within the lease, may not get
            // back by an election of its own: the answer makes the leader step down to our term.
            T::MsgHeartbeat | T::MsgApp if guarded => {
                self.send(Message { kind: T::MsgAppResp, to: m.from, ..Message::default() });
            }
            // A candidate of an old term, perhaps in a cluster that just turned pre-vote on, learns the term.
            T::MsgPreVote => {
                note!(
                    self.logs,
                    Info,
                    "{} rejected {} from {:x} [logterm: {}, index: {}] at term {}",
                    self.place_and_vote(),
                    m.kind.as_str_name(),
                    m.from,
                    m.log_term,
                    m.index,
                    self.term
                );
                let (kind, term) = (T::MsgPreVoteResp, self.term);
                self.send(Message { kind, to: m.from, term, reject: true, ..Message::default() });
            }
            T::MsgStorageAppendResp => {
                if m.index != 0 {
                    // What was stored may have been overwritten since; a snapshot can't be, it is committed.
                    note!(
                        self.logs,
                        Info,
                        "{:x} [term: {}] ignored entry appends from a {} message with lower term [term: {}]",
                        self.id,
                        self.term,
                        m.kind.as_str_name(),
                        m.term
                    );
                }
                self.stored(m, false);
            }
            _ => note!(
                self.logs,
                Info,
                "{:x} [term: {}] ignored a {} message with lower term from {:x} [term: {}]",
                self.id,
                self.term,
                m.kind.as_str_name(),
                m.from,
                m.term
            ),
        }
    }

    /// `1 [logterm: 1, index: 11, vote: 1]`
    pub fn place_and_vote(&self) -> String {
        let (term, index) = (self.log.last_term(), self.log.last_index());
        format!("{:x} [logterm: {term}, index: {index}, vote: {:x}]", self.id, self.vote)
    }
}

/// Terms and indexes beyond this are refused: nobody gets there by counting, and nothing overflows below.
const NUMBER_MAX: u64 = u64::MAX >> 2;

/// Whether a message has what its kind needs, so that no handler meets anything it can't be.
fn well_formed(m: &Message) -> bool {
    use MessageType as T;
    let snapshot = m.snapshot.as_ref().map_or((0, 0), |s| (s.metadata.index, s.metadata.term));
    if [m.term, m.index, m.log_term, snapshot.0, snapshot.1].iter().any(|n| *n > NUMBER_MAX) {
        return false;
    }
    match m.kind {
        T::MsgApp => {
            let indexes =
                m.entries.iter().enumerate().all(|(at, e)| m.index.checked_add(1 + at as u64) == Some(e.index));
            let terms = m.entries.iter().try_fold(m.log_term, |last, e| (e.term >= last).then_some(e.term));
            m.term != 0 && indexes && terms.is_some_and(|last| last <= m.term)
        }
        T::MsgSnap => m.term != 0 && m.snapshot.as_ref().is_some_and(|s| s.metadata.term <= m.term),
        T::MsgProp => !m.entries.is_empty(),
        T::MsgReadIndex | T::MsgReadIndexResp => m.entries.len() == 1,
        T::MsgTransferLeader => true,
        T::MsgStorageAppendResp | T::MsgStorageApplyResp => true,
        // Without a term these would pass as local messages.
        _ => m.term != 0,
    }
}
