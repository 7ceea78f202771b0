//! Database images on their way out, to users (`snapshot save`) and to peers.
//!
//! What commits free is kept for an image that is being read, and the database file grows by it. Past what a copy of the
//! image's rest would take, the copy is the cheaper one: the rest moves to a file, and the pages are let go of. So a slow
//! taker costs at most the size of the database, and no more than [`HELD_MIN`] for one that is quick.

use super::Shared;
use super::courtesy::Courtesy;
use disk::RealDisk;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that may be kept for an image, however little of it is left.
const HELD_MIN: u64 = 64 << 20;

/// Bytes between two looks at what is kept: a look goes through all that was freed.
const LOOK: u64 = 1 << 20;

/// Copies have names for a moment; each gets its own.
static COPIES: AtomicU64 = AtomicU64::new(0);

/// An image that knows when to become a copy.
pub struct Outgoing {
    image: store::Image,
    room: Room,
    /// The offset of the next look.
    look: u64,
    /// A copy failed, and that was said.
    given_up: bool,
}

/// Where copies go.
#[derive(Clone)]
pub struct Room {
    pub folder: PathBuf,
    pub held_min: u64,
}

impl Room {
    /// In a folder of the member's file system, whose leftovers the next start removes.
    pub fn in_folder(folder: PathBuf) -> Room {
        Room { folder, held_min: HELD_MIN }
    }
}

impl Outgoing {
    pub fn new(image: store::Image, room: Room) -> Outgoing {
        Outgoing { image, room, look: LOOK, given_up: false }
    }

    /// Bytes of the whole image.
    pub fn size(&self) -> u64 {
        self.image.len()
    }

    /// Fills `buffer` from `offset`. What lies before an offset that was read or [relieved](Self::relieve) may not be there
    /// any more.
    ///
    /// # Errors
    /// The disk failed.
    pub fn read_at(&mut self, buffer: &mut [u8], offset: u64, pace: store::Pace<'_>) -> io::Result<()> {
        if offset >= self.look {
            self.relieve(offset, pace);
        }
        self.image.read_at(buffer, offset).map_err(io::Error::other)
    }

    /// Moves what lies behind `offset` to a copy if it is time.
    pub fn relieve(&mut self, offset: u64, pace: store::Pace<'_>) {
        self.look = offset + LOOK;
        let rest = self.image.len().saturating_sub(offset);
        let held = self.image.held_bytes();
        if self.given_up || held <= rest.max(self.room.held_min) {
            return;
        }
        match self.copy(offset, rest, pace) {
            Ok(()) => {
                tracing::info!(held, rest, "what is left of a database image was copied: its pages are free again")
            }
            Err(why) => {
                self.given_up = true;
                tracing::warn!(held, rest, error = %why, "a database image keeps its pages: its rest could not be copied");
            }
        }
    }

    fn copy(&mut self, offset: u64, rest: u64, pace: store::Pace<'_>) -> Result<(), String> {
        let Room { folder, .. } = &self.room;
        let disk = RealDisk::shared();
        let available = disk.available(folder).map_err(|e| e.to_string())?;
        // The log and the next checkpoints need room too.
        if available / 2 < rest {
            return Err(format!("{available} bytes are available in {}", folder.display()));
        }
        let name = format!("tmp.image.{}", COPIES.fetch_add(1, Ordering::Relaxed));
        self.image.move_to(&*disk, &folder.join(name), offset, pace).map_err(|e| e.to_string())
    }
}

/// An image for a peer.
pub struct ForPeer {
    image: parking_lot::Mutex<Outgoing>,
    shared: Arc<Shared>,
}

impl ForPeer {
    pub fn new(image: Outgoing, shared: Arc<Shared>) -> ForPeer {
        ForPeer { image: parking_lot::Mutex::new(image), shared }
    }
}

impl rpc::peer::Image for ForPeer {
    fn len(&self) -> u64 {
        self.image.lock().size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let courtesy = Courtesy::new(self.shared.clone());
        self.image.lock().read_at(buffer, offset, &|bytes| courtesy.step(bytes))
    }
}
