//! Sending a database image: `POST /raft/snapshot`, the message first, then the image (rafthttp `snapshot_sender.go`).
//!
//! Invariants:
//! * The peer thread reads no file: pieces come from threads that may block, two ahead of the network.
//! * The body is never silent for 2 s, or the receiver would close the connection after 5: the last piece is held back
//!   until the next one is there, and goes out byte by byte while the disk is late.
//! * Exactly one report of success or failure for each snapshot that is handed in, unless its peer is removed meanwhile.

use super::check::hex;
use super::codec::{self, SNAPSHOT_MESSAGE_MAX};
use super::http::{Line, Sending};
use super::link::Link;
use super::local::Image;
use super::pipeline::{Failed, request, verdict};
use super::url::Url;
use api::raft::Message;
use bytes::{Bytes, BytesMut};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// Bytes read at a time.
const PIECE: u64 = 128 << 10;
/// Pieces that wait for the network.
const QUEUE: usize = 2;
/// A byte leaves after so long without a piece from the disk.
const SILENCE: Duration = Duration::from_secs(1);
/// The peer takes no byte for so long: failed. etcd waits until TCP gives up.
const STALL: Duration = Duration::from_secs(30);
/// How long the peer may take to store the image and answer. etcd waits for ever.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);
/// The shortest sleep of a sender that is ahead of its pace.
const NAP: Duration = Duration::from_millis(5);
/// How long the rest of the answer may take (etcd `snapResponseReadTimeout`).
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// A snapshot on its way. Dropped, it lets go of the image and makes room for the next one.
pub(crate) struct Sent {
    link: Arc<Link>,
    busy: Arc<AtomicBool>,
    image: Option<Arc<dyn Image>>,
}

impl Sent {
    /// Nothing while another one is on its way to the peer.
    pub fn begin(link: &Arc<Link>, busy: &Arc<AtomicBool>, image: Arc<dyn Image>) -> Option<Sent> {
        let free = !busy.swap(true, Ordering::Relaxed);
        free.then(|| {
            link.meter.snapshot_sending.up();
            Sent { link: link.clone(), busy: busy.clone(), image: Some(image) }
        })
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.link.meter.snapshot_sending.down();
        self.busy.store(false, Ordering::Relaxed);
        // The last reference may close files.
        let image = self.image.take();
        drop(self.link.shared.runtime.spawn_blocking(move || drop(image)));
    }
}

/// Sends a snapshot and reports what became of it.
pub(crate) async fn send(sent: Sent, message: Message) {
    let link = sent.link.clone();
    let Some(image) = sent.image.as_ref() else { return };
    let outcome = exchange(&link, &message, image).await;
    // The report may bring the next snapshot.
    drop(sent);
    match outcome {
        Ok(()) => link.shared.local.report_snapshot(link.id, true),
        Err(()) => {
            link.shared.local.report_unreachable(link.id);
            link.shared.local.report_snapshot(link.id, false);
        }
    }
}

async fn exchange(link: &Link, message: &Message, image: &Arc<dyn Image>) -> Result<(), ()> {
    let begin = Instant::now();
    let url = link.picker.pick();
    let (id, bytes) = (hex(link.id), image.len());
    let snapshot_index = message.snapshot.as_ref().map_or(0, |s| s.metadata.index);
    tracing::info!(snapshot_index, remote_peer_id = id, bytes, "sending database snapshot");
    match post(link, &url, message, image).await {
        Ok(sent) => {
            link.activate();
            link.meter.sent_bytes.add(sent);
            link.meter.snapshot_sent.up();
            link.meter.snapshot_send_time.observe(begin.elapsed());
            tracing::info!(snapshot_index, remote_peer_id = id, bytes, "sent database snapshot");
            Ok(())
        }
        Err(why) => {
            tracing::warn!(snapshot_index, remote_peer_id = id, bytes, error = %why, "failed to send database snapshot");
            failed(link, &url, &why);
            Err(())
        }
    }
}

fn failed(link: &Link, url: &Url, why: &Failed) {
    if *why == Failed::Removed {
        link.shared.was_removed();
    }
    link.picker.unreachable(url);
    link.deactivate("post", "sendMsgSnap", why);
    link.meter.sent_failures.up();
    link.meter.snapshot_send_failures.up();
}

/// Answers the bytes sent.
async fn post(link: &Link, url: &Url, message: &Message, image: &Arc<dyn Image>) -> Result<usize, Failed> {
    let mut head = BytesMut::new();
    codec::put_message(&mut head, message);
    if head.len() as u64 - 8 > SNAPSHOT_MESSAGE_MAX {
        return Err(Failed::Other("the snapshot's message is larger than peers take".to_owned()));
    }
    let sent = head.len() + usize::try_from(image.len()).unwrap_or(usize::MAX);
    let (pieces, body) = mpsc::channel(QUEUE);
    let mut line = Line::new(link.shared.dialer.clone(), None, Some(STALL));
    let exchange = async {
        let post = request(link, "/raft/snapshot", "application/octet-stream", Sending::Pieces(body));
        let response = line.ask(url, post).await?;
        match timeout(BODY_TIMEOUT, verdict(link, url, response)).await {
            Ok(verdict) => verdict,
            Err(_) => Err(Failed::Other("the answer's body does not end".to_owned())),
        }
    };
    let feeding = async {
        feed(&pieces, head.freeze(), image, link.shared.snapshot_rate).await;
        drop(pieces);
        tokio::time::sleep(ANSWER_TIMEOUT).await;
    };
    tokio::select! {
        outcome = exchange => outcome.map(|()| sent),
        () = feeding => Err(Failed::Other(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))),
    }
}

/// Puts head and image into the body, at most `rate` bytes a second.
async fn feed(pieces: &mpsc::Sender<io::Result<Bytes>>, head: Bytes, image: &Arc<dyn Image>, rate: u64) {
    let mut pace = Pace::new(rate);
    let mut held = head;
    let mut offset = 0;
    while offset < image.len() {
        let len = PIECE.min(rate).max(1).min(image.len() - offset);
        let mut reading = tokio::task::spawn_blocking({
            let image = image.clone();
            move || read(&*image, offset, len)
        });
        let read = loop {
            match timeout(SILENCE, &mut reading).await {
                Ok(read) => break read.unwrap_or_else(|e| Err(io::Error::other(e))),
                Err(_) if held.len() > 1 => {
                    if pieces.send(Ok(held.split_to(1))).await.is_err() {
                        return;
                    }
                }
                // Nothing left to say.
                Err(_) => {}
            }
        };
        let failed = read.is_err();
        let before = read.map(|next| std::mem::replace(&mut held, next));
        if pieces.send(before).await.is_err() || failed {
            return;
        }
        offset += len;
        pace.pass(len).await;
    }
    // A receiver that is gone has said why.
    let _ = pieces.send(Ok(held)).await;
}

fn read(image: &dyn Image, offset: u64, len: u64) -> io::Result<Bytes> {
    let mut piece = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    image.read_at(offset, &mut piece)?;
    Ok(piece.into())
}

/// Lets a number of bytes a second pass.
struct Pace {
    rate: u64,
    begin: Instant,
    passed: u64,
}

impl Pace {
    fn new(rate: u64) -> Pace {
        Pace { rate: rate.max(1), begin: Instant::now(), passed: 0 }
    }

    /// Sleeps as long as the bytes so far are ahead of time. What was late is not made up for.
    async fn pass(&mut self, len: u64) {
        self.passed = self.passed.saturating_add(len);
        let due = Duration::from_micros(self.passed.saturating_mul(1_000_000) / self.rate);
        let spent = self.begin.elapsed();
        match due.checked_sub(spent) {
            // Timers count milliseconds: shorter sleeps would last too long.
            Some(early) if early >= NAP => tokio::time::sleep(early).await,
            Some(_) => {}
            None => (self.begin, self.passed) = (Instant::now(), 0),
        }
    }
}

#[cfg(test)]
mod tests;
