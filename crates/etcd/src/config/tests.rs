//! Precedence, Go-style parsing and refusals, as an operator meets them.

use super::*;
use crate::logging::Note;

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn loaded(line: &str, variables: &[(&str, &str)]) -> Loaded {
    match load(&words(line), &env(variables)) {
        Asked::Run(loaded) => *loaded,
        other => panic!("{line}: {other:?}"),
    }
}

fn verdict(line: &str) -> Result<Config, String> {
    let Loaded { config, failure, .. } = loaded(line, &[]);
    match failure {
        Some(Failure::Verify(text)) => Err(text),
        Some(other) => panic!("{line}: {other:?}"),
        None => validate(&config, &mut Vec::new()).map(|()| config),
    }
}

fn misuse(line: &str) -> String {
    match load(&words(line), &[]) {
        Asked::Misuse(text) => text,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn flags_are_gos() {
    let config =
        verdict("--name=a -data-dir b --pre-vote=false --strict-reconfig-check --name c --max-txn-ops 0x10").unwrap();
    assert_eq!((config.name.as_str(), config.data_dir.as_str(), config.max_txn_ops), ("c", "b", 16));
    assert!(!config.pre_vote && config.strict_reconfig_check);
    assert!(matches!(load(&words("--version"), &[]), Asked::Version));
    assert!(matches!(load(&words("--help"), &[]), Asked::Help));
    assert!(matches!(load(&words("-h --nonsense"), &[]), Asked::Help));
}

#[test]
fn wrong_flags_have_gos_texts() {
    for (line, text) in [
        ("--nonsense", "flag provided but not defined: -nonsense"),
        ("--max-txn-ops=x", "invalid value \"x\" for flag -max-txn-ops: parse error"),
        (
            "--max-txn-ops=99999999999999999999",
            "invalid value \"99999999999999999999\" for flag -max-txn-ops: value out of range",
        ),
        ("--grpc-keepalive-timeout=5", "invalid value \"5\" for flag -grpc-keepalive-timeout: parse error"),
        ("--pre-vote=maybe", "invalid boolean value \"maybe\" for -pre-vote: parse error"),
        ("--name", "flag needs an argument: -name"),
        ("---name", "bad flag syntax: ---name"),
        ("--initial-cluster-state=old", "invalid value \"old\" for flag -initial-cluster-state: invalid value"),
        (
            "--listen-client-urls=ftp://a:1",
            "invalid value \"ftp://a:1\" for flag -listen-client-urls: URL scheme must be http, https, unix, or unixs: ftp://a:1",
        ),
        ("--feature-gates=X=true", "invalid value \"X=true\" for flag -feature-gates: unrecognized feature gate: X"),
        ("--v2-deprecation=not-yet", "invalid value \"not-yet\" for flag -v2-deprecation: invalid value \"not-yet\""),
    ] {
        assert_eq!(misuse(line), text, "{line}");
    }
}

#[test]
fn a_flag_and_its_variable_together_are_refused() {
    let l = loaded("--name=a", &[("ETCD_NAME", "b")]);
    assert_eq!(l.failure, Some(Failure::Conflict { variable: "ETCD_NAME".into() }));
    let l = loaded("--name=a", &[("ETCD_DATA_DIR", "d"), ("ETCD_WAL_DIR", ""), ("ETCD_NONSENSE", "1")]);
    assert_eq!((l.failure, l.config.data_dir.as_str(), l.config.wal_dir.as_str()), (None, "d", ""));
    assert!(l.notes.iter().any(|n: &Note| n.message == "unrecognized environment variable"));
    let l = loaded("", &[("ETCD_MAX_TXN_OPS", "x")]);
    assert_eq!(l.failure, Some(Failure::Verify("invalid value \"x\" for ETCD_MAX_TXN_OPS: parse error".into())));
}

#[test]
fn a_file_alone_decides() {
    let folder = std::env::temp_dir().join(format!("oxetcd-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("etcd.yaml");
    let text = "Name: from-file\nmax-txn-ops: 7\nlog-outputs: [stderr]\nwatch-progress-notify-interval: 5000000000\nunknown: 1\n";
    std::fs::write(&path, text).unwrap();
    let l = loaded(&format!("--name=a --config-file={}", path.display()), &[("ETCD_MAX_TXN_OPS", "9")]);
    assert_eq!((l.failure, l.config.name.as_str(), l.config.max_txn_ops), (None, "from-file", 7));
    assert_eq!(l.config.progress_interval(), Duration::from_secs(5));
    std::fs::write(&path, "grpc-keepalive-timeout: 5s\n").unwrap();
    let l = loaded(&format!("--config-file={}", path.display()), &[]);
    assert!(matches!(&l.failure, Some(Failure::Verify(t)) if t.contains("cannot unmarshal string")), "{:?}", l.failure);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn every_bad_configuration_is_refused_with_cause_and_cure() {
    let own = "--listen-client-urls=http://127.0.0.1:1";
    for (line, text) in [
        ("extra", "\"extra\" is not a valid flag"),
        (own, "--advertise-client-urls is required when --listen-client-urls is set explicitly"),
        ("--logger=x", "unknown logger option \"x\""),
        ("--log-format=x", "unknown log format: x, supported values json, console"),
        ("--log-outputs=default,stdout", "multi logoutput for \"default\" is not supported yet"),
        ("--heartbeat-interval=0", "--heartbeat-interval must be >0 (set to 0ms)"),
        ("--election-timeout=0", "--election-timeout must be >0 (set to 0ms)"),
        (
            "--heartbeat-interval=300",
            "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[300ms]",
        ),
        ("--election-timeout=50001", "--election-timeout[50001ms] is too long, and should be set less than 50000ms"),
        ("--auto-compaction-mode=x", "unknown auto-compaction-mode \"x\""),
        (
            "--auto-compaction-retention=1x",
            "error parsing CompactionRetention: time: unknown unit \"x\" in duration \"1x\"",
        ),
        (
            "--auto-compaction-mode=revision --auto-compaction-retention=1h",
            "error parsing CompactionRetention: strconv.ParseInt: parsing \"1h\": invalid syntax",
        ),
        (
            "--feature-gates=LeaseCheckpointPersist=true",
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
        ),
        (
            "--auto-tls",
            "--auto-tls is set, but this release of oxetcd does not have that feature yet: remove the setting, or run Go etcd",
        ),
        (
            "--listen-peer-urls=https://127.0.0.1:1",
            "https://127.0.0.1:1: this release of oxetcd does not speak TLS yet: use http:// or unix://, or run Go etcd",
        ),
        ("--listen-peer-urls=http://example.com:1", "expected IP in URL for binding (http://example.com:1)"),
        (
            "--max-concurrent-streams=0",
            "--max-concurrent-streams=0 would let no client in: give a positive number, or leave it out",
        ),
    ] {
        assert_eq!(verdict(line).unwrap_err(), text, "{line}");
    }
}

#[test]
fn the_local_member_must_be_in_its_initial_cluster() {
    let of = |line: &str| local_member(&verdict(line).unwrap());
    assert_eq!(of(""), Ok(vec!["http://localhost:2380".to_owned()]));
    assert_eq!(of("--name=x"), Ok(vec!["http://localhost:2380".to_owned()]));
    assert_eq!(
        of("--name=x --initial-cluster=y=http://localhost:2380").unwrap_err(),
        "couldn't find local name \"x\" in the initial cluster configuration"
    );
    assert_eq!(
        of("--name=x --initial-cluster=x=http://127.0.0.1:1").unwrap_err(),
        "--initial-cluster has x=http://127.0.0.1:1 but missing from --initial-advertise-peer-urls=http://localhost:2380"
    );
    assert!(
        of("--name=x --initial-cluster=x=http://localhost:2380,y=http://b:1")
            .unwrap_err()
            .contains("clusters of one member")
    );
    assert!(of("--name=x --initial-cluster=x").unwrap_err().starts_with("error setting up initial cluster"));
}

#[test]
fn intervals_and_limits_have_etcds_defaults() {
    let config = Config::default();
    assert_eq!(config.min_lease_ttl(), 2);
    assert_eq!((config.quota_bytes(), config.compaction_batch()), (2 << 30, 1000));
    assert_eq!(config.auto_compaction(), Ok(None));
    let config = verdict("--auto-compaction-retention=1 --quota-backend-bytes=-1").unwrap();
    assert_eq!(config.auto_compaction(), Ok(Some(server::Policy::Periodic { period_ms: 3_600_000 })));
    assert_eq!(config.quota_bytes(), -1);
}

#[test]
fn help_names_every_flag() {
    let help = flags_help();
    for flag in table::FLAGS.iter().filter(|f| !f.name.is_empty()) {
        assert!(help.contains(&format!("  --{}", flag.name)), "{}", flag.name);
    }
}
