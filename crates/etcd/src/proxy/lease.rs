//! Keepalives through the proxy: the streams of all clients become one to the cluster, and requests for a lease that is
//! being renewed already are answered with that renewal.
//!
//! Unlike etcd's proxy ours never renews on its own: a lease lives as long as its clients say, not one TTL longer.

use api::pb::etcdserverpb as pb;
use client::{Client, Method};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

const KEEP_ALIVE: Method = Method { path: "/etcdserverpb.Lease/LeaseKeepAlive", repeatable: true };
/// Renewals that wait to be sent.
const REQUESTS_MAX: usize = 256;
/// Answers that wait for a client; it is not read from while there are more.
const ANSWERS_MAX: usize = 64;
const ENDED: &str = "the stream of renewals to the cluster ended";

/// Renews leases for all clients.
#[derive(Debug)]
pub struct Renewals {
    client: Client,
    /// One for each kind of caller; gone when none of its clients is left.
    shared: Mutex<HashMap<Terms, Weak<Shared>>>,
}

/// Who asks, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Terms {
    pub token: Option<String>,
    pub leader_required: bool,
}

/// A stream to the cluster and those who use it.
#[derive(Debug)]
struct Shared {
    client: Client,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// `None`: the stream is to be opened.
    out: Option<mpsc::Sender<pb::LeaseKeepAliveRequest>>,
    /// Which stream that is: one that ended takes nothing from its successor.
    opened: u64,
    waiting: HashMap<i64, Vec<oneshot::Sender<Outcome>>>,
}

type Outcome = Result<pb::LeaseKeepAliveResponse, Status>;

impl Renewals {
    /// Renewals of the cluster that `client` asks.
    pub fn new(client: Client) -> Arc<Renewals> {
        Arc::new(Renewals { client, shared: Mutex::default() })
    }

    fn shared(&self, terms: &Terms) -> Arc<Shared> {
        let mut all = self.shared.lock();
        all.retain(|_, shared| shared.strong_count() > 0);
        if let Some(shared) = all.get(terms).and_then(Weak::upgrade) {
            return shared;
        }
        let client = self.client.with_token(terms.token.clone());
        let client = if terms.leader_required { client.with_leader_required() } else { client };
        let shared = Arc::new(Shared { client, state: Mutex::default() });
        all.insert(terms.clone(), Arc::downgrade(&shared));
        shared
    }

    /// Serves a client's stream: answers come in the order of the requests.
    pub fn serve(
        &self,
        terms: &Terms,
        mut requests: tonic::Streaming<pb::LeaseKeepAliveRequest>,
    ) -> ReceiverStream<Outcome> {
        let (out, answers) = mpsc::channel(ANSWERS_MAX);
        let shared = self.shared(terms);
        tokio::spawn(async move {
            // A client that goes away ends it, also while nothing comes from it.
            let (queue, queued) = mpsc::channel(ANSWERS_MAX);
            let take = async move {
                while let Some(Ok(request)) = requests.next().await {
                    if queue.send(shared.renew(request.id).await).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                ((), ()) = async { tokio::join!(take, give(queued, &out)) } => {}
                () = out.closed() => {}
            }
        });
        ReceiverStream::new(answers)
    }
}

/// Sends answers, in the order in which they were asked for, up to the first failure.
async fn give(mut queued: mpsc::Receiver<oneshot::Receiver<Outcome>>, out: &mpsc::Sender<Outcome>) {
    while let Some(answer) = queued.recv().await {
        let outcome = answer.await.unwrap_or_else(|_| Err(Status::unavailable(ENDED)));
        let is_over = outcome.is_err();
        if out.send(outcome).await.is_err() || is_over {
            return;
        }
    }
}

impl Shared {
    /// Asks for a renewal; the answer comes when it comes.
    async fn renew(self: &Arc<Self>, lease: i64) -> oneshot::Receiver<Outcome> {
        let (answer, answered) = oneshot::channel();
        let send_to = {
            let mut state = self.state.lock();
            let waiting = state.waiting.entry(lease).or_default();
            waiting.push(answer);
            match waiting.len() {
                1 => Some(self.stream(&mut state)),
                // It is asked about already.
                _ => None,
            }
        };
        if let Some(out) = send_to
            && out.send(pb::LeaseKeepAliveRequest { id: lease }).await.is_err()
        {
            // The stream has ended, and told everybody who waited; somebody who came later is told now.
            self.state.lock().waiting.remove(&lease);
        }
        answered
    }

    fn stream(self: &Arc<Self>, state: &mut State) -> mpsc::Sender<pb::LeaseKeepAliveRequest> {
        if let Some(out) = state.out.clone().filter(|out| !out.is_closed()) {
            return out;
        }
        let (out, requests) = mpsc::channel(REQUESTS_MAX);
        state.out = Some(out.clone());
        state.opened += 1;
        tokio::spawn(Shared::run(Arc::downgrade(self), self.client.clone(), state.opened, requests));
        out
    }

    /// Takes the cluster's answers until the stream ends, or nobody uses it any more.
    async fn run(
        shared: Weak<Shared>,
        client: Client,
        number: u64,
        requests: mpsc::Receiver<pb::LeaseKeepAliveRequest>,
    ) {
        let opened = client.stream::<_, pb::LeaseKeepAliveResponse>(KEEP_ALIVE, ReceiverStream::new(requests)).await;
        let status = match opened {
            Err(e) => Status::from(e),
            Ok(mut stream) => loop {
                match stream.next().await {
                    Ok(Some(response)) => match shared.upgrade() {
                        Some(shared) => shared.tell(response),
                        None => return,
                    },
                    Ok(None) => break Status::unavailable(ENDED),
                    Err(e) => break Status::from(e),
                }
            },
        };
        if let Some(shared) = shared.upgrade() {
            shared.end(number, &status);
        }
    }

    fn tell(&self, response: pb::LeaseKeepAliveResponse) {
        let waiting = self.state.lock().waiting.remove(&response.id).unwrap_or_default();
        for answer in waiting {
            // Who has gone does not want to know.
            drop(answer.send(Ok(response)));
        }
    }

    fn end(&self, number: u64, status: &Status) {
        let mut state = self.state.lock();
        if state.opened != number {
            return;
        }
        state.out = None;
        for answer in std::mem::take(&mut state.waiting).into_values().flatten() {
            drop(answer.send(Err(status.clone())));
        }
    }
}
