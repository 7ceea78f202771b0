//! A window over the `MsgApp`s that are on their way to one follower.
//!
//! Invariants: last indexes ascend; the window never holds more than its limit of messages, and of bytes it
//! exceeds its limit by at most one message.

use std::collections::VecDeque;

/// Messages sent and not acknowledged: each one's last index and bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inflights {
    messages_max: usize,
    /// 0: no limit.
    bytes_max: u64,
    bytes: u64,
    window: VecDeque<(u64, u64)>,
}

impl Inflights {
    /// An empty window; `bytes_max` 0 is no limit.
    pub fn new(messages_max: usize, bytes_max: u64) -> Inflights {
        Inflights { messages_max, bytes_max, bytes: 0, window: VecDeque::new() }
    }

    /// # Panics
    /// If the window is full: the sender must have stopped.
    pub fn add(&mut self, last_index: u64, bytes: u64) {
        assert!(!self.is_full(), "a message was sent past the window of {} messages", self.messages_max);
        self.window.push_back((last_index, bytes));
        self.bytes += bytes;
    }

    /// Frees all messages whose last index is at most `index`.
    pub fn free_to(&mut self, index: u64) {
        while let Some((last, bytes)) = self.window.front()
            && *last <= index
        {
            self.bytes -= bytes;
            self.window.pop_front();
        }
    }

    /// Whether nothing more may be sent.
    pub fn is_full(&self) -> bool {
        self.window.len() >= self.messages_max || (self.bytes_max != 0 && self.bytes >= self.bytes_max)
    }

    /// Messages on their way.
    pub fn len(&self) -> usize {
        self.window.len()
    }

    /// Whether everything was acknowledged.
    pub fn is_empty(&self) -> bool {
        self.window.is_empty()
    }

    /// Forgets all messages.
    pub fn reset(&mut self) {
        self.window.clear();
        self.bytes = 0;
    }
}
