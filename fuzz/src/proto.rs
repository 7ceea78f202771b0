//! Mutations of protobuf messages that know fields: whatever the schema, fields go, come twice, change places, numbers and
//! types, and what a length-delimited field holds is mutated in turn, with its length kept right.

use crate::mutate::Mutator;

/// Messages in one another that are looked into.
const DEPTH_MAX: usize = 6;

#[derive(Clone, Debug)]
struct Field {
    number: u64,
    value: Value,
}

#[derive(Clone, Debug)]
enum Value {
    Varint(u64),
    Eight(Vec<u8>),
    Bytes(Vec<u8>),
    Four(Vec<u8>),
}

/// A message with one or a few fields changed; `None` if the bytes are no message.
pub(crate) fn mutated(bytes: &[u8], mutator: &mut Mutator) -> Option<Vec<u8>> {
    at_depth(bytes, mutator, 0)
}

fn at_depth(bytes: &[u8], mutator: &mut Mutator, depth: usize) -> Option<Vec<u8>> {
    let mut fields = parse(bytes)?;
    for _ in 0..=mutator.draw(3) {
        change(&mut fields, mutator, depth);
    }
    let mut out = Vec::new();
    fields.iter().for_each(|field| put(&mut out, field));
    Some(out)
}

fn change(fields: &mut Vec<Field>, mutator: &mut Mutator, depth: usize) {
    if fields.is_empty() || mutator.draw(8) == 0 {
        let at = mutator.draw(fields.len() + 1);
        let number = 1 + mutator.draw(32) as u64;
        return fields.insert(at, Field { number, value: invented(mutator) });
    }
    let at = mutator.draw(fields.len());
    match mutator.draw(8) {
        0 => drop(fields.remove(at)),
        1 => {
            let copy = fields[at].clone();
            fields.insert(mutator.draw(fields.len() + 1), copy);
        }
        2 => {
            let other = mutator.draw(fields.len());
            fields.swap(at, other);
        }
        3 => fields[at].number = 1 + mutator.draw(32) as u64,
        4 => fields[at].value = invented(mutator),
        _ => inside(&mut fields[at].value, mutator, depth),
    }
}

fn invented(mutator: &mut Mutator) -> Value {
    match mutator.draw(6) {
        0 => Value::Eight(mutator.bytes(8)),
        1 => Value::Four(mutator.bytes(4)),
        2 => {
            let len = mutator.draw(20);
            Value::Bytes(mutator.bytes(len))
        }
        3 => Value::Bytes(Vec::new()),
        _ => Value::Varint(mutator.number()),
    }
}

fn inside(value: &mut Value, mutator: &mut Mutator, depth: usize) {
    match value {
        Value::Varint(n) => *n = if mutator.coin() { mutator.number() } else { *n ^ (1 << mutator.draw(64)) },
        Value::Eight(bytes) | Value::Four(bytes) => {
            let len = bytes.len();
            *bytes = mutator.bytes(len);
        }
        Value::Bytes(bytes) => {
            let nested = (depth < DEPTH_MAX && !bytes.is_empty() && mutator.draw(4) != 0)
                .then(|| at_depth(bytes, mutator, depth + 1))
                .flatten();
            match nested {
                Some(nested) => *bytes = nested,
                None => mutator.scratch(bytes),
            }
        }
    }
}

fn parse(mut bytes: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut bytes)?),
            1 => Value::Eight(take(&mut bytes, 8)?),
            2 => {
                let len = usize::try_from(varint(&mut bytes)?).ok()?;
                Value::Bytes(take(&mut bytes, len)?)
            }
            5 => Value::Four(take(&mut bytes, 4)?),
            _ => return None,
        };
        fields.push(Field { number: key >> 3, value });
    }
    Some(fields)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    prost::encoding::decode_varint(bytes).ok()
}

fn take(bytes: &mut &[u8], len: usize) -> Option<Vec<u8>> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken.to_vec())
}

fn put(out: &mut Vec<u8>, field: &Field) {
    let key = |kind| field.number << 3 | kind;
    match &field.value {
        Value::Varint(n) => [key(0), *n].iter().for_each(|n| prost::encoding::encode_varint(*n, out)),
        Value::Eight(bytes) => {
            prost::encoding::encode_varint(key(1), out);
            out.extend_from_slice(bytes);
        }
        Value::Bytes(bytes) => {
            [key(2), bytes.len() as u64].iter().for_each(|n| prost::encoding::encode_varint(*n, out));
            out.extend_from_slice(bytes);
        }
        Value::Four(bytes) => {
            prost::encoding::encode_varint(key(5), out);
            out.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::pb::etcdserverpb::{PutRequest, RequestOp, TxnRequest, request_op::Request};
    use prost::Message as _;

    #[test]
    fn most_mutated_messages_are_still_messages_and_few_are_the_same() {
        let put = PutRequest { key: "k".into(), value: "v".into(), lease: 7, ..PutRequest::default() };
        let op = RequestOp { request: Some(Request::RequestPut(put)) };
        let message = TxnRequest { success: vec![op.clone(), op], ..TxnRequest::default() }.encode_to_vec();
        let mut mutator = Mutator::new(1);
        let mutated: Vec<_> = (0..1000).filter_map(|_| mutated(&message, &mut mutator)).collect();
        let understood = mutated.iter().filter(|bytes| TxnRequest::decode(&bytes[..]).is_ok()).count();
        let same = mutated.iter().filter(|bytes| **bytes == message).count();
        assert!(mutated.len() == 1000 && understood > 300 && same < 200, "{understood} understood, {same} the same");
    }
}
