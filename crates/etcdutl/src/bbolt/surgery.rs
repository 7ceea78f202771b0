//! `surgery`: writes a copy of a damaged file with one thing changed in it.

use super::{copy, number, print, source};
use crate::pages::{Kind as PageKind, Meta, NO_FREELIST, Page, Raw};
use cobra::{Call, Command, Exit, Flag, Kind};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

const OUTPUT: Flag =
    Flag::new("output", Kind::Text, "", "file to write; the source stays as it is (required)").required();
const PAGE: Flag = Flag::new("pageId", Kind::Uint, "0", "page (required)").required();

/// `surgery …`.
pub const COMMAND: Command = Command {
    usage: "surgery",
    short: "Writes a copy of a damaged file with one thing changed",
    commands: &[
        Command {
            usage: "revert-meta-page <bbolt-file>",
            short: "Goes back to the state before the last transaction",
            flags: &[OUTPUT],
            exactly: Some(1),
            run: Some(revert_meta_page),
            ..Command::EMPTY
        },
        Command {
            usage: "copy-page <bbolt-file>",
            short: "Copies a page over another",
            flags: &[
                OUTPUT,
                Flag::new("from-page", Kind::Uint, "0", "page to copy (required)").required(),
                Flag::new("to-page", Kind::Uint, "0", "page to write over (required)").required(),
            ],
            exactly: Some(1),
            run: Some(copy_page),
            ..Command::EMPTY
        },
        Command {
            usage: "clear-page <bbolt-file>",
            short: "Takes all elements out of a branch or a leaf",
            flags: &[OUTPUT, PAGE],
            exactly: Some(1),
            run: Some(clear_page),
            ..Command::EMPTY
        },
        Command {
            usage: "clear-page-elements <bbolt-file>",
            short: "Takes some elements out of a branch or a leaf",
            flags: &[
                OUTPUT,
                PAGE,
                Flag::new("from-index", Kind::Int, "0", "first element to take out, from 0 on (required)").required(),
                Flag::new("to-index", Kind::Int, "0", "first element to leave behind it; -1: none (required)")
                    .required(),
            ],
            exactly: Some(1),
            run: Some(clear_page_elements),
            ..Command::EMPTY
        },
        Command {
            usage: "freelist",
            short: "The list of free pages",
            commands: &[
                Command {
                    usage: "abandon <bbolt-file>",
                    short: "Forgets the list: the next open counts free pages anew",
                    flags: &[OUTPUT],
                    exactly: Some(1),
                    run: Some(abandon),
                    ..Command::EMPTY
                },
                Command {
                    usage: "rebuild <bbolt-file>",
                    short: "Counts free pages and stores the list",
                    flags: &[OUTPUT],
                    exactly: Some(1),
                    run: Some(rebuild),
                    ..Command::EMPTY
                },
            ],
            ..Command::EMPTY
        },
        Command {
            usage: "meta",
            short: "The two meta pages",
            commands: &[
                Command {
                    usage: "validate <bbolt-file>",
                    short: "Says whether each of them is sound",
                    exactly: Some(1),
                    run: Some(validate),
                    ..Command::EMPTY
                },
                Command {
                    usage: "update <bbolt-file>",
                    short: "Writes fields, and all that every meta has",
                    flags: &[
                        OUTPUT,
                        Flag::new("fields", Kind::List, "", "name:value of pageSize, root, freelist and pgid"),
                        Flag::new("meta-page", Kind::Uint, "0", "which of them: 0 or 1"),
                    ],
                    exactly: Some(1),
                    run: Some(update),
                    ..Command::EMPTY
                },
            ],
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

/// A copy that is written to, and what it is a copy of.
struct Patient {
    source: PathBuf,
    file: File,
}

impl Patient {
    /// Copies the file of a command; `name` stands before what goes wrong.
    fn new(call: &Call, name: &str) -> Result<Patient, Exit> {
        let output = call.given.text("output");
        if output.is_empty() {
            let text = "output database path wasn't given, specify output database file path with --output option";
            return Err(Exit::error(text));
        }
        let source = source(call)?;
        let file =
            copy(&source, Path::new(output)).map_err(|why| Exit::error(format!("[{name}] copy file failed: {why}")))?;
        Ok(Patient { source, file })
    }

    fn pages(&self) -> Result<Raw, String> {
        Raw::unlocked(&self.source).map_err(|exit| exit.error.unwrap_or_default())
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), String> {
        self.file.write_all_at(bytes, at).map_err(|e| format!("write the copy: {}", go::os_text(&e)))
    }

    fn write_page(&self, raw: &Raw, page: &Page) -> Result<(), String> {
        self.write(page.id() * raw.page_size, &page.bytes)
    }

    fn settle(&self) -> Result<(), String> {
        self.file.sync_all().map_err(|e| format!("sync the copy: {}", go::os_text(&e)))
    }

    /// Writes a page over another.
    fn over(&self, raw: &Raw, from: u64, to: u64) -> Result<(), String> {
        let mut page = raw.page(from)?;
        page.set_id(to);
        self.write_page(raw, &page)?;
        self.settle()
    }
}

fn failed(name: &str) -> impl Fn(String) -> Exit {
    move |why| Exit::error(format!("{name} command failed: {why}"))
}

fn revert_meta_page(call: &mut Call) -> Result<(), Exit> {
    let patient = Patient::new(call, "revert-meta-page")?;
    let revert = || {
        let raw = patient.pages()?;
        let newer = u64::from(raw.meta(0)?.txid < raw.meta(1)?.txid);
        patient.over(&raw, 1 - newer, newer)
    };
    revert().map_err(failed("revert-meta-page"))?;
    print(["The meta page is reverted."])
}

fn copy_page(call: &mut Call) -> Result<(), Exit> {
    let (from, to) = (call.given.uint("from-page"), call.given.uint("to-page"));
    if from == to {
        return Err(Exit::error(format!("'--from-page' and '--to-page' have the same value: {from}")));
    }
    let patient = Patient::new(call, "copy-page")?;
    let has_list = || {
        let raw = patient.pages()?;
        patient.over(&raw, from, to)?;
        Ok(newer_meta(&raw)?.has_freelist())
    };
    let mut lines = Vec::new();
    if has_list().map_err(failed("copy-page"))? {
        lines.push("WARNING: the free list might have changed.".to_owned());
        lines.push(CONSIDER.to_owned());
    }
    lines.push(format!("The page {from} was successfully copied to page {to}"));
    print(lines)
}

const CONSIDER: &str = "Please consider executing `./bbolt surgery freelist abandon ...`";

/// Of both metas the one with the higher transaction, sound or not.
fn newer_meta(raw: &Raw) -> Result<Meta, String> {
    let (first, second) = (raw.meta(0)?, raw.meta(1)?);
    Ok(if first.txid > second.txid { first } else { second })
}

fn clear_page(call: &mut Call) -> Result<(), Exit> {
    let id = cleared_page(call)?;
    clear(call, "clear-page", "clear-page", id, 0, -1)?;
    print([format!("The page ({id}) was cleared")])
}

fn clear_page_elements(call: &mut Call) -> Result<(), Exit> {
    let id = cleared_page(call)?;
    let (from, to) = (call.given.int("from-index"), call.given.int("to-index"));
    clear(call, "clear-page-element", "clear-page-elements", id, from, to)?;
    print([format!("All elements in [{from}, {to}) in page {id} were cleared")])
}

fn cleared_page(call: &Call) -> Result<u64, Exit> {
    match call.given.uint("pageId") {
        id @ (0 | 1) => Err(Exit::error(format!("the pageId must be at least 2, but got {id}"))),
        id => Ok(id),
    }
}

fn clear(call: &Call, copied: &str, name: &str, id: u64, from: i64, to: i64) -> Result<(), Exit> {
    let patient = Patient::new(call, copied)?;
    let clear = || {
        let raw = patient.pages()?;
        let mut page = raw.page(id).map_err(|why| format!("ReadPage failed: {why}"))?;
        let (was, is_branch) = (page.overflow(), page.kind() == PageKind::Branch);
        let Some(kept) = kept(&page, from, to)? else { return Ok(false) };
        shrink(&mut page, &kept, raw.page_size)?;
        patient.write_page(&raw, &page).map_err(|why| format!("WritePage failed: {why}"))?;
        patient.settle()?;
        Ok(was != page.overflow() || is_branch)
    };
    if clear().map_err(failed(name))? {
        print([
            "WARNING: The clearing has abandoned some pages that are not yet referenced from free list.",
            CONSIDER,
        ])?;
    }
    Ok(())
}

/// The elements that stay when those in `[from, to)` go; `None` for a page that has none.
fn kept(page: &Page, from: i64, to: i64) -> Result<Option<Vec<usize>>, String> {
    if !matches!(page.kind(), PageKind::Leaf | PageKind::Branch) {
        return Err(format!("can't clear elements in \"{}\" page", page.kind()));
    }
    let count = page.count() as i64;
    if count == 0 {
        return Ok(None);
    }
    if !(0..count).contains(&from) {
        return Err(format!("the start index ({from}) is out of range [0, {count})"));
    }
    if to != -1 && !(0..=count).contains(&to) {
        return Err(format!("the end index ({to}) is out of range [0, {count}]"));
    }
    if to != -1 && from > to {
        return Err(format!("the start index ({from}) is bigger than the end index ({to})"));
    }
    if from == to {
        return Err(format!("invalid: the start index ({from}) is equal to the end index ({to})"));
    }
    let end = if to == -1 { count } else { to };
    Ok(Some((0..count).filter(|n| !(from..end).contains(n)).map(|n| n as usize).collect()))
}

const HEADER: usize = 16;
const ELEMENT: usize = 16;

/// Leaves only these elements in the page, one behind the other, and only the pages that they need.
fn shrink(page: &mut Page, kept: &[usize], page_size: u64) -> Result<(), String> {
    let old = page.clone();
    let mut data = HEADER + ELEMENT * kept.len();
    for (to, from) in kept.iter().enumerate() {
        let element = old.element(*from)?;
        let (at, key_len, len) = (HEADER + ELEMENT * to, element.key.len(), element.key.len() + element.value.len());
        let head = &old.bytes[HEADER + ELEMENT * from..][..ELEMENT];
        page.bytes[at..at + ELEMENT].copy_from_slice(head);
        let pos = if old.kind() == PageKind::Leaf { at + 4 } else { at };
        // Both lie in one page with its overflow: less than 4 GiB.
        page.bytes[pos..pos + 4].copy_from_slice(&((data - at) as u32).to_le_bytes());
        let overlaps = "elements lie over one another";
        page.bytes.get_mut(data..data + key_len).ok_or(overlaps)?.copy_from_slice(element.key);
        page.bytes.get_mut(data + key_len..data + len).ok_or(overlaps)?.copy_from_slice(element.value);
        data += len;
    }
    page.set_count(u16::try_from(kept.len()).map_err(|e| e.to_string())?);
    let pages = (data as u64).div_ceil(page_size);
    page.set_overflow(u32::try_from(pages - 1).map_err(|e| e.to_string())?);
    page.bytes.truncate(usize::try_from(pages * page_size).map_err(|e| e.to_string())?);
    Ok(())
}

fn abandon(call: &mut Call) -> Result<(), Exit> {
    let patient = Patient::new(call, "freelist abandon")?;
    let abandon = || {
        let raw = patient.pages()?;
        for which in 0..2 {
            let failed = |what: &str, why: String| {
                format!("clearFreelist on meta page {which} failed: {what} {which} failed: {why}")
            };
            let mut page = raw.page(which).map_err(|why| failed("ReadPage", why))?;
            let mut meta = Meta::of_page(&page.bytes).ok_or("EOF")?;
            meta.freelist = NO_FREELIST;
            meta.sum = meta.right_sum();
            meta.put(&mut page.bytes);
            patient.write_page(&raw, &page).map_err(|why| failed("WritePage", why))?;
        }
        patient.settle()
    };
    abandon().map_err(failed("abandon-freelist"))?;
    print([
        "The freelist was abandoned in both meta pages.",
        "It may cause some delay on next startup because bbolt needs to scan the whole db to reconstruct the free list.",
    ])
}

fn rebuild(call: &mut Call) -> Result<(), Exit> {
    let path = source(call)?;
    let failed = |why: String| Exit::error(format!("[freelist rebuild] {why}"));
    let sound = Raw::locked(&path, crate::file::lock_timeout(call))?;
    if newer_meta(&sound).map_err(failed)?.has_freelist() {
        return Err(Exit::error(
            "the file already has freelist, please consider to abandon the freelist to forcibly rebuild it",
        ));
    }
    let (which, meta) = sound.newest().ok_or_else(|| failed("no meta page is sound".into()))?;
    let used = sound.used().map_err(failed)?;
    if sound.walk_end() < meta.end {
        let text =
            format!("the meta's high-water mark, page {}, lies behind the file's end: see `surgery meta`", meta.end);
        return Err(Exit::error(text));
    }
    let free: Vec<u64> = (2..meta.end).filter(|id| !used.contains(id)).collect();
    let patient = Patient::new(call, "freelist rebuild")?;
    store_list(&patient, &meta, which, &free).map_err(failed)?;
    print(["The freelist was successfully rebuilt."])
}

/// Writes the list behind the last page, and then a new meta over the older one.
fn store_list(patient: &Patient, meta: &Meta, which: u64, free: &[u64]) -> Result<(), String> {
    const MANY: usize = 0xffff;
    let size = u64::from(meta.page_size);
    let count = u64::from(free.len() >= MANY).checked_mul(free.len() as u64).filter(|count| *count > 0);
    let numbers: Vec<u8> = count.iter().chain(free).flat_map(|id| id.to_le_bytes()).collect();
    let pages = ((HEADER + numbers.len()) as u64).div_ceil(size);
    let mut list = vec![0; HEADER];
    list[..8].copy_from_slice(&meta.end.to_le_bytes());
    list[8] = 0x10;
    list[10..12].copy_from_slice(&(free.len().min(MANY) as u16).to_le_bytes());
    list[12..16].copy_from_slice(&u32::try_from(pages - 1).map_err(|e| e.to_string())?.to_le_bytes());
    list.extend(numbers);
    list.resize(usize::try_from(pages * size).map_err(|e| e.to_string())?, 0);
    patient.write(meta.end * size, &list)?;
    patient.settle()?;
    let other = 1 - which;
    let next = Meta { freelist: meta.end, end: meta.end + pages, txid: meta.txid + 1, ..*meta }.mended();
    let mut page = vec![0; HEADER + 64];
    page[..8].copy_from_slice(&other.to_le_bytes());
    page[8] = 4;
    next.put(&mut page);
    patient.write(other * size, &page)?;
    patient.settle()
}

fn validate(call: &mut Call) -> Result<(), Exit> {
    let raw = Raw::bare(&source(call)?)?;
    let mut lines = Vec::new();
    for which in 0..2 {
        let meta = raw.meta(which).map_err(|why| Exit::error(format!("read meta page {which} failed: {why}")))?;
        lines.push(match meta.fault() {
            Some(why) => format!("WARNING: The meta page {which} isn't valid: {why}!"),
            None => format!("The meta page {which} is valid!"),
        });
    }
    print(lines)
}

/// `name:value` of the fields to write.
fn fields(call: &Call) -> Result<Vec<(String, u64)>, Exit> {
    let field = |field: &String| {
        let parts: Vec<&str> = field.split(':').collect();
        let [name, value] = parts.as_slice() else {
            return Err(Exit::error(format!("invalid key-value pair: {field}")));
        };
        if !["pageSize", "root", "freelist", "pgid"].contains(name) {
            return Err(Exit::error(format!("field {} isn't allowed to be updated", go::quote(name))));
        }
        let bad = || Exit::error(format!("invalid value {} for field {}", go::quote(value), go::quote(name)));
        let number = number(value).map_err(|_| bad())?;
        if *name == "pageSize" && u32::try_from(number).is_err() {
            return Err(bad());
        }
        Ok(((*name).to_owned(), number))
    };
    call.given.list("fields").iter().map(field).collect()
}

fn update(call: &mut Call) -> Result<(), Exit> {
    let which = call.given.uint("meta-page");
    if which > 1 {
        return Err(Exit::error(format!("invalid meta page id: {which}")));
    }
    let fields = fields(call)?;
    let patient = Patient::new(call, "meta update")?;
    let raw = Raw::bare(&patient.source)?;
    let first = raw.meta(0).map_err(|why| Exit::error(format!("read the first meta page failed: {why}")))?;
    let old = raw.meta(which).map_err(|why| Exit::error(format!("read meta page {which} failed: {why}")))?;
    let mut meta = old;
    for (name, value) in &fields {
        match name.as_str() {
            "pageSize" => meta.page_size = *value as u32,
            "root" => (meta.root, meta.sequence) = (*value, 0),
            "freelist" => meta.freelist = *value,
            _ => meta.end = *value,
        }
    }
    meta = meta.mended();
    let changed = !fields.is_empty() || meta != old;
    let mut lines = Vec::new();
    if changed {
        let at = which * u64::from(first.page_size);
        let mut page = vec![0; HEADER + 64];
        meta.put(&mut page);
        let written = patient.write(at + HEADER as u64, &page[HEADER..]).and_then(|()| patient.settle());
        written.map_err(|why| Exit::error(format!("[meta update] write meta page {which} failed: {why}")))?;
    }
    if which == 1 && first.page_size != meta.page_size {
        lines.push(format!(
            "WARNING: The page size ({}) in the first meta page doesn't match the second meta page ({})",
            first.page_size, meta.page_size
        ));
    }
    lines.push(match changed {
        true => format!("The meta page {which} has been updated!"),
        false => "Nothing changed!".into(),
    });
    print(lines)
}
