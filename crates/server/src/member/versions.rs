//! Attributes, cluster version, storage version and downgrade (reference/semantics.md 10.12, 11.7, 11.10).

use super::{Internal, Member, Output, request_timeout_ms};
use crate::{Request, Response, Who};
use api::pb::etcdserverpb::downgrade_request::DowngradeAction;
use api::pb::{etcdserverpb as pb, membershippb};
use api::version::{self, Version};
use std::collections::BTreeMap;

/// The leader looks at the cluster version this often (etcd `monitorVersionInterval`).
const VERSION_INTERVAL_MS: u64 = 4000;

/// What was published and when the next look is due.
#[derive(Debug, Default)]
pub struct Versions {
    published: bool,
    publish_ms: u64,
    version_ms: u64,
    /// When it is to be looked whether a downgrade is over, and whether the versions that come next are asked for that.
    downgrade_ms: u64,
    downgrade_asked: bool,
    /// No note about a schema that can't be lowered before this.
    note_ms: u64,
}

impl<T> Member<T> {
    pub(super) fn tick_versions(&mut self) {
        if self.raft.leader() == 0 {
            return;
        }
        if !self.versions.published && self.now_ms >= self.versions.publish_ms {
            self.versions.publish_ms = self.now_ms + request_timeout_ms(&self.config);
            self.publish_attributes();
        }
        if self.leads.is_some() && self.now_ms >= self.versions.version_ms {
            self.versions.version_ms = self.now_ms + VERSION_INTERVAL_MS;
            match self.has_peers() {
                true => self.out.push(Output::AskVersions),
                false => self.decide_cluster_version(Some(own_version())),
            }
        }
        self.look_for_the_end_of_a_downgrade();
        self.follow_cluster_version();
    }

    /// etcd `monitorDowngrade`. An only member's downgrade is over when another version runs it.
    fn look_for_the_end_of_a_downgrade(&mut self) {
        let every = self.config.choices.downgrade_check_ms;
        let looks = every > 0 && self.leads.is_some() && self.has_peers() && self.lowered().is_some();
        if looks && self.now_ms >= self.versions.downgrade_ms {
            self.versions.downgrade_ms = self.now_ms + every;
            self.versions.downgrade_asked = true;
            self.out.push(Output::AskVersions);
        }
    }

    fn publish_attributes(&mut self) {
        failpoint::point!("beforePublishing");
        let attributes =
            membershippb::Attributes { name: self.config.name.clone(), client_urls: self.config.client_urls.clone() };
        let request = membershippb::ClusterMemberAttrSetRequest {
            member_id: self.member_id,
            member_attributes: Some(attributes),
        };
        self.propose_internal(Internal::Publish, |q| q.cluster_member_attr_set = Some(request));
    }

    pub(super) fn published(&mut self) {
        if !self.versions.published {
            self.versions.published = true;
            self.out.push(Output::Serving);
        }
    }

    /// The other members' server versions, as the answer to [`Output::AskVersions`]; `None` of one that gave none.
    pub fn peer_versions(&mut self, versions: &BTreeMap<u64, Option<String>>) {
        let others = self.applied.members().into_iter().filter(|m| m.id != self.member_id);
        let known = |id: u64| versions.get(&id)?.as_deref().and_then(Version::parse).map(minor);
        let all: Option<Vec<Version>> = others.map(|m| known(m.id)).collect();
        let all = all.map(|others| others.into_iter().chain([own_version()]).collect::<Vec<_>>());
        if self.leads.is_none() {
            return;
        }
        self.decide_cluster_version(all.iter().flatten().copied().min());
        if std::mem::take(&mut self.versions.downgrade_asked) {
            self.end_downgrade(&all.unwrap_or_default());
        }
    }

    /// A downgrade is over when every member runs the version it leads to (etcd `CancelDowngradeIfNeeded`).
    fn end_downgrade(&mut self, versions: &[Version]) {
        let Some(target) = self.lowered() else { return };
        if !versions.is_empty() && versions.iter().all(|version| *version == target) {
            self.out.push(Output::Note(format!("the cluster has been downgraded to {target}")));
            let request = membershippb::DowngradeInfoSetRequest { enabled: false, ver: String::new() };
            self.propose_internal(Internal::ClusterVersion, |q| q.downgrade_info_set = Some(request));
        }
    }

    /// Where a downgrade that is under way leads to.
    fn lowered(&self) -> Option<Version> {
        let downgrade = self.applied.downgrade();
        Version::parse(&downgrade.target_version).filter(|_| downgrade.enabled).map(minor)
    }

    /// `lowest`: of all members, if all are known (etcd `decideClusterVersion`). At first the cluster has the lowest there
    /// is, or the lowest there could be; then it is only raised, or lowered by a downgrade, when all are known.
    fn decide_cluster_version(&mut self, lowest: Option<Version>) {
        let current = self.applied.cluster_version().and_then(Version::parse);
        let target = match (current, lowest, self.lowered()) {
            (None, lowest, _) => lowest.or_else(|| Version::parse(version::MIN_CLUSTER)),
            (Some(current), Some(lowest), Some(lowered)) => {
                Some(lowered).filter(|lowered| follows(*lowered, current) && follows(*lowered, lowest))
            }
            (Some(current), Some(lowest), None) => Some(lowest).filter(|lowest| *lowest > current),
            (Some(_), None, _) => None,
        };
        if let Some(target) = target {
            let request = membershippb::ClusterVersionSetRequest { ver: target.to_string() };
            self.propose_internal(Internal::ClusterVersion, |q| q.cluster_version_set = Some(request));
        }
    }

    /// The schema follows the cluster version, but not down to one that can't read the log behind the last snapshot.
    fn follow_cluster_version(&mut self) {
        let lowest = Version::parse(version::MIN_CLUSTER);
        let cluster = self.applied.cluster_version().and_then(Version::parse);
        // At the lowest there is the cluster has not decided yet.
        let Some(cluster) = cluster.filter(|cluster| Some(*cluster) != lowest) else { return };
        if self.follow_schema(cluster) {
            self.publish();
        }
    }

    /// Whether the schema changed.
    fn follow_schema(&mut self, cluster: Version) -> bool {
        let target = storage_version(cluster);
        let current = self.store.storage_version().map(str::to_owned);
        if current == target {
            return false;
        }
        let lowers = current.and_then(|current| Version::parse(&current)).is_some_and(|current| cluster < current);
        let needed = if lowers { self.oldest_reader_of_log() } else { cluster };
        if needed > cluster {
            self.note_schema_held(cluster, needed);
            return false;
        }
        self.store.set_storage_version(target.as_deref());
        true
    }

    fn note_schema_held(&mut self, cluster: Version, needed: Version) {
        if self.now_ms >= self.versions.note_ms {
            self.versions.note_ms = self.now_ms + VERSION_INTERVAL_MS;
            let text = format!(
                "failed to update storage version to {cluster}: cannot downgrade storage, WAL contains newer entries \
                 (of {needed}); the next snapshot puts them behind"
            );
            self.out.push(Output::Note(text));
        }
    }

    /// The oldest version that can replay what is behind the newest snapshot. What is no longer in memory could be anything;
    /// the next snapshot puts it behind.
    fn oldest_reader_of_log(&self) -> Version {
        let (storage, from) = (self.raft.storage(), self.checkpointing.snapshot_index + 1);
        if storage.first_index() > from {
            return own_version();
        }
        let entries = storage.entries(from, storage.last_index() + 1, u64::MAX);
        let oldest = Version { major: 3, minor: 5, patch: 0 };
        entries.iter().map(store::oldest_reader).fold(oldest, Version::max)
    }

    pub(super) fn cluster_version_changed(&mut self, from: Option<&str>, to: &str) {
        if let Some(cluster) = Version::parse(to) {
            self.follow_schema(cluster);
        }
        let lowered = from.and_then(Version::parse).zip(Version::parse(to)).is_some_and(|(from, to)| to < from);
        if lowered {
            // An older binary starts from the newest `.snap`: it must hold the lowered version.
            self.checkpointing.force_snapshot = true;
            self.out.push(Output::Note(format!("cluster version lowered to {to}; forcing a snapshot")));
        }
    }

    pub(super) fn downgrade(
        &mut self,
        ticket: T,
        who: &Who,
        request: pb::DowngradeRequest,
    ) -> Result<(), (T, api::Error)> {
        match DowngradeAction::try_from(request.action) {
            Err(_) => Err((ticket, api::Error::Other("etcdserver: unknown method".into()))),
            Ok(_) if self.is_leaderless() => Err((ticket, api::Error::NoLeader)),
            Ok(DowngradeAction::Cancel) => self.set_downgrade(ticket, who, false, String::new()),
            Ok(_) if failpoint::mutant!("downgradeJudgedAtOnce") => {
                self.judge_downgrade(ticket, who, &request);
                Ok(())
            }
            // What was enabled before, wherever it was, must be known here (Go's `LinearizableReadNotify`).
            Ok(DowngradeAction::Validate | DowngradeAction::Enable) => {
                self.read(ticket, who, Request::Downgrade(request))
            }
        }
    }

    /// This member has applied what was committed when it was asked.
    pub(super) fn judge_downgrade(&mut self, ticket: T, who: &Who, request: &pb::DowngradeRequest) {
        let outcome = match self.check_downgrade(&request.version) {
            Err(e) => Err((ticket, e)),
            Ok(target) if request.action() == DowngradeAction::Enable => {
                self.set_downgrade(ticket, who, true, target.to_string())
            }
            Ok(_) => {
                let response = self.downgrade_response();
                self.reply(ticket, Ok(Response::Downgrade(response)));
                Ok(())
            }
        };
        if let Err((ticket, e)) = outcome {
            self.reply(ticket, Err(e));
        }
    }

    fn set_downgrade(&mut self, ticket: T, who: &Who, enabled: bool, ver: String) -> Result<(), (T, api::Error)> {
        let request = membershippb::DowngradeInfoSetRequest { enabled, ver };
        self.propose(ticket, who, |q| q.downgrade_info_set = Some(request))
    }

    pub(super) fn downgrade_response(&self) -> pb::DowngradeResponse {
        let current = self.applied.cluster_version().and_then(Version::parse);
        let version = current.map(|v| format!("{}.{}", v.major, v.minor)).unwrap_or_default();
        pb::DowngradeResponse { header: Some(self.applied.header()), version }
    }

    fn check_downgrade(&self, text: &str) -> Result<Version, api::Error> {
        let target = Version::parse(text).ok_or(api::Error::WrongDowngradeVersionFormat)?;
        let target = Version { patch: 0, ..target };
        let current = self.applied.cluster_version().and_then(Version::parse);
        let current = current.ok_or(api::Error::ClusterVersionUnavailable)?;
        let allowed = Version { minor: current.minor.saturating_sub(1), ..current };
        if current.minor == 0 || target != allowed {
            return Err(api::Error::InvalidDowngradeTargetVersion);
        }
        if self.applied.downgrade().enabled {
            return Err(api::Error::DowngradeInProcess);
        }
        Ok(target)
    }
}

fn own_version() -> Version {
    Version::parse(version::CLUSTER).expect("a constant")
}

/// Whether a downgrade leads from one version to the other: one minor version at a time.
fn follows(lowered: Version, from: Version) -> bool {
    lowered.major == from.major && lowered.minor + 1 == from.minor
}

/// Patches make no difference to a cluster.
fn minor(version: Version) -> Version {
    Version { patch: 0, ..version }
}

/// The schema of a cluster version; 3.5 and older have no field for it.
fn storage_version(cluster: Version) -> Option<String> {
    let own = Version::parse(version::STORAGE).expect("a constant");
    let minimum = Version { major: 3, minor: 6, patch: 0 };
    (cluster >= minimum).then(|| cluster.min(own).to_string())
}
