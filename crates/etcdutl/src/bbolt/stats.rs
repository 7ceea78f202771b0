//! `stats`: pages, levels, bytes and buckets, counted.

use super::{opened, print};
use crate::pages::{Bucket, Kind, Raw, Root};
use cobra::{Call, Exit};

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    branches: u64,
    branch_overflow: u64,
    leaves: u64,
    leaf_overflow: u64,
    pairs: u64,
    depth: usize,
    branch_used: usize,
    leaf_used: usize,
    buckets: u64,
    inline: u64,
    inline_used: usize,
}

/// Buckets in one another that are counted.
const DEPTH_MAX: usize = 64;

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.branches += other.branches;
        self.branch_overflow += other.branch_overflow;
        self.leaves += other.leaves;
        self.leaf_overflow += other.leaf_overflow;
        self.pairs += other.pairs;
        self.depth = self.depth.max(other.depth);
        self.branch_used += other.branch_used;
        self.leaf_used += other.leaf_used;
        self.buckets += other.buckets;
        self.inline += other.inline;
        self.inline_used += other.inline_used;
    }

    /// Of a bucket and those in it.
    fn of(raw: &Raw, bucket: &Bucket, nested: usize) -> Result<Counts, String> {
        if nested > DEPTH_MAX {
            return Err("buckets stand in one another without end".into());
        }
        let inline = matches!(bucket.root, Root::Inline(_));
        let mut counts = Counts { buckets: 1, inline: inline.into(), ..Counts::default() };
        raw.walk(&bucket.root, &mut |page, way| {
            let page = page?;
            match page.kind() {
                Kind::Leaf if inline => {
                    counts.pairs += page.count() as u64;
                    counts.inline_used += page.used()?;
                }
                Kind::Leaf => {
                    counts.pairs += page.count() as u64;
                    counts.leaves += 1;
                    counts.leaf_used += page.used()?;
                    counts.leaf_overflow += page.overflow();
                }
                // Nothing else stands in a tree: `check` tells where something does.
                Kind::Meta | Kind::Freelist | Kind::Unknown(_) => {}
                Kind::Branch => {
                    counts.branches += 1;
                    counts.branch_used += page.used()?;
                    counts.branch_overflow += page.overflow();
                }
            }
            counts.depth = counts.depth.max(way.len());
            Ok(())
        })?;
        let mut inner = Counts::default();
        if !inline {
            for (_, bucket) in raw.buckets_in(&bucket.root)? {
                inner.add(&Counts::of(raw, &bucket, nested + 1)?);
            }
        }
        counts.depth += inner.depth;
        counts.add(&inner);
        Ok(counts)
    }
}

/// As Go's: both numbers as 32-bit floats, the share cut off.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "as bbolt computes it")]
fn percent(part: u64, whole: u64) -> i64 {
    if whole == 0 { 0 } else { (part as f32 * 100.0 / whole as f32) as i64 }
}

/// `stats FILE [PREFIX]`.
pub fn run(call: &mut Call) -> Result<(), Exit> {
    let raw = opened(call)?;
    let prefix = call.args().get(1).cloned().unwrap_or_default();
    let outermost = raw.outermost().map_err(Exit::error)?;
    let mut all = Counts::default();
    let mut buckets = 0;
    for (name, bucket) in raw.buckets_in(&outermost.root).map_err(Exit::error)? {
        if name.starts_with(&prefix) {
            all.add(&Counts::of(&raw, &bucket, 0).map_err(Exit::error)?);
            buckets += 1;
        }
    }
    print(lines(&all, buckets, raw.page_size))
}

fn lines(all: &Counts, buckets: u64, page_size: u64) -> Vec<String> {
    let branch_bytes = (all.branches + all.branch_overflow) * page_size;
    let leaf_bytes = (all.leaves + all.leaf_overflow) * page_size;
    let (branch_used, leaf_used, inline_used) = (all.branch_used as u64, all.leaf_used as u64, all.inline_used as u64);
    vec![
        format!("Aggregate statistics for {buckets} buckets\n"),
        "Page count statistics".into(),
        format!("\tNumber of logical branch pages: {}", all.branches),
        format!("\tNumber of physical branch overflow pages: {}", all.branch_overflow),
        format!("\tNumber of logical leaf pages: {}", all.leaves),
        format!("\tNumber of physical leaf overflow pages: {}", all.leaf_overflow),
        "Tree statistics".into(),
        format!("\tNumber of keys/value pairs: {}", all.pairs),
        format!("\tNumber of levels in B+tree: {}", all.depth),
        "Page size utilization".into(),
        format!("\tBytes allocated for physical branch pages: {branch_bytes}"),
        format!("\tBytes actually used for branch data: {branch_used} ({}%)", percent(branch_used, branch_bytes)),
        format!("\tBytes allocated for physical leaf pages: {leaf_bytes}"),
        format!("\tBytes actually used for leaf data: {leaf_used} ({}%)", percent(leaf_used, leaf_bytes)),
        "Bucket statistics".into(),
        format!("\tTotal number of buckets: {}", all.buckets),
        format!("\tTotal number on inlined buckets: {} ({}%)", all.inline, percent(all.inline, all.buckets)),
        format!("\tBytes used for inlined buckets: {inline_used} ({}%)", percent(inline_used, leaf_used)),
    ]
}
