//! One stream: its watchers, its outbox, its ticker.

use super::{OUTBOX_BYTES, OUTBOX_MAX};
use crate::{Event, Prev};
use api::pb::etcdserverpb as pb;
use api::pb::mvccpb;
use bytes::Bytes;
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One watcher.
#[derive(Debug)]
pub(super) struct Watcher {
    pub key: Bytes,
    /// Empty: only `key`. `\0`: from `key` on.
    pub end: Bytes,
    /// The revision it asked to start from; 0 for the present.
    start: i64,
    /// First revision it has not been given.
    pub next: i64,
    pub synced: bool,
    /// A history read for it is under way.
    pub reading: bool,
    no_put: bool,
    no_delete: bool,
    pub prev_kv: bool,
    pub fragment: bool,
    pub progress: bool,
    /// It was sent something since the last tick.
    pub active: bool,
}

impl Watcher {
    pub fn new(r: &pb::WatchCreateRequest, key: Bytes, end: Bytes, next: i64, synced: bool) -> Watcher {
        use pb::watch_create_request::FilterType;
        Watcher {
            key,
            end,
            start: r.start_revision,
            next,
            synced,
            reading: false,
            no_put: r.filters.contains(&(FilterType::Noput as i32)),
            no_delete: r.filters.contains(&(FilterType::Nodelete as i32)),
            prev_kv: r.prev_kv,
            fragment: r.fragment,
            progress: r.progress_notify,
            active: false,
        }
    }

    fn covers(&self, key: &[u8]) -> bool {
        match self.end.as_ref() {
            [] => key == self.key.as_ref(),
            [0] => key >= self.key.as_ref(),
            end => key >= self.key.as_ref() && key < end,
        }
    }

    pub fn wants(&self, event: &Event) -> bool {
        let kind = match event {
            Event::Put { .. } => !self.no_put,
            Event::Delete { .. } => !self.no_delete,
        };
        kind && self.covers(&event.kv().key)
    }

    /// It has been given everything up to `revision`, and nothing beyond: who learns of `revision` misses nothing.
    /// A watcher that starts later is not there yet.
    pub fn is_at(&self, revision: i64) -> bool {
        self.synced && self.start <= revision && self.next <= revision + 1
    }

    /// The event as this watcher sees it; `None` when a previous value it wants was not captured.
    pub fn present(&self, event: &Event) -> Option<mvccpb::Event> {
        let prev_kv = match (self.prev_kv, event.prev()) {
            (false, _) | (true, Prev::None) => None,
            (true, Prev::Some(kv)) => Some((**kv).clone()),
            (true, Prev::Unknown) => return None,
        };
        let kind = match event {
            Event::Put { .. } => mvccpb::event::EventType::Put,
            Event::Delete { .. } => mvccpb::event::EventType::Delete,
        };
        Some(mvccpb::Event { r#type: kind as i32, kv: Some((**event.kv()).clone()), prev_kv })
    }

    /// One response, or several when fragments were asked for and it is too large for one.
    pub fn split(&self, response: pb::WatchResponse, limit: usize) -> Vec<pb::WatchResponse> {
        if !self.fragment || response.events.len() < 2 || response.encoded_len() < limit {
            return vec![response];
        }
        let mut response = response;
        let events = std::mem::take(&mut response.events);
        let head = pb::WatchResponse { fragment: true, ..response };
        let mut parts: Vec<pb::WatchResponse> = Vec::new();
        let mut size = usize::MAX;
        for event in events {
            let len = field_len(event.encoded_len());
            match parts.last_mut() {
                Some(part) if size + len < limit => part.events.push(event),
                _ => {
                    size = head.encoded_len();
                    parts.push(pb::WatchResponse { events: vec![event], ..head.clone() });
                }
            }
            size += len;
        }
        if let Some(last) = parts.last_mut() {
            last.fragment = false;
        }
        parts
    }
}

/// Bytes of an event's field in a response: a tag of one byte, the length, the event.
fn field_len(event: usize) -> usize {
    1 + prost::length_delimiter_len(event) + event
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub watchers: BTreeMap<i64, Watcher>,
    /// Cancelled by the server for a compaction: their ids stay taken until the client cancels them too.
    pub compacted: BTreeSet<i64>,
    /// Bytes of the responses that the client has not taken, the oldest first.
    waiting: VecDeque<usize>,
    /// Their sum.
    waiting_bytes: usize,
    /// Places kept for responses that follow at once.
    pub reserved: usize,
    next_id: i64,
    tick_ms: u64,
    interval_ms: u64,
    /// Watchers that were idle at the last tick and are still to be told of progress, for want of room.
    owed: BTreeSet<i64>,
}

impl Stream {
    pub fn new(now_ms: u64, interval_ms: u64) -> Stream {
        Stream {
            watchers: BTreeMap::new(),
            compacted: BTreeSet::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            reserved: 0,
            next_id: 0,
            tick_ms: now_ms.saturating_add(interval_ms),
            interval_ms,
            owed: BTreeSet::new(),
        }
    }

    pub fn taken(&self, id: i64) -> bool {
        self.watchers.contains_key(&id) || self.compacted.contains(&id)
    }

    pub fn draw_id(&mut self) -> i64 {
        while self.taken(self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    pub fn has_room(&self) -> bool {
        self.waiting.len() + self.reserved < OUTBOX_MAX && self.waiting_bytes < OUTBOX_BYTES
    }

    /// A response waits for its client. `bytes`: what is in memory for it and not for the one before, too.
    pub fn wait(&mut self, bytes: usize) {
        self.waiting.push_back(bytes);
        self.waiting_bytes += bytes;
    }

    /// The client took the oldest `n`.
    pub fn take(&mut self, n: usize) {
        let n = n.min(self.waiting.len());
        self.waiting_bytes -= self.waiting.drain(..n).sum::<usize>();
    }

    /// The stream's ticker: the watchers to be told of progress now, as far as there is room. The others follow when
    /// there is.
    pub fn tick(&mut self, now_ms: u64, revision: i64) -> Vec<i64> {
        if now_ms >= self.tick_ms {
            self.tick_ms = now_ms.saturating_add(self.interval_ms);
            for (id, w) in &mut self.watchers {
                let idle = !std::mem::replace(&mut w.active, false);
                if w.progress && idle && w.is_at(revision) {
                    self.owed.insert(*id);
                }
            }
        }
        let mut room = if self.has_room() { OUTBOX_MAX - self.waiting.len() } else { 0 };
        let mut told = Vec::new();
        while room > 0
            && let Some(id) = self.owed.pop_first()
        {
            if self.watchers.get(&id).is_some_and(|w| w.progress && !w.active && w.is_at(revision)) {
                told.push(id);
                room -= 1;
            }
        }
        told
    }
}
