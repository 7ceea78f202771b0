//! One turn of the member, and what must be true of everything that comes out of it.

use super::asks::Call;
use super::{MEMBER_ID, TIMEOUT_MS, World};
use crate::ops::Op;
use crate::verdict::{self, Evidence, Outcome};
use server::{Fatal, Output, Response};
use std::collections::BTreeMap;
use store::Change;

impl World {
    /// Lets the member work and checks what comes out. A fatal error is a crash of the process.
    pub(super) fn work(&mut self) -> Result<(), String> {
        if self.disk.crashed() {
            // The member may have taken it for a failed defragmentation; but the power is gone.
            return self.died(&Fatal::new("the power is gone"));
        }
        let now = self.now_ms;
        let (Some(member), Some(log)) = (&mut self.member, &mut self.log) else { return Err("no member".into()) };
        match member.tick(now).and_then(|()| member.turn_with(log)) {
            Ok(()) => self.take_outputs(),
            Err(e) => self.died(&e),
        }
    }

    fn take_outputs(&mut self) -> Result<(), String> {
        let Some(member) = &mut self.member else { return Err("no member".into()) };
        let mut outputs = Vec::new();
        let newest = member.applied().clone();
        member.take_outputs(&mut outputs);
        let changes = self.sort(&mut outputs)?;
        let evidence = Evidence {
            applied: &newest,
            changes,
            clocks: &self.clocks,
            now_ms: self.now_ms,
            quota: self.plan.quota > 0,
            full: self.full,
            lagging: self.plan.unwritten_bytes < usize::MAX,
            crashed: false,
            member_id: MEMBER_ID,
            timeout_ms: TIMEOUT_MS,
        };
        let asked: Vec<_> = self.asked.drain(..).collect();
        let before = self.model.lease_ids();
        self.model = match verdict::explain(&self.model, &asked, &evidence) {
            Ok((model, _)) => model,
            // The state can't be looked at: what was answered is held against what comes back.
            Err(e) if self.disk.crashed() => {
                self.asked = asked.into();
                return self.died(&Fatal::new(e));
            }
            Err(e) => return Err(e),
        };
        self.report.expired += before.iter().filter(|id| self.model.lease(**id).is_none()).count() as u64;
        self.clocks.follow(&self.model, self.now_ms);
        self.worked_ms = self.now_ms;
        if let Some(id) = self.clocks.overdue(self.now_ms) {
            return Err(format!("lease {id} should have been revoked: {:?}", self.clocks.left(id, self.now_ms)));
        }
        for asked in asked {
            self.answered(asked);
        }
        for output in outputs {
            self.deliver(output)?;
        }
        if let (Some(streams), Some(member)) = (&mut self.streams, &self.member) {
            streams.mend(member.applied());
        }
        Ok(())
    }

    /// Gives asked operations their answers and takes what was published aside. No answer may precede the
    /// publication of what it tells.
    fn sort(&mut self, outputs: &mut Vec<Output<u64>>) -> Result<BTreeMap<i64, Change>, String> {
        let mut changes = BTreeMap::new();
        let mut published = self.model.revision;
        for output in std::mem::take(outputs) {
            match output {
                Output::Published { ref applied, changes: ref new } => {
                    published = published.max(applied.revision());
                    changes.extend(new.iter().map(|c| (c.revision, c.clone())));
                    outputs.push(output);
                }
                Output::Reply { ticket, result } => {
                    if let Some(revision) = result.as_ref().ok().and_then(header_revision).filter(|r| *r > published) {
                        return Err(format!("{ticket} was answered at {revision}, published is only {published}"));
                    }
                    match self.asked.iter_mut().find(|a| a.ticket == ticket) {
                        Some(asked) if asked.reply.is_none() => asked.reply = Some(result),
                        Some(_) => return Err(format!("{ticket} is answered twice")),
                        None => outputs.push(Output::Reply { ticket, result }),
                    }
                }
                _ => outputs.push(output),
            }
        }
        Ok(changes)
    }

    /// An operation went through the log; a physical compaction may still be waiting for its deletions.
    fn answered(&mut self, asked: verdict::Asked) {
        let ticket = asked.ticket;
        match &asked.reply {
            Some(Ok(_)) => self.report.acknowledged += 1,
            Some(Err(_)) => self.report.refused += 1,
            None => {
                let Op::Compact(r) = &asked.op else { return };
                self.calls.insert(ticket, Call::Physical { revision: r.revision });
            }
        }
        let reply = asked.reply.map(|r| r.map(|_| ()));
        self.say(|| format!("answer {ticket}: {reply:?}"));
    }

    pub(super) fn deliver(&mut self, output: Output<u64>) -> Result<(), String> {
        match output {
            Output::Reply { ticket, result } => self.check_reply(ticket, result),
            Output::Read { ticket, request, .. } => self.check_read(ticket, request),
            Output::Published { applied, changes } => {
                if let Some(streams) = &mut self.streams {
                    streams.publish(&applied, changes);
                }
                Ok(())
            }
            Output::Checkpoint(job) => {
                if self.job.is_some() || self.done.is_some() {
                    return Err("two checkpoints at once".into());
                }
                self.job = Some(job);
                self.frozen = self.model.clone();
                Ok(())
            }
            Output::Snapshot { ticket } => self.begin_image(ticket),
            Output::Note(text) => {
                self.say(|| text);
                Ok(())
            }
            Output::Serving | Output::MembersChanged | Output::Tokens(_) => Ok(()),
            Output::Removed
            | Output::Forward { .. }
            | Output::AskVersions
            | Output::SendSnapshot { .. }
            | Output::Replaced { .. } => Err("nobody was removed, and there is nobody else".into()),
        }
    }

    fn check_reply(&mut self, ticket: u64, result: Outcome) -> Result<(), String> {
        let Some(call) = self.calls.remove(&ticket) else { return Err(format!("an answer to nobody: {ticket}")) };
        self.say(|| format!("answer {ticket}: {result:?}"));
        self.check_call(&call, &result).map_err(|e| format!("{ticket} {call:?} answered {result:?}: {e}"))
    }
}

fn header_revision(response: &Response) -> Option<i64> {
    let header = match response {
        Response::Put(r) => &r.header,
        Response::DeleteRange(r) => &r.header,
        Response::Txn(r) => &r.header,
        Response::Compact(r) => &r.header,
        Response::LeaseGrant(r) => &r.header,
        Response::LeaseRevoke(r) => &r.header,
        _ => return None,
    };
    header.as_ref().map(|h| h.revision)
}
