//! Addresses as Go's `net` and `net/url` take them apart: the proxies' flags are read so.

use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};

/// Host and port of `host:port`, `[host]:port` or `:port`; `None` of anything else (Go `net.SplitHostPort`).
pub fn split_host_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once("]:")?,
        None => text.rsplit_once(':').filter(|(host, _)| !host.contains(':'))?,
    };
    let plain = |part: &str| !part.contains(['[', ']']);
    (plain(host) && plain(port) && !port.contains(':')).then_some((host, port))
}

/// `host:port`, with brackets where a host needs them.
pub fn join_host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// An endpoint without what a plain forwarder has no use for: scheme, user, path (Go's `url.Parse(endpoint).Host`, where
/// there is one).
pub fn without_scheme(endpoint: &str) -> &str {
    let is_scheme = |scheme: &str| {
        let mut bytes = scheme.bytes();
        bytes.next().is_none_or(|first| first.is_ascii_alphabetic())
            && bytes.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    let rest = match endpoint.split_once("//") {
        Some(("", rest)) => rest,
        Some((scheme, rest)) if scheme.strip_suffix(':').is_some_and(is_scheme) => rest,
        _ => return endpoint,
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if host.is_empty() || !is_host(host) { endpoint } else { host }
}

/// Whether Go's `url.Parse` takes this for a host with or without a port.
fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(']') {
        Some((_, rest)) => ("", rest.strip_prefix(':').unwrap_or(rest)),
        None => host.rsplit_once(':').unwrap_or((host, "")),
    };
    !name.contains(':') && port.bytes().all(|b| b.is_ascii_digit())
}

/// The host of an endpoint: what bytes from outside are read with.
pub fn host_of(endpoint: &str) -> Option<&str> {
    split_host_port(without_scheme(endpoint)).map(|(host, _)| host)
}

/// The addresses of a host (Go `net.LookupHost`).
///
/// # Errors
/// There is no such host. An empty name is none.
pub fn look_up(host: &str) -> io::Result<Vec<IpAddr>> {
    if host.is_empty() {
        return Err(io::Error::other("no such host"));
    }
    Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

/// Why an address can't be listened at, in Go's words.
pub fn listen_text(address: &str, e: &io::Error) -> String {
    let why = match e.kind() {
        io::ErrorKind::AddrInUse => "bind: address already in use".to_owned(),
        io::ErrorKind::AddrNotAvailable => "bind: cannot assign requested address".to_owned(),
        io::ErrorKind::PermissionDenied => "bind: permission denied".to_owned(),
        _ => go::os_text(e),
    };
    format!("listen tcp {address}: {why}")
}

/// Why an address can't be dialled, in Go's words.
pub fn dial_text(address: &str, e: &io::Error) -> String {
    let why = match e.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connect: connection reset by peer".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => go::os_text(e),
    };
    format!("dial tcp {address}: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_split_as_go_splits_them() {
        for (text, parts) in [
            ("127.0.0.1:2379", Some(("127.0.0.1", "2379"))),
            ("[::1]:2379", Some(("::1", "2379"))),
            (":2379", Some(("", "2379"))),
            ("a:", Some(("a", ""))),
            ("127.0.0.1", None),
            ("::1:2379", None),
            ("[::1]", None),
            ("[a]b:1", None),
            ("a]:1", None),
            ("", None),
        ] {
            assert_eq!(split_host_port(text), parts, "{text}");
        }
        assert_eq!(join_host_port("::1", 1), "[::1]:1");
        assert_eq!(join_host_port("a", 1), "a:1");
    }

    #[test]
    fn endpoints_lose_what_stands_around_their_host() {
        for (endpoint, host) in [
            ("http://a:1/path", "a:1"),
            ("https://u:p@[::1]:1?q", "[::1]:1"),
            ("//a:1", "a:1"),
            ("127.0.0.1:2379", "127.0.0.1:2379"),
            ("localhost:2379", "localhost:2379"),
            ("http://", "http://"),
            ("1a://b:1", "1a://b:1"),
            ("http://::1:1", "http://::1:1"),
            ("http://a:x", "http://a:x"),
            ("http://[::1]/", "[::1]"),
        ] {
            assert_eq!(without_scheme(endpoint), host, "{endpoint}");
        }
    }
}
