//! Reads what the checks need out of an answer, without building it: the load tool must cost less than the server.
//!
//! Protobuf fields are walked in place. A field that is cut short or of an unknown kind makes the whole answer wrong.

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Fixed-size fields, which etcd's messages do not have.
    Other,
}

impl<'a> Value<'a> {
    fn number(self) -> i64 {
        match self {
            Value::Number(number) => number as i64,
            _ => 0,
        }
    }

    fn bytes(self) -> &'a [u8] {
        match self {
            Value::Bytes(bytes) => bytes,
            _ => &[],
        }
    }
}

/// The fields of a message, in order; `None` inside says that it is malformed.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of `message`.
    pub fn of(message: &'a [u8]) -> Fields<'a> {
        Fields { rest: message }
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for (i, byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[i + 1..];
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u32, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Other)?,
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Value::Other)?,
            _ => return None,
        };
        Some((u32::try_from(tag >> 3).ok()?, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u32, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// The revision in the header of any etcd answer (field 1). `None`: malformed, or no header.
pub fn revision(answer: &[u8]) -> Option<i64> {
    let (tag, header) = Fields::of(answer).next()??;
    if tag == 1 { header_revision(header.bytes()) } else { None }
}

fn header_revision(header: &[u8]) -> Option<i64> {
    let mut revision = 0;
    for field in Fields::of(header) {
        let (tag, value) = field?;
        if tag == 3 {
            revision = value.number();
        }
    }
    Some(revision)
}

/// What a `RangeResponse` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range<'a> {
    pub revision: i64,
    /// Key-value pairs in the answer.
    pub kvs: u64,
    pub more: bool,
    /// Keys in the range.
    pub count: i64,
    /// The last pair's key.
    pub last_key: &'a [u8],
    /// The last pair's modification revision.
    pub last_mod_revision: i64,
    /// The last pair's value.
    pub last_value: &'a [u8],
}

/// Reads a `RangeResponse`; only the last pair is looked into.
pub fn range(answer: &[u8]) -> Option<Range<'_>> {
    let mut seen = Range::default();
    let mut last: &[u8] = &[];
    for field in Fields::of(answer) {
        match field? {
            (1, header) => seen.revision = header_revision(header.bytes())?,
            (2, kv) => {
                seen.kvs += 1;
                last = kv.bytes();
            }
            (3, more) => seen.more = more.number() != 0,
            (4, count) => seen.count = count.number(),
            _ => {}
        }
    }
    let pair = pair(last)?;
    seen.last_key = pair.key;
    seen.last_mod_revision = pair.mod_revision;
    seen.last_value = pair.value;
    Some(seen)
}

/// A key-value pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair<'a> {
    pub key: &'a [u8],
    pub mod_revision: i64,
    pub value: &'a [u8],
}

fn pair(kv: &[u8]) -> Option<Pair<'_>> {
    let mut pair = Pair::default();
    for field in Fields::of(kv) {
        match field? {
            (1, key) => pair.key = key.bytes(),
            (3, revision) => pair.mod_revision = revision.number(),
            (5, value) => pair.value = value.bytes(),
            _ => {}
        }
    }
    Some(pair)
}

/// What a `WatchResponse` says besides its events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch<'a> {
    pub revision: i64,
    pub watch_id: i64,
    pub created: bool,
    pub canceled: bool,
    pub compact_revision: i64,
    pub cancel_reason: &'a [u8],
}

/// Reads a `WatchResponse`; `event` gets each put's pair, in order, and what stood before it: the watcher's id, since
/// fields are sent in the order of their numbers.
pub fn watch<'a>(answer: &'a [u8], mut event: impl FnMut(&Watch<'a>, Pair<'a>)) -> Option<Watch<'a>> {
    let mut seen = Watch::default();
    for field in Fields::of(answer) {
        match field? {
            (1, header) => seen.revision = header_revision(header.bytes())?,
            (2, id) => seen.watch_id = id.number(),
            (3, created) => seen.created = created.number() != 0,
            (4, canceled) => seen.canceled = canceled.number() != 0,
            (5, revision) => seen.compact_revision = revision.number(),
            (6, reason) => seen.cancel_reason = reason.bytes(),
            (11, bytes) => event(&seen, event_pair(bytes.bytes())?),
            _ => {}
        }
    }
    Some(seen)
}

fn event_pair(event: &[u8]) -> Option<Pair<'_>> {
    let mut found = Pair::default();
    for field in Fields::of(event) {
        if let (2, kv) = field? {
            found = pair(kv.bytes())?;
        }
    }
    Some(found)
}

/// What a `TxnResponse` says: its revision, whether the comparison held, and its first operation's answer where that is
/// a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Txn<'a> {
    pub revision: i64,
    pub succeeded: bool,
    pub answers: u64,
    /// The first answer's `RangeResponse`.
    pub range: Option<&'a [u8]>,
}

/// Reads a `TxnResponse`.
pub fn txn(answer: &[u8]) -> Option<Txn<'_>> {
    let mut seen = Txn::default();
    for field in Fields::of(answer) {
        match field? {
            (1, header) => seen.revision = header_revision(header.bytes())?,
            (2, succeeded) => seen.succeeded = succeeded.number() != 0,
            (3, op) => {
                seen.answers += 1;
                if seen.range.is_none() {
                    seen.range = first_range(op.bytes())?;
                }
            }
            _ => {}
        }
    }
    Some(seen)
}

fn first_range(op: &[u8]) -> Option<Option<&[u8]>> {
    match Fields::of(op).next() {
        None => Some(None),
        Some(field) => field.map(|(tag, range)| (tag == 1).then(|| range.bytes())),
    }
}

/// The time to live in a `LeaseKeepAliveResponse`, and the lease's id.
pub fn keep_alive(answer: &[u8]) -> Option<(i64, i64)> {
    let (mut id, mut ttl) = (0, 0);
    for field in Fields::of(answer) {
        match field? {
            (2, value) => id = value.number(),
            (3, value) => ttl = value.number(),
            _ => {}
        }
    }
    Some((id, ttl))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::pb::etcdserverpb as pb;
    use api::pb::mvccpb::{Event, KeyValue};
    use prost::Message;

    fn header(revision: i64) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader { cluster_id: 1, member_id: u64::MAX, revision, raft_term: 3 })
    }

    fn kv(key: &'static [u8], mod_revision: i64, value: &'static [u8]) -> KeyValue {
        KeyValue { key: key.into(), value: value.into(), mod_revision, create_revision: 1, version: 2, lease: 0 }
    }

    #[test]
    fn a_skimmed_range_says_what_the_decoded_one_says() {
        let answer = pb::RangeResponse {
            header: header(9),
            kvs: vec![kv(b"a", 4, b"x"), kv(b"b", 7, b"yy")],
            more: true,
            count: 70_000,
        };
        let expected = Range {
            revision: 9,
            kvs: 2,
            more: true,
            count: 70_000,
            last_key: b"b",
            last_mod_revision: 7,
            last_value: b"yy",
        };
        assert_eq!(range(&answer.encode_to_vec()), Some(expected));
        assert_eq!(range(&[]), Some(Range::default()));
    }

    #[test]
    fn a_skimmed_watch_answer_passes_each_event_on() {
        let event = |key, revision| Event { kv: Some(kv(key, revision, b"v")), ..Event::default() };
        let answer = pb::WatchResponse {
            header: header(12),
            watch_id: 3,
            events: vec![event(b"a", 11), event(b"b", 12)],
            cancel_reason: "gone".to_owned(),
            ..pb::WatchResponse::default()
        };
        let bytes = answer.encode_to_vec();
        let mut events = Vec::new();
        let seen = watch(&bytes, |_, pair| events.push((pair.key, pair.mod_revision, pair.value)));
        let expected = Watch { revision: 12, watch_id: 3, cancel_reason: b"gone", ..Watch::default() };
        assert_eq!(seen, Some(expected));
        assert_eq!(events, [(&b"a"[..], 11, &b"v"[..]), (b"b", 12, b"v")]);
    }

    #[test]
    fn a_skimmed_txn_counts_its_answers_and_finds_its_range() {
        let inner = pb::RangeResponse { count: 5, ..pb::RangeResponse::default() };
        let op = pb::ResponseOp { response: Some(pb::response_op::Response::ResponseRange(inner)) };
        let answer = pb::TxnResponse { header: header(8), succeeded: true, responses: vec![op.clone(), op] };
        let bytes = answer.encode_to_vec();
        let seen = txn(&bytes).unwrap_or_default();
        assert_eq!((seen.revision, seen.succeeded, seen.answers), (8, true, 2));
        assert_eq!(seen.range.and_then(range).map(|range| range.count), Some(5));
    }

    #[test]
    fn cut_answers_are_wrong_and_not_short() {
        let answer = pb::RangeResponse { header: header(9), kvs: vec![kv(b"a", 4, b"x")], more: false, count: 1 };
        let bytes = answer.encode_to_vec();
        assert_eq!(revision(&bytes), Some(9));
        assert_eq!(range(&bytes[..bytes.len() - 1]), None);
        assert_eq!(range(&bytes[..20]), None);
        assert_eq!(revision(&[0x0a, 200, 1]), None);
        assert_eq!(range(&[0xff; 12]), None);
    }
}
