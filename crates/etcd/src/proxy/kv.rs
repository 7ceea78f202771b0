//! Keys through the proxy: the namespace, the order of reads, answers that are kept, and keys that are leased.

use super::cache::Cache;
use super::call::Asked;
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use client::{Client, Leasing, Namespace, Ordered};
use pb::request_op::Request;
use rpc::metrics;
use tonic::Status;

/// The service KV.
#[derive(Debug)]
pub struct Kv {
    client: Client,
    pub namespace: Option<Namespace>,
    /// `--experimental-serializable-ordering`.
    ordered: Option<Ordered>,
    /// `--experimental-leasing-prefix`.
    leasing: Option<Leasing>,
    cache: Cache,
}

impl Kv {
    pub fn new(client: Client, namespace: Option<Namespace>, is_ordered: bool, leasing: Option<Leasing>) -> Kv {
        let ordered = is_ordered.then(|| client.ordered());
        Kv { client, namespace, ordered, leasing, cache: Cache::default() }
    }

    /// Whether answers may be kept for others: of somebody who shows no token, and where nothing may be older than what was
    /// read before.
    fn is_kept(&self, asked: &Asked) -> bool {
        asked.token.is_none() && self.ordered.is_none()
    }

    pub async fn range(&self, asked: Asked, request: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        let is_kept = self.is_kept(&asked);
        if request.serializable && is_kept {
            let found = self.cache.find(&request).map_err(|e| {
                metrics::PROXY_HITS.add(1);
                Status::from(client::Error::of(&e))
            })?;
            if let Some(response) = found {
                metrics::PROXY_HITS.add(1);
                return Ok(response);
            }
            metrics::PROXY_MISSES.add(1);
        }
        let reading = self.cache.reading();
        let mut inner = request.clone();
        if let Some(namespace) = &self.namespace {
            namespace.range(&mut inner)?;
        }
        let client = asked.speaker(&self.client);
        let mut response = match (&self.leasing, &self.ordered) {
            // What is leased is the newest there is.
            (Some(leasing), _) if !inner.serializable => leasing.with(client).range(inner).await?,
            (_, Some(ordered)) => ordered.with(client).range(inner).await?,
            (Some(leasing), None) => leasing.with(client).range(inner).await?,
            (None, None) => client.range(inner).await?,
        };
        if let Some(namespace) = &self.namespace {
            namespace.ranged(&mut response);
        }
        if is_kept {
            reading.keep(&request, &response);
        }
        drop(reading);
        self.count();
        Ok(response)
    }

    pub async fn put(&self, asked: Asked, mut request: pb::PutRequest) -> Result<pb::PutResponse, Status> {
        let written = Written::of(self, vec![(request.key.clone(), Bytes::new())]);
        if let Some(namespace) = &self.namespace {
            namespace.put(&mut request)?;
        }
        let client = asked.speaker(&self.client);
        let mut response = match &self.leasing {
            Some(leasing) => leasing.with(client).put(request).await?,
            None => client.put(request).await?,
        };
        if let Some(namespace) = &self.namespace {
            namespace.put_done(&mut response);
        }
        drop(written);
        Ok(response)
    }

    pub async fn delete_range(
        &self,
        asked: Asked,
        mut request: pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, Status> {
        let written = Written::of(self, vec![(request.key.clone(), request.range_end.clone())]);
        if let Some(namespace) = &self.namespace {
            namespace.delete_range(&mut request)?;
        }
        let client = asked.speaker(&self.client);
        let mut response = match &self.leasing {
            Some(leasing) => leasing.with(client).delete_range(request).await?,
            None => client.delete_range(request).await?,
        };
        if let Some(namespace) = &self.namespace {
            namespace.deleted(&mut response);
        }
        drop(written);
        Ok(response)
    }

    pub async fn txn(&self, asked: Asked, mut request: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
        let mut ranges = Vec::new();
        collect_written(&request, &mut ranges);
        let written = Written::of(self, ranges);
        if let Some(namespace) = &self.namespace {
            namespace.txn(&mut request)?;
        }
        let client = asked.speaker(&self.client);
        let mut response = match (&self.leasing, &self.ordered) {
            (Some(leasing), _) => leasing.with(client).txn(request).await?,
            (None, Some(ordered)) => ordered.with(client).txn(request).await?,
            (None, None) => client.txn(request).await?,
        };
        if let Some(namespace) = &self.namespace {
            namespace.txn_done(&mut response);
        }
        drop(written);
        Ok(response)
    }

    pub async fn compact(
        &self,
        asked: Asked,
        request: pb::CompactionRequest,
    ) -> Result<pb::CompactionResponse, Status> {
        let revision = request.revision;
        let response = asked.speaker(&self.client).compact(request).await?;
        self.cache.compact(revision);
        Ok(response)
    }

    fn count(&self) {
        metrics::PROXY_KEYS.set(i64::try_from(self.cache.len()).unwrap_or(i64::MAX));
    }
}

/// Ranges that are written: what is kept of them ends before the write is sent, and, whatever became of it, after it.
struct Written<'a> {
    kv: &'a Kv,
    ranges: Vec<(Bytes, Bytes)>,
}

impl Written<'_> {
    fn of(kv: &Kv, ranges: Vec<(Bytes, Bytes)>) -> Written<'_> {
        let written = Written { kv, ranges };
        written.invalidate();
        written
    }

    fn invalidate(&self) {
        self.ranges.iter().for_each(|(key, end)| self.kv.cache.invalidate(key, end));
        self.kv.count();
    }
}

impl Drop for Written<'_> {
    fn drop(&mut self) {
        self.invalidate();
    }
}

/// All that a transaction may write; and what it compares, for who compares knows better than we do (as in etcd).
fn collect_written(txn: &pb::TxnRequest, ranges: &mut Vec<(Bytes, Bytes)>) {
    ranges.extend(txn.compare.iter().map(|compare| (compare.key.clone(), compare.range_end.clone())));
    for operation in txn.success.iter().chain(&txn.failure) {
        match &operation.request {
            Some(Request::RequestPut(put)) => ranges.push((put.key.clone(), Bytes::new())),
            Some(Request::RequestDeleteRange(delete)) => ranges.push((delete.key.clone(), delete.range_end.clone())),
            Some(Request::RequestTxn(txn)) => collect_written(txn, ranges),
            Some(Request::RequestRange(_)) | None => {}
        }
    }
}
