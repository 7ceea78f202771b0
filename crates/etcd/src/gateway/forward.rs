//! Connections of clients, each with one to a member: bytes go both ways until both sides have ended.

use super::remotes::Remotes;
use cobra::Exit;
use rustix::net::sockopt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Bytes of each way of a connection that wait for the other side.
const BUFFER_BYTES: usize = 32 << 10;
/// Descriptors for everything else.
const RESERVED_DESCRIPTORS: u64 = 32;
/// Pause after a failed accept.
const ACCEPT_BREATH: Duration = Duration::from_millis(50);
/// A side that is gone without a word is found out by probes: after so long in silence, and between them (Go's defaults).
const PROBE_AFTER: Duration = Duration::from_secs(15);
const PROBES: u32 = 9;

/// Serves connections for ever. No more are accepted than there are descriptors for; the others wait in the backlog.
///
/// # Errors
/// The limit of descriptors leaves none.
pub async fn accept(listener: TcpListener, remotes: Arc<Remotes>) -> Result<(), Exit> {
    let allowed = connections_allowed();
    if allowed == 0 {
        eprintln!("file descriptor limit of the gateway is too low; please set it higher (see ulimit -n)");
        return Err(Exit::code(1));
    }
    let slots = Arc::new(Semaphore::new(allowed));
    loop {
        let slot = slots.clone().acquire_owned().await.map_err(Exit::error)?;
        let client = loop {
            match listener.accept().await {
                Ok((client, _)) => break client,
                Err(e) => {
                    // Out of descriptors, or the client is gone already: go on after a breath.
                    tracing::warn!(error = %go::os_text(&e), "failed to accept a client connection");
                    tokio::time::sleep(ACCEPT_BREATH).await;
                }
            }
        };
        let remotes = remotes.clone();
        tokio::spawn(async move {
            forward(client, &remotes).await;
            drop(slot);
        });
    }
}

/// Two descriptors a connection.
fn connections_allowed() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(e) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(error = %e, "failed to raise the soft limit of file descriptors");
    }
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let pairs = descriptors.saturating_sub(RESERVED_DESCRIPTORS) / 2;
    usize::try_from(pairs).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)
}

/// A side that ends its half is told of to the other; one that breaks off ends both.
async fn forward(mut client: TcpStream, remotes: &Remotes) {
    let Some(mut member) = remotes.connect().await else { return };
    for stream in [&client, &member] {
        if let Err(e) = prepare(stream) {
            tracing::debug!(error = %e, "a connection has no probes");
        }
    }
    let copied = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut member, BUFFER_BYTES, BUFFER_BYTES).await;
    if let Err(e) = copied {
        tracing::debug!(error = %go::os_text(&e), "a connection broke off");
    }
}

fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, PROBE_AFTER)?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
    Ok(())
}
