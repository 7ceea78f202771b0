//! Admission: what a request must satisfy before it is proposed or read (reference/errors.md section 2, rules 7–9).

use super::{Internal, Member, Output, Reading, Waiter, request_timeout_ms};
use crate::{Request, Response};
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use prost::Message as _;
use store::validate;

/// Committed but not applied entries beyond which proposals are refused (etcd `maxGapBetweenApplyAndCommitIndex`).
const APPLY_GAP_MAX: u64 = 5000;

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
    /// Takes a request. Its answer leaves as an [`Output`] with the ticket.
    pub fn call(&mut self, now_ms: u64, ticket: T, request: Request) {
        self.now_ms = self.now_ms.max(now_ms);
        if self.stopping {
            return self.reply(ticket, Err(api::Error::Stopped));
        }
        if let Err((ticket, e)) = self.admit(ticket, request) {
            self.reply(ticket, Err(e));
        }
    }

    /// A database snapshot was asked for: [`Output::Snapshot`] follows once the page store is up to date.
    pub fn call_snapshot(&mut self, ticket: T) {
        self.checkpointing.snapshots.push(ticket);
    }

    fn admit(&mut self, ticket: T, request: Request) -> Result<(), (T, api::Error)> {
        match request {
            Request::Range(r) => match validate::check_range(&r) {
                Err(e) => Err((ticket, e)),
                Ok(()) if r.serializable => self.read_now(ticket, Request::Range(r)),
                Ok(()) => self.read(ticket, Request::Range(r)),
            },
            Request::Put(r) => {
                let Some(ticket) = self.with_space(ticket, validate::put_cost(&r)) else { return Ok(()) };
                match validate::check_put(&r) {
                    Err(e) => Err((ticket, e)),
                    Ok(()) => self.propose(ticket, |q| q.put = Some(r)),
                }
            }
            Request::DeleteRange(r) => match validate::check_delete_range(&r) {
                Err(e) => Err((ticket, e)),
                Ok(()) => self.propose(ticket, |q| q.delete_range = Some(r)),
            },
            Request::Txn(r) => self.admit_txn(ticket, r),
            Request::Compact(r) => {
                let wrap = if r.physical { Waiter::Physical } else { Waiter::Client };
                self.propose_with(ticket, wrap, |q| q.compaction = Some(r))
            }
            Request::LeaseGrant(r) => self.admit_grant(ticket, r),
            Request::LeaseRevoke(r) => self.propose(ticket, |q| q.lease_revoke = Some(r)),
            Request::LeaseKeepAlive(r) => self.keep_alive(ticket, r.id),
            Request::LeaseTimeToLive(r) => self.time_to_live(ticket, &r),
            Request::LeaseLeases(_) => self.list_leases(ticket),
            Request::Alarm(r) => self.propose(ticket, |q| q.alarm = Some(r)),
            Request::Status(_) => self.status(ticket),
            Request::Defragment(_) => {
                self.checkpointing.defragments.push(ticket);
                Ok(())
            }
            Request::Hash(_) | Request::HashKv(_) => self.read_now(ticket, request),
            Request::MoveLeader(r) => self.move_leader(ticket, r.target_id),
            Request::Downgrade(r) => self.downgrade(ticket, r),
            Request::MemberList(ref r) if r.linearizable => self.read(ticket, request),
            Request::MemberList(_) => self.read_now(ticket, request),
            Request::MemberAdd(_) | Request::MemberRemove(_) | Request::MemberUpdate(_) | Request::MemberPromote(_) => {
                let text = "oxetcd: this release serves clusters of one member; it can't change membership yet";
                Err((ticket, api::Error::Coded(api::Code::Unimplemented, text.into())))
            }
        }
    }

    fn admit_txn(&mut self, ticket: T, r: pb::TxnRequest) -> Result<(), (T, api::Error)> {
        if validate::is_read_only(&r) {
            if let Err(e) = validate::check_txn(&r, self.config.max_txn_ops) {
                return Err((ticket, e));
            }
            return match validate::is_serializable(&r) {
                true => self.read_now(ticket, Request::Txn(r)),
                false => self.read(ticket, Request::Txn(r)),
            };
        }
        if nesting(&r) > NESTING_MAX {
            return Err((ticket, api::Error::TooManyOps));
        }
        let Some(ticket) = self.with_space(ticket, validate::txn_cost(&r)) else { return Ok(()) };
        match validate::check_txn(&r, self.config.max_txn_ops) {
            Err(e) => Err((ticket, e)),
            Ok(()) => self.propose(ticket, |q| q.txn = Some(r)),
        }
    }

    fn admit_grant(&mut self, ticket: T, mut r: pb::LeaseGrantRequest) -> Result<(), (T, api::Error)> {
        let Some(ticket) = self.with_space(ticket, validate::LEASE_GRANT_COST) else { return Ok(()) };
        while r.id == 0 {
            r.id = i64::try_from(self.ids.draw() & 0x7fff_ffff_ffff_ffff).expect("the top bit is clear");
        }
        self.propose(ticket, |q| q.lease_grant = Some(r))
    }

    /// Goes on with a request that takes space, if there is any. A full disk is no alarm: it ends by itself.
    fn with_space(&mut self, ticket: T, cost: i64) -> Option<T> {
        if cost > 0 && !self.log.has_room() {
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

    /// Proposes on behalf of a client.
    pub(super) fn propose(
        &mut self,
        ticket: T,
        fill: impl FnOnce(&mut pb::InternalRaftRequest),
    ) -> Result<(), (T, api::Error)> {
        self.propose_with(ticket, Waiter::Client, fill)
    }

    fn propose_with(
        &mut self,
        ticket: T,
        wrap: fn(T) -> Waiter<T>,
        fill: impl FnOnce(&mut pb::InternalRaftRequest),
    ) -> Result<(), (T, api::Error)> {
        let status = self.raft.basic_status();
        if status.hard_state.commit.saturating_sub(status.applied) > APPLY_GAP_MAX {
            return Err((ticket, api::Error::RequestTooManyRequests));
        }
        if self.store.unwritten_bytes() > self.config.unwritten_bytes {
            return Err((ticket, api::Error::RequestTooManyRequests));
        }
        let (id, data) = self.encode(fill);
        if data.len() > self.config.max_request_bytes {
            return Err((ticket, api::Error::RequestTooLarge));
        }
        self.submit(id, data, wrap(ticket));
        Ok(())
    }

    /// Proposes for the member itself.
    pub(super) fn propose_internal(&mut self, what: Internal, fill: impl FnOnce(&mut pb::InternalRaftRequest)) {
        self.propose_as(Waiter::Internal(what), fill);
    }

    pub(super) fn propose_as(&mut self, waiter: Waiter<T>, fill: impl FnOnce(&mut pb::InternalRaftRequest)) {
        let (id, data) = self.encode(fill);
        self.submit(id, data, waiter);
    }

    fn encode(&mut self, fill: impl FnOnce(&mut pb::InternalRaftRequest)) -> (u64, Bytes) {
        let id = self.ids.draw();
        let mut request = pb::InternalRaftRequest {
            header: Some(pb::RequestHeader { id, ..pb::RequestHeader::default() }),
            ..pb::InternalRaftRequest::default()
        };
        fill(&mut request);
        (id, request.encode_to_vec().into())
    }

    fn submit(&mut self, id: u64, data: Bytes, waiter: Waiter<T>) {
        self.pending.insert(id, waiter, self.now_ms + request_timeout_ms(&self.config));
        if self.raft.leader() == 0 {
            // etcd's raft blocks a proposal until a leader is known; its deadline goes on.
            return self.held.push_back((id, data));
        }
        self.submit_known(id, data);
    }

    pub(super) fn submit_known(&mut self, id: u64, data: Bytes) {
        if self.raft.propose(data).is_err()
            && let Some(waiter) = self.pending.take(id)
        {
            self.abandon(waiter, api::Error::Other("raft proposal dropped".into()));
        }
    }

    fn read_now(&mut self, ticket: T, request: Request) -> Result<(), (T, api::Error)> {
        self.out.push(Output::Read { ticket, request });
        Ok(())
    }

    fn read(&mut self, ticket: T, request: Request) -> Result<(), (T, api::Error)> {
        let deadline_ms = self.now_ms + request_timeout_ms(&self.config);
        self.reads_waiting.push(Reading { ticket, request, deadline_ms });
        Ok(())
    }

    fn move_leader(&mut self, ticket: T, target: u64) -> Result<(), (T, api::Error)> {
        if self.raft.leader() != self.member_id {
            return Err((ticket, api::Error::NotLeader));
        }
        if target != self.member_id {
            return Err((ticket, api::Error::BadLeaderTransferee));
        }
        self.reply(ticket, Ok(Response::MoveLeader(pb::MoveLeaderResponse::default())));
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
            is_learner: false,
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
