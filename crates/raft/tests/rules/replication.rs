//! How a leader finds where logs agree, what it sends, and what it commits.

use crate::lab::*;
use api::raft::{Entry, Message, MessageType};
use raft::progress::ProgressState;

#[test]
fn a_rejection_hints_at_the_last_place_where_the_logs_can_agree() {
    // Our log's terms; the leader's previous entry (index, term); our hint (index, term).
    type Row = (&'static [u64], (u64, u64), (u64, u64));
    let table: [Row; 6] = [
        (&[1, 1, 1], (5, 1), (3, 1)),                   // too short
        (&[1, 1, 3, 3, 3], (5, 2), (2, 1)),             // a term the leader doesn't have is skipped
        (&[1, 3, 3, 3, 5, 5, 5, 5, 5], (9, 6), (9, 5)), // our last may well be in the leader's log
        (&[1, 2, 2, 2, 2], (4, 1), (1, 1)),
        (&[2, 2, 2], (2, 1), (0, 0)), // nothing agrees
        (&[], (3, 1), (0, 0)),
    ];
    for (terms, (index, log_term), hint) in table {
        let mut raw = voters(&[1, 2, 3]).terms(terms).build();
        let append = Message { index, log_term, ..from(2, MessageType::MsgApp, 9) };
        let answer = step(&mut raw, append).remove(0);
        assert!(answer.reject && answer.index == index, "{terms:?}");
        assert_eq!((answer.reject_hint, answer.log_term), hint, "{terms:?} asked for {log_term}/{index}");
    }
}

#[test]
fn a_leader_skips_its_own_terms_that_the_hint_rules_out() {
    // The leader's log before its term; the follower's hint; where it is probed next.
    let table: [(&[u64], (u64, u64), u64); 4] = [
        (&[1, 3, 3, 3, 5, 5, 5, 5, 5], (6, 2), 1),
        (&[1, 3, 3, 3, 5, 5, 5, 5, 5], (6, 4), 4),
        (&[1, 1, 1, 4, 4, 5, 5, 6, 6, 6], (7, 4), 5),
        (&[1, 1, 1], (2, 0), 2), // an old peer hints without a term
    ];
    for (terms, (reject_hint, log_term), index) in table {
        let mut raw = voters(&[1, 2, 3]).terms(terms).leading();
        let rejected = terms.len() as u64;
        let rejection = Message { index: rejected, reject: true, reject_hint, log_term, ..ack(&raw, 2, 0) };
        let probe = step(&mut raw, rejection).remove(0);
        assert_eq!((probe.kind, probe.index), (MessageType::MsgApp, index), "{terms:?} hint {reject_hint}");
    }
}

#[test]
fn a_late_rejection_or_acknowledgement_changes_nothing() {
    let mut raw = voters(&[1, 2, 3]).terms(&[1, 1, 1]).leading();
    let acked = ack(&raw, 2, 4);
    step(&mut raw, acked);
    let before = progress(&raw, 2);
    let old = Message { index: 3, reject: true, reject_hint: 1, log_term: 1, ..ack(&raw, 2, 0) };
    assert_eq!(step(&mut raw, old), []);
    let old = ack(&raw, 2, 2);
    assert_eq!(step(&mut raw, old), []);
    assert_eq!(progress(&raw, 2), before);
}

#[test]
fn a_leader_commits_by_counting_only_entries_of_its_own_term() {
    // Figure 8 of the Raft paper: entry 2 of term 2 is on a majority, but only entry 3 of this term commits it.
    let mut raw = voters(&[1, 2, 3, 4, 5]).terms(&[1, 2]).commit(1).leading();
    for peer in [2, 3] {
        let acked = ack(&raw, peer, 2);
        step(&mut raw, acked);
    }
    assert_eq!(commit(&raw), 1);
    for peer in [2, 3] {
        let acked = ack(&raw, peer, 3);
        step(&mut raw, acked);
    }
    assert_eq!(commit(&raw), 3);
}

#[test]
fn a_leader_counts_its_own_entry_only_when_it_is_durable() {
    let mut raw = voters(&[1, 2, 3]).leading();
    raw.propose("x".into()).expect("it leads");
    let ready = raw.ready();
    assert!(ready.messages.iter().any(|m| m.kind == MessageType::MsgStorageAppend));
    let acked = ack(&raw, 2, 1);
    raw.step(acked).expect("not refused");
    assert_eq!(commit(&raw), 1, "the first entry was durable here before");
    let mut raw = voters(&[1]).leading();
    raw.propose("x".into()).expect("it leads");
    let append = raw.ready().messages.remove(0);
    assert_eq!(commit(&raw), 1);
    deliver(&mut raw, append.responses);
    assert_eq!(commit(&raw), 2);
}

#[test]
fn a_heartbeat_carries_no_commit_index_beyond_what_the_follower_is_known_to_have() {
    let mut raw = voters(&[1, 2, 3]).terms(&[1, 1, 1]).commit(3).leading();
    let acked = ack(&raw, 2, 4);
    step(&mut raw, acked);
    raw.tick();
    let commits: Vec<_> = work(&mut raw).iter().map(|m| (m.to, m.commit)).collect();
    assert_eq!(commits, [(2, 4), (3, 0)]);
}

#[test]
fn a_follower_commits_no_further_than_the_message_vouches_for() {
    // Entries 2 and 3 may be another leader's; the message vouches for 1 only.
    let mut raw = voters(&[1, 2, 3]).terms(&[1, 1, 1]).build();
    let append = Message { index: 1, log_term: 1, commit: 3, ..from(2, MessageType::MsgApp, 2) };
    step(&mut raw, append);
    assert_eq!(commit(&raw), 1);
}

#[test]
fn an_append_behind_what_is_committed_is_acknowledged_without_a_look() {
    let mut raw = voters(&[1, 2, 3]).terms(&[1, 1, 1]).commit(3).build();
    let append = Message { index: 1, log_term: 1, entries: vec![entry(1, 2)], ..from(2, MessageType::MsgApp, 1) };
    assert_eq!(step(&mut raw, append)[0].index, 3);
}

#[test]
fn a_follower_overwrites_only_from_the_first_conflict_on() {
    let mut raw = voters(&[1, 2, 3]).terms(&[1, 1, 2, 2]).build();
    let same = Message { index: 1, log_term: 1, entries: vec![entry(1, 2)], ..from(2, MessageType::MsgApp, 3) };
    step(&mut raw, same);
    assert_eq!(raw.last_index(), 4, "a delayed message takes nothing away");
    let other = vec![entry(1, 2), entry(3, 3)];
    let other = Message { index: 1, log_term: 1, entries: other, ..from(2, MessageType::MsgApp, 3) };
    assert_eq!(step(&mut raw, other)[0].index, 3);
    assert_eq!((raw.last_index(), raw.last_term()), (3, 3));
}

#[test]
fn through_a_full_window_goes_one_empty_append_for_each_heartbeat_answer() {
    let mut raw = voters(&[1, 2, 3]).with(|c| c.max_inflight_msgs = 2).leading();
    let acked = ack(&raw, 2, 1);
    step(&mut raw, acked);
    (0..4).for_each(|_| raw.propose("x".into()).expect("it leads"));
    let sent: Vec<_> = work(&mut raw).into_iter().filter(|m| m.to == 2).collect();
    assert_eq!(only(&sent, MessageType::MsgApp).iter().filter(|m| !m.entries.is_empty()).count(), 2);
    assert!(progress(&raw, 2).is_paused());
    for _ in 0..2 {
        let alive = beat(&raw, 2);
        let sent = step(&mut raw, alive);
        assert!(sent.len() == 1 && sent[0].entries.is_empty(), "{sent:?}");
    }
    let acked = ack(&raw, 2, 2);
    assert_eq!(step(&mut raw, acked).iter().map(|m| m.entries.len()).sum::<usize>(), 2, "as soon as there is room");
}

#[test]
fn a_probed_follower_gets_one_message_until_it_answers() {
    let mut raw = voters(&[1, 2, 3]).leading();
    raw.propose("x".into()).expect("it leads");
    assert_eq!(work(&mut raw), [], "the first probe is out");
    let alive = beat(&raw, 2);
    assert_eq!(step(&mut raw, alive)[0].entries.len(), 2, "it may have been lost");
}

#[test]
fn an_unreachable_follower_is_probed() {
    let mut raw = voters(&[1, 2, 3]).leading();
    let acked = ack(&raw, 2, 1);
    step(&mut raw, acked);
    raw.propose("x".into()).expect("it leads");
    work(&mut raw);
    raw.report_unreachable(2);
    let p = progress(&raw, 2);
    assert_eq!((p.state, p.next), (ProgressState::Probe, 2));
}

/// Leads behind a compacted log; follower 2 rejected everything and was sent a snapshot at 3.
fn awaiting_snapshot() -> raft::RawNode {
    let mut raw = voters(&[1, 2, 3]).terms(&[1, 1, 1, 1, 1]).commit(5).leading();
    raw.storage_mut().set_snapshot(snapshot(1, 3, &[1, 2, 3]));
    raw.storage_mut().compact_behind(3, 0, usize::MAX);
    let rejection = Message { index: 5, reject: true, ..ack(&raw, 2, 0) };
    let sent = step(&mut raw, rejection);
    assert_eq!(sent[0].kind, MessageType::MsgSnap);
    raw
}

#[test]
fn an_acknowledgement_ends_the_wait_for_a_snapshot_once_the_log_goes_on_from_there() {
    // Acknowledged index, and whether the log that begins behind 3 goes on from it.
    for (index, resumes) in [(1, false), (2, false), (3, true), (4, true)] {
        let mut raw = awaiting_snapshot();
        let acked = ack(&raw, 2, index);
        step(&mut raw, acked);
        let state = progress(&raw, 2).state;
        assert_eq!(state == ProgressState::Replicate, resumes, "{index}: {state:?}");
    }
}

#[test]
fn a_reported_snapshot_leads_to_a_probe_behind_it_or_if_it_failed_behind_what_was_known() {
    for (arrived, next) in [(true, 4), (false, 1)] {
        let mut raw = awaiting_snapshot();
        raw.report_snapshot(2, arrived);
        let p = progress(&raw, 2);
        assert_eq!((p.state, p.next, p.is_paused()), (ProgressState::Probe, next, true));
    }
}

#[test]
fn no_snapshot_is_sent_to_a_follower_that_was_not_heard_of_or_from_which_the_log_can_not_go_on() {
    let mut raw = voters(&[1, 2, 3]).terms(&[1, 1, 1]).commit(3).leading();
    raw.storage_mut().set_snapshot(snapshot(1, 2, &[1, 2, 3]));
    raw.storage_mut().compact_behind(3, 0, usize::MAX);
    let rejection = Message { index: 3, reject: true, ..ack(&raw, 2, 0) };
    assert_eq!(step(&mut raw, rejection), [], "the snapshot at 2 is behind the log");
    raw.storage_mut().set_snapshot(snapshot(1, 3, &[1, 2, 3]));
    let alive = beat(&raw, 2);
    assert_eq!(only(&step(&mut raw, alive), MessageType::MsgSnap).len(), 1);
}

#[test]
fn a_proposal_goes_to_the_leader_or_is_dropped_if_none_is_known() {
    let mut raw = voters(&[1, 2, 3]).terms(&[1]).build();
    assert_eq!(raw.propose("x".into()), Err(raft::Error::ProposalDropped));
    step(&mut raw, from(2, MessageType::MsgHeartbeat, 1));
    raw.propose("x".into()).expect("sent on");
    let sent = work(&mut raw).remove(0);
    let expected = Message {
        to: 2,
        entries: vec![Entry { data: "x".into(), ..Entry::default() }],
        ..from(1, MessageType::MsgProp, 0)
    };
    assert_eq!(sent, expected);
}

#[test]
fn a_batch_of_proposals_goes_out_in_one_message_and_is_acknowledged_once() {
    let mut raw = voters(&[1, 2, 3]).leading();
    let acked = ack(&raw, 2, 1);
    step(&mut raw, acked);
    raw.propose_batch(["a", "b", "c"].map(Into::into)).expect("it leads");
    let messages = raw.ready().messages;
    let sent = only(&messages, MessageType::MsgApp);
    assert_eq!(sent.iter().map(|m| (m.to, m.entries.len())).collect::<Vec<_>>(), [(2, 3)]);
    let append = only(&messages, MessageType::MsgStorageAppend).remove(0);
    let acks: Vec<_> = only(&append.responses, MessageType::MsgAppResp).iter().map(|m| m.index).collect();
    assert_eq!(acks, [4]);
    assert_eq!(raw.propose_batch([]), Ok(()), "nothing is nothing");
}

#[test]
fn proposals_past_the_limit_of_what_is_uncommitted_are_dropped_until_something_is_applied() {
    let mut raw = voters(&[1]).with(|c| c.max_uncommitted_size = 10).leading();
    raw.propose("0123456789abcdef".into()).expect("a large one passes when nothing else is uncommitted");
    assert_eq!(raw.propose("y".into()), Err(raft::Error::ProposalDropped));
    work(&mut raw);
    assert_eq!(raw.propose("y".into()), Ok(()));
}

#[test]
fn messages_to_peers_keep_to_their_size() {
    let mut raw = voters(&[1, 2, 3]).with(|c| c.max_size_per_msg = 100).leading();
    (0..10).for_each(|_| raw.propose(vec![7; 40].into()).expect("it leads"));
    work(&mut raw);
    let acked = ack(&raw, 2, 1);
    let sent = only(&step(&mut raw, acked), MessageType::MsgApp);
    let sent: Vec<_> = sent.iter().filter(|m| m.to == 2 && !m.entries.is_empty()).map(|m| m.entries.len()).collect();
    assert_eq!(sent, [2, 2, 2, 2, 2], "a window full of them goes out");
}
