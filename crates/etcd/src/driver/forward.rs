//! What is asked of other members' peer ports: what only the leader can answer, on behalf of this member's clients (etcd
//! `LeaseRenew`, `LeaseTimeToLive`, `PromoteMember`), and versions.
//!
//! A lease's clock is its primary lessor's, the leader's; how far a learner is behind only the leader knows. So these go to
//! the leader's peer port, again and again until it answers or the time is over: leaders change.

use super::core::Message;
use super::{Inbox, Shared, Ticket, spawn};
use api::pb::etcdserverpb as pb;
use rpc::peer::{self, Asker, Connector, MemberInfo, Unanswered, Url};
use server::member::Outcome;
use server::{Fatal, Request, Response, Who, access};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Requests on their way to the leader; beyond it clients are told that there are too many.
const WAITING_MAX: usize = 4096;
/// Between two attempts.
const PACE: Duration = Duration::from_millis(50);

#[derive(Debug)]
enum Job {
    /// A request for the leader, and who waits for its answer.
    Leader { ticket: Ticket, who: Who, request: Request },
    /// All other members' versions, for the core.
    Versions(Inbox),
}

/// The way to the leader.
#[derive(Clone)]
pub struct Forwarder {
    jobs: mpsc::UnboundedSender<Job>,
    waiting: Arc<AtomicUsize>,
}

impl Forwarder {
    /// Starts the thread. `limit`: how long a request may take (etcd `ReqTimeout`).
    ///
    /// # Errors
    /// The operating system gave no thread.
    pub fn start(shared: Arc<Shared>, connector: Arc<dyn Connector>, limit: Duration) -> Result<Forwarder, Fatal> {
        let (jobs, mut queue) = mpsc::unbounded_channel::<Job>();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Fatal::new(format!("cannot start the forwarder: {e}")))?;
        let waiting = Arc::<AtomicUsize>::default();
        let (count, asker) = (waiting.clone(), asker(connector));
        spawn("forwarder", move || {
            runtime.block_on(async move {
                while let Some(job) = queue.recv().await {
                    tokio::spawn(work(job, shared.clone(), asker.clone(), limit, count.clone()));
                }
            });
        })?;
        Ok(Forwarder { jobs, waiting })
    }

    /// Asks the leader.
    pub fn run(&self, ticket: Ticket, who: Who, request: Request) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return ticket.answer(Err(api::Error::RequestTooManyRequests));
        }
        // The thread lives as long as the process.
        drop(self.jobs.send(Job::Leader { ticket, who, request }));
    }

    /// Asks all other members for their versions; the core asks every 4 s at most.
    pub fn ask_versions(&self, core: Inbox) {
        drop(self.jobs.send(Job::Versions(core)));
    }
}

async fn work(job: Job, shared: Arc<Shared>, asker: Asker, limit: Duration, waiting: Arc<AtomicUsize>) {
    match job {
        Job::Leader { ticket, who, request } => {
            let before = shared.applied.load_full();
            let outcome = timeout(limit, ask(&shared, &asker, &who, &request)).await;
            let (revision, now) = (before.auth().revision(), shared.applied.load());
            let checked = |response: Response| {
                access::check_forwarded(&who, &request, &response, revision, &now).map(|()| response)
            };
            let outcome = outcome.map(|outcome| outcome.and_then(checked));
            let late = match shared.leader_id.load(Ordering::Relaxed) {
                0 => api::Error::NoLeader,
                _ => api::Error::Timeout,
            };
            ticket.answer(outcome.unwrap_or(Err(late)));
            waiting.fetch_sub(1, Ordering::Relaxed);
        }
        Job::Versions(core) => {
            let versions = versions(&shared, &asker).await;
            // An inbox that is full has other worries; the core asks again.
            drop(core.try_send(Message::Versions(versions)));
        }
    }
}

fn asker(connector: Arc<dyn Connector>) -> Asker {
    // One attempt is over well before all are.
    let (dial_timeout, timeout) = (Duration::from_secs(1), Duration::from_secs(2));
    Asker { connector, dial_timeout, timeout }
}

/// Each member's server version; of itself, too, which is no news.
async fn versions(shared: &Shared, asker: &Asker) -> BTreeMap<u64, Option<String>> {
    let mut asking = JoinSet::new();
    for member in shared.applied.load().members() {
        let asker = asker.clone();
        asking.spawn(async move {
            let urls = Url::parse_list(member.peer_ur_ls.iter().map(String::as_str)).unwrap_or_default();
            for url in urls {
                if let Ok(versions) = peer::versions(&asker, &url).await {
                    return (member.id, Some(versions.server));
                }
            }
            (member.id, None)
        });
    }
    asking.join_all().await.into_iter().collect()
}

/// Asks until somebody answers; whoever calls sets the limit.
async fn ask(shared: &Shared, asker: &Asker, who: &Who, request: &Request) -> Outcome {
    loop {
        for url in leader_urls(shared) {
            match ask_once(shared, asker, &url, who, request).await {
                Ok(response) => return Ok(response),
                Err(Unanswered::Refused(e)) => return Err(e),
                Err(Unanswered::Failed(why)) => tracing::debug!(error = why, "the leader gave no answer"),
            }
        }
        sleep(PACE).await;
    }
}

fn leader_urls(shared: &Shared) -> Vec<Url> {
    let leader = shared.leader_id.load(Ordering::Relaxed);
    let members = shared.applied.load().members();
    let urls = members.iter().find(|m| m.id == leader).map(|m| m.peer_ur_ls.clone()).unwrap_or_default();
    Url::parse_list(urls.iter().map(String::as_str)).unwrap_or_default()
}

async fn ask_once(
    shared: &Shared,
    asker: &Asker,
    url: &Url,
    who: &Who,
    request: &Request,
) -> Result<Response, Unanswered> {
    let header = || Some(shared.applied.load().header());
    match request {
        Request::LeaseKeepAlive(r) => {
            let ttl = match peer::renew_lease(asker, url, r.id).await {
                // As the leader's own answer: a lease that is gone has no time left.
                Err(Unanswered::Refused(api::Error::LeaseNotFound)) => 0,
                other => other?,
            };
            Ok(Response::LeaseKeepAlive(pb::LeaseKeepAliveResponse { header: header(), id: r.id, ttl }))
        }
        Request::LeaseTimeToLive(r) => {
            let gone = pb::LeaseTimeToLiveResponse { header: header(), id: r.id, ttl: -1, ..Default::default() };
            match peer::lease_time_to_live(asker, url, r.id, r.keys).await {
                Ok(lease) => Ok(Response::LeaseTimeToLive(pb::LeaseTimeToLiveResponse {
                    ttl: lease.ttl,
                    granted_ttl: lease.granted_ttl,
                    keys: lease.keys,
                    ..gone
                })),
                Err(Unanswered::Refused(api::Error::LeaseNotFound)) => Ok(Response::LeaseTimeToLive(gone)),
                Err(e) => Err(e),
            }
        }
        Request::MemberPromote(r) => {
            let members = peer::promote(asker, url, r.id, who.token()).await?.into_iter().map(member).collect();
            let header = header().map(|header| pb::ResponseHeader { revision: 0, ..header });
            Ok(Response::MemberPromote(pb::MemberPromoteResponse { header, members }))
        }
        other => Err(Unanswered::Failed(format!("not for the leader alone: {other:?}"))),
    }
}

fn member(info: MemberInfo) -> pb::Member {
    pb::Member {
        id: info.id,
        name: info.name,
        peer_ur_ls: info.peer_urls,
        client_ur_ls: info.client_urls,
        is_learner: info.is_learner,
    }
}
