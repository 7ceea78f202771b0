//! What a member asks outside of raft, answered by another transport.

use crate::node::{CLUSTER, Node, config};
use crate::raw::ask;
use api::Error as E;
use rpc::peer::{Asker, Unanswered, Url};
use std::time::Duration;

fn asker() -> Asker {
    let config = config();
    Asker { connector: config.connector, dial_timeout: config.dial_timeout, timeout: Duration::from_secs(10) }
}

fn url(node: &Node) -> Url {
    Url::parse(&node.urls()[0]).unwrap()
}

fn refused<T>(why: E) -> Result<T, Unanswered> {
    Err(Unanswered::Refused(why))
}

#[tokio::test]
async fn members_versions_and_downgrade() {
    let node = Node::start(1);
    let (cluster, members) = rpc::peer::members(&asker(), &url(&node)).await.unwrap();
    assert_eq!(cluster, CLUSTER);
    assert_eq!(members.iter().map(|m| m.id).collect::<Vec<_>>(), [1, u64::MAX]);
    assert!(members[1].is_learner && members[0].name == "m1");
    let versions = rpc::peer::versions(&asker(), &url(&node)).await.unwrap();
    assert_eq!((versions.server.as_str(), versions.cluster.as_str()), ("3.7.1", "3.7.0"));
    assert_eq!(rpc::peer::downgrade_enabled(&asker(), &url(&node)).await, Ok(true));
    let text = ask(&node, "GET /version", "Host: x\r\n", b"");
    assert_eq!(text.text(), r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#);
    let text = ask(&node, "GET /raft/probing", "Host: x\r\n", b"");
    assert!(text.text().starts_with(r#"{"OK":true,"Now":"2"#) && text.text().ends_with("Z\"}\n"), "{text:?}");
}

#[tokio::test]
async fn promotion_is_answered_by_etcd_s_table() {
    let node = Node::start(1);
    let promote = async |id, token| rpc::peer::promote(&asker(), &url(&node), id, token).await;
    assert_eq!(promote(1, None).await, refused(E::MemberNotFound));
    assert_eq!(promote(2, None).await, refused(E::MemberNotLearner));
    assert_eq!(promote(3, None).await, refused(E::LearnerNotReady));
    assert_eq!(promote(4, Some("token")).await.unwrap().len(), 2);
    let text = r#"member promote: unknown error({"message":"Internal Server Error"})"#;
    assert_eq!(promote(4, None).await, Err(Unanswered::Failed(text.to_owned())));
}

#[tokio::test]
async fn hashes_are_answered_by_etcd_s_table() {
    let node = Node::start(1);
    let hash = async |cluster, revision| rpc::peer::hash_kv(&asker(), &url(&node), cluster, revision).await;
    assert_eq!(hash(CLUSTER, 7).await.map(|h| (h.hash, h.hash_revision)), Ok((3_868_138_104, 7)));
    assert_eq!(hash(CLUSTER, 0).await.map(|h| h.hash_revision), Ok(0));
    assert_eq!(hash(CLUSTER, 1).await, refused(E::Compacted));
    assert_eq!(hash(CLUSTER, 2).await, refused(E::FutureRev));
    assert_eq!(hash(7, 9).await, refused(E::ClusterIDMismatch));
    let answer = ask(&node, "GET /members/hashkv", "Host: x\r\n", b"{\"revision\":1}");
    assert_eq!((answer.status, answer.text()), (400, "mvcc: required revision has been compacted\n"));
}

#[tokio::test]
async fn leases_are_answered_by_etcd_s_table() {
    let node = Node::start(1);
    let (asker, url) = (asker(), url(&node));
    assert_eq!(rpc::peer::renew_lease(&asker, &url, 5).await, Ok(50));
    assert_eq!(rpc::peer::renew_lease(&asker, &url, 1).await, refused(E::LeaseNotFound));
    let text = "lease: unknown error(not a primary lessor\n)".to_owned();
    assert_eq!(rpc::peer::renew_lease(&asker, &url, 2).await, Err(Unanswered::Failed(text.clone())));
    assert_eq!(rpc::peer::renew_lease(&asker, &url, 3).await, refused(E::TimeoutWaitAppliedIndex));
    let info = rpc::peer::lease_time_to_live(&asker, &url, 7, true).await.unwrap();
    assert_eq!((info.ttl, info.granted_ttl, info.keys.len()), (7, 14, 2));
    assert_eq!(rpc::peer::lease_time_to_live(&asker, &url, 2, false).await, Err(Unanswered::Failed(text)));
    let answer = ask(&node, "POST /leases", "Host: x\r\n", &[0xff]);
    assert_eq!((answer.status, answer.text()), (400, "error unmarshalling request\n"));
    let answer = ask(&node, "POST /leases", "Host: x\r\n", &[0; 70_000]);
    assert_eq!((answer.status, answer.text()), (413, "request body too large\n"));
}

#[tokio::test]
async fn nobody_there_is_a_failure() {
    let node = Node::start(1);
    let url = url(&node);
    drop(node);
    assert!(matches!(rpc::peer::members(&asker(), &url).await, Err(Unanswered::Failed(_))));
}
