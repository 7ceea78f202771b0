//! What clients ask besides the log's operations, and what they may be told: reads, leases' clocks, maintenance.

use super::{MEMBER_ID, TIMEOUT_MS, World};
use crate::model::plain;
use crate::ops::Op;
use crate::verdict::{Asked, Outcome};
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use server::{Request, Response, read};

/// A call that waits for its answer, and what was known when it was made.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Read {
        asked_ms: u64,
    },
    KeepAlive {
        id: i64,
        grant: Option<(i64, u64)>,
        asked_ms: u64,
    },
    /// `before`: the lease and its keys when it was asked; `left`: the bounds of what was left then, seconds.
    TimeToLive {
        id: i64,
        keys: bool,
        before: (Option<i64>, Vec<Bytes>),
        left: Option<(i64, i64)>,
        asked_ms: u64,
    },
    Leases {
        ids: Vec<i64>,
    },
    Status {
        errors: usize,
    },
    Defragment,
    Snapshot {
        revision: i64,
    },
    /// Deletions go on.
    Physical {
        revision: i64,
    },
}

impl World {
    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket - 1
    }

    fn call(&mut self, ticket: u64, request: Request) -> Result<(), String> {
        let now = self.now_ms;
        self.member.as_mut().ok_or("no member")?.call(now, ticket, request);
        Ok(())
    }

    /// An operation for the log.
    pub(super) fn ask(&mut self) -> Result<(), String> {
        let op = self.draw().op();
        let ticket = self.ticket();
        self.say(|| format!("ask {ticket}: {op:?}"));
        self.call(ticket, op.request())?;
        let asked_ms = self.now_ms;
        match op.is_read() {
            true => drop(self.calls.insert(ticket, Call::Read { asked_ms })),
            false => self.asked.push_back(Asked { ticket, op, asked_ms, reply: None }),
        }
        if self.rng.one_in(3) { self.work() } else { Ok(()) }
    }

    pub(super) fn ask_read(&mut self) -> Result<(), String> {
        let mut range = self.draw().range_request();
        range.serializable = self.rng.one_in(4);
        let ticket = self.ticket();
        self.say(|| format!("ask {ticket}: {range:?}"));
        let request = Request::Range(range);
        self.calls.insert(ticket, Call::Read { asked_ms: self.now_ms });
        self.call(ticket, request)?;
        self.work()
    }

    pub(super) fn ask_lease(&mut self) -> Result<(), String> {
        let id = self.draw().lease_or_unknown();
        let (ticket, asked_ms) = (self.ticket(), self.now_ms);
        let (request, call) = match self.rng.below(8) {
            0..=4 => {
                // Only what this call renews may count from now on, not what a later one of the same id does.
                let grant = self.model.lease(id);
                self.clocks.asked(id, asked_ms);
                let request = Request::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id });
                (request, Call::KeepAlive { id, grant, asked_ms })
            }
            5..=6 => {
                let keys = self.rng.one_in(2);
                let request = Request::LeaseTimeToLive(pb::LeaseTimeToLiveRequest { id, keys });
                let (before, left) = (self.lease_and_keys(id, keys), self.clocks.left(id, asked_ms));
                (request, Call::TimeToLive { id, keys, before, left, asked_ms })
            }
            _ => {
                let ids = self.model.lease_ids();
                (Request::LeaseLeases(pb::LeaseLeasesRequest {}), Call::Leases { ids })
            }
        };
        self.say(|| format!("ask {ticket}: {call:?}"));
        self.calls.insert(ticket, call);
        self.call(ticket, request)?;
        if self.rng.one_in(2) { self.work() } else { Ok(()) }
    }

    /// What a client may be told of a lease: the TTL that was granted, and its keys if they are asked for.
    fn lease_and_keys(&self, id: i64, keys: bool) -> (Option<i64>, Vec<Bytes>) {
        (self.model.lease(id).map(|(ttl, _)| ttl), if keys { self.model.attached(id) } else { Vec::new() })
    }

    pub(super) fn ask_maintenance(&mut self) -> Result<(), String> {
        let ticket = self.ticket();
        match self.rng.below(8) {
            0..=1 => {
                self.calls.insert(ticket, Call::Defragment);
                self.say(|| format!("ask {ticket}: defragment"));
                self.call(ticket, Request::Defragment(pb::DefragmentRequest {}))?;
            }
            2..=4 => {
                self.calls.insert(ticket, Call::Snapshot { revision: self.model.revision });
                self.say(|| format!("ask {ticket}: snapshot"));
                self.call(ticket, Request::Snapshot(pb::SnapshotRequest {}))?;
            }
            5 => {
                let errors = self.model.alarms.len();
                self.calls.insert(ticket, Call::Status { errors });
                self.say(|| format!("ask {ticket}: status"));
                self.call(ticket, Request::Status(pb::StatusRequest {}))?;
            }
            6 => self.check_hash(false)?,
            _ => self.pin()?,
        }
        self.work()
    }

    /// The answer of a read is that of the newest state: nothing newer is published, nothing older is fresh.
    pub(super) fn check_read(&mut self, ticket: u64, request: Request) -> Result<(), String> {
        let Some(Call::Read { .. }) = self.calls.remove(&ticket) else {
            return Err(format!("a read that nobody asked: {ticket}"));
        };
        let Some(member) = &self.member else { return Err("no member".into()) };
        let expected = match &request {
            Request::Range(r) => self.model.range(r).map(Response::Range),
            Request::Txn(r) => self.model.clone().apply(&Op::Txn(r.clone())),
            other => return Err(format!("{other:?} is no read")),
        };
        let seen = match read::run(member.applied(), request.clone(), &|_| ()) {
            Ok(mut response) => {
                plain(&mut response);
                Ok(response)
            }
            Err(store::Error::Refused(e)) => Err(e),
            Err(store::Error::Fatal(e)) => return self.died(&server::Fatal::new(e)),
        };
        self.report.reads += 1;
        self.say(|| format!("read {ticket}: {seen:?}"));
        match seen == expected {
            true => Ok(()),
            false => Err(format!("read {ticket} {request:?} saw {seen:?}, the model says {expected:?}")),
        }
    }

    pub(super) fn check_call(&mut self, call: &Call, result: &Outcome) -> Result<(), String> {
        match (call, result) {
            (Call::Read { asked_ms }, Err(api::Error::Timeout)) if self.now_ms >= asked_ms + TIMEOUT_MS => Ok(()),
            (Call::KeepAlive { id, grant, asked_ms }, Ok(Response::LeaseKeepAlive(r))) => {
                self.check_keep_alive(*id, *grant, *asked_ms, r)
            }
            (Call::KeepAlive { asked_ms, .. }, Err(api::Error::Timeout)) if self.now_ms >= asked_ms + TIMEOUT_MS => {
                Ok(())
            }
            // As a linearizable read: of the state when it was asked, or of a newer one.
            (Call::TimeToLive { id, keys, before, left, asked_ms }, Ok(Response::LeaseTimeToLive(r))) => {
                let seen = ((r.ttl >= 0 || r.granted_ttl > 0).then_some(r.granted_ttl), r.keys.clone());
                let known = seen == *before || seen == self.lease_and_keys(*id, *keys);
                let passed = (self.now_ms - asked_ms).div_ceil(1000) as i64;
                let then = left.map(|(low, high)| low - passed..=high);
                let now = self.clocks.left(*id, self.now_ms).map(|(low, high)| low..=high);
                let bounds: Vec<_> = then.into_iter().chain(now).collect();
                let fits = known && (seen.0.is_none() || bounds.iter().any(|bounds| bounds.contains(&r.ttl)));
                expect(fits, "not what is left of the lease")
            }
            (Call::TimeToLive { asked_ms, .. }, Err(api::Error::Timeout)) if self.now_ms >= asked_ms + TIMEOUT_MS => {
                Ok(())
            }
            (Call::Leases { ids }, Ok(Response::LeaseLeases(r))) => {
                let mut seen: Vec<i64> = r.leases.iter().map(|l| l.id).collect();
                seen.sort_unstable();
                expect(seen == *ids, "not the leases there are")
            }
            (Call::Status { errors }, Ok(Response::Status(r))) => {
                let fits = r.errors.len() == *errors && r.leader == MEMBER_ID && r.raft_applied_index <= r.raft_index;
                expect(fits && r.db_size_in_use <= r.db_size, "not the member's status")
            }
            (Call::Defragment, Ok(Response::Defragment(_))) => {
                self.report.defragmented += 1;
                Ok(())
            }
            (Call::Defragment, Err(_)) => expect(self.harmed, "refused without a fault"),
            (Call::Physical { revision }, Ok(Response::Compact(_)) | Err(api::Error::Compacted)) => {
                expect(*revision <= self.model.compacted, "nothing was compacted")
            }
            _ => Err("not an answer to that".into()),
        }
    }

    fn check_keep_alive(
        &mut self,
        id: i64,
        grant: Option<(i64, u64)>,
        asked_ms: u64,
        r: &pb::LeaseKeepAliveResponse,
    ) -> Result<(), String> {
        let now = self.model.lease(id);
        if r.ttl <= 0 {
            // Told so only when there is none, or when it ran out and its revocation is on its way.
            let gone = grant.is_none() || now != grant || self.clocks.may_expire(id, self.now_ms);
            return expect(gone && r.id == id, "but the lease lives");
        }
        if now == grant {
            self.clocks.renewed(id, asked_ms, self.now_ms);
        }
        expect(grant.is_some_and(|(ttl, _)| ttl == r.ttl), "but there is no such lease")
    }
}

fn expect(fits: bool, otherwise: &str) -> Result<(), String> {
    if fits { Ok(()) } else { Err(otherwise.into()) }
}
