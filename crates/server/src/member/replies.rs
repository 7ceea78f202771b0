//! What follows from an applied entry: the waiter's answer, and the effects on the member's other rooms.

use super::{Internal, Member, Output, Waiter};
use crate::{Fatal, Response, TokenChange};
use api::pb::etcdserverpb as pb;
use store::{Effect, Reply};

/// Physical compactions that wait, and the pace of the one that runs.
#[derive(Debug)]
pub struct Compacting<T> {
    running: bool,
    next_ms: u64,
    /// Clients that wait until the deletion up to their revision is done …
    waiting: Vec<Physical<T>>,
    /// … until a checkpoint begins that holds the deletions …
    deleted: Vec<Physical<T>>,
    /// … and until it is durable.
    serving: Vec<Physical<T>>,
}

/// Records of a compaction that a turn looks at if it is in time: about 0.3 ms, since everything else waits meanwhile.
const SLICE: u64 = 100;

/// The pace of `batch` records every `sleep_ms`, in smaller steps: records a step, and ms from one to the next.
fn slice(batch: u64, sleep_ms: u64) -> (u64, u64) {
    if sleep_ms == 0 || batch == 0 {
        return (batch, sleep_ms);
    }
    let pause_ms = (SLICE * sleep_ms).div_ceil(batch).clamp(1, sleep_ms);
    ((batch * pause_ms).div_ceil(sleep_ms), pause_ms)
}

type Physical<T> = (T, Result<pb::CompactionResponse, api::Error>);

impl<T> Default for Compacting<T> {
    fn default() -> Self {
        Compacting { running: false, next_ms: 0, waiting: Vec::new(), deleted: Vec::new(), serving: Vec::new() }
    }
}

impl<T> Compacting<T> {
    /// When the next batch may run; far away when nothing is to be compacted.
    pub fn due_ms(&self) -> u64 {
        if self.running { self.next_ms } else { u64::MAX }
    }

    pub fn start(&mut self, now_ms: u64) {
        self.running = true;
        self.next_ms = now_ms;
    }

    pub fn drain(&mut self) -> Vec<T> {
        let queues = [&mut self.waiting, &mut self.deleted, &mut self.serving];
        queues.into_iter().flat_map(std::mem::take).map(|(ticket, ..)| ticket).collect()
    }

    /// A checkpoint is frozen now: what is deleted by now is in it.
    pub fn frozen(&mut self) {
        self.serving.append(&mut self.deleted);
    }
}

impl<T> Member<T> {
    /// Answers who waits for request `id`.
    pub(super) fn settle(&mut self, id: u64, reply: Result<Reply, api::Error>) {
        let waiter = self.pending.take(id);
        if reply == Err(api::Error::NoSpace) && !self.store.alarmed(pb::AlarmType::Nospace) {
            return self.raise_nospace(waiter.and_then(Waiter::ticket));
        }
        match waiter {
            None => {}
            Some(Waiter::Client(ticket)) => self.answer(ticket, reply),
            Some(Waiter::Physical(ticket)) => self.answer_physical(ticket, reply),
            Some(Waiter::NoSpace(ticket)) => self.reply(ticket, Err(api::Error::NoSpace)),
            Some(Waiter::Renew(ticket, lease)) => self.renew_after_checkpoint(ticket, lease),
            Some(Waiter::Internal(what)) => self.settle_internal(what, &reply),
        }
    }

    /// An entry went over the quota when it was applied: the alarm is raised, and then its client is told. Entries
    /// that are only replayed raise nothing: what followed them is in the log, too.
    fn raise_nospace(&mut self, ticket: Option<T>) {
        match ticket {
            Some(ticket) => self.refuse_for_space(ticket),
            None if self.raft.leader() == 0 => {}
            None => {
                let alarm = self.nospace_alarm();
                self.propose_internal(Internal::Alarm, |q| q.alarm = Some(alarm));
            }
        }
    }

    /// Deletions go on: the answer, be it an error, comes when the last is on disk.
    fn answer_physical(&mut self, ticket: T, reply: Result<Reply, api::Error>) {
        match reply {
            Ok(Reply::Compact { response, .. }) => self.compaction.waiting.push((ticket, Ok(response))),
            Err(api::Error::Compacted) if self.compaction.running => {
                self.compaction.waiting.push((ticket, Err(api::Error::Compacted)));
            }
            other => self.answer(ticket, other),
        }
    }

    fn answer(&mut self, ticket: T, reply: Result<Reply, api::Error>) {
        let result = match reply {
            Ok(Reply::Compact { response, .. }) => Ok(Response::Compact(response)),
            Ok(Reply::Put(r)) => Ok(Response::Put(r)),
            Ok(Reply::Range(r)) => Ok(Response::Range(r)),
            Ok(Reply::DeleteRange(r)) => Ok(Response::DeleteRange(r)),
            Ok(Reply::Txn(r)) => Ok(Response::Txn(r)),
            Ok(Reply::LeaseGrant(r)) => Ok(Response::LeaseGrant(r)),
            Ok(Reply::LeaseRevoke(r)) => Ok(Response::LeaseRevoke(r)),
            Ok(Reply::Alarm(r)) => Ok(Response::Alarm(r)),
            Ok(Reply::AuthEnable(r)) => Ok(Response::AuthEnable(r)),
            Ok(Reply::AuthDisable(r)) => Ok(Response::AuthDisable(r)),
            Ok(Reply::AuthStatus(r)) => Ok(Response::AuthStatus(r)),
            Ok(Reply::AuthUserAdd(r)) => Ok(Response::UserAdd(r)),
            Ok(Reply::AuthUserGet(r)) => Ok(Response::UserGet(r)),
            Ok(Reply::AuthUserList(r)) => Ok(Response::UserList(r)),
            Ok(Reply::AuthUserDelete(r)) => Ok(Response::UserDelete(r)),
            Ok(Reply::AuthUserChangePassword(r)) => Ok(Response::UserChangePassword(r)),
            Ok(Reply::AuthUserGrantRole(r)) => Ok(Response::UserGrantRole(r)),
            Ok(Reply::AuthUserRevokeRole(r)) => Ok(Response::UserRevokeRole(r)),
            Ok(Reply::AuthRoleAdd(r)) => Ok(Response::RoleAdd(r)),
            Ok(Reply::AuthRoleGet(r)) => Ok(Response::RoleGet(r)),
            Ok(Reply::AuthRoleList(r)) => Ok(Response::RoleList(r)),
            Ok(Reply::AuthRoleDelete(r)) => Ok(Response::RoleDelete(r)),
            Ok(Reply::AuthRoleGrantPermission(r)) => Ok(Response::RoleGrantPermission(r)),
            Ok(Reply::AuthRoleRevokePermission(r)) => Ok(Response::RoleRevokePermission(r)),
            Ok(Reply::Authenticate { response, auth_revision }) => {
                Ok(Response::TokenAssigned { response, auth_revision })
            }
            Ok(Reply::Downgrade) => Ok(Response::Downgrade(self.downgrade_response())),
            Ok(Reply::LeaseCheckpoint | Reply::MemberAttr | Reply::ClusterVersion | Reply::Empty) => {
                Err(api::Error::Other("etcdserver: no client asks for this".into()))
            }
            Err(e) => Err(e),
        };
        self.reply(ticket, result);
    }

    fn settle_internal(&mut self, what: Internal, reply: &Result<Reply, api::Error>) {
        match what {
            Internal::Publish => self.published(),
            Internal::Revoke(_) => self.leases.revoke_done(),
            Internal::Compaction(revision) => {
                let done = matches!(reply, Ok(_) | Err(api::Error::Compacted));
                if let (true, Some(compactor)) = (done, &mut self.compactor) {
                    compactor.compacted(revision, self.now_ms);
                }
            }
            Internal::ClusterVersion | Internal::Checkpoint | Internal::Alarm => {}
        }
    }

    pub(super) fn follow(&mut self, effects: Vec<Effect>) -> Result<(), Fatal> {
        for effect in effects {
            match effect {
                Effect::LeaseGranted { id, ttl } => self.lessor.grant(id, ttl, self.now_ms),
                Effect::LeaseRevoked { id } => self.lease_revoked(id),
                Effect::LeaseCheckpointed { id, remaining } => self.lessor.checkpointed(id, remaining),
                Effect::CompactionScheduled { .. } => self.compaction.start(self.now_ms),
                Effect::AlarmsChanged => {}
                Effect::TokenAssigned { user, token } => self.tell_of_tokens(TokenChange::Assigned { user, token }),
                Effect::TokensOfUserDropped { user } => self.tell_of_tokens(TokenChange::OfUserDropped { user }),
                Effect::TokensDropped => self.tell_of_tokens(TokenChange::AllDropped),
                Effect::ClusterVersionChanged { from, to } => self.cluster_version_changed(from.as_deref(), &to),
                Effect::EmptyEntry => self.first_entry_of_term(),
            }
        }
        Ok(())
    }

    fn tell_of_tokens(&mut self, change: TokenChange) {
        self.out.push(Output::Tokens(change));
    }

    /// The leader's no-op of its term is applied: leases count from here.
    fn first_entry_of_term(&mut self) {
        if self.raft.leader() == self.member_id {
            self.lessor.promote(self.now_ms, self.config.tick_ms * self.config.election_ticks);
        }
    }

    pub(super) fn tick_autocompaction(&mut self) {
        let revision = self.applied.revision();
        let Some(compactor) = &mut self.compactor else { return };
        if let Some(target) = compactor.poll(self.now_ms, revision, self.leads.is_some()) {
            let request = pb::CompactionRequest { revision: target, physical: false };
            self.propose_internal(Internal::Compaction(target), |q| q.compaction = Some(request));
        }
    }

    /// Runs the next batch of deletions when its pause is over.
    pub(super) fn tick_compaction(&mut self) -> Result<(), Fatal> {
        if self.compaction.running && self.now_ms >= self.compaction.next_ms {
            let batch = self.config.compaction_batch;
            let (records, pause_ms) = slice(batch as u64, self.config.compaction_sleep_ms);
            // Turns that take longer than a pause make up for it, by one more step at most: what is late because the processor
            // is short must not take more of it.
            let late = (self.now_ms - self.compaction.next_ms) / pause_ms.max(1);
            let records = records.saturating_mul(1 + late.min(1)).min(batch as u64);
            let progress = self.store.compaction_step(batch, records as usize)?;
            self.compaction.running = !progress.done;
            self.compaction.next_ms = self.now_ms + if progress.pause { pause_ms } else { 0 };
            if progress.done {
                self.publish_compaction();
            }
        }
        Ok(())
    }

    fn publish_compaction(&mut self) {
        let Compacting { waiting, deleted, .. } = &mut self.compaction;
        deleted.append(waiting);
        self.checkpointing.force |= !deleted.is_empty();
        self.publish();
    }

    /// The checkpoint that was frozen last is durable.
    pub(super) fn settle_physical_compactions(&mut self) {
        for (ticket, result) in std::mem::take(&mut self.compaction.serving) {
            self.reply(ticket, result.map(Response::Compact));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::slice;

    #[test]
    fn a_compactions_batch_is_cut_where_its_pace_stays() {
        assert_eq!(slice(1000, 10), (100, 1));
        assert_eq!(slice(1000, 15), (134, 2));
        assert_eq!(slice(1000, 19), (106, 2));
        assert_eq!(slice(600, 10), (120, 2));
        assert_eq!(slice(10_000, 10), (1000, 1), "the clock has no finer step");
        assert_eq!(slice(1000, 100), (100, 10));
        assert_eq!(slice(8, 10), (8, 10));
        assert_eq!(slice(1000, 0), (1000, 0));
        assert_eq!(slice(0, 10), (0, 10));
    }
}
