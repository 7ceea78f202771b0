//! bbolt's consistency check: all that is wrong with a file, in bbolt's words.

use super::tree::Bucket;
use super::{Kind, Page, Raw, Root};
use std::collections::{BTreeMap, BTreeSet};

/// So many faults are told.
const FAULTS_MAX: usize = 10_000;
/// Buckets in one another, and pages below one another, that are gone through.
const NESTED_MAX: usize = 64;

/// How keys are shown.
pub type Shown = fn(&[u8]) -> String;

struct Check<'a> {
    raw: &'a Raw,
    end: u64,
    shown: Shown,
    free: BTreeSet<u64>,
    /// Pages that are in use.
    reached: BTreeSet<u64>,
    faults: Vec<String>,
}

/// Everything wrong with the file's newest state; with `from`, only below that page.
///
/// # Errors
/// No meta is sound, so there is nothing to look at.
pub fn check(raw: &Raw, from: Option<u64>, shown: Shown) -> Result<Vec<String>, String> {
    let (_, meta) = raw.newest().ok_or("invalid database")?;
    let (free, faults) = (BTreeSet::new(), Vec::new());
    let mut check = Check { raw, end: meta.end, shown, free, reached: BTreeSet::from([0, 1]), faults };
    if meta.has_freelist() {
        check.stored_list(meta.freelist);
    } else if let (Some(_), Ok(used)) = (from, raw.used()) {
        // What nobody refers to counts as free; a whole check comes by all others.
        check.free = (2..meta.end.min(raw.bytes / raw.page_size)).filter(|id| !used.contains(id)).collect();
    }
    let outermost = Bucket { root: Root::Page(meta.root), sequence: meta.sequence };
    match from {
        Some(page) if !(2..meta.end).contains(&page) => {
            check.fault(format!("page ID ({page}) out of range [2, {})", meta.end));
        }
        Some(page) => {
            check.invariants(page);
            check.buckets_below(&Root::Page(page), 0);
        }
        None => {
            check.bucket(&outermost, 0);
            // Without a stored list, what nobody refers to counts as free.
            if meta.has_freelist() {
                let lost = (0..meta.end.min(raw.bytes / raw.page_size)).filter(|id| !check.reached.contains(id));
                let lost: Vec<u64> = lost.filter(|id| !check.free.contains(id)).take(FAULTS_MAX).collect();
                lost.into_iter().for_each(|id| check.fault(format!("page {id}: unreachable unfreed")));
            }
        }
    }
    Ok(check.faults)
}

fn way_text(way: &[u64]) -> String {
    let ids: Vec<String> = way.iter().map(u64::to_string).collect();
    format!("[{}]", ids.join(" "))
}

impl Check<'_> {
    fn fault(&mut self, text: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(text);
        }
    }

    fn stored_list(&mut self, id: u64) {
        let page = match self.raw.page(id) {
            Ok(page) if page.kind() == Kind::Freelist => page,
            Ok(page) => return self.fault(format!("invalid freelist page: {id}, page type is {}", page.kind())),
            Err(why) => return self.fault(format!("page {id}: {why}")),
        };
        self.reached.extend(id..=id + page.overflow());
        let (_, pages) = page.freelist();
        for id in pages.collect::<Vec<_>>() {
            if !self.free.insert(id) {
                self.fault(format!("page {id}: already freed"));
            }
        }
    }

    fn bucket(&mut self, bucket: &Bucket, depth: usize) {
        if let Root::Page(id) = bucket.root {
            self.invariants(id);
            self.buckets_below(&bucket.root, depth);
        }
    }

    fn buckets_below(&mut self, root: &Root, depth: usize) {
        if depth > NESTED_MAX {
            return self.fault("buckets stand in one another without end".into());
        }
        match self.raw.buckets_in(root) {
            Ok(buckets) => buckets.iter().for_each(|(_, bucket)| self.bucket(bucket, depth + 1)),
            // What can't be read was told by the walk over the pages.
            Err(why) if self.faults.is_empty() => self.fault(why),
            Err(_) => {}
        }
    }

    fn invariants(&mut self, root: u64) {
        let raw = self.raw;
        let walked = raw.walk(&Root::Page(root), &mut |page, way| {
            match page {
                Ok(page) => self.page(page, way),
                Err(why) => self.fault(format!("page {}: {why}", way.last().copied().unwrap_or_default())),
            }
            if self.faults.len() < FAULTS_MAX { Ok(()) } else { Err("enough".into()) }
        });
        if walked.is_ok() {
            self.keys(root, None, None, &mut Vec::new());
        }
    }

    fn page(&mut self, page: &Page, way: &[u64]) {
        let (id, stack) = (page.id(), way_text(way));
        if id > self.end {
            self.fault(format!("page {id}: out of bounds: {} (stack: {stack})", self.end));
        }
        for id in id..=id + page.overflow() {
            if !self.reached.insert(id) {
                self.fault(format!("page {id}: multiple references (stack: {stack})"));
            }
        }
        if self.free.contains(&id) {
            self.fault(format!("page {id}: reachable freed"));
        } else if !matches!(page.kind(), Kind::Branch | Kind::Leaf) {
            self.fault(format!("page {id}: invalid type: {} (stack: {stack})", page.kind()));
        }
    }

    /// Keys stand in order, and within what the branch above says. Answers the last key.
    fn keys(&mut self, id: u64, low: Option<&[u8]>, high: Option<&[u8]>, way: &mut Vec<u64>) -> Option<Vec<u8>> {
        // The walk has told of pages that can't be read, and of trees that are too deep.
        if way.len() > NESTED_MAX {
            return None;
        }
        let page = self.raw.page(id).ok()?;
        way.push(id);
        let elements: BTreeMap<usize, _> = (0..page.count()).filter_map(|n| Some((n, page.element(n).ok()?))).collect();
        let mut last = low.map(<[u8]>::to_vec);
        for (index, element) in &elements {
            let before = last.clone();
            let (of, kind) = if page.kind() == Kind::Branch { (element.child, "branch") } else { (id, "leaf") };
            self.order((of, kind, *index), element.key, before.as_deref(), high, way);
            last = match page.kind() {
                Kind::Branch => {
                    let next = elements.get(&(index + 1)).map(|next| next.key).or(high);
                    self.keys(element.child, Some(element.key), next, way)
                }
                _ => Some(element.key.to_vec()),
            };
        }
        way.pop();
        if elements.is_empty() { None } else { last }
    }

    fn order(&mut self, at: (u64, &str, usize), key: &[u8], before: Option<&[u8]>, high: Option<&[u8]>, way: &[u64]) {
        let ((page, kind, index), shown, stack) = (at, self.shown, way_text(way));
        let name = format!("key[{index}]=(hex){} on {kind} page({page})", shown(key));
        let above = before.map(shown).unwrap_or_default();
        if index == 0 && before.is_some_and(|before| before > key) {
            self.fault(format!("the first {name} needs to be >= the key in the ancestor ({above}). Stack: {stack}"));
        }
        if index > 0 && before.is_some_and(|before| before > key) {
            self.fault(format!("{name} needs to be > (found <) than previous element (hex){above}. Stack: {stack}"));
        }
        if index > 0 && before == Some(key) {
            self.fault(format!("{name} needs to be > (found =) than previous element (hex){above}. Stack: {stack}"));
        }
        if high.is_some_and(|high| key >= high) {
            self.fault(format!(
                "{name} needs to be < than key of the next element in ancestor (hex){above}. Pages stack: {stack}"
            ));
        }
    }
}
