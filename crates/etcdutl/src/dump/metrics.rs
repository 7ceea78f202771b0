//! `etcd-dump-metrics`: what a server's metrics are called: their help, types and series, without values.

use super::goflag::{self, Flag, Kind, Stop};
use super::{fatal, log, web};
use crate::out::Out;
use cobra::Exit;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const FLAGS: &[Flag] = &[
    Flag {
        name: "addr",
        kind: Kind::Text,
        default: "",
        help: "URL of the metrics, such as http://127.0.0.1:2379/metrics; without it the etcd beside this program is asked",
    },
    Flag {
        name: "download-ver",
        kind: Kind::Text,
        default: "",
        help: "refused: nothing is downloaded; start that release and give its -addr",
    },
    Flag { name: "debug", kind: Kind::Bool, default: "false", help: "say on standard error what is done" },
];

/// Runs the program with these words, without its own name. Answers the exit code.
pub fn run(words: Vec<OsString>) -> u8 {
    let given = match goflag::parse(FLAGS, words) {
        Ok(given) => given,
        Err(stop) => {
            let usage = goflag::usage("etcd-dump-metrics", FLAGS);
            let (why, code) = match stop {
                Stop::Help => (String::new(), 0),
                Stop::Wrong(why) => (why + "\n", 2),
            };
            eprint!("{why}{usage}");
            return code;
        }
    };
    let (address, version) = (given.text(FLAGS, "addr"), given.text(FLAGS, "download-ver"));
    let debug = given.is_true(FLAGS, "debug");
    cobra::finish(match (address, version) {
        ("", "") => of_two_members(debug),
        (url, "") => dump(url, debug),
        ("", version) => Err(fatal(format!(
            "-download-ver {version}: this program downloads nothing. Start that release and give the URL of its metrics: \
             -addr http://127.0.0.1:2379/metrics"
        ))),
        _ => Err(fatal("specify either 'addr' or 'download-ver'")),
    })
}

fn say(debug: bool, text: &str) {
    if debug {
        log(text);
    }
}

const KEY: &str = "X19fX3Rlc3Q=";

/// Writes, reads, deletes and watches the key `____test`, so that there are series of these calls; then prints.
fn dump(url: &str, debug: bool) -> Result<(), Exit> {
    let address = web::address(url).map_err(fatal)?;
    let key = format!("{{\"key\":\"{KEY}\"}}");
    for (what, path) in [("write", "/v3/kv/put"), ("read", "/v3/kv/range"), ("delete", "/v3/kv/deleterange")] {
        let asked = web::ask(&address, "POST", path, &key);
        asked.map_err(|why| fatal(format!("failed to {what} test key: {why}")))?;
    }
    let watch = format!("{{\"create_request\":{key}}}");
    web::begin(&address, "/v3/watch", &watch).map_err(|why| fatal(format!("failed to watch test key: {why}")))?;
    say(debug, &format!("fetching metrics from {url}"));
    let path = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).map_or("", |(_, path)| path);
    let path = format!("/{}", if path.is_empty() { "metrics" } else { path });
    let text = web::ask(&address, "GET", &path, "").map_err(|why| fatal(format!("failed to fetch metrics: {why}")))?;
    let mut out = Out::new();
    out.line(listing(&text))?;
    out.done()
}

/// One metric: its name, help, type, codes of gRPC, and series.
#[derive(Clone, Debug, Default)]
struct Metric {
    name: String,
    help: String,
    kind: String,
    codes: BTreeSet<String>,
    series: Vec<String>,
}

/// What is printed about a server's metrics.
pub fn listing(text: &str) -> String {
    let mut metrics: Vec<Metric> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            metrics.push(Metric { name: name.to_owned(), help: help.to_owned(), ..Metric::default() });
        } else if let (Some(metric), false) = (metrics.last_mut(), line.is_empty()) {
            match line.strip_prefix("# TYPE ") {
                Some(rest) => metric.kind = rest.split(' ').nth(1).unwrap_or_default().to_owned(),
                // Values may hold no blanks, labels may.
                None => metric.series.push(line.rsplit_once(' ').map_or(line, |(series, _)| series).to_owned()),
            }
        }
    }
    metrics.iter_mut().for_each(plain);
    metrics.sort_by(|a, b| a.name.cmp(&b.name));
    let version = metrics.iter().filter(|metric| metric.name.starts_with("etcd_server_version"));
    let version = version.filter_map(|metric| metric.series.first()).next_back().map_or("unknown", String::as_str);
    let shown: Vec<String> = metrics.iter().map(Metric::shown).collect();
    format!("# server version: {version}\n\n{}", shown.join("\n\n"))
}

impl Metric {
    fn shown(&self) -> String {
        let mut text = String::new();
        for (what, value) in [("name", &self.name), ("description", &self.help), ("type", &self.kind)] {
            text += &format!("# {what}: {}\n", go::quote(value));
        }
        if !self.codes.is_empty() {
            text += "# gRPC codes: \n";
            self.codes.iter().for_each(|code| text += &format!("#  - {}\n", go::quote(code)));
        }
        text + &self.series.join("\n")
    }
}

/// Takes out what differs from cluster to cluster.
fn plain(metric: &mut Metric) {
    match metric.name.as_str() {
        "etcd_network_active_peers" => {
            let peers = "{Local=\"LOCAL_NODE_ID\",Remote=\"REMOTE_PEER_NODE_ID\"}";
            metric.series = vec![format!("{}{peers}", metric.name)];
        }
        "etcd_network_peer_sent_bytes_total" => {
            metric.series = vec![format!("{}{{To=\"REMOTE_PEER_NODE_ID\"}}", metric.name)];
        }
        "etcd_network_peer_received_bytes_total" => {
            metric.series = vec![format!("{}{{From=\"REMOTE_PEER_NODE_ID\"}}", metric.name)];
        }
        "etcd_network_peer_round_trip_time_seconds" => {
            let masked: BTreeSet<String> = metric.series.iter().map(|series| masked(series)).collect();
            metric.series = masked.into_iter().collect();
        }
        "grpc_server_handled_total" => {
            let mut series = BTreeSet::new();
            for line in &metric.series {
                // Servers differ in the order of labels.
                const BEFORE: &str = "grpc_code=\"";
                let parts = line.split_once(BEFORE).and_then(|(head, rest)| Some((head, rest.split_once('"')?)));
                match parts {
                    Some((head, (code, tail))) => {
                        metric.codes.insert(code.to_owned());
                        series.insert(format!("{head}{BEFORE}CODE\"{tail}"));
                    }
                    None => drop(series.insert(line.clone())),
                }
            }
            metric.series = series.into_iter().collect();
        }
        _ => {}
    }
}

/// A series with a peer's id taken out.
fn masked(series: &str) -> String {
    const BEFORE: &str = "To=\"";
    let Some((head, rest)) = series.split_once(BEFORE) else { return series.to_owned() };
    let Some((_, tail)) = rest.split_once('"') else { return series.to_owned() };
    format!("{head}{BEFORE}REMOTE_PEER_NODE_ID\"{tail}")
}

/// Members of a cluster that lives for as long as this does.
struct Members {
    processes: Vec<Child>,
    folder: PathBuf,
}

impl Drop for Members {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        // A folder that stays is in the place for such.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// How long two members may take to know one another.
const START: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// Starts two members of the etcd that lies beside this program, and asks the first one.
fn of_two_members(debug: bool) -> Result<(), Exit> {
    let (members, address) = start(debug).map_err(fatal)?;
    let end = Instant::now() + START;
    // Numbers about peers come with the first messages.
    while !web::ask(&address, "GET", "/metrics", "").is_ok_and(|text| {
        text.contains("\netcd_network_peer_round_trip_time_seconds_count{")
            && text.contains("\netcd_network_active_peers{")
    }) {
        if Instant::now() > end {
            return Err(fatal("two members started, but did not find one another within a minute"));
        }
        std::thread::sleep(POLL);
    }
    say(debug, "started a cluster of two members");
    let outcome = dump(&format!("http://{address}/metrics"), debug);
    drop(members);
    outcome
}

fn start(debug: bool) -> Result<(Members, String), String> {
    let text = |e: std::io::Error| go::os_text(&e);
    let program = std::env::current_exe().map_err(text)?.with_file_name("etcd");
    let program = if program.exists() { program } else { PathBuf::from("etcd") };
    // All four at once, so that they differ.
    let listeners: Result<Vec<TcpListener>, _> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    let ports: Result<Vec<u16>, _> =
        listeners.map_err(text)?.iter().map(|l| l.local_addr().map(|a| a.port())).collect();
    let urls: Vec<String> = ports.map_err(text)?.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
    let folder = std::env::temp_dir().join(format!("etcd-dump-metrics-{}", std::process::id()));
    let cluster = format!("s1={},s2={}", urls[1], urls[3]);
    let mut members = Members { processes: Vec::new(), folder };
    for (name, urls) in [("s1", &urls[0..2]), ("s2", &urls[2..4])] {
        let mut command = Command::new(&program);
        command.args(["--name", name, "--initial-cluster", &cluster, "--initial-cluster-token", "tkn"]);
        command.args(["--listen-client-urls", &urls[0], "--advertise-client-urls", &urls[0]]);
        command.args(["--listen-peer-urls", &urls[1], "--initial-advertise-peer-urls", &urls[1]]);
        command.arg("--data-dir").arg(members.folder.join(name));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(if debug { Stdio::inherit() } else { Stdio::null() });
        let started = command.spawn().map_err(|e| format!("{}: {}", program.display(), go::os_text(&e)))?;
        members.processes.push(started);
    }
    let address = web::address(&urls[0])?;
    Ok((members, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_stand_without_values_and_ids() {
        let text = "# HELP b_total What \"b\" is.\n# TYPE b_total counter\nb_total{x=\"a b\"} 7\n\
                    # HELP etcd_network_peer_sent_bytes_total Sent.\n# TYPE etcd_network_peer_sent_bytes_total counter\n\
                    etcd_network_peer_sent_bytes_total{To=\"91bc\"} 1\n\
                    # HELP grpc_server_handled_total Handled.\n# TYPE grpc_server_handled_total counter\n\
                    grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\"} 1\n\
                    grpc_server_handled_total{grpc_code=\"Internal\",grpc_method=\"Put\"} 0\n\
                    # HELP a Gauge.\n# TYPE a gauge\na 1e+06\n";
        assert_eq!(
            listing(text),
            "# server version: unknown\n\n# name: \"a\"\n# description: \"Gauge.\"\n# type: \"gauge\"\na\n\n\
             # name: \"b_total\"\n# description: \"What \\\"b\\\" is.\"\n# type: \"counter\"\nb_total{x=\"a b\"}\n\n\
             # name: \"etcd_network_peer_sent_bytes_total\"\n# description: \"Sent.\"\n# type: \"counter\"\n\
             etcd_network_peer_sent_bytes_total{To=\"REMOTE_PEER_NODE_ID\"}\n\n\
             # name: \"grpc_server_handled_total\"\n# description: \"Handled.\"\n# type: \"counter\"\n# gRPC codes: \n\
             #  - \"Internal\"\n#  - \"OK\"\ngrpc_server_handled_total{grpc_code=\"CODE\",grpc_method=\"Put\"}"
        );
    }
}
