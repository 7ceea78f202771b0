//! What a leasing client owns and knows: a state machine without IO.
//!
//! A value is kept of an owned key only, and only if nobody can have changed it since it was read:
//! * Whoever else writes the key first takes it away ([`Owned::lose`]).
//! * While a write of our own is under way, nothing is kept ([`Owned::begin_write`]): its moment is not known.
//! * A write of which nobody knows whether it was done, or is still to come, ends the ownership: its guard then fails, once
//!   somebody (we, too) owns the key anew.

use api::pb::etcdserverpb as pb;
use api::pb::mvccpb::KeyValue;
use bytes::Bytes;
use std::collections::BTreeMap;
use tokio::time::{Duration, Instant};

/// How long a key is left to whoever wanted it (clientv3 `revokeBackoff`).
const BACKOFF: Duration = Duration::from_secs(2);

/// What a client may keep. Past either, what was not read for longest is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub keys: usize,
    pub bytes: usize,
}

/// A value at a revision; no value: there is no such key.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    pub header: pb::ResponseHeader,
    pub kv: Option<KeyValue>,
}

#[derive(Debug)]
struct Entry {
    /// Tells this ownership from earlier ones of the same key.
    id: u64,
    /// Our leasing key was created at this revision or before, and every later owner's behind it.
    revision: i64,
    /// Writes of our own under way, and how many ever began.
    writing: usize,
    begun: u64,
    known: Option<Known>,
    /// It is being given back: nothing is kept any more.
    is_leaving: bool,
    used: u64,
}

/// A key that is being read in order to own it.
#[derive(Debug, Default)]
struct Reading {
    readers: usize,
    /// The newest revision at which it was taken away meanwhile.
    lost_at: i64,
}

/// A read under way.
#[derive(Debug)]
pub struct ReadTicket {
    key: Bytes,
    session: u64,
    /// The ownership it refreshes, and how many writes had begun; `None` where one was under way.
    refreshes: Option<(u64, Option<u64>)>,
}

/// A write under way.
#[derive(Debug, Default)]
pub struct WriteTicket {
    /// Ownerships it writes below, and how many writes had begun with it; `None` where it was not alone.
    touched: Vec<(Bytes, u64, Option<u64>)>,
}

/// A key to be given back: the leasing key created at this revision or before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaving {
    pub key: Bytes,
    pub revision: i64,
}

/// All that one client owns.
#[derive(Debug)]
pub struct Owned {
    limits: Limits,
    entries: BTreeMap<Bytes, Entry>,
    /// Keys by when they were read last.
    by_use: BTreeMap<u64, Bytes>,
    bytes: usize,
    reading: BTreeMap<Bytes, Reading>,
    /// Keys that others wanted, until when they are left to them.
    wanted: BTreeMap<Bytes, Instant>,
    session: u64,
    ids: u64,
    uses: u64,
}

fn size(key: &Bytes, known: &Option<Known>) -> usize {
    key.len() + known.as_ref().and_then(|known| known.kv.as_ref()).map_or(0, |kv| kv.key.len() + kv.value.len())
}

impl Owned {
    pub fn new(limits: Limits) -> Owned {
        let (entries, by_use, reading, wanted) = Default::default();
        Owned { limits, entries, by_use, bytes: 0, reading, wanted, session: 0, ids: 0, uses: 0 }
    }

    /// Forgets all: the session is over, and others may own what was ours.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.by_use.clear();
        self.bytes = 0;
        self.session += 1;
    }

    /// The value of a key, if it is known.
    pub fn known(&mut self, key: &Bytes) -> Option<&Known> {
        let entry = self.entries.get_mut(key)?;
        entry.known.as_ref()?;
        self.uses += 1;
        self.by_use.remove(&entry.used);
        entry.used = self.uses;
        self.by_use.insert(entry.used, key.clone());
        entry.known.as_ref()
    }

    /// Up to which revision a leasing key is ours; 0: it is not.
    pub fn revision(&self, key: &Bytes) -> i64 {
        self.entries.get(key).map_or(0, |entry| entry.revision)
    }

    /// A key will be asked for in order to own it; `None`: it may not be now.
    pub fn begin_read(&mut self, key: &Bytes, now: Instant) -> Option<ReadTicket> {
        if self.wanted.get(key).is_some_and(|until| now < *until) {
            return None;
        }
        let entry = self.entries.get(key);
        if entry.is_some_and(|entry| entry.is_leaving) {
            return None;
        }
        let refreshes = entry.map(|entry| (entry.id, Some(entry.begun).filter(|_| entry.writing == 0)));
        self.reading.entry(key.clone()).or_default().readers += 1;
        Some(ReadTicket { key: key.clone(), session: self.session, refreshes })
    }

    /// The read is over. `known`: the leasing key is ours at the revision of this answer. Answers what has to be given back
    /// in exchange.
    pub fn end_read(&mut self, ticket: ReadTicket, known: Option<Known>) -> Vec<Leaving> {
        let lost_at = self.end_reading(&ticket.key);
        let Some(known) = known.filter(|known| known.header.revision > lost_at) else { return Vec::new() };
        if ticket.session != self.session {
            return Vec::new();
        }
        let revision = known.header.revision;
        match (self.entries.get_mut(&ticket.key), ticket.refreshes) {
            (Some(entry), Some((id, begun))) if entry.id == id && !entry.is_leaving => {
                if entry.writing == 0 && begun == Some(entry.begun) {
                    entry.revision = entry.revision.max(revision);
                    self.learn(&ticket.key, known);
                }
            }
            // Somebody else's read was first, or what it should refresh is gone.
            (Some(_), _) | (None, Some(_)) => {}
            (None, None) => self.insert(ticket.key, known),
        }
        self.shrink()
    }

    fn end_reading(&mut self, key: &Bytes) -> i64 {
        let Some(reading) = self.reading.get_mut(key) else { return 0 };
        let lost_at = reading.lost_at;
        reading.readers -= 1;
        if reading.readers == 0 {
            self.reading.remove(key);
        }
        lost_at
    }

    fn insert(&mut self, key: Bytes, known: Known) {
        (self.ids, self.uses) = (self.ids + 1, self.uses + 1);
        self.by_use.insert(self.uses, key.clone());
        self.bytes += size(&key, &None);
        let revision = known.header.revision;
        let (id, used) = (self.ids, self.uses);
        let entry = Entry { id, revision, writing: 0, begun: 0, known: None, is_leaving: false, used };
        self.entries.insert(key.clone(), entry);
        self.learn(&key, known);
    }

    /// Keeps a value, unless it may vanish by itself.
    fn learn(&mut self, key: &Bytes, known: Known) {
        let has_lease = known.kv.as_ref().is_some_and(|kv| kv.lease != 0);
        self.set(key, Some(known).filter(|_| !has_lease));
    }

    fn set(&mut self, key: &Bytes, known: Option<Known>) {
        if let Some(entry) = self.entries.get_mut(key) {
            self.bytes = self.bytes - size(key, &entry.known) + size(key, &known);
            entry.known = known;
        }
    }

    fn remove(&mut self, key: &Bytes) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= size(key, &entry.known);
            self.by_use.remove(&entry.used);
        }
    }

    /// Begins to give back what is too much, the least used first.
    fn shrink(&mut self) -> Vec<Leaving> {
        let mut leaving = Vec::new();
        while self.by_use.len() > self.limits.keys || self.bytes > self.limits.bytes {
            let Some((_, key)) = self.by_use.first_key_value() else { break };
            leaving.extend(self.leave(&key.clone()));
        }
        leaving
    }

    /// Ends what is kept of a key, which stays ours until the store knows.
    fn leave(&mut self, key: &Bytes) -> Option<Leaving> {
        self.set(key, None);
        let entry = self.entries.get_mut(key)?;
        self.by_use.remove(&entry.used);
        if std::mem::replace(&mut entry.is_leaving, true) {
            return None;
        }
        Some(Leaving { key: key.clone(), revision: entry.revision })
    }

    /// The store knows that the key is not ours any more.
    pub fn left(&mut self, leaving: &Leaving) {
        if self.entries.get(&leaving.key).is_some_and(|entry| entry.is_leaving && entry.revision == leaving.revision) {
            self.remove(&leaving.key);
        }
    }

    /// Somebody wants the key (`is_wanted`), or its leasing key is gone, since this revision.
    pub fn lose(&mut self, key: &Bytes, revision: i64, is_wanted: bool, now: Instant) {
        if let Some(reading) = self.reading.get_mut(key) {
            reading.lost_at = reading.lost_at.max(revision);
        }
        // An ownership that began later is not meant.
        if self.entries.get(key).is_some_and(|entry| entry.revision < revision) {
            self.remove(key);
        }
        if is_wanted {
            self.wanted.retain(|_, until| now < *until);
            self.wanted.insert(key.clone(), now + BACKOFF);
        }
    }

    /// A write of these keys and ranges is about to be sent.
    pub fn begin_write(&mut self, keys: &[Bytes], ranges: &[(Bytes, Bytes)]) -> WriteTicket {
        let mut touched: Vec<Bytes> = keys.iter().filter(|key| self.entries.contains_key(*key)).cloned().collect();
        let is_in = |key: &Bytes, (from, end): &(Bytes, Bytes)| key >= from && (end == "\0" || key < end);
        touched.extend(self.entries.keys().filter(|key| ranges.iter().any(|range| is_in(key, range))).cloned());
        touched.sort();
        touched.dedup();
        let mut ticket = WriteTicket::default();
        for key in touched {
            self.set(&key, None);
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            let is_alone = entry.writing == 0;
            entry.writing += 1;
            entry.begun += 1;
            ticket.touched.push((key, entry.id, Some(entry.begun).filter(|_| is_alone)));
        }
        ticket
    }

    /// The write was done, or surely not. `known`: what a key is now, as the write itself has read it.
    pub fn end_write(&mut self, ticket: WriteTicket, known: Option<(&Bytes, Known)>) {
        for (key, id, begun) in ticket.touched {
            let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.id == id) else { continue };
            entry.writing -= 1;
            let nobody_else = !entry.is_leaving && begun == Some(entry.begun);
            if let Some((_, known)) = known.as_ref().filter(|(of, _)| nobody_else && **of == key) {
                self.learn(&key, known.clone());
            }
        }
    }

    /// Nobody knows whether the write was done. Answers what has to be given back.
    pub fn doubt(&mut self, ticket: WriteTicket) -> Vec<Leaving> {
        let mut leaving = Vec::new();
        for (key, id, _) in ticket.touched {
            let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.id == id) else { continue };
            entry.writing -= 1;
            leaving.extend(self.leave(&key));
        }
        leaving
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned() -> Owned {
        Owned::new(Limits { keys: 3, bytes: 1000 })
    }

    fn known(revision: i64, value: &'static str) -> Known {
        let kv = KeyValue { key: "k".into(), value: value.into(), mod_revision: revision, ..Default::default() };
        Known { header: pb::ResponseHeader { revision, ..Default::default() }, kv: Some(kv) }
    }

    fn value(owned: &mut Owned, key: &'static str) -> Option<Bytes> {
        owned.known(&key.into()).and_then(|known| known.kv.as_ref()).map(|kv| kv.value.clone())
    }

    fn acquire(owned: &mut Owned, key: &'static str, revision: i64) -> Vec<Leaving> {
        let ticket = owned.begin_read(&key.into(), Instant::now()).expect("nobody wants it");
        owned.end_read(ticket, Some(known(revision, "v")))
    }

    #[test]
    fn a_key_taken_away_while_it_is_read_is_not_kept() {
        let (mut owned, key, now) = (owned(), Bytes::from("k"), Instant::now());
        let ticket = owned.begin_read(&key, now).unwrap();
        // The event came before the answer of the read that it follows.
        owned.lose(&key, 8, false, now);
        owned.end_read(ticket, Some(known(7, "old")));
        assert_eq!(value(&mut owned, "k"), None);
        // An ownership of later is another one.
        acquire(&mut owned, "k", 9);
        owned.lose(&key, 8, false, now);
        assert!(value(&mut owned, "k").is_some());
        owned.lose(&key, 10, true, now);
        assert_eq!(value(&mut owned, "k"), None);
        assert!(owned.begin_read(&key, now).is_none(), "it is left to whoever wanted it");
        assert!(owned.begin_read(&key, now + BACKOFF).is_some());
        assert!(owned.reading.len() == 1);
    }

    #[test]
    fn nothing_is_kept_while_writes_overlap() {
        let (mut owned, key) = (owned(), Bytes::from("k"));
        acquire(&mut owned, "k", 5);
        let first = owned.begin_write(std::slice::from_ref(&key), &[]);
        assert_eq!(value(&mut owned, "k"), None);
        let second = owned.begin_write(std::slice::from_ref(&key), &[]);
        // Which of the two was done last is not known here.
        owned.end_write(second, Some((&key, known(7, "second"))));
        assert_eq!(value(&mut owned, "k"), None);
        owned.end_write(first, Some((&key, known(6, "first"))));
        assert_eq!(value(&mut owned, "k"), None);
        let alone = owned.begin_write(std::slice::from_ref(&key), &[]);
        owned.end_write(alone, Some((&key, known(8, "alone"))));
        assert_eq!(value(&mut owned, "k"), Some("alone".into()));
    }

    #[test]
    fn a_read_beside_a_write_refreshes_nothing() {
        let (mut owned, key, now) = (owned(), Bytes::from("k"), Instant::now());
        acquire(&mut owned, "k", 5);
        let before = owned.begin_read(&key, now).unwrap();
        let write = owned.begin_write(std::slice::from_ref(&key), &[]);
        let beside = owned.begin_read(&key, now).unwrap();
        owned.end_write(write, None);
        owned.end_read(before, Some(known(5, "before")));
        owned.end_read(beside, Some(known(6, "beside")));
        assert_eq!(value(&mut owned, "k"), None);
        let after = owned.begin_read(&key, now).unwrap();
        owned.end_read(after, Some(known(7, "after")));
        assert_eq!(value(&mut owned, "k"), Some("after".into()));
        assert!(owned.reading.is_empty());
    }

    #[test]
    fn a_write_in_doubt_ends_the_ownership() {
        let (mut owned, key, now) = (owned(), Bytes::from("k"), Instant::now());
        acquire(&mut owned, "k", 5);
        let write = owned.begin_write(&[], &[("a".into(), "\0".into())]);
        let leaving = owned.doubt(write);
        assert_eq!(leaving, [Leaving { key: key.clone(), revision: 5 }]);
        assert!(owned.begin_read(&key, now).is_none());
        assert_eq!(owned.revision(&key), 5, "writes are guarded still");
        owned.left(&leaving[0]);
        assert_eq!(owned.revision(&key), 0);
        acquire(&mut owned, "k", 9);
        assert!(value(&mut owned, "k").is_some());
    }

    #[test]
    fn keys_that_may_vanish_and_old_sessions_keep_nothing() {
        let (mut owned, key, now) = (owned(), Bytes::from("k"), Instant::now());
        let ticket = owned.begin_read(&key, now).unwrap();
        let mut leased = known(5, "v");
        leased.kv.as_mut().unwrap().lease = 7;
        owned.end_read(ticket, Some(leased));
        assert_eq!((value(&mut owned, "k"), owned.revision(&key)), (None, 5));
        let ticket = owned.begin_read(&key, now).unwrap();
        let write = owned.begin_write(std::slice::from_ref(&key), &[]);
        owned.clear();
        owned.end_read(ticket, Some(known(6, "v")));
        owned.end_write(write, Some((&key, known(7, "v"))));
        assert_eq!((value(&mut owned, "k"), owned.revision(&key)), (None, 0));
    }

    #[test]
    fn what_is_used_least_is_given_back() {
        let mut owned = owned();
        for (key, revision) in [("a", 1), ("b", 2), ("c", 3)] {
            assert_eq!(acquire(&mut owned, key, revision), []);
        }
        assert!(value(&mut owned, "a").is_some());
        let leaving = acquire(&mut owned, "d", 4);
        assert_eq!(leaving, [Leaving { key: "b".into(), revision: 2 }]);
        owned.left(&leaving[0]);
        // A value too large for all of it goes at once.
        let ticket = owned.begin_read(&"e".into(), Instant::now()).unwrap();
        let mut large = known(5, "");
        large.kv.as_mut().unwrap().value = vec![0; 2000].into();
        assert_eq!(owned.end_read(ticket, Some(large)).len(), 4);
        assert_eq!(owned.by_use.len(), 0);
    }

    #[test]
    fn sizes_add_up() {
        let mut owned = owned();
        acquire(&mut owned, "a", 1);
        acquire(&mut owned, "b", 2);
        let write = owned.begin_write(&["a".into()], &[]);
        owned.end_write(write, Some((&"a".into(), known(3, "longer"))));
        owned.lose(&"b".into(), 9, false, Instant::now());
        assert_eq!(owned.bytes, 1 + 1 + 6);
        owned.lose(&"a".into(), 9, false, Instant::now());
        assert_eq!((owned.bytes, owned.entries.len(), owned.by_use.len()), (0, 0, 0));
    }
}
