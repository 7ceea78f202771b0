//! A cluster in a test tube: nodes, messages under way, and threads that run only when a script says so.

use crate::describe;
use crate::script::{Command, Driven};
use api::raft::{ConfChange, ConfState, Entry, EntryKind, HardState, Message, MessageType, Snapshot};
use raft::confchange::{ConfChangeV2, Transition};
use raft::{Config, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, LogLevel, MemoryStorage, RawNode, ReadOnlyOption, Ready};
use std::collections::VecDeque;

const ELECTION_TICK: usize = 3;
const HEARTBEAT_TICK: usize = 1;

struct Node {
    raw: RawNode,
    asynchronous: bool,
    /// What the append thread wrote; the core's own copy follows with the completion.
    disk: MemoryStorage,
    append_work: VecDeque<Message>,
    apply_work: VecDeque<Message>,
}

/// See the module's page.
#[derive(Default)]
pub struct Env {
    nodes: Vec<Node>,
    messages: Vec<Message>,
    output: String,
    indent: usize,
    verbosity: Verbosity,
}

/// What of the output is wanted.
#[derive(Clone, Copy, Default)]
enum Verbosity {
    /// Not even what commands print.
    Nothing,
    From(LogLevel),
    #[default]
    Everything,
}

type Failure = Result<(), String>;

impl Driven for Env {
    fn run(&mut self, command: &Command) -> String {
        self.output.clear();
        if let Err(error) = self.command(command) {
            self.output += &error;
        }
        match self.output.is_empty() {
            true => "ok".into(),
            false => self.output.clone(),
        }
    }
}

impl Env {
    fn command(&mut self, c: &Command) -> Failure {
        let ids = if matches!(c.name.as_str(), "propose" | "log-level") { vec![] } else { c.ids() };
        match c.name.as_str() {
            "log-level" => self.verbosity = verbosity(c.positional().next().expect("a level")),
            "add-nodes" => return self.add_nodes(c),
            "campaign" => self.with(ids[0], RawNode::campaign),
            "compact" => self.compact(ids[0], ids[1]),
            "deliver-msgs" => self.deliver_command(c),
            "process-ready" => self.each(&ids, "handling Ready", Env::process_ready),
            "process-append-thread" => self.each(&ids, "processing append thread", Env::process_append),
            "process-apply-thread" => self.each(&ids, "processing apply thread", Env::process_apply),
            "stabilize" => self.stabilize_command(c),
            "status" => self.status(ids[0]),
            "tick-election" => self.tick(ids[0], ELECTION_TICK),
            "tick-heartbeat" => self.tick(ids[0], HEARTBEAT_TICK),
            "transfer-leadership" => {
                let to = c.number("to").expect("to whom");
                self.with(c.number("from").expect("from whom"), |raw| raw.transfer_leader(to));
            }
            "forget-leader" => self.with(ids[0], RawNode::forget_leader),
            "send-snapshot" => self.send_snapshot(ids[0], ids[1]),
            "propose" => return self.propose(c),
            "propose-conf-change" => return self.propose_conf_change(c),
            "raft-log" => self.raft_log(ids[0]),
            "raft-state" => self.raft_state(),
            "report-unreachable" => self.with(ids[0], |raw| raw.report_unreachable(ids[1])),
            "set-randomized-election-timeout" => {
                let ticks = c.number("timeout").expect("ticks") as usize;
                self.with(ids[0], |raw| raw.set_election_timeout(ticks));
            }
            other => panic!("unknown command {other}"),
        }
        Ok(())
    }

    fn node(&mut self, id: u64) -> &mut Node {
        &mut self.nodes[id as usize - 1]
    }

    /// Does something to a node and shows what it had to say.
    fn with<R>(&mut self, id: u64, what: impl FnOnce(&mut RawNode) -> R) -> R {
        let result = what(&mut self.node(id).raw);
        for line in self.node(id).raw.take_logs() {
            let shown = match self.verbosity {
                Verbosity::Nothing => false,
                Verbosity::From(least) => line.level >= least,
                Verbosity::Everything => true,
            };
            if shown {
                self.print(&format!("{} {}", format!("{:?}", line.level).to_uppercase(), line.text));
            }
        }
        result
    }

    fn print(&mut self, text: &str) {
        if !matches!(self.verbosity, Verbosity::Nothing) {
            for line in text.lines() {
                self.output += &format!("{:1$}{line}\n", "", self.indent);
            }
        }
    }

    fn indented(&mut self, what: impl FnOnce(&mut Env)) {
        self.indent += 2;
        what(self);
        self.indent -= 2;
    }

    fn each(&mut self, ids: &[u64], title: &str, what: fn(&mut Env, u64)) {
        if let [id] = ids {
            return what(self, *id);
        }
        for id in ids {
            self.print(&format!("> {id} {title}"));
            self.indented(|env| what(env, *id));
        }
    }

    fn add_nodes(&mut self, c: &Command) -> Failure {
        let index = c.number("index").unwrap_or(0);
        let count = c.ids()[0];
        let conf_state =
            ConfState { voters: c.numbers("voters"), learners: c.numbers("learners"), ..ConfState::default() };
        for _ in 0..count {
            let mut snapshot = Snapshot::default();
            snapshot.metadata.index = index;
            snapshot.metadata.term = u64::from(index > 0);
            snapshot.metadata.conf_state = conf_state.clone();
            let mut storage = MemoryStorage::new();
            storage.restore(snapshot, HardState::default());
            let config = self.config(c, index);
            let node = Node {
                asynchronous: config.async_storage_writes,
                raw: RawNode::new(config, storage.clone())?,
                disk: storage,
                append_work: VecDeque::new(),
                apply_work: VecDeque::new(),
            };
            self.nodes.push(node);
            self.with(self.nodes.len() as u64, |_| ());
        }
        Ok(())
    }

    fn config(&self, c: &Command, applied: u64) -> Config {
        Config {
            id: self.nodes.len() as u64 + 1,
            election_tick: ELECTION_TICK,
            heartbeat_tick: HEARTBEAT_TICK,
            applied,
            max_size_per_msg: u64::MAX,
            async_storage_writes: c.is_true("async-storage-writes"),
            pre_vote: c.is_true("prevote"),
            check_quorum: c.is_true("checkquorum"),
            read_only: match c.value("read-only") {
                Some("lease-based") => ReadOnlyOption::LeaseBased,
                _ => ReadOnlyOption::Safe,
            },
            max_committed_size_per_ready: c.number("max-committed-size-per-ready").unwrap_or(0),
            max_inflight_msgs: c.number("inflight").map_or(usize::MAX, |n| n as usize),
            step_down_on_removal: c.is_true("step-down-on-removal"),
            disable_conf_change_validation: c.is_true("disable-conf-change-validation"),
            log_level: Some(LogLevel::Debug),
            ..Config::default()
        }
    }

    fn compact(&mut self, id: u64, index: u64) {
        self.node(id).disk.compact_behind(index, 0, usize::MAX);
        self.node(id).raw.storage_mut().compact_behind(index, 0, usize::MAX);
        self.raft_log(id);
    }

    fn raft_log(&mut self, id: u64) {
        let disk = &self.node(id).disk;
        let (first, last) = (disk.first_index(), disk.last_index());
        let entries: Vec<String> = disk.entries(first, last + 1, u64::MAX).iter().map(describe::entry).collect();
        match entries.is_empty() {
            true => self.print(&format!("log is empty: first index={first}, last index={last}")),
            false => self.print(&entries.join("\n")),
        }
    }

    fn status(&mut self, id: u64) {
        let lines: Vec<String> = self.node(id).raw.progress().map(|(id, p)| format!("{id}: {p}")).collect();
        self.print(&lines.join("\n"));
    }

    fn raft_state(&mut self) {
        let mut lines = Vec::new();
        for (id, node) in (1..).zip(&self.nodes) {
            let status = node.raw.basic_status();
            let voter = if node.raw.member_config().voters.contains(id) { "Voter" } else { "Non-Voter" };
            let (role, term, leader) = (status.role, status.hard_state.term, status.leader);
            lines.push(format!("{id}: State{role:?} ({voter}) Term:{term} Lead:{leader}"));
        }
        self.print(&lines.join("\n"));
    }

    fn tick(&mut self, id: u64, ticks: usize) {
        for _ in 0..ticks {
            self.with(id, RawNode::tick);
        }
    }

    fn propose(&mut self, c: &Command) -> Failure {
        let words: Vec<&str> = c.positional().collect();
        let data = words[1].to_owned();
        let id = words[0].parse().expect("a node's id");
        self.with(id, |raw| raw.propose(data.into())).map_err(|e| e.to_string())
    }

    fn propose_conf_change(&mut self, c: &Command) -> Failure {
        let changes = describe::parse_changes(c.input.iter().flat_map(|line| line.split_whitespace()));
        let id = c.ids()[0];
        let proposed = if c.is_true("v1") {
            let change = ConfChange { kind: changes[0].kind, node_id: changes[0].node_id, ..ConfChange::default() };
            self.with(id, |raw| raw.propose_conf_change(&change))
        } else {
            let transition = match c.value("transition") {
                Some("implicit") => Transition::JointImplicit,
                Some("explicit") => Transition::JointExplicit,
                _ => Transition::Auto,
            };
            let change = ConfChangeV2 { transition, changes, ..ConfChangeV2::default() };
            self.with(id, |raw| raw.propose_conf_change_v2(&change))
        };
        proposed.map_err(|e| e.to_string())
    }

    fn send_snapshot(&mut self, from: u64, to: u64) {
        let raw = &self.node(from).raw;
        let message = Message {
            kind: MessageType::MsgSnap,
            term: raw.basic_status().hard_state.term,
            from,
            to,
            snapshot: Some(raw.storage().snapshot().clone()),
            ..Message::default()
        };
        self.print(&describe::message(&message));
        self.messages.push(message);
    }

    fn deliver_command(&mut self, c: &Command) {
        let kind = c.value("type").map(|t| MessageType::from_str_name(t).expect("a message type"));
        let mut count = 0;
        for id in c.ids() {
            count += self.deliver(id, kind, false);
        }
        for id in c.numbers("drop") {
            count += self.deliver(id, kind, true);
        }
        if count == 0 {
            self.print("no messages");
        }
    }

    /// Messages for `to`; local ones are never lost.
    fn is_for(m: &Message, to: u64, kind: Option<MessageType>, dropping: bool) -> bool {
        let local = |id| id == LOCAL_APPEND_THREAD || id == LOCAL_APPLY_THREAD;
        let is_local = m.from == m.to || local(m.from) || local(m.to);
        m.to == to && kind.is_none_or(|k| k == m.kind) && !(dropping && is_local)
    }

    fn deliver(&mut self, to: u64, kind: Option<MessageType>, dropping: bool) -> usize {
        let all = std::mem::take(&mut self.messages);
        let (chosen, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|m| Env::is_for(m, to, kind, dropping));
        self.messages = rest;
        let count = chosen.len();
        for m in chosen {
            self.print(&format!("{}{}", if dropping { "dropped: " } else { "" }, describe::message(&m)));
            if !dropping && let Err(e) = self.with(to, |raw| raw.step(m)) {
                self.print(&e.to_string());
            }
        }
        count
    }

    fn process_ready(&mut self, id: u64) {
        let mut ready = self.with(id, RawNode::ready);
        complete_applies(&mut ready);
        self.print(&describe::ready(&ready));
        if self.node(id).asynchronous {
            self.enqueue(id, ready.messages);
            return;
        }
        write(&mut self.node(id).disk, ready.snapshot, &ready.entries);
        self.apply(id, &ready.committed_entries);
        self.messages.extend(ready.messages);
        self.with(id, RawNode::advance);
    }

    fn enqueue(&mut self, id: u64, messages: Vec<Message>) {
        for m in messages {
            match m.to {
                LOCAL_APPEND_THREAD => self.node(id).append_work.push_back(m),
                LOCAL_APPLY_THREAD => self.node(id).apply_work.push_back(m),
                _ => self.messages.push(m),
            }
        }
    }

    fn apply(&mut self, id: u64, entries: &[Entry]) {
        for entry in entries {
            let conf_state = match entry.kind {
                EntryKind::Normal => None,
                EntryKind::ConfChange => {
                    let change = ConfChange::decode(entry.data.clone()).expect("a conf change");
                    Some(self.with(id, |raw| raw.apply_conf_change(&change)).expect("a legal change"))
                }
                EntryKind::ConfChangeV2 => {
                    let change = ConfChangeV2::decode(entry.data.clone()).expect("a conf change");
                    Some(self.with(id, |raw| raw.apply_conf_change_v2(&change)).expect("a legal change"))
                }
            };
            let storage = self.node(id).raw.storage_mut();
            let mut snapshot = storage.snapshot().clone();
            (snapshot.metadata.index, snapshot.metadata.term) = (entry.index, entry.term);
            if let Some(conf_state) = conf_state {
                snapshot.metadata.conf_state = conf_state;
            }
            storage.set_snapshot(snapshot);
        }
    }

    fn begin(&mut self, m: &mut Message) -> Vec<Message> {
        let responses = std::mem::take(&mut m.responses);
        self.print("Processing:");
        self.print(&describe::message(m));
        responses
    }

    fn respond(&mut self, responses: Vec<Message>) {
        self.print("Responses:");
        for m in responses {
            self.print(&describe::message(&m));
            self.messages.push(m);
        }
    }

    fn process_append(&mut self, id: u64) {
        let Some(mut m) = self.node(id).append_work.pop_front() else {
            return self.print("no append work to perform");
        };
        let responses = self.begin(&mut m);
        write(&mut self.node(id).disk, m.snapshot, &m.entries);
        self.respond(responses);
    }

    fn process_apply(&mut self, id: u64) {
        let Some(mut m) = self.node(id).apply_work.pop_front() else {
            return self.print("no apply work to perform");
        };
        let responses = self.begin(&mut m);
        self.apply(id, &m.entries);
        self.respond(responses);
    }

    fn stabilize_command(&mut self, c: &Command) {
        let before = self.verbosity;
        if let Some(level) = c.value("log-level") {
            self.verbosity = verbosity(level);
        }
        let ids = c.ids();
        let ids = if ids.is_empty() { (1..=self.nodes.len() as u64).collect() } else { ids };
        while self.round(&ids) {}
        self.verbosity = before;
    }

    /// Everything that can be done now, kind of work by kind of work; says whether there was any.
    fn round(&mut self, ids: &[u64]) -> bool {
        let mut busy = false;
        let mut phase = |env: &mut Env, title: &str, has: fn(&Env, u64) -> bool, work: fn(&mut Env, u64)| {
            for id in ids {
                if has(env, *id) {
                    env.print(&format!("> {id} {title}"));
                    env.indented(|env| work(env, *id));
                    busy = true;
                }
            }
        };
        phase(self, "handling Ready", |env, id| env.at(id).raw.has_ready(), Env::process_ready);
        let mail = |env: &Env, id: u64| env.messages.iter().any(|m| m.to == id);
        phase(self, "receiving messages", mail, |env, id| {
            env.deliver(id, None, false);
        });
        phase(
            self,
            "processing append thread",
            |env, id| !env.at(id).append_work.is_empty(),
            |env, id| {
                while !env.at(id).append_work.is_empty() {
                    env.process_append(id);
                }
            },
        );
        phase(
            self,
            "processing apply thread",
            |env, id| !env.at(id).apply_work.is_empty(),
            |env, id| {
                while !env.at(id).apply_work.is_empty() {
                    env.process_apply(id);
                }
            },
        );
        busy
    }

    fn at(&self, id: u64) -> &Node {
        &self.nodes[id as usize - 1]
    }
}

fn verbosity(level: &str) -> Verbosity {
    match level {
        "none" => Verbosity::Nothing,
        "info" => Verbosity::From(LogLevel::Info),
        "debug" => Verbosity::Everything,
        other => panic!("unknown level {other}"),
    }
}

fn write(disk: &mut MemoryStorage, snapshot: Option<Snapshot>, entries: &[Entry]) {
    if let Some(snapshot) = snapshot {
        disk.apply_snapshot(snapshot);
    }
    disk.append(entries);
}

/// The core's completion of an apply names the last entry only; the transcripts show all that were applied.
fn complete_applies(ready: &mut Ready) {
    for m in ready.messages.iter_mut().filter(|m| m.to == LOCAL_APPLY_THREAD) {
        m.responses.iter_mut().for_each(|r| r.entries = m.entries.clone());
    }
}
