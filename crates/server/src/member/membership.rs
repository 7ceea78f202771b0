//! Changes of membership: who may be added, removed, moved and promoted (reference/semantics.md section 11).
//!
//! What is checked here protects the quorum before anything is proposed, as `--strict-reconfig-check` asks for; what
//! members *are* is checked when the change is applied, by all members alike.

use super::{Member, Output, request_timeout_ms};
use crate::{Request, Response, Who};
use api::identity::member_id;
use api::pb::etcdserverpb as pb;
use api::raft::{ConfChange, ConfChangeKind};
use raft::Role;
use std::collections::BTreeMap;

/// A peer counts as connected when it has been so for this long (etcd `HealthInterval`).
const HEALTHY_MS: u64 = 5000;
/// A learner is ready when it has this part of the leader's log, in percent (etcd `readyPercentThreshold`).
const READY_PERCENT: u64 = 90;
/// Membership calls have no deadline of the server's own in etcd. A change that raft dropped would be waited for without
/// end; after so long its caller is told.
const CHANGE_WAIT_MS: u64 = 60_000;

/// A caller that waits for a change.
#[derive(Debug)]
pub struct Changing<T> {
    ticket: T,
    what: Change,
    deadline_ms: u64,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Add(u64),
    Remove,
    Update,
    Promote,
}

/// What is known of peers and of who waits for changes.
#[derive(Debug)]
pub struct Membership<T> {
    waiting: BTreeMap<u64, Changing<T>>,
    /// Since when the transport is connected to each peer; the driver's clock, ms.
    active_since: BTreeMap<u64, u64>,
    /// Callers that wait for another leader: who it is to be, and until when.
    moving: Vec<Moving<T>>,
}

#[derive(Debug)]
struct Moving<T> {
    ticket: T,
    target: u64,
    deadline_ms: u64,
}

impl<T> Default for Membership<T> {
    fn default() -> Self {
        Membership { waiting: BTreeMap::new(), active_since: BTreeMap::new(), moving: Vec::new() }
    }
}

impl<T> Membership<T> {
    pub fn drain(&mut self) -> Vec<T> {
        let changing = std::mem::take(&mut self.waiting).into_values().map(|changing| changing.ticket);
        changing.chain(std::mem::take(&mut self.moving).into_iter().map(|moving| moving.ticket)).collect()
    }
}

/// Voters that make a majority of so many.
fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

type Refused<T> = (T, api::Error);

impl<T> Member<T> {
    /// Since when the transport is connected to each peer; the driver's clock, ms. Peers that it is not connected to are
    /// left out. Told with every tick.
    pub fn set_active(&mut self, since_ms: BTreeMap<u64, u64>) {
        self.membership.active_since = since_ms;
    }

    /// A call that changes membership. URLs are checked and sorted already.
    pub(super) fn change_membership(&mut self, ticket: T, who: &Who, request: Request) -> Result<(), Refused<T>> {
        if self.config.alone {
            let text = "oxetcd: this release serves clusters of one member; it can't change membership yet";
            return Err((ticket, api::Error::Coded(api::Code::Unimplemented, text.into())));
        }
        let outcome = match &request {
            Request::MemberAdd(r) => self.plan_add(r),
            Request::MemberRemove(r) => self.plan_remove(r.id),
            Request::MemberUpdate(r) => self.plan_update(r),
            Request::MemberPromote(r) => {
                if self.raft.basic_status().role != Role::Leader {
                    self.out.push(Output::Forward { ticket, who: who.clone(), request });
                    return Ok(());
                }
                self.plan_promote(r.id)
            }
            other => return Err((ticket, api::Error::Other(format!("not a change of membership: {other:?}").into()))),
        };
        match outcome {
            Ok((what, change)) => self.propose_change(ticket, what, change),
            Err(e) => Err((ticket, e)),
        }
    }

    fn propose_change(&mut self, ticket: T, what: Change, mut change: ConfChange) -> Result<(), Refused<T>> {
        change.id = self.ids.draw();
        if self.raft.propose_conf_change(&change).is_err() {
            return Err((ticket, api::Error::Other("raft proposal dropped".into())));
        }
        let deadline_ms = self.now_ms + CHANGE_WAIT_MS;
        self.membership.waiting.insert(change.id, Changing { ticket, what, deadline_ms });
        Ok(())
    }

    fn plan_add(&mut self, r: &pb::MemberAddRequest) -> Result<(Change, ConfChange), api::Error> {
        self.check_add(r.is_learner)?;
        let id = member_id(&r.peer_ur_ls, "", Some(self.wall_ms() / 1000));
        let kind = if r.is_learner { ConfChangeKind::AddLearnerNode } else { ConfChangeKind::AddNode };
        let context = store::Member { id, is_learner: r.is_learner, ..with_urls(&r.peer_ur_ls) };
        Ok((Change::Add(id), change(kind, id, context.json())))
    }

    fn plan_remove(&self, id: u64) -> Result<(Change, ConfChange), api::Error> {
        self.check_remove(id)?;
        Ok((Change::Remove, change(ConfChangeKind::RemoveNode, id, String::new())))
    }

    fn plan_update(&self, r: &pb::MemberUpdateRequest) -> Result<(Change, ConfChange), api::Error> {
        let context = store::Member { id: r.id, ..with_urls(&r.peer_ur_ls) };
        Ok((Change::Update, change(ConfChangeKind::UpdateNode, r.id, context.json())))
    }

    fn plan_promote(&self, id: u64) -> Result<(Change, ConfChange), api::Error> {
        self.check_learner_ready(id)?;
        let voters = self.voters();
        let started = voters.iter().filter(|m| !m.name.is_empty()).count();
        // The learner counts among the voters to be, and as started.
        if self.config.strict_reconfig_check && started + 1 < quorum(voters.len() + 1) {
            return Err(api::Error::MemberNotEnoughStarted);
        }
        Ok((Change::Promote, change(ConfChangeKind::AddNode, id, store::promotion_json(id))))
    }

    fn voters(&self) -> Vec<pb::Member> {
        self.applied.members().into_iter().filter(|m| !m.is_learner).collect()
    }

    /// Voters that this member has been connected to for a while, itself included.
    fn healthy(&self, voters: &[pb::Member]) -> usize {
        self.connected(voters, self.now_ms.saturating_sub(HEALTHY_MS))
    }

    /// Members that this one has been connected to since then, itself included.
    pub(super) fn connected(&self, members: &[pb::Member], since_ms: u64) -> usize {
        members.iter().filter(|m| m.id == self.member_id || self.is_connected(m.id, since_ms)).count()
    }

    /// Whether the transport has been connected to a peer since then.
    pub(super) fn is_connected(&self, peer: u64, since_ms: u64) -> bool {
        self.membership.active_since.get(&peer).is_some_and(|active_ms| *active_ms <= since_ms)
    }

    fn check_add(&self, learner: bool) -> Result<(), api::Error> {
        if !self.config.strict_reconfig_check {
            return Ok(());
        }
        let voters = self.voters();
        let started = voters.iter().filter(|m| !m.name.is_empty()).count();
        // A cluster that was restored as one member may grow to two at once.
        let first = started == 1 && voters.len() == 1;
        if !learner && !first && started < quorum(voters.len() + 1) {
            return Err(api::Error::MemberNotEnoughStarted);
        }
        match voters.len() > 1 && self.healthy(&voters) < quorum(voters.len() + 1) {
            true => Err(api::Error::Unhealthy),
            false => Ok(()),
        }
    }

    fn check_remove(&self, id: u64) -> Result<(), api::Error> {
        let voters = self.voters();
        if !self.config.strict_reconfig_check || !voters.iter().any(|m| m.id == id) {
            return Ok(());
        }
        let rest: Vec<_> = voters.iter().filter(|m| m.id != id).collect();
        if rest.iter().filter(|m| !m.name.is_empty()).count() < quorum(rest.len()) {
            return Err(api::Error::MemberNotEnoughStarted);
        }
        // Who is down is no part of the quorum that serves now.
        if id != self.member_id && !self.membership.active_since.contains_key(&id) {
            return Ok(());
        }
        match self.healthy(&voters).saturating_sub(1) < quorum(rest.len()) {
            true => Err(api::Error::Unhealthy),
            false => Ok(()),
        }
    }

    /// What only a leader knows.
    fn check_learner_ready(&self, id: u64) -> Result<(), api::Error> {
        let matched = |of: u64| self.raft.progress().find(|(id, _)| *id == of).map(|(_, p)| p.match_index);
        let Some(learner) = matched(id) else { return Err(api::Error::MemberNotFound) };
        let leader = matched(self.member_id).unwrap_or(0);
        match learner * 100 < leader * READY_PERCENT {
            true => Err(api::Error::LearnerNotReady),
            false => Ok(()),
        }
    }

    /// A change was applied, or found to be against the rules.
    pub(super) fn settle_conf_change(&mut self, id: u64, outcome: Result<(), api::Error>) {
        let Some(Changing { ticket, what, .. }) = self.membership.waiting.remove(&id) else { return };
        let promoted = outcome.is_ok() && matches!(what, Change::Promote) && self.leads.is_some();
        self.tally.promoted += u64::from(promoted);
        let result = outcome.map(|()| self.changed(what));
        self.reply(ticket, result);
    }

    fn changed(&self, what: Change) -> Response {
        // As Go's: without a revision.
        let header = Some(pb::ResponseHeader { revision: 0, ..self.applied.header() });
        let members = self.store.members();
        match what {
            Change::Add(id) => {
                let member = members.iter().find(|m| m.id == id).cloned();
                Response::MemberAdd(pb::MemberAddResponse { header, member, members })
            }
            Change::Remove => Response::MemberRemove(pb::MemberRemoveResponse { header, members }),
            Change::Update => Response::MemberUpdate(pb::MemberUpdateResponse { header, members }),
            Change::Promote => Response::MemberPromote(pb::MemberPromoteResponse { header, members }),
        }
    }

    pub(super) fn tick_membership(&mut self) {
        let now_ms = self.now_ms;
        let late: Vec<_> = self.membership.waiting.extract_if(.., |_, waiting| waiting.deadline_ms <= now_ms).collect();
        for (_, changing) in late {
            self.reply(changing.ticket, Err(api::Error::Timeout));
        }
    }

    /// Hands leadership to a voter; the caller waits until it leads.
    pub(super) fn move_leader(&mut self, ticket: T, target: u64) -> Result<(), Refused<T>> {
        if self.raft.leader() != self.member_id {
            return Err((ticket, api::Error::NotLeader));
        }
        if !self.voters().iter().any(|m| m.id == target) {
            return Err((ticket, api::Error::BadLeaderTransferee));
        }
        if target != self.member_id {
            self.raft.transfer_leader(target);
        }
        let deadline_ms = self.now_ms + request_timeout_ms(&self.config);
        self.membership.moving.push(Moving { ticket, target, deadline_ms });
        self.settle_moves();
        Ok(())
    }

    /// Answers who waited for the leader there is now, or for too long.
    pub(super) fn settle_moves(&mut self) {
        let (leader, now_ms) = (self.raft.leader(), self.now_ms);
        let over = |moving: &mut Moving<T>| moving.target == leader || moving.deadline_ms <= now_ms;
        let settled: Vec<_> = self.membership.moving.extract_if(.., over).collect();
        for Moving { ticket, target, .. } in settled {
            let result = match target == leader {
                true => Ok(Response::MoveLeader(pb::MoveLeaderResponse::default())),
                false => Err(api::Error::Other("etcdserver: request timed out, leader transfer took too long".into())),
            };
            self.reply(ticket, result);
        }
    }
}

fn change(kind: ConfChangeKind, node_id: u64, context: String) -> ConfChange {
    ConfChange { id: 0, kind, node_id, context: context.into() }
}

fn with_urls(peer_urls: &[String]) -> store::Member {
    store::Member { peer_urls: Some(peer_urls.to_vec()), ..store::Member::default() }
}
