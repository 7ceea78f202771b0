//! Clients: what they ask, and what they may be told.
//!
//! Every write that is answered must be an entry that was proposed after it was asked, and its answer the model's at that
//! entry. Every linearizable read must see all that was acknowledged to anybody before it was asked. That is linearizability,
//! checked as it happens instead of searched for afterwards.

use super::node::Ticket;
use super::world::World;
use crate::model::plain;
use crate::ops::{Draw, Op};
use crate::verdict::Outcome;
use api::pb::etcdserverpb as pb;
use server::{Request, Response, read};

/// What a client waits for.
#[derive(Clone, Debug)]
pub enum What {
    Write(Op),
    Read {
        linearizable: bool,
    },
    KeepAlive {
        id: i64,
        grant: Option<(i64, u64)>,
    },
    TimeToLive {
        id: i64,
    },
    Defragment,
    /// A database snapshot, of what the member had then at least.
    Snapshot {
        from: u64,
    },
    MoveLeader,
    Member,
}

#[derive(Clone, Debug)]
pub struct Asked {
    pub what: What,
    pub node: u64,
    asked_us: u64,
    /// The last entry that anybody had applied.
    agreed: u64,
    /// The last entry that anybody had been told of.
    told: u64,
}

/// It was not proposed, and never will be.
fn is_refusal(e: &api::Error) -> bool {
    matches!(e, api::Error::RequestTooManyRequests) || e.to_string() == "raft proposal dropped"
}

/// Answers that tell nothing of what became of the request.
fn is_ambiguous(e: &api::Error) -> bool {
    use api::Error as E;
    matches!(
        e,
        E::Timeout
            | E::TimeoutDueToLeaderFail
            | E::TimeoutDueToConnectionLost
            | E::Stopped
            | E::NoLeader
            | E::NotLeader
    )
}

impl World {
    /// Somebody asks something of some member.
    pub(super) fn ask(&mut self) -> Result<(), String> {
        let Some(node) = self.some_running() else { return Ok(()) };
        let (defragments, images) = (self.plan.defragments, self.plan.images);
        match self.rng.below(100) {
            n if n < defragments => self.call(node, What::Defragment, Request::Defragment(pb::DefragmentRequest {})),
            n if n < defragments + images => {
                let from = self.visible(node)?.index();
                self.call(node, What::Snapshot { from }, Request::Snapshot(pb::SnapshotRequest {}))
            }
            0..=59 => self.ask_write(node),
            60..=84 => self.ask_read(node),
            85..=96 => self.ask_lease(node),
            _ => self.ask_move(node),
        }
    }

    fn some_running(&mut self) -> Option<u64> {
        let running: Vec<u64> = self.nodes.values().filter(|n| n.process.is_some()).map(|n| n.id).collect();
        (!running.is_empty()).then(|| running[self.rng.below(running.len() as u64) as usize])
    }

    fn draw<R>(&mut self, member_id: u64, draw: impl FnOnce(&mut Draw<'_>) -> R) -> R {
        let model = self.history.newest().clone();
        let (serial, plan) = (self.next_call, &self.plan);
        let (ttl, big_values) = (plan.ttl, plan.big_values);
        draw(&mut Draw { rng: &mut self.rng, model: &model, serial, member_id, ttl, big_values })
    }

    fn ask_write(&mut self, node: u64) -> Result<(), String> {
        let op = self.draw(node, |draw| draw.op());
        let now_us = self.queue.now_us();
        match &op {
            Op::Grant { id, .. } => self.clocks.grant_asked(*id, now_us),
            Op::Revoke { id } => self.clocks.revocation_asked(*id),
            _ => {}
        }
        let what = if op.is_read() { What::Read { linearizable: true } } else { What::Write(op.clone()) };
        self.call(node, what, op.request())
    }

    fn ask_read(&mut self, node: u64) -> Result<(), String> {
        let mut range = self.draw(node, |draw| draw.range_request());
        range.serializable = self.rng.one_in(4);
        let linearizable = !range.serializable;
        self.call(node, What::Read { linearizable }, Request::Range(range))
    }

    fn ask_lease(&mut self, node: u64) -> Result<(), String> {
        let id = self.draw(node, |draw| draw.lease_or_unknown());
        if self.rng.one_in(3) {
            let request = pb::LeaseTimeToLiveRequest { id, keys: self.rng.one_in(2) };
            return self.call(node, What::TimeToLive { id }, Request::LeaseTimeToLive(request));
        }
        let grant = self.history.newest().lease(id);
        let what = What::KeepAlive { id, grant };
        self.call(node, what, Request::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id }))
    }

    fn ask_move(&mut self, node: u64) -> Result<(), String> {
        let targets: Vec<u64> = self.nodes.keys().copied().collect();
        let target_id = targets[self.rng.below(targets.len() as u64) as usize];
        match self.plan.move_leader {
            true => self.call(node, What::MoveLeader, Request::MoveLeader(pb::MoveLeaderRequest { target_id })),
            false => Ok(()),
        }
    }

    pub(super) fn call(&mut self, node: u64, what: What, request: Request) -> Result<(), String> {
        let id = self.next_call;
        self.next_call += 1;
        self.say(|| format!("{node:x}: ask {id}: {request:?}"));
        let asked =
            Asked { what, node, asked_us: self.queue.now_us(), agreed: self.history.last_index(), told: self.told };
        self.calls.insert(id, asked);
        self.report.asked += 1;
        self.hear(node, super::node::Input::Call(Ticket::Client(id), request));
        Ok(())
    }

    /// A member answers a client.
    pub(super) fn answered(&mut self, node: u64, id: u64, mut result: Outcome) -> Result<(), String> {
        let Some(asked) = self.calls.remove(&id) else { return Err(format!("an answer to nobody: {id}")) };
        if let Ok(response) = &mut result {
            plain(response);
        }
        self.say(|| format!("{node:x}: answer {id}: {result:?}"));
        let outcome = match &asked.what {
            What::Write(op) => self.check_write(node, &asked, op, &result),
            what => self.check_other(&asked, what, &result),
        };
        outcome.map_err(|e| format!("{id} {asked:?} answered {result:?}: {e}"))
    }

    fn check_write(&mut self, node: u64, asked: &Asked, op: &Op, result: &Outcome) -> Result<(), String> {
        let visible = self.visible(node)?;
        if result.as_ref().is_err_and(is_refusal) {
            self.report.refused += 1;
            self.history.refuse(op);
            return Ok(());
        }
        let over_quota = self.plan.quota > 0 && op.costs() && *result == Err(api::Error::NoSpace);
        if over_quota || result.as_ref().is_err_and(is_ambiguous) {
            self.report.ambiguous += 1;
            return Ok(());
        }
        let range = asked.agreed + 1..=visible.index();
        let found = self.history.claim(range, node, op, |outcome| outcome == result);
        let index = found.ok_or_else(|| self.explain(asked, op, visible.index()))?;
        self.told = self.told.max(index);
        self.report.acknowledged += 1;
        self.check_quorum(index, visible.conf_state())
    }

    fn explain(&self, asked: &Asked, op: &Op, last: u64) -> String {
        let same = (asked.agreed + 1..=last).filter_map(|index| self.history.at(index));
        let same: Vec<_> = same.filter(|c| c.op.as_ref() == Some(op)).collect();
        format!("no entry of {}..={last} is this; alike are {same:?}", asked.agreed + 1)
    }

    /// What a client is told is durable at a majority.
    fn check_quorum(&self, index: u64, conf: &api::raft::ConfState) -> Result<(), String> {
        let term = self.history.at(index).map_or(0, |c| c.entry.term);
        let holders = conf.voters.iter().filter(|id| self.nodes.get(id).is_some_and(|n| n.shadow.holds(index, term)));
        let holders = holders.count();
        match holders > conf.voters.len() / 2 || self.reconfigured {
            true => Ok(()),
            false => Err(format!("entry {index} is durable at {holders} of {:?}", conf.voters)),
        }
    }

    /// A read runs on what its member has published.
    pub(super) fn read(&mut self, node: u64, id: u64, request: &Request) -> Result<(), String> {
        let Some(asked) = self.calls.remove(&id) else { return Err(format!("a read that nobody asked: {id}")) };
        let visible = self.visible(node)?;
        let model = self.history.model(visible.index()).ok_or("a member is ahead of all others")?;
        let expected = match request {
            Request::Range(r) => model.range(r).map(Response::Range),
            Request::Txn(r) => model.as_ref().clone().apply(&Op::Txn(r.clone())),
            other => return Err(format!("{other:?} is no read")),
        };
        let seen = match read::run(&visible, request.clone(), &|_| ()) {
            Ok(mut response) => {
                plain(&mut response);
                Ok(response)
            }
            Err(store::Error::Refused(e)) => Err(e),
            Err(store::Error::Fatal(e)) => return self.died(node, &server::Fatal::new(e)),
        };
        self.report.reads += 1;
        self.say(|| format!("{node:x}: read {id} at {}: {seen:?}", visible.index()));
        if seen != expected {
            return Err(format!("read {id} {request:?} saw {seen:?}, the model says {expected:?}"));
        }
        if matches!(asked.what, What::Read { linearizable: true }) {
            if visible.index() < asked.told {
                let (index, told) = (visible.index(), asked.told);
                return Err(format!("stale read {id} {request:?}: at entry {index}, {told} had been told"));
            }
            self.told = self.told.max(visible.index());
        }
        Ok(())
    }

    fn check_other(&mut self, asked: &Asked, what: &What, result: &Outcome) -> Result<(), String> {
        let now_us = self.queue.now_us();
        match (what, result) {
            (What::KeepAlive { id, grant, .. }, Ok(Response::LeaseKeepAlive(r))) => match (r.ttl > 0, grant) {
                (true, Some((_, grant))) => {
                    self.clocks.renewed(*id, *grant, asked.asked_us, now_us);
                    self.report.renewed += 1;
                    Ok(())
                }
                (true, None) => Ok(()),
                (false, _) => self.check_gone(*id, *grant),
            },
            (What::TimeToLive { id }, Ok(Response::LeaseTimeToLive(r))) if r.ttl < 0 => {
                let grant = self.history.newest().lease(*id).filter(|_| asked.agreed == self.history.last_index());
                self.check_gone(*id, grant)
            }
            (_, Ok(Response::MemberPromote(_))) => {
                self.report.promoted += 1;
                Ok(())
            }
            (_, Ok(Response::MemberAdd(r))) => {
                let id = r.member.as_ref().map_or(0, |m| m.id);
                self.enlist(id)
            }
            _ => Ok(()),
        }
    }

    /// A client was told that its lease is gone.
    fn check_gone(&self, id: i64, grant: Option<(i64, u64)>) -> Result<(), String> {
        let lives = grant.is_some() && self.history.newest().lease(id) == grant;
        match lives && !self.clocks.may_be_gone(id, self.queue.now_us()) {
            true => Err("but the lease lives".into()),
            false => Ok(()),
        }
    }
}
