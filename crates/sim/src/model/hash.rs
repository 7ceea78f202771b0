//! HashKV, from its definition.

use super::Model;
use api::pb::mvccpb::KeyValue;
use prost::Message as _;
use std::collections::BTreeSet;

impl Model {
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

#[test]
fn the_checksum_is_castagnolis() {
    assert_eq!(crc32c_update(0, b"123456789"), 0xe306_9283);
}
