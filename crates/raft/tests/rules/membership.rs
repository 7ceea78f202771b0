//! Members that come, learn, are promoted and go.

use crate::lab::*;
use api::raft::{ConfChange, ConfChangeKind, ConfState, Entry, EntryKind, Message, MessageType};
use raft::progress::ProgressState;
use raft::{Error, RawNode, Role};

fn change(kind: ConfChangeKind, node_id: u64) -> ConfChange {
    ConfChange { kind, node_id, ..ConfChange::default() }
}

/// Proposes, commits with the acknowledgements of `peers`, applies.
fn carry_out(raw: &mut RawNode, change: &ConfChange, peers: &[u64]) -> Vec<Message> {
    raw.propose_conf_change(change).expect("it leads");
    let mut sent = work(raw);
    for peer in peers {
        let acked = ack(raw, *peer, raw.last_index());
        sent.extend(step(raw, acked));
    }
    sent
}

#[test]
fn a_second_conf_change_becomes_an_empty_entry_while_one_is_unapplied() {
    let mut raw = voters(&[1]).leading();
    let update = change(ConfChangeKind::UpdateNode, 1);
    raw.propose_conf_change(&update).expect("it leads");
    raw.propose_conf_change(&update).expect("the entry is there, but empty");
    work(&mut raw);
    let kinds: Vec<_> = raw.storage().entries(2, 4, u64::MAX).iter().map(|e| e.kind).collect();
    assert_eq!(kinds, [EntryKind::ConfChange, EntryKind::Normal]);
    raw.propose_conf_change(&update).expect("it leads");
    work(&mut raw);
    assert_eq!(raw.storage().entries(4, 5, u64::MAX)[0].kind, EntryKind::ConfChange, "applied by now");
}

#[test]
fn a_new_leader_waits_until_everything_before_its_term_is_applied() {
    let mut raw = voters(&[1, 2, 3]).terms(&[1, 1]).commit(1).leading();
    raw.propose_conf_change(&change(ConfChangeKind::AddNode, 4)).expect("it leads");
    let acked = ack(&raw, 2, raw.last_index());
    step(&mut raw, acked);
    assert_eq!(raw.storage().entries(4, 5, u64::MAX)[0].kind, EntryKind::Normal, "entry 2 might be a conf change");
}

#[test]
fn a_new_member_begins_at_the_last_index_and_counts_as_active() {
    let mut raw = voters(&[1]).guarded().terms(&[1, 1]).commit(2).leading();
    carry_out(&mut raw, &change(ConfChangeKind::AddNode, 2), &[]);
    let p = progress(&raw, 2);
    assert_eq!((p.state, p.next, p.match_index, p.recent_active), (ProgressState::Probe, 4, 0, true));
    ticks(&mut raw, ELECTION_TICK);
    assert_eq!(raw.basic_status().role, Role::Leader, "its first quorum check forgives the silence");
}

#[test]
fn a_promoted_learner_keeps_its_progress() {
    let mut raw = voters(&[1]).learners(&[2]).leading();
    let acked = ack(&raw, 2, 1);
    step(&mut raw, acked);
    carry_out(&mut raw, &change(ConfChangeKind::AddNode, 2), &[]);
    let p = progress(&raw, 2);
    assert_eq!((p.state, p.match_index, p.is_learner), (ProgressState::Replicate, 1, false));
}

#[test]
fn a_learners_acknowledgement_commits_nothing() {
    let mut raw = voters(&[1, 2, 3]).learners(&[4]).leading();
    let acked = ack(&raw, 4, 1);
    step(&mut raw, acked);
    assert_eq!(commit(&raw), 0);
}

#[test]
fn applying_a_removal_may_commit_more_and_tells_everybody() {
    let mut raw = voters(&[1, 2, 3, 4]).leading();
    for peer in [2, 3] {
        let acked = ack(&raw, peer, 1);
        step(&mut raw, acked);
    }
    raw.propose_conf_change(&change(ConfChangeKind::RemoveNode, 4)).expect("it leads");
    raw.propose("x".into()).expect("it leads");
    work(&mut raw);
    for (peer, index) in [(2, 3), (3, 2)] {
        let acked = ack(&raw, peer, index);
        let sent = step(&mut raw, acked);
        if peer == 3 {
            assert_eq!(commit(&raw), 3, "with three voters, two are enough for entry 3");
            assert!(sent.iter().any(|m| m.to == 2 && m.commit == 3), "{sent:?}");
        }
    }
}

#[test]
fn a_removed_leader_leads_on_without_counting_itself_and_takes_no_proposals() {
    let mut raw = voters(&[1, 2, 3]).leading();
    carry_out(&mut raw, &change(ConfChangeKind::RemoveNode, 1), &[2]);
    assert_eq!(raw.basic_status().role, Role::Leader);
    assert_eq!(raw.propose("x".into()), Err(Error::ProposalDropped));
    raw.tick();
    assert_eq!(only(&work(&mut raw), MessageType::MsgHeartbeat).len(), 2, "its followers learn of the commit");
    let mut raw = voters(&[1, 2, 3]).with(|c| c.step_down_on_removal = true).leading();
    carry_out(&mut raw, &change(ConfChangeKind::RemoveNode, 1), &[2]);
    assert_eq!(raw.basic_status().role, Role::Follower);
}

#[test]
fn a_transfer_to_a_removed_member_is_given_up() {
    let mut raw = voters(&[1, 2, 3]).leading();
    raw.propose_conf_change(&change(ConfChangeKind::RemoveNode, 3)).expect("it leads");
    work(&mut raw);
    raw.transfer_leader(3);
    let acked = ack(&raw, 2, raw.last_index());
    step(&mut raw, acked);
    assert_eq!(raw.basic_status().transferee, 0);
}

#[test]
fn node_0_and_updates_change_nothing() {
    let mut raw = voters(&[1, 2]).build();
    for c in [change(ConfChangeKind::RemoveNode, 0), change(ConfChangeKind::UpdateNode, 7)] {
        assert_eq!(raw.apply_conf_change(&c).map(|s| s.voters), Ok(vec![1, 2]));
    }
}

#[test]
fn the_last_voter_can_not_be_removed() {
    let mut raw = voters(&[1]).build();
    assert_eq!(raw.apply_conf_change(&change(ConfChangeKind::RemoveNode, 1)), Err("removed all voters".into()));
    assert!(raw.member_config().voters.contains(1), "nothing changed");
}

#[test]
fn responses_of_strangers_are_refused() {
    let mut raw = voters(&[1, 2]).leading();
    for kind in [MessageType::MsgAppResp, MessageType::MsgHeartbeatResp, MessageType::MsgVoteResp] {
        let message = from(9, kind, term(&raw));
        assert_eq!(raw.step(message), Err(Error::PeerNotFound));
    }
}

#[test]
fn a_conf_change_that_nobody_could_read_is_refused_whole() {
    let mut raw = voters(&[1]).leading();
    let broken = Entry { kind: EntryKind::ConfChange, data: "\u{7f}".into(), ..Entry::default() };
    let entries = vec![Entry { data: "x".into(), ..Entry::default() }, broken];
    let proposal = Message { entries, ..from(2, MessageType::MsgProp, 0) };
    assert_eq!(raw.step(proposal), Err(Error::Malformed));
    assert_eq!(raw.last_index(), 1);
}

/// A follower with three entries of term 1, all committed, gets a snapshot at 9.
fn restore(conf_state: ConfState) -> (RawNode, Message) {
    let mut raw = voters(&[1, 2, 3]).terms(&[1, 1, 1]).commit(3).build();
    let mut image = snapshot(1, 9, &[]);
    image.metadata.conf_state = conf_state;
    let snap = Message { snapshot: Some(image), ..from(2, MessageType::MsgSnap, 1) };
    let answer = step(&mut raw, snap).remove(0);
    (raw, answer)
}

#[test]
fn a_snapshot_takes_the_logs_place_and_brings_its_configuration() {
    let (raw, answer) = restore(ConfState { voters: vec![1, 2, 4], ..ConfState::default() });
    assert_eq!((answer.kind, answer.index), (MessageType::MsgAppResp, 9));
    assert_eq!((raw.storage().first_index(), raw.last_index(), commit(&raw)), (10, 9, 9));
    assert_eq!(raw.basic_status().applied, 9);
    assert_eq!(raw.member_config().voters.ids(), [1, 2, 4]);
}

#[test]
fn a_snapshot_whose_configuration_lacks_this_node_is_refused_but_one_that_demotes_it_is_taken() {
    let (raw, answer) = restore(ConfState { voters: vec![2, 3], ..ConfState::default() });
    assert_eq!((answer.index, commit(&raw)), (3, 3));
    let (raw, answer) = restore(ConfState { voters: vec![2, 3], learners: vec![1], ..ConfState::default() });
    assert_eq!((answer.index, commit(&raw)), (9, 9));
    assert!(raw.member_config().learners.contains(&1));
}

#[test]
fn an_old_snapshot_is_ignored_and_one_of_what_is_in_the_log_only_commits() {
    let old = |index, terms: &[u64], commit| {
        let mut raw = voters(&[1, 2, 3]).terms(terms).commit(commit).build();
        let snap = Message { snapshot: Some(snapshot(1, index, &[1, 2, 3])), ..from(2, MessageType::MsgSnap, 1) };
        let answer = step(&mut raw, snap).remove(0);
        (answer.index, raw.storage().first_index())
    };
    assert_eq!(old(2, &[1, 1, 1], 3), (3, 1), "old");
    assert_eq!(old(3, &[1, 1, 1, 1], 1), (3, 1), "it fast-forwards the commit index and keeps the log");
}
