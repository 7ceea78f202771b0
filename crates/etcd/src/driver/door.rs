//! The member as the doors see it.

use super::post::{self, Home};
use super::readers::Readers;
use super::{Inbox, Shared, Ticket, core, hub};
use api::pb::etcdserverpb as pb;
use crossbeam_channel::TrySendError;
use rpc::{Answer, Caller, Pieces, WatchStream};
use server::Request;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// Chunks of a RangeStream that may wait for the transport; each has about `--max-request-bytes`.
const CHUNKS: usize = 4;
/// … and pieces of a database snapshot, of 32 KiB.
const IMAGE_PIECES: usize = 32;

/// Hands requests of one network thread to the core's.
pub struct Door {
    pub inbox: Inbox,
    pub streams: hub::Streams,
    pub readers: Readers,
    pub shared: Arc<Shared>,
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
}

fn refuse(message: core::Message, e: api::Error) {
    if let core::Message::Call { ticket, .. } | core::Message::Snapshot { ticket } = message {
        ticket.answer(Err(e));
    }
}

impl rpc::Member for Door {
    fn call(&self, _caller: Caller, request: Request) -> Answer {
        let (out, answer) = oneshot::channel();
        let ticket = Ticket::Unary { out, home: self.home };
        match request {
            // Whatever the newest state says is right: no need to wait for the core, and so for the log.
            Request::Range(range) if range.serializable => match store::validate::check_range(&range) {
                Ok(()) => post::run(&self.shared, &self.readers, ticket, Request::Range(range)),
                Err(e) => ticket.answer(Err(e)),
            },
            request => self.send(core::Message::Call { ticket, request }),
        }
        answer
    }

    fn range_stream(&self, _caller: Caller, request: pb::RangeRequest) -> Pieces<pb::RangeStreamResponse> {
        let (out, chunks) = mpsc::channel(CHUNKS);
        self.send(core::Message::Call { ticket: Ticket::Chunks(out), request: Request::Range(request) });
        chunks
    }

    fn snapshot(&self, _caller: Caller) -> Pieces<pb::SnapshotResponse> {
        let (out, image) = mpsc::channel(IMAGE_PIECES);
        self.send(core::Message::Snapshot { ticket: Ticket::Image(out) });
        image
    }

    fn watch(&self, _caller: Caller) -> WatchStream {
        self.streams.open(&tokio::runtime::Handle::current())
    }

    fn leader_known(&self) -> watch::Receiver<bool> {
        self.shared.leader.subscribe()
    }

    fn serving(&self) -> watch::Receiver<bool> {
        self.shared.healthy.subscribe()
    }

    fn versions(&self) -> (String, String) {
        let applied = self.shared.applied.load();
        let shown = |version: Option<&str>, unknown: &str| version.unwrap_or(unknown).to_owned();
        (shown(applied.cluster_version(), "not_decided"), shown(applied.storage_version(), "unknown"))
    }

    fn identity(&self) -> (u64, u64) {
        self.identity
    }
}
