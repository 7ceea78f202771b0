//! What is copied elsewhere: keys and their changes, and whole databases, from a server that goes on.

use client::pb::etcdserverpb as pb;
use client::pb::mvccpb::event::EventType;
use client::{Client, Config, Mirror, SaveError};
use oxetcd_tests::places::our_etcd;
use oxetcd_tests::process::{Launch, Server};
use oxetcd_tests::temp::TempDir;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

async fn serve(folder: &TempDir) -> (Server, Client) {
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    let config = Config { endpoints: vec![server.client_address()], ..Config::default() };
    let client = Client::connect(config).await.expect("the server is there");
    (server, client)
}

async fn put(client: &Client, key: String, value: String) -> i64 {
    let request = pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() };
    client.put(request).await.expect("a put").header.expect("a header").revision
}

type Copy = BTreeMap<Vec<u8>, Vec<u8>>;

/// Copies all pages; `between` happens behind the first one. Then follows up to a revision.
async fn copied(mut mirror: Mirror, between: impl AsyncFnOnce() -> i64) -> Copy {
    let mut copy = Copy::new();
    let mut between = Some(between);
    let mut last = 0;
    while let Some(page) = mirror.next_page().await.expect("a page") {
        copy.extend(page.kvs.into_iter().map(|kv| (kv.key.to_vec(), kv.value.to_vec())));
        if let Some(between) = between.take() {
            last = between().await;
        }
    }
    let mut changes = mirror.changes();
    let mut at = mirror.revision();
    while at < last {
        let response = changes.next().await.expect("a watch").expect("more to come");
        for event in response.events {
            let is_put = event.r#type() == EventType::Put;
            let kv = event.kv.expect("an event has a key");
            at = kv.mod_revision;
            match is_put {
                true => drop(copy.insert(kv.key.to_vec(), kv.value.to_vec())),
                false => drop(copy.remove(&kv.key[..])),
            }
        }
    }
    copy
}

async fn all(client: &Client, prefix: &'static str) -> Copy {
    let range_end = client::prefix_end(prefix.as_bytes());
    let request = pb::RangeRequest { key: prefix.into(), range_end, ..Default::default() };
    let kvs = client.range(request).await.expect("a read").kvs;
    kvs.into_iter().map(|kv| (kv.key.to_vec(), kv.value.to_vec())).collect()
}

#[tokio::test]
async fn a_mirror_misses_nothing_that_changes_while_it_is_copied() {
    let folder = TempDir::new("client-mirror");
    let (_server, client) = serve(&folder).await;
    for n in 0..350 {
        put(&client, format!("m/{n:03}"), "old".into()).await;
    }
    put(&client, "other".into(), "not copied".into()).await;
    let writer = client.clone();
    let copy = copied(client.mirror("m/"), async move || {
        // Behind and before where the copy is.
        for key in ["m/000", "m/200", "m/349", "m/zzz"] {
            put(&writer, key.into(), "new".into()).await;
        }
        let key = "m/100".into();
        let request = pb::DeleteRangeRequest { key, range_end: "m/110".into(), ..Default::default() };
        writer.delete_range(request).await.expect("a delete");
        put(&writer, "m/last".into(), "new".into()).await
    })
    .await;
    assert_eq!(copy.len(), 350 + 2 - 10);
    assert_eq!(copy, all(&client, "m/").await);

    let from = put(&client, "m/before".into(), "not copied".into()).await;
    let last = put(&client, "m/behind".into(), "copied".into()).await;
    let copy = copied(client.mirror_from("m/", from), async || unreachable!("there are no pages")).await;
    assert!(copy.is_empty(), "nothing was waited for");
    let mut changes = client.mirror_from("m/", from).changes();
    let events = loop {
        let response = changes.next().await.expect("a watch").expect("more to come");
        if !response.events.is_empty() {
            break response.events;
        }
    };
    assert_eq!(events[0].kv.as_ref().unwrap().mod_revision, last);
}

#[tokio::test]
async fn a_snapshot_is_saved_whole_or_not_at_all() {
    let folder = TempDir::new("client-snapshot");
    let (server, client) = serve(&folder).await;
    put(&client, "key".into(), "value".repeat(1000)).await;
    let file = folder.join("backup.db");
    let member = client.only(&server.client_address());
    let saved = member.save_snapshot(&file).await.expect("a snapshot");
    let meta = std::fs::metadata(&file).unwrap();
    assert_eq!((meta.len(), saved.size % 512, saved.version.as_str()), (saved.size, 32, "3.7.0"));
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);

    let missing = member.save_snapshot(&folder.join("missing/backup.db")).await;
    assert!(matches!(missing, Err(SaveError::Io(_))), "{missing:?}");
    let size = |name: &str| std::fs::metadata(folder.join(name)).map(|meta| meta.len()).ok();
    server.kill();
    let patient = member.with_timeout(std::time::Duration::from_millis(300));
    let gone = patient.save_snapshot(&folder.join("backup.db")).await;
    assert!(matches!(gone, Err(SaveError::Rpc(_))), "{gone:?}");
    assert_eq!(size("backup.db"), Some(saved.size), "the older one is still there");
    assert_eq!(size("backup.db.part"), None);
}
