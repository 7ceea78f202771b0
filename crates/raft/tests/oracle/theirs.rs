//! A node of the oracle's.

use crate::disk::Disk;
use crate::member::{Applied, Done, ELECTION_TICK, HEARTBEAT_TICK, Member, Settings, View};
use crate::translate::*;
use api::raft::{ConfChange, ConfState, EntryKind, Message, MessageType};
use bytes::Bytes;
use raft::{ReadState, Role};
use raft_oracle::eraftpb;
use raft_oracle::{
    Config, Error, GetEntriesContext, RaftState, RawNode, SnapshotStatus, StateRole, Storage, StorageError,
};
use slog_oracle::{Discard, Logger, o};
use std::cell::RefCell;
use std::rc::Rc;

/// The disk as the oracle reads it; its node's owner writes.
struct Shelf(Rc<RefCell<Disk>>);

impl Storage for Shelf {
    fn initial_state(&self) -> raft_oracle::Result<RaftState> {
        let disk = self.0.borrow();
        let snapshot = snapshot_to_theirs(&disk.snapshot);
        Ok(RaftState::new(state_to_theirs(disk.hard_state), snapshot.get_metadata().get_conf_state().clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft_oracle::Result<Vec<eraftpb::Entry>> {
        let disk = self.0.borrow();
        if low <= disk.base() {
            return Err(Error::Store(StorageError::Compacted));
        }
        let mut entries: Vec<_> = disk.range(low, high).iter().map(entry_to_theirs).collect();
        raft_oracle::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft_oracle::Result<u64> {
        let disk = self.0.borrow();
        let missing = if index < disk.base() { StorageError::Compacted } else { StorageError::Unavailable };
        disk.term(index).ok_or(Error::Store(missing))
    }

    fn first_index(&self) -> raft_oracle::Result<u64> {
        Ok(self.0.borrow().base() + 1)
    }

    fn last_index(&self) -> raft_oracle::Result<u64> {
        Ok(self.0.borrow().last())
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft_oracle::Result<eraftpb::Snapshot> {
        let disk = self.0.borrow();
        match disk.snapshot.is_empty() {
            true => Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable)),
            false => Ok(snapshot_to_theirs(&disk.snapshot)),
        }
    }
}

pub struct Theirs {
    raw: RawNode<Shelf>,
    disk: Rc<RefCell<Disk>>,
    applied: u64,
    conf: ConfState,
    done: Done,
}

impl Theirs {
    pub fn boot(id: u64, disk: Disk, settings: Settings) -> Theirs {
        let config = Config {
            id,
            election_tick: ELECTION_TICK,
            heartbeat_tick: HEARTBEAT_TICK,
            applied: disk.base(),
            max_size_per_msg: settings.max_size_per_msg,
            max_inflight_msgs: settings.max_inflight_msgs,
            check_quorum: settings.check_quorum,
            pre_vote: settings.pre_vote,
            ..Config::default()
        };
        let (applied, conf) = (disk.base(), disk.snapshot.metadata.conf_state.clone());
        let disk = Rc::new(RefCell::new(disk));
        let logger = Logger::root(Discard, o!());
        let raw = RawNode::new(&config, Shelf(disk.clone()), &logger).expect("what was stored is sound");
        Theirs { raw, disk, applied, conf, done: Done::default() }
    }

    fn send(&mut self, messages: Vec<eraftpb::Message>) {
        self.done.messages.extend(messages.into_iter().map(of_theirs));
    }

    fn persist(&mut self, ready: &raft_oracle::Ready) {
        let mut disk = self.disk.borrow_mut();
        if ready.snapshot().get_metadata().index != 0 {
            let snapshot = snapshot_of_theirs(ready.snapshot());
            disk.install(&snapshot);
            self.applied = snapshot.metadata.index;
            self.done.applied.push(Applied::Snapshot(snapshot.metadata.index, snapshot.metadata.term));
            self.conf = snapshot.metadata.conf_state;
        }
        let entries: Vec<_> = ready.entries().iter().map(entry_of_theirs).collect();
        disk.write(&entries);
        self.done.written.extend(entries);
        if let Some(state) = ready.hs() {
            disk.hard_state = state_of_theirs(state);
        }
    }

    fn apply(&mut self, entries: Vec<eraftpb::Entry>) {
        for entry in entries.iter().map(entry_of_theirs) {
            self.applied = entry.index;
            if entry.kind == EntryKind::ConfChange {
                let change = change_to_theirs(&change_of(&entry));
                if let Ok(conf) = self.raw.apply_conf_change(&change) {
                    self.conf = conf_of_theirs(&conf);
                }
            }
            self.done.applied.push(Applied::Entry(entry));
        }
    }

    fn work_once(&mut self) {
        let mut ready = self.raw.ready();
        let reads = ready.take_read_states().into_iter();
        self.done.reads.extend(reads.map(|r| ReadState { index: r.index, request_ctx: r.request_ctx.into() }));
        self.send(ready.take_messages());
        self.persist(&ready);
        self.send(ready.take_persisted_messages());
        let committed = ready.take_committed_entries();
        // Applied only now: its removal in between would be a leader's end.
        let mut light = self.raw.advance_append(ready);
        self.apply(committed);
        if let Some(commit) = light.commit_index() {
            self.disk.borrow_mut().hard_state.commit = commit;
        }
        self.send(light.take_messages());
        self.apply(light.take_committed_entries());
        self.raw.advance_apply();
    }
}

impl Member for Theirs {
    fn tick(&mut self) {
        self.raw.tick();
    }

    fn campaign(&mut self) {
        self.raw.campaign().expect("a node may stand");
    }

    fn propose(&mut self, data: Bytes) -> bool {
        self.raw.propose(vec![], data.to_vec()).is_ok()
    }

    fn propose_change(&mut self, change: &ConfChange) -> bool {
        self.raw.propose_conf_change(vec![], change_to_theirs(change)).is_ok()
    }

    fn read(&mut self, context: Bytes) {
        self.raw.read_index(context.to_vec());
    }

    fn transfer(&mut self, to: u64) {
        self.raw.transfer_leader(to);
    }

    fn report_unreachable(&mut self, id: u64) {
        self.raw.report_unreachable(id);
    }

    fn report_snapshot(&mut self, id: u64, arrived: bool) {
        self.raw.report_snapshot(id, if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure });
    }

    fn step(&mut self, message: Message) {
        let raft = &self.raw.raft;
        if message.kind == MessageType::MsgReadIndexResp && message.term == raft.term {
            // It would take the index for a commit index, too, which etcd's raft does not.
            if raft.state == StateRole::Follower {
                let request_ctx = message.entries.into_iter().next().map(|e| e.data).unwrap_or_default();
                self.done.reads.push(ReadState { index: message.index, request_ctx });
            }
            return;
        }
        let _refused = self.raw.step(to_theirs(&message));
    }

    fn set_timeout(&mut self, ticks: usize) {
        self.raw.raft.set_randomized_election_timeout(ticks);
    }

    fn work(&mut self) -> Done {
        while self.raw.has_ready() {
            self.work_once();
        }
        std::mem::take(&mut self.done)
    }

    fn compact(&mut self) {
        let mut disk = self.disk.borrow_mut();
        if self.applied > disk.base() {
            disk.compact(self.applied, self.conf.clone());
        }
    }

    fn view(&self) -> View {
        let raft = &self.raw.raft;
        let disk = Disk { hard_state: state_of_theirs(&raft.hard_state()), ..self.disk() };
        View {
            role: match raft.state {
                StateRole::Follower => Role::Follower,
                StateRole::PreCandidate => Role::PreCandidate,
                StateRole::Candidate => Role::Candidate,
                StateRole::Leader => Role::Leader,
            },
            leader: raft.leader_id,
            transferee: raft.lead_transferee.unwrap_or(0),
            conf: conf_of_theirs(&raft.prs().conf().to_conf_state()),
            disk,
        }
    }

    fn matches(&self) -> Vec<(u64, u64)> {
        let mut matches: Vec<_> = self.raw.raft.prs().iter().map(|(id, p)| (*id, p.matched)).collect();
        matches.sort_unstable();
        matches
    }

    fn disk(&self) -> Disk {
        self.disk.borrow().clone()
    }
}
