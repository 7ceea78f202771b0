//! What is left of etcd's v2 store: requests that 3.5 members wrote to the log, and the JSON inside `.snap` files that
//! 3.5 and 3.6 need to start (reference/wal-format.md section 3).

use crate::Applied;
use crate::members::{Member, go_json};
use api::pb::{etcdserverpb as pb, membershippb};
use bytes::{Buf, Bytes};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct Attributes {
    #[serde(default)]
    name: String,
    #[serde(rename = "clientURLs", default)]
    client_urls: Option<Vec<String>>,
}

/// Reads id, method, path and value of a v2 `Request` (fields 1 to 4).
fn parse(mut data: &[u8]) -> Option<(u64, String, String, String)> {
    let mut id = 0;
    let mut texts = [String::new(), String::new(), String::new()];
    while data.has_remaining() {
        let (tag, wire) = decode_key(&mut data).ok()?;
        match (tag, wire) {
            (1, WireType::Varint) => id = decode_varint(&mut data).ok()?,
            (2..=4, WireType::LengthDelimited) => {
                let len = usize::try_from(decode_varint(&mut data).ok()?).ok().filter(|l| *l <= data.len())?;
                texts[tag as usize - 2] = std::str::from_utf8(&data[..len]).ok()?.to_owned();
                data.advance(len);
            }
            _ => skip_field(wire, tag, &mut data, DecodeContext::default()).ok()?,
        }
    }
    let [method, path, value] = texts;
    ["PUT", "POST", "DELETE", "QGET", "SYNC", "GET"].contains(&method.as_str()).then_some((id, method, path, value))
}

/// A v2 request as the v3 request that 3.6 makes of it; `None` when the bytes are no v2 request. Requests that mean
/// nothing today (the v2 key space) become an empty one.
pub(crate) fn translate(data: &Bytes) -> Option<pb::InternalRaftRequest> {
    let (id, method, path, value) = parse(data)?;
    let header = Some(pb::RequestHeader { id, ..Default::default() });
    let mut request = pb::InternalRaftRequest { header, ..Default::default() };
    let member = path.strip_prefix("/0/members/").and_then(|p| p.strip_suffix("/attributes"));
    if method == "PUT" && path == "/0/version" {
        request.cluster_version_set = Some(membershippb::ClusterVersionSetRequest { ver: value });
    } else if let ("PUT", Some(hex)) = (method.as_str(), member) {
        let attributes: Attributes = serde_json::from_str(&value).ok()?;
        request.cluster_member_attr_set = Some(membershippb::ClusterMemberAttrSetRequest {
            member_id: u64::from_str_radix(hex, 16).ok()?,
            member_attributes: Some(membershippb::Attributes {
                name: attributes.name,
                client_urls: attributes.client_urls.unwrap_or_default(),
            }),
        });
    } else {
        request.downgrade_version_test = Some(pb::DowngradeVersionTestRequest::default());
    }
    Some(request)
}

/// Numbers the nodes of the v2 tree: each has the index of the operation that made it.
struct TreeBuilder {
    index: u64,
}

impl TreeBuilder {
    fn node(&mut self, path: &str, value: &str, children: Option<Map<String, Value>>) -> Value {
        self.index += 1;
        json!({
            "Path": path, "CreatedIndex": self.index, "ModifiedIndex": self.index,
            "ExpireTime": "0001-01-01T00:00:00Z", "Value": value, "Children": children,
        })
    }

    fn member(&mut self, m: &Member) -> Value {
        let base = format!("/0/members/{:x}", m.id);
        let mut raft = Map::new();
        raft.insert("peerURLs".into(), json!(m.peer_urls));
        if m.is_learner {
            raft.insert("isLearner".into(), json!(true));
        }
        let mut children = Map::new();
        let raft = self.node(&format!("{base}/raftAttributes"), &go_json(&raft), None);
        children.insert("raftAttributes".into(), raft);
        if let Some(urls) = &m.client_urls {
            let mut attributes = Map::new();
            if !m.name.is_empty() {
                attributes.insert("name".into(), json!(m.name));
            }
            if !urls.is_empty() {
                attributes.insert("clientURLs".into(), json!(urls));
            }
            let node = self.node(&format!("{base}/attributes"), &go_json(&attributes), None);
            children.insert("attributes".into(), node);
        }
        self.node(&base, "", Some(children))
    }
}

/// The membership as a v2 store, for a `.snap` file.
pub fn v2_snapshot_json(applied: &Applied) -> Vec<u8> {
    const EVENTS: usize = 1000;
    let mut tree = TreeBuilder { index: 0 };
    let members: Map<_, _> = applied.members.values().map(|m| (format!("{:x}", m.id), tree.member(m))).collect();
    let removed: Map<_, _> = applied
        .removed
        .iter()
        .map(|id| (format!("{id:x}"), tree.node(&format!("/0/removed_members/{id:x}"), "", None)))
        .collect();
    let mut zero = Map::new();
    zero.insert("members".into(), tree.node("/0/members", "", Some(members)));
    if !removed.is_empty() {
        zero.insert("removed_members".into(), tree.node("/0/removed_members", "", Some(removed)));
    }
    if let Some(version) = applied.cluster_version() {
        zero.insert("version".into(), tree.node("/0/version", version, None));
    }
    let mut root = Map::new();
    root.insert("0".into(), tree.node("/0", "", Some(zero)));
    root.insert("1".into(), tree.node("/1", "", Some(Map::new())));
    let index = tree.index;
    let root = json!({
        "Path": "/", "CreatedIndex": 0, "ModifiedIndex": 0, "ExpireTime": "0001-01-01T00:00:00Z", "Value": "",
        "Children": root,
    });
    let stats: Map<_, _> = STATS.iter().map(|name| ((*name).to_owned(), json!(0))).collect();
    let queue = json!({"Events": vec![Value::Null; EVENTS], "Size": 0, "Front": 0, "Back": 0, "Capacity": EVENTS});
    let store = json!({
        "Root": root,
        "WatcherHub": {"EventHistory": {"Queue": queue, "StartIndex": 0, "LastIndex": 0}},
        "CurrentIndex": index, "Stats": stats, "CurrentVersion": 2,
    });
    go_json(&store).into_bytes()
}

/// Counters of the v2 store, as its JSON names them.
const STATS: [&str; 16] = [
    "getsSuccess",
    "getsFail",
    "setsSuccess",
    "setsFail",
    "deleteSuccess",
    "deleteFail",
    "updateSuccess",
    "updateFail",
    "createSuccess",
    "createFail",
    "compareAndSwapSuccess",
    "compareAndSwapFail",
    "compareAndDeleteSuccess",
    "compareAndDeleteFail",
    "expireCount",
    "watchers",
];
