//! The core's thread: member, log and apply, inline. It alone decides; everything that queued while the last sync
//! ran goes through the next one together.

use super::courtesy::Courtesy;
use super::first_election::FirstElection;
use super::forward::Forwarder;
use super::log::Log;
use super::meter::Meter;
use super::peers::{Input, Peers};
use super::post::Post;
use super::readers::{Job, Readers};
use super::{Clock, Inbox, Shared, Ticket, queue};
use api::pb::etcdserverpb as pb;
use crossbeam_channel::RecvTimeoutError;
use rpc::metrics;
use server::member::Verify;
use server::{Fatal, Logged, Member, Output, Request, TokenChange, Who};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tracing::{error, info};

/// Requests taken between two turns: enough for a good group commit, few enough to keep ticks on time.
const BATCH_MAX: usize = 4096;
/// How long a member that was removed still runs.
const REMOVED_WAIT: Duration = Duration::from_secs(1);

/// What the core's thread is told.
#[derive(Debug)]
pub enum Message {
    Call {
        ticket: Ticket,
        who: Who,
        request: server::Request,
    },
    Checkpointed(Box<server::member::CheckpointDone>),
    /// The log's writer did what it was given.
    Logged(Box<Logged>),
    /// What the other members say their versions are.
    Versions(BTreeMap<u64, Option<String>>),
    /// Peers have something; it is in their own queue.
    Peers,
    /// This member's data differs from the others'; 0 when it is not known whose does.
    Corrupt(u64),
    CapturePrev(bool),
    Stop,
}

/// Where outputs go.
pub struct Core {
    pub member: Member<Ticket>,
    pub log: Log,
    pub peers: Peers,
    pub forwarder: Forwarder,
    pub inbox: queue::Receiver<Message>,
    /// To itself: for what gets a thread later.
    pub own: Inbox,
    pub shared: Arc<Shared>,
    pub readers: Readers,
    pub post: Post,
    pub hub: super::hub::Feed,
    pub checkpointer: crossbeam_channel::Sender<Box<server::member::CheckpointJob>>,
    pub clock: Clock,
    pub meter: Meter,
    pub first_election: FirstElection,
    /// Gate `StopGRPCServiceOnDefrag`: a member that defragments asks balancers to send others elsewhere.
    pub ill_while_defragmenting: bool,
    /// How long a leader that stops waits for its successor.
    pub hand_over_ms: u64,
    /// What is looked at before it ends.
    pub verify: Verify,
}

impl Core {
    /// Runs until told to stop, beginning with what came out before the threads stood. A fatal error ends the process:
    /// nothing may be answered after it.
    pub fn run(mut self, mut outputs: Vec<Output<Ticket>>) {
        self.deliver(&mut outputs);
        loop {
            match self.step(&mut outputs) {
                Ok(true) => {}
                Ok(false) => break,
                Err(e) => die(&e),
            }
        }
        if let Err(e) = self.hand_over(&mut outputs).and_then(|()| self.last_job(&mut outputs)) {
            die(&e);
        }
        self.peers.stop();
        // Who puts something in now is told that nobody takes it.
        let Core { member, log, shared, readers, inbox, verify, .. } = self;
        drop(inbox);
        if let Err(e) = log.rejoin().and_then(|log| member.stop_and_verify(log, verify, &mut outputs)) {
            die(&e);
        }
        for output in outputs {
            if let Output::Reply { ticket, result } = output {
                ticket.answer(result);
            }
        }
        if verify.any() {
            info!("verification of the state and of its files successful at the end");
        }
        drop(readers);
        shared.leader.send_replace(false);
    }

    /// A leader that stops names its successor, the voter that it has been connected to for longest (etcd
    /// `TransferLeadership`), and works on until that one leads, or for an election timeout: then the others find one. What
    /// came meanwhile is the successor's.
    fn hand_over(&mut self, outputs: &mut Vec<Output<Ticket>>) -> Result<(), Fatal> {
        let (own, _) = self.member.identity();
        let now = self.clock.now_ms();
        let since = self.peers.active_since_ms(now);
        let voters = self.member.applied().members().into_iter().filter(|m| !m.is_learner && m.id != own);
        let connected = voters.filter_map(|m| Some((since.get(&m.id)?, m.id)));
        let Some((_, target_id)) = connected.min().filter(|_| self.member.leader() == own) else { return Ok(()) };
        info!("transferee-member-id" = format!("{target_id:x}"), "leadership transfer starting");
        let request = Request::MoveLeader(pb::MoveLeaderRequest { target_id });
        self.member.call(now, Ticket::then(|_| ()), request);
        self.deliver_now(outputs)?;
        while [own, 0].contains(&self.member.leader()) && self.clock.now_ms() < now + self.hand_over_ms {
            self.step(outputs)?;
        }
        Ok(())
    }

    /// Works and delivers without waiting for anything to come.
    fn deliver_now(&mut self, outputs: &mut Vec<Output<Ticket>>) -> Result<(), Fatal> {
        self.work()?;
        self.member.take_outputs(outputs);
        self.deliver(outputs);
        Ok(())
    }

    /// Waits for the checkpoint that is being written; whoever asks meanwhile is told that the server stopped.
    fn last_job(&mut self, outputs: &mut Vec<Output<Ticket>>) -> Result<(), Fatal> {
        self.write()?;
        while self.member.checkpoint_runs() {
            match self.inbox.recv() {
                Ok(Message::Checkpointed(done)) => self.member.checkpointed(self.clock.now_ms(), *done)?,
                Ok(Message::Logged(done)) => self.member.logged(*done),
                Ok(Message::Call { ticket, .. }) => {
                    ticket.answer(Err(api::Error::Stopped));
                }
                Ok(
                    Message::CapturePrev(_)
                    | Message::Versions(_)
                    | Message::Corrupt(_)
                    | Message::Peers
                    | Message::Stop,
                ) => {}
                Err(_) => return Ok(()),
            }
            self.write()?;
            self.member.take_outputs(outputs);
            let jobs: Vec<_> = outputs.extract_if(.., |output| matches!(output, Output::Checkpoint(_))).collect();
            self.deliver(&mut { jobs });
        }
        Ok(())
    }

    /// Sends what peers are to be sent, and hands over what is to be logged. A leader's messages go first: they leave while
    /// its own log is being synced.
    fn write(&mut self) -> Result<(), Fatal> {
        self.peers.send(self.member.take_messages());
        if let Some(done) = self.log.take(self.member.take_log_tasks())? {
            self.member.logged(done);
        }
        Ok(())
    }

    /// Works until nothing is left that does not wait for others.
    fn work(&mut self) -> Result<(), Fatal> {
        let begun = Instant::now();
        self.meter.begin();
        if let Some(log) = self.log.here() {
            self.member.turn_with(log)?;
            self.meter.turned(&self.member, begun.elapsed(), true, self.shared.slow_apply);
            // Who joins answers a leader before its log says that there is one.
            self.peers.send(self.member.take_messages());
            return Ok(());
        }
        self.member.turn()?;
        self.meter.turned(&self.member, begun.elapsed(), false, self.shared.slow_apply);
        self.write()
    }

    fn hear(&mut self, input: Input) {
        match input {
            Input::Message(message) => self.member.receive(message),
            Input::Process { message, taken } => {
                self.member.receive(message);
                // A sender that went away is fine.
                drop(taken.send(Ok(())));
            }
            Input::Unreachable(peer) => self.member.report_unreachable(peer),
            Input::Snapshot { to, arrived } => self.member.report_snapshot(to, arrived),
            Input::Removed => removed(),
        }
    }

    /// Whoever came, went or moved: the transport follows, and the log gets its own thread when the first peer comes.
    fn follow_members(&mut self) {
        let applied = self.member.applied().clone();
        self.peers.follow(&applied);
        self.shared.learner.store(self.member.is_learner(), Ordering::Relaxed);
        if self.member.has_peers()
            && let Err(e) = self.log.part(&self.own)
        {
            die(&e);
        }
    }

    fn step(&mut self, outputs: &mut Vec<Output<Ticket>>) -> Result<bool, Fatal> {
        let wait = match self.peers.are_waiting() {
            true => 0,
            false => self.member.next_tick_ms().saturating_sub(self.clock.now_ms()),
        };
        let first = match self.inbox.recv_timeout(Duration::from_millis(wait)) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(false),
        };
        self.shared.calls.count();
        let now = self.clock.now_ms();
        let inputs: Vec<Input> = self.peers.take().take(BATCH_MAX).collect();
        inputs.into_iter().for_each(|input| self.hear(input));
        let inbox = self.inbox.clone();
        for message in first.into_iter().chain(inbox.try_iter().take(BATCH_MAX)) {
            match message {
                Message::Call { ticket, who, request } => self.member.call_as(now, ticket, &who, request),
                Message::Checkpointed(done) => self.member.checkpointed(now, *done)?,
                Message::CapturePrev(on) => self.member.set_capture_prev(on),
                Message::Logged(done) => self.member.logged(*done),
                Message::Versions(versions) => self.member.peer_versions(&versions),
                Message::Corrupt(member) => self.member.raise_corrupt(member),
                Message::Peers => {}
                Message::Stop => return Ok(false),
            }
        }
        if self.member.has_peers() && self.member.next_tick_ms() <= now {
            self.member.set_active(self.peers.active_since_ms(now));
        }
        if self.first_election.is_due(now, &self.peers) {
            self.member.hasten_election();
        }
        self.member.tick(now)?;
        // Before somebody is told that a defragmentation is over.
        self.tell_health();
        // Keepalives, refusals and the like rest on nothing that this turn makes durable.
        self.member.take_outputs(outputs);
        self.deliver(outputs);
        self.deliver_now(outputs)?;
        self.hub.mend(self.member.applied());
        self.meter.stand(&self.member, &self.shared);
        let leader = self.member.leader();
        self.shared.leader_id.store(leader, Ordering::Relaxed);
        let known = leader != 0;
        self.shared.leader.send_if_modified(|leader| std::mem::replace(leader, known) != known);
        self.tell_health();
        Ok(true)
    }

    /// gRPC health of service "".
    fn tell_health(&self) {
        let defragments = self.ill_while_defragmenting && self.member.is_defragmenting();
        let healthy = !defragments && !self.member.is_leaderless();
        self.shared.healthy.send_if_modified(|was| std::mem::replace(was, healthy) != healthy);
    }

    /// Answers go first: the hub's thread, once woken, takes processor and network for as long as there are watchers.
    fn deliver(&mut self, outputs: &mut Vec<Output<Ticket>>) {
        let (mut published, mut changed) = (Vec::new(), false);
        // A token is known before the state that shows its entry applied.
        let assigned = |output: &mut Output<Ticket>| matches!(output, Output::Tokens(TokenChange::Assigned { .. }));
        for output in outputs.extract_if(.., assigned) {
            if let Output::Tokens(change) = output {
                self.shared.auth.change(change);
            }
        }
        for output in outputs.drain(..) {
            match output {
                Output::Reply { ticket, result } => self.post.answer(ticket, result),
                Output::Read { ticket, who, request } => {
                    if let Some((ticket, who, request)) = self.post.read(ticket, who, request) {
                        self.readers.run(Job::Read { ticket, who, request });
                    }
                }
                Output::Tokens(change) => self.shared.auth.change(change),
                Output::Snapshot { ticket } => self.readers.run(Job::Snapshot { ticket }),
                Output::Published { applied, changes } => {
                    self.shared.applied.store(applied.clone());
                    published.push((applied, changes));
                }
                Output::Checkpoint(job) => {
                    if self.checkpointer.send(job).is_err() {
                        die(&Fatal::new("the checkpointer's thread ended"));
                    }
                }
                Output::Serving => {
                    self.shared.serving.store(true, Ordering::Release);
                    super::ready();
                }
                Output::Note(text) => info!("{text}"),
                Output::MembersChanged => changed = true,
                Output::SendSnapshot { message, applied } => self.peers.send_snapshot(message, &applied),
                Output::Replaced { applied } => {
                    self.shared.applied.store(applied);
                    self.hub.lose();
                }
                Output::AskVersions => self.forwarder.ask_versions(self.own.clone()),
                Output::Removed => removed(),
                // Who asks for a peer has asked the wrong one.
                Output::Forward { ticket: ticket @ Ticket::Then(_), .. } => {
                    ticket.answer(Err(api::Error::NotLeader));
                }
                Output::Forward { ticket, who, request } => self.forwarder.run(ticket, who, request),
            }
        }
        self.post.send();
        for (applied, changes) in published {
            self.hub.publish(&applied, changes);
        }
        if changed {
            self.follow_members();
        }
    }
}

/// The thread that writes checkpoints, one at a time.
pub fn checkpointer(
    jobs: &crossbeam_channel::Receiver<Box<server::member::CheckpointJob>>,
    inbox: &Inbox,
    shared: Arc<Shared>,
) {
    let courtesy = Courtesy::new(shared);
    for job in jobs {
        courtesy.begin();
        let (begun, commit, kind) = (Instant::now(), job.is_commit(), job.kind());
        let defragmentation = kind == server::member::JobKind::Defragment;
        metrics::DEFRAG_INFLIGHT.set(i64::from(defragmentation));
        match job.run(&|bytes| courtesy.step(bytes)) {
            Ok(done) => {
                metrics::DEFRAG_INFLIGHT.set(0);
                match (commit, defragmentation) {
                    (_, true) => metrics::DEFRAG.observe_seconds(begun.elapsed()),
                    (true, false) => metrics::BACKEND_COMMIT.observe_seconds(begun.elapsed()),
                    (false, false) => {}
                }
                if inbox.send(Message::Checkpointed(Box::new(done))).is_err() {
                    return;
                }
            }
            Err(e) => die(&e),
        }
    }
}

/// This member was removed from its cluster: it stops, but not before its peers have heard what it had to say (etcd waits
/// as long).
fn removed() {
    error!("the member was removed from its cluster; it stops");
    let stop = || {
        std::thread::sleep(REMOVED_WAIT);
        if let Err(e) = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM) {
            die(&Fatal::new(format!("the removed member can't stop itself: {e}")));
        }
    };
    if let Err(e) = super::spawn("removed", stop) {
        die(&e);
    }
}

/// The disk failed, or state is corrupt: no reply, no retry.
pub fn die(e: &Fatal) -> ! {
    error!(error = %e, "the member stops: its storage failed");
    eprintln!("etcd: {e}");
    std::process::exit(1);
}
