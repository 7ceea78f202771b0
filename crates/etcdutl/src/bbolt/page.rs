//! `pages`, `page`, `page-item`, `dump`.

use super::{number, opened, page_ids, print, shown, source};
use crate::out::Out;
use crate::pages::{Bucket, Kind, Meta, Page, Raw};
use cobra::{Call, Exit};
use std::collections::BTreeSet;

const SEPARATOR: &str = "===============================================";

pub fn pages(call: &mut Call) -> Result<(), Exit> {
    let raw = opened(call)?;
    let free = free(&raw).map_err(Exit::error)?;
    let mut out = Out::new();
    out.line("ID       TYPE       ITEMS  OVRFLW")?;
    out.line("======== ========== ====== ======")?;
    let mut id = 0;
    while id < raw.walk_end() {
        if free.contains(&id) {
            out.line(format!("{id:<8} {:<10} {:<6} {:<6}", "free", "", ""))?;
            id += 1;
            continue;
        }
        let page = raw.page(id).map_err(|why| Exit::error(format!("page error: id={id}, err={why}")))?;
        let overflow = if page.overflow() > 0 { page.overflow().to_string() } else { String::new() };
        let kind = page.kind().to_string();
        out.line(format!("{id:<8} {kind:<10} {:<6} {overflow:<6}", page.count()))?;
        id += 1 + page.overflow();
    }
    out.done()
}

/// Free pages: those of the stored list, else those that nothing refers to.
fn free(raw: &Raw) -> Result<BTreeSet<u64>, String> {
    let (_, meta) = raw.newest().ok_or("invalid database")?;
    if meta.has_freelist() {
        return Ok(raw.page(meta.freelist)?.freelist().1.collect());
    }
    let used = raw.used()?;
    Ok((2..raw.walk_end()).filter(|id| !used.contains(id)).collect())
}

pub fn page(call: &mut Call) -> Result<(), Exit> {
    let ids = page_ids(call, 1)?;
    let all = call.given.is_true("all");
    match (all, ids.is_empty()) {
        (false, true) => return Err(Exit::error("page id required")),
        (true, false) => return Err(Exit::error("invalid args: either use '--all' or 'pageid...'")),
        _ => {}
    }
    let raw = Raw::unlocked(&source(call)?)?;
    let format = call.given.text("format-value");
    let mut out = Out::new();
    let mut waiting = ids.into_iter();
    let mut next = if all { Some(0) } else { waiting.next() };
    let mut first = true;
    while let Some(id) = next {
        if !first {
            out.line(SEPARATOR)?;
        }
        first = false;
        let overflow = match raw.page(id) {
            // Where a page can't be shown whole, its overflow is not believed either.
            Ok(page) => match contents(&page, format, &mut out)? {
                true => page.overflow(),
                false => 0,
            },
            Err(why) => {
                out.line(format!("Printing page {id} failed: {why}. Continuing..."))?;
                0
            }
        };
        next = if all { Some(id + 1 + overflow).filter(|id| *id < raw.walk_end()) } else { waiting.next() };
    }
    out.done()
}

/// All of a page, as far as it can be read. Answers whether it was all.
fn contents(page: &Page, format: &str, out: &mut Out) -> Result<bool, Exit> {
    out.line(format!("Page ID:    {}", page.id()))?;
    out.line(format!("Page Type:  {}", page.kind()))?;
    out.line(format!("Total Size: {} bytes", page.bytes.len()))?;
    out.line(format!("Overflow pages: {}", page.overflow()))?;
    let body = match page.kind() {
        Kind::Meta => match Meta::of_page(&page.bytes) {
            Some(meta) => of_meta(&meta).into_iter().map(Ok).collect(),
            None => vec![Err("EOF".into())],
        },
        Kind::Leaf | Kind::Branch => elements(page, format),
        Kind::Freelist => of_freelist(page).into_iter().map(Ok).collect(),
        Kind::Unknown(_) => Vec::new(),
    };
    for line in body {
        match line {
            Ok(line) => out.line(line)?,
            Err(why) => {
                out.line(format!("Printing page {} failed: {why}. Continuing...", page.id()))?;
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn of_meta(meta: &Meta) -> Vec<Vec<u8>> {
    let lines = [
        format!("Version:    {}", meta.version),
        format!("Page Size:  {} bytes", meta.page_size),
        format!("Flags:      {:08x}", meta.flags),
        format!("Root:       <pgid={}>", meta.root),
        format!("Freelist:   <pgid={}>", meta.freelist),
        format!("HWM:        <pgid={}>", meta.end),
        format!("Txn ID:     {}", meta.txid),
        format!("Checksum:   {:016x}", meta.sum),
        String::new(),
    ];
    lines.map(String::into_bytes).to_vec()
}

fn elements(page: &Page, format: &str) -> Vec<Result<Vec<u8>, String>> {
    let head = [format!("Item Count: {}", page.count()), String::new()].map(|line| Ok(line.into_bytes()));
    let rows = (0..page.count()).map(|index| element(page, index, format));
    head.into_iter().chain(rows).chain([Ok(Vec::new())]).collect()
}

fn element(page: &Page, index: usize, format: &str) -> Result<Vec<u8>, String> {
    let element = page.element(index)?;
    let key = if go::is_shown(element.key) { go::quote(element.key) } else { super::hex(element.key) };
    let value = match page.kind() {
        Kind::Branch => format!("<pgid={}>", element.child).into_bytes(),
        _ if element.is_bucket => {
            let bucket = Bucket::of_value(element.value)?;
            format!("<pgid={},seq={}>", bucket.root_page(), bucket.sequence).into_bytes()
        }
        _ => shown(element.value, format)?,
    };
    Ok([key.as_bytes(), b": ", &value].concat())
}

fn of_freelist(page: &Page) -> Vec<Vec<u8>> {
    let (count, ids) = page.freelist();
    let head = [format!("Item Count: {count}"), format!("Overflow: {}", page.overflow()), String::new()];
    head.into_iter().chain(ids.map(|id| id.to_string())).chain([String::new()]).map(String::into_bytes).collect()
}

pub fn item(call: &mut Call) -> Result<(), Exit> {
    let (id, index) = (number(&call.arg(1))?, number(&call.arg(2))?);
    let (key_only, value_only) = (call.given.is_true("key-only"), call.given.is_true("value-only"));
    if key_only && value_only {
        return Err(Exit::error("the --key-only or --value-only flag may be set, but not both"));
    }
    let page = Raw::unlocked(&source(call)?)?.page(id).map_err(Exit::error)?;
    let count = page.count();
    let Some(index) = usize::try_from(index).ok().filter(|index| *index < count) else {
        let text = format!("leafPageElement: expected item index less than {count}, but got {index}");
        return Err(Exit::error(text));
    };
    if page.kind() != Kind::Leaf {
        let text = format!("leafPageElement: expected page type of 'leaf', but got '{}'", page.kind());
        return Err(Exit::error(text));
    }
    let element = page.element(index).map_err(Exit::error)?;
    let wanted = [(!value_only).then_some(element.key), (!key_only).then_some(element.value)];
    let format = call.given.text("format");
    let lines: Result<Vec<_>, String> = wanted.into_iter().flatten().map(|bytes| shown(bytes, format)).collect();
    print(lines.map_err(Exit::error)?)
}

pub fn dump(call: &mut Call) -> Result<(), Exit> {
    let ids = page_ids(call, 1)?;
    if ids.is_empty() {
        return Err(Exit::error("page id required"));
    }
    let raw = Raw::unlocked(&source(call)?)?;
    let mut out = Out::new();
    for (n, id) in ids.into_iter().enumerate() {
        if n > 0 {
            out.line(SEPARATOR)?;
        }
        let bytes = raw.bytes_of(id).map_err(Exit::error)?;
        hex_lines(&bytes, id * raw.page_size).into_iter().try_for_each(|line| out.line(line))?;
        out.line("")?;
    }
    out.done()
}

/// Sixteen bytes a line; a line that is like the one before shows as a star, but for the last.
fn hex_lines(bytes: &[u8], start: u64) -> Vec<String> {
    const WIDTH: usize = 16;
    let mut lines = Vec::new();
    let mut starred = false;
    let pieces: Vec<&[u8]> = bytes.chunks(WIDTH).collect();
    for (n, piece) in pieces.iter().enumerate() {
        let at = start + (n * WIDTH) as u64;
        if n > 0 && pieces[n - 1] == *piece && n + 1 < pieces.len() {
            if !starred {
                lines.push(format!("{at:07x} *"));
            }
            starred = true;
            continue;
        }
        starred = false;
        let pairs: Vec<String> = piece.chunks(2).map(super::hex).collect();
        lines.push(format!("{at:07x} {}", pairs.join(" ")));
    }
    lines
}
