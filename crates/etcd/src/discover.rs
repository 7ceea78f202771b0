//! `--discovery-srv` of the proxies: DNS names the cluster's client endpoints (etcd `etcdmain.discoverEndpoints`).
//!
//! ```text
//! _etcd-client-ssl[-NAME]._tcp.DOMAIN  SRV … port host   ─►  https endpoints
//! _etcd-client[-NAME]._tcp.DOMAIN      SRV … port host   ─►  http endpoints, which --insecure-discovery has to allow
//! ```

use crate::addresses::{dial_text, join_host_port};
use crate::driver::join::dns::{Record, Resolver};
use crate::logging::{Level, Note};
use std::time::Duration;
use tokio::net::TcpStream;

/// For one endpoint to show its certificate (etcd has the same).
const VALIDATION_TIMEOUT: Duration = Duration::from_secs(5);

/// Where to look, and what is asked of what is found.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// `--discovery-srv`; empty: nothing is looked up.
    pub domain: String,
    /// `--discovery-srv-name`.
    pub service: String,
    /// Endpoints need not show a certificate for the domain.
    pub insecure: bool,
    /// Who signed those certificates; empty: the operating system's authorities.
    pub trusted_ca: String,
}

/// An endpoint and the record that named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub url: String,
    pub record: Record,
}

/// The endpoints that DNS names, without those that can't be trusted.
///
/// # Errors
/// Go's text: DNS names none.
pub async fn endpoints(wanted: &Wanted, resolver: &Resolver) -> Result<Vec<Found>, String> {
    if wanted.domain.is_empty() {
        return Ok(Vec::new());
    }
    let found = look_up(wanted, resolver)?;
    let shown = |found: &[Found]| found.iter().map(|found| found.url.clone()).collect::<Vec<_>>();
    let note = |level, text| Note::new(level, text).text("srv-server", &wanted.domain).with("endpoints", shown(&found));
    note(Level::Info, "discovered cluster from SRV").log();
    if wanted.insecure {
        return Ok(found);
    }
    note(Level::Info, "validating discovered SRV endpoints").log();
    let (trusted, failures) = validated(wanted, &found).await;
    let text = match failures.is_empty() {
        true => "using validated discovered SRV endpoints",
        false => "failed to validate discovered endpoints",
    };
    let note = Note::new(if failures.is_empty() { Level::Info } else { Level::Warn }, text)
        .text("srv-server", &wanted.domain)
        .with("endpoints", shown(&trusted));
    if failures.is_empty() {
        note.log()
    } else {
        note.text("error", &failures.join(",")).log()
    }
    Ok(trusted)
}

fn look_up(wanted: &Wanted, resolver: &Resolver) -> Result<Vec<Found>, String> {
    let suffix = if wanted.service.is_empty() { String::new() } else { format!("-{}", wanted.service) };
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for (scheme, service) in [("https", "etcd-client-ssl"), ("http", "etcd-client")] {
        match resolver.srv(&format!("_{service}{suffix}._tcp.{}", wanted.domain)) {
            Ok(records) => found.extend(records.into_iter().map(|mut record| {
                record.target.truncate(record.target.trim_end_matches('.').len());
                Found { url: format!("{scheme}://{}", join_host_port(&record.target, record.port)), record }
            })),
            Err(why) => failures.push(why),
        }
    }
    if failures.len() == 2 {
        return Err(format!("dns lookup errors: {}", failures.join(" and ")));
    }
    Ok(found)
}

/// Those that show a certificate for the domain, and why the others don't count.
async fn validated(wanted: &Wanted, found: &[Found]) -> (Vec<Found>, Vec<String>) {
    let settings = tls::Settings {
        trusted_ca: wanted.trusted_ca.clone(),
        server_name: Some(wanted.domain.clone()),
        ..tls::Settings::default()
    };
    let client = match tls::Live::open(settings).and_then(|live| tls::Client::new(live, &[])) {
        Ok(client) => client,
        Err(why) => return (Vec::new(), vec![why]),
    };
    let (mut trusted, mut failures) = (Vec::new(), Vec::new());
    for one in found {
        match shake_hands(&client, one).await {
            Ok(()) => trusted.push(one.clone()),
            Err(why) => failures.push(why),
        }
    }
    (trusted, failures)
}

async fn shake_hands(client: &tls::Client, found: &Found) -> Result<(), String> {
    let Some(address) = found.url.strip_prefix("https://") else {
        return Err(format!("{} is insecure", go::quote(&found.url)));
    };
    let failed = |why: String| format!("{} failed to dial ({why})", go::quote(&found.url));
    let dialled = async {
        let stream = TcpStream::connect((found.record.target.as_str(), found.record.port)).await;
        let stream = stream.map_err(|e| failed(dial_text(address, &e)))?;
        client.connect(&found.record.target, stream).await.map(drop).map_err(failed)
    };
    match tokio::time::timeout(VALIDATION_TIMEOUT, dialled).await {
        Ok(outcome) => outcome,
        Err(_) => Err(failed(format!("dial tcp {address}: i/o timeout"))),
    }
}
