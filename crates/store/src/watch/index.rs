//! Which watchers a key concerns: those of this one key in an ordered map, those of ranges in an interval tree.
//!
//! Invariant: a watcher is in here exactly once, under the key and end it was created with. An ordered map and not a
//! hash: clients choose the keys, and a hash that is equal in every run can be attacked.

use super::hub::WatcherId;
use super::intervals::{End, Intervals};
use bytes::Bytes;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// All watchers, by what they watch. An `end` is spelled as etcd stores it: empty, only the key; `\0`, no end.
#[derive(Debug, Default)]
pub(super) struct Index {
    points: BTreeMap<Bytes, BTreeSet<WatcherId>>,
    ranges: Intervals<WatcherId>,
}

fn interval_end(end: &Bytes) -> End {
    if end.as_ref() == [0] { End::Never } else { End::Before(end.clone()) }
}

impl Index {
    pub fn insert(&mut self, key: &Bytes, end: &Bytes, watcher: WatcherId) {
        if end.is_empty() {
            self.points.entry(key.clone()).or_default().insert(watcher);
        } else {
            self.ranges.insert(key.clone(), interval_end(end), watcher);
        }
    }

    pub fn remove(&mut self, key: &Bytes, end: &Bytes, watcher: WatcherId) {
        if !end.is_empty() {
            return self.ranges.remove(key, &interval_end(end), &watcher);
        }
        if let Entry::Occupied(mut point) = self.points.entry(key.clone()) {
            point.get_mut().remove(&watcher);
            if point.get().is_empty() {
                point.remove();
            }
        }
    }

    /// Calls `hit` once for every watcher of the key. The result is the number of places that were looked at.
    pub fn find(&self, key: &[u8], mut hit: impl FnMut(WatcherId)) -> u64 {
        self.points.get(key).into_iter().flatten().for_each(|watcher| hit(*watcher));
        1 + self.ranges.find(key, &mut |watcher| hit(*watcher))
    }
}

#[cfg(test)]
mod tests {
    use super::super::StreamId;
    use super::*;
    use proptest::prelude::*;

    fn key() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(0..3_u8, 1..4).prop_map(Bytes::from)
    }

    fn holds(key: &Bytes, end: &Bytes, probe: &Bytes) -> bool {
        match end.as_ref() {
            [] => probe == key,
            [0] => probe >= key,
            _ => probe >= key && probe < end,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

        #[test]
        fn every_watcher_of_a_key_is_found_once(
            steps in prop::collection::vec((key(), prop_oneof![Just(Bytes::new()), Just(Bytes::from_static(&[0])), key()]), 1..80),
            gone in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
            probes in prop::collection::vec(key(), 1..20),
        ) {
            let id = |n: usize| (StreamId(n as u64 % 3), n as i64);
            let mut index = Index::default();
            let mut model: Vec<_> = steps.into_iter().enumerate().map(|(n, (key, end))| (id(n), key, end)).collect();
            model.iter().for_each(|(watcher, key, end)| index.insert(key, end, *watcher));
            for n in gone {
                if !model.is_empty() {
                    let (watcher, key, end) = model.swap_remove(n.index(model.len()));
                    index.remove(&key, &end, watcher);
                    index.remove(&key, &end, watcher);
                }
            }
            for probe in probes {
                let hits = model.iter().filter(|(_, key, end)| holds(key, end, &probe));
                let mut expected: Vec<WatcherId> = hits.map(|(watcher, ..)| *watcher).collect();
                let mut found = Vec::new();
                index.find(&probe, |watcher| found.push(watcher));
                expected.sort_unstable();
                found.sort_unstable();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
