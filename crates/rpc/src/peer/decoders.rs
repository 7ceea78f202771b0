//! The peers' part of [`crate::decoders`].

use super::endpoints;
use super::{HashKv, MemberInfo, probe};

/// `GET /members`, read and written again.
pub fn members(body: &[u8]) -> Option<(Vec<MemberInfo>, String)> {
    endpoints::parse_members(body).map(|members| (members.clone(), endpoints::members_json(&members)))
}

/// `GET /members/hashkv`, read and written again.
pub fn hash_kv(body: &[u8]) -> Option<(HashKv, String)> {
    endpoints::parse_hash_kv(body).map(|hash| (hash, endpoints::hash_kv_json(&hash)))
}

/// What is asked of `GET /members/hashkv`, read and written again.
pub fn hash_kv_request(body: &[u8]) -> Option<(i64, String)> {
    endpoints::parse_hash_kv_request(body).map(|revision| (revision, endpoints::hash_kv_request(revision)))
}

/// The clock in a probe's answer, read and written again.
pub fn clock(body: &[u8]) -> Option<(jiff::Timestamp, String)> {
    probe::clock(body).map(|now| (now, probe::answer(now)))
}
