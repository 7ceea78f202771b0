//! A small etcd that is obviously right: every revision in a list, every question answered by walking it.

use api::pb::mvccpb::KeyValue;
use bytes::Bytes;
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};

/// What a client asks the model and the member alike.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    Put {
        key: Bytes,
        value: Bytes,
        lease: i64,
    },
    Delete {
        key: Bytes,
        end: Bytes,
    },
    /// If the first key's version equals `version`, put; else delete it.
    Txn {
        key: Bytes,
        version: i64,
        value: Bytes,
        other: Bytes,
    },
    Grant {
        id: i64,
        ttl: i64,
    },
    Revoke {
        id: i64,
    },
    Compact {
        revision: i64,
    },
}

/// One change of one key, as the bucket `key` keeps it.
#[derive(Clone, Debug)]
struct Record {
    main: i64,
    sub: i64,
    key: Bytes,
    /// `None` is a tombstone.
    kv: Option<KeyValue>,
}

/// The whole state.
#[derive(Clone, Debug)]
pub struct Model {
    pub revision: i64,
    pub compacted: i64,
    records: Vec<Record>,
    live: BTreeMap<Bytes, KeyValue>,
    leases: BTreeMap<i64, i64>,
}

impl Default for Model {
    fn default() -> Self {
        Model { revision: 1, compacted: -1, records: Vec::new(), live: BTreeMap::new(), leases: BTreeMap::new() }
    }
}

impl Model {
    /// Applies the operation as etcd would. The error is etcd's.
    pub fn apply(&mut self, op: &Op) -> Result<(), api::Error> {
        match op {
            Op::Put { key, value, lease } => {
                if *lease != 0 && !self.leases.contains_key(lease) {
                    return Err(api::Error::LeaseNotFound);
                }
                let main = self.revision + 1;
                self.put(main, 0, key, value, *lease);
                self.revision = main;
            }
            Op::Delete { key, end } => self.delete_all(self.keys_in(key, end)),
            Op::Txn { key, version, value, other } => {
                let main = self.revision + 1;
                if self.live.get(key).map_or(0, |kv| kv.version) == *version {
                    self.put(main, 0, key, value, 0);
                    self.put(main, 1, other, value, 0);
                    self.revision = main;
                } else {
                    self.delete_all(self.keys_in(key, &Bytes::new()));
                }
            }
            Op::Grant { id, ttl } => {
                if self.leases.contains_key(id) {
                    return Err(api::Error::LeaseExist);
                }
                self.leases.insert(*id, *ttl);
            }
            Op::Revoke { id } => {
                self.leases.remove(id).ok_or(api::Error::LeaseNotFound)?;
                let keys = self.live.values().filter(|kv| kv.lease == *id).map(|kv| kv.key.clone()).collect();
                self.delete_all(keys);
            }
            Op::Compact { revision } => self.compact(*revision)?,
        }
        Ok(())
    }

    fn put(&mut self, main: i64, sub: i64, key: &Bytes, value: &Bytes, lease: i64) {
        let old = self.live.get(key);
        let kv = KeyValue {
            key: key.clone(),
            create_revision: old.map_or(main, |kv| kv.create_revision),
            mod_revision: main,
            version: old.map_or(0, |kv| kv.version) + 1,
            value: value.clone(),
            lease,
        };
        self.live.insert(key.clone(), kv.clone());
        self.records.push(Record { main, sub, key: key.clone(), kv: Some(kv) });
    }

    fn keys_in(&self, key: &Bytes, end: &Bytes) -> Vec<Bytes> {
        let inside = |k: &Bytes| if end.is_empty() { k == key } else { k >= key && k < end };
        self.live.keys().filter(|k| inside(k)).cloned().collect()
    }

    fn delete_all(&mut self, keys: Vec<Bytes>) {
        if keys.is_empty() {
            return;
        }
        self.revision += 1;
        for (sub, key) in keys.into_iter().enumerate() {
            self.live.remove(&key);
            self.records.push(Record { main: self.revision, sub: sub as i64, key, kv: None });
        }
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

    /// The newest change of each key at or below `revision`.
    fn newest_at(&self, revision: i64) -> BTreeMap<Bytes, (i64, i64)> {
        let old = self.records.iter().filter(|r| r.main <= revision);
        old.map(|r| (r.key.clone(), (r.main, r.sub))).collect()
    }

    /// All live keys, ascending.
    pub fn live(&self) -> Vec<KeyValue> {
        self.live.values().cloned().collect()
    }

    /// All keys as they were at `revision`.
    pub fn at(&self, revision: i64) -> Vec<KeyValue> {
        let mut state = BTreeMap::new();
        for r in self.records.iter().filter(|r| r.main <= revision) {
            match &r.kv {
                Some(kv) => drop(state.insert(r.key.clone(), kv.clone())),
                None => drop(state.remove(&r.key)),
            }
        }
        state.into_values().collect()
    }

    pub fn leases(&self) -> BTreeSet<i64> {
        self.leases.keys().copied().collect()
    }

    /// HashKV at the current revision (reference/semantics.md 10.4).
    pub fn hash_kv(&self) -> u32 {
        let mut hash = crc32c_update(0, b"key");
        // Go's index.Keep(revision): the newest revision of every key that lives; ignored when there is none.
        let newest = self.newest_at(self.revision);
        let keep: BTreeSet<_> =
            newest.iter().filter(|(key, _)| self.live.contains_key(*key)).map(|(_, r)| *r).collect();
        for r in &self.records {
            let old = r.main <= self.compacted;
            let dropped = old && !keep.is_empty() && !keep.contains(&(r.main, r.sub));
            if dropped || r.kv.is_none() && r.main == self.compacted {
                continue;
            }
            let mut key = Vec::with_capacity(18);
            key.extend_from_slice(&r.main.to_be_bytes());
            key.push(b'_');
            key.extend_from_slice(&r.sub.to_be_bytes());
            if r.kv.is_none() {
                key.push(b't');
            }
            let value = r.kv.clone().unwrap_or_else(|| KeyValue { key: r.key.clone(), ..KeyValue::default() });
            hash = crc32c_update(hash, &key);
            hash = crc32c_update(hash, &value.encode_to_vec());
        }
        hash
    }
}

/// CRC-32C bit by bit: independent of the library that the product uses.
fn crc32c_update(crc: u32, bytes: &[u8]) -> u32 {
    let mut crc = !crc;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c_update(0, b"123456789"), 0xe306_9283);
    }

    #[test]
    fn compaction_keeps_the_newest_and_a_tombstone_exactly_there() {
        let mut m = Model::default();
        let put = |k: &'static str| Op::Put { key: k.into(), value: "v".into(), lease: 0 };
        for op in [put("a"), put("a"), put("b"), Op::Delete { key: "b".into(), end: Bytes::new() }] {
            m.apply(&op).unwrap();
        }
        assert_eq!(m.revision, 5);
        m.apply(&Op::Compact { revision: 5 }).unwrap();
        assert_eq!(m.records.len(), 2);
        assert_eq!(m.apply(&Op::Compact { revision: 5 }), Err(api::Error::Compacted));
        assert_eq!(m.apply(&Op::Compact { revision: 9 }), Err(api::Error::FutureRev));
    }
}
