//! Stream writers: the peer's GET is the connection, its response's body carries our messages (rafthttp `streamWriter`).
//!
//! ```text
//!            attach (a GET)                     the connection ends, or another one is attached
//!  nobody ─────────────────► attached ──────────────────────────────► nobody / the other one
//!                            queue ─► encoder ─► body                 (what is queued is lost: unreachable)
//!                              │ close (the peer is removed)
//!                              └─► the rest of the queue, then the end
//! ```
//! Invariants:
//! * The encoder lives and dies with the connection, so that a new one begins with a whole message.
//! * While attached, something is written every 5/3 s at least: the peer closes a stream that is silent for 5 s.
//! * A peer that is removed still gets what was sent before: among it is the commit index by which it learns that it is
//!   removed, and by which it answers the client who asked it to remove itself.
//! * Bytes leave when the queue is empty, after 2048 messages, or with 64 KiB: the body then says that it has no more.

use super::check::hex;
use super::codec::{self, AppEncoder};
use super::io::IO_TIMEOUT;
use super::link::Link;
use api::raft::Message;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};

/// Messages that wait for the connection. Full: the message is dropped and reported (etcd `streamBufSize`).
pub(crate) const QUEUE: usize = 4096;
/// Messages in one write (etcd flushes after more than `streamBufSize/2`).
const BATCH: usize = QUEUE / 2;
/// Bytes after which a write is begun.
const WRITE: usize = 64 << 10;
/// Between link heartbeats (etcd `ConnReadTimeout / 3`): by the shortest timeout there is, since the peer may have another
/// than ours.
const HEARTBEAT: Duration = Duration::from_millis(IO_TIMEOUT.as_millis() as u64 / 3);

/// The two streams to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// MsgApp only, msgappv2 framing.
    App,
    /// Everything else.
    Message,
}

impl Kind {
    pub const ALL: [Kind; 2] = [Kind::App, Kind::Message];

    /// The path, without the caller's id.
    pub fn path(self) -> &'static str {
        match self {
            Kind::App => "/raft/stream/msgapp",
            Kind::Message => "/raft/stream/message",
        }
    }

    /// As etcd's log has it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::App => "stream MsgApp v2",
            Kind::Message => "stream Message",
        }
    }
}

/// What becomes of a message that is handed to a queue.
#[expect(clippy::large_enum_variant, reason = "the message goes on at once")]
pub(crate) enum Offered {
    Queued,
    /// No connection: try another way.
    Nobody(Message),
    Full,
}

/// The writing end of one stream.
#[derive(Default)]
pub(crate) struct Writer(Mutex<Attached>);

#[derive(Default)]
struct Attached {
    /// Counts attachments: an older connection can't detach a newer one.
    generation: u64,
    queue: Option<mpsc::Sender<Message>>,
}

impl Writer {
    pub fn offer(&self, message: Message) -> Offered {
        use mpsc::error::TrySendError;
        match &self.0.lock().queue {
            None => Offered::Nobody(message),
            Some(queue) => match queue.try_send(message) {
                Ok(()) => Offered::Queued,
                Err(TrySendError::Full(_)) => Offered::Full,
                // Its connection is about to detach.
                Err(TrySendError::Closed(message)) => Offered::Nobody(message),
            },
        }
    }

    /// Another connection takes over; the one before ends.
    fn attach(&self) -> (u64, mpsc::Receiver<Message>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut attached = self.0.lock();
        attached.generation += 1;
        attached.queue = Some(sender);
        (attached.generation, receiver)
    }

    /// Whether `generation` was still the one.
    fn detach(&self, generation: u64) -> bool {
        let mut attached = self.0.lock();
        let current = attached.generation == generation && attached.queue.is_some();
        if current {
            attached.queue = None;
        }
        current
    }

    /// Whether another connection has taken over from this one.
    fn replaced(&self, generation: u64) -> bool {
        self.0.lock().generation != generation
    }

    /// Ends the connection, when what is queued has left.
    pub fn close(&self) {
        self.0.lock().queue = None;
    }
}

enum Encoder {
    App(AppEncoder),
    Message,
}

impl Encoder {
    fn put(&mut self, buffer: &mut BytesMut, message: &Message) {
        match self {
            Encoder::App(encoder) => encoder.put(buffer, message),
            Encoder::Message => codec::put_message(buffer, message),
        }
    }

    fn put_heartbeat(&self, buffer: &mut BytesMut) {
        match self {
            Encoder::App(_) => AppEncoder::put_heartbeat(buffer),
            Encoder::Message => codec::put_message_heartbeat(buffer),
        }
    }
}

/// The body of a stream's response: never ends by itself.
pub(crate) struct Outgoing {
    link: Arc<Link>,
    kind: Kind,
    writer: Arc<Writer>,
    generation: u64,
    queue: mpsc::Receiver<Message>,
    encoder: Encoder,
    heartbeat: Interval,
}

impl Outgoing {
    /// Attaches a connection to the writer.
    pub fn attach(link: Arc<Link>, kind: Kind, writer: Arc<Writer>) -> Outgoing {
        let (generation, queue) = writer.attach();
        let encoder = match kind {
            Kind::App => Encoder::App(AppEncoder::default()),
            Kind::Message => Encoder::Message,
        };
        let mut heartbeat = tokio::time::interval_at(tokio::time::Instant::now() + HEARTBEAT, HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        link.activate();
        let remote_peer_id = hex(link.id);
        let stream_writer_type = kind.name();
        tracing::info!(stream_writer_type, remote_peer_id, "established TCP streaming connection with remote peer");
        Outgoing { link, kind, writer, generation, queue, encoder, heartbeat }
    }

    /// The next bytes; `None` ends the stream.
    pub fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut buffer = BytesMut::new();
        for _ in 0..BATCH {
            // What is queued for a connection that another one replaced does not count any more.
            if self.queue.is_closed() && self.writer.replaced(self.generation) {
                return Poll::Ready(None);
            }
            match self.queue.poll_recv(cx) {
                Poll::Ready(Some(message)) => self.encoder.put(&mut buffer, &message),
                Poll::Ready(None) if buffer.is_empty() => return Poll::Ready(None),
                Poll::Ready(None) | Poll::Pending => break,
            }
            if buffer.len() >= WRITE {
                break;
            }
        }
        if self.heartbeat.poll_tick(cx).is_ready() {
            self.encoder.put_heartbeat(&mut buffer);
            // Asks to be woken for the next one.
            let _ = self.heartbeat.poll_tick(cx);
        }
        if buffer.is_empty() {
            return Poll::Pending;
        }
        self.link.meter.sent_bytes.add(buffer.len());
        Poll::Ready(Some(buffer.freeze()))
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let lost = self.writer.detach(self.generation);
        self.queue.close();
        if self.queue.try_recv().is_ok() {
            self.link.meter.sent_failures.up();
            self.link.shared.local.report_unreachable(self.link.id);
        }
        let remote_peer_id = hex(self.link.id);
        let stream_writer_type = self.kind.name();
        if lost {
            self.link.deactivate("write", self.kind.name(), "connection closed");
            tracing::warn!(stream_writer_type, remote_peer_id, "lost TCP streaming connection with remote peer");
        } else {
            tracing::warn!(stream_writer_type, remote_peer_id, "closed TCP streaming connection with remote peer");
        }
    }
}
