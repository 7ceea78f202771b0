//! `top`: the members at a glance, again and again: who leads, how much each holds, how much it does and how long its disk takes.
//!
//! A frame is a pure function of two samples; the second gives rates and latencies their beginning. On a terminal frames follow
//! one another on a screen of their own until `q` or a signal, and the terminal is as it was before; elsewhere, and with
//! `--once`, there is one frame.

use crate::concurrency::Signals;
use crate::doctor::{Member, State, members};
use crate::globals::Ctl;
use crate::hints;
use crate::metrics::Metrics;
use crate::output::{Format, write_out};
use api::pb::etcdserverpb as pb;
use cobra::{Call, Exit, Flag, Kind};
use std::io::{IsTerminal as _, Read as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Flags of `top`.
pub static FLAGS: &[Flag] = &[
    Flag::new("interval", Kind::Duration, "2s", "how long to wait between two frames"),
    Flag::switch("once", "print one frame and end (the default where standard output is no terminal)"),
];

/// Frames do not follow each other quicker than this.
const INTERVAL_MIN: Duration = Duration::from_millis(200);
/// Another screen without a cursor, and back.
const SCREEN: &str = "\x1b[?1049h\x1b[?25l";
const SCREEN_BACK: &str = "\x1b[?25h\x1b[?1049l";
/// To the first column of the first line, and nothing behind it.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// What was seen at one moment.
#[derive(Debug)]
struct Sample {
    at: Instant,
    members: Vec<Member>,
    leases: Option<usize>,
}

/// `top`.
pub fn run(call: &mut Call) -> Result<(), Exit> {
    if !call.args().is_empty() {
        return Err(Exit::arguments("top command accepts no arguments"));
    }
    let interval = go::clamp(call.given.nanoseconds("interval")).max(INTERVAL_MIN);
    let is_once = call.given.is_true("once") || !std::io::stdout().is_terminal();
    let ctl = Ctl::open(call)?;
    if ctl.display.format != Format::Simple {
        return Err(Exit::feature("top prints in the format simple only"));
    }
    // What does not answer stands in the frame.
    hints::silence();
    if is_once {
        let sample = ctl.block_on_quietly(look(&ctl));
        write_out(frame(&sample, None).as_bytes());
        return match sample.members.iter().any(|member| member.state.is_ok()) {
            true => Ok(()),
            false => Err(Exit::error("no endpoint answers")),
        };
    }
    ctl.block_on_quietly(follow(&ctl, interval))
}

async fn look(ctl: &Ctl) -> Sample {
    let at = Instant::now();
    let leases = ctl.client.with_timeout(ctl.timeout() / 2);
    let (members, leases) = tokio::join!(members(ctl), leases.lease_leases(pb::LeaseLeasesRequest {}));
    Sample { at, members, leases: leases.ok().map(|response| response.leases.len()) }
}

/// Frame after frame, until a key or a signal.
async fn follow(ctl: &Ctl, interval: Duration) -> Result<(), Exit> {
    let mut signals = Signals::listen()?;
    let mut keys = keys();
    let _screen = Screen::open()?;
    let drawing = async {
        let mut before: Option<Sample> = None;
        loop {
            let sample = look(ctl).await;
            let frame = frame(&sample, before.as_ref());
            write_out(format!("{CLEAR}{frame}\nq: quit\n").replace('\n', "\r\n").as_bytes());
            before = Some(sample);
            tokio::time::sleep(interval).await;
        }
    };
    let quitting = async {
        while let Some(key) = keys.recv().await {
            if matches!(key, b'q' | b'Q') {
                return;
            }
        }
        // No keyboard: signals only.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = drawing => {}
        () = quitting => {}
        () = signals.come() => {}
    }
    Ok(())
}

/// Keys as they are typed, from a thread of its own: it ends with the process.
fn keys() -> mpsc::Receiver<u8> {
    let (sender, receiver) = mpsc::channel(8);
    std::thread::spawn(move || {
        let mut key = [0];
        while let Ok(1) = std::io::stdin().read(&mut key) {
            if sender.blocking_send(key[0]).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A terminal that shows frames and hands out keys at once, until this is dropped.
struct Screen {
    /// How `stty` was set; `None`: there is no keyboard.
    before: Option<String>,
}

impl Screen {
    fn open() -> Result<Screen, Exit> {
        let before = match std::io::stdin().is_terminal() {
            true => Some(stty(&["-g"]).map_err(|e| Exit::error(format!("stty: {}", go::os_text(&e))))?),
            false => None,
        };
        let screen = Screen { before };
        if screen.before.is_some() {
            // Where this fails, keys come with the end of their line.
            drop(stty(&["-icanon", "-echo", "min", "1"]));
        }
        write_out(SCREEN.as_bytes());
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        write_out(SCREEN_BACK.as_bytes());
        if let Some(before) = &self.before {
            // It ran a moment ago.
            drop(stty(&[before.trim()]));
        }
    }
}

fn stty(arguments: &[&str]) -> std::io::Result<String> {
    let done = Command::new("stty").args(arguments).stdin(Stdio::inherit()).stderr(Stdio::null()).output()?;
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

const COLUMNS: [&str; 14] = [
    "MEMBER", "ROLE", "VERSION", "REVISION", "INDEX", "SIZE", "IN USE", "QUOTA", "WATCHERS", "REQ/S", "PUT/S",
    "READ/S", "FSYNC", "PEERS",
];

/// One frame: a line for the cluster, one for each member.
fn frame(now: &Sample, before: Option<&Sample>) -> String {
    let mut rows = vec![COLUMNS.map(str::to_owned).to_vec()];
    for member in &now.members {
        let earlier = before.and_then(|before| {
            let same = before.members.iter().find(|other| other.endpoint == member.endpoint)?;
            Some((metrics(same)?, (now.at - before.at).as_secs_f64()))
        });
        rows.push(row(member, earlier));
    }
    head(now) + &aligned(&rows)
}

fn head(now: &Sample) -> String {
    let states: Vec<(&Member, &State)> =
        now.members.iter().filter_map(|member| Some((member, member.state.as_ref().ok()?))).collect();
    let leader = states.iter().find(|(member, state)| member.id != 0 && state.leader == member.id);
    let leader = leader.map_or("none that answers".to_owned(), |(member, _)| member.shown());
    let term = states.iter().map(|(_, state)| state.term).max().unwrap_or(0);
    let leases = now.leases.map_or("?".to_owned(), |leases| leases.to_string());
    let count = now.members.len();
    format!("{count} members, {} answer; leader: {leader}, term {term}; leases: {leases}\n", states.len())
}

fn metrics(member: &Member) -> Option<&Metrics> {
    member.web.as_ref().ok().map(|web| &web.metrics)
}

fn row(member: &Member, earlier: Option<(&Metrics, f64)>) -> Vec<String> {
    let Ok(state) = &member.state else {
        let mut row = vec![member.shown(), "silent".into()];
        row.resize(COLUMNS.len(), "-".into());
        return row;
    };
    let role = match (state.leader == member.id, member.is_learner) {
        (true, _) => "leader",
        (_, true) => "learner",
        _ => "follower",
    };
    let size = |bytes: i64| go::bytes_text(u64::try_from(bytes).unwrap_or(0)).replace(' ', "");
    let percent = if state.quota > 0 { state.size.saturating_mul(100) / state.quota } else { 0 };
    let now = metrics(member);
    let rate = |labels: &str| {
        let (now, (earlier, seconds)) = (now?, earlier?);
        let sum = |page: &Metrics| page.sum_where("grpc_server_handled_total", labels).unwrap_or(0.0);
        // A member that was started anew counts from nothing.
        let per_second = (sum(now) - sum(earlier)).max(0.0) / seconds.max(f64::MIN_POSITIVE);
        Some(format!("{per_second:.0}"))
    };
    let p99 = |name: &str| {
        let (now, none) = (now?.histogram(name), Metrics::default());
        let took = now.since(&earlier.map_or(&none, |(earlier, _)| earlier).histogram(name)).quantile(0.99)?;
        Some(if took.is_finite() { format!("{:.0}ms", took * 1000.0) } else { ">8s".into() })
    };
    let shown = |cell: Option<String>| cell.unwrap_or_else(|| "-".into());
    vec![
        member.shown(),
        role.into(),
        state.version.clone(),
        state.revision.to_string(),
        state.index.to_string(),
        size(state.size),
        size(state.size_in_use),
        format!("{percent}%"),
        shown(now.and_then(|now| now.sum("etcd_debugging_mvcc_watcher_total")).map(|n| format!("{n:.0}"))),
        shown(rate("")),
        shown(rate("grpc_method=\"Put\"")),
        shown(rate("grpc_method=\"Range\"")),
        shown(p99("etcd_disk_wal_fsync_duration_seconds")),
        shown(p99("etcd_network_peer_round_trip_time_seconds")),
    ]
}

/// Columns as wide as their widest cell; two blanks between.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Web;

    fn page(puts: u32, quick: u32, slow: u32) -> Web {
        let text = format!(
            "grpc_server_handled_total{{grpc_method=\"Put\",grpc_code=\"OK\"}} {puts}\n\
             grpc_server_handled_total{{grpc_method=\"Range\",grpc_code=\"OK\"}} 5\n\
             etcd_debugging_mvcc_watcher_total 3\n\
             etcd_disk_wal_fsync_duration_seconds_bucket{{le=\"0.002\"}} {quick}\n\
             etcd_disk_wal_fsync_duration_seconds_bucket{{le=\"+Inf\"}} {}\n",
            quick + slow
        );
        Web { metrics: Metrics::parse(&text), ..Web::default() }
    }

    fn sample(at: Instant, web: Web) -> Sample {
        let state = State {
            leader: 1,
            version: "3.7.1".into(),
            revision: 9,
            index: 12,
            size: 1 << 20,
            quota: 1 << 21,
            ..State::default()
        };
        let leader = Member {
            id: 1,
            name: "m1".into(),
            state: Ok(State { term: 2, ..state.clone() }),
            web: Ok(web),
            ..Member::default()
        };
        let follower = Member { id: 2, name: "m2".into(), endpoint: "b".into(), state: Ok(state), ..Member::default() };
        let silent = Member { id: 3, name: "m3".into(), endpoint: "c".into(), ..Member::default() };
        Sample { at, members: vec![leader, follower, silent], leases: Some(4) }
    }

    fn cells(frame: &str, line: usize) -> Vec<&str> {
        frame.lines().nth(line).unwrap_or_default().split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
    }

    #[test]
    fn a_first_frame_has_no_rates() {
        let frame = frame(&sample(Instant::now(), page(100, 99, 1)), None);
        assert_eq!(frame.lines().next(), Some("3 members, 2 answer; leader: m1, term 2; leases: 4"));
        assert_eq!(cells(&frame, 1), COLUMNS);
        let all = ["m1", "leader", "3.7.1", "9", "12", "1.0MB", "0B", "50%", "3", "-", "-", "-", "2ms", "-"];
        assert_eq!(cells(&frame, 2), all);
        assert_eq!(cells(&frame, 3)[..3], ["m2", "follower", "3.7.1"]);
        assert_eq!(cells(&frame, 4)[..3], ["m3", "silent", "-"]);
    }

    #[test]
    fn rates_and_latencies_are_those_of_the_time_between_two_samples() {
        let start = Instant::now();
        let before = sample(start, page(100, 100, 0));
        let now = sample(start + Duration::from_secs(2), page(300, 100, 10));
        let frame = frame(&now, Some(&before));
        assert_eq!(cells(&frame, 2)[9..], ["100", "100", "0", ">8s", "-"]);
        let anew = sample(start + Duration::from_secs(2), page(0, 0, 0));
        let frame = super::frame(&anew, Some(&before));
        assert_eq!(cells(&frame, 2)[9..], ["0", "0", "0", "-", "-"]);
    }
}
