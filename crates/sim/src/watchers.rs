//! One watcher as its client sees it: what it may be told next follows from the model's history and nothing else.
//!
//! Checked: no event lost, doubled or out of order; a revision's events together; previous values right or compacted
//! away; nothing before `created` and nothing after `canceled`; progress never ahead of what was delivered.

use crate::cluster::permissions;
use crate::model::{Auth, Model, covers};
use api::pb::etcdserverpb as pb;
use api::pb::mvccpb;
use bytes::Bytes;
use pb::watch_create_request::FilterType;
use std::rc::Rc;

/// What a client asked for.
#[derive(Clone, Debug)]
pub struct Spec {
    pub request: pb::WatchCreateRequest,
}

/// A watcher that was created.
#[derive(Clone, Debug)]
pub struct Watcher {
    pub spec: Spec,
    /// The first revision whose events are still to come.
    pub cursor: i64,
    /// Events of a response that comes in fragments.
    parts: Vec<mvccpb::Event>,
    /// Who watches, and who might what when the watch began: that is when etcd asks.
    rights: (String, Rc<Auth>),
}

impl Spec {
    fn wants(&self, delete: bool, key: &Bytes) -> bool {
        let filter = if delete { FilterType::Nodelete } else { FilterType::Noput };
        let r = &self.request;
        let from = if r.key.is_empty() { Bytes::from_static(&[0]) } else { r.key.clone() };
        !r.filters.contains(&(filter as i32)) && covers(&from, &r.range_end, key)
    }

    /// Whether etcd refuses it.
    pub fn is_refused(&self, taken: impl Fn(i64) -> bool) -> bool {
        let r = &self.request;
        let ranged = !r.range_end.is_empty() && r.range_end.as_ref() != [0];
        r.start_revision < 0 || ranged && r.key >= r.range_end || r.watch_id != 0 && taken(r.watch_id)
    }
}

impl Watcher {
    /// The answer to the create request came.
    pub fn created(
        spec: Spec,
        response: &pb::WatchResponse,
        model: &Model,
        rights: (String, Rc<Auth>),
    ) -> Result<Watcher, String> {
        let revision = response.header.as_ref().map_or(0, |h| h.revision);
        if revision > model.revision || !response.events.is_empty() {
            return Err(format!("a watcher was created by {response:?}, the model is at {}", model.revision));
        }
        let start = spec.request.start_revision;
        Ok(Watcher { cursor: if start == 0 { revision + 1 } else { start }, spec, parts: Vec::new(), rights })
    }

    /// Whether the watcher is still owed something up to `revision`.
    pub fn owed(&self, model: &Model, revision: i64) -> Option<i64> {
        let mut revisions = self.cursor.max(2)..=revision.min(model.revision);
        revisions.find(|r| model.happenings(*r).iter().any(|h| self.spec.wants(h.delete, &h.kv.key)))
    }

    /// A response with events came.
    pub fn deliver(&mut self, response: pb::WatchResponse, model: &Model) -> Result<(), String> {
        let header = response.header.as_ref().map_or(0, |h| h.revision);
        self.parts.extend(response.events);
        if response.fragment {
            return Ok(());
        }
        let events = std::mem::take(&mut self.parts);
        let last = events.last().and_then(|e| e.kv.as_ref()).map_or(0, |kv| kv.mod_revision);
        if last < self.cursor || header < last || header > model.revision {
            return Err(format!("events up to {last} under header {header}, expected from {} on", self.cursor));
        }
        let happened = (self.cursor..=last).flat_map(|revision| model.happenings(revision));
        let mut expected = happened.filter(|h| self.spec.wants(h.delete, &h.kv.key));
        for event in &events {
            let Some(h) = expected.next() else { return Err(format!("{event:?} did not happen, or not then")) };
            permissions::shown_key(&self.rights.1, &self.rights.0, &h.kv.key)?;
            self.check_event(event, h.delete, &h.kv, h.prev.as_ref(), model)?;
        }
        match expected.next() {
            None => self.cursor = last + 1,
            Some(missing) => return Err(format!("{missing:?} is missing in a response up to revision {last}")),
        }
        Ok(())
    }

    fn check_event(
        &self,
        event: &mvccpb::Event,
        delete: bool,
        kv: &mvccpb::KeyValue,
        prev: Option<&mvccpb::KeyValue>,
        model: &Model,
    ) -> Result<(), String> {
        if (event.r#type() == mvccpb::event::EventType::Delete) != delete || event.kv.as_ref() != Some(kv) {
            return Err(format!("{event:?} was delivered where {kv:?} happened (delete: {delete})"));
        }
        let wanted = prev.filter(|_| self.spec.request.prev_kv);
        let compacted = event.prev_kv.is_none() && model.compacted >= kv.mod_revision;
        match event.prev_kv.as_ref() == wanted || compacted {
            true => Ok(()),
            false => Err(format!("previous value {:?} was delivered, it was {wanted:?} ({event:?})", event.prev_kv)),
        }
    }

    /// Progress was told: everything up to `revision` must have been delivered.
    pub fn progress(&mut self, revision: i64, model: &Model) -> Result<(), String> {
        if revision > model.revision {
            return Err(format!("progress at {revision}, the model is at {}", model.revision));
        }
        if let Some(owed) = self.owed(model, revision) {
            return Err(format!("progress at {revision}, but the events of {owed} were not delivered"));
        }
        self.cursor = self.cursor.max(revision + 1);
        Ok(())
    }

    /// The server cancelled it for a compaction.
    pub fn compacted(&self, response: &pb::WatchResponse, model: &Model) -> Result<(), String> {
        let (at, header) = (response.compact_revision, response.header.as_ref().map_or(0, |h| h.revision));
        match at > self.cursor && at <= model.compacted && header == 0 && response.cancel_reason.is_empty() {
            true => Ok(()),
            false => {
                let (cursor, compacted) = (self.cursor, model.compacted);
                Err(format!("cancelled by {response:?}; next was {cursor}, the compaction is at {compacted}"))
            }
        }
    }
}
