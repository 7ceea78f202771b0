//! `--force-new-cluster`: a member goes on alone with what it has, when the others are lost for good (etcd
//! `bootstrapWALFromSnapshot`).
//!
//! ```text
//! log      … │ committed │ tail: perhaps │  →  … │ committed, with the tail │ this one becomes a voter │ all others removed
//! ```
//! The log goes on with entries that remove all others; they count as committed. Ids of member and cluster stay. A learner is
//! promoted first: a configuration without voters is none.
//!
//! etcd drops the tail, what the log does not know to be committed. But a log learns of a commit with what follows it: after a
//! power cut the last acknowledged writes are in the tail of every member. So it is kept. Who wrote what was never committed
//! was told nothing, or that it may have happened. Only the removal of this very member, if the log does not know it to be
//! committed, ends the tail.

use crate::Fatal;
use api::raft::{ConfChange, ConfChangeKind, ConfState, Entry, EntryKind, HardState};
use std::collections::{BTreeMap, BTreeSet};
use wal::{Replay, Wal};

/// What the log is read against.
pub(super) struct Known<'a> {
    pub own: u64,
    /// Of the local member, in case the log does not know it.
    pub peer_urls: &'a [String],
    /// Configuration at `index`.
    pub conf: &'a ConfState,
    /// The consistent index of the page store: up to here everything is committed.
    pub index: u64,
    pub removed: bool,
}

/// Members and whether they are learners, as entries change them.
#[derive(Clone)]
struct Roll {
    members: BTreeMap<u64, bool>,
    removed: BTreeSet<u64>,
}

impl Roll {
    fn new(conf: &ConfState) -> Roll {
        let voters = conf.voters.iter().map(|id| (*id, false));
        let learners = conf.learners.iter().map(|id| (*id, true));
        Roll { members: voters.chain(learners).collect(), removed: BTreeSet::new() }
    }

    fn take(&mut self, entry: &Entry) -> Result<(), Fatal> {
        if entry.kind != EntryKind::ConfChange {
            return Ok(());
        }
        let change = ConfChange::decode(entry.data.clone())
            .map_err(|e| Fatal::new(format!("log entry {} holds a bad conf change: {e}", entry.index)))?;
        let id = change.node_id;
        match change.kind {
            ConfChangeKind::RemoveNode => {
                self.members.remove(&id);
                self.removed.insert(id);
            }
            ConfChangeKind::AddNode | ConfChangeKind::AddLearnerNode if self.removed.contains(&id) => {}
            ConfChangeKind::AddNode => {
                self.members.insert(id, false);
            }
            ConfChangeKind::AddLearnerNode => {
                self.members.entry(id).or_insert(true);
            }
            ConfChangeKind::UpdateNode => {}
        }
        Ok(())
    }
}

/// Makes the local member the only one of its cluster: in the log, durably, and in what was read of it.
///
/// # Errors
/// This member was removed, its log can't be read, or the disk failed.
pub(super) fn new_cluster(wal: &mut Wal, replay: &mut Replay, known: &Known<'_>) -> Result<(), Fatal> {
    let (state, added) = plan(replay, known)?;
    if added.is_empty() && state == replay.hard_state {
        return Ok(());
    }
    let first_added = added.first().map_or(u64::MAX, |entry| entry.index);
    let kept =
        replay.entries.iter().take_while(|entry| entry.index <= state.commit && entry.index < first_added).count();
    tracing::info!(
        "local-member-id" = format!("{:x}", known.own),
        "wal-commit-index" = replay.hard_state.commit,
        "commit-index" = state.commit,
        "number-of-discarded-entries" = replay.entries.len() - kept,
        "forcing restart member"
    );
    wal.append(&state, &added)?;
    wal.sync()?;
    replay.entries.truncate(kept);
    replay.entries.extend(added);
    replay.hard_state = state;
    Ok(())
}

/// The hard state to go on with, and the entries to append behind what is committed.
fn plan(replay: &Replay, known: &Known<'_>) -> Result<(HardState, Vec<Entry>), Fatal> {
    let mut roll = Roll::new(known.conf);
    let mut commit = replay.hard_state.commit.max(known.index);
    let unseen = replay.entries.iter().filter(|entry| entry.index > known.index);
    for entry in unseen {
        let known_to_be = entry.index <= commit;
        let before = roll.clone();
        roll.take(entry)?;
        if !known_to_be && roll.removed.contains(&known.own) {
            roll = before;
            break;
        }
        commit = commit.max(entry.index);
    }
    if known.removed || roll.removed.contains(&known.own) {
        return Err(Fatal::new(format!(
            "--force-new-cluster: member {:x} was removed from its cluster, so it can't go on alone: start one that was not \
             removed, or restore a snapshot (etcdutl snapshot restore)",
            known.own
        )));
    }
    let changes = becoming_voter(&roll, known).into_iter().chain(removals(&roll, known.own));
    let term = replay.hard_state.term;
    let entry = |(n, change): (u64, ConfChange)| Entry {
        term,
        index: commit + n,
        kind: EntryKind::ConfChange,
        data: change.encode().into(),
    };
    let added: Vec<Entry> = (1..).zip(changes).map(entry).collect();
    let commit = added.last().map_or(commit, |entry| entry.index);
    Ok((HardState { commit, ..replay.hard_state }, added))
}

fn change(kind: ConfChangeKind, node_id: u64, context: String) -> ConfChange {
    ConfChange { id: 0, kind, node_id, context: context.into() }
}

fn becoming_voter(roll: &Roll, known: &Known<'_>) -> Option<ConfChange> {
    let context = match roll.members.get(&known.own) {
        Some(false) => return None,
        Some(true) => store::promotion_json(known.own),
        None => store::member_json(known.own, known.peer_urls, ""),
    };
    Some(change(ConfChangeKind::AddNode, known.own, context))
}

fn removals(roll: &Roll, own: u64) -> impl Iterator<Item = ConfChange> {
    let others = roll.members.keys().copied().filter(move |id| *id != own);
    others.map(|id| change(ConfChangeKind::RemoveNode, id, String::new()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn entry(index: u64, change: Option<(ConfChangeKind, u64)>) -> Entry {
        let kind = if change.is_some() { EntryKind::ConfChange } else { EntryKind::Normal };
        let encode = |(kind, id)| super::change(kind, id, String::new()).encode();
        Entry { term: 2, index, kind, data: change.map(encode).unwrap_or_default().into() }
    }

    fn replay(commit: u64, changes: &[Option<(ConfChangeKind, u64)>]) -> Replay {
        let entries = (1..).zip(changes).map(|(index, change)| entry(index, *change)).collect();
        Replay { metadata: Bytes::new(), hard_state: HardState { term: 3, vote: 2, commit }, entries }
    }

    fn conf(voters: &[u64], learners: &[u64]) -> ConfState {
        ConfState { voters: voters.to_vec(), learners: learners.to_vec(), ..ConfState::default() }
    }

    /// Commit index, and the changes as `index kind id`.
    fn planned(replay: &Replay, conf: &ConfState, index: u64) -> (u64, Vec<String>) {
        let known = Known { own: 1, peer_urls: &[], conf, index, removed: false };
        let (state, added) = plan(replay, &known).unwrap();
        assert_eq!((state.term, state.vote), (3, 2));
        let shown = |entry: &Entry| {
            let change = ConfChange::decode(entry.data.clone()).unwrap();
            format!("{} {:?} {}", entry.index, change.kind, change.node_id)
        };
        (state.commit, added.iter().map(shown).collect())
    }

    #[test]
    fn a_follower_removes_all_others_behind_what_it_has() {
        let log = replay(2, &[None; 4]);
        assert_eq!(
            planned(&log, &conf(&[1, 2, 3], &[4]), 0),
            (7, vec!["5 RemoveNode 2".into(), "6 RemoveNode 3".into(), "7 RemoveNode 4".into()])
        );
        // The page store may know more of what is committed than the hard state.
        assert_eq!(planned(&log, &conf(&[1, 2], &[]), 3), (5, vec!["5 RemoveNode 2".into()]));
    }

    #[test]
    fn its_own_removal_counts_only_if_it_is_known_to_be_committed() {
        let log = replay(1, &[None, None, Some((ConfChangeKind::RemoveNode, 1)), None]);
        assert_eq!(planned(&log, &conf(&[1, 2], &[]), 0), (3, vec!["3 RemoveNode 2".into()]));
    }

    #[test]
    fn a_learner_becomes_a_voter_first() {
        let changes = vec!["1 AddNode 1".into(), "2 RemoveNode 2".into()];
        assert_eq!(planned(&replay(0, &[]), &conf(&[2], &[1]), 0), (2, changes));
        // A promotion that is committed and not applied yet needs no other.
        let log = replay(1, &[Some((ConfChangeKind::AddNode, 1))]);
        assert_eq!(planned(&log, &conf(&[2], &[1]), 0), (2, vec!["2 RemoveNode 2".into()]));
    }

    #[test]
    fn members_that_came_and_went_in_the_log_are_counted() {
        let log = replay(
            3,
            &[
                Some((ConfChangeKind::AddNode, 4)),
                Some((ConfChangeKind::RemoveNode, 2)),
                Some((ConfChangeKind::AddLearnerNode, 5)),
                Some((ConfChangeKind::AddNode, 6)),
            ],
        );
        assert_eq!(
            planned(&log, &conf(&[1, 2], &[]), 0),
            (7, vec!["5 RemoveNode 4".into(), "6 RemoveNode 5".into(), "7 RemoveNode 6".into()])
        );
    }

    #[test]
    fn an_only_voter_keeps_all_that_it_has_written() {
        assert_eq!(planned(&replay(1, &[None; 4]), &conf(&[1], &[]), 0), (4, vec![]));
        let log = replay(1, &[None, None, Some((ConfChangeKind::AddNode, 2)), None]);
        assert_eq!(planned(&log, &conf(&[1], &[]), 0), (5, vec!["5 RemoveNode 2".into()]));
    }

    #[test]
    fn a_member_that_was_removed_stays_so() {
        let log = replay(1, &[Some((ConfChangeKind::RemoveNode, 1))]);
        let conf = conf(&[1, 2], &[]);
        let known = Known { own: 1, peer_urls: &[], conf: &conf, index: 0, removed: false };
        assert!(plan(&log, &known).unwrap_err().to_string().contains("was removed"));
        let log = replay(0, &[]);
        assert!(plan(&log, &Known { removed: true, ..known }).is_err());
    }
}
