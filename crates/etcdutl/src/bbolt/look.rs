//! `info`, `buckets`, `check`, `keys`, `get`, `inspect`, `version`.

use super::{opened, print, shown, text_or_hex};
use crate::out::Out;
use crate::pages::{self, Raw, Root};
use cobra::{Call, Exit};

pub fn version(_: &mut Call) -> Result<(), Exit> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let release = env!("CARGO_PKG_VERSION");
    print([format!("bbolt Version: oxetcd {release}"), format!("OS/Arch: {}/{arch}", std::env::consts::OS)])
}

pub fn info(call: &mut Call) -> Result<(), Exit> {
    print([format!("Page Size: {}", opened(call)?.page_size)])
}

pub fn buckets(call: &mut Call) -> Result<(), Exit> {
    let raw = opened(call)?;
    let outermost = raw.outermost().map_err(Exit::error)?;
    let buckets = raw.buckets_in(&outermost.root).map_err(Exit::error)?;
    print(buckets.into_iter().map(|(name, _)| name))
}

pub fn check(call: &mut Call) -> Result<(), Exit> {
    let raw = opened(call)?;
    let from = Some(call.given.uint("from-page")).filter(|page| *page != 0);
    let faults = pages::check(&raw, from, text_or_hex).map_err(Exit::error)?;
    if faults.is_empty() {
        return print(["OK"]);
    }
    let count = format!("{} errors found", faults.len());
    print(faults.into_iter().chain([count]))?;
    Err(Exit::error("invalid value"))
}

pub fn keys(call: &mut Call) -> Result<(), Exit> {
    let raw = opened(call)?;
    let bucket = raw.bucket(&call.args()[1..]).map_err(Exit::error)?;
    let format = call.given.text("format");
    let mut out = Out::new();
    let mut stopped = None;
    raw.each(&bucket.root, &mut |element| {
        let key = shown(element.key, format)?;
        out.line(key).map_err(|exit| {
            stopped = Some(exit);
            String::new()
        })
    })
    .map_err(|why| stopped.unwrap_or(Exit::error(why)))?;
    out.done()
}

pub fn get(call: &mut Call) -> Result<(), Exit> {
    let Some((key, [_, buckets @ ..])) = call.args().split_last() else {
        return Err(Exit::error("path required"));
    };
    let key = match call.given.text("parse-format") {
        "ascii-encoded" => key.clone(),
        "hex" => from_hex(key)?,
        other => return Err(Exit::error(format!("parseBytes: unsupported format: {other}"))),
    };
    if key.is_empty() {
        return Err(Exit::error("key is required: key required"));
    }
    let raw = opened(call)?;
    let bucket = raw.bucket(buckets).map_err(Exit::error)?;
    let mut found = None;
    raw.each(&bucket.root, &mut |element| {
        if element.key == key.as_slice() && !element.is_bucket {
            found = Some(element.value.to_vec());
        }
        Ok(())
    })
    .map_err(Exit::error)?;
    let Some(value) = found else {
        let (quoted, hex) = (go::quote(&key), super::hex(&key));
        return Err(Exit::error(format!("Error key not found for key: {quoted} hex: \"{hex}\"")));
    };
    print([shown(&value, call.given.text("format")).map_err(Exit::error)?])
}

fn from_hex(digits: &[u8]) -> Result<Vec<u8>, Exit> {
    let digit = |byte: u8| match (byte as char).to_digit(16) {
        Some(digit) => Ok(digit as u8),
        None => Err(Exit::error(format!("encoding/hex: invalid byte: U+{byte:04X} {:?}", byte as char))),
    };
    if !digits.len().is_multiple_of(2) {
        return Err(Exit::error("encoding/hex: odd length hex string"));
    }
    digits.chunks_exact(2).map(|pair| Ok(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

pub fn inspect(call: &mut Call) -> Result<(), Exit> {
    let raw = opened(call)?;
    let outermost = raw.outermost().map_err(Exit::error)?;
    let text = structure(&raw, b"root", &outermost.root, 0).map_err(Exit::error)?;
    print([text])
}

/// Buckets in one another that are shown.
const DEPTH_MAX: usize = 64;

/// A bucket as indented JSON.
fn structure(raw: &Raw, name: &[u8], root: &Root, depth: usize) -> Result<String, String> {
    if depth > DEPTH_MAX {
        return Err("buckets stand in one another without end".into());
    }
    let indent = "    ".repeat(2 * depth);
    let mut pairs = 0;
    raw.each(root, &mut |element| {
        pairs += u64::from(!element.is_bucket);
        Ok(())
    })?;
    let name = go::json_string(&String::from_utf8_lossy(name));
    let mut text = format!("{{\n{indent}    \"name\": {name},\n{indent}    \"keyN\": {pairs}");
    let inner: Result<Vec<_>, String> =
        raw.buckets_in(root)?.iter().map(|(name, bucket)| structure(raw, name, &bucket.root, depth + 1)).collect();
    let inner = inner?;
    if !inner.is_empty() {
        let inner = inner.join(&format!(",\n{indent}        "));
        text += &format!(",\n{indent}    \"buckets\": [\n{indent}        {inner}\n{indent}    ]");
    }
    Ok(text + &format!("\n{indent}}}"))
}
