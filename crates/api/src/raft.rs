//! Plain types of the consensus protocol and their wire form.
//!
//! Every absent proto2 field reads as zero; what is written follows Go etcd 3.7 (reference/raft-compat.md):
//! an entry leaves `Type` out when normal and `Data` out when empty, a HardState writes all three fields, a
//! ConfState writes its ids unpacked and always `auto_leave`. gogo readers (3.5, 3.6) accept these bytes.

use crate::pb::raftpb as pb;
use bytes::Bytes;
use prost::Message as _;

/// Bytes from outside that are no message of this protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "malformed raft message: {}", self.0)
    }
}
impl std::error::Error for Malformed {}

impl From<prost::DecodeError> for Malformed {
    fn from(e: prost::DecodeError) -> Self {
        Malformed(e.to_string())
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EntryKind {
    #[default]
    Normal,
    ConfChange,
    /// Never written by etcd; known so that raft's transcripts and odd logs can be named.
    ConfChangeV2,
}

/// One log entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub term: u64,
    pub index: u64,
    pub kind: EntryKind,
    pub data: Bytes,
}

impl Entry {
    pub fn to_pb(&self) -> pb::Entry {
        pb::Entry {
            term: Some(self.term),
            index: Some(self.index),
            r#type: (self.kind != EntryKind::Normal).then_some(self.kind as i32),
            data: (!self.data.is_empty()).then(|| self.data.clone()),
        }
    }

    pub fn from_pb(e: pb::Entry) -> Result<Entry, Malformed> {
        let kind = match e.r#type.unwrap_or(0) {
            0 => EntryKind::Normal,
            1 => EntryKind::ConfChange,
            2 => EntryKind::ConfChangeV2,
            other => return Err(Malformed(format!("unknown entry type {other}"))),
        };
        Ok(Entry { term: e.term(), index: e.index(), kind, data: e.data.unwrap_or_default() })
    }

    pub fn encode(&self) -> Vec<u8> {
        self.to_pb().encode_to_vec()
    }

    pub fn decode(bytes: Bytes) -> Result<Entry, Malformed> {
        Entry::from_pb(pb::Entry::decode(bytes)?)
    }

    /// Size on the wire, bytes: what `MaxSizePerMsg` counts.
    pub fn encoded_len(&self) -> usize {
        self.to_pb().encoded_len()
    }
}

/// Term, vote and commit index: what must be durable before a promise leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    pub term: u64,
    pub vote: u64,
    pub commit: u64,
}

impl HardState {
    pub fn is_empty(&self) -> bool {
        *self == HardState::default()
    }

    pub fn encode(&self) -> Vec<u8> {
        pb::HardState { term: Some(self.term), vote: Some(self.vote), commit: Some(self.commit) }.encode_to_vec()
    }

    pub fn decode(bytes: Bytes) -> Result<HardState, Malformed> {
        let h = pb::HardState::decode(bytes)?;
        Ok(HardState { term: h.term(), vote: h.vote(), commit: h.commit() })
    }
}

/// The members of a configuration. `voters_outgoing`, `learners_next` and `auto_leave` belong to joint
/// consensus, which etcd never enters; they are kept so that foreign bytes survive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    pub voters: Vec<u64>,
    pub learners: Vec<u64>,
    pub voters_outgoing: Vec<u64>,
    pub learners_next: Vec<u64>,
    pub auto_leave: bool,
}

impl ConfState {
    pub fn to_pb(&self) -> pb::ConfState {
        pb::ConfState {
            voters: self.voters.clone(),
            learners: self.learners.clone(),
            voters_outgoing: self.voters_outgoing.clone(),
            learners_next: self.learners_next.clone(),
            auto_leave: Some(self.auto_leave),
        }
    }

    pub fn from_pb(c: pb::ConfState) -> ConfState {
        let auto_leave = c.auto_leave();
        ConfState {
            voters: c.voters,
            learners: c.learners,
            voters_outgoing: c.voters_outgoing,
            learners_next: c.learners_next,
            auto_leave,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMetadata {
    pub conf_state: ConfState,
    pub index: u64,
    pub term: u64,
}

/// A raft snapshot: the state machine's image (in etcd: the v2 JSON of the membership) and where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub data: Bytes,
    pub metadata: SnapshotMetadata,
}

impl Snapshot {
    pub fn is_empty(&self) -> bool {
        self.metadata.index == 0
    }

    pub fn to_pb(&self) -> pb::Snapshot {
        pb::Snapshot {
            data: Some(self.data.clone()),
            metadata: Some(pb::SnapshotMetadata {
                conf_state: Some(self.metadata.conf_state.to_pb()),
                index: Some(self.metadata.index),
                term: Some(self.metadata.term),
            }),
        }
    }

    pub fn from_pb(s: pb::Snapshot) -> Snapshot {
        let m = s.metadata.unwrap_or_default();
        Snapshot {
            data: s.data.unwrap_or_default(),
            metadata: SnapshotMetadata {
                index: m.index(),
                term: m.term(),
                conf_state: ConfState::from_pb(m.conf_state.unwrap_or_default()),
            },
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        self.to_pb().encode_to_vec()
    }

    pub fn decode(bytes: Bytes) -> Result<Snapshot, Malformed> {
        Ok(Snapshot::from_pb(pb::Snapshot::decode(bytes)?))
    }
}

/// Message kinds with their numbers on the wire. Storage messages never leave the member.
pub use pb::MessageType;

/// One protocol message. Zero means absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub kind: MessageType,
    pub to: u64,
    pub from: u64,
    pub term: u64,
    pub log_term: u64,
    pub index: u64,
    pub entries: Vec<Entry>,
    pub commit: u64,
    /// Only in MsgStorageAppend: the vote to store.
    pub vote: u64,
    pub snapshot: Option<Snapshot>,
    pub reject: bool,
    pub reject_hint: u64,
    pub context: Bytes,
    /// Only in storage messages: sent out once the work is durable or applied.
    pub responses: Vec<Message>,
}

impl Message {
    /// Responses are left out: they belong to local storage messages only.
    pub fn to_pb(&self) -> pb::Message {
        let some = |v: u64| (v != 0).then_some(v);
        pb::Message {
            r#type: Some(self.kind as i32),
            to: some(self.to),
            from: some(self.from),
            term: some(self.term),
            log_term: some(self.log_term),
            index: some(self.index),
            entries: self.entries.iter().map(Entry::to_pb).collect(),
            commit: some(self.commit),
            vote: some(self.vote),
            snapshot: self.snapshot.as_ref().map(Snapshot::to_pb),
            reject: self.reject.then_some(true),
            reject_hint: some(self.reject_hint),
            context: (!self.context.is_empty()).then(|| self.context.clone()),
            responses: Vec::new(),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        self.to_pb().encode_to_vec()
    }

    pub fn decode(bytes: Bytes) -> Result<Message, Malformed> {
        let m = pb::Message::decode(bytes)?;
        let kind = m.r#type.unwrap_or(0);
        Ok(Message {
            kind: MessageType::try_from(kind).map_err(|_| Malformed(format!("unknown message type {kind}")))?,
            to: m.to(),
            from: m.from(),
            term: m.term(),
            log_term: m.log_term(),
            index: m.index(),
            commit: m.commit(),
            vote: m.vote(),
            reject: m.reject(),
            reject_hint: m.reject_hint(),
            entries: m.entries.into_iter().map(Entry::from_pb).collect::<Result<_, _>>()?,
            snapshot: m.snapshot.map(Snapshot::from_pb),
            context: m.context.unwrap_or_default(),
            responses: Vec::new(),
        })
    }
}

/// Kinds of a V1 configuration change, with etcd's numbers (raft-rs numbers them differently).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConfChangeKind {
    #[default]
    AddNode = 0,
    RemoveNode = 1,
    UpdateNode = 2,
    AddLearnerNode = 3,
}

/// A V1 configuration change as it stands in an entry's data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfChange {
    /// Request id: the key under which the proposer waits.
    pub id: u64,
    pub kind: ConfChangeKind,
    pub node_id: u64,
    /// JSON of the member, see reference/raft-compat.md 3.2.
    pub context: Bytes,
}

impl ConfChange {
    pub fn encode(&self) -> Vec<u8> {
        pb::ConfChange {
            id: (self.id != 0).then_some(self.id),
            r#type: Some(self.kind as i32),
            node_id: Some(self.node_id),
            context: (!self.context.is_empty()).then(|| self.context.clone()),
        }
        .encode_to_vec()
    }

    pub fn decode(bytes: Bytes) -> Result<ConfChange, Malformed> {
        let c = pb::ConfChange::decode(bytes)?;
        let kind = match c.r#type.unwrap_or(0) {
            0 => ConfChangeKind::AddNode,
            1 => ConfChangeKind::RemoveNode,
            2 => ConfChangeKind::UpdateNode,
            3 => ConfChangeKind::AddLearnerNode,
            other => return Err(Malformed(format!("unknown conf change type {other}"))),
        };
        Ok(ConfChange { id: c.id(), kind, node_id: c.node_id(), context: c.context.unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_the_bytes_go_3_7_writes() {
        let e = Entry { term: 2, index: 3, kind: EntryKind::Normal, data: Bytes::from_static(b"x") };
        assert_eq!(e.encode(), [0x10, 2, 0x18, 3, 0x22, 1, b'x']);
        let noop = Entry { term: 2, index: 4, ..Entry::default() };
        assert_eq!(noop.encode(), [0x10, 2, 0x18, 4]);
        let cc = Entry { term: 1, index: 1, kind: EntryKind::ConfChange, data: Bytes::new() };
        assert_eq!(cc.encode(), [0x08, 1, 0x10, 1, 0x18, 1]);
        assert_eq!(Entry::decode(e.encode().into()).unwrap(), e);
    }

    #[test]
    fn hard_state_writes_zeros_too() {
        assert_eq!(HardState { term: 1, vote: 0, commit: 1 }.encode(), [0x08, 1, 0x10, 0, 0x18, 1]);
    }

    #[test]
    fn conf_state_is_unpacked_with_auto_leave() {
        let c = ConfState { voters: vec![1, 2], ..ConfState::default() };
        assert_eq!(c.to_pb().encode_to_vec(), [0x08, 1, 0x08, 2, 0x28, 0]);
    }

    #[test]
    fn foreign_enum_numbers_are_errors() {
        assert!(Message::decode(Bytes::from_static(&[0x08, 99])).is_err());
        assert!(ConfChange::decode(Bytes::from_static(&[0x10, 9])).is_err());
    }
}
