//! Members, versions and alarms: the small state, and its bytes in the page store.

use api::pb::etcdserverpb as pb;
use serde::{Deserialize, Serialize};

/// A member as bucket `members` and conf changes hold it. Field order is Go's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub id: u64,
    #[serde(rename = "peerURLs", default)]
    pub peer_urls: Option<Vec<String>>,
    #[serde(rename = "isLearner", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_learner: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(rename = "clientURLs", default, skip_serializing_if = "Option::is_none")]
    pub client_urls: Option<Vec<String>>,
}

/// A conf change's context: a member, and whether it is a promotion.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ChangeContext {
    #[serde(flatten)]
    pub member: Member,
    #[serde(rename = "isPromote", default)]
    pub is_promote: bool,
}

impl Member {
    pub fn to_pb(&self) -> pb::Member {
        pb::Member {
            id: self.id,
            name: self.name.clone(),
            peer_ur_ls: self.peer_urls.clone().unwrap_or_default(),
            client_ur_ls: self.client_urls.clone().unwrap_or_default(),
            is_learner: self.is_learner,
        }
    }

    /// JSON as Go's encoding/json writes it: `<`, `>`, `&` and U+2028/9 escaped.
    pub fn json(&self) -> String {
        go_json(self)
    }
}

/// Serialises as Go's encoding/json does.
pub fn go_json(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).expect("plain data serialises");
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

/// The context of a conf change that adds a member.
pub fn member_json(id: u64, peer_urls: &[String], name: &str) -> String {
    let mut peer_urls = peer_urls.to_vec();
    peer_urls.sort();
    Member { id, peer_urls: Some(peer_urls), name: name.into(), ..Member::default() }.json()
}

/// The context of a conf change that makes a learner a voter.
pub fn promotion_json(id: u64) -> String {
    format!(r#"{{"id":{id},"peerURLs":null,"isPromote":true}}"#)
}

/// A downgrade that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downgrade {
    #[serde(rename = "target-version", default)]
    pub target_version: String,
    #[serde(default)]
    pub enabled: bool,
}

/// raft's configuration as `meta/confState` holds it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ConfStateJson {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub voters: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub learners: Vec<u64>,
    #[serde(default)]
    pub auto_leave: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_have_the_bytes_go_writes() {
        let m = Member { id: 1 << 60, peer_urls: Some(vec!["http://a:1".into()]), ..Member::default() };
        assert_eq!(m.json(), r#"{"id":1152921504606846976,"peerURLs":["http://a:1"]}"#);
        let full = Member { name: "a<b".into(), client_urls: Some(vec!["u".into()]), is_learner: true, ..m };
        assert_eq!(
            full.json(),
            r#"{"id":1152921504606846976,"peerURLs":["http://a:1"],"isLearner":true,"name":"a\u003cb","clientURLs":["u"]}"#
        );
        assert_eq!(serde_json::from_str::<Member>(&full.json()).unwrap(), full);
    }
}
