//! What one revision changed: the value that apply publishes and that watchers are served from.

use api::pb::mvccpb::KeyValue;
use std::sync::Arc;

/// A change of one key.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The key got a value. `prev` is what it held before, captured when a watcher asked for it.
    Put { kv: Arc<KeyValue>, prev: Prev },
    /// The key was deleted; `kv` holds only key and mod_revision.
    Delete { kv: Arc<KeyValue>, prev: Prev },
}

/// The value a key had before a change.
#[derive(Clone, Debug, PartialEq)]
pub enum Prev {
    /// Not looked up: nobody asked when it was applied. Look it up at `mod_revision - 1`.
    Unknown,
    /// There was none, or it was compacted away.
    None,
    Some(Arc<KeyValue>),
}

impl Event {
    pub fn kv(&self) -> &Arc<KeyValue> {
        match self {
            Event::Put { kv, .. } | Event::Delete { kv, .. } => kv,
        }
    }

    pub fn prev(&self) -> &Prev {
        match self {
            Event::Put { prev, .. } | Event::Delete { prev, .. } => prev,
        }
    }
}

/// All changes of one revision, in the order they were made. Shared by every watcher.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub revision: i64,
    pub events: Arc<[Event]>,
}

/// The key's value at a revision, and the changes of past revisions: what catching up needs. Implemented by
/// `Applied`, and by models in tests.
pub trait History: Send + Sync {
    /// The newest revision in it.
    fn revision(&self) -> i64;
    /// Revisions up to this one may miss changes; -1 when nothing was compacted.
    fn compact_revision(&self) -> i64;
    /// Changes of revisions in `[from, to]`, ascending, at most `max_revisions` of them and ending early once
    /// `max_bytes` of keys and values are gathered (at least one revision is returned if there is one). The second
    /// value is the revision up to which the range is covered (`to` when complete).
    fn changes(
        &self,
        from: i64,
        to: i64,
        max_revisions: usize,
        max_bytes: usize,
    ) -> Result<(Vec<Change>, i64), crate::Error>;
    /// The key's value at `revision` (newest change at or below it); `None` when absent or compacted.
    fn value_at(&self, key: &[u8], revision: i64) -> Result<Option<Arc<KeyValue>>, crate::Error>;
}
