//! The membership as etcd's v2 store, which `.snap` files hold for releases before 3.8.

use crate::cluster::Member;
use go::json_string;

/// Slots of the store's ring of events.
const EVENTS: usize = 1000;
const NEVER: &str = "0001-01-01T00:00:00Z";

fn node(path: &str, index: usize, value: &str, children: &str) -> String {
    format!(
        "{{\"Path\":\"{path}\",\"CreatedIndex\":{index},\"ModifiedIndex\":{index},\"ExpireTime\":\"{NEVER}\",\"Value\":{},\
         \"Children\":{children}}}",
        json_string(value)
    )
}

/// The store's JSON, to the byte as Go writes it after members joined in this order.
pub fn v2_json(members: &[Member]) -> String {
    let attributes = |member: &Member| {
        let urls: Vec<String> = member.peer_urls.iter().map(|url| json_string(url)).collect();
        format!("{{\"peerURLs\":[{}]}}", urls.join(","))
    };
    let path = |member: &Member| format!("/0/members/{:x}", member.id);
    let mut nodes: Vec<(String, String)> = (1..)
        .zip(members)
        .map(|(index, member)| {
            let path = path(member);
            let raft = node(&format!("{path}/raftAttributes"), index, &attributes(member), "null");
            let name = format!("{:x}", member.id);
            (name.clone(), format!("\"{name}\":{}", node(&path, index, "", &format!("{{\"raftAttributes\":{raft}}}"))))
        })
        .collect();
    nodes.sort();
    let nodes: Vec<String> = nodes.into_iter().map(|(_, node)| node).collect();
    let zero = format!("{{\"members\":{}}}", node("/0/members", 1, "", &format!("{{{}}}", nodes.join(","))));
    let tree = format!("{{\"0\":{},\"1\":{}}}", node("/0", 0, "", &zero), node("/1", 0, "", "{}"));
    let mut events: Vec<String> = (1..)
        .zip(members)
        .map(|(index, member): (usize, _)| {
            format!(
                "{{\"action\":\"create\",\"node\":{{\"key\":\"{}/raftAttributes\",\"value\":{},\"modifiedIndex\":{index},\
                 \"createdIndex\":{index}}}}}",
                path(member),
                json_string(&attributes(member))
            )
        })
        .collect();
    events.resize(EVENTS.max(events.len()), "null".into());
    let count = members.len();
    format!(
        "{{\"Root\":{},\"WatcherHub\":{{\"EventHistory\":{{\"Queue\":{{\"Events\":[{}],\"Size\":{count},\"Front\":0,\
         \"Back\":{count},\"Capacity\":{EVENTS}}},\"StartIndex\":1,\"LastIndex\":{count}}}}},\"CurrentIndex\":{count},\
         \"Stats\":{},\"CurrentVersion\":2}}",
        node("/", 0, "", &tree),
        events.join(","),
        stats(count)
    )
}

fn stats(created: usize) -> String {
    format!(
        "{{\"getsSuccess\":0,\"getsFail\":1,\"setsSuccess\":0,\"setsFail\":0,\"deleteSuccess\":0,\"deleteFail\":0,\
         \"updateSuccess\":0,\"updateFail\":0,\"createSuccess\":{created},\"createFail\":0,\"compareAndSwapSuccess\":0,\
         \"compareAndSwapFail\":0,\"compareAndDeleteSuccess\":0,\"compareAndDeleteFail\":0,\"expireCount\":0,\"watchers\":0}}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_json_with_every_member() {
        let member = |id, url: &str| Member { id, name: "n".into(), peer_urls: vec![url.into()] };
        let text = v2_json(&[member(2, "http://b:1"), member(0x1f, "http://a:1")]);
        let store: serde_json::Value = serde_json::from_str(&text).unwrap();
        let members = &store["Root"]["Children"]["0"]["Children"]["members"]["Children"];
        assert_eq!(members["1f"]["Children"]["raftAttributes"]["Value"], "{\"peerURLs\":[\"http://a:1\"]}");
        assert_eq!(members["2"]["CreatedIndex"], 1);
    }
}
