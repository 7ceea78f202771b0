//! When requests go out.
//!
//! *Closed loop*: a worker sends its next request when the last is answered; a rate, if there is one, is a token bucket
//! with a burst (etcd's tool: 1). *Open loop*: request k of a rate r is due at start + k/r, whatever the server does; a
//! worker that is late takes the oldest due request, and its response time counts from the time it was due. So a stall of
//! the server shows in every request that it delayed (no coordinated omission).
//!
//! tokio's timers have steps of a millisecond, as long as a whole put; a ticker sleeps on a timerfd instead.

use rustix::fd::OwnedFd;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use std::cell::Cell;
use std::io;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Permits given at once at most; a ticker that slept too long gives the rest in its next turn.
const GRANT_MAX: u64 = 1 << 16;
/// How often a ticker whose time is over looks whether all is sent.
const BACKLOG_CHECK: Duration = Duration::from_millis(1);

/// How one load thread's requests are spaced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As fast as answers come.
    Unlimited,
    /// At most `rate` a second; response times count from the sending.
    Bucket { rate: f64, burst: u64 },
    /// Exactly `rate` a second; response times count from when a request was due.
    Open { rate: f64 },
}

impl Pace {
    /// This pace shared by `threads`.
    pub fn shared_by(self, threads: usize) -> Pace {
        let share = |rate: f64| rate / threads.max(1) as f64;
        match self {
            Pace::Unlimited => Pace::Unlimited,
            Pace::Bucket { rate, burst } => Pace::Bucket { rate: share(rate), burst },
            Pace::Open { rate } => Pace::Open { rate: share(rate) },
        }
    }

    fn rate(self) -> Option<f64> {
        match self {
            Pace::Unlimited => None,
            Pace::Bucket { rate, .. } | Pace::Open { rate } => Some(rate),
        }
    }
}

/// Hands out turns to the workers of one thread.
#[derive(Debug)]
pub struct Pacer {
    pace: Pace,
    start: Instant,
    turns: Semaphore,
    taken: Cell<u64>,
    given: Cell<u64>,
}

impl Pacer {
    /// A pacer whose first request is due at `start`.
    pub fn new(pace: Pace, start: Instant) -> Pacer {
        Pacer { pace, start, turns: Semaphore::new(0), taken: Cell::new(0), given: Cell::new(0) }
    }

    /// Waits for a turn and says from when its response time counts; `None` when no more come.
    pub async fn turn(&self) -> Option<Instant> {
        if self.pace == Pace::Unlimited {
            return (!self.turns.is_closed()).then(Instant::now);
        }
        self.turns.acquire().await.ok()?.forget();
        let number = self.taken.get();
        self.taken.set(number + 1);
        Some(match self.pace {
            Pace::Open { .. } => self.due(number),
            _ => Instant::now(),
        })
    }

    /// When request `number` is due.
    pub fn due(&self, number: u64) -> Instant {
        match self.pace.rate() {
            Some(rate) => self.start + Duration::from_secs_f64(number as f64 / rate),
            None => self.start,
        }
    }

    /// Gives turns until `end`, for ever without one. To be run beside the workers.
    pub async fn tick(&self, alarm: &mut Alarm, end: Option<Instant>) {
        let Some(rate) = self.pace.rate() else {
            if let Some(end) = end {
                alarm.sleep_until(end).await;
                self.close();
            }
            return std::future::pending().await;
        };
        let interval = Duration::from_secs_f64(1.0 / rate);
        let mut next = self.start;
        loop {
            if end.is_some_and(|end| next >= end) {
                self.wait_for_backlog().await;
                self.close();
                return std::future::pending().await;
            }
            alarm.sleep_until(next).await;
            next = match self.pace {
                Pace::Bucket { burst, .. } => self.refill(next, interval, burst),
                _ => self.release_due(end),
            };
        }
    }

    /// Releases all turns that are due; when the next one is.
    fn release_due(&self, end: Option<Instant>) -> Instant {
        let now = Instant::now();
        let mut released = 0;
        let mut next = self.due(self.given.get());
        while next <= now && end.is_none_or(|end| next < end) && released < GRANT_MAX {
            released += 1;
            next = self.due(self.given.get() + released);
        }
        self.given.set(self.given.get() + released);
        self.turns.add_permits(released as usize);
        next
    }

    /// One turn more, unless `burst` wait already: what was not used is lost. When the next one comes.
    fn refill(&self, due: Instant, interval: Duration, burst: u64) -> Instant {
        let mut next = due;
        let now = Instant::now();
        while next <= now {
            if (self.turns.available_permits() as u64) < burst {
                self.turns.add_permits(1);
                self.given.set(self.given.get() + 1);
                next += interval;
            } else {
                next = now + interval;
            }
        }
        next
    }

    /// Nobody gets a turn any more.
    pub fn close(&self) {
        self.turns.close();
    }

    /// Requests that became due are sent, however late.
    async fn wait_for_backlog(&self) {
        while self.backlog() > 0 {
            tokio::time::sleep(BACKLOG_CHECK).await;
        }
    }

    /// Requests that became due and were not sent yet.
    pub fn backlog(&self) -> u64 {
        match self.pace {
            Pace::Open { .. } => self.given.get().saturating_sub(self.taken.get()),
            _ => 0,
        }
    }
}

/// A timer finer than tokio's.
#[derive(Debug)]
pub enum Alarm {
    /// tokio's own, for tests in paused time.
    Tokio,
    /// The kernel's.
    Timer(AsyncFd<OwnedFd>),
}

impl Alarm {
    /// A timerfd on the current runtime.
    pub fn precise() -> io::Result<Alarm> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(deprecated, reason = "its replacement is unsafe; an OwnedFd stays open as long as it is owned here")]
        let fd = AsyncFd::new(fd)?;
        Ok(Alarm::Timer(fd))
    }

    /// Returns at `when`, at once if that is past.
    pub async fn sleep_until(&mut self, when: Instant) {
        let Alarm::Timer(fd) = self else {
            return tokio::time::sleep_until(when).await;
        };
        let wait = when.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return tokio::task::yield_now().await;
        }
        if timer_wait(fd, wait).await.is_err() {
            tokio::time::sleep_until(when).await;
        }
    }
}

async fn timer_wait(fd: &AsyncFd<OwnedFd>, wait: Duration) -> io::Result<()> {
    let value = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
    rustix::time::timerfd_settime(fd.get_ref(), TimerfdTimerFlags::empty(), &once)?;
    loop {
        let mut ready = fd.readable().await?;
        let mut fired = [0u8; 8];
        match ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut fired)?)) {
            Ok(outcome) => return outcome.map(|_| ()),
            Err(_would_block) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;
    use tokio::task::LocalSet;

    async fn turns_of(pace: Pace, run: Duration, service: Duration) -> Vec<(Duration, Duration)> {
        let start = Instant::now();
        let pacer = Rc::new(Pacer::new(pace, start));
        let ticker = pacer.clone();
        let tick = tokio::task::spawn_local(async move { ticker.tick(&mut Alarm::Tokio, Some(start + run)).await });
        let mut turns = Vec::new();
        while let Ok(Some(from)) = tokio::time::timeout(Duration::from_secs(60), pacer.turn()).await {
            turns.push((from - start, Instant::now() - start));
            tokio::time::sleep(service).await;
        }
        tick.abort();
        turns
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_loop_counts_from_when_a_request_was_due() {
        // 100 a second for half a second, by one worker that needs 30 ms: it falls behind, and that is what is measured.
        let ms = Duration::from_millis;
        let run = turns_of(Pace::Open { rate: 100.0 }, ms(500), ms(30));
        let turns = LocalSet::new().run_until(run).await;
        assert_eq!(turns.len(), 50, "every due request is sent");
        for (number, (due, sent)) in turns.iter().enumerate() {
            assert_eq!(*due, ms(10) * number as u32);
            assert_eq!(*sent, ms(30) * number as u32);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_loop_on_time_sends_when_due() {
        let ms = Duration::from_millis;
        let turns = LocalSet::new().run_until(turns_of(Pace::Open { rate: 100.0 }, ms(100), ms(1))).await;
        assert_eq!(turns.len(), 10);
        assert!(turns.iter().all(|(due, sent)| due == sent), "{turns:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_bucket_of_one_makes_up_for_nothing() {
        let ms = Duration::from_millis;
        let run = turns_of(Pace::Bucket { rate: 100.0, burst: 1 }, ms(300), ms(30));
        let turns = LocalSet::new().run_until(run).await;
        assert!((9..=11).contains(&turns.len()), "{turns:?}");
        assert!(turns.iter().all(|(from, sent)| from == sent), "times count from the sending");
    }

    #[test]
    fn threads_share_a_rate() {
        assert_eq!(Pace::Open { rate: 100.0 }.shared_by(4), Pace::Open { rate: 25.0 });
        assert_eq!(Pace::Unlimited.shared_by(4), Pace::Unlimited);
    }
}
