//! Messages between the two kinds: the bytes are the same, but conf changes are numbered differently in their entries,
//! and the oracle adds commit indexes to votes and answers, which etcd's raft has not: they are left out.

use api::raft::{ConfChange, ConfChangeKind, ConfState, Entry, EntryKind, HardState, Message, MessageType, Snapshot};
use bytes::Bytes;
use raft_oracle::eraftpb;

/// Both kinds write and read the same bytes.
trait Wire: protobuf_oracle::Message + Default {
    fn read(bytes: &[u8]) -> Self {
        let mut value = Self::default();
        value.merge_from_bytes(bytes).expect("the oracle reads what we write");
        value
    }

    fn bytes(&self) -> Bytes {
        self.write_to_bytes().expect("memory takes it").into()
    }
}

impl<T: protobuf_oracle::Message + Default> Wire for T {}

pub fn change_to_theirs(change: &ConfChange) -> eraftpb::ConfChange {
    let (id, node_id, context) = (change.id, change.node_id, change.context.clone());
    let mut theirs = eraftpb::ConfChange { id, node_id, context, ..Default::default() };
    theirs.set_change_type(match change.kind {
        ConfChangeKind::AddNode => eraftpb::ConfChangeType::AddNode,
        ConfChangeKind::RemoveNode => eraftpb::ConfChangeType::RemoveNode,
        ConfChangeKind::AddLearnerNode => eraftpb::ConfChangeType::AddLearnerNode,
        ConfChangeKind::UpdateNode => unreachable!("the oracle has no such change: none is proposed"),
    });
    theirs
}

pub fn change_of(entry: &Entry) -> ConfChange {
    ConfChange::decode(entry.data.clone()).expect("we proposed it")
}

pub fn entry_to_theirs(entry: &Entry) -> eraftpb::Entry {
    let mut theirs = eraftpb::Entry::read(&entry.encode());
    if entry.kind == EntryKind::ConfChange {
        theirs.data = change_to_theirs(&change_of(entry)).bytes();
    }
    theirs
}

pub fn entry_of_theirs(theirs: &eraftpb::Entry) -> Entry {
    let mut entry = Entry::decode(theirs.bytes()).expect("we read what the oracle writes");
    if entry.kind == EntryKind::ConfChange {
        let change = eraftpb::ConfChange::read(&entry.data);
        let kind = match change.get_change_type() {
            eraftpb::ConfChangeType::AddNode => ConfChangeKind::AddNode,
            eraftpb::ConfChangeType::RemoveNode => ConfChangeKind::RemoveNode,
            eraftpb::ConfChangeType::AddLearnerNode => ConfChangeKind::AddLearnerNode,
        };
        let ours = ConfChange { id: change.id, kind, node_id: change.node_id, context: change.context };
        entry.data = ours.encode().into();
    }
    entry
}

pub fn to_theirs(message: &Message) -> eraftpb::Message {
    let entries: Vec<_> = message.entries.iter().map(entry_to_theirs).collect();
    let mut theirs = eraftpb::Message::read(&message.encode());
    theirs.set_entries(entries.into());
    theirs
}

pub fn of_theirs(mut theirs: eraftpb::Message) -> Message {
    let entries = theirs.take_entries().iter().map(entry_of_theirs).collect();
    let mut message = Message { entries, ..Message::decode(theirs.bytes()).expect("we read what the oracle writes") };
    if !matches!(message.kind, MessageType::MsgApp | MessageType::MsgHeartbeat) {
        message.commit = 0;
    }
    message
}

pub fn state_to_theirs(state: HardState) -> eraftpb::HardState {
    eraftpb::HardState::read(&state.encode())
}

pub fn state_of_theirs(theirs: &eraftpb::HardState) -> HardState {
    HardState { term: theirs.term, vote: theirs.vote, commit: theirs.commit }
}

pub fn snapshot_to_theirs(snapshot: &Snapshot) -> eraftpb::Snapshot {
    eraftpb::Snapshot::read(&snapshot.encode())
}

pub fn snapshot_of_theirs(theirs: &eraftpb::Snapshot) -> Snapshot {
    Snapshot::decode(theirs.bytes()).expect("we read what the oracle writes")
}

/// Ids ascend in ours.
pub fn conf_of_theirs(theirs: &eraftpb::ConfState) -> ConfState {
    let sorted = |ids: &[u64]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    ConfState {
        voters: sorted(&theirs.voters),
        learners: sorted(&theirs.learners),
        voters_outgoing: sorted(&theirs.voters_outgoing),
        learners_next: sorted(&theirs.learners_next),
        auto_leave: theirs.auto_leave,
    }
}
