//! Intervals of keys and who is in each: an AVL tree, ordered by start and end, each node with the furthest end below it.
//!
//! Finding who holds a key skips every subtree that ends at or before the key and everything that begins behind it. So
//! a key that is in no interval costs O(log n); each interval found adds at most one path, and neighbours share theirs.
//!
//! Invariants, for every node: intervals to the left are smaller, to the right greater; the heights of its two sides
//! differ by at most one; `furthest` is the greatest end in its subtree; it has a member.
//!
//! Why not crates.io's `interavl` 0.6: its overlap query never looks at a subtree's greatest end, so a key behind n
//! intervals costs n visits, as the scan did that this replaces.

use bytes::Bytes;
use std::cmp::Ordering;
use std::collections::BTreeSet;

/// Where an interval ends: before a key, or nowhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    Before(Bytes),
    Never,
}

impl End {
    fn is_behind(&self, key: &[u8]) -> bool {
        match self {
            End::Before(end) => key < end.as_ref(),
            End::Never => true,
        }
    }
}

#[derive(Debug)]
struct Node<T> {
    start: Bytes,
    end: End,
    members: BTreeSet<T>,
    furthest: End,
    height: u8,
    left: Link<T>,
    right: Link<T>,
}

type Link<T> = Option<Box<Node<T>>>;

/// Intervals, each with a set of members.
#[derive(Debug)]
pub(super) struct Intervals<T> {
    root: Link<T>,
}

impl<T> Default for Intervals<T> {
    fn default() -> Self {
        Intervals { root: None }
    }
}

impl<T: Ord> Intervals<T> {
    /// Adds a member to `[start, end)`.
    pub fn insert(&mut self, start: Bytes, end: End, member: T) {
        self.root = Some(insert(self.root.take(), start, end, member));
    }

    /// Takes a member out of `[start, end)`, if it is in there.
    pub fn remove(&mut self, start: &Bytes, end: &End, member: &T) {
        self.root = remove(self.root.take(), start, end, member);
    }

    /// Calls `hit` for every member of every interval that holds the key. The result is the number of nodes that were
    /// looked at.
    pub fn find(&self, key: &[u8], hit: &mut impl FnMut(&T)) -> u64 {
        find(&self.root, key, hit)
    }
}

fn find<T>(link: &Link<T>, key: &[u8], hit: &mut impl FnMut(&T)) -> u64 {
    let Some(node) = link else { return 0 };
    if !node.furthest.is_behind(key) {
        return 1;
    }
    let visits = 1 + find(&node.left, key, hit);
    if node.start.as_ref() > key {
        return visits;
    }
    if node.end.is_behind(key) {
        node.members.iter().for_each(&mut *hit);
    }
    visits + find(&node.right, key, hit)
}

fn insert<T: Ord>(link: Link<T>, start: Bytes, end: End, member: T) -> Box<Node<T>> {
    let Some(mut node) = link else {
        let (members, furthest) = (BTreeSet::from([member]), end.clone());
        return Box::new(Node { start, end, members, furthest, height: 1, left: None, right: None });
    };
    match node.compare(&start, &end) {
        Ordering::Less => node.left = Some(insert(node.left.take(), start, end, member)),
        Ordering::Greater => node.right = Some(insert(node.right.take(), start, end, member)),
        Ordering::Equal => {
            node.members.insert(member);
            return node;
        }
    }
    balance(node)
}

fn remove<T: Ord>(link: Link<T>, start: &Bytes, end: &End, member: &T) -> Link<T> {
    let mut node = link?;
    match node.compare(start, end) {
        Ordering::Less => node.left = remove(node.left.take(), start, end, member),
        Ordering::Greater => node.right = remove(node.right.take(), start, end, member),
        Ordering::Equal => {
            node.members.remove(member);
            return if node.members.is_empty() { join(node.left, node.right) } else { Some(node) };
        }
    }
    Some(balance(node))
}

/// One tree of the two sides of a node that goes.
fn join<T>(left: Link<T>, right: Link<T>) -> Link<T> {
    let Some(right) = right else { return left };
    let (mut first, rest) = take_first(right);
    (first.left, first.right) = (left, rest);
    Some(balance(first))
}

/// The smallest node, and the tree without it.
fn take_first<T>(mut node: Box<Node<T>>) -> (Box<Node<T>>, Link<T>) {
    let Some(left) = node.left.take() else {
        let rest = node.right.take();
        return (node, rest);
    };
    let (first, rest) = take_first(left);
    node.left = rest;
    (first, Some(balance(node)))
}

fn height<T>(link: &Link<T>) -> u8 {
    link.as_ref().map_or(0, |node| node.height)
}

/// Makes a node right whose sides are right and differ by at most two in height.
fn balance<T>(mut node: Box<Node<T>>) -> Box<Node<T>> {
    let (left, right) = (height(&node.left), height(&node.right));
    if left > right + 1 {
        node.left = node.left.map(|left| if height(&left.left) < height(&left.right) { turn_left(left) } else { left });
        return turn_right(node);
    }
    if right > left + 1 {
        node.right =
            node.right.map(|right| if height(&right.right) < height(&right.left) { turn_right(right) } else { right });
        return turn_left(node);
    }
    node.update();
    node
}

/// The left child rises; nodes that move are updated.
fn turn_right<T>(mut node: Box<Node<T>>) -> Box<Node<T>> {
    if let Some(mut top) = node.left.take() {
        node.left = top.right.take();
        node.update();
        top.right = Some(node);
        node = top;
    }
    node.update();
    node
}

/// The right child rises; nodes that move are updated.
fn turn_left<T>(mut node: Box<Node<T>>) -> Box<Node<T>> {
    if let Some(mut top) = node.right.take() {
        node.right = top.left.take();
        node.update();
        top.left = Some(node);
        node = top;
    }
    node.update();
    node
}

impl<T> Node<T> {
    fn compare(&self, start: &Bytes, end: &End) -> Ordering {
        start.cmp(&self.start).then_with(|| end.cmp(&self.end))
    }

    fn update(&mut self) {
        self.height = 1 + height(&self.left).max(height(&self.right));
        let below = [&self.left, &self.right].into_iter().flatten().map(|side| &side.furthest);
        let furthest = below.fold(&self.end, |furthest, end| furthest.max(end)).clone();
        self.furthest = furthest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Holds the invariants of every node; its interval count.
    fn check(link: &Link<u32>) -> usize {
        let Some(node) = link else { return 0 };
        let (left, right) = (check(&node.left), check(&node.right));
        let (l, r) = (height(&node.left), height(&node.right));
        assert!(l.abs_diff(r) <= 1 && node.height == 1 + l.max(r) && !node.members.is_empty());
        let sides = || [&node.left, &node.right].into_iter().flatten();
        assert_eq!(Some(&node.furthest), sides().map(|s| &s.furthest).chain([&node.end]).max());
        assert!(node.left.as_ref().is_none_or(|s| node.compare(&s.start, &s.end).is_lt()));
        assert!(node.right.as_ref().is_none_or(|s| node.compare(&s.start, &s.end).is_gt()));
        left + 1 + right
    }

    fn key() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(0..4_u8, 0..4).prop_map(Bytes::from)
    }

    fn end() -> impl Strategy<Value = End> {
        prop_oneof![4 => key().prop_map(End::Before), 1 => Just(End::Never)]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

        #[test]
        fn it_finds_what_a_scan_finds(
            steps in prop::collection::vec((0..5_u8, key(), end(), 0..4_u32), 1..200),
            probes in prop::collection::vec(key(), 1..20),
        ) {
            let mut tree = Intervals::default();
            let mut model: BTreeMap<(Bytes, End), BTreeSet<u32>> = BTreeMap::new();
            for (step, start, end, member) in steps {
                if step < 3 {
                    tree.insert(start.clone(), end.clone(), member);
                    model.entry((start, end)).or_default().insert(member);
                } else {
                    // Half the time something that is there.
                    let known = model.keys().nth(member as usize * 3).filter(|_| step == 4).cloned();
                    let (start, end) = known.unwrap_or((start, end));
                    tree.remove(&start, &end, &member);
                    if let Some(members) = model.get_mut(&(start.clone(), end.clone())) {
                        members.remove(&member);
                    }
                    model.retain(|_, members| !members.is_empty());
                }
                prop_assert_eq!(check(&tree.root), model.len());
            }
            for probe in probes {
                let holds = |(start, end): &(Bytes, End)| *start <= probe && end.is_behind(&probe);
                let hits: Vec<_> = model.iter().filter(|(interval, _)| holds(interval)).collect();
                let expected: Vec<u32> = hits.iter().flat_map(|(_, members)| members.iter().copied()).collect();
                let mut found = Vec::new();
                let visits = tree.find(&probe, &mut |member| found.push(*member));
                prop_assert_eq!(found, expected, "in order of interval, then member");
                let path = 2 * (1 + u64::from(height(&tree.root)));
                prop_assert!(visits <= path * (1 + hits.len() as u64), "{visits} visits for {} hits", hits.len());
            }
        }
    }

    #[test]
    fn intervals_in_order_make_no_deep_tree() {
        let name = |n: u32| Bytes::from(format!("{n:06}"));
        let mut tree = Intervals::default();
        (0..5_000).for_each(|n| tree.insert(name(n), End::Before(name(n + 1)), n));
        assert_eq!((check(&tree.root), height(&tree.root)), (5_000, 13));
        (0..4_990).for_each(|n| tree.remove(&name(n), &End::Before(name(n + 1)), &n));
        assert_eq!((check(&tree.root), height(&tree.root)), (10, 4));
    }
}
