//! Peers: what the transport brings to the core, and what it asks of the member.

use super::core::Message as ToCore;
use super::image::{ForPeer, Outgoing};
use super::readers::{Job, Readers};
use super::{Inbox, Shared, Ticket};
use crate::config::Url;
use api::pb::etcdserverpb as pb;
use api::raft::{Message, MessageType};
use crossbeam_channel::{Receiver, Sender, unbounded};
use rpc::Caller;
use rpc::peer::{Awaited, HashKv, Identity, ImageSink, LeaseInfo, LeaseRefusal, Local, MemberInfo, Transport};
use server::member::{Outcome, image_name};
use server::{Request, Response, Who};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;
use store::Applied;
use tokio::sync::oneshot;

/// Messages that may wait for the core; beyond it they are dropped, and raft sends again.
const MESSAGES_MAX: usize = 8192;

/// What peers and the transport have for the core.
#[derive(Debug)]
pub enum Input {
    Message(Message),
    /// Its sender waits until raft has it.
    Process {
        message: Message,
        taken: oneshot::Sender<Result<(), String>>,
    },
    Unreachable(u64),
    Snapshot {
        to: u64,
        arrived: bool,
    },
    /// Peers say that this member was removed.
    Removed,
}

/// The transport's end. It has a queue of its own, so that clients, however many, do not keep heartbeats waiting.
#[derive(Clone)]
pub struct Door {
    inputs: Sender<Input>,
    /// Messages in the queue; reports are few, and come on top.
    waiting: Arc<AtomicUsize>,
    /// The core was told to look.
    told: Arc<AtomicBool>,
    inbox: Inbox,
    shared: Arc<Shared>,
    readers: Readers,
    identity: Identity,
    snap_dir: PathBuf,
}

/// The core's end.
pub struct Peers {
    inputs: Receiver<Input>,
    waiting: Arc<AtomicUsize>,
    told: Arc<AtomicBool>,
    transport: Option<Transport>,
    shared: Arc<Shared>,
    own: u64,
    /// Who the transport talks to, and where.
    known: BTreeMap<u64, Vec<String>>,
}

/// Both ends; the transport comes when there is one.
pub fn channel(
    inbox: Inbox,
    shared: Arc<Shared>,
    readers: Readers,
    identity: Identity,
    snap_dir: PathBuf,
) -> (Door, Peers) {
    let (sender, inputs) = unbounded();
    let (waiting, told) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let own = identity.member;
    let door = Door {
        inputs: sender,
        waiting: waiting.clone(),
        told: told.clone(),
        inbox,
        shared: shared.clone(),
        readers,
        identity,
        snap_dir,
    };
    (door, Peers { inputs, waiting, told, transport: None, shared, own, known: BTreeMap::new() })
}

impl Peers {
    /// Begins to talk to the members there are.
    pub fn attach(&mut self, transport: Transport, applied: &Applied) {
        self.transport = Some(transport);
        self.follow(applied);
    }

    /// Whether there is more than the last look took.
    pub fn are_waiting(&self) -> bool {
        !self.inputs.is_empty()
    }

    /// Everything that came since the last look.
    pub fn take(&self) -> impl Iterator<Item = Input> {
        self.told.store(false, Ordering::SeqCst);
        self.inputs.try_iter().inspect(|input| {
            if let Input::Message(_) | Input::Process { .. } = input {
                self.waiting.fetch_sub(1, Ordering::Relaxed);
            }
        })
    }

    /// Sends what is to be sent.
    pub fn send(&self, messages: Vec<Message>) {
        if let Some(transport) = self.transport.as_ref().filter(|_| !messages.is_empty()) {
            transport.send(messages);
        }
    }

    /// Sends a snapshot with the image of `applied`, which was made for it.
    pub fn send_snapshot(&self, message: Message, applied: &Applied) {
        if let Some(transport) = &self.transport {
            let image = Outgoing::new(applied.image(), self.shared.images.clone());
            transport.send_snapshot(message, Arc::new(ForPeer::new(image, self.shared.clone())));
        }
    }

    /// Talks to whoever is a member now, and to nobody else.
    pub fn follow(&mut self, applied: &Applied) {
        let Some(transport) = &self.transport else { return };
        let members = applied.members().into_iter().filter(|m| m.id != self.own);
        let now: BTreeMap<u64, Vec<String>> = members.map(|m| (m.id, m.peer_ur_ls)).collect();
        for id in self.known.keys().filter(|id| !now.contains_key(id)) {
            transport.remove_peer(*id);
        }
        for (id, urls) in &now {
            let outcome = match self.known.get(id) {
                None => transport.add_peer(*id, urls),
                Some(before) if before != urls => transport.update_peer(*id, urls),
                Some(_) => Ok(()),
            };
            if let Err(e) = outcome {
                tracing::error!(
                    "member-id" = format!("{id:x}"),
                    error = e,
                    "cannot talk to a member: update its peer URLs"
                );
            }
        }
        self.known = now;
    }

    /// Since when each connected peer is connected, on the driver's clock.
    pub fn active_since_ms(&self, now_ms: u64) -> BTreeMap<u64, u64> {
        let Some(transport) = &self.transport else { return BTreeMap::new() };
        let now = Instant::now();
        let since = |id: &u64| {
            let elapsed = now.saturating_duration_since(transport.active_since(*id)?).as_millis();
            Some((*id, now_ms.saturating_sub(u64::try_from(elapsed).unwrap_or(u64::MAX))))
        };
        self.known.keys().filter_map(since).collect()
    }

    /// Ends the transport.
    pub fn stop(&self) {
        if let Some(transport) = &self.transport {
            transport.stop();
        }
    }
}

impl Door {
    fn tell(&self, input: Input) -> bool {
        let sent = self.inputs.send(input).is_ok();
        // A full inbox will be looked at soon, and the core looks here first.
        if !self.told.swap(true, Ordering::SeqCst) {
            drop(self.inbox.try_send(ToCore::Peers));
        }
        sent
    }

    fn has_room(&self) -> bool {
        let room = self.waiting.fetch_add(1, Ordering::Relaxed) < MESSAGES_MAX;
        if !room {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        room
    }

    /// Whether this is a snapshot whose database was not received before it: to install it would end this member.
    fn lacks_image(&self, message: &Message) -> bool {
        let index = message.snapshot.as_ref().map_or(0, |snapshot| snapshot.metadata.index);
        let lacks = message.kind == MessageType::MsgSnap && !self.snap_dir.join(image_name(index)).exists();
        if lacks {
            tracing::warn!("from" = format!("{:x}", message.from), index, "dropped a snapshot without its database");
        }
        lacks
    }

    /// Asks the core; `answer` makes of its outcome what the asker is told.
    fn ask<T: Send + 'static>(
        &self,
        request: Request,
        answer: impl FnOnce(Outcome) -> T + Send + 'static,
    ) -> Awaited<T> {
        self.ask_as(Who::Member, request, answer)
    }

    fn ask_as<T: Send + 'static>(
        &self,
        who: Who,
        request: Request,
        answer: impl FnOnce(Outcome) -> T + Send + 'static,
    ) -> Awaited<T> {
        let (out, awaited) = oneshot::channel();
        // An asker that went away is fine.
        let ticket = Ticket::then(move |outcome| drop(out.send(answer(outcome))));
        match self.inbox.try_send(ToCore::Call { ticket, who, request }) {
            Ok(()) => {}
            Err(e) => super::door::refuse(e.into_inner(), api::Error::RequestTooManyRequests),
        }
        awaited
    }
}

fn lease_refusal(e: &api::Error) -> LeaseRefusal {
    match e {
        api::Error::LeaseNotFound => LeaseRefusal::NotFound,
        api::Error::NoLeader | api::Error::NotLeader => LeaseRefusal::NotPrimary,
        other => LeaseRefusal::Other(other.to_string()),
    }
}

fn infos(members: Vec<pb::Member>) -> Vec<MemberInfo> {
    let info = |m: pb::Member| MemberInfo {
        id: m.id,
        peer_urls: m.peer_ur_ls,
        is_learner: m.is_learner,
        name: m.name,
        client_urls: m.client_ur_ls,
    };
    members.into_iter().map(info).collect()
}

fn unexpected(response: &Response) -> api::Error {
    api::Error::Other(format!("not the answer to this: {response:?}").into())
}

impl Local for Door {
    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    fn receive(&self, message: Message) -> bool {
        !self.lacks_image(&message) && self.has_room() && self.tell(Input::Message(message))
    }

    fn process(&self, message: Message) -> Awaited<Result<(), String>> {
        let (taken, awaited) = oneshot::channel();
        if self.lacks_image(&message) {
            drop(taken.send(Err("a snapshot comes with its database, to /raft/snapshot".into())));
        } else if self.has_room() {
            self.tell(Input::Process { message, taken });
        } else {
            drop(taken.send(Err("too many messages wait".into())));
        }
        awaited
    }

    fn report_unreachable(&self, id: u64) {
        self.tell(Input::Unreachable(id));
    }

    fn report_snapshot(&self, id: u64, arrived: bool) {
        self.tell(Input::Snapshot { to: id, arrived });
    }

    fn removed(&self, id: u64) -> bool {
        self.shared.applied.load().is_removed(id)
    }

    fn was_removed(&self) {
        self.tell(Input::Removed);
    }

    fn members(&self) -> Vec<MemberInfo> {
        infos(self.shared.applied.load().members())
    }

    fn versions(&self) -> (String, String) {
        super::door::versions(&self.shared)
    }

    /// For a client of another member, with the credentials that he showed there.
    fn promote(&self, id: u64, token: Option<String>) -> Awaited<Result<Vec<MemberInfo>, api::Error>> {
        let caller = Caller { token: token.as_deref().map(rpc::bare_token), ..Caller::default() };
        let who = self.shared.auth.judge_now(&caller, &self.shared.applied.load());
        self.ask_as(who, Request::MemberPromote(pb::MemberPromoteRequest { id }), |outcome| match outcome? {
            Response::MemberPromote(r) => Ok(infos(r.members)),
            other => Err(unexpected(&other)),
        })
    }

    fn hash_kv(&self, revision: i64) -> Awaited<Result<HashKv, api::Error>> {
        let (out, awaited) = oneshot::channel();
        let ticket = Ticket::then(move |outcome: Outcome| {
            let answer = outcome.and_then(|response| match response {
                Response::HashKv(r) => Ok(HashKv {
                    revision: r.header.map_or(0, |header| header.revision),
                    hash: r.hash,
                    compact_revision: r.compact_revision,
                    hash_revision: r.hash_revision,
                }),
                other => Err(unexpected(&other)),
            });
            drop(out.send(answer));
        });
        let request = Request::HashKv(pb::HashKvRequest { revision });
        self.readers.run(Job::Read { ticket, who: Who::Member, request });
        awaited
    }

    fn renew_lease(&self, id: i64) -> Awaited<Result<i64, LeaseRefusal>> {
        failpoint::point!("beforeServeHTTPLeaseRenew");
        self.ask(Request::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id }), |outcome| match outcome {
            Ok(Response::LeaseKeepAlive(r)) if r.ttl > 0 => Ok(r.ttl),
            Ok(Response::LeaseKeepAlive(_)) => Err(LeaseRefusal::NotFound),
            Ok(other) => Err(lease_refusal(&unexpected(&other))),
            Err(e) => Err(lease_refusal(&e)),
        })
    }

    fn lease_time_to_live(&self, id: i64, keys: bool) -> Awaited<Result<LeaseInfo, LeaseRefusal>> {
        failpoint::point!("beforeLookupWhenForwardLeaseTimeToLive");
        self.ask(Request::LeaseTimeToLive(pb::LeaseTimeToLiveRequest { id, keys }), |outcome| match outcome {
            Ok(Response::LeaseTimeToLive(r)) if r.ttl >= 0 => {
                Ok(LeaseInfo { ttl: r.ttl, granted_ttl: r.granted_ttl, keys: r.keys })
            }
            Ok(Response::LeaseTimeToLive(_)) => Err(LeaseRefusal::NotFound),
            Ok(other) => Err(lease_refusal(&unexpected(&other))),
            Err(e) => Err(lease_refusal(&e)),
        })
    }

    fn downgrade_enabled(&self) -> Awaited<Result<bool, String>> {
        let shared = self.shared.clone();
        self.ask(Request::MemberList(pb::MemberListRequest { linearizable: true }), move |outcome| match outcome {
            Ok(_) => Ok(shared.applied.load().downgrade().enabled),
            Err(e) => Err(e.to_string()),
        })
    }

    fn receive_image(&self, message: &Message) -> io::Result<Box<dyn ImageSink>> {
        let snapshot = message.snapshot.as_ref().ok_or_else(|| io::Error::other("no snapshot in the message"))?;
        let path = self.snap_dir.join(image_name(snapshot.metadata.index));
        // Removed at the next start if it is left behind.
        let temporary = self.snap_dir.join(format!("tmp.{}.{:x}", snapshot.metadata.index, message.from));
        let file = File::create(&temporary)?;
        Ok(Box::new(ImageFile { file, temporary, path }))
    }
}

/// A leader's database on its way in.
struct ImageFile {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
}

impl ImageSink for ImageFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.temporary, &self.path)?;
        File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()
    }

    fn abandon(self: Box<Self>) {
        if let Err(e) = std::fs::remove_file(&self.temporary) {
            tracing::warn!(error = %e, path = %self.temporary.display(), "cannot remove a half-received database");
        }
    }
}

/// The URLs as the transport wants them.
pub fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(Url::to_string).collect()
}
