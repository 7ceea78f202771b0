//! What a committed entry does (reference/semantics.md; raft-compat.md sections 3 and 4).

use crate::applied::{Attached, Lease, check_txn_range, compare_all, load_at, range};
use crate::auth::{Claim, Wish};
use crate::backend::Record;
use crate::counts::Kind;
use crate::index::{Rev, Span};
use crate::members::{ChangeContext, Downgrade, Member};
use crate::store::Store;
use crate::tree::Tree;
use crate::{Error, Event, History as _, Prev, schema, validate};
use api::pb::mvccpb::KeyValue;
use api::pb::{etcdserverpb as pb, leasepb};
use api::raft::{ConfChange, ConfChangeKind, Entry, EntryKind};
use api::version::Version;
use bytes::Bytes;
use pb::request_op::Request as Op;
use pb::response_op::Response as Answer;
use prost::Message as _;
use std::sync::Arc;

/// Longest lease, seconds (etcd `MaxLeaseTTL`).
const LEASE_TTL_MAX: i64 = 9_000_000_000;

/// The answer of an entry's request, header filled.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Put(pb::PutResponse),
    Range(pb::RangeResponse),
    DeleteRange(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Compact {
        response: pb::CompactionResponse,
        physical: bool,
    },
    LeaseGrant(pb::LeaseGrantResponse),
    LeaseRevoke(pb::LeaseRevokeResponse),
    LeaseCheckpoint,
    Alarm(pb::AlarmResponse),
    /// `auth_revision`: of the users and roles that the token rests on.
    Authenticate {
        response: pb::AuthenticateResponse,
        auth_revision: u64,
    },
    AuthEnable(pb::AuthEnableResponse),
    AuthDisable(pb::AuthDisableResponse),
    AuthStatus(pb::AuthStatusResponse),
    AuthUserAdd(pb::AuthUserAddResponse),
    AuthUserDelete(pb::AuthUserDeleteResponse),
    AuthUserGet(pb::AuthUserGetResponse),
    AuthUserList(pb::AuthUserListResponse),
    AuthUserChangePassword(pb::AuthUserChangePasswordResponse),
    AuthUserGrantRole(pb::AuthUserGrantRoleResponse),
    AuthUserRevokeRole(pb::AuthUserRevokeRoleResponse),
    AuthRoleAdd(pb::AuthRoleAddResponse),
    AuthRoleDelete(pb::AuthRoleDeleteResponse),
    AuthRoleGet(pb::AuthRoleGetResponse),
    AuthRoleList(pb::AuthRoleListResponse),
    AuthRoleGrantPermission(pb::AuthRoleGrantPermissionResponse),
    AuthRoleRevokePermission(pb::AuthRoleRevokePermissionResponse),
    MemberAttr,
    ClusterVersion,
    Downgrade,
    Empty,
}

/// What an entry means for other rooms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    LeaseGranted {
        id: i64,
        ttl: i64,
    },
    LeaseRevoked {
        id: i64,
    },
    LeaseCheckpointed {
        id: i64,
        remaining: i64,
    },
    CompactionScheduled {
        revision: i64,
    },
    AlarmsChanged,
    /// From now on the token stands for the user, where tokens are kept.
    TokenAssigned {
        user: String,
        token: String,
    },
    /// The user was deleted, or has another password: his tokens are no longer good.
    TokensOfUserDropped {
        user: String,
    },
    /// Authentication was disabled: no token is good any longer.
    TokensDropped,
    ClusterVersionChanged {
        from: Option<String>,
        to: String,
    },
    /// The first entry of a leader's term.
    EmptyEntry,
}

/// An applied entry.
#[derive(Debug)]
pub struct Applying {
    /// Who waits.
    pub request_id: Option<u64>,
    pub reply: Result<Reply, api::Error>,
    pub effects: Vec<Effect>,
}

/// An applied conf change.
#[derive(Debug)]
pub struct ApplyingConf {
    pub request_id: u64,
    /// For raft; `None` when raft has it already. Node 0 when refused.
    pub change: Option<ConfChange>,
    pub reply: Result<(), api::Error>,
}

/// A write transaction: one main revision, sub-revisions in order, all or nothing.
struct Writing<'a> {
    store: &'a mut Store,
    main: i64,
    sub: i64,
    events: Vec<Event>,
}

impl Store {
    /// Applies a normal entry.
    ///
    /// # Errors
    /// `Fatal`: the entry can't be understood or the page store failed; the member must stop.
    pub fn apply(&mut self, entry: &Entry) -> Result<Applying, Error> {
        let old = entry.index <= self.s.index;
        if entry.data.is_empty() {
            self.advance(entry, old);
            let effects = vec![Effect::EmptyEntry];
            return Ok(Applying { request_id: None, reply: Ok(Reply::Empty), effects });
        }
        let request = decode(entry)?;
        let id = request.header.as_ref().map_or(request.id, |h| if request.id != 0 { request.id } else { h.id });
        let mut effects = Vec::new();
        let reply = match old {
            true => Ok(Reply::Empty),
            false => {
                self.s.term = entry.term;
                let kind = Kind::of(&request);
                let reply = match self.dispatch(request, entry.index, &mut effects) {
                    Ok(reply) => Ok(reply),
                    Err(Error::Refused(e)) => Err(e),
                    Err(fatal) => return Err(fatal),
                };
                self.counts.done(kind, reply.as_ref().map(drop));
                reply
            }
        };
        self.advance(entry, old);
        Ok(Applying { request_id: Some(id), reply, effects })
    }

    fn advance(&mut self, entry: &Entry, old: bool) {
        if !old {
            self.s.index = entry.index;
            self.s.term = entry.term;
        }
    }

    /// Members as of the newest applied entry, ascending by id.
    pub fn members(&self) -> Vec<pb::Member> {
        self.s.members()
    }

    /// Whether the member was removed, as of the newest applied entry.
    pub fn is_removed(&self, id: u64) -> bool {
        self.s.is_removed(id)
    }

    /// Whether any member raised this alarm, as of the newest applied entry.
    pub fn alarmed(&self, kind: pb::AlarmType) -> bool {
        self.s.alarms.iter().any(|(_, k)| *k == kind as i32)
    }

    /// In Go's order: root's requests, alarms, permissions, the quota.
    fn dispatch(&mut self, r: pb::InternalRaftRequest, index: u64, effects: &mut Vec<Effect>) -> Result<Reply, Error> {
        let claim = Claim::of(r.header.as_ref());
        if crate::auth::needs_admin(&r) {
            self.s.auth().check_admin(&claim)?;
        }
        let corrupt = self.alarmed(pb::AlarmType::Corrupt);
        let full = self.alarmed(pb::AlarmType::Nospace);
        let data = r.put.is_some()
            || r.range.is_some()
            || r.delete_range.is_some()
            || r.txn.is_some()
            || r.compaction.is_some()
            || r.lease_grant.is_some()
            || r.lease_revoke.is_some();
        if corrupt && data {
            return Err(api::Error::Corrupt.into());
        }
        let cost = r.put.as_ref().map_or(0, validate::put_cost)
            + r.txn.as_ref().map_or(0, validate::txn_cost)
            + r.lease_grant.as_ref().map_or(0, |_| validate::LEASE_GRANT_COST);
        if full && cost > 0 {
            return Err(api::Error::NoSpace.into());
        }
        self.check_permission(&r, &claim)?;
        let within = self.options.quota_bytes <= 0 || cost == 0 || self.size() + cost < self.options.quota_bytes;
        let reply = self.dispatch_store(r, &claim, index, effects)?;
        // As upstream: over the quota at apply, the write stands and the client is told.
        if within { Ok(reply) } else { Err(api::Error::NoSpace.into()) }
    }

    /// What requests of keys and leases need; others are open at apply, or were checked before.
    fn check_permission(&self, r: &pb::InternalRaftRequest, claim: &Claim) -> Result<(), api::Error> {
        if let Some(r) = &r.range {
            return self.s.check_range(claim, r);
        }
        if let Some(r) = &r.put {
            return self.s.check_put(claim, r);
        }
        if let Some(r) = &r.delete_range {
            return self.s.check_delete_range(claim, r);
        }
        if let Some(r) = &r.txn {
            return self.s.check_txn(claim, r);
        }
        let revoked = r.lease_revoke.as_ref();
        revoked.map_or(Ok(()), |r| self.s.check_lease(claim, r.id, Wish::Write))
    }

    fn dispatch_store(
        &mut self,
        r: pb::InternalRaftRequest,
        claim: &Claim,
        index: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<Reply, Error> {
        if let Some(r) = r.put {
            return self.put(&r).map(Reply::Put);
        }
        if let Some(r) = r.txn {
            return self.txn(&r).map(Reply::Txn);
        }
        if let Some(r) = r.delete_range {
            return self.delete_range(&r).map(Reply::DeleteRange);
        }
        if let Some(r) = r.range {
            self.counts.ranges += 1;
            return self.s.range(&r).map(Reply::Range);
        }
        if let Some(r) = r.compaction {
            return self.compact(&r, effects);
        }
        if let Some(r) = r.lease_grant {
            return self.lease_grant(&r, effects);
        }
        if let Some(r) = r.lease_revoke {
            return self.lease_revoke(r.id, effects);
        }
        if let Some(r) = r.lease_checkpoint {
            self.lease_checkpoint(&r, effects);
            return Ok(Reply::LeaseCheckpoint);
        }
        if let Some(r) = r.alarm {
            return Ok(Reply::Alarm(self.alarm(&r, effects)));
        }
        if let Some(r) = r.cluster_version_set {
            self.set_cluster_version(&r.ver, effects);
            return Ok(Reply::ClusterVersion);
        }
        if let Some(r) = r.cluster_member_attr_set {
            let attributes = r.member_attributes.unwrap_or_default();
            self.set_attributes(r.member_id, attributes.name, attributes.client_urls);
            return Ok(Reply::MemberAttr);
        }
        if let Some(r) = r.downgrade_info_set {
            let target_version = if r.enabled { r.ver } else { String::new() };
            let downgrade = Downgrade { target_version, enabled: r.enabled };
            self.set(schema::CLUSTER, schema::DOWNGRADE, Some(crate::members::go_json(&downgrade).into()));
            self.s.downgrade = Arc::new(downgrade);
            return Ok(Reply::Downgrade);
        }
        if r.downgrade_version_test.is_some() {
            return Ok(Reply::Empty);
        }
        match self.dispatch_auth(r, claim, index, effects) {
            Some(done) => Ok(done?),
            None => {
                let text = "the log holds a request of a newer etcd, which this release can't apply; run that version";
                Err(Error::Fatal(text.into()))
            }
        }
    }

    fn writing(&mut self) -> Writing<'_> {
        let main = self.s.revision + 1;
        Writing { store: self, main, sub: 0, events: Vec::new() }
    }

    fn put(&mut self, r: &pb::PutRequest) -> Result<pb::PutResponse, Error> {
        self.check_put(r)?;
        let mut w = self.writing();
        let mut response = w.put(r)?;
        w.finish();
        response.header = Some(self.s.header());
        Ok(response)
    }

    fn check_put(&self, r: &pb::PutRequest) -> Result<(), Error> {
        if r.lease != 0 && self.s.leases.get(&r.lease).is_none() {
            return Err(api::Error::LeaseNotFound.into());
        }
        let missing = || self.s.keys.get(&r.key).is_none_or(|h| h.last.version == 0);
        match (r.ignore_value || r.ignore_lease) && missing() {
            true => Err(api::Error::KeyNotFound.into()),
            false => Ok(()),
        }
    }

    fn delete_range(&mut self, r: &pb::DeleteRangeRequest) -> Result<pb::DeleteRangeResponse, Error> {
        let mut w = self.writing();
        let mut response = w.delete_range(r)?;
        w.finish();
        response.header = Some(self.s.header());
        Ok(response)
    }

    fn txn(&mut self, r: &pb::TxnRequest) -> Result<pb::TxnResponse, Error> {
        // All compares of the chosen path, then all checks, then all effects: nothing or everything.
        let path = self.choose(r)?;
        self.check_ops(r, &path, &mut Vec::new())?;
        self.counts.txns += u64::from(path.ops(r).len() > 1);
        let mut w = self.writing();
        let mut response = w.txn(r, &path)?;
        w.finish();
        response.header = Some(self.s.header());
        Ok(response)
    }

    fn choose(&self, r: &pb::TxnRequest) -> Result<Path, Error> {
        let succeeded = compare_all(&self.s.keys, &self.s.backend, &r.compare, self.s.revision)?;
        let ops = if succeeded { &r.success } else { &r.failure };
        let nested = ops.iter().filter_map(|op| match &op.request {
            Some(Op::RequestTxn(r)) => Some(self.choose(r)),
            _ => None,
        });
        Ok(Path { succeeded, nested: nested.collect::<Result<_, _>>()? })
    }

    /// `gone`: deletes of this transaction so far. Go's check forgets them and its apply then panics on a put that is
    /// to keep the value of a key which is no longer there, on every member; here the whole transaction is refused.
    fn check_ops<'r>(
        &self,
        r: &'r pb::TxnRequest,
        path: &Path,
        gone: &mut Vec<&'r pb::DeleteRangeRequest>,
    ) -> Result<(), Error> {
        let mut nested = path.nested.iter();
        for op in path.ops(r) {
            match &op.request {
                Some(Op::RequestRange(r)) => check_txn_range(r, self.s.revision, self.s.compact_revision)?,
                Some(Op::RequestPut(r)) => {
                    self.check_put(r)?;
                    if (r.ignore_value || r.ignore_lease) && gone.iter().any(|d| covers(d, &r.key)) {
                        return Err(api::Error::KeyNotFound.into());
                    }
                }
                Some(Op::RequestTxn(r)) => self.check_ops(r, nested.next().unwrap_or(path), gone)?,
                Some(Op::RequestDeleteRange(r)) => gone.push(r),
                None => {}
            }
        }
        Ok(())
    }

    fn compact(&mut self, r: &pb::CompactionRequest, effects: &mut Vec<Effect>) -> Result<Reply, Error> {
        if r.revision <= self.s.compact_revision {
            return Err(api::Error::Compacted.into());
        }
        if r.revision > self.s.revision {
            return Err(api::Error::FutureRev.into());
        }
        let previous = self.s.compact_revision;
        let bytes = schema::revision_key(Rev { main: r.revision, sub: 0 }, false);
        failpoint::point!("compactBeforeCommitScheduledCompact");
        self.set(schema::META, schema::SCHEDULED_COMPACTION, Some(bytes.into()));
        failpoint::point!("compactAfterCommitScheduledCompact");
        self.s.compact_revision = r.revision;
        self.begin_compaction(r.revision, Some(previous));
        effects.push(Effect::CompactionScheduled { revision: r.revision });
        let response = pb::CompactionResponse { header: Some(self.s.header()) };
        Ok(Reply::Compact { response, physical: r.physical })
    }

    fn lease_grant(&mut self, r: &pb::LeaseGrantRequest, effects: &mut Vec<Effect>) -> Result<Reply, Error> {
        if r.ttl > LEASE_TTL_MAX {
            return Err(api::Error::LeaseTTLTooLarge.into());
        }
        if self.s.leases.get(&r.id).is_some() {
            return Err(api::Error::LeaseExist.into());
        }
        let ttl = r.ttl.max(self.options.min_lease_ttl);
        self.s.leases.insert(&r.id, Lease { ttl, remaining_ttl: 0, keys: Tree::default() });
        self.save_lease(r.id);
        self.counts.granted(ttl);
        effects.push(Effect::LeaseGranted { id: r.id, ttl });
        let header = Some(self.s.header());
        Ok(Reply::LeaseGrant(pb::LeaseGrantResponse { header, id: r.id, ttl, error: String::new() }))
    }

    fn save_lease(&mut self, id: i64) {
        if let Some(lease) = self.s.leases.get(&id) {
            let bytes = leasepb::Lease { id, ttl: lease.ttl, remaining_ttl: lease.remaining_ttl }.encode_to_vec();
            self.set(schema::LEASE, &id.to_be_bytes(), Some(bytes.into()));
        }
    }

    fn lease_revoke(&mut self, id: i64, effects: &mut Vec<Effect>) -> Result<Reply, Error> {
        let Some(lease) = self.s.leases.get(&id) else { return Err(api::Error::LeaseNotFound.into()) };
        let keys = lease.keys();
        let mut w = self.writing();
        for key in &keys {
            w.delete(key)?;
        }
        w.finish();
        self.s.leases.remove(&id);
        self.set(schema::LEASE, &id.to_be_bytes(), None);
        self.counts.leases_revoked += 1;
        effects.push(Effect::LeaseRevoked { id });
        Ok(Reply::LeaseRevoke(pb::LeaseRevokeResponse { header: Some(self.s.header()) }))
    }

    fn lease_checkpoint(&mut self, r: &pb::LeaseCheckpointRequest, effects: &mut Vec<Effect>) {
        let known = self.s.cluster_version.as_deref().and_then(api::version::Version::parse);
        let persist = self.options.lease_checkpoint_persist || known.is_some_and(|v| (v.major, v.minor) >= (3, 6));
        for c in &r.checkpoints {
            if self.s.leases.get(&c.id).is_none() {
                continue;
            }
            self.with_lease(c.id, |lease| lease.remaining_ttl = c.remaining_ttl);
            if persist {
                self.save_lease(c.id);
            }
            effects.push(Effect::LeaseCheckpointed { id: c.id, remaining: c.remaining_ttl });
        }
    }

    fn alarm(&mut self, r: &pb::AlarmRequest, effects: &mut Vec<Effect>) -> pb::AlarmResponse {
        use pb::alarm_request::AlarmAction;
        let it = (r.member_id, r.alarm);
        let none = r.alarm == pb::AlarmType::None as i32;
        let found: Vec<(u64, i32)> = match AlarmAction::try_from(r.action) {
            Ok(AlarmAction::Get) => self.s.alarms.iter().filter(|a| none || a.1 == r.alarm).copied().collect(),
            Ok(AlarmAction::Activate) if !none => {
                if Arc::make_mut(&mut self.s.alarms).insert(it) {
                    self.save_alarm(it, true);
                    effects.push(Effect::AlarmsChanged);
                }
                vec![it]
            }
            Ok(AlarmAction::Deactivate) if self.s.alarms.contains(&it) => {
                Arc::make_mut(&mut self.s.alarms).remove(&it);
                self.save_alarm(it, false);
                effects.push(Effect::AlarmsChanged);
                vec![it]
            }
            // An unknown action crashes upstream; an empty answer is safer.
            _ => Vec::new(),
        };
        let alarms = found.into_iter().map(|(member_id, alarm)| pb::AlarmMember { member_id, alarm }).collect();
        pb::AlarmResponse { header: Some(self.s.header()), alarms }
    }

    fn save_alarm(&mut self, (member_id, alarm): (u64, i32), on: bool) {
        let key = pb::AlarmMember { member_id, alarm }.encode_to_vec();
        self.set(schema::ALARM, &key, on.then(Bytes::new));
    }

    fn set_cluster_version(&mut self, version: &str, effects: &mut Vec<Effect>) {
        let from = self.s.cluster_version.as_deref().map(str::to_owned);
        self.s.cluster_version = Some(version.into());
        self.set(schema::CLUSTER, schema::CLUSTER_VERSION, Some(Bytes::copy_from_slice(version.as_bytes())));
        effects.push(Effect::ClusterVersionChanged { from, to: version.to_owned() });
    }

    fn set_attributes(&mut self, id: u64, name: String, client_urls: Vec<String>) {
        let Some(member) = Arc::make_mut(&mut self.s.members).get_mut(&id) else { return };
        member.name = name;
        member.client_urls = Some(client_urls);
        let json = member.json();
        self.set(schema::MEMBERS, format!("{id:x}").as_bytes(), Some(json.into()));
    }

    /// Applies a conf change's effect on the members (raft-compat.md 3.2).
    ///
    /// # Errors
    /// `Fatal` when its context can't be read.
    pub fn apply_conf_change(&mut self, entry: &Entry) -> Result<ApplyingConf, Error> {
        let fatal =
            |e: &dyn std::fmt::Display| Error::Fatal(format!("log entry {} holds a bad conf change: {e}", entry.index));
        let mut change = ConfChange::decode(entry.data.clone()).map_err(|e| fatal(&e))?;
        let request_id = change.id;
        if entry.index <= self.s.index {
            return Ok(ApplyingConf { request_id, change: None, reply: Ok(()) });
        }
        let context = match change.kind {
            ConfChangeKind::RemoveNode => ChangeContext::default(),
            _ => serde_json::from_slice::<ChangeContext>(&change.context).map_err(|e| fatal(&e))?,
        };
        let reply = self.check_conf_change(&change, &context);
        match &reply {
            Ok(()) => self.change_members(&change, context),
            Err(_) => change.node_id = 0,
        }
        self.advance(entry, false);
        Ok(ApplyingConf { request_id, change: Some(change), reply })
    }

    fn check_conf_change(&self, change: &ConfChange, context: &ChangeContext) -> Result<(), api::Error> {
        let id = change.node_id;
        let known = self.s.members.get(&id);
        if self.s.removed.contains(&id) {
            return Err(api::Error::MemberNotFound);
        }
        let urls = context.member.peer_urls.as_deref().unwrap_or_default();
        let mut others = self.s.members.values().filter(|m| m.id != id);
        let taken = others.any(|m| m.peer_urls.as_deref().unwrap_or_default().iter().any(|u| urls.contains(u)));
        match change.kind {
            ConfChangeKind::AddNode | ConfChangeKind::AddLearnerNode if context.is_promote => match known {
                None => Err(api::Error::MemberNotFound),
                Some(m) if !m.is_learner => Err(api::Error::MemberNotLearner),
                Some(_) => Ok(()),
            },
            ConfChangeKind::AddNode | ConfChangeKind::AddLearnerNode if known.is_some() => Err(api::Error::MemberExist),
            ConfChangeKind::UpdateNode | ConfChangeKind::RemoveNode if known.is_none() => {
                Err(api::Error::MemberNotFound)
            }
            _ if taken => Err(api::Error::PeerURLExist),
            ConfChangeKind::AddLearnerNode if self.learners() >= self.options.max_learners => {
                Err(api::Error::TooManyLearners)
            }
            _ => Ok(()),
        }
    }

    fn learners(&self) -> usize {
        self.s.members.values().filter(|m| m.is_learner).count()
    }

    fn change_members(&mut self, change: &ConfChange, context: ChangeContext) {
        let id = change.node_id;
        let hex = format!("{id:x}");
        let members = Arc::make_mut(&mut self.s.members);
        match change.kind {
            ConfChangeKind::RemoveNode => {
                members.remove(&id);
                Arc::make_mut(&mut self.s.removed).insert(id);
                self.set(schema::MEMBERS, hex.as_bytes(), None);
                self.set(schema::MEMBERS_REMOVED, hex.as_bytes(), Some(Bytes::from_static(b"removed")));
                return;
            }
            ConfChangeKind::UpdateNode => {
                if let Some(m) = members.get_mut(&id) {
                    m.peer_urls = context.member.peer_urls;
                }
            }
            ConfChangeKind::AddNode if context.is_promote => {
                if let Some(m) = members.get_mut(&id) {
                    m.is_learner = false;
                }
            }
            ConfChangeKind::AddNode | ConfChangeKind::AddLearnerNode => {
                let is_learner = change.kind == ConfChangeKind::AddLearnerNode;
                members.insert(id, Member { id, is_learner, ..context.member });
            }
        }
        if let Some(json) = self.s.members.get(&id).map(Member::json) {
            self.set(schema::MEMBERS, hex.as_bytes(), Some(json.into()));
        }
        self.derive_conf_state();
    }
}

/// Which branch a txn takes, and the same for its nested txns in order.
struct Path {
    succeeded: bool,
    nested: Vec<Path>,
}

impl Path {
    fn ops<'a>(&self, r: &'a pb::TxnRequest) -> &'a [pb::RequestOp] {
        if self.succeeded { &r.success } else { &r.failure }
    }
}

impl Writing<'_> {
    fn next_rev(&mut self) -> Rev {
        let rev = Rev { main: self.main, sub: self.sub };
        self.sub += 1;
        rev
    }

    fn current(&self, key: &Bytes) -> Result<Option<KeyValue>, Error> {
        match self.store.s.keys.get(key) {
            Some(h) if h.last.version > 0 => load_at(&self.store.s.backend, h.last.rev).map(Some),
            _ => Ok(None),
        }
    }

    fn put(&mut self, r: &pb::PutRequest) -> Result<pb::PutResponse, Error> {
        let key = Bytes::copy_from_slice(&r.key);
        let maybe_attached = !self.store.s.leases.is_empty();
        let wanted = r.prev_kv || r.ignore_value || r.ignore_lease || self.store.capture_prev || maybe_attached;
        let old = if wanted { self.current(&key)? } else { None };
        let kept = old.as_ref();
        let value = if r.ignore_value { kept.map(|o| o.value.clone()) } else { None };
        let value = value.unwrap_or_else(|| Bytes::copy_from_slice(&r.value));
        let lease = if r.ignore_lease { kept.map_or(0, |o| o.lease) } else { r.lease };
        let rev = self.next_rev();
        let (create_revision, version) = self.store.s.keys.put(&key, rev);
        let kv = KeyValue { key: key.clone(), create_revision, mod_revision: self.main, version, value, lease };
        self.store.set_record(rev, Record { tombstone: false, value: Some(kv.encode_to_vec().into()) });
        let before = kept.map_or(0, |o| o.lease);
        if before != lease {
            self.detach(before, &key);
        }
        self.store.with_lease(lease, |l| {
            l.keys.insert(&key, Attached);
        });
        let prev = match kv.create_revision == kv.mod_revision {
            true => Prev::None,
            false => self.prev(old.as_ref())?,
        };
        self.store.counts.puts += 1;
        self.store.counts.put_bytes += (kv.key.len() + kv.value.len()) as u64;
        self.events.push(Event::Put { kv: Arc::new(kv), prev });
        Ok(pb::PutResponse { header: None, prev_kv: old.filter(|_| r.prev_kv) })
    }

    /// What a watcher is told the key held before: its value one revision ago, also when this transaction has changed
    /// the key already.
    fn prev(&self, old: Option<&KeyValue>) -> Result<Prev, Error> {
        if failpoint::mutant!("prevValueStale") {
            return Ok(Prev::None);
        }
        let Some(kv) = old.filter(|_| self.store.capture_prev) else { return Ok(Prev::Unknown) };
        if kv.mod_revision < self.main {
            return Ok(Prev::Some(Arc::new(kv.clone())));
        }
        let before = self.store.s.value_at(&kv.key, self.main - 1)?;
        Ok(before.map_or(Prev::None, Prev::Some))
    }

    fn detach(&mut self, lease: i64, key: &Bytes) {
        if lease != 0 {
            self.store.with_lease(lease, |l| {
                l.keys.remove(key);
            });
        }
    }

    fn delete_range(&mut self, r: &pb::DeleteRangeRequest) -> Result<pb::DeleteRangeResponse, Error> {
        self.store.counts.deletes += 1;
        let span = Span { key: &r.key, end: &r.range_end };
        let keys: Vec<Bytes> =
            self.store.s.keys.live(span, self.main).map(|(key, _)| Bytes::copy_from_slice(key)).collect();
        let mut response = pb::DeleteRangeResponse { deleted: keys.len() as i64, ..Default::default() };
        for key in &keys {
            let old = self.delete(key)?;
            if r.prev_kv {
                response.prev_kvs.extend(old);
            }
        }
        Ok(response)
    }

    fn delete(&mut self, key: &Bytes) -> Result<Option<KeyValue>, Error> {
        let Some(old) = self.current(key)? else { return Ok(None) };
        let rev = self.next_rev();
        self.store.s.keys.tombstone(key, rev);
        let tombstone = KeyValue { key: key.clone(), ..KeyValue::default() };
        self.store.set_record(rev, Record { tombstone: true, value: Some(tombstone.encode_to_vec().into()) });
        if !failpoint::mutant!("leaseNotDetached") {
            self.detach(old.lease, key);
        }
        let kv = Arc::new(KeyValue { mod_revision: self.main, ..tombstone });
        let prev = self.prev(Some(&old))?;
        self.events.push(Event::Delete { kv, prev });
        Ok(Some(old))
    }

    fn txn(&mut self, r: &pb::TxnRequest, path: &Path) -> Result<pb::TxnResponse, Error> {
        let mut nested = path.nested.iter();
        let mut responses = Vec::new();
        for op in path.ops(r) {
            let answer = match &op.request {
                Some(Op::RequestRange(r)) => Answer::ResponseRange(self.range(r)?),
                Some(Op::RequestPut(r)) => {
                    let response = self.put(r)?;
                    Answer::ResponsePut(pb::PutResponse { header: Some(self.header()), ..response })
                }
                Some(Op::RequestDeleteRange(r)) => {
                    let response = self.delete_range(r)?;
                    Answer::ResponseDeleteRange(pb::DeleteRangeResponse { header: Some(self.header()), ..response })
                }
                Some(Op::RequestTxn(r)) => {
                    let response = self.txn(r, nested.next().unwrap_or(path))?;
                    Answer::ResponseTxn(pb::TxnResponse { header: Some(pb::ResponseHeader::default()), ..response })
                }
                None => continue,
            };
            responses.push(pb::ResponseOp { response: Some(answer) });
        }
        Ok(pb::TxnResponse { header: None, succeeded: path.succeeded, responses })
    }

    /// Inside a txn an operation's header has the revision that the txn has come to.
    fn header(&self) -> pb::ResponseHeader {
        pb::ResponseHeader { revision: self.revision(), ..Default::default() }
    }

    fn revision(&self) -> i64 {
        if self.sub > 0 { self.main } else { self.main - 1 }
    }

    fn range(&mut self, r: &pb::RangeRequest) -> Result<pb::RangeResponse, Error> {
        self.store.counts.ranges += 1;
        let current = self.revision();
        let at = if r.revision <= 0 { current } else { r.revision };
        let mut response = range(&self.store.s.keys, &self.store.s.backend, r, at, at >= current)?;
        response.header = Some(self.header());
        Ok(response)
    }

    fn finish(self) {
        if self.sub > 0 {
            self.store.s.revision = self.main;
            self.store.record_change(self.main, self.events);
        }
    }
}

/// Decodes a request; the v2 requests that 3.5 wrote become what they mean (raft-compat.md 3.4). A v3 request has a
/// header; a v2 request names its method in field 2, which no v3 request has.
fn decode(entry: &Entry) -> Result<pb::InternalRaftRequest, Error> {
    let request = pb::InternalRaftRequest::decode(entry.data.clone());
    match request {
        Ok(r) if r.header.is_some() => Ok(r),
        other => match (crate::v2::translate(&entry.data), other) {
            (Some(translated), _) => Ok(translated),
            (None, Ok(r)) if r.id != 0 => Ok(r),
            _ => Err(Error::Fatal(format!("log entry {} holds a request that can't be read", entry.index))),
        },
    }
}
/// The oldest version that can apply an entry. By etcd's annotations only one request that a log may hold is younger than
/// 3.5.
pub fn oldest_reader(entry: &Entry) -> Version {
    let request = match entry.kind {
        EntryKind::Normal => pb::InternalRaftRequest::decode(entry.data.clone()).unwrap_or_default(),
        EntryKind::ConfChange | EntryKind::ConfChangeV2 => pb::InternalRaftRequest::default(),
    };
    let is_young = request.header.is_some() && request.downgrade_version_test.is_some();
    Version { major: 3, minor: if is_young { 6 } else { 5 }, patch: 0 }
}

fn covers(r: &pb::DeleteRangeRequest, key: &Bytes) -> bool {
    match r.range_end.as_ref() {
        [] => r.key == *key,
        [0] => r.key <= *key,
        end => r.key <= *key && key.as_ref() < end,
    }
}
