//! `etcd-dump-logs`: the entries of a log, as lines, through a decoder of one's own, or record by record.

use super::goflag::{self, Flag, Given, Kind, Stop};
use super::prototext::{descriptor, octal, old};
use super::{fatal, log};
use crate::bbolt::hex;
use crate::out::Out;
use api::pb::etcdserverpb::Metadata;
use api::raft::{ConfChange, ConfChangeKind, Entry, EntryKind, Snapshot};
use bytes::Bytes;
use cobra::Exit;
use disk::RealDisk;
use prost::Message as _;
use prost_reflect::{DynamicMessage, Value};
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use wal::snap::Snapshotter;
use wal::{Content, Ending, Replay, Seen};

const TYPES: &str = "Normal,ConfigChange";

const FLAGS: &[Flag] = &[
    Flag {
        name: "start-snap",
        kind: Kind::Text,
        default: "",
        help: "name of the .snap file to begin at, instead of the newest one",
    },
    Flag {
        name: "wal-dir",
        kind: Kind::Text,
        default: "",
        help: "directory of the log, instead of member/wal in the data directory",
    },
    Flag {
        name: "start-index",
        kind: Kind::Uint,
        default: "0",
        help: "first index to show, instead of the one behind the newest snapshot",
    },
    Flag {
        name: "end-index",
        kind: Kind::Uint,
        default: "18446744073709551615",
        help: "first index that is not shown any more",
    },
    Flag {
        name: "entry-type",
        kind: Kind::Text,
        default: TYPES,
        help: "types of entries to show, one or more of:\nConfigChange, Normal, Request, InternalRaftRequest,\nIRRRange, \
               IRRPut, IRRDeleteRange, IRRTxn,\nIRRCompaction, IRRLeaseGrant, IRRLeaseRevoke, IRRLeaseCheckpoint",
    },
    Flag {
        name: "stream-decoder",
        kind: Kind::Text,
        default: "",
        help: "a program, with its arguments, that gets each entry's data as a line of hex digits on standard input\nand \
               answers with a line STATUS|DATA",
    },
    Flag { name: "raw", kind: Kind::Bool, default: "false", help: "show records as they lie in the files" },
];

/// Runs the program with these words, without its own name. Answers the exit code.
pub fn run(words: Vec<OsString>) -> u8 {
    match goflag::parse(FLAGS, words) {
        Ok(given) => cobra::finish(dump(&given)),
        Err(stop) => {
            let usage = goflag::usage("etcd-dump-logs", FLAGS);
            match stop {
                Stop::Help => {
                    eprint!("{usage}");
                    0
                }
                Stop::Wrong(why) => {
                    eprint!("{why}\n{usage}");
                    2
                }
            }
        }
    }
}

fn dump(given: &Given) -> Result<(), Exit> {
    let [dir] = given.args.as_slice() else {
        let words: Vec<_> = given.args.iter().map(|word| word.to_string_lossy()).collect();
        return Err(fatal(format!("Must provide data-dir argument (got [{}])", words.join(" "))));
    };
    let text = |name: &str| given.text(FLAGS, name);
    if !text("start-snap").is_empty() && given.uint(FLAGS, "start-index") != 0 {
        return Err(fatal("start-snap and start-index flags cannot be used together."));
    }
    let dir = Path::new(dir);
    let wal = match text("wal-dir") {
        "" => dir.join("member/wal"),
        dir => PathBuf::from(dir),
    };
    if given.is_true(FLAGS, "raw") {
        let plain = text("start-snap").is_empty() && text("stream-decoder").is_empty();
        if !plain || text("entry-type") != TYPES {
            return Err(fatal("Flags --entry-type, --stream-decoder, --entrytype not supported in the RAW mode."));
        }
        return raw(&wal, given.uint(FLAGS, "start-index"));
    }
    let mut out = Out::new();
    let entries = head(given, dir, &wal, &mut out)?;
    out.line(format!("WAL entries: {}", entries.len()))?;
    if let Some(last) = entries.last() {
        out.line(format!("lastIndex={}", last.index))?;
    }
    let more = if text("stream-decoder").is_empty() { "" } else { "\tdecoder_status\tdecoded_data" };
    out.line(format!("{:>4}\t{:>10}\ttype\tdata{more}", "term", "index"))?;
    let shown = list(&entries, text("entry-type"), text("stream-decoder"), &mut out)?;
    out.line(format!("\nEntry types ({}) count is : {shown}", text("entry-type")))?;
    out.done()
}

/// Prints where the log is read from and whose it is. Answers its entries.
fn head(given: &Given, dir: &Path, wal: &Path, out: &mut Out) -> Result<Vec<Entry>, Exit> {
    let end = Some(given.uint(FLAGS, "end-index")).filter(|end| *end != u64::MAX);
    let first = if given.was_given("start-index") {
        let first = given.uint(FLAGS, "start-index");
        out.line(format!("Start dumping log entries from index {first}."))?;
        first
    } else {
        let snapshot = snapshot(dir, given.text(FLAGS, "start-snap"))?;
        out.line("Snapshot:")?;
        out.line(snapshot.as_ref().map_or("empty".into(), snapshot_line))?;
        out.line("Start dumping log entries from snapshot.")?;
        snapshot.map_or(0, |snapshot| snapshot.metadata.index) + 1
    };
    let replay = wal::read_between(&RealDisk::shared(), wal, first, end);
    let Replay { metadata, hard_state, entries } = replay.map_err(|why| fatal(format!("Failed reading WAL: {why}")))?;
    let metadata =
        Metadata::decode(metadata).map_err(|why| fatal(format!("Failed reading WAL: its metadata: {why}")))?;
    out.line("WAL metadata:")?;
    out.line(format!(
        "nodeID={:x} clusterID={:x} term={} commitIndex={} vote={:x}",
        metadata.node_id(),
        metadata.cluster_id(),
        hard_state.term,
        hard_state.commit,
        hard_state.vote
    ))?;
    Ok(entries)
}

/// The `.snap` file of this name, or the newest that can be read; `None` where there is none.
fn snapshot(dir: &Path, name: &str) -> Result<Option<Snapshot>, Exit> {
    let failed = |why: wal::WalError| fatal(format!("Failed loading snapshot: {why}"));
    let snapshots = Snapshotter::new(RealDisk::shared(), &dir.join("member/snap"));
    if !name.is_empty() {
        return snapshots.load(name).map(Some).map_err(failed);
    }
    for name in snapshots.list().map_err(failed)? {
        match snapshots.load(&name) {
            Ok(snapshot) => return Ok(Some(snapshot)),
            Err(why) => log(format!("Ignoring {name}: {why}")),
        }
    }
    Ok(None)
}

fn snapshot_line(snapshot: &Snapshot) -> String {
    let (metadata, conf) = (&snapshot.metadata, &snapshot.metadata.conf_state);
    let nodes: Vec<String> = conf.voters.iter().map(|id| format!("{id:x}")).collect();
    let lists = [("voters", &conf.voters), ("learners", &conf.learners), ("voters_outgoing", &conf.voters_outgoing)];
    let list = |(name, ids): (&str, &Vec<u64>)| {
        let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
        (!ids.is_empty()).then(|| format!("\"{name}\":[{}],", ids.join(",")))
    };
    let lists: String = lists.into_iter().chain([("learners_next", &conf.learners_next)]).filter_map(list).collect();
    format!(
        "term={} index={} nodes=[{}] confstate={{{lists}\"auto_leave\":{}}}",
        metadata.term,
        metadata.index,
        nodes.join(" "),
        conf.auto_leave
    )
}

/// Prints the entries of these types. Answers how many.
fn list(entries: &[Entry], types: &str, decoder: &str, out: &mut Out) -> Result<usize, Exit> {
    let types = known(types);
    let mut decoder = if decoder.is_empty() { None } else { Some(Decoder::start(decoder)?) };
    let mut shown = 0;
    for entry in entries {
        let Some(line) = line(entry, &types) else { continue };
        shown += 1;
        let Some(decoder) = &mut decoder else {
            out.line(line)?;
            continue;
        };
        out.text(line)?;
        match decoder.ask(&entry.data) {
            // The answer ends with its own end of a line.
            Ok(answer) => out.text(columns(&answer))?,
            Err(why) => {
                out.line(why)?;
                out.done()?;
                return Err(Exit::code(0));
            }
        }
    }
    if let Some(decoder) = decoder {
        decoder.end()?;
    }
    Ok(shown)
}

const KNOWN: [&str; 12] = [
    "ConfigChange",
    "Normal",
    "Request",
    "InternalRaftRequest",
    "IRRRange",
    "IRRPut",
    "IRRDeleteRange",
    "IRRTxn",
    "IRRCompaction",
    "IRRLeaseGrant",
    "IRRLeaseRevoke",
    "IRRLeaseCheckpoint",
];

fn known(types: &str) -> Vec<&str> {
    let (known, unknown): (Vec<&str>, Vec<&str>) =
        types.split(',').filter(|_| !types.is_empty()).partition(|name| KNOWN.contains(name));
    for name in unknown {
        log(format!(
            "[{name}] is not a valid entry-type, ignored.\nPlease set entry-type to one or more of the \
             following:\nConfigChange, Normal, Request, InternalRaftRequest,\nIRRRange, IRRPut, IRRDeleteRange, \
             IRRTxn,\nIRRCompaction, IRRLeaseGrant, IRRLeaseRevoke, IRRLeaseCheckpoint"
        ));
    }
    known
}

/// The entry's line, if it is of one of these types.
fn line(entry: &Entry, types: &[&str]) -> Option<String> {
    let any = |names: &[&str]| names.iter().any(|name| types.contains(name));
    let place = format!("{:>4}\t{:>10}", entry.term, entry.index);
    match entry.kind {
        EntryKind::ConfChange => any(&["ConfigChange"]).then(|| format!("{place}\tconf\t{}", change(&entry.data))),
        EntryKind::ConfChangeV2 => None,
        EntryKind::Normal => match normal(&entry.data) {
            Some((names, text)) => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                (any(&["Normal", "InternalRaftRequest"]) || any(&names)).then(|| format!("{place}\tnorm\t{text}"))
            }
            None => any(&["Normal", "Request"]).then(|| format!("{place}\tnorm\t???")),
        },
    }
}

fn change(data: &Bytes) -> String {
    let Ok(change) = ConfChange::decode(data.clone()) else { return "???".into() };
    let method = match change.kind {
        ConfChangeKind::AddNode => "ConfChangeAddNode",
        ConfChangeKind::RemoveNode => "ConfChangeRemoveNode",
        ConfChangeKind::UpdateNode => "ConfChangeUpdateNode",
        ConfChangeKind::AddLearnerNode => "ConfChangeAddLearnerNode",
    };
    format!("method={method} id={:x}", change.node_id)
}

/// A request's types and its text; `None` for what is no request of etcd 3. Passwords are left out.
pub fn normal(data: &Bytes) -> Option<(Vec<String>, String)> {
    let mut request = DynamicMessage::decode(descriptor("etcdserverpb.InternalRaftRequest"), data.clone()).ok()?;
    for name in ["authenticate", "auth_user_add", "auth_user_change_password"] {
        // Asking for a field that is not there would make it.
        if !request.has_field_by_name(name) {
            continue;
        }
        if let Some(Value::Message(inner)) = request.get_field_by_name_mut(name)
            && inner.has_field_by_name("password")
        {
            inner.set_field_by_name("password", Value::String("<value removed>".into()));
        }
    }
    let of = |name: &str, shown: &str| request.has_field_by_name(name).then(|| shown.to_owned());
    let names = [
        of("range", "IRRRange"),
        of("put", "IRRPut"),
        of("delete_range", "IRRDeleteRange"),
        of("txn", "IRRTxn"),
        of("compaction", "IRRCompaction"),
        of("lease_grant", "IRRLeaseGrant"),
        of("lease_revoke", "IRRLeaseRevoke"),
        of("lease_checkpoint", "IRRLeaseCheckpoint"),
    ];
    Some((names.into_iter().flatten().collect(), old(&request)))
}

/// Somebody else's program that reads entries.
struct Decoder {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// A line that a decoder answers is no longer, bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

impl Decoder {
    fn start(words: &str) -> Result<Decoder, Exit> {
        let failed = |why: String| fatal(format!("-stream-decoder {words}: {why}"));
        let (program, arguments) = words.split_once(' ').unwrap_or((words, ""));
        let mut command = Command::new(program);
        command.args(arguments.split(' ').filter(|word| !word.is_empty()));
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = started.map_err(|e| failed(go::os_text(&e)))?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(stdin), Some(stdout)) => Ok(Decoder { child, stdin, stdout: BufReader::new(stdout) }),
            _ => Err(failed("it has no standard input and output".into())),
        }
    }

    /// The answer with its end of a line.
    fn ask(&mut self, data: &[u8]) -> Result<Vec<u8>, String> {
        let text = |e: std::io::Error| go::os_text(&e);
        self.stdin.write_all((hex(data) + "\n").as_bytes()).and_then(|()| self.stdin.flush()).map_err(text)?;
        let mut answer = Vec::new();
        self.stdout.by_ref().take(ANSWER_BYTES_MAX).read_until(b'\n', &mut answer).map_err(text)?;
        if answer.ends_with(b"\n") { Ok(answer) } else { Err("EOF".into()) }
    }

    fn end(self) -> Result<(), Exit> {
        let Decoder { child, stdin, stdout } = self;
        drop((stdin, stdout));
        let said = child.wait_with_output().map_err(|e| fatal(format!("the decoder: {}", go::os_text(&e))))?;
        if !said.status.success() {
            return Err(fatal(format!("the decoder failed: {}", said.status)));
        }
        if !said.stderr.is_empty() {
            eprint!("decoder stderr: {}", String::from_utf8_lossy(&said.stderr));
        }
        Ok(())
    }
}

/// The two columns that a decoder's answer makes.
fn columns(answer: &[u8]) -> String {
    let answer = String::from_utf8_lossy(answer);
    let parts: Vec<&str> = answer.split('|').collect();
    let (status, data) = match parts.as_slice() {
        [data] => ("decoder output format is not right, print output anyway".to_owned(), (*data).to_owned()),
        [status, data] => ((*status).to_owned(), (*data).to_owned()),
        [status, data @ ..] => {
            (format!("{status}(*WARNING: data might contain deliminator used by etcd-dump-logs)"), data.concat())
        }
        [] => (String::new(), String::new()),
    };
    format!("\t{status}\t{data}")
}

/// `-raw`.
fn raw(wal: &Path, first: u64) -> Result<(), Exit> {
    let names = std::fs::read_dir(wal).map_err(|e| {
        let why = go::os_text(&e);
        fatal(format!("Error: Failed to read directory '{0}' error:open {0}: {why}", wal.display()))
    })?;
    let mut others: Vec<String> =
        names.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    others.retain(|name| !name.ends_with(".wal"));
    others.sort();
    others.iter().for_each(|name| log(format!("Warning: Ignoring not .wal file: {name}")));

    let mut out = Out::new();
    let (mut told, mut failed) = (false, None);
    let ending = wal::look(&RealDisk::shared(), wal, &mut |seen| {
        if !seen.is_sound && !told {
            let (file, offset) = (&seen.file, seen.offset);
            log(format!("Error: Reading entry failed with CRC error: in file '{file}' at position: {offset}"));
        }
        told = !matches!(seen.content, Content::Crc(_)) && (told || !seen.is_sound);
        if failed.is_none() {
            failed = record(&seen, first).and_then(|line| out.line(line).err());
        }
    });
    if let Some(exit) = failed {
        return Err(exit);
    }
    match ending.map_err(fatal)? {
        Ending::Whole => out.line("EOF: All entries were processed.")?,
        Ending::Cut(why) => {
            out.line(format!("ErrUnexpectedEOF: The last record might be corrupted, error: {why}."))?;
        }
        Ending::Unreadable(why) => log(format!("Error: Reading failed: {why}")),
    }
    out.done()
}

/// A record's line, if it stands at this index or behind it.
fn record(seen: &Seen, first: u64) -> Option<String> {
    match &seen.content {
        Content::Metadata(data) => Some(match Metadata::decode(data.clone()) {
            Ok(metadata) => {
                let id = |name: &str, id: Option<u64>| id.map(|id| format!("{name}:{id}"));
                let ids = [id("NodeID", metadata.node_id), id("ClusterID", metadata.cluster_id)];
                format!("Metadata: {}", ids.into_iter().flatten().collect::<Vec<_>>().join(" "))
            }
            Err(why) => format!("Metadata: {why}: {}", octal(data)),
        }),
        Content::Crc(crc) => Some(format!("CRC: {crc}")),
        Content::Entry(entry) if entry.index >= first => {
            let kind = match entry.kind {
                EntryKind::Normal => "",
                EntryKind::ConfChange => " Type:EntryConfChange",
                EntryKind::ConfChangeV2 => " Type:EntryConfChangeV2",
            };
            let data = if entry.data.is_empty() { String::new() } else { format!(" Data:{} ", octal(&entry.data)) };
            Some(format!("Entry: Term:{} Index:{}{kind}{data}", entry.term, entry.index))
        }
        Content::Snapshot(snapshot) if snapshot.index >= first => {
            Some(format!("Snapshot: index:{} term:{}", snapshot.index, snapshot.term))
        }
        Content::State(state) if state.commit >= first => {
            Some(format!("HardState: term:{} vote:{} commit:{}", state.term, state.vote, state.commit))
        }
        Content::Unknown(kind) => {
            log(format!("Unexpected WAL log type: {kind}"));
            None
        }
        Content::Entry(_) | Content::Snapshot(_) | Content::State(_) => None,
    }
}
