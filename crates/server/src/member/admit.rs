//! Admission: what a request must satisfy before it is proposed or read (reference/errors.md section 2, rules 7–9).

use super::{Internal, Member, Output, Reading, Waiter, request_timeout_ms};
use crate::{Request, Response, Who, access};
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use prost::Message as _;
use store::auth::Claim;
use store::validate;

/// Committed but not applied entries beyond which proposals are refused (etcd `maxGapBetweenApplyAndCommitIndex`).
const APPLY_GAP_MAX: u64 = 5000;
/// … and beyond which clients' revocations are, where they have priority (etcd `maxPriorityGap`).
const APPLY_GAP_PRIORITY_MAX: u64 = 10_000;

/// Transactions inside a transaction, counted down the deepest way. Decoders stop at a hundred messages in one another;
/// each of these is two, and the log's entry wraps one more around what the door has decoded: a proposal that nobody
/// could read back would end the member for good.
const NESTING_MAX: usize = 48;

fn nesting(r: &pb::TxnRequest) -> usize {
    let inside = r.success.iter().chain(&r.failure).map(|op| match &op.request {
        Some(pb::request_op::Request::RequestTxn(r)) => 1 + nesting(r),
        _ => 0,
    });
    inside.max().unwrap_or(0)
}

impl<T> Member<T> {
    /// Takes a request of the member's own. Its answer leaves as an [`Output`] with the ticket.
    pub fn call(&mut self, now_ms: u64, ticket: T, request: Request) {
        self.call_as(now_ms, ticket, &Who::Member, request);
    }

    /// Takes a request. Its answer leaves as an [`Output`] with the ticket; of a database snapshot an
    /// [`Output::Snapshot`], once the page store is up to date.
    pub fn call_as(&mut self, now_ms: u64, ticket: T, who: &Who, request: Request) {
        self.now_ms = self.now_ms.max(now_ms);
        if self.stopping {
            return self.reply(ticket, Err(api::Error::Stopped));
        }
        if let Err((ticket, e)) = self.admit(ticket, who, request) {
            self.reply(ticket, Err(e));
        }
    }

    fn admit(&mut self, ticket: T, who: &Who, request: Request) -> Result<(), (T, api::Error)> {
        if let Err(e) = access::check_admission(who, &request, &self.applied) {
            return Err((ticket, e));
        }
        match request {
            Request::Range(r) => match validate::check_range(&r) {
                Err(e) => Err((ticket, e)),
                Ok(()) if r.serializable => self.read_now(ticket, who, Request::Range(r)),
                Ok(()) if self.is_learner() => Err((ticket, api::Error::NotSupportedForLearner)),
                Ok(()) => self.read(ticket, who, Request::Range(r)),
            },
            Request::Put(r) => {
                let Some(ticket) = self.with_space(ticket, validate::put_cost(&r)) else { return Ok(()) };
                match validate::check_put(&r) {
                    Err(e) => Err((ticket, e)),
                    Ok(()) => self.propose(ticket, who, |q| q.put = Some(r)),
                }
            }
            Request::DeleteRange(r) => match validate::check_delete_range(&r) {
                Err(e) => Err((ticket, e)),
                Ok(()) => self.propose(ticket, who, |q| q.delete_range = Some(r)),
            },
            Request::Txn(r) => self.admit_txn(ticket, who, r),
            Request::Compact(r) => {
                let wrap = if r.physical { Waiter::Physical } else { Waiter::Client };
                self.propose_with(ticket, who, wrap, |q| q.compaction = Some(r))
            }
            Request::LeaseGrant(r) => self.admit_grant(ticket, who, r),
            Request::LeaseRevoke(r) => {
                let gap = if self.config.choices.priority_request { APPLY_GAP_PRIORITY_MAX } else { APPLY_GAP_MAX };
                self.propose_within(gap, ticket, who, Waiter::Client, |q| q.lease_revoke = Some(r))
            }
            Request::LeaseKeepAlive(_) | Request::LeaseTimeToLive(_) => self.ask_lessor(ticket, who, request),
            Request::LeaseLeases(_) => self.list_leases(ticket),
            Request::Alarm(r) => self.propose(ticket, who, |q| q.alarm = Some(r)),
            Request::Status(_) => self.status(ticket),
            Request::Defragment(_) => {
                self.checkpointing.defragments.push(ticket);
                Ok(())
            }
            Request::Snapshot(_) => {
                self.checkpointing.snapshots.push(ticket);
                Ok(())
            }
            Request::Hash(_) | Request::HashKv(_) => self.read_now(ticket, who, request),
            Request::MoveLeader(r) => self.move_leader(ticket, r.target_id),
            Request::Downgrade(r) => self.downgrade(ticket, who, r),
            Request::MemberList(ref r) if r.linearizable => self.read(ticket, who, request),
            Request::MemberList(_) => self.read_now(ticket, who, request),
            Request::MemberAdd(_) | Request::MemberRemove(_) | Request::MemberUpdate(_) | Request::MemberPromote(_) => {
                self.change_membership(ticket, who, request)
            }
            Request::AssignToken(r) => self.propose(ticket, &Who::Stranger, |q| q.authenticate = Some(r)),
            Request::Authenticate(_) => Err((ticket, api::Error::Other("a password came to the log's door".into()))),
            other => self.admit_auth(ticket, who, other),
        }
    }

    /// Users and roles: all through the log.
    fn admit_auth(&mut self, ticket: T, who: &Who, request: Request) -> Result<(), (T, api::Error)> {
        match request {
            Request::AuthEnable(r) => self.propose(ticket, who, |q| q.auth_enable = Some(r)),
            Request::AuthDisable(r) => self.propose(ticket, who, |q| q.auth_disable = Some(r)),
            Request::AuthStatus(r) => self.propose(ticket, who, |q| q.auth_status = Some(r)),
            Request::UserAdd(r) => self.propose(ticket, who, |q| q.auth_user_add = Some(r)),
            Request::UserGet(r) => self.propose(ticket, who, |q| q.auth_user_get = Some(r)),
            Request::UserList(r) => self.propose(ticket, who, |q| q.auth_user_list = Some(r)),
            Request::UserDelete(r) => self.propose(ticket, who, |q| q.auth_user_delete = Some(r)),
            Request::UserChangePassword(r) => self.propose(ticket, who, |q| q.auth_user_change_password = Some(r)),
            Request::UserGrantRole(r) => self.propose(ticket, who, |q| q.auth_user_grant_role = Some(r)),
            Request::UserRevokeRole(r) => self.propose(ticket, who, |q| q.auth_user_revoke_role = Some(r)),
            Request::RoleAdd(r) => self.propose(ticket, who, |q| q.auth_role_add = Some(r)),
            Request::RoleGet(r) => self.propose(ticket, who, |q| q.auth_role_get = Some(r)),
            Request::RoleList(r) => self.propose(ticket, who, |q| q.auth_role_list = Some(r)),
            Request::RoleDelete(r) => self.propose(ticket, who, |q| q.auth_role_delete = Some(r)),
            Request::RoleGrantPermission(r) => self.propose(ticket, who, |q| q.auth_role_grant_permission = Some(r)),
            Request::RoleRevokePermission(r) => self.propose(ticket, who, |q| q.auth_role_revoke_permission = Some(r)),
            _ => Err((ticket, api::Error::Other("not a request of users and roles".into()))),
        }
    }

    fn admit_txn(&mut self, ticket: T, who: &Who, r: pb::TxnRequest) -> Result<(), (T, api::Error)> {
        if validate::is_read_only(&r) {
            if let Err(e) = validate::check_txn(&r, self.config.max_txn_ops) {
                return Err((ticket, e));
            }
            return match validate::is_serializable(&r) {
                true => self.read_now(ticket, who, Request::Txn(r)),
                false => self.read(ticket, who, Request::Txn(r)),
            };
        }
        if nesting(&r) > NESTING_MAX {
            return Err((ticket, api::Error::TooManyOps));
        }
        let Some(ticket) = self.with_space(ticket, validate::txn_cost(&r)) else { return Ok(()) };
        match validate::check_txn(&r, self.config.max_txn_ops) {
            Err(e) => Err((ticket, e)),
            Ok(()) => self.propose(ticket, who, |q| q.txn = Some(r)),
        }
    }

    fn admit_grant(&mut self, ticket: T, who: &Who, mut r: pb::LeaseGrantRequest) -> Result<(), (T, api::Error)> {
        let Some(ticket) = self.with_space(ticket, validate::LEASE_GRANT_COST) else { return Ok(()) };
        if let Err(e) = access::check_user(who, &self.applied) {
            return Err((ticket, e));
        }
        while r.id == 0 {
            r.id = i64::try_from(self.ids.draw() & 0x7fff_ffff_ffff_ffff).expect("the top bit is clear");
        }
        self.propose(ticket, who, |q| q.lease_grant = Some(r))
    }

    /// Goes on with a request that takes space, if there is any. A full disk is no alarm: it ends by itself.
    fn with_space(&mut self, ticket: T, cost: i64) -> Option<T> {
        if cost > 0 && !self.has_room() {
            self.reply(ticket, Err(api::Error::NoSpace));
            return None;
        }
        if !self.check_quota(cost) {
            self.refuse_for_space(ticket);
            return None;
        }
        Some(ticket)
    }

    fn check_quota(&self, cost: i64) -> bool {
        self.config.quota_bytes <= 0 || cost == 0 || self.store.size() + cost < self.config.quota_bytes
    }

    /// The quota is exhausted: the alarm is raised first, then the client is told.
    pub(super) fn refuse_for_space(&mut self, ticket: T) {
        let alarm = self.nospace_alarm();
        self.propose_as(Waiter::NoSpace(ticket), |q| q.alarm = Some(alarm));
    }

    pub(super) fn nospace_alarm(&self) -> pb::AlarmRequest {
        pb::AlarmRequest {
            action: pb::alarm_request::AlarmAction::Activate as i32,
            member_id: self.member_id,
            alarm: pb::AlarmType::Nospace as i32,
        }
    }

    /// A member's data differs from the others'; 0 when it is not known whose does.
    pub fn raise_corrupt(&mut self, member_id: u64) {
        let (action, alarm) = (pb::alarm_request::AlarmAction::Activate, pb::AlarmType::Corrupt);
        let alarm = pb::AlarmRequest { action: action as i32, member_id, alarm: alarm as i32 };
        self.propose_internal(Internal::Alarm, |q| q.alarm = Some(alarm));
    }

    /// Proposes on behalf of a client.
    pub(super) fn propose(
        &mut self,
        ticket: T,
        who: &Who,
        fill: impl FnOnce(&mut pb::InternalRaftRequest),
    ) -> Result<(), (T, api::Error)> {
        self.propose_with(ticket, who, Waiter::Client, fill)
    }

    fn propose_with(
        &mut self,
        ticket: T,
        who: &Who,
        wrap: fn(T) -> Waiter<T>,
        fill: impl FnOnce(&mut pb::InternalRaftRequest),
    ) -> Result<(), (T, api::Error)> {
        self.propose_within(APPLY_GAP_MAX, ticket, who, wrap, fill)
    }

    /// Proposes if no more than `gap` entries are committed and not applied.
    fn propose_within(
        &mut self,
        gap: u64,
        ticket: T,
        who: &Who,
        wrap: fn(T) -> Waiter<T>,
        fill: impl FnOnce(&mut pb::InternalRaftRequest),
    ) -> Result<(), (T, api::Error)> {
        let status = self.raft.basic_status();
        if status.hard_state.commit.saturating_sub(status.applied) > gap {
            return Err((ticket, api::Error::RequestTooManyRequests));
        }
        // A majority whose disks stall, or a page store that does: what waits for them is held in memory.
        let uncommitted = usize::try_from(self.raft.uncommitted_bytes()).unwrap_or(usize::MAX);
        if self.store.unwritten_bytes().max(uncommitted) > self.config.unwritten_bytes {
            return Err((ticket, api::Error::RequestTooManyRequests));
        }
        let claim = match who.claim(self.applied.auth()) {
            Ok(claim) => claim,
            Err(e) => return Err((ticket, e)),
        };
        let (id, data) = self.encode(claim, fill);
        if data.len() > self.config.max_request_bytes {
            return Err((ticket, api::Error::RequestTooLarge));
        }
        self.submit(id, data, wrap(ticket), self.is_between_leaders());
        Ok(())
    }

    /// Proposes for the member itself.
    pub(super) fn propose_internal(&mut self, what: Internal, fill: impl FnOnce(&mut pb::InternalRaftRequest)) {
        self.propose_as(Waiter::Internal(what), fill);
    }

    pub(super) fn propose_as(&mut self, waiter: Waiter<T>, fill: impl FnOnce(&mut pb::InternalRaftRequest)) {
        self.propose_claiming(Claim::default(), waiter, fill);
    }

    /// As root, or as nobody: what a member proposes itself is not checked at apply, but for revocations.
    pub(super) fn propose_claiming(
        &mut self,
        claim: Claim,
        waiter: Waiter<T>,
        fill: impl FnOnce(&mut pb::InternalRaftRequest),
    ) {
        let (id, data) = self.encode(claim, fill);
        self.submit(id, data, waiter, self.raft.leader() == 0);
    }

    fn encode(&mut self, claim: Claim, fill: impl FnOnce(&mut pb::InternalRaftRequest)) -> (u64, Bytes) {
        let id = self.ids.draw();
        let mut request = pb::InternalRaftRequest {
            header: Some(pb::RequestHeader { id, username: claim.user, auth_revision: claim.revision }),
            ..pb::InternalRaftRequest::default()
        };
        fill(&mut request);
        (id, request.encode_to_vec().into())
    }

    /// Proposes, or holds a proposal that would be dropped now.
    fn submit(&mut self, id: u64, data: Bytes, waiter: Waiter<T>, hold: bool) {
        self.pending.insert(id, waiter, self.now_ms + request_timeout_ms(&self.config));
        if !hold {
            return self.submit_known(id, data);
        }
        self.hold(id, data);
        if self.is_leaderless() {
            self.give_up_on_a_leader();
        }
    }

    pub(super) fn submit_known(&mut self, id: u64, data: Bytes) {
        if failpoint::mutant!("proposalDoubled") {
            let _again = self.raft.propose(data.clone());
        }
        if self.raft.propose(data).is_err()
            && let Some(waiter) = self.pending.take(id)
        {
            self.abandon(waiter, api::Error::Other("raft proposal dropped".into()));
        }
    }

    fn read_now(&mut self, ticket: T, who: &Who, request: Request) -> Result<(), (T, api::Error)> {
        self.out.push(Output::Read { ticket, who: who.clone(), request });
        Ok(())
    }

    pub(super) fn read(&mut self, ticket: T, who: &Who, request: Request) -> Result<(), (T, api::Error)> {
        if self.is_leaderless() {
            return Err((ticket, api::Error::NoLeader));
        }
        if failpoint::mutant!("readAtOnce") && matches!(request, Request::Range(_) | Request::Txn(_)) {
            return self.read_now(ticket, who, request);
        }
        let deadline_ms = self.now_ms + request_timeout_ms(&self.config);
        self.reads_waiting.push(Reading { ticket, who: who.clone(), request, deadline_ms });
        Ok(())
    }

    fn status(&mut self, ticket: T) -> Result<(), (T, api::Error)> {
        let status = self.raft.basic_status();
        let applied = &self.applied;
        let mut errors = Vec::new();
        if self.raft.leader() == 0 {
            errors.push(api::Error::NoLeader.to_string());
        }
        for alarm in applied.alarms() {
            errors.push(format!("memberID:{} alarm:{}", alarm.member_id, alarm.alarm().as_str_name()));
        }
        let downgrade = applied.downgrade();
        let response = pb::StatusResponse {
            header: Some(applied.header()),
            version: api::version::SERVER.into(),
            db_size: self.store.size(),
            leader: self.raft.leader(),
            raft_index: status.hard_state.commit,
            raft_term: status.hard_state.term,
            raft_applied_index: applied.index(),
            errors,
            db_size_in_use: self.store.size_in_use(),
            is_learner: self.is_learner(),
            storage_version: applied.storage_version().unwrap_or_default().to_owned(),
            db_size_quota: self.config.quota_bytes,
            downgrade_info: Some(pb::DowngradeInfo {
                enabled: downgrade.enabled,
                target_version: downgrade.target_version.clone(),
            }),
        };
        self.reply(ticket, Ok(Response::Status(response)));
        Ok(())
    }
}
