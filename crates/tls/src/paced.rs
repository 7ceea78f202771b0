//! Handshakes side by side with everything else that a thread does.
//!
//! Clients that connect and say nothing are waited for in a lobby. It is large enough for any that mean well, who say
//! something at once; where it is full, who has waited longest has to go. So those who only connect can't take all the
//! places that connections have.
//!
//! A step of a handshake is up to a millisecond of arithmetic. A thousand clients that come at once would keep all others of
//! the thread waiting for a second; so only a few steps are done between two rounds of the others. A client that is silent
//! does no step and costs nobody anything.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use tokio::sync::{Notify, Semaphore};

/// Steps between two rounds of a thread's other work: about a millisecond.
const STEPS_MAX: usize = 2;

/// Clients of one thread that have not said anything yet. Past it: who has waited longest is sent away.
const LOBBY_MAX: usize = 256;

/// One thread's handshakes.
#[derive(Clone, Debug)]
pub struct Pace {
    steps: Arc<Semaphore>,
    lobby: Arc<Mutex<Lobby>>,
}

#[derive(Debug, Default)]
struct Lobby {
    next: u64,
    waiting: BTreeMap<u64, Arc<Notify>>,
}

/// The lobby was full: the client has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SentAway;

impl Default for Pace {
    fn default() -> Pace {
        Pace { steps: Arc::new(Semaphore::new(STEPS_MAX)), lobby: Arc::default() }
    }
}

/// A client's place in the lobby, given back when dropped.
struct Place<'a> {
    lobby: &'a Mutex<Lobby>,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.lobby.lock().waiting.remove(&self.number);
    }
}

impl Pace {
    /// Waits for what a client says first.
    pub(crate) async fn await_first<F: Future>(&self, first: F) -> Result<F::Output, SentAway> {
        let (number, sent_away) = self.lobby.lock().enter();
        let _place = Place { lobby: &self.lobby, number };
        tokio::select! {
            biased;
            output = first => Ok(output),
            () = sent_away.notified() => Err(SentAway),
        }
    }

    /// Polls `work` only in its turn.
    pub async fn run<F: Future>(&self, work: F) -> F::Output {
        let mut work = pin!(work);
        let bell = Arc::new(Bell::default());
        loop {
            // Never closed.
            let turn = self.steps.acquire().await;
            let own = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
            let step = bell.poll(work.as_mut(), &own);
            // The turn lasts until the others had theirs.
            tokio::task::yield_now().await;
            drop(turn);
            match step {
                Poll::Ready(output) => return output,
                Poll::Pending => poll_fn(|cx| bell.rung(cx)).await,
            }
        }
    }
}

impl Lobby {
    fn enter(&mut self) -> (u64, Arc<Notify>) {
        if self.waiting.len() >= LOBBY_MAX
            && let Some((_, oldest)) = self.waiting.pop_first()
        {
            oldest.notify_one();
        }
        let (number, sent_away) = (self.next, Arc::<Notify>::default());
        self.next += 1;
        self.waiting.insert(number, sent_away.clone());
        (number, sent_away)
    }
}

/// Whether the work can go on: the task is also woken for its turn.
#[derive(Debug, Default)]
struct Bell {
    rung: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Bell {
    fn poll<F: Future>(self: &Arc<Bell>, work: std::pin::Pin<&mut F>, task: &Waker) -> Poll<F::Output> {
        *self.task.lock() = Some(task.clone());
        self.rung.store(false, Ordering::SeqCst);
        let waker = Waker::from(self.clone());
        work.poll(&mut Context::from_waker(&waker))
    }

    fn rung(&self, cx: &Context<'_>) -> Poll<()> {
        *self.task.lock() = Some(cx.waker().clone());
        if self.rung.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Bell>) {
        self.rung.store(true, Ordering::SeqCst);
        let task = self.task.lock().clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    #[test]
    fn others_have_their_turn_between_a_few_steps() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without IO");
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let (pace, steps) = (Pace::default(), Rc::new(Cell::new(0)));
            let rounds = Rc::new(RefCell::new(Vec::new()));
            let handshakes: Vec<_> = (0..20)
                .map(|_| {
                    let (pace, steps) = (pace.clone(), steps.clone());
                    tokio::task::spawn_local(async move {
                        pace.run(async {
                            for _ in 0..3 {
                                steps.set(steps.get() + 1);
                                tokio::task::yield_now().await;
                            }
                        })
                        .await;
                    })
                })
                .collect();
            let (seen, counted) = (rounds.clone(), steps.clone());
            let other = tokio::task::spawn_local(async move {
                while counted.get() < 60 {
                    seen.borrow_mut().push(counted.get());
                    tokio::task::yield_now().await;
                }
            });
            for handshake in handshakes {
                handshake.await.expect("no panic");
            }
            other.await.expect("no panic");
            let rounds = rounds.borrow();
            let most = rounds.windows(2).map(|w| w[1] - w[0]).max();
            assert!(most <= Some(2 * STEPS_MAX), "{rounds:?}");
        });
    }

    #[tokio::test]
    async fn work_that_waits_is_woken() {
        let (send, receive) = tokio::sync::oneshot::channel();
        let pace = Pace::default();
        let waiting = tokio::spawn({
            let pace = pace.clone();
            async move { pace.run(receive).await }
        });
        tokio::task::yield_now().await;
        // Those that wait have no turn.
        for n in 0..5 {
            assert_eq!(pace.run(async { n }).await, n);
        }
        send.send(7).expect("somebody waits");
        assert_eq!(waiting.await.expect("no panic"), Ok(7));
    }

    #[tokio::test]
    async fn who_says_nothing_for_long_makes_room_for_others() {
        let pace = Pace::default();
        let silent = |pace: Pace| tokio::spawn(async move { pace.await_first(std::future::pending::<()>()).await });
        let waiting: Vec<_> = (0..=LOBBY_MAX).map(|_| silent(pace.clone())).collect();
        let mut waiting = waiting.into_iter();
        let oldest = waiting.next().expect("there are many");
        assert_eq!(oldest.await.expect("no panic"), Err(SentAway));
        assert_eq!(pace.lobby.lock().waiting.len(), LOBBY_MAX);
        waiting.for_each(|task| task.abort());
        assert_eq!(pace.await_first(async { 7 }).await, Ok(7));
    }
}
