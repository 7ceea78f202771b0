//! What the transport needs of the member it belongs to, and the values that pass between them.

use api::raft::Message;
use bytes::Bytes;
use std::io;
use tokio::sync::oneshot;

/// An answer to come; a dropped sender means that the member stopped.
pub type Awaited<T> = oneshot::Receiver<T>;

/// Who this member is to its peers. Fixed for the life of the transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub member: u64,
    pub cluster: u64,
    /// Advertised peer URLs: peers that don't know this member yet answer there.
    pub urls: Vec<String>,
}

/// A member as `/members` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberInfo {
    pub id: u64,
    pub peer_urls: Vec<String>,
    pub is_learner: bool,
    /// Empty until the member has started.
    pub name: String,
    pub client_urls: Vec<String>,
}

/// The hash of the keyspace up to a revision (`/members/hashkv`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HashKv {
    /// The member's present revision.
    pub revision: i64,
    pub hash: u32,
    /// −1 when nothing was compacted.
    pub compact_revision: i64,
    pub hash_revision: i64,
}

/// A lease as its primary lessor knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Seconds left and granted.
    pub ttl: i64,
    pub granted_ttl: i64,
    /// Empty unless asked for.
    pub keys: Vec<Bytes>,
}

/// Why a forwarded lease request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseRefusal {
    NotFound,
    /// This member does not lead.
    NotPrimary,
    /// It stopped leading while it looked.
    Demoted,
    /// What is committed was not applied within a second.
    NotCaughtUp,
    Other(String),
}

/// The member, as its transport sees it.
///
/// Everything here is called on the peer thread, or within a call of [`Transport`](super::Transport), and **must not
/// block**: it enqueues, or looks at published values. [`ImageSink`]s are the exception, they have threads for it.
pub trait Local: Send + Sync + 'static {
    /// Asked once, at start.
    fn identity(&self) -> Identity;

    /// A message that came over a stream. `false`: there was no room, it is dropped, raft sends again.
    fn receive(&self, message: Message) -> bool;

    /// A message that came by POST, whose sender waits until raft has taken it. An error's text goes into the log, and for
    /// snapshots to the sender.
    fn process(&self, message: Message) -> Awaited<Result<(), String>>;

    /// A message to `id` was lost.
    fn report_unreachable(&self, id: u64);

    /// What became of a snapshot to `id`.
    fn report_snapshot(&self, id: u64, arrived: bool);

    /// Whether `id` was a member once and is no longer. Asked for every message: a look-up, not a search.
    /// It must never be true of an id that is just not known yet: the answer makes that process shut down.
    fn removed(&self, id: u64) -> bool;

    /// A peer says that this member was removed from the cluster for good. Called once; the member has to stop.
    fn was_removed(&self);

    /// Sorted by id.
    fn members(&self) -> Vec<MemberInfo>;

    /// Cluster version and storage version as `/version` shows them.
    fn versions(&self) -> (String, String);

    /// Makes a learner a voter; `token` is the client's, for the permission check. Answers all members.
    fn promote(&self, id: u64, token: Option<String>) -> Awaited<Result<Vec<MemberInfo>, api::Error>>;

    /// The hash at `revision`, zero being the present one.
    fn hash_kv(&self, revision: i64) -> Awaited<Result<HashKv, api::Error>>;

    /// Renews a lease once what is committed is applied; answers its TTL in seconds.
    fn renew_lease(&self, id: i64) -> Awaited<Result<i64, LeaseRefusal>>;

    /// Looks a lease up once what is committed is applied.
    fn lease_time_to_live(&self, id: i64, keys: bool) -> Awaited<Result<LeaseInfo, LeaseRefusal>>;

    /// Whether a downgrade is under way, after a linearizable read. An error's text goes to the caller.
    fn downgrade_enabled(&self) -> Awaited<Result<bool, String>>;

    /// Opens a place for the database image that belongs to a MsgSnap. Called on a thread that may block.
    ///
    /// # Errors
    /// The image can't be stored; its sender is told the text.
    fn receive_image(&self, message: &Message) -> io::Result<Box<dyn ImageSink>>;
}

/// Takes a database image as it arrives: a temporary file at the member. Used on a thread that may block.
pub trait ImageSink: Send {
    /// Appends.
    ///
    /// # Errors
    /// The image is abandoned, its sender told.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// All of it is there: make it durable under its final name. Only then raft gets the message.
    ///
    /// # Errors
    /// The sender is told; raft gets no message.
    fn finish(self: Box<Self>) -> io::Result<()>;

    /// The rest never came.
    fn abandon(self: Box<Self>);
}

/// A database image to be sent. It is dropped when the sending has ended, well or not, on a thread that may block.
#[expect(clippy::len_without_is_empty, reason = "an image has pages")]
pub trait Image: Send + Sync + 'static {
    /// Bytes; does not change.
    fn len(&self) -> u64;

    /// Fills `buffer` from `offset`, both within [`len`](Self::len). Called on a thread that may block.
    ///
    /// # Errors
    /// The sending ends, and is reported as failed.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}
