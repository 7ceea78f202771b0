//! The intervals of keys that a user may read, or write: etcd's interval tree (etcd `pkg/adt`), as far as permissions
//! need it.
//!
//! ```text
//!            [d, h) max m            a red-black tree by begin, then end;
//!           /            \           max: the greatest end below and at the node
//!     [a, c) max e     [f, m) max m
//! ```
//!
//! An empty bound is greater than every key. The shape of the tree matters: a question whose end is before its begin (a
//! request may ask it) is answered by what the search happens to meet. All members must answer alike, Go etcd's too, so
//! insertion and search take its steps.

use bytes::Bytes;
use std::cmp::Ordering;

/// The place of the node that is none: black, and its own child.
const NONE: usize = 0;

#[derive(Clone, Debug, Default)]
struct Node {
    begin: Bytes,
    end: Bytes,
    max: Bytes,
    parent: usize,
    /// Left, right.
    children: [usize; 2],
    red: bool,
}

/// A set of half-open intervals.
#[derive(Clone, Debug)]
pub struct Intervals {
    nodes: Vec<Node>,
    root: usize,
}

const LEFT: usize = 0;
const RIGHT: usize = 1;

/// Keys by their bytes; the empty one last.
pub fn compare(a: &[u8], b: &[u8]) -> Ordering {
    match (a.is_empty(), b.is_empty()) {
        (false, false) => a.cmp(b),
        (a, b) => a.cmp(&b),
    }
}

/// Where `[begin, end)` lies as seen from another interval: before it, across it, behind it.
fn position(begin: &[u8], end: &[u8], other: (&[u8], &[u8])) -> Ordering {
    if compare(begin, other.0).is_lt() && compare(end, other.0).is_le() {
        return Ordering::Less;
    }
    match compare(begin, other.1).is_ge() {
        true => Ordering::Greater,
        false => Ordering::Equal,
    }
}

/// The end of the interval that holds one key only.
pub fn point_end(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

impl Default for Intervals {
    fn default() -> Self {
        Intervals { nodes: vec![Node::default()], root: NONE }
    }
}

impl Intervals {
    /// Adds `[begin, end)`.
    pub fn insert(&mut self, begin: Bytes, end: Bytes) {
        let (mut parent, mut at, mut side) = (NONE, self.root, LEFT);
        while at != NONE {
            parent = at;
            let node = &self.nodes[at];
            let order = compare(&begin, &node.begin).then_with(|| compare(&end, &node.end));
            side = if order.is_lt() { LEFT } else { RIGHT };
            at = node.children[side];
        }
        let new = self.nodes.len();
        self.nodes.push(Node { max: end.clone(), begin, end, parent, children: [NONE; 2], red: true });
        match parent {
            NONE => self.root = new,
            _ => {
                self.nodes[parent].children[side] = new;
                self.update_max(parent);
            }
        }
        self.balance(new);
    }

    /// Whether an interval, or several that touch, cover all of `[begin, end)`.
    pub fn contains(&self, begin: &[u8], end: &[u8]) -> bool {
        let mut covered: Option<(&[u8], &[u8])> = None;
        let mut contiguous = true;
        self.visit(self.root, (begin, end), &mut |node| {
            covered = match covered {
                None => Some((&node.begin, &node.end)),
                Some((from, to)) if compare(to, &node.begin).is_lt() => {
                    contiguous = false;
                    Some((from, to))
                }
                Some((from, to)) if compare(&node.end, to).is_gt() => Some((from, &node.end)),
                unchanged => unchanged,
            };
            contiguous
        });
        let inside = |(from, to): (&[u8], &[u8])| compare(to, end).is_ge() && compare(from, begin).is_le();
        contiguous && covered.is_some_and(inside)
    }

    /// Whether the key is in any interval.
    pub fn holds(&self, key: &[u8]) -> bool {
        let (end, mut at) = (point_end(key), self.root);
        while at != NONE && position(key, &end, self.bounds(at)).is_ne() {
            let [left, right] = self.nodes[at].children;
            let go_left = left != NONE && compare(&self.nodes[left].max, key).is_gt();
            at = if go_left { left } else { right };
        }
        at != NONE
    }

    fn bounds(&self, at: usize) -> (&[u8], &[u8]) {
        (&self.nodes[at].begin, &self.nodes[at].end)
    }

    /// Shows `see` the nodes across the interval, in order, until it has seen enough.
    fn visit<'a>(&'a self, at: usize, of: (&[u8], &[u8]), see: &mut impl FnMut(&'a Node) -> bool) -> bool {
        if at == NONE {
            return true;
        }
        let node = &self.nodes[at];
        let [left, right] = node.children;
        match position(of.0, of.1, self.bounds(at)) {
            Ordering::Less => self.visit(left, of, see),
            Ordering::Greater if position(&node.begin, &node.max, of).is_ne() => true,
            Ordering::Greater => self.visit(left, of, see) && self.visit(right, of, see),
            Ordering::Equal => self.visit(left, of, see) && see(node) && self.visit(right, of, see),
        }
    }

    /// Brings the greatest end of a node and of those above it up to date.
    fn update_max(&mut self, mut at: usize) {
        while at != NONE {
            let node = &self.nodes[at];
            let mut max = &node.end;
            for child in node.children {
                if child != NONE && compare(&self.nodes[child].max, max).is_gt() {
                    max = &self.nodes[child].max;
                }
            }
            if *max == node.max {
                return;
            }
            let (max, parent) = (max.clone(), node.parent);
            self.nodes[at].max = max;
            at = parent;
        }
    }

    fn side_of(&self, at: usize) -> usize {
        let parent = self.nodes[at].parent;
        if self.nodes[parent].children[LEFT] == at { LEFT } else { RIGHT }
    }

    /// No red node has a red parent: Cormen's repair after an insertion.
    fn balance(&mut self, mut at: usize) {
        while self.nodes[self.nodes[at].parent].red {
            let mut parent = self.nodes[at].parent;
            let above = self.nodes[parent].parent;
            let side = self.side_of(parent);
            let uncle = self.nodes[above].children[1 - side];
            if self.nodes[uncle].red {
                self.nodes[uncle].red = false;
                self.nodes[parent].red = false;
                self.nodes[above].red = true;
                at = above;
                continue;
            }
            if self.side_of(at) != side {
                at = parent;
                self.rotate(at, side);
                parent = self.nodes[at].parent;
            }
            let above = self.nodes[parent].parent;
            self.nodes[parent].red = false;
            self.nodes[above].red = true;
            self.rotate(above, 1 - side);
        }
        self.nodes[self.root].red = false;
    }

    /// Lets the node sink to that side; its other child takes its place.
    fn rotate(&mut self, at: usize, side: usize) {
        let up = self.nodes[at].children[1 - side];
        if up == NONE {
            return;
        }
        let middle = self.nodes[up].children[side];
        self.nodes[at].children[1 - side] = middle;
        if middle != NONE {
            self.nodes[middle].parent = at;
        }
        self.update_max(at);
        let parent = self.nodes[at].parent;
        self.nodes[up].parent = parent;
        match parent {
            NONE => self.root = up,
            _ => {
                let side_of_at = self.side_of(at);
                self.nodes[parent].children[side_of_at] = up;
                self.update_max(parent);
            }
        }
        self.nodes[at].parent = up;
        self.nodes[up].children[side] = at;
        self.update_max(up);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The golden file's generator: etcd's own tree, asked the same (`testdata/auth/golden.go`).
    const GOLDEN: &str = include_str!("../../testdata/auth/intervals.txt");

    struct Draw(u64);

    impl Draw {
        fn below(&mut self, n: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % n
        }

        fn key(&mut self) -> Vec<u8> {
            let length = self.below(3);
            (0..length).map(|_| b'a' + u8::try_from(self.below(6)).unwrap()).collect()
        }
    }

    fn answers(seed: u64) -> String {
        let mut draw = Draw(seed);
        let mut intervals = Intervals::default();
        let mut line = format!("{seed} ");
        for _ in 0..1 + draw.below(40) {
            intervals.insert(draw.key().into(), draw.key().into());
        }
        for _ in 0..60 {
            let (begin, end) = (draw.key(), draw.key());
            let (contains, holds) = (intervals.contains(&begin, &end), intervals.holds(&begin));
            line.push(char::from(b'0' + u8::from(contains) + 2 * u8::from(holds)));
        }
        line
    }

    #[test]
    fn questions_are_answered_as_etcds_tree_answers_them_also_those_that_make_no_sense() {
        let mut lines = 0;
        for line in GOLDEN.lines() {
            let seed = line.split_once(' ').unwrap().0.parse().unwrap();
            assert_eq!(answers(seed), line);
            lines += 1;
        }
        assert_eq!(lines, 200);
    }

    #[test]
    fn a_range_may_be_covered_by_intervals_that_touch_but_not_with_a_gap() {
        let mut intervals = Intervals::default();
        for (begin, end) in [("a", "c"), ("c", "e"), ("f", "")] {
            intervals.insert(begin.into(), end.into());
        }
        assert!(intervals.contains(b"a", b"e"));
        assert!(intervals.contains(b"x", b""));
        assert!(!intervals.contains(b"d", b"g"));
        assert!(!intervals.contains(b"a", b""));
        assert!(intervals.holds(b"d") && !intervals.holds(b"e"));
    }
}
