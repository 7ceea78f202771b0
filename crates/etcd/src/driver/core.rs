//! The core's thread: member, log and apply, inline. It alone decides; everything that queued while the last sync
//! ran goes through the next one together.

use super::courtesy::Courtesy;
use super::post::Post;
use super::readers::{Job, Readers};
use super::{Clock, Inbox, Shared, Ticket};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use server::{Fatal, Member, Output};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tracing::{error, info};

/// Requests taken between two turns: enough for a good group commit, few enough to keep ticks on time.
const BATCH_MAX: usize = 4096;

/// What the core's thread is told.
#[derive(Debug)]
pub enum Message {
    Call { ticket: Ticket, request: server::Request },
    Snapshot { ticket: Ticket },
    Checkpointed(Box<server::member::CheckpointDone>),
    CapturePrev(bool),
    Stop,
}

/// Where outputs go.
pub struct Core {
    pub member: Member<Ticket>,
    pub inbox: Receiver<Message>,
    pub shared: Arc<Shared>,
    pub readers: Readers,
    pub post: Post,
    pub hub: super::hub::Feed,
    pub checkpointer: crossbeam_channel::Sender<Box<server::member::CheckpointJob>>,
    pub clock: Clock,
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
        if let Err(e) = self.last_job() {
            die(&e);
        }
        let Core { member, shared, readers, .. } = self;
        if let Err(e) = member.stop(&mut outputs) {
            die(&e);
        }
        for output in outputs {
            if let Output::Reply { ticket, result } = output {
                ticket.answer(result);
            }
        }
        drop(readers);
        shared.leader.send_replace(false);
    }

    /// Waits for the checkpoint that is being written; whoever asks meanwhile is told that the server stopped.
    fn last_job(&mut self) -> Result<(), Fatal> {
        while self.member.checkpoint_runs() {
            match self.inbox.recv() {
                Ok(Message::Checkpointed(done)) => self.member.checkpointed(self.clock.now_ms(), *done)?,
                Ok(Message::Call { ticket, .. } | Message::Snapshot { ticket }) => {
                    ticket.answer(Err(api::Error::Stopped));
                }
                Ok(Message::CapturePrev(_) | Message::Stop) => {}
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    fn step(&mut self, outputs: &mut Vec<Output<Ticket>>) -> Result<bool, Fatal> {
        let wait = self.member.next_tick_ms().saturating_sub(self.clock.now_ms());
        let first = match self.inbox.recv_timeout(Duration::from_millis(wait)) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(false),
        };
        self.shared.calls.count();
        let now = self.clock.now_ms();
        let rest = self.inbox.try_iter().take(BATCH_MAX);
        for message in first.into_iter().chain(rest) {
            match message {
                Message::Call { ticket, request } => self.member.call(now, ticket, request),
                Message::Snapshot { ticket } => self.member.call_snapshot(ticket),
                Message::Checkpointed(done) => self.member.checkpointed(now, *done)?,
                Message::CapturePrev(on) => self.member.set_capture_prev(on),
                Message::Stop => return Ok(false),
            }
        }
        self.member.tick(now)?;
        // Keepalives, refusals and the like rest on nothing that this turn makes durable.
        self.member.take_outputs(outputs);
        self.deliver(outputs);
        self.member.turn()?;
        self.member.take_outputs(outputs);
        self.deliver(outputs);
        self.hub.mend(self.member.applied());
        let known = self.member.leader() != 0;
        self.shared.leader.send_if_modified(|leader| std::mem::replace(leader, known) != known);
        Ok(true)
    }

    /// Answers go first: the hub's thread, once woken, takes processor and network for as long as there are watchers.
    fn deliver(&mut self, outputs: &mut Vec<Output<Ticket>>) {
        let mut published = Vec::new();
        for output in outputs.drain(..) {
            match output {
                Output::Reply { ticket, result } => self.post.answer(ticket, result),
                Output::Read { ticket, request } => {
                    if let Some((ticket, request)) = self.post.read(ticket, request) {
                        self.readers.run(Job::Read { ticket, request });
                    }
                }
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
            }
        }
        self.post.send();
        for (applied, changes) in published {
            self.hub.publish(&applied, changes);
        }
    }
}

/// The thread that writes checkpoints, one at a time.
pub fn checkpointer(jobs: &Receiver<Box<server::member::CheckpointJob>>, inbox: &Inbox, shared: Arc<Shared>) {
    let courtesy = Courtesy::new(shared);
    for job in jobs {
        courtesy.begin();
        match job.run(&|bytes| courtesy.step(bytes)) {
            Ok(done) => {
                if inbox.send(Message::Checkpointed(Box::new(done))).is_err() {
                    return;
                }
            }
            Err(e) => die(&e),
        }
    }
}

/// The disk failed, or state is corrupt: no reply, no retry.
pub fn die(e: &Fatal) -> ! {
    error!(error = %e, "the member stops: its storage failed");
    eprintln!("etcd: {e}");
    std::process::exit(1);
}
