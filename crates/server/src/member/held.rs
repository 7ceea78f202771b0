//! Proposals that wait for a leader: of this member's clients, and of peers that still believe that this member leads.
//!
//! etcd's raft drops both while leadership is handed over, and a peer's at any time without a leader; whoever proposed
//! through a follower then waits for the whole request timeout, 7 s, though the cluster was without a leader for some
//! milliseconds. Here they go to whoever leads next. To the proposer that looks like a slow network: an entry that arrives
//! late is applied as any other, and a proposal is handed on once.
//!
//! A leader's own proposals (revocations, checkpoints of leases, versions) don't wait for its successor: they are right only
//! in the term of the leader that thought of them. What a member without a leader proposes itself waits as clients' do.

use super::{Member, Waiter};
use api::raft::{Message, MessageType};
use bytes::Bytes;
use raft::Role;
use std::collections::VecDeque;

/// What peers' proposals may take here, bytes. Those past it are lost, as any message may be. Members' own clients have
/// credits.
const PEERS_BYTES_MAX: usize = 16 << 20;
/// The same in messages: empty ones count too.
const PEERS_MESSAGES_MAX: usize = 4096;

#[derive(Debug)]
enum Proposal {
    /// Of a client here, by the id that its waiter has.
    Own(u64, Bytes),
    Peer(Box<Message>),
}

/// In the order in which they came.
#[derive(Debug, Default)]
pub struct Held {
    proposals: VecDeque<Proposal>,
    peers_bytes: usize,
    peers_messages: usize,
}

impl Held {
    fn push_peer(&mut self, message: Message) {
        let bytes = size(&message);
        if self.peers_bytes + bytes <= PEERS_BYTES_MAX && self.peers_messages < PEERS_MESSAGES_MAX {
            self.peers_bytes += bytes;
            self.peers_messages += 1;
            self.proposals.push_back(Proposal::Peer(Box::new(message)));
        }
    }
}

fn size(message: &Message) -> usize {
    message.entries.iter().map(|entry| entry.data.len()).sum()
}

impl<T> Member<T> {
    /// Nobody takes proposals: no leader is known, or this one is handing over.
    pub(super) fn is_between_leaders(&self) -> bool {
        let status = self.raft.basic_status();
        status.leader == 0 || status.role == Role::Leader && status.transferee != 0
    }

    /// Keeps a client's proposal until somebody leads; its deadline goes on.
    pub(super) fn hold(&mut self, id: u64, data: Bytes) {
        self.held.proposals.push_back(Proposal::Own(id, data));
    }

    /// Keeps a peer's message if it is a proposal that nobody would take now; else gives it back.
    pub(super) fn hold_peers(&mut self, message: Message) -> Option<Message> {
        if message.kind != MessageType::MsgProp || !self.is_between_leaders() || self.is_leaderless() {
            return Some(message);
        }
        self.held.push_peer(message);
        None
    }

    /// Somebody leads again.
    pub(super) fn submit_held(&mut self) {
        if self.held.proposals.is_empty() || self.is_between_leaders() {
            return;
        }
        for proposal in std::mem::take(&mut self.held).proposals {
            match proposal {
                Proposal::Own(id, data) if self.pending.contains(id) => self.submit_known(id, data),
                // Its client was told that its time is over.
                Proposal::Own(..) => {}
                Proposal::Peer(message) => {
                    // As if it had come now: a follower passes it on.
                    let _refused = self.raft.step(*message);
                }
            }
        }
    }

    /// Nobody will lead soon. Answers whose clients are to be told.
    pub(super) fn give_up_held(&mut self) -> Vec<Waiter<T>> {
        let proposals = std::mem::take(&mut self.held).proposals.into_iter();
        let own = proposals.filter_map(|proposal| match proposal {
            Proposal::Own(id, _) => Some(id),
            Proposal::Peer(_) => None,
        });
        own.filter_map(|id| self.pending.take(id)).collect()
    }
}
