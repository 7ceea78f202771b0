//! Writes below the guard, and transactions: those that only look at what is owned ask nobody.

use super::owned::{Known, Owned};
use super::{Leasing, Writing, answer, is_kept};
use crate::error::Error;
use api::pb::etcdserverpb as pb;
use api::recipes::{created_before, op};
use bytes::Bytes;
use pb::compare::{CompareResult, TargetUnion};
use pb::request_op::Request as Op;
use pb::response_op::Response as Done;
use std::cmp::Ordering;

/// Keys, and ranges of keys, that requests may write.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub keys: Vec<Bytes>,
    pub ranges: Vec<(Bytes, Bytes)>,
}

impl Written {
    fn collect(&mut self, operations: &[pb::RequestOp]) {
        for operation in operations {
            match &operation.request {
                Some(Op::RequestPut(put)) => self.keys.push(put.key.clone()),
                Some(Op::RequestDeleteRange(delete)) if delete.range_end.is_empty() => {
                    self.keys.push(delete.key.clone());
                }
                Some(Op::RequestDeleteRange(delete)) => {
                    self.ranges.push((delete.key.clone(), delete.range_end.clone()));
                }
                Some(Op::RequestTxn(txn)) => {
                    self.collect(&txn.success);
                    self.collect(&txn.failure);
                }
                Some(Op::RequestRange(_)) | None => {}
            }
        }
    }

    fn of(request: &pb::TxnRequest) -> Written {
        let mut written = Written::default();
        written.collect(&request.success);
        written.collect(&request.failure);
        written.keys.sort();
        written.keys.dedup();
        written
    }

    fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.ranges.is_empty()
    }
}

type Responses = (Option<pb::ResponseHeader>, Vec<pb::ResponseOp>);

impl Leasing {
    /// Compares, then does one list of requests or the other. One that reads only, and only what is owned, asks nobody.
    ///
    /// # Errors
    /// The server's, or that the deadline passed, be it while another owner has a key.
    pub async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Error> {
        if let Some(response) = self.evaluated(&request) {
            return Ok(response);
        }
        let written = Written::of(&request);
        if written.is_empty() {
            return self.client.txn(request).await;
        }
        let (header, mut responses) = self.write(&written, vec![op(Op::RequestTxn(request))], None).await?;
        match responses.drain(..).next().and_then(|response| response.response) {
            Some(Done::ResponseTxn(txn)) => Ok(pb::TxnResponse { header, ..txn }),
            _ => Err(super::unexpected()),
        }
    }

    fn evaluated(&self, request: &pb::TxnRequest) -> Option<pb::TxnResponse> {
        let mut owned = self.shared.owned.lock();
        self.own_lease()?;
        evaluate(&mut owned, request)
    }

    /// Has requests done, once nobody else owns what they write. `reads`: the key that the second one reads.
    pub(super) async fn write(
        &self,
        written: &Written,
        requests: Vec<pb::RequestOp>,
        reads: Option<&Bytes>,
    ) -> Result<Responses, Error> {
        loop {
            let mut compare = Vec::new();
            for (key, end) in &written.ranges {
                compare.push(self.guard_range(key, end).await?);
            }
            let ticket = self.shared.owned.lock().begin_write(&written.keys, &written.ranges);
            let writing = Writing { leasing: self, ticket: Some(ticket) };
            compare.extend(written.keys.iter().map(|key| self.guard(key)));
            let failure = written.keys.iter().map(|key| self.owner_of(key)).collect();
            let request = pb::TxnRequest { compare, success: requests.clone(), failure };
            let done = self.client.txn(request).await?;
            let known = reads.filter(|_| done.succeeded).and_then(|key| Some((key, second(&done)?)));
            writing.end(known);
            if done.succeeded {
                return Ok((done.header, done.responses));
            }
            self.ask_owners(done).await?;
        }
    }

    /// A read of who owns a key.
    fn owner_of(&self, key: &Bytes) -> pb::RequestOp {
        let key = self.shared.names.leasing_key(key);
        op(Op::RequestRange(pb::RangeRequest { key, ..Default::default() }))
    }

    /// Has owners give their keys back, those that the failed transaction has read.
    async fn ask_owners(&self, done: pb::TxnResponse) -> Result<(), Error> {
        for response in done.responses {
            if let Some(Done::ResponseRange(range)) = response.response {
                self.ask_all_back(&range).await?;
            }
        }
        Ok(())
    }

    /// Has others give their keys back, and ourselves those that we don't know to be ours. Answers the newest leasing key's
    /// revision of those that stay.
    async fn ask_all_back(&self, range: &pb::RangeResponse) -> Result<i64, Error> {
        let mut newest = 0;
        for kv in &range.kvs {
            let key = self.shared.names.key_of(&kv.key).unwrap_or_default();
            if self.lease() == Some(kv.lease) && self.shared.owned.lock().revision(&key) >= kv.create_revision {
                newest = newest.max(kv.create_revision);
                continue;
            }
            self.ask_back(&kv.key, kv.create_revision).await?;
        }
        Ok(newest)
    }

    /// Has others give all keys of a range back. Answers the guard that nobody owns one newly.
    async fn guard_range(&self, key: &Bytes, end: &Bytes) -> Result<pb::Compare, Error> {
        let (first, end) = self.shared.names.range(key, end);
        let (key, range_end) = (first.clone(), end.clone());
        let request = pb::RangeRequest { key, range_end, keys_only: true, ..Default::default() };
        let newest = self.ask_all_back(&self.client.range(request).await?).await?;
        Ok(pb::Compare { range_end: end, ..created_before(&first, newest + 1) })
    }
}

/// What the second request has read.
fn second(done: &pb::TxnResponse) -> Option<Known> {
    let Some(Done::ResponseRange(range)) = done.responses.get(1)?.response.as_ref() else { return None };
    Some(Known { header: done.header?, kv: range.kvs.first().cloned() })
}

/// The answer to a transaction that only looks at what is known; `None`: the server has to be asked.
fn evaluate(owned: &mut Owned, request: &pb::TxnRequest) -> Option<pb::TxnResponse> {
    let mut header = pb::ResponseHeader::default();
    let mut newest = |known: &Known| {
        if known.header.revision >= header.revision {
            header = known.header;
        }
    };
    let mut succeeded = true;
    for compare in &request.compare {
        if !compare.range_end.is_empty() {
            return None;
        }
        let known = owned.known(&compare.key)?;
        newest(known);
        succeeded &= holds(known, compare)?;
    }
    let operations = if succeeded { &request.success } else { &request.failure };
    let mut responses = Vec::with_capacity(operations.len());
    for operation in operations {
        let Some(Op::RequestRange(get)) = &operation.request else { return None };
        if !is_kept(get) {
            return None;
        }
        let known = owned.known(&get.key)?;
        newest(known);
        // As in etcd, answers within a transaction have no header of their own.
        let range = pb::RangeResponse { header: None, ..answer(known, get) };
        responses.push(pb::ResponseOp { response: Some(Done::ResponseRange(range)) });
    }
    // One that looks at nothing has no revision to tell.
    (header.revision > 0).then_some(pb::TxnResponse { header: Some(header), succeeded, responses })
}

/// Whether a comparison holds, by the rules of etcd's `applyCompare`; `None`: it is of a kind that only the server knows.
fn holds(known: &Known, compare: &pb::Compare) -> Option<bool> {
    let kv = known.kv.as_ref();
    let number = |of: fn(&api::pb::mvccpb::KeyValue) -> i64, with: &i64| kv.map_or(0, of).cmp(with);
    let order = match compare.target_union.as_ref()? {
        // A key that is not there has no value, not even an empty one.
        TargetUnion::Value(value) => match kv {
            Some(kv) => kv.value.as_ref().cmp(value.as_ref()),
            None => return Some(false),
        },
        TargetUnion::CreateRevision(with) => number(|kv| kv.create_revision, with),
        TargetUnion::ModRevision(with) => number(|kv| kv.mod_revision, with),
        TargetUnion::Version(with) => number(|kv| kv.version, with),
        TargetUnion::Lease(with) => number(|kv| kv.lease, with),
    };
    Some(match CompareResult::try_from(compare.result).ok()? {
        CompareResult::Equal => order == Ordering::Equal,
        CompareResult::NotEqual => order != Ordering::Equal,
        CompareResult::Greater => order == Ordering::Greater,
        CompareResult::Less => order == Ordering::Less,
    })
}

#[cfg(test)]
mod tests {
    use super::super::Limits;
    use super::*;
    use api::pb::mvccpb::KeyValue;
    use api::recipes::{created_is, modified_is};
    use tokio::time::Instant;

    fn knowing() -> Owned {
        let mut owned = Owned::new(Limits::default());
        let kv =
            KeyValue { key: "a".into(), value: "v".into(), create_revision: 3, mod_revision: 5, version: 2, lease: 0 };
        for (key, revision, kv) in [("a", 6, Some(kv)), ("none", 7, None)] {
            let ticket = owned.begin_read(&key.into(), Instant::now()).unwrap();
            let header = pb::ResponseHeader { revision, ..Default::default() };
            owned.end_read(ticket, Some(Known { header, kv }));
        }
        owned
    }

    fn get(key: &'static str) -> pb::RequestOp {
        op(Op::RequestRange(pb::RangeRequest { key: key.into(), ..Default::default() }))
    }

    #[test]
    fn what_is_known_is_compared_and_read() {
        let txn = pb::TxnRequest {
            compare: vec![modified_is(&"a".into(), 5), created_is(&"none".into(), 0)],
            success: vec![get("a"), get("none")],
            failure: vec![get("unknown")],
        };
        let done = evaluate(&mut knowing(), &txn).unwrap();
        assert!(done.succeeded);
        assert_eq!(done.header.unwrap().revision, 7);
        assert_eq!(done.responses.len(), 2);
        let other = pb::TxnRequest { compare: vec![modified_is(&"a".into(), 4)], ..txn.clone() };
        assert!(evaluate(&mut knowing(), &other).is_none(), "the branch taken reads what is not known");
        let put = op(Op::RequestPut(pb::PutRequest { key: "a".into(), ..Default::default() }));
        let writes = pb::TxnRequest { success: vec![get("a"), put], ..txn.clone() };
        assert!(evaluate(&mut knowing(), &writes).is_none());
        assert!(evaluate(&mut knowing(), &pb::TxnRequest::default()).is_none());
    }

    #[test]
    fn comparisons_are_etcds() {
        let owned = &mut knowing();
        let value = |key: &'static str, result, value: &'static str| pb::Compare {
            key: key.into(),
            result: result as i32,
            target_union: Some(TargetUnion::Value(value.into())),
            ..Default::default()
        };
        for (compare, expected) in [
            (value("a", CompareResult::Equal, "v"), true),
            (value("a", CompareResult::Less, "w"), true),
            (value("a", CompareResult::Greater, "v"), false),
            // etcd: a key that is not there is not even different.
            (value("none", CompareResult::NotEqual, "v"), false),
            (created_is(&"none".into(), 0), true),
            (modified_is(&"a".into(), 0), false),
        ] {
            let known = owned.known(&compare.key).unwrap();
            assert_eq!(holds(known, &compare), Some(expected), "{compare:?}");
        }
    }

    #[test]
    fn all_that_may_be_written_is_found() {
        let put = |key: &'static str| op(Op::RequestPut(pb::PutRequest { key: key.into(), ..Default::default() }));
        let delete = |key: &'static str, end: &'static str| {
            op(Op::RequestDeleteRange(pb::DeleteRangeRequest {
                key: key.into(),
                range_end: end.into(),
                ..Default::default()
            }))
        };
        let inner = pb::TxnRequest { failure: vec![put("b"), delete("c", "")], ..Default::default() };
        let txn = pb::TxnRequest {
            success: vec![put("a"), get("z"), put("b")],
            failure: vec![op(Op::RequestTxn(inner)), delete("d", "e")],
            ..Default::default()
        };
        let written = Written::of(&txn);
        assert_eq!(written.keys, ["a", "b", "c"]);
        assert_eq!(written.ranges, [("d".into(), "e".into())]);
    }
}
