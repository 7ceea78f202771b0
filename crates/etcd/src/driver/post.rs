//! What the core has for the calls of a network thread: answers, and reads that may run now.
//!
//! Waking a thread that sleeps in the kernel costs more than answering a small read, and tokio's waker does so for each
//! task that is woken from outside. So the core hands over batches: one wake for all, and on the network
//! thread itself waking a call is a push onto a local queue.
//!
//! Nothing bounds the queue by itself: it holds answers of calls that are open, and those are bounded by the streams that
//! connections may have.

use super::readers::{Job, Readers};
use super::{Shared, Ticket, slow};
use rpc::metrics;
use server::member::Outcome;
use server::{Request, Who, access, read};
use std::sync::Arc;
use std::time::Instant;
use store::Kind;
use tokio::sync::{mpsc, oneshot};

/// Deliveries between two looks at sockets and timers: a few µs each, small reads mostly.
const BATCH_MAX: usize = 64;

/// A network thread's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home(pub u8);

/// One call's part of a batch.
#[derive(Debug)]
pub enum Delivery {
    Answer {
        out: oneshot::Sender<Outcome>,
        result: Outcome,
    },
    /// A read that the newest published state may answer.
    Read {
        ticket: Ticket,
        who: Who,
        request: Request,
    },
}

/// A network thread's end.
pub type Deliveries = mpsc::UnboundedReceiver<Vec<Delivery>>;

/// The core's end: gathers deliveries until [`Post::send`].
#[derive(Debug)]
pub struct Post {
    homes: Arc<[mpsc::UnboundedSender<Vec<Delivery>>]>,
    gathered: Vec<Vec<Delivery>>,
}

/// The post of `homes` network threads.
pub fn channels(homes: usize) -> (Post, Vec<Deliveries>) {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..homes).map(|_| mpsc::unbounded_channel()).unzip();
    let gathered = senders.iter().map(|_| Vec::new()).collect();
    (Post { homes: senders.into(), gathered }, receivers)
}

impl Post {
    /// Keeps an answer for the next [`Post::send`].
    pub fn answer(&mut self, ticket: Ticket, result: Outcome) {
        match ticket {
            Ticket::Unary { out, home } => self.put(home, Delivery::Answer { out, result }),
            stream => stream.answer(result),
        }
    }

    /// Keeps a read; `None` when it has no network thread to run on.
    pub fn read(&mut self, ticket: Ticket, who: Who, request: Request) -> Option<(Ticket, Who, Request)> {
        let Ticket::Unary { home, .. } = &ticket else { return Some((ticket, who, request)) };
        self.put(*home, Delivery::Read { ticket, who, request });
        None
    }

    fn put(&mut self, home: Home, delivery: Delivery) {
        self.gathered[usize::from(home.0)].push(delivery);
    }

    /// Hands over what was gathered. A network thread that has ended has nobody who waits.
    pub fn send(&mut self) {
        for (home, gathered) in self.homes.iter().zip(&mut self.gathered) {
            if !gathered.is_empty() {
                drop(home.send(std::mem::take(gathered)));
            }
        }
    }
}

/// Runs on a network thread: wakes its calls, and runs reads that are quick.
pub async fn deliver(mut deliveries: Deliveries, shared: Arc<Shared>, readers: Readers) {
    while let Some(batch) = deliveries.recv().await {
        for (n, delivery) in batch.into_iter().enumerate() {
            match delivery {
                // A caller that went away is fine.
                Delivery::Answer { out, result } => drop(out.send(result)),
                Delivery::Read { ticket, who, request } => run(&shared, &readers, ticket, who, request),
            }
            if n % BATCH_MAX == BATCH_MAX - 1 {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Runs a read here if it is quick, else on a reader.
pub fn run(shared: &Shared, readers: &Readers, ticket: Ticket, who: Who, request: Request) {
    shared.calls.count();
    let applied = shared.applied.load();
    if let Err(e) = access::check_read(&who, &request, &applied) {
        return ticket.answer(Err(e));
    }
    let begun = Instant::now();
    let quick = read::quick(&applied, &request);
    if let (Some(outcome), Request::Range(_)) = (&quick, &request) {
        metrics::RANGES.inc();
        metrics::RANGE.of(Kind::Range, outcome.is_ok()).observe_seconds(begun.elapsed());
    }
    if let Some(outcome) = &quick {
        slow::read(&request, outcome.as_ref().map_err(ToString::to_string), begun.elapsed(), shared.slow_apply);
    }
    match quick {
        Some(Ok(response)) => ticket.answer(Ok(response)),
        Some(Err(store::Error::Refused(e))) => ticket.answer(Err(e)),
        Some(Err(store::Error::Fatal(text))) => super::core::die(&server::Fatal::new(text)),
        None => readers.run(Job::Read { ticket, who, request }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(home: u8) -> (Ticket, oneshot::Receiver<Outcome>) {
        let (out, answer) = oneshot::channel();
        (Ticket::Unary { out, home: Home(home) }, answer)
    }

    #[test]
    fn each_thread_gets_its_own_in_order_and_in_one_batch() {
        let (mut post, mut deliveries) = channels(2);
        let mut answers = Vec::new();
        for (n, home) in [1, 0, 1, 1].into_iter().enumerate() {
            let (ticket, answer) = ticket(home);
            post.answer(ticket, Err(api::Error::Other(n.to_string().into())));
            answers.push(answer);
        }
        assert!(deliveries.iter_mut().all(|d| d.is_empty()), "nobody is woken before all is gathered");
        post.send();
        let texts = |batch: Vec<Delivery>| -> Vec<String> {
            let text = |delivery| match delivery {
                Delivery::Answer { result, .. } => result.unwrap_err().to_string(),
                Delivery::Read { .. } => unreachable!("nothing was to be read"),
            };
            batch.into_iter().map(text).collect()
        };
        assert_eq!(texts(deliveries[0].try_recv().unwrap()), ["1"]);
        assert_eq!(texts(deliveries[1].try_recv().unwrap()), ["0", "2", "3"]);
        post.send();
        assert!(deliveries.iter_mut().all(|d| d.is_empty()), "an empty batch is not sent");
    }

    #[test]
    fn streams_are_read_elsewhere() {
        let (mut post, _deliveries) = channels(1);
        let (out, _chunks) = mpsc::channel(1);
        let request = Request::Range(Default::default());
        assert!(post.read(Ticket::Chunks(out), Who::Stranger, request.clone()).is_some());
        assert!(post.read(ticket(0).0, Who::Stranger, request).is_none());
    }
}
