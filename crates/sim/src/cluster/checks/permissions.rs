//! Nobody is shown a key that he may not read, and nothing is done for him that only root may have done. (That what is
//! forbidden changes nothing, the model sees to: each state is held against it.)
//!
//! Keys are looked for in what was answered, whatever was asked: a check that was forgotten does not excuse another.

use crate::cluster::history::History;
use crate::model::{Auth, Wish};
use crate::ops;
use bytes::Bytes;
use pb::response_op::Response as Part;
use server::{Request, Response, Who};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use api::pb::etcdserverpb as pb;

/// Answers from any of these states; the member was in one of them.
pub struct Window<'a> {
    pub history: &'a History,
    pub states: RangeInclusive<u64>,
}

impl Window<'_> {
    /// Whether the request may be refused so before it is proposed, or read.
    ///
    /// # Errors
    /// It was neither refused nor is there a state in which it may be asked.
    pub fn at_door(&self, who: &Who, request: &Request, seen: Option<&api::Error>) -> Result<bool, String> {
        let mut refusals = BTreeSet::new();
        let mut open = false;
        for model in self.states.clone().filter_map(|index| self.history.model(index)) {
            match model.door(who, request) {
                Ok(()) => open = true,
                Err(e) if Some(&e) == seen => return Ok(true),
                Err(e) => drop(refusals.insert(e.to_string())),
            }
        }
        match open {
            true => Ok(false),
            false => Err(format!("{who:?} was let in, who must be told one of {refusals:?}")),
        }
    }

    /// Keys that are told of when it is not known in which of the states.
    ///
    /// # Errors
    /// One of them is not for the caller in any of the states.
    pub fn shown(&self, who: &Who, response: &Response) -> Result<(), String> {
        let name = ops::name(who);
        let models: Vec<_> = self.states.clone().filter_map(|index| self.history.model(index)).collect();
        keys(response).into_iter().try_for_each(|key| match models.iter().any(|m| readable(&m.auth, name, &key)) {
            true => Ok(()),
            false => Err(leak(name, &key)),
        })
    }
}

fn leak(name: &str, key: &Bytes) -> String {
    format!("{name:?} is shown {key:?}, which that user may not read")
}

fn readable(auth: &Auth, name: &str, key: &Bytes) -> bool {
    !auth.enabled || auth.may(name, key, &Bytes::new(), Wish::Read)
}

/// The user of that name is told of a key in this state.
///
/// # Errors
/// It is not for that user.
pub fn shown_key(auth: &Auth, name: &str, key: &Bytes) -> Result<(), String> {
    match readable(auth, name, key) {
        true => Ok(()),
        false => Err(leak(name, key)),
    }
}

/// What was answered in this state.
///
/// # Errors
/// A key in it is not for that user.
pub fn shown(auth: &Auth, name: &str, response: &Response) -> Result<(), String> {
    keys(response).iter().try_for_each(|key| shown_key(auth, name, key))
}

/// Every key that the answer tells of.
fn keys(response: &Response) -> Vec<Bytes> {
    match response {
        Response::Range(r) => r.kvs.iter().map(|kv| kv.key.clone()).collect(),
        Response::Put(r) => r.prev_kv.iter().map(|kv| kv.key.clone()).collect(),
        Response::DeleteRange(r) => r.prev_kvs.iter().map(|kv| kv.key.clone()).collect(),
        Response::Txn(r) => keys_of_txn(r),
        Response::LeaseTimeToLive(r) => r.keys.clone(),
        _ => Vec::new(),
    }
}

fn keys_of_txn(r: &pb::TxnResponse) -> Vec<Bytes> {
    let part = |op: &pb::ResponseOp| match op.response.clone() {
        Some(Part::ResponseRange(r)) => keys(&Response::Range(r)),
        Some(Part::ResponsePut(r)) => keys(&Response::Put(r)),
        Some(Part::ResponseDeleteRange(r)) => keys(&Response::DeleteRange(r)),
        Some(Part::ResponseTxn(r)) => keys_of_txn(&r),
        None => Vec::new(),
    };
    r.responses.iter().flat_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::pb::mvccpb::KeyValue;
    use std::collections::BTreeMap;

    #[test]
    fn keys_are_found_wherever_an_answer_may_show_them() {
        let kv = |key: &'static str| KeyValue { key: key.into(), ..KeyValue::default() };
        let put = pb::PutResponse { prev_kv: Some(kv("put")), ..Default::default() };
        let delete = pb::DeleteRangeResponse { prev_kvs: vec![kv("deleted")], ..Default::default() };
        let range = pb::RangeResponse { kvs: vec![kv("read")], ..Default::default() };
        let op = |response| pb::ResponseOp { response: Some(response) };
        let nested = pb::TxnResponse { responses: vec![op(Part::ResponseDeleteRange(delete))], ..Default::default() };
        let responses = vec![op(Part::ResponsePut(put)), op(Part::ResponseRange(range)), op(Part::ResponseTxn(nested))];
        let found = keys(&Response::Txn(pb::TxnResponse { responses, ..Default::default() }));
        assert_eq!(found, ["put", "read", "deleted"].map(Bytes::from));
    }

    #[test]
    fn a_key_that_is_not_the_users_is_a_leak_where_authentication_is_on() {
        let mut auth = Auth { users: BTreeMap::from([("alice".into(), Default::default())]), ..Auth::default() };
        assert!(shown_key(&auth, "alice", &"k".into()).is_ok());
        auth.enabled = true;
        assert!(shown_key(&auth, "alice", &"k".into()).is_err());
    }
}
