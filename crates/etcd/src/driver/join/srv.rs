//! `--discovery-srv`: the DNS names the founders (etcd `client/pkg/srv`, `Config.GetDNSClusterNames`).
//!
//! ```text
//! _etcd-server-ssl[-NAME]._tcp.DOMAIN  SRV … port host   ─►  https members
//! _etcd-server[-NAME]._tcp.DOMAIN      SRV … port host   ─►  http members
//! ```
//! Records have no names of members: the one whose address is advertised by this member is itself, the others are numbered.

use super::dns::{self, Record};
use crate::config::{Config, Url};
use std::net::{SocketAddr, ToSocketAddrs as _};
use tracing::{info, warn};

/// How a name is looked up: SRV records of a service, and the address of `host:port`.
pub trait Lookup {
    fn records(&self, name: &str) -> Result<Vec<Record>, String>;
    fn address(&self, host: &str, port: u16) -> Result<SocketAddr, String>;
}

/// The system's resolver.
pub struct System;

impl Lookup for System {
    fn records(&self, name: &str) -> Result<Vec<Record>, String> {
        dns::Resolver::system().srv(name)
    }

    fn address(&self, host: &str, port: u16) -> Result<SocketAddr, String> {
        let found = (host, port).to_socket_addrs().map_err(|e| format!("lookup {host}: {e}"))?;
        // As Go's `ResolveTCPAddr`: IPv4 first.
        let mut found: Vec<SocketAddr> = found.collect();
        found.sort_by_key(SocketAddr::is_ipv6);
        found.first().copied().ok_or_else(|| format!("lookup {host}: no such host"))
    }
}

/// The founders as `--initial-cluster` would have them.
///
/// # Errors
/// etcd's texts: no records, or this member is not among them.
pub fn initial_cluster(config: &Config, lookup: &dyn Lookup) -> Result<String, String> {
    let suffix = match config.discovery_srv_name.as_str() {
        "" => String::new(),
        name => format!("-{name}"),
    };
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for (scheme, service) in [("https", "etcd-server-ssl"), ("http", "etcd-server")] {
        let service = format!("{service}{suffix}");
        match members(config, lookup, scheme, &service) {
            Ok(members) => found.extend(members),
            Err(why) => failures.push(format!("error querying DNS SRV records for _{service} {why}")),
        }
    }
    let why = failures.join("\n");
    if !failures.is_empty() {
        warn!(error = why, "failed to resolve during SRV discovery");
    }
    if found.is_empty() {
        return Err(why);
    }
    found.iter().for_each(|node| info!(node, "got bootstrap from DNS for etcd-server"));
    Ok(found.join(","))
}

fn members(config: &Config, lookup: &dyn Lookup, scheme: &str, service: &str) -> Result<Vec<String>, String> {
    let mut own = Vec::new();
    for url in &config.initial_advertise_peer_urls {
        own.push((lookup.address(&url.host, url.port)?, url));
    }
    let (mut found, mut last, mut unnamed) = (Vec::new(), None, 0);
    for Record { target, port, .. } in lookup.records(&format!("_{service}._tcp.{}", config.discovery_srv))? {
        let address = match lookup.address(&target, port) {
            Ok(address) => address,
            Err(why) => {
                last = Some(why);
                continue;
            }
        };
        let own = own.iter().find(|(of, _)| *of == address).map(|(_, url)| *url);
        let name = match own {
            Some(_) => config.name.clone(),
            None => {
                unnamed += 1;
                format!("{}", unnamed - 1)
            }
        };
        let host = host_port(target.trim_end_matches('.'), port);
        match own.filter(|url| url.scheme_text() != scheme) {
            Some(url) => last = Some(mismatch(scheme, &host, service, url)),
            None => found.push(format!("{name}={scheme}://{host}")),
        }
    }
    match last {
        Some(why) if found.is_empty() => Err(why),
        _ => Ok(found),
    }
}

fn mismatch(scheme: &str, host: &str, service: &str, own: &Url) -> String {
    format!("bootstrap at {scheme}://{host} from DNS for {service} has scheme mismatch with expected peer {own}")
}

fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::named;

    /// `a.` and `b.` are 10.0.0.1 and 10.0.0.2; `lost.` is nowhere.
    struct Zone(&'static [(&'static str, &'static [(&'static str, u16)])]);

    impl Lookup for Zone {
        fn records(&self, name: &str) -> Result<Vec<Record>, String> {
            let found = self.0.iter().find(|(known, _)| *known == name);
            let record = |(target, port): &(&str, u16)| Record {
                target: (*target).to_owned(),
                port: *port,
                priority: 0,
                weight: 0,
            };
            let (_, records) = found.ok_or_else(|| format!("lookup {name}: no such host"))?;
            Ok(records.iter().map(record).collect())
        }

        fn address(&self, host: &str, port: u16) -> Result<SocketAddr, String> {
            let ip = match host.trim_end_matches('.') {
                "a" => [10, 0, 0, 1],
                "b" => [10, 0, 0, 2],
                _ => return Err(format!("lookup {host}: no such host")),
            };
            Ok((ip, port).into())
        }
    }

    fn config(urls: &str) -> Config {
        let initial_advertise_peer_urls = Url::parse_list(urls).unwrap();
        Config { name: "me".into(), discovery_srv: "x.org".into(), initial_advertise_peer_urls, ..Config::default() }
    }

    #[test]
    fn records_name_the_founders_and_find_this_member_by_its_address() {
        let zone = Zone(&[("_etcd-server._tcp.x.org", &[("b.", 2380), ("a.", 2380), ("lost.", 1), ("b.", 2381)])]);
        let found = initial_cluster(&config("http://a:2380"), &zone).unwrap();
        assert_eq!(found, "0=http://b:2380,me=http://a:2380,1=http://b:2381");
        assert_eq!(named(&found).unwrap().len(), 3);
        let named = Config { discovery_srv_name: "c1".into(), ..config("http://a:2380") };
        let zone = Zone(&[("_etcd-server-c1._tcp.x.org", &[("a.", 2380)])]);
        assert_eq!(initial_cluster(&named, &zone).unwrap(), "me=http://a:2380");
    }

    #[test]
    fn both_services_count() {
        let zone = Zone(&[("_etcd-server-ssl._tcp.x.org", &[("b.", 1)]), ("_etcd-server._tcp.x.org", &[("a.", 2)])]);
        let found = initial_cluster(&config("http://a:2"), &zone).unwrap();
        assert_eq!(found, "0=https://b:1,me=http://a:2");
    }

    #[test]
    fn failures_are_told_as_etcd_tells_them() {
        let text = initial_cluster(&config("http://a:2"), &Zone(&[])).unwrap_err();
        assert_eq!(
            text,
            "error querying DNS SRV records for _etcd-server-ssl lookup _etcd-server-ssl._tcp.x.org: no such host\n\
             error querying DNS SRV records for _etcd-server lookup _etcd-server._tcp.x.org: no such host"
        );
        let zone = Zone(&[("_etcd-server-ssl._tcp.x.org", &[("a.", 2)])]);
        let text = initial_cluster(&config("http://a:2"), &zone).unwrap_err();
        let mismatch =
            "bootstrap at https://a:2 from DNS for etcd-server-ssl has scheme mismatch with expected peer http://a:2";
        assert!(text.contains(mismatch), "{text}");
    }
}
