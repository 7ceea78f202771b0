//! Asynchronous storage writes: several under way, completed late, overtaken by terms. And synchronous ones.

use crate::lab::*;
use api::raft::{Message, MessageType};
use raft::{LOCAL_APPLY_THREAD, RawNode};

/// A leader's entries, each of `term`, behind `(index, log_term)`.
fn append(leader: u64, term: u64, index: u64, log_term: u64, count: u64) -> Message {
    let entries = (index + 1..=index + count).map(|i| entry(term, i)).collect();
    Message { index, log_term, entries, ..from(leader, MessageType::MsgApp, term) }
}

/// The one append handed out.
fn handed_out(raw: &mut RawNode) -> Message {
    let messages = raw.ready().messages;
    only(&messages, MessageType::MsgStorageAppend).pop().expect("an append")
}

#[test]
fn several_appends_are_under_way_and_complete_in_order() {
    let mut raw = voters(&[1, 2, 3]).build();
    let mut appends = Vec::new();
    for index in 0..3 {
        raw.step(append(2, 1, index, if index == 0 { 0 } else { 1 }, 1)).expect("not refused");
        appends.push(handed_out(&mut raw));
    }
    assert!(!raw.has_ready(), "nothing is handed out twice");
    for (at, a) in (1..).zip(appends) {
        assert_eq!(a.entries.len(), 1);
        let acks = deliver(&mut raw, a.responses);
        assert_eq!((acks.len(), acks[0].index), (1, at));
        assert_eq!(raw.storage().last_index(), at);
    }
}

#[test]
fn a_completion_of_an_older_term_counts_for_a_snapshot_but_not_for_entries() {
    let mut raw = voters(&[1, 2, 3]).build();
    raw.step(append(2, 1, 0, 0, 2)).expect("not refused");
    let old = handed_out(&mut raw);
    raw.step(append(3, 2, 0, 0, 2)).expect("not refused");
    let new = handed_out(&mut raw);
    deliver(&mut raw, old.responses);
    assert_eq!(raw.storage().last_index(), 0, "entries of the same indexes took their place");
    deliver(&mut raw, new.responses);
    assert_eq!((raw.storage().last_index(), raw.storage().term(2)), (2, Some(2)));

    let mut raw = voters(&[1, 2, 3]).build();
    let snap = Message { snapshot: Some(snapshot(1, 9, &[1, 2, 3])), ..from(2, MessageType::MsgSnap, 1) };
    raw.step(snap).expect("not refused");
    let old = handed_out(&mut raw);
    raw.step(from(3, MessageType::MsgHeartbeat, 2)).expect("not refused");
    deliver(&mut raw, old.responses);
    assert_eq!(raw.storage().first_index(), 10, "a snapshot is committed, whatever the term");
}

#[test]
fn a_completion_in_the_same_term_counts_only_if_the_entry_is_still_there() {
    // 1, then 2, then 1's entries again: leaders of terms 1 and 2 wrote, and term 3's leader overwrote.
    let mut raw = voters(&[1, 2, 3]).build();
    raw.step(append(2, 1, 0, 0, 1)).expect("not refused");
    let first = handed_out(&mut raw);
    raw.step(append(3, 3, 0, 0, 1)).expect("not refused");
    let mut faked = first.responses.into_iter().find(|m| m.kind == MessageType::MsgStorageAppendResp).expect("one");
    faked.term = 3;
    raw.step(faked).expect("not refused");
    assert_eq!(raw.storage().last_index(), 0, "another entry stands there");
}

#[test]
fn an_entry_is_applied_only_when_it_is_committed_and_durable() {
    let mut raw = voters(&[1, 2, 3]).build();
    raw.step(Message { commit: 2, ..append(2, 1, 0, 0, 2) }).expect("not refused");
    let messages = raw.ready().messages;
    assert_eq!(commit(&raw), 2);
    assert!(messages.iter().all(|m| m.to != LOCAL_APPLY_THREAD), "committed, but not durable here");
    deliver(&mut raw, messages.into_iter().flat_map(|m| m.responses).collect());
    let apply = raw.ready().messages.into_iter().find(|m| m.to == LOCAL_APPLY_THREAD).expect("durable now");
    assert_eq!(apply.entries.len(), 2);
    assert_eq!(raw.basic_status().applied, 0);
    deliver(&mut raw, apply.responses);
    assert_eq!(raw.basic_status().applied, 2);
}

#[test]
fn no_more_is_handed_to_apply_than_its_limit_until_something_is_applied() {
    let mut raw = voters(&[1]).with(|c| c.max_committed_size_per_ready = 30).leading();
    (0..5).for_each(|_| raw.propose(vec![7; 20].into()).expect("it leads"));
    let append = raw.ready().messages.remove(0);
    deliver(&mut raw, append.responses);
    let mut sizes = Vec::new();
    while raw.has_ready() {
        let mut messages = raw.ready().messages;
        messages.retain(|m| m.to == LOCAL_APPLY_THREAD);
        assert_eq!(messages.len(), 1);
        assert!(!raw.has_ready(), "one part at a time");
        let apply = messages.remove(0);
        sizes.push(apply.entries.len());
        deliver(&mut raw, apply.responses);
    }
    assert_eq!(sizes, [1, 1, 1, 1, 1]);
    assert_eq!(raw.basic_status().applied, 6);
}

#[test]
fn a_commit_index_alone_need_not_be_synced() {
    let mut raw = voters(&[1, 2, 3]).terms(&[1, 1]).build();
    step(&mut raw, from(2, MessageType::MsgHeartbeat, 1));
    raw.step(Message { commit: 2, ..from(2, MessageType::MsgHeartbeat, 1) }).expect("not refused");
    let ready = raw.ready();
    assert!(!ready.must_sync);
    let append = only(&ready.messages, MessageType::MsgStorageAppend).remove(0);
    assert_eq!((append.term, append.commit), (1, 2), "it is stored all the same");
}

#[test]
fn a_hard_state_that_did_not_change_is_not_stored_again() {
    let mut raw = voters(&[1]).leading();
    raw.propose("x".into()).expect("it leads");
    let append = handed_out(&mut raw);
    assert_eq!((append.term, append.vote, append.commit), (0, 0, 0));
}

#[test]
fn a_restart_that_applied_more_than_its_stored_commit_index_stores_it() {
    let mut storage = raft::MemoryStorage::new();
    let hard_state = api::raft::HardState { term: 1, vote: 1, commit: 1 };
    storage.restore(snapshot(1, 3, &[1]), hard_state);
    let config = raft::Config { id: 1, applied: 3, ..raft::Config::default() };
    let mut raw = RawNode::new(config, storage).expect("sound");
    assert_eq!(handed_out(&mut raw).commit, 3);
}

#[test]
fn a_log_that_lost_committed_or_applied_entries_is_refused() {
    let build = |commit, applied| {
        let mut storage = raft::MemoryStorage::new();
        storage.restore(snapshot(1, 3, &[1]), api::raft::HardState { term: 1, vote: 1, commit });
        RawNode::new(raft::Config { id: 1, applied, ..raft::Config::default() }, storage).err()
    };
    assert!(build(9, 3).is_some_and(|e| e.contains("lost entries")));
    assert!(build(3, 9).is_some_and(|e| e.contains("is applied")));
    assert_eq!(build(3, 3), None);
}

#[test]
fn settings_out_of_range_are_refused() {
    let refused = |change: fn(&mut raft::Config)| {
        let mut config = raft::Config { id: 1, ..raft::Config::default() };
        change(&mut config);
        RawNode::new(config, raft::MemoryStorage::new()).is_err()
    };
    assert!(!refused(|_| ()));
    assert!(refused(|c| c.id = 0));
    assert!(refused(|c| c.id = u64::MAX));
    assert!(refused(|c| c.heartbeat_tick = 0));
    assert!(refused(|c| c.election_tick = 1));
    assert!(refused(|c| c.max_inflight_msgs = 0));
    assert!(refused(|c| (c.read_only, c.check_quorum) = (raft::ReadOnlyOption::LeaseBased, false)));
}

#[test]
fn synchronous_readys_carry_their_work_themselves() {
    let mut raw = voters(&[1]).with(|c| c.async_storage_writes = false).build();
    raw.campaign();
    let mut applied = 0;
    while raw.has_ready() {
        let ready = raw.ready();
        assert_eq!(ready.messages, []);
        applied += ready.committed_entries.len();
        raw.advance();
    }
    assert_eq!((raw.leader(), applied, raw.storage().last_index()), (1, 1, 1));
}

#[test]
fn no_log_line_is_made_unless_asked_for() {
    let lines = |level| {
        let mut raw = voters(&[1]).with(|c| c.log_level = level).leading();
        raw.take_logs().into_iter().map(|l| l.text).collect::<Vec<_>>()
    };
    assert_eq!(lines(None), [] as [String; 0]);
    assert_eq!(lines(Some(raft::LogLevel::Warn)), [] as [String; 0]);
    assert!(lines(Some(raft::LogLevel::Info)).contains(&"1 became leader at term 1".to_owned()));
}
