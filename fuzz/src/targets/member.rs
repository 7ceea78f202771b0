//! Whole members: what clients ask, what peers say, what a data directory holds.

use super::apply::{first_put, populated, requests};
use super::peers::{append, snapshot};
use super::ports::{decode, methods};
use super::world::{boot, disk, read, write};
use super::{EMPTY, named};
use crate::{Shape, Target};
use api::pb::etcdserverpb as pb;
use api::raft::{ConfChange, ConfChangeKind, Entry, EntryKind, Message, MessageType};
use bytes::Bytes;
use disk::SharedDisk;
use prost::Message as _;
use rpc::decoders::Decoded;
use server::{LogWriter, Member, Output, Request};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use store::watch::{Effect, Hub, Input, StreamId};

type Alive = (Member<u32>, LogWriter);

/// Lets the member work, and readers with it. Answers how many calls were answered.
fn work((member, log): &mut Alive, now_ms: u64) -> Result<usize, String> {
    member.tick(now_ms).and_then(|()| member.turn_with(log)).map_err(|e| e.to_string())?;
    let mut outputs = Vec::new();
    member.take_outputs(&mut outputs);
    let mut answered = 0;
    for output in outputs {
        match output {
            Output::Reply { result, .. } => {
                answered += 1;
                drop(named(result));
            }
            Output::Read { request, .. } => {
                answered += 1;
                drop(named(server::read::run(member.applied(), request, &|_| ())));
            }
            Output::Checkpoint(job) => {
                let done = job.run(&|_| ()).map_err(|e| e.to_string())?;
                member.checkpointed(now_ms, done).map_err(|e| e.to_string())?;
            }
            _ => {}
        }
    }
    drop(member.take_messages());
    Ok(answered)
}

// ---- clients ---------------------------------------------------------------------------------------------------

pub const REQUESTS: Target = Target {
    name: "requests",
    covers: &["rpc/methods.rs::everywhere", "store/validate.rs::check_txn", "server/member/admit.rs::admit"],
    shape: Shape::Proto(0),
    corpus: call_corpus,
    run: calls,
    ..EMPTY
};

/// A call: which of the methods, and its request.
#[derive(Clone, PartialEq, prost::Message)]
struct Call {
    #[prost(uint32, tag = "1")]
    method: u32,
    #[prost(bytes = "bytes", tag = "2")]
    request: Bytes,
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// A request of every method; where a member has to exist, it does not.
fn call_corpus() -> Vec<Vec<u8>> {
    let mut corpus = Vec::new();
    for (n, path) in (0..).zip(methods()) {
        let request = sample(path);
        corpus.push(Call { method: n, request: request.into() }.encode_to_vec());
    }
    corpus
}

fn sample(path: &str) -> Vec<u8> {
    let range = pb::RangeRequest { key: bytes("a"), range_end: bytes("z"), limit: 3, ..Default::default() };
    let put = pb::PutRequest { key: bytes("k"), value: bytes("v"), prev_kv: true, ..Default::default() };
    match path.rsplit('/').next().unwrap_or_default() {
        "Range" | "RangeStream" => range.encode_to_vec(),
        "Put" => put.encode_to_vec(),
        "DeleteRange" => pb::DeleteRangeRequest { key: bytes("k"), ..Default::default() }.encode_to_vec(),
        "Txn" => transaction(range, put).encode_to_vec(),
        "Compact" => pb::CompactionRequest { revision: 1, physical: true }.encode_to_vec(),
        "LeaseGrant" => pb::LeaseGrantRequest { ttl: 60, id: 6 }.encode_to_vec(),
        "LeaseRevoke" => pb::LeaseRevokeRequest { id: 5 }.encode_to_vec(),
        "LeaseTimeToLive" => pb::LeaseTimeToLiveRequest { id: 5, keys: true }.encode_to_vec(),
        "MemberAdd" => pb::MemberAddRequest { peer_ur_ls: vec!["http://b:1".into()], is_learner: true }.encode_to_vec(),
        "MemberRemove" | "MemberPromote" => pb::MemberRemoveRequest { id: 9 }.encode_to_vec(),
        "MemberUpdate" => pb::MemberUpdateRequest { id: 1, peer_ur_ls: vec!["http://c:1".into()] }.encode_to_vec(),
        "Alarm" => pb::AlarmRequest { action: 1, member_id: 1, alarm: 1 }.encode_to_vec(),
        "HashKV" => pb::HashKvRequest { revision: 1 }.encode_to_vec(),
        "MoveLeader" => pb::MoveLeaderRequest { target_id: 9 }.encode_to_vec(),
        "Downgrade" => pb::DowngradeRequest { action: 1, version: "3.6.0".into() }.encode_to_vec(),
        _ => Vec::new(),
    }
}

fn transaction(range: pb::RangeRequest, put: pb::PutRequest) -> pb::TxnRequest {
    use pb::request_op::Request as Op;
    let op = |request| pb::RequestOp { request: Some(request) };
    let compare = pb::Compare {
        key: bytes("k"),
        range_end: bytes("z"),
        target_union: Some(pb::compare::TargetUnion::Version(1)),
        ..Default::default()
    };
    let nested = pb::TxnRequest { success: vec![op(Op::RequestPut(put))], ..Default::default() };
    pb::TxnRequest {
        compare: vec![compare],
        success: vec![op(Op::RequestTxn(nested)), op(Op::RequestRange(range))],
        failure: vec![],
    }
}

/// A member that leads, with a key and a lease.
fn leading() -> Alive {
    let disk = disk();
    let mut alive = boot(&disk, 1, false).expect("a new member");
    let put = pb::PutRequest { key: bytes("k"), value: bytes("v"), ..Default::default() };
    let mut now_ms = 0;
    while alive.0.leader() == 0 {
        now_ms += 100;
        work(&mut alive, now_ms).expect("the disk has room");
        assert!(now_ms < 60_000, "a member alone leads");
    }
    alive.0.call(now_ms, 1, Request::Put(put));
    alive.0.call(now_ms, 2, Request::LeaseGrant(pb::LeaseGrantRequest { ttl: 60, id: 5 }));
    work(&mut alive, now_ms).expect("the disk has room");
    alive
}

/// Called twice on a member that leads, which goes on to serve.
fn calls(input: &[u8]) -> bool {
    let Ok(call) = Call::decode(input) else { return false };
    let path = &methods()[call.method as usize % methods().len()];
    let request = match decode(path, call.request) {
        None => return false,
        Some(Decoded::Served | Decoded::Stream) => return true,
        Some(Decoded::Request(request)) => request,
    };
    let mut alive = leading();
    let mut now_ms = 10_000;
    for ticket in 10..12 {
        alive.0.call(now_ms, ticket, (*request).clone());
        if named(work(&mut alive, now_ms)).is_none() {
            return false;
        }
        now_ms += 1000;
        if named(work(&mut alive, now_ms)).is_none() {
            return false;
        }
    }
    let put = pb::PutRequest { key: bytes("after"), ..Default::default() };
    alive.0.call(now_ms, 20, Request::Put(put));
    work(&mut alive, now_ms).is_ok()
}

// ---- watches ---------------------------------------------------------------------------------------------------

pub const WATCHES: Target = Target {
    name: "watches",
    covers: &["store/watch/hub.rs::create"],
    shape: Shape::Proto(0),
    corpus: watch_corpus,
    run: watches,
    ..EMPTY
};

/// Requests of one stream.
#[derive(Clone, PartialEq, prost::Message)]
struct Stream {
    #[prost(message, repeated, tag = "1")]
    requests: Vec<pb::WatchRequest>,
}

fn watch_corpus() -> Vec<Vec<u8>> {
    use pb::watch_request::RequestUnion as Union;
    let request = |union| pb::WatchRequest { request_union: Some(union) };
    let create = |key, range_end, start_revision, watch_id| {
        let create = pb::WatchCreateRequest {
            key: bytes(key),
            range_end: bytes(range_end),
            start_revision,
            watch_id,
            progress_notify: true,
            prev_kv: true,
            fragment: true,
            filters: vec![0],
        };
        request(Union::CreateRequest(create))
    };
    let cancel = request(Union::CancelRequest(pb::WatchCancelRequest { watch_id: 3 }));
    let progress = request(Union::ProgressRequest(pb::WatchProgressRequest {}));
    let requests = vec![create("a", "z", 1, 3), create("k", "", 0, 0), progress, create("", "\0", -1, 0), cancel];
    let one = Stream { requests: requests[..1].to_vec() };
    vec![Stream { requests }.encode_to_vec(), one.encode_to_vec()]
}

/// Asked of a hub that sees a put after each request; readers read what it wants read.
fn watches(input: &[u8]) -> bool {
    let Ok(stream) = Stream::decode(input) else { return false };
    let mut store = super::world::store();
    let mut hub = Hub::new(store::watch::Config {
        member_id: 1,
        cluster_id: 7,
        revision: 1,
        term: 1,
        max_request_bytes: 64 << 10,
        progress_interval_ms: 1000,
    });
    let mut effects = Vec::new();
    hub.handle(Input::Open { stream: StreamId(1), now_ms: 0, jitter_ms: 0 }, &mut effects);
    for (index, request) in (1..).zip(stream.requests) {
        hub.handle(Input::Request { stream: StreamId(1), request, permitted: Ok(()) }, &mut effects);
        store.apply(&super::world::entry(index, first_put())).expect("a put");
        let (applied, changes) = store.publish();
        hub.handle(Input::Published { revision: applied.revision(), term: 1, changes }, &mut effects);
        hub.handle(Input::Tick { now_ms: index * 500 }, &mut effects);
        settle(&mut hub, &applied, &mut effects);
    }
    true
}

fn settle(hub: &mut Hub, applied: &store::Applied, effects: &mut Vec<Effect>) {
    // A read brings at most one more: far fewer rounds than this.
    for _ in 0..10_000 {
        let batch = std::mem::take(effects);
        if batch.is_empty() {
            return;
        }
        for effect in batch {
            match effect {
                Effect::ReadHistory { job } => {
                    let read = job.run(applied).expect("history can be read");
                    hub.handle(Input::HistoryRead(read), effects);
                }
                Effect::Send { stream, .. } => hub.handle(Input::Credit { stream, n: 1 }, effects),
                Effect::SendBurst { stream, burst } => {
                    hub.handle(Input::Credit { stream, n: burst.count() }, effects);
                }
                Effect::WantPrev(_) => {}
            }
        }
    }
    panic!("the hub never rests");
}

// ---- peers -----------------------------------------------------------------------------------------------------

pub const STEPS: Target = Target {
    name: "raft-steps",
    covers: &["raft/leader.rs::conf_change", "server/member/peers.rs::receive"],
    shape: Shape::Proto(0),
    corpus: step_corpus,
    run: steps,
    ..EMPTY
};

/// What peers say, one after the other.
#[derive(Clone, PartialEq, prost::Message)]
struct Talk {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    messages: Vec<Bytes>,
}

fn talk(messages: &[Message]) -> Vec<u8> {
    Talk { messages: messages.iter().map(|message| message.encode().into()).collect() }.encode_to_vec()
}

fn put_at(index: u64) -> Entry {
    Entry { term: 3, ..super::world::entry(index, first_put()) }
}

/// Being led, voting, leading, receiving a database.
fn step_corpus() -> Vec<Vec<u8>> {
    use MessageType as T;
    let from = |kind, from, term| Message { kind, to: 1, from, term, ..Message::default() };
    let first = Message { log_term: 1, commit: 3, ..append(3, vec![put_at(4), put_at(5)]) };
    let vote = Message { index: 9, log_term: 2, ..from(T::MsgVote, 3, 4) };
    let elected = [2, 3].map(|peer| from(T::MsgVoteResp, peer, 2));
    let answered = Message { index: 4, ..from(T::MsgAppResp, 2, 2) };
    let mut database = snapshot();
    database.metadata.index = requests().len() as u64 + 1;
    let image = Message { snapshot: Some(database), ..from(T::MsgSnap, 2, 3) };
    let change = ConfChange { id: 7, kind: ConfChangeKind::AddLearnerNode, node_id: 9, context: bytes("{}") };
    let change = Entry { kind: EntryKind::ConfChange, data: change.encode().into(), ..Entry::default() };
    let proposed = Message { entries: vec![put_at(0), change], ..from(T::MsgProp, 2, 0) };
    vec![
        talk(&[first, Message { commit: 4, ..from(T::MsgHeartbeat, 2, 3) }]),
        talk(&[from(T::MsgPreVote, 2, 2), vote, from(T::MsgTimeoutNow, 2, 4)]),
        talk(&[from(T::MsgTimeoutNow, 2, 1), elected[0].clone(), elected[1].clone(), proposed, answered]),
        talk(&[image, from(T::MsgHeartbeat, 2, 3)]),
        talk(&[from(T::MsgProp, 2, 0), from(T::MsgReadIndex, 2, 0), from(T::MsgTransferLeader, 2, 0)]),
    ]
}

/// Time passes between the messages.
fn steps(input: &[u8]) -> bool {
    let Ok(talk) = Talk::decode(input) else { return false };
    let disk = disk();
    let mut alive = boot(&disk, 3, false).expect("a new member");
    // The transport stores an image before it hands its message on.
    let image = Path::new("/data/member/snap").join(server::member::image_name(requests().len() as u64 + 1));
    write(&disk, &image, populated());
    let mut now_ms = 100;
    let mut understood = false;
    for message in talk.messages {
        let Ok(message) = Message::decode(message) else { continue };
        understood = true;
        alive.0.receive(message);
        if named(work(&mut alive, now_ms)).is_none() {
            return false;
        }
        now_ms += 300;
    }
    understood
}

// ---- data directories ------------------------------------------------------------------------------------------

pub const BOOT: Target = Target {
    name: "boot",
    covers: &["server/member/boot.rs::identity", "server/member/force.rs::take"],
    corpus: || vec![directory().log.clone()],
    mend: Some(super::files::mend_records),
    run: booted,
    ..EMPTY
};

const DATABASE: &str = "/data/member/snap/db";
const SEGMENT: &str = "/data/member/wal/0000000000000000-0000000000000000.wal";

/// What a stopped member leaves.
struct Directory {
    database: Vec<u8>,
    snaps: Vec<(PathBuf, Vec<u8>)>,
    /// Without the room behind it.
    log: Vec<u8>,
}

fn directory() -> &'static Directory {
    static FILES: LazyLock<Directory> = LazyLock::new(|| {
        let disk = disk();
        let mut alive = boot(&disk, 3, false).expect("a new member");
        let lead = append(3, vec![put_at(4), put_at(5)]);
        let lead = Message { log_term: 1, commit: 5, ..lead };
        for now_ms in [100, 200] {
            alive.0.receive(lead.clone());
            work(&mut alive, now_ms).expect("room");
        }
        let (member, log) = alive;
        member.stop(log, &mut Vec::new()).expect("room");
        let mut log = read(&disk, Path::new(SEGMENT));
        log.truncate(log.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1).next_multiple_of(8));
        Directory { database: read(&disk, Path::new(DATABASE)), snaps: snaps(&disk), log }
    });
    &FILES
}

fn snaps(disk: &SharedDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new("/data/member/snap");
    let names = disk.read_dir(folder).expect("a folder");
    let names = names.into_iter().filter(|name| name.ends_with(".snap"));
    names.map(|name| folder.join(name)).map(|path| (path.clone(), read(disk, &path))).collect()
}

/// A start on this log, with the database and without, alone and not; who comes up works, stops, and comes up again.
fn booted(input: &[u8]) -> bool {
    let mut understood = false;
    for (database, force) in [(true, false), (true, true), (false, false)] {
        let Directory { database: db, snaps, .. } = directory();
        let disk = disk();
        write(&disk, Path::new(SEGMENT), input);
        if database {
            write(&disk, Path::new(DATABASE), db);
            snaps.iter().for_each(|(path, bytes)| write(&disk, path, bytes));
        }
        let Some(mut alive) = named(boot(&disk, 3, force)) else { continue };
        let worked = (1..20).try_for_each(|n| work(&mut alive, n * 200).map(drop));
        let (member, log) = alive;
        if named(worked).is_none() || named(member.stop(log, &mut Vec::new())).is_none() {
            continue;
        }
        understood = true;
        boot(&disk, 3, false).map(drop).expect("who stopped well comes up again");
    }
    understood
}
