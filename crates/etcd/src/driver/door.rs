//! The member as the doors see it.

use super::auth::{self, Judged};
use super::post::{self, Home};
use super::readers::Readers;
use super::{Inbox, Shared, Ticket, core, hub};
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use crossbeam_channel::TrySendError;
use rpc::metrics::Figures;
use rpc::peer::{Transport, Url};
use rpc::{Answer, Caller, Pieces, WatchStream};
use server::{Request, Response, Who};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{mpsc, oneshot, watch};

/// Chunks of a RangeStream that may wait for the transport; each has about `--max-request-bytes`.
const CHUNKS: usize = 4;
/// … and pieces of a database snapshot, of 32 KiB.
const IMAGE_PIECES: usize = 32;

/// Hands requests of one network thread to the core's.
#[derive(Clone)]
pub struct Door {
    pub inbox: Inbox,
    pub streams: hub::Streams,
    pub readers: Readers,
    pub shared: Arc<Shared>,
    pub transport: Transport,
    pub identity: (u64, u64),
    /// Whose calls these are.
    pub home: Home,
}

impl Door {
    fn send(&self, message: core::Message) {
        match self.inbox.try_send(message) {
            Ok(()) => {}
            Err(TrySendError::Full(message)) => refuse(message, api::Error::RequestTooManyRequests),
            Err(TrySendError::Disconnected(message)) => refuse(message, api::Error::Stopped),
        }
    }

    /// Finds out who calls, which may take until this member has caught up, and then lets him in.
    fn admit(&self, caller: Caller, ticket: Ticket, request: Request) {
        match self.shared.auth.judge(&caller, &self.shared.applied.load()) {
            Judged::Known(who) => self.take(ticket, who, request),
            Judged::Early => {
                let door = self.clone();
                tokio::spawn(async move {
                    let who = door.shared.auth.judge_patiently(&caller, || door.shared.applied.load_full()).await;
                    door.take(ticket, who, request);
                });
            }
        }
    }

    fn take(&self, ticket: Ticket, who: Who, request: Request) {
        match request {
            // Whatever the newest state says is right: no need to wait for the core, and so for the log.
            Request::Range(range) if range.serializable && matches!(ticket, Ticket::Unary { .. }) => {
                match store::validate::check_range(&range) {
                    Ok(()) => post::run(&self.shared, &self.readers, ticket, who, Request::Range(range)),
                    Err(e) => ticket.answer(Err(e)),
                }
            }
            Request::UserAdd(_) | Request::UserChangePassword(_) => self.hash(ticket, who, request),
            request => match with_sorted_urls(request) {
                Ok(request) => self.send(core::Message::Call { ticket, who, request }),
                Err(e) => ticket.answer(Err(e)),
            },
        }
    }

    /// Hashes the password in the request, if there is one, before it goes on.
    fn hash(&self, ticket: Ticket, who: Who, request: Request) {
        let Some(password) = auth::new_password(&request).map(str::to_owned) else {
            return self.send(core::Message::Call { ticket, who, request: auth::with_hash(request, None) });
        };
        let door = self.clone();
        tokio::spawn(async move {
            match door.shared.auth.passwords.hash(password).await {
                Ok(hashed) => {
                    let request = auth::with_hash(request, Some(hashed));
                    door.send(core::Message::Call { ticket, who, request });
                }
                Err(e) => ticket.answer(Err(e)),
            }
        });
    }

    /// Asks the core.
    pub async fn ask(&self, who: Who, request: Request) -> Result<Response, api::Error> {
        let (out, answer) = oneshot::channel();
        let ticket = Ticket::Unary { out, home: self.home };
        self.send(core::Message::Call { ticket, who, request });
        answer.await.unwrap_or(Err(api::Error::Stopped))
    }

    fn log_in(&self, request: pb::AuthenticateRequest) -> Answer {
        let (mut out, answer) = oneshot::channel();
        let door = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                outcome = auth::login(&door, request) => drop(out.send(outcome)),
                // Nobody waits any longer.
                () = out.closed() => {}
            }
        });
        answer
    }
}

pub fn refuse(message: core::Message, e: api::Error) {
    if let core::Message::Call { ticket, .. } = message {
        ticket.answer(Err(e));
    }
}

impl rpc::Member for Door {
    fn call(&self, caller: Caller, request: Request) -> Answer {
        if let Request::Authenticate(request) = request {
            return self.log_in(request);
        }
        let (out, answer) = oneshot::channel();
        self.admit(caller, Ticket::Unary { out, home: self.home }, request);
        answer
    }

    fn range_stream(&self, caller: Caller, request: pb::RangeRequest) -> Pieces<pb::RangeStreamResponse> {
        let (out, chunks) = mpsc::channel(CHUNKS);
        self.admit(caller, Ticket::Chunks(out), Request::Range(request));
        chunks
    }

    fn snapshot(&self, caller: Caller) -> Pieces<pb::SnapshotResponse> {
        let (out, image) = mpsc::channel(IMAGE_PIECES);
        self.admit(caller, Ticket::Image(out), Request::Snapshot(pb::SnapshotRequest {}));
        image
    }

    fn watch(&self, caller: Caller) -> WatchStream {
        self.streams.open(&tokio::runtime::Handle::current(), caller, self.shared.clone())
    }

    fn leader_known(&self) -> watch::Receiver<bool> {
        self.shared.leader.subscribe()
    }

    fn serving(&self) -> watch::Receiver<bool> {
        self.shared.healthy.subscribe()
    }

    fn is_auth_enabled(&self) -> bool {
        self.shared.applied.load().auth().is_enabled()
    }

    fn is_learner(&self) -> bool {
        failpoint::point!("afterIsMemberExist");
        self.shared.learner.load(Ordering::Relaxed)
    }

    fn versions(&self) -> (String, String) {
        versions(&self.shared)
    }

    fn alarms(&self) -> Vec<pb::AlarmMember> {
        self.shared.applied.load().alarms()
    }

    fn probe(&self, serializable: bool) -> Answer {
        let (out, answer) = oneshot::channel();
        // Any key will do.
        let range = pb::RangeRequest {
            key: Bytes::from_static(b"\0"),
            limit: 1,
            keys_only: true,
            serializable,
            ..Default::default()
        };
        self.take(Ticket::Unary { out, home: self.home }, Who::Member, Request::Range(range));
        answer
    }

    fn figures(&self) -> Figures {
        let applied = self.shared.applied.load();
        let standing = self.shared.standing.lock().clone();
        // Subtree counts make it cheap, however many there are.
        let all = pb::RangeRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            count_only: true,
            ..Default::default()
        };
        let alarms = applied.alarms().into_iter();
        Figures {
            cluster_version: applied.cluster_version().map(str::to_owned),
            auth_revision: applied.auth().revision(),
            is_learner: self.shared.learner.load(Ordering::Relaxed),
            quota: self.shared.quota,
            db_size: standing.db_size,
            db_in_use: standing.db_in_use,
            features: self.shared.features.clone(),
            alarms: alarms.map(|alarm| (alarm.member_id, alarm.alarm().as_str_name())).collect(),
            revision: applied.revision(),
            compact_revision: applied.compact_revision(),
            keys: applied.range(&all).map_or(0, |counted| counted.count),
            pending: standing.pending as u64,
            raft: standing.raft,
            peers: self.transport.metrics(),
            members: applied.members().into_iter().map(|member| member.id).collect(),
            tls: self.shared.credentials.figures(),
        }
    }

    fn identity(&self) -> (u64, u64) {
        self.identity
    }
}

/// Peer URLs that a member can be reached at, in the order that etcd keeps them.
fn with_sorted_urls(mut request: Request) -> Result<Request, api::Error> {
    if let Request::MemberAdd(pb::MemberAddRequest { peer_ur_ls: urls, .. })
    | Request::MemberUpdate(pb::MemberUpdateRequest { peer_ur_ls: urls, .. }) = &mut request
    {
        Url::parse_list(urls.iter().map(String::as_str)).map_err(|_| api::Error::MemberBadURLs)?;
        urls.sort();
    }
    Ok(request)
}

/// Cluster and storage version as `GET /version` shows them.
pub fn versions(shared: &Shared) -> (String, String) {
    let applied = shared.applied.load();
    let shown = |version: Option<&str>, unknown: &str| version.unwrap_or(unknown).to_owned();
    (shown(applied.cluster_version(), "not_decided"), shown(applied.storage_version(), "unknown"))
}
