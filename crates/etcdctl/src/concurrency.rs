//! `lock` and `elect`: clientv3's recipes, held until a signal comes, a command ends or the lease is lost.

use crate::globals::Ctl;
use crate::kv::failed;
use crate::output::Answer;
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use client::{Election, Mutex, Session};
use cobra::{Call, Exit, Flag, Kind};

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Flags of `lock`.
pub static LOCK_FLAGS: &[Flag] = &[Flag::new("ttl", Kind::Int, "10", "seconds that the lock outlives its holder")];
/// Flags of `elect`.
pub static ELECT_FLAGS: &[Flag] = &[Flag::switch("listen", "only print who leads").short('l')];
/// Seconds that a leader's key outlives its process (clientv3 `defaultSessionTTL`).
const ELECTION_TTL: i64 = 60;

/// SIGINT or SIGTERM.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From now on these signals do no more than end [`Signals::come`].
    ///
    /// # Errors
    /// The system refuses.
    pub fn listen() -> Result<Signals, Exit> {
        let listen = |kind| signal(kind).map_err(|e| Exit::error(format!("cannot wait for signals: {e}")));
        Ok(Signals { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for one of them.
    pub async fn come(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// `lock NAME [command …]`.
pub fn lock(call: &mut Call) -> Result<(), Exit> {
    if call.args().is_empty() {
        return Err(Exit::arguments("lock takes a lock name argument and an optional command to execute"));
    }
    let ttl = call.given.int("ttl");
    let name = call.arg(0);
    let command = call.args()[1..].to_vec();
    let ctl = Ctl::open(call)?;
    ctl.block_on(async {
        let mut signals = Signals::listen()?;
        let session = Session::new(&ctl.client, ttl).await.map_err(failed)?;
        let mutex = Mutex::new(&session, &name);
        let outcome = tokio::select! {
            outcome = hold(&ctl, &mutex, &command, &mut signals) => outcome,
            () = session.until_expired() => return Err(Exit::error("session expired")),
        };
        // The lease ends by itself where it can't be revoked.
        let _ = session.close().await;
        outcome
    })
}

async fn hold(ctl: &Ctl, mutex: &Mutex<'_>, command: &[Vec<u8>], signals: &mut Signals) -> Result<(), Exit> {
    let revision = tokio::select! {
        revision = mutex.lock() => revision.map_err(failed)?,
        () = signals.come() => return Err(Exit::error("context canceled")),
    };
    let Some((program, arguments)) = command.split_first() else {
        let request = pb::RangeRequest { key: mutex.key(), ..Default::default() };
        let response = ctl.client.range(request).await.map_err(failed)?;
        if response.kvs.is_empty() {
            return Err(Exit::error("lock lost on init"));
        }
        ctl.display.show(Answer::Get(&response))?;
        signals.come().await;
        return mutex.unlock().await.map_err(failed);
    };
    let status = tokio::process::Command::new(OsStr::from_bytes(program))
        .args(arguments.iter().map(|word| OsStr::from_bytes(word)))
        .env("ETCD_LOCK_KEY", OsStr::from_bytes(&mutex.key()))
        .env("ETCD_LOCK_REV", revision.to_string())
        .stdin(Stdio::null())
        .status()
        .await;
    // The lease ends by itself where the key can't be deleted.
    let _ = mutex.unlock().await;
    let code = match &status {
        Ok(status) => status.code().map_or(255, |code| u8::try_from(code).unwrap_or(255)),
        Err(_) => 1,
    };
    why_it_failed(program, &status).map_or(Ok(()), |why| Err(Exit::with(code, why)))
}

/// Go's words for a command that did not run or did not succeed.
pub fn why_it_failed(program: &[u8], status: &io::Result<ExitStatus>) -> Option<String> {
    match status {
        Ok(status) if status.success() => None,
        Ok(status) => Some(match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("signal: {}", signal_name(signal)),
            (None, None) => status.to_string(),
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound && !program.contains(&b'/') => {
            Some(format!("exec: {}: executable file not found in $PATH", go::quote(program)))
        }
        Err(e) => Some(format!("fork/exec {}: {}", String::from_utf8_lossy(program), go::os_text(e))),
    }
}

fn signal_name(signal: i32) -> String {
    match signal {
        1 => "hangup".into(),
        2 => "interrupt".into(),
        3 => "quit".into(),
        6 => "aborted".into(),
        9 => "killed".into(),
        11 => "segmentation fault".into(),
        13 => "broken pipe".into(),
        15 => "terminated".into(),
        other => format!("signal {other}"),
    }
}

/// `elect NAME [proposal]`.
pub fn elect(call: &mut Call) -> Result<(), Exit> {
    let count = call.args().len();
    if count != 1 && count != 2 {
        return Err(Exit::arguments("elect takes one election name argument and an optional proposal argument"));
    }
    let listens = call.given.is_true("listen");
    let name = call.arg(0);
    let proposal = call.args().get(1).map(|word| Bytes::copy_from_slice(word));
    if listens && proposal.is_some() {
        return Err(Exit::arguments("proposal given but -l is set"));
    }
    if listens {
        let ctl = Ctl::open(call)?;
        return observe(&ctl, &name);
    }
    let Some(proposal) = proposal else {
        return Err(Exit::arguments("no proposal argument but -l not set"));
    };
    let ctl = Ctl::open(call)?;
    campaign(&ctl, &name, proposal)
}

fn observe(ctl: &Ctl, name: &str) -> Result<(), Exit> {
    let mut shown = Ok(());
    ctl.block_on(async {
        let mut signals = Signals::listen()?;
        let watching = Election::observe(&ctl.client, name, |response| {
            shown = ctl.display.show(Answer::Get(&response));
            shown.is_ok()
        });
        tokio::select! {
            outcome = watching => outcome.map_err(failed),
            () = signals.come() => Ok(()),
        }
    })?;
    shown
}

fn campaign(ctl: &Ctl, name: &str, proposal: Bytes) -> Result<(), Exit> {
    ctl.block_on(async {
        let mut signals = Signals::listen()?;
        let session = Session::new(&ctl.client, ELECTION_TTL).await.map_err(failed)?;
        let election = Election::new(&session, name);
        let outcome = tokio::select! {
            outcome = lead(ctl, &election, proposal, &mut signals) => outcome,
            () = session.until_expired() => return Err(Exit::error("elect: session expired")),
        };
        // The lease ends by itself where it can't be revoked.
        let _ = session.close().await;
        outcome
    })
}

async fn lead(ctl: &Ctl, election: &Election<'_>, proposal: Bytes, signals: &mut Signals) -> Result<(), Exit> {
    tokio::select! {
        outcome = election.campaign(proposal) => outcome.map_err(failed)?,
        () = signals.come() => return Err(Exit::error("context canceled")),
    }
    let request = pb::RangeRequest { key: election.key(), ..Default::default() };
    let response = ctl.client.range(request).await.map_err(failed)?;
    ctl.display.show(Answer::Get(&response))?;
    signals.come().await;
    election.resign().await.map_err(failed)
}
