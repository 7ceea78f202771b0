//! The Lock and Election services.

use super::{put, range};
use crate::ask;
use crate::record::{Side, brief};
use crate::wire::Stream;
use api::pb::etcdserverpb as pb;
use api::pb::v3electionpb as election;
use api::pb::v3lockpb as lock;
use bytes::Bytes;
use std::time::Duration;
use tonic::Status;

const LOCK: &str = "/v3lockpb.Lock/Lock";
const UNLOCK: &str = "/v3lockpb.Lock/Unlock";
const CAMPAIGN: &str = "/v3electionpb.Election/Campaign";
const PROCLAIM: &str = "/v3electionpb.Election/Proclaim";
const LEADER: &str = "/v3electionpb.Election/Leader";
const OBSERVE: &str = "/v3electionpb.Election/Observe";
const RESIGN: &str = "/v3electionpb.Election/Resign";
const SILENCE: Duration = Duration::from_millis(300);

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// All of it.
pub async fn talk(side: &mut Side) {
    for id in [1, 2, 3] {
        let _: Result<pb::LeaseGrantResponse, Status> = side.ask(ask::GRANT, ask::grant(id, 1000)).await;
    }
    locks(side).await;
    elections(side).await;
    observers(side).await;
}

async fn take(side: &mut Side, name: &'static str, lease: i64) {
    let request = lock::LockRequest { name: bytes(name), lease };
    let _: Result<lock::LockResponse, Status> = side.ask(LOCK, request).await;
}

async fn release(side: &mut Side, key: &'static str) {
    let _: Result<lock::UnlockResponse, Status> = side.ask(UNLOCK, lock::UnlockRequest { key: bytes(key) }).await;
}

/// A call whose answer comes later: the unary call as a stream of one.
async fn later<A: prost::Message + Default + std::fmt::Debug>(side: &mut Side, mut call: Stream, what: &str) {
    let answer: Result<Option<A>, Status> = call.next().await;
    side.note(what, &answer, &[]);
}

async fn locks(side: &mut Side) {
    take(side, "m", 1).await;
    take(side, "m", 1).await;
    take(side, "m", 99).await;
    take(side, "", 1).await;
    let mut waiting = side.open_stream(LOCK, &lock::LockRequest { name: bytes("m"), lease: 2 });
    waiting.half_close();
    let none: Result<Option<lock::LockResponse>, Status> = waiting.next_within(SILENCE).await;
    side.note("a second owner waits", &none, &[]);
    range(side, ask::range("m/", "m0")).await;
    release(side, "m/1").await;
    later::<lock::LockResponse>(side, waiting, "the second owner has it").await;
    release(side, "m/1").await;
    release(side, "nothing").await;
    release(side, "").await;
    let mut waiting = side.open_stream(LOCK, &lock::LockRequest { name: bytes("m"), lease: 3 });
    waiting.half_close();
    let poll: Duration = Duration::from_millis(20);
    until_keys(side, "m/", "m0", 2, poll).await;
    let _: Result<pb::LeaseRevokeResponse, Status> = side.ask(ask::REVOKE, pb::LeaseRevokeRequest { id: 3 }).await;
    let _: Result<pb::LeaseRevokeResponse, Status> = side.ask(ask::REVOKE, pb::LeaseRevokeRequest { id: 2 }).await;
    later::<lock::LockResponse>(side, waiting, "a waiter whose lease went").await;
    range(side, ask::range("m/", "m0")).await;
}

/// Waits until the range holds `count` keys: the moment at which a waiter stands in the queue.
async fn until_keys(side: &mut Side, key: &str, end: &str, count: i64, poll: Duration) {
    for _ in 0..500 {
        let held: Result<pb::RangeResponse, Status> = side.wire.unary(ask::RANGE, &ask::range(key, end)).await;
        if held.is_ok_and(|r| r.count == count) {
            return;
        }
        tokio::time::sleep(poll).await;
    }
    panic!("{key} never held {count} keys");
}

async fn elections(side: &mut Side) {
    let name = bytes("e");
    let leader = |side_name: &'static str| election::LeaderRequest { name: bytes(side_name) };
    let _: Result<election::LeaderResponse, Status> = side.ask(LEADER, leader("e")).await;
    let campaign = |value, lease| election::CampaignRequest { name: name.clone(), lease, value: bytes(value) };
    let won: Result<election::CampaignResponse, Status> = side.ask(CAMPAIGN, campaign("v1", 1)).await;
    let key = won.ok().and_then(|w| w.leader);
    let _: Result<election::CampaignResponse, Status> = side.ask(CAMPAIGN, campaign("v1", 1)).await;
    let _: Result<election::CampaignResponse, Status> = side.ask(CAMPAIGN, campaign("v2", 1)).await;
    let _: Result<election::LeaderResponse, Status> = side.ask(LEADER, leader("e")).await;
    let _: Result<election::CampaignResponse, Status> = side.ask(CAMPAIGN, campaign("x", 99)).await;
    for leader in [key.clone(), None, key.clone().map(|k| election::LeaderKey { rev: k.rev + 1, ..k })] {
        let request = election::ProclaimRequest { leader, value: bytes("v3") };
        let _: Result<election::ProclaimResponse, Status> = side.ask(PROCLAIM, request).await;
    }
    range(side, ask::range("e/", "e0")).await;
    for leader in [None, key.clone().map(|k| election::LeaderKey { rev: 1, ..k }), key.clone(), key] {
        let request = election::ResignRequest { leader };
        let _: Result<election::ResignResponse, Status> = side.ask(RESIGN, request).await;
    }
    let _: Result<election::LeaderResponse, Status> = side.ask(LEADER, leader("e")).await;
}

async fn observers(side: &mut Side) {
    let request = election::LeaderRequest { name: bytes("o") };
    let mut observer = side.open_stream(OBSERVE, &request);
    observer.half_close();
    let none: Result<Option<election::LeaderResponse>, Status> = observer.next_within(SILENCE).await;
    side.note("nobody leads", &none, &[]);
    let campaign = |value, lease| election::CampaignRequest { name: bytes("o"), lease, value: bytes(value) };
    let won: Result<election::CampaignResponse, Status> = side.ask(CAMPAIGN, campaign("first", 1)).await;
    let key = won.ok().and_then(|w| w.leader);
    seen(side, &mut observer, "the first leader").await;
    let request = election::ProclaimRequest { leader: key.clone(), value: bytes("second value") };
    let _: Result<election::ProclaimResponse, Status> = side.ask(PROCLAIM, request).await;
    seen(side, &mut observer, "its new value").await;
    put(side, ask::put("o/other", "not the leader")).await;
    let _: Result<election::ResignResponse, Status> = side.ask(RESIGN, election::ResignRequest { leader: key }).await;
    seen(side, &mut observer, "the next one").await;
}

async fn seen(side: &mut Side, observer: &mut Stream, what: &str) {
    let answer: Result<Option<election::LeaderResponse>, Status> = observer.next().await;
    let text = answer.map_or_else(|e| brief(&e), |a| format!("{a:#?}"));
    side.write(what.into(), text, &[]);
}
