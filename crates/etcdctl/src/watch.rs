//! `watch`: events on standard output or a command per event; one watch from the words, or several from standard input.

use crate::globals::Ctl;
use crate::kv::failed;
use crate::output::{Answer, Display, event_type};
use api::pb::etcdserverpb as pb;
use api::pb::mvccpb::Event;
use bytes::Bytes;
use client::{Client, Watch, prefix_end};
use cobra::{Call, Exit, Flag, Kind, Parsed, parse};

use std::ffi::{OsStr, OsString};
use std::io::BufRead as _;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Stdio};
use tokio::sync::{broadcast, mpsc};

/// Flags of `watch`.
pub static FLAGS: &[Flag] = &[
    Flag::switch("interactive", "take watches from standard input").short('i'),
    Flag::switch("prefix", "all keys that begin with the given one"),
    Flag::new("rev", Kind::Int, "0", "revision to start at (default: the next one)"),
    Flag::switch("prev-kv", "print what was there before"),
    Flag::switch("progress-notify", "let the server say from time to time how far it is"),
];
/// Progress requests that may wait for a watcher.
const PROGRESS_MAX: usize = 16;

/// What to watch, and what to run for each event.
struct Watched {
    request: pb::WatchCreateRequest,
    command: Vec<Vec<u8>>,
}

const BAD_COUNT: &str = "bad number of arguments";
const EXCLUSIVE: &str = "`range_end` and `--prefix` are mutually exclusive";

/// `watch`.
pub fn watch(call: &mut Call) -> Result<(), Exit> {
    if call.given.is_true("interactive") {
        return interactive(call);
    }
    let words = split(&call.given).map_err(Exit::arguments)?;
    let watched = watched(&call.given, words)?;
    let ctl = Ctl::open(call)?;
    ctl.block_on(async {
        let watch = ctl.client.with_leader_required().watch(watched.request);
        follow(watch, &watched.command, ctl.display, None).await
    })
}

/// Key, range end and command, from words and environment.
struct Words {
    key: Vec<u8>,
    range_end: Vec<u8>,
    command: Vec<Vec<u8>>,
}

fn split(given: &Parsed) -> Result<Words, String> {
    let (words, command) = given.args.split_at(given.before_dash.unwrap_or(given.args.len()));
    if given.before_dash.is_some() && command.is_empty() {
        return Err(format!("{BAD_COUNT} (found separator --, but no commands)"));
    }
    let variable = |name: &str| std::env::var_os(name).map(|v| v.as_bytes().to_vec()).unwrap_or_default();
    let (env_key, env_end) = (variable("ETCDCTL_WATCH_KEY"), variable("ETCDCTL_WATCH_RANGE_END"));
    if env_key.is_empty() && !env_end.is_empty() {
        return Err("ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END=".to_owned() + &go::quote(&env_end));
    }
    match (words.first(), env_key.is_empty()) {
        (None, true) => Err(BAD_COUNT.to_owned()),
        (None, false) => Ok(Words { key: env_key, range_end: env_end, command: command.to_vec() }),
        (Some(key), true) => Ok(Words {
            key: key.clone(),
            range_end: words.get(1).cloned().unwrap_or_default(),
            command: command.to_vec(),
        }),
        (Some(_), false) => Err(format!("{BAD_COUNT} (found conflicting environment key)")),
    }
}

fn watched(given: &Parsed, words: Words) -> Result<Watched, Exit> {
    let prefix = given.is_true("prefix");
    if prefix && !words.range_end.is_empty() {
        return Err(Exit::arguments(EXCLUSIVE));
    }
    let (key, range_end) = match (prefix, words.key.is_empty()) {
        (true, true) => (vec![0], Bytes::from_static(&[0])),
        (true, false) => (words.key.clone(), prefix_end(&words.key)),
        (false, _) => (words.key, words.range_end.into()),
    };
    let request = pb::WatchCreateRequest {
        key: key.into(),
        range_end,
        start_revision: given.int("rev"),
        prev_kv: given.is_true("prev-kv"),
        progress_notify: given.is_true("progress-notify"),
        ..Default::default()
    };
    Ok(Watched { request, command: words.command })
}

/// Prints what a watch says until it ends, which is an error.
async fn follow(
    mut watch: Watch,
    command: &[Vec<u8>],
    display: Display,
    mut progress: Option<broadcast::Receiver<()>>,
) -> Result<(), Exit> {
    loop {
        let response = tokio::select! {
            response = watch.next() => response.map_err(failed)?,
            Some(()) = asked(&mut progress) => {
                watch.request_progress().await;
                continue;
            }
        };
        let Some(mut response) = response else { return Err(Exit::with(5, "watch is canceled by the server")) };
        if response.created && !response.canceled && response.events.is_empty() {
            continue;
        }
        if response.canceled {
            eprintln!("watch was canceled ({})", reason(&response));
            if is_refusal(&response) {
                // As Go's client, which makes up an answer of its own.
                let header = Some(pb::ResponseHeader::default());
                response = pb::WatchResponse { header, canceled: true, ..Default::default() };
            }
        }
        if is_progress(&response) {
            let revision = response.header.as_ref().map_or(0, |header| header.revision);
            crate::output::write_out(format!("progress notify: {revision}\n").as_bytes());
        }
        display.show(Answer::Watch(&response))?;
        for event in response.events.iter().filter(|_| !command.is_empty()) {
            let revision = response.header.as_ref().map_or(0, |header| header.revision);
            run(command, event, revision)?;
        }
    }
}

async fn asked(progress: &mut Option<broadcast::Receiver<()>>) -> Option<()> {
    match progress {
        Some(receiver) => receiver.recv().await.ok(),
        None => std::future::pending().await,
    }
}

fn is_progress(response: &pb::WatchResponse) -> bool {
    let header = response.header.as_ref().map_or(0, |header| header.revision);
    response.events.is_empty()
        && !response.canceled
        && !response.created
        && response.compact_revision == 0
        && header != 0
}

/// A watch that never began.
fn is_refusal(response: &pb::WatchResponse) -> bool {
    response.created && response.canceled && !response.cancel_reason.is_empty()
}

/// Why the watch ended, in the client's words.
fn reason(response: &pb::WatchResponse) -> String {
    if is_refusal(response) {
        return response.cancel_reason.clone();
    }
    match (response.compact_revision, response.cancel_reason.as_str()) {
        (0, "") => "etcdserver: mvcc: required revision is a future revision".to_owned(),
        (0, reason) => client::Error::Rpc { code: client::Code::Unknown, message: reason.to_owned() }.to_string(),
        (_, _) => "etcdserver: mvcc: required revision has been compacted".to_owned(),
    }
}

/// Runs the command for one event.
fn run(command: &[Vec<u8>], event: &Event, revision: i64) -> Result<(), Exit> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let kv = event.kv.clone().unwrap_or_default();
    let status = Command::new(OsStr::from_bytes(program))
        .args(arguments.iter().map(|word| OsStr::from_bytes(word)))
        .env("ETCD_WATCH_REVISION", revision.to_string())
        .env("ETCD_WATCH_EVENT_TYPE", go::quote(event_type(event)))
        .env("ETCD_WATCH_KEY", go::quote(&kv.key))
        .env("ETCD_WATCH_VALUE", go::quote(&kv.value))
        .stdin(Stdio::null())
        .status();
    let why = crate::concurrency::why_it_failed(program, &status);
    match why {
        None => Ok(()),
        Some(why) => {
            let shown: Vec<String> = command.iter().map(go::quote).collect();
            eprintln!("command [{}] error ({why})", shown.join(" "));
            Err(Exit::code(1))
        }
    }
}

/// `watch -i`: a watch a line, `progress` for news of all of them.
fn interactive(call: &mut Call) -> Result<(), Exit> {
    let ctl = Ctl::open(call)?;
    let display = ctl.display;
    ctl.block_on(async {
        let (progress, _) = broadcast::channel(PROGRESS_MAX);
        let (failures, mut failed) = mpsc::channel(1);
        let client = ctl.client.with_leader_required();
        let mut lines = read_lines();
        loop {
            let line = tokio::select! {
                line = lines.recv() => line,
                Some(exit) = failed.recv() => return Err(exit),
            };
            let line = match line {
                Some(Ok(line)) => line,
                None => return Err(Exit::input("error reading watch request line: EOF")),
                Some(Err(e)) => return Err(Exit::input(format!("error reading watch request line: {e}"))),
            };
            let words: Vec<OsString> = line
                .split(|b| *b == b' ')
                .map(|word| word.trim_ascii())
                .filter(|word| !word.is_empty())
                .map(|word| OsStr::from_bytes(word).to_owned())
                .collect();
            match words.split_first() {
                None => eprintln!("Invalid command: {} (watch and progress supported)", String::from_utf8_lossy(&line)),
                Some((first, rest)) if first == "watch" => {
                    let Some(watched) = line_of_watch(rest)? else { continue };
                    start(&client, watched, display, &progress, &failures);
                }
                Some((first, [])) if first == "progress" => drop(progress.send(())),
                Some((first, _)) => {
                    eprintln!("Invalid command {} (only support watch)", first.to_string_lossy());
                }
            }
        }
    })
}

/// Lines of standard input, read on a thread of their own: nothing waits for it when the program ends.
fn read_lines() -> mpsc::Receiver<std::io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut line = Vec::new();
            let read = input.read_until(b'\n', &mut line).map(|_| line.pop());
            let line = match read {
                // As Go: a line that does not end is none.
                Ok(end) if end != Some(b'\n') => return,
                Ok(_) => Ok(line),
                Err(e) => Err(e),
            };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Reads the words behind `watch`; `None`: told and skipped.
fn line_of_watch(words: &[OsString]) -> Result<Option<Watched>, Exit> {
    let flags: Vec<&'static Flag> = FLAGS.iter().collect();
    let given = parse(&flags, words).map_err(Exit::arguments)?;
    let words = match split(&given) {
        Ok(words) => words,
        Err(e) if e == BAD_COUNT => {
            eprintln!("Invalid command watch (command type or key is not provided)");
            return Ok(None);
        }
        Err(e) => return Err(Exit::arguments(e)),
    };
    match watched(&given, words) {
        Ok(watched) => Ok(Some(watched)),
        Err(exit) => {
            eprintln!("{}", exit.error.unwrap_or_default());
            Ok(None)
        }
    }
}

fn start(
    client: &Client,
    watched: Watched,
    display: Display,
    progress: &broadcast::Sender<()>,
    failures: &mpsc::Sender<Exit>,
) {
    let watch = client.watch(watched.request);
    let (progress, failures) = (progress.subscribe(), failures.clone());
    tokio::spawn(async move {
        if let Err(exit) = follow(watch, &watched.command, display, Some(progress)).await {
            // The first failure ends the program; later ones have nobody to tell.
            let _ = failures.try_send(exit);
        }
    });
}
