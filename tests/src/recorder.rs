//! Clients that read and write a few keys concurrently through all members, and write down what they were told.
//!
//! What they write down is judged by [`crate::linear`]; [`judge`] also compares it with the store's own events. An error
//! leaves open whether a write happened, unless it says that nothing was proposed ([`was_not_proposed`]).

use crate::ask::{self, Op};
use crate::cluster::Seats;
use crate::linear::{Call, Content, Expected, Judged, Operation, Outcome, check, check_log};
use crate::rng::Rng;
use crate::wire::Wire;
use api::pb::etcdserverpb as pb;
use api::pb::mvccpb::KeyValue;
use prost::Message as _;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::{Code, Status};

/// Before all keys of these clients.
const PREFIX: &str = "r/";
/// How long a client waits before it goes elsewhere after an error.
const BACK_OFF: Duration = Duration::from_millis(20);

/// What the clients do.
#[derive(Clone, Debug)]
pub struct Habits {
    pub seed: u64,
    pub clients: u64,
    pub keys: u64,
    /// Between an answer and the next request.
    pub pause: Duration,
    /// How long an answer may take.
    pub patience: Duration,
    /// How long a call that was not proposed is tried again, at other members. Past it the test fails. `None`: not at all.
    pub insist: Option<Duration>,
}

impl Default for Habits {
    fn default() -> Habits {
        Habits {
            seed: 1,
            clients: 6,
            keys: 5,
            pause: Duration::from_millis(2),
            patience: Duration::from_millis(1500),
            insist: None,
        }
    }
}

/// Clients at work.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    clients: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    habits: Habits,
    started: Instant,
    urls: Mutex<Vec<String>>,
    book: Mutex<Book>,
    /// How many writes were acknowledged.
    acknowledged: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Book {
    operations: Vec<Operation>,
    last_value: u64,
    errors: BTreeMap<String, u64>,
}

/// What the clients wrote down.
#[derive(Debug)]
pub struct Record {
    pub operations: Vec<Operation>,
    /// How often each error came.
    pub errors: BTreeMap<String, u64>,
}

impl Recorder {
    /// Starts the clients.
    pub fn start(habits: Habits, urls: Vec<String>) -> Recorder {
        let (stop, stopped) = watch::channel(false);
        let clients = habits.clients;
        let shared = Arc::new(Shared {
            habits,
            started: Instant::now(),
            urls: Mutex::new(urls),
            book: Mutex::new(Book::default()),
            acknowledged: watch::Sender::new(0),
        });
        let mut tasks = JoinSet::new();
        for number in 0..clients {
            tasks.spawn(Client::new(shared.clone(), number).work(stopped.clone()));
        }
        Recorder { shared, stop, clients: tasks }
    }

    /// From now on clients go to these members.
    pub fn redirect(&self, urls: Vec<String>) {
        *lock(&self.shared.urls) = urls;
    }

    /// Waits until `more` writes that were asked for after now are acknowledged; answers when the first of them was.
    ///
    /// # Errors
    /// They are not, in time.
    pub async fn progress(&self, more: usize, patience: Duration) -> Result<Instant, String> {
        let (from, began) = (nanos(&self.shared), Instant::now());
        let mut count = self.shared.acknowledged.subscribe();
        let waiting = async {
            loop {
                if let Some(first) = self.shared.first_of(more, from) {
                    return first;
                }
                count.changed().await.expect("the sender is held here");
            }
        };
        let done = tokio::time::timeout(patience, waiting).await;
        let first =
            done.map_err(|_| format!("no {more} writes within {patience:?}; errors so far: {:?}", self.errors()))?;
        Ok(began + Duration::from_nanos(first - from))
    }

    /// How often each error came so far.
    pub fn errors(&self) -> BTreeMap<String, u64> {
        lock(&self.shared.book).errors.clone()
    }

    /// Stops the clients; answers what they wrote down.
    pub async fn end(mut self) -> Record {
        self.stop.send_replace(true);
        while let Some(done) = self.clients.join_next().await {
            done.unwrap_or_else(|e| panic!("a client: {e}"));
        }
        let book = std::mem::take(&mut *lock(&self.shared.book));
        Record { operations: book.operations, errors: book.errors }
    }
}

impl Shared {
    /// When the first of `more` writes that began after `from` was answered.
    fn first_of(&self, more: usize, from: u64) -> Option<u64> {
        let book = lock(&self.book);
        let later = |o: &&Operation| o.from > from && matches!(o.outcome, Outcome::Written { .. });
        let recent = book.operations.iter().rev().take_while(|o| o.till > from).filter(later);
        let answers: Vec<u64> = recent.map(|o| o.till).collect();
        (answers.len() >= more).then(|| answers.into_iter().min()).flatten()
    }

    fn next_value(&self) -> u64 {
        let mut book = lock(&self.book);
        book.last_value += 1;
        book.last_value
    }

    fn note(&self, key: &str, call: Call, from: u64, answer: &Result<Outcome, Status>) {
        let outcome = answer.clone().unwrap_or(Outcome::Unknown);
        let mut book = lock(&self.book);
        let till = nanos(self);
        if let Err(error) = answer {
            *book.errors.entry(plain(error)).or_default() += 1;
        }
        // What was not proposed did not happen; a read without an answer says nothing.
        let nothing = call == Call::Get && answer.is_err() || answer.as_ref().is_err_and(was_not_proposed);
        if !nothing {
            book.operations.push(Operation { key: key.to_owned(), call, from, till, outcome });
        }
        drop(book);
        if matches!(outcome, Outcome::Written { .. }) {
            self.acknowledged.send_modify(|count| *count += 1);
        }
    }
}

fn nanos(shared: &Shared) -> u64 {
    u64::try_from(shared.started.elapsed().as_nanos()).expect("a test does not last 500 years")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}

/// An error without addresses.
fn plain(error: &Status) -> String {
    format!("{:?}: {}", error.code(), error.message())
}

/// The member says, or the connection shows, that the request was not proposed.
pub fn was_not_proposed(error: &Status) -> bool {
    let said = ["etcdserver: no leader", "etcdserver: too many requests", "raft proposal dropped"];
    said.iter().any(|text| error.message().contains(text)) || was_not_sent(error)
}

/// There was no connection to send it on.
fn was_not_sent(error: &Status) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.to_string().contains("tcp connect error") || cause.to_string().contains("tcp open error") {
            return true;
        }
        source = cause.source();
    }
    error.code() == Code::Unavailable && error.message().starts_with("not ready: ")
}

struct Client {
    shared: Arc<Shared>,
    rng: Rng,
    url: String,
    wires: BTreeMap<String, Wire>,
    /// What it saw last.
    seen: BTreeMap<String, Option<Content>>,
}

impl Client {
    fn new(shared: Arc<Shared>, number: u64) -> Client {
        let rng = Rng::new(shared.habits.seed ^ (number + 1) << 40);
        let mut client = Client { shared, rng, url: String::new(), wires: BTreeMap::new(), seen: BTreeMap::new() };
        client.go_elsewhere();
        client
    }

    async fn work(mut self, stopped: watch::Receiver<bool>) {
        while !*stopped.borrow() {
            let key = format!("{PREFIX}{}", self.rng.below(self.shared.habits.keys));
            let call = self.next_call(&key);
            self.perform(&key, call, &stopped).await;
            if self.rng.one_in(50) {
                self.go_elsewhere();
            }
            tokio::time::sleep(self.shared.habits.pause).await;
        }
    }

    fn next_call(&mut self, key: &str) -> Call {
        match self.rng.below(10) {
            0..4 => Call::Get,
            4..7 => Call::Put(self.shared.next_value()),
            n => {
                let seen = self.seen.get(key).copied().flatten();
                let by_value = Expected::Value(seen.map(|content| content.value));
                let by_revision = Expected::Revision(seen.map_or(0, |content| content.revision));
                let expected = if n == 7 && seen.is_some() { by_value } else { by_revision };
                Call::Swap { expected, new: self.shared.next_value() }
            }
        }
    }

    /// Asks, maybe several members, until it is answered or open.
    async fn perform(&mut self, key: &str, call: Call, stopped: &watch::Receiver<bool>) {
        let began = Instant::now();
        loop {
            let from = nanos(&self.shared);
            let answer = self.send(key, call).await;
            self.shared.note(key, call, from, &answer);
            let error = match answer {
                Ok(outcome) => return self.remember(key, call, outcome),
                Err(error) => error,
            };
            self.go_elsewhere();
            tokio::time::sleep(BACK_OFF).await;
            let again = call == Call::Get || was_not_proposed(&error);
            let Some(insist) = self.shared.habits.insist.filter(|_| again && !*stopped.borrow()) else { return };
            assert!(began.elapsed() < insist, "{call:?} of {key} finds nobody for {insist:?}: {error:?}");
        }
    }

    fn remember(&mut self, key: &str, call: Call, outcome: Outcome) {
        let content = match (outcome, call) {
            (Outcome::Read { found, .. }, _) => found,
            (Outcome::Written { revision }, Call::Put(value) | Call::Swap { new: value, .. }) => {
                Some(Content { value, revision })
            }
            _ => None,
        };
        self.seen.insert(key.to_owned(), content);
    }

    fn go_elsewhere(&mut self) {
        self.url = self.rng.pick(&lock(&self.shared.urls)).clone();
    }

    async fn send(&mut self, key: &str, call: Call) -> Result<Outcome, Status> {
        let connect = || Wire::lazy(&self.url, self.shared.habits.patience);
        let wire = self.wires.entry(self.url.clone()).or_insert_with(connect);
        send(wire, key, call, false).await
    }
}

/// One call. A serializable get asks one member what it has, which may be old.
///
/// # Errors
/// What the member says, or its silence.
pub async fn send(wire: &Wire, key: &str, call: Call, serializable: bool) -> Result<Outcome, Status> {
    match call {
        Call::Get => {
            let request = pb::RangeRequest { serializable, ..ask::get(key) };
            wire.unary(ask::RANGE, &request).await.map(|answer| read(&answer))
        }
        Call::Put(value) => {
            let answer: pb::PutResponse = wire.unary(ask::PUT, &ask::put(key, &text_of(value))).await?;
            Ok(Outcome::Written { revision: answer.header.map_or(0, |header| header.revision) })
        }
        Call::Swap { expected, new } => {
            wire.unary(ask::TXN, &swap(key, expected, new)).await.map(|answer| swapped(&answer))
        }
    }
}

/// A value has a hundred bytes.
fn text_of(value: u64) -> String {
    format!("{value:0100}")
}

fn swap(key: &str, expected: Expected, new: u64) -> pb::TxnRequest {
    let found = match expected {
        Expected::Value(None) => ask::absent(key),
        Expected::Value(Some(value)) => ask::value_is(key, &text_of(value)),
        Expected::Revision(revision) => {
            ask::comparison(key, 2, 0, Some(pb::compare::TargetUnion::ModRevision(revision)))
        }
    };
    ask::txn(vec![found], vec![ask::put(key, &text_of(new)).op()], vec![ask::get(key).op()])
}

fn swapped(answer: &pb::TxnResponse) -> Outcome {
    let revision = answer.header.as_ref().map_or(0, |header| header.revision);
    match answer.responses.first().and_then(|response| response.response.as_ref()) {
        Some(pb::response_op::Response::ResponseRange(range)) if !answer.succeeded => {
            Outcome::Read { found: range.kvs.first().map(content), revision }
        }
        _ => Outcome::Written { revision },
    }
}

fn read(answer: &pb::RangeResponse) -> Outcome {
    let revision = answer.header.as_ref().map_or(0, |header| header.revision);
    Outcome::Read { found: answer.kvs.first().map(content), revision }
}

fn content(kv: &KeyValue) -> Content {
    let value = std::str::from_utf8(&kv.value).ok().and_then(|text| text.parse().ok());
    let value = value.unwrap_or_else(|| panic!("no value of ours: {kv:?}"));
    Content { value, revision: kv.mod_revision }
}

/// All writes of these clients that a store holds, from its own history: `(revision, key, value)`.
pub async fn events(url: &str) -> Vec<(i64, String, u64)> {
    let wire = Wire::connect(url).await;
    let everything: pb::RangeResponse = wire.unary(ask::RANGE, &ask::everything()).await.expect("a range is answered");
    let newest =
        everything.kvs.iter().filter(|kv| kv.key.starts_with(PREFIX.as_bytes())).map(|kv| kv.mod_revision).max();
    let request = pb::WatchCreateRequest { start_revision: 1, ..ask::watch(PREFIX, &ask::prefix_end(PREFIX)) };
    let mut stream = wire.stream(ask::WATCH, ask::create(request).encode_to_vec().into(), &[]);
    let mut all: Vec<(i64, String, u64)> = Vec::new();
    while all.last().map(|event| event.0) < newest {
        let response: pb::WatchResponse = stream.next().await.expect("it goes on").expect("it does not end");
        assert!(!response.canceled, "{response:?}");
        for kv in response.events.into_iter().filter_map(|event| event.kv) {
            all.push((kv.mod_revision, String::from_utf8_lossy(&kv.key).into_owned(), content(&kv).value));
        }
    }
    all
}

/// All members agree, the answers can be those of one store, and each acknowledged write is in it.
pub async fn judge(seats: &Seats, record: &Record) -> Judged {
    seats.agree().await;
    let judged = check(&record.operations).unwrap_or_else(|e| panic!("not linearizable: {e}"));
    for n in seats.running() {
        let events = events(&seats.url(n)).await;
        check_log(&record.operations, &events).unwrap_or_else(|e| panic!("by the events of member {n}: {e}"));
    }
    judged
}
