//! Attributes, cluster version, storage version and downgrade (reference/semantics.md 10.12, 11.7, 11.10).

use super::{Internal, Member, Output, request_timeout_ms};
use crate::{Fatal, Response};
use api::pb::etcdserverpb::downgrade_request::DowngradeAction;
use api::pb::{etcdserverpb as pb, membershippb};
use api::version::{self, Version};

/// The leader looks at the cluster version this often (etcd `monitorVersionInterval`).
const VERSION_INTERVAL_MS: u64 = 4000;

/// What was published and when the next look is due.
#[derive(Debug, Default)]
pub struct Versions {
    published: bool,
    publish_ms: u64,
    version_ms: u64,
}

impl<T> Member<T> {
    pub(super) fn tick_versions(&mut self) -> Result<(), Fatal> {
        if self.raft.leader() == 0 {
            return Ok(());
        }
        if !self.versions.published && self.now_ms >= self.versions.publish_ms {
            self.versions.publish_ms = self.now_ms + request_timeout_ms(&self.config);
            self.publish_attributes();
        }
        if self.leading && self.now_ms >= self.versions.version_ms {
            self.versions.version_ms = self.now_ms + VERSION_INTERVAL_MS;
            self.decide_cluster_version();
        }
        self.follow_cluster_version()
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

    /// A cluster of one decides by its own version; a downgrade lowers it by one minor.
    fn decide_cluster_version(&mut self) {
        let own = Version::parse(version::CLUSTER).expect("a constant");
        let current = self.applied.cluster_version().and_then(Version::parse);
        let downgrade = self.applied.downgrade();
        let target = match Version::parse(&downgrade.target_version) {
            Some(target) if downgrade.enabled => Version { patch: 0, ..target },
            _ => own,
        };
        let lowering = downgrade.enabled;
        if current.is_none_or(|v| if lowering { v != target } else { v < target }) {
            let request = membershippb::ClusterVersionSetRequest { ver: target.to_string() };
            self.propose_internal(Internal::ClusterVersion, |q| q.cluster_version_set = Some(request));
        }
    }

    /// The schema follows the cluster version; no entry that this build proposes is unknown to 3.6.
    fn follow_cluster_version(&mut self) -> Result<(), Fatal> {
        let cluster = self.applied.cluster_version().and_then(Version::parse);
        let target = cluster.and_then(storage_version);
        if let Some(target) = target.filter(|t| self.applied.storage_version() != Some(t.as_str())) {
            self.store.set_storage_version(&target)?;
            self.publish();
        }
        Ok(())
    }

    pub(super) fn cluster_version_changed(&mut self, from: Option<&str>, to: &str) -> Result<(), Fatal> {
        if let Some(target) = Version::parse(to).and_then(storage_version) {
            self.store.set_storage_version(&target)?;
        }
        let lowered = from.and_then(Version::parse).zip(Version::parse(to)).is_some_and(|(from, to)| to < from);
        if lowered {
            // An older binary starts from the newest `.snap`: it must hold the lowered version.
            self.checkpointing.force_snapshot = true;
            self.out.push(Output::Note(format!("cluster version lowered to {to}; forcing a snapshot")));
        }
        Ok(())
    }

    pub(super) fn downgrade(&mut self, ticket: T, request: pb::DowngradeRequest) -> Result<(), (T, api::Error)> {
        match DowngradeAction::try_from(request.action) {
            Err(_) => Err((ticket, api::Error::Other("etcdserver: unknown method".into()))),
            Ok(DowngradeAction::Validate) => match self.check_downgrade(&request.version) {
                Err(e) => Err((ticket, e)),
                Ok(_) => {
                    let response = self.downgrade_response();
                    self.reply(ticket, Ok(Response::Downgrade(response)));
                    Ok(())
                }
            },
            Ok(DowngradeAction::Enable) => match self.check_downgrade(&request.version) {
                Err(e) => Err((ticket, e)),
                Ok(target) => self.set_downgrade(ticket, true, target.to_string()),
            },
            Ok(DowngradeAction::Cancel) => self.set_downgrade(ticket, false, String::new()),
        }
    }

    fn set_downgrade(&mut self, ticket: T, enabled: bool, ver: String) -> Result<(), (T, api::Error)> {
        let request = membershippb::DowngradeInfoSetRequest { enabled, ver };
        self.propose(ticket, |q| q.downgrade_info_set = Some(request))
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

/// The schema of a cluster version; 3.5 and older have no field for it.
fn storage_version(cluster: Version) -> Option<String> {
    let own = Version::parse(version::STORAGE).expect("a constant");
    let minimum = Version { major: 3, minor: 6, patch: 0 };
    (cluster >= minimum).then(|| cluster.min(own).to_string())
}
