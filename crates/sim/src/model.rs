//! A small etcd that is obviously right: every revision in a list, every question answered by walking it.
//!
//! Written from reference/semantics.md, not from the product's code. It never forgets what happened (that is what
//! watchers are checked against), and beside it keeps what a compaction leaves (that is what HashKV sees).

mod auth;
mod hash;
mod txn;

pub use auth::{Auth, Claim, PASSWORDS, User, Wish};
pub use txn::plain;

use crate::ops::Op;
use api::pb::etcdserverpb as pb;
use api::pb::mvccpb::KeyValue;
use bytes::Bytes;
use server::Response;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Shorter leases are raised to it, seconds: the member is configured alike.
pub const MIN_LEASE_TTL: i64 = 2;

/// One change of one key, as the bucket `key` keeps it.
#[derive(Debug)]
struct Record {
    main: i64,
    sub: i64,
    key: Bytes,
    /// `None` is a tombstone.
    kv: Option<KeyValue>,
}

/// What a watcher may be told of one key at one revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Happening {
    pub delete: bool,
    /// A deletion's has key and revision only.
    pub kv: KeyValue,
    pub prev: Option<KeyValue>,
}

/// The whole state. Cheap to clone: the past is shared.
#[derive(Clone, Debug)]
pub struct Model {
    pub revision: i64,
    pub compacted: i64,
    records: Vec<Rc<Record>>,
    live: BTreeMap<Bytes, KeyValue>,
    /// Granted TTL, seconds, and which grant it was: an id may be given again.
    leases: BTreeMap<i64, (i64, u64)>,
    grants: u64,
    pub alarms: BTreeSet<(u64, i32)>,
    pub auth: Rc<Auth>,
    pub cluster_version: Option<String>,
    /// Where a downgrade that is enabled leads to.
    pub downgrade: Option<String>,
    /// Revision 2 and up, in order; nothing is ever removed.
    history: Vec<Rc<Vec<Happening>>>,
}

impl Default for Model {
    fn default() -> Self {
        Model {
            revision: 1,
            compacted: -1,
            records: Vec::new(),
            live: BTreeMap::new(),
            leases: BTreeMap::new(),
            grants: 0,
            alarms: BTreeSet::new(),
            auth: Rc::default(),
            cluster_version: None,
            downgrade: None,
            history: Vec::new(),
        }
    }
}

/// One revision in the making.
struct Writing<'a> {
    model: &'a mut Model,
    main: i64,
    happenings: Vec<Happening>,
}

impl Model {
    /// As [`Model::apply_as`], where nobody asks for permissions.
    pub fn apply(&mut self, op: &Op) -> Result<Response, api::Error> {
        self.apply_as(op, &Claim::default(), 0)
    }

    /// Applies the operation as etcd would, as whom the claim says; `index` is its entry's. Headers hold the revision only.
    /// The error is etcd's.
    pub fn apply_as(&mut self, op: &Op, claim: &Claim, index: u64) -> Result<Response, api::Error> {
        if op.costs() && self.full() {
            return Err(api::Error::NoSpace);
        }
        match op {
            Op::Put(r) => self.check_put_permission(claim, r)?,
            Op::Delete(r) => self.check_delete(claim, r)?,
            Op::Txn(r) => self.check_txn(claim, r)?,
            Op::Revoke { id } => self.check_lease(claim, *id, Wish::Write)?,
            Op::Auth(r) => return self.apply_auth(r, claim, index),
            Op::Grant { .. } | Op::Compact(_) | Op::Alarm(_) | Op::Downgrade(_) => {}
        }
        match op {
            Op::Put(r) => {
                self.check_put(r)?;
                let mut response = self.write(|w| w.put(r));
                response.header = self.header();
                Ok(Response::Put(response))
            }
            Op::Delete(r) => {
                let mut response = self.write(|w| w.delete(r));
                response.header = self.header();
                Ok(Response::DeleteRange(response))
            }
            Op::Txn(r) => self.txn(r).map(Response::Txn),
            Op::Grant { id, ttl } => {
                if self.leases.contains_key(id) {
                    return Err(api::Error::LeaseExist);
                }
                let ttl = (*ttl).max(MIN_LEASE_TTL);
                self.grants += 1;
                self.leases.insert(*id, (ttl, self.grants));
                let header = self.header();
                Ok(Response::LeaseGrant(pb::LeaseGrantResponse { header, id: *id, ttl, error: String::new() }))
            }
            Op::Revoke { id } => {
                self.revoke(*id)?;
                Ok(Response::LeaseRevoke(pb::LeaseRevokeResponse { header: self.header() }))
            }
            Op::Compact(r) => {
                self.compact(r.revision)?;
                Ok(Response::Compact(pb::CompactionResponse { header: self.header() }))
            }
            Op::Alarm(r) => Ok(Response::Alarm(self.alarm(r))),
            Op::Auth(_) => unreachable!("it was dealt with"),
            Op::Downgrade(r) => {
                self.downgrade = (!r.version.is_empty()).then(|| r.version.clone());
                Ok(Response::Downgrade(pb::DowngradeResponse::default()))
            }
        }
    }

    /// Whether a downgrade to this version could begin (reference/semantics.md 10.12).
    pub fn check_downgrade(&self, version: &str) -> Result<(), api::Error> {
        let minor = |version: &str| version.split('.').nth(1).and_then(|minor| minor.parse::<u64>().ok());
        let target = minor(version).ok_or(api::Error::WrongDowngradeVersionFormat)?;
        let current = self.cluster_version.as_deref().and_then(minor).ok_or(api::Error::ClusterVersionUnavailable)?;
        match (target + 1 == current, &self.downgrade) {
            (false, _) => Err(api::Error::InvalidDowngradeTargetVersion),
            (true, Some(_)) => Err(api::Error::DowngradeInProcess),
            (true, None) => Ok(()),
        }
    }

    fn header(&self) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader { revision: self.revision, ..Default::default() })
    }

    /// Whether the alarm stands that refuses everything that needs room.
    pub fn full(&self) -> bool {
        self.alarms.iter().any(|(_, kind)| *kind == pb::AlarmType::Nospace as i32)
    }

    fn write<R>(&mut self, change: impl FnOnce(&mut Writing<'_>) -> R) -> R {
        let main = self.revision + 1;
        let mut writing = Writing { model: self, main, happenings: Vec::new() };
        let result = change(&mut writing);
        let happenings = writing.happenings;
        if !happenings.is_empty() {
            self.revision = main;
            self.history.push(Rc::new(happenings));
        }
        result
    }

    fn check_put(&self, r: &pb::PutRequest) -> Result<(), api::Error> {
        if r.lease != 0 && !self.leases.contains_key(&r.lease) {
            return Err(api::Error::LeaseNotFound);
        }
        if (r.ignore_value || r.ignore_lease) && !self.live.contains_key(&r.key) {
            return Err(api::Error::KeyNotFound);
        }
        Ok(())
    }

    fn revoke(&mut self, id: i64) -> Result<(), api::Error> {
        let keys = self.attached(id);
        self.leases.remove(&id).ok_or(api::Error::LeaseNotFound)?;
        self.write(|w| keys.iter().for_each(|key| drop(w.delete_key(key))));
        Ok(())
    }

    /// Keys that hang on the lease, ascending.
    pub fn attached(&self, id: i64) -> Vec<Bytes> {
        self.live.values().filter(|kv| kv.lease == id).map(|kv| kv.key.clone()).collect()
    }

    fn compact(&mut self, revision: i64) -> Result<(), api::Error> {
        if revision <= self.compacted {
            return Err(api::Error::Compacted);
        }
        if revision > self.revision {
            return Err(api::Error::FutureRev);
        }
        self.compacted = revision;
        let newest = self.newest_at(revision);
        self.records.retain(|r| {
            let is_newest = newest.get(&r.key) == Some(&(r.main, r.sub));
            r.main > revision || is_newest && (r.kv.is_some() || r.main == revision)
        });
        Ok(())
    }

    fn alarm(&mut self, r: &pb::AlarmRequest) -> pb::AlarmResponse {
        use pb::alarm_request::AlarmAction;
        let it = (r.member_id, r.alarm);
        let none = r.alarm == pb::AlarmType::None as i32;
        let found: Vec<(u64, i32)> = match r.action() {
            AlarmAction::Get => self.alarms.iter().filter(|a| none || a.1 == r.alarm).copied().collect(),
            AlarmAction::Activate if none => Vec::new(),
            AlarmAction::Activate => {
                self.alarms.insert(it);
                vec![it]
            }
            AlarmAction::Deactivate => self.alarms.take(&it).into_iter().collect(),
        };
        let alarms = found.into_iter().map(|(member_id, alarm)| pb::AlarmMember { member_id, alarm }).collect();
        pb::AlarmResponse { header: self.header(), alarms }
    }

    /// The newest change of each key at or below `revision`.
    fn newest_at(&self, revision: i64) -> BTreeMap<Bytes, (i64, i64)> {
        let old = self.records.iter().filter(|r| r.main <= revision);
        old.map(|r| (r.key.clone(), (r.main, r.sub))).collect()
    }

    fn keys_in(&self, key: &Bytes, end: &Bytes) -> Vec<Bytes> {
        self.live.keys().filter(|k| covers(key, end, k)).cloned().collect()
    }

    /// All keys as they were at `revision`.
    fn at(&self, revision: i64) -> Vec<KeyValue> {
        let mut state = BTreeMap::new();
        for r in self.records.iter().filter(|r| r.main <= revision) {
            match &r.kv {
                Some(kv) => drop(state.insert(r.key.clone(), kv.clone())),
                None => drop(state.remove(&r.key)),
            }
        }
        state.into_values().collect()
    }

    /// A range without sorting and filters.
    pub fn range(&self, r: &pb::RangeRequest) -> Result<pb::RangeResponse, api::Error> {
        if r.revision > self.revision {
            return Err(api::Error::FutureRev);
        }
        if r.revision > 0 && r.revision < self.compacted {
            return Err(api::Error::Compacted);
        }
        let all = if r.revision <= 0 { self.live.values().cloned().collect() } else { self.at(r.revision) };
        let mut kvs: Vec<KeyValue> = all.into_iter().filter(|kv| covers(&r.key, &r.range_end, &kv.key)).collect();
        let count = kvs.len() as i64;
        let limit = if r.limit > 0 { r.limit as usize } else { usize::MAX };
        let more = kvs.len() > limit && !r.count_only;
        kvs.truncate(if r.count_only { 0 } else { limit });
        if r.keys_only {
            // As of 3.7: from the index, which knows no lease.
            kvs.iter_mut().for_each(|kv| (kv.value, kv.lease) = (Bytes::new(), 0));
        }
        Ok(pb::RangeResponse { header: self.header(), kvs, more, count })
    }

    /// Every live key and nothing else: equal states give equal answers.
    pub fn everything(&self) -> pb::RangeResponse {
        let kvs: Vec<KeyValue> = self.live.values().cloned().collect();
        pb::RangeResponse { header: self.header(), count: kvs.len() as i64, kvs, more: false }
    }

    /// Leases and their TTL, with the keys that hang on them.
    pub fn leases(&self) -> BTreeMap<i64, (i64, Vec<Bytes>)> {
        self.leases.iter().map(|(id, (ttl, _))| (*id, (*ttl, self.attached(*id)))).collect()
    }

    /// Granted TTL in seconds, and a number that no other grant has.
    pub fn lease(&self, id: i64) -> Option<(i64, u64)> {
        self.leases.get(&id).copied()
    }

    pub fn lease_ids(&self) -> Vec<i64> {
        self.leases.keys().copied().collect()
    }

    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// What a revision did; nothing at revisions outside `2..=self.revision`.
    pub fn happenings(&self, revision: i64) -> &[Happening] {
        let at = usize::try_from(revision - 2).ok();
        at.and_then(|at| self.history.get(at)).map_or(&[], |h| h.as_slice())
    }
}

impl Writing<'_> {
    fn put(&mut self, r: &pb::PutRequest) -> pb::PutResponse {
        let old = self.model.live.get(&r.key).cloned();
        let kv = KeyValue {
            key: r.key.clone(),
            create_revision: old.as_ref().map_or(self.main, |kv| kv.create_revision),
            mod_revision: self.main,
            version: old.as_ref().map_or(0, |kv| kv.version) + 1,
            value: old.as_ref().filter(|_| r.ignore_value).map_or(r.value.clone(), |kv| kv.value.clone()),
            lease: old.as_ref().filter(|_| r.ignore_lease).map_or(r.lease, |kv| kv.lease),
        };
        self.model.live.insert(r.key.clone(), kv.clone());
        self.record(&r.key, Some(kv.clone()));
        self.happenings.push(Happening { delete: false, kv, prev: old.clone() });
        pb::PutResponse { header: None, prev_kv: old.filter(|_| r.prev_kv) }
    }

    fn delete(&mut self, r: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let keys = self.model.keys_in(&r.key, &r.range_end);
        let old: Vec<KeyValue> = keys.iter().filter_map(|key| self.delete_key(key)).collect();
        let deleted = old.len() as i64;
        pb::DeleteRangeResponse { header: None, deleted, prev_kvs: if r.prev_kv { old } else { Vec::new() } }
    }

    fn delete_key(&mut self, key: &Bytes) -> Option<KeyValue> {
        let prev = self.model.live.remove(key);
        self.record(key, None);
        let kv = KeyValue { key: key.clone(), mod_revision: self.main, ..KeyValue::default() };
        self.happenings.push(Happening { delete: true, kv, prev: prev.clone() });
        prev
    }

    fn record(&mut self, key: &Bytes, kv: Option<KeyValue>) {
        let sub = self.happenings.len() as i64;
        self.model.records.push(Rc::new(Record { main: self.main, sub, key: key.clone(), kv }));
    }
}

/// Whether `[key, end)` holds `k`; an empty end means the key alone, `\0` everything from it on.
pub fn covers(key: &Bytes, end: &Bytes, k: &Bytes) -> bool {
    match end.as_ref() {
        [] => k == key,
        [0] => k >= key,
        _ => k >= key && k < end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compaction_keeps_the_newest_and_a_tombstone_exactly_there() {
        let mut m = Model::default();
        let put = |k: &'static str| Op::Put(pb::PutRequest { key: k.into(), ..Default::default() });
        let compact = |revision| Op::Compact(pb::CompactionRequest { revision, physical: false });
        let delete = Op::Delete(pb::DeleteRangeRequest { key: "b".into(), ..Default::default() });
        for op in [put("a"), put("a"), put("b"), delete] {
            m.apply(&op).unwrap();
        }
        assert_eq!(m.revision, 5);
        m.apply(&compact(5)).unwrap();
        assert_eq!(m.records.len(), 2);
        assert_eq!(m.apply(&compact(5)), Err(api::Error::Compacted));
        assert_eq!(m.apply(&compact(9)), Err(api::Error::FutureRev));
        assert_eq!(m.happenings(5)[0].prev.as_ref().unwrap().mod_revision, 4);
    }
}
