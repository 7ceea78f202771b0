//! Watch delivery: watchers on keys, puts to those keys, every event counted and checked.
//!
//! Each put's value begins with its number, so an event tells which put it belongs to and its delivery time is from the
//! sending of that put (in an open loop: from when it was due). An event must be of its watcher's key and newer than the
//! watcher's last; at the end each watcher must have had exactly its key's puts.
//!
//! Puts and watchers share one thread: delivery times need one clock, and the load has one core.

use crate::pacer::{Alarm, Pace, Pacer};
use crate::procs;
use crate::runner::{refused, runtime};
use crate::samples::Samples;
use crate::skim;
use crate::wire::{Conn, Failure, Receiver, Rpc, Target, frame};
use crate::workloads::kv::malformed;
use api::pb::etcdserverpb as pb;
use api::pb::etcdserverpb::watch_request::RequestUnion;
use bytes::{BufMut, Bytes, BytesMut};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;

/// How long the last events may take after the last put.
const PATIENCE: Duration = Duration::from_secs(60);
const CHECK: Duration = Duration::from_millis(1);
/// Bytes of a put's number in its value.
const NUMBER: usize = 8;

/// From when an event's time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The sending of its put.
    Sent,
    /// The answer to its put; zero where the event came first (`watch-latency`).
    Answered,
}

/// What to watch and to put.
#[derive(Clone, Debug)]
pub struct Plan {
    pub target: Target,
    pub conns: usize,
    pub streams: usize,
    pub watchers_per_stream: usize,
    /// Watcher i watches key i mod keys; put i goes to key i mod keys.
    pub keys: Vec<Bytes>,
    pub prev_kv: bool,
    pub value_size: usize,
    pub put_clients: usize,
    pub puts: Option<u64>,
    pub duration: Option<Duration>,
    pub pace: Pace,
    pub origin: Origin,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub creation: Samples,
    pub creation_took: Duration,
    pub puts: Samples,
    pub events: Samples,
    /// From the first put to the last event.
    pub took: Duration,
    pub own_cpu: Duration,
}

/// A put, by its number.
#[derive(Clone, Copy, Debug)]
struct Sent {
    from: Instant,
    answered: Option<Instant>,
}

/// What all tasks write on.
#[derive(Debug)]
struct Board {
    keys: Vec<Bytes>,
    origin: Origin,
    sent: RefCell<Vec<Option<Sent>>>,
    puts_of_key: RefCell<Vec<u64>>,
    creation: RefCell<Samples>,
    puts: RefCell<Samples>,
    events: RefCell<Samples>,
    last_event: Cell<Option<Instant>>,
}

/// One watcher of a stream.
#[derive(Clone, Debug)]
struct Watcher {
    key: usize,
    last_revision: i64,
    seen: u64,
}

type Watchers = Rc<RefCell<Vec<Watcher>>>;

/// Runs the plan to its end.
pub fn run(plan: &Plan) -> io::Result<Outcome> {
    let runtime = runtime()?;
    let local = LocalSet::new();
    runtime.block_on(local.run_until(deliver(plan)))
}

async fn deliver(plan: &Plan) -> io::Result<Outcome> {
    let board = Rc::new(Board::new(plan));
    let mut conns = Vec::new();
    for _ in 0..plan.conns.max(1) {
        conns.push(Conn::open(&plan.target).await.map_err(refused)?);
    }
    let start = Instant::now();
    let mut streams = JoinSet::new();
    let mut all = Vec::new();
    for number in 0..plan.streams {
        let conn = &mut conns[number % plan.conns.max(1)];
        all.push(open_stream(plan, number, conn, &board, &mut streams).await.map_err(refused)?);
    }
    let creation_took = start.elapsed();
    let (cpu, start) = (procs::own_cpu(), Instant::now());
    put_all(plan, &conns, &board).await?;
    wait_for_events(&board, &all).await;
    let own_cpu = procs::own_cpu().saturating_sub(cpu);
    streams.shutdown().await;
    board.count_missing(&all);
    let took = board.last_event.get().map_or_else(|| start.elapsed(), |last| last - start);
    Ok(Outcome {
        creation: board.creation.take(),
        creation_took,
        puts: board.puts.take(),
        events: board.events.take(),
        took,
        own_cpu,
    })
}

/// Opens a stream and makes its watchers, one after another; a task reads its events from then on.
async fn open_stream(
    plan: &Plan,
    number: usize,
    conn: &mut Conn,
    board: &Rc<Board>,
    tasks: &mut JoinSet<()>,
) -> Result<Watchers, Failure> {
    let mut call = conn.stream(Rpc::Watch).await?;
    let mut watchers = Vec::new();
    for place in 0..plan.watchers_per_stream {
        let key = (number * plan.watchers_per_stream + place) % plan.keys.len().max(1);
        let start = Instant::now();
        call.sender.send(create(&plan.keys[key], place as i64 + 1, 0, plan.prev_kv))?;
        let answer = call.receiver.next().await?.ok_or_else(malformed)?;
        let seen = skim::watch(&answer, |_, _| {}).ok_or_else(malformed)?;
        if !seen.created || seen.canceled {
            return Err(Failure::Wrong(format!(
                "watcher not created: {}",
                String::from_utf8_lossy(seen.cancel_reason)
            )));
        }
        board.creation.borrow_mut().add(start.elapsed());
        watchers.push(Watcher { key, last_revision: seen.revision, seen: 0 });
    }
    let watchers = Rc::new(RefCell::new(watchers));
    let (board, mine) = (board.clone(), watchers.clone());
    tasks.spawn_local(async move {
        // Dropping the sender would cancel the stream.
        let _sender = call.sender;
        board.receive(call.receiver, &mine).await;
    });
    Ok(watchers)
}

/// The framed request for a watcher of one key, from `start_revision` on (0: from now).
pub fn create(key: &Bytes, watch_id: i64, start_revision: i64, prev_kv: bool) -> Bytes {
    let create = pb::WatchCreateRequest { key: key.clone(), watch_id, start_revision, prev_kv, ..Default::default() };
    framed(create)
}

/// Any watch request, framed.
pub fn framed(create: pb::WatchCreateRequest) -> Bytes {
    frame(&pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) })
}

async fn put_all(plan: &Plan, conns: &[Conn], board: &Rc<Board>) -> io::Result<()> {
    let mut alarm = Alarm::precise()?;
    let start = Instant::now();
    let pacer = Rc::new(Pacer::new(plan.pace, start));
    let issued = Rc::new(Cell::new(0));
    let mut workers = JoinSet::new();
    for id in 0..plan.put_clients.max(1) {
        let conn = conns[id % conns.len()].clone();
        let job = Putter { board: board.clone(), issued: issued.clone(), puts: plan.puts, value_size: plan.value_size };
        workers.spawn_local(job.work(conn, pacer.clone()));
    }
    let end = plan.duration.map(|duration| start + duration);
    tokio::select! {
        biased;
        () = pacer.tick(&mut alarm, end) => {}
        () = async { while workers.join_next().await.is_some() {} } => {}
    }
    Ok(())
}

/// One client that puts.
struct Putter {
    board: Rc<Board>,
    issued: Rc<Cell<u64>>,
    puts: Option<u64>,
    value_size: usize,
}

impl Putter {
    async fn work(self, mut conn: Conn, pacer: Rc<Pacer>) {
        while let Some(from) = pacer.turn().await {
            let number = self.issued.get();
            if self.puts.is_some_and(|puts| number >= puts) {
                pacer.close();
                return;
            }
            self.issued.set(number + 1);
            let framed = self.request(number);
            self.board.note_sent(number, from);
            let answer = conn.unary(Rpc::Put, framed).await;
            let broken = answer.as_ref().is_err_and(Failure::is_transport);
            self.board.note_answer(number, from, answer.map(|_| ()));
            if broken {
                return;
            }
        }
    }

    fn request(&self, number: u64) -> Bytes {
        let mut value = BytesMut::zeroed(self.value_size.max(NUMBER));
        (&mut value[..NUMBER]).put_u64_le(number);
        let key = self.board.keys[self.board.key_of(number)].clone();
        frame(&pb::PutRequest { key, value: value.freeze(), ..pb::PutRequest::default() })
    }
}

async fn wait_for_events(board: &Board, all: &[Watchers]) {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline && board.missing(all) > 0 {
        tokio::time::sleep(CHECK).await;
    }
}

impl Board {
    fn new(plan: &Plan) -> Board {
        Board {
            keys: plan.keys.clone(),
            origin: plan.origin,
            sent: RefCell::default(),
            puts_of_key: RefCell::new(vec![0; plan.keys.len()]),
            creation: RefCell::default(),
            puts: RefCell::default(),
            events: RefCell::default(),
            last_event: Cell::new(None),
        }
    }

    fn key_of(&self, number: u64) -> usize {
        (number % self.keys.len().max(1) as u64) as usize
    }

    fn note_sent(&self, number: u64, from: Instant) {
        let mut sent = self.sent.borrow_mut();
        let place = number as usize;
        if sent.len() <= place {
            sent.resize(place + 1, None);
        }
        sent[place] = Some(Sent { from, answered: None });
    }

    fn note_answer(&self, number: u64, from: Instant, result: Result<(), Failure>) {
        match result {
            Ok(()) => {
                self.puts.borrow_mut().add(from.elapsed());
                self.puts_of_key.borrow_mut()[self.key_of(number)] += 1;
                if let Some(Some(sent)) = self.sent.borrow_mut().get_mut(number as usize) {
                    sent.answered = Some(Instant::now());
                }
            }
            Err(failure) => self.puts.borrow_mut().fail(failure.to_string()),
        }
    }

    async fn receive(&self, mut receiver: Receiver, watchers: &Watchers) {
        loop {
            let answer = match receiver.next().await {
                Ok(Some(answer)) => answer,
                Ok(None) => return self.fail("the watch stream ended".to_owned()),
                Err(failure) => return self.fail(failure.to_string()),
            };
            if let Err(failure) = self.read(&answer, &mut watchers.borrow_mut()) {
                self.fail(failure.to_string());
            }
        }
    }

    fn fail(&self, text: String) {
        self.events.borrow_mut().fail(text);
    }

    fn read(&self, answer: &[u8], watchers: &mut [Watcher]) -> Result<(), Failure> {
        let now = Instant::now();
        let mut checked = Ok(());
        let seen = skim::watch(answer, |seen, pair| {
            let place = usize::try_from(seen.watch_id - 1).ok();
            let event = match place.and_then(|place| watchers.get_mut(place)) {
                Some(watcher) => self.event(watcher, &pair, now),
                None => Err(Failure::Wrong("an event of no watcher".to_owned())),
            };
            if event.is_err() {
                checked = event;
            }
        });
        let seen = seen.ok_or_else(malformed)?;
        if seen.canceled {
            return Err(Failure::Wrong(format!("canceled: {}", String::from_utf8_lossy(seen.cancel_reason))));
        }
        self.last_event.set(Some(now));
        checked
    }

    fn event(&self, watcher: &mut Watcher, pair: &skim::Pair<'_>, now: Instant) -> Result<(), Failure> {
        if pair.key != self.keys[watcher.key] {
            return Err(Failure::Wrong("an event of another key".to_owned()));
        }
        if pair.mod_revision <= watcher.last_revision {
            return Err(Failure::Wrong("an event out of order".to_owned()));
        }
        watcher.last_revision = pair.mod_revision;
        watcher.seen += 1;
        let number = pair.value.first_chunk::<NUMBER>().map(|bytes| u64::from_le_bytes(*bytes));
        let sent = number.and_then(|number| self.sent.borrow().get(number as usize).copied().flatten());
        let sent = sent.ok_or_else(|| Failure::Wrong("an event of no put".to_owned()))?;
        let from = match self.origin {
            Origin::Sent => sent.from,
            Origin::Answered => sent.answered.unwrap_or(now),
        };
        self.events.borrow_mut().add(now.saturating_duration_since(from));
        Ok(())
    }

    fn missing(&self, all: &[Watchers]) -> u64 {
        let puts = self.puts_of_key.borrow();
        let missing = |watcher: &Watcher| puts[watcher.key].saturating_sub(watcher.seen);
        all.iter().map(|watchers| watchers.borrow().iter().map(missing).sum::<u64>()).sum()
    }

    fn count_missing(&self, all: &[Watchers]) {
        self.events.borrow_mut().fail_many("event missing".to_owned(), self.missing(all));
    }
}

/// `keys` without those that come twice: two watched keys that are the same are one.
pub fn distinct(keys: Vec<Bytes>) -> Vec<Bytes> {
    let mut places = BTreeMap::new();
    keys.into_iter().filter(|key| places.insert(key.clone(), ()).is_none()).collect()
}
