//! Who waits for what: proposals that are on their way through the log.

use crate::Response;
use std::collections::{BTreeMap, VecDeque};

/// What happens when a proposal is applied.
#[derive(Debug)]
pub enum Waiter<T> {
    /// A client waits for the entry's own reply.
    Client(T),
    /// A client waits for a compaction's deletions, too: also when the revision is compacted already.
    Physical(T),
    /// A client's write was refused by the quota; it is told so once the alarm stands.
    NoSpace(T),
    /// A keepalive waits for its lease's checkpoint to be cleared, then renews.
    Renew(T, i64),
    /// The member itself asked.
    Internal(Internal),
}

/// Proposals of the member's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Internal {
    Publish,
    ClusterVersion,
    Revoke(i64),
    Checkpoint,
    Compaction(i64),
    Alarm,
}

/// Waiters by request id, and their deadlines in order: every proposal is given the same time.
#[derive(Debug)]
pub struct Pending<T> {
    by_id: BTreeMap<u64, Waiter<T>>,
    deadlines: VecDeque<(u64, u64)>,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Pending { by_id: BTreeMap::new(), deadlines: VecDeque::new() }
    }
}

impl<T> Pending<T> {
    pub fn insert(&mut self, id: u64, waiter: Waiter<T>, deadline_ms: u64) {
        self.by_id.insert(id, waiter);
        self.deadlines.push_back((deadline_ms, id));
    }

    pub fn contains(&self, id: u64) -> bool {
        self.by_id.contains_key(&id)
    }

    pub fn take(&mut self, id: u64) -> Option<Waiter<T>> {
        let waiter = self.by_id.remove(&id);
        while self.deadlines.front().is_some_and(|(_, id)| !self.by_id.contains_key(id)) {
            self.deadlines.pop_front();
        }
        waiter
    }

    /// Those whose time is over.
    pub fn expire(&mut self, now_ms: u64) -> Vec<Waiter<T>> {
        let mut over = Vec::new();
        while let Some(&(deadline, id)) = self.deadlines.front() {
            if self.by_id.contains_key(&id) && deadline > now_ms {
                break;
            }
            self.deadlines.pop_front();
            over.extend(self.by_id.remove(&id));
        }
        over
    }

    pub fn drain(&mut self) -> Vec<Waiter<T>> {
        self.deadlines.clear();
        std::mem::take(&mut self.by_id).into_values().collect()
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }
}

impl<T> Waiter<T> {
    /// The client's ticket, if a client waits.
    pub fn ticket(self) -> Option<T> {
        match self {
            Waiter::Client(ticket) | Waiter::Physical(ticket) | Waiter::NoSpace(ticket) | Waiter::Renew(ticket, _) => {
                Some(ticket)
            }
            Waiter::Internal(_) => None,
        }
    }
}

/// The result a client gets.
pub type Outcome = Result<Response, api::Error>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiters_expire_in_order_and_only_once() {
        let mut pending = Pending::default();
        pending.insert(1, Waiter::Client('a'), 10);
        pending.insert(2, Waiter::Client('b'), 20);
        pending.insert(3, Waiter::Client('c'), 30);
        assert_eq!(pending.take(2).and_then(Waiter::ticket), Some('b'));
        assert!(pending.expire(9).is_empty());
        let over: Vec<_> = pending.expire(30).into_iter().filter_map(Waiter::ticket).collect();
        assert_eq!(over, ['a', 'c']);
        assert_eq!(pending.len(), 0);
    }
}
