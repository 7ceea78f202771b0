//! A node's keys, ascending.

use super::{make_room, split_off};
use std::cmp::Ordering;
use std::fmt::Debug;

/// Keys that a node grows by.
const ROOM: usize = 8;
/// Bytes of a key beyond which no room is kept for others like it.
const LONG: usize = 512;

/// Ascending keys, each once.
pub trait Keys: Clone + Debug + Default {
    /// What is looked up.
    type Key: ?Sized + Ord;

    fn len(&self) -> usize;
    fn get(&self, at: usize) -> &Self::Key;
    fn insert(&mut self, at: usize, key: &Self::Key);
    fn remove(&mut self, at: usize);
    fn split_off(&mut self, at: usize) -> Self;
    fn append(&mut self, greater: &Self);

    /// Where the key is, or where it would be.
    fn search(&self, key: &Self::Key) -> Result<usize, usize> {
        let (mut from, mut to) = (0, self.len());
        while from < to {
            let middle = from.midpoint(to);
            match self.get(middle).cmp(key) {
                Ordering::Less => from = middle + 1,
                Ordering::Greater => to = middle,
                Ordering::Equal => return Ok(middle),
            }
        }
        Err(from)
    }

    /// Keys below `key`.
    fn below(&self, key: &Self::Key) -> usize {
        self.search(key).unwrap_or_else(|at| at)
    }

    /// Keys at or below `key`.
    fn up_to(&self, key: &Self::Key) -> usize {
        self.search(key).map_or_else(|at| at, |at| at + 1)
    }
}

impl<T: Ord + Clone + Debug> Keys for Vec<T> {
    type Key = T;

    fn len(&self) -> usize {
        self.len()
    }

    fn get(&self, at: usize) -> &T {
        &self[at]
    }

    fn insert(&mut self, at: usize, key: &T) {
        make_room(self, 1, ROOM);
        self.insert(at, key.clone());
    }

    fn remove(&mut self, at: usize) {
        self.remove(at);
    }

    fn split_off(&mut self, at: usize) -> Self {
        split_off(self, at)
    }

    fn append(&mut self, greater: &Self) {
        self.extend_from_slice(greater);
    }
}

/// Byte strings, one after the other: no allocation and no pointer a key, and a search stays in a few cache lines.
///
/// ```text
/// bytes: f o o f o o d g o      ends: 3 7 9
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strings {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Strings {
    fn start(&self, at: usize) -> usize {
        at.checked_sub(1).map_or(0, |before| self.ends[before])
    }
}

impl Keys for Strings {
    type Key = [u8];

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, at: usize) -> &[u8] {
        &self.bytes[self.start(at)..self.ends[at]]
    }

    fn insert(&mut self, at: usize, key: &[u8]) {
        let start = self.start(at);
        make_room(&mut self.bytes, key.len(), ROOM * key.len().clamp(1, LONG));
        make_room(&mut self.ends, 1, ROOM);
        let end = self.bytes.len();
        self.bytes.extend_from_slice(key);
        self.bytes.copy_within(start..end, start + key.len());
        self.bytes[start..start + key.len()].copy_from_slice(key);
        self.ends.insert(at, start);
        self.ends[at..].iter_mut().for_each(|end| *end += key.len());
    }

    fn remove(&mut self, at: usize) {
        let (start, end) = (self.start(at), self.ends.remove(at));
        self.bytes.drain(start..end);
        self.ends[at..].iter_mut().for_each(|later| *later -= end - start);
    }

    fn split_off(&mut self, at: usize) -> Self {
        let start = self.start(at);
        let mut ends = split_off(&mut self.ends, at);
        ends.iter_mut().for_each(|end| *end -= start);
        Strings { bytes: split_off(&mut self.bytes, start), ends }
    }

    fn append(&mut self, greater: &Self) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&greater.bytes);
        self.ends.extend(greater.ends.iter().map(|end| start + end));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_a_list_of_byte_strings() {
        let mut random = 88_172_645_463_325_252_u64;
        let mut draw = |n: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % n as u64) as usize
        };
        let (mut strings, mut list) = (Strings::default(), Vec::<Vec<u8>>::new());
        for _ in 0..20_000 {
            let key: Vec<u8> = (0..draw(5)).map(|_| draw(3) as u8).collect();
            assert_eq!(strings.search(&key), list.binary_search(&key));
            assert_eq!(strings.below(&key), list.partition_point(|k| *k < key));
            assert_eq!(strings.up_to(&key), list.partition_point(|k| *k <= key));
            match list.binary_search(&key) {
                Ok(at) => {
                    strings.remove(at);
                    list.remove(at);
                }
                Err(at) => {
                    strings.insert(at, &key);
                    list.insert(at, key);
                }
            }
            if draw(10) == 0 {
                let at = draw(list.len() + 1);
                let (right, rest) = (strings.split_off(at), list.split_off(at));
                assert!((0..rest.len()).map(|i| right.get(i)).eq(rest.iter().map(Vec::as_slice)));
                strings.append(&right);
                list.extend(rest);
            }
            assert_eq!(strings.len(), list.len());
            assert!((0..list.len()).map(|i| strings.get(i)).eq(list.iter().map(Vec::as_slice)));
        }
    }
}
