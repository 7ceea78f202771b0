//! The bytes of the peer streams. No IO: encoders append to a buffer, decoders are fed with chunks as they arrive.
//!
//! ```text
//! message stream   u64 length · Message                                  (link heartbeat: a MsgHeartbeat from 0 to 0)
//! msgapp stream    0x00                                                  link heartbeat
//! (msgappv2)       0x01 · u64 n · n × (u64 length · Entry) · u64 commit  MsgApp that goes on where the last one ended
//!                  0x02 · u64 length · Message                           any MsgApp; sets where the next one goes on
//! snapshot body    u64 length · Message · database image to the end
//! ```
//! All integers are big-endian. Both ends of a msgapp stream keep (term, index), at first (0, 0): what etcd calls
//! msgappv2 (rafthttp `msgappv2_codec.go`, `msg_codec.go`).
//!
//! Invariants:
//! * Memory follows what has arrived, never what a length claims. Every length and count has a limit.
//! * A decoded message owns its bytes: it does not hold the connection's receive buffer.
//! * Hostile bytes are an error, after which the stream is to be closed; never a panic. (Go's reader dies of them.)
//! * A 0x01 frame is neither written nor read before a 0x02 frame has set the term.

use api::raft::{Entry, Malformed, Message, MessageType};
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use std::fmt;

/// Bytes of one message on a stream or in a POST, and of the entries of one 0x01 frame (etcd `readBytesLimit`).
pub const MESSAGE_MAX: u64 = 512 << 20;
/// Bytes of the message before a database image (etcd 3.6.14 and 3.7.1 `snapshotLimitByte`).
pub const SNAPSHOT_MESSAGE_MAX: u64 = 64 << 20;
/// Entries of one 0x01 frame. etcd sends at most 1 MiB of encoded entries at a time, each of four bytes or more.
pub const ENTRIES_MAX: u64 = 1 << 20;
/// Bytes by which the buffer of an incomplete piece grows at least.
const GROWTH: usize = 16 << 10;

const LINK_HEARTBEAT: u8 = 0;
const ENTRIES: u8 = 1;
const MESSAGE: u8 = 2;

/// What came over a stream.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "taken apart where it comes; heartbeats are rare")]
pub enum Frame {
    /// Says that the connection lives; not for raft.
    LinkHeartbeat,
    Message(Message),
}

/// Bytes that no correct peer sends. The stream can't go on.
#[derive(Debug, PartialEq, Eq)]
pub enum Broken {
    TooLong {
        len: u64,
        max: u64,
    },
    TooManyEntries(u64),
    UnknownType(u8),
    /// A 0x01 frame before any 0x02 frame.
    Unbased,
    Malformed(Malformed),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // etcd's text, which its logs and answers show.
            Broken::TooLong { .. } => f.write_str("rafthttp: error limit exceeded"),
            Broken::TooManyEntries(n) => write!(f, "{n} entries in one msgappv2 frame"),
            Broken::UnknownType(t) => write!(f, "failed to parse type {t} in msgappv2 stream"),
            Broken::Unbased => f.write_str("msgappv2 entries before any message"),
            Broken::Malformed(why) => write!(f, "{why}"),
        }
    }
}
impl std::error::Error for Broken {}

impl From<Malformed> for Broken {
    fn from(why: Malformed) -> Self {
        Broken::Malformed(why)
    }
}

// ---- what arrives ----------------------------------------------------------------------------------------------

/// Chunks in, pieces of known length out.
#[derive(Debug, Default)]
struct Input {
    chunk: Bytes,
    /// The beginning of a piece whose rest is still to come.
    partial: Vec<u8>,
}

impl Input {
    fn push(&mut self, chunk: Bytes) {
        if self.chunk.is_empty() {
            self.chunk = chunk;
            return;
        }
        let mut both = BytesMut::with_capacity(self.chunk.len() + chunk.len());
        both.put_slice(&self.chunk);
        both.put_slice(&chunk);
        self.chunk = both.freeze();
    }

    /// The next `len` bytes, copied, or nothing yet. `len` must stay the same until they come.
    fn piece(&mut self, len: usize) -> Option<Bytes> {
        if self.partial.is_empty() && self.chunk.len() >= len {
            return Some(Bytes::copy_from_slice(&self.chunk.split_to(len)));
        }
        let missing = len - self.partial.len();
        let more = self.chunk.split_to(missing.min(self.chunk.len()));
        self.make_room(more.len(), missing);
        self.partial.extend_from_slice(&more);
        (self.partial.len() == len).then(|| std::mem::take(&mut self.partial).into())
    }

    /// Doubles like `Vec`, but never beyond the piece, whose bytes may be kept for long.
    fn make_room(&mut self, more: usize, missing: usize) {
        if self.partial.capacity() - self.partial.len() < more {
            let growth = self.partial.capacity().max(GROWTH).max(more).min(missing);
            self.partial.reserve_exact(growth);
        }
    }

    fn byte(&mut self) -> Option<u8> {
        (!self.chunk.is_empty()).then(|| self.chunk.split_to(1)[0])
    }

    fn number(&mut self) -> Option<u64> {
        let piece = self.piece(8)?;
        Some(u64::from_be_bytes(piece[..].try_into().expect("a piece has the length asked for")))
    }

    /// A length, if it is within `max`.
    fn length(&mut self, max: u64) -> Result<Option<usize>, Broken> {
        let Some(len) = self.number() else { return Ok(None) };
        match usize::try_from(len) {
            Ok(fits) if len <= max => Ok(Some(fits)),
            _ => Err(Broken::TooLong { len, max }),
        }
    }
}

/// Reads `u64 length · Message`, over and over (the message stream) or once (the snapshot body's head).
#[derive(Debug)]
pub struct MessageDecoder {
    input: Input,
    len: Option<usize>,
    max: u64,
}

impl MessageDecoder {
    /// A reader of the message stream.
    pub fn stream() -> MessageDecoder {
        MessageDecoder { input: Input::default(), len: None, max: MESSAGE_MAX }
    }

    /// A reader of the message before a database image.
    pub fn snapshot() -> MessageDecoder {
        MessageDecoder { max: SNAPSHOT_MESSAGE_MAX, ..MessageDecoder::stream() }
    }

    /// Takes a chunk. Ask [`next`](Self::next) until it has nothing more.
    pub fn push(&mut self, chunk: Bytes) {
        self.input.push(chunk);
    }

    /// The next whole message.
    ///
    /// # Errors
    /// The bytes are no such stream; close it.
    #[expect(clippy::should_implement_trait, reason = "nothing yet is not the end")]
    pub fn next(&mut self) -> Result<Option<Frame>, Broken> {
        let len = match self.len {
            Some(len) => len,
            None => match self.input.length(self.max)? {
                Some(len) => *self.len.insert(len),
                None => return Ok(None),
            },
        };
        let Some(bytes) = self.input.piece(len) else { return Ok(None) };
        self.len = None;
        Ok(Some(frame(Message::decode(bytes)?)))
    }

    /// Whether a message has begun.
    pub fn is_within(&self) -> bool {
        self.len.is_some() || !self.input.partial.is_empty()
    }

    /// What came after the last message: the beginning of the image.
    pub fn into_rest(self) -> Bytes {
        self.input.chunk
    }
}

fn frame(message: Message) -> Frame {
    let from_nobody = message.from == 0 && message.to == 0;
    match from_nobody && message.kind == MessageType::MsgHeartbeat {
        true => Frame::LinkHeartbeat,
        false => Frame::Message(message),
    }
}

/// Which piece of a msgappv2 frame comes next.
#[derive(Clone, Copy, Debug)]
enum Next {
    Type,
    Count,
    EntryLength,
    Entry(usize),
    Commit,
    MessageLength,
    Message(usize),
}

/// Reads the msgapp stream of one connection.
#[derive(Debug)]
pub struct AppDecoder {
    input: Input,
    local: u64,
    remote: u64,
    term: u64,
    index: u64,
    next: Next,
    /// Of the present 0x01 frame: entries to come, entries here, bytes so far.
    left: u64,
    entries: Vec<Entry>,
    bytes: u64,
}

impl AppDecoder {
    /// Messages are from `remote` to `local`: 0x01 frames don't say.
    pub fn new(local: u64, remote: u64) -> AppDecoder {
        AppDecoder {
            input: Input::default(),
            local,
            remote,
            term: 0,
            index: 0,
            next: Next::Type,
            left: 0,
            entries: Vec::new(),
            bytes: 0,
        }
    }

    /// Takes a chunk. Ask [`next`](Self::next) until it has nothing more.
    pub fn push(&mut self, chunk: Bytes) {
        self.input.push(chunk);
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// The bytes are no such stream; close it.
    #[expect(clippy::should_implement_trait, reason = "nothing yet is not the end")]
    pub fn next(&mut self) -> Result<Option<Frame>, Broken> {
        loop {
            match self.step()? {
                Step::Short => return Ok(None),
                Step::Further(next) => self.next = next,
                Step::Done(frame) => {
                    self.next = Next::Type;
                    return Ok(Some(frame));
                }
            }
        }
    }

    fn step(&mut self) -> Result<Step, Broken> {
        let step = match self.next {
            Next::Type => self.input.byte().map(|t| self.begin(t)).transpose()?,
            Next::Count => self.input.number().map(|n| self.count(n)).transpose()?,
            Next::EntryLength => {
                let room = MESSAGE_MAX - self.bytes;
                self.input.length(room)?.map(|len| Step::Further(Next::Entry(len)))
            }
            Next::Entry(len) => self.input.piece(len).map(|bytes| self.entry(bytes)).transpose()?,
            Next::Commit => self.input.number().map(|commit| Step::Done(Frame::Message(self.app(commit)))),
            Next::MessageLength => self.input.length(MESSAGE_MAX)?.map(|len| Step::Further(Next::Message(len))),
            Next::Message(len) => self.input.piece(len).map(|bytes| self.message(bytes)).transpose()?,
        };
        Ok(step.unwrap_or(Step::Short))
    }

    fn begin(&self, frame_type: u8) -> Result<Step, Broken> {
        match frame_type {
            LINK_HEARTBEAT => Ok(Step::Done(Frame::LinkHeartbeat)),
            // A message of term 0 would count as a local one.
            ENTRIES if self.term == 0 => Err(Broken::Unbased),
            ENTRIES => Ok(Step::Further(Next::Count)),
            MESSAGE => Ok(Step::Further(Next::MessageLength)),
            other => Err(Broken::UnknownType(other)),
        }
    }

    fn count(&mut self, n: u64) -> Result<Step, Broken> {
        if n > ENTRIES_MAX {
            return Err(Broken::TooManyEntries(n));
        }
        (self.left, self.bytes) = (n, 0);
        Ok(Step::Further(self.after_entry()))
    }

    fn after_entry(&self) -> Next {
        if self.left == 0 { Next::Commit } else { Next::EntryLength }
    }

    fn entry(&mut self, bytes: Bytes) -> Result<Step, Broken> {
        self.bytes += bytes.len() as u64;
        self.left -= 1;
        self.entries.push(Entry::decode(bytes)?);
        Ok(Step::Further(self.after_entry()))
    }

    /// What the frame leaves out follows from where the last message ended.
    fn app(&mut self, commit: u64) -> Message {
        let entries = std::mem::take(&mut self.entries);
        let index = self.index;
        self.index = index.saturating_add(entries.len() as u64);
        Message {
            kind: MessageType::MsgApp,
            from: self.remote,
            to: self.local,
            term: self.term,
            log_term: self.term,
            index,
            entries,
            commit,
            ..Message::default()
        }
    }

    fn message(&mut self, bytes: Bytes) -> Result<Step, Broken> {
        let message = Message::decode(bytes)?;
        (self.term, self.index) = base(&message);
        Ok(Step::Done(frame(message)))
    }
}

#[expect(clippy::large_enum_variant, reason = "taken apart where it comes")]
enum Step {
    /// More bytes are wanted.
    Short,
    Further(Next),
    Done(Frame),
}

/// Where a 0x01 frame after `message` goes on: term, index.
fn base(message: &Message) -> (u64, u64) {
    (message.term, message.entries.last().map_or(message.index, |e| e.index))
}

// ---- what leaves -----------------------------------------------------------------------------------------------

/// Appends `u64 length · Message`.
pub fn put_message(buffer: &mut BytesMut, message: &Message) {
    let message = message.to_pb();
    let len = message.encoded_len();
    buffer.reserve(8 + len);
    buffer.put_u64(len as u64);
    message.encode(buffer).expect("a BytesMut grows");
}

/// Appends the message stream's link heartbeat, as Go 3.7 writes it.
pub fn put_message_heartbeat(buffer: &mut BytesMut) {
    put_message(buffer, &Message { kind: MessageType::MsgHeartbeat, ..Message::default() });
}

/// Writes the msgapp stream of one connection.
#[derive(Debug, Default)]
pub struct AppEncoder {
    term: u64,
    index: u64,
}

impl AppEncoder {
    /// Appends the shortest frame for a MsgApp.
    pub fn put(&mut self, buffer: &mut BytesMut, message: &Message) {
        if self.goes_on(message) {
            self.put_entries(buffer, message);
        } else {
            buffer.put_u8(MESSAGE);
            put_message(buffer, message);
            (self.term, self.index) = base(message);
        }
    }

    /// Appends the link heartbeat.
    pub fn put_heartbeat(buffer: &mut BytesMut) {
        buffer.put_u8(LINK_HEARTBEAT);
    }

    /// etcd's rule, and that a reader who only counts the entries arrives at the same index.
    fn goes_on(&self, m: &Message) -> bool {
        let count = m.entries.len() as u64;
        self.term != 0
            && m.kind == MessageType::MsgApp
            && m.index == self.index
            && m.log_term == self.term
            && m.term == self.term
            && count <= ENTRIES_MAX
            && m.entries.last().is_none_or(|e| e.index.checked_sub(m.index) == Some(count))
    }

    fn put_entries(&mut self, buffer: &mut BytesMut, message: &Message) {
        buffer.put_u8(ENTRIES);
        buffer.put_u64(message.entries.len() as u64);
        for entry in &message.entries {
            let entry = entry.to_pb();
            let len = entry.encoded_len();
            buffer.reserve(8 + len);
            buffer.put_u64(len as u64);
            entry.encode(buffer).expect("a BytesMut grows");
        }
        buffer.put_u64(message.commit);
        self.index += message.entries.len() as u64;
    }
}

#[cfg(test)]
mod tests;
