//! The same events for many watchers: one list, encoded once, however many streams and watchers are told of it.

use api::pb::etcdserverpb as pb;
use api::pb::mvccpb;
use bytes::Bytes;
use prost::Message as _;
use std::sync::{Arc, OnceLock};

/// Events of one revision as a watcher sees them.
#[derive(Debug)]
pub struct Events {
    list: Vec<mvccpb::Event>,
    encoded: OnceLock<Bytes>,
    bytes: usize,
}

/// What events take in memory.
pub(super) fn bytes_of(events: &[mvccpb::Event]) -> usize {
    let kv = |kv: &mvccpb::KeyValue| kv.key.len() + kv.value.len();
    let event =
        |e: &mvccpb::Event| size_of::<mvccpb::Event>() + e.kv.as_ref().map_or(0, kv) + e.prev_kv.as_ref().map_or(0, kv);
    events.iter().map(event).sum()
}

impl Events {
    pub(super) fn new(list: Vec<mvccpb::Event>) -> Arc<Events> {
        Arc::new(Events { bytes: bytes_of(&list), list, encoded: OnceLock::new() })
    }

    pub(super) fn to_vec(&self) -> Vec<mvccpb::Event> {
        self.list.clone()
    }

    /// What they take in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// The field `events` of a `WatchResponse`, its last one. Encoded by the first who asks.
    pub fn encoded(&self) -> &Bytes {
        self.encoded.get_or_init(|| {
            let response = pb::WatchResponse { events: self.list.clone(), ..Default::default() };
            response.encode_to_vec().into()
        })
    }
}

/// A response each for some watchers of one stream, alike but for the watcher's id.
#[derive(Clone, Debug)]
pub struct Burst {
    pub header: pb::ResponseHeader,
    /// Never empty.
    pub watch_ids: Vec<i64>,
    pub events: Arc<Events>,
}

impl Burst {
    /// How many.
    pub fn count(&self) -> usize {
        self.watch_ids.len()
    }

    /// One by one, in order.
    pub fn responses(&self) -> impl Iterator<Item = pb::WatchResponse> {
        self.watch_ids.iter().map(|&watch_id| pb::WatchResponse {
            header: Some(self.header),
            watch_id,
            events: self.events.list.clone(),
            ..Default::default()
        })
    }
}
