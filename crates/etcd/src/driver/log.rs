//! Where the log's writer works: with the core while the member is alone, on a thread of its own once it has peers. Then
//! heartbeats, votes and reads must not wait for a sync; alone, a hop between threads would only cost.

use super::core::{Message, die};
use super::{Inbox, spawn};
use crossbeam_channel::{Receiver, Sender, unbounded};
use server::{Fatal, LogTask, LogWriter, Logged};
use std::thread::JoinHandle;

/// The log's writer, in one of its two places.
pub struct Log {
    here: Option<Box<LogWriter>>,
    apart: Option<Apart>,
}

/// The writer on its own thread.
pub struct Apart {
    /// Not bounded by itself: raft bounds what is not stable yet, and the member refuses proposals beyond.
    tasks: Sender<Vec<LogTask>>,
    thread: JoinHandle<LogWriter>,
}

impl Log {
    /// The writer begins on its owner's thread.
    pub fn new(writer: LogWriter) -> Log {
        Log { here: Some(Box::new(writer)), apart: None }
    }

    /// The writer, while it is on its owner's thread.
    pub fn here(&mut self) -> Option<&mut LogWriter> {
        self.here.as_deref_mut()
    }

    /// Gives the writer a thread, if it has none yet.
    ///
    /// # Errors
    /// The operating system gave none.
    pub fn part(&mut self, inbox: &Inbox) -> Result<(), Fatal> {
        let Some(writer) = self.here.take() else { return Ok(()) };
        let (tasks, queue) = unbounded();
        let inbox = inbox.clone();
        let thread = spawn("log", move || run(*writer, &queue, &inbox))?;
        self.apart = Some(Apart { tasks, thread });
        Ok(())
    }

    /// Hands tasks over, in order; a writer apart answers with a [`Message::Logged`].
    ///
    /// # Errors
    /// The disk failed.
    pub fn take(&mut self, tasks: Vec<LogTask>) -> Result<Option<Logged>, Fatal> {
        if let Some(apart) = &self.apart {
            apart.take(tasks);
            return Ok(None);
        }
        let writer = self.here().ok_or_else(|| Fatal::new("the log has no writer"))?;
        tasks.into_iter().try_for_each(|task| writer.take(task))?;
        writer.sync().map(Some)
    }

    /// Waits for what is being written, and takes the writer back.
    ///
    /// # Errors
    /// Its thread panicked.
    pub fn rejoin(self) -> Result<LogWriter, Fatal> {
        match (self.here, self.apart) {
            (Some(writer), _) => Ok(*writer),
            (None, Some(Apart { tasks, thread })) => {
                drop(tasks);
                thread.join().map_err(|_| Fatal::new("the log's thread panicked"))
            }
            (None, None) => Err(Fatal::new("the log has no writer")),
        }
    }
}

impl Apart {
    fn take(&self, tasks: Vec<LogTask>) {
        if !tasks.is_empty() && self.tasks.send(tasks).is_err() {
            die(&Fatal::new("the log's thread ended"));
        }
    }
}

/// All tasks that came while the last sync ran share the next one.
fn run(mut writer: LogWriter, tasks: &Receiver<Vec<LogTask>>, inbox: &Inbox) -> LogWriter {
    while let Ok(first) = tasks.recv() {
        let mut batch = first.into_iter().chain(tasks.try_iter().flatten());
        let done = batch.try_for_each(|task| writer.take(task)).and_then(|()| writer.sync());
        match done {
            // A core that has ended needs no answer, but what it asked for is written.
            Ok(done) => drop(inbox.send(Message::Logged(Box::new(done)))),
            Err(e) => die(&e),
        }
    }
    writer
}
