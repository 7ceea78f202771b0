//! What the doors need of the member behind them. The driver (crate `etcd`) implements it; tests have their own.

use crate::metrics::Figures;
use api::pb::etcdserverpb as pb;
use server::{Request, Response};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use store::watch::Burst;
use tokio::sync::{mpsc, oneshot, watch};

/// Who calls, as far as the transport knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Metadata `token`, else `authorization`, without a leading `Bearer `.
    pub token: Option<String>,
    /// The common name of the certificate that the client showed, verified, where certificates stand for users
    /// (`--client-cert-auth`). Not of calls that come through the gateway: those show the gateway's own.
    pub common_name: Option<String>,
    /// The client's deadline (`grpc-timeout`), measured from arrival.
    pub timeout: Option<std::time::Duration>,
}

/// The answer of a unary call; a dropped sender means that the member stopped.
pub type Answer = oneshot::Receiver<Result<Response, api::Error>>;

/// Messages of a stream that ends by itself: `Ok(None)` is its end, an error ends it too. A channel that closes before
/// either was given up.
pub type Pieces<T> = mpsc::Receiver<Result<Option<T>, api::Error>>;

/// A watch stream: requests in, responses out. Dropping either end closes the stream at the member.
pub struct WatchStream {
    /// Bounded: the transport stops reading from the client while it is full.
    pub requests: mpsc::Sender<pb::WatchRequest>,
    /// In order; ends when the member stops.
    pub responses: mpsc::Receiver<Told>,
    /// How many responses the transport has taken since the member looked last.
    pub taken: Arc<AtomicUsize>,
}

/// What a watch stream is told.
#[derive(Debug)]
pub enum Told {
    Response(pb::WatchResponse),
    /// As many as it has watchers.
    Burst(Burst),
}

/// The member, as seen by the services.
pub trait Member: Send + Sync + 'static {
    /// Unary calls, and each message of a keepalive stream.
    fn call(&self, caller: Caller, request: Request) -> Answer;
    /// KV.RangeStream: chunks.
    fn range_stream(&self, caller: Caller, request: pb::RangeRequest) -> Pieces<pb::RangeStreamResponse>;
    /// Maintenance.Snapshot: image chunks, then the digest; headers absent.
    fn snapshot(&self, caller: Caller) -> Pieces<pb::SnapshotResponse>;
    fn watch(&self, caller: Caller) -> WatchStream;
    /// `true` while a leader is known; changes are seen by waiting on it.
    fn leader_known(&self) -> watch::Receiver<bool>;
    /// Health of service "": SERVING or not.
    fn serving(&self) -> watch::Receiver<bool>;
    /// Whether the member is a learner: it serves little (semantics.md 11.9).
    fn is_learner(&self) -> bool;
    /// Whether users have to say who they are.
    fn is_auth_enabled(&self) -> bool;
    /// Cluster version and storage version, as `GET /version` shows them.
    fn versions(&self) -> (String, String);
    /// Alarms that are raised, in the newest state.
    fn alarms(&self) -> Vec<pb::AlarmMember>;
    /// A read of the member's own, as root: that it is answered says that the member is well.
    fn probe(&self, serializable: bool) -> Answer;
    /// Levels for metrics, as of now.
    fn figures(&self) -> Figures;
    /// Cluster id, member id: for headers that the transport itself has to fill.
    fn identity(&self) -> (u64, u64);
}
