//! States that are held on to: database snapshots that stream out while the member goes on, and pinned states.

use super::World;
use super::asks::Call;
use crate::image;
use crate::model::{Model, plain};
use server::{Fatal, Response};
use std::sync::Arc;
use store::Applied;

/// Held at once: beyond it the oldest goes.
const PINS_MAX: usize = 3;

/// A database snapshot on its way to a client.
pub(super) struct Image {
    image: bolt::Image,
    bytes: Vec<u8>,
    /// What it must hold.
    model: Model,
}

/// A state that some reader still works on.
pub(super) struct Pin {
    applied: Arc<Applied>,
    model: Model,
}

impl World {
    /// The member says that the page store holds everything up to the snapshot's request.
    pub(super) fn begin_image(&mut self, ticket: u64) -> Result<(), String> {
        let Some(Call::Snapshot { revision }) = self.calls.remove(&ticket) else {
            return Err(format!("a snapshot that nobody asked: {ticket}"));
        };
        if self.frozen.revision < revision {
            return Err(format!("snapshot {ticket} of {revision} begins with {}", self.frozen.revision));
        }
        let image = self.member.as_ref().ok_or("no member")?.applied().image();
        self.say(|| format!("snapshot {ticket}: {} bytes", image.len()));
        self.images.push(Image { image, bytes: Vec::new(), model: self.frozen.clone() });
        Ok(())
    }

    pub(super) fn pin(&mut self) -> Result<(), String> {
        let applied = self.member.as_ref().ok_or("no member")?.applied().clone();
        // What is proposed and not applied is in neither.
        self.pins.push(Pin { applied, model: self.model.clone() });
        if self.pins.len() > PINS_MAX {
            self.pins.remove(0);
        }
        Ok(())
    }

    /// Snapshots stream on; a pinned state must be what it was.
    pub(super) fn look_at_images(&mut self) -> Result<(), String> {
        if let Some(mut image) = self.images.pop() {
            match self.stream(&mut image) {
                Err(e) => return self.died(&Fatal::new(e)),
                Ok(false) => self.images.push(image),
                Ok(true) => self.check_image(image)?,
            }
        }
        let range = self.draw().range_request();
        let Some(pin) = self.pins.first() else { return Ok(()) };
        let seen = match pin.applied.range(&range) {
            Ok(r) => {
                let mut response = Response::Range(r);
                plain(&mut response);
                Ok(response)
            }
            Err(store::Error::Refused(e)) => Err(e),
            Err(store::Error::Fatal(e)) => return self.died(&Fatal::new(e)),
        };
        let expected = pin.model.range(&range).map(Response::Range);
        match seen == expected {
            true => Ok(()),
            false => Err(format!("a pinned state answers {range:?} with {seen:?}, it was {expected:?}")),
        }
    }

    /// A piece at a time; true when it is complete.
    fn stream(&mut self, image: &mut Image) -> Result<bool, String> {
        let (len, from) = (image.image.len(), image.bytes.len() as u64);
        let piece = (len / 3 + 1).min(len - from);
        let mut buffer = vec![0; piece as usize];
        image.image.read_at(&mut buffer, from).map_err(|e| e.to_string())?;
        image.bytes.extend(buffer);
        Ok(image.bytes.len() as u64 == len)
    }

    /// The shipping store opens it and has the model's state.
    fn check_image(&mut self, image: Image) -> Result<(), String> {
        let Image { bytes, model, .. } = image;
        self.report.images += 1;
        self.say(|| format!("snapshot of revision {} is complete", model.revision));
        image::check(&*image::open(&bytes, self.store_options())?, &model)
    }

    /// HashKV at the present. `idle`: no compaction has anything left to delete.
    pub(super) fn check_hash(&mut self, idle: bool) -> Result<(), String> {
        // As in Go, HashKV ignores its keep set when nothing lives, and then sees what a compaction has not deleted
        // yet: only once it is done is the hash defined by the state.
        if self.model.is_empty() && !idle {
            return Ok(());
        }
        let member = self.member.as_ref().ok_or("no member")?;
        let hash = match member.applied().hash_kv(0, &|_| ()) {
            Ok(hash) => hash,
            Err(e) => return self.died(&Fatal::new(e.to_string())),
        };
        if hash.revision != self.model.revision || hash.compact_revision > self.model.compacted {
            return Err(format!("HashKV is of {hash:?}, the model is at {}", self.model.revision));
        }
        if hash.compact_revision < self.model.compacted {
            // The stored hash of the compaction of exactly this revision is told (semantics 10.4).
            return match hash.revision == self.model.compacted {
                true => Ok(()),
                false => Err(format!("HashKV is of {hash:?}, the compaction was at {}", self.model.compacted)),
            };
        }
        let expected = self.model.hash_kv();
        self.say(|| format!("hash {:08x}", hash.hash));
        match hash.hash == expected {
            true => Ok(()),
            false => Err(format!("HashKV is {:08x}, the model says {expected:08x}", hash.hash)),
        }
    }
}
