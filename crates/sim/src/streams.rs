//! The watch hub's room: the shipping hub behind a bounded inbox, as the driver feeds it, and clients that read its
//! streams at their own pace, come back after their stream ended, and check every response.

use crate::model::{Auth, Model};
use crate::ops::{self, Draw};
use crate::rng::Rng;
use crate::watchers::{Spec, Watcher};
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use pb::watch_request::RequestUnion;
use server::Who;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use store::watch::{Config, Effect, HistoryJob, HistoryResult, Hub, Input, OUTBOX_MAX, StreamId};
use store::{Applied, Change};

/// As the driver: the hub keeps to `OUTBOX_MAX` event responses, answers to requests come on top.
const CHANNEL: usize = OUTBOX_MAX + 64;
/// Watchers that a client keeps at once.
const WATCHERS_MAX: usize = 6;

/// What becomes of a watch that somebody asks for now.
pub struct Permission {
    /// By the shipping check.
    pub seen: Result<(), api::Error>,
    /// By the model.
    pub expected: Result<(), api::Error>,
    /// By whose rules.
    pub auth: Rc<Auth>,
}

/// Says so.
pub type Permit<'a> = &'a dyn Fn(&Who, &pb::WatchCreateRequest) -> Permission;

/// Where there are no users.
pub fn anybody(_: &Who, _: &pb::WatchCreateRequest) -> Permission {
    Permission { seen: Ok(()), expected: Ok(()), auth: Rc::default() }
}

/// One client's stream.
pub struct Client {
    stream: StreamId,
    who: Who,
    /// What the network holds on its way to the hub.
    requests: VecDeque<Input>,
    /// What the transport holds on its way to the client.
    responses: VecDeque<pb::WatchResponse>,
    /// Responses that the hub counts as not taken.
    outstanding: usize,
    /// Asked, in order, and not answered.
    creating: VecDeque<Spec>,
    /// Of those of them that the hub has seen.
    permissions: VecDeque<Permission>,
    watchers: BTreeMap<i64, Watcher>,
    /// Cancelled by the server; the ids stay taken.
    ended: BTreeSet<i64>,
    /// Reads once in so many chances.
    slowness: u64,
}

/// Everything about watching.
pub struct Streams {
    hub: Hub,
    inbox: VecDeque<Input>,
    /// Places in the inbox; beyond it there is a gap.
    capacity: usize,
    gap: bool,
    job: Option<HistoryJob>,
    clients: Vec<Client>,
    next_stream: u64,
    pub want_prev: Option<bool>,
    progress_interval_ms: u64,
    pub delivered: u64,
    pub gaps: u64,
    pub compacted: u64,
    pub forbidden: u64,
}

fn new_hub(applied: &Applied, progress_interval_ms: u64) -> Hub {
    let (header, max_request_bytes) = (applied.header(), 1 << 10);
    Hub::new(Config {
        member_id: header.member_id,
        cluster_id: header.cluster_id,
        revision: applied.revision(),
        term: applied.term(),
        max_request_bytes,
        progress_interval_ms,
    })
}

impl Streams {
    pub fn new(rng: &mut Rng, clients: u64, applied: &Applied) -> Streams {
        let progress_interval_ms = 300 + rng.below(2000);
        let mut streams = Streams {
            hub: new_hub(applied, progress_interval_ms),
            inbox: VecDeque::new(),
            capacity: 2 + rng.below(20) as usize,
            gap: false,
            job: None,
            clients: Vec::new(),
            next_stream: 0,
            want_prev: None,
            progress_interval_ms,
            delivered: 0,
            gaps: 0,
            compacted: 0,
            forbidden: 0,
        };
        for _ in 0..clients {
            let slowness = [1, 1, 2, 30][rng.below(4) as usize];
            streams.clients.push(Client {
                stream: StreamId(0),
                who: ops::root(),
                requests: VecDeque::new(),
                responses: VecDeque::new(),
                outstanding: 0,
                creating: VecDeque::new(),
                permissions: VecDeque::new(),
                watchers: BTreeMap::new(),
                ended: BTreeSet::new(),
                slowness,
            });
        }
        (0..streams.clients.len()).for_each(|at| streams.connect(at, 0));
        streams
    }

    /// The member came back: a new hub, and every client opens its stream again.
    pub fn restart(&mut self, applied: &Applied, now_ms: u64) {
        self.hub = new_hub(applied, self.progress_interval_ms);
        self.inbox.clear();
        (self.gap, self.job, self.want_prev) = (false, None, None);
        (0..self.clients.len()).for_each(|at| self.connect(at, now_ms));
    }

    /// Opens a new stream for the client, whose watchers go on where they were.
    fn connect(&mut self, at: usize, now_ms: u64) {
        self.next_stream += 1;
        let stream = StreamId(self.next_stream);
        let client = &mut self.clients[at];
        client.stream = stream;
        client.requests.clear();
        client.responses.clear();
        client.outstanding = 0;
        client.ended.clear();
        client.permissions.clear();
        client.requests.push_back(Input::Open { stream, now_ms, jitter_ms: stream.0 % 30 });
        let lost = std::mem::take(&mut client.creating).into_iter();
        let resumed = std::mem::take(&mut client.watchers).into_values().map(|w| {
            let request = pb::WatchCreateRequest { start_revision: w.cursor, ..w.spec.request };
            Spec { request }
        });
        let specs: Vec<Spec> = resumed.chain(lost).collect();
        for mut spec in specs {
            spec.request.watch_id = 0;
            self.create(at, spec);
        }
    }

    fn create(&mut self, at: usize, spec: Spec) {
        self.request(at, RequestUnion::CreateRequest(spec.request.clone()));
        self.clients[at].creating.push_back(spec);
    }

    fn request(&mut self, at: usize, union: RequestUnion) {
        let client = &mut self.clients[at];
        let request = pb::WatchRequest { request_union: Some(union) };
        client.requests.push_back(Input::Request { stream: client.stream, request, permitted: Ok(()) });
    }

    /// A client goes elsewhere, with all its watchers.
    pub fn leave(&mut self, rng: &mut Rng) -> Option<Client> {
        let clients = self.clients.len() as u64;
        let client = (clients > 0).then(|| self.clients.swap_remove(rng.below(clients) as usize))?;
        self.inbox.push_back(Input::Close { stream: client.stream });
        Some(client)
    }

    /// A client comes from elsewhere; its watchers go on where they were.
    pub fn welcome(&mut self, client: Client, now_ms: u64) {
        self.clients.push(client);
        self.connect(self.clients.len() - 1, now_ms);
    }

    // ---- the core's end, as `driver::hub::Feed` ---------------------------------------------------------------

    pub fn publish(&mut self, applied: &Applied, changes: Vec<Change>) {
        if !self.gap {
            let input = Input::Published { revision: applied.revision(), term: applied.term(), changes };
            self.try_send(input);
        }
    }

    pub fn mend(&mut self, applied: &Applied) {
        if self.gap {
            self.try_send(Input::Resync { revision: applied.revision(), term: applied.term() });
        }
    }

    /// A leader's database took the place of the member's: what happened in between was not published.
    pub fn lose(&mut self) {
        self.gap = true;
    }

    fn try_send(&mut self, input: Input) {
        let full = self.inbox.len() >= self.capacity;
        self.gaps += u64::from(full && !self.gap);
        self.gap = full;
        if !full {
            self.inbox.push_back(input);
        }
    }

    // ---- the hub's thread -------------------------------------------------------------------------------------

    /// Handles up to `n` inputs, then gives credit and tells the time.
    pub fn pump(&mut self, n: usize, now_ms: u64, permit: Permit<'_>) {
        let mut effects = Vec::new();
        for client in &mut self.clients {
            while self.inbox.len() < self.capacity
                && let Some(input) = client.requests.pop_front()
            {
                self.inbox.push_back(input);
            }
        }
        for _ in 0..n {
            let Some(mut input) = self.inbox.pop_front() else { break };
            self.permit(&mut input, permit);
            self.hub.handle(input, &mut effects);
            self.carry_out(&mut effects, now_ms);
        }
        for at in 0..self.clients.len() {
            let client = &mut self.clients[at];
            let taken = client.outstanding.saturating_sub(client.responses.len());
            client.outstanding -= taken;
            if taken > 0 {
                self.hub.handle(Input::Credit { stream: client.stream, n: taken }, &mut effects);
            }
        }
        self.hub.handle(Input::Tick { now_ms }, &mut effects);
        self.carry_out(&mut effects, now_ms);
    }

    /// As the driver's hub: who may watch is looked up when the request is handled.
    fn permit(&mut self, input: &mut Input, permit: Permit<'_>) {
        let Input::Request { stream, request, permitted } = input else { return };
        let Some(RequestUnion::CreateRequest(r)) = &request.request_union else { return };
        let Some(client) = self.clients.iter_mut().find(|client| client.stream == *stream) else { return };
        let permission = permit(&client.who, r);
        *permitted = permission.seen.clone();
        client.permissions.push_back(permission);
    }

    fn carry_out(&mut self, effects: &mut Vec<Effect>, now_ms: u64) {
        for effect in std::mem::take(effects) {
            match effect {
                Effect::Send { stream, response } => self.send(stream, response, now_ms),
                Effect::SendBurst { stream, burst } => {
                    burst.responses().for_each(|response| self.send(stream, response, now_ms));
                }
                Effect::ReadHistory { job } => {
                    assert!(self.job.is_none(), "the hub asks for one history read at a time");
                    self.job = Some(job);
                }
                Effect::WantPrev(on) => self.want_prev = Some(on),
            }
        }
    }

    fn send(&mut self, stream: StreamId, response: pb::WatchResponse, now_ms: u64) {
        let Some(at) = self.clients.iter().position(|c| c.stream == stream) else { return };
        let client = &mut self.clients[at];
        if client.responses.len() >= CHANNEL {
            return self.disconnect(at, now_ms);
        }
        client.outstanding += 1;
        client.responses.push_back(response);
    }

    /// The stream ends without a word, and the client comes back.
    fn disconnect(&mut self, at: usize, now_ms: u64) {
        // The end takes the way of all inputs; the driver waits for room.
        self.inbox.push_back(Input::Close { stream: self.clients[at].stream });
        self.connect(at, now_ms);
    }

    /// The history read that waits, to be run on the newest state.
    pub fn take_job(&mut self) -> Option<HistoryJob> {
        self.job.take()
    }

    pub fn history(&mut self, result: HistoryResult) {
        self.inbox.push_back(Input::HistoryRead(result));
    }

    // ---- clients ----------------------------------------------------------------------------------------------

    /// A client does something: watches, cancels, asks for progress, leaves.
    pub fn act(&mut self, draw: &mut Draw<'_>, now_ms: u64) {
        if self.clients.is_empty() {
            return;
        }
        let at = draw.rng.below(self.clients.len() as u64) as usize;
        let client = &self.clients[at];
        match draw.rng.below(20) {
            0..=9 if client.watchers.len() + client.creating.len() < WATCHERS_MAX => {
                let spec = draw_spec(draw);
                self.create(at, spec);
            }
            0..=12 => self.request(at, RequestUnion::ProgressRequest(pb::WatchProgressRequest {})),
            13..=18 => {
                let ids: Vec<i64> = client.watchers.keys().chain(&client.ended).copied().chain([99]).collect();
                let watch_id = ids[draw.rng.below(ids.len() as u64) as usize];
                self.request(at, RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id }));
            }
            _ => {
                if draw.auth {
                    self.clients[at].who = draw.who();
                }
                self.disconnect(at, now_ms);
            }
        }
    }

    /// Clients take what their pace allows and check it.
    pub fn read(&mut self, rng: &mut Rng, model: &Model) -> Result<(), String> {
        for at in 0..self.clients.len() {
            if rng.one_in(self.clients[at].slowness) {
                self.read_all(at, model)?;
            }
        }
        Ok(())
    }

    fn read_all(&mut self, at: usize, model: &Model) -> Result<(), String> {
        while let Some(response) = self.clients[at].responses.pop_front() {
            let stream = self.clients[at].stream;
            self.take(at, response, model).map_err(|e| format!("watch stream {}: {e}", stream.0))?;
        }
        Ok(())
    }

    fn take(&mut self, at: usize, response: pb::WatchResponse, model: &Model) -> Result<(), String> {
        let client = &mut self.clients[at];
        let id = response.watch_id;
        if response.created {
            self.forbidden += u64::from(client.is_forbidden());
            return client.created(response, model);
        }
        if response.canceled {
            return self.canceled(at, &response, model);
        }
        self.delivered += response.events.len() as u64;
        let revision = response.header.as_ref().map_or(0, |h| h.revision);
        match client.watchers.get_mut(&id) {
            Some(watcher) if response.events.is_empty() => watcher.progress(revision, model),
            Some(watcher) => watcher.deliver(response, model),
            None if id == -1 && response.events.is_empty() => {
                client.watchers.values_mut().try_for_each(|w| w.progress(revision, model))
            }
            None => Err(format!("{response:?} for a watcher that is not there")),
        }
    }

    fn canceled(&mut self, at: usize, response: &pb::WatchResponse, model: &Model) -> Result<(), String> {
        let client = &mut self.clients[at];
        let id = response.watch_id;
        if response.compact_revision == 0 {
            // The answer to a cancel request, possibly of a watcher that had been cancelled already.
            return match client.watchers.remove(&id).is_some() || client.ended.remove(&id) {
                true => Ok(()),
                false => Err(format!("{response:?} for a watcher that is not there")),
            };
        }
        let watcher = client.watchers.remove(&id).ok_or(format!("{response:?} for a watcher that is not there"))?;
        watcher.compacted(response, model)?;
        client.ended.insert(id);
        self.compacted += 1;
        let request =
            pb::WatchCreateRequest { start_revision: response.compact_revision, watch_id: 0, ..watcher.spec.request };
        self.create(at, Spec { request });
        Ok(())
    }

    /// Without faults and with everyone reading, nobody is owed anything in the end. True when all is quiet.
    pub fn drain(&mut self, model: &Model, now_ms: u64, permit: Permit<'_>) -> Result<bool, String> {
        // What a client took the hub learns with the next pump, and may have held back more (seed 13079).
        loop {
            self.pump(usize::MAX, now_ms, permit);
            for at in 0..self.clients.len() {
                self.read_all(at, model)?;
            }
            if self.clients.iter().all(|client| client.outstanding == 0) {
                break;
            }
        }
        let quiet = |c: &Client| c.requests.is_empty() && c.responses.is_empty() && c.creating.is_empty();
        Ok(self.inbox.is_empty() && self.job.is_none() && !self.gap && self.clients.iter().all(quiet))
    }

    pub fn check_nothing_owed(&self, model: &Model) -> Result<(), String> {
        for client in &self.clients {
            for (id, watcher) in &client.watchers {
                if let Some(revision) = watcher.owed(model, model.revision) {
                    let stream = client.stream.0;
                    return Err(format!("watcher {id} of stream {stream} never got the events of {revision}"));
                }
            }
        }
        Ok(())
    }
}

impl Client {
    /// Watchers that it has.
    pub fn watchers(&self) -> u64 {
        self.watchers.len() as u64
    }

    /// Whether the watch whose answer comes next is not for this client.
    fn is_forbidden(&self) -> bool {
        self.permissions.front().is_some_and(|permission| permission.expected.is_err())
    }

    fn created(&mut self, response: pb::WatchResponse, model: &Model) -> Result<(), String> {
        let Some(spec) = self.creating.pop_front() else { return Err(format!("{response:?} that nobody asked for")) };
        let Some(permission) = self.permissions.pop_front() else { return Err(format!("{response:?} too early")) };
        let name = ops::name(&self.who).to_owned();
        let refused = permission.expected.is_err()
            || spec.is_refused(|id| self.watchers.contains_key(&id) || self.ended.contains(&id));
        match response.canceled {
            true if refused && response.watch_id == -1 && !response.cancel_reason.is_empty() => Ok(()),
            false if !refused && !self.watchers.contains_key(&response.watch_id) => {
                let id = response.watch_id;
                if spec.request.watch_id != 0 && spec.request.watch_id != id {
                    return Err(format!("{spec:?} was given the id {id}"));
                }
                self.watchers.insert(id, Watcher::created(spec, &response, model, (name, permission.auth))?);
                Ok(())
            }
            _ => Err(format!("{spec:?} is answered by {response:?} (to be refused: {refused})")),
        }
    }
}

fn draw_spec(draw: &mut Draw<'_>) -> Spec {
    use pb::watch_create_request::FilterType;
    let (key, range_end) = draw.span();
    let mut request = pb::WatchCreateRequest {
        key,
        range_end,
        prev_kv: draw.rng.one_in(3),
        progress_notify: draw.rng.one_in(2),
        fragment: draw.rng.one_in(4),
        watch_id: if draw.rng.one_in(6) { 1 + draw.rng.below(5) as i64 } else { 0 },
        ..pb::WatchCreateRequest::default()
    };
    if draw.rng.one_in(2) {
        (request.key, request.range_end) = (Bytes::new(), Bytes::from_static(&[0]));
    }
    request.filters = match draw.rng.below(8) {
        0 => vec![FilterType::Noput as i32],
        1 => vec![FilterType::Nodelete as i32],
        _ => Vec::new(),
    };
    let now = draw.model.revision;
    request.start_revision = match draw.rng.below(10) {
        0..=3 => 0,
        4..=7 => (now - draw.rng.below(60) as i64).max(1),
        8 => now + 1 + draw.rng.below(6) as i64,
        _ => (draw.model.compacted - draw.rng.below(3) as i64).max(-1),
    };
    Spec { request }
}
