//! Leases' clocks: keepalives, expiry, checkpoints (reference/semantics.md section 8). What leases *are* belongs to
//! the store; who is alive is decided here, by the leader, on the member's own clock.

use super::{Internal, Member, Output, Waiter};
use crate::{Request, Response, Who, access};
use api::pb::etcdserverpb as pb;
use std::collections::{BTreeMap, VecDeque};
use store::lessor::Renewal;

/// Expired leases are looked for this often (etcd: 500 ms) …
const EXPIRY_INTERVAL_MS: u64 = 500;
/// … at most this many a round …
const EXPIRY_BATCH: usize = 500;
/// … with this many revocations under way.
const REVOKES_IN_FLIGHT: usize = 16;
/// At most this many leases in one checkpoint entry.
const CHECKPOINT_BATCH: usize = 1000;

/// Revocations under way and keepalives that wait for one.
#[derive(Debug)]
pub struct Keeper<T> {
    next_ms: u64,
    /// To be revoked, those that expired first in front.
    expired: VecDeque<i64>,
    revoking: usize,
    waiting: BTreeMap<i64, Vec<(T, Who)>>,
}

impl<T> Default for Keeper<T> {
    fn default() -> Self {
        Keeper { next_ms: 0, expired: VecDeque::new(), revoking: 0, waiting: BTreeMap::new() }
    }
}

impl<T> Keeper<T> {
    /// A revocation was applied, or given up.
    pub fn revoke_done(&mut self) {
        self.revoking = self.revoking.saturating_sub(1);
    }

    /// Whether a revocation could be proposed now.
    pub fn is_behind(&self) -> bool {
        self.revoking < REVOKES_IN_FLIGHT && !self.expired.is_empty()
    }

    pub fn drain(&mut self) -> Vec<T> {
        std::mem::take(&mut self.waiting).into_values().flatten().map(|(ticket, _)| ticket).collect()
    }
}

impl<T> Member<T> {
    /// A leader that was deposed and does not know it would promise a TTL that its successor knows nothing of, and one that
    /// has not applied all that is committed does not know the newest leases: both are found out as for a linearizable read
    /// (etcd `ensureLeadership`, `waitAppliedIndex`).
    pub(super) fn ask_lessor(&mut self, ticket: T, who: &Who, request: Request) -> Result<(), (T, api::Error)> {
        if self.is_leaderless() {
            return Err((ticket, api::Error::NoLeader));
        }
        if self.leads.is_none() {
            if let Request::LeaseKeepAlive(r) = &request
                && let Err(e) = access::check_renewal(who, r.id, &self.applied)
            {
                return Err((ticket, e));
            }
            self.out.push(Output::Forward { ticket, who: who.clone(), request });
            return Ok(());
        }
        if let (true, Request::LeaseKeepAlive(r)) = (failpoint::mutant!("renewalUnconfirmed"), &request) {
            self.keep_alive(ticket, who, r.id);
            return Ok(());
        }
        self.read(ticket, who, request)
    }

    /// This member led when the last round of reads began, and has applied what was committed then.
    pub(super) fn keep_alive(&mut self, ticket: T, who: &Who, lease: i64) {
        if let Err(e) = access::check_renewal(who, lease, &self.applied) {
            return self.reply(ticket, Err(e));
        }
        let renewal = self.lessor.renew(lease, self.now_ms);
        if matches!(renewal, Renewal::Renewed { .. }) {
            self.tally.leases_renewed += 1;
            failpoint::point!("beforeCheckpointInLeaseRenew");
        }
        match renewal {
            Renewal::Renewed { clear_checkpoint: true, .. } if self.config.lease_checkpoint => {
                let checkpoints = vec![pb::LeaseCheckpoint { id: lease, remaining_ttl: 0 }];
                let request = pb::LeaseCheckpointRequest { checkpoints };
                self.propose_as(Waiter::Renew(ticket, lease), |q| q.lease_checkpoint = Some(request));
            }
            Renewal::Renewed { ttl, .. } => self.answer_keep_alive(ticket, lease, ttl),
            Renewal::Unknown => self.answer_keep_alive(ticket, lease, 0),
            Renewal::Expired => self.leases.waiting.entry(lease).or_default().push((ticket, who.clone())),
            // It was deposed just now: the next leader is asked.
            Renewal::NotPrimary => self.forward_keep_alive(ticket, who.clone(), lease),
        }
    }

    fn forward_keep_alive(&mut self, ticket: T, who: Who, id: i64) {
        let request = Request::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id });
        self.out.push(Output::Forward { ticket, who, request });
    }

    /// This member no longer leads. Whoever waits for the end of a lease may find that its successor goes on with it (etcd
    /// `demotec`).
    pub(super) fn demote_lessor(&mut self) {
        self.lessor.demote();
        self.leases.expired.clear();
        for (lease, waiting) in std::mem::take(&mut self.leases.waiting) {
            waiting.into_iter().for_each(|(ticket, who)| self.forward_keep_alive(ticket, who, lease));
        }
    }

    pub(super) fn renew_after_checkpoint(&mut self, ticket: T, lease: i64) {
        let ttl = match self.lessor.renew(lease, self.now_ms) {
            Renewal::Renewed { ttl, .. } => ttl,
            Renewal::Unknown | Renewal::Expired | Renewal::NotPrimary => 0,
        };
        self.answer_keep_alive(ticket, lease, ttl);
    }

    fn answer_keep_alive(&mut self, ticket: T, id: i64, ttl: i64) {
        let response = pb::LeaseKeepAliveResponse { header: Some(self.applied.header()), id, ttl };
        self.reply(ticket, Ok(Response::LeaseKeepAlive(response)));
    }

    /// As [`Member::keep_alive`].
    pub(super) fn time_to_live(&mut self, ticket: T, who: &Who, request: &pb::LeaseTimeToLiveRequest) {
        let asked = Request::LeaseTimeToLive(*request);
        if self.leads.is_none() {
            return self.out.push(Output::Forward { ticket, who: who.clone(), request: asked });
        }
        // Who may see the keys may have changed since it was asked.
        if let Err(e) = access::check_admission(who, &asked, &self.applied) {
            return self.reply(ticket, Err(e));
        }
        failpoint::point!("beforeLookupWhenLeaseTimeToLive");
        let id = request.id;
        let header = Some(self.applied.header());
        let response = match (self.applied.lease(id), self.lessor.time_to_live(id, self.now_ms)) {
            (Some(lease), Some(ttl)) => {
                let keys = if request.keys { lease.keys() } else { Vec::new() };
                pb::LeaseTimeToLiveResponse { header, id, ttl, granted_ttl: lease.ttl(), keys }
            }
            _ => pb::LeaseTimeToLiveResponse { header, id, ttl: -1, granted_ttl: 0, keys: Vec::new() },
        };
        self.reply(ticket, Ok(Response::LeaseTimeToLive(response)));
    }

    pub(super) fn list_leases(&mut self, ticket: T) -> Result<(), (T, api::Error)> {
        let leases = self.lessor.leases().into_iter().map(|id| pb::LeaseStatus { id }).collect();
        let response = pb::LeaseLeasesResponse { header: Some(self.applied.header()), leases };
        self.reply(ticket, Ok(Response::LeaseLeases(response)));
        Ok(())
    }

    pub(super) fn lease_revoked(&mut self, id: i64) {
        self.lessor.revoke(id);
        for (ticket, _) in self.leases.waiting.remove(&id).unwrap_or_default() {
            self.answer_keep_alive(ticket, id, 0);
        }
    }

    /// Looks for what expired.
    pub(super) fn tick_leases(&mut self) {
        if self.leads.is_none() {
            return;
        }
        if self.now_ms >= self.leases.next_ms {
            self.leases.next_ms = self.now_ms + EXPIRY_INTERVAL_MS;
            let room = EXPIRY_BATCH.saturating_sub(self.leases.expired.len());
            let expired = self.lessor.expired(self.now_ms, room);
            self.tally.leases_expired += expired.len() as u64;
            self.leases.expired.extend(expired);
            self.propose_checkpoints();
        }
    }

    /// Proposes revocations of what expired, some with each turn. Only a leader does, and only into its own log: the
    /// proposal can't outlive the leadership it rests on.
    pub(super) fn propose_revocations(&mut self) {
        while self.leads.is_some()
            && self.leases.is_behind()
            && let Some(id) = self.leases.expired.pop_front()
        {
            self.leases.revoking += 1;
            let request = pb::LeaseRevokeRequest { id };
            let root = self.applied.auth().root_claim();
            self.propose_claiming(root, Waiter::Internal(Internal::Revoke(id)), |q| q.lease_revoke = Some(request));
        }
    }

    fn propose_checkpoints(&mut self) {
        if !self.config.lease_checkpoint {
            return;
        }
        let due = self.lessor.checkpoints_due(self.now_ms);
        for batch in due.chunks(CHECKPOINT_BATCH) {
            let checkpoints =
                batch.iter().map(|&(id, remaining_ttl)| pb::LeaseCheckpoint { id, remaining_ttl }).collect();
            let request = pb::LeaseCheckpointRequest { checkpoints };
            self.propose_internal(Internal::Checkpoint, |q| q.lease_checkpoint = Some(request));
        }
    }
}
