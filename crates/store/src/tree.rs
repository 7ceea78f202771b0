//! A persistent B+tree: clones cost nothing and never change; the owner mutates in place what no clone shares.
//!
//! ```text
//! Inner: lows [a  k  r]  weights [3 2 4]  children ─┐ Column: shared base ◄── few changes of one's own
//! Leaf:  keys [a  c  f]  values ──────────────────── ┘
//! ```
//!
//! Each inner node keeps the weight of its subtrees, so counting a range takes O(log n). A node that a clone holds is
//! copied on the way down, so a batch of changes after a publication copies each touched node once. That copy is what a
//! write costs most, so it is made cheap: keys change only with their number and are shared until then; values and
//! children are [`Column`]s, of which a copy shares all but a few.

use std::iter::Peekable;
use std::sync::Arc;

mod column;
mod keys;

use column::Column;
pub use keys::{Keys, Strings};

const MAX: usize = 64;
const MIN: usize = MAX / 4;

/// Room for `more` elements. Doubling, as `Vec` does it, would leave a third of the index's memory unused.
fn make_room<T>(elements: &mut Vec<T>, more: usize, step: usize) {
    if elements.capacity() - elements.len() < more {
        elements.reserve_exact(more.next_multiple_of(step));
    }
}

/// Splits where [`make_room`] would have it: neither half keeps room that it will not need.
fn split_off<T>(elements: &mut Vec<T>, at: usize) -> Vec<T> {
    let right = elements.split_off(at);
    elements.shrink_to_fit();
    right
}

/// What an entry counts for in [`Tree::weight_before`].
pub trait Weigh {
    fn weight(&self) -> usize {
        0
    }
}

#[derive(Clone, Debug)]
enum Node<K, V> {
    Leaf(Leaf<K, V>),
    Inner(Inner<K, V>),
}

#[derive(Clone, Debug)]
struct Leaf<K, V> {
    keys: Arc<K>,
    values: Column<V>,
}

/// One element each for every child.
#[derive(Clone, Debug)]
struct Inner<K, V> {
    /// At most the smallest key below.
    lows: Arc<K>,
    weights: Vec<usize>,
    children: Column<Arc<Node<K, V>>>,
}

/// A child on its way into a parent.
struct Branch<K, V> {
    weight: usize,
    node: Node<K, V>,
}

/// What an update did to a node.
struct Updated<R> {
    result: R,
    added: bool,
    /// The value's weight before and after.
    weights: (usize, usize),
}

/// An ordered map.
#[derive(Clone, Debug)]
pub struct Tree<K, V> {
    root: Arc<Node<K, V>>,
    len: usize,
}

impl<K: Keys, V> Default for Tree<K, V> {
    fn default() -> Self {
        Tree { root: Arc::default(), len: 0 }
    }
}

impl<K: Keys, V> Default for Node<K, V> {
    fn default() -> Self {
        Node::Leaf(Leaf { keys: Arc::default(), values: Column::default() })
    }
}

impl<K: Keys, V: Clone + Weigh + Default> Leaf<K, V> {
    fn weight(&self) -> usize {
        (0..self.values.len()).map(|at| self.values.get(at).weight()).sum()
    }

    fn update<R>(&mut self, key: &K::Key, change: impl FnOnce(&mut Option<V>) -> R) -> Updated<R> {
        let found = self.keys.search(key);
        // Taken out, not cloned: a second owner would make the change copy what it need not.
        let mut value = found.ok().map(|at| std::mem::take(self.values.get_mut(at)));
        let before = value.as_ref().map_or(0, Weigh::weight);
        let result = change(&mut value);
        let value = value.unwrap_or_default();
        let weights = (before, value.weight());
        match found {
            Ok(at) => *self.values.get_mut(at) = value,
            Err(at) => {
                Arc::make_mut(&mut self.keys).insert(at, key);
                self.values.insert(at, value);
            }
        }
        Updated { result, added: found.is_err(), weights }
    }

    fn split(&mut self) -> Leaf<K, V> {
        // Keys that arrive in order leave full nodes behind.
        let at = self.values.len() * 3 / 4;
        let values = split_off(self.values.all(), at);
        Leaf { keys: Arc::new(Arc::make_mut(&mut self.keys).split_off(at)), values: values.into() }
    }
}

impl<K: Keys, V: Clone + Weigh + Default> Inner<K, V> {
    fn new(left: Branch<K, V>, right: Branch<K, V>) -> Inner<K, V> {
        let mut inner = Inner { lows: Arc::default(), weights: Vec::new(), children: Column::default() };
        inner.insert(0, left);
        inner.insert(1, right);
        inner
    }

    fn find(&self, key: &K::Key) -> usize {
        self.lows.up_to(key).saturating_sub(1)
    }

    fn insert(&mut self, at: usize, branch: Branch<K, V>) {
        Arc::make_mut(&mut self.lows).insert(at, branch.node.low());
        self.weights.insert(at, branch.weight);
        self.children.insert(at, Arc::new(branch.node));
    }

    fn take(&mut self, at: usize) -> Arc<Node<K, V>> {
        Arc::make_mut(&mut self.lows).remove(at);
        self.weights.remove(at);
        self.children.all().remove(at)
    }

    fn update<R>(&mut self, key: &K::Key, change: impl FnOnce(&mut Option<V>) -> R) -> Updated<R> {
        let at = self.find(key);
        if key < self.lows.get(at) {
            let lows = Arc::make_mut(&mut self.lows);
            lows.remove(at);
            lows.insert(at, key);
        }
        let node = Arc::make_mut(self.children.get_mut(at));
        let updated = node.update(key, change);
        let right = node.split_if_full();
        let (before, after) = updated.weights;
        self.weights[at] = self.weights[at] + after - before;
        if let Some(right) = right {
            self.weights[at] -= right.weight;
            self.insert(at + 1, right);
        }
        updated
    }

    /// Changes `key`'s value and those of the keys that follow in the same child.
    fn update_ascending<'k, T>(
        &mut self,
        key: &'k K::Key,
        item: T,
        end: Option<&K::Key>,
        items: &mut Peekable<impl Iterator<Item = (&'k K::Key, T)>>,
        change: &mut impl FnMut(&mut Option<V>, T),
    ) -> usize
    where
        K::Key: 'k,
    {
        let first = self.update(key, |slot| change(slot, item));
        let at = self.find(key);
        let lows = self.lows.clone();
        let end = if at + 1 < lows.len() { Some(lows.get(at + 1)) } else { end };
        let node = Arc::make_mut(self.children.get_mut(at));
        let added = node.update_ascending(end, items, change);
        let right = node.split_if_full();
        self.weights[at] = node.weight();
        drop(lows);
        if let Some(right) = right {
            self.insert(at + 1, right);
        }
        usize::from(first.added) + added
    }

    fn split(&mut self) -> Inner<K, V> {
        let at = self.children.len() * 3 / 4;
        let children = split_off(self.children.all(), at);
        let lows = Arc::new(Arc::make_mut(&mut self.lows).split_off(at));
        Inner { lows, weights: split_off(&mut self.weights, at), children: children.into() }
    }

    fn remove(&mut self, key: &K::Key) -> Option<V> {
        let at = self.find(key);
        let node = Arc::make_mut(self.children.get_mut(at));
        let removed = node.remove(key)?;
        self.weights[at] -= removed.weight();
        match node.len() {
            0 => drop(self.take(at)),
            left if left < MIN => self.merge(at.saturating_sub(1)),
            _ => {}
        }
        Some(removed)
    }

    /// Joins a small child with its right neighbour when both fit into one.
    fn merge(&mut self, left: usize) {
        let len = |at: usize| self.children.get(at).len();
        if left + 1 >= self.children.len() || len(left) + len(left + 1) > MAX {
            return;
        }
        self.weights[left] += self.weights[left + 1];
        let right = self.take(left + 1);
        match (Arc::make_mut(self.children.get_mut(left)), Arc::unwrap_or_clone(right)) {
            (Node::Leaf(a), Node::Leaf(mut b)) => {
                Arc::make_mut(&mut a.keys).append(&b.keys);
                a.values.all().append(b.values.all());
            }
            (Node::Inner(a), Node::Inner(mut b)) => {
                Arc::make_mut(&mut a.lows).append(&b.lows);
                a.weights.append(&mut b.weights);
                a.children.all().append(b.children.all());
            }
            _ => unreachable!("leaves of a B+tree are all at one depth"),
        }
    }
}

impl<K: Keys, V: Clone + Weigh + Default> Node<K, V> {
    fn weight(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.weight(),
            Node::Inner(inner) => inner.weights.iter().sum(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.values.len(),
            Node::Inner(inner) => inner.children.len(),
        }
    }

    fn low(&self) -> &K::Key {
        match self {
            Node::Leaf(leaf) => leaf.keys.get(0),
            Node::Inner(inner) => inner.lows.get(0),
        }
    }

    /// Changes the key's value. The node may be one too long then.
    fn update<R>(&mut self, key: &K::Key, change: impl FnOnce(&mut Option<V>) -> R) -> Updated<R> {
        match self {
            Node::Leaf(leaf) => leaf.update(key, change),
            Node::Inner(inner) => inner.update(key, change),
        }
    }

    /// Changes the values of all keys below `end`, or of as many as it takes to be too long (by two at most). Answers how
    /// many were added.
    fn update_ascending<'k, T>(
        &mut self,
        end: Option<&K::Key>,
        items: &mut Peekable<impl Iterator<Item = (&'k K::Key, T)>>,
        change: &mut impl FnMut(&mut Option<V>, T),
    ) -> usize
    where
        K::Key: 'k,
    {
        let mut added = 0;
        while self.len() <= MAX
            && let Some((key, item)) = items.next_if(|(key, _)| end.is_none_or(|end| *key < end))
        {
            added += match self {
                Node::Leaf(leaf) => usize::from(leaf.update(key, |slot| change(slot, item)).added),
                Node::Inner(inner) => inner.update_ascending(key, item, end, items, change),
            };
        }
        added
    }

    /// The right half of a node that is too long.
    fn split_if_full(&mut self) -> Option<Branch<K, V>> {
        if self.len() <= MAX {
            return None;
        }
        let node = match self {
            Node::Leaf(leaf) => Node::Leaf(leaf.split()),
            Node::Inner(inner) => Node::Inner(inner.split()),
        };
        Some(Branch { weight: node.weight(), node })
    }

    /// Splits a root that is too long, and makes the halves' parent the root.
    fn grow_if_full(&mut self) {
        if let Some(right) = self.split_if_full() {
            let node = std::mem::take(self);
            *self = Node::Inner(Inner::new(Branch { weight: node.weight(), node }, right));
        }
    }

    fn floor(&self, key: &K::Key) -> Option<(&K::Key, &V)> {
        #[cfg(test)]
        FLOOR_STEPS.set(FLOOR_STEPS.get() + 1);
        match self {
            Node::Leaf(leaf) => leaf.keys.up_to(key).checked_sub(1).map(|at| (leaf.keys.get(at), leaf.values.get(at))),
            // A child's `low` may be below its smallest key: then the answer ends the child before.
            Node::Inner(inner) => (0..inner.lows.up_to(key)).rev().find_map(|at| inner.children.get(at).floor(key)),
        }
    }

    fn remove(&mut self, key: &K::Key) -> Option<V> {
        match self {
            Node::Leaf(leaf) => {
                let at = leaf.keys.search(key).ok()?;
                Arc::make_mut(&mut leaf.keys).remove(at);
                Some(leaf.values.all().remove(at))
            }
            Node::Inner(inner) => inner.remove(key),
        }
    }
}

impl<K: Keys, V: Clone + Weigh + Default> Tree<K, V> {
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sum of all weights.
    pub fn weight(&self) -> usize {
        self.root.weight()
    }

    pub fn get(&self, key: &K::Key) -> Option<&V> {
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf.keys.search(key).ok().map(|at| leaf.values.get(at)),
                Node::Inner(inner) => node = inner.children.get(inner.find(key)),
            }
        }
    }

    /// Lets `change` set the key's value, given the old one; answers what `change` answers.
    pub fn update<R>(&mut self, key: &K::Key, change: impl FnOnce(&mut Option<V>) -> R) -> R {
        let root = Arc::make_mut(&mut self.root);
        let updated = root.update(key, change);
        self.len += usize::from(updated.added);
        root.grow_if_full();
        updated.result
    }

    /// The same for many keys, ascending (each as often as it likes): the way down is walked once for neighbours.
    pub fn update_ascending<'k, T>(
        &mut self,
        items: impl Iterator<Item = (&'k K::Key, T)>,
        mut change: impl FnMut(&mut Option<V>, T),
    ) where
        K::Key: 'k,
    {
        let mut items = items.peekable();
        while items.peek().is_some() {
            let root = Arc::make_mut(&mut self.root);
            self.len += root.update_ascending(None, &mut items, &mut change);
            root.grow_if_full();
        }
    }

    pub fn insert(&mut self, key: &K::Key, value: V) -> Option<V> {
        self.update(key, |slot| slot.replace(value))
    }

    pub fn remove(&mut self, key: &K::Key) -> Option<V> {
        self.get(key)?;
        let root = Arc::make_mut(&mut self.root);
        let removed = root.remove(key)?;
        self.len -= 1;
        loop {
            match root {
                Node::Inner(inner) if inner.children.len() == 0 => *root = Node::default(),
                Node::Inner(inner) if inner.children.len() == 1 => {
                    let only = inner.take(0);
                    *root = Arc::unwrap_or_clone(only);
                    continue;
                }
                _ => {}
            }
            return Some(removed);
        }
    }

    /// Weight of all keys below `key`.
    pub fn weight_before(&self, key: &K::Key) -> usize {
        let mut node = &*self.root;
        let mut sum = 0;
        loop {
            match node {
                Node::Leaf(leaf) => {
                    let below = 0..leaf.keys.below(key);
                    return sum + below.map(|at| leaf.values.get(at).weight()).sum::<usize>();
                }
                Node::Inner(inner) => {
                    let at = inner.find(key);
                    sum += inner.weights[..at].iter().sum::<usize>();
                    node = inner.children.get(at);
                }
            }
        }
    }

    /// The pair with the greatest key at or below `key`.
    pub fn floor(&self, key: &K::Key) -> Option<(&K::Key, &V)> {
        self.root.floor(key)
    }

    /// All pairs from `key` on, ascending.
    pub fn range_from(&self, key: &K::Key) -> Iter<'_, K, V> {
        let mut iter = Iter { stack: Vec::new() };
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf(leaf) => {
                    iter.stack.push((node, leaf.keys.below(key)));
                    return iter;
                }
                Node::Inner(inner) => {
                    let at = inner.find(key);
                    iter.stack.push((node, at + 1));
                    node = inner.children.get(at);
                }
            }
        }
    }

    /// All pairs, ascending.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter { stack: vec![(&*self.root, 0)] }
    }
}

/// Pairs in ascending order.
#[derive(Debug)]
pub struct Iter<'a, K, V> {
    stack: Vec<(&'a Node<K, V>, usize)>,
}

impl<'a, K: Keys, V: Clone> Iterator for Iter<'a, K, V> {
    type Item = (&'a K::Key, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (node, next) = self.stack.last_mut()?;
            let at = *next;
            *next += 1;
            match node {
                Node::Leaf(leaf) if at < leaf.values.len() => return Some((leaf.keys.get(at), leaf.values.get(at))),
                Node::Inner(inner) if at < inner.children.len() => self.stack.push((inner.children.get(at), 0)),
                _ => drop(self.stack.pop()),
            }
        }
    }
}

#[cfg(test)]
thread_local! {
    static FLOOR_STEPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Nodes that [`Tree::floor`] has looked at on this thread: what tests bound.
#[cfg(test)]
pub fn floor_steps() -> usize {
    FLOOR_STEPS.get()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    impl Weigh for u64 {
        fn weight(&self) -> usize {
            (*self % 2) as usize
        }
    }

    #[test]
    fn it_is_a_map_and_its_clones_never_change() {
        let mut random = 88_172_645_463_325_252_u64;
        let mut draw = |n: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % n
        };
        let mut tree = Tree::<Vec<u64>, u64>::default();
        let mut map = BTreeMap::new();
        let mut clones = Vec::new();
        for step in 0..60_000_u64 {
            let key = draw(3000);
            if draw(100) < if step / 15_000 % 2 == 0 { 70 } else { 30 } {
                assert_eq!(tree.insert(&key, step), map.insert(key, step));
            } else {
                assert_eq!(tree.remove(&key), map.remove(&key));
            }
            if step % 499 == 0 {
                let mut some: Vec<u64> = (0..draw(2000)).map(|_| draw(3000)).collect();
                some.sort_unstable();
                tree.update_ascending(some.iter().zip(step..), |slot, value| *slot = Some(value));
                map.extend(some.into_iter().zip(step..));
            }
            assert_eq!(tree.len, map.len());
            if step % 997 == 0 {
                let at = draw(3000);
                assert!(tree.range_from(&at).eq(map.range(at..)));
                assert_eq!(tree.floor(&at), map.range(..=at).next_back());
                let before = map.range(..at).map(|(_, v)| v.weight()).sum::<usize>();
                assert_eq!(tree.weight_before(&at), before);
                clones.push((tree.clone(), map.clone()));
            }
            if clones.len() > 8 {
                let (tree, map): (Tree<Vec<u64>, u64>, BTreeMap<u64, u64>) = clones.remove(draw(8) as usize);
                assert!(tree.iter().eq(map.iter()));
            }
        }
    }
}
