//! The one table of settings. Everything else is derived from it: the fields of [`Config`], the command line, the
//! `ETCD_*` variables, the keys of the config file, the defaults and `--help`.
//!
//! A row: `field: Kind, "flag", "default", "key.in.file", "help";`. An empty flag name is a setting that only a file
//! has; an empty key one that a file can't hold.

use super::gates::FeatureGates;
use super::url::Url;
use go::{NumberError, quote};
use std::time::Duration;

/// Where `--help` shows a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Member,
    Clustering,
    Security,
    Auth,
    Profiling,
    Logging,
    Tracing,
    Features,
    Unsafe,
}

impl Section {
    /// All, in the order of `--help`, with their headings.
    pub const ALL: &[(Section, &str)] = &[
        (Section::Member, "Member"),
        (Section::Clustering, "Clustering"),
        (Section::Security, "Security"),
        (Section::Auth, "Auth"),
        (Section::Profiling, "Profiling and Monitoring"),
        (Section::Logging, "Logging"),
        (Section::Tracing, "Distributed tracing"),
        (Section::Features, "Features"),
        (Section::Unsafe, "Unsafe feature"),
    ];
}

/// Access to one field of a [`Config`].
pub type Field<T> = fn(&mut Config) -> &mut T;

/// What kind of value a setting holds, and where it is kept.
#[derive(Clone, Copy, Debug)]
pub enum Slot {
    Text(Field<String>),
    Bool(Field<bool>),
    Uint(Field<u64>),
    Uint32(Field<u32>),
    Int(Field<i64>),
    Duration(Field<Duration>),
    /// A duration whose sign matters, in nanoseconds.
    Nanoseconds(Field<i64>),
    /// Comma separated, kept in order.
    List(Field<Vec<String>>),
    /// Comma separated, sorted, without duplicates.
    Set(Field<Vec<String>>),
    /// Comma separated URLs, sorted, without duplicates; empty text changes nothing (as in etcd).
    Urls(Field<Vec<Url>>),
    /// `*` or URLs.
    Origins(Field<Vec<String>>),
    /// `new` or `existing`.
    State(Field<String>),
    /// `exit` or `proxy`.
    Fallback(Field<String>),
    /// A phase of v2's deprecation.
    V2(Field<String>),
    Gates(Field<FeatureGates>),
}

macro_rules! field_type {
    (Text) => { String };
    (State) => { String };
    (Fallback) => { String };
    (V2) => { String };
    (Bool) => { bool };
    (Uint) => { u64 };
    (Uint32) => { u32 };
    (Int) => { i64 };
    (Duration) => { Duration };
    (Nanoseconds) => { i64 };
    (List) => { Vec<String> };
    (Set) => { Vec<String> };
    (Origins) => { Vec<String> };
    (Urls) => { Vec<Url> };
    (Gates) => { FeatureGates };
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    pub name: &'static str,
    /// What the command line would say for the default.
    pub default: &'static str,
    /// Key in the config file, parts joined by dots.
    pub key: &'static str,
    pub section: Section,
    pub help: &'static str,
    pub slot: Slot,
}

macro_rules! settings {
    ($( $section:ident { $( $field:ident: $kind:ident, $name:literal, $default:literal, $key:literal, $help:literal; )* } )*) => {
        /// A member's settings. Times without a unit in their name are durations; an empty text means "not given".
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Config { $($( #[doc = $help] pub $field: field_type!($kind), )*)* }

        impl Config {
            fn blank() -> Config {
                Config { $($( $field: Default::default(), )*)* }
            }
        }

        /// Every setting.
        pub static FLAGS: &[Flag] = &[ $($(
            Flag { name: $name, default: $default, key: $key, section: Section::$section, help: $help, slot: Slot::$kind(|c| &mut c.$field) },
        )*)* ];
    };
}

settings! {
    Member {
        name: Text, "name", "default", "name", "Name of this member, for people; also finds it in --initial-cluster.";
        data_dir: Text, "data-dir", "", "data-dir", "Data directory, made if absent. Empty: <name>.etcd in the working directory.";
        wal_dir: Text, "wal-dir", "", "wal-dir", "Directory for the log alone. Empty: inside the data directory.";
        snapshot_count: Uint, "snapshot-count", "10000", "snapshot-count", "Applied entries between two snapshots on disk.";
        snapshot_catchup_entries: Uint, "snapshot-catchup-entries", "5000", "snapshot-catchup-entries", "Entries kept behind a snapshot for slow followers.";
        heartbeat_interval: Uint, "heartbeat-interval", "100", "heartbeat-interval", "Milliseconds between two heartbeats.";
        election_timeout: Uint, "election-timeout", "1000", "election-timeout", "Milliseconds without a leader before an election.";
        initial_election_tick_advance: Bool, "initial-election-tick-advance", "true", "initial-election-tick-advance", "Shorten the wait for the first election after a start.";
        listen_peer_urls: Urls, "listen-peer-urls", "http://localhost:2380", "listen-peer-urls", "URLs to listen on for other members.";
        listen_client_urls: Urls, "listen-client-urls", "http://localhost:2379", "listen-client-urls", "URLs to listen on for clients: gRPC, and HTTP unless --listen-client-http-urls is given.";
        listen_client_http_urls: Urls, "listen-client-http-urls", "", "listen-client-http-urls", "URLs for clients' HTTP alone; --listen-client-urls then speak gRPC only.";
        max_snapshots: Uint, "max-snapshots", "5", "max-snapshots", "Snapshot files kept, 0 for all. Deprecated in v3.6, gone in v3.8.";
        max_wals: Uint, "max-wals", "5", "max-wals", "Log files kept, 0 for all.";
        memory_mlock: Bool, "memory-mlock", "false", "memory-mlock", "Keep memory from being swapped out.";
        quota_backend_bytes: Int, "quota-backend-bytes", "0", "quota-backend-bytes", "Bytes the database may hold before writes are refused. 0: 2 GiB; negative: no limit.";
        backend_bbolt_freelist_type: Text, "backend-bbolt-freelist-type", "", "backend-bbolt-freelist-type", "Kind of free list (array or map). Accepted; this page store has one kind.";
        backend_batch_interval: Duration, "backend-batch-interval", "0s", "backend-batch-interval", "Longest time between two commits of the page store. 0: the default.";
        backend_batch_limit: Int, "backend-batch-limit", "0", "backend-batch-limit", "Most operations between two commits of the page store. 0: the default.";
        max_txn_ops: Uint, "max-txn-ops", "128", "max-txn-ops", "Operations allowed in one transaction.";
        max_request_bytes: Uint, "max-request-bytes", "1572864", "max-request-bytes", "Bytes allowed in one request.";
        max_concurrent_streams: Uint32, "max-concurrent-streams", "4294967295", "max-concurrent-streams", "Streams a client may have open on one connection.";
        grpc_keepalive_min_time: Duration, "grpc-keepalive-min-time", "5s", "grpc-keepalive-min-time", "Clients that ping more often are disconnected.";
        grpc_keepalive_interval: Duration, "grpc-keepalive-interval", "2h0m0s", "grpc-keepalive-interval", "Idle time after which a client is pinged. 0: never.";
        grpc_keepalive_timeout: Duration, "grpc-keepalive-timeout", "20s", "grpc-keepalive-timeout", "Time a pinged client has to answer. 0: for ever.";
        socket_reuse_port: Bool, "socket-reuse-port", "false", "socket-options.reuse-port", "Set SO_REUSEPORT on listeners.";
        socket_reuse_address: Bool, "socket-reuse-address", "false", "socket-options.reuse-address", "Set SO_REUSEADDR on listeners.";
        enable_grpc_gateway: Bool, "enable-grpc-gateway", "true", "enable-grpc-gateway", "Serve the JSON API under /v3/.";
        raft_read_timeout: Duration, "raft-read-timeout", "5s", "", "Read timeout of connections between members, at least 5s.";
        raft_write_timeout: Duration, "raft-write-timeout", "5s", "", "Write timeout of connections between members, at least 5s.";
        feature_gates: Gates, "feature-gates", "", "feature-gates", "Features to switch on or off, as Name=true|false pairs. Options are:";
    }
    Clustering {
        initial_advertise_peer_urls: Urls, "initial-advertise-peer-urls", "http://localhost:2380", "initial-advertise-peer-urls", "URLs by which other members reach this one.";
        initial_cluster: Text, "initial-cluster", "default=http://localhost:2380", "initial-cluster", "Members of a new cluster: name=url,name=url.";
        initial_cluster_state: State, "initial-cluster-state", "new", "initial-cluster-state", "'new' to found a cluster, 'existing' to join one. Not looked at after the first start.";
        initial_cluster_token: Text, "initial-cluster-token", "etcd-cluster", "initial-cluster-token", "Makes the ids of this cluster differ from others with the same addresses.";
        advertise_client_urls: Urls, "advertise-client-urls", "http://localhost:2379", "advertise-client-urls", "URLs by which clients reach this member.";
        discovery_token: Text, "discovery-token", "", "discovery-config.token", "Discovery: the cluster's token.";
        discovery_endpoints: List, "discovery-endpoints", "", "discovery-config.client.endpoints", "Discovery: endpoints of the discovery service.";
        discovery_dial_timeout: Duration, "discovery-dial-timeout", "2s", "discovery-config.client.dial-timeout", "Discovery: timeout for connecting.";
        discovery_request_timeout: Duration, "discovery-request-timeout", "5s", "discovery-config.client.request-timeout", "Discovery: timeout of a request.";
        discovery_keepalive_time: Duration, "discovery-keepalive-time", "2s", "discovery-config.client.keepalive-time", "Discovery: time between pings.";
        discovery_keepalive_timeout: Duration, "discovery-keepalive-timeout", "6s", "discovery-config.client.keepalive-timeout", "Discovery: time to answer a ping.";
        discovery_insecure_transport: Bool, "discovery-insecure-transport", "true", "discovery-config.client.secure.insecure-transport", "Discovery: speak plaintext.";
        discovery_insecure_skip_tls_verify: Bool, "discovery-insecure-skip-tls-verify", "false", "discovery-config.client.secure.insecure-skip-tls-verify", "Discovery: do not verify the server's certificate. For tests only.";
        discovery_cert: Text, "discovery-cert", "", "discovery-config.client.secure.cert", "Discovery: client certificate file.";
        discovery_key: Text, "discovery-key", "", "discovery-config.client.secure.key", "Discovery: client key file.";
        discovery_cacert: Text, "discovery-cacert", "", "discovery-config.client.secure.cacert", "Discovery: CA file.";
        discovery_user: Text, "discovery-user", "", "discovery-config.client.auth.username", "Discovery: user[:password].";
        discovery_password: Text, "discovery-password", "", "discovery-config.client.auth.password", "Discovery: password.";
        discovery_max_request_bytes: Int, "", "0", "discovery-config.client.max-request-bytes", "Discovery: bytes allowed in a request (config file only). 0: 2 MiB.";
        discovery_max_recv_bytes: Int, "", "0", "discovery-config.client.max-recv-bytes", "Discovery: bytes allowed in an answer (config file only). 0: 2 GiB.";
        discovery_server_name: Text, "", "", "discovery-config.client.secure.server-name", "Discovery: the name that the server's certificate is for (config file only). Empty: the endpoint's.";
        discovery_auth_token: Text, "", "", "discovery-config.client.auth.token", "Discovery: a token instead of a user (config file only).";
        discovery_fallback: Fallback, "discovery-fallback", "exit", "", "What to do when discovery fails; only 'exit' is left.";
        discovery_srv: Text, "discovery-srv", "", "discovery-srv", "DNS domain whose SRV records (_etcd-server-ssl._tcp, _etcd-server._tcp) name the founders.";
        discovery_srv_name: Text, "discovery-srv-name", "", "discovery-srv-name", "Suffix of the services asked for: _etcd-server-NAME._tcp.";
        strict_reconfig_check: Bool, "strict-reconfig-check", "true", "strict-reconfig-check", "Refuse membership changes that would lose the quorum.";
        pre_vote: Bool, "pre-vote", "true", "pre-vote", "Ask for votes without a new term first, so that a returning member disturbs nobody.";
        auto_compaction_retention: Text, "auto-compaction-retention", "0", "auto-compaction-retention", "History kept by automatic compaction: hours, a duration, or revisions. 0: no automatic compaction.";
        auto_compaction_mode: Text, "auto-compaction-mode", "periodic", "auto-compaction-mode", "How to read --auto-compaction-retention: periodic (time) or revision (count).";
        v2_deprecation: V2, "v2-deprecation", "write-only", "v2-deprecation", "Phase of v2's removal. Deprecated, gone in v3.8: the default holds whatever is given.";
    }
    Security {
        cert_file: Text, "cert-file", "", "client-transport-security.cert-file", "Certificate file for clients.";
        key_file: Text, "key-file", "", "client-transport-security.key-file", "Key file for clients.";
        client_cert_auth: Bool, "client-cert-auth", "false", "client-transport-security.client-cert-auth", "Demand certificates of clients.";
        client_cert_file: Text, "client-cert-file", "", "client-transport-security.client-cert-file", "Certificate this server shows when it dials itself. Empty: --cert-file.";
        client_key_file: Text, "client-key-file", "", "client-transport-security.client-key-file", "Key of --client-cert-file.";
        client_crl_file: Text, "client-crl-file", "", "", "Revocation list for clients' certificates.";
        client_cert_allowed_hostname: List, "client-cert-allowed-hostname", "", "client-transport-security.allowed-hostname", "Names one of which a client's certificate must hold.";
        client_cert_allowed_cn: List, "", "", "client-transport-security.allowed-cn", "Common names allowed in clients' certificates (config file only).";
        client_skip_client_san_verification: Bool, "", "false", "client-transport-security.skip-client-san-verification", "Do not match the names in clients' certificates with their address (config file only).";
        trusted_ca_file: Text, "trusted-ca-file", "", "client-transport-security.trusted-ca-file", "CA file for clients' certificates.";
        auto_tls: Bool, "auto-tls", "false", "client-transport-security.auto-tls", "TLS for clients with a self-made certificate.";
        peer_cert_file: Text, "peer-cert-file", "", "peer-transport-security.cert-file", "Certificate file for other members.";
        peer_key_file: Text, "peer-key-file", "", "peer-transport-security.key-file", "Key file for other members.";
        peer_client_cert_auth: Bool, "peer-client-cert-auth", "false", "peer-transport-security.client-cert-auth", "Demand certificates of other members.";
        peer_client_cert_file: Text, "peer-client-cert-file", "", "peer-transport-security.client-cert-file", "Certificate shown to other members. Empty: --peer-cert-file.";
        peer_client_key_file: Text, "peer-client-key-file", "", "peer-transport-security.client-key-file", "Key of --peer-client-cert-file.";
        peer_trusted_ca_file: Text, "peer-trusted-ca-file", "", "peer-transport-security.trusted-ca-file", "CA file for other members' certificates.";
        peer_cert_allowed_cn: List, "peer-cert-allowed-cn", "", "peer-transport-security.allowed-cn", "Common names one of which a member's certificate must hold.";
        peer_cert_allowed_hostname: List, "peer-cert-allowed-hostname", "", "peer-transport-security.allowed-hostname", "Names one of which a member's certificate must hold.";
        peer_auto_tls: Bool, "peer-auto-tls", "false", "peer-transport-security.auto-tls", "TLS between members with self-made certificates.";
        self_signed_cert_validity: Uint, "self-signed-cert-validity", "1", "self-signed-cert-validity", "Years for which self-made certificates hold.";
        peer_crl_file: Text, "peer-crl-file", "", "", "Revocation list for members' certificates.";
        peer_skip_client_san_verification: Bool, "peer-skip-client-san-verification", "false", "peer-transport-security.skip-client-san-verification", "Do not match the names in members' certificates with their address.";
        cipher_suites: List, "cipher-suites", "", "cipher-suites", "Cipher suites allowed with TLS 1.2. Empty: the default ones.";
        cors: Origins, "cors", "*", "cors", "Origins allowed by CORS; * for all.";
        host_whitelist: Set, "host-whitelist", "*", "host-whitelist", "Host names allowed in plaintext HTTP requests; * for all.";
        tls_min_version: Text, "tls-min-version", "TLS1.2", "tls-min-version", "Lowest TLS version: TLS1.2 or TLS1.3.";
        tls_max_version: Text, "tls-max-version", "", "tls-max-version", "Highest TLS version: TLS1.2 or TLS1.3. Empty: the highest known.";
    }
    Auth {
        auth_token: Text, "auth-token", "simple", "auth-token", "Kind of tokens: 'simple', or 'jwt' with its options.";
        bcrypt_cost: Uint, "bcrypt-cost", "10", "bcrypt-cost", "Cost of hashing passwords, 4 to 31.";
        auth_token_ttl: Uint, "auth-token-ttl", "300", "auth-token-ttl", "Seconds a simple token lives after its last use.";
    }
    Profiling {
        enable_pprof: Bool, "enable-pprof", "false", "enable-pprof", "Serve profiles under /debug/pprof/.";
        metrics: Text, "metrics", "basic", "metrics", "'extensive' adds histograms of gRPC calls.";
        listen_metrics_urls: Urls, "listen-metrics-urls", "", "listen-metrics-urls", "Further URLs for /metrics and health.";
    }
    Logging {
        logger: Text, "logger", "zap", "logger", "Kind of log; only 'zap'.";
        log_outputs: Set, "log-outputs", "default", "log-outputs", "Where the log goes: default (stderr), stderr, stdout, systemd/journal, or files.";
        log_level: Text, "log-level", "info", "log-level", "debug, info, warn, error, panic or fatal.";
        log_format: Text, "log-format", "json", "log-format", "json or console.";
        enable_log_rotation: Bool, "enable-log-rotation", "false", "enable-log-rotation", "Rotate the log (with one file as output).";
        log_rotation_config_json: Text, "log-rotation-config-json", "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \"compress\": false}", "log-rotation-config-json", "How to rotate: maxsize (MB), maxage (days, 0 for ever), maxbackups (files, 0 for all), localtime, compress.";
        warning_unary_request_duration: Duration, "warning-unary-request-duration", "300ms", "warning-unary-request-duration", "A request that takes longer is logged.";
    }
    Tracing {
        enable_distributed_tracing: Bool, "enable-distributed-tracing", "false", "enable-distributed-tracing", "Send OpenTelemetry traces.";
        distributed_tracing_address: Text, "distributed-tracing-address", "localhost:4317", "distributed-tracing-address", "The collector's address.";
        distributed_tracing_service_name: Text, "distributed-tracing-service-name", "etcd", "distributed-tracing-service-name", "Service name in traces, the same on all members.";
        distributed_tracing_instance_id: Text, "distributed-tracing-instance-id", "", "distributed-tracing-instance-id", "Instance id in traces, different on each member.";
        distributed_tracing_sampling_rate: Int, "distributed-tracing-sampling-rate", "0", "distributed-tracing-sampling-rate", "Samples collected per million spans.";
    }
    Features {
        corrupt_check_time: Duration, "corrupt-check-time", "0s", "corrupt-check-time", "Time between two comparisons of the members' data. 0: none.";
        compact_hash_check_time: Nanoseconds, "compact-hash-check-time", "1m0s", "compact-hash-check-time", "Time between two comparisons of compaction hashes (with the gate CompactHashCheck).";
        compaction_batch_limit: Int, "compaction-batch-limit", "0", "compaction-batch-limit", "Revisions deleted in one batch of a compaction. 0: the default.";
        compaction_sleep_interval: Duration, "compaction-sleep-interval", "0s", "compaction-sleep-interval", "Pause between two batches of a compaction. 0: the default.";
        watch_progress_notify_interval: Duration, "watch-progress-notify-interval", "0s", "watch-progress-notify-interval", "Time between two progress notifications of an idle watch. 0: 10m.";
        warning_apply_duration: Duration, "warning-apply-duration", "100ms", "warning-apply-duration", "A request that takes longer to apply is logged.";
        bootstrap_defrag_threshold_megabytes: Uint, "bootstrap-defrag-threshold-megabytes", "0", "bootstrap-defrag-threshold-megabytes", "Defragment at start if that frees as many MiB. 0: never.";
        max_learners: Int, "max-learners", "1", "max-learners", "Learners allowed in the cluster.";
        downgrade_check_time: Duration, "downgrade-check-time", "5s", "downgrade-check-time", "Time between two looks at a running downgrade. 0: never.";
    }
    Unsafe {
        force_new_cluster: Bool, "force-new-cluster", "false", "force-new-cluster", "Drop all other members and start as a cluster of one.";
        unsafe_no_fsync: Bool, "unsafe-no-fsync", "false", "unsafe-no-fsync", "Never sync to disk. A crash loses data.";
    }
}

/// Flags of the distant past: taken, then dropped.
pub const IGNORED: &[&str] = &[
    "cluster-active-size",
    "cluster-remove-delay",
    "cluster-sync-interval",
    "config",
    "force",
    "max-result-buffer",
    "max-retry-attempts",
    "peer-heartbeat-interval",
    "peer-election-timeout",
    "retry-interval",
    "snapshot",
    "v",
    "vv",
    "test.coverprofile",
    "test.outputdir",
];

/// The default of `--initial-cluster`.
pub const DEFAULT_INITIAL_CLUSTER: &str = "default=http://localhost:2380";
/// The default of `--name`.
pub const DEFAULT_NAME: &str = "default";

impl Default for Config {
    fn default() -> Config {
        let mut config = Config::blank();
        for flag in FLAGS {
            flag.set(&mut config, flag.default).expect("a test sets every default of the table");
        }
        config
    }
}

impl Flag {
    /// Finds a flag of the command line.
    pub fn named(name: &str) -> Option<&'static Flag> {
        FLAGS.iter().find(|f| f.name == name && !name.is_empty())
    }

    /// Whether it takes no following word.
    pub fn is_bool(&self) -> bool {
        matches!(self.slot, Slot::Bool(_))
    }

    /// Whether `config` holds another value than the default.
    #[cfg(test)]
    fn is_set(&self, config: &Config) -> bool {
        let mut copy = config.clone();
        // A default always parses (tested).
        let _ = self.set(&mut copy, self.default);
        copy != *config
    }

    /// Sets the field from the text of a flag or variable.
    ///
    /// # Errors
    /// The reason, in the words of Go's `flag` package or etcd.
    pub fn set(&self, config: &mut Config, text: &str) -> Result<(), String> {
        let number = |e: NumberError| e.flag_text().to_owned();
        match self.slot {
            Slot::Text(field) => *field(config) = text.to_owned(),
            Slot::Bool(field) => *field(config) = go::parse_bool(text).map_err(number)?,
            Slot::Uint(field) => *field(config) = go::parse_uint(text, 0, 64).map_err(number)?,
            Slot::Int(field) => *field(config) = go::parse_int(text, 0).map_err(number)?,
            Slot::Uint32(field) => *field(config) = parse_uint32(text)?,
            Slot::Duration(field) => {
                *field(config) = go::clamp(go::parse_duration(text).map_err(|_| "parse error".to_owned())?);
            }
            Slot::Nanoseconds(field) => {
                *field(config) = go::parse_duration(text).map_err(|_| "parse error".to_owned())?;
            }
            Slot::List(field) => *field(config) = list(text),
            Slot::Set(field) => *field(config) = set(text),
            Slot::Urls(field) if text.is_empty() => drop(field(config)),
            Slot::Urls(field) => *field(config) = Url::parse_list(text)?,
            Slot::Origins(field) => *field(config) = origins(text)?,
            Slot::State(field) => *field(config) = choice(text, &["new", "existing"])?,
            Slot::Fallback(field) => *field(config) = choice(text, &["exit", "proxy"])?,
            Slot::V2(field) => {
                let phases = ["write-only", "write-only-skip-check", "write-only-drop-data", "gone"];
                *field(config) = choice(text, &phases).map_err(|e| format!("{e} {}", quote(text)))?;
            }
            Slot::Gates(field) => field(config).set(text)?,
        }
        Ok(())
    }
}

fn parse_uint32(text: &str) -> Result<u32, String> {
    let value = go::parse_uint(text, 0, 32).map_err(String::from)?;
    u32::try_from(value).map_err(|_| "value out of range".into())
}

fn list(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { text.split(',').map(str::to_owned).collect() }
}

fn set(text: &str) -> Vec<String> {
    let mut items: Vec<String> = text.split(',').map(str::to_owned).collect();
    items.sort();
    items.dedup();
    items
}

fn origins(text: &str) -> Result<Vec<String>, String> {
    if text == "*" {
        return Ok(vec!["*".into()]);
    }
    Ok(Url::parse_list(text)?.iter().map(Url::to_string).collect())
}

fn choice(text: &str, allowed: &[&str]) -> Result<String, String> {
    if allowed.contains(&text) { Ok(text.to_owned()) } else { Err("invalid value".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_of_its_flag() {
        let mut config = Config::blank();
        for flag in FLAGS {
            assert_eq!(flag.set(&mut config, flag.default), Ok(()), "{}", flag.name);
            assert!(!flag.is_set(&config), "{}", flag.name);
        }
        assert_eq!(config, Config::default());
        assert_eq!(config.initial_cluster, DEFAULT_INITIAL_CLUSTER);
        assert_eq!(config.name, DEFAULT_NAME);
    }

    #[test]
    fn names_and_keys_are_unique() {
        for (i, flag) in FLAGS.iter().enumerate() {
            for other in &FLAGS[i + 1..] {
                assert!(flag.name.is_empty() || flag.name != other.name, "{}", flag.name);
                assert!(flag.key.is_empty() || flag.key != other.key, "{}", flag.key);
            }
        }
    }
}
