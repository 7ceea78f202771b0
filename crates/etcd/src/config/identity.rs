//! Ids of members and clusters, as every etcd computes them (semantics 11.1).

use sha1::{Digest, Sha1};

fn first_eight(digest: &[u8]) -> u64 {
    u64::from_be_bytes(std::array::from_fn(|i| digest[i]))
}

/// The id of a founding member: its sorted peer URLs and the cluster's token.
pub fn initial_member_id(peer_urls: &[String], token: &str) -> u64 {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    let mut hash = Sha1::new();
    for url in urls {
        hash.update(url);
    }
    hash.update(token);
    first_eight(&hash.finalize())
}

/// The id of a cluster: its founding members' ids.
pub fn cluster_id(members: &[u64]) -> u64 {
    let mut ids = members.to_vec();
    ids.sort_unstable();
    let mut hash = Sha1::new();
    for id in ids {
        hash.update(id.to_be_bytes());
    }
    first_eight(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_the_default_member_are_those_of_go_etcd() {
        let member = initial_member_id(&["http://localhost:2380".into()], "etcd-cluster");
        assert_eq!(member, 0x8e9e_05c5_2164_694d);
        assert_eq!(cluster_id(&[member]), 0xcdf8_1819_4e3a_8c32);
    }

    #[test]
    fn the_order_of_urls_and_members_does_not_matter() {
        let (a, b) = ("http://a:1".to_owned(), "http://b:1".to_owned());
        assert_eq!(initial_member_id(&[a.clone(), b.clone()], "t"), initial_member_id(&[b, a], "t"));
        assert_eq!(cluster_id(&[1, 2]), cluster_id(&[2, 1]));
    }
}
