//! Groups of watchers of the same keys, and the watches of the cluster that feed them.

use super::stream::{Offered, Outbox};
use api::pb::etcdserverpb as pb;
use api::pb::mvccpb::{Event, event::EventType};
use bytes::Bytes;
use client::{Client, Error, Namespace, Watch};
use parking_lot::Mutex;
use prost::Message as _;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Clients that ask for it get larger responses in pieces: etcd's `--max-request-bytes` and what gRPC may add.
const FRAGMENT_BYTES: usize = 2 << 20;

/// What watchers have to have in common to share a watch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    pub key: Bytes,
    pub end: Bytes,
    pub prev_kv: bool,
    pub leader_required: bool,
}

/// A watcher of a client.
#[derive(Clone, Debug)]
pub struct Watcher {
    pub outbox: Arc<Outbox>,
    /// Its id on the client's stream.
    pub id: i64,
    /// The first revision that it has not had; 0: it begins when it is created.
    pub next: i64,
    pub created: bool,
    pub wants_progress: bool,
    pub takes_fragments: bool,
    pub filters: Vec<i32>,
    pub token: Option<String>,
}

/// All watches of a proxy.
#[derive(Debug)]
pub struct Watches {
    client: Client,
    namespace: Option<Namespace>,
    hubs: Mutex<HashMap<Range, Arc<Hub>>>,
}

/// The groups of one range.
#[derive(Debug)]
struct Hub {
    range: Range,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    groups: BTreeMap<u64, Group>,
    begun: u64,
    /// No longer among the hubs.
    gone: bool,
}

#[derive(Debug)]
struct Group {
    members: Vec<Watcher>,
    /// The first revision that is still to be delivered; 0: not known before the watch is created.
    next: i64,
    created: bool,
    /// Nothing of the past is to come.
    is_current: bool,
    ask_progress: Arc<Notify>,
    pump: AbortHandle,
}

impl Drop for Group {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

impl Watches {
    /// Watches of the cluster that `client` asks.
    pub fn new(client: Client, namespace: Option<Namespace>) -> Arc<Watches> {
        Arc::new(Watches { client, namespace, hubs: Mutex::default() })
    }

    /// Gives a watcher a group of its own.
    pub fn begin(self: &Arc<Self>, range: &Range, watcher: Watcher) {
        let mut hubs = self.hubs.lock();
        let hub = hubs
            .entry(range.clone())
            .or_insert_with(|| Arc::new(Hub { range: range.clone(), state: Mutex::default() }));
        let hub = hub.clone();
        let mut state = hub.state.lock();
        drop(hubs);
        debug_assert!(!state.gone, "hubs that are gone are not found");
        self.begin_group(&hub, &mut state, watcher);
    }

    fn begin_group(self: &Arc<Self>, hub: &Arc<Hub>, state: &mut State, watcher: Watcher) {
        // Who was canceled meanwhile does not begin again.
        if !watcher.outbox.has(watcher.id) {
            return;
        }
        state.begun += 1;
        let (number, ask_progress) = (state.begun, Arc::new(Notify::new()));
        let pump = Pump { watches: self.clone(), hub: hub.clone(), number, ask_progress: ask_progress.clone() };
        let watch = self.watch(&hub.range, &watcher);
        let pump = tokio::spawn(pump.run(watch)).abort_handle();
        let (next, is_current) = (watcher.next, watcher.next == 0);
        let group = Group { members: vec![watcher], next, created: false, is_current, ask_progress, pump };
        state.groups.insert(number, group);
    }

    fn watch(&self, range: &Range, watcher: &Watcher) -> Watch {
        let client = self.client.with_token(watcher.token.clone());
        let client = if range.leader_required { client.with_leader_required() } else { client };
        let mut request = pb::WatchCreateRequest {
            key: range.key.clone(),
            range_end: range.end.clone(),
            start_revision: watcher.next,
            progress_notify: true,
            prev_kv: range.prev_kv,
            ..Default::default()
        };
        if let Some(namespace) = &self.namespace {
            namespace.watch(&mut request);
        }
        client.watch(request)
    }

    /// Ends a watcher.
    pub fn end(&self, range: &Range, outbox: &Arc<Outbox>, id: i64) {
        let Some(hub) = self.hubs.lock().get(range).cloned() else { return };
        let mut state = hub.state.lock();
        for group in state.groups.values_mut() {
            group.members.retain(|member| !(member.id == id && Arc::ptr_eq(&member.outbox, outbox)));
        }
        state.groups.retain(|_, group| !group.members.is_empty());
        drop(state);
        self.tidy(&hub);
    }

    /// Asks the cluster how far a watcher's group is; the answer reaches the watcher's outbox.
    pub fn ask_progress(&self, range: &Range, outbox: &Arc<Outbox>, id: i64) {
        let Some(hub) = self.hubs.lock().get(range).cloned() else { return };
        let state = hub.state.lock();
        let own = |member: &Watcher| member.id == id && Arc::ptr_eq(&member.outbox, outbox);
        if let Some(group) = state.groups.values().find(|group| group.members.iter().any(own)) {
            group.ask_progress.notify_one();
        }
    }

    /// How many watchers share a watch with another one.
    pub fn coalesced(&self) -> usize {
        let hubs: Vec<Arc<Hub>> = self.hubs.lock().values().cloned().collect();
        let shared = |hub: &Arc<Hub>| -> usize {
            hub.state.lock().groups.values().map(|group| group.members.len().saturating_sub(1)).sum()
        };
        hubs.iter().map(shared).sum()
    }

    fn tidy(&self, hub: &Arc<Hub>) {
        let mut hubs = self.hubs.lock();
        let mut state = hub.state.lock();
        if state.groups.is_empty() && !state.gone {
            state.gone = true;
            hubs.remove(&hub.range);
        }
    }

    /// What the cluster said to a group. Whether it goes on.
    fn deliver(self: &Arc<Self>, hub: &Arc<Hub>, number: u64, mut response: pb::WatchResponse) -> bool {
        if let Some(namespace) = &self.namespace {
            namespace.watched(&mut response);
        }
        let mut state = hub.state.lock();
        let Some(group) = state.groups.get_mut(&number) else { return false };
        if response.canceled {
            let members = std::mem::take(&mut group.members);
            state.groups.remove(&number);
            match <[Watcher; 1]>::try_from(members) {
                Ok([only]) => only.cancel(&response),
                // The cluster has refused one of them: it says so to each on its own.
                Err(members) => members.into_iter().for_each(|member| self.begin_group(hub, &mut state, member)),
            }
            return false;
        }
        let lagging = group.deliver(&response);
        for watcher in lagging {
            watcher.outbox.clone().set_aside(hub.range.clone(), watcher);
        }
        if group.members.is_empty() {
            state.groups.remove(&number);
            return false;
        }
        state.join(number)
    }

    /// A group's watch was refused as a whole. Those who share it are told each by a watch of their own.
    fn fail(self: &Arc<Self>, hub: &Arc<Hub>, number: u64, error: Error) {
        let mut state = hub.state.lock();
        let Some(mut group) = state.groups.remove(&number) else { return };
        let members = std::mem::take(&mut group.members);
        match <[Watcher; 1]>::try_from(members) {
            Ok([only]) => only.outbox.fail(error.into()),
            Err(members) => members.into_iter().for_each(|member| self.begin_group(hub, &mut state, member)),
        }
    }
}

impl State {
    /// Moves the members of a group that has come to the present into one that was there before. Whether the group is
    /// still there.
    fn join(&mut self, number: u64) -> bool {
        let Some(group) = self.groups.get(&number).filter(|group| group.created) else { return true };
        let next = group.next;
        let fits = |(other, candidate): &(&u64, &Group)| {
            **other != number && candidate.created && candidate.is_current && candidate.next <= next
        };
        let best = self.groups.iter().filter(fits).max_by_key(|(_, candidate)| candidate.members.len());
        let Some(best) = best.map(|(best, _)| *best) else { return true };
        let members = self.groups.remove(&number).map(|mut group| std::mem::take(&mut group.members));
        if let (Some(members), Some(group)) = (members, self.groups.get_mut(&best)) {
            let asked = members.iter().any(|member| member.outbox.awaits_progress_of(member.id));
            group.members.extend(members);
            if asked {
                group.ask_progress.notify_one();
            }
        }
        false
    }
}

impl Group {
    /// Hands the response to all members. Answers those whose outbox had no room: they are no longer among them.
    fn deliver(&mut self, response: &pb::WatchResponse) -> Vec<Watcher> {
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        let is_progress = !response.created && response.events.is_empty();
        if response.created {
            self.created = true;
            self.next = if self.next == 0 { revision + 1 } else { self.next };
        } else if is_progress {
            self.is_current = true;
            self.next = self.next.max(revision + 1);
        } else if let Some(last) = last_revision(&response.events) {
            self.next = self.next.max(last + 1);
            // Replayed history has the newest revision in its header.
            self.is_current |= last == revision;
            crate::proxy::metrics::events_coalesced(self.members.len().saturating_sub(1));
        }
        let mut lagging = Vec::new();
        self.members.retain_mut(|member| {
            let taken = member.take(response, revision, is_progress);
            if let Offered::Full = taken {
                lagging.push(member.clone());
            }
            matches!(taken, Offered::Taken)
        });
        // Without a word of the cluster nobody would know that there is no more history to come.
        let asked = self.members.iter().any(|member| member.outbox.awaits_progress_of(member.id));
        if response.created && (!self.is_current || asked) {
            self.ask_progress.notify_one();
        }
        lagging
    }
}

fn last_revision(events: &[Event]) -> Option<i64> {
    events.iter().filter_map(|event| event.kv.as_ref()).map(|kv| kv.mod_revision).max()
}

impl Watcher {
    fn take(&mut self, response: &pb::WatchResponse, revision: i64, is_progress: bool) -> Offered {
        if response.created {
            return self.begin(response, revision);
        }
        if is_progress {
            return self.take_progress(response, revision);
        }
        let fresh = |event: &&Event| event.kv.as_ref().is_some_and(|kv| kv.mod_revision >= self.next);
        let wanted = |event: &&Event| !self.filters.iter().any(|filter| is_filtered(*filter, event));
        let events: Vec<Event> = response.events.iter().filter(fresh).filter(wanted).cloned().collect();
        let next = last_revision(&response.events).map_or(0, |last| last + 1);
        if !events.is_empty() {
            let told = pb::WatchResponse { header: response.header, watch_id: self.id, events, ..Default::default() };
            let pieces = if self.takes_fragments { fragments(told) } else { vec![told] };
            match self.outbox.offer_all(self.id, pieces) {
                Offered::Taken => {}
                refused => return refused,
            }
        }
        self.next = self.next.max(next);
        Offered::Taken
    }

    /// A watch that is opened anew is created once more; clients hear of it once.
    fn begin(&mut self, response: &pb::WatchResponse, revision: i64) -> Offered {
        if self.created {
            return Offered::Taken;
        }
        let told =
            pb::WatchResponse { header: response.header, watch_id: self.id, created: true, ..Default::default() };
        let taken = self.outbox.offer(told);
        if let Offered::Taken = taken {
            self.created = true;
            self.next = if self.next == 0 { revision + 1 } else { self.next };
        }
        taken
    }

    fn take_progress(&mut self, response: &pb::WatchResponse, revision: i64) -> Offered {
        // A watch of the future is told of progress when the future has come, as by a member.
        let is_early = self.next > revision + 1;
        self.next = self.next.max(revision + 1);
        // What was asked for is told of all watchers at once.
        if self.wants_progress && response.watch_id >= 0 {
            let told = pb::WatchResponse { header: response.header, watch_id: self.id, ..Default::default() };
            match self.outbox.offer(told) {
                Offered::Taken => {}
                refused => return refused,
            }
        }
        if !is_early {
            self.outbox.note_progress(self.id, response.header.as_ref());
        }
        Offered::Taken
    }

    /// The cluster ends the watch.
    fn cancel(self, response: &pb::WatchResponse) {
        let told = pb::WatchResponse {
            header: response.header,
            // As in etcd: one that never was has no id.
            watch_id: if self.created { self.id } else { response.watch_id.min(self.id) },
            created: response.created && !self.created,
            canceled: true,
            compact_revision: response.compact_revision,
            cancel_reason: response.cancel_reason.clone(),
            ..Default::default()
        };
        self.outbox.end_with(self.id, told);
    }
}

/// The response in pieces of at most [`FRAGMENT_BYTES`], an event at least (etcd `sendFragments`).
fn fragments(mut response: pb::WatchResponse) -> Vec<pb::WatchResponse> {
    if response.encoded_len() < FRAGMENT_BYTES || response.events.len() < 2 {
        return vec![response];
    }
    let mut events = std::mem::take(&mut response.events).into_iter().peekable();
    let mut pieces = Vec::new();
    while events.peek().is_some() {
        let mut piece = pb::WatchResponse { fragment: true, ..response.clone() };
        let mut size = piece.encoded_len();
        while let Some(event) = events.next_if(|event| {
            // With a tag and a length.
            let length = event.encoded_len();
            size += 1 + prost::length_delimiter_len(length) + length;
            piece.events.is_empty() || size < FRAGMENT_BYTES
        }) {
            piece.events.push(event);
        }
        piece.fragment = events.peek().is_some();
        pieces.push(piece);
    }
    pieces
}

fn is_filtered(filter: i32, event: &Event) -> bool {
    use pb::watch_create_request::FilterType;
    match FilterType::try_from(filter) {
        Ok(FilterType::Noput) => event.r#type() == EventType::Put,
        Ok(FilterType::Nodelete) => event.r#type() == EventType::Delete,
        Err(_) => false,
    }
}

/// Feeds a group for as long as it has members.
struct Pump {
    watches: Arc<Watches>,
    hub: Arc<Hub>,
    number: u64,
    ask_progress: Arc<Notify>,
}

impl Pump {
    async fn run(self, mut watch: Watch) {
        loop {
            let response = tokio::select! {
                response = watch.next() => response,
                () = self.ask_progress.notified() => {
                    watch.request_progress().await;
                    continue;
                }
            };
            let goes_on = match response {
                Ok(Some(response)) => self.watches.deliver(&self.hub, self.number, response),
                // Canceled before; nothing more is to come.
                Ok(None) => false,
                Err(error) => {
                    self.watches.fail(&self.hub, self.number, error);
                    false
                }
            };
            if !goes_on {
                break;
            }
        }
        self.watches.tidy(&self.hub);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::pb::mvccpb::KeyValue;

    fn event(size: usize) -> Event {
        let kv = KeyValue { key: "k".into(), value: vec![0; size].into(), ..Default::default() };
        Event { kv: Some(kv), ..Default::default() }
    }

    #[test]
    fn large_responses_come_in_pieces_that_lose_nothing() {
        for sizes in [vec![10, 10], vec![3 << 20], vec![1 << 20; 5], vec![3 << 20, 10, 3 << 20, 1 << 20, 1 << 20]] {
            let events: Vec<Event> = sizes.iter().map(|size| event(*size)).collect();
            let whole = pb::WatchResponse { watch_id: 7, events: events.clone(), ..Default::default() };
            let pieces = fragments(whole);
            let last = pieces.len() - 1;
            for (n, piece) in pieces.iter().enumerate() {
                assert_eq!((piece.watch_id, piece.fragment), (7, n < last));
                assert!(piece.events.len() == 1 || piece.encoded_len() < FRAGMENT_BYTES, "{sizes:?}");
            }
            let all: Vec<Event> = pieces.into_iter().flat_map(|piece| piece.events).collect();
            assert_eq!(all, events);
        }
        assert_eq!(fragments(pb::WatchResponse { events: vec![event(1 << 20); 5], ..Default::default() }).len(), 5);
    }
}
