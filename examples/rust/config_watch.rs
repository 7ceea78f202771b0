//! Configuration that is followed while it changes: `config_watch ENDPOINTS PREFIX`.
//!
//! Prints `set KEY VALUE` and `deleted KEY`, first for what is there, then for every change, and `read at revision N` when all
//! was read. Runs until it is ended.

use api::pb::etcdserverpb::{RangeRequest, WatchCreateRequest};
use api::pb::mvccpb::event::EventType;
use bytes::Bytes;
use client::{Client, Config, Error, prefix_end};
use std::collections::BTreeMap;
use std::time::Duration;

/// The configuration under a prefix, as far as it is known here.
struct Follower {
    client: Client,
    prefix: Bytes,
    /// What was printed last.
    known: BTreeMap<Bytes, Bytes>,
    /// The first revision that is not seen yet; `None`: all has to be read.
    next: Option<i64>,
}

impl Follower {
    /// Reads all, and prints what differs from what is known. This is right the first time as well as later: what happened in
    /// between shows in the difference.
    async fn read(&mut self) -> Result<i64, Error> {
        let range_end = prefix_end(&self.prefix);
        let request = RangeRequest { key: self.prefix.clone(), range_end, ..Default::default() };
        let response = self.client.range(request).await?;
        let found: BTreeMap<_, _> = response.kvs.into_iter().map(|kv| (kv.key, kv.value)).collect();
        for key in self.known.keys().filter(|key| !found.contains_key(*key)) {
            println!("deleted {}", text(key));
        }
        for (key, value) in found.iter().filter(|(key, value)| self.known.get(*key) != Some(value)) {
            println!("set {} {}", text(key), text(value));
        }
        self.known = found;
        // Of the whole store, not of these keys: the watch has to begin right behind what was read.
        let revision = response.header.map_or(0, |header| header.revision);
        println!("read at revision {revision}");
        Ok(revision + 1)
    }

    /// Follows from `self.next`, until history from there on is compacted or the server gives up.
    async fn follow(&mut self) -> Result<(), Error> {
        let next = match self.next {
            Some(next) => next,
            None => self.read().await?,
        };
        self.next = Some(next);
        let mut watch = self.client.watch(WatchCreateRequest {
            key: self.prefix.clone(),
            range_end: prefix_end(&self.prefix),
            start_revision: next,
            // Says now and then how far the store is, so that we never fall behind a compaction while nothing changes here.
            progress_notify: true,
            ..Default::default()
        });
        // A broken connection is not seen here: `Watch` opens another one behind the last revision that it handed over.
        while let Some(response) = watch.next().await? {
            if response.compact_revision > 0 {
                // What happened since is forgotten: only what is there now can be read.
                self.next = None;
                return Ok(());
            }
            if response.canceled {
                return Err(Error::WatchCanceled(response.cancel_reason));
            }
            for event in &response.events {
                let Some(kv) = &event.kv else { continue };
                if event.r#type() == EventType::Delete {
                    self.known.remove(&kv.key);
                    println!("deleted {}", text(&kv.key));
                } else {
                    self.known.insert(kv.key.clone(), kv.value.clone());
                    println!("set {} {}", text(&kv.key), text(&kv.value));
                }
                self.next = Some(kv.mod_revision + 1);
            }
        }
        Ok(())
    }
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoints, prefix] = &arguments[..] else { return Err("usage: config_watch ENDPOINTS PREFIX".into()) };
    let endpoints = endpoints.split(',').map(str::to_owned).collect();
    let client = Client::connect(Config { endpoints, ..Config::default() }).await?;
    // A member that lost its cluster shall say so, rather than stay silent while the others go on.
    let client = client.with_leader_required();
    let mut follower = Follower { client, prefix: prefix.clone().into(), known: BTreeMap::new(), next: None };
    loop {
        // Reading and watching change nothing: both may be repeated whatever the error was.
        if let Err(e) = follower.follow().await {
            eprintln!("{e}; going on from revision {:?}", follower.next);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
