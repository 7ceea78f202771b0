//! Keepalive policing as grpc-go's server does it (`http2_server.go`, `handlePing`), around the bytes of a connection,
//! since neither hyper nor h2 tells of pings.
//!
//! A ping that comes sooner after the last one than allowed is a strike; the third strike in a row ends the connection
//! with GOAWAY ENHANCE_YOUR_CALM `too_many_pings`. Without open streams pings may come every two hours only. DATA and
//! HEADERS from the server forgive all strikes.
//!
//! ```text
//! Preface ─► Http2 ─third strike─► leaving: between two of the server's frames GOAWAY, FIN; input discarded ─► error
//!    └─────► Other (HTTP/1: untouched)                                             after LINGER or the client's end
//! ```
//!
//! Invariants: bytes pass unchanged and uncopied; frame headers are all that is looked at. h2 flushes only between
//! frames, and always after it has read: that is where GOAWAY goes out.

use crate::frames::{Frame, Kind, PREFACE, Scanner};
use std::collections::HashSet;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// Between pings while no stream is open (grpc-go `defaultPingTimeout`).
const IDLE_MIN_TIME: Duration = Duration::from_secs(2 * 60 * 60);
/// Strikes that are borne (grpc-go `maxPingStrikes`).
const STRIKES_MAX: u32 = 2;
/// How long the client may take to go. Closing over unread input would make TCP throw the GOAWAY away (grpc-go does the
/// same for the same reason).
const LINGER: Duration = Duration::from_secs(1);
const ENHANCE_YOUR_CALM: u32 = 11;
const REASON: &[u8; 14] = b"too_many_pings";
const GOAWAY: usize = 9 + 8 + REASON.len();

/// A connection whose client's pings are counted.
#[derive(Debug)]
pub(crate) struct Policed<S> {
    stream: S,
    min_time: Duration,
    /// Counts what is written, for those who wait until nothing is.
    written: Arc<AtomicU64>,
    phase: Phase,
    leaving: Option<Leaving>,
}

#[derive(Debug)]
enum Phase {
    /// So many bytes of the preface have come.
    Preface(usize),
    Http2(Box<Police>),
    Other,
}

/// What is known of an HTTP/2 connection.
#[derive(Debug)]
struct Police {
    min_time: Duration,
    inbound: Scanner,
    outbound: Scanner,
    open: HashSet<u32>,
    last_stream: u32,
    last_ping: Option<Instant>,
    strikes: u32,
    /// The server has sent DATA or HEADERS since the last ping.
    forgiven: bool,
}

#[derive(Debug)]
struct Leaving {
    goaway: [u8; GOAWAY],
    written: usize,
    closed: bool,
    until: Pin<Box<Sleep>>,
}

impl Police {
    fn new(min_time: Duration) -> Police {
        Police {
            min_time,
            inbound: Scanner::default(),
            outbound: Scanner::default(),
            open: HashSet::new(),
            last_stream: 0,
            last_ping: None,
            strikes: 0,
            forgiven: false,
        }
    }

    fn received(&mut self, bytes: &[u8]) {
        let mut inbound = self.inbound;
        inbound.feed(bytes, |frame| self.heard(frame));
        self.inbound = inbound;
    }

    fn sent(&mut self, bytes: &[u8]) {
        let mut outbound = self.outbound;
        outbound.feed(bytes, |frame| self.said(frame));
        self.outbound = outbound;
    }

    fn heard(&mut self, frame: Frame) {
        match frame.kind {
            // Trailers come on a stream that is known already.
            Kind::Headers if frame.stream > self.last_stream => {
                self.last_stream = frame.stream;
                self.open.insert(frame.stream);
            }
            Kind::Reset => {
                self.open.remove(&frame.stream);
            }
            Kind::Ping if !frame.flagged => self.pinged(Instant::now()),
            _ => {}
        }
    }

    fn said(&mut self, frame: Frame) {
        let answer = matches!(frame.kind, Kind::Data | Kind::Headers);
        self.forgiven |= answer;
        if frame.kind == Kind::Reset || (answer && frame.flagged) {
            self.open.remove(&frame.stream);
        }
    }

    fn pinged(&mut self, now: Instant) {
        let least = if self.open.is_empty() { IDLE_MIN_TIME } else { self.min_time };
        let early = self.last_ping.is_some_and(|last| now < last + least);
        self.last_ping = Some(now);
        if std::mem::take(&mut self.forgiven) {
            self.strikes = 0;
        } else if early {
            self.strikes = self.strikes.saturating_add(1);
        }
    }

    fn leave(&self) -> Option<Leaving> {
        (self.strikes > STRIKES_MAX).then(|| Leaving {
            goaway: goaway(self.last_stream),
            written: 0,
            closed: false,
            until: Box::pin(sleep(LINGER)),
        })
    }
}

/// `| frame header 9: GOAWAY (7) on stream 0 | last stream 4 | code 4 | debug data |`
fn goaway(last_stream: u32) -> [u8; GOAWAY] {
    let mut frame = [0; GOAWAY];
    frame[2] = (GOAWAY - 9) as u8;
    frame[3] = 7;
    frame[9..13].copy_from_slice(&last_stream.to_be_bytes());
    frame[13..17].copy_from_slice(&ENHANCE_YOUR_CALM.to_be_bytes());
    frame[17..].copy_from_slice(REASON);
    frame
}

impl<S> Policed<S> {
    pub fn new(stream: S, min_time: Duration, written: Arc<AtomicU64>) -> Policed<S> {
        Policed { stream, min_time, written, phase: Phase::Preface(0), leaving: None }
    }

    /// A connection whose client may ping as it likes.
    pub fn at_leisure(stream: S, written: Arc<AtomicU64>) -> Policed<S> {
        Policed { stream, min_time: Duration::ZERO, written, phase: Phase::Other, leaving: None }
    }

    fn received(&mut self, mut bytes: &[u8]) {
        if let Phase::Preface(matched) = &mut self.phase {
            let (head, rest) = bytes.split_at(bytes.len().min(PREFACE.len() - *matched));
            if PREFACE[*matched..*matched + head.len()] != *head {
                self.phase = Phase::Other;
                return;
            }
            *matched += head.len();
            if *matched < PREFACE.len() {
                return;
            }
            self.phase = Phase::Http2(Box::new(Police::new(self.min_time)));
            bytes = rest;
        }
        if let Phase::Http2(police) = &mut self.phase {
            police.received(bytes);
            self.leaving = police.leave();
        }
    }

    fn sent(&mut self, bytes: &[u8]) {
        if let Phase::Http2(police) = &mut self.phase {
            police.sent(bytes);
        }
    }

    /// Whether it is time for the GOAWAY: h2 is between two frames.
    fn may_end(&self) -> bool {
        matches!(&self.phase, Phase::Http2(police) if police.outbound.between_frames())
    }
}

fn told_to_go() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "too many pings from the client")
}

impl Leaving {
    fn expired(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.until.as_mut().poll(cx) {
            Poll::Ready(()) => Err(told_to_go()),
            Poll::Pending => Ok(()),
        }
    }

    /// Reads and forgets until the client is gone.
    fn discard<S: AsyncRead + Unpin>(stream: &mut S, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Error> {
        let before = buf.filled().len();
        loop {
            let outcome = ready!(Pin::new(&mut *stream).poll_read(cx, buf));
            let end = buf.filled().len() == before;
            buf.set_filled(before);
            if end || outcome.is_err() {
                return Poll::Ready(told_to_go());
            }
        }
    }

    /// Sends the GOAWAY and closes our side.
    fn say<S: AsyncWrite + Unpin>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = Pin::new(stream);
        while self.written < GOAWAY {
            match ready!(stream.as_mut().poll_write(cx, &self.goaway[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.written += n,
            }
        }
        ready!(stream.as_mut().poll_flush(cx))?;
        ready!(stream.poll_shutdown(cx))?;
        self.closed = true;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Policed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(leaving) = &mut this.leaving {
            leaving.expired(cx)?;
            return Leaving::discard(&mut this.stream, cx, buf).map(Err);
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        this.received(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Policed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(leaving) = &mut this.leaving {
            leaving.expired(cx)?;
            if leaving.closed {
                // What comes after GOAWAY is said to nobody.
                return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
            }
        }
        let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, bufs))?;
        this.written.fetch_add(written as u64, Ordering::Relaxed);
        let mut left = written;
        for buf in bufs {
            let taken = left.min(buf.len());
            this.sent(&buf[..taken]);
            left -= taken;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let ending = this.may_end();
        if let Some(leaving) = &mut this.leaving {
            leaving.expired(cx)?;
            if ending && !leaving.closed {
                return leaving.say(&mut this.stream, cx);
            }
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
