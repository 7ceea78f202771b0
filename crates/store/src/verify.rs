//! What must be true of a state, checked the long way: for `ETCD_VERIFY`, and for tests. Each check looks at everything,
//! so that production does not pay for it.

use crate::applied::{Applied, Lease, decode_kv};
use crate::index::{Item, Rev, Span};
use crate::{Error, Store};
use api::pb::mvccpb::KeyValue;
use bytes::Bytes;
use std::collections::BTreeSet;

fn broken<T>(what: String) -> Result<T, Error> {
    Err(Error::Fatal(format!("an invariant does not hold: {what}")))
}

impl Store {
    /// Checks every page: whole, reached once, or free. No checkpoint runs meanwhile.
    ///
    /// # Errors
    /// Fatal: the first page at fault.
    pub fn verify_pages(&self) -> Result<(), Error> {
        Ok(self.db.check()?)
    }

    /// [`Applied::verify`] of the state behind the newest entry.
    ///
    /// # Errors
    /// Fatal: the first contradiction that is found, by its name.
    pub fn verify(&self) -> Result<(), Error> {
        self.s.verify()
    }

    /// Reads the page store again, as the next start will, and checks that nothing would be different then. To be asked
    /// when a checkpoint has written everything: otherwise the log has the rest, and there is nothing to compare.
    ///
    /// # Errors
    /// Fatal: what a restart would change.
    pub fn verify_restart(&self) -> Result<(), Error> {
        if self.is_ahead() {
            return Ok(());
        }
        let again = self.read_again()?;
        self.s.verify_equal(&again.s)
    }
}

impl Applied {
    /// Checks what the parts of a state say about one another: key index and records, leases and keys, members and
    /// configuration.
    ///
    /// # Errors
    /// Fatal: the first contradiction that is found, by its name.
    pub fn verify(&self) -> Result<(), Error> {
        self.verify_conf_state()?;
        self.verify_records()?;
        self.verify_leases()
    }

    fn verify_conf_state(&self) -> Result<(), Error> {
        let members = |learner: bool| -> BTreeSet<u64> {
            self.members.values().filter(|m| m.is_learner == learner).map(|m| m.id).collect()
        };
        let counted = |ids: &[u64]| -> BTreeSet<u64> { ids.iter().copied().collect() };
        let (voters, learners) = (counted(&self.conf_state.voters), counted(&self.conf_state.learners));
        if (&voters, &learners) != (&members(false), &members(true)) {
            return broken(format!(
                "consensus counts voters {voters:x?} and learners {learners:x?}, the members are {:x?} and {:x?}",
                members(false),
                members(true)
            ));
        }
        match self.members.keys().find(|id| self.removed.contains(id)) {
            Some(id) => broken(format!("member {id:x} was removed, and is one")),
            None => Ok(()),
        }
    }

    /// Every revision in the index has its record, and every record that no compaction is about to remove is in the index.
    fn verify_records(&self) -> Result<(), Error> {
        let mut found = 0;
        let mut revisions = self.backend.revisions(Rev::default())?;
        while let Some((rev, tombstone, value)) = revisions.advance()? {
            let key = decode_kv(&value)?;
            let known = self.keys.get(&key.key).and_then(|history| history.find(rev));
            let item = match tombstone {
                true => Item { rev, created: 0, version: 0 },
                false => Item { rev, created: key.create_revision, version: key.version },
            };
            match known {
                // Compaction takes revisions off the index first.
                None if rev.main <= self.compact_revision => {}
                Some(known) if *known == item => found += 1,
                known => {
                    return broken(format!(
                        "revision {}_{} of key {:?}: the index has {known:?}, the page store {item:?}",
                        rev.main, rev.sub, key.key
                    ));
                }
            }
            if !tombstone && !value.is_empty() {
                self.verify_put(rev, &key)?;
            }
            if rev.main > self.revision {
                return broken(format!("revision {} is stored, and the newest is {}", rev.main, self.revision));
            }
        }
        let everything = Bytes::from_static(&[0]);
        let all: usize = self.keys.all(Span { key: &everything, end: &everything }).map(|(_, h)| h.revisions()).sum();
        let empty: usize = self.keys.get(&[]).map_or(0, |history| history.revisions());
        match all + empty == found {
            true => Ok(()),
            false => broken(format!("the index has {} revisions, the page store {found} of them", all + empty)),
        }
    }

    /// A put counts on from the revision before it; the oldest that a compaction left counts from what is gone.
    fn verify_put(&self, rev: Rev, kv: &KeyValue) -> Result<(), Error> {
        let before = self.keys.get(&kv.key).and_then(|history| history.before(rev));
        let expected = match before {
            Some(Item { created, version, .. }) if *version > 0 => (*created, version + 1),
            None if rev.main <= self.compact_revision => (kv.create_revision, kv.version),
            _ => (rev.main, 1),
        };
        if (kv.create_revision, kv.version) != expected || kv.mod_revision != rev.main {
            return broken(format!(
                "key {:?} at revision {} says that it was created at {}, changed at {} and has version {}; by the \
                 revisions before it that is {}, {} and {}",
                kv.key, rev.main, kv.create_revision, kv.mod_revision, kv.version, expected.0, rev.main, expected.1
            ));
        }
        Ok(())
    }

    /// A lease's keys are the live ones that name it.
    fn verify_leases(&self) -> Result<(), Error> {
        let everything = Bytes::from_static(&[0]);
        let mut attached = 0;
        for (key, item) in self.keys.live(Span { key: &everything, end: &everything }, self.revision) {
            let id = crate::applied::load_at(&self.backend, item.rev)?.lease;
            let Some(lease) = self.leases.get(&id).filter(|_| id != 0) else { continue };
            if lease.keys.get(key).is_none() {
                return broken(format!("key {:?} names lease {id:016x}, which does not have it", text(key)));
            }
            attached += 1;
        }
        let held: usize = self.leases.iter().map(|(_, lease)| lease.keys.iter().count()).sum();
        match held == attached {
            true => Ok(()),
            false => broken(format!("leases have {held} keys, and {attached} keys name them")),
        }
    }

    /// What a restart would make of this state is this state.
    fn verify_equal(&self, again: &Applied) -> Result<(), Error> {
        let differ = |what: &str, now: &dyn std::fmt::Debug, then: &dyn std::fmt::Debug| {
            broken(format!("{what} would be different after a restart: {then:?} instead of {now:?}"))
        };
        macro_rules! same {
            ($what:literal, $of:expr) => {
                let of = $of;
                let (now, then) = (of(self), of(again));
                if now != then {
                    return differ($what, &now, &then);
                }
            };
        }
        same!("the consistent index and its term", |s: &Applied| (s.index, s.term));
        same!("the revision and the compacted one", |s: &Applied| (s.revision, s.compact_revision));
        same!("the version of the cluster", |s: &Applied| s.cluster_version.clone());
        same!("the version of the files", |s: &Applied| s.storage_version.clone());
        same!("the alarms", |s: &Applied| s.alarms.clone());
        same!("the members", |s: &Applied| (s.members.clone(), s.removed.clone()));
        same!("users and roles", |s: &Applied| (s.auth.is_enabled(), s.auth.revision()));
        same!("the leases", |s: &Applied| {
            let lease = |(id, lease): (i64, &Lease)| (id, lease.ttl, lease.keys());
            s.leases().map(lease).collect::<Vec<_>>()
        });
        let (now, then) = (self.fresh_hash()?, again.fresh_hash()?);
        match now == then {
            true => Ok(()),
            false => differ("HashKV", &now, &then),
        }
    }

    /// Computed now, whatever compactions have left.
    fn fresh_hash(&self) -> Result<crate::KvHash, Error> {
        let plain = Applied { hashes: Default::default(), ..self.clone() };
        plain.hash_kv(0, &|_| ())
    }
}

fn text(key: &[u8]) -> Bytes {
    Bytes::copy_from_slice(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;
    use api::pb::etcdserverpb as pb;
    use api::raft::{Entry, EntryKind};
    use disk::{SimDisk, SimOptions};
    use pb::InternalRaftRequest;
    use prost::Message as _;
    use std::path::Path;
    use std::sync::Arc;

    fn put(key: &'static str, lease: i64) -> InternalRaftRequest {
        let put = pb::PutRequest { key: key.into(), lease, ..Default::default() };
        InternalRaftRequest { put: Some(put), ..Default::default() }
    }

    /// A transaction may change a key twice, when a nested one does it.
    fn twice() -> pb::TxnRequest {
        use pb::request_op::Request;
        let nested = |request| {
            let success = vec![pb::RequestOp { request: Some(request) }];
            let txn = pb::TxnRequest { success, ..Default::default() };
            pb::RequestOp { request: Some(Request::RequestTxn(txn)) }
        };
        let delete = pb::DeleteRangeRequest { key: "c".into(), ..Default::default() };
        let put = || pb::PutRequest { key: "c".into(), ..Default::default() };
        let success = vec![
            nested(Request::RequestPut(put())),
            nested(Request::RequestDeleteRange(delete)),
            nested(Request::RequestPut(put())),
        ];
        pb::TxnRequest { success, ..Default::default() }
    }

    /// Puts, a deletion, a compaction that has begun, a lease with a key; all of it in the page store.
    fn store() -> Store {
        let disk = SimDisk::new(SimOptions { seed: 1, capacity: u64::MAX });
        disk.shared().create_dir_all(Path::new("/d"), 0o700).unwrap();
        let options = Options { cache_bytes: 1 << 20, ..Options::default() };
        let mut store = Store::open(disk.shared(), Path::new("/d/db"), options).unwrap();
        let lease = pb::LeaseGrantRequest { id: 7, ttl: 100 };
        let delete = pb::DeleteRangeRequest { key: "a".into(), ..Default::default() };
        let compaction = pb::CompactionRequest { revision: 3, ..Default::default() };
        let requests = [
            InternalRaftRequest { lease_grant: Some(lease), ..Default::default() },
            put("a", 0),
            put("a", 0),
            put("b", 7),
            InternalRaftRequest { delete_range: Some(delete), ..Default::default() },
            put("a", 0),
            InternalRaftRequest { txn: Some(twice()), ..Default::default() },
            InternalRaftRequest { compaction: Some(compaction), ..Default::default() },
        ];
        for (index, mut request) in (1..).zip(requests) {
            request.header = Some(pb::RequestHeader { id: index, ..Default::default() });
            let entry = Entry { term: 1, index, kind: EntryKind::Normal, data: request.encode_to_vec().into() };
            store.apply(&entry).unwrap();
        }
        store.compaction_step(100, 1).unwrap();
        let mut checkpoint = store.freeze().unwrap();
        checkpoint.run(&|_| ()).unwrap();
        store.checkpointed(checkpoint).unwrap();
        store
    }

    fn found(store: &Store) -> String {
        store
            .verify_pages()
            .and_then(|()| store.verify())
            .and_then(|()| store.verify_restart())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_sound_store_passes_in_the_midst_of_a_compaction() {
        let store = store();
        store.verify_pages().unwrap();
        store.verify().unwrap();
        store.verify_restart().unwrap();
    }

    #[test]
    fn each_broken_invariant_is_found_by_its_name() {
        fn ignore<T>(_: T) {}
        type Break<'a> = (&'a dyn Fn(&mut Store), &'a str);
        let breaks: [Break<'_>; 8] = [
            (&|s| s.s.keys.tombstone(b"b", Rev { main: 9, sub: 0 }), "the index has"),
            (&|s| ignore(s.s.keys.put(b"new", Rev { main: 4, sub: 1 })), "the index has"),
            (&|s| s.with_lease(7, |lease| ignore(lease.keys.remove(b"b".as_slice()))), "does not have it"),
            (
                &|s| s.with_lease(7, |l| ignore(l.keys.insert(b"a".as_slice(), crate::applied::Attached))),
                "leases have 2",
            ),
            (&|s| Arc::make_mut(&mut s.s.conf_state).voters.push(5), "consensus counts"),
            (&|s| s.s.revision = 5, "and the newest is 5"),
            (&|s| s.s.cluster_version = Some("3.7.0".into()), "the version of the cluster would be different"),
            (&|s| ignore(Arc::make_mut(&mut s.s.alarms).insert((1, 1))), "the alarms would be different"),
        ];
        for (number, (break_it, name)) in breaks.iter().enumerate() {
            let mut store = store();
            break_it(&mut store);
            let text = found(&store);
            assert!(text.contains(name), "{number}: {text}");
        }
    }

    #[test]
    fn a_record_that_does_not_count_on_is_found() {
        let mut store = store();
        let kv = KeyValue { key: "a".into(), create_revision: 6, mod_revision: 6, version: 4, ..KeyValue::default() };
        let record = crate::backend::Record { tombstone: false, value: Some(kv.encode_to_vec().into()) };
        store.set_record(Rev { main: 6, sub: 0 }, record);
        let mut batch = crate::index::Batch::default();
        let everything = Bytes::from_static(&[0]);
        let keys: Vec<Bytes> =
            store.s.keys.all(Span { key: &everything, end: &everything }).map(|(key, _)| text(key)).collect();
        assert_eq!(keys, ["a", "b", "c"]);
        // As a start would read it.
        store.s.keys = Default::default();
        let mut revisions = store.s.backend.revisions(Rev::default()).unwrap();
        while let Some((rev, tombstone, value)) = revisions.advance().unwrap() {
            let kv = decode_kv(&value).unwrap();
            let version = if tombstone { 0 } else { kv.version };
            batch.push(&kv.key, Item { rev, created: if tombstone { 0 } else { kv.create_revision }, version });
        }
        store.s.keys.restore(&mut batch);
        let text = store.verify().unwrap_err().to_string();
        assert!(text.contains("has version 4"), "{text}");
    }
}
