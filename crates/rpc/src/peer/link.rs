//! One peer as everything that talks to it sees it: addresses, whether it is active, counters.

use super::check::hex;
use super::metrics::Meter;
use super::transport::Shared;
use super::url::{Picker, Url};
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// A peer, or a remote that is only answered.
pub(crate) struct Link {
    pub id: u64,
    pub shared: Arc<Shared>,
    pub picker: Picker,
    pub meter: Arc<Meter>,
    /// Since when it is active.
    since: Mutex<Option<Instant>>,
    /// Whether the last message was dropped for want of room: said once, not for each message.
    dropping: AtomicBool,
}

impl Link {
    pub fn new(shared: Arc<Shared>, id: u64, urls: Vec<Url>) -> Arc<Link> {
        let meter = shared.meters.of(id);
        let picker = Picker::new(urls);
        Arc::new(Link { id, shared, picker, meter, since: Mutex::new(None), dropping: AtomicBool::new(false) })
    }

    pub fn active_since(&self) -> Option<Instant> {
        *self.since.lock()
    }

    /// A stream attached, was dialled, or a POST succeeded.
    pub fn activate(&self) {
        let mut since = self.since.lock();
        if since.is_none() {
            *since = Some(Instant::now());
            self.meter.active.up();
            tracing::info!(peer_id = %hex(self.id), "peer became active");
        }
    }

    /// A dial, read or write failed.
    pub fn deactivate(&self, action: &str, source: &str, why: impl fmt::Display) {
        let error = format!("failed to {action} {} on {source} ({why})", hex(self.id));
        if self.since.lock().take().is_some() {
            self.meter.active.down();
            self.meter.disconnected.up();
            tracing::warn!(peer_id = %hex(self.id), error, "peer became inactive (message send to peer failed)");
        } else {
            tracing::debug!(peer_id = %hex(self.id), error, "peer deactivated again");
        }
    }

    /// The peer goes; its gauge must not stay.
    pub fn forget(&self) {
        if self.since.lock().take().is_some() {
            self.meter.active.down();
        }
    }

    /// A message found no room.
    pub fn dropped(&self) {
        self.meter.sent_failures.up();
        if !self.dropping.swap(true, Ordering::Relaxed) {
            let active = self.active_since().is_some();
            tracing::warn!(
                remote_peer_id = %hex(self.id),
                remote_peer_active = active,
                "dropped internal Raft message since sending buffer is full"
            );
        }
    }

    pub fn queued(&self) {
        if self.dropping.load(Ordering::Relaxed) {
            self.dropping.store(false, Ordering::Relaxed);
        }
    }
}
