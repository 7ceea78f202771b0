//! The hub itself.

use super::burst::{Burst, Events, bytes_of};
use super::history::{HistoryJob, HistoryResult};
use super::index::Index;
use super::laggards::Laggards;
use super::stream::{Stream, Watcher};
use crate::Change;
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use pb::watch_request::RequestUnion;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A stream, as the driver numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// A watcher: its stream and its id there.
pub(super) type WatcherId = (StreamId, i64);

/// What the hub begins with.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub member_id: u64,
    pub cluster_id: u64,
    /// Revision and term that were published last.
    pub revision: i64,
    pub term: u64,
    /// Bytes; a response is fragmented at 512 KiB above.
    pub max_request_bytes: usize,
    pub progress_interval_ms: u64,
}

/// What happens to the hub.
#[derive(Debug)]
pub enum Input {
    Open {
        stream: StreamId,
        now_ms: u64,
        jitter_ms: u64,
    },
    Close {
        stream: StreamId,
    },
    /// `permitted`: what authorisation says of a create request.
    Request {
        stream: StreamId,
        request: pb::WatchRequest,
        permitted: Result<(), api::Error>,
    },
    /// A batch was applied; `changes` are all since the last one.
    Published {
        revision: i64,
        term: u64,
        changes: Vec<Change>,
    },
    /// Changes were left out, or the state was replaced: everyone reads on from history.
    Resync {
        revision: i64,
        term: u64,
    },
    HistoryRead(HistoryResult),
    /// The transport took `n` responses out of the stream's outbox.
    Credit {
        stream: StreamId,
        n: usize,
    },
    Tick {
        now_ms: u64,
    },
}

/// What the hub wants done.
#[derive(Debug)]
pub enum Effect {
    Send {
        stream: StreamId,
        response: pb::WatchResponse,
    },
    /// The same for several watchers of a stream: counts for as many.
    SendBurst {
        stream: StreamId,
        burst: Burst,
    },
    ReadHistory {
        job: HistoryJob,
    },
    /// Whether apply should capture previous values.
    WantPrev(bool),
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub streams: usize,
    pub watchers: usize,
    /// Watchers that are behind.
    pub slow: usize,
    /// Events sent since the start.
    pub events: u64,
    /// Places of the index looked at for changes: what finding watchers cost.
    pub visits: u64,
}

/// A watcher, and the number of an event that it watches.
type Hit = (WatcherId, usize);

/// Events as one kind of watchers sees them.
#[derive(Debug)]
struct Seen {
    prev_kv: bool,
    /// Which of the change's events.
    numbers: Vec<usize>,
    events: Arc<Events>,
}

/// What a watcher is given.
struct Offered {
    id: i64,
    seen: Arc<Events>,
    /// It asked for large responses in parts.
    fragment: bool,
}

/// All streams and watchers of a member.
#[derive(Debug)]
pub struct Hub {
    config: Config,
    pub(super) revision: i64,
    term: u64,
    streams: BTreeMap<StreamId, Stream>,
    /// All watchers, synced or not.
    index: Index,
    behind: Laggards,
    reading: bool,
    prev_watchers: usize,
    events: u64,
    visits: u64,
}

impl Hub {
    /// No stream is open yet.
    pub fn new(config: Config) -> Hub {
        Hub {
            revision: config.revision,
            term: config.term,
            config,
            streams: BTreeMap::new(),
            index: Index::default(),
            behind: Laggards::default(),
            reading: false,
            prev_watchers: 0,
            events: 0,
            visits: 0,
        }
    }

    /// The newest revision whose changes it was told of.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The numbers at this moment.
    pub fn counts(&self) -> Counts {
        Counts {
            streams: self.streams.len(),
            watchers: self.streams.values().map(|s| s.watchers.len()).sum(),
            slow: self.behind.len(),
            events: self.events,
            visits: self.visits,
        }
    }

    /// Takes an input; what follows is added to `out`, in order.
    pub fn handle(&mut self, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Open { stream, now_ms, jitter_ms } => {
                let interval = self.config.progress_interval_ms.saturating_add(jitter_ms);
                // The number of a stream that is open already is given anew: the old one ends.
                self.close(stream, out);
                self.streams.insert(stream, Stream::new(now_ms, interval));
            }
            Input::Close { stream } => self.close(stream, out),
            Input::Request { stream, request, permitted } => self.request(stream, request, permitted, out),
            Input::Published { revision, term, changes } => self.publish(revision, term, &changes, out),
            Input::Resync { revision, term } => self.resync(revision, term),
            Input::HistoryRead(result) => self.catch_up(&result, out),
            Input::Credit { stream, n } => {
                if let Some(s) = self.streams.get_mut(&stream) {
                    s.take(n);
                    self.behind.room(stream, s.has_room());
                }
            }
            Input::Tick { now_ms } => self.tick(now_ms, out),
        }
        self.read_history(out);
    }

    fn header(&self, revision: i64) -> pb::ResponseHeader {
        let Config { cluster_id, member_id, .. } = self.config;
        pb::ResponseHeader { cluster_id, member_id, revision, raft_term: self.term }
    }

    fn send(&mut self, stream: StreamId, response: pb::WatchResponse, out: &mut Vec<Effect>) {
        self.send_counted(stream, response, 0, out);
    }

    /// `bytes`: what the response takes in memory beside those that wait before it.
    fn send_counted(&mut self, stream: StreamId, response: pb::WatchResponse, bytes: usize, out: &mut Vec<Effect>) {
        if let Some(s) = self.streams.get_mut(&stream) {
            s.wait(bytes);
            if !s.has_room() {
                self.behind.room(stream, false);
            }
            out.push(Effect::Send { stream, response });
        }
    }

    // ---- requests --------------------------------------------------------------------------------------------

    fn request(
        &mut self,
        stream: StreamId,
        request: pb::WatchRequest,
        permitted: Result<(), api::Error>,
        out: &mut Vec<Effect>,
    ) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(r)) => {
                if let Err(reason) = self.create(stream, &r, permitted, out) {
                    let response = pb::WatchResponse {
                        header: Some(self.header(self.revision)),
                        watch_id: -1,
                        created: true,
                        canceled: true,
                        cancel_reason: reason,
                        ..Default::default()
                    };
                    self.send(stream, response, out);
                }
            }
            Some(RequestUnion::CancelRequest(r)) => self.cancel(stream, r.watch_id, out),
            Some(RequestUnion::ProgressRequest(_)) => self.progress(stream, out),
            None => {}
        }
    }

    fn create(
        &mut self,
        stream: StreamId,
        r: &pb::WatchCreateRequest,
        permitted: Result<(), api::Error>,
        out: &mut Vec<Effect>,
    ) -> Result<(), String> {
        if r.start_revision < 0 {
            return Err(api::Error::Compacted.to_string());
        }
        permitted.map_err(|e| format!("rpc error: code = {:?} desc = {e}", e.code()))?;
        let key = if r.key.is_empty() { Bytes::from_static(&[0]) } else { Bytes::copy_from_slice(&r.key) };
        let end = Bytes::copy_from_slice(&r.range_end);
        if !end.is_empty() && end.as_ref() != [0] && key >= end {
            return Err("mvcc: watcher range is empty".into());
        }
        let (revision, header) = (self.revision, Some(self.header(self.revision)));
        let Some(s) = self.streams.get_mut(&stream) else { return Ok(()) };
        if r.watch_id != 0 && s.taken(r.watch_id) {
            return Err("mvcc: duplicate watch ID provided on the WatchStream".into());
        }
        let id = if r.watch_id == 0 { s.draw_id() } else { r.watch_id };
        let synced = r.start_revision == 0 || r.start_revision > revision;
        let next = if r.start_revision == 0 { revision + 1 } else { r.start_revision };
        self.index.insert(&key, &end, (stream, id));
        s.watchers.insert(id, Watcher::new(r, key, end, next, synced));
        if !synced {
            self.behind.insert((next, (stream, id)));
        }
        if r.prev_kv {
            self.prev_watchers += 1;
            if self.prev_watchers == 1 {
                out.push(Effect::WantPrev(true));
            }
        }
        let response = pb::WatchResponse { header, watch_id: id, created: true, ..Default::default() };
        self.send(stream, response, out);
        Ok(())
    }

    fn cancel(&mut self, stream: StreamId, id: i64, out: &mut Vec<Effect>) {
        let known =
            self.remove(stream, id, out) || self.streams.get_mut(&stream).is_some_and(|s| s.compacted.remove(&id));
        if known {
            let response = pb::WatchResponse {
                header: Some(self.header(self.revision)),
                watch_id: id,
                canceled: true,
                ..Default::default()
            };
            self.send(stream, response, out);
        }
    }

    fn remove(&mut self, stream: StreamId, id: i64, out: &mut Vec<Effect>) -> bool {
        let Some(w) = self.streams.get_mut(&stream).and_then(|s| s.watchers.remove(&id)) else { return false };
        self.index.remove(&w.key, &w.end, (stream, id));
        self.behind.remove((w.next, (stream, id)));
        if w.prev_kv {
            self.prev_watchers -= 1;
            if self.prev_watchers == 0 {
                out.push(Effect::WantPrev(false));
            }
        }
        true
    }

    fn close(&mut self, stream: StreamId, out: &mut Vec<Effect>) {
        let ids: Vec<i64> = self.streams.get(&stream).map(|s| s.watchers.keys().copied().collect()).unwrap_or_default();
        for id in ids {
            self.remove(stream, id, out);
        }
        self.streams.remove(&stream);
        self.behind.room(stream, true);
    }

    /// Answered only when every watcher of the stream has been given everything up to the present, and when there is
    /// room: who doesn't read is not told.
    fn progress(&mut self, stream: StreamId, out: &mut Vec<Effect>) {
        let revision = self.revision;
        let Some(s) = self.streams.get(&stream) else { return };
        if s.has_room() && !s.watchers.is_empty() && s.watchers.values().all(|w| w.is_at(revision)) {
            let response =
                pb::WatchResponse { header: Some(self.header(revision)), watch_id: -1, ..Default::default() };
            self.send(stream, response, out);
        }
    }

    fn tick(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        let revision = self.revision;
        let mut told = Vec::new();
        for (stream, s) in &mut self.streams {
            told.extend(s.tick(now_ms, revision).into_iter().map(|id| (*stream, id)));
        }
        for (stream, watch_id) in told {
            let response = pb::WatchResponse { header: Some(self.header(revision)), watch_id, ..Default::default() };
            self.send(stream, response, out);
        }
    }

    // ---- the present -----------------------------------------------------------------------------------------

    fn publish(&mut self, revision: i64, term: u64, changes: &[Change], out: &mut Vec<Effect>) {
        self.term = term;
        for change in changes {
            self.revision = self.revision.max(change.revision);
            let hits = self.interested(change);
            let mut last = None;
            for hits in hits.chunk_by(|((a, _), _), ((b, _), _)| a == b) {
                self.offer(hits, change, &mut last, out);
            }
        }
        self.revision = self.revision.max(revision);
    }

    /// Who watches which of the change's events, by watcher. Each pair is needed to tell them apart without comparing
    /// all events to all watchers; it is small beside the event that the watcher is then given.
    fn interested(&mut self, change: &Change) -> Vec<Hit> {
        let mut hits = Vec::new();
        for (n, event) in change.events.iter().enumerate() {
            self.visits += self.index.find(&event.kv().key, |watcher| hits.push((watcher, n)));
        }
        hits.sort_unstable();
        hits
    }

    /// Gives a stream's synced watchers their events of one revision, or leaves them behind at that revision. `last` is
    /// what the watcher before was given: mostly it is the same.
    fn offer(&mut self, hits: &[Hit], change: &Change, last: &mut Option<Seen>, out: &mut Vec<Effect>) {
        let Some(&((stream, _), _)) = hits.first() else { return };
        let header = self.header(change.revision);
        let Some(s) = self.streams.get_mut(&stream) else { return };
        let (mut burst, mut fragmented): (Option<Burst>, _) = (None, Vec::new());
        for hits in hits.chunk_by(|(a, _), (b, _)| a == b) {
            let Some(Offered { id, seen, fragment }) = take_up(s, &mut self.behind, hits, change, last) else {
                continue;
            };
            if fragment {
                s.reserved += 1;
                fragmented.push((id, seen));
                continue;
            }
            self.events += seen.len() as u64;
            match &mut burst {
                Some(burst) if Arc::ptr_eq(&burst.events, &seen) => {
                    s.wait(0);
                    burst.watch_ids.push(id);
                }
                _ => {
                    s.wait(seen.bytes());
                    let next = Burst { header, watch_ids: vec![id], events: seen };
                    out.extend(burst.replace(next).map(|burst| Effect::SendBurst { stream, burst }));
                }
            }
        }
        out.extend(burst.map(|burst| Effect::SendBurst { stream, burst }));
        if !s.has_room() {
            self.behind.room(stream, false);
        }
        // Each has its place, and may need more.
        s.reserved = 0;
        for (id, seen) in fragmented {
            self.deliver((stream, id), seen.to_vec(), change.revision, false, out);
        }
    }

    /// `shared`: keys and values wait in the stream's outbox already, for another watcher.
    fn deliver(
        &mut self,
        (stream, watch_id): WatcherId,
        events: Vec<api::pb::mvccpb::Event>,
        revision: i64,
        shared: bool,
        out: &mut Vec<Effect>,
    ) {
        const FRAGMENT_ABOVE: usize = 512 << 10;
        self.events += events.len() as u64;
        let limit = self.config.max_request_bytes + FRAGMENT_ABOVE;
        let response =
            pb::WatchResponse { header: Some(self.header(revision)), watch_id, events, ..Default::default() };
        let Some(w) = self.streams.get_mut(&stream).and_then(|s| s.watchers.get_mut(&watch_id)) else { return };
        w.active = true;
        for part in w.split(response, limit) {
            let bytes = if shared { size_of_val(part.events.as_slice()) } else { bytes_of(&part.events) };
            self.send_counted(stream, part, bytes, out);
        }
    }

    // ---- the past --------------------------------------------------------------------------------------------

    fn resync(&mut self, revision: i64, term: u64) {
        let before = self.revision;
        self.term = term;
        self.revision = self.revision.max(revision);
        if failpoint::mutant!("gapForgotten") {
            return;
        }
        for (stream, s) in &mut self.streams {
            for (id, w) in &mut s.watchers {
                // A synced watcher was given everything up to what the hub had seen.
                if w.synced {
                    w.next = w.next.max(if failpoint::mutant!("eventsDoubled") { before } else { before + 1 });
                    if w.next <= self.revision {
                        w.synced = false;
                        self.behind.insert((w.next, (*stream, *id)));
                    }
                }
            }
        }
    }

    /// Asks for one shared read for watchers that are behind and have room.
    fn read_history(&mut self, out: &mut Vec<Effect>) {
        if self.reading {
            return;
        }
        let chosen = self.behind.choose(self.revision);
        let Some((from, _)) = chosen.first().copied() else { return };
        let mut prev = false;
        for (_, (stream, id)) in &chosen {
            if let Some(w) = self.streams.get_mut(stream).and_then(|s| s.watchers.get_mut(id)) {
                w.reading = true;
                prev |= w.prev_kv;
            }
        }
        let watchers = chosen.into_iter().map(|(_, watcher)| watcher).collect();
        self.reading = true;
        out.push(Effect::ReadHistory { job: HistoryJob { watchers, from, prev } });
    }

    fn catch_up(&mut self, read: &HistoryResult, out: &mut Vec<Effect>) {
        self.reading = false;
        let mut served = BTreeSet::new();
        for watcher in &read.watchers {
            self.catch_up_one(*watcher, read, &mut served, out);
        }
    }

    /// `served`: streams that hold what was read.
    fn catch_up_one(
        &mut self,
        watcher: WatcherId,
        read: &HistoryResult,
        served: &mut BTreeSet<StreamId>,
        out: &mut Vec<Effect>,
    ) {
        let (stream, id) = watcher;
        let Some(s) = self.streams.get_mut(&stream) else { return };
        let room = s.has_room();
        // `reading` is off for a watcher that took over the id of one that was cancelled meanwhile.
        let Some(w) = s.watchers.get_mut(&id) else { return };
        if !std::mem::replace(&mut w.reading, false) || !room {
            return;
        }
        if w.next < read.compact_revision {
            return self.cancel_compacted(watcher, read.compact_revision, out);
        }
        if w.next > read.covered {
            return;
        }
        let mut events = Vec::new();
        for event in read.changes.iter().filter(|c| c.revision >= w.next).flat_map(|c| c.events.iter()) {
            if w.wants(event) {
                // A read for others did not look for previous values; it will be read again for this one.
                let Some(event) = w.present(event) else { return };
                events.push(event);
            }
        }
        self.behind.remove((w.next, watcher));
        w.next = read.covered + 1;
        w.synced = read.covered >= self.revision;
        if !w.synced {
            self.behind.insert((w.next, watcher));
        }
        if !events.is_empty() {
            self.deliver(watcher, events, read.revision, !served.insert(stream), out);
        }
    }

    fn cancel_compacted(&mut self, (stream, id): WatcherId, compact_revision: i64, out: &mut Vec<Effect>) {
        self.remove(stream, id, out);
        if let Some(s) = self.streams.get_mut(&stream) {
            s.compacted.insert(id);
        }
        let response = pb::WatchResponse {
            header: Some(self.header(0)),
            watch_id: id,
            canceled: true,
            compact_revision,
            ..Default::default()
        };
        self.send(stream, response, out);
    }
}

/// What one watcher of the stream is to be given of the change; `None` when nothing, or later.
fn take_up(
    s: &mut Stream,
    behind: &mut Laggards,
    hits: &[Hit],
    change: &Change,
    last: &mut Option<Seen>,
) -> Option<Offered> {
    let &(watcher, _) = hits.first()?;
    let room = s.has_room();
    let w = s.watchers.get_mut(&watcher.1)?;
    if !w.synced || w.next > change.revision {
        return None;
    }
    let wanted = || hits.iter().map(|(_, n)| *n).filter(|n| change.events.get(*n).is_some_and(|e| w.wants(e)));
    wanted().next()?;
    let seen = match last {
        _ if !room => None,
        Some(last) if last.prev_kv == w.prev_kv && wanted().eq(last.numbers.iter().copied()) => {
            Some(last.events.clone())
        }
        _ => {
            let list = wanted().filter_map(|n| change.events.get(n)).map(|e| w.present(e)).collect::<Option<_>>();
            list.map(|list| {
                let events = Events::new(list);
                *last = Some(Seen { prev_kv: w.prev_kv, numbers: wanted().collect(), events: events.clone() });
                events
            })
        }
    };
    let Some(seen) = seen else {
        w.next = change.revision;
        w.synced = false;
        behind.insert((w.next, watcher));
        return None;
    };
    w.next = change.revision + 1;
    w.active = true;
    let fragment = w.fragment;
    Some(Offered { id: watcher.1, seen, fragment })
}
