//! Reads that never go back in time (clientv3 `ordering`): a serializable read may be answered by a member that lags, so an
//! answer older than one that was seen before is asked for again, of another member.

use crate::call::Client;
use crate::error::Error;
use api::pb::etcdserverpb as pb;
use pb::request_op::Request;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Each endpoint is asked so often before it is believed that none is new enough (clientv3's
/// `NewOrderViolationSwitchEndpointClosure`, which counts over all calls; here each call begins anew).
const ROUNDS_MAX: usize = 5;

/// A client whose reads have revisions that never fall. Clones share what they saw.
#[derive(Clone, Debug)]
pub struct Ordered {
    client: Client,
    seen: Seen,
}

/// The newest revision that was seen.
#[derive(Clone, Debug, Default)]
struct Seen(Arc<AtomicI64>);

impl Seen {
    /// Whether an answer is as new as all that were there when its request was sent.
    fn admits(&self, before: i64, header: Option<&pb::ResponseHeader>) -> bool {
        let revision = header.map_or(0, |header| header.revision);
        self.0.fetch_max(revision, Ordering::AcqRel);
        revision >= before
    }

    fn now(&self) -> i64 {
        self.0.load(Ordering::Acquire)
    }
}

impl Client {
    /// The same client, whose reads never go back.
    pub fn ordered(&self) -> Ordered {
        Ordered { client: self.clone(), seen: Seen::default() }
    }
}

impl Ordered {
    /// The same with another client of the same cluster, such as one with another token.
    pub fn with(&self, client: Client) -> Ordered {
        Ordered { client, seen: self.seen.clone() }
    }

    /// Reads keys, as they were at the newest revision seen so far or later.
    ///
    /// # Errors
    /// The server's, that the deadline passed, or that no member is as new as what was seen.
    pub async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Error> {
        let before = self.seen.now();
        for _ in 0..self.attempts() {
            let response = self.client.range(request.clone()).await?;
            if self.seen.admits(before, response.header.as_ref()) {
                return Ok(response);
            }
        }
        Err(Error::NoGreaterRevision)
    }

    /// Compares, then does one list of requests or the other. A transaction that writes is never sent twice: its revision is
    /// the newest there is.
    ///
    /// # Errors
    /// The server's, that the deadline passed, or that no member is as new as what was seen.
    pub async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Error> {
        let before = self.seen.now();
        for _ in 0..self.attempts() {
            let response = self.client.txn(request.clone()).await?;
            if self.seen.admits(before, response.header.as_ref()) || writes(&request) {
                return Ok(response);
            }
        }
        Err(Error::NoGreaterRevision)
    }

    fn attempts(&self) -> usize {
        self.client.endpoints().len().saturating_mul(ROUNDS_MAX).saturating_add(1)
    }
}

/// Whether a transaction may have changed something.
fn writes(request: &pb::TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).any(|operation| match &operation.request {
        Some(Request::RequestRange(_)) | None => false,
        Some(Request::RequestTxn(txn)) => writes(txn),
        Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_what_was_seen_before_is_not_taken() {
        let seen = Seen::default();
        let header = |revision| pb::ResponseHeader { revision, ..Default::default() };
        let take = |revision| seen.admits(seen.now(), Some(&header(revision)));
        assert_eq!([5, 5, 4, 7, 6, 7].map(take), [true, true, false, true, false, true]);
        // A request that was sent before the newer answer came may have the older one.
        assert!(seen.admits(3, Some(&header(4))));
    }
}
