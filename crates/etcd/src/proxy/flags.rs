//! The flags of `etcd grpc-proxy start`, and what they come to.

use crate::config::tls_version;
use cobra::{Exit, Flag, Kind, Parsed};
use std::time::Duration;

pub const FLAGS: &[Flag] = &[
    Flag::new("listen-addr", Kind::Text, "127.0.0.1:23790", "listen address"),
    Flag::new("discovery-srv", Kind::Text, "", "domain name to query for SRV records describing cluster endpoints"),
    Flag::new("discovery-srv-name", Kind::Text, "", "service name to query when using DNS discovery"),
    Flag::new("metrics-addr", Kind::Text, "", "listen for endpoint /metrics requests on an additional interface"),
    Flag::switch("insecure-discovery", "accept insecure SRV records"),
    Flag::new("endpoints", Kind::List, "127.0.0.1:2379", "comma separated etcd cluster endpoints"),
    Flag::new(
        "endpoints-auto-sync-interval",
        Kind::Duration,
        "0s",
        "etcd endpoints auto sync interval (disabled by default)",
    ),
    Flag::new(
        "dial-keepalive-time",
        Kind::Duration,
        "0s",
        "keepalive time for client(grpc-proxy) connections (default 0, disable).",
    ),
    Flag::new(
        "dial-keepalive-timeout",
        Kind::Duration,
        "20s",
        "keepalive timeout for client(grpc-proxy) connections (default 20s).",
    ),
    Flag::switch(
        "permit-without-stream",
        "Enable client(grpc-proxy) to send keepalive pings even with no active RPCs.",
    ),
    Flag::new(
        "advertise-client-url",
        Kind::Text,
        "127.0.0.1:23790",
        "advertise address to register (must be reachable by client)",
    ),
    Flag::new(
        "resolver-prefix",
        Kind::Text,
        "",
        "prefix to use for registering proxy (must be shared with other grpc-proxy members)",
    ),
    Flag::new("resolver-ttl", Kind::Int, "0", "specify TTL, in seconds, when registering proxy endpoints"),
    Flag::new("namespace", Kind::Text, "", "string to prefix to all keys for namespacing requests"),
    Flag::switch(
        "enable-pprof",
        "Enable runtime profiling data via HTTP server. Address is at client URL + \"/debug/pprof/\"",
    ),
    Flag::new("data-dir", Kind::Text, "default.proxy", "Data directory for persistent data"),
    Flag::new("max-send-bytes", Kind::Int, "1572864", "message send limits in bytes (default value is 1.5 MiB)"),
    Flag::new(
        "max-recv-bytes",
        Kind::Int,
        "2147483647",
        "message receive limits in bytes (default value is math.MaxInt32)",
    ),
    Flag::new(
        "grpc-keepalive-min-time",
        Kind::Duration,
        "5s",
        "Minimum interval duration that a client should wait before pinging proxy.",
    ),
    Flag::new(
        "grpc-keepalive-interval",
        Kind::Duration,
        "2h0m0s",
        "Frequency duration of server-to-client ping to check if a connection is alive (0 to disable).",
    ),
    Flag::new(
        "grpc-keepalive-timeout",
        Kind::Duration,
        "20s",
        "Additional duration of wait before closing a non-responsive connection (0 to disable).",
    ),
    Flag::new("cert", Kind::Text, "", "identify secure connections with etcd servers using this TLS certificate file"),
    Flag::new("key", Kind::Text, "", "identify secure connections with etcd servers using this TLS key file"),
    Flag::new("cacert", Kind::Text, "", "verify certificates of TLS-enabled secure etcd servers using this CA bundle"),
    Flag::switch(
        "insecure-skip-tls-verify",
        "skip authentication of etcd server TLS certificates (CAUTION: this option should be enabled only for testing \
         purposes)",
    ),
    Flag::new("cert-file", Kind::Text, "", "identify secure connections to the proxy using this TLS certificate file"),
    Flag::new("key-file", Kind::Text, "", "identify secure connections to the proxy using this TLS key file"),
    Flag::new(
        "trusted-ca-file",
        Kind::Text,
        "",
        "verify certificates of TLS-enabled secure proxy using this CA bundle",
    ),
    Flag::new(
        "listen-cipher-suites",
        Kind::List,
        "",
        "Comma-separated list of supported TLS cipher suites between client/proxy (empty will be auto-populated by Go).",
    ),
    Flag::switch("auto-tls", "proxy TLS using generated certificates"),
    Flag::new("client-crl-file", Kind::Text, "", "proxy client certificate revocation list file."),
    Flag::new(
        "self-signed-cert-validity",
        Kind::Uint,
        "1",
        "The validity period of the proxy certificates, unit is year",
    ),
    Flag::new(
        "tls-min-version",
        Kind::Text,
        "TLS1.2",
        "Minimum TLS version supported by grpc proxy. Possible values: TLS1.2, TLS1.3.",
    ),
    Flag::new(
        "tls-max-version",
        Kind::Text,
        "",
        "Maximum TLS version supported by grpc proxy. Possible values: TLS1.2, TLS1.3 (empty defers to Go).",
    ),
    Flag::switch(
        "experimental-serializable-ordering",
        "Ensure serializable reads have monotonically increasing store revisions across endpoints.",
    ),
    Flag::new(
        "experimental-leasing-prefix",
        Kind::Text,
        "",
        "leasing metadata prefix for disconnected linearized reads.",
    ),
    Flag::switch("experimental-enable-grpc-logging", "logging all grpc requests and responses"),
    Flag::switch("debug", "Enable debug-level logging for grpc-proxy."),
    Flag::new(
        "max-concurrent-streams",
        Kind::Uint32,
        "4294967295",
        "Maximum concurrent streams that each client can open at a time.",
    ),
];

/// Refuses flags that don't go together, with etcd's texts (`checkArgs`).
///
/// # Errors
/// The first that does not.
pub fn check(given: &Parsed) -> Result<(), Exit> {
    let refused = |text: String| {
        eprintln!("{text}");
        Err(Exit::code(1))
    };
    let (prefix, ttl, url) =
        (given.text("resolver-prefix"), given.int("resolver-ttl"), given.text("advertise-client-url"));
    if !prefix.is_empty() && ttl < 1 {
        return refused(format!("invalid resolver-ttl {ttl}"));
    }
    if prefix.is_empty() && ttl > 0 {
        return refused(format!("invalid resolver-prefix {}", go::quote(prefix)));
    }
    if !prefix.is_empty() && url.is_empty() {
        return refused(format!("invalid advertise-client-url {}", go::quote(url)));
    }
    if given.is_true("auto-tls") && given.uint("self-signed-cert-validity") == 0 {
        return refused("selfSignedCertValidity is invalid,it should be greater than 0".into());
    }
    let (least, most) = (given.text("tls-min-version"), given.text("tls-max-version"));
    for (flag, version) in [("tls-min-version", least), ("tls-max-version", most)] {
        if !version.is_empty() && tls_version(version).is_none() {
            let version = go::quote(version);
            return refused(format!(
                "{flag} is invalid: unexpected TLS version {version} (must be one of: TLS1.2, TLS1.3)"
            ));
        }
    }
    if tls_version(most).is_some_and(|most| tls_version(least).is_some_and(|least| least > most)) {
        return refused(format!("min version ({least}) is greater than max version ({most})"));
    }
    if tls_version(least) == Some(tls::Version::Tls13) && !given.list("listen-cipher-suites").is_empty() {
        return refused("cipher suites cannot be configured when only TLS1.3 is enabled".into());
    }
    Ok(())
}

/// A flag's duration; what is negative is none.
pub fn duration(given: &Parsed, name: &str) -> Duration {
    Duration::from_nanos(u64::try_from(given.nanoseconds(name)).unwrap_or(0))
}

/// What clients are let in by, before it is known whether a certificate has to be made.
pub fn listener_tls(given: &Parsed) -> tls::Settings {
    let text = |name: &str| given.text(name).to_owned();
    tls::Settings {
        cert: text("cert-file"),
        key: text("key-file"),
        trusted_ca: text("trusted-ca-file"),
        crl: text("client-crl-file"),
        min: tls_version(given.text("tls-min-version")),
        max: tls_version(given.text("tls-max-version")),
        suites: given.list("listen-cipher-suites").to_vec(),
        ..tls::Settings::default()
    }
}

/// What the members are dialled with; `None`: nothing is said about it.
pub fn cluster_tls(given: &Parsed) -> Option<tls::Settings> {
    let [cert, key, trusted_ca] = ["cert", "key", "cacert"].map(|name| given.text(name).to_owned());
    let skip_verify = given.is_true("insecure-skip-tls-verify");
    let said = skip_verify || [&cert, &key, &trusted_ca].iter().any(|text| !text.is_empty());
    said.then(|| tls::Settings { cert, key, trusted_ca, skip_verify, ..tls::Settings::default() })
}
