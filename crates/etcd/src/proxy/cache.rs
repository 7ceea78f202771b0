//! Answers of reads that may be given again to who asks the same with `serializable` (etcd `proxy/grpcproxy/cache`).
//!
//! What is written through this proxy is never answered in its older state; what is written past it may be, as in etcd: a
//! serializable read promises no more. Unlike etcd's,
//! * what users with tokens read is not kept (etcd's answers it to everybody, whoever asks and whatever he may read),
//! * an answer that was on its way while its keys were written is not kept (etcd's keeps it, for ever),
//! * bytes are bounded, not entries alone.

use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// Answers that are kept at most (etcd `cache.DefaultMaxEntries`).
const ENTRIES_MAX: usize = 2048;
/// … and the bytes of all of them. What does not fit pushes out what was used longest ago.
const BYTES_MAX: usize = 64 << 20;
/// Writes that are remembered for reads that are on their way; a read that takes longer is not kept.
const WRITES_MAX: usize = 4096;

/// The cache.
#[derive(Debug)]
pub struct Cache {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Key, Entry>,
    /// By last use: who is first goes first.
    uses: BTreeMap<u64, Key>,
    clock: u64,
    bytes: usize,
    compacted: i64,
    /// Ranges that were written while reads are on their way: the number of writes so far, and the last of them.
    writes: u64,
    /// When reads that are on their way began.
    reading: BTreeMap<u64, usize>,
    recent: VecDeque<(u64, Bytes, Bytes)>,
    /// The last write that is remembered no longer although a read may want to know.
    forgotten: u64,
}

type Key = Arc<Vec<u8>>;

#[derive(Debug)]
struct Entry {
    range: (Bytes, Bytes),
    /// A read at a revision of its own does not age.
    fixed: bool,
    response: pb::RangeResponse,
    bytes: usize,
    used: u64,
}

/// A read that is on its way; its answer may be kept if nothing in its range is written meanwhile.
#[derive(Debug)]
pub struct Reading<'a> {
    cache: &'a Cache,
    since: u64,
}

impl Default for Cache {
    fn default() -> Cache {
        Cache { state: Mutex::new(State { compacted: -1, ..State::default() }) }
    }
}

fn key(request: &pb::RangeRequest) -> Key {
    Arc::new(pb::RangeRequest { serializable: true, ..request.clone() }.encode_to_vec())
}

impl Cache {
    /// An answer that was given before.
    ///
    /// # Errors
    /// The revision asked for is compacted.
    pub fn find(&self, request: &pb::RangeRequest) -> Result<Option<pb::RangeResponse>, api::Error> {
        let mut state = self.state.lock();
        if request.revision > 0 && request.revision < state.compacted {
            return Err(api::Error::Compacted);
        }
        Ok(state.touch(&key(request)))
    }

    /// A read is sent.
    pub fn reading(&self) -> Reading<'_> {
        let mut state = self.state.lock();
        let since = state.writes;
        *state.reading.entry(since).or_default() += 1;
        Reading { cache: self, since }
    }

    /// Something in a range is written, or may be: called before it is sent and after it was answered.
    pub fn invalidate(&self, key: &Bytes, end: &Bytes) {
        let mut state = self.state.lock();
        let stale = |entry: &Entry| !entry.fixed && overlap(&entry.range, (key, end));
        let gone: Vec<Key> =
            state.entries.iter().filter(|(_, entry)| stale(entry)).map(|(key, _)| key.clone()).collect();
        gone.iter().for_each(|key| state.remove(key));
        state.writes += 1;
        if !state.reading.is_empty() {
            let write = (state.writes, key.clone(), end.clone());
            state.recent.push_back(write);
            if state.recent.len() > WRITES_MAX {
                state.forgotten = state.recent.pop_front().map_or(0, |(at, ..)| at);
            }
        }
    }

    /// History up to a revision is gone.
    pub fn compact(&self, revision: i64) {
        let mut state = self.state.lock();
        state.compacted = state.compacted.max(revision);
    }

    /// How many answers are kept.
    pub fn len(&self) -> usize {
        self.state.lock().entries.len()
    }
}

impl Reading<'_> {
    /// Keeps the answer, unless it may have been overtaken.
    pub fn keep(&self, request: &pb::RangeRequest, response: &pb::RangeResponse) {
        let mut state = self.cache.state.lock();
        let range = (request.key.clone(), request.range_end.clone());
        let overtaken = |(at, key, end): &(u64, Bytes, Bytes)| *at > self.since && overlap(&range, (key, end));
        let fixed = request.revision != 0;
        if request.revision > 0 && request.revision <= state.compacted {
            return;
        }
        let unknown = state.forgotten > self.since;
        if fixed || !(unknown || state.recent.iter().any(overtaken)) {
            state.insert(key(request), range, fixed, response.clone());
        }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut state = self.cache.state.lock();
        if let Some(count) = state.reading.get_mut(&self.since) {
            *count -= 1;
            if *count == 0 {
                state.reading.remove(&self.since);
            }
        }
        // What was written before the oldest of them began concerns none.
        match state.reading.first_key_value().map(|(since, _)| *since) {
            Some(oldest) => state.recent.retain(|(at, ..)| *at > oldest),
            None => state.recent.clear(),
        }
    }
}

impl State {
    fn touch(&mut self, key: &Key) -> Option<pb::RangeResponse> {
        let entry = self.entries.get_mut(key)?;
        self.clock += 1;
        let before = std::mem::replace(&mut entry.used, self.clock);
        let response = entry.response.clone();
        if let Some(key) = self.uses.remove(&before) {
            self.uses.insert(self.clock, key);
        }
        Some(response)
    }

    fn insert(&mut self, key: Key, range: (Bytes, Bytes), fixed: bool, response: pb::RangeResponse) {
        let bytes = response.encoded_len() + key.len();
        if bytes > BYTES_MAX / 8 {
            return;
        }
        self.remove(&key);
        self.clock += 1;
        self.bytes += bytes;
        self.uses.insert(self.clock, key.clone());
        self.entries.insert(key, Entry { range, fixed, response, bytes, used: self.clock });
        while self.entries.len() > ENTRIES_MAX || self.bytes > BYTES_MAX {
            let Some((_, oldest)) = self.uses.pop_first() else { return };
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.bytes;
            self.uses.remove(&entry.used);
        }
    }
}

/// Whether two ranges, as requests have them, have a key in common.
fn overlap(a: &(Bytes, Bytes), b: (&Bytes, &Bytes)) -> bool {
    begins_before_end(&a.0, b.0, b.1) && begins_before_end(b.0, &a.0, &a.1)
}

/// Whether a range that begins at `begin` begins before the other one ends.
fn begins_before_end(begin: &Bytes, key: &Bytes, end: &Bytes) -> bool {
    match &end[..] {
        [] => begin <= key,
        [0] => true,
        end => &begin[..] < end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(key: &'static str, end: &'static str, revision: i64) -> pb::RangeRequest {
        pb::RangeRequest { key: key.into(), range_end: end.into(), revision, ..Default::default() }
    }

    fn response(count: i64) -> pb::RangeResponse {
        pb::RangeResponse { count, ..Default::default() }
    }

    fn kept(cache: &Cache, request: &pb::RangeRequest) -> Option<i64> {
        cache.find(request).unwrap().map(|response| response.count)
    }

    #[test]
    fn writes_end_the_answers_whose_ranges_they_touch() {
        let cache = Cache::default();
        for (n, (key, end)) in [("a", ""), ("a", "c"), ("c", ""), ("a", "\0"), ("c", "d")].into_iter().enumerate() {
            cache.reading().keep(&request(key, end, 0), &response(n as i64));
        }
        cache.reading().keep(&request("b", "", 5), &response(9));
        cache.invalidate(&"b".into(), &Bytes::new());
        assert_eq!(kept(&cache, &request("a", "", 0)), Some(0));
        assert_eq!(kept(&cache, &request("a", "c", 0)), None);
        assert_eq!(kept(&cache, &request("c", "", 0)), Some(2));
        assert_eq!(kept(&cache, &request("a", "\0", 0)), None);
        assert_eq!(kept(&cache, &request("b", "", 5)), Some(9));
        cache.invalidate(&"b".into(), &"\0".into());
        assert_eq!(kept(&cache, &request("c", "d", 0)), None);
        assert_eq!(cache.len(), 2);
    }

    #[test]
    fn an_answer_that_a_write_overtook_is_not_kept() {
        let cache = Cache::default();
        let reading = cache.reading();
        cache.invalidate(&"a".into(), &Bytes::new());
        reading.keep(&request("a", "", 0), &response(1));
        reading.keep(&request("b", "", 0), &response(2));
        assert_eq!(kept(&cache, &request("a", "", 0)), None);
        assert_eq!(kept(&cache, &request("b", "", 0)), Some(2));
        drop(reading);
        cache.reading().keep(&request("a", "", 0), &response(3));
        assert_eq!(kept(&cache, &request("a", "", 0)), Some(3));
        assert!(cache.state.lock().recent.is_empty());
        let slow = cache.reading();
        for n in 0..=WRITES_MAX {
            cache.invalidate(&format!("k{n}").into(), &Bytes::new());
        }
        slow.keep(&request("k0", "", 0), &response(4));
        assert_eq!(kept(&cache, &request("k0", "", 0)), None);
    }

    #[test]
    fn what_is_compacted_is_refused_and_what_was_used_longest_ago_goes_first() {
        let cache = Cache::default();
        cache.reading().keep(&request("old", "", 3), &response(1));
        cache.compact(4);
        assert_eq!(cache.find(&request("old", "", 3)), Err(api::Error::Compacted));
        cache.reading().keep(&request("first", "", 0), &response(1));
        cache.reading().keep(&request("second", "", 0), &response(2));
        assert_eq!(kept(&cache, &request("first", "", 0)), Some(1));
        for n in 0..ENTRIES_MAX - 1 {
            let other = pb::RangeRequest { key: format!("k{n}").into(), ..Default::default() };
            cache.reading().keep(&other, &response(0));
        }
        assert_eq!(cache.len(), ENTRIES_MAX);
        assert_eq!(kept(&cache, &request("first", "", 0)), Some(1));
        assert_eq!(kept(&cache, &request("second", "", 0)), None);
    }
}
