//! What watchers are told a key held before (etcd v3rpc/watch.go `sendLoop`): its value one revision ago, nothing for
//! a key that was created. The same for those who are current and for those who read the past.

mod world;

use api::pb::etcdserverpb as pb;
use api::pb::mvccpb;
use pb::watch_request::RequestUnion;
use std::sync::Arc;
use store::watch::{Config, Effect, Hub, Input, StreamId};
use store::{Applied, Options};
use world::{World, delete, nested, put};

const STREAM: StreamId = StreamId(1);

fn hub(applied: &Applied, start_revision: i64, out: &mut Vec<Effect>) -> Hub {
    let mut hub = Hub::new(Config {
        member_id: 1,
        cluster_id: 1,
        revision: applied.revision(),
        term: 1,
        max_request_bytes: 1 << 20,
        progress_interval_ms: 1000,
    });
    hub.handle(Input::Open { stream: STREAM, now_ms: 0, jitter_ms: 0 }, out);
    let create = pb::WatchCreateRequest {
        key: "n".into(),
        range_end: "o".into(),
        prev_kv: true,
        start_revision,
        ..Default::default()
    };
    let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    hub.handle(Input::Request { stream: STREAM, request, permitted: Ok(()) }, out);
    hub
}

/// Events as `kind key revision (previous value)`, with the reads of the past that the hub asks for.
fn told(hub: &mut Hub, applied: &Arc<Applied>, mut out: Vec<Effect>) -> Vec<String> {
    let mut told = Vec::new();
    while !out.is_empty() {
        let mut next = Vec::new();
        for effect in out {
            match effect {
                Effect::Send { response, .. } => told.extend(response.events.iter().map(line)),
                Effect::SendBurst { burst, .. } => {
                    told.extend(burst.responses().flat_map(|response| response.events).map(|event| line(&event)));
                }
                Effect::ReadHistory { job } => {
                    hub.handle(Input::HistoryRead(job.run(&**applied).unwrap()), &mut next);
                }
                Effect::WantPrev(_) => {}
            }
        }
        out = next;
    }
    told
}

fn line(event: &mvccpb::Event) -> String {
    let kv = event.kv.as_ref().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let kind = ["put", "delete"][event.r#type as usize];
    let before = event.prev_kv.as_ref().map_or("-".into(), |p| format!("{}@{}", text(&p.value), p.mod_revision));
    format!("{kind} {} {} {before}", text(&kv.key), kv.mod_revision)
}

const EXPECTED: [&str; 12] = [
    "put n1 2 -",
    "delete n1 2 -",
    "put n2 3 -",
    "put n2 4 old@3",
    "delete n2 4 old@3",
    "put n3 5 -",
    "delete n3 6 old@5",
    "put n3 6 -",
    "put n3 6 -",
    "put n4 7 -",
    "put n4 8 a@7",
    "put n4 8 a@7",
];

fn change(world: &mut World) {
    world.txn(vec![nested(put("n1", "x")), nested(delete("n1", ""))]).unwrap();
    world.put("n2", "old").unwrap();
    world.txn(vec![nested(put("n2", "new")), nested(delete("n2", ""))]).unwrap();
    world.put("n3", "old").unwrap();
    world.txn(vec![delete("n", "\0"), put("n3", "fresh"), nested(put("n3", "fresher"))]).unwrap();
    world.put("n4", "a").unwrap();
    world.txn(vec![nested(put("n4", "b")), nested(put("n4", "c"))]).unwrap();
}

#[test]
fn a_watcher_that_is_current_is_told_the_value_one_revision_ago() {
    let mut world = World::new(Options::default());
    world.store.set_capture_prev(true);
    let (applied, _) = world.publish();
    let mut hub = hub(&applied, 0, &mut Vec::new());
    change(&mut world);
    let (applied, changes) = world.publish();
    let mut out = Vec::new();
    hub.handle(Input::Published { revision: applied.revision(), term: 1, changes }, &mut out);
    assert!(out.iter().all(|e| matches!(e, Effect::SendBurst { .. })), "told at once");
    assert_eq!(told(&mut hub, &applied, out), EXPECTED);
}

#[test]
fn a_watcher_of_the_past_is_told_the_same() {
    let mut world = World::new(Options::default());
    change(&mut world);
    let (applied, _) = world.publish();
    let mut out = Vec::new();
    let mut hub = hub(&applied, 1, &mut out);
    assert_eq!(told(&mut hub, &applied, out), EXPECTED);
}
