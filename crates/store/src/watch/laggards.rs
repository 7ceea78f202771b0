//! Watchers that are behind, and whose turn it is to read the past.
//!
//! Two lanes take turns, so that neither a long way nor a crowd keeps anybody waiting for ever:
//! * by age: who has waited longest is served, and with it whoever is not far above and can share its read. Who was
//!   served and is still behind waits anew;
//! * near: those within one read of the present, who mostly need no second one, however many come from far.
//!
//! Invariants: a stream is in `ready` exactly when it has laggards and is not in `full`; `by_age` and `by_next` of a
//! stream hold the same laggards, and are not both empty. What a choice costs depends on the number of ready streams
//! and of watchers chosen, not on the watchers of streams whose clients do not read.

use super::hub::WatcherId;
use super::{REVISIONS_PER_READ, StreamId, WATCHERS_PER_READ};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// A laggard: the first revision it has not been given, and who it is.
pub(super) type Laggard = (i64, WatcherId);

/// The laggards of a stream, each as next revision and id.
#[derive(Debug, Default)]
struct Lane {
    by_next: BTreeMap<(i64, i64), u64>,
    by_age: BTreeMap<u64, (i64, i64)>,
}

/// All watchers that are behind.
#[derive(Debug, Default)]
pub(super) struct Laggards {
    lanes: BTreeMap<StreamId, Lane>,
    /// Streams without room.
    full: BTreeSet<StreamId>,
    ready: BTreeSet<StreamId>,
    len: usize,
    /// Numbers the laggards in the order in which they began to wait.
    age: u64,
    /// The next choice is the near lane's.
    near: bool,
}

impl Laggards {
    pub fn len(&self) -> usize {
        self.len
    }

    /// A watcher falls behind, or was served and is still behind: it waits after all others.
    pub fn insert(&mut self, (next, (stream, id)): Laggard) {
        self.age += 1;
        let lane = self.lanes.entry(stream).or_default();
        match lane.by_next.insert((next, id), self.age) {
            Some(age) => drop(lane.by_age.remove(&age)),
            None => self.len += 1,
        }
        lane.by_age.insert(self.age, (next, id));
        self.settle(stream);
    }

    pub fn remove(&mut self, (next, (stream, id)): Laggard) {
        let Some(lane) = self.lanes.get_mut(&stream) else { return };
        if let Some(age) = lane.by_next.remove(&(next, id)) {
            lane.by_age.remove(&age);
            self.len -= 1;
        }
        if lane.by_next.is_empty() {
            self.lanes.remove(&stream);
            self.settle(stream);
        }
    }

    /// The stream has room, or no longer.
    pub fn room(&mut self, stream: StreamId, room: bool) {
        let changed = if room { self.full.remove(&stream) } else { self.full.insert(stream) };
        if changed {
            self.settle(stream);
        }
    }

    fn settle(&mut self, stream: StreamId) {
        if self.lanes.contains_key(&stream) && !self.full.contains(&stream) {
            self.ready.insert(stream);
        } else {
            self.ready.remove(&stream);
        }
    }

    /// Those whose turn it is, by revision; `revision` is the present.
    pub fn choose(&mut self, revision: i64) -> Vec<Laggard> {
        if std::mem::take(&mut self.near) {
            let chosen = self.above(revision.saturating_sub(REVISIONS_PER_READ as i64), WATCHERS_PER_READ);
            if !chosen.is_empty() {
                return chosen;
            }
        }
        self.near = true;
        let Some(oldest) = self.oldest() else { return Vec::new() };
        let mut chosen = self.above(oldest.0, WATCHERS_PER_READ);
        if !chosen.contains(&oldest) {
            // A crowd with the same next revision.
            chosen.pop();
            chosen.insert(0, oldest);
        }
        chosen
    }

    fn ready(&self) -> impl Iterator<Item = (StreamId, &Lane)> {
        self.ready.iter().filter_map(|stream| Some((*stream, self.lanes.get(stream)?)))
    }

    /// Who has waited longest.
    fn oldest(&self) -> Option<Laggard> {
        let heads = self.ready().filter_map(|(stream, lane)| Some((lane.by_age.first_key_value()?, stream)));
        heads.min().map(|((_, (next, id)), stream)| (*next, (stream, *id)))
    }

    /// The first laggards at or above a revision, of all ready streams.
    fn above(&self, from: i64, limit: usize) -> Vec<Laggard> {
        let mut lanes: Vec<_> =
            self.ready().map(|(stream, lane)| (stream, lane.by_next.range((from, i64::MIN)..))).collect();
        let mut heads = BinaryHeap::new();
        for (n, (stream, lane)) in lanes.iter_mut().enumerate() {
            heads.extend(lane.next().map(|((next, id), _)| Reverse((*next, (*stream, *id), n))));
        }
        let mut chosen = Vec::new();
        while chosen.len() < limit
            && let Some(Reverse((next, watcher, n))) = heads.pop()
        {
            chosen.push((next, watcher));
            let following = lanes.get_mut(n).and_then(|(_, lane)| lane.next());
            heads.extend(following.map(|((next, id), _)| Reverse((*next, (watcher.0, *id), n))));
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(next: i64, stream: u64, id: i64) -> Laggard {
        (next, (StreamId(stream), id))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

        #[test]
        fn the_oldest_with_room_is_served_and_those_above_with_it(
            steps in prop::collection::vec((0..6_u8, 0..40_i64, 0..4_u64, 0..6_i64), 1..100),
        ) {
            let mut laggards = Laggards::default();
            // In order of age.
            let (mut model, mut full) = (Vec::new(), BTreeSet::new());
            for (step, next, stream, id) in steps {
                let one = at(next, stream, id);
                match step {
                    0..=2 => {
                        laggards.insert(one);
                        model.retain(|l| *l != one);
                        model.push(one);
                    }
                    3 => {
                        laggards.remove(one);
                        model.retain(|l| *l != one);
                    }
                    4 => {
                        laggards.room(StreamId(stream), id > 2);
                        if id > 2 { full.remove(&stream) } else { full.insert(stream) };
                    }
                    _ => {
                        let mut open: Vec<_> = model.iter().filter(|l: &&Laggard| !full.contains(&l.1.0.0)).copied().collect();
                        let from = open.first().map_or(0, |l| l.0);
                        open.retain(|l| l.0 >= from);
                        open.sort_unstable();
                        prop_assert_eq!(laggards.above(from, 3), &open[..open.len().min(3)]);
                        laggards.near = false;
                        prop_assert_eq!(laggards.choose(1_000_000), open);
                    }
                }
                prop_assert_eq!(laggards.len(), model.len());
            }
        }
    }

    /// However many come from far, and however often: one in the middle and one near the present are served.
    #[test]
    fn nobody_starves() {
        let mut laggards = Laggards::default();
        let (middle, near) = (at(5_000, 1, 1), at(99_500, 1, 2));
        let mut served = [0, 0];
        for turn in 0..100 {
            (0..2_000).for_each(|n| laggards.insert(at(1, 2, turn * 2_000 + n)));
            if turn == 0 {
                laggards.insert(middle);
                laggards.insert(near);
            }
            let chosen = laggards.choose(100_000);
            let covered = chosen[0].0 + 1_000;
            for laggard in chosen.into_iter().filter(|(next, _)| *next <= covered) {
                laggards.remove(laggard);
                match laggard {
                    l if l == middle => served[0] = turn,
                    l if l == near => served[1] = turn,
                    (_, watcher) => laggards.insert((covered + 1, watcher)),
                }
            }
        }
        assert!(served[1] == 1 && (1..20).contains(&served[0]), "{served:?}");
    }
}
