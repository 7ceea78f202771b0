//! What is to happen, in the order of simulated time; what is to happen at the same moment, in the order of its planning.

use std::collections::BTreeMap;

/// The queue, and the present: microseconds since the world began.
#[derive(Debug)]
pub struct Queue<E> {
    events: BTreeMap<(u64, u64), E>,
    planned: u64,
    now_us: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Queue { events: BTreeMap::new(), planned: 0, now_us: 0 }
    }
}

impl<E> Queue<E> {
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Plans an event so many microseconds from now.
    pub fn after(&mut self, delay_us: u64, event: E) {
        self.planned += 1;
        self.events.insert((self.now_us + delay_us, self.planned), event);
    }

    /// The next event up to `until_us`; time goes on to its moment, or to `until_us` when there is none.
    pub fn pop_until(&mut self, until_us: u64) -> Option<E> {
        let next = self.events.first_entry().filter(|next| next.key().0 <= until_us);
        match next {
            Some(next) => {
                let ((at_us, _), event) = next.remove_entry();
                self.now_us = at_us;
                Some(event)
            }
            None => {
                self.now_us = self.now_us.max(until_us);
                None
            }
        }
    }
}
