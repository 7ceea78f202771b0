//! The names that this build's code reaches, each with the Go package whose name it is.
//!
//! A test holds the table and the `point!`s in the sources to each other.

/// What a `return` at the name must carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: `return`.
    Unit,
    /// `return("text")`: an error's text.
    Text,
}

/// A failpoint's name.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Path of the Go package, which was part of the name before gofail 0.1.0.
    pub package: &'static str,
    /// As gofail lists it.
    pub name: &'static str,
    /// What its place can take.
    pub kind: Kind,
}

const BOLT: &str = "go.etcd.io/bbolt";
const LEASE: &str = "go.etcd.io/etcd/server/v3/lease";
const LEASEHTTP: &str = "go.etcd.io/etcd/server/v3/lease/leasehttp";
const MEMBERSHIP: &str = "go.etcd.io/etcd/server/v3/etcdserver/api/membership";
const RAFTHTTP: &str = "go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp";
const SERVER: &str = "go.etcd.io/etcd/server/v3/etcdserver";
const V3RPC: &str = "go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc";
const STORAGE: &str = "go.etcd.io/etcd/server/v3/storage";
const BACKEND: &str = "go.etcd.io/etcd/server/v3/storage/backend";
const MVCC: &str = "go.etcd.io/etcd/server/v3/storage/mvcc";
const WAL: &str = "go.etcd.io/etcd/server/v3/storage/wal";

const fn unit(package: &'static str, name: &'static str) -> Point {
    Point { package, name, kind: Kind::Unit }
}

const fn text(package: &'static str, name: &'static str) -> Point {
    Point { package, name, kind: Kind::Text }
}

/// All of them.
pub static POINTS: [Point; 51] = [
    unit(SERVER, "raftBeforeLeaderSend"),
    unit(SERVER, "raftBeforeFollowerSend"),
    unit(RAFTHTTP, "raftDropHeartbeat"),
    unit(SERVER, "raftBeforeSave"),
    unit(SERVER, "raftAfterSave"),
    unit(SERVER, "raftBeforeSaveSnap"),
    unit(SERVER, "raftAfterSaveSnap"),
    unit(SERVER, "raftAfterWALRelease"),
    unit(SERVER, "raftBeforeAdvance"),
    unit(SERVER, "beforePublishing"),
    unit(SERVER, "beforeApplyOneEntryNormal"),
    unit(SERVER, "applyBeforeOpenSnapshot"),
    unit(SERVER, "applyAfterOpenSnapshot"),
    unit(SERVER, "raftBeforeApplySnap"),
    unit(SERVER, "raftAfterApplySnap"),
    unit(MEMBERSHIP, "afterIsMemberExist"),
    unit(LEASEHTTP, "beforeServeHTTPLeaseRenew"),
    unit(LEASEHTTP, "beforeLookupWhenForwardLeaseTimeToLive"),
    unit(SERVER, "beforeApplyOneConfChange"),
    unit(SERVER, "beforeLookupWhenLeaseTimeToLive"),
    unit(SERVER, "beforeRangeStreamChunk"),
    unit(V3RPC, "beforeSendWatchResponse"),
    unit(LEASE, "beforeCheckpointInLeaseRenew"),
    unit(STORAGE, "raftBeforeWALSaveSnaphot"),
    unit(WAL, "walBeforeSync"),
    unit(WAL, "walAfterSync"),
    unit(MVCC, "compactBeforeCommitScheduledCompact"),
    unit(MVCC, "compactAfterCommitScheduledCompact"),
    unit(MVCC, "compactAfterAcquiredBatchTxLock"),
    unit(MVCC, "compactBeforeCommitBatch"),
    unit(MVCC, "compactAfterCommitBatch"),
    unit(MVCC, "compactBeforeSetFinishedCompact"),
    unit(MVCC, "compactAfterSetFinishedCompact"),
    unit(BACKEND, "beforeStartDBTxn"),
    unit(BACKEND, "afterStartDBTxn"),
    unit(BACKEND, "beforeCommit"),
    unit(BACKEND, "afterCommit"),
    unit(BACKEND, "commitBeforePreCommitHook"),
    unit(BACKEND, "commitAfterPreCommitHook"),
    unit(BACKEND, "beforeWritebackBuf"),
    unit(BACKEND, "afterWritebackBuf"),
    unit(BACKEND, "defragBeforeCopy"),
    unit(BACKEND, "defragBeforeRename"),
    text(BACKEND, "defragOpenFileError"),
    text(BACKEND, "defragdbFail"),
    unit(BOLT, "beforeBucketPut"),
    unit(BOLT, "beforeSyncDataPages"),
    unit(BOLT, "beforeSyncMetaPage"),
    text(BOLT, "beforeWriteMetaError"),
    text(BOLT, "lackOfDiskSpace"),
    text(BOLT, "resizeFileError"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    fn used_in(dir: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).expect("the sources can be listed") {
            let path = entry.expect("the sources can be listed").path();
            if path.is_dir() {
                used_in(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let source = std::fs::read_to_string(&path).expect("sources are text");
                let uses = source.split("failpoint::point!(\"").skip(1);
                found.extend(uses.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
            }
        }
    }

    #[test]
    fn the_table_holds_exactly_the_names_that_the_sources_use() {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut used = BTreeSet::new();
        for krate in ["wal", "bolt", "store", "server", "rpc", "etcd"] {
            used_in(&crates.join(krate).join("src"), &mut used);
        }
        let known: BTreeSet<String> = POINTS.iter().map(|p| p.name.to_owned()).collect();
        assert_eq!(known.len(), POINTS.len(), "a name stands twice");
        assert_eq!(used, known);
    }

    #[test]
    fn the_document_names_every_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/failpoints.md");
        let document = std::fs::read_to_string(path).expect("docs/failpoints.md is there");
        let missing: Vec<_> = POINTS.iter().filter(|p| !document.contains(&format!("`{}`", p.name))).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
