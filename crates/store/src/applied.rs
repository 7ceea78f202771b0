//! What apply publishes: one immutable state that any thread may read for as long as it likes.

use crate::backend::{AtOnce, Backend, NotAtOnce, Records, Unhurried};
use crate::index::{Item, KeyIndex, Span};
use crate::members::{Downgrade, Member};
use crate::tree::{Strings, Tree, Weigh};
use crate::{Change, Error, Event, History, Prev};
use api::pb::etcdserverpb as pb;
use api::pb::mvccpb::KeyValue;
use api::raft::ConfState;
use bolt::Pace;
use bytes::Bytes;
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A lease: what was granted, and what hangs on it.
#[derive(Clone, Debug, Default)]
pub struct Lease {
    pub(crate) ttl: i64,
    pub(crate) remaining_ttl: i64,
    pub(crate) keys: Tree<Strings, Attached>,
}

/// A key's attachment has no content.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attached;
impl Weigh for Attached {}
impl Weigh for Lease {}

impl Lease {
    /// Seconds granted.
    pub fn ttl(&self) -> i64 {
        self.ttl
    }

    /// Seconds left at the last checkpoint; 0 when there was none.
    pub fn remaining_ttl(&self) -> i64 {
        self.remaining_ttl
    }

    /// Attached keys, ascending.
    pub fn keys(&self) -> Vec<Bytes> {
        self.keys.iter().map(|(key, _)| Bytes::copy_from_slice(key)).collect()
    }
}

/// Keys that a quick range may take.
const QUICK_KEYS: usize = 16;
/// Compares and ranges of either branch that a quick txn may have.
const QUICK_OPS: usize = 4;

/// Keys, dead ones too, that are looked at to learn whether a range is quick.
const QUICK_LOOK: usize = 64;

/// `None`: it takes longer.
fn at_once<T>(result: Result<T, NotAtOnce>) -> Option<Result<T, Error>> {
    match result {
        Ok(answer) => Some(Ok(answer)),
        Err(NotAtOnce::Later) => None,
        Err(NotAtOnce::Failed(e)) => Some(Err(e)),
    }
}

/// The hash of a finished compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvHash {
    pub hash: u32,
    pub revision: i64,
    pub compact_revision: i64,
}

/// One state of the store.
#[derive(Clone, Debug)]
pub struct Applied {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) revision: i64,
    pub(crate) compact_revision: i64,
    pub(crate) keys: KeyIndex,
    pub(crate) backend: Backend,
    pub(crate) leases: Tree<Vec<i64>, Lease>,
    pub(crate) auth: crate::auth::Auth,
    pub(crate) alarms: Arc<BTreeSet<(u64, i32)>>,
    pub(crate) members: Arc<BTreeMap<u64, Member>>,
    pub(crate) removed: Arc<BTreeSet<u64>>,
    pub(crate) cluster_version: Option<Arc<str>>,
    pub(crate) storage_version: Option<Arc<str>>,
    pub(crate) downgrade: Arc<Downgrade>,
    pub(crate) conf_state: Arc<ConfState>,
    pub(crate) hashes: Arc<Vec<KvHash>>,
    pub(crate) identity: (u64, u64),
}

impl Applied {
    pub fn index(&self) -> u64 {
        self.index
    }
    pub fn term(&self) -> u64 {
        self.term
    }
    pub fn revision(&self) -> i64 {
        self.revision
    }
    /// -1 when nothing was compacted.
    pub fn compact_revision(&self) -> i64 {
        self.compact_revision
    }
    pub fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }
    pub fn cluster_version(&self) -> Option<&str> {
        self.cluster_version.as_deref()
    }
    pub fn storage_version(&self) -> Option<&str> {
        self.storage_version.as_deref()
    }
    pub fn downgrade(&self) -> &Downgrade {
        &self.downgrade
    }
    pub fn alarms(&self) -> Vec<pb::AlarmMember> {
        self.alarms.iter().map(|&(member_id, alarm)| pb::AlarmMember { member_id, alarm }).collect()
    }
    /// Members, ascending by id.
    pub fn members(&self) -> Vec<pb::Member> {
        self.members.values().map(Member::to_pb).collect()
    }
    /// Whether the member was removed, for good.
    pub fn is_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }
    pub fn lease(&self, id: i64) -> Option<&Lease> {
        self.leases.get(&id)
    }
    pub fn leases(&self) -> impl Iterator<Item = (i64, &Lease)> {
        self.leases.iter().map(|(id, lease)| (*id, lease))
    }
    /// A header as of this state.
    pub fn header(&self) -> pb::ResponseHeader {
        let (cluster_id, member_id) = self.identity;
        pb::ResponseHeader { cluster_id, member_id, revision: self.revision, raft_term: self.term }
    }
    /// The page store's image: complete only right after a checkpoint.
    pub fn image(&self) -> bolt::Image {
        self.backend.view.image()
    }

    /// Range at this state (reference/semantics.md 2).
    pub fn range(&self, r: &pb::RangeRequest) -> Result<pb::RangeResponse, Error> {
        self.unhurried_range(r, &|_| ())
    }

    /// The same, at the pace of others.
    pub fn unhurried_range(&self, r: &pb::RangeRequest, pace: Pace<'_>) -> Result<pb::RangeResponse, Error> {
        let mut response = self.range_from(&self.unhurried(pace), r, self.revision)?;
        response.header = Some(self.header());
        Ok(response)
    }

    fn unhurried<'a>(&'a self, pace: Pace<'a>) -> Unhurried<'a> {
        Unhurried { backend: &self.backend, pace }
    }

    /// The same if it takes only microseconds: few keys, little data, no waiting for the device. Else `None`.
    pub fn quick_range(&self, r: &pb::RangeRequest) -> Option<Result<pb::RangeResponse, Error>> {
        if !self.is_small(r) {
            return None;
        }
        let range = self.range_from(&AtOnce::new(&self.backend), r, self.revision);
        at_once(range.map(|range| pb::RangeResponse { header: Some(self.header()), ..range }))
    }

    fn is_small(&self, r: &pb::RangeRequest) -> bool {
        let span = Span { key: &r.key, end: &r.range_end };
        if span.is_point() {
            return true;
        }
        let newest = r.revision <= 0 || r.revision == self.revision;
        let plain = r.sort_order == 0
            && [r.min_mod_revision, r.max_mod_revision, r.min_create_revision, r.max_create_revision] == [0; 4];
        if !newest {
            return false;
        }
        if r.count_only {
            return true;
        }
        let limit = usize::try_from(r.limit).ok().filter(|limit| plain && *limit > 0).unwrap_or(usize::MAX);
        // One live key beyond the limit is looked for: that is how `more` is known.
        let mut wanted = limit.saturating_add(1);
        for (looked, (_, history)) in self.keys.all(span).enumerate() {
            if looked == QUICK_LOOK {
                return false;
            }
            wanted -= history.weight();
            if wanted == 0 {
                break;
            }
        }
        limit <= QUICK_KEYS || self.keys.count(span) <= QUICK_KEYS
    }

    /// Range without a header.
    fn range_from<R: Records>(
        &self,
        records: &R,
        r: &pb::RangeRequest,
        current: i64,
    ) -> Result<pb::RangeResponse, R::Error> {
        if r.revision > current {
            return Err(Error::from(api::Error::FutureRev).into());
        }
        let at = if r.revision <= 0 { current } else { r.revision };
        if at < self.compact_revision && !failpoint::mutant!("compactedServed") {
            return Err(Error::from(api::Error::Compacted).into());
        }
        range(&self.keys, records, r, at, at >= current)
    }

    /// A read-only txn (semantics 5.10).
    pub fn read_txn(&self, r: &pb::TxnRequest) -> Result<pb::TxnResponse, Error> {
        self.unhurried_read_txn(r, &|_| ())
    }

    /// The same, at the pace of others.
    pub fn unhurried_read_txn(&self, r: &pb::TxnRequest, pace: Pace<'_>) -> Result<pb::TxnResponse, Error> {
        self.read_txn_from(&self.unhurried(pace), r)
    }

    /// The same if it takes only microseconds, as [`Applied::quick_range`].
    pub fn quick_read_txn(&self, r: &pb::TxnRequest) -> Option<Result<pb::TxnResponse, Error>> {
        let small = |op: &pb::RequestOp| match &op.request {
            Some(pb::request_op::Request::RequestRange(range)) => self.is_small(range),
            _ => false,
        };
        let few = [r.compare.len(), r.success.len(), r.failure.len()].iter().all(|n| *n <= QUICK_OPS);
        let points = r.compare.iter().all(|c| c.range_end.is_empty());
        match few && points && r.success.iter().chain(&r.failure).all(small) {
            true => at_once(self.read_txn_from(&AtOnce::new(&self.backend), r)),
            false => None,
        }
    }

    fn read_txn_from<R: Records>(&self, records: &R, r: &pb::TxnRequest) -> Result<pb::TxnResponse, R::Error> {
        let succeeded = compare_all(&self.keys, records, &r.compare, self.revision)?;
        let ops = if succeeded { &r.success } else { &r.failure };
        for op in ops {
            if let Some(pb::request_op::Request::RequestRange(r)) = &op.request {
                check_txn_range(r, self.revision, self.compact_revision)?;
            }
        }
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops {
            let Some(pb::request_op::Request::RequestRange(r)) = &op.request else {
                return Err(Error::Fatal("a read-only txn holds a write".into()).into());
            };
            let mut range = self.range_from(records, r, self.revision)?;
            range.header = Some(pb::ResponseHeader { revision: self.revision, ..Default::default() });
            responses.push(pb::ResponseOp { response: Some(pb::response_op::Response::ResponseRange(range)) });
        }
        Ok(pb::TxnResponse { header: Some(self.header()), succeeded, responses })
    }

    /// A chunked range (semantics 2.11–2.14).
    pub fn range_stream(
        self: &Arc<Self>,
        r: &pb::RangeRequest,
        max_request_bytes: usize,
    ) -> Result<RangeStream, Error> {
        let sorted = r.sort_order != 0 && (r.sort_order != 1 || r.sort_target != 0);
        let unimplemented = |text: &'static str| Err(api::Error::Coded(api::Code::Unimplemented, text.into()).into());
        if sorted {
            return unimplemented("RangeStream does not support custom sort orders");
        }
        let filters = [r.min_mod_revision, r.max_mod_revision, r.min_create_revision, r.max_create_revision];
        if filters.iter().any(|f| *f != 0) {
            return unimplemented("RangeStream does not support revision filters");
        }
        let mut request = r.clone();
        if request.revision <= 0 {
            request.revision = self.revision;
        }
        Ok(RangeStream { applied: self.clone(), request, sent: 0, chunk: 10, max: max_request_bytes, done: false })
    }

    /// The hashes of the last compactions, ten at most.
    pub fn compaction_hashes(&self) -> &[KvHash] {
        &self.hashes
    }

    /// HashKV, equal to Go's (semantics 10.4).
    pub fn hash_kv(&self, revision: i64, pace: Pace<'_>) -> Result<KvHash, Error> {
        // As Go: a stored hash first, also that of a compaction at 0; negative revisions hash nothing.
        if let Some(stored) = self.hashes.iter().find(|h| h.revision == revision) {
            return Ok(*stored);
        }
        let at = if revision == 0 { self.revision } else { revision };
        if revision > 0 && at < self.compact_revision {
            return Err(api::Error::Compacted.into());
        }
        if at > self.revision {
            return Err(api::Error::FutureRev.into());
        }
        let everything = Bytes::from_static(&[0]);
        let any_live = self.keys.live(Span { key: &everything, end: &everything }, at).next().is_some();
        let mut hasher = KvHasher::new(at, self.compact_revision);
        let mut revisions = self.backend.revisions(crate::index::Rev::default())?;
        while let Some((rev, tombstone, value)) = revisions.advance()? {
            if rev.main > at {
                break;
            }
            pace(value.len());
            let keep = || -> Result<bool, Error> {
                let history = self.keys.get(&key_of(&value)?);
                Ok(history.and_then(|h| h.at(at)).is_some_and(|i| i.rev == rev && i.version > 0))
            };
            hasher.add(rev, tombstone, &value, any_live, keep)?;
        }
        Ok(hasher.finish())
    }

    /// The CRC of every bucket (semantics 10.3).
    pub fn hash(&self, pace: Pace<'_>) -> Result<u32, Error> {
        use crate::schema;
        let mut crc = 0;
        let mut add = |bytes: &[u8]| crc = crc32c::crc32c_append(crc, bytes);
        for bucket in schema::BUCKETS {
            add(bucket.as_bytes());
            if bucket == schema::KEY {
                let mut revisions = self.backend.revisions(crate::index::Rev::default())?;
                while let Some((rev, tombstone, value)) = revisions.advance()? {
                    add(&schema::revision_key(rev, tombstone));
                    add(&value);
                    pace(value.len());
                }
                continue;
            }
            for (key, value) in self.backend.pairs(bucket)? {
                let local = [schema::CONSISTENT_INDEX, schema::TERM, schema::STORAGE_VERSION];
                if bucket != schema::META || !local.contains(&key.as_ref()) {
                    add(&key);
                    add(&value);
                }
            }
        }
        Ok(crc)
    }
}

pub(crate) fn decode_kv(bytes: &Bytes) -> Result<KeyValue, Error> {
    KeyValue::decode(bytes.clone())
        .map_err(|e| Error::Fatal(format!("bucket key holds a value that can't be read: {e}")))
}

pub(crate) fn key_of(bytes: &Bytes) -> Result<Bytes, Error> {
    Ok(decode_kv(bytes)?.key)
}

fn load<R: Records>(records: &R, item: &Item) -> Result<KeyValue, R::Error> {
    load_at(records, item.rev)
}

pub(crate) fn load_at<R: Records>(records: &R, rev: crate::index::Rev) -> Result<KeyValue, R::Error> {
    match records.put_record(rev)? {
        Some(bytes) => Ok(decode_kv(&bytes)?),
        None => {
            let text = format!("revision {}_{} is in the index but not in the store", rev.main, rev.sub);
            Err(Error::Fatal(text).into())
        }
    }
}

/// HashKV's running sum and its rules.
pub(crate) struct KvHasher {
    crc: u32,
    revision: i64,
    compact_revision: i64,
}

impl KvHasher {
    pub fn new(revision: i64, compact_revision: i64) -> KvHasher {
        KvHasher { crc: crc32c::crc32c(b"key"), revision, compact_revision }
    }

    pub fn add(
        &mut self,
        rev: crate::index::Rev,
        tombstone: bool,
        value: &Bytes,
        filtering: bool,
        keep: impl FnOnce() -> Result<bool, Error>,
    ) -> Result<(), Error> {
        if rev.main > self.revision || filtering && rev.main <= self.compact_revision && !keep()? {
            return Ok(());
        }
        if tombstone && rev.main == self.compact_revision {
            return Ok(());
        }
        self.crc = crc32c::crc32c_append(self.crc, &crate::schema::revision_key(rev, tombstone));
        self.crc = crc32c::crc32c_append(self.crc, value);
        Ok(())
    }

    pub fn finish(&self) -> KvHash {
        KvHash { hash: self.crc, revision: self.revision, compact_revision: self.compact_revision }
    }
}

/// The range itself.
pub(crate) fn range<R: Records>(
    keys: &KeyIndex,
    records: &R,
    r: &pb::RangeRequest,
    at: i64,
    newest: bool,
) -> Result<pb::RangeResponse, R::Error> {
    let span = Span { key: &r.key, end: &r.range_end };
    let count = |from: i64| match newest {
        true => keys.count(span) as i64,
        false => keys.live(span, from).count() as i64,
    };
    let mut response = pb::RangeResponse::default();
    if r.count_only {
        response.count = count(at);
        return Ok(response);
    }
    let limit = usize::try_from(r.limit).ok().filter(|l| *l > 0);
    let filters = [r.min_mod_revision, r.max_mod_revision, r.min_create_revision, r.max_create_revision];
    let filtered = filters.iter().any(|f| *f != 0);
    // Without order and filters only the first limit + 1 keys take part, even in a sort by another target.
    let fetch = match limit {
        Some(limit) if r.sort_order == 0 && !filtered => limit + 1,
        _ => usize::MAX,
    };
    let passes = |item: &Item| {
        let inside = |v: i64, min: i64, max: i64| (min == 0 || v >= min) && (max == 0 || v <= max);
        inside(item.rev.main, r.min_mod_revision, r.max_mod_revision)
            && inside(item.created, r.min_create_revision, r.max_create_revision)
    };
    let mut found: Vec<(&[u8], &Item)> = keys.live(span, at).take(fetch).collect();
    response.count = if found.len() < fetch { found.len() as i64 } else { count(at) };
    found.retain(|(_, item)| passes(item));
    use pb::range_request::SortTarget;
    let target = SortTarget::try_from(r.sort_target).unwrap_or(SortTarget::Key);
    let descending = r.sort_order == 2;
    if target == SortTarget::Value {
        let mut kvs = found.iter().map(|(_, item)| load(records, item)).collect::<Result<Vec<_>, _>>()?;
        kvs.sort_by(|a, b| if descending { b.value.cmp(&a.value) } else { a.value.cmp(&b.value) });
        response.more = limit.is_some_and(|l| kvs.len() > l);
        kvs.truncate(limit.unwrap_or(usize::MAX));
        if r.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        response.kvs = kvs;
        return Ok(response);
    }
    let number = |item: &Item| match target {
        SortTarget::Version => item.version,
        SortTarget::Create => item.created,
        SortTarget::Mod => item.rev.main,
        SortTarget::Key | SortTarget::Value => 0,
    };
    match (target, descending) {
        (SortTarget::Key, false) => {}
        (SortTarget::Key, true) => found.reverse(),
        (_, false) => found.sort_by_key(|(_, item)| number(item)),
        (_, true) => found.sort_by_key(|(_, item)| std::cmp::Reverse(number(item))),
    }
    response.more = limit.is_some_and(|l| found.len() > l);
    found.truncate(limit.unwrap_or(usize::MAX));
    response.kvs = found
        .into_iter()
        .map(|(key, item)| match r.keys_only {
            true => Ok(KeyValue {
                key: Bytes::copy_from_slice(key),
                create_revision: item.created,
                mod_revision: item.rev.main,
                version: item.version,
                ..KeyValue::default()
            }),
            false => load(records, item),
        })
        .collect::<Result<_, R::Error>>()?;
    Ok(response)
}

/// A range inside a txn is checked before any write (semantics 5.8): a negative revision is as good as compacted.
pub(crate) fn check_txn_range(r: &pb::RangeRequest, revision: i64, compacted: i64) -> Result<(), Error> {
    if r.revision > revision {
        return Err(api::Error::FutureRev.into());
    }
    match r.revision != 0 && r.revision < compacted {
        true => Err(api::Error::Compacted.into()),
        false => Ok(()),
    }
}

/// Whether all compares hold (semantics 5.1–5.4).
pub(crate) fn compare_all<R: Records>(
    keys: &KeyIndex,
    records: &R,
    compares: &[pb::Compare],
    at: i64,
) -> Result<bool, R::Error> {
    for c in compares {
        let span = Span { key: &c.key, end: &c.range_end };
        let mut any = false;
        for (_, item) in keys.live(span, at) {
            any = true;
            if !compare_one(c, &load(records, item)?) {
                return Ok(false);
            }
        }
        if !any {
            if c.target == pb::compare::CompareTarget::Value as i32 {
                return Ok(false);
            }
            if !compare_one(c, &KeyValue::default()) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn compare_one(c: &pb::Compare, kv: &KeyValue) -> bool {
    use pb::compare::{CompareResult, CompareTarget, TargetUnion};
    let union = c.target_union.as_ref();
    let ordering = match CompareTarget::try_from(c.target) {
        Ok(CompareTarget::Value) => {
            let operand = match union {
                Some(TargetUnion::Value(v)) => v.clone(),
                _ => Bytes::new(),
            };
            kv.value.cmp(&operand)
        }
        Ok(CompareTarget::Create) => {
            kv.create_revision.cmp(&if let Some(TargetUnion::CreateRevision(v)) = union { *v } else { 0 })
        }
        Ok(CompareTarget::Mod) => {
            kv.mod_revision.cmp(&if let Some(TargetUnion::ModRevision(v)) = union { *v } else { 0 })
        }
        Ok(CompareTarget::Version) => kv.version.cmp(&if let Some(TargetUnion::Version(v)) = union { *v } else { 0 }),
        Ok(CompareTarget::Lease) => kv.lease.cmp(&if let Some(TargetUnion::Lease(v)) = union { *v } else { 0 }),
        Err(_) => std::cmp::Ordering::Equal,
    };
    match CompareResult::try_from(c.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Err(_) => true,
    }
}

/// A range handed out in chunks of keys, all at one revision.
#[derive(Debug)]
pub struct RangeStream {
    applied: Arc<Applied>,
    request: pb::RangeRequest,
    sent: i64,
    chunk: i64,
    max: usize,
    done: bool,
}

impl RangeStream {
    /// The next chunk; the last one has header, count and more.
    pub fn next_chunk(&mut self, pace: Pace<'_>) -> Result<Option<pb::RangeResponse>, Error> {
        if self.done {
            return Ok(None);
        }
        let left = if self.request.limit > 0 { self.request.limit - self.sent } else { i64::MAX };
        let mut r = self.request.clone();
        r.limit = self.chunk.min(left);
        let mut response = self.applied.range_from(&self.applied.unhurried(pace), &r, self.applied.revision)?;
        let size = response.encoded_len();
        self.sent += response.kvs.len() as i64;
        let exhausted = !response.more || self.sent >= self.request.limit && self.request.limit > 0;
        if exhausted {
            self.done = true;
            response.header = Some(self.applied.header());
            response.count += self.sent - response.kvs.len() as i64;
            return Ok(Some(response));
        }
        if size < self.max / 2 {
            self.chunk *= 2;
        } else if size > self.max * 2 {
            self.chunk = (self.chunk / 2).max(1);
        }
        if let Some(last) = response.kvs.last() {
            let mut next = last.key.to_vec();
            next.push(0);
            self.request.key = next.into();
        }
        (response.more, response.count) = (false, 0);
        Ok(Some(response))
    }
}

impl History for Applied {
    fn revision(&self) -> i64 {
        self.revision
    }

    fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    fn changes(&self, from: i64, to: i64, max_revisions: usize, max_bytes: usize) -> Result<(Vec<Change>, i64), Error> {
        let mut changes: Vec<Change> = Vec::new();
        let mut events: Vec<Event> = Vec::new();
        let (mut main, mut bytes) = (0, 0);
        let mut revisions = self.backend.revisions(crate::index::Rev { main: from, sub: 0 })?;
        let flush = |events: &mut Vec<Event>, changes: &mut Vec<Change>, main| {
            if !events.is_empty() {
                changes.push(Change { revision: main, events: std::mem::take(events).into() });
            }
        };
        while let Some((rev, tombstone, value)) = revisions.advance()? {
            if rev.main > to {
                break;
            }
            if rev.main != main {
                flush(&mut events, &mut changes, main);
                if changes.len() >= max_revisions || bytes > max_bytes {
                    let covered = main;
                    return Ok((changes, covered));
                }
                main = rev.main;
            }
            bytes += value.len();
            let mut kv = decode_kv(&value)?;
            kv.mod_revision = rev.main;
            let kv = Arc::new(kv);
            events.push(match tombstone {
                true => Event::Delete { kv, prev: Prev::Unknown },
                false => Event::Put { kv, prev: Prev::Unknown },
            });
        }
        flush(&mut events, &mut changes, main);
        Ok((changes, to))
    }

    fn value_at(&self, key: &[u8], revision: i64) -> Result<Option<Arc<KeyValue>>, Error> {
        if revision < self.compact_revision {
            return Ok(None);
        }
        let key = Bytes::copy_from_slice(key);
        match self.keys.get(&key).and_then(|h| h.at(revision)) {
            Some(item) if item.version > 0 => Ok(Some(Arc::new(load(&self.backend, item)?))),
            _ => Ok(None),
        }
    }
}
