//! What the commands share: targets, plans, printing.

use super::{Done, Problem};
use crate::control::{self, Control};
use crate::given::Given;
use crate::pacer::Pace;
use crate::procs::Usage;
use crate::report::Report;
use crate::runner::{self, Outcome, Plan, Workload};
use crate::samples::Samples;
use crate::wire::{DIAL_TIMEOUT, Target};
use crate::{affinity, perfdash};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

/// Where to, as whom, how much.
#[derive(Debug)]
pub struct Session<'a> {
    pub parsed: &'a Given,
    pub targets: Vec<Target>,
    pids: Vec<u32>,
}

impl<'a> Session<'a> {
    /// Reads the global flags, binds to a core, logs in.
    pub fn start(parsed: &'a Given) -> Result<Session<'a>, Problem> {
        affinity::raise_file_limit();
        if let Ok(core) = usize::try_from(parsed.int("pin")) {
            affinity::pin(core)?;
        }
        let pids =
            parsed.list("server-pid").iter().map(|pid| pid.parse::<u32>().map_err(|_| format!("not a pid: {pid}")));
        let pids = pids.collect::<Result<Vec<_>, _>>()?;
        let mut targets = targets(parsed)?;
        log_in(parsed, &mut targets)?;
        if parsed.is("target-leader") {
            targets = vec![leader(&targets)?];
        }
        Ok(Session { parsed, targets, pids })
    }

    /// Runs a workload with as many connections and clients as the flags say.
    pub fn run<W: Workload>(&self, total: u64, pace: Pace, workload: W) -> Result<Outcome, Problem> {
        self.run_plan(&self.plan(total, pace), workload)
    }

    /// Runs a workload as planned; shows what the servers used.
    pub fn run_plan<W: Workload>(&self, plan: &Plan, workload: W) -> Result<Outcome, Problem> {
        let before = Usage::of_all(&self.pids)?;
        let outcome = runner::run(plan, &Arc::new(workload))?;
        progress(outcome.done() + outcome.failed(), &outcome);
        if !self.pids.is_empty() {
            let after = Usage::of_all(&self.pids)?;
            eprint!("{}", usage_text(&before, &after, &outcome));
        }
        Ok(outcome)
    }

    /// The plan of the flags.
    pub fn plan(&self, total: u64, pace: Pace) -> Plan {
        let duration = Some(self.parsed.duration("duration")).filter(|duration| !duration.is_zero());
        Plan {
            targets: self.targets.clone(),
            conns: self.parsed.size("conns").max(1),
            clients: self.parsed.size("clients").max(1),
            threads: self.parsed.size("threads"),
            total: Some(total).filter(|_| duration.is_none()),
            duration,
            pace,
            sample: self.parsed.is("sample"),
        }
    }

    /// The pace of a rate flag, open loop or token bucket.
    pub fn pace(&self, rate: u64, burst: u64) -> Result<Pace, Problem> {
        match (rate, self.parsed.is("open-loop")) {
            (0, true) => Err(Problem::Failed("--open-loop needs a rate".to_owned())),
            (0, false) => Ok(Pace::Unlimited),
            (rate, true) => Ok(Pace::Open { rate: rate as f64 }),
            (rate, false) => Ok(Pace::Bucket { rate: rate as f64, burst }),
        }
    }

    /// A report as etcd prints it.
    pub fn report(&self, samples: &Samples, elapsed: Duration) -> String {
        Report::new(samples, elapsed, self.parsed.is("precise")).text()
    }

    /// Writes the perfdash file if it is asked for.
    pub fn perfdash(&self, operation: &str, samples: &Samples) -> Done {
        if self.parsed.is("report-perfdash") {
            let path = perfdash::write(operation, samples)?;
            println!("Perfdash report written to {}", path.display());
        }
        Ok(())
    }
}

fn targets(parsed: &Given) -> Result<Vec<Target>, Problem> {
    let secure = secure(parsed)?;
    let timeout = Some(parsed.duration("dial-timeout")).filter(|timeout| !timeout.is_zero()).unwrap_or(DIAL_TIMEOUT);
    let target = |endpoint: &String| {
        let secure = secure.clone();
        Target { dial_timeout: timeout, secure, ..Target::new(endpoint.trim()) }
    };
    Ok(parsed.list("endpoints").iter().map(target).collect())
}

/// TLS where a file, a switch or the first endpoint asks for it.
fn secure(parsed: &Given) -> Result<Option<Arc<tls::Client>>, Problem> {
    let settings = tls::Settings {
        cert: parsed.text("cert").to_owned(),
        key: parsed.text("key").to_owned(),
        trusted_ca: parsed.text("cacert").to_owned(),
        skip_verify: parsed.is("insecure-skip-tls-verify"),
        ..tls::Settings::default()
    };
    let https = parsed.list("endpoints").first().is_some_and(|endpoint| endpoint.trim().starts_with("https://"));
    if !https && settings == tls::Settings::default() {
        return Ok(None);
    }
    let client = tls::Live::open(settings).and_then(|live| tls::Client::new(live, &["h2"]));
    Ok(Some(Arc::new(client.map_err(Problem::Failed)?)))
}

fn log_in(parsed: &Given, targets: &mut [Target]) -> Done {
    let user = parsed.text("user");
    if user.is_empty() {
        return Ok(());
    }
    let (name, password) = match user.split_once(':') {
        Some((name, password)) => (name, password.to_owned()),
        None => (user, ask_password()?),
    };
    for target in targets {
        target.token = Some(control::authenticate(target, name, &password)?);
    }
    Ok(())
}

fn ask_password() -> Result<String, Problem> {
    eprint!("Password: ");
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn leader(targets: &[Target]) -> Result<Target, Problem> {
    for target in targets {
        let status = Control::open(target).and_then(|mut control| control.status())?;
        if status.header.is_some_and(|header| header.member_id == status.leader) {
            return Ok(target.clone());
        }
    }
    Err(Problem::Failed("none of the endpoints is the leader".to_owned()))
}

/// etcd's progress bar when it is full, on stderr.
fn progress(count: u64, outcome: &Outcome) {
    let rate = outcome.done() as f64 / outcome.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    eprintln!("{count} / {count} [{}] 100.00% {rate:.0} p/s", "-".repeat(40));
}

fn usage_text(before: &Usage, after: &Usage, outcome: &Outcome) -> String {
    let per_op = |cpu: Duration| cpu.as_secs_f64() * 1e6 / outcome.done().max(1) as f64;
    let server = after.cpu.saturating_sub(before.cpu);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    format!(
        "Server CPU: {:.2} s, {:.1} µs per request; load tool: {:.2} s, {:.1} µs per request\n\
         Server memory, MiB (before → after): RssAnon {:.1} → {:.1}, VmRSS {:.1} → {:.1}, VmHWM {:.1} → {:.1}\n",
        server.as_secs_f64(),
        per_op(server),
        outcome.own_cpu.as_secs_f64(),
        per_op(outcome.own_cpu),
        mib(before.rss_anon),
        mib(after.rss_anon),
        mib(before.vm_rss),
        mib(after.vm_rss),
        mib(before.vm_hwm),
        mib(after.vm_hwm),
    )
}
