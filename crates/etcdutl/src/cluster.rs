//! The cluster that a restore founds: members from `--initial-cluster`, their ids, and the checks of etcd.

use crate::{log, url};
use go::log_string;
use sha1::{Digest as _, Sha1};
use std::collections::{BTreeMap, BTreeSet};
use std::net::ToSocketAddrs as _;

/// A founding member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: u64,
    pub name: String,
    /// Sorted.
    pub peer_urls: Vec<String>,
}

impl Member {
    /// As conf changes and the bucket `members` hold it.
    pub fn json(&self) -> String {
        store::member_json(self.id, &self.peer_urls, &self.name)
    }
}

/// A founding cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    pub id: u64,
    /// By id.
    pub members: Vec<Member>,
}

impl Cluster {
    /// From `--initial-cluster` and the token.
    ///
    /// # Errors
    /// etcd's text for what is wrong.
    pub fn new(urls: &BTreeMap<String, Vec<String>>, token: &str) -> Result<Cluster, String> {
        let mut members = Vec::new();
        for (name, peer_urls) in urls {
            let id = member_id(peer_urls, token);
            if members.iter().any(|m: &Member| m.id == id) {
                return Err(format!("member exists with identical ID {}", shown(id, name, peer_urls)));
            }
            members.push(Member { id, name: name.clone(), peer_urls: peer_urls.clone() });
        }
        members.sort_by_key(|member| member.id);
        let mut hash = Sha1::new();
        members.iter().for_each(|member| hash.update(member.id.to_be_bytes()));
        Ok(Cluster { id: first_eight(&hash.finalize()), members })
    }
}

fn shown(id: u64, name: &str, urls: &[String]) -> String {
    format!("{{ID:{id:x} name:{name} peerURLs:[{}]}}", urls.join(" "))
}

fn first_eight(digest: &[u8]) -> u64 {
    u64::from_be_bytes(std::array::from_fn(|i| digest[i]))
}

/// The id of a founding member: its sorted peer URLs and the cluster's token.
fn member_id(peer_urls: &[String], token: &str) -> u64 {
    let mut hash = Sha1::new();
    peer_urls.iter().for_each(|url| hash.update(url));
    hash.update(token);
    first_eight(&hash.finalize())
}

/// Reads `name=url,name=url`.
///
/// # Errors
/// etcd's text for the first wrong part.
pub fn initial_cluster(text: &str) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut urls: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (name, url) = part.split_once('=').unwrap_or((part, ""));
        urls.entry(name.to_owned()).or_default().push(url.to_owned());
    }
    urls.into_iter().map(|(name, list)| Ok((name, url::sorted(&list)?))).collect()
}

/// Reads `url,url`, sorted.
///
/// # Errors
/// etcd's text for the first wrong one.
pub fn url_list(text: &str) -> Result<Vec<String>, String> {
    let list: Vec<String> = text.split(',').map(str::to_owned).collect();
    url::sorted(&list)
}

/// The checks that a member's configuration must pass before a cluster is founded with it.
///
/// # Errors
/// etcd's text.
pub fn verify(name: &str, urls: &BTreeMap<String, Vec<String>>, advertised: &[String]) -> Result<(), String> {
    let Some(own) = urls.get(name) else {
        return Err(format!("couldn't find local name {} in the initial cluster configuration", go::quote(name)));
    };
    advertise(name, own, advertised)?;
    let mut seen = BTreeSet::new();
    if urls.values().flatten().all(|url| seen.insert(url)) {
        return Ok(());
    }
    let mut all: Vec<String> =
        urls.iter().flat_map(|(name, list)| list.iter().map(move |url| format!("{name}={url}"))).collect();
    all.sort();
    Err(format!("initial cluster {} has duplicate url", all.join(",")))
}

/// What the member advertises must be what the cluster has for it, by address if not by text.
fn advertise(name: &str, own: &[String], advertised: &[String]) -> Result<(), String> {
    let Err(why) = same_addresses(advertised, own) else { return Ok(()) };
    let join = |urls: Vec<&String>| urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>().join(",");
    let missing: Vec<&String> = own.iter().filter(|url| !advertised.contains(url)).collect();
    if !missing.is_empty() {
        return Err(format!(
            "--initial-cluster has {} but missing from --initial-advertise-peer-urls={} ({why})",
            join(missing),
            advertised.join(",")
        ));
    }
    // etcd names here what is advertised, not what the cluster has.
    let claimed = join(advertised.iter().collect());
    let surplus: Vec<&str> = advertised.iter().filter(|url| !own.contains(url)).map(String::as_str).collect();
    if surplus.is_empty() {
        let all = advertised.join(",");
        return Err(format!("failed to resolve {all} to match --initial-cluster={claimed} ({why})"));
    }
    let surplus = surplus.join(",");
    Err(format!("--initial-advertise-peer-urls has {surplus} but missing from --initial-cluster={claimed}"))
}

fn same_addresses(a: &[String], b: &[String]) -> Result<(), String> {
    let quoted = |urls: &[String]| {
        let urls: Vec<String> = urls.iter().map(go::quote).collect();
        format!("[{}]", urls.join(" "))
    };
    if a.len() != b.len() {
        return Err(format!("len({}) != len({})", quoted(a), quoted(b)));
    }
    if a == b {
        return Ok(());
    }
    let (mut left, mut right) = (resolve(a)?, resolve(b)?);
    left.sort();
    right.sort();
    match left.iter().zip(&right).find(|(a, b)| a != b) {
        None => Ok(()),
        Some((a, b)) => Err(format!("resolved urls: {a:?} != {b:?}")),
    }
}

/// URLs with their hosts' addresses.
fn resolve(urls: &[String]) -> Result<Vec<String>, String> {
    let one = |url: &String| -> Result<String, String> {
        let (scheme, host) = url.split_once("://").unwrap_or(("", url));
        if scheme.starts_with("unix") {
            return Ok(url.clone());
        }
        // As Go: a machine may call itself so by several addresses.
        if host.starts_with("localhost:") {
            return Ok(url.clone());
        }
        let address = host.to_socket_addrs().map_err(|e| format!("failed to resolve {url:?} ({e})"))?.next();
        let address = address.ok_or_else(|| format!("failed to resolve {url:?} (no such host)"))?;
        log::info(
            "netutil/netutil.go:112",
            "resolved URL Host",
            &[
                ("url", log_string(url)),
                ("host", log_string(host)),
                ("resolved-addr", log_string(&address.to_string())),
            ],
        );
        Ok(format!("{scheme}://{address}"))
    };
    urls.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_go_etcd() {
        let urls = initial_cluster("default=http://localhost:2380").unwrap();
        let cluster = Cluster::new(&urls, "etcd-cluster").unwrap();
        assert_eq!((cluster.id, cluster.members[0].id), (0xcdf8_1819_4e3a_8c32, 0x8e9e_05c5_2164_694d));
        let three = initial_cluster("a=http://127.0.0.1:1,b=http://127.0.0.1:3,c=http://127.0.0.1:2").unwrap();
        assert_eq!(Cluster::new(&three, "etcd-cluster").unwrap().id, 0x8db7_cbf7_c4ca_d526);
    }

    #[test]
    fn a_cluster_is_read_as_go_reads_it() {
        let urls = initial_cluster("b=HTTP://127.0.0.1:2,a=http://127.0.0.1:3,,a= http://127.0.0.1:1,").unwrap();
        let all: Vec<_> = urls.iter().map(|(name, list)| (name.as_str(), list.join(" "))).collect();
        let (a, b) = ("http://127.0.0.1:1 http://127.0.0.1:3".to_owned(), "http://127.0.0.1:2".to_owned());
        assert_eq!(all, [("a", a), ("b", b)]);
    }

    #[test]
    fn wrong_clusters_are_refused_with_etcds_texts() {
        let urls = initial_cluster("a=http://127.0.0.1:1,b=http://127.0.0.1:2").unwrap();
        let own = vec!["http://127.0.0.1:1".to_owned()];
        assert_eq!(verify("a", &urls, &own), Ok(()));
        for (name, text) in [
            ("c", "couldn't find local name \"c\" in the initial cluster configuration"),
            (
                "b",
                "--initial-cluster has b=http://127.0.0.1:2 but missing from \
                 --initial-advertise-peer-urls=http://127.0.0.1:1 (resolved urls: \"http://127.0.0.1:1\" != \
                 \"http://127.0.0.1:2\")",
            ),
        ] {
            assert_eq!(verify(name, &urls, &own).unwrap_err(), text);
        }
        let more = ["http://127.0.0.1:1".to_owned(), "http://127.0.0.1:3".to_owned()];
        assert_eq!(
            verify("a", &urls, &more).unwrap_err(),
            "--initial-advertise-peer-urls has http://127.0.0.1:3 but missing from \
             --initial-cluster=a=http://127.0.0.1:1,a=http://127.0.0.1:3"
        );
        let same = ["http://127.0.0.1:1".to_owned(), "http://127.0.0.1:1".to_owned()];
        assert_eq!(
            verify("a", &urls, &same).unwrap_err(),
            "failed to resolve http://127.0.0.1:1,http://127.0.0.1:1 to match \
             --initial-cluster=a=http://127.0.0.1:1,a=http://127.0.0.1:1 (len([\"http://127.0.0.1:1\" \
             \"http://127.0.0.1:1\"]) != len([\"http://127.0.0.1:1\"]))"
        );
        let twice = initial_cluster("a=http://127.0.0.1:1,b=http://127.0.0.1:1").unwrap();
        assert_eq!(
            verify("a", &twice, &own).unwrap_err(),
            "initial cluster a=http://127.0.0.1:1,b=http://127.0.0.1:1 has duplicate url"
        );
    }
}
