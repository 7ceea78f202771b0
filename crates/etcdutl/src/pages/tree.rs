//! Trees of pages, and the buckets in them.

use super::{Element, Kind, Page, Raw, word};
use std::collections::BTreeSet;

/// No sound tree is deeper, nor do buckets stand in one another more often.
const DEPTH_MAX: usize = 64;

/// Where a bucket's tree begins.
#[derive(Clone, Debug)]
pub enum Root {
    Page(u64),
    /// In the bucket's own record: a leaf.
    Inline(Page),
}

/// A bucket's record.
#[derive(Clone, Debug)]
pub struct Bucket {
    pub root: Root,
    pub sequence: u64,
}

impl Bucket {
    /// From a record's value.
    ///
    /// # Errors
    /// It is too short.
    pub fn of_value(value: &[u8]) -> Result<Bucket, String> {
        let (Some(root), Some(sequence)) = (word(value, 0), word(value, 8)) else {
            return Err(format!("a bucket's record has {} bytes of 16", value.len()));
        };
        let root = if root == 0 { Root::Inline(Page::new(value[16..].to_vec())?) } else { Root::Page(root) };
        Ok(Bucket { root, sequence })
    }

    /// The number of its root page; 0: it stands in its record.
    pub fn root_page(&self) -> u64 {
        match self.root {
            Root::Page(id) => id,
            Root::Inline(_) => 0,
        }
    }
}

/// What is called with each page of a tree, and the way to it, itself the last.
pub type Visit<'a> = &'a mut dyn FnMut(Result<&Page, String>, &[u64]) -> Result<(), String>;

impl Raw {
    /// Calls with every page of a tree, parents first; with a reason where one can't be read.
    ///
    /// # Errors
    /// The call's own.
    pub fn walk(&self, root: &Root, visit: Visit) -> Result<(), String> {
        match root {
            Root::Inline(page) => visit(Ok(page), &[0]),
            Root::Page(id) => self.walk_below(*id, &mut Vec::new(), visit),
        }
    }

    fn walk_below(&self, id: u64, way: &mut Vec<u64>, visit: Visit) -> Result<(), String> {
        way.push(id);
        let page = match way.len() > DEPTH_MAX {
            true => Err("the tree is too deep".to_owned()),
            false => self.page(id),
        };
        match page {
            Err(why) => visit(Err(why), way)?,
            Ok(page) => {
                visit(Ok(&page), way)?;
                let count = if page.kind() == Kind::Branch { page.count() } else { 0 };
                for index in 0..count {
                    match page.element(index) {
                        Ok(element) => self.walk_below(element.child, way, visit)?,
                        Err(why) => visit(Err(why), way)?,
                    }
                }
            }
        }
        way.pop();
        Ok(())
    }

    /// Calls with each element of a bucket's leaves.
    ///
    /// # Errors
    /// A page that can't be read, or the call's own.
    pub fn each(&self, root: &Root, call: &mut dyn FnMut(Element) -> Result<(), String>) -> Result<(), String> {
        self.walk(root, &mut |page, way| {
            let page = page.map_err(|why| format!("page {}: {why}", way.last().copied().unwrap_or_default()))?;
            match page.kind() {
                Kind::Leaf => (0..page.count()).try_for_each(|index| call(page.element(index)?)),
                Kind::Branch => Ok(()),
                other => Err(format!("page {}: a page of type {other} stands in a tree", page.id())),
            }
        })
    }

    /// The file's outermost bucket.
    ///
    /// # Errors
    /// No meta is sound.
    pub fn outermost(&self) -> Result<Bucket, String> {
        let (_, meta) = self.newest().ok_or("invalid database")?;
        Ok(Bucket { root: Root::Page(meta.root), sequence: meta.sequence })
    }

    /// The bucket with these names, each in the one before.
    ///
    /// # Errors
    /// There is none, or a page can't be read.
    pub fn bucket(&self, names: &[Vec<u8>]) -> Result<Bucket, String> {
        names.iter().try_fold(self.outermost()?, |outer, name| {
            let mut found = None;
            self.each(&outer.root, &mut |element| {
                if element.is_bucket && element.key == name.as_slice() {
                    found = Some(Bucket::of_value(element.value)?);
                }
                Ok(())
            })?;
            found.ok_or_else(|| "bucket not found".to_owned())
        })
    }

    /// The buckets in a bucket: names and records.
    ///
    /// # Errors
    /// A page or a record can't be read.
    pub fn buckets_in(&self, root: &Root) -> Result<Vec<(Vec<u8>, Bucket)>, String> {
        let mut buckets = Vec::new();
        self.each(root, &mut |element| {
            if element.is_bucket {
                buckets.push((element.key.to_vec(), Bucket::of_value(element.value)?));
            }
            Ok(())
        })?;
        Ok(buckets)
    }

    /// Pages that the trees of all buckets are made of.
    ///
    /// # Errors
    /// A page can't be read.
    pub fn used(&self) -> Result<BTreeSet<u64>, String> {
        let mut used = BTreeSet::new();
        let mut waiting = vec![self.outermost()?.root];
        while let Some(root) = waiting.pop() {
            self.walk(&root, &mut |page, way| {
                let page = page.map_err(|why| format!("page {}: {why}", way.last().copied().unwrap_or_default()))?;
                if way != [0] {
                    used.extend(page.id()..=page.id() + page.overflow());
                }
                Ok(())
            })?;
            waiting.extend(self.buckets_in(&root)?.into_iter().map(|(_, bucket)| bucket.root));
        }
        Ok(used)
    }
}
