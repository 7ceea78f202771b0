//! A node of ours, with synchronous or immediate asynchronous storage.

use crate::disk::Disk;
use crate::member::{Applied, Done, ELECTION_TICK, HEARTBEAT_TICK, Member, Settings, View};
use api::raft::{ConfChange, ConfState, Entry, EntryKind, HardState, Message, Snapshot};
use bytes::Bytes;
use raft::{Config, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, MemoryStorage, RawNode};

pub struct Ours {
    raw: RawNode,
    disk: Disk,
    applied: u64,
    conf: ConfState,
    done: Done,
}

impl Ours {
    pub fn boot(id: u64, disk: Disk, settings: Settings, seed: u64) -> Ours {
        let config = Config {
            id,
            election_tick: ELECTION_TICK,
            heartbeat_tick: HEARTBEAT_TICK,
            applied: disk.base(),
            max_size_per_msg: settings.max_size_per_msg,
            seed,
            async_storage_writes: settings.async_storage,
            pre_vote: settings.pre_vote,
            check_quorum: settings.check_quorum,
            max_inflight_msgs: settings.max_inflight_msgs,
            ..Config::default()
        };
        let mut storage = MemoryStorage::new();
        storage.restore(disk.snapshot.clone(), disk.hard_state);
        storage.append(&disk.entries);
        let raw = RawNode::new(config, storage).expect("what was stored is sound");
        let (applied, conf) = (disk.base(), disk.snapshot.metadata.conf_state.clone());
        Ours { raw, disk, applied, conf, done: Done::default() }
    }

    fn persist(&mut self, entries: &[Entry], state: HardState, snapshot: Option<&Snapshot>) {
        if let Some(snapshot) = snapshot {
            self.disk.install(snapshot);
            self.applied = snapshot.metadata.index;
            self.conf = snapshot.metadata.conf_state.clone();
            self.done.applied.push(Applied::Snapshot(snapshot.metadata.index, snapshot.metadata.term));
        }
        self.disk.write(entries);
        self.done.written.extend_from_slice(entries);
        if !state.is_empty() {
            self.disk.hard_state = state;
        }
    }

    fn apply(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.applied = entry.index;
            self.done.applied.push(Applied::Entry(entry.clone()));
            if entry.kind == EntryKind::ConfChange {
                let change = ConfChange::decode(entry.data.clone()).expect("we proposed it");
                if let Ok(conf) = self.raw.apply_conf_change(&change) {
                    self.conf = conf;
                }
            }
        }
    }

    fn deliver(&mut self, responses: Vec<Message>) {
        for message in responses {
            if message.to == self.raw.id() {
                let _stale = self.raw.step(message);
            } else {
                self.done.messages.push(message);
            }
        }
    }

    fn work_once(&mut self) {
        let ready = self.raw.ready();
        self.done.reads.extend(ready.read_states);
        self.persist(&ready.entries, ready.hard_state, ready.snapshot.as_ref());
        let mut threads = Vec::new();
        for message in ready.messages {
            match message.to {
                LOCAL_APPEND_THREAD | LOCAL_APPLY_THREAD => threads.push(message),
                _ => self.done.messages.push(message),
            }
        }
        self.apply(&ready.committed_entries);
        self.raw.advance();
        for m in threads {
            if m.to == LOCAL_APPEND_THREAD {
                let state = HardState { term: m.term, vote: m.vote, commit: m.commit };
                self.persist(&m.entries, state, m.snapshot.as_ref());
            } else {
                self.apply(&m.entries);
            }
            self.deliver(m.responses);
        }
    }
}

impl Member for Ours {
    fn tick(&mut self) {
        self.raw.tick();
    }

    fn campaign(&mut self) {
        self.raw.campaign();
    }

    fn propose(&mut self, data: Bytes) -> bool {
        self.raw.propose(data).is_ok()
    }

    fn propose_change(&mut self, change: &ConfChange) -> bool {
        self.raw.propose_conf_change(change).is_ok()
    }

    fn read(&mut self, context: Bytes) {
        self.raw.read_index(context);
    }

    fn transfer(&mut self, to: u64) {
        self.raw.transfer_leader(to);
    }

    fn report_unreachable(&mut self, id: u64) {
        self.raw.report_unreachable(id);
    }

    fn report_snapshot(&mut self, id: u64, arrived: bool) {
        self.raw.report_snapshot(id, arrived);
    }

    fn step(&mut self, message: Message) {
        let _refused = self.raw.step(message);
    }

    fn set_timeout(&mut self, ticks: usize) {
        self.raw.set_election_timeout(ticks);
    }

    fn work(&mut self) -> Done {
        while self.raw.has_ready() {
            self.work_once();
        }
        std::mem::take(&mut self.done)
    }

    fn compact(&mut self) {
        if self.applied > self.disk.base() {
            self.disk.compact(self.applied, self.conf.clone());
            self.raw.storage_mut().set_snapshot(self.disk.snapshot.clone());
            self.raw.storage_mut().compact_behind(self.applied, 0, usize::MAX);
        }
    }

    fn view(&self) -> View {
        let status = self.raw.basic_status();
        let disk = Disk { hard_state: status.hard_state, ..self.disk.clone() };
        let conf = self.raw.member_config().conf_state();
        View { role: status.role, leader: status.leader, transferee: status.transferee, conf, disk }
    }

    fn matches(&self) -> Vec<(u64, u64)> {
        self.raw.progress().map(|(id, p)| (id, p.match_index)).collect()
    }

    fn disk(&self) -> Disk {
        self.disk.clone()
    }
}
