//! Keeping a lease alive: one stream, one renewal each third of the TTL, opened anew when the connection breaks.

use crate::call::{Client, Method, Stream};
use crate::error::Error;
use api::pb::etcdserverpb as pb;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

const METHOD: Method = Method { path: "/etcdserverpb.Lease/LeaseKeepAlive", repeatable: true };
/// Wait before a broken stream is opened anew (clientv3 `retryConnWait`).
const RECONNECT_WAIT: Duration = Duration::from_millis(500);

impl Client {
    /// Renews a lease once. Answers TTL 0 when there is no such lease.
    ///
    /// # Errors
    /// The server's, or that the deadline passed.
    pub async fn keep_alive_once(&self, lease: i64) -> Result<pb::LeaseKeepAliveResponse, Error> {
        loop {
            let request = pb::LeaseKeepAliveRequest { id: lease };
            let outcome = async {
                let mut stream = self.server_stream::<_, pb::LeaseKeepAliveResponse>(METHOD, request).await?;
                stream.next().await
            };
            match outcome.await {
                Ok(Some(response)) => return Ok(response),
                Ok(None) => {}
                Err(e) if e.code() != Some(Code::Unavailable) => return Err(e),
                Err(_) => {}
            }
            tokio::time::sleep(RECONNECT_WAIT).await;
        }
    }

    /// Renews a lease for as long as the answer is asked for replies.
    pub fn keep_alive(&self, lease: i64) -> KeepAlive {
        KeepAlive { client: self.clone(), lease, open: None, next: None, lives_until: None }
    }
}

/// Renewals of one lease.
#[derive(Debug)]
pub struct KeepAlive {
    client: Client,
    lease: i64,
    open: Option<(mpsc::Sender<pb::LeaseKeepAliveRequest>, Stream<pb::LeaseKeepAliveResponse>)>,
    /// When to renew.
    next: Option<Instant>,
    /// The lease surely lives until then.
    lives_until: Option<Instant>,
}

impl KeepAlive {
    /// Waits until the next renewal is due, renews, and answers; `None` when the lease is gone.
    ///
    /// # Errors
    /// What the server refuses with, other than that it can't be reached.
    pub async fn next(&mut self) -> Result<Option<pb::LeaseKeepAliveResponse>, Error> {
        if let Some(at) = self.next {
            tokio::time::sleep_until(at).await;
        }
        loop {
            // The server counts from later on.
            let sent = Instant::now();
            match self.renew().await {
                Ok(Some(response)) if response.ttl <= 0 => return Ok(None),
                Ok(Some(response)) => {
                    let ttl = Duration::from_secs(response.ttl.unsigned_abs());
                    self.next = Some(Instant::now() + ttl / 3);
                    self.lives_until = Some(sent + ttl);
                    return Ok(Some(response));
                }
                Ok(None) => self.open = None,
                Err(e) if e.code() == Some(Code::Unavailable) => self.open = None,
                Err(e) => return Err(e),
            }
            if self.lives_until.is_some_and(|at| at <= Instant::now()) {
                return Ok(None);
            }
            tokio::time::sleep(RECONNECT_WAIT).await;
        }
    }

    /// Until when the lease surely lives, as far as its last renewal says; `None` before the first.
    pub fn lives_until(&self) -> Option<Instant> {
        self.lives_until
    }

    async fn renew(&mut self) -> Result<Option<pb::LeaseKeepAliveResponse>, Error> {
        let request = pb::LeaseKeepAliveRequest { id: self.lease };
        if let Some((sender, stream)) = &mut self.open {
            return match sender.send(request).await {
                Ok(()) => stream.next().await,
                Err(_) => Ok(None),
            };
        }
        let (sender, receiver) = mpsc::channel(1);
        // The channel is empty: there is room for the first request.
        let _ = sender.try_send(request);
        let mut stream = self.client.stream(METHOD, ReceiverStream::new(receiver)).await?;
        let response = stream.next().await?;
        self.open = Some((sender, stream));
        Ok(response)
    }
}
