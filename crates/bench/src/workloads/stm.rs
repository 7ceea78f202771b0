//! `stm`: software transactions, as clientv3's `concurrency` makes them: reads one by one, then one transaction that
//! holds only if nothing read has changed; otherwise all again.
//!
//! After a conflict everything is read anew; clientv3 takes what the failed transaction fetched where isolation is
//! `s` or `ss`.

use crate::keys::{KeyEncoder, Random};
use crate::runner::Workload;
use crate::skim;
use crate::wire::{Conn, Failure, Rpc, frame};
use crate::workloads::kv::{malformed, put_op};
use crate::workloads::lock::{Lock, Locker};
use api::pb::etcdserverpb as pb;
use api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use bytes::Bytes;
use std::collections::BTreeSet;

/// Bytes of a key.
const KEY: usize = 16;

/// What a transaction is kept from seeing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    ReadCommitted,
    RepeatableReads,
    /// All reads at the first one's revision.
    Serializable,
    /// … and nothing written meanwhile to what it writes.
    SerializableSnapshot,
}

impl Isolation {
    /// `c`, `r`, `s`, `ss`.
    pub fn parse(text: &str) -> Option<Isolation> {
        Some(match text {
            "c" => Isolation::ReadCommitted,
            "r" => Isolation::RepeatableReads,
            "s" => Isolation::Serializable,
            "ss" => Isolation::SerializableSnapshot,
            _ => return None,
        })
    }

    fn one_revision(self) -> bool {
        matches!(self, Isolation::Serializable | Isolation::SerializableSnapshot)
    }
}

/// The workload.
#[derive(Clone, Debug)]
pub struct Stm {
    pub isolation: Isolation,
    pub locker: Locker,
    /// Keys there are, and those that one transaction reads.
    pub keys: u64,
    pub keys_per_txn: u64,
    pub write_percent: u64,
    pub value_size: usize,
}

/// What a worker keeps.
#[derive(Debug)]
pub struct Worker {
    random: Random,
    encoder: KeyEncoder,
    lock: Lock,
}

/// One attempt's reads.
#[derive(Debug, Default)]
struct Reads {
    /// Keys with the revisions of their last change; 0 where there is none.
    seen: Vec<(Bytes, i64)>,
    revision: i64,
}

impl Workload for Stm {
    type Worker = Worker;

    async fn prepare(&self, id: usize, conn: &mut Conn) -> Result<Worker, Failure> {
        let lock = Lock::new(self.locker, conn).await?;
        Ok(Worker { random: Random::new(id as u64), encoder: KeyEncoder::fresh(KEY), lock })
    }

    async fn once(&self, worker: &mut Worker, conn: &mut Conn, _sequence: u64) -> (usize, Result<(), Failure>) {
        (0, self.transact(worker, conn).await)
    }
}

impl Stm {
    async fn transact(&self, worker: &mut Worker, conn: &mut Conn) -> Result<(), Failure> {
        let keys = self.draw(worker)?;
        worker.lock.lock(conn).await?;
        let done = self.until_it_holds(worker, conn, &keys).await;
        worker.lock.unlock(conn).await?;
        done
    }

    async fn until_it_holds(&self, worker: &mut Worker, conn: &mut Conn, keys: &[Bytes]) -> Result<(), Failure> {
        loop {
            let reads = self.read(conn, keys).await?;
            if self.commit(worker, conn, &reads).await? {
                return Ok(());
            }
        }
    }

    fn draw(&self, worker: &mut Worker) -> Result<Vec<Bytes>, Failure> {
        let mut numbers = BTreeSet::new();
        while (numbers.len() as u64) < self.keys_per_txn.min(self.keys) {
            numbers.insert(worker.random.below(self.keys));
        }
        let key = |number| worker.encoder.key(i64::try_from(number).unwrap_or(i64::MAX)).map(Bytes::copy_from_slice);
        numbers.into_iter().map(key).collect::<Option<_>>().ok_or_else(|| Failure::Wrong("key too long".to_owned()))
    }

    async fn read(&self, conn: &mut Conn, keys: &[Bytes]) -> Result<Reads, Failure> {
        let mut reads = Reads::default();
        for key in keys {
            let one = self.isolation.one_revision();
            let request = pb::RangeRequest {
                key: key.clone(),
                serializable: !one || reads.revision > 0,
                revision: if one { reads.revision } else { 0 },
                ..pb::RangeRequest::default()
            };
            let answer = conn.unary(Rpc::Range, frame(&request)).await?;
            let seen = skim::range(&answer).ok_or_else(malformed)?;
            if reads.revision == 0 {
                reads.revision = seen.revision;
            }
            reads.seen.push((key.clone(), seen.last_mod_revision));
        }
        Ok(reads)
    }

    async fn commit(&self, worker: &mut Worker, conn: &mut Conn, reads: &Reads) -> Result<bool, Failure> {
        let writes = reads.seen.len() as u64 * self.write_percent / 100;
        let written = reads.seen.iter().take(usize::try_from(writes).unwrap_or(usize::MAX));
        let request = pb::TxnRequest {
            compare: self.conditions(reads, written.clone().map(|(key, _)| key)),
            success: written.map(|(key, _)| put_op(key.clone(), worker.random.bytes(self.value_size))).collect(),
            failure: Vec::new(),
        };
        let answer = conn.unary(Rpc::Txn, frame(&request)).await?;
        Ok(skim::txn(&answer).ok_or_else(malformed)?.succeeded)
    }

    fn conditions<'a>(&self, reads: &Reads, written: impl Iterator<Item = &'a Bytes>) -> Vec<pb::Compare> {
        let unchanged = reads.seen.iter().map(|(key, revision)| mod_revision(key, CompareResult::Equal, *revision));
        match self.isolation {
            Isolation::ReadCommitted => Vec::new(),
            Isolation::RepeatableReads | Isolation::Serializable => unchanged.collect(),
            Isolation::SerializableSnapshot => {
                let newest = written.map(|key| mod_revision(key, CompareResult::Less, reads.revision + 1));
                unchanged.chain(newest).collect()
            }
        }
    }
}

fn mod_revision(key: &Bytes, result: CompareResult, revision: i64) -> pb::Compare {
    pb::Compare {
        result: result as i32,
        target: CompareTarget::Mod as i32,
        key: key.clone(),
        target_union: Some(TargetUnion::ModRevision(revision)),
        ..pb::Compare::default()
    }
}
