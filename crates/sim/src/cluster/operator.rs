//! An operator: adds members, promotes learners, removes members, replaces what died for good.

use super::clients::What;
use super::node::Node;
use super::world::{Event, World};
use crate::streams::Streams;
use api::pb::etcdserverpb as pb;
use disk::Crash;
use server::Request;

/// More members than this are not wanted.
const MEMBERS_MAX: usize = 5;

impl World {
    /// A change, now and then; and whoever belongs to the cluster is switched on, whoever does not, off.
    pub(super) fn operate(&mut self) -> Result<(), String> {
        if self.peace || !self.plan.reconfigure {
            return Ok(());
        }
        let pause = 500_000 + self.rng.below(4_000_000);
        self.queue.after(pause, Event::Operate);
        if self.rng.one_in(2) {
            self.reconcile()?;
        }
        let ids: Vec<u64> = self.nodes.values().filter(|n| n.process.is_some()).map(|n| n.id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let at = ids[self.rng.below(ids.len() as u64) as usize];
        let members = &self.members.1;
        let learner = members.iter().find(|m| m.is_learner).map(|m| m.id);
        let request = match (self.rng.below(3), learner) {
            (0, Some(id)) => Request::MemberPromote(pb::MemberPromoteRequest { id }),
            (0..=1, _) if members.len() < MEMBERS_MAX => self.addition(),
            _ if members.len() > 2 => {
                let it = &members[self.rng.below(members.len() as u64) as usize];
                // Of two voters none: whoever is left and crashes before it has heard that the other one's removal is committed
                // needs that one's vote, and it is gone. So says the protocol; etcd, too, is stuck then.
                let voters = members.iter().filter(|m| !m.is_learner).count();
                if voters <= 2 && !it.is_learner {
                    return Ok(());
                }
                Request::MemberRemove(pb::MemberRemoveRequest { id: it.id })
            }
            _ => return Ok(()),
        };
        self.reconfigured = true;
        self.call(at, What::Member, request)
    }

    /// What docs/operations says of a member whose data is damaged: it is removed, and a new one takes its place.
    pub(super) fn replace(&mut self, id: u64) -> Result<(), String> {
        self.reconfigured = true;
        let ids: Vec<u64> = self.nodes.values().filter(|n| n.process.is_some()).map(|n| n.id).collect();
        let there = self.members.1.iter().any(|m| m.id == id);
        let wanted = self.plan.members as usize;
        if there || self.members.1.len() < wanted {
            self.queue.after(2_000_000, Event::Replace(id));
        } else {
            self.report.replaced += 1;
            return self.reconcile();
        }
        if ids.is_empty() {
            return Ok(());
        }
        let at = ids[self.rng.below(ids.len() as u64) as usize];
        if there {
            return self.call(at, What::Member, Request::MemberRemove(pb::MemberRemoveRequest { id }));
        }
        self.reconcile()?;
        let mut request = self.addition();
        if let Request::MemberAdd(r) = &mut request {
            r.is_learner = false;
        }
        self.call(at, What::Member, request)
    }

    fn addition(&mut self) -> Request {
        let n = self.next_call;
        let url = format!("http://10.1.{}.{}:2380", n >> 8 & 0xff, n & 0xff);
        Request::MemberAdd(pb::MemberAddRequest { peer_ur_ls: vec![url], is_learner: self.rng.one_in(2) })
    }

    /// A machine for a new member.
    pub(super) fn enlist(&mut self, id: u64) -> Result<(), String> {
        if self.nodes.contains_key(&id) || self.retired.contains(&id) {
            return Ok(());
        }
        self.report.joined += 1;
        self.say(|| format!("{id:x}: joins"));
        let node = Node::new(id, Vec::new(), &mut self.rng, &self.plan);
        node.disk.crash_now();
        self.nodes.insert(id, node);
        let delay = self.rng.below(2_000_000);
        self.queue.after(delay, Event::Restart(id, Crash::Keep));
        Ok(())
    }

    /// The machines are those of the members.
    pub(super) fn reconcile(&mut self) -> Result<(), String> {
        let members: Vec<u64> = self.members.1.iter().map(|m| m.id).collect();
        if members.is_empty() {
            return Ok(());
        }
        let strangers: Vec<u64> = self.nodes.keys().filter(|id| !members.contains(id)).copied().collect();
        // Who was just added may not know it yet, but he is in the list; who is not, was removed.
        strangers.into_iter().for_each(|id| self.retire(id));
        members.into_iter().try_for_each(|id| self.enlist(id))
    }

    /// Who watched at a member that is gone goes to another, if clients do that.
    fn find_others(&mut self, from: u64, streams: Option<Streams>) {
        let runs = |node: &&Node| node.process.is_some() && node.streams.is_some();
        let others: Vec<u64> = self.nodes.values().filter(runs).map(|node| node.id).collect();
        let Some(mut streams) = streams.filter(|_| self.plan.roam && !others.is_empty()) else { return };
        while let Some(client) = streams.leave(&mut self.rng) {
            let to = others[self.rng.below(others.len() as u64) as usize];
            self.welcome(from, to, client);
        }
    }

    /// A removed member's machine is switched off for good.
    pub(super) fn retire(&mut self, id: u64) {
        if let Some(mut node) = self.nodes.remove(&id) {
            self.find_others(id, node.streams.take());
            self.say(|| format!("{id:x}: is retired"));
            self.retired.insert(id);
            self.calls.retain(|_, asked| asked.node != id);
            self.report.retired += 1;
        }
    }
}
