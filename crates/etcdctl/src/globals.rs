//! Global flags, their environment variables, and the client they describe.
//!
//! A variable counts as if its flag had been given. Two rules are kinder than Go's 3.7.1, because tutorials and control
//! planes type just that (walkthroughs W1 and W4): a flag that stands beside its variable wins with a warning, where Go
//! ends with code 1; and `ETCDCTL_API`, which chose the API long ago, is silent.

use crate::hints::{self, Asked};
use crate::log;
use crate::output::Display;
use crate::prompt;
use client::{Client, Config};
use cobra::{Call, Exit, Flag, Kind, Parsed, Value};
use go::log_string;
use std::future::Future;
use std::time::Duration;
use tokio::runtime::Runtime;

const PREFIX: &str = "ETCDCTL_";
/// The name that failed attempts are logged under.
const LOGGER: &str = "etcd-client";
/// gRPC's own limit on what a client takes (`math.MaxInt32`).
const RECV_BYTES_DEFAULT: i64 = i32::MAX as i64;
const SEND_BYTES_DEFAULT: i64 = 2 << 20;
/// Beyond `--command-timeout`, a command that has no limit is told what is wrong.
const SILENCE: Duration = Duration::from_secs(1);

/// The global flags. Hidden from help texts; `etcdctl options` shows them.
pub static FLAGS: &[Flag] = &[
    Flag::new("endpoints", Kind::List, "127.0.0.1:2379", "addresses of the cluster's members").hidden(),
    Flag::switch("debug", "print the effective options and more of what the client does").hidden(),
    Flag::new("write-out", Kind::Text, "simple", "output format: fields, json, protobuf, simple or table")
        .short('w')
        .hidden(),
    Flag::switch("hex", "print byte strings in hexadecimal").hidden(),
    Flag::new("dial-timeout", Kind::Duration, "2s", "how long a connection may take").hidden(),
    Flag::new("command-timeout", Kind::Duration, "5s", "how long a short command may take").hidden(),
    Flag::new("keepalive-time", Kind::Duration, "2s", "interval of pings on a connection").hidden(),
    Flag::new("keepalive-timeout", Kind::Duration, "6s", "how long a ping's answer may take").hidden(),
    Flag::new("max-request-bytes", Kind::Int, "0", "largest request that is sent, bytes (0: 2 MiB)").hidden(),
    Flag::new("max-recv-bytes", Kind::Int, "0", "largest answer that is taken, bytes (0: 2 GiB)").hidden(),
    Flag::new("insecure-transport", Kind::Bool, "true", "speak plain text where nothing asks for TLS").hidden(),
    Flag::new("insecure-discovery", Kind::Bool, "true", "take plain-text endpoints from DNS").hidden(),
    Flag::switch("insecure-skip-tls-verify", "do not check the server's certificate (for tests only)").hidden(),
    Flag::new("cert", Kind::Text, "", "file of the client's TLS certificate").hidden(),
    Flag::new("key", Kind::Text, "", "file of the client's TLS key").hidden(),
    Flag::new("cacert", Kind::Text, "", "file of the authorities that sign the servers' certificates").hidden(),
    Flag::new("cert-file", Kind::Text, "", "old name of --cert").hidden(),
    Flag::new("key-file", Kind::Text, "", "old name of --key").hidden(),
    Flag::new("ca-file", Kind::Text, "", "old name of --cacert").hidden(),
    Flag::new("auth-jwt-token", Kind::Text, "", "token to authenticate with, instead of --user").hidden(),
    Flag::new("user", Kind::Text, "", "name[:password] to authenticate with").hidden(),
    Flag::new("password", Kind::Text, "", "password to authenticate with; --user is then the name alone").hidden(),
    Flag::new("discovery-srv", Kind::Text, "", "domain whose SRV records name the endpoints").short('d').hidden(),
    Flag::new("discovery-srv-name", Kind::Text, "", "service name for --discovery-srv").hidden(),
];

/// What a command needs: a runtime, a client, a display.
pub struct Ctl {
    runtime: Runtime,
    pub client: Client,
    pub display: Display,
    /// How the client was set up, for whoever explains a failure.
    pub asked: Asked,
    timeout: Duration,
    timeout_given: bool,
}

impl Ctl {
    /// Reads the environment and sets the client up.
    ///
    /// # Errors
    /// Whatever is wrong with the flags, in etcdctl's order and with its codes.
    pub fn open(call: &mut Call) -> Result<Ctl, Exit> {
        Ctl::open_logging_as(call, LOGGER)
    }

    /// The same; failed attempts are logged under another name.
    ///
    /// # Errors
    /// As [`Ctl::open`].
    pub fn open_logging_as(call: &mut Call, logger: &'static str) -> Result<Ctl, Exit> {
        let typed = hints::typed(call);
        from_environment(call);
        from_old_names(call);
        let given = &call.given;
        if given.is_true("debug") {
            debug_dump(call);
        }
        let endpoints: Vec<String> = given.list("endpoints").iter().map(|e| e.trim().to_owned()).collect();
        refuse_what_is_wrong(given)?;
        let display = Display::from_flags(given)?;
        let user = user(given)?;
        let token = Some(given.text("auth-jwt-token").to_owned()).filter(|token| !token.is_empty());
        let config = Config { user, token, tls: tls(given, ""), ..settings(given, endpoints, logger)? };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Exit::with(2, format!("cannot start: {e}")))?;
        let timeout = go::clamp(given.nanoseconds("command-timeout"));
        let lacks_password = config.user.is_none() && config.token.is_none() && !given.text("user").is_empty();
        let (command, key) = hints::command(call);
        let asked = Asked { config: config.clone(), command, key, typed, timeout, lacks_password, ..Asked::default() };
        hints::remember(asked.clone());
        let client = runtime.block_on(connect(config))?;
        let timeout_given = given.was_given("command-timeout");
        Ok(Ctl { runtime, client, display, asked, timeout, timeout_given })
    }

    /// A client of another cluster. Its TLS is described by flags with this prefix, all else by the global ones.
    ///
    /// # Errors
    /// As [`Ctl::open`].
    pub fn client_of_other(
        &self,
        given: &Parsed,
        prefix: &'static str,
        endpoint: String,
        user: Option<(String, String)>,
    ) -> Result<Client, Exit> {
        check_tls_files(given, prefix)?;
        let config = Config { user, tls: tls(given, prefix), ..settings(given, vec![endpoint], LOGGER)? };
        hints::remember(Asked { prefix, config: config.clone(), timeout: self.timeout, ..Asked::default() });
        self.block_on(connect(config))
    }

    /// Runs to the end. Who waits for longer than commands with a limit do is told what is wrong with the endpoints.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let told = async {
            loop {
                // Commands with a limit have failed by then, and say so themselves.
                tokio::time::sleep(self.timeout.saturating_add(SILENCE)).await;
                hints::print_meanwhile().await;
            }
        };
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                done = future => done,
                () = told => unreachable!("it never ends"),
            }
        })
    }

    /// Runs to the end, for who tells everything himself.
    pub fn block_on_quietly<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// A client whose calls end with `--command-timeout`, counted from now.
    pub fn timed(&self) -> Client {
        self.client.with_timeout(self.timeout)
    }

    /// The time that one command may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The same for commands that have no limit unless one is asked for.
    pub fn timed_if_asked(&self) -> Client {
        if self.timeout_given { self.timed() } else { self.client.clone() }
    }
}

/// The environment variable of a flag.
fn variable_of(flag: &str) -> String {
    format!("{PREFIX}{}", flag.to_ascii_uppercase().replace('-', "_"))
}

/// Sets flags from their variables; warns of variables that name no flag, or one that was given too.
fn from_environment(call: &mut Call) {
    let mut inherited: Vec<&'static Flag> = Vec::new();
    if let Some((_, parents)) = call.path.split_last() {
        inherited.extend(parents.iter().flat_map(|command| command.persistent));
    }
    let watches = call.path.last().is_some_and(|command| command.name() == "watch");
    for (name, value) in std::env::vars_os() {
        let (Ok(name), Ok(value)) = (name.into_string(), value.into_string()) else { continue };
        if !name.starts_with(PREFIX) || (watches && name.starts_with("ETCDCTL_WATCH_")) || name == "ETCDCTL_API" {
            continue;
        }
        let flag = inherited.iter().find(|flag| variable_of(flag.name) == name);
        // An empty variable sets nothing.
        let flag = flag.filter(|flag| !value.is_empty() || call.given.was_given(flag.name));
        match flag {
            None => log::warn(
                "",
                "flags/flag.go:94",
                "unrecognized environment variable",
                &[("environment-variable", log_string(&format!("{name}={value}")))],
            ),
            Some(flag) if call.given.was_given(flag.name) => log::warn(
                "",
                "flags/flag.go:86",
                "conflicting environment variable is shadowed by corresponding command-line flag; the flag is used \
                 (unset the environment variable to silence this)",
                &[("environment-variable", log_string(&name))],
            ),
            Some(flag) => {
                // As Go: what can't be read is false or zero.
                let value = Value::parse(flag.kind, &value).unwrap_or(match flag.kind {
                    Kind::Bool => Value::Bool(false),
                    Kind::Duration => Value::Duration(0),
                    _ => Value::Int(0),
                });
                call.given.set(flag, value);
            }
        }
    }
}

/// Names that tutorials of etcd's first years have (walkthrough W5).
const OLD_NAMES: [(&str, &str); 3] = [("cert-file", "cert"), ("key-file", "key"), ("ca-file", "cacert")];

/// Takes old names for today's where those are not given.
fn from_old_names(call: &mut Call) {
    for (old, new) in OLD_NAMES {
        let text = call.given.text(old).to_owned();
        if text.is_empty() {
            continue;
        }
        eprintln!("Warning: --{old} is an old name of --{new}");
        if let Some(flag) = FLAGS.iter().find(|flag| flag.name == new && !call.given.was_given(new)) {
            call.given.set(flag, Value::Text(text));
        }
    }
}

fn debug_dump(call: &Call) {
    let mut flags: Vec<&Flag> = FLAGS.iter().collect();
    flags.sort_by_key(|flag| flag.name);
    for flag in flags {
        let value = match call.given.value(flag.name) {
            Some(Value::Bool(b)) => b.to_string(),
            Some(Value::Text(text)) => text.clone(),
            Some(Value::Int(n)) => n.to_string(),
            Some(Value::Uint(n)) => n.to_string(),
            Some(Value::Float(x)) => x.to_string(),
            Some(Value::Duration(n)) => go::format_duration(go::clamp(*n)),
            Some(Value::List(list)) => format!("[{}]", list.join(",")),
            None => String::new(),
        };
        eprintln!("{}={value}", variable_of(flag.name));
    }
}

/// Limits, timeouts and the log of a client.
fn settings(given: &Parsed, endpoints: Vec<String>, logger: &'static str) -> Result<Config, Exit> {
    let (send_bytes_max, recv_bytes_max) = limits(given)?;
    Ok(Config {
        endpoints,
        dial_timeout: go::clamp(given.nanoseconds("dial-timeout")),
        keepalive_time: Some(go::clamp(given.nanoseconds("keepalive-time"))),
        keepalive_timeout: go::clamp(given.nanoseconds("keepalive-timeout")),
        send_bytes_max,
        recv_bytes_max,
        observer: Some(log::attempts(logger)),
        ..Config::default()
    })
}

async fn connect(config: Config) -> Result<Client, Exit> {
    Client::connect(config).await.map_err(|e| Exit::with(2, e.to_string()))
}

/// DNS discovery comes in a later release: whoever asks for it is told.
fn refuse_what_is_wrong(given: &Parsed) -> Result<(), Exit> {
    for name in ["cert", "key", "cacert"] {
        if given.was_given(name) && given.text(name).is_empty() {
            return Err(Exit::arguments(format!("empty string is passed to --{name} option")));
        }
    }
    check_tls_files(given, "")?;
    if !given.text("discovery-srv").is_empty() {
        return Err(Exit::error(
            "--discovery-srv: this release of oxetcd's etcdctl can't look endpoints up in DNS yet; name them with \
             --endpoints",
        ));
    }
    Ok(())
}

/// The files that `--cert`, `--key` and `--cacert` name, with `prefix` before these names.
fn check_tls_files(given: &Parsed, prefix: &str) -> Result<(), Exit> {
    let [cert, key, cacert] = ["cert", "key", "cacert"].map(|name| given.text(&format!("{prefix}{name}")));
    if cert.is_empty() != key.is_empty() {
        let text = format!("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]");
        return Err(Exit::arguments(text));
    }
    for file in [cacert, cert, key].into_iter().filter(|file| !file.is_empty()) {
        if let Err(e) = std::fs::File::open(file) {
            return Err(Exit::arguments(format!("open {file}: {}", go::os_text(&e))));
        }
    }
    match tls(given, prefix).filter(|settings| !settings.cert.is_empty() || !settings.trusted_ca.is_empty()) {
        Some(settings) => tls::Live::open(settings).map(drop).map_err(Exit::arguments),
        None => Ok(()),
    }
}

/// What the flags with `prefix` say of TLS; `None`: nothing, so that a scheme has to ask for it.
fn tls(given: &Parsed, prefix: &str) -> Option<tls::Settings> {
    let text = |name: &str| given.text(&format!("{prefix}{name}")).to_owned();
    // Of another cluster it can't be said.
    let skip_verify = prefix.is_empty() && given.is_true("insecure-skip-tls-verify");
    let settings = tls::Settings {
        cert: text("cert"),
        key: text("key"),
        trusted_ca: text("cacert"),
        skip_verify,
        ..tls::Settings::default()
    };
    let insecure = given.is_true(&format!("{prefix}insecure-transport"));
    let nothing = settings == tls::Settings::default();
    (!nothing || !insecure).then_some(settings)
}

fn user(given: &Parsed) -> Result<Option<(String, String)>, Exit> {
    let user = given.text("user");
    if user.is_empty() || !given.text("auth-jwt-token").is_empty() {
        return Ok(None);
    }
    if given.was_given("password") {
        return Ok(Some((user.to_owned(), given.text("password").to_owned())));
    }
    match user.split_once(':') {
        Some((name, password)) => Ok(Some((name.to_owned(), password.to_owned()))),
        // Who types nothing goes without, as with Go.
        None => Ok(Some((user.to_owned(), prompt::password("Password: ")?)).filter(|(_, typed)| !typed.is_empty())),
    }
}

fn limits(given: &Parsed) -> Result<(usize, usize), Exit> {
    let (send, recv) = (given.int("max-request-bytes"), given.int("max-recv-bytes"));
    if send > 0 && recv > 0 && send > recv {
        let text = format!("gRPC message recv limit ({recv} bytes) must be greater than send limit ({send} bytes)");
        return Err(Exit::with(2, text));
    }
    let or = |n: i64, default: i64| usize::try_from(if n > 0 { n } else { default }).unwrap_or(usize::MAX);
    Ok((or(send, SEND_BYTES_DEFAULT), or(recv, RECV_BYTES_DEFAULT)))
}
