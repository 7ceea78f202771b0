//! A store on a simulated disk, driven by entries as a member drives it.

#![allow(dead_code, reason = "each test file uses a part of it")]

use api::pb::etcdserverpb as pb;
use api::raft::{Entry, EntryKind};
use bytes::Bytes;
use disk::{SharedDisk, SimDisk, SimOptions};
use pb::request_op::Request;
use prost::Message as _;
use std::path::Path;
use std::sync::Arc;
use store::{Applied, Change, Options, Reply, Store};

pub struct World {
    pub disk: SimDisk,
    options: Options,
    pub store: Store,
    index: u64,
}

impl World {
    pub fn new(options: Options) -> World {
        let disk = SimDisk::new(SimOptions { seed: 0, capacity: u64::MAX });
        let store = open(&disk.shared(), &options);
        World { disk, options, store, index: 0 }
    }

    /// Stops the member and starts it again.
    pub fn restart(self, options: Options) -> World {
        let World { disk, mut store, index, .. } = self;
        checkpoint(&mut store);
        drop(store);
        let store = open(&disk.shared(), &options);
        World { disk, options, store, index }
    }

    pub fn ask(&mut self, fill: impl FnOnce(&mut pb::InternalRaftRequest)) -> Result<Reply, api::Error> {
        self.ask_as("", 0, fill)
    }

    /// As a user, with a claim of that revision.
    pub fn ask_as(
        &mut self,
        username: &str,
        auth_revision: u64,
        fill: impl FnOnce(&mut pb::InternalRaftRequest),
    ) -> Result<Reply, api::Error> {
        self.index += 1;
        let header = Some(pb::RequestHeader { id: self.index, username: username.into(), auth_revision });
        let mut request = pb::InternalRaftRequest { header, ..Default::default() };
        fill(&mut request);
        let data = request.encode_to_vec().into();
        let entry = Entry { term: 1, index: self.index, kind: EntryKind::Normal, data };
        self.store.apply(&entry).unwrap().reply
    }

    pub fn put(&mut self, key: &str, value: impl Into<Bytes>) -> Result<Reply, api::Error> {
        let put = pb::PutRequest { key: key.to_owned().into(), value: value.into(), ..Default::default() };
        self.ask(|r| r.put = Some(put))
    }

    pub fn delete(&mut self, key: &str) -> Result<Reply, api::Error> {
        let delete = pb::DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() };
        self.ask(|r| r.delete_range = Some(delete))
    }

    pub fn txn(&mut self, ops: Vec<Request>) -> Result<Reply, api::Error> {
        let success = ops.into_iter().map(|op| pb::RequestOp { request: Some(op) }).collect();
        self.ask(|r| r.txn = Some(pb::TxnRequest { success, ..Default::default() }))
    }

    /// Schedules a compaction; nothing is deleted yet.
    pub fn schedule(&mut self, revision: i64) -> Result<Reply, api::Error> {
        self.ask(|r| r.compaction = Some(pb::CompactionRequest { revision, physical: false }))
    }

    /// Compacts to the end.
    pub fn compact(&mut self, revision: i64) {
        self.schedule(revision).unwrap();
        while !self.store.compaction_step(1000, 1000).unwrap().done {}
    }

    pub fn checkpoint(&mut self) {
        checkpoint(&mut self.store);
    }

    pub fn publish(&mut self) -> (Arc<Applied>, Vec<Change>) {
        self.store.publish()
    }

    /// HashKV: hash and compact revision.
    pub fn hash_kv(&mut self, revision: i64) -> (u32, i64) {
        let hash = self.publish().0.hash_kv(revision, &|_| ()).unwrap();
        (hash.hash, hash.compact_revision)
    }
}

pub fn put(key: &str, value: &str) -> Request {
    Request::RequestPut(pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    })
}

pub fn delete(key: &str, range_end: &str) -> Request {
    Request::RequestDeleteRange(pb::DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        ..Default::default()
    })
}

/// Nested: each with its own position in the outer transaction, so that a key may change twice.
pub fn nested(op: Request) -> Request {
    let success = vec![pb::RequestOp { request: Some(op) }];
    Request::RequestTxn(pb::TxnRequest { success, ..Default::default() })
}

fn open(disk: &SharedDisk, options: &Options) -> Store {
    Store::open(disk.clone(), Path::new("/db"), options.clone()).unwrap()
}

fn checkpoint(store: &mut Store) {
    if let Some(mut checkpoint) = store.freeze() {
        checkpoint.run(&|_| ()).unwrap();
        store.checkpointed(checkpoint).unwrap();
    }
}
