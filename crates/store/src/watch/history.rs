//! Reading the past for watchers that are behind: one scan serves many.

use super::hub::WatcherId;
use super::{BYTES_PER_READ, REVISIONS_PER_READ};
use crate::{Change, Error, Event, History, Prev};
use std::sync::Arc;

/// A read for a reader thread.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryJob {
    pub(super) watchers: Vec<WatcherId>,
    pub(super) from: i64,
    /// Some watcher wants previous values.
    pub(super) prev: bool,
}

/// What a read found.
#[derive(Clone, Debug)]
pub struct HistoryResult {
    pub(super) watchers: Vec<WatcherId>,
    pub(super) changes: Vec<Change>,
    /// The changes are complete up to here.
    pub(super) covered: i64,
    /// The state's revision when it was read.
    pub(super) revision: i64,
    pub(super) compact_revision: i64,
}

impl HistoryJob {
    /// Reads a bounded piece of history.
    ///
    /// # Errors
    /// The page store failed.
    pub fn run(self, history: &dyn History) -> Result<HistoryResult, Error> {
        let (revision, compact_revision) = (history.revision(), history.compact_revision());
        let from = self.from.max(compact_revision);
        let (mut changes, covered) = match from <= revision {
            true => history.changes(from, revision, REVISIONS_PER_READ, BYTES_PER_READ)?,
            false => (Vec::new(), revision),
        };
        if self.prev {
            for change in &mut changes {
                let events = change.events.iter().map(|e| with_prev(history, e)).collect::<Result<Vec<_>, _>>()?;
                change.events = events.into();
            }
        }
        Ok(HistoryResult { watchers: self.watchers, changes, covered, revision, compact_revision })
    }
}

fn with_prev(history: &dyn History, event: &Event) -> Result<Event, Error> {
    let kv = event.kv();
    if *event.prev() != Prev::Unknown {
        return Ok(event.clone());
    }
    let created = matches!(event, Event::Put { .. }) && kv.create_revision == kv.mod_revision;
    // As Go, which asks for nothing when a put made the key, even if one revision ago it had been there, too: a
    // transaction may delete and put it.
    let prev = match created {
        true => Prev::None,
        false => history.value_at(&kv.key, kv.mod_revision - 1)?.map_or(Prev::None, Prev::Some),
    };
    Ok(match event {
        Event::Put { .. } => Event::Put { kv: Arc::clone(kv), prev },
        Event::Delete { .. } => Event::Delete { kv: Arc::clone(kv), prev },
    })
}
