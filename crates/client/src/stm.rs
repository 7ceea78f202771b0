//! Software transactional memory (clientv3 `concurrency/stm.go`): reads and writes in whatever order the program wants, done
//! as one transaction of the store, and done anew when somebody changed what was read.
//!
//! ```text
//! apply(stm) ──► get ──► store, at the revision of the first read        (read set)
//!            └─► put, delete ──► kept here                               (write set)
//!      then ──► If(nobody changed what was read) Then(writes) Else(read all of it anew) ──► done, or apply(stm) again
//! ```
//!
//! Invariants:
//! * Nothing is written before the whole program ran, and all of it is written at one revision.
//! * A program that fails has written nothing.
//! * The commit is sent once: whether it was done is not known when its answer got lost, and the error says so.

use crate::call::Client;
use crate::error::Error;
use api::pb::etcdserverpb as pb;
use api::pb::mvccpb::KeyValue;
use api::recipes::{modified_before, modified_is, op};
use bytes::Bytes;
use parking_lot::Mutex;
use pb::request_op::Request as Op;
use pb::response_op::Response as Done;
use std::collections::BTreeMap;
use std::sync::Arc;
use tonic::Code;

/// Keys that are read in one request: what a server takes in one transaction unless told otherwise (`--max-txn-ops`).
const FETCHED_MAX: usize = 128;

/// What other transactions may do to what one reads (clientv3 `concurrency.Isolation`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// All reads are of one revision, and nothing that was read or is written changed between it and the commit.
    #[default]
    SerializableSnapshot,
    /// All reads are of one revision, and nothing that was read changed between it and the commit.
    Serializable,
    /// A key that is read twice has the same value, and nothing that was read changed before the commit. Two keys may be
    /// of different revisions.
    RepeatableReads,
    /// What is read was written by a finished transaction, and may have changed since.
    ReadCommitted,
}

/// A transaction that was done.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed<T> {
    /// What the program answered.
    pub value: T,
    /// The revision at which its writes can be seen; of one without writes, at which it was checked.
    pub revision: i64,
    /// How often the program ran, at least once.
    pub runs: usize,
}

/// What was read of a key.
#[derive(Clone, Debug)]
struct Read {
    kv: Option<KeyValue>,
    /// The store's revision when it was read.
    at: i64,
}

impl Read {
    fn revision(&self) -> i64 {
        self.kv.as_ref().map_or(0, |kv| kv.mod_revision)
    }
}

#[derive(Clone, Debug)]
enum Write {
    Put(pb::PutRequest),
    Delete,
}

/// One run of a program: its view of the store and what it wants to write. Clones are the same run.
#[derive(Clone, Debug)]
pub struct Stm {
    client: Client,
    isolation: Isolation,
    run: Arc<Mutex<Run>>,
}

#[derive(Debug, Default)]
struct Run {
    reads: Reads,
    writes: BTreeMap<Bytes, Write>,
    /// What a commit that failed brought: the values of one revision.
    fetched: Reads,
    /// The revision all reads are of.
    pinned: Option<i64>,
    /// The revision that the reads are of was compacted meanwhile: what follows can't be read.
    lost: bool,
}

impl Client {
    /// Runs a program as one transaction ([`Isolation::SerializableSnapshot`]), again and again until nobody interferes, or
    /// the deadline of this client passed. What it does besides is done as often as it runs.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), client::Error> {
    /// let client = client::Client::connect(client::Config::default()).await?;
    /// // Moves ten from one account to the other; nobody sees one without the other.
    /// let number = |value: Option<bytes::Bytes>| -> i64 {
    ///     value.and_then(|v| std::str::from_utf8(&v).ok()?.parse().ok()).unwrap_or(0)
    /// };
    /// let done = client
    ///     .transact(|stm| async move {
    ///         let (from, to) = (number(stm.get("from").await?), number(stm.get("to").await?));
    ///         stm.put("from", (from - 10).to_string());
    ///         stm.put("to", (to + 10).to_string());
    ///         Ok::<_, client::Error>(from - 10)
    ///     })
    ///     .await?;
    /// println!("{} left, at revision {}", done.value, done.revision);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The program's own, and then nothing was written; the server's; that the deadline passed. When the connection broke
    /// during the commit (*unavailable*), it may have been done.
    pub async fn transact<T, E: From<Error>, Done: Future<Output = Result<T, E>>>(
        &self,
        program: impl FnMut(Stm) -> Done,
    ) -> Result<Committed<T>, E> {
        self.transact_with(Isolation::default(), program).await
    }

    /// As [`Client::transact`], with another isolation.
    ///
    /// # Errors
    /// As there.
    pub async fn transact_with<T, E: From<Error>, Done: Future<Output = Result<T, E>>>(
        &self,
        isolation: Isolation,
        mut program: impl FnMut(Stm) -> Done,
    ) -> Result<Committed<T>, E> {
        let mut run = Run::default();
        for runs in 1.. {
            let stm = Stm { client: self.clone(), isolation, run: Arc::new(Mutex::new(run)) };
            let outcome = program(stm.clone()).await;
            // What the program made of a view that is gone is worth nothing, be it an error.
            if stm.run.lock().lost {
                run = Run::default();
                continue;
            }
            let value = outcome?;
            match stm.commit().await? {
                Ended::Done(revision) => return Ok(Committed { value, revision, runs }),
                Ended::Conflict(fetched) => run = Run { fetched, ..Run::default() },
            }
        }
        unreachable!("the loop ends with a return")
    }
}

/// How a commit ended.
enum Ended {
    /// At this revision.
    Done(i64),
    /// Somebody interfered: the program has to run again, with what is there now.
    Conflict(Reads),
}

impl Stm {
    /// The value of a key, as this transaction has it; `None`: there is none.
    ///
    /// # Errors
    /// The server's, or that the deadline passed. The program passes it on.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Bytes>, Error> {
        let key = key.into();
        match self.run.lock().writes.get(&key) {
            Some(Write::Put(put)) => return Ok(Some(put.value.clone())),
            Some(Write::Delete) => return Ok(None),
            None => {}
        }
        Ok(self.read(key).await?.kv.map(|kv| kv.value))
    }

    /// The revision of a key's last change in the store, which does not know of the writes of this transaction; 0: there is
    /// none.
    ///
    /// # Errors
    /// The server's, or that the deadline passed. The program passes it on.
    pub async fn revision(&self, key: impl Into<Bytes>) -> Result<i64, Error> {
        Ok(self.read(key.into()).await?.revision())
    }

    /// Reads many keys at once, so that [`Stm::get`] of each is free.
    ///
    /// # Errors
    /// The server's, or that the deadline passed. The program passes it on.
    pub async fn fetch<K: Into<Bytes>>(&self, keys: impl IntoIterator<Item = K>) -> Result<(), Error> {
        let missing = self.missing(keys.into_iter().map(Into::into));
        for keys in missing.chunks(FETCHED_MAX) {
            let reads = match self.ask(keys).await {
                // Only a view of one revision can be lost.
                Err(e) if e.is(&api::Error::Compacted) && self.pinned().is_some() => {
                    self.run.lock().lost = true;
                    return Err(e);
                }
                reads => reads?,
            };
            let mut run = self.run.lock();
            for (key, read) in keys.iter().zip(reads) {
                run.remember(key.clone(), read, self.is_of_one_revision());
            }
        }
        Ok(())
    }

    /// Takes over what a commit brought, and answers which keys have not been read.
    fn missing(&self, keys: impl Iterator<Item = Bytes>) -> Vec<Bytes> {
        let mut run = self.run.lock();
        let mut missing = Vec::new();
        for key in keys {
            match run.fetched.remove(&key) {
                Some(read) => run.remember(key, read, self.is_of_one_revision()),
                None if !run.reads.contains_key(&key) => missing.push(key),
                None => {}
            }
        }
        missing
    }

    fn pinned(&self) -> Option<i64> {
        self.run.lock().pinned
    }

    /// Writes a key at the end.
    pub fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.put_request(pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() });
    }

    /// Writes a key at the end, with a lease or whatever else a request can say. Of a request that keeps the value there is
    /// (`ignore_value`) [`Stm::get`] tells an empty one.
    pub fn put_request(&self, request: pb::PutRequest) {
        self.run.lock().writes.insert(request.key.clone(), Write::Put(request));
    }

    /// Deletes a key at the end.
    pub fn delete(&self, key: impl Into<Bytes>) {
        self.run.lock().writes.insert(key.into(), Write::Delete);
    }

    fn is_of_one_revision(&self) -> bool {
        matches!(self.isolation, Isolation::SerializableSnapshot | Isolation::Serializable)
    }

    async fn read(&self, key: Bytes) -> Result<Read, Error> {
        self.fetch([key.clone()]).await?;
        Ok(self.run.lock().reads.get(&key).cloned().expect("fetch has read it"))
    }

    /// Reads keys in one request, at the revision of the transaction where it has one.
    async fn ask(&self, keys: &[Bytes]) -> Result<Vec<Read>, Error> {
        // The first read asks the quorum; what follows asks for that very revision, which any member can tell.
        let serializable = self.pinned().is_some() || !self.is_of_one_revision();
        match self.ask_as(keys, serializable).await {
            // The member that answers is behind: one that has caught up with the quorum is not.
            Err(e) if serializable && e.is(&api::Error::FutureRev) => self.ask_as(keys, false).await,
            reads => reads,
        }
    }

    async fn ask_as(&self, keys: &[Bytes], serializable: bool) -> Result<Vec<Read>, Error> {
        let revision = self.pinned().unwrap_or(0);
        let get = |key: &Bytes| pb::RangeRequest { key: key.clone(), revision, serializable, ..Default::default() };
        let (header, ranges) = match keys {
            [key] => {
                let range = self.client.range(get(key)).await?;
                (range.header, vec![range])
            }
            keys => {
                let success = keys.iter().map(|key| op(Op::RequestRange(get(key)))).collect();
                let done = self.client.txn_of_reads(pb::TxnRequest { success, ..Default::default() }).await?;
                (done.header, ranges_of(done))
            }
        };
        let at = if revision > 0 { revision } else { header.map_or(0, |header| header.revision) };
        let reads: Vec<Read> = reads_of(ranges, at).collect();
        match reads.len() == keys.len() {
            true => Ok(reads),
            false => Err(Error::Rpc { code: Code::Internal, message: "the server answered other reads".into() }),
        }
    }

    async fn commit(&self) -> Result<Ended, Error> {
        // What the program left running has no part in it.
        let Run { reads, writes, .. } = std::mem::take(&mut *self.run.lock());
        let compare = conflicts(self.isolation, &reads, &writes);
        // A program that has nothing to write and nothing to check is done.
        if compare.is_empty() && writes.is_empty() {
            return Ok(Ended::Done(first_read(&reads).unwrap_or(0)));
        }
        let keys: Vec<Bytes> = reads.into_keys().collect();
        let get = |key: &Bytes| op(Op::RequestRange(pb::RangeRequest { key: key.clone(), ..Default::default() }));
        // Without a comparison it can't fail, and the server would only count the reads.
        let failure = if compare.is_empty() { Vec::new() } else { keys.iter().map(get).collect() };
        let success = writes.into_iter().map(write).collect();
        let done = self.client.txn(pb::TxnRequest { compare, success, failure }).await?;
        let revision = done.header.as_ref().map_or(0, |header| header.revision);
        if done.succeeded {
            return Ok(Ended::Done(revision));
        }
        // Of a transaction whose reads may differ in age nothing is taken over: it shall see what is there when it asks.
        if !self.is_of_one_revision() {
            return Ok(Ended::Conflict(BTreeMap::new()));
        }
        Ok(Ended::Conflict(keys.into_iter().zip(reads_of(ranges_of(done), revision)).collect()))
    }
}

impl Run {
    fn remember(&mut self, key: Bytes, read: Read, is_of_one_revision: bool) {
        if is_of_one_revision {
            self.pinned.get_or_insert(read.at);
        }
        self.reads.insert(key, read);
    }
}

type Reads = BTreeMap<Bytes, Read>;

fn first_read(reads: &Reads) -> Option<i64> {
    reads.values().map(|read| read.at).min()
}

/// What must be true of the store for the writes to be done.
fn conflicts(isolation: Isolation, reads: &Reads, writes: &BTreeMap<Bytes, Write>) -> Vec<pb::Compare> {
    let unchanged = |(key, read): (&Bytes, &Read)| modified_is(key, read.revision());
    let mut all: Vec<pb::Compare> = match isolation {
        Isolation::ReadCommitted => Vec::new(),
        _ => reads.iter().map(unchanged).collect(),
    };
    if let (Isolation::SerializableSnapshot, Some(first)) = (isolation, first_read(reads)) {
        // What was read is compared already.
        let unread = writes.keys().filter(|key| !reads.contains_key(*key));
        all.extend(unread.map(|key| modified_before(key, first + 1)));
    }
    all
}

fn write((key, write): (Bytes, Write)) -> pb::RequestOp {
    op(match write {
        Write::Put(put) => Op::RequestPut(put),
        Write::Delete => Op::RequestDeleteRange(pb::DeleteRangeRequest { key, ..Default::default() }),
    })
}

fn ranges_of(done: pb::TxnResponse) -> Vec<pb::RangeResponse> {
    let range = |response: pb::ResponseOp| match response.response {
        Some(Done::ResponseRange(range)) => Some(range),
        _ => None,
    };
    done.responses.into_iter().filter_map(range).collect()
}

fn reads_of(ranges: Vec<pb::RangeResponse>, at: i64) -> impl Iterator<Item = Read> {
    ranges.into_iter().map(move |range| Read { kv: range.kvs.into_iter().next(), at })
}
