//! Puts, ranges and transactions.
//!
//! Checks: status 0; a put's revision is above that of the worker's last one; a read's is not below; counts are right
//! where they are known.

use crate::keys::{KeyEncoder, Random};
use crate::runner::Workload;
use crate::skim;
use crate::wire::{Conn, Failure, Rpc, frame};
use api::pb::etcdserverpb as pb;
use bytes::Bytes;

/// Keys a page has (`range --paginate`).
const PAGE: i64 = 10_000;

/// Which keys a workload uses.
#[derive(Clone, Copy, Debug)]
pub struct KeySpace {
    pub key_size: usize,
    pub size: u64,
    /// Request i uses key i mod size instead of a random one.
    pub sequential: bool,
    /// Builds keys as etcd's tool does, old bytes in the buffer included ([`KeyEncoder::reusing`]).
    pub as_etcd: bool,
}

impl KeySpace {
    /// Makes this key space's keys.
    pub fn encoder(&self) -> KeyEncoder {
        if self.as_etcd { KeyEncoder::reusing(self.key_size) } else { KeyEncoder::fresh(self.key_size) }
    }

    fn number(&self, sequence: u64, random: &mut Random) -> i64 {
        let number = if self.sequential { sequence % self.size.max(1) } else { random.below(self.size) };
        i64::try_from(number).unwrap_or(i64::MAX)
    }
}

/// What a worker on keys keeps.
#[derive(Debug)]
pub struct KeyWorker {
    random: Random,
    encoder: KeyEncoder,
    revision: i64,
}

impl KeyWorker {
    /// A worker with random numbers of its own.
    pub fn new(id: usize, space: &KeySpace) -> KeyWorker {
        KeyWorker { random: Random::new(id as u64), encoder: space.encoder(), revision: 0 }
    }

    fn key(&mut self, space: &KeySpace, sequence: u64) -> Result<Bytes, Failure> {
        let number = space.number(sequence, &mut self.random);
        self.encode(number)
    }

    fn encode(&mut self, number: i64) -> Result<Bytes, Failure> {
        let key = self
            .encoder
            .key(number)
            .ok_or_else(|| Failure::Wrong(format!("key {number} does not fit the key size")))?;
        Ok(Bytes::copy_from_slice(key))
    }

    fn wrote_at(&mut self, revision: Option<i64>) -> Result<(), Failure> {
        let revision = revision.ok_or_else(malformed)?;
        if revision <= self.revision {
            return Err(Failure::Wrong("a write's revision is not above the last one's".to_owned()));
        }
        self.revision = revision;
        Ok(())
    }

    fn read_at(&mut self, revision: i64) -> Result<(), Failure> {
        if revision < self.revision || revision == 0 {
            return Err(Failure::Wrong("a read's revision went back".to_owned()));
        }
        self.revision = revision;
        Ok(())
    }
}

/// An answer that cannot be read.
pub fn malformed() -> Failure {
    Failure::Wrong("malformed answer".to_owned())
}

/// `put`.
#[derive(Clone, Debug)]
pub struct Put {
    pub space: KeySpace,
    pub value: Bytes,
}

impl Workload for Put {
    type Worker = KeyWorker;

    async fn prepare(&self, id: usize, _conn: &mut Conn) -> Result<KeyWorker, Failure> {
        Ok(KeyWorker::new(id, &self.space))
    }

    async fn once(&self, worker: &mut KeyWorker, conn: &mut Conn, sequence: u64) -> (usize, Result<(), Failure>) {
        (0, self.put(worker, conn, sequence).await)
    }
}

impl Put {
    async fn put(&self, worker: &mut KeyWorker, conn: &mut Conn, sequence: u64) -> Result<(), Failure> {
        let key = worker.key(&self.space, sequence)?;
        let request = pb::PutRequest { key, value: self.value.clone(), ..pb::PutRequest::default() };
        let answer = conn.unary(Rpc::Put, frame(&request)).await?;
        worker.wrote_at(skim::revision(&answer))
    }
}

/// How a range is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RangeMode {
    #[default]
    Unary,
    /// `RangeStream`.
    Stream,
    /// Pages of 10,000 keys at one revision.
    Pages,
}

/// `range`.
#[derive(Clone, Debug)]
pub struct Range {
    /// The whole request; a key is put in where `space` says so.
    pub request: pb::RangeRequest,
    pub mode: RangeMode,
    /// Asks for single keys of a space instead of the request's.
    pub space: Option<KeySpace>,
    /// Pairs that each answer must have.
    pub expected: Option<u64>,
    /// The request, encoded once where it never changes.
    pub framed: Bytes,
}

impl Range {
    /// The same request each time.
    pub fn fixed(request: pb::RangeRequest, mode: RangeMode, expected: Option<u64>) -> Range {
        let framed = frame(&request);
        Range { request, mode, space: None, expected, framed }
    }

    /// Single keys, all of which exist.
    pub fn of_space(space: KeySpace, serializable: bool) -> Range {
        let request = pb::RangeRequest { serializable, ..pb::RangeRequest::default() };
        Range { request, mode: RangeMode::Unary, space: Some(space), expected: Some(1), framed: Bytes::new() }
    }

    fn space(&self) -> KeySpace {
        self.space.unwrap_or(KeySpace { key_size: 8, size: 1, sequential: false, as_etcd: false })
    }

    async fn unary(&self, worker: &mut KeyWorker, conn: &mut Conn, sequence: u64) -> Result<u64, Failure> {
        let framed = match &self.space {
            Some(space) => frame(&pb::RangeRequest { key: worker.key(space, sequence)?, ..self.request.clone() }),
            None => self.framed.clone(),
        };
        let answer = conn.unary(Rpc::Range, framed).await?;
        let seen = skim::range(&answer).ok_or_else(malformed)?;
        worker.read_at(seen.revision)?;
        Ok(seen.kvs)
    }

    async fn streamed(&self, worker: &mut KeyWorker, conn: &mut Conn) -> Result<u64, Failure> {
        let mut call = conn.stream(Rpc::RangeStream).await?;
        call.sender.send(self.framed.clone())?;
        call.sender.finish()?;
        let (mut kvs, mut revision) = (0, 0);
        while let Some(answer) = call.receiver.next().await? {
            let mut part: &[u8] = &[];
            for field in skim::Fields::of(&answer) {
                if let (1, skim::Value::Bytes(bytes)) = field.ok_or_else(malformed)? {
                    part = bytes;
                }
            }
            let seen = skim::range(part).ok_or_else(malformed)?;
            kvs += seen.kvs;
            revision = revision.max(seen.revision);
        }
        worker.read_at(revision)?;
        Ok(kvs)
    }

    async fn pages(&self, worker: &mut KeyWorker, conn: &mut Conn) -> Result<u64, Failure> {
        let mut request = pb::RangeRequest { limit: PAGE, ..self.request.clone() };
        let mut kvs = 0;
        loop {
            let answer = conn.unary(Rpc::Range, frame(&request)).await?;
            let seen = skim::range(&answer).ok_or_else(malformed)?;
            kvs += seen.kvs;
            if request.revision == 0 {
                worker.read_at(seen.revision)?;
                request.revision = seen.revision;
            }
            if !seen.more {
                return Ok(kvs);
            }
            let mut next = seen.last_key.to_vec();
            next.push(0);
            request.key = next.into();
        }
    }

    async fn range(&self, worker: &mut KeyWorker, conn: &mut Conn, sequence: u64) -> Result<(), Failure> {
        let kvs = match self.mode {
            RangeMode::Unary => self.unary(worker, conn, sequence).await?,
            RangeMode::Stream => self.streamed(worker, conn).await?,
            RangeMode::Pages => self.pages(worker, conn).await?,
        };
        match self.expected {
            Some(expected) if expected != kvs => Err(Failure::Wrong(format!("{kvs} pairs instead of {expected}"))),
            _ => Ok(()),
        }
    }
}

impl Workload for Range {
    type Worker = KeyWorker;

    async fn prepare(&self, id: usize, _conn: &mut Conn) -> Result<KeyWorker, Failure> {
        Ok(KeyWorker::new(id, &self.space()))
    }

    async fn once(&self, worker: &mut KeyWorker, conn: &mut Conn, sequence: u64) -> (usize, Result<(), Failure>) {
        (0, self.range(worker, conn, sequence).await)
    }
}

/// `txn-put`: transactions of several puts.
#[derive(Clone, Debug)]
pub struct TxnPut {
    pub space: KeySpace,
    pub value: Bytes,
    pub ops: u64,
}

impl TxnPut {
    async fn txn(&self, worker: &mut KeyWorker, conn: &mut Conn, sequence: u64) -> Result<(), Failure> {
        let mut request = pb::TxnRequest::default();
        for op in 0..self.ops {
            let number = sequence.wrapping_mul(self.ops).wrapping_add(op) % self.space.size.max(1);
            let key = worker.encode(i64::try_from(number).unwrap_or(i64::MAX))?;
            request.success.push(put_op(key, self.value.clone()));
        }
        let answer = conn.unary(Rpc::Txn, frame(&request)).await?;
        let seen = skim::txn(&answer).ok_or_else(malformed)?;
        if !seen.succeeded || seen.answers != self.ops {
            return Err(Failure::Wrong(format!("{} answers instead of {}", seen.answers, self.ops)));
        }
        worker.wrote_at(Some(seen.revision))
    }
}

impl Workload for TxnPut {
    type Worker = KeyWorker;

    async fn prepare(&self, id: usize, _conn: &mut Conn) -> Result<KeyWorker, Failure> {
        Ok(KeyWorker::new(id, &self.space))
    }

    async fn once(&self, worker: &mut KeyWorker, conn: &mut Conn, sequence: u64) -> (usize, Result<(), Failure>) {
        (0, self.txn(worker, conn, sequence).await)
    }
}

/// A put inside a transaction.
pub fn put_op(key: Bytes, value: Bytes) -> pb::RequestOp {
    let put = pb::PutRequest { key, value, ..pb::PutRequest::default() };
    pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
}

/// A range inside a transaction.
pub fn range_op(range: pb::RangeRequest) -> pb::RequestOp {
    pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(range)) }
}

/// `txn-mixed`: one-operation transactions, reads and puts.
#[derive(Clone, Debug)]
pub struct TxnMixed {
    pub space: KeySpace,
    pub value: Bytes,
    pub read: MixedRead,
    /// Reads for each write.
    pub ratio: f64,
}

/// What the reads of [`TxnMixed`] ask for.
#[derive(Clone, Debug)]
pub enum MixedRead {
    /// The same range each time, a whole framed transaction; an answer has as many pairs as its limit, or all.
    Same { framed: Bytes, limit: u64 },
    /// Neighbours in a key space, all of which exist.
    Window(Window),
}

impl MixedRead {
    /// The same range each time.
    pub fn same(range: pb::RangeRequest) -> MixedRead {
        let limit = u64::try_from(range.limit).unwrap_or_default();
        MixedRead::Same { framed: read_txn(range), limit }
    }
}

fn read_txn(range: pb::RangeRequest) -> Bytes {
    frame(&pb::TxnRequest { success: vec![range_op(range)], ..pb::TxnRequest::default() })
}

/// All keys of a space as the server orders them, to ask for some that stand side by side.
///
/// Keys are varints, low bits first: key i + 1 is no neighbour of key i.
#[derive(Clone, Debug)]
pub struct Window {
    /// The keys one behind the other, each of the key size.
    sorted: Bytes,
    key_size: usize,
    keys: usize,
    /// Keys asked for at once.
    width: usize,
}

impl Window {
    /// `width` neighbours of `space`, or all where it has fewer.
    pub fn new(space: &KeySpace, width: usize) -> Window {
        let mut encoder = KeyEncoder::fresh(space.key_size);
        let numbers = 0..i64::try_from(space.size).unwrap_or(i64::MAX);
        let mut keys: Vec<Vec<u8>> = numbers.filter_map(|number| encoder.key(number).map(<[u8]>::to_vec)).collect();
        keys.sort_unstable();
        Window {
            sorted: keys.concat().into(),
            key_size: space.key_size.max(1),
            keys: keys.len(),
            width: width.min(keys.len()),
        }
    }

    /// Where one may begin: below this.
    fn places(&self) -> u64 {
        (self.keys - self.width + 1) as u64
    }

    fn key(&self, place: usize) -> Bytes {
        self.sorted.slice(place * self.key_size..(place + 1) * self.key_size)
    }

    /// The range of the `width` keys from `place` on.
    fn range(&self, place: usize) -> pb::RangeRequest {
        let end = place + self.width;
        // Behind the last key: everything.
        let range_end = if end < self.keys { self.key(end) } else { Bytes::from_static(&[0]) };
        pb::RangeRequest { key: self.key(place), range_end, ..pb::RangeRequest::default() }
    }
}

/// The reports of [`TxnMixed`].
pub const READS: usize = 0;
pub const WRITES: usize = 1;

impl TxnMixed {
    async fn read(&self, worker: &mut KeyWorker, conn: &mut Conn) -> Result<(), Failure> {
        let framed = match &self.read {
            MixedRead::Same { framed, .. } => framed.clone(),
            MixedRead::Window(window) => read_txn(window.range(worker.random.below(window.places()) as usize)),
        };
        let answer = conn.unary(Rpc::Txn, framed).await?;
        let seen = skim::txn(&answer).ok_or_else(malformed)?;
        let range = seen.range.and_then(skim::range).ok_or_else(malformed)?;
        let count = range.count.unsigned_abs();
        let complete = match &self.read {
            MixedRead::Same { limit, .. } => range.kvs == count || (*limit > 0 && range.kvs == *limit),
            MixedRead::Window(window) => range.kvs == window.width as u64 && range.kvs == count,
        };
        if !complete {
            return Err(Failure::Wrong(format!("{} pairs of {count}", range.kvs)));
        }
        worker.read_at(seen.revision)
    }

    async fn write(&self, worker: &mut KeyWorker, conn: &mut Conn, sequence: u64) -> Result<(), Failure> {
        let key = worker.key(&self.space, sequence)?;
        let request = pb::TxnRequest { success: vec![put_op(key, self.value.clone())], ..pb::TxnRequest::default() };
        let answer = conn.unary(Rpc::Txn, frame(&request)).await?;
        worker.wrote_at(skim::revision(&answer))
    }
}

impl Workload for TxnMixed {
    type Worker = KeyWorker;

    fn lanes(&self) -> usize {
        2
    }

    async fn prepare(&self, id: usize, _conn: &mut Conn) -> Result<KeyWorker, Failure> {
        Ok(KeyWorker::new(id, &self.space))
    }

    async fn once(&self, worker: &mut KeyWorker, conn: &mut Conn, sequence: u64) -> (usize, Result<(), Failure>) {
        if worker.random.unit() < self.ratio / (1.0 + self.ratio) {
            (READS, self.read(worker, conn).await)
        } else {
            (WRITES, self.write(worker, conn, sequence).await)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn space(size: u64) -> KeySpace {
        KeySpace { key_size: 4, size, sequential: true, as_etcd: false }
    }

    #[test]
    fn every_window_has_as_many_keys_as_it_says() {
        let mut encoder = space(300).encoder();
        let all: BTreeSet<Bytes> =
            (0..300).filter_map(|number| encoder.key(number).map(Bytes::copy_from_slice)).collect();
        let window = Window::new(&space(300), 10);
        assert_eq!(window.places(), 291);
        for place in 0..291 {
            let range = window.range(place);
            let open_end = range.range_end == [0][..];
            let inside = all.iter().filter(|key| **key >= range.key && (open_end || **key < range.range_end));
            assert_eq!(inside.count(), 10, "at {place}");
        }
    }

    #[test]
    fn a_window_wider_than_its_space_is_the_space() {
        let window = Window::new(&space(3), 10);
        assert_eq!((window.width, window.places()), (3, 1));
        assert_eq!(window.range(0).range_end, [0][..]);
    }
}
