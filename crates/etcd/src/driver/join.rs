//! How a member without a log learns which cluster it belongs to (etcd `bootstrapCluster`): it founds one with others, or
//! joins one that runs.
//!
//! ```text
//! flags, DNS ─► who is named ─┬─ new ──────► nobody runs such a cluster, or another one ─► founders
//!                             │                                     or the registry's ─┘
//!                             └─ existing ─► who is in it, and in which version ────────► what it has for this member
//! ```

mod discovery;
pub(crate) mod dns;
mod others;
mod running;
mod srv;

/// What reads bytes from outside, opened to the fuzzer.
#[doc(hidden)]
pub mod decoders {
    pub use super::discovery::founders_of;
    pub use super::dns::{count_records, count_servers};
}

use crate::config::{self, Config, Named, Url};
use api::identity::{cluster_id, member_id};
use others::Others;
use rpc::peer::{Connector, MemberInfo};
use server::member::{Beginning, Founder};
use std::sync::Arc;

/// The names that an address has. May block.
pub fn names_of() -> tls::NamesOf {
    Arc::new(|address| dns::Resolver::system().names(address))
}

/// How this member's log begins, and whom to talk to before the log says it.
pub struct Start {
    pub beginning: Beginning,
    /// Members of the cluster that is joined; empty for founders, whose log names them.
    pub remotes: Vec<MemberInfo>,
}

/// What the flags say; they count for a new log only. Others are asked by `connector`.
///
/// # Errors
/// etcd's texts for flags that contradict themselves, or the cluster that runs, and what helps.
pub fn start(config: &Config, connector: &Arc<dyn Connector>) -> Result<Start, String> {
    let joins = config.initial_cluster_state == "existing";
    match config::has_log(config) {
        true => begun(config, joins),
        false if joins => join(config, connector),
        false => found(config, connector),
    }
}

/// A log knows whose it is, and who joined waits for a leader. Only a founder's may still have to be begun: a crash came in
/// between.
fn begun(config: &Config, joined: bool) -> Result<Start, String> {
    if discovers(config) {
        tracing::warn!("discovery token is ignored since cluster already initialized; valid logs are found");
    }
    if joined {
        return Ok(Start { beginning: Beginning::default(), remotes: Vec::new() });
    }
    if discovers(config) || !config.discovery_srv.is_empty() {
        return Err(
            "the log holds no entries, and its founders are not looked up again: remove the data directory".into()
        );
    }
    founded(config, &config::initial_members(config)?, &config.initial_cluster_token)
}

fn discovers(config: &Config) -> bool {
    !config.discovery_endpoints.is_empty()
}

/// The members that the flags name; with a registry only this one, for the time being.
fn named(config: &Config) -> Result<Named, String> {
    if discovers(config) {
        return Ok(Named::from([(config.name.clone(), config.initial_advertise_peer_urls.clone())]));
    }
    if config.discovery_srv.is_empty() {
        return config::initial_members(config);
    }
    let failed = |e: String| format!("error setting up initial cluster: {e}");
    let named = srv::initial_cluster(config, &srv::System).and_then(|text| config::named(&text)).map_err(failed)?;
    match named.contains_key(&config.name) {
        true => Ok(named),
        false => Err(failed(format!("cannot find local etcd member {} in SRV records", go::quote(&config.name)))),
    }
}

fn found(config: &Config, connector: &Arc<dyn Connector>) -> Result<Start, String> {
    let named = named(config)?;
    config::verify_founders(config, &named)?;
    if discovers(config) {
        return found_with_registered(config, &named);
    }
    let start = founded(config, &named, &config.initial_cluster_token)?;
    Others::new(config, &named, connector.clone())?.refuse_a_running_cluster(&start.beginning)?;
    Ok(start)
}

fn found_with_registered(config: &Config, own: &Named) -> Result<Start, String> {
    let token = &config.discovery_token;
    let id = founded(config, own, token)?.beginning.id;
    let text = discovery::join(config, id, &config::pairs(own))?;
    let named = config::named(&text)?;
    config::distinct(&named).map_err(|_| format!("discovery cluster {} has duplicate url", config::pairs(&named)))?;
    founded(config, &named, token)
}

fn founded(config: &Config, named: &Named, token: &str) -> Result<Start, String> {
    let founder = |(name, urls): (&String, &Vec<Url>)| {
        let peer_urls: Vec<String> = urls.iter().map(Url::to_string).collect();
        Founder { id: member_id(&peer_urls, token, None), name: name.clone(), peer_urls }
    };
    let founders: Vec<Founder> = named.iter().map(founder).collect();
    let ids: Vec<u64> = founders.iter().map(|founder| founder.id).collect();
    let own = founders.iter().find(|founder| founder.name == config.name).ok_or("the local member is no founder")?;
    let beginning = Beginning { cluster_id: cluster_id(&ids), id: own.id, founders };
    Ok(Start { beginning, remotes: Vec::new() })
}

/// Asks the others who is in their cluster; the first answer counts.
fn join(config: &Config, connector: &Arc<dyn Connector>) -> Result<Start, String> {
    let named = named(config)?;
    config::verify_joiner(config, &named)?;
    if discovers(config) {
        return Err("discovery URL should not be set when joining existing initial cluster".into());
    }
    let others = Others::new(config, &named, connector.clone())?;
    let running = others.cluster()?;
    let id = running.assign_ids(config, &named)?;
    others.check_versions(&running, id)?;
    running.check_learners(config)?;
    Ok(Start { beginning: Beginning { cluster_id: running.id, id, founders: Vec::new() }, remotes: running.members })
}
