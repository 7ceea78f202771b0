//! What ends calls from outside: the stop of the member, the loss of its leader, the call's deadline.

use crate::services::status;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Sleep;
use tonic::Status;

/// Held while a call is open; the server's stop waits for the last of them.
pub(crate) type Open = mpsc::Sender<()>;
/// What connections hold between calls.
pub(crate) type WeakOpen = mpsc::WeakSender<()>;

/// Whether a leader is known, and how long a stream goes on while none is.
pub(crate) type Leader = (watch::Receiver<bool>, Duration);

/// Why a call has to end, once it has.
pub(crate) struct End {
    late: Option<Pin<Box<Sleep>>>,
    outside: Outside,
}

enum Outside {
    Nothing,
    /// Not listened to yet: short calls never have to.
    Stop(watch::Receiver<bool>),
    Heard(Pin<Box<dyn Future<Output = Status> + Send>>),
}

impl End {
    /// After `limit`; with `stop`, for calls that may last as long as the client likes; without a leader.
    pub fn new(limit: Option<Duration>, stop: Option<watch::Receiver<bool>>, leader: Option<Leader>) -> End {
        let late = limit.map(|limit| Box::pin(tokio::time::sleep(limit)));
        let outside = match (stop, leader) {
            (None, _) => Outside::Nothing,
            (Some(stop), None) => Outside::Stop(stop),
            (Some(stop), leader) => Outside::Heard(Box::pin(must_end(stop, leader))),
        };
        End { late, outside }
    }

    /// Whether the call has to end. One whose answer is on its way is not told of the member's stop: the answer comes.
    pub fn poll_unless_answered(&mut self, answered: bool, cx: &mut Context<'_>) -> Poll<Status> {
        match &self.outside {
            Outside::Stop(_) if answered => self.poll_late(cx),
            _ => self.poll(cx),
        }
    }

    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        match &mut self.late {
            Some(late) => late.as_mut().poll(cx).map(|()| late_status()),
            None => Poll::Pending,
        }
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        if let Poll::Ready(why) = self.poll_late(cx) {
            return Poll::Ready(why);
        }
        if let Outside::Stop(stop) = &self.outside {
            self.outside = Outside::Heard(Box::pin(must_end(stop.clone(), None)));
        }
        match &mut self.outside {
            Outside::Heard(end) => end.as_mut().poll(cx),
            Outside::Nothing | Outside::Stop(_) => Poll::Pending,
        }
    }
}

/// What a call is told whose time is over.
pub(crate) fn late_status() -> Status {
    Status::deadline_exceeded("context deadline exceeded")
}

/// Waits until the member stops, or a call that wants a leader has had none for as long as given with it (etcd
/// `monitorLeader`).
async fn must_end(mut stop: watch::Receiver<bool>, leader: Option<Leader>) -> Status {
    // A sender that is gone stops everything, too.
    let stopped = async { drop(stop.wait_for(|stop| *stop).await) };
    let Some((known, patience)) = leader else {
        stopped.await;
        return status(&api::Error::Stopped);
    };
    tokio::select! {
        () = stopped => status(&api::Error::Stopped),
        () = no_leader_for(known, patience) => status(&api::Error::NoLeader),
    }
}

async fn no_leader_for(mut known: watch::Receiver<bool>, patience: Duration) {
    while known.wait_for(|known| !*known).await.is_ok() {
        if tokio::time::timeout(patience, known.wait_for(|known| *known)).await.is_err() {
            return;
        }
    }
    // The member is gone: its stop ends the stream.
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    async fn end(mut end: End) -> Status {
        std::future::poll_fn(|cx| end.poll(cx)).await
    }

    /// The clock stands still but for what is waited for.
    #[tokio::test(start_paused = true)]
    async fn streams_that_want_a_leader_end_after_three_election_timeouts_without_one() {
        let (stop, stopped) = watch::channel(false);
        let (leader, known) = watch::channel(true);
        let second = Duration::from_secs(1);
        let begin = tokio::time::Instant::now();
        let wanting = tokio::spawn(end(End::new(None, Some(stopped.clone()), Some((known, 3 * second)))));
        let indifferent = tokio::spawn(end(End::new(None, Some(stopped), None)));
        for known in [false, true, false] {
            tokio::time::sleep(2 * second).await;
            leader.send_replace(known);
        }
        assert_eq!(wanting.await.unwrap().message(), "etcdserver: no leader");
        assert_eq!(begin.elapsed().as_secs(), 6 + 3, "a leader in between starts the count again");
        stop.send_replace(true);
        assert_eq!(indifferent.await.unwrap().message(), "etcdserver: server stopped");
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_ends_every_call() {
        let begin = tokio::time::Instant::now();
        let late = end(End::new(Some(Duration::from_millis(500)), None, None)).await;
        assert_eq!((late.code(), begin.elapsed().as_millis()), (Code::DeadlineExceeded, 500));
        let (_stop, stopped) = watch::channel(false);
        let late = end(End::new(Some(Duration::from_millis(500)), Some(stopped), None)).await;
        assert_eq!((late.code(), begin.elapsed().as_millis()), (Code::DeadlineExceeded, 1000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_streams_that_want_a_leader_too() {
        let (stop, stopped) = watch::channel(false);
        let (leader, known) = watch::channel(false);
        drop(leader);
        let ended = tokio::spawn(end(End::new(None, Some(stopped), Some((known, Duration::from_secs(1))))));
        drop(stop);
        assert_eq!(ended.await.unwrap().code(), Code::Unavailable);
    }
}
