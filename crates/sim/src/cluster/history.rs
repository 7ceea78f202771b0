//! What the cluster agreed on: one log, and the state behind each of its entries, by the model.
//!
//! The first member that applies an entry says what it is; every other member must apply the same one. Answers, reads,
//! states and events are then held against the model at that index: nothing is left to be guessed.

use super::Report;
use crate::model::{Claim, Model};
use crate::ops::Op;
use crate::verdict::Outcome;
use api::pb::etcdserverpb as pb;
use api::raft::{Entry, EntryKind};
use prost::Message as _;
use server::Request;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// An entry that a member applied.
#[derive(Debug)]
pub struct Committed {
    pub entry: Entry,
    /// Who asked for it; 0 for entries of raft's own and changes of membership.
    pub id: u64,
    pub op: Option<Op>,
    /// As whom it is asked for.
    pub claim: Claim,
    /// What the model says of it.
    pub outcome: Option<Outcome>,
    /// A client was told of it.
    pub claimed: bool,
}

/// The log, from index 1 on.
#[derive(Debug)]
pub struct History {
    log: Vec<Committed>,
    /// At each index, beginning with 0.
    models: Vec<Rc<Model>>,
    /// Requests by id: none is applied twice.
    ids: BTreeSet<u64>,
    /// Values of puts that were refused: they are unique, and must never be seen.
    refused: BTreeSet<bytes::Bytes>,
    /// What else members agree on, by index, as the first of them had it.
    prints: BTreeMap<u64, String>,
    /// The newest change of membership.
    changed_at: u64,
}

impl Default for History {
    fn default() -> Self {
        History {
            log: Vec::new(),
            models: vec![Rc::default()],
            ids: BTreeSet::new(),
            refused: BTreeSet::new(),
            prints: BTreeMap::new(),
            changed_at: 0,
        }
    }
}

impl History {
    pub fn last_index(&self) -> u64 {
        self.log.len() as u64
    }

    /// Where the newest change of membership is.
    pub fn changed_at(&self) -> u64 {
        self.changed_at
    }

    pub fn newest(&self) -> &Rc<Model> {
        self.models.last().expect("the first is there from the beginning")
    }

    /// The state behind the entry.
    pub fn model(&self, index: u64) -> Option<&Rc<Model>> {
        self.models.get(usize::try_from(index).ok()?)
    }

    pub fn at(&self, index: u64) -> Option<&Committed> {
        self.log.get(usize::try_from(index.checked_sub(1)?).ok()?)
    }

    /// A member applied the entry: the first that does so adds it.
    ///
    /// # Errors
    /// Another member applied something else, or the request was applied before.
    pub fn applied(&mut self, entry: &Entry) -> Result<bool, String> {
        if let Some(known) = self.at(entry.index) {
            return match known.entry == *entry {
                true => Ok(false),
                false => Err(format!("state machine safety: {entry:?} where {:?} was applied", known.entry)),
            };
        }
        if entry.index != self.last_index() + 1 {
            return Err(format!("{entry:?} was applied, nobody applied what is before it: {}", self.last_index()));
        }
        let Decoded { id, claim, op, cluster_version } = decode(entry)?;
        if id != 0 && !self.ids.insert(id) {
            return Err(format!("the request {id:x} is applied a second time, by {entry:?}"));
        }
        if let Some(Op::Put(r)) = &op
            && self.refused.contains(&r.value)
        {
            return Err(format!("its client was told that this was not proposed: {op:?}"));
        }
        if entry.kind != EntryKind::Normal {
            self.changed_at = entry.index;
        }
        let mut model = Model::clone(self.newest());
        if cluster_version.is_some() {
            model.cluster_version = cluster_version;
        }
        let outcome = op.as_ref().map(|op| model.apply_as(op, &claim, entry.index));
        self.models.push(Rc::new(model));
        self.log.push(Committed { entry: entry.clone(), id, op, claim, outcome, claimed: false });
        Ok(true)
    }

    /// What the log says of a run.
    pub fn sum_up(&self, report: &mut Report) {
        for ((committed, before), model) in self.log.iter().zip(&self.models).zip(&self.models[1..]) {
            let ok = committed.outcome.as_ref().is_some_and(Result::is_ok);
            report.lowered += u64::from(model.cluster_version < before.cluster_version);
            report.raised +=
                u64::from(before.cluster_version.is_some() && model.cluster_version > before.cluster_version);
            report.downgrades += u64::from(model.downgrade.is_some() && before.downgrade.is_none());
            report.auth_changes += u64::from(model.auth.revision > before.auth.revision);
            report.auth_enabled += u64::from(model.auth.enabled && !before.auth.enabled);
            match committed.outcome {
                Some(Err(api::Error::PermissionDenied | api::Error::UserEmpty)) => report.forbidden_at_apply += 1,
                Some(Err(api::Error::AuthOldRevision)) => report.outdated += 1,
                _ => {}
            }
            match &committed.op {
                Some(Op::Txn(_)) if !ok => report.failed_txns += 1,
                Some(Op::Compact(r)) if ok => {
                    report.compactions += 1;
                    let deletes = model.happenings(r.revision).iter().any(|h| h.delete);
                    report.compacted_deletes += u64::from(deletes);
                }
                Some(Op::Alarm(r)) if r.action == pb::alarm_request::AlarmAction::Activate as i32 => report.alarms += 1,
                _ => {}
            }
        }
    }

    /// A client was told that this was not proposed.
    pub fn refuse(&mut self, op: &Op) {
        if let Op::Put(r) = op
            && !r.value.is_empty()
        {
            self.refused.insert(r.value.clone());
        }
    }

    /// What members agree on besides the model's state.
    ///
    /// # Errors
    /// They don't.
    pub fn agree(&mut self, index: u64, print: String) -> Result<(), String> {
        let known = self.prints.entry(index).or_insert_with(|| print.clone());
        match *known == print {
            true => Ok(()),
            false => Err(format!("behind entry {index} one member has {known}, another {print}")),
        }
    }

    /// The entry that a member's answer tells of: not told before, in `range`, with the member's `prefix` of ids.
    pub fn claim(
        &mut self,
        range: std::ops::RangeInclusive<u64>,
        prefix: u64,
        op: &Op,
        fits: impl Fn(&Outcome, &Claim) -> bool,
    ) -> Option<u64> {
        for index in range {
            let found = self.log.get_mut((index as usize).checked_sub(1)?)?;
            let is_it = !found.claimed && found.id >> 48 == prefix & 0xffff && found.op.as_ref() == Some(op);
            if is_it && found.outcome.as_ref().is_some_and(|outcome| fits(outcome, &found.claim)) {
                found.claimed = true;
                return Some(index);
            }
        }
        None
    }
}

/// What an entry asks for.
#[derive(Default)]
struct Decoded {
    id: u64,
    claim: Claim,
    /// What the model makes of it.
    op: Option<Op>,
    cluster_version: Option<String>,
}

fn decode(entry: &Entry) -> Result<Decoded, String> {
    if entry.kind != EntryKind::Normal || entry.data.is_empty() {
        return Ok(Decoded::default());
    }
    let r = pb::InternalRaftRequest::decode(entry.data.clone()).map_err(|e| format!("{entry:?}: {e}"))?;
    let header = r.header.clone().unwrap_or_default();
    let id = if header.id == 0 { r.id } else { header.id };
    let claim = Claim { user: header.username, revision: header.auth_revision };
    let op = r
        .put
        .map(Op::Put)
        .or(r.delete_range.map(Op::Delete))
        .or(r.txn.map(Op::Txn))
        .or(r.compaction.map(Op::Compact))
        .or(r.lease_grant.map(|g| Op::Grant { id: g.id, ttl: g.ttl }))
        .or(r.lease_revoke.map(|r| Op::Revoke { id: r.id }))
        .or(r.alarm.map(Op::Alarm));
    let auth = r
        .authenticate
        .map(Request::AssignToken)
        .or(r.auth_enable.map(Request::AuthEnable))
        .or(r.auth_disable.map(Request::AuthDisable))
        .or(r.auth_status.map(Request::AuthStatus))
        .or(r.auth_user_add.map(Request::UserAdd))
        .or(r.auth_user_get.map(Request::UserGet))
        .or(r.auth_user_list.map(Request::UserList))
        .or(r.auth_user_delete.map(Request::UserDelete))
        .or(r.auth_user_change_password.map(Request::UserChangePassword))
        .or(r.auth_user_grant_role.map(Request::UserGrantRole))
        .or(r.auth_user_revoke_role.map(Request::UserRevokeRole))
        .or(r.auth_role_add.map(Request::RoleAdd))
        .or(r.auth_role_get.map(Request::RoleGet))
        .or(r.auth_role_list.map(Request::RoleList))
        .or(r.auth_role_delete.map(Request::RoleDelete))
        .or(r.auth_role_grant_permission.map(Request::RoleGrantPermission))
        .or(r.auth_role_revoke_permission.map(Request::RoleRevokePermission));
    let downgrade = r.downgrade_info_set.map(|r| {
        use pb::downgrade_request::DowngradeAction;
        let action = if r.enabled { DowngradeAction::Enable } else { DowngradeAction::Cancel };
        Op::Downgrade(pb::DowngradeRequest { action: action as i32, version: r.ver })
    });
    let op = op.or(auth.map(|request| Op::Auth(Box::new(request)))).or(downgrade);
    Ok(Decoded { id, claim, op, cluster_version: r.cluster_version_set.map(|r| r.ver) })
}
