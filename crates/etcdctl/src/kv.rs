//! `get`, `put`, `del`, `compaction`: from words to requests. The same readers serve the lines of `txn`.

use crate::globals::Ctl;
use crate::output::{Answer, Format, write_out};
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use client::{Client, Error, prefix_end};
use cobra::{Call, Exit, Flag, Kind, Parsed};

use pb::range_request::{SortOrder, SortTarget};
use std::io::Read as _;
use std::time::Duration;

/// A value from standard input is read up to this size; a server takes far less.
const STDIN_BYTES_MAX: u64 = 1 << 30;
/// How long `del a b` lets its user think.
pub const RANGE_WARNING_WAIT: Duration = Duration::from_secs(2);

/// Flags of `get`.
pub static GET_FLAGS: &[Flag] = &[
    Flag::new("consistency", Kind::Text, "l", "l: linearizable, the newest state; s: serializable, this member's"),
    Flag::new("order", Kind::Text, "", "order of the results: ASCEND (unless told otherwise) or DESCEND"),
    Flag::new("sort-by", Kind::Text, "", "what the order is by: CREATE, KEY, MODIFY, VALUE or VERSION"),
    Flag::new("limit", Kind::Int, "0", "most results"),
    Flag::switch("prefix", "all keys that begin with the given one"),
    Flag::switch("from-key", "all keys from the given one on, byte by byte"),
    Flag::new("rev", Kind::Int, "0", "revision to read at"),
    Flag::switch("keys-only", "print no values"),
    Flag::switch("count-only", "ask for the count alone"),
    Flag::switch("print-value-only", "print no keys (format \"simple\" only)"),
    Flag::new("min-create-rev", Kind::Int, "0", "only keys created at this revision or later"),
    Flag::new("max-create-rev", Kind::Int, "0", "only keys created at this revision or earlier"),
    Flag::new("min-mod-rev", Kind::Int, "0", "only keys changed last at this revision or later"),
    Flag::new("max-mod-rev", Kind::Int, "0", "only keys changed last at this revision or earlier"),
    Flag::switch("stream", "let the server send the results in pieces"),
];
/// Flags of `put`.
pub static PUT_FLAGS: &[Flag] = &[
    Flag::new("lease", Kind::Text, "0", "id of the lease to attach the key to, in hexadecimal"),
    Flag::switch("prev-kv", "print what was there before"),
    Flag::switch("ignore-value", "keep the value, change the lease"),
    Flag::switch("ignore-lease", "keep the lease, change the value"),
];
/// Flags of `del`.
pub static DEL_FLAGS: &[Flag] = &[
    Flag::switch("prefix", "all keys that begin with the given one"),
    Flag::switch("prev-kv", "print what was deleted"),
    Flag::switch("from-key", "all keys from the given one on, byte by byte"),
    Flag::switch("range", "delete from the first key up to the second; silences the warning"),
];
/// Flags of `compaction`.
pub static COMPACTION_FLAGS: &[Flag] =
    &[Flag::switch("physical", "wait until old revisions are removed from the disk")];

const BOTH_RANGES: &str = "`--prefix` and `--from-key` cannot be set at the same time, choose one";
const RANGE_AND_END: &str = "too many arguments, only accept one argument when `--prefix` or `--from-key` is set";

/// An error of a request: code 1.
pub fn failed(e: Error) -> Exit {
    Exit::error(e)
}

/// Key and range end as the flags `--prefix` and `--from-key` have them.
fn key_range(given: &Parsed) -> Result<(Bytes, Bytes), Exit> {
    let word = |at: usize| given.args.get(at).map(|w| Bytes::copy_from_slice(w)).unwrap_or_default();
    let (prefix, from_key) = (given.is_true("prefix"), given.is_true("from-key"));
    if (prefix || from_key) && given.args.len() > 1 {
        return Err(Exit::arguments(RANGE_AND_END));
    }
    let key = word(0);
    match (prefix || from_key, key.is_empty()) {
        (true, true) => Ok((Bytes::from_static(&[0]), Bytes::from_static(&[0]))),
        (true, false) if prefix => Ok((key.clone(), prefix_end(&key))),
        (true, false) => Ok((key, Bytes::from_static(&[0]))),
        (false, _) => Ok((key, word(1))),
    }
}

/// Reads the words of a `get`.
///
/// # Errors
/// Wrong arguments (128) or a wrong choice (4).
pub fn range_request(given: &Parsed) -> Result<pb::RangeRequest, Exit> {
    if given.args.is_empty() {
        return Err(Exit::arguments("get command needs one argument as key and an optional argument as range_end"));
    }
    if given.is_true("prefix") && given.is_true("from-key") {
        return Err(Exit::arguments(BOTH_RANGES));
    }
    if given.is_true("keys-only") && given.is_true("count-only") {
        return Err(Exit::arguments("`--keys-only` and `--count-only` cannot be set at the same time, choose one"));
    }
    let serializable = match given.text("consistency") {
        "s" => true,
        "l" => false,
        other => return Err(Exit::feature(format!("unknown consistency flag {}", go::quote(other)))),
    };
    let (key, range_end) = key_range(given)?;
    let (order, target) = sort(given)?;
    revision_bounds(given)?;
    let positive = |name: &str| given.int(name).max(0);
    Ok(pb::RangeRequest {
        key,
        range_end,
        limit: given.int("limit"),
        revision: positive("rev"),
        sort_order: order as i32,
        sort_target: target as i32,
        serializable,
        keys_only: given.is_true("keys-only"),
        count_only: given.is_true("count-only"),
        min_mod_revision: positive("min-mod-rev"),
        max_mod_revision: positive("max-mod-rev"),
        min_create_revision: positive("min-create-rev"),
        max_create_revision: positive("max-create-rev"),
    })
}

fn sort(given: &Parsed) -> Result<(SortOrder, SortTarget), Exit> {
    let order = match given.text("order").to_uppercase().as_str() {
        "" => SortOrder::None,
        "ASCEND" => SortOrder::Ascend,
        "DESCEND" => SortOrder::Descend,
        _ => return Err(Exit::feature(format!("bad sort order {}", given.text("order")))),
    };
    let target = match given.text("sort-by").to_uppercase().as_str() {
        "" | "KEY" => SortTarget::Key,
        "CREATE" => SortTarget::Create,
        "MODIFY" => SortTarget::Mod,
        "VALUE" => SortTarget::Value,
        "VERSION" => SortTarget::Version,
        _ => return Err(Exit::feature(format!("bad sort target {}", given.text("sort-by")))),
    };
    match (order, target) {
        // That is the order of the store.
        (SortOrder::Ascend, SortTarget::Key) => Ok((SortOrder::None, SortTarget::Key)),
        sorted => Ok(sorted),
    }
}

fn revision_bounds(given: &Parsed) -> Result<(), Exit> {
    for (what, min, max) in [("Create", "min-create-rev", "max-create-rev"), ("Mod", "min-mod-rev", "max-mod-rev")] {
        let (min, max) = (given.int(min), given.int(max));
        if max > 0 && min > max {
            return Err(Exit::feature(format!("getMin{what}Rev(={min}) > getMax{what}Rev(={max})")));
        }
    }
    Ok(())
}

/// `get`.
pub fn get(call: &mut Call) -> Result<(), Exit> {
    let request = range_request(&call.given)?;
    let ctl = Ctl::open(call)?;
    let client = ctl.timed();
    let response = match call.given.is_true("stream") {
        false => ctl.block_on(client.range(request)),
        true => ctl.block_on(range_in_pieces(&client, request)),
    }
    .map_err(failed)?;
    let mut display = ctl.display;
    if call.given.is_true("count-only") && display.format != Format::Fields {
        return Err(Exit::arguments("--count-only is only for `--write-out=fields`"));
    }
    if call.given.is_true("print-value-only") {
        if display.format != Format::Simple {
            return Err(Exit::arguments("print-value-only is only for `--write-out=simple`"));
        }
        display.value_only = true;
    }
    display.show(Answer::Get(&response))
}

/// The pieces put together: header, count and more of the last one, which has them.
async fn range_in_pieces(client: &Client, request: pb::RangeRequest) -> Result<pb::RangeResponse, Error> {
    let mut stream = client.range_stream(request).await?;
    let mut whole = pb::RangeResponse::default();
    while let Some(piece) = stream.next().await? {
        let Some(mut piece) = piece.range_response else { continue };
        whole.kvs.append(&mut piece.kvs);
        whole.header = piece.header.or(whole.header);
        whole.more |= piece.more;
        whole.count = whole.count.max(piece.count);
    }
    Ok(whole)
}

/// Reads the words of a `put`; `stdin` gives the value where the words don't.
///
/// # Errors
/// Wrong arguments: 128.
pub fn put_request(given: &Parsed, stdin: impl FnOnce() -> Option<Vec<u8>>) -> Result<pb::PutRequest, Exit> {
    let Some(key) = given.args.first() else {
        return Err(Exit::arguments("put command needs 1 argument and input from stdin or 2 arguments"));
    };
    let ignore_value = given.is_true("ignore-value");
    if ignore_value && given.args.len() > 1 {
        return Err(Exit::arguments("put command needs only 1 argument when 'ignore-value' is set"));
    }
    let value = match given.args.get(1) {
        _ if ignore_value => Vec::new(),
        Some(value) => value.clone(),
        None => stdin()
            .filter(|value| !value.is_empty())
            .ok_or_else(|| Exit::arguments("put command needs 1 argument and input from stdin or 2 arguments"))?,
    };
    let lease = go::parse_int(given.text("lease"), 16)
        .map_err(|e| Exit::arguments(format!("bad lease ID ({e}), expecting ID in Hex")))?;
    Ok(pb::PutRequest {
        key: Bytes::copy_from_slice(key),
        value: value.into(),
        lease,
        prev_kv: given.is_true("prev-kv"),
        ignore_value,
        ignore_lease: given.is_true("ignore-lease"),
    })
}

fn read_stdin() -> Option<Vec<u8>> {
    let mut value = Vec::new();
    std::io::stdin().lock().take(STDIN_BYTES_MAX).read_to_end(&mut value).ok()?;
    Some(value)
}

/// `put`.
pub fn put(call: &mut Call) -> Result<(), Exit> {
    let request = put_request(&call.given, read_stdin)?;
    let ctl = Ctl::open(call)?;
    let response = ctl.block_on(ctl.timed().put(request)).map_err(failed)?;
    ctl.display.show(Answer::Put(&response))
}

/// Reads the words of a `del`. Warns of two keys without `--range`, and waits.
///
/// # Errors
/// Wrong arguments: 128.
pub fn delete_request(given: &Parsed, think: Duration) -> Result<pb::DeleteRangeRequest, Exit> {
    if given.args.is_empty() || given.args.len() > 2 {
        return Err(Exit::arguments("del command needs one argument as key and an optional argument as range_end"));
    }
    if given.is_true("prefix") && given.is_true("from-key") {
        return Err(Exit::arguments(BOTH_RANGES));
    }
    let (key, range_end) = key_range(given)?;
    if given.args.len() == 2 && !given.is_true("range") {
        let (from, to) = (go::quote(&key), go::quote(&range_end));
        eprintln!(
            "Warning: deleting all keys from {from} up to {to}, not just these two. Give --range to say that you mean \
             that and to get rid of the wait of 2 seconds"
        );
        std::thread::sleep(think);
    }
    Ok(pb::DeleteRangeRequest { key, range_end, prev_kv: given.is_true("prev-kv") })
}

/// `del`.
pub fn del(call: &mut Call) -> Result<(), Exit> {
    let request = delete_request(&call.given, RANGE_WARNING_WAIT)?;
    let ctl = Ctl::open(call)?;
    let response = ctl.block_on(ctl.timed().delete_range(request)).map_err(failed)?;
    ctl.display.show(Answer::Del(&response))
}

/// `compaction`.
pub fn compaction(call: &mut Call) -> Result<(), Exit> {
    if call.args().len() != 1 {
        return Err(Exit::arguments("compaction command needs 1 argument"));
    }
    let revision = go::parse_int(&call.arg(0), 10).map_err(Exit::error)?;
    let physical = call.given.is_true("physical");
    let ctl = Ctl::open(call)?;
    ctl.block_on(ctl.timed().compact(pb::CompactionRequest { revision, physical })).map_err(failed)?;
    write_out(format!("compacted revision {revision}\n").as_bytes());
    Ok(())
}
