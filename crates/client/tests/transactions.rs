//! Programs that are done as one transaction, against a server, with somebody who interferes at the worst moment.

use bytes::Bytes;
use client::pb::etcdserverpb as pb;
use client::{Client, Config, Error, Isolation};
use oxetcd_tests::places::our_etcd;
use oxetcd_tests::process::{Launch, Server};
use oxetcd_tests::temp::TempDir;
use std::sync::atomic::{AtomicBool, Ordering};

async fn serve(label: &str) -> (TempDir, Server, Client) {
    let folder = TempDir::new(label);
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    let config = Config { endpoints: vec![server.client_address()], ..Config::default() };
    let client = Client::connect(config).await.expect("the server is there");
    (folder, server, client)
}

async fn put(client: &Client, key: &str, value: &str) -> i64 {
    let request = pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
    client.put(request).await.expect("a put").header.expect("a header").revision
}

async fn get(client: &Client, key: &str) -> Option<Bytes> {
    let request = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
    client.range(request).await.expect("a read").kvs.pop().map(|kv| kv.value)
}

/// Reads `a`, then `b`, and writes `c`; before its first read of `b` somebody writes `key`. Answers what it read of `b` at
/// last, and how often it ran.
async fn interrupted(client: &Client, isolation: Isolation, key: &str) -> (Option<Bytes>, usize) {
    for name in ["a", "b", "c"] {
        put(client, name, "old").await;
    }
    let interferes = &AtomicBool::new(true);
    let done = client
        .transact_with(isolation, |stm| async move {
            stm.get("a").await?;
            if interferes.swap(false, Ordering::Relaxed) {
                put(client, key, "new").await;
            }
            let b = stm.get("b").await?;
            stm.put("c", "done");
            Ok::<_, Error>(b)
        })
        .await
        .expect("it ends");
    assert_eq!(get(client, "c").await.unwrap(), "done");
    (done.value, done.runs)
}

#[tokio::test]
async fn isolations_differ_in_what_others_may_do() {
    let (_folder, _server, ref client) = serve("stm-isolation").await;
    let new = || Some(Bytes::from("new"));
    let old = || Some(Bytes::from("old"));
    use Isolation::{ReadCommitted, RepeatableReads, Serializable, SerializableSnapshot};
    for (isolation, key, value, runs) in [
        // What was read changed.
        (SerializableSnapshot, "a", old(), 2),
        (Serializable, "a", old(), 2),
        (RepeatableReads, "a", old(), 2),
        (ReadCommitted, "a", old(), 1),
        // What will be read changed: with one revision for all the first run sees the old value and is not done.
        (SerializableSnapshot, "b", new(), 2),
        (Serializable, "b", new(), 2),
        (RepeatableReads, "b", new(), 1),
        (ReadCommitted, "b", new(), 1),
        // What is written only changed.
        (SerializableSnapshot, "c", old(), 2),
        (Serializable, "c", old(), 1),
        (RepeatableReads, "c", old(), 1),
        (ReadCommitted, "c", old(), 1),
    ] {
        assert_eq!(interrupted(client, isolation, key).await, (value, runs), "{isolation:?}, {key}");
    }
}

#[tokio::test]
async fn a_program_sees_its_own_writes_and_one_revision() {
    let (_folder, _server, ref client) = serve("stm-own").await;
    let before = put(client, "here", "1").await;
    let interferes = &AtomicBool::new(true);
    let done = client
        .transact(|stm| async move {
            assert_eq!(stm.get("here").await?.unwrap(), "1");
            let is_first = interferes.swap(false, Ordering::Relaxed);
            if is_first {
                put(client, "other", "x").await;
            }
            // The first run's view does not have it; the second one's does.
            assert_eq!(stm.get("other").await?.is_none(), is_first);
            stm.put("here", "2");
            assert_eq!(stm.get("here").await?.unwrap(), "2");
            assert_eq!(stm.revision("here").await?, before);
            stm.delete("here");
            assert_eq!(stm.get("here").await?, None);
            stm.put("there", "3");
            stm.revision("there").await
        })
        .await
        .expect("it ends");
    assert_eq!((done.value, done.runs, done.revision), (0, 2, before + 2));
    assert_eq!(get(client, "here").await, None);
    assert_eq!(get(client, "there").await.unwrap(), "3");
}

#[tokio::test]
async fn a_program_that_fails_has_written_nothing() {
    let (_folder, _server, ref client) = serve("stm-fail").await;
    #[derive(Debug, PartialEq)]
    enum Failure {
        Own,
        Client(Error),
    }
    impl From<Error> for Failure {
        fn from(e: Error) -> Failure {
            Failure::Client(e)
        }
    }
    let outcome = client
        .transact(|stm| async move {
            stm.put("key", "value");
            Err::<(), _>(Failure::Own)
        })
        .await;
    assert_eq!(outcome.unwrap_err(), Failure::Own);
    assert_eq!(get(client, "key").await, None);
    // The server's refusal comes out, too.
    let empty = client
        .transact(|stm| async move {
            stm.put("", "value");
            Ok::<_, Failure>(())
        })
        .await;
    let Err(Failure::Client(e)) = empty else { panic!("{empty:?}") };
    assert!(e.is(&api::Error::EmptyKey), "{e}");
}

#[tokio::test]
async fn a_view_that_was_compacted_is_taken_anew() {
    let (_folder, _server, ref client) = serve("stm-compacted").await;
    put(client, "a", "1").await;
    let compacts = &AtomicBool::new(true);
    let done = client
        .transact(|stm| async move {
            stm.get("a").await?;
            if compacts.swap(false, Ordering::Relaxed) {
                let revision = put(client, "b", "2").await;
                client.compact(pb::CompactionRequest { revision, physical: true }).await?;
            }
            stm.get("b").await
        })
        .await
        .expect("it ends");
    assert_eq!((done.value.unwrap(), done.runs), ("2".into(), 2));
}

#[tokio::test]
async fn many_keys_are_read_at_once() {
    let (_folder, _server, ref client) = serve("stm-many").await;
    let names: &Vec<String> = &(0..300).map(|n| format!("key{n}")).collect();
    let last = put(client, "key299", "last").await;
    let done = client
        .transact_with(Isolation::ReadCommitted, |stm| async move {
            stm.fetch(names.iter().cloned()).await?;
            // Somebody's later write is not seen: all of it was read.
            put(client, "key1", "late").await;
            assert_eq!(stm.get("key1").await?, None);
            stm.revision("key299").await
        })
        .await
        .expect("it ends");
    assert_eq!(done.value, last);
}

/// What nobody may ever see changed: money goes from one account to another, and is neither made nor lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_is_neither_made_nor_lost() {
    const ACCOUNTS: u64 = 4;
    const EACH: i64 = 100;
    let (_folder, _server, ref client) = serve("stm-bank").await;
    let number = |value: Option<Bytes>| -> i64 { std::str::from_utf8(&value.unwrap()).unwrap().parse().unwrap() };
    for n in 0..ACCOUNTS {
        put(client, &n.to_string(), &EACH.to_string()).await;
    }
    let transfers = (0..4_u64).map(|task| {
        let client = client.clone();
        tokio::spawn(async move {
            for round in 0..40_u64 {
                let from = (task + round) % ACCOUNTS;
                let to = (from + 1 + round % (ACCOUNTS - 1)) % ACCOUNTS;
                let program = |stm: client::Stm| async move {
                    let have = number(stm.get(from.to_string()).await?);
                    let other = number(stm.get(to.to_string()).await?);
                    stm.put(from.to_string(), (have - 7).to_string());
                    stm.put(to.to_string(), (other + 7).to_string());
                    Ok::<_, Error>(())
                };
                client.transact(program).await.expect("a transfer");
            }
        })
    });
    let transfers: Vec<_> = transfers.collect();
    for _ in 0..60 {
        let sum = client
            .transact(|stm| async move {
                let mut sum = 0;
                for n in 0..ACCOUNTS {
                    sum += number(stm.get(n.to_string()).await?);
                }
                Ok::<_, Error>(sum)
            })
            .await
            .expect("a sum");
        assert_eq!(sum.value, EACH * ACCOUNTS as i64);
    }
    for transfer in transfers {
        transfer.await.expect("no panic");
    }
}
