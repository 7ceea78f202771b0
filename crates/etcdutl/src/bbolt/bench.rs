//! `bench`: how fast the page store writes and reads keys, in a file of its own.

use super::print;
use crate::file;
use bolt::{Db, Fill, Options, View};
use bytes::Bytes;
use cobra::{Call, Exit, Flag, Kind, Parsed};
use disk::RealDisk;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const BUCKET: &[u8] = b"bench";
/// Reads go on for so long at least.
const READING: Duration = Duration::from_secs(1);
/// Keys begin with a number of so many bytes.
const NUMBER_BYTES: usize = 4;

/// Flags of `bench`, bbolt's.
pub const FLAGS: &[Flag] = &[
    Flag::new("profile-mode", Kind::Text, "rw", "has no effect: no profiles are written"),
    Flag::new("write-mode", Kind::Text, "seq", "order of written keys: seq or rnd"),
    Flag::new("read-mode", Kind::Text, "seq", "order of read keys: seq or rnd"),
    Flag::new("count", Kind::Int, "1000", "keys to write"),
    Flag::new("batch-size", Kind::Int, "0", "keys in one transaction (default: all)"),
    Flag::new("key-size", Kind::Int, "8", "bytes of a key"),
    Flag::new("value-size", Kind::Int, "32", "bytes of a value"),
    Flag::new("cpuprofile", Kind::Text, "", "refused: run the command under perf"),
    Flag::new("memprofile", Kind::Text, "", "refused: run the command under heaptrack"),
    Flag::new("blockprofile", Kind::Text, "", "refused: run the command under perf"),
    Flag::new("fill-percent", Kind::Float, "0.5", "how full pages become that are split: 0.5 or 0.9"),
    Flag::switch("no-sync", "do not wait for the disk"),
    Flag::switch("work", "keep the file and print its name"),
    Flag::new("path", Kind::Text, "", "file to make (default: a temporary one)"),
    Flag::switch("gobench-output", "print as Go's benchmarks do"),
    Flag::new("page-size", Kind::Int, "4096", "bytes of a page"),
    Flag::new("initial-mmap-size", Kind::Int, "0", "has no effect: files are not mapped"),
];

/// Which keys come after one another.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    Ascending,
    Random,
}

struct Plan {
    writes: Order,
    reads: Order,
    count: u64,
    batch: u64,
    key_bytes: usize,
    value_bytes: usize,
    fill: Fill,
    page_bytes: u32,
}

/// What was measured.
struct Measured {
    operations: u64,
    took: Duration,
}

/// `bench`.
pub fn run(call: &mut Call) -> Result<(), Exit> {
    let plan = Plan::from_flags(&call.given)?;
    let keeps = call.given.is_true("work");
    let path = place(&call.given)?;
    if keeps {
        eprintln!("work: {}", path.display());
    }
    let outcome = measure(&plan, &path, call.given.is_true("no-sync"));
    if !keeps {
        // It is of no use to anybody; where it can't be removed, the measurement still counts.
        let _ = std::fs::remove_file(&path);
    }
    let (writes, reads) = outcome.map_err(file::failed)?;
    match call.given.is_true("gobench-output") {
        true => print([writes.as_go("BenchmarkWrite"), reads.as_go("BenchmarkRead"), String::new()]),
        false => print([writes.shown("Write"), reads.shown("Read"), String::new()]),
    }
}

/// The file, which must not be there: nobody's database is written over.
fn place(given: &Parsed) -> Result<PathBuf, Exit> {
    let path = match given.text("path") {
        "" => std::env::temp_dir().join(format!("bolt-bench-{}", std::process::id())),
        path => PathBuf::from(path),
    };
    match path.exists() {
        true => Err(Exit::error(format!("{} exists: give the name of a new file", path.display()))),
        false => Ok(path),
    }
}

impl Plan {
    fn from_flags(given: &Parsed) -> Result<Plan, Exit> {
        let refused = |text: String| Err(Exit::error(text));
        if let Some(flag) =
            ["cpuprofile", "memprofile", "blockprofile"].iter().find(|flag| !given.text(flag).is_empty())
        {
            return refused(format!("--{flag}: no profiles are written here: run the command under perf or heaptrack"));
        }
        let number = |flag: &str, least: i64| match given.int(flag) {
            n if n < least => Err(Exit::error(format!("--{flag} is {n}: it must be {least} at least"))),
            n => Ok(n.unsigned_abs()),
        };
        let (count, batch) = (number("count", 1)?, number("batch-size", 0)?);
        let batch = if batch == 0 { count } else { batch };
        if count % batch != 0 {
            return refused("the number of iterations must be divisible by the batch size".into());
        }
        let small =
            |flag: &str, least: usize| number(flag, least as i64).map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let fill = given.float("fill-percent");
        let fill = match fill {
            0.5 => Fill::Half,
            0.9 => Fill::Append,
            _ => return refused(format!("--fill-percent is {fill}: this page store knows 0.5 and 0.9")),
        };
        Ok(Plan {
            writes: order(given.text("write-mode"), "write")?,
            reads: order(given.text("read-mode"), "read")?,
            count,
            batch,
            key_bytes: small("key-size", NUMBER_BYTES)?,
            value_bytes: small("value-size", 0)?,
            fill,
            page_bytes: u32::try_from(number("page-size", 512)?).unwrap_or(u32::MAX),
        })
    }
}

fn order(mode: &str, what: &str) -> Result<Order, Exit> {
    match mode {
        "seq" => Ok(Order::Ascending),
        "rnd" => Ok(Order::Random),
        "seq-nest" | "rnd-nest" if what == "write" => Err(Exit::error(format!(
            "--write-mode={mode}: etcd's databases have no buckets in buckets, and this page store makes none: seq or rnd"
        ))),
        _ if what == "write" => Err(Exit::error("the write mode should be one of seq, rnd, seq-nest, or rnd-nest")),
        _ => Err(Exit::error(format!("bench: read: invalid read mode: {mode}"))),
    }
}

fn measure(plan: &Plan, path: &Path, no_sync: bool) -> Result<(Measured, Measured), bolt::Error> {
    let options = Options { page_size: Some(plan.page_bytes), no_sync, ..Options::default() };
    let db = Db::open(RealDisk::shared(), path, options)?;
    eprintln!("starting write benchmark.");
    let (writes, keys) = write(&db, plan)?;
    eprintln!("starting read benchmark.");
    let reads = read(&db.view(), plan, keys)?;
    Ok((writes, reads))
}

fn write(db: &Db, plan: &Plan) -> Result<(Measured, Vec<Bytes>), bolt::Error> {
    let start = Instant::now();
    let mut random = start_of_random();
    let value = Bytes::from(vec![0; plan.value_bytes]);
    let mut keys = Vec::new();
    for first in (0..plan.count).step_by(usize::try_from(plan.batch).unwrap_or(usize::MAX)) {
        let mut tx = db.begin()?;
        if first == 0 {
            tx.create_bucket(BUCKET)?;
        }
        eprintln!("Starting write iteration {first}");
        for n in first..first + plan.batch {
            let number = match plan.writes {
                Order::Ascending => n + 1,
                Order::Random => next(&mut random),
            };
            let key = key(number, plan.key_bytes);
            tx.put(BUCKET, key.clone(), value.clone(), plan.fill)?;
            if plan.reads == Order::Random {
                keys.push(key);
            }
        }
        eprintln!("Finished write iteration {first}");
        tx.commit()?;
    }
    Ok((Measured { operations: plan.count, took: start.elapsed() }, keys))
}

/// Four bytes of a number, then nothing.
fn key(number: u64, bytes: usize) -> Bytes {
    let mut key = vec![0; bytes];
    key[..NUMBER_BYTES].copy_from_slice(&(number as u32).to_be_bytes());
    key.into()
}

/// Reads all keys over and over.
fn read(view: &View, plan: &Plan, mut keys: Vec<Bytes>) -> Result<Measured, bolt::Error> {
    let mut random = start_of_random();
    for at in (1..keys.len()).rev() {
        keys.swap(at, usize::try_from(next(&mut random)).unwrap_or_default() % (at + 1));
    }
    let start = Instant::now();
    let mut operations = 0;
    while operations == 0 || start.elapsed() < READING {
        operations += match plan.reads {
            Order::Ascending => count_all(view)?,
            Order::Random => count_found(view, &keys)?,
        };
    }
    Ok(Measured { operations, took: start.elapsed() })
}

fn count_all(view: &View) -> Result<u64, bolt::Error> {
    let mut read = 0;
    for item in view.range(BUCKET, Bound::Unbounded, Bound::Unbounded)? {
        item?;
        read += 1;
    }
    Ok(read)
}

fn count_found(view: &View, keys: &[Bytes]) -> Result<u64, bolt::Error> {
    let mut read = 0;
    for key in keys {
        read += u64::from(view.get(BUCKET, key)?.is_some());
    }
    Ok(read)
}

fn start_of_random() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |since| since.subsec_nanos().into()) | 1
}

/// xorshift64*: good enough for an order.
fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
}

impl Measured {
    fn nanoseconds_each(&self) -> u64 {
        u64::try_from(self.took.as_nanos()).unwrap_or(u64::MAX) / self.operations.max(1)
    }

    fn shown(&self, what: &str) -> String {
        let each = self.nanoseconds_each();
        let rate = 1_000_000_000_u64.checked_div(each).unwrap_or(0);
        let took = go::format_duration(self.took);
        let each = go::format_duration(Duration::from_nanos(each));
        format!("# {what}\t{}(ops)\t{took}\t({each}/op)\t({rate} op/sec)", self.operations)
    }

    /// As `testing.BenchmarkResult` prints itself: digits enough for three that count.
    fn as_go(&self, name: &str) -> String {
        // Far below what a float holds exactly.
        #[allow(clippy::cast_precision_loss)]
        let each = self.took.as_nanos() as f64 / self.operations.max(1) as f64;
        let each = match each {
            each if each == 0.0 || each >= 999.95 => format!("{each:10.0}"),
            each if each >= 99.995 => format!("{each:12.1}"),
            each if each >= 9.9995 => format!("{each:13.2}"),
            each => format!("{each:14.3}"),
        };
        format!("{name:<14}\t{:8}\t{each} ns/op", self.operations)
    }
}
