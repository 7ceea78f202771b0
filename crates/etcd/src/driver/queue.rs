//! A queue between threads that is bounded by count and takes memory for what waits in it, not for what could.
//!
//! Two ways in: [`Sender::try_send`] for what somebody asks for, refused when as much as the limit waits already;
//! [`Sender::send`] for completions of what was let in before, which always have room, since whoever waits for room with a
//! completion in his hands keeps the others waiting (docs/ARCHITECTURE.md, queues).

use crossbeam_channel::{RecvError, RecvTimeoutError, SendError, TrySendError, unbounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// An end to put in.
#[derive(Debug)]
pub struct Sender<T> {
    tx: crossbeam_channel::Sender<T>,
    waiting: Arc<AtomicUsize>,
    limit: usize,
}

/// An end to take out of.
#[derive(Debug)]
pub struct Receiver<T> {
    rx: crossbeam_channel::Receiver<T>,
    waiting: Arc<AtomicUsize>,
}

/// A queue that refuses what is asked for while `limit` messages wait, completions among them.
pub fn queue<T>(limit: usize) -> (Sender<T>, Receiver<T>) {
    let ((tx, rx), waiting) = (unbounded(), Arc::new(AtomicUsize::new(0)));
    (Sender { tx, waiting: waiting.clone(), limit }, Receiver { rx, waiting })
}

impl<T> Sender<T> {
    /// Puts a message in if there is room.
    ///
    /// # Errors
    /// There is none, or nobody takes anything out any more; the message comes back.
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        // Counted before it is put in, so that nobody takes out what was not counted.
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.limit {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(TrySendError::Full(message));
        }
        self.tx.send(message).map_err(|SendError(message)| TrySendError::Disconnected(message))
    }

    /// Puts a completion in.
    ///
    /// # Errors
    /// Nobody takes anything out any more; the message comes back.
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.tx.send(message)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender { tx: self.tx.clone(), waiting: self.waiting.clone(), limit: self.limit }
    }
}

impl<T> Receiver<T> {
    /// Waits for a message.
    ///
    /// # Errors
    /// None is there, and nobody can put one in any more.
    pub fn recv(&self) -> Result<T, RecvError> {
        self.rx.recv().inspect(|_| self.took())
    }

    /// Waits for a message, but not for longer than `timeout`.
    ///
    /// # Errors
    /// None came, or nobody can put one in any more.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.rx.recv_timeout(timeout).inspect(|_| self.took())
    }

    /// What is there now; waits for nothing.
    pub fn try_iter(&self) -> impl Iterator<Item = T> {
        self.rx.try_iter().inspect(|_| self.took())
    }

    /// All messages, until nobody can put one in any more.
    pub fn iter(&self) -> impl Iterator<Item = T> {
        self.rx.iter().inspect(|_| self.took())
    }

    fn took(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        Receiver { rx: self.rx.clone(), waiting: self.waiting.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_refuses_what_is_asked_for_and_takes_completions() {
        let (sender, receiver) = queue(2);
        assert_eq!(sender.try_send(1), Ok(()));
        assert_eq!(sender.clone().try_send(2), Ok(()));
        assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)));
        assert_eq!(sender.send(4), Ok(()));
        assert_eq!(receiver.recv(), Ok(1));
        assert_eq!(sender.try_send(5), Err(TrySendError::Full(5)), "the completion counts while it waits");
        assert_eq!(receiver.clone().recv_timeout(Duration::ZERO), Ok(2));
        assert_eq!(sender.try_send(6), Ok(()));
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [4, 6]);
        for n in 0..2 {
            assert_eq!(sender.try_send(n), Ok(()), "all that was taken made room");
        }
        drop(sender);
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [0, 1]);
        assert!(receiver.recv().is_err());
    }

    #[test]
    fn a_message_that_nobody_will_take_comes_back() {
        let (sender, receiver) = queue(2);
        drop(receiver);
        assert_eq!(sender.try_send(1), Err(TrySendError::Disconnected(1)));
        assert_eq!(sender.send(2), Err(SendError(2)));
    }
}
