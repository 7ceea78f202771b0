//! Clients: what they ask, and what they may be told.
//!
//! Every write that is answered must be an entry that was proposed after it was asked, and its answer the model's at that
//! entry. Every linearizable read must see all that was acknowledged to anybody before it was asked. That is linearizability,
//! checked as it happens instead of searched for afterwards.

use super::checks::permissions::{self, Window};
use super::node::Ticket;
use super::world::World;
use crate::model::{Claim, plain};
use crate::ops::{self, Draw, Op};
use crate::verdict::Outcome;
use api::pb::etcdserverpb as pb;
use server::{Request, Response, Who, access, read};

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
    /// Whether a downgrade could begin.
    Downgrade,
}

#[derive(Clone, Debug)]
pub struct Asked {
    pub what: What,
    pub node: u64,
    pub who: Who,
    pub request: Request,
    /// Of users and roles, at the member that asked another on its client's behalf.
    pub auth_revision: u64,
    asked_us: u64,
    /// What the member had published.
    from: u64,
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
            n if n < defragments => {
                let who = self.draw_who(node);
                self.call_as(node, who, What::Defragment, Request::Defragment(pb::DefragmentRequest {}))
            }
            n if n < defragments + images => {
                let from = self.visible(node)?.index();
                let who = self.draw_who(node);
                self.call_as(node, who, What::Snapshot { from }, Request::Snapshot(pb::SnapshotRequest {}))
            }
            _ if self.plan.roam && self.rng.one_in(40) => {
                self.move_watchers(node);
                Ok(())
            }
            _ if self.plan.downgrade && self.rng.one_in(60) => self.ask_downgrade(node),
            _ if self.plan.auth && self.asks_auth() => self.ask_auth(node),
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
        let (ttl, big_values, auth) = (plan.ttl, plan.big_values, plan.auth);
        draw(&mut Draw { rng: &mut self.rng, model: &model, serial, member_id, ttl, big_values, auth })
    }

    fn draw_who(&mut self, node: u64) -> Who {
        if self.plan.auth { self.draw(node, |draw| draw.who()) } else { ops::root() }
    }

    /// Often until users may do different things, then now and then.
    fn asks_auth(&mut self) -> bool {
        let often = !self.history.newest().auth.enabled;
        self.rng.one_in(if often { 4 } else { 25 })
    }

    fn ask_downgrade(&mut self, node: u64) -> Result<(), String> {
        use pb::downgrade_request::DowngradeAction;
        let request = self.draw(node, |draw| draw.downgrade());
        let who = if self.rng.one_in(4) { self.draw_who(node) } else { ops::root() };
        let what = match request.action() {
            DowngradeAction::Validate => What::Downgrade,
            DowngradeAction::Enable | DowngradeAction::Cancel => What::Write(Op::Downgrade(request.clone())),
        };
        self.call_as(node, who, what, Request::Downgrade(request))
    }

    fn ask_auth(&mut self, node: u64) -> Result<(), String> {
        let (op, who) = self.draw(node, |draw| draw.auth_op());
        self.call_as(node, who, What::Write(op.clone()), op.request())
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
        let who = self.draw_who(node);
        self.call_as(node, who, what, op.request())
    }

    fn ask_read(&mut self, node: u64) -> Result<(), String> {
        let mut range = self.draw(node, |draw| draw.range_request());
        range.serializable = self.rng.one_in(4);
        let linearizable = !range.serializable;
        let who = self.draw_who(node);
        self.call_as(node, who, What::Read { linearizable }, Request::Range(range))
    }

    fn ask_lease(&mut self, node: u64) -> Result<(), String> {
        let id = self.draw(node, |draw| draw.lease_or_unknown());
        let who = self.draw_who(node);
        if self.rng.one_in(3) {
            let request = pb::LeaseTimeToLiveRequest { id, keys: self.rng.one_in(2) };
            return self.call_as(node, who, What::TimeToLive { id }, Request::LeaseTimeToLive(request));
        }
        let grant = self.history.newest().lease(id);
        let what = What::KeepAlive { id, grant };
        self.call_as(node, who, what, Request::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id }))
    }

    fn ask_move(&mut self, node: u64) -> Result<(), String> {
        let targets: Vec<u64> = self.nodes.keys().copied().collect();
        let target_id = targets[self.rng.below(targets.len() as u64) as usize];
        if !self.plan.move_leader {
            return Ok(());
        }
        let who = self.draw_who(node);
        self.call_as(node, who, What::MoveLeader, Request::MoveLeader(pb::MoveLeaderRequest { target_id }))
    }

    /// Root asks.
    pub(super) fn call(&mut self, node: u64, what: What, request: Request) -> Result<(), String> {
        self.call_as(node, ops::root(), what, request)
    }

    fn call_as(&mut self, node: u64, who: Who, what: What, request: Request) -> Result<(), String> {
        let id = self.next_call;
        self.next_call += 1;
        self.say(|| format!("{node:x}: ask {id}: {request:?}, as {who:?}"));
        let asked = Asked {
            what,
            node,
            who: who.clone(),
            request: request.clone(),
            auth_revision: 0,
            asked_us: self.queue.now_us(),
            from: self.visible(node)?.index(),
            agreed: self.history.last_index(),
            told: self.told,
        };
        self.calls.insert(id, asked);
        self.report.asked += 1;
        self.hear(node, super::node::Input::Call(Ticket::Client(id), who, request));
        Ok(())
    }

    /// A member answers a client.
    pub(super) fn answered(&mut self, node: u64, id: u64, mut result: Outcome) -> Result<(), String> {
        let Some(asked) = self.calls.remove(&id) else { return Err(format!("an answer to nobody: {id}")) };
        if let Ok(response) = &mut result {
            plain(response);
        }
        self.say(|| format!("{node:x}: answer {id}: {result:?}"));
        let outcome = match (self.refused_at_door(node, &asked, &result), &asked.what) {
            (Ok(true), _) => Ok(()),
            (Ok(false), What::Write(op)) => self.check_write(node, &asked, op, &result),
            (Ok(false), what) => self.check_other(&asked, what, &result),
            (Err(e), _) => Err(e),
        };
        outcome.map_err(|e| format!("{id} {asked:?} answered {result:?}: {e}"))
    }

    /// Whether somebody may not ask this. Who may, is let in.
    fn refused_at_door(&mut self, node: u64, asked: &Asked, result: &Outcome) -> Result<bool, String> {
        // As in Go, whether there is space comes before who asks.
        let full = self.plan.quota > 0 && *result == Err(api::Error::NoSpace);
        if full || result.as_ref().is_err_and(|e| is_refusal(e) || is_ambiguous(e)) {
            return Ok(false);
        }
        let states = asked.from..=self.visible(node)?.index();
        let window = Window { history: &self.history, states };
        let refused = window.at_door(&asked.who, &asked.request, result.as_ref().err())?;
        self.report.forbidden_at_door += u64::from(refused);
        match &asked.request {
            Request::Downgrade(r) if !refused && !r.version.is_empty() => self.check_downgrade(node, asked, r, result),
            _ => Ok(refused),
        }
    }

    /// Whether a downgrade was refused, which what anybody knew before must allow for.
    fn check_downgrade(
        &mut self,
        node: u64,
        asked: &Asked,
        r: &pb::DowngradeRequest,
        result: &Outcome,
    ) -> Result<bool, String> {
        let states = asked.told.max(asked.from)..=self.visible(node)?.index();
        let models: Vec<_> = states.filter_map(|index| self.history.model(index)).collect();
        let verdicts: Vec<_> = models.iter().map(|model| model.check_downgrade(&r.version)).collect();
        let seen = result.as_ref().map(drop).map_err(api::Error::clone);
        self.report.judged += 1;
        match verdicts.contains(&seen) {
            true => Ok(seen.is_err()),
            false => Err(format!("whether a downgrade could begin is one of {verdicts:?}")),
        }
    }

    /// What another member answered may be told, as the driver decides it.
    pub(super) fn still(&self, node: u64, id: u64, result: Outcome) -> Result<Outcome, String> {
        let (asked, visible) = (&self.calls[&id], self.visible(node)?);
        Ok(result.and_then(|response| {
            let checked = access::check_forwarded(&asked.who, &asked.request, &response, asked.auth_revision, &visible);
            checked.map(|()| response)
        }))
    }

    /// A database snapshot is for root.
    pub(super) fn check_image(&self, node: u64, asked: &Asked) -> Result<(), String> {
        let states = asked.from..=self.visible(node)?.index();
        Window { history: &self.history, states }.at_door(&asked.who, &asked.request, None).map(drop)
    }

    /// The entry was applied, and its answer is for whoever asked.
    fn check_told(&mut self, asked: &Asked, index: u64, result: &Outcome) -> Result<(), String> {
        let before = self.history.model(index - 1).ok_or("there is always a state before")?;
        let name = ops::name(&asked.who);
        self.report.answered_users += u64::from(result.is_ok() && before.auth.enabled && name != "root");
        match result {
            Ok(response) => permissions::shown(&before.auth, name, response),
            Err(_) => Ok(()),
        }
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
        let claims = self.claims(asked, visible.index());
        let fits = |outcome: &Outcome, claim: &Claim| outcome == result && claims.contains(claim);
        let found = self.history.claim(range, node, op, fits);
        let index = found.ok_or_else(|| self.explain(asked, op, visible.index()))?;
        self.check_told(asked, index, result)?;
        self.told = self.told.max(index);
        self.report.acknowledged += 1;
        self.check_quorum(index, visible.conf_state())
    }

    /// What an entry that was asked for may claim to be.
    fn claims(&self, asked: &Asked, last: u64) -> Vec<Claim> {
        // Whoever logs in is nobody yet.
        let who = if matches!(asked.request, Request::AssignToken(_)) { &Who::Stranger } else { &asked.who };
        let models = (asked.from..=last).filter_map(|index| self.history.model(index));
        let mut claims: Vec<Claim> = models.filter_map(|model| model.auth.claim(who).ok()).collect();
        claims.dedup();
        claims
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
    pub(super) fn read(&mut self, node: u64, id: u64, who: &Who, request: &Request) -> Result<(), String> {
        let Some(asked) = self.calls.remove(&id) else { return Err(format!("a read that nobody asked: {id}")) };
        let visible = self.visible(node)?;
        let model = self.history.model(visible.index()).ok_or("a member is ahead of all others")?;
        let expected = match (model.check_read(&asked.who, request), request) {
            (Err(e), _) => Err(e),
            (Ok(()), Request::Range(r)) => model.range(r).map(Response::Range),
            (Ok(()), Request::Txn(r)) => model.read_txn(r).map(Response::Txn),
            (_, other) => return Err(format!("{other:?} is no read")),
        };
        let auth = model.auth.clone();
        let allowed = access::check_read(who, request, &visible).map_err(store::Error::Refused);
        let seen = match allowed.and_then(|()| read::run(&visible, request.clone(), &|_| ())) {
            Ok(mut response) => {
                plain(&mut response);
                Ok(response)
            }
            Err(store::Error::Refused(e)) => Err(e),
            Err(store::Error::Fatal(e)) => return self.died(node, &server::Fatal::new(e)),
        };
        self.report.reads += 1;
        self.say(|| format!("{node:x}: read {id} at {}: {seen:?}", visible.index()));
        self.report.forbidden_reads += u64::from(seen == Err(api::Error::PermissionDenied));
        self.report.outdated += u64::from(seen == Err(api::Error::AuthOldRevision));
        if let Ok(response) = &seen {
            let name = ops::name(&asked.who);
            self.report.answered_users += u64::from(auth.enabled && name != "root");
            permissions::shown(&auth, name, response)
                .map_err(|e| format!("read {id} {request:?} as {who:?} saw {response:?}: {e}"))?;
        }
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
        if let Ok(response) = result {
            let states = asked.from..=self.history.last_index();
            Window { history: &self.history, states }.shown(&asked.who, response)?;
        }
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
