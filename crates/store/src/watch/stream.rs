//! One stream: its watchers, its outbox, its ticker.

use super::OUTBOX_MAX;
use crate::{Event, Prev};
use api::pb::etcdserverpb as pb;
use api::pb::mvccpb;
use bytes::Bytes;
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};

/// One watcher.
#[derive(Debug)]
pub(super) struct Watcher {
    pub key: Bytes,
    /// Empty: only `key`. `\0`: from `key` on.
    pub end: Bytes,
    /// First revision it has not been given.
    pub next: i64,
    pub synced: bool,
    /// A history read for it is under way.
    pub reading: bool,
    no_put: bool,
    no_delete: bool,
    pub prev_kv: bool,
    fragment: bool,
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
        let (head, events) = (pb::WatchResponse { events: Vec::new(), ..response.clone() }, response.events);
        let mut parts: Vec<pb::WatchResponse> = Vec::new();
        let mut size = usize::MAX;
        for event in events {
            let len = event.encoded_len();
            match parts.last_mut() {
                Some(part) if size + len < limit => part.events.push(event),
                _ => {
                    size = head.encoded_len();
                    parts.push(pb::WatchResponse { events: vec![event], fragment: true, ..head.clone() });
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

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub watchers: BTreeMap<i64, Watcher>,
    /// Cancelled by the server for a compaction: their ids stay taken until the client cancels them too.
    pub compacted: BTreeSet<i64>,
    pub outstanding: usize,
    next_id: i64,
    pub tick_ms: u64,
    pub interval_ms: u64,
}

impl Stream {
    pub fn new(now_ms: u64, interval_ms: u64) -> Stream {
        Stream {
            watchers: BTreeMap::new(),
            compacted: BTreeSet::new(),
            outstanding: 0,
            next_id: 0,
            tick_ms: now_ms.saturating_add(interval_ms),
            interval_ms,
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
        self.outstanding < OUTBOX_MAX
    }
}
