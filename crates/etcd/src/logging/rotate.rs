//! A log file that is moved aside when it is full (`--enable-log-rotation`), as lumberjack does it, with its settings and
//! its names: `etcd.log` becomes `etcd-2006-01-02T15-04-05.000.log`. Old ones are compressed and removed by a thread of
//! their own: no line waits for that.

use crate::config::json_kind;
use flate2::Compression;
use flate2::write::GzEncoder;
use go::os_text;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned, civil};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

const MEGABYTE: u64 = 1 << 20;
/// Without `maxsize`.
const DEFAULT_MEGABYTES: u64 = 100;
const TIME: &str = "%Y-%m-%dT%H-%M-%S%.3f";
const COMPRESSED: &str = ".gz";

/// `--log-rotation-config-json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes a file may have.
    pub max_bytes: u64,
    /// Days that old files are kept; 0: for ever.
    pub max_days: u64,
    /// Old files that are kept; 0: all.
    pub max_backups: usize,
    /// Times in names are local ones, else UTC.
    pub local_time: bool,
    /// Old files are compressed.
    pub compress: bool,
}

impl Rotation {
    /// Reads the flag: keys in any case, unknown ones ignored.
    ///
    /// # Errors
    /// etcd's text, but for what is wrong with the JSON.
    pub fn parse(text: &str) -> Result<Rotation, String> {
        let json: Value =
            serde_json::from_str(text).map_err(|e| format!("improperly formatted log rotation config: {e}"))?;
        let settings = match json {
            Value::Object(settings) => settings,
            Value::Null => Map::new(),
            other => {
                let kind = json_kind(&other);
                return Err(format!(
                    "invalid log rotation config: json: cannot unmarshal {kind} into Go value of type embed.logRotationConfig"
                ));
            }
        };
        let number = |key| number(&settings, key);
        let flag = |key| flag(&settings, key);
        let megabytes = number("maxsize")?;
        Ok(Rotation {
            max_bytes: if megabytes == 0 { DEFAULT_MEGABYTES } else { megabytes }.saturating_mul(MEGABYTE),
            max_days: number("maxage")?,
            max_backups: usize::try_from(number("maxbackups")?).unwrap_or(usize::MAX),
            local_time: flag("localtime")?,
            compress: flag("compress")?,
        })
    }
}

fn value<'a>(settings: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    settings.iter().rfind(|(name, value)| name.eq_ignore_ascii_case(key) && !value.is_null()).map(|(_, value)| value)
}

fn mismatch(key: &str, found: &str, wanted: &str) -> String {
    format!(
        "invalid log rotation config: json: cannot unmarshal {found} into Go struct field logRotationConfig.Logger.{key} of type {wanted}"
    )
}

/// Less than nothing counts as not given.
fn number(settings: &Map<String, Value>, key: &str) -> Result<u64, String> {
    let Some(value) = value(settings, key) else { return Ok(0) };
    let found = || match value {
        Value::Number(n) => format!("number {n}"),
        other => json_kind(other),
    };
    let number = value.as_i64().ok_or_else(|| mismatch(key, &found(), "int"))?;
    Ok(u64::try_from(number).unwrap_or(0))
}

fn flag(settings: &Map<String, Value>, key: &str) -> Result<bool, String> {
    let Some(value) = value(settings, key) else { return Ok(false) };
    let named = value.as_bool();
    named.ok_or_else(|| mismatch(key, &json_kind(value), "bool"))
}

/// The file that is written to, and what becomes of it.
#[derive(Debug)]
pub struct Rotating {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    bytes: u64,
    tidy: Sender<()>,
}

impl Rotating {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// The file, or the thread that tidies up, can't be had.
    pub fn open(path: &Path, rotation: Rotation) -> io::Result<Rotating> {
        let file = opened(path, 0o600)?;
        let bytes = file.metadata()?.len();
        let (tidy, wanted) = channel();
        let keeper = Keeper { path: path.to_owned(), rotation: rotation.clone() };
        std::thread::Builder::new().name("log-rotation".into()).spawn(move || keeper.run(&wanted))?;
        let rotating = Rotating { path: path.to_owned(), rotation, file, bytes, tidy };
        // What an earlier process left.
        rotating.tidy_up();
        Ok(rotating)
    }

    fn tidy_up(&self) {
        // Its thread ends with us.
        let _ = self.tidy.send(());
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mode = self.file.metadata()?.mode() & 0o777;
        fs::rename(&self.path, free_name(&self.path, &self.rotation, &Zoned::now()))?;
        self.file = opened(&self.path, mode)?;
        self.bytes = 0;
        self.tidy_up();
        Ok(())
    }
}

impl Write for Rotating {
    /// A line goes into one file. If the file can't be moved aside it grows: better than losing what it would say.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.rotation.max_bytes {
            self.rotate()?;
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn opened(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(mode).open(path)
}

/// What stands before and behind the time in an old file's name.
fn affixes(path: &Path) -> (String, String) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
    (format!("{stem}-"), extension)
}

/// The name that a full file gets. Two within a millisecond must not take one another's.
fn free_name(path: &Path, rotation: &Rotation, now: &Zoned) -> PathBuf {
    let (prefix, suffix) = affixes(path);
    let zone = if rotation.local_time { now.time_zone().clone() } else { TimeZone::UTC };
    let named = |after: i64| {
        let at = now.timestamp() + SignedDuration::from_millis(after);
        let time = at.to_zoned(zone.clone()).strftime(TIME).to_string();
        path.with_file_name(format!("{prefix}{time}{suffix}"))
    };
    let taken = |name: &Path| {
        let compressed = PathBuf::from(format!("{}{COMPRESSED}", name.display()));
        name.exists() || compressed.exists()
    };
    (0..).map(named).find(|name| !taken(name)).expect("there are more names than files")
}

/// An old file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Backup {
    at: civil::DateTime,
    path: PathBuf,
    compressed: bool,
}

/// Keeps as many old files as it should.
struct Keeper {
    path: PathBuf,
    rotation: Rotation,
}

impl Keeper {
    fn run(&self, wanted: &Receiver<()>) {
        while wanted.recv().is_ok() {
            // One round does for all who asked meanwhile.
            while wanted.try_recv().is_ok() {}
            if let Err(e) = self.keep(Timestamp::now()) {
                // The log's own trouble must not go to the log: that might make more of it.
                eprintln!("etcd: old log files of {}: {}", self.path.display(), os_text(&e));
            }
        }
    }

    fn backups(&self) -> io::Result<Vec<Backup>> {
        let (prefix, suffix) = affixes(&self.path);
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut backups = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let (bare, compressed) = match name.strip_suffix(COMPRESSED) {
                Some(bare) => (bare.to_owned(), true),
                None => (name, false),
            };
            let time = bare.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(&suffix));
            if let Some(at) = time.and_then(|time| civil::DateTime::strptime(TIME, time).ok()) {
                backups.push(Backup { at, path: entry.path(), compressed });
            }
        }
        // The newest first.
        backups.sort_by(|a, b| b.cmp(a));
        Ok(backups)
    }

    fn keep(&self, now: Timestamp) -> io::Result<()> {
        let mut kept = Vec::new();
        let mut times = BTreeSet::new();
        for backup in self.backups()? {
            times.insert(backup.at);
            let many = self.rotation.max_backups > 0 && times.len() > self.rotation.max_backups;
            if many || self.is_old(&backup, now) {
                fs::remove_file(&backup.path)?;
            } else {
                kept.push(backup);
            }
        }
        if self.rotation.compress {
            kept.iter().filter(|backup| !backup.compressed).try_for_each(|backup| compress(&backup.path))?;
        }
        Ok(())
    }

    fn is_old(&self, backup: &Backup, now: Timestamp) -> bool {
        if self.rotation.max_days == 0 {
            return false;
        }
        let zone = if self.rotation.local_time { TimeZone::system() } else { TimeZone::UTC };
        let days = i64::try_from(self.rotation.max_days).unwrap_or(i64::MAX);
        let age = SignedDuration::from_hours(days.saturating_mul(24).min(1 << 40));
        backup.at.to_zoned(zone).is_ok_and(|at| now.duration_since(at.timestamp()) > age)
    }
}

/// A crash leaves the file, and maybe half of its compressed copy, which is written anew.
fn compress(path: &Path) -> io::Result<()> {
    let to = PathBuf::from(format!("{}{COMPRESSED}", path.display()));
    let mut from = File::open(path)?;
    let mode = from.metadata()?.mode() & 0o777;
    let file = OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&to)?;
    let mut encoder = GzEncoder::new(file, Compression::default());
    io::copy(&mut from, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("oxetcd-rotate-{name}-{}", std::process::id()));
            drop(fs::remove_dir_all(&path));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn rotation(text: &str) -> Rotation {
        Rotation::parse(text).unwrap()
    }

    #[test]
    fn settings_are_lumberjacks() {
        let default = "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \"compress\": false}";
        let expected =
            Rotation { max_bytes: 100 << 20, max_days: 0, max_backups: 0, local_time: false, compress: false };
        assert_eq!(rotation(default), expected);
        assert_eq!(rotation("{}"), expected);
        let given = rotation(
            "{\"MaxSize\": 1, \"maxage\": 2, \"maxbackups\": 3, \"localtime\": true, \"compress\": true, \"x\": 1}",
        );
        let expected = Rotation { max_bytes: 1 << 20, max_days: 2, max_backups: 3, local_time: true, compress: true };
        assert_eq!(given, expected);
        for (text, why) in [
            (
                "{\"maxsize\": \"x\"}",
                "invalid log rotation config: json: cannot unmarshal string into Go struct field logRotationConfig.Logger.maxsize of type int",
            ),
            (
                "{\"maxsize\": 1.5}",
                "invalid log rotation config: json: cannot unmarshal number 1.5 into Go struct field logRotationConfig.Logger.maxsize of type int",
            ),
            (
                "[]",
                "invalid log rotation config: json: cannot unmarshal array into Go value of type embed.logRotationConfig",
            ),
        ] {
            assert_eq!(Rotation::parse(text).unwrap_err(), why);
        }
        assert!(Rotation::parse("{").unwrap_err().starts_with("improperly formatted log rotation config: "));
    }

    #[test]
    fn a_full_file_is_moved_aside_and_no_line_is_torn_or_lost() {
        let folder = Folder::new("full");
        let path = folder.0.join("etcd.log");
        let mut log = Rotating::open(&path, Rotation { max_bytes: 25, ..rotation("{}") }).unwrap();
        for n in 0..10 {
            log.write_all(format!("line {n:04}\n").as_bytes()).unwrap();
        }
        let names = folder.names();
        assert_eq!(names.len(), 5, "{names:?}");
        let old = names.iter().filter(|name| *name != "etcd.log");
        let newest = "etcd.log".to_owned();
        let files = old.chain([&newest]).map(|name| fs::read_to_string(folder.0.join(name)).unwrap());
        let expected: String = (0..10).map(|n| format!("line {n:04}\n")).collect();
        assert_eq!(files.collect::<String>(), expected);
    }

    #[test]
    fn only_the_newest_are_kept_compressed_if_asked_for() {
        let folder = Folder::new("keep");
        let path = folder.0.join("etcd.log");
        for day in 1..=5 {
            fs::write(folder.0.join(format!("etcd-2026-01-0{day}T00-00-00.000.log")), format!("day {day}")).unwrap();
        }
        for other in ["etcd-notes.log", "other-2026-01-01T00-00-00.000.log", "etcd.log"] {
            fs::write(folder.0.join(other), "x").unwrap();
        }
        let keeper = |rotation| Keeper { path: path.clone(), rotation };
        let now: Timestamp = "2026-01-06T00:00:00Z".parse().unwrap();
        keeper(rotation("{\"maxbackups\": 3, \"compress\": true}")).keep(now).unwrap();
        let old = |day: u8, end: &str| format!("etcd-2026-01-0{day}T00-00-00.000.log{end}");
        let others = ["etcd-notes.log".to_owned(), "etcd.log".into(), "other-2026-01-01T00-00-00.000.log".into()];
        let expect = |days: &[u8]| {
            let mut names: Vec<String> = days.iter().map(|day| old(*day, ".gz")).chain(others.clone()).collect();
            names.sort();
            assert_eq!(folder.names(), names);
        };
        expect(&[3, 4, 5]);
        let mut text = String::new();
        let file = File::open(folder.0.join(old(4, ".gz"))).unwrap();
        flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
        assert_eq!(text, "day 4");
        keeper(rotation("{\"maxage\": 2}")).keep(now).unwrap();
        expect(&[4, 5]);
    }
}
