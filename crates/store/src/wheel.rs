//! A hierarchical timing wheel: very many deadlines, most of which are moved before they come.
//!
//! ```text
//! level 0   64 slots of 1 ms            a deadline lies at the level of the highest group of six bits
//! level 1   64 slots of 64 ms           in which it differs from `elapsed`, in the slot which that
//!   ⋮                                   group of the deadline names
//! level 10  16 slots of 2^60 ms
//!
//!              earliest slot is reached: its timers move down, or, from level 0, become ready
//!   insert ──► slot ──────────────────────────────────────────────────────────► ready ──► pop
//! ```
//!
//! Setting, moving and cancelling a timer that lies ahead is O(1). A timer moves down at most once a level; a slot's
//! bit tells whether it is empty, so the clock leaps over any stretch without timers at once.
//!
//! Invariants:
//! * Every timer with a deadline at or before `elapsed` is ready, every other one is in a slot.
//! * At each level only slots behind the one of `elapsed` are taken; so the first taken slot of the lowest level that
//!   has any is the earliest of all.
//! * A timer is popped in order of deadline, then item: never early, and at the first pop at or after its deadline
//!   whose limit reaches it. What comes out depends on the deadlines only, never on when the clock was looked at.

use std::collections::BTreeSet;

/// Bits of a deadline that name a slot.
const SLOT_BITS: usize = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Enough for all 64 bits: no deadline is too far away.
const LEVELS: usize = 64_usize.div_ceil(SLOT_BITS);
/// The end of a list.
const NONE: u32 = u32::MAX;

/// A timer that was set. It is worthless once the timer was popped or cancelled: then nothing is found by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    index: u32,
    generation: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Free,
    Slot { level: usize, slot: usize },
    Ready,
}

#[derive(Clone, Copy, Debug)]
struct Entry<T> {
    deadline: u64,
    item: T,
    place: Place,
    /// Counts the timers that had this entry.
    generation: u32,
    /// Neighbours in the slot's list, or the next free entry.
    prev: u32,
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    /// A bit for each slot that isn't empty.
    taken: u64,
    heads: [u32; SLOTS],
}

/// Items, each with a deadline in milliseconds of the caller's clock.
#[derive(Clone, Debug)]
pub struct Wheel<T> {
    elapsed: u64,
    levels: [Level; LEVELS],
    /// Deadline, item and entry of all timers at or before `elapsed`.
    ready: BTreeSet<(u64, T, u32)>,
    entries: Vec<Entry<T>>,
    free: u32,
}

impl<T: Copy + Ord> Default for Wheel<T> {
    fn default() -> Wheel<T> {
        Wheel {
            elapsed: 0,
            levels: [Level { taken: 0, heads: [NONE; SLOTS] }; LEVELS],
            ready: BTreeSet::new(),
            entries: Vec::new(),
            free: NONE,
        }
    }
}

impl<T: Copy + Ord> Wheel<T> {
    /// Sets a timer; `deadline_ms` may have passed already.
    pub fn insert(&mut self, deadline_ms: u64, item: T) -> Timer {
        let index = self.allocate(deadline_ms, item);
        self.place(index);
        Timer { index, generation: self.entries[index as usize].generation }
    }

    /// Sets the timer to another deadline; it stays the same timer. False if it is no longer set.
    pub fn rearm(&mut self, timer: Timer, deadline_ms: u64) -> bool {
        let found = self.is_set(timer);
        if found {
            self.displace(timer.index);
            self.entries[timer.index as usize].deadline = deadline_ms;
            self.place(timer.index);
        }
        found
    }

    /// Takes a timer back. False if it is no longer set.
    pub fn cancel(&mut self, timer: Timer) -> bool {
        let found = self.is_set(timer);
        if found {
            self.displace(timer.index);
            self.release(timer.index);
        }
        found
    }

    /// Takes all timers back.
    pub fn clear(&mut self) {
        for index in 0..self.entries.len() as u32 {
            if self.entries[index as usize].place != Place::Free {
                self.displace(index);
                self.release(index);
            }
        }
    }

    /// Up to `limit` timers with a deadline at or before `now_ms`, in order of deadline, then item. They are no longer
    /// set. A clock that went back finds nothing new.
    pub fn pop(&mut self, now_ms: u64, limit: usize) -> Vec<(u64, T)> {
        self.advance(now_ms, limit);
        let mut popped = Vec::new();
        while popped.len() < limit
            && let Some(&(deadline, item, index)) = self.ready.first()
            && deadline <= now_ms
        {
            self.ready.pop_first();
            self.release(index);
            popped.push((deadline, item));
        }
        popped
    }

    /// Nothing is due before this time: exact within the present 64 ms, else the beginning of the earliest taken slot.
    /// Who wakes then and pops, as often as is told, sees no deadline late. `None` if no timer is set.
    pub fn next_deadline(&self) -> Option<u64> {
        match self.ready.first() {
            Some((deadline, ..)) => Some(*deadline),
            None => self.earliest().map(|(level, slot)| self.slot_start(level, slot)),
        }
    }

    /// Moves the clock on, until it is `now_ms` or enough timers are ready.
    fn advance(&mut self, now_ms: u64, enough: usize) {
        while self.ready.len() < enough {
            match self.earliest() {
                Some((level, slot)) if self.slot_start(level, slot) <= now_ms => self.open(level, slot),
                _ => {
                    self.elapsed = self.elapsed.max(now_ms);
                    return;
                }
            }
        }
    }

    /// Empties the earliest taken slot into lower levels, or into `ready`.
    fn open(&mut self, level: usize, slot: usize) {
        self.elapsed = self.slot_start(level, slot);
        self.levels[level].taken &= !(1 << slot);
        let mut index = std::mem::replace(&mut self.levels[level].heads[slot], NONE);
        while index != NONE {
            let next = self.entries[index as usize].next;
            self.place(index);
            index = next;
        }
    }

    fn earliest(&self) -> Option<(usize, usize)> {
        let level = self.levels.iter().position(|level| level.taken != 0)?;
        Some((level, self.levels[level].taken.trailing_zeros() as usize))
    }

    /// The first millisecond of a slot that lies ahead.
    fn slot_start(&self, level: usize, slot: usize) -> u64 {
        let shift = (level * SLOT_BITS) as u32;
        let above = shift + SLOT_BITS as u32;
        let prefix = self.elapsed.checked_shr(above).and_then(|high| high.checked_shl(above)).unwrap_or(0);
        prefix | (slot as u64) << shift
    }

    /// Puts an entry where its deadline belongs.
    fn place(&mut self, index: u32) {
        let Entry { deadline, item, .. } = self.entries[index as usize];
        if deadline <= self.elapsed {
            self.entries[index as usize].place = Place::Ready;
            self.ready.insert((deadline, item, index));
            return;
        }
        let level = (deadline ^ self.elapsed).ilog2() as usize / SLOT_BITS;
        let slot = (deadline >> (level * SLOT_BITS)) as usize % SLOTS;
        self.levels[level].taken |= 1 << slot;
        let next = std::mem::replace(&mut self.levels[level].heads[slot], index);
        if next != NONE {
            self.entries[next as usize].prev = index;
        }
        let entry = &mut self.entries[index as usize];
        (entry.place, entry.prev, entry.next) = (Place::Slot { level, slot }, NONE, next);
    }

    /// Takes an entry out of its slot's list, or out of `ready`.
    fn displace(&mut self, index: u32) {
        let Entry { deadline, item, place, prev, next, .. } = self.entries[index as usize];
        match place {
            Place::Free => {}
            Place::Ready => {
                self.ready.remove(&(deadline, item, index));
            }
            Place::Slot { level, slot } => {
                if next != NONE {
                    self.entries[next as usize].prev = prev;
                }
                if prev != NONE {
                    self.entries[prev as usize].next = next;
                    return;
                }
                self.levels[level].heads[slot] = next;
                if next == NONE {
                    self.levels[level].taken &= !(1 << slot);
                }
            }
        }
    }

    fn is_set(&self, timer: Timer) -> bool {
        let entry = self.entries.get(timer.index as usize);
        entry.is_some_and(|e| e.generation == timer.generation && e.place != Place::Free)
    }

    /// An entry that is nowhere yet.
    fn allocate(&mut self, deadline: u64, item: T) -> u32 {
        let index = self.free;
        if let Some(entry) = self.entries.get_mut(index as usize) {
            self.free = entry.next;
            (entry.deadline, entry.item) = (deadline, item);
            return index;
        }
        let index = self.entries.len() as u32;
        assert!(index < NONE, "2^32 timers do not fit into memory");
        self.entries.push(Entry { deadline, item, place: Place::Free, generation: 0, prev: NONE, next: NONE });
        index
    }

    fn release(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        entry.place = Place::Free;
        entry.generation = entry.generation.wrapping_add(1);
        entry.next = std::mem::replace(&mut self.free, index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert { ahead: u64 },
        Rearm { which: usize, ahead: u64 },
        Cancel { which: usize },
        Pop { jump: u64, limit: usize },
        PopBack { back: u64 },
        Sleep { limit: usize },
        Clear,
    }

    /// Near, at the edges of slots, far, and beyond everything.
    fn spans() -> impl Strategy<Value = u64> {
        let edge = |(bit, off): (u32, u64)| (1_u64 << bit).saturating_add(off).saturating_sub(2);
        prop_oneof![0..200_u64, 0..1_000_000_u64, (0..64_u32, 0..4_u64).prop_map(edge), Just(u64::MAX)]
    }

    fn steps() -> impl Strategy<Value = Step> {
        let limits = || prop_oneof![0..4_usize, Just(usize::MAX)];
        prop_oneof![
            8 => spans().prop_map(|ahead| Step::Insert { ahead }),
            6 => (any::<usize>(), spans()).prop_map(|(which, ahead)| Step::Rearm { which, ahead }),
            3 => any::<usize>().prop_map(|which| Step::Cancel { which }),
            6 => (spans(), limits()).prop_map(|(jump, limit)| Step::Pop { jump, limit }),
            1 => (0..300_u64).prop_map(|back| Step::PopBack { back }),
            6 => limits().prop_map(|limit| Step::Sleep { limit }),
            1 => Just(Step::Clear),
        ]
    }

    /// The wheel beside an ordered set that does the same.
    #[derive(Default)]
    struct Pair {
        wheel: Wheel<u32>,
        model: BTreeSet<(u64, u32)>,
        timers: Vec<(Timer, u64)>,
        now: u64,
    }

    impl Pair {
        fn run(&mut self, step: Step) {
            match step {
                Step::Insert { ahead } => {
                    let (deadline, item) = (self.now.saturating_add(ahead), self.timers.len() as u32);
                    self.timers.push((self.wheel.insert(deadline, item), deadline));
                    self.model.insert((deadline, item));
                }
                Step::Rearm { which, ahead } if !self.timers.is_empty() => {
                    let item = which % self.timers.len();
                    let (timer, old) = self.timers[item];
                    let set = self.model.remove(&(old, item as u32));
                    let deadline = self.now.saturating_add(ahead);
                    assert_eq!(self.wheel.rearm(timer, deadline), set);
                    if set {
                        self.model.insert((deadline, item as u32));
                        self.timers[item].1 = deadline;
                    }
                }
                Step::Cancel { which } if !self.timers.is_empty() => {
                    let item = which % self.timers.len();
                    let (timer, deadline) = self.timers[item];
                    assert_eq!(self.wheel.cancel(timer), self.model.remove(&(deadline, item as u32)));
                }
                Step::Rearm { .. } | Step::Cancel { .. } => {}
                Step::Pop { jump, limit } => {
                    self.now = self.now.saturating_add(jump);
                    self.pop(self.now, limit);
                }
                Step::PopBack { back } => self.pop(self.now.saturating_sub(back), usize::MAX),
                Step::Sleep { limit } => {
                    if let Some(wake) = self.wheel.next_deadline() {
                        self.now = self.now.max(wake);
                        self.pop(self.now, limit);
                    }
                }
                Step::Clear => {
                    self.wheel.clear();
                    self.model.clear();
                }
            }
        }

        fn pop(&mut self, now: u64, limit: usize) {
            let due: Vec<_> = self.model.range(..=(now, u32::MAX)).take(limit).copied().collect();
            self.model.retain(|timer| !due.contains(timer));
            assert_eq!(self.wheel.pop(now, limit), due);
        }

        fn check(&self) {
            let first = self.model.first().map(|(deadline, _)| *deadline);
            let bound = self.wheel.next_deadline();
            assert_eq!(bound.is_some(), first.is_some());
            assert!(bound <= first, "who sleeps until {bound:?} misses {first:?}");
            let set = self.wheel.entries.iter().filter(|e| e.place != Place::Free).count();
            assert_eq!(set, self.model.len());
            for (level, l) in self.wheel.levels.iter().enumerate() {
                for (slot, head) in l.heads.iter().enumerate() {
                    assert_eq!(*head != NONE, l.taken & (1 << slot) != 0);
                    assert!(*head == NONE || self.wheel.slot_start(level, slot) > self.wheel.elapsed);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

        #[test]
        fn a_wheel_is_an_ordered_set(steps in prop::collection::vec(steps(), 1..120)) {
            let mut pair = Pair::default();
            for step in steps {
                pair.run(step);
                pair.check();
            }
            pair.pop(u64::MAX, usize::MAX);
            prop_assert!(pair.model.is_empty());
        }
    }

    #[test]
    fn a_sleeper_wakes_at_most_once_a_level_for_nothing() {
        for deadline in [1, 63, 64, 4_095, 4_096, 123_456_789, 1 << 47, u64::MAX] {
            let mut wheel = Wheel::default();
            wheel.insert(deadline, 0);
            let mut wakes = 0;
            while let Some(wake) = wheel.next_deadline() {
                let popped = wheel.pop(wake, 1);
                assert!(popped.is_empty() || (wake, &popped[..]) == (deadline, &[(deadline, 0)]));
                wakes += 1;
            }
            assert!(wakes <= LEVELS, "{wakes} wakes for {deadline}");
        }
    }

    #[test]
    fn a_bounded_pop_after_a_leap_opens_only_the_slots_it_needs() {
        let mut wheel = Wheel::default();
        for at in 0..10_000_u64 {
            wheel.insert(at * 10, at);
        }
        let popped = wheel.pop(u64::MAX, 3);
        assert_eq!(popped, [(0, 0), (10, 1), (20, 2)]);
        assert!(wheel.ready.len() < SLOTS && wheel.elapsed < 64, "the others still wait in slots");
        wheel.insert(25, 77);
        assert_eq!(wheel.pop(u64::MAX, 2), [(25, 77), (30, 3)], "a late comer takes its turn by deadline");
    }

    #[test]
    fn a_timer_that_is_gone_finds_nothing_though_its_entry_is_used_again() {
        let mut wheel = Wheel::default();
        let gone = wheel.insert(5, 'a');
        assert!(wheel.cancel(gone) && !wheel.cancel(gone));
        let set = wheel.insert(9, 'b');
        assert!(!wheel.cancel(gone) && !wheel.rearm(gone, 1));
        assert_eq!(wheel.pop(9, 9), [(9, 'b')]);
        assert!(!wheel.rearm(set, 20) && wheel.pop(u64::MAX, 9).is_empty());
    }
}
