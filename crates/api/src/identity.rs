//! Ids of members and clusters, as every etcd computes them (semantics 11.1).

use sha1::{Digest, Sha1};

fn first_eight(digest: &[u8]) -> u64 {
    u64::from_be_bytes(std::array::from_fn(|i| digest[i]))
}

/// A member's id: its sorted peer URLs, the cluster's token, and when it was added, in seconds since the epoch. Founding
/// members have no such time; added ones have the token "".
pub fn member_id(peer_urls: &[String], token: &str, added_s: Option<u64>) -> u64 {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    let mut hash = Sha1::new();
    for url in urls {
        hash.update(url);
    }
    hash.update(token);
    if let Some(seconds) = added_s {
        hash.update(seconds.to_string());
    }
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
        let member = member_id(&["http://localhost:2380".into()], "etcd-cluster", None);
        assert_eq!(member, 0x8e9e_05c5_2164_694d);
        assert_eq!(cluster_id(&[member]), 0xcdf8_1819_4e3a_8c32);
    }

    /// The tutorials' own (walkthroughs W2 and W5).
    #[test]
    fn ids_are_those_that_tutorials_show() {
        let id = |ip: &str| member_id(&[format!("http://{ip}:2380")], "etcd-cluster", None);
        let w2 = ["192.168.144.129", "192.168.144.133", "192.168.144.136"].map(id);
        assert!([0xae_1193_8136_e019, 0x50aa_2c95_a5a6_c74b, 0x1a36_316d_0859_0385].iter().all(|id| w2.contains(id)));
        let id = |ip: &str| member_id(&[format!("https://{ip}:2380")], "etcd-cluster", None);
        let w5 = ["172.16.68.218", "172.16.68.219", "172.16.68.220"].map(id);
        assert!([0x42f9_3285_6eb8_87aa, 0xa413_3386_5e3c_22ac, 0x7fc7_8604_4098_7164].iter().all(|id| w5.contains(id)));
    }

    #[test]
    fn the_order_of_urls_and_members_does_not_matter() {
        let (a, b) = ("http://a:1".to_owned(), "http://b:1".to_owned());
        assert_eq!(member_id(&[a.clone(), b.clone()], "t", None), member_id(&[b, a], "t", None));
        assert_eq!(cluster_id(&[1, 2]), cluster_id(&[2, 1]));
    }
}
