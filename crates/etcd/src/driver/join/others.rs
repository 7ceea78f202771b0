//! What the members that the flags name say of themselves, before this one is a member (etcd `cluster_util.go`).

use super::running::Running;
use crate::config::{Config, Named, Url};
use api::version::{self, Version};
use rpc::peer::{self, Asker, Connector, MemberInfo};
use server::member::Beginning;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How long a member of a running cluster may take to answer (etcd `GetClusterFromRemotePeers`).
const MEMBERS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a founder's peer, which perhaps does not run yet, may take to take the connection (etcd
/// `BootstrapTimeoutEffective`). Who took it gets [`MEMBERS_TIMEOUT`]: etcd goes on after a second in all, and so founds a
/// second cluster beside one that is busy. Founders do not listen while they ask, and so they never wait for one another.
const FOUNDING_DIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause before a cluster that has not agreed on its version yet is asked again.
const VERSION_RETRY: Duration = Duration::from_millis(200);

/// The peers that the flags name, this member left out.
pub struct Others<'a> {
    config: &'a Config,
    /// In the order in which they are asked.
    urls: Vec<&'a Url>,
    connector: Arc<dyn Connector>,
    runtime: tokio::runtime::Runtime,
}

impl<'a> Others<'a> {
    /// # Errors
    /// The operating system gives no network.
    pub fn new(config: &'a Config, named: &'a Named, connector: Arc<dyn Connector>) -> Result<Others<'a>, String> {
        let others = named.iter().filter(|(name, _)| **name != config.name);
        let mut urls: Vec<&Url> = others.flat_map(|(_, urls)| urls).collect();
        urls.sort();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        Ok(Others { config, urls, connector, runtime })
    }

    fn asker(&self, dial_timeout: Duration, timeout: Duration) -> Asker {
        Asker { connector: self.connector.clone(), dial_timeout, timeout }
    }

    /// A founder's peers are silent, or founders too. Whoever belongs to a cluster that runs, or to another one, must not
    /// be taken for one of them: two clusters under the same addresses would come of it.
    ///
    /// # Errors
    /// Such a cluster answered; the text has the command that joins it.
    pub fn refuse_a_running_cluster(&self, beginning: &Beginning) -> Result<(), String> {
        let asker = self.asker(FOUNDING_DIAL_TIMEOUT, MEMBERS_TIMEOUT);
        let mut asking = JoinSet::new();
        for (n, url) in self.urls.iter().enumerate() {
            let (asker, url) = (asker.clone(), url.to_string());
            let ask = async move { (n, cluster_at(&asker, &url).await.ok()) };
            asking.spawn_on(ask, self.runtime.handle());
        }
        let mut answers = self.runtime.block_on(asking.join_all());
        answers.sort_by_key(|(n, _)| *n);
        let answers = answers.into_iter().filter_map(|(n, running)| Some((self.urls[n], running?)));
        answers.into_iter().try_for_each(|(url, running)| running.admits_founder(self.config, url, beginning))
    }

    /// The cluster of the first that answers.
    ///
    /// # Errors
    /// Nobody does.
    pub fn cluster(&self) -> Result<Running, String> {
        let asker = self.asker(MEMBERS_TIMEOUT, MEMBERS_TIMEOUT);
        for url in &self.urls {
            match self.runtime.block_on(cluster_at(&asker, url.as_str())) {
                Ok(running) => return Ok(running),
                Err(e) => tracing::warn!(address = url.as_str(), error = e, "failed to get cluster response"),
            }
        }
        let text =
            "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs";
        Err(text.into())
    }

    /// Whether this release can be a member: no cluster version that is known is out of its range, and one at least is in
    /// it (etcd `isCompatibleWithCluster`). A cluster that was only just founded may still have to agree on one.
    ///
    /// # Errors
    /// It can't.
    pub fn check_versions(&self, running: &Running, own: u64) -> Result<(), String> {
        let timeout = Duration::from_secs(5) + 2 * Duration::from_millis(self.config.election_timeout);
        let asker = self.asker(timeout, timeout);
        let others: Vec<&MemberInfo> = running.members.iter().filter(|m| m.id != own).collect();
        let deadline = Instant::now() + timeout;
        loop {
            let versions = self.runtime.block_on(cluster_versions(&asker, &others));
            let downgrading = self.runtime.block_on(is_downgrading(&asker, &others));
            match compatible(&versions, downgrading) {
                Err(Incompatible::Undecided) if Instant::now() < deadline => {
                    self.runtime.block_on(tokio::time::sleep(VERSION_RETRY));
                }
                verdict => return verdict.map_err(|why| why.text()),
            }
        }
    }
}

async fn cluster_at(asker: &Asker, url: &str) -> Result<Running, String> {
    let url = peer::Url::parse(url)?;
    let (id, mut members) = peer::members(asker, &url).await.map_err(|e| e.to_string())?;
    members.sort_by_key(|m| m.id);
    Ok(Running { id, members })
}

/// Asks a member at one URL after another.
async fn ask_member<T, F>(member: &MemberInfo, ask: impl Fn(peer::Url) -> F) -> Result<T, String>
where
    F: Future<Output = Result<T, peer::Unanswered>>,
{
    let mut last = "no peer URL".to_owned();
    for url in peer::Url::parse_list(member.peer_urls.iter().map(String::as_str))? {
        match ask(url).await {
            Ok(answer) => return Ok(answer),
            Err(e) => last = e.to_string(),
        }
    }
    Err(last)
}

/// What each one that answers has for the cluster's version.
async fn cluster_versions(asker: &Asker, members: &[&MemberInfo]) -> Vec<(u64, String)> {
    let mut asking = JoinSet::new();
    for member in members {
        let (asker, member) = (asker.clone(), (*member).clone());
        asking.spawn(async move {
            let ask = |url| {
                let asker = asker.clone();
                async move { peer::versions(&asker, &url).await }
            };
            (member.id, ask_member(&member, ask).await)
        });
    }
    let mut versions = Vec::new();
    for (id, answer) in asking.join_all().await {
        match answer {
            Ok(answer) => versions.push((id, answer.cluster)),
            Err(e) => tracing::warn!("remote-member-id" = format!("{id:x}"), error = e, "failed to get version"),
        }
    }
    versions.sort();
    versions
}

/// The first answer counts: it comes from a linearizable read.
async fn is_downgrading(asker: &Asker, members: &[&MemberInfo]) -> bool {
    for member in members {
        let ask = |url| async move { peer::downgrade_enabled(asker, &url).await };
        match ask_member(member, ask).await {
            Ok(enabled) => return enabled,
            Err(e) => {
                let id = format!("{:x}", member.id);
                tracing::warn!("remote-member-id" = id, error = e, "failed to get downgrade enabled status");
            }
        }
    }
    false
}

#[derive(Debug, PartialEq, Eq)]
enum Incompatible {
    /// Nobody told a version.
    Undecided,
    /// Who told which one, and the lowest and highest that would do.
    OutOfRange(u64, String, Version, Version),
}

impl Incompatible {
    fn text(&self) -> String {
        let why = match self {
            Incompatible::Undecided => "no member told the cluster's version: try again when it has one".to_owned(),
            Incompatible::OutOfRange(id, told, low, high) => format!(
                "member {id:x} says that the cluster version is {told}, while this server {} can join {low} to {high}",
                version::SERVER
            ),
        };
        format!("incompatible with current running cluster ({why})")
    }
}

/// While a cluster is being downgraded to the version before ours, only that is joined which is still above.
fn compatible(told: &[(u64, String)], downgrading: bool) -> Result<(), Incompatible> {
    let own = Version::parse(version::CLUSTER).expect("a constant");
    let lowest = Version::parse(version::MIN_CLUSTER).expect("a constant");
    let above = Version { minor: own.minor + 1, ..own };
    let (low, high) = if downgrading { (above, above) } else { (lowest, own) };
    let known: Vec<_> = told.iter().filter_map(|(id, text)| Some((*id, Version::parse(text)?))).collect();
    match known.iter().find(|(_, v)| *v < low || *v > high) {
        Some((id, v)) => Err(Incompatible::OutOfRange(*id, v.to_string(), low, high)),
        None if known.is_empty() => Err(Incompatible::Undecided),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(versions: &[&str]) -> Vec<(u64, String)> {
        (1..).zip(versions).map(|(id, v)| (id, (*v).to_owned())).collect()
    }

    #[test]
    fn clusters_of_other_versions_are_not_joined() {
        assert_eq!(compatible(&told(&["3.7.0", "not_decided"]), false), Ok(()));
        assert_eq!(compatible(&told(&["3.5.0", "3.5.0"]), false), Ok(()));
        assert_eq!(compatible(&told(&["not_decided"]), false), Err(Incompatible::Undecided));
        assert_eq!(compatible(&[], false), Err(Incompatible::Undecided));
        for (versions, downgrading, who) in
            [(&["3.7.0", "3.8.0"][..], false, 2), (&["2.3.0"], false, 1), (&["3.7.0"], true, 1)]
        {
            let verdict = compatible(&told(versions), downgrading);
            assert!(matches!(verdict, Err(Incompatible::OutOfRange(id, ..)) if id == who), "{versions:?}: {verdict:?}");
        }
        assert_eq!(compatible(&told(&["3.8.0"]), true), Ok(()));
    }
}
