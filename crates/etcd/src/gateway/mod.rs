//! `etcd gateway start`: a forwarder of TCP connections to the members, which knows nothing of what is spoken.
//!
//! ```text
//! client ─► accept ─► forward (pick a remote, dial it, copy both ways) ─► member
//!                         └── a dial that fails deactivates the remote ── monitor ──► active again
//! ```
//! Texts and exit codes are those of etcd's `etcdmain/gateway.go` and `proxy/tcpproxy`. Deliberately other than there: a
//! connection that one side has ended is kept for the other side's last bytes, and priorities of records hold for endpoints
//! without weights, too.

mod forward;
mod remotes;

use crate::addresses::{join_host_port, listen_text, look_up, split_host_port, without_scheme};
use crate::discover::{self, Wanted};
use crate::driver::join::dns::{Record, Resolver};
use crate::logging::{self, Level, Note, Settings};
use crate::systemd;
use cobra::{Call, Command, Exit, Flag, Kind};
use remotes::Remotes;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// Where `--retry-delay` is nothing to wait by (etcd `TCPProxy.Run`).
const RETRY_DELAY: Duration = Duration::from_secs(5 * 60);

/// `etcd gateway`.
pub const COMMAND: Command = Command {
    usage: "gateway <subcommand>",
    short: "gateway related command",
    commands: &[Command {
        usage: "start",
        short: "start the gateway",
        flags: FLAGS,
        run: Some(start),
        ..Command::EMPTY
    }],
    ..Command::EMPTY
};

const FLAGS: &[Flag] = &[
    Flag::new("listen-addr", Kind::Text, "127.0.0.1:23790", "listen address"),
    Flag::new("discovery-srv", Kind::Text, "", "DNS domain used to bootstrap initial cluster"),
    Flag::new("discovery-srv-name", Kind::Text, "", "service name to query when using DNS discovery"),
    Flag::switch("insecure-discovery", "accept insecure SRV records"),
    Flag::new(
        "trusted-ca-file",
        Kind::Text,
        "",
        "path to the client server TLS CA file for verifying the discovered endpoints when discovery-srv is provided.",
    ),
    Flag::new("endpoints", Kind::List, "127.0.0.1:2379", "comma separated etcd cluster endpoints"),
    Flag::new("retry-delay", Kind::Duration, "1m0s", "duration of delay before retrying failed endpoints"),
];

fn start(call: &mut Call) -> Result<(), Exit> {
    logging::start(&Settings::default()).map_err(told)?;
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    Note::new(Level::Info, "Running: ").with("args", words).log();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| told(format!("cannot start the network: {e}")))?;
    runtime.block_on(serve(call))
}

/// Said on standard error as it stands.
fn told(text: String) -> Exit {
    eprintln!("{text}");
    Exit::code(1)
}

/// Said on standard output as it stands: so does etcd with what is wrong with the flags.
fn said(text: &str) -> Exit {
    print!("{text}");
    Exit::code(1)
}

async fn serve(call: &mut Call) -> Result<(), Exit> {
    let given = &call.given;
    let wanted = Wanted {
        domain: given.text("discovery-srv").to_owned(),
        service: given.text("discovery-srv-name").to_owned(),
        insecure: given.is_true("insecure-discovery"),
        trusted_ca: given.text("trusted-ca-file").to_owned(),
    };
    let found = discover::endpoints(&wanted, &Resolver::system()).await.map_err(told)?;
    let records = match found.is_empty() {
        true => given_records(given.list("endpoints"))?,
        false => found.into_iter().map(|found| found.record).collect(),
    };
    let listen = given.text("listen-addr").to_owned();
    check_no_loop(&listen, &records)?;
    if records.is_empty() {
        return Err(said("no endpoints found\n"));
    }
    let listener = listen_at(&listen).await?;
    let delay = u64::try_from(given.nanoseconds("retry-delay")).ok().filter(|delay| *delay > 0);
    let remotes = Arc::new(Remotes::new(records, delay.map_or(RETRY_DELAY, Duration::from_nanos)));
    systemd::notify_init();
    Note::new(Level::Info, "ready to proxy client requests").with("endpoints", remotes.addresses()).log();
    tokio::spawn(remotes.clone().monitor());
    forward::accept(listener, remotes).await
}

/// The endpoints of the flag, all alike.
fn given_records(endpoints: &[String]) -> Result<Vec<Record>, Exit> {
    let record = |endpoint: &String| {
        let endpoint = without_scheme(endpoint);
        let (host, port) = split_host_port(endpoint)?;
        Some(Record { target: host.to_owned(), port: port.parse().ok()?, priority: 0, weight: 0 })
    };
    let failed = |endpoint: &String| said(&format!("error parsing endpoint {}", go::quote(without_scheme(endpoint))));
    endpoints.iter().map(|endpoint| record(endpoint).ok_or_else(|| failed(endpoint))).collect()
}

/// A gateway that dials itself would do so until it has no descriptors left.
fn check_no_loop(listen: &str, records: &[Record]) -> Result<(), Exit> {
    let (host, port) =
        split_host_port(listen).ok_or_else(|| said(&format!("failed to validate listen address: {listen}\n")))?;
    let own = look_up(host).map_err(|_| said(&format!("failed to resolve listen host: {host}\n")))?;
    for record in records {
        let target = &record.target;
        let addresses = look_up(target).map_err(|_| said(&format!("failed to resolve endpoint host: {target}\n")))?;
        let same_port = port.parse() == Ok(record.port);
        if let Some(address) = addresses.iter().find(|address| same_port && own.contains(address)) {
            return Err(said(&format!(
                "SRV or endpoint ({target}:{port}->{address}:{port}) should not resolve to the gateway listen addr \
                 ({listen})\n"
            )));
        }
    }
    Ok(())
}

async fn listen_at(address: &str) -> Result<TcpListener, Exit> {
    let (host, port) = split_host_port(address).unwrap_or_default();
    let port: u16 = port.parse().map_err(|_| told(format!("listen tcp: lookup tcp/{port}: unknown port")))?;
    TcpListener::bind((host, port)).await.map_err(|e| told(listen_text(&join_host_port(host, port), &e)))
}
