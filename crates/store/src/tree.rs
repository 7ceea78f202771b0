//! A persistent B+tree: clones cost nothing and never change; the owner mutates in place what no clone shares.
//!
//! Each inner node keeps the weight of its subtrees, so counting a range takes O(log n). Nodes that a clone holds are
//! copied once on the way down (`Arc::make_mut`), so a batch of changes after a publication copies each touched node
//! once.

use std::sync::Arc;

const MAX: usize = 64;
const MIN: usize = MAX / 4;

/// What an entry counts for in [`Tree::weight_before`].
pub trait Weigh {
    fn weight(&self) -> usize {
        0
    }
}

#[derive(Clone, Debug)]
enum Node<K, V> {
    Leaf(Vec<(K, V)>),
    Inner(Vec<Branch<K, V>>),
}

#[derive(Clone, Debug)]
struct Branch<K, V> {
    /// At most the smallest key below.
    low: K,
    weight: usize,
    node: Arc<Node<K, V>>,
}

/// An ordered map.
#[derive(Clone, Debug)]
pub struct Tree<K, V> {
    root: Arc<Node<K, V>>,
    len: usize,
}

impl<K, V> Default for Tree<K, V> {
    fn default() -> Self {
        Tree { root: Arc::new(Node::Leaf(Vec::new())), len: 0 }
    }
}

impl<K: Ord + Clone, V: Clone + Weigh + Default> Node<K, V> {
    fn weight(&self) -> usize {
        match self {
            Node::Leaf(items) => items.iter().map(|(_, v)| v.weight()).sum(),
            Node::Inner(branches) => branches.iter().map(|b| b.weight).sum(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Node::Leaf(items) => items.len(),
            Node::Inner(branches) => branches.len(),
        }
    }

    fn low(&self) -> &K {
        match self {
            Node::Leaf(items) => &items[0].0,
            Node::Inner(branches) => &branches[0].low,
        }
    }

    fn split(&mut self) -> Node<K, V> {
        match self {
            // Keys that arrive in order leave full nodes behind.
            Node::Leaf(items) => Node::Leaf(items.split_off(items.len() * 3 / 4)),
            Node::Inner(branches) => Node::Inner(branches.split_off(branches.len() * 3 / 4)),
        }
    }

    fn branch(self) -> Branch<K, V> {
        Branch { low: self.low().clone(), weight: self.weight(), node: Arc::new(self) }
    }

    /// Changes the key's value; a split's right half comes back.
    fn update<R>(&mut self, key: K, change: impl FnOnce(&mut Option<V>) -> R) -> (R, bool, Option<Branch<K, V>>) {
        let (result, new) = match self {
            Node::Leaf(items) => match items.binary_search_by(|(k, _)| k.cmp(&key)) {
                Ok(at) => {
                    // Taken out, not cloned: a second owner would make the change copy what it need not.
                    let mut value = Some(std::mem::take(&mut items[at].1));
                    let result = change(&mut value);
                    items[at].1 = value.unwrap_or_default();
                    (result, false)
                }
                Err(at) => {
                    let mut value = None;
                    let result = change(&mut value);
                    items.insert(at, (key, value.unwrap_or_default()));
                    (result, true)
                }
            },
            Node::Inner(branches) => {
                let at = find(branches, &key);
                let branch = &mut branches[at];
                if key < branch.low {
                    branch.low = key.clone();
                }
                let node = Arc::make_mut(&mut branch.node);
                let (result, new, right) = node.update(key, change);
                branch.weight = node.weight();
                if let Some(right) = right {
                    branches.insert(at + 1, right);
                }
                (result, new)
            }
        };
        let right = (self.len() > MAX).then(|| self.split().branch());
        (result, new, right)
    }

    fn floor(&self, key: &K) -> Option<(&K, &V)> {
        #[cfg(test)]
        FLOOR_STEPS.set(FLOOR_STEPS.get() + 1);
        match self {
            Node::Leaf(items) => items[..items.partition_point(|(k, _)| k <= key)].last().map(|(k, v)| (k, v)),
            Node::Inner(branches) => {
                // A branch's `low` may be below its smallest key: then the answer ends the branch before.
                let below = &branches[..branches.partition_point(|b| b.low <= *key)];
                below.iter().rev().find_map(|b| b.node.floor(key))
            }
        }
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        match self {
            Node::Leaf(items) => {
                let at = items.binary_search_by(|(k, _)| k.cmp(key)).ok()?;
                Some(items.remove(at).1)
            }
            Node::Inner(branches) => {
                let at = find(branches, key);
                let node = Arc::make_mut(&mut branches[at].node);
                let removed = node.remove(key)?;
                let left = node.len();
                branches[at].weight = node.weight();
                if left == 0 {
                    branches.remove(at);
                } else if left < MIN {
                    merge(branches, at);
                }
                Some(removed)
            }
        }
    }
}

fn find<K: Ord, V>(branches: &[Branch<K, V>], key: &K) -> usize {
    branches.partition_point(|b| b.low <= *key).saturating_sub(1)
}

/// Joins a small node with a neighbour when both fit into one.
fn merge<K: Ord + Clone, V: Clone + Weigh + Default>(branches: &mut Vec<Branch<K, V>>, at: usize) {
    let left = if at == 0 { 0 } else { at - 1 };
    if left + 1 >= branches.len() || branches[left].node.len() + branches[left + 1].node.len() > MAX {
        return;
    }
    let right = branches.remove(left + 1);
    let into = Arc::make_mut(&mut branches[left].node);
    match (into, Arc::unwrap_or_clone(right.node)) {
        (Node::Leaf(a), Node::Leaf(b)) => a.extend(b),
        (Node::Inner(a), Node::Inner(b)) => a.extend(b),
        _ => unreachable!("leaves of a B+tree are all at one depth"),
    }
    branches[left].weight += right.weight;
}

impl<K: Ord + Clone, V: Clone + Weigh + Default> Tree<K, V> {
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sum of all weights.
    pub fn weight(&self) -> usize {
        self.root.weight()
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf(items) => {
                    return items.binary_search_by(|(k, _)| k.cmp(key)).ok().map(|at| &items[at].1);
                }
                Node::Inner(branches) => node = &branches[find(branches, key)].node,
            }
        }
    }

    /// Lets `change` set the key's value, given the old one; answers what `change` answers.
    pub fn update<R>(&mut self, key: K, change: impl FnOnce(&mut Option<V>) -> R) -> R {
        let root = Arc::make_mut(&mut self.root);
        let (result, new, right) = root.update(key, change);
        self.len += usize::from(new);
        if let Some(right) = right {
            let left = std::mem::replace(root, Node::Leaf(Vec::new())).branch();
            *root = Node::Inner(vec![left, right]);
        }
        result
    }

    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.update(key, |slot| slot.replace(value))
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.get(key)?;
        let root = Arc::make_mut(&mut self.root);
        let removed = root.remove(key)?;
        self.len -= 1;
        loop {
            match root {
                Node::Inner(branches) if branches.is_empty() => *root = Node::Leaf(Vec::new()),
                Node::Inner(branches) if branches.len() == 1 => {
                    let only = branches.remove(0).node;
                    *root = Arc::unwrap_or_clone(only);
                }
                _ => return Some(removed),
            }
        }
    }

    /// Weight of all keys below `key`.
    pub fn weight_before(&self, key: &K) -> usize {
        let mut node = &*self.root;
        let mut sum = 0;
        loop {
            match node {
                Node::Leaf(items) => {
                    return sum + items.iter().take_while(|(k, _)| k < key).map(|(_, v)| v.weight()).sum::<usize>();
                }
                Node::Inner(branches) => {
                    let at = find(branches, key);
                    sum += branches[..at].iter().map(|b| b.weight).sum::<usize>();
                    node = &branches[at].node;
                }
            }
        }
    }

    /// The pair with the greatest key at or below `key`.
    pub fn floor(&self, key: &K) -> Option<(&K, &V)> {
        self.root.floor(key)
    }

    /// All pairs from `key` on, ascending.
    pub fn range_from(&self, key: &K) -> Iter<'_, K, V> {
        let mut iter = Iter { stack: Vec::new() };
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf(items) => {
                    iter.stack.push((node, items.partition_point(|(k, _)| k < key)));
                    return iter;
                }
                Node::Inner(branches) => {
                    let at = find(branches, key);
                    iter.stack.push((node, at + 1));
                    node = &branches[at].node;
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

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (node, next) = self.stack.last_mut()?;
            let at = *next;
            *next += 1;
            match node {
                Node::Leaf(items) => match items.get(at) {
                    Some((k, v)) => return Some((k, v)),
                    None => drop(self.stack.pop()),
                },
                Node::Inner(branches) => match branches.get(at) {
                    Some(branch) => self.stack.push((&branch.node, 0)),
                    None => drop(self.stack.pop()),
                },
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
        let mut tree = Tree::default();
        let mut map = BTreeMap::new();
        let mut clones: Vec<(Tree<u64, u64>, BTreeMap<u64, u64>)> = Vec::new();
        for step in 0..60_000_u64 {
            let key = draw(3000);
            if draw(100) < if step / 15_000 % 2 == 0 { 70 } else { 30 } {
                assert_eq!(tree.insert(key, step), map.insert(key, step));
            } else {
                assert_eq!(tree.remove(&key), map.remove(&key));
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
                let (tree, map) = clones.remove(draw(8) as usize);
                assert!(tree.iter().eq(map.iter()));
            }
        }
    }
}
