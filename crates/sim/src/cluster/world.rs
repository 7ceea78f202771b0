//! The event loop: turns, syncs, messages, and what comes out of them.

use super::checks::leases::Clocks;
use super::checks::{raft::Terms, state};
use super::clients::Asked;
use super::history::History;
use super::net::Net;
use super::node::{Effects, Input, Node, Ticket, founder};
use super::plan::Plan;
use super::queue::Queue;
use super::{Report, Trace};
use crate::rng::Rng;
use crate::streams::{Client, Permission, Streams};
use crate::verdict::Outcome;
use api::pb::etcdserverpb as pb;
use api::raft::{Message, MessageType};
use disk::{Crash, OpenOptions};
use server::member::{CheckpointDone, JobKind, image_name};
use server::{Fatal, LogTask, Output, Request, Who, access};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use store::Applied;

/// What happens; `life` says of which process.
#[derive(Debug)]
pub enum Event {
    /// The core looks what came.
    Wake(u64, u64),
    /// A turn is over.
    Over(u64, u64, Box<Effects>),
    /// The log's writer has synced.
    Synced(u64, u64),
    /// The checkpointer writes; what it wrote is durable.
    Checkpoint(u64, u64),
    Written(u64, u64, Box<CheckpointDone>),
    /// A user's snapshot goes on.
    Piece(u64, u64),
    Arrive(u64, Box<Packet>),
    /// The machine is switched on; its disk lost what the crash says.
    Restart(u64, Crash),
    /// Watch streams and their clients do something.
    Watch(u64, u64),
    /// A member gives up waiting for another's answer to its client.
    GiveUp(u64),
    /// A client asks.
    Ask,
    /// An operator goes on with putting another member into the place of one whose data rotted.
    Replace(u64),
    /// An operator changes the cluster.
    Operate,
    /// Something breaks; something mends.
    Fault,
    Mend,
}

/// What travels between members.
#[derive(Debug)]
pub enum Packet {
    Raft(Message),
    /// A snapshot and its database.
    Image(Message, Vec<u8>),
    /// For the leader, which alone can answer.
    Ask(Ticket, Request),
    Answer {
        life: u64,
        id: u64,
        result: Outcome,
    },
    /// Of the member's own transport.
    Own(u64, Input),
}

/// How long a member waits for the leader's answer to its client.
const FORWARD_US: u64 = 7_000_000;

/// A turn and what goes before it take no longer than this.
const WAITED_US: u64 = 50_000;
/// Two databases within this come one after another.
const IN_A_ROW_US: u64 = 5_000_000;

/// Seeds of clusters are others than those of one member.
pub(super) const SALT: u64 = 0x636c_7573_7465_7273;

/// Messages that may wait for a member's core.
const INBOX_MAX: usize = 4096;

pub struct World {
    pub(super) rng: Rng,
    pub(super) plan: Plan,
    pub(super) queue: Queue<Event>,
    pub(super) net: Net,
    pub(super) nodes: BTreeMap<u64, Node>,
    /// Members that were removed, and are gone.
    pub(super) retired: BTreeSet<u64>,
    /// Members at the last entry.
    pub(super) members: (u64, Vec<pb::Member>),
    /// Membership changed at some time: old entries may be held by members that are gone.
    pub(super) reconfigured: bool,
    pub(super) history: History,
    pub(super) terms: Terms,
    /// When a leader was elected last, or a member came up: leases may have been counted anew then.
    pub(super) led_since_us: u64,
    pub(super) clocks: Clocks,
    pub(super) calls: BTreeMap<u64, Asked>,
    pub(super) next_call: u64,
    /// The last entry that any client was told of.
    pub(super) told: u64,
    /// In peace: answers there were when every member was last asked.
    pub(super) probed: (u64, u64),
    /// No more faults.
    pub(super) peace: bool,
    pub(super) report: Report,
    pub(super) trace: Trace,
}

impl World {
    pub fn new(seed: u64, trace: Trace, shape: impl FnOnce(&mut Plan)) -> World {
        let mut rng = Rng::new(seed ^ SALT);
        let mut plan = Plan::draw(&mut rng);
        shape(&mut plan);
        let net = Net::new(&plan);
        let clocks = Clocks::new(plan.drift_ppm);
        let mut world = World {
            rng,
            plan,
            queue: Queue::default(),
            net,
            nodes: BTreeMap::new(),
            retired: BTreeSet::new(),
            members: (0, Vec::new()),
            reconfigured: false,
            history: History::default(),
            terms: Terms::default(),
            led_since_us: 0,
            clocks,
            calls: BTreeMap::new(),
            next_call: 1,
            told: 0,
            probed: (0, 0),
            peace: false,
            report: Report::default(),
            trace,
        };
        world.found();
        world
    }

    /// The founders, switched on one after another.
    fn found(&mut self) {
        let plan = self.plan.clone();
        self.say(|| format!("{plan:?}"));
        // Ids as odd as real ones: neither small nor in order.
        let ids: Vec<u64> = (0..plan.members).map(|_| self.rng.draw() | 1).collect();
        let founders: Vec<_> = ids.iter().map(|id| founder(*id)).collect();
        for id in ids {
            let node = Node::new(id, founders.clone(), &mut self.rng, &plan);
            node.disk.crash_now();
            self.nodes.insert(id, node);
            let delay = self.rng.below(500_000);
            self.queue.after(delay, Event::Restart(id, Crash::Keep));
        }
        self.queue.after(2_000_000, Event::Ask);
        self.queue.after(3_000_000, Event::Fault);
        self.queue.after(4_000_000, Event::Operate);
    }

    pub(super) fn say(&mut self, what: impl FnOnce() -> String) {
        self.trace.say(self.queue.now_us(), what);
    }

    /// Everything up to that moment.
    pub(super) fn run_until(&mut self, until_us: u64) -> Result<(), String> {
        while let Some(event) = self.queue.pop_until(until_us) {
            self.report.events += 1;
            self.happen(event)?;
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        let now_us = self.queue.now_us();
        match event {
            Event::Wake(id, life) if self.lives(id, life) => self.wake(id),
            Event::Over(id, life, effects) if self.lives(id, life) => self.over(id, *effects),
            Event::Synced(id, life) if self.lives(id, life) => self.synced(id),
            Event::Checkpoint(id, life) if self.lives(id, life) => self.checkpoint(id),
            Event::Written(id, life, done) if self.lives(id, life) => {
                self.job_done(id);
                self.hear(id, Input::Checkpointed(done));
                Ok(())
            }
            Event::Piece(id, life) if self.lives(id, life) => self.send_piece(id),
            Event::Watch(id, life) if self.lives(id, life) => self.watch(id),
            Event::Wake(..)
            | Event::Over(..)
            | Event::Synced(..)
            | Event::Checkpoint(..)
            | Event::Written(..)
            | Event::Piece(..)
            | Event::Watch(..) => Ok(()),
            Event::Arrive(id, packet) => self.arrive(id, *packet),
            Event::Restart(id, crash) => self.restart(id, crash),
            Event::Ask if self.peace => Ok(()),
            Event::Ask => {
                let pause = self.rng.below(2 * self.plan.ask_every_us);
                self.queue.after(pause, Event::Ask);
                self.ask()
            }
            Event::GiveUp(call) => {
                self.calls.remove(&call);
                Ok(())
            }
            Event::Operate => self.operate(),
            Event::Replace(id) => self.replace(id),
            Event::Fault => self.fault(),
            Event::Mend => {
                self.net.mend(now_us);
                self.say(|| "all links are mended".into());
                Ok(())
            }
        }
    }

    pub(super) fn lives(&self, id: u64, life: u64) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.life == life && node.process.is_some())
    }

    pub(super) fn visible(&self, id: u64) -> Result<Arc<Applied>, String> {
        let process = self.nodes.get(&id).and_then(|node| node.process.as_ref());
        process.map(|process| process.visible.clone()).ok_or(format!("{id:x} does not run"))
    }

    /// Puts something into the member's inbox.
    pub(super) fn hear(&mut self, id: u64, input: Input) {
        let now_us = self.queue.now_us();
        let Some(process) = self.nodes.get_mut(&id).and_then(|node| node.process.as_mut()) else { return };
        process.inbox.push_back(input);
        self.plan_wake(id, now_us);
    }

    /// The core will look again then, if not before.
    pub(super) fn plan_wake(&mut self, id: u64, at_us: u64) {
        let now_us = self.queue.now_us();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let (life, at_us) = (node.life, at_us.max(node.paused_until_us));
        let Some(process) = &mut node.process else { return };
        if !process.busy && process.wake_us.is_none_or(|planned| planned > at_us) {
            process.wake_us = Some(at_us);
            self.queue.after(at_us - now_us, Event::Wake(id, life));
        }
    }

    fn wake(&mut self, id: u64) -> Result<(), String> {
        let now_us = self.queue.now_us();
        let active = self.active(id);
        let node = self.nodes.get_mut(&id).expect("it lives");
        let (now_ms, life, paused_us) = (node.clock_ms(now_us), node.life, node.paused_until_us);
        let crashed = node.disk.crashed();
        let process = node.process.as_mut().expect("it lives");
        if process.busy || process.wake_us != Some(now_us) {
            return Ok(());
        }
        process.wake_us = None;
        if paused_us > now_us {
            self.plan_wake(id, paused_us);
            return Ok(());
        }
        if crashed {
            return self.died(id, &Fatal::new("the power is gone"));
        }
        match process.turn(now_ms, active) {
            Ok(effects) => {
                process.busy = true;
                let cost = if self.rng.one_in(50) { self.rng.below(30_000) } else { self.rng.below(100) };
                self.queue.after(cost, Event::Over(id, life, Box::new(effects)));
                Ok(())
            }
            Err(e) => self.died(id, &e),
        }
    }

    /// Since when the member is connected to each peer, on its own clock.
    fn active(&self, id: u64) -> BTreeMap<u64, u64> {
        let own = &self.nodes[&id];
        let started = |node: &Node| node.process.as_ref().map(|process| process.started_us);
        let since = |peer: &Node| {
            let connected = self.net.connected_since_us(id, peer.id)?;
            Some(connected.max(started(peer)?).max(started(own)?))
        };
        let peers = self.nodes.values().filter(|peer| peer.id != id);
        peers.filter_map(|peer| Some((peer.id, own.clock_ms(since(peer)?)))).collect()
    }

    /// The turn's effects become visible.
    pub(super) fn over(&mut self, id: u64, effects: Effects) -> Result<(), String> {
        let now_us = self.queue.now_us();
        let life = self.nodes[&id].life;
        let process = self.nodes.get_mut(&id).and_then(|node| node.process.as_mut()).expect("it lives");
        process.busy = false;
        process.queued.extend(effects.tasks);
        let term = process.member.raft().basic_status().hard_state.term;
        self.terms.stands(id, process.member.raft(), process.member.applied().index())?;
        let leaders = self.terms.leaders();
        for message in effects.messages {
            self.terms.sent(&message, term, &self.nodes[&id].shadow)?;
            self.send(message);
        }
        if self.terms.leaders() > leaders {
            self.led_since_us = now_us;
        }
        self.write(id)?;
        for output in effects.outputs {
            if self.lives(id, life) {
                self.deliver(id, output)?;
            }
        }
        if !self.lives(id, life) {
            return Ok(());
        }
        let node = self.nodes.get_mut(&id).expect("it lives");
        let process = node.process.as_ref().expect("it lives");
        if let Some(streams) = &mut node.streams {
            streams.mend(&process.visible);
        }
        let next_us = match process.inbox.is_empty() {
            true => now_us + node.world_us(process.member.next_tick_ms(), now_us),
            false => now_us,
        };
        self.plan_wake(id, next_us);
        Ok(())
    }

    fn send(&mut self, message: Message) {
        let (now_us, link) = (self.queue.now_us(), (message.from, message.to));
        if !self.nodes.contains_key(&message.to) {
            return;
        }
        // A proposal travels on a stream, which doubles nothing.
        let once = message.kind == MessageType::MsgProp;
        let arrivals = self.net.carry(&mut self.rng, now_us, link, once);
        if arrivals.is_empty() && self.rng.one_in(2) {
            self.post(1000, link.0, Packet::Own(0, Input::Unreachable(link.1)));
        }
        for at_us in arrivals {
            self.report.messages += 1;
            self.post(at_us - now_us, link.1, Packet::Raft(message.clone()));
        }
    }

    /// Something will come to the member.
    fn post(&mut self, delay_us: u64, to: u64, packet: Packet) {
        self.queue.after(delay_us, Event::Arrive(to, Box::new(packet)));
    }

    fn arrive(&mut self, id: u64, packet: Packet) -> Result<(), String> {
        let Some(node) = self.nodes.get(&id) else { return Ok(()) };
        let Some(process) = &node.process else {
            return self.lost(id, packet);
        };
        match packet {
            Packet::Raft(_) if process.inbox.len() >= INBOX_MAX => {}
            Packet::Raft(message) => self.hear(id, Input::Raft(message)),
            // Whom the asking member let in.
            Packet::Ask(ticket, request) => self.hear(id, Input::Call(ticket, Who::Member, request)),
            Packet::Own(life, input) if life == 0 || life == node.life => self.hear(id, input),
            Packet::Answer { life, id: call, result } if life == node.life && self.calls.contains_key(&call) => {
                let result = self.still(id, call, result)?;
                return self.answered(id, call, result);
            }
            Packet::Own(..) | Packet::Answer { .. } => {}
            Packet::Image(message, image) => return self.receive_image(id, message, &image),
        }
        Ok(())
    }

    /// Nobody is there.
    fn lost(&mut self, id: u64, packet: Packet) -> Result<(), String> {
        match packet {
            Packet::Raft(message) if self.rng.one_in(2) => {
                self.post(1000, message.from, Packet::Own(0, Input::Unreachable(id)));
            }
            Packet::Image(message, _) => self.report_image(&message, false),
            _ => {}
        }
        Ok(())
    }

    /// The transport leaves the database beside the present one, then raft hears of it.
    fn receive_image(&mut self, id: u64, message: Message, image: &[u8]) -> Result<(), String> {
        let index = message.snapshot.as_ref().map_or(0, |s| s.metadata.index);
        let disk = self.nodes[&id].disk.shared();
        let folder = Path::new("/data/member/snap");
        let store = || {
            let file = disk.open(&folder.join(image_name(index)), OpenOptions::create())?;
            file.set_len(0)?;
            file.write_at(image, 0)?;
            file.sync_all()?;
            disk.sync_dir(folder)
        };
        let stored = store();
        self.say(|| format!("{id:x}: got the database of {index}: {stored:?}"));
        self.report_image(&message, stored.is_ok());
        if stored.is_ok() {
            self.report.images += 1;
            self.nodes.get_mut(&id).expect("it stored it").received = true;
            self.hear(id, Input::Raft(message));
        }
        Ok(())
    }

    fn report_image(&mut self, message: &Message, arrived: bool) {
        let (from, to) = (message.from, message.to);
        let delay = 1 + self.rng.below(5000);
        self.post(delay, from, Packet::Own(0, Input::Snapshot { to, arrived }));
    }

    // ---- the log's writer and the checkpointer ----------------------------------------------------------------

    /// The log's writer takes what is queued, if it has nothing else to do.
    fn write(&mut self, id: u64) -> Result<(), String> {
        let now_us = self.queue.now_us();
        let node = self.nodes.get_mut(&id).expect("it lives");
        let (life, slow) = (node.life, node.slow);
        let process = node.process.as_mut().expect("it lives");
        if process.writing || process.queued.is_empty() {
            return Ok(());
        }
        for task in std::mem::take(&mut process.queued) {
            let syncs = matches!(task, LogTask::SyncAll);
            node.shadow.take(&task);
            if let Err(e) = process.log.take(task) {
                return self.died(id, &e);
            }
            if syncs {
                node.shadow.sync();
            }
        }
        process.writing = true;
        let (synced, last) = (node.shadow.synced(), node.shadow.last());
        self.trace.say(now_us, || format!("{id:x}: the log is written up to {last}, durable up to {synced}"));
        let (low, high) = self.plan.sync_us;
        let mut cost = low + self.rng.below(high - low + 1);
        if slow.1 > now_us {
            cost += self.rng.below(slow.0);
        }
        self.queue.after(cost, Event::Synced(id, life));
        Ok(())
    }

    fn synced(&mut self, id: u64) -> Result<(), String> {
        let node = self.nodes.get_mut(&id).expect("it lives");
        let process = node.process.as_mut().expect("it lives");
        process.writing = false;
        match process.log.sync() {
            Ok(done) => {
                node.shadow.sync();
                let last = node.shadow.last();
                self.trace.say(self.queue.now_us(), || format!("{id:x}: the log is durable up to {last}"));
                self.hear(id, Input::Logged(done));
                self.write(id)
            }
            Err(e) => self.died(id, &e),
        }
    }

    fn checkpoint(&mut self, id: u64) -> Result<(), String> {
        let node = self.nodes.get_mut(&id).expect("it lives");
        let life = node.life;
        let Some(job) = node.process.as_mut().and_then(|process| process.job.take()) else { return Ok(()) };
        match job.run(&|_| ()) {
            Ok(done) => {
                let cost = self.rng.below(50_000);
                self.report.checkpoints += 1;
                self.queue.after(cost, Event::Written(id, life, Box::new(done)));
                Ok(())
            }
            Err(e) => self.died(id, &e),
        }
    }

    // ---- what comes out of a turn -----------------------------------------------------------------------------

    fn deliver(&mut self, id: u64, output: Output<Ticket>) -> Result<(), String> {
        match output {
            Output::Reply { ticket: Ticket::Client(call), result } => self.answered(id, call, result),
            Output::Reply { ticket: Ticket::Forwarded { from, life, id: call }, result } => {
                self.travel(id, from, Packet::Answer { life, id: call, result });
                Ok(())
            }
            Output::Read { ticket: Ticket::Client(call), who, request } => self.read(id, call, &who, &request),
            Output::Read { .. } => Err("a read was forwarded".into()),
            Output::Published { applied, changes } => {
                self.publish(id, &applied)?;
                if let Some(streams) = &mut self.nodes.get_mut(&id).expect("it lives").streams {
                    streams.publish(&applied, changes);
                }
                Ok(())
            }
            Output::Replaced { applied } => {
                self.publish(id, &applied)?;
                if let Some(streams) = &mut self.nodes.get_mut(&id).expect("it lives").streams {
                    streams.lose();
                }
                Ok(())
            }
            Output::Checkpoint(job) => self.begin_checkpoint(id, job),
            Output::SendSnapshot { message, applied } => self.send_image(&message, &applied),
            Output::AskVersions => {
                self.ask_versions(id);
                Ok(())
            }
            Output::Forward { ticket: Ticket::Client(call), request, .. } => self.forward(id, call, request),
            Output::Forward { ticket: Ticket::Forwarded { from, life, id: call }, .. } => {
                self.travel(id, from, Packet::Answer { life, id: call, result: Err(api::Error::NotLeader) });
                Ok(())
            }
            Output::Removed => {
                self.say(|| format!("{id:x}: was removed"));
                self.retire(id);
                Ok(())
            }
            Output::Note(text) => {
                self.say(|| format!("{id:x}: {text}"));
                Ok(())
            }
            Output::Snapshot { ticket: Ticket::Client(call) } => self.begin_image(id, call),
            Output::Snapshot { .. } => Err("a snapshot was forwarded".into()),
            Output::Serving | Output::MembersChanged | Output::Tokens(_) => Ok(()),
        }
    }

    /// A member's state is new: it must be what the log makes of it.
    pub(super) fn publish(&mut self, id: u64, applied: &Arc<Applied>) -> Result<(), String> {
        let now_us = self.queue.now_us();
        let node = self.nodes.get_mut(&id).expect("it lives");
        let process = node.process.as_mut().expect("it lives");
        let first = process.visible.index() + 1;
        if applied.index() + 1 < first {
            return Err(format!("{id:x} goes back from {} to {}", first - 1, applied.index()));
        }
        process.visible = applied.clone();
        self.learn(id, first)?;
        if let Err(e) = state::check(applied, &mut self.history) {
            return self.unreadable(id, e);
        }
        if applied.index() > self.members.0 {
            self.members = (applied.index(), applied.members());
        }
        let (index, revision) = (applied.index(), applied.revision());
        self.trace.mix(&[now_us, id, index, revision as u64]);
        self.say(|| format!("{id:x}: is at entry {index}, revision {revision}"));
        Ok(())
    }

    /// A member's state is not what it should be; or its disk failed when it was looked at.
    pub(super) fn unreadable(&mut self, id: u64, e: String) -> Result<(), String> {
        match self.nodes[&id].disk.crashed() {
            true => self.died(id, &Fatal::new(e)),
            false => Err(format!("{id:x}: {e}")),
        }
    }

    /// What the member applied, from `first` on, is what everybody applies.
    pub(super) fn learn(&mut self, id: u64, first: u64) -> Result<(), String> {
        let now_us = self.queue.now_us();
        let (node, last) = (&self.nodes[&id], self.visible(id)?.index());
        for index in first..=last {
            match node.shadow.entry(index) {
                Some(entry) => {
                    if self.history.applied(entry).map_err(|e| format!("{id:x}: {e}"))? {
                        self.clocks.follow(self.history.newest(), now_us)?;
                    }
                }
                // A snapshot stands for it.
                None if index <= self.history.last_index() => {}
                None => return Err(format!("{id:x} applied {index}, which its log does not hold")),
            }
        }
        Ok(())
    }

    fn begin_checkpoint(&mut self, id: u64, job: Box<server::member::CheckpointJob>) -> Result<(), String> {
        let now_us = self.queue.now_us();
        let node = self.nodes.get_mut(&id).expect("it lives");
        let life = node.life;
        let process = node.process.as_mut().expect("it lives");
        let kind = job.kind();
        if process.job.replace(job).is_some() {
            return Err(format!("{id:x}: two checkpoints at once"));
        }
        process.job_kind = Some(kind);
        node.checkpointing = process.visible.index();
        // It waited, or came while the other was told of.
        let waited = |(kind, at_us)| kind == JobKind::Defragment && now_us - at_us < WAITED_US;
        if kind == JobKind::Install && node.last_job.is_some_and(waited) {
            self.report.installed_after_defragmenting += 1;
        }
        let delay = self.rng.below(self.plan.job_delay_us);
        self.queue.after(delay, Event::Checkpoint(id, life));
        Ok(())
    }

    /// What was written is durable, and the member hears of it.
    fn job_done(&mut self, id: u64) {
        let now_us = self.queue.now_us();
        let node = self.nodes.get_mut(&id).expect("it lives");
        let Some(kind) = node.process.as_mut().and_then(|process| process.job_kind.take()) else { return };
        match kind {
            JobKind::Checkpoint => node.checkpointed = node.checkpointed.max(node.checkpointing),
            JobKind::Defragment => self.report.defragmented += 1,
            JobKind::Install => {
                node.received = false;
                let before = node.installed_us.replace(now_us);
                self.report.installed += 1;
                self.report.installed_in_a_row += u64::from(before.is_some_and(|at| now_us - at < IN_A_ROW_US));
            }
        }
        node.last_job = Some((kind, now_us));
    }

    fn send_image(&mut self, message: &Message, applied: &Applied) -> Result<(), String> {
        let image = applied.image();
        let mut bytes = vec![0; usize::try_from(image.len()).expect("it fits into memory")];
        if let Err(e) = image.read_at(&mut bytes, 0) {
            return self.died(message.from, &Fatal::new(e.to_string()));
        }
        let (now_us, link) = (self.queue.now_us(), (message.from, message.to));
        let pause = self.rng.below(300_000);
        match self.net.carry(&mut self.rng, now_us + pause, link, true).first() {
            Some(at_us) if self.nodes.contains_key(&link.1) => {
                self.post(at_us - now_us, link.1, Packet::Image(message.clone(), bytes));
            }
            _ => self.report_image(message, false),
        }
        Ok(())
    }

    /// On a connection of its own, which may fail.
    fn travel(&mut self, from: u64, to: u64, packet: Packet) {
        let now_us = self.queue.now_us();
        if let Some(at_us) = self.net.carry(&mut self.rng, now_us, (from, to), true).first() {
            self.post(at_us - now_us, to, packet);
        }
    }

    fn forward(&mut self, id: u64, call: u64, request: Request) -> Result<(), String> {
        let node = &self.nodes[&id];
        let leader = node.process.as_ref().map_or(0, |process| process.member.leader());
        let ticket = Ticket::Forwarded { from: id, life: node.life, id: call };
        let revision = self.visible(id)?.auth().revision();
        if let Some(asked) = self.calls.get_mut(&call) {
            asked.auth_revision = revision;
        }
        match self.nodes.contains_key(&leader) && leader != id {
            true => {
                self.travel(id, leader, Packet::Ask(ticket, request));
                self.queue.after(FORWARD_US, Event::GiveUp(call));
            }
            false => return self.answered(id, call, Err(api::Error::NoLeader)),
        }
        Ok(())
    }

    fn ask_versions(&mut self, id: u64) {
        let answers = |peer: u64| {
            let runs = self.nodes.get(&peer).is_some_and(|node| node.process.is_some());
            runs && !self.net.is_cut(id, peer) && !self.net.is_cut(peer, id)
        };
        let version = |m: &pb::Member| (m.id, answers(m.id).then(|| "3.7.1".to_owned()));
        let versions = self.members.1.iter().filter(|m| m.id != id).map(version).collect();
        let life = self.nodes[&id].life;
        let delay = self.rng.below(20_000);
        self.post(delay, id, Packet::Own(life, Input::Versions(versions)));
    }

    // ---- watch streams ----------------------------------------------------------------------------------------

    fn watch(&mut self, id: u64) -> Result<(), String> {
        let (now_us, plan) = (self.queue.now_us(), &self.plan);
        let model = self.history.newest().clone();
        let permit = self.permit(id)?;
        let node = self.nodes.get_mut(&id).expect("it lives");
        let (life, now_ms, paused) = (node.life, node.clock_ms(now_us), node.paused_until_us > now_us);
        let pause = 1 + self.rng.below(4 * plan.ask_every_us);
        self.queue.after(pause, Event::Watch(id, life));
        let Some(streams) = node.streams.as_mut().filter(|_| !paused) else { return Ok(()) };
        match self.rng.below(6) {
            0 if !self.peace => {
                let (serial, ttl, auth) = (self.next_call, plan.ttl, plan.auth);
                let rng = &mut self.rng;
                let mut draw =
                    crate::ops::Draw { rng, model: &model, serial, member_id: id, ttl, big_values: false, auth };
                streams.act(&mut draw, now_ms);
            }
            1..=2 => streams.read(&mut self.rng, &model).map_err(|e| format!("{id:x}: {e}"))?,
            3 => self.read_history(id)?,
            _ => {
                let n = 1 + self.rng.below(8) as usize;
                streams.pump(n, now_ms, &permit);
            }
        }
        self.capture_prev(id);
        Ok(())
    }

    /// Who may watch what at a member, by the check that its hub makes and by the model.
    pub(super) fn permit(
        &self,
        id: u64,
    ) -> Result<impl Fn(&Who, &pb::WatchCreateRequest) -> Permission + use<>, String> {
        let visible = self.visible(id)?;
        let model = self.history.model(visible.index()).ok_or("a member is ahead of all others")?.clone();
        Ok(move |who: &Who, r: &pb::WatchCreateRequest| Permission {
            seen: access::check_watch(who, r, &visible),
            expected: model.check_watch(who, r),
            auth: model.auth.clone(),
        })
    }

    pub(super) fn read_history(&mut self, id: u64) -> Result<(), String> {
        let visible = self.visible(id)?;
        let streams = self.nodes.get_mut(&id).and_then(|node| node.streams.as_mut());
        let Some((streams, job)) = streams.and_then(|streams| streams.take_job().map(|job| (streams, job))) else {
            return Ok(());
        };
        match job.run(&*visible) {
            Ok(result) => {
                streams.history(result);
                Ok(())
            }
            Err(e) => self.died(id, &Fatal::new(e.to_string())),
        }
    }

    pub(super) fn capture_prev(&mut self, id: u64) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if let (Some(streams), Some(process)) = (&mut node.streams, &mut node.process)
            && let Some(on) = streams.want_prev.take()
        {
            process.member.set_capture_prev(on);
        }
    }

    /// One of the clients that watch, at any member, up or down, goes to this one.
    pub(super) fn move_watchers(&mut self, to: u64) {
        let from: Vec<u64> = self.nodes.values().filter(|n| n.id != to && n.streams.is_some()).map(|n| n.id).collect();
        if from.is_empty() {
            return;
        }
        let from = from[self.rng.below(from.len() as u64) as usize];
        let rng = &mut self.rng;
        let streams = self.nodes.get_mut(&from).and_then(|node| node.streams.as_mut());
        if let Some(client) = streams.and_then(|streams| streams.leave(rng)) {
            self.welcome(from, to, client);
        }
    }

    pub(super) fn welcome(&mut self, from: u64, to: u64, client: Client) {
        let (now_us, watchers) = (self.queue.now_us(), client.watchers());
        self.say(|| format!("a client with {watchers} watchers goes from {from:x} to {to:x}"));
        let node = self.nodes.get_mut(&to).expect("it runs");
        let now_ms = node.clock_ms(now_us);
        if let Some(streams) = &mut node.streams {
            streams.welcome(client, now_ms);
            self.report.moved_watchers += watchers;
        }
    }

    /// The member came up: its watch streams begin, or begin anew.
    pub(super) fn open_streams(&mut self, id: u64) {
        let (now_us, streams) = (self.queue.now_us(), self.plan.streams);
        let node = self.nodes.get_mut(&id).expect("it lives");
        let (now_ms, life) = (node.clock_ms(now_us), node.life);
        let process = node.process.as_ref().expect("it lives");
        match &mut node.streams {
            Some(streams) => streams.restart(&process.visible, now_ms),
            None => node.streams = Some(Streams::new(&mut self.rng, streams, &process.visible)),
        }
        if streams > 0 {
            self.queue.after(1000, Event::Watch(id, life));
        }
    }
}
