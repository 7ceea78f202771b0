//! A cluster that answered: whether this member may found one beside it, or belongs to it, and the commands that help.

use super::super::peers::texts;
use crate::config::{self, Config, Named, Url};
use api::identity::member_id;
use rpc::peer::MemberInfo;
use server::member::Beginning;
use std::time::Instant;

/// A cluster that answered, or claims to be one.
#[derive(Clone, Debug)]
pub struct Running {
    pub id: u64,
    /// By id.
    pub members: Vec<MemberInfo>,
}

impl Running {
    /// Whether a founder may go on, although `url` answers: it has to be a founder of the same cluster, which does not
    /// know this member as one that has run.
    ///
    /// # Errors
    /// It may not; the text says what helps.
    pub fn admits_founder(&self, config: &Config, url: &Url, beginning: &Beginning) -> Result<(), String> {
        let own = self.members.iter().find(|m| m.id == beginning.id);
        let unstarted = self.members.iter().all(|m| m.client_urls.is_empty());
        match own {
            // etcd's text, and what helps.
            Some(own) if !own.client_urls.is_empty() => Err(format!(
                "member {:x} has already been bootstrapped: the cluster that runs at {url} knows it, but its data \
                 directory {} holds no log. Start it with the data that it had; if they are lost, let it join anew: \
                 `etcdctl --endpoints={} member remove {:x}`, then {}",
                own.id,
                config.data_path().display(),
                self.endpoints(),
                own.id,
                self.without(own.id).way_in(config)
            )),
            Some(_) if self.id == beginning.cluster_id => Ok(()),
            _ if unstarted => Err(format!(
                "{url} founds another cluster ({:x}) than these flags do ({:x}): all its founders must be started with \
                 the same --initial-cluster and --initial-cluster-token. It says: {self}",
                self.id, beginning.cluster_id
            )),
            _ => Err(format!(
                "--initial-cluster-state=new would found a cluster ({:x}), but {url} belongs to one that runs already \
                 ({:x}). To join that one: {}",
                beginning.cluster_id,
                self.id,
                self.way_in(config)
            )),
        }
    }

    fn without(&self, id: u64) -> Running {
        let members = self.members.iter().filter(|m| m.id != id).cloned().collect();
        Running { id: self.id, members }
    }

    /// Where clients reach the cluster, as `etcdctl` wants it.
    fn endpoints(&self) -> String {
        let urls: Vec<&str> = self.members.iter().flat_map(|m| &m.client_urls).map(String::as_str).collect();
        urls.join(",")
    }

    /// The commands by which the local member becomes one of these.
    fn way_in(&self, config: &Config) -> String {
        let own = texts(&config.initial_advertise_peer_urls);
        let member = self.members.iter().find(|m| m.peer_urls == own);
        let mut all: Vec<String> = self.members.iter().filter(|m| m.peer_urls != own).flat_map(named_urls).collect();
        all.extend(own.iter().map(|url| format!("{}={url}", config.name)));
        let add = format!(
            "run `etcdctl --endpoints={} member add {} --peer-urls={}`, then ",
            self.endpoints(),
            config.name,
            own.join(",")
        );
        format!(
            "{}start it with --initial-cluster-state=existing --initial-cluster={}",
            if member.is_some() { "" } else { &add },
            all.join(",")
        )
    }

    /// The id that the cluster gave to the local member. All names must have the URLs that the cluster knows (etcd
    /// `ValidateClusterAndAssignIDs`).
    ///
    /// # Errors
    /// etcd's text, and what helps.
    pub fn assign_ids(&self, config: &Config, named: &Named) -> Result<u64, String> {
        let refused = |why: String| {
            format!(
                "error validating peerURLs {self}: {why}. For this member to be one of these: {}",
                self.way_in(config)
            )
        };
        if named.len() != self.members.len() {
            return Err(refused("member count is unequal".into()));
        }
        let deadline = config::resolve_deadline();
        let mut own = None;
        for member in &self.members {
            let name = self.name_of(member, config, named, deadline).map_err(refused)?;
            if name == config.name {
                own = Some(member.id);
            }
        }
        own.ok_or_else(|| refused("no member has the local member's URLs".into()))
    }

    /// The name that the flags have for a member.
    fn name_of<'n>(
        &self,
        member: &MemberInfo,
        config: &Config,
        named: &'n Named,
        deadline: Instant,
    ) -> Result<&'n str, String> {
        let urls: Result<Vec<Url>, String> = member.peer_urls.iter().map(|url| Url::parse(url)).collect();
        let mut urls = urls?;
        urls.sort();
        // In etcd's order, so that its last word is ours.
        let mut locals: Vec<_> = named.iter().collect();
        locals.sort_by_key(|(_, urls)| member_id(&texts(urls), &config.initial_cluster_token, None));
        let mut last = String::new();
        for (name, local) in locals {
            match config::same_places(&urls, local, deadline) {
                Ok(()) => return Ok(name),
                Err(why) => last = why,
            }
        }
        Err(format!(
            "PeerURLs: no match found for existing member ({:x}, [{}]), last resolver error ({last})",
            member.id,
            member.peer_urls.join(" ")
        ))
    }

    /// Whether `--max-learners` allows the learners that there are.
    ///
    /// # Errors
    /// It doesn't.
    pub fn check_learners(&self, config: &Config) -> Result<(), String> {
        let learners = self.members.iter().filter(|m| m.is_learner).count();
        match usize::try_from(config.max_learners) {
            Ok(max) if learners <= max => Ok(()),
            _ => Err("membership: too many learner members in cluster".into()),
        }
    }
}

/// `name=url` of a member; one that has never started has no name yet, and any will do.
fn named_urls(member: &MemberInfo) -> Vec<String> {
    let name = if member.name.is_empty() { format!("{:x}", member.id) } else { member.name.clone() };
    member.peer_urls.iter().map(|url| format!("{name}={url}")).collect()
}

/// As Go prints a `RaftCluster`.
impl std::fmt::Display for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let member = |m: &MemberInfo| {
            format!(
                "&{{ID:{:x} RaftAttributes:{{PeerURLs:[{}] IsLearner:{}}} Attributes:{{Name:{} ClientURLs:[{}]}}}}",
                m.id,
                m.peer_urls.join(" "),
                m.is_learner,
                m.name,
                m.client_urls.join(" ")
            )
        };
        let members: Vec<String> = self.members.iter().map(member).collect();
        write!(f, "{{ClusterID:{:x} Members:[{}] RemovedMemberIDs:[]}}", self.id, members.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, name: &str, url: &str, client: &str) -> MemberInfo {
        let client_urls = if client.is_empty() { Vec::new() } else { vec![client.to_owned()] };
        MemberInfo { id, name: name.into(), peer_urls: vec![url.into()], client_urls, is_learner: false }
    }

    fn joiner() -> Config {
        let initial_advertise_peer_urls = Url::parse_list("http://127.0.0.1:9").unwrap();
        Config { name: "new".into(), initial_advertise_peer_urls, ..Config::default() }
    }

    #[test]
    fn a_cluster_that_runs_is_joined_and_not_founded_again() {
        let a = member(0xa, "a", "http://127.0.0.1:1", "http://127.0.0.1:2");
        let running = Running { id: 7, members: vec![a.clone()] };
        let url = Url::parse("http://127.0.0.1:1").unwrap();
        let beginning = |cluster_id, id| Beginning { cluster_id, id, founders: Vec::new() };
        let refusal = running.admits_founder(&joiner(), &url, &beginning(8, 0xb)).unwrap_err();
        let command = "`etcdctl --endpoints=http://127.0.0.1:2 member add new --peer-urls=http://127.0.0.1:9`, then start \
                       it with --initial-cluster-state=existing --initial-cluster=a=http://127.0.0.1:1,new=http://127.0.0.1:9";
        assert!(refusal.ends_with(command), "{refusal}");
        // Added already.
        let mut added = running.clone();
        added.members.push(member(0xb, "", "http://127.0.0.1:9", ""));
        let refusal = added.admits_founder(&joiner(), &url, &beginning(8, 0xc)).unwrap_err();
        assert!(refusal.contains("To join that one: start it with"), "{refusal}");
        // A founder of the same cluster that was slow to start.
        assert_eq!(added.admits_founder(&joiner(), &url, &beginning(7, 0xb)), Ok(()));
        // One that has run.
        let refusal = running.admits_founder(&joiner(), &url, &beginning(7, 0xa)).unwrap_err();
        assert!(refusal.starts_with("member a has already been bootstrapped"), "{refusal}");
    }

    #[test]
    fn members_are_known_by_their_urls_alone() {
        let running = Running {
            id: 7,
            members: vec![
                member(0xa, "a", "http://127.0.0.1:1", "http://127.0.0.1:2"),
                member(0xb, "", "http://127.0.0.1:9", ""),
            ],
        };
        let ids = |text: &str| running.assign_ids(&joiner(), &config::named(text).unwrap());
        assert_eq!(ids("other=http://127.0.0.1:1,new=http://127.0.0.1:9"), Ok(0xb));
        let refusal = ids("new=http://127.0.0.1:9").unwrap_err();
        assert!(refusal.contains("RemovedMemberIDs:[]}: member count is unequal"), "{refusal}");
        let refusal = ids("a=http://127.0.0.1:1,new=http://127.0.0.1:8").unwrap_err();
        let text = "no match found for existing member (b, [http://127.0.0.1:9]), last resolver error (resolved urls: \
                    \"http://127.0.0.1:9\" != \"http://127.0.0.1:";
        assert!(refusal.contains(text), "{refusal}");
    }
}
