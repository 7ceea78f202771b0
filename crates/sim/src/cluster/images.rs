//! Database snapshots on their way to users, while the member goes on, defragments or installs another database.

use super::clients::What;
use super::node::store_options;
use super::world::{Event, World};
use crate::image;
use server::Fatal;
use std::path::PathBuf;

/// One of them.
pub struct Sending {
    call: u64,
    image: bolt::Image,
    bytes: Vec<u8>,
    /// The least that it must hold: what the member had applied when it was asked.
    from: u64,
}

impl World {
    /// The member says that its page store holds what was asked for.
    pub(super) fn begin_image(&mut self, id: u64, call: u64) -> Result<(), String> {
        let Some(asked) = self.calls.remove(&call) else { return Err(format!("a snapshot that nobody asked: {call}")) };
        self.check_image(id, &asked)?;
        let What::Snapshot { from } = asked.what else { return Err(format!("{asked:?} was answered with a snapshot")) };
        let node = self.nodes.get_mut(&id).expect("it lives");
        let life = node.life;
        let process = node.process.as_mut().expect("it lives");
        let image = process.visible.image();
        process.images.push(Sending { call, image, bytes: Vec::new(), from });
        self.queue.after(1000, Event::Piece(id, life));
        Ok(())
    }

    /// A piece of one snapshot; now and then its rest moves to a copy, as it does where somebody takes too long.
    pub(super) fn send_piece(&mut self, id: u64) -> Result<(), String> {
        let moves = self.rng.one_in(4);
        let pause = self.rng.below(2_000_000);
        let node = self.nodes.get_mut(&id).expect("it lives");
        let (life, disk) = (node.life, node.disk.shared());
        let Some(mut sending) = node.process.as_mut().and_then(|process| process.images.pop()) else { return Ok(()) };
        let (len, at) = (sending.image.len(), sending.bytes.len() as u64);
        if moves && !sending.image.is_copy() {
            let path = PathBuf::from(format!("/data/member/snap/tmp.image.{}", sending.call));
            if let Err(e) = sending.image.move_to(&*disk, &path, at, &|_| ()) {
                return self.died(id, &Fatal::new(e.to_string()));
            }
            self.report.moved_images += 1;
        }
        let mut piece = vec![0; (len / 3 + 1).min(len - at) as usize];
        if let Err(e) = sending.image.read_at(&mut piece, at) {
            return self.died(id, &Fatal::new(e.to_string()));
        }
        sending.bytes.extend(piece);
        match sending.bytes.len() as u64 == len {
            true => self.sent_image(id, &sending),
            false => {
                let process = self.nodes.get_mut(&id).and_then(|node| node.process.as_mut()).expect("it lives");
                process.images.push(sending);
                self.queue.after(pause, Event::Piece(id, life));
                Ok(())
            }
        }
    }

    fn sent_image(&mut self, id: u64, sending: &Sending) -> Result<(), String> {
        let applied = image::open(&sending.bytes, store_options(&self.plan))?;
        let index = applied.index();
        self.say(|| format!("{id:x}: snapshot {} of entry {index} is complete", sending.call));
        self.report.user_images += 1;
        if index < sending.from {
            return Err(format!("snapshot {} is of entry {index}, {} had been applied", sending.call, sending.from));
        }
        let model = self.history.model(index).ok_or("a snapshot is ahead of all members")?;
        image::check(&applied, model).map_err(|e| format!("snapshot {} of entry {index}: {e}", sending.call))
    }
}
