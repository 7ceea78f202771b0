//! Nodes: pages being changed. Only touched pages are decoded; a commit merges what became small, splits what became
//! large, and gives every node new pages.

use crate::page::{self, BRANCH, ELEMENT, HEADER, LEAF, Page};
use crate::tx::Pages;
use crate::view::DEPTH_MAX;
use crate::{Error, Pace};
use bytes::Bytes;

/// How full a split leaves its pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fill {
    /// Half: keys arrive anywhere.
    #[default]
    Half,
    /// Nine tenths: keys arrive in ascending order.
    Append,
}

impl Fill {
    fn bytes(self, page_size: usize) -> usize {
        match self {
            Fill::Half => page_size / 2,
            Fill::Append => page_size / 10 * 9,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Item {
    pub key: Bytes,
    pub value: Bytes,
    pub flags: u32,
}

#[derive(Debug)]
pub(crate) enum Child {
    Page(u64),
    Node(Box<Node>),
}

#[derive(Debug)]
pub(crate) enum Kind {
    Leaf(Vec<Item>),
    Branch(Vec<(Bytes, Child)>),
}

#[derive(Debug)]
pub(crate) struct Node {
    pub kind: Kind,
    /// Something was deleted here: it may have become too small.
    pub unbalanced: bool,
}

impl Node {
    pub fn empty() -> Node {
        Node { kind: Kind::Leaf(Vec::new()), unbalanced: false }
    }

    pub fn decode(page: &Page) -> Node {
        let kind = match page.is_leaf() {
            true => Kind::Leaf(
                (0..page.count())
                    .map(|i| Item { key: page.key(i), value: page.value(i), flags: page.flags(i) })
                    .collect(),
            ),
            false => Kind::Branch((0..page.count()).map(|i| (page.key(i), Child::Page(page.child(i)))).collect()),
        };
        Node { kind, unbalanced: false }
    }

    fn len(&self) -> usize {
        match &self.kind {
            Kind::Leaf(items) => items.len(),
            Kind::Branch(children) => children.len(),
        }
    }

    /// Bytes on a page.
    pub fn size(&self) -> usize {
        let content: usize = match &self.kind {
            Kind::Leaf(items) => items.iter().map(|i| ELEMENT + i.key.len() + i.value.len()).sum(),
            Kind::Branch(children) => children.iter().map(|(key, _)| ELEMENT + key.len()).sum(),
        };
        HEADER + content
    }

    fn is_small(&self, page_size: usize) -> bool {
        let keys = if matches!(self.kind, Kind::Leaf(_)) { 1 } else { 2 };
        self.size() <= page_size / 4 || self.len() < keys
    }

    fn first_key(&self) -> Bytes {
        match &self.kind {
            Kind::Leaf(items) => items.first().map(|i| i.key.clone()),
            Kind::Branch(children) => children.first().map(|(key, _)| key.clone()),
        }
        .unwrap_or_default()
    }

    /// Inserts or replaces. Walks down, decoding what it touches.
    pub fn put(&mut self, pages: &mut Pages, item: Item) -> Result<(), Error> {
        let mut node = self;
        for _ in 0..DEPTH_MAX {
            match &mut node.kind {
                Kind::Leaf(items) => {
                    match items.last() {
                        Some(last) if last.key >= item.key => {
                            match items.binary_search_by(|i| i.key.as_ref().cmp(&item.key)) {
                                Ok(at) => items[at] = item,
                                Err(at) => items.insert(at, item),
                            }
                        }
                        _ => items.push(item),
                    }
                    return Ok(());
                }
                Kind::Branch(children) => {
                    let at = child_index(children, &item.key);
                    if item.key < children[at].0 {
                        children[at].0 = item.key.clone();
                    }
                    node = load(&mut children[at].1, pages)?;
                }
            }
        }
        Err(Error::corrupt(0, 0, "the tree is too deep: a cycle"))
    }

    /// Removes the key; whether it was there.
    pub fn delete(&mut self, pages: &mut Pages, key: &[u8]) -> Result<bool, Error> {
        let mut node = self;
        for _ in 0..DEPTH_MAX {
            match &mut node.kind {
                Kind::Leaf(items) => {
                    let Ok(at) = items.binary_search_by(|i| i.key.as_ref().cmp(key)) else { return Ok(false) };
                    items.remove(at);
                    node.unbalanced = true;
                    return Ok(true);
                }
                Kind::Branch(children) => {
                    node.unbalanced = true;
                    let at = child_index(children, key);
                    node = load(&mut children[at].1, pages)?;
                }
            }
        }
        Err(Error::corrupt(0, 0, "the tree is too deep: a cycle"))
    }

    /// The key's value, without decoding anything more.
    pub fn get(&self, pages: &Pages, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let mut node = self;
        for _ in 0..DEPTH_MAX {
            match &node.kind {
                Kind::Leaf(items) => {
                    let found = items.binary_search_by(|i| i.key.as_ref().cmp(key));
                    return Ok(found.ok().map(|at| items[at].value.clone()));
                }
                Kind::Branch(children) => match &children[child_index(children, key)].1 {
                    Child::Node(child) => node = child,
                    Child::Page(id) => return pages.get(*id, key),
                },
            }
        }
        Err(Error::corrupt(0, 0, "the tree is too deep: a cycle"))
    }

    /// Merges children that became small and drops empty ones, from the leaves up.
    pub fn rebalance(&mut self, pages: &mut Pages) -> Result<(), Error> {
        let Kind::Branch(children) = &mut self.kind else { return Ok(()) };
        if !self.unbalanced {
            return Ok(());
        }
        // All children first: a merge takes a neighbour's children over without another look at them.
        for (_, child) in children.iter_mut() {
            if let Child::Node(node) = child {
                node.rebalance(pages)?;
            }
        }
        merge_small(children, pages)
    }

    fn append(&mut self, other: Node) -> Result<(), Error> {
        match (&mut self.kind, other.kind) {
            (Kind::Leaf(a), Kind::Leaf(b)) => a.extend(b),
            (Kind::Branch(a), Kind::Branch(b)) => a.extend(b),
            _ => return Err(Error::corrupt(0, 0, "a leaf and a branch are siblings")),
        }
        Ok(())
    }

    /// Writes the node as one run of pages; its children must have been written.
    pub fn write(&self, pages: &mut Pages) -> Result<u64, Error> {
        let size = pages.page_size();
        let id = pages.allocate(self.size().div_ceil(size) as u64);
        pages.write(id, self.encode(id, size)?);
        Ok(id)
    }

    /// Writes the node and everything changed below it; answers the pieces it became: none when
    /// nothing is left in it.
    pub fn spill(self, pages: &mut Pages, fill: Fill, pace: Pace<'_>) -> Result<Vec<(Bytes, u64)>, Error> {
        let size = pages.page_size();
        let pieces = match self.kind {
            Kind::Leaf(items) => {
                let lens: Vec<usize> = items.iter().map(|i| ELEMENT + i.key.len() + i.value.len()).collect();
                let mut items = items.into_iter();
                let cuts = split(&lens, size, fill);
                cuts.into_iter().map(|n| Kind::Leaf(items.by_ref().take(n).collect())).collect::<Vec<_>>()
            }
            Kind::Branch(children) => {
                let mut spilled = Vec::with_capacity(children.len());
                for (key, child) in children {
                    match child {
                        Child::Page(id) => spilled.push((key, Child::Page(id))),
                        Child::Node(node) => {
                            let parts = node.spill(pages, fill, pace)?;
                            spilled.extend(parts.into_iter().map(|(key, id)| (key, Child::Page(id))));
                        }
                    }
                }
                let lens: Vec<usize> = spilled.iter().map(|(key, _)| ELEMENT + key.len()).collect();
                let mut spilled = spilled.into_iter();
                let cuts = split(&lens, size, fill);
                cuts.into_iter().map(|n| Kind::Branch(spilled.by_ref().take(n).collect())).collect()
            }
        };
        let mut written = Vec::with_capacity(pieces.len());
        for kind in pieces {
            let node = Node { kind, unbalanced: false };
            if node.len() > 0 {
                written.push((node.first_key(), node.write(pages)?));
                pace(size);
            }
        }
        Ok(written)
    }

    /// The page's bytes; `id` 0 and no padding for an inline bucket (page size 1).
    pub fn encode(&self, id: u64, page_size: usize) -> Result<Vec<u8>, Error> {
        let len = self.size();
        let pages = len.div_ceil(page_size);
        let mut out = vec![0; if page_size == 1 { len } else { pages * page_size }];
        let overflow = if page_size == 1 { 0 } else { (pages - 1) as u32 };
        let count = u16::try_from(self.len()).ok().filter(|c| *c < u16::MAX);
        let count = count.ok_or(Error::Misuse("a node has too many elements"))?;
        let flags = if matches!(self.kind, Kind::Leaf(_)) { LEAF } else { BRANCH };
        page::put_header(&mut out, id, flags, count, overflow);
        let mut data = HEADER + self.len() * ELEMENT;
        match &self.kind {
            Kind::Leaf(items) => {
                for (i, item) in items.iter().enumerate() {
                    let at = HEADER + i * ELEMENT;
                    words(
                        &mut out,
                        at,
                        [item.flags, (data - at) as u32, item.key.len() as u32, item.value.len() as u32],
                    );
                    out[data..data + item.key.len()].copy_from_slice(&item.key);
                    data += item.key.len();
                    out[data..data + item.value.len()].copy_from_slice(&item.value);
                    data += item.value.len();
                }
            }
            Kind::Branch(children) => {
                for (i, (key, child)) in children.iter().enumerate() {
                    let Child::Page(child) = child else {
                        return Err(Error::Misuse("a child was not written before its parent"));
                    };
                    let at = HEADER + i * ELEMENT;
                    words(&mut out, at, [(data - at) as u32, key.len() as u32, *child as u32, (*child >> 32) as u32]);
                    out[data..data + key.len()].copy_from_slice(key);
                    data += key.len();
                }
            }
        }
        Ok(out)
    }
}

fn merge_small(children: &mut Vec<(Bytes, Child)>, pages: &mut Pages) -> Result<(), Error> {
    let mut at = 0;
    while at < children.len() {
        match &children[at].1 {
            Child::Node(node) if node.len() == 0 => {
                children.remove(at);
            }
            Child::Node(node) if node.unbalanced && node.is_small(pages.page_size()) && children.len() > 1 => {
                let left = at.saturating_sub(1);
                load(&mut children[left].1, pages)?;
                load(&mut children[left + 1].1, pages)?;
                let (_, right) = children.remove(left + 1);
                if let (Child::Node(into), Child::Node(right)) = (&mut children[left].1, right) {
                    into.append(*right)?;
                }
                at = left + 1;
            }
            _ => at += 1,
        }
    }
    Ok(())
}

fn words(out: &mut [u8], at: usize, words: [u32; 4]) {
    for (i, word) in words.into_iter().enumerate() {
        out[at + 4 * i..at + 4 * i + 4].copy_from_slice(&word.to_le_bytes());
    }
}

pub(crate) fn child_index(children: &[(Bytes, Child)], key: &[u8]) -> usize {
    children.partition_point(|(k, _)| k.as_ref() <= key).saturating_sub(1)
}

/// The child as a node; its page is freed, since it will be written anew.
pub(crate) fn load<'a>(child: &'a mut Child, pages: &mut Pages) -> Result<&'a mut Node, Error> {
    if let Child::Page(id) = child {
        *child = Child::Node(Box::new(pages.take(*id)?));
    }
    match child {
        Child::Node(node) => Ok(node),
        Child::Page(_) => Err(Error::Misuse("a page was just decoded")),
    }
}

/// How many elements each piece gets: at least two a piece and for the last, as full as asked.
fn split(lens: &[usize], page_size: usize, fill: Fill) -> Vec<usize> {
    const KEYS_MIN: usize = 2;
    let mut cuts = Vec::new();
    let mut start = 0;
    let mut rest: usize = HEADER + lens.iter().sum::<usize>();
    while lens.len() - start > 2 * KEYS_MIN && rest >= page_size {
        let mut size = HEADER;
        let mut n = 0;
        for len in &lens[start..lens.len() - KEYS_MIN] {
            if n >= KEYS_MIN && size + len > fill.bytes(page_size) {
                break;
            }
            size += len;
            n += 1;
        }
        cuts.push(n);
        start += n;
        rest = rest - size + HEADER;
    }
    cuts.push(lens.len() - start);
    cuts
}
