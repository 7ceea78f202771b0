//! Precedence, Go-style parsing and refusals, as an operator meets them.

use super::*;
use crate::logging::{Level, Note, Settings};

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
        None => match log_settings(&config) {
            Err(Failure::Verify(text)) => Err(text),
            Err(other) => panic!("{line}: {other:?}"),
            Ok(_) => validate(&config, &mut Vec::new()).map(|()| config),
        },
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
    assert_eq!(verdict("--version foo").unwrap_err(), "\"foo\" is not a valid flag");
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
        ("--cors=", "invalid value \"\" for flag -cors: URL scheme must be http, https, unix, or unixs: "),
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
            "--auto-compaction-retention=0x10",
            "error parsing CompactionRetention: time: unknown unit \"x\" in duration \"0x10\"",
        ),
        (
            "--auto-compaction-retention=1_0",
            "error parsing CompactionRetention: time: unknown unit \"_\" in duration \"1_0\"",
        ),
        ("--auto-compaction-retention=-1", "error parsing CompactionRetention: time: missing unit in duration \"-1\""),
        (
            "--auto-compaction-mode=revision --auto-compaction-retention=-5",
            "error parsing CompactionRetention: time: missing unit in duration \"-5\"",
        ),
        (
            "--auto-compaction-mode=revision --auto-compaction-retention=0x5",
            "error parsing CompactionRetention: time: unknown unit \"x\" in duration \"0x5\"",
        ),
        ("--auto-compaction-mode=", "undefined auto-compaction-mode"),
        ("--compact-hash-check-time=0", "--compact-hash-check-time must be >0 (set to 0s)"),
        ("--compact-hash-check-time=-1s", "--compact-hash-check-time must be >0 (set to -1s)"),
        ("--listen-peer-urls=http://:1", "expected IP in URL for binding (http://:1)"),
        ("--listen-peer-urls=http://127.0.0.1:99999", "listen tcp: address 99999: invalid port"),
        (
            "--initial-advertise-peer-urls=http://:1,http://a:2",
            "--initial-advertise-peer-urls \"http://:1,http://a:2\" must be \"host:port\" (unexpected empty host (http://:1))",
        ),
        (
            "--advertise-client-urls=http://:1",
            "--advertise-client-urls \"http://:1\" must be in the format \"host:port\", \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" (unexpected empty host (http://:1))",
        ),
        ("--tls-min-version=foo", "unexpected TLS version \"foo\" (must be one of: TLS1.2, TLS1.3)"),
        ("--tls-max-version=TLS1.1", "unexpected TLS version \"TLS1.1\" (must be one of: TLS1.2, TLS1.3)"),
        (
            "--tls-min-version=TLS1.3 --tls-max-version=TLS1.2",
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            "--tls-min-version=TLS1.3 --cipher-suites=foo",
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
        ("--cipher-suites=TLS_AES_128_GCM_SHA256,foo", "unexpected TLS cipher suite \"foo\""),
        ("--max-learners=-1", "membership: too many learner members in cluster"),
        ("--auth-token=foo", "auth: invalid auth options"),
        ("--auth-token=simple,x", "auth: invalid auth options"),
        ("--enable-log-rotation", "--log-outputs requires a single file path when --log-rotate-config-json is defined"),
        (
            "--enable-log-rotation --log-outputs=a,b",
            "--log-outputs requires a single file path when --log-rotate-config-json is defined",
        ),
        (
            "--enable-log-rotation --log-outputs=a --log-rotation-config-json=5",
            "invalid log rotation config: json: cannot unmarshal number into Go value of type embed.logRotationConfig",
        ),
        (
            "--enable-distributed-tracing --distributed-tracing-sampling-rate=-1",
            "distributed tracing configurition is not valid: (tracing sampling rate must be positive)",
        ),
        (
            "--enable-distributed-tracing --distributed-tracing-sampling-rate=1000001",
            "distributed tracing configurition is not valid: (tracing sampling rate must be less than 1000000)",
        ),
        (
            "--log-outputs=systemd/journal,stderr",
            "running with systemd/journal but other '--log-outputs' values ([\"stderr\" \"systemd/journal\"]) are configured with 'default'; override 'default' value with something else",
        ),
        (
            "--max-request-bytes=268435457",
            "--max-request-bytes=268435457 is more than 268435456, the most that one request may have: lower it",
        ),
        (
            "--feature-gates=LeaseCheckpointPersist=true",
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
        ),
        (
            "--discovery-srv=x.org --discovery-token=t --discovery-endpoints=a:1",
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\"",
        ),
        (
            "--discovery-srv=x.org --initial-cluster=default=http://localhost:2380",
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\"",
        ),
        ("--discovery-token=t", "both --discovery-token and --discovery-endpoints must be set"),
        ("--discovery-endpoints=a:1,", "both --discovery-token and --discovery-endpoints must be set"),
        ("--discovery-token=t --discovery-endpoints=a:1,", "--discovery-endpoints must not contain empty endpoints"),
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
    let founders = |config: &Config| {
        let named = initial_members(config)?;
        verify_founders(config, &named).map(|()| pairs(&named))
    };
    let of = |line: &str| founders(&verdict(line).unwrap());
    let one = |name: &str| Ok(format!("{name}=http://localhost:2380"));
    assert_eq!(of(""), one("default"));
    assert_eq!(of("--name=x"), one("x"));
    assert_eq!(
        of("--name=x --initial-cluster=y=http://localhost:2380").unwrap_err(),
        "couldn't find local name \"x\" in the initial cluster configuration"
    );
    assert_eq!(
        of("--name=x --initial-cluster=x=http://127.0.0.1:1").unwrap_err(),
        "--initial-cluster has x=http://127.0.0.1:1 but missing from --initial-advertise-peer-urls=http://localhost:2380 (resolved urls: \"http://localhost:2380\" != \"http://127.0.0.1:1\")"
    );
    assert_eq!(of("--initial-cluster=default=http://localhost:2380,"), one("default"));
    for (line, text) in [
        ("--initial-cluster=", "couldn't find local name \"default\" in the initial cluster configuration"),
        (
            "--initial-cluster=default",
            "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: ",
        ),
        (
            "--initial-cluster=default=http://localhost:2380,b=http://localhost:2380",
            "initial cluster b=http://localhost:2380,default=http://localhost:2380 has duplicate url",
        ),
    ] {
        assert_eq!(of(line).unwrap_err(), text, "{line}");
    }
    let padded = Config { initial_cluster: " default = http://localhost:2380".into(), ..Config::default() };
    let text = "couldn't find local name \"default\" in the initial cluster configuration";
    assert_eq!(founders(&padded).unwrap_err(), text, "names keep their blanks");
    let several = of("--name=x --initial-cluster=x=http://localhost:2380,y=http://b:2,y=http://b:1").unwrap();
    assert_eq!(several, "x=http://localhost:2380,y=http://b:1,y=http://b:2");
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
fn what_go_etcd_accepts_is_accepted() {
    for line in [
        "--auth-token=",
        "--auth-token=simple,a=b",
        "--auth-token=jwt,pub-key=a,priv-key=b,sign-method=RS256,ttl=10m",
        "--cipher-suites=TLS_RSA_WITH_AES_128_CBC_SHA,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
        "--tls-min-version= --tls-max-version=TLS1.2",
        "--tls-min-version=TLS1.3",
        "--max-learners=0",
        "--initial-advertise-peer-urls=http://127.0.0.1:99999",
        "--log-level= --log-format=",
        "--log-level=WARNING",
        "--log-level=dpanic",
    ] {
        assert!(verdict(line).is_ok(), "{line}: {:?}", verdict(line));
    }
}

#[test]
fn retention_is_decimal_or_a_duration_in_both_modes() {
    let periodic = |period_ms| Some(server::Policy::Periodic { period_ms });
    let revision = |retention| Some(server::Policy::Revision { retention });
    for (line, policy) in [
        ("--auto-compaction-retention=", None),
        ("--auto-compaction-retention=010", periodic(36_000_000)),
        ("--auto-compaction-retention=+5", periodic(18_000_000)),
        ("--auto-compaction-retention=90m", periodic(5_400_000)),
        ("--auto-compaction-retention=-1h", None),
        ("--auto-compaction-mode=revision --auto-compaction-retention=", None),
        ("--auto-compaction-mode=revision --auto-compaction-retention=1000", revision(1000)),
        ("--auto-compaction-mode=revision --auto-compaction-retention=1h", revision(3_600_000_000_000)),
    ] {
        assert_eq!(verdict(line).unwrap().auto_compaction(), Ok(policy), "{line}");
    }
}

#[test]
fn the_log_is_what_the_settings_say_or_etcds_default() {
    let settings = |line: &str| log_settings(&loaded(line, &[]).config);
    assert_eq!(settings(""), Ok(Settings::default()));
    assert_eq!(settings("--log-level= --log-format="), Ok(Settings::default()));
    assert_eq!(log_settings(&Config { log_outputs: Vec::new(), ..Config::default() }), Ok(Settings::default()));
    assert_eq!(settings("--log-outputs=").unwrap().outputs, [""], "no file has that name");
    assert_eq!(settings("--log-level=loud"), Err(Failure::Misuse("unrecognized level: \"loud\"".into())));
    let console =
        Settings { outputs: vec!["a".into(), "b".into()], rotation: None, level: Level::DPanic, console: true };
    assert_eq!(settings("--log-outputs=b,a --log-level=DPANIC --log-format=console"), Ok(console));
}

#[test]
fn files_are_read_as_gos_yaml_reads_them() {
    let read = |text: &str| {
        let mut config = Config::default();
        read_file(text, &mut config).map(|()| config)
    };
    let named = |text: &str| read(text).map(|config| config.name);
    assert_eq!(named("name: a\n---\nname: b\n"), Ok("a".into()));
    assert_eq!(named("---\nname: a\n...\n: [\n"), Ok("a".into()));
    for (text, why) in [
        ("\tname: x", "found character that cannot start any token"),
        ("name: x\n\tpre-vote: true", "line 2: found a tab character that violates indentation"),
    ] {
        let why = format!("error converting YAML to JSON: yaml: {why}");
        assert_eq!(named(text), Err(Failure::Verify(why)), "{text:?}");
    }
    let config = read(
        "auto-compaction-retention: ''\nlog-level: ''\nlog-format: ''\nlog-outputs: []\nauth-token: ''\ncors: ''\n\
         host-whitelist: ''\ncompact-hash-check-time: 5\n",
    )
    .unwrap();
    assert_eq!(config.compact_hash_check_time, 5);
    assert_eq!(log_settings(&config), Ok(Settings::default()));
    assert_eq!(validate(&config, &mut Vec::new()), Ok(()));
    assert_eq!(config.cors, ["*"]);
    let cors = "unexpected error setting up cors: URL scheme must be http, https, unix, or unixs: foo";
    assert_eq!(named("cors: foo"), Err(Failure::Print(cors.into())));
    let negative = read("compact-hash-check-time: -1000000000\n").unwrap();
    let text = "--compact-hash-check-time must be >0 (set to -1s)";
    assert_eq!(validate(&negative, &mut Vec::new()).unwrap_err(), text);
}

#[test]
fn help_names_every_flag() {
    let help = flags_help();
    for flag in table::FLAGS.iter().filter(|f| !f.name.is_empty()) {
        assert!(help.contains(&format!("  --{}", flag.name)), "{}", flag.name);
    }
}

/// A value of the flag that is not its default, as the command line has it and as a file has it.
fn another(flag: &table::Flag) -> (&'static str, String) {
    use table::Slot;
    let text = |text: &'static str| (text, format!("'{text}'"));
    match flag.slot {
        Slot::Bool(_) if flag.default == "true" => ("false", "false".into()),
        Slot::Bool(_) => ("true", "true".into()),
        Slot::Uint(_) | Slot::Uint32(_) | Slot::Int(_) => ("0x4d", "77".into()),
        Slot::Duration(_) | Slot::Nanoseconds(_) => ("77s", "77000000000".into()),
        Slot::List(_) => ("b,a", "[b, a]".into()),
        Slot::Set(_) if flag.key == "log-outputs" => ("b,a", "[a, b]".into()),
        Slot::Set(_) => text("b,a"),
        Slot::Urls(_) => text("http://127.0.0.1:8,http://127.0.0.1:7"),
        Slot::Origins(_) => text("http://a:1"),
        Slot::State(_) => text("existing"),
        Slot::Fallback(_) => text("exit"),
        Slot::V2(_) => text("gone"),
        Slot::Gates(_) => text("AllAlpha=true"),
        Slot::Text(_) => text("other"),
    }
}

/// Of [`defaults::fill`] only what looks at the setting itself may make a difference.
#[test]
fn every_setting_comes_by_flag_by_variable_and_by_file_alike() {
    let path = std::env::temp_dir().join(format!("oxetcd-every-{}.yaml", std::process::id()));
    for flag in table::FLAGS {
        let (value, in_file) = another(flag);
        let mut expected = Config::default();
        flag.set(&mut expected, value).unwrap();
        // Founders come from discovery, or else from the name; who listens elsewhere has to say where that is.
        let field = |config: &Config| {
            let mut config = config.clone();
            config.initial_cluster = expected.initial_cluster.clone();
            if flag.name != "advertise-client-urls" {
                config.advertise_client_urls = expected.advertise_client_urls.clone();
            }
            config
        };
        if flag.name != "discovery-fallback" {
            assert_ne!(expected, Config::default(), "{}", flag.name);
        }
        if !flag.name.is_empty() {
            let by_flag = loaded(&format!("--{}={value}", flag.name), &[]);
            assert_eq!((by_flag.failure, field(&by_flag.config)), (None, field(&expected)), "--{}", flag.name);
            let variable = variable_of(flag.name);
            let by_variable = loaded("", &[(&variable, value)]);
            assert_eq!((by_variable.failure, field(&by_variable.config)), (None, field(&expected)), "{variable}");
        }
        if !flag.key.is_empty() {
            let keys: Vec<&str> = flag.key.split('.').collect();
            let nested = keys.iter().rev().fold(in_file, |inner, key| match inner.starts_with('{') {
                _ if *key == keys[0] => format!("{key}: {inner}"),
                _ => format!("{{{key}: {inner}}}"),
            });
            std::fs::write(&path, &nested).unwrap();
            let by_file = loaded(&format!("--config-file={}", path.display()), &[]);
            assert_eq!((by_file.failure, field(&by_file.config)), (None, field(&expected)), "{nested}");
        }
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn deprecated_flags_are_warned_of_and_those_of_the_distant_past_dropped() {
    let told = |line: &str, variables: &[(&str, &str)]| {
        let notes = loaded(line, variables).notes.into_iter();
        notes.map(|note| (note.level, note.message)).collect::<Vec<_>>()
    };
    let warns = |text: &str| vec![(Level::Warn, text.to_owned())];
    let snapshots = "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.";
    assert_eq!(told("--max-snapshots=5", &[]), warns(snapshots));
    assert_eq!(told("", &[("ETCD_MAX_SNAPSHOTS", "3")])[1..], warns(snapshots)[..]);
    let path = std::env::temp_dir().join(format!("oxetcd-deprecated-{}.yaml", std::process::id()));
    std::fs::write(&path, "max-snapshots: 5\n").unwrap();
    assert_eq!(told(&format!("--config-file={}", path.display()), &[])[1..], warns(snapshots)[..]);
    std::fs::remove_file(path).unwrap();
    let v2 = "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, ignoring user input.";
    assert_eq!(told("--v2-deprecation=gone", &[]), warns(v2));
    for ignored in table::IGNORED {
        assert_eq!(told(&format!("--{ignored}"), &[]), warns("flag is no longer supported"), "{ignored}");
    }
    let raised = "raft-read-timeout increased to minimum value: 5s";
    assert_eq!(told("--raft-read-timeout=1s", &[]), [(Level::Info, raised.to_owned())]);
    assert_eq!(told("", &[]), []);
}
