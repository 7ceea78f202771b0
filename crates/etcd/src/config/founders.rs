//! Lists of members as `--initial-cluster` has them: who founds a cluster, and whether this member is among them under
//! the addresses that it advertises (etcd `ServerConfig.VerifyBootstrap`).

use super::table::Config;
use super::url::{Url, joined};
use go::{quote, quote_all};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How long names may take to be resolved, all together.
const RESOLVE_WAIT: Duration = Duration::from_secs(30);
/// Time between two attempts: a name may only just be on its way into the DNS.
const RESOLVE_RETRY: Duration = Duration::from_secs(1);

/// Members by name, with their peer URLs in order (etcd `types.URLsMap`).
pub type Named = BTreeMap<String, Vec<Url>>;

/// Reads pairs `name=url`; a name may come several times, its blanks are its own.
///
/// # Errors
/// A URL is none.
pub fn named(text: &str) -> Result<Named, String> {
    let mut named = Named::new();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (name, url) = pair.split_once('=').unwrap_or((pair, ""));
        named.entry(name.to_owned()).or_default().push(Url::parse(url)?);
    }
    named.values_mut().for_each(|urls| urls.sort());
    Ok(named)
}

/// The members that `--initial-cluster` names.
///
/// # Errors
/// etcd's text.
pub fn initial_members(config: &Config) -> Result<Named, String> {
    named(&config.initial_cluster).map_err(|e| format!("error setting up initial cluster: {e}"))
}

/// All pairs in order, as `--initial-cluster` would have them.
pub fn pairs(named: &Named) -> String {
    let pairs = named.iter().flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")));
    let mut pairs: Vec<String> = pairs.collect();
    pairs.sort();
    pairs.join(",")
}

/// Whether this member can found a cluster of these (etcd `VerifyBootstrap`). Names of hosts are looked up.
///
/// # Errors
/// etcd's texts.
pub fn verify_founders(config: &Config, named: &Named) -> Result<(), String> {
    let own = own_urls(config, named)?;
    let deadline = resolve_deadline();
    advertised(config, own, &mut |url| resolve(url, deadline))?;
    distinct(named)
}

/// Whether this member can join a cluster of these (etcd `VerifyJoinExisting`).
///
/// # Errors
/// etcd's texts.
pub fn verify_joiner(config: &Config, named: &Named) -> Result<(), String> {
    own_urls(config, named)?;
    distinct(named)
}

fn own_urls<'a>(config: &Config, named: &'a Named) -> Result<&'a [Url], String> {
    let missing = || format!("couldn't find local name {} in the initial cluster configuration", quote(&config.name));
    named.get(&config.name).map(Vec::as_slice).ok_or_else(missing)
}

/// Whether each URL is one member's only.
///
/// # Errors
/// etcd's text.
pub fn distinct(named: &Named) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    match named.values().flatten().all(|url| seen.insert(url.as_str())) {
        true => Ok(()),
        false => Err(format!("initial cluster {} has duplicate url", pairs(named))),
    }
}

/// When to stop looking names up that are looked up from now on.
pub fn resolve_deadline() -> Instant {
    Instant::now() + RESOLVE_WAIT
}

/// Whether both lists, in order, lead to the same places, as written or once names are resolved (etcd
/// `netutil.URLStringsEqual`).
///
/// # Errors
/// They don't, or a name can't be resolved until `deadline`; etcd's text.
pub fn same_places(a: &[Url], b: &[Url], deadline: Instant) -> Result<(), String> {
    same(a, b, &mut |url| resolve(url, deadline))
}

/// Whether the directory holds a log, so that nothing is founded.
pub fn has_log(config: &Config) -> bool {
    let folder = config.wal_path().unwrap_or_else(|| config.data_path().join("member/wal"));
    let Ok(mut files) = std::fs::read_dir(folder) else { return false };
    files.any(|file| file.is_ok_and(|f| f.path().extension().is_some_and(|kind| kind == "wal")))
}

/// Looks up the host of a URL: its address, in Go's text.
type Resolve<'a> = dyn FnMut(&Url) -> Result<String, String> + 'a;

fn advertised(config: &Config, own: &[Url], resolve: &mut Resolve<'_>) -> Result<(), String> {
    let advertised = &config.initial_advertise_peer_urls;
    let Err(why) = same(advertised, own, resolve) else { return Ok(()) };
    let name = &config.name;
    // As in etcd, it is the advertised URLs that the last two texts show.
    let lacking = |of: &[Url], from: &[Url]| -> Vec<Url> {
        let mut lacking: Vec<Url> = of.iter().filter(|url| !from.contains(url)).cloned().collect();
        lacking.dedup();
        lacking
    };
    let named = |urls: &[Url]| urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>().join(",");
    let missing = lacking(own, advertised);
    if !missing.is_empty() {
        return Err(format!(
            "--initial-cluster has {} but missing from --initial-advertise-peer-urls={} ({why})",
            named(&missing),
            joined(advertised)
        ));
    }
    let missing = lacking(advertised, own);
    if !missing.is_empty() {
        return Err(format!(
            "--initial-advertise-peer-urls has {} but missing from --initial-cluster={}",
            joined(&missing),
            named(advertised)
        ));
    }
    Err(format!("failed to resolve {} to match --initial-cluster={} ({why})", joined(advertised), named(advertised)))
}

/// See [`same_places`].
fn same(advertised: &[Url], own: &[Url], resolve: &mut Resolve<'_>) -> Result<(), String> {
    if advertised.len() != own.len() {
        let list = |urls: &[Url]| quote_all(&urls.iter().map(Url::to_string).collect::<Vec<_>>());
        return Err(format!("len({}) != len({})", list(advertised), list(own)));
    }
    let place = |url: &Url| (url.scheme, canonical(url), url.path.clone());
    if advertised.iter().map(place).eq(own.iter().map(place)) {
        return Ok(());
    }
    let mut resolved = |urls: &[Url]| -> Result<Vec<Url>, String> {
        let mut urls = urls.iter().map(|url| resolved(url, resolve)).collect::<Result<Vec<_>, _>>()?;
        urls.sort();
        Ok(urls)
    };
    let (advertised, own) = (resolved(advertised)?, resolved(own)?);
    match advertised.iter().zip(&own).find(|(a, b)| place(a) != place(b)) {
        Some((a, b)) => Err(format!("resolved urls: {} != {}", quote(a.as_str()), quote(b.as_str()))),
        None => Ok(()),
    }
}

/// `host:port`, equal for all ways to write one address.
fn canonical(url: &Url) -> String {
    match (url.host.parse::<IpAddr>(), url.port_text()) {
        (Ok(ip), Some(port)) if url.has_port() => {
            let port = if port.is_empty() { String::new() } else { url.port.to_string() };
            match ip.to_canonical() {
                IpAddr::V4(ip) => format!("{ip}:{port}"),
                IpAddr::V6(ip) => format!("[{ip}]:{port}"),
            }
        }
        _ => url.authority().to_owned(),
    }
}

fn resolved(url: &Url, resolve: &mut Resolve<'_>) -> Result<Url, String> {
    if url.socket_path().is_some() || url.host == "localhost" {
        return Ok(url.clone());
    }
    let address = resolve(url).map_err(|e| format!("failed to resolve {} ({e})", quote(url.as_str())))?;
    let resolved = format!("{}://{address}{}", url.scheme_text(), url.path);
    // An address that the system gave: a URL with it is one.
    Url::parse(&resolved)
}

/// Asks the system, again and again until `deadline`.
fn resolve(url: &Url, deadline: Instant) -> Result<String, String> {
    loop {
        let why = match look_up(url, deadline.saturating_duration_since(Instant::now())) {
            Ok(address) => {
                tracing::info!(
                    url = url.as_str(),
                    host = url.authority(),
                    "resolved-addr" = address.to_string(),
                    "resolved URL Host"
                );
                return Ok(address.to_string());
            }
            Err(why) => why,
        };
        tracing::warn!(
            url = url.as_str(),
            host = url.authority(),
            "retry-interval" = "1s",
            error = why,
            "failed to resolve URL Host"
        );
        if Instant::now() + RESOLVE_RETRY >= deadline {
            return Err(why);
        }
        std::thread::sleep(RESOLVE_RETRY);
    }
}

/// One attempt. The system's resolver has its own idea of patience, so it is asked by a thread that can be left behind.
fn look_up(url: &Url, patience: Duration) -> Result<SocketAddr, String> {
    if !url.has_port() {
        return Err(format!("address {}: invalid port", url.port_text().unwrap_or_default()));
    }
    let (answer, answered) = mpsc::channel();
    let (host, port) = (url.host.clone(), url.port);
    let ask = move || {
        let found = (host.as_str(), port).to_socket_addrs().map(|mut found| found.next());
        // Nobody may be waiting any more.
        drop(answer.send(found));
    };
    std::thread::Builder::new().name("resolver".into()).spawn(ask).map_err(|e| e.to_string())?;
    let host = &url.host;
    match answered.recv_timeout(patience) {
        Ok(Ok(Some(address))) => Ok(address),
        Ok(Ok(None)) => Err(format!("lookup {host}: no such host")),
        Ok(Err(e)) => Err(format!("lookup {host}: {e}")),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(format!("lookup {host}: i/o timeout")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(advertised_urls: &str, initial_cluster: &str) -> Result<(), String> {
        let config = Config {
            name: "m".into(),
            initial_advertise_peer_urls: Url::parse_list(advertised_urls).unwrap(),
            ..Config::default()
        };
        let own = named(initial_cluster).unwrap().remove("m").unwrap();
        let mut names = |url: &Url| match url.host.as_str() {
            "here" => Ok(format!("10.0.0.1:{}", url.port)),
            "there" => Ok(format!("10.0.0.2:{}", url.port)),
            "nowhere" => Err("lookup nowhere: no such host".into()),
            _ => Ok(url.authority().to_owned()),
        };
        advertised(&config, &own, &mut names)
    }

    #[test]
    fn advertised_urls_may_be_named_otherwise_if_they_lead_to_the_same_place() {
        for (urls, cluster) in [
            ("http://10.0.0.1:1", "m=http://10.0.0.1:1"),
            ("http://10.0.0.1:1", "m=http://here:1"),
            ("http://here:1,http://10.0.0.2:2", "m=http://there:2,m=http://10.0.0.1:1"),
            ("http://[::1]:1", "m=http://[0:0:0:0:0:0:0:1]:1"),
            ("http://localhost:1", "m=http://localhost:1"),
            ("unix://here:1", "m=unix://here:1"),
        ] {
            assert_eq!(verdict(urls, cluster), Ok(()), "{urls} {cluster}");
        }
    }

    #[test]
    fn other_urls_are_refused_in_etcds_words() {
        for (urls, cluster, text) in [
            (
                "http://10.0.0.1:1",
                "m=http://there:1",
                "--initial-cluster has m=http://there:1 but missing from --initial-advertise-peer-urls=http://10.0.0.1:1 (resolved urls: \"http://10.0.0.1:1\" != \"http://10.0.0.2:1\")",
            ),
            (
                "http://127.0.0.1:1",
                "m=http://localhost:1",
                "--initial-cluster has m=http://localhost:1 but missing from --initial-advertise-peer-urls=http://127.0.0.1:1 (resolved urls: \"http://127.0.0.1:1\" != \"http://localhost:1\")",
            ),
            (
                "http://10.0.0.1:1",
                "m=http://nowhere:1",
                "--initial-cluster has m=http://nowhere:1 but missing from --initial-advertise-peer-urls=http://10.0.0.1:1 (failed to resolve \"http://nowhere:1\" (lookup nowhere: no such host))",
            ),
            (
                "http://10.0.0.1:1,http://10.0.0.2:1",
                "m=http://10.0.0.1:1",
                "--initial-advertise-peer-urls has http://10.0.0.2:1 but missing from --initial-cluster=m=http://10.0.0.1:1,m=http://10.0.0.2:1",
            ),
            (
                "http://10.0.0.1:1",
                "m=http://10.0.0.1:1,m=http://10.0.0.1:1",
                "failed to resolve http://10.0.0.1:1 to match --initial-cluster=m=http://10.0.0.1:1 (len([\"http://10.0.0.1:1\"]) != len([\"http://10.0.0.1:1\" \"http://10.0.0.1:1\"]))",
            ),
        ] {
            assert_eq!(verdict(urls, cluster).unwrap_err(), text, "{urls} {cluster}");
        }
    }

    #[test]
    fn the_wait_for_the_resolver_is_bounded() {
        let before = Instant::now();
        let url = Url::parse("http://name.invalid:1").unwrap();
        assert!(resolve(&url, Instant::now()).is_err());
        assert!(before.elapsed() < RESOLVE_WAIT);
        assert_eq!(
            resolve(&Url::parse("http://127.0.0.1:7").unwrap(), before + RESOLVE_WAIT),
            Ok("127.0.0.1:7".into())
        );
    }
}
